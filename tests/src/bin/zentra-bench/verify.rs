//! The cost of verification above the hash itself: signature, freshness, identity and envelope of
//! 1 KiB, for each provider of the catalogue that signs by HMAC and whose callbacks can be created
//! here.

use std::hint::black_box;
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use hmac::{Hmac, KeyInit, Mac};
use sha1::Sha1;
use sha2::{Sha256, Sha384, Sha512};
use webhook_verify::Secret;
use webhook_verify::{
    Algorithm, Callback, Endpoint, Location, NamedSecret, Scheme, Signed, Unverified,
};
use zentra_core::clock::Timestamp;

/// In a form that every scheme with a secret accepts.
const SECRET: &str = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";
const URL: &str = "https://hooks.example.com/in/s";
/// Callbacks per round, and number of rounds. The best round counts.
const BATCH: u32 = 2000;
const ROUNDS: usize = 15;
/// The target above the hash.
const BOUND: Duration = Duration::from_micros(5);

/// For one provider, or for all if the name is empty.
pub(crate) fn run(only: &str) -> anyhow::Result<()> {
    let mut made_here = Vec::new();
    for provider in Scheme::names().filter(|name| only.is_empty() || *name == only) {
        let scheme = Scheme::named(provider).context("no such entry")?;
        let Some(hash) = hash(scheme.signature.algorithm) else { continue };
        let Some((endpoint, callback)) = made(provider, scheme) else { continue };
        made_here.push((provider, hash, endpoint, callback));
    }
    // Every round measures all providers, so that a slow spell of the machine affects all alike.
    let mut best = vec![(Duration::MAX, Duration::MAX); made_here.len()];
    for _ in 0..ROUNDS {
        for ((_, hash, endpoint, callback), (whole, alone)) in made_here.iter().zip(&mut best) {
            *whole = each(|| drop(black_box(callback.verify(black_box(endpoint))))).min(*whole);
            *alone = each(|| hash(black_box(&callback.body))).min(*alone);
        }
    }
    let rows = made_here.iter().zip(best).map(|((provider, ..), (whole, alone))| {
        (whole.saturating_sub(alone), whole, alone, provider)
    });
    let mut rows: Vec<_> = rows.collect();
    ensure!(!rows.is_empty(), "no provider is named `{only}`, signs by HMAC and can be made here");
    rows.sort();
    println!(
        "\nverifying 1 KiB, the best of {ROUNDS} rounds of {BATCH}: {} providers by HMAC",
        rows.len()
    );
    println!("{:<34} {:>9} {:>12} {:>14}", "", "in all", "hash alone", "above it");
    let picked =
        [("the least", 0), ("the middle one", rows.len() / 2), ("the most", rows.len() - 1)];
    for (what, at) in picked {
        let (above, whole, alone, provider) = rows.get(at).context("no rows")?;
        let name = format!("{what} ({provider})");
        println!("{name:<34} {:>9} {:>12} {:>14}", us(*whole), us(*alone), us(*above));
    }
    let over = rows.iter().rev().take_while(|row| row.0 >= BOUND);
    let over: Vec<String> =
        over.map(|(above, .., provider)| format!("{provider} {}", us(*above))).collect();
    println!("{} above it or more: {}", us(BOUND), over.len());
    over.iter().for_each(|one| println!("  {one}"));
    Ok(())
}

fn us(time: Duration) -> String {
    format!("{:.2} µs", time.as_secs_f64() * 1e6)
}

/// The time of one verification.
fn each(what: impl Fn()) -> Duration {
    let started = Instant::now();
    (0..BATCH).for_each(|_| what());
    started.elapsed() / BATCH
}

fn mac<M: Mac + KeyInit>(body: &[u8]) {
    if let Ok(mac) = <M as KeyInit>::new_from_slice(SECRET.as_bytes()) {
        black_box(mac.chain_update(body).finalize());
    }
}

fn hash(algorithm: Algorithm) -> Option<fn(&[u8])> {
    match algorithm {
        Algorithm::HmacSha1 => Some(mac::<Hmac<Sha1>>),
        Algorithm::HmacSha256 => Some(mac::<Hmac<Sha256>>),
        Algorithm::HmacSha384 => Some(mac::<Hmac<Sha384>>),
        Algorithm::HmacSha512 => Some(mac::<Hmac<Sha512>>),
        _ => None,
    }
}

/// A form of 1 KiB like those of telephony providers, with ID and type: about 26 fields in no
/// order, half of them encoded.
fn form(id: &str, kind: &str, scheme: &Scheme) -> String {
    let mut form = form_urlencoded::Serializer::new(String::new());
    let mut ids = names(&scheme.id);
    let kinds = names(&scheme.kind);
    ids.retain(|name| !kinds.contains(name));
    form.extend_pairs(ids.iter().map(|name| (name, id)));
    form.extend_pairs(kinds.iter().map(|name| (name, kind)));
    form.append_pair("Body", "Your transfer has arrived: 12 € are yours!");
    for n in (0..23).map(|n| n * 7 % 23) {
        let value = ["+15551234567", "SM1NG8Du2eZvKYlo2C1NG8Du2eZvKYlo2C"][n % 2];
        form.append_pair(&format!("Parameter{n:02}"), value);
    }
    form.finish()
}

/// The fields of the form that a place names.
fn names(at: &Option<Location>) -> Vec<&str> {
    let places = match at {
        Some(Location::All(places)) => &places[..],
        one => one.as_slice(),
    };
    let names = places.iter().filter_map(|at| match at {
        Location::Form(name) => Some(name.as_str()),
        _ => None,
    });
    names.collect()
}

/// A genuine callback of 1 KiB.
pub(crate) fn made(provider: &str, scheme: Scheme) -> Option<(Endpoint, Unverified)> {
    let time = Timestamp::from_secs(1_700_000_000);
    let body = |padding: usize| {
        let mut body = serde_json::json!({ "padding": "x".repeat(padding) });
        scheme.write_into(&mut body, "evt_1NG8Du2eZvKYlo2C", "transfer.settled", time);
        body.to_string()
    };
    let body = match &scheme.kind {
        Some(Location::Form(_)) => form("evt_1NG8Du2eZvKYlo2C", "transfer.settled", &scheme),
        _ => body(1024_usize.saturating_sub(body(0).len())),
    };
    let callback = Callback {
        id: "evt_1NG8Du2eZvKYlo2C",
        kind: "transfer.settled",
        time,
        body: body.as_bytes(),
        url: URL,
    };
    let Signed { headers, query, body } = scheme.sign(&Secret::new(SECRET), &callback).ok()?;
    let endpoint = Endpoint {
        provider: provider.into(),
        scheme,
        public_url: Some(URL.into()),
        handshake_token: None,
        secrets: vec![NamedSecret { name: "k".into(), secret: Secret::new(SECRET) }],
        max_body: 1 << 20,
        trusts_id: false,
    };
    let callback = Unverified {
        method: http::Method::POST,
        headers,
        query,
        peer: None,
        body,
        received_at: time,
        receipt: 0,
    };
    callback.verify(&endpoint).ok()?;
    Some((endpoint, callback))
}
