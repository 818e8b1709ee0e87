//! A pass through the archive: decides for each event and destination whether it runs.

use std::num::NonZeroU32;

use governor::{Quota, RateLimiter};
use zentra_config::Config;
use zentra_core::clock::{self, Timestamp};
use zentra_core::event::Event;
use zentra_core::lifecycle::State;
use zentra_core::seal::Sealed;
use zentra_store::delivery::{self, OpenedMessage};
use zentra_store::job::Scope;
use zentra_store::journal::{Delivery, DeliveryStore, HistoryEvent};
use zentra_store::queue::{Archived, Message, Operate, Subscriber};

use crate::archive;
use crate::dead::{Letter, LetterAction, PassReport};
use crate::error::AdminError;

/// Tolerance for the clocks of several ingresses.
const SKEW: std::time::Duration = std::time::Duration::from_secs(300);

/// A pass through the archive.
pub(super) struct Replay<'a, H, Q> {
    pub(super) histories: &'a H,
    pub(super) queue: &'a Q,
    pub(super) config: &'a Config,
    pub(super) destinations: &'a [String],
    pub(super) scope: &'a Scope,
    /// Only these events, if there are any.
    pub(super) ids: &'a [String],
    /// Include delivered events, and events older than the retention.
    pub(super) force: bool,
    /// Time of the plan; later events are excluded.
    pub(super) planned: Timestamp,
    /// Id of the job.
    pub(super) job: &'a str,
    /// Maximum number per second (0 disables the limit).
    pub(super) rate: u32,
    /// Count only.
    pub(super) dry_run: bool,
}

/// State of an event at a destination.
enum ReplayState {
    /// It runs.
    Runs(&'static str),
    /// It is in progress.
    Busy,
    /// It is delivered and not forced, or this job has handled it.
    Done,
    /// It is older than the retention: unknown.
    Forgotten,
}

impl<H: DeliveryStore, Q: Operate> Replay<'_, H, Q> {
    /// Reads the archive in its order.
    pub(super) async fn run(&self, act: &mut impl LetterAction) -> Result<PassReport, AdminError> {
        let mut tally = PassReport { dry_run: self.dry_run, ..PassReport::default() };
        let from = self.scope.after.unwrap_or_default();
        let Some(mut archived) = archive::open(self.queue, self.config, from).await? else {
            return Ok(tally);
        };
        let subscribers = self.config.subscribers();
        let pace =
            NonZeroU32::new(self.rate).map(|rate| RateLimiter::direct(Quota::per_second(rate)));
        while act.goes_on(&tally).await?
            && let Some(sealed) = archived.next().await?
        {
            let mut opened = delivery::open(&self.config.seal, "", &sealed);
            // Messages without a valid seal are skipped.
            let Ok(event) = &opened.event else { continue };
            if event.envelope.received_at > self.planned.plus(SKEW) {
                break;
            }
            if !self.is_named(event) {
                continue;
            }
            let route = event.envelope.route();
            for destination in self.takers(&subscribers, &route) {
                opened.turn(destination);
                self.one(&opened, &sealed, act, &mut tally, pace.as_ref()).await?;
            }
        }
        Ok(tally)
    }

    fn is_named(&self, event: &Event) -> bool {
        let envelope = &event.envelope;
        let is = |id: &String| {
            envelope.event_id() == Some(id.as_str()) || envelope.name().as_str() == id
        };
        self.ids.is_empty() || self.ids.iter().any(is)
    }

    fn takers<'s>(
        &'s self,
        subscribers: &'s [Subscriber],
        route: &'s str,
    ) -> impl Iterator<Item = &'s str> {
        let asked = |one: &&Subscriber| self.destinations.contains(&one.destination);
        let takes = subscribers.iter().filter(asked).filter(|one| one.takes(route));
        takes.map(|one| one.destination.as_str())
    }

    async fn one(
        &self,
        opened: &OpenedMessage,
        sealed: &Sealed,
        act: &mut impl LetterAction,
        tally: &mut PassReport,
        pace: Option<&governor::DefaultDirectRateLimiter>,
    ) -> Result<(), AdminError> {
        let known = self.histories.history(&opened.key).await?;
        let known = known.as_ref();
        tally.looked += 1;
        let dead = known.and_then(|known| known.reason);
        if !self.scope.takes(&opened.summary, dead) || !self.scope.takes_error(known) {
            return Ok(());
        }
        let generation = known.map_or(0, |known| known.record.generation);
        let message = Message { generation, dead, ..Message::new(sealed.clone()) };
        let letter = Letter { message: &message, opened, known };
        match self.replay_state(opened, known) {
            ReplayState::Busy => tally.busy += 1,
            ReplayState::Done => tally.leftover += 1,
            ReplayState::Forgotten => tally.forgotten += 1,
            ReplayState::Runs(_) if !act.suits(&letter) => tally.unsuited += 1,
            ReplayState::Runs(how) => {
                tally.count(opened.key.destination(), how, opened.summary.received_at);
                if self.dry_run {
                    return Ok(());
                }
                if let Some(pace) = pace {
                    pace.until_ready().await;
                }
                act.on(&letter).await?;
            }
        }
        Ok(())
    }

    fn replay_state(&self, opened: &OpenedMessage, known: Option<&Delivery>) -> ReplayState {
        let Some(known) = known else {
            return match self.is_remembered(opened) {
                true => ReplayState::Runs("never run"),
                false if self.force => ReplayState::Runs("forgotten, forced"),
                false => ReplayState::Forgotten,
            };
        };
        match known.record.state {
            State::Dead => ReplayState::Runs("dead"),
            State::Delivered if self.force && self.replayed(known).is_none() => {
                ReplayState::Runs("delivered, forced")
            }
            State::Delivered => ReplayState::Done,
            // This job was killed before it had published it.
            State::Waiting
                if known.record.attempt == 1
                    && self.replayed(known) == Some(known.record.generation) =>
            {
                ReplayState::Runs("begun")
            }
            State::InFlight | State::Waiting => ReplayState::Busy,
        }
    }

    /// Whether the store would still know a delivery of it.
    fn is_remembered(&self, opened: &OpenedMessage) -> bool {
        let named = |source: &&zentra_core::source::Source| source.name == opened.summary.source;
        let retention = self.config.sources.iter().find(named).map(|source| source.retention);
        let until = opened.summary.received_at.zip(retention).map(|(at, time)| at.plus(time));
        until.is_some_and(|until| until > clock::now())
    }

    /// The generation of this job's last replay of it.
    fn replayed(&self, known: &Delivery) -> Option<u32> {
        let by_this = |job: &str| job.split('/').next() == Some(self.job);
        known.history.iter().rev().find_map(|entry| match &entry.what {
            HistoryEvent::Replayed { job, .. } if by_this(job) => Some(entry.generation),
            _ => None,
        })
    }
}

/// An action that does nothing.
pub(super) struct Nothing;

impl LetterAction for Nothing {
    async fn on(&mut self, _letter: &Letter<'_>) -> Result<bool, AdminError> {
        Ok(true)
    }
}
