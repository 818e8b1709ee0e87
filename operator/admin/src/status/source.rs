//! The status of a source.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use serde::Serialize;
use zentra_core::clock::Timestamp;
use zentra_core::lifecycle::DeadReason;
use zentra_store::journal::list::Listed;
use zentra_store::journal::{Entry, HistoryEvent};

use super::RECENT;

/// Median delay from which a source is `delayed`.
const LATE: Duration = Duration::from_secs(60);
/// A source is `silent` after this many times its 95th-percentile gap …
const TIMES: u32 = 5;
/// … but not before this time.
const QUIET: Duration = Duration::from_secs(300);
/// Minimum number of events for a finding.
const ENOUGH: usize = 5;

/// Status of a source.
#[derive(Clone, Debug, Serialize)]
pub struct Source {
    pub source: String,
    pub provider: String,
    /// What is wrong: `delayed`, `duplicating`, `refusing`, `silent`, `nothing_seen`, and
    /// `copies_jumped`, `conflicts_jumped`, `suspected_replays_jumped`; nothing if it is on time.
    pub findings: Vec<&'static str>,
    pub last_accepted: Option<Timestamp>,
    /// Events among the deliveries that were read.
    pub events: usize,
    /// Time from the provider's signed time to the receipt, in milliseconds: median and maximum.
    pub delay_ms: Option<(u64, u64)>,
    /// Copies of delivered or dead events.
    pub copies: Rate,
    /// Conflicts: other bodies under known ids that aren't shown to name one event.
    pub conflicts: Rate,
    /// Rendered retries: other bodies under ids that are shown to name one event.
    pub rendered_retries: Rate,
    /// Suspected replays: the same signed bytes under another unsigned id or type.
    pub suspected_replays: Rate,
    /// Refused callbacks of the last hour, by reason.
    pub refused: BTreeMap<String, u64>,
    /// Time since the last event, and the 95th percentile of gaps, in seconds.
    pub quiet_s: Option<(u64, u64)>,
    /// Names of the secrets that verified events.
    pub keys_in_use: BTreeSet<String>,
}

/// A rate among the events that were read.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Rate {
    /// Total.
    pub count: usize,
    /// Number in the last hour.
    pub last_hour: usize,
    /// Number per 100 events of the last hour.
    pub last_hour_percent: f64,
    /// Number per 100 events before that.
    pub before_percent: f64,
}

impl Rate {
    /// From the times at which it happened, and the number of events in the last hour and before.
    fn new(times: &[Timestamp], recent: usize, before: usize, now: Timestamp) -> Self {
        let last_hour = times.iter().filter(|at| now.since(**at) < RECENT).count();
        let count = times.len();
        #[expect(clippy::cast_precision_loss, reason = "a share needs no more")]
        let percent = |of: usize, all: usize| of as f64 * 100.0 / all.max(1) as f64;
        Self {
            count,
            last_hour,
            last_hour_percent: percent(last_hour, recent),
            before_percent: percent(count - last_hour, before),
        }
    }

    /// Whether there are many more of late: at least five, for one event of twenty, and three times
    /// as often as before.
    fn jumped(&self) -> bool {
        self.last_hour >= ENOUGH
            && self.last_hour_percent >= 5.0
            && self.last_hour_percent > 3.0 * self.before_percent
    }
}

impl Source {
    /// By what was looked at, newest first.
    pub(super) fn new(
        source: &zentra_core::source::Source,
        listed: &[Listed],
        now: Timestamp,
    ) -> Self {
        let own = listed.iter().filter(|listed| listed.delivery.event.source == source.name);
        let (mut events, mut received, mut delays) = (BTreeSet::new(), Vec::new(), Vec::new());
        let mut keys_in_use = BTreeSet::new();
        let (mut copies, mut other_bodies) = (Vec::new(), Vec::new());
        let (mut conflicts, mut suspected) = (Vec::new(), Vec::new());
        for Listed { delivery, .. } in own {
            // Once, to however many destinations it goes.
            if !events.insert(delivery.key.identity()) {
                continue;
            }
            for Entry { at, what, .. } in &delivery.history {
                match what {
                    HistoryEvent::Duplicate | HistoryEvent::DuplicateDead => copies.push(*at),
                    HistoryEvent::Conflict { .. } => other_bodies.push(*at),
                    HistoryEvent::Dead { reason: DeadReason::Conflict, .. } => conflicts.push(*at),
                    HistoryEvent::Dead { reason: DeadReason::SuspectedReplay, .. } => {
                        suspected.push(*at)
                    }
                    _ => {}
                }
            }
            let event = &delivery.event;
            keys_in_use.insert(event.verified_with.clone());
            received.extend(event.received_at);
            let delay = event.provider_time.zip(event.received_at);
            delays.extend(delay.map(|(signed, received)| received.since(signed)));
        }
        received.sort();
        delays.sort();
        let recent = received.iter().filter(|at| now.since(**at) < RECENT).count();
        let rate = |times: &[Timestamp]| Rate::new(times, recent, received.len() - recent, now);
        // What is a conflict has a dead letter of its own, which comes a moment later.
        other_bodies.sort();
        let rendered = other_bodies.len().saturating_sub(conflicts.len());
        let rendered_retries = rate(&other_bodies[..rendered]);
        let (copies, conflicts, suspected_replays) =
            (rate(&copies), rate(&conflicts), rate(&suspected));
        let mut gaps: Vec<Duration> = received.windows(2).map(|two| two[1].since(two[0])).collect();
        gaps.sort();
        let last = received.last().copied();
        let usual = gaps.get(gaps.len() * 95 / 100).filter(|_| gaps.len() >= ENOUGH);
        Self {
            source: source.name.clone(),
            provider: source.endpoint.provider.clone(),
            findings: Vec::new(),
            last_accepted: last,
            events: events.len(),
            delay_ms: delays.last().map(|most| (millis(delays[delays.len() / 2]), millis(*most))),
            copies,
            conflicts,
            rendered_retries,
            suspected_replays,
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
            ("duplicating", self.copies.count >= ENOUGH && self.copies.count * 5 > self.events),
            ("copies_jumped", self.copies.jumped()),
            ("conflicts_jumped", self.conflicts.jumped()),
            ("suspected_replays_jumped", self.suspected_replays.jumped()),
            ("refusing", refused as usize >= ENOUGH && refused as usize * 20 > self.events),
        ];
        self.findings = all.into_iter().filter(|(_, found)| *found).map(|(name, _)| name).collect();
    }
}

fn millis(duration: Duration) -> u64 {
    zentra_core::clock::millis(duration)
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
            copies: Rate { count: 3, ..Rate::default() },
            conflicts: Rate::default(),
            rendered_retries: Rate::default(),
            suspected_replays: Rate::default(),
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
        assert_eq!(judged(&|source| source.copies.count = 21), ["duplicating"]);
        let hour = Duration::from_secs(3600);
        let now = Timestamp::from_secs(1_700_000_000);
        let rate = |lately: usize, before: usize| {
            let times = [vec![now; lately], vec![now.minus(2 * hour); before]].concat();
            Rate::new(&times, 100, 100, now)
        };
        for (lately, before, jumped) in [
            (4, 0, false),
            (5, 0, true),
            (5, 1, true),
            (5, 2, false),
            (40, 13, true),
            (40, 14, false),
        ] {
            assert_eq!(rate(lately, before).jumped(), jumped, "{lately} after {before}");
        }
        let name = "suspected_replays_jumped";
        assert_eq!(judged(&|source| source.suspected_replays = rate(9, 0)), [name]);
        assert_eq!(judged(&|source| source.conflicts = rate(9, 0)), ["conflicts_jumped"]);
        assert_eq!(judged(&|source| source.copies = rate(9, 0)), ["copies_jumped"]);
        let refusing = |source: &mut Source| source.refused = [("x".into(), 6)].into();
        assert_eq!(judged(&refusing), ["refusing"]);
    }
}
