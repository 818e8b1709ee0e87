//! The command line of dead letters.

use std::io::Write;

use serde::Serialize;
use zentra_shared::config::Config;
use zentra_shared::control::Control;
use zentra_shared::event::DeliveryKey;
use zentra_shared::journal::{Delivery, What};

use super::{Choice, Desk, Done, Export, Tally};
use crate::backend::Backend;
use crate::cli::{DeadCommand, Letters};
use crate::control::{Asked, Audited};
use crate::failure::Failure;
use crate::list::List;
use crate::payload::Payload;
use crate::print_json;
use crate::text;

pub(crate) async fn command(
    config: &Config,
    backend: &impl Backend,
    command: DeadCommand,
) -> Result<(), Failure> {
    match command {
        DeadCommand::List { filter, limit, json } => {
            let names = crate::destinations(config, filter.destination.clone())?;
            let found = super::list(&backend.histories()?, &names, &filter, limit).await?;
            let mut out = text::stdout();
            if json {
                return print_json(&List::from(found), &mut out);
            }
            super::show(&found, &mut out)?;
            for (destination, letters) in
                crate::status::unlisted_letters(backend, config, &names).await
            {
                writeln!(
                    out,
                    "{letters} more in the dead-letter queue of {destination}: RabbitMQ gave them up, or a pass \
                     that was killed left them. See zentra dead requeue --destination {destination} --all"
                )?;
            }
            Ok(())
        }
        DeadCommand::Show { id, payload, json } => show(config, backend, &id, &payload, json).await,
        DeadCommand::Requeue { letters, why } => {
            requeue(config, backend, &letters, &What::Requeued { reason: why, job: None }).await
        }
        DeadCommand::Drain { letters, why, export, unredacted } => {
            let export = export.as_deref().map(|path| Export { path, unredacted });
            drain(config, backend, &letters, export, &why).await
        }
    }
}

async fn show(
    config: &Config,
    backend: &impl Backend,
    id: &str,
    payload: &Payload,
    json: bool,
) -> Result<(), Failure> {
    let (histories, queue) = (backend.histories()?, backend.queue().await?);
    let pairs = config.pairs();
    let desk = desk(config, &histories, &queue, &pairs, None)?;
    let found = desk.find(id).await?;
    let letter = desk.letter(&found.key).await;
    backend.close(queue).await;
    let letter = letter?;
    let mut out = text::stdout();
    match (letter, payload.body) {
        (Some(letter), true) => {
            let (source, body) = (&found.event.source, &letter.sealed.body);
            let seen = payload.seen(&histories, config, "dead show", id, source, body).await?;
            Ok(text::write_bytes(&seen, payload.raw)?)
        }
        (None, true) => Err(no_letter(&found.key)),
        (letter, false) if json => {
            let letter_bytes = letter.map(|letter| letter.sealed.body.len());
            print_json(&DeadLetter { delivery: &found, letter_bytes }, &mut out)
        }
        (letter, false) => {
            crate::event::show(&[found], &mut out)?;
            let words = match letter {
                Some(letter) => format!("{} bytes; see them with --body", letter.sealed.body.len()),
                None => "not in the dead-letter queue just now".into(),
            };
            Ok(writeln!(out, "letter     {words}")?)
        }
    }
}

/// A dead letter, as JSON.
#[derive(Serialize)]
struct DeadLetter<'a> {
    #[serde(flatten)]
    delivery: &'a Delivery,
    /// None: another operator holds it just now.
    letter_bytes: Option<usize>,
}

pub(crate) fn no_letter(key: &DeliveryKey) -> Failure {
    Failure::Asked(format!(
        "{key} is dead, but its letter isn't in the dead-letter queue.\nAnother operator may \
         hold it: try again."
    ))
}

/// Sends dead letters back to their work queues, and tells.
async fn requeue(
    config: &Config,
    backend: &impl Backend,
    letters: &Letters,
    what: &What,
) -> Result<(), Failure> {
    let done = requeued(config, backend, letters, what).await?;
    let mut out = text::stdout();
    match letters.json {
        true => print_json(&done.tally, &mut out),
        false => tell_requeued(&done, "re-queued", &mut out),
    }
}

pub(crate) fn tell_requeued(done: &Done, words: &str, out: &mut impl Write) -> Result<(), Failure> {
    match &done.last {
        Some((key, generation)) if done.tally.done == 1 => {
            Ok(writeln!(out, "{words} {key} as generation {generation}")?)
        }
        _ => Ok(super::tell(&done.tally, words, out)?),
    }
}

/// Sends dead letters back to their work queues.
pub(crate) async fn requeued(
    config: &Config,
    backend: &impl Backend,
    letters: &Letters,
    what: &What,
) -> Result<Done, Failure> {
    let (histories, queue) = (backend.histories()?, backend.queue().await?);
    let pairs = config.pairs();
    let desk = desk(config, &histories, &queue, &pairs, letters.filter.destination.clone())?;
    let (action, why) = match what {
        What::Released { reason } => ("event release", reason.as_str()),
        What::Requeued { reason, .. } => ("dead requeue", reason.as_str()),
        _ => ("dead requeue", ""),
    };
    let done = match choice(letters) {
        Ok(choice) => {
            let deed = desk.requeue(&choice, what, &letters.by);
            let result = |done: &Done| format!("{} of {}", done.tally.done, done.tally.looked);
            audited(&histories, action, letters, &choice, why).run(deed, result).await
        }
        Err(failure) => Err(failure),
    };
    // The dead letters' acknowledgements reach the broker before this ends.
    backend.close(queue).await;
    done
}

/// Takes dead letters out of their queues.
async fn drain(
    config: &Config,
    backend: &impl Backend,
    letters: &Letters,
    export: Option<Export<'_>>,
    why: &str,
) -> Result<(), Failure> {
    let tally = drained(config, backend, letters, export, why).await?;
    let mut out = text::stdout();
    match letters.json {
        true => print_json(&tally, &mut out),
        false => Ok(super::tell(&tally, "drained", &mut out)?),
    }
}

pub(crate) async fn drained(
    config: &Config,
    backend: &impl Backend,
    letters: &Letters,
    export: Option<Export<'_>>,
    why: &str,
) -> Result<Tally, Failure> {
    let (histories, queue) = (backend.histories()?, backend.queue().await?);
    let pairs = config.pairs();
    let desk = desk(config, &histories, &queue, &pairs, letters.filter.destination.clone())?;
    let done = match choice(letters) {
        Ok(choice) => {
            let deed = desk.drain(&choice, export, why, &letters.by);
            let result = |tally: &Tally| format!("{} of {}", tally.done, tally.looked);
            audited(&histories, "dead drain", letters, &choice, why).run(deed, result).await
        }
        Err(failure) => Err(failure),
    };
    backend.close(queue).await;
    done
}

/// Named letters are dealt with at once; chosen ones only by --yes.
fn choice(letters: &Letters) -> Result<Choice<'_>, Failure> {
    let Letters { ids, filter, all, limit, rate, dry_run, yes, .. } = letters;
    if ids.is_empty() && !all && filter.is_empty() {
        return Err(nothing_chosen());
    }
    let dry_run = *dry_run || (ids.is_empty() && !yes);
    Ok(Choice { ids, filter, limit: *limit, rate: *rate, dry_run })
}

pub(crate) fn nothing_chosen() -> Failure {
    Failure::Asked(
        "no dead letters are named or chosen.\nName some, or choose by --destination, --source, \
         --reason, --type, --older-than, --newer-than, or --all."
            .into(),
    )
}

fn audited<'a, C: Control>(
    control: &'a C,
    action: &'a str,
    letters: &Letters,
    choice: &Choice<'_>,
    because: &str,
) -> Audited<'a, C> {
    let filter = choice.filter.words();
    let on = match (&letters.ids[..], filter.as_str()) {
        ([], "") => "--all".to_owned(),
        ([], _) => filter,
        (ids, _) => ids.join(" "),
    };
    let asked = Asked { because: because.into(), by: letters.by.clone() };
    let control = (!choice.dry_run).then_some(control);
    Audited { control, action, on, said: asked.said() }
}

pub(crate) fn desk<'a, H, Q>(
    config: &'a Config,
    histories: &'a H,
    queue: &'a Q,
    pairs: &'a [(&'a str, &'a str)],
    destination: Option<String>,
) -> Result<Desk<'a, H, Q>, Failure> {
    let destinations = crate::destinations(config, destination)?;
    Ok(Desk { histories, queue, config, pairs, destinations })
}
