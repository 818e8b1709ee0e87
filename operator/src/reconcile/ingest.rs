//! Bringing in what never came.

use http::{HeaderValue, header};
use zentra_ingress::admit;
use zentra_ingress::keys::Keys;
use zentra_shared::clock;
use zentra_shared::config::Config;
use zentra_shared::event::Admitted;
use zentra_shared::queue::{Operate, Publish};
use zentra_shared::verify::{Callback, Signed, Source, Unverified};

use super::list::Listed;
use super::provider::{Api, Kind};
use super::{Row, Standing};
use crate::failure::Failure;

/// Whether what is brought in would be known as the same event when its callback comes late.
pub(super) fn ingestible(source: &Source, by_api: bool) -> Result<(), Failure> {
    if by_api && Kind::of(&source.provider) == Some(Kind::Github) {
        return Ok(());
    }
    let scheme = &source.scheme;
    let known = scheme.id_is_identity() || source.trusts_id;
    match (known, &scheme.items) {
        (true, None) => Ok(()),
        (true, Some(_)) => Err(Failure::Asked(format!(
            "{} puts many events into one callback, so none can be made of one.\nHave the \
             provider send them again.",
            source.provider
        ))),
        (false, _) => Err(Failure::Asked(format!(
            "the ids of {} aren't signed, or aren't shown to name one event, so a late callback of \
             what is brought in here couldn't be known as a copy.\nHave the provider send them again; or set identity = \"id\" for \
             the source, if you trust its ids.",
            source.provider
        ))),
    }
}

/// Brings in what is missing; how many that were.
pub(super) async fn brought_in(
    queue: &(impl Operate + Publish),
    config: &Config,
    source: &Source,
    api: Option<&Api>,
    by: &str,
    rows: &mut [Row],
) -> Result<usize, Failure> {
    let (keys, mut done) = (Keys::default(), 0);
    for row in rows.iter_mut().filter(|row| row.standing == Standing::Missing) {
        if let (Some(api), Some(delivery)) = (api, &row.listed.delivery) {
            match api.send_again(delivery).await {
                Ok(()) => (row.standing, done) = (Standing::AskedFor, done + 1),
                // The others would fare no better: what was done is told.
                Err(failure) => {
                    failure.text().clone_into(&mut row.detail);
                    break;
                }
            }
            continue;
        }
        let made = match made(source, &row.listed) {
            Ok(made) => made,
            Err(what) => {
                row.detail = what;
                continue;
            }
        };
        let (at, refused_for) = (clock::now(), Admitted::NOT_RECEIVED.to_owned());
        let admitted = Admitted { by: by.into(), at, refused_for };
        let admitted = Some(admitted);
        match admit::admit(&made, source, &config.seal, queue, &keys, admitted).await {
            Ok(_) => (row.standing, done) = (Standing::Ingested, done + 1),
            Err(refusal) => row.detail = format!("refused: {}", refusal.reason()),
        }
    }
    Ok(done)
}

/// The callback that never came, as its provider would have signed it: it takes the same way in as
/// any other, and gets the same identity.
fn made(source: &Source, listed: &Listed) -> Result<Unverified, String> {
    let body = listed.body.as_ref().ok_or("the list has only its id, not all of it")?;
    let secret = source.secrets.first().ok_or("the source has no secret")?;
    let received_at = clock::now();
    let callback = Callback {
        id: &listed.id,
        kind: listed.kind.as_deref().unwrap_or_default(),
        time: received_at,
        body,
        url: source.public_url.as_deref().unwrap_or_default(),
    };
    let signed = source.scheme.sign(&secret.secret, &callback);
    let Signed { mut headers, query, body } =
        signed.map_err(|what| format!("its callback can't be made here: {what}"))?;
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
    let verified =
        made.verify(source).map_err(|refusal| format!("refused: {}", refusal.reason()))?;
    let events = verified.into_events();
    let same = events.iter().all(|event| event.envelope.identity.id() == Some(&listed.id));
    match same && events.len() == 1 {
        true => Ok(made),
        false => Err("the provider's callback has its id elsewhere: see --id".into()),
    }
}
