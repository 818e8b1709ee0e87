//! What a usable config had better say, or what its reader should know.

use super::{Config, can_match};

impl Config {
    /// Notes on a config that has no problems: each names its key.
    pub fn advice(&self) -> Vec<String> {
        let mut notes = Vec::new();
        for source in &self.sources {
            let name = &source.name;
            if !self.destinations.iter().any(|to| to.can_take(name)) {
                notes.push(format!(
                    "source.{name}: no destination subscribes to it, so its events end as unrouted"
                ));
            }
            if let Some(weakness) = source.scheme.weakness() {
                let provider = &source.provider;
                notes.push(format!("source.{name}: {provider} is weak: {}", weakness.words()));
            }
            if source.scheme.timestamp.is_none() {
                notes.push(format!(
                    "source.{name}: {} signs no time, so freshness can't be judged; a copy is \
                     recognised for as long as its retention",
                    source.provider
                ));
            }
            let signed = source.scheme.id.as_ref().is_some_and(|id| source.scheme.covers(id));
            if source.trusts_id && !signed {
                notes.push(format!(
                    "source.{name}.identity: {} signs no event id, and it is trusted: whoever has \
                     seen a callback can have it delivered again under another id",
                    source.provider
                ));
            } else if source.scheme.id.is_none() {
                notes.push(format!(
                    "source.{name}: {} sends no event id, so two callbacks with the same bytes are \
                     taken for one",
                    source.provider
                ));
            } else if !signed {
                notes.push(format!(
                    "source.{name}: {} signs no event id, so the same bytes under another id are \
                     kept as a suspected replay",
                    source.provider
                ));
            }
        }
        for destination in &self.destinations {
            let name = &destination.name;
            for pattern in &destination.subscribe {
                if !self.sources.iter().any(|source| can_match(pattern, &source.name)) {
                    notes.push(format!("destination.{name}.subscribe: {pattern} fits no source"));
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
            let near = host == "localhost" || host.starts_with("127.") || host == "[::1]";
            if url.scheme_str() == Some("http") && !near {
                notes.push(format!("destination.{name}.url: events travel unencrypted"));
            }
        }
        notes
    }
}
