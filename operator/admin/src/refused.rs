//! Refused callbacks.

use std::collections::BTreeMap;

use bytes::Bytes;
use serde::Serialize;
use webhook_verify::{Answered, Explanation, Scheme, Secret, Unverified, Verified};
use zentra_config::Config;
use zentra_core::clock::{self, Timestamp};
use zentra_core::event::{self, Admitted};
use zentra_core::refused::{MASKED, RefusedRecord};
use zentra_core::seal::Sealer;
use zentra_core::source::Source;
use zentra_ingress::admit::{Admission, Entry};
use zentra_ingress::keys::Keys;
use zentra_store::queue::{Message, Operate, Place, Publish, Receipt, Walk};

use crate::audit::{Actor, Audited};
use crate::backend::Backend;
use crate::error::{AdminError, ErrorCode};
use crate::look::each;

/// Filters for refused callbacks.
#[derive(Clone, Default)]
pub struct RefusedFilter {
    /// Only these ids; empty: all.
    pub ids: Vec<String>,
    /// Only this source.
    pub source: Option<String>,
    /// Only this reason.
    pub reason: Option<String>,
}

impl RefusedFilter {
    /// Text for the audit log: ids, `source=…`, `reason=…`.
    fn words(&self) -> String {
        let named = |name: &str, value: &Option<String>| {
            value.as_ref().map(|value| format!("{name}={value}"))
        };
        let chosen = [named("source", &self.source), named("reason", &self.reason)];
        let words = self.ids.iter().cloned().chain(chosen.into_iter().flatten());
        words.collect::<Vec<_>>().join(" ")
    }

    fn fits(&self, kept: &RefusedRecord) -> bool {
        let same = |wanted: &Option<String>, is: &str| wanted.as_ref().is_none_or(|w| w == is);
        (self.ids.is_empty() || self.ids.contains(&kept.id))
            && same(&self.source, &kept.source)
            && same(&self.reason, &kept.reason)
    }
}

/// A refused callback with its body.
#[derive(Serialize)]
pub struct RefusedCallback {
    #[serde(flatten)]
    pub kept: RefusedRecord,
    pub bytes: usize,
    pub body_sha256: String,
    /// The body as it was received.
    #[serde(skip)]
    pub body: Bytes,
}

/// Those that are wanted, oldest first, at most `limit`: without signatures and other credentials, since with
/// the body such a callback could be sent again. They all stay in their place.
///
/// # Errors
/// Those of the broker.
pub async fn list(
    backend: &impl Backend,
    config: &Config,
    wanted: &RefusedFilter,
    limit: usize,
) -> Result<Vec<RefusedCallback>, AdminError> {
    let found = listed(&backend.queue().await?, &config.seal, wanted, limit).await?;
    Ok(found.into_iter().map(|(kept, callback)| shown(kept, callback, &config.sources)).collect())
}

/// The one of this id.
///
/// # Errors
/// [`ErrorCode::RefusedCallbackNotFound`], and those of the broker.
pub async fn find(
    backend: &impl Backend,
    config: &Config,
    id: &str,
) -> Result<RefusedCallback, AdminError> {
    let wanted = RefusedFilter { ids: vec![id.to_owned()], ..RefusedFilter::default() };
    list(backend, config, &wanted, 1).await?.pop().ok_or_else(|| not_found(id))
}

/// The one of this id as it was received, with its signature, and its source. Nobody may be shown it.
///
/// # Errors
/// [`ErrorCode::RefusedCallbackNotFound`], also if its source is not in the configuration any more, and those of
/// the broker.
pub async fn received<'a>(
    backend: &impl Backend,
    config: &'a Config,
    id: &str,
) -> Result<(&'a Source, Unverified), AdminError> {
    let wanted = RefusedFilter { ids: vec![id.to_owned()], ..RefusedFilter::default() };
    let found = listed(&backend.queue().await?, &config.seal, &wanted, 1).await?.pop();
    let (kept, callback) = found.ok_or_else(|| not_found(id))?;
    let source = config.sources.iter().find(|source| source.name == kept.source);
    let gone = || {
        let message = format!("the configuration has no source {}.", kept.source);
        AdminError::new(ErrorCode::RefusedCallbackNotFound, message).about(id)
    };
    Ok((source.ok_or_else(gone)?, callback))
}

/// What is right and wrong with a callback of this source, judged by the time at which it was received.
/// Its secret may be that of another source. Published keys are not fetched: `key` is the one to verify with. It
/// computes for a while.
pub fn explain(
    callback: &Unverified,
    source: &Source,
    all: &[Source],
    key: Option<&Secret>,
) -> Explanation {
    let others = all.iter().filter(|other| other.name != source.name);
    let others: Vec<_> = others.map(|other| (other.name.as_str(), &other.endpoint)).collect();
    callback.explain(&source.endpoint, &others, key)
}

/// That no refused callback of this id is kept.
pub fn not_found(id: &str) -> AdminError {
    let message = format!("unknown refused callback {id}.");
    AdminError::new(ErrorCode::RefusedCallbackNotFound, message).about(id)
}

/// Admits those of the wanted that verify now, at most `limit`, judged by the time at which they were received.
/// The others stay refused. With `dry_run`, none is admitted. The configuration must have the sources' secrets.
///
/// # Errors
/// Those of the broker and of the store.
pub async fn admit(
    backend: &impl Backend,
    config: &Config,
    wanted: &RefusedFilter,
    limit: usize,
    dry_run: bool,
    actor: &Actor,
) -> Result<Vec<Outcome>, AdminError> {
    let (control, queue) = (backend.histories(), backend.queue().await?);
    let (seal, sources) = (&config.seal, &config.sources);
    let audited = Audited {
        control: (!dry_run).then_some(&control),
        action: "refused admit",
        on: wanted.words(),
        attribution: actor.attribution(),
    };
    let deed = admitted(&queue, seal, sources, wanted, limit, &actor.name, dry_run);
    let count = |all: &Vec<Outcome>| all.iter().filter(|one| one.admitted).count();
    audited.run(deed, |all| format!("{} of {}", count(all), all.len())).await
}

async fn listed(
    queue: &impl Operate,
    sealer: &Sealer,
    wanted: &RefusedFilter,
    limit: usize,
) -> Result<Vec<(RefusedRecord, Unverified)>, AdminError> {
    let mut walk = queue.walk(Place::Refused).await?;
    let mut found = Vec::new();
    while found.len() < limit
        && let Some((message, _held)) = walk.next().await?
    {
        // Messages without a valid seal are skipped.
        if let Ok((kept, callback)) = RefusedRecord::open(sealer, &message.sealed)
            && wanted.fits(&kept)
        {
            found.push((kept, callback));
        }
    }
    walk.finish().await?;
    Ok(found)
}

/// Counts the first `most` that were received since a time, by source and reason.
pub(crate) async fn count(
    queue: &impl Operate,
    sealer: &Sealer,
    most: usize,
    since: Timestamp,
) -> Result<BTreeMap<(String, String), u64>, AdminError> {
    let mut counts = BTreeMap::new();
    let count = |message: &Message| {
        if let Ok((kept, _)) = RefusedRecord::open(sealer, &message.sealed)
            && kept.received_at >= since
        {
            *counts.entry((kept.source, kept.reason)).or_default() += 1;
        }
        false
    };
    each(queue, Place::Refused, most, count).await?;
    Ok(counts)
}

fn is_signature(scheme: &Scheme, header: &str) -> bool {
    header.parse().is_ok_and(|header| scheme.signs_in(&header))
}

fn shown(mut kept: RefusedRecord, callback: Unverified, sources: &[Source]) -> RefusedCallback {
    mask(&mut kept, sources);
    let Unverified { body, .. } = callback;
    let body_sha256 = event::body_sha256(&body);
    RefusedCallback { kept, bytes: body.len(), body_sha256, body }
}

/// Hides signatures, other credentials and redacted headers: with the body, such a callback could be
/// sent again.
pub fn mask(kept: &mut RefusedRecord, sources: &[Source]) {
    let source = sources.iter().find(|source| source.name == kept.source);
    for (name, value) in &mut kept.headers {
        let hidden = |source: &Source| {
            is_signature(&source.endpoint.scheme, name) || source.redact.header(name)
        };
        if source.is_none_or(hidden) {
            MASKED.clone_into(value);
        }
    }
    // Some providers put the signature into the query.
    kept.query = kept.query.take().map(|_| MASKED.to_owned());
}

/// What a verified callback is.
#[derive(Clone, Copy)]
enum VerifiedAs {
    Events(usize),
    /// Whether an address was, or will be, visited.
    Handshake {
        confirmed: bool,
    },
}

impl VerifiedAs {
    fn handshake(answer: &Answered) -> Self {
        Self::Handshake { confirmed: answer.visit.is_some() }
    }

    fn of(verified: &Verified) -> Self {
        verified.handshake().map_or_else(|| Self::Events(verified.len()), Self::handshake)
    }
}

impl From<Admission> for VerifiedAs {
    fn from(admission: Admission) -> Self {
        match admission {
            Admission::Events(envelopes) => Self::Events(envelopes.len()),
            Admission::Handshake(answer) => Self::handshake(&answer),
        }
    }
}

/// Outcome for one callback.
#[derive(Serialize)]
pub struct Outcome {
    pub id: String,
    pub source: String,
    pub admitted: bool,
    /// Number of events in it.
    pub events: usize,
    /// Whether it is a handshake. A handshake that is confirmed by a visit to an address is
    /// confirmed now. Any other stays refused with the reason `handshake`: the provider no longer
    /// waits for the answer, and has to send it again.
    pub handshake: bool,
    /// Why it wasn't admitted.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<&'static str>,
}

async fn admitted<Q: Operate + Publish>(
    queue: &Q,
    sealer: &Sealer,
    sources: &[Source],
    wanted: &RefusedFilter,
    limit: usize,
    by: &str,
    dry_run: bool,
) -> Result<Vec<Outcome>, AdminError> {
    let mut walk = queue.walk(Place::Refused).await?;
    let keys = Keys::default();
    let entry = Entry { sealer, queue, keys: &keys };
    let mut outcomes = Vec::new();
    while outcomes.len() < limit
        && let Some((message, receipt)) = walk.next().await?
    {
        let Ok((kept, callback)) = RefusedRecord::open(sealer, &message.sealed) else {
            continue;
        };
        if !wanted.fits(&kept) {
            continue;
        }
        let admitted =
            Admitted { by: by.into(), at: clock::now(), refused_for: kept.reason.clone() };
        let source = sources.iter().find(|source| source.name == kept.source);
        let verified_as = match source {
            None => Err("unknown_source"),
            Some(source) if dry_run => {
                let verified = entry.verify(&callback, source).await;
                verified
                    .map(|verified| VerifiedAs::of(&verified))
                    .map_err(|refusal| refusal.reason())
            }
            Some(source) => {
                let admission = entry.admit(&callback, source, admitted).await;
                admission.map(VerifiedAs::from).map_err(|refusal| refusal.reason())
            }
        };
        let (verified_as, reason) = match verified_as {
            // The provider no longer waits for the answer.
            Ok(VerifiedAs::Handshake { confirmed: false }) => (None, Some("handshake")),
            Ok(verified_as) => (Some(verified_as), None),
            Err(reason) => (None, Some(reason)),
        };
        // Confirmed in its new place, so it can be removed from the old one.
        if verified_as.is_some() && !dry_run {
            receipt.ack().await;
        }
        outcomes.push(Outcome {
            id: kept.id,
            source: kept.source,
            admitted: verified_as.is_some(),
            events: verified_as.map_or(0, |verified_as| match verified_as {
                VerifiedAs::Events(events) => events,
                VerifiedAs::Handshake { .. } => 0,
            }),
            handshake: matches!(verified_as, Some(VerifiedAs::Handshake { .. }))
                || reason == Some("handshake"),
            reason,
        });
    }
    walk.finish().await?;
    Ok(outcomes)
}
