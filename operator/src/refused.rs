//! `zentra refused list`, `show` and `admit`.

use std::collections::BTreeMap;
use std::io::Write;

use serde::Serialize;
use utoipa::ToSchema;
use zentra_ingress::admit;
use zentra_ingress::keys::Keys;
use zentra_shared::clock::{self, Timestamp};
use zentra_shared::config::Config;
use zentra_shared::control::Control;
use zentra_shared::event::{self, Admitted};
use zentra_shared::queue::{Message, Operate, Place, Publish, Receipt, Walk};
use zentra_shared::refused::{Kept, MASKED};
use zentra_shared::seal::Sealer;
use zentra_shared::secret::Secret;
use zentra_shared::verify::{Scheme, Source, Unverified};

use crate::backend::Backend;
use crate::cli::RefusedCommand;
use crate::control::{Asked, Audited};
use crate::failure::Failure;
use crate::list::List;
use crate::look::each;
use crate::print_json;
use crate::text;

pub(crate) async fn command(
    config: &Config,
    backend: &impl Backend,
    command: RefusedCommand,
) -> Result<(), Failure> {
    let queue = backend.queue().await?;
    let done = with(config, &queue, backend, command).await;
    backend.close(queue).await;
    done
}

async fn with(
    config: &Config,
    queue: &(impl Operate + Publish),
    backend: &impl Backend,
    command: RefusedCommand,
) -> Result<(), Failure> {
    let mut out = text::stdout();
    match command {
        RefusedCommand::List { source, reason, limit, json } => {
            let wanted = Wanted { ids: Vec::new(), source, reason };
            let found = list(queue, &config.seal, &wanted, limit).await?;
            let masked = |one| masked(one, &config.sources);
            let found: Vec<Found> = found.into_iter().map(masked).collect();
            match json {
                true => print_json(&List::from(found), &mut out),
                false => Ok(show_all(&found, &mut out)?),
            }
        }
        RefusedCommand::Show { id, payload, json } => {
            let wanted = Wanted { ids: vec![id.clone()], ..Wanted::default() };
            let found = list(queue, &config.seal, &wanted, 1).await?.pop();
            let found = masked(found.ok_or_else(|| no_refused(&id))?, &config.sources);
            let found = &found;
            match (json, payload.body) {
                (true, _) => print_json(found, &mut out),
                (_, true) => {
                    let (control, (source, body)) = (backend.histories()?, body(found));
                    let seen = payload.seen(&control, config, "refused show", &id, source, body);
                    Ok(text::write_bytes(&seen.await?, payload.raw)?)
                }
                _ => Ok(show(found, &config.sources, &mut out)?),
            }
        }
        RefusedCommand::Admit { ids, source, reason, limit, asked, dry_run, json } => {
            let named = ids.first().cloned();
            let wanted = Wanted { ids, source, reason };
            let control = backend.histories()?;
            let outcomes =
                admitted(config, queue, &control, &wanted, limit, dry_run, &asked).await?;
            let (none, all) = (outcomes.is_empty(), outcomes.iter().all(|one| one.admitted));
            match json {
                true => print_json(&List::from(outcomes), &mut out)?,
                false => show_outcomes(&outcomes, dry_run, &mut out)?,
            }
            match (named, all) {
                (Some(id), _) if none => Err(no_refused(&id)),
                (Some(_), false) => Err(Failure::Asked(
                    "not all were admitted.\nCheck the source's secrets in the config.".into(),
                )),
                _ => Ok(()),
            }
        }
    }
}

/// Lets refused callbacks in.
pub(crate) async fn admitted(
    config: &Config,
    queue: &(impl Operate + Publish),
    control: &impl Control,
    wanted: &Wanted,
    limit: usize,
    dry_run: bool,
    asked: &Asked,
) -> Result<Vec<Outcome>, Failure> {
    let (seal, sources) = (&config.seal, &config.sources);
    let audited = Audited {
        control: (!dry_run).then_some(control),
        action: "refused admit",
        on: wanted.words(),
        said: asked.said(),
    };
    let deed = admit(queue, seal, sources, wanted, limit, &asked.by, dry_run);
    let admitted = |all: &Vec<Outcome>| all.iter().filter(|one| one.admitted).count();
    audited.run(deed, |all| format!("{} of {}", admitted(all), all.len())).await
}

pub(crate) fn no_refused(id: &str) -> Failure {
    Failure::Asked(format!("no refused callback {id} is kept.\nSee zentra refused list."))
}

/// Which refused callbacks are meant.
#[derive(Clone, Default)]
pub(crate) struct Wanted {
    pub(crate) ids: Vec<String>,
    pub(crate) source: Option<String>,
    pub(crate) reason: Option<String>,
}

impl Wanted {
    /// As the command line has it.
    pub(crate) fn words(&self) -> String {
        let named = |name: &str, value: &Option<String>| {
            value.as_ref().map(|value| format!("--{name} {value}"))
        };
        let chosen = [named("source", &self.source), named("reason", &self.reason)];
        let words = self.ids.iter().cloned().chain(chosen.into_iter().flatten());
        words.collect::<Vec<_>>().join(" ")
    }

    fn fits(&self, kept: &Kept) -> bool {
        let same = |wanted: &Option<String>, is: &str| wanted.as_ref().is_none_or(|w| w == is);
        (self.ids.is_empty() || self.ids.contains(&kept.id))
            && same(&self.source, &kept.source)
            && same(&self.reason, &kept.reason)
    }
}

/// One that was found: what is kept of it, and its body.
#[derive(Serialize, ToSchema)]
#[schema(as = Refused)]
pub(crate) struct Found {
    #[serde(flatten)]
    kept: Kept,
    bytes: usize,
    body_sha256: String,
    #[serde(skip)]
    callback: Unverified,
}

/// Those that are wanted, oldest first, at most `limit`. Leaves them all in their place.
pub(crate) async fn list(
    queue: &impl Operate,
    sealer: &Sealer,
    wanted: &Wanted,
    limit: usize,
) -> Result<Vec<Found>, Failure> {
    let mut walk = queue.walk(Place::Refused).await?;
    let mut found = Vec::new();
    while found.len() < limit
        && let Some((message, _held)) = walk.next().await?
    {
        // What has no seal of ours is nobody's callback.
        if let Ok((kept, callback)) = Kept::open(sealer, &message.sealed)
            && wanted.fits(&kept)
        {
            let body_sha256 = event::body_sha256(&callback.body);
            found.push(Found { kept, bytes: callback.body.len(), body_sha256, callback });
        }
    }
    walk.finish().await?;
    Ok(found)
}

/// How many of the first `most` were received since then, by source and reason.
pub(crate) async fn count(
    queue: &impl Operate,
    sealer: &Sealer,
    most: usize,
    since: Timestamp,
) -> Result<BTreeMap<(String, String), u64>, Failure> {
    let mut counts = BTreeMap::new();
    let count = |message: &Message| {
        if let Ok((kept, _)) = Kept::open(sealer, &message.sealed)
            && kept.received_at >= since
        {
            *counts.entry((kept.source, kept.reason)).or_default() += 1;
        }
        false
    };
    each(queue, Place::Refused, most, count).await?;
    Ok(counts)
}

/// Shows them to a person: one line each.
pub(crate) fn show_all(found: &[Found], out: &mut impl Write) -> std::io::Result<()> {
    if found.is_empty() {
        return writeln!(out, "no refused callbacks are kept");
    }
    let width = found.iter().map(|found| found.kept.source.len()).max().unwrap_or(0).max(6);
    let (id, received, source, reason) = ("ID", "RECEIVED", "SOURCE", "REASON");
    writeln!(out, "{id:<20}  {received:<24}  {source:<width$}  {reason:<20}  BYTES")?;
    for Found { kept, bytes, .. } in found {
        let (id, received, source, reason) =
            (&kept.id, kept.received_at.to_string(), &kept.source, &kept.reason);
        writeln!(out, "{id:<20}  {received:<24}  {source:<width$}  {reason:<20}  {bytes}")?;
    }
    Ok(())
}

/// Shows one, without its signature: with the body, that could be sent again.
pub(crate) fn show(found: &Found, sources: &[Source], out: &mut impl Write) -> std::io::Result<()> {
    let kept = &found.kept;
    writeln!(out, "refused    {}", kept.id)?;
    writeln!(out, "source     {}", kept.source)?;
    writeln!(out, "reason     {}", kept.reason)?;
    let peer = kept.peer.map(|peer| format!(" from {peer}")).unwrap_or_default();
    writeln!(out, "received   {}{peer}", kept.received_at)?;
    writeln!(out, "body       {} bytes, sha256:{}", found.bytes, found.body_sha256)?;
    let source = sources.iter().find(|source| source.name == kept.source);
    for (name, value) in &kept.headers {
        let hidden =
            |source: &Source| is_signature(&source.scheme, name) || source.redact.header(name);
        let signature = source.is_none_or(hidden);
        writeln!(out, "header     {name}: {}", if signature { MASKED } else { value })?;
    }
    Ok(())
}

fn is_signature(scheme: &Scheme, header: &str) -> bool {
    header.parse().is_ok_and(|header| scheme.signs_in(&header))
}

/// Without signatures and other credentials in its headers: with the body, it could be sent again.
pub(crate) fn masked(mut found: Found, sources: &[Source]) -> Found {
    let source = sources.iter().find(|source| source.name == found.kept.source);
    for (name, value) in &mut found.kept.headers {
        let hidden =
            |source: &Source| is_signature(&source.scheme, name) || source.redact.header(name);
        if source.is_none_or(hidden) {
            MASKED.clone_into(value);
        }
    }
    // Some providers sign in it.
    found.kept.query = found.kept.query.map(|_| MASKED.to_owned());
    found
}

/// The bytes of one, and of which source it says it is.
pub(crate) fn body(found: &Found) -> (&str, &bytes::Bytes) {
    (&found.kept.source, &found.callback.body)
}

/// What became of one.
#[derive(Serialize, ToSchema)]
#[schema(as = Admission)]
pub(crate) struct Outcome {
    pub(crate) id: String,
    pub(crate) source: String,
    pub(crate) admitted: bool,
    /// Why not.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) reason: Option<&'static str>,
}

/// Lets in those of the wanted that verify now, judged by the time at which they were
/// received; the others stay refused. With `dry_run`, none is let in.
pub(crate) async fn admit<Q: Operate + Publish>(
    queue: &Q,
    sealer: &Sealer,
    sources: &[Source],
    wanted: &Wanted,
    limit: usize,
    by: &str,
    dry_run: bool,
) -> Result<Vec<Outcome>, Failure> {
    let mut walk = queue.walk(Place::Refused).await?;
    let keys = Keys::default();
    let mut outcomes = Vec::new();
    while outcomes.len() < limit
        && let Some((message, receipt)) = walk.next().await?
    {
        let Ok((kept, callback)) = Kept::open(sealer, &message.sealed) else {
            continue;
        };
        if !wanted.fits(&kept) {
            continue;
        }
        let admitted =
            Admitted { by: by.into(), at: clock::now(), refused_for: kept.reason.clone() };
        let source = sources.iter().find(|source| source.name == kept.source);
        let result = match source {
            None => Err("unknown_source"),
            Some(source) if dry_run => {
                let by = |key: Option<&Secret>| callback.verify_by(source, key);
                keys.judge(&callback, source, None, by)
                    .await
                    .map(drop)
                    .map_err(|refusal| refusal.reason())
            }
            Some(source) => admit::admit(&callback, source, sealer, queue, &keys, Some(admitted))
                .await
                .map(drop)
                .map_err(|refusal| refusal.reason()),
        };
        // Confirmed in its new place: only now may it go from the old one.
        if result.is_ok() && !dry_run {
            receipt.ack().await;
        }
        let (id, source) = (kept.id, kept.source);
        outcomes.push(Outcome { id, source, admitted: result.is_ok(), reason: result.err() });
    }
    walk.finish().await?;
    Ok(outcomes)
}

/// Shows the outcomes to a person.
pub(crate) fn show_outcomes(
    outcomes: &[Outcome],
    dry_run: bool,
    out: &mut impl Write,
) -> std::io::Result<()> {
    let done = if dry_run { "would be admitted" } else { "admitted" };
    for Outcome { id, source, reason, .. } in outcomes {
        match reason {
            None => writeln!(out, "{id}  {source}  {done}")?,
            Some(reason) => writeln!(out, "{id}  {source}  still refused: {reason}")?,
        }
    }
    let admitted = outcomes.iter().filter(|outcome| outcome.admitted).count();
    writeln!(out, "{admitted} of {} {done}", outcomes.len())
}
