//! `zentra dead list`, `show`, `requeue` and `drain`, and `zentra event release`.

mod act;
mod command;
mod letters;

use std::collections::{BTreeSet, HashSet};
use std::io::Write;
use std::path::Path;

use zentra_shared::config::Config;
use zentra_shared::event::DeliveryKey;
use zentra_shared::journal::{Delivery, Histories, What};
use zentra_shared::lifecycle::{DeadReason, State};
use zentra_shared::queue::{Message, Operate, Place, Walk};
use zentra_shared::{clock, delivery};

use act::{Drain, export};

pub(crate) use act::Requeue;
pub(crate) use command::{
    command, desk, drained, no_letter, nothing_chosen, requeued, tell_requeued,
};
pub(crate) use letters::{Act, Filter, Letter, Pass, Tally};

use crate::event::{find, status, words};
use crate::failure::Failure;

/// The dead of these destinations that the filter takes, at most `limit` of each.
pub(crate) async fn list(
    histories: &impl Histories,
    destinations: &[String],
    filter: &Filter,
    limit: usize,
) -> Result<Vec<Delivery>, Failure> {
    let (mut found, scope) = (Vec::new(), filter.scope(clock::now()));
    for destination in destinations {
        let wanted = |dead: &Delivery| scope.takes(&dead.event, dead.reason);
        found.extend(histories.dead(destination, limit, &wanted).await?);
    }
    Ok(found)
}

/// Shows them to a person: one line each.
pub(crate) fn show(dead: &[Delivery], out: &mut impl Write) -> std::io::Result<()> {
    if dead.is_empty() {
        return writeln!(out, "no dead letters");
    }
    let width = dead.iter().map(|delivery| delivery.key.as_str().len()).max().unwrap_or(0);
    let head = ["DELIVERY", "REASON", "ATTEMPT", "SINCE", "LAST ANSWER"];
    let [delivery, reason, attempt, since, last] = head;
    writeln!(out, "{delivery:<width$}  {reason:<12} {attempt:<7} {since:<24}  {last}")?;
    for delivery in dead {
        let end = delivery.history.iter().rev().find_map(|entry| match &entry.what {
            What::Dead { result, .. } => Some((entry.at.to_string(), words(result))),
            _ => None,
        });
        let (since, last) = end.unwrap_or_default();
        let reason = delivery.reason.map_or("", |reason| reason.as_str());
        let (key, attempt) = (delivery.key.as_str(), delivery.record.attempt);
        writeln!(out, "{key:<width$}  {reason:<12} {attempt:<7} {since:<24}  {last}")?;
    }
    Ok(())
}

/// What commands on dead letters need.
pub(crate) struct Desk<'a, H, Q> {
    pub(crate) histories: &'a H,
    pub(crate) queue: &'a Q,
    pub(crate) config: &'a Config,
    /// Each destination with each source.
    pub(crate) pairs: &'a [(&'a str, &'a str)],
    /// The destinations that are looked at.
    pub(crate) destinations: Vec<String>,
}

/// Which letters, and how many of them.
pub(crate) struct Choice<'a> {
    /// Events or deliveries; none: by the filter.
    pub(crate) ids: &'a [String],
    pub(crate) filter: &'a Filter,
    pub(crate) limit: usize,
    pub(crate) rate: u32,
    pub(crate) dry_run: bool,
}

/// A file that letters are written to.
pub(crate) struct Export<'a> {
    pub(crate) path: &'a Path,
    /// Also what their sources redact.
    pub(crate) unredacted: bool,
}

/// What was done, and for one letter which.
pub(crate) struct Done {
    pub(crate) tally: Tally,
    pub(crate) last: Option<(String, u32)>,
}

impl<H: Histories, Q: Operate> Desk<'_, H, Q> {
    /// Sends letters back to their work queues: [`What::Requeued`], or [`What::Released`]
    /// for suspected replays.
    pub(crate) async fn requeue(
        &self,
        choice: &Choice<'_>,
        what: &What,
        by: &str,
    ) -> Result<Done, Failure> {
        let keys = self.keys(choice.ids, Some(what)).await?;
        let (histories, queue, config) = (self.histories, self.queue, self.config);
        let mut act = Requeue { histories, queue, config, by, what, last: None };
        let tally = self.run(choice, keys, &mut act).await?;
        Ok(Done { tally, last: act.last })
    }

    /// Takes letters out of the queues for good, into a file before if one is named.
    pub(crate) async fn drain(
        &self,
        choice: &Choice<'_>,
        to: Option<Export<'_>>,
        reason: &str,
        by: &str,
    ) -> Result<Tally, Failure> {
        let keys = self.keys(choice.ids, None).await?;
        let to = to.filter(|_| !choice.dry_run);
        let file = to.as_ref().map(|to| export(to.path)).transpose()?;
        let redacts = to.filter(|to| !to.unredacted).map(|_| self.config);
        let histories = self.histories;
        let mut act = Drain { histories, by, reason, file, redacts, waiting: Vec::new() };
        self.run(choice, keys, &mut act).await
    }

    /// The one delivery of this name that is dead.
    pub(crate) async fn find(&self, id: &str) -> Result<Delivery, Failure> {
        one_dead(find(self.histories, self.pairs, id).await?, id)
    }

    /// The bytes of one dead letter.
    pub(crate) async fn letter(&self, key: &DeliveryKey) -> Result<Option<Message>, Failure> {
        let destination = key.destination();
        let mut walk = self.queue.walk(Place::Dead(destination)).await?;
        while let Some((message, _held)) = walk.next().await? {
            if delivery::open(&self.config.seal, destination, &message.sealed).key == *key {
                walk.finish().await?;
                return Ok(Some(message));
            }
        }
        walk.finish().await?;
        Ok(None)
    }

    async fn run(
        &self,
        choice: &Choice<'_>,
        keys: HashSet<DeliveryKey>,
        act: &mut impl Act,
    ) -> Result<Tally, Failure> {
        let named = keys.len();
        let destinations = match keys.is_empty() {
            true => self.destinations.clone(),
            false => {
                let of_keys: BTreeSet<_> = keys.iter().map(|key| key.destination()).collect();
                of_keys.into_iter().map(str::to_owned).collect()
            }
        };
        let scope = choice.filter.scope(clock::now());
        let pass = Pass {
            histories: self.histories,
            queue: self.queue,
            sealer: &self.config.seal,
            destinations,
            scope: &scope,
            keys,
            limit: choice.limit,
            rate: choice.rate,
            dry_run: choice.dry_run,
        };
        let tally = pass.run(act).await?;
        match tally.done < named as u64 && choice.limit >= named {
            true => Err(Failure::Asked(format!(
                "{} of {named} dead letters were found in the dead-letter queues.\nAnother \
                 operator may hold the others: try again.",
                tally.done
            ))),
            false => Ok(tally),
        }
    }

    /// The deliveries that are named, each of them dead.
    async fn keys(
        &self,
        ids: &[String],
        what: Option<&What>,
    ) -> Result<HashSet<DeliveryKey>, Failure> {
        let mut keys = HashSet::new();
        for id in ids {
            let delivery = self.find(id).await?;
            fits(what, &delivery)?;
            keys.insert(delivery.key);
        }
        Ok(keys)
    }
}

/// What was set apart is released, not requeued; and only that.
fn fits(what: Option<&What>, delivery: &Delivery) -> Result<(), Failure> {
    let reason = delivery.reason.filter(|reason| reason.is_released());
    let key = &delivery.key;
    let found = match reason {
        Some(DeadReason::Conflict) => "in conflict: another body came before under the same id",
        _ => "a suspected replay: the same signed bytes came before",
    };
    match (what, reason) {
        (Some(What::Requeued { .. }), Some(_)) => Err(Failure::Asked(format!(
            "{key} is {found}.\n\
             If the provider meant it, release it with zentra event release {key} --reason …"
        ))),
        (Some(What::Released { .. }), None) => Err(Failure::Asked(format!(
            "{key} is dead, but neither a suspected replay nor in conflict.\n\
             Use zentra dead requeue {key}."
        ))),
        _ => Ok(()),
    }
}

/// Why letters that were chosen are left.
pub(crate) const UNSUITED: &str = "left: suspected replays and conflicts are released by zentra event \
    release; a letter that the journal does not know goes only where it is subscribed to";

/// Tells a person what a pass came to. `done` says what was done, as in "re-queued".
pub(crate) fn tell(tally: &Tally, done: &str, out: &mut impl Write) -> std::io::Result<()> {
    let would = if tally.dry_run { "would be " } else { "" };
    writeln!(out, "{} of {} dead letters {would}{done}", tally.done, tally.looked)?;
    for (of, count) in &tally.by {
        writeln!(out, "  {count:>7}  {of}")?;
    }
    if let Some(oldest) = tally.oldest {
        writeln!(out, "the oldest was received at {oldest}")?;
    }
    for (count, why) in [
        (tally.unsuited, UNSUITED),
        (tally.leftover, "had been dealt with before: only copies were left"),
        (tally.busy, "left: a worker is at them just now"),
    ] {
        if count > 0 {
            writeln!(out, "{count} {why}")?;
        }
    }
    if tally.dry_run {
        writeln!(out, "nothing was changed; do it with --yes")?;
    }
    Ok(())
}

fn one_dead(found: Vec<Delivery>, id: &str) -> Result<Delivery, Failure> {
    let (mut dead, alive): (Vec<_>, Vec<_>) =
        found.into_iter().partition(|delivery| delivery.record.state == State::Dead);
    match (dead.pop(), dead.as_slice()) {
        (Some(only), []) => Ok(only),
        (Some(last), others) => {
            let keys = others.iter().chain([&last]).map(|delivery| format!("  {}", delivery.key));
            let keys = keys.collect::<Vec<_>>().join("\n");
            Err(Failure::Asked(format!(
                "{id} is dead at several destinations:\n{keys}\nGive one of these delivery keys."
            )))
        }
        (None, _) => {
            let states = alive.iter().map(|d| format!("  {}: {}", d.key, status(d)));
            let states = states.collect::<Vec<_>>().join("\n");
            Err(Failure::Asked(format!(
                "{id} is not dead, so there is nothing to re-queue:\n{states}\n\
                 See zentra event show {id}."
            )))
        }
    }
}
