//! Ingest of missing events.

use http::{HeaderValue, header};
use sha2::{Digest, Sha256};
use webhook_verify::{Callback, Signed, Unverified};
use zentra_config::Config;
use zentra_core::clock;
use zentra_core::event::Admitted;
use zentra_core::source::Source;
use zentra_ingress::admit::Entry;
use zentra_ingress::keys::Keys;
use zentra_store::control::{Attribution, AuditEntry, OperatorControl};
use zentra_store::queue::{Operate, Publish};

use super::list::Listed;
use super::provider::{Api, Kind};
use super::{ReconcileState, Row};
use crate::error::{AdminError, ErrorCode};

/// The action's name in the audit.
pub(super) const INGEST: &str = "reconcile ingest";
/// Events that one entry of the audit names.
const AUDITED_TOGETHER: usize = 20;

/// Whether what is brought in would be known as the same event when its callback comes late.
pub(super) fn ingestible(source: &Source, by_api: bool) -> Result<(), AdminError> {
    if by_api && Kind::of(&source.endpoint.provider) == Some(Kind::Github) {
        return Ok(());
    }
    let scheme = &source.endpoint.scheme;
    let known = scheme.id_is_identity() || source.endpoint.trusts_id;
    match (known, &scheme.items) {
        (true, None) => Ok(()),
        (true, Some(_)) => {
            let message = format!(
                "{} puts many events into one callback, so a single event cannot be ingested.",
                source.endpoint.provider
            );
            Err(AdminError::new(ErrorCode::IngestImpossible, message)
                .hint("Ask the provider to resend them."))
        }
        (false, _) => {
            let message = format!(
                "the ids of {} are not signed, or not known to name one event, so a late callback of \
                 an ingested event would not be recognised as a copy.",
                source.endpoint.provider
            );
            Err(AdminError::new(ErrorCode::IngestImpossible, message).hint(
                "Ask the provider to resend them; or set identity = \"id\" for the source, if you \
                 trust its ids.",
            ))
        }
    }
}

/// Ingests what is missing, and returns how many events that were. The audit has each event's id, and the
/// SHA-256 of its bytes, before it is ingested.
pub(super) async fn ingest_missing(
    queue: &(impl Operate + Publish),
    control: &impl OperatorControl,
    config: &Config,
    source: &Source,
    api: Option<&Api>,
    attribution: &Attribution,
    rows: &mut [Row],
) -> Result<usize, AdminError> {
    let (keys, mut done) = (Keys::default(), 0);
    let entry = Entry { sealer: &config.seal, queue, keys: &keys };
    let missing = rows.iter_mut().filter(|row| row.state == ReconcileState::Missing);
    let mut missing: Vec<&mut Row> = missing.collect();
    for rows in missing.chunks_mut(AUDITED_TOGETHER) {
        let mut ready = Vec::new();
        for row in rows {
            match Step::of(source, api, &row.listed) {
                Ok(step) => ready.push((row, step)),
                Err(what) => row.detail = what,
            }
        }
        let ids = ready.iter().map(|(row, step)| step.audited(&row.listed.id));
        let ids = ids.collect::<Vec<_>>().join(", ");
        if ids.is_empty() {
            continue;
        }
        let attribution = Attribution { at: clock::now(), ..attribution.clone() };
        let act =
            AuditEntry { action: INGEST.into(), on: source.name.clone(), result: ids, attribution };
        control.audit(&act).await?;
        for (row, step) in ready {
            match step {
                Step::AskAgain(api, delivery) => match api.send_again(&delivery).await {
                    Ok(()) => (row.state, done) = (ReconcileState::AskedFor, done + 1),
                    // The others would fail, too. The report has what was done.
                    Err(error) => {
                        row.detail = error.message;
                        return Ok(done);
                    }
                },
                Step::Ingest(callback) => {
                    let refused_for = Admitted::NOT_RECEIVED.to_owned();
                    let admitted = Admitted {
                        by: act.attribution.by.clone(),
                        at: act.attribution.at,
                        refused_for,
                    };
                    match entry.admit(&callback, source, admitted).await {
                        Ok(_) => (row.state, done) = (ReconcileState::Ingested, done + 1),
                        Err(refusal) => row.detail = format!("refused: {}", refusal.reason()),
                    }
                }
            }
        }
    }
    Ok(done)
}

/// How one event is ingested.
enum Step<'a> {
    /// The provider sends it again, by the API's name of its delivery.
    AskAgain(&'a Api, String),
    /// By a callback that is made here.
    Ingest(Box<Unverified>),
}

impl<'a> Step<'a> {
    fn of(source: &Source, api: Option<&'a Api>, listed: &Listed) -> Result<Self, String> {
        match (api, &listed.delivery) {
            (Some(api), Some(delivery)) => Ok(Self::AskAgain(api, delivery.clone())),
            _ => Ok(Self::Ingest(made(source, listed)?.into())),
        }
    }

    fn audited(&self, id: &str) -> String {
        match self {
            Self::AskAgain(..) => id.to_owned(),
            Self::Ingest(callback) => {
                format!("{id} sha256:{}", hex::encode(Sha256::digest(&callback.body)))
            }
        }
    }
}

/// The callback that never came, as its provider would have signed it: it takes the same way in as
/// any other, and gets the same identity.
fn made(source: &Source, listed: &Listed) -> Result<Unverified, String> {
    let body = listed.body.as_ref().ok_or("the list contains only its ID, not its body")?;
    let secret = source.endpoint.secrets.first().ok_or("the source has no secret")?;
    let received_at = clock::now();
    let callback = Callback {
        id: &listed.id,
        kind: listed.kind.as_deref().unwrap_or_default(),
        time: received_at,
        body,
        url: source.endpoint.public_url.as_deref().unwrap_or_default(),
    };
    let signed = source.endpoint.scheme.sign(&secret.secret, &callback);
    let Signed { mut headers, query, body } =
        signed.map_err(|what| format!("cannot create its callback: {what}"))?;
    headers.entry(header::CONTENT_TYPE).or_insert(HeaderValue::from_static("application/json"));
    let made = Unverified {
        method: http::Method::POST,
        headers,
        query,
        peer: None,
        body,
        received_at,
        receipt: rand::random(),
    };
    // Where the id is looked for in the body, it must be there.
    let verified = made
        .verify(&source.endpoint)
        .map_err(|refusal| format!("refused: {}", refusal.reason()))?;
    let events = verified.into_events();
    let same = events.iter().all(|event| event.identity.id() == Some(&listed.id));
    match same && events.len() == 1 {
        true => Ok(made),
        false => Err("the provider's callback has its ID elsewhere".into()),
    }
}
