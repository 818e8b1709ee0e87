//! Recommendations for a valid configuration.

use super::{Config, can_match};
use webhook_verify::IdNames;
use zentra_core::address::is_this_machine;

impl Config {
    /// Recommendations and remarks for a configuration without errors. Each names its key.
    pub fn advice(&self) -> Vec<String> {
        let mut notes = self.weak_secrets();
        for source in &self.sources {
            let name = &source.name;
            if !self.destinations.iter().any(|to| to.can_take(name)) {
                notes.push(format!(
                    "source.{name}: no destination subscribes to it, so its events end as unrouted"
                ));
            }
            if let Some(weakness) = source.endpoint.scheme.weakness() {
                let provider = &source.endpoint.provider;
                notes.push(format!("source.{name}: {provider} is weak: {}", weakness.words()));
            }
            if source.endpoint.scheme.timestamp.is_none() {
                notes.push(format!(
                    "source.{name}: {} signs no time, so freshness can't be judged; a copy is \
                     recognised for as long as its retention",
                    source.endpoint.provider
                ));
            }
            let scheme = &source.endpoint.scheme;
            let signed = scheme.id.as_ref().is_some_and(|id| scheme.covers(id));
            if scheme.type_unsigned() {
                let rule = match scheme.types_share_bytes {
                    true => "the same bytes under another type are another event",
                    false => "the same bytes under another type are kept as a suspected replay",
                };
                notes.push(format!(
                    "source.{name}: type unsigned: {} does not sign its event type; {rule}",
                    source.endpoint.provider
                ));
            }
            if scheme.delivers_at_least_once() {
                notes.push(format!(
                    "source.{name}: at least once: {} sends the same bytes for different events, so \
                     each callback is an event, and a retry may be delivered again",
                    source.endpoint.provider
                ));
            }
            if source.endpoint.trusts_id && !signed {
                notes.push(format!(
                    "source.{name}.identity: {} signs no event id, and it is trusted: whoever has \
                     seen a callback can have it delivered again under another id",
                    source.endpoint.provider
                ));
            } else if scheme.repeats || scheme.id_is_identity() {
                // Covered above, or nothing to recommend.
            } else if scheme.id.is_none() {
                let rule = match &scheme.told_apart_by {
                    Some(at) if scheme.covers(at) => format!(
                        "two callbacks with the same bytes count as one event if they have {at}; \
                         without it, each is an event and a retry may be delivered again"
                    ),
                    _ => "two callbacks with the same bytes count as one event".into(),
                };
                notes.push(format!(
                    "source.{name}: {} sends no event id: {rule}",
                    source.endpoint.provider
                ));
            } else if scheme.id_names.is_none() {
                notes.push(format!(
                    "source.{name}: nothing shows what the id of {} names, so a copy is recognised by \
                     its bytes; an own [provider.NAME] says it with id_names",
                    source.endpoint.provider
                ));
            } else if scheme.id_names == Some(IdNames::Resource) {
                notes.push(format!(
                    "source.{name}: the id of {} names what an event is about, so a copy is \
                     recognised by its bytes",
                    source.endpoint.provider
                ));
            } else if !signed {
                notes.push(format!(
                    "source.{name}: {} signs no event id, so the same bytes under another id are \
                     kept as a suspected replay",
                    source.endpoint.provider
                ));
            }
        }
        for destination in &self.destinations {
            let name = &destination.name;
            for pattern in &destination.subscribe {
                if !self.sources.iter().any(|source| can_match(pattern, &source.name)) {
                    notes
                        .push(format!("destination.{name}.subscribe: {pattern} matches no source"));
                }
            }
            let Some(url) = &destination.url else {
                continue;
            };
            if destination.signing.is_empty() {
                notes.push(format!(
                    "destination.{name}.signing: without it, {name} can't tell our requests \
                     from others"
                ));
            }
            let host = url.host().unwrap_or_default();
            if url.scheme_str() == Some("http") && !is_this_machine(host) {
                notes.push(format!("destination.{name}.url: events travel unencrypted"));
            }
        }
        notes
    }
}
