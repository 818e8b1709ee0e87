//! How a source does.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use serde::Serialize;
use utoipa::ToSchema;
use zentra_shared::clock::Timestamp;
use zentra_shared::journal::What;
use zentra_shared::journal::list::Listed;
use zentra_shared::verify;

/// What is later than this, most of the time, is delayed.
const LATE: Duration = Duration::from_secs(60);
/// A source that is quieter for so long than it has been nineteen times of twenty is silent …
const TIMES: u32 = 5;
/// … but not for less than this.
const QUIET: Duration = Duration::from_secs(300);
/// Fewer say nothing.
const ENOUGH: usize = 5;

/// One source.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Source {
    pub(super) source: String,
    provider: String,
    /// What is wrong: `delayed`, `duplicating`, `refusing`, `silent`, `nothing_seen`; nothing if it
    /// is on time.
    pub(super) findings: Vec<&'static str>,
    pub(super) last_accepted: Option<Timestamp>,
    /// Events among what was looked at.
    pub(super) events: usize,
    /// From the provider's signed time to the receipt, in milliseconds: in the middle, and at most.
    pub(super) delay_ms: Option<(u64, u64)>,
    /// Copies among them.
    pub(super) copies: usize,
    /// Refused callbacks that were kept in the last hour, by reason.
    pub(super) refused: BTreeMap<String, u64>,
    /// The time since the last one, and the gap that nineteen of twenty stay below, in seconds.
    pub(super) quiet_s: Option<(u64, u64)>,
    /// The secrets that verified them.
    pub(super) keys_in_use: BTreeSet<String>,
}

impl Source {
    /// By what was looked at, newest first.
    pub(super) fn new(source: &verify::Source, listed: &[Listed], now: Timestamp) -> Self {
        let own = listed.iter().filter(|listed| listed.delivery.event.source == source.name);
        let (mut events, mut received, mut delays) = (BTreeSet::new(), Vec::new(), Vec::new());
        let (mut copies, mut keys_in_use) = (0, BTreeSet::new());
        for Listed { delivery, .. } in own {
            let copy = |what: &What| matches!(what, What::Duplicate | What::DuplicateDead);
            let of_it = delivery.history.iter().filter(|entry| copy(&entry.what)).count();
            copies += of_it;
            // Once, to however many destinations it goes.
            if !events.insert(delivery.key.identity()) {
                copies -= of_it;
                continue;
            }
            let event = &delivery.event;
            keys_in_use.insert(event.verified_with.clone());
            received.extend(event.received_at);
            let delay = event.provider_time.zip(event.received_at);
            delays.extend(delay.map(|(signed, received)| received.since(signed)));
        }
        received.sort();
        delays.sort();
        let mut gaps: Vec<Duration> = received.windows(2).map(|two| two[1].since(two[0])).collect();
        gaps.sort();
        let last = received.last().copied();
        let usual = gaps.get(gaps.len() * 95 / 100).filter(|_| gaps.len() >= ENOUGH);
        Self {
            source: source.name.clone(),
            provider: source.provider.clone(),
            findings: Vec::new(),
            last_accepted: last,
            events: events.len(),
            delay_ms: delays.last().map(|most| (millis(delays[delays.len() / 2]), millis(*most))),
            copies,
            refused: BTreeMap::new(),
            quiet_s: last
                .zip(usual)
                .map(|(last, usual)| (now.since(last).as_secs(), usual.as_secs())),
            keys_in_use,
        }
    }

    /// Takes what was refused of it: by source and reason.
    pub(super) fn refused(&mut self, kept: &BTreeMap<(String, String), u64>) {
        let own = kept.iter().filter(|((source, _), _)| *source == self.source);
        self.refused = own.map(|((_, reason), count)| (reason.clone(), *count)).collect();
    }

    /// Says what is wrong.
    pub(super) fn judge(&mut self) {
        let refused: u64 = self.refused.values().sum();
        let silent = |(quiet, usual): (u64, u64)| {
            quiet > QUIET.as_secs() && quiet > usual.saturating_mul(TIMES.into())
        };
        let all = [
            ("nothing_seen", self.events == 0),
            ("silent", self.quiet_s.is_some_and(silent)),
            ("delayed", self.delay_ms.is_some_and(|(middle, _)| middle > millis(LATE))),
            ("duplicating", self.copies >= ENOUGH && self.copies * 5 > self.events),
            ("refusing", refused as usize >= ENOUGH && refused as usize * 20 > self.events),
        ];
        self.findings = all.into_iter().filter(|(_, found)| *found).map(|(name, _)| name).collect();
    }
}

fn millis(duration: Duration) -> u64 {
    zentra_shared::clock::millis(duration)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn source() -> Source {
        Source {
            source: "acme".into(),
            provider: "stripe".into(),
            findings: Vec::new(),
            last_accepted: None,
            events: 100,
            delay_ms: Some((100, 9_000)),
            copies: 3,
            refused: BTreeMap::new(),
            quiet_s: Some((30, 60)),
            keys_in_use: BTreeSet::new(),
        }
    }

    #[test]
    fn a_source_is_held_to_its_own_rhythm_and_each_finding_has_its_cause() {
        let judged = |change: &dyn Fn(&mut Source)| {
            let mut source = source();
            change(&mut source);
            source.judge();
            source.findings
        };
        assert!(judged(&|_| {}).is_empty());
        assert_eq!(judged(&|source| source.events = 0), ["nothing_seen"]);
        assert_eq!(judged(&|source| source.quiet_s = Some((301, 60))), ["silent"]);
        assert!(judged(&|source| source.quiet_s = Some((299, 1))).is_empty(), "not yet");
        assert!(judged(&|source| source.quiet_s = Some((3000, 900))).is_empty(), "as usual");
        assert_eq!(judged(&|source| source.delay_ms = Some((60_001, 60_001))), ["delayed"]);
        assert_eq!(judged(&|source| source.copies = 21), ["duplicating"]);
        let refusing = |source: &mut Source| source.refused = [("x".into(), 6)].into();
        assert_eq!(judged(&refusing), ["refusing"]);
    }
}
