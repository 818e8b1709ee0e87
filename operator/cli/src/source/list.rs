//! `zentra source list --json`: the catalogue as data.

use serde::Serialize;
use webhook_verify::{IdNames, Scheme};
use zentra_admin::test_callback::Samples;

/// A provider of the catalogue. Times are in seconds, and missing where the provider's pages do not
/// state them.
#[derive(Serialize)]
pub(crate) struct Provider {
    provider: &'static str,
    algorithm: &'static str,
    content_type: &'static str,
    signs_time: bool,
    signs_url: bool,
    /// What the provider's ID names: an event, a delivery or a resource.
    id_names: Option<&'static str>,
    at_least_once: bool,
    weakness: Option<&'static str>,
    /// The vendor's SDK that proves the entry.
    proof: Option<String>,
    timeout_seconds: Option<u64>,
    retries_seconds: Option<u64>,
    /// Whether `zentra send` has samples.
    has_samples: bool,
    documentation: Option<String>,
}

/// All providers, in alphabetical order.
pub(crate) fn catalogue() -> Vec<Provider> {
    let all = Scheme::names().filter_map(|name| Some((name, Scheme::named(name)?)));
    all.map(|(provider, scheme)| Provider {
        provider,
        algorithm: scheme.signature.algorithm.name(),
        content_type: scheme.content_type(),
        signs_time: scheme.timestamp.is_some(),
        signs_url: scheme.signs_url(),
        id_names: scheme.id_names.map(IdNames::as_str),
        at_least_once: scheme.delivers_at_least_once(),
        weakness: scheme.weakness().map(|weakness| weakness.words()),
        timeout_seconds: scheme.timeout.time().map(|time| time.as_secs()),
        retries_seconds: scheme.retries.time().map(|time| time.as_secs()),
        has_samples: Samples::providers().any(|other| other == provider),
        proof: scheme.proof,
        documentation: scheme.documents,
    })
    .collect()
}
