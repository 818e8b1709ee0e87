//! A pass through dead-letter queues that acts on selected letters.
//!
//! An action is durable before the letter is acknowledged, so a pass can be killed at any time. At
//! worst a handled letter stays; the store knows it, and the next pass removes it.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::future::Future;
use std::hash::{BuildHasher, RandomState};
use std::num::NonZeroU32;

use governor::{Quota, RateLimiter};
use serde::Serialize;
use zentra_core::clock::{self, Timestamp};
use zentra_core::event::DeliveryKey;
use zentra_core::lifecycle::{DeadReason, State};
use zentra_core::seal::Sealer;
use zentra_store::delivery::{self, OpenedMessage};
use zentra_store::job::Scope;
use zentra_store::journal::{Delivery, DeliveryStore};
use zentra_store::queue::{Message, Operate, Place, Receipt, Walk};

use crate::error::AdminError;
use crate::progress::Progress;

/// A pass through the dead letters.
pub(crate) struct Pass<'a, H, Q> {
    pub(crate) histories: &'a H,
    pub(crate) queue: &'a Q,
    pub(crate) sealer: &'a Sealer,
    pub(crate) destinations: Vec<String>,
    pub(crate) scope: &'a Scope,
    /// Only these deliveries; empty: all.
    pub(crate) keys: HashSet<DeliveryKey>,
    /// Maximum number of letters.
    pub(crate) limit: usize,
    /// Maximum number per second (0 disables the limit).
    pub(crate) rate: u32,
    /// Count only.
    pub(crate) dry_run: bool,
    pub(crate) progress: &'a dyn Progress,
}

/// A selected letter and its delivery, if it is known.
pub(crate) struct Letter<'a> {
    pub(crate) message: &'a Message,
    pub(crate) opened: &'a OpenedMessage,
    pub(crate) known: Option<&'a Delivery>,
}

impl Letter<'_> {
    /// Whether it is a suspected replay or a conflict. The reason in the message is not sealed, so
    /// it only adds to what seal and store say.
    pub(crate) fn is_set_apart(&self) -> bool {
        let event = self.opened.event.as_ref();
        let sealed = event.is_ok_and(|event| event.envelope.waits_for().is_some());
        // After its release it is a delivery like any other.
        let released = self.known.is_some_and(|known| known.record.generation > 0);
        let known = self.known.and_then(|known| known.reason);
        (sealed && !released)
            || [self.message.dead, known].into_iter().flatten().any(DeadReason::is_released)
    }
}

/// An action on letters.
pub(crate) trait LetterAction: Send {
    /// Whether to read another letter. `so_far` is the report until now.
    fn goes_on(
        &mut self,
        _so_far: &PassReport,
    ) -> impl Future<Output = Result<bool, AdminError>> + Send {
        async { Ok(true) }
    }

    /// Whether the action applies to this letter.
    fn suits(&mut self, _letter: &Letter<'_>) -> bool {
        true
    }

    /// Acts. `true`: it is durable, and the letter can be removed now. `false`: after
    /// [`LetterAction::flush`].
    fn on(&mut self, letter: &Letter<'_>) -> impl Future<Output = Result<bool, AdminError>> + Send;

    /// Makes all actions so far durable.
    fn flush(&mut self) -> impl Future<Output = Result<(), AdminError>> + Send {
        async { Ok(()) }
    }
}

/// Report of a pass.
#[derive(Debug, Default, Serialize)]
pub struct PassReport {
    /// Whether nothing was changed.
    pub dry_run: bool,
    /// Letters that were read.
    pub looked: u64,
    /// Letters that were handled, or would be.
    pub done: u64,
    /// Number by destination and reason.
    pub by: BTreeMap<String, u64>,
    /// Receipt of the oldest.
    pub oldest: Option<Timestamp>,
    /// Selected, but left: suspected replays and conflicts, which are released instead.
    pub unsuited: u64,
    /// Handled before, and removed now.
    pub leftover: u64,
    /// Selected, but left: a worker is processing it.
    pub busy: u64,
    /// Selected, but left: older than the retention, so it may have been delivered.
    #[serde(skip)]
    pub forgotten: u64,
}

/// Maximum number of letters that wait for a flush.
const BATCH: usize = 64;

impl<H: DeliveryStore, Q: Operate> Pass<'_, H, Q> {
    /// Reads the queues in their order.
    pub(crate) async fn run(&self, act: &mut impl LetterAction) -> Result<PassReport, AdminError> {
        let mut tally = PassReport { dry_run: self.dry_run, ..PassReport::default() };
        for destination in &self.destinations {
            self.queue_of(destination, act, &mut tally).await?;
        }
        Ok(tally)
    }

    async fn queue_of(
        &self,
        destination: &str,
        act: &mut impl LetterAction,
        tally: &mut PassReport,
    ) -> Result<(), AdminError> {
        let pace =
            NonZeroU32::new(self.rate).map(|rate| RateLimiter::direct(Quota::per_second(rate)));
        let mut walk = self.queue.walk(Place::Dead(destination)).await?;
        let mut waiting = Vec::new();
        // The generation of each letter that was handled, by the hash of its key.
        let (hashes, mut handled) = (RandomState::new(), HashMap::new());
        while !self.is_done(tally)
            && act.goes_on(tally).await?
            && let Some((message, receipt)) = walk.next().await?
        {
            tally.looked += 1;
            self.progress.show(format!("{} looked at, {} done", tally.looked, tally.done));
            let opened = delivery::open(self.sealer, destination, &message.sealed);
            let wanted = self.keys.is_empty() || self.keys.contains(&opened.key);
            if !wanted || !self.scope.takes(&opened.summary, message.dead) {
                continue;
            }
            let known = self.histories.history(&opened.key).await?;
            if !self.scope.takes_error(known.as_ref()) {
                continue;
            }
            let (hash, generation) = (hashes.hash_one(&opened.key), message.generation);
            let letter = Letter { message: &message, opened: &opened, known: known.as_ref() };
            match letter_state(&letter) {
                LetterState::Busy => tally.busy += 1,
                LetterState::Leftover => {
                    tally.leftover += 1;
                    if !self.dry_run {
                        receipt.ack().await;
                    }
                }
                LetterState::Dead if !act.suits(&letter) => tally.unsuited += 1,
                // It was requeued by this pass, and is dead again. Without this, a pass over a
                // destination that fails would never end.
                LetterState::Dead if handled.get(&hash).is_some_and(|&of| of < generation) => {}
                LetterState::Dead => {
                    let reason = letter.message.dead.map_or("unknown", DeadReason::as_str);
                    tally.count(destination, reason, letter.opened.summary.received_at);
                    if self.dry_run {
                        continue;
                    }
                    if let Some(pace) = &pace {
                        pace.until_ready().await;
                    }
                    match act.on(&letter).await? {
                        true => {
                            handled.insert(hash, generation);
                            receipt.ack().await;
                        }
                        false => waiting.push(receipt),
                    }
                    if waiting.len() >= BATCH {
                        let_go(act, &mut waiting).await?;
                    }
                }
            }
        }
        let_go(act, &mut waiting).await?;
        Ok(walk.finish().await?)
    }

    fn is_done(&self, tally: &PassReport) -> bool {
        let done = usize::try_from(tally.done).unwrap_or(usize::MAX);
        done >= self.limit || (!self.keys.is_empty() && done >= self.keys.len())
    }
}

async fn let_go<R: Receipt>(
    act: &mut impl LetterAction,
    waiting: &mut Vec<R>,
) -> Result<(), AdminError> {
    if waiting.is_empty() {
        return Ok(());
    }
    act.flush().await?;
    for receipt in waiting.drain(..) {
        receipt.ack().await;
    }
    Ok(())
}

/// State of a letter by the delivery store.
enum LetterState {
    /// It waits for an operator.
    Dead,
    /// It was handled before.
    Leftover,
    /// A worker can still finish it.
    Busy,
}

fn letter_state(letter: &Letter<'_>) -> LetterState {
    // Forgotten, or never known.
    let Some(known) = letter.known else {
        return LetterState::Dead;
    };
    let record = &known.record;
    match record.state {
        State::Delivered => LetterState::Leftover,
        _ if record.generation > letter.message.generation => LetterState::Leftover,
        State::Dead => LetterState::Dead,
        // Several workers crashed with it, and the broker dead-lettered it.
        State::InFlight if record.until < clock::now() => LetterState::Dead,
        State::InFlight | State::Waiting => LetterState::Busy,
    }
}

impl PassReport {
    /// Counts a letter that is handled, or would be.
    pub(crate) fn count(&mut self, destination: &str, how: &str, received: Option<Timestamp>) {
        self.done += 1;
        *self.by.entry(format!("{destination}, {how}")).or_default() += 1;
        self.oldest = match (self.oldest, received) {
            (Some(oldest), Some(this)) => Some(oldest.min(this)),
            (oldest, this) => oldest.or(this),
        };
    }
}
