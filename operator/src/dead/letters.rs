//! Going through dead-letter queues, and doing something with the letters that are chosen.
//!
//! What is done with a letter is durable before the letter is acknowledged, so this can be
//! killed anywhere: at worst a letter stays that has been dealt with. The journal tells it
//! apart, and the next pass takes it away.

use std::collections::{BTreeMap, HashSet};
use std::future::Future;
use std::num::NonZeroU32;
use std::time::Duration;

use governor::{Quota, RateLimiter};
use indicatif::ProgressBar;
use serde::Serialize;
use utoipa::ToSchema;
use zentra_shared::clock::{self, Timestamp};
use zentra_shared::delivery::{self, Opened};
use zentra_shared::event::DeliveryKey;
use zentra_shared::job::Scope;
use zentra_shared::journal::{Delivery, Histories};
use zentra_shared::lifecycle::{DeadReason, State};
use zentra_shared::queue::{Message, Operate, Place, Receipt, Walk};
use zentra_shared::seal::Sealer;

use crate::failure::Failure;
use crate::progress::progress;

/// Which letters.
#[derive(clap::Args, Debug, Default)]
pub(crate) struct Filter {
    /// Those of this destination.
    #[arg(long)]
    pub(crate) destination: Option<String>,
    /// Those of this source.
    #[arg(long)]
    source: Option<String>,
    /// Those that were given up for this reason.
    #[arg(long)]
    reason: Option<String>,
    /// Those of this event type.
    #[arg(long = "type", value_name = "TYPE")]
    kind: Option<String>,
    /// Those received longer ago than this, like 2h or 3days.
    #[arg(long, value_name = "AGE", value_parser = humantime::parse_duration)]
    older_than: Option<Duration>,
    /// Those received less long ago than this.
    #[arg(long, value_name = "AGE", value_parser = humantime::parse_duration)]
    newer_than: Option<Duration>,
}

impl Filter {
    /// By these alone.
    pub(crate) fn of(
        destination: Option<String>,
        source: Option<String>,
        reason: Option<String>,
        kind: Option<String>,
    ) -> Self {
        Self { destination, source, reason, kind, ..Self::default() }
    }

    /// Whether anything is asked of a letter.
    pub(crate) fn is_empty(&self) -> bool {
        let Self { destination, source, reason, kind, older_than, newer_than } = self;
        let texts = [destination, source, reason, kind];
        texts.iter().all(|text| text.is_none()) && older_than.is_none() && newer_than.is_none()
    }

    /// As the command line has it.
    pub(crate) fn words(&self) -> String {
        let age =
            |age: &Option<Duration>| age.map(|age| humantime::format_duration(age).to_string());
        let asked = [
            ("destination", self.destination.clone()),
            ("source", self.source.clone()),
            ("reason", self.reason.clone()),
            ("type", self.kind.clone()),
            ("older-than", age(&self.older_than)),
            ("newer-than", age(&self.newer_than)),
        ];
        let asked =
            asked.into_iter().filter_map(|(name, value)| Some(format!("--{name} {}", value?)));
        asked.collect::<Vec<_>>().join(" ")
    }

    /// As of now: ages become times. The destination is its queue's.
    pub(crate) fn scope(&self, now: Timestamp) -> Scope {
        let ago = |age: Option<Duration>| age.map(|age| now.minus(age));
        Scope {
            source: self.source.clone(),
            reason: self.reason.clone(),
            kind: self.kind.clone(),
            before: ago(self.older_than),
            after: ago(self.newer_than),
        }
    }
}

/// A pass through the dead letters.
pub(crate) struct Pass<'a, H, Q> {
    pub(crate) histories: &'a H,
    pub(crate) queue: &'a Q,
    pub(crate) sealer: &'a Sealer,
    pub(crate) destinations: Vec<String>,
    pub(crate) scope: &'a Scope,
    /// Only these deliveries, if there are any.
    pub(crate) keys: HashSet<DeliveryKey>,
    /// At most so many letters.
    pub(crate) limit: usize,
    /// At most so many a second; 0 is no bound.
    pub(crate) rate: u32,
    /// Only counts.
    pub(crate) dry_run: bool,
}

/// A letter that was chosen, with what the journal knows of it.
pub(crate) struct Letter<'a> {
    pub(crate) message: &'a Message,
    pub(crate) opened: &'a Opened,
    pub(crate) known: Option<&'a Delivery>,
}

impl Letter<'_> {
    /// Whether it waits for an operator's decision. The message's own reason is not under the seal,
    /// so it can only add to what the seal and the journal say.
    pub(crate) fn is_set_apart(&self) -> bool {
        let event = self.opened.event.as_ref();
        let sealed = event.is_ok_and(|event| event.envelope.waits_for().is_some());
        // Once it was released it is a delivery like any other.
        let released = self.known.is_some_and(|known| known.record.generation > 0);
        let known = self.known.and_then(|known| known.reason);
        (sealed && !released)
            || [self.message.dead, known].into_iter().flatten().any(DeadReason::is_released)
    }
}

/// What is to be done with letters.
pub(crate) trait Act: Send {
    /// Whether to look at one more letter. `so_far` is what came of the pass.
    fn goes_on(&mut self, _so_far: &Tally) -> impl Future<Output = Result<bool, Failure>> + Send {
        async { Ok(true) }
    }

    /// Whether it is for this letter.
    fn suits(&mut self, _letter: &Letter<'_>) -> bool {
        true
    }

    /// Does it. `true`: it is durable, and the letter may go now. `false`: once
    /// [`Act::flush`] has been.
    fn on(&mut self, letter: &Letter<'_>) -> impl Future<Output = Result<bool, Failure>> + Send;

    /// Makes durable what was done so far.
    fn flush(&mut self) -> impl Future<Output = Result<(), Failure>> + Send {
        async { Ok(()) }
    }
}

/// What a pass came to.
#[derive(Debug, Default, Serialize, ToSchema)]
pub(crate) struct Tally {
    /// Whether nothing was changed.
    pub(crate) dry_run: bool,
    /// Letters looked at.
    pub(crate) looked: u64,
    /// Letters dealt with, or to be dealt with.
    pub(crate) done: u64,
    /// Of those, by destination and reason.
    pub(crate) by: BTreeMap<String, u64>,
    /// Of those, when the oldest was received.
    pub(crate) oldest: Option<Timestamp>,
    /// Chosen, but this isn't for them: suspected replays are released, not re-queued.
    pub(crate) unsuited: u64,
    /// Copies of what had been dealt with before, taken away.
    pub(crate) leftover: u64,
    /// Chosen, but a worker is at it just now: left.
    pub(crate) busy: u64,
    /// Chosen, but the journal may have forgotten that they were delivered: left.
    #[serde(skip)]
    pub(crate) forgotten: u64,
}

/// How many letters may wait for a flush.
const BATCH: usize = 64;

impl<H: Histories, Q: Operate> Pass<'_, H, Q> {
    /// Goes through the queues, in their order.
    pub(crate) async fn run(&self, act: &mut impl Act) -> Result<Tally, Failure> {
        let mut tally = Tally { dry_run: self.dry_run, ..Tally::default() };
        let bar = progress();
        for destination in &self.destinations {
            self.queue_of(destination, act, &mut tally, &bar).await?;
        }
        bar.finish_and_clear();
        Ok(tally)
    }

    async fn queue_of(
        &self,
        destination: &str,
        act: &mut impl Act,
        tally: &mut Tally,
        bar: &ProgressBar,
    ) -> Result<(), Failure> {
        let pace =
            NonZeroU32::new(self.rate).map(|rate| RateLimiter::direct(Quota::per_second(rate)));
        let mut walk = self.queue.walk(Place::Dead(destination)).await?;
        let mut waiting = Vec::new();
        while !self.is_done(tally)
            && act.goes_on(tally).await?
            && let Some((message, receipt)) = walk.next().await?
        {
            tally.looked += 1;
            bar.set_message(format!("{} looked at, {} done", tally.looked, tally.done));
            let opened = delivery::open(self.sealer, destination, &message.sealed);
            let wanted = self.keys.is_empty() || self.keys.contains(&opened.key);
            if !wanted || !self.scope.takes(&opened.summary, message.dead) {
                continue;
            }
            let known = self.histories.history(&opened.key).await?;
            let letter = Letter { message: &message, opened: &opened, known: known.as_ref() };
            match standing(&letter) {
                Standing::Busy => tally.busy += 1,
                Standing::Leftover => {
                    tally.leftover += 1;
                    if !self.dry_run {
                        receipt.ack().await;
                    }
                }
                Standing::Dead if !act.suits(&letter) => tally.unsuited += 1,
                Standing::Dead => {
                    let reason = letter.message.dead.map_or("unknown", DeadReason::as_str);
                    tally.count(destination, reason, letter.opened.summary.received_at);
                    if self.dry_run {
                        continue;
                    }
                    if let Some(pace) = &pace {
                        pace.until_ready().await;
                    }
                    match act.on(&letter).await? {
                        true => receipt.ack().await,
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

    fn is_done(&self, tally: &Tally) -> bool {
        let done = usize::try_from(tally.done).unwrap_or(usize::MAX);
        done >= self.limit || (!self.keys.is_empty() && done >= self.keys.len())
    }
}

async fn let_go<R: Receipt>(act: &mut impl Act, waiting: &mut Vec<R>) -> Result<(), Failure> {
    if waiting.is_empty() {
        return Ok(());
    }
    act.flush().await?;
    for receipt in waiting.drain(..) {
        receipt.ack().await;
    }
    Ok(())
}

/// How a letter stands by the journal.
enum Standing {
    /// It waits for an operator.
    Dead,
    /// It has been dealt with: what carries on, or has ended, is elsewhere.
    Leftover,
    /// It may yet come to its end.
    Busy,
}

fn standing(letter: &Letter<'_>) -> Standing {
    // Forgotten by the journal, or never known.
    let Some(known) = letter.known else {
        return Standing::Dead;
    };
    let record = &known.record;
    match record.state {
        State::Delivered => Standing::Leftover,
        _ if record.generation > letter.message.generation => Standing::Leftover,
        State::Dead => Standing::Dead,
        // Its workers went away with it, one after the other, and the broker gave it up.
        State::InFlight if record.until < clock::now() => Standing::Dead,
        State::InFlight | State::Waiting => Standing::Busy,
    }
}

impl Tally {
    /// One more that is dealt with, or to be.
    pub(crate) fn count(&mut self, destination: &str, how: &str, received: Option<Timestamp>) {
        self.done += 1;
        *self.by.entry(format!("{destination}, {how}")).or_default() += 1;
        self.oldest = match (self.oldest, received) {
            (Some(oldest), Some(this)) => Some(oldest.min(this)),
            (oldest, this) => oldest.or(this),
        };
    }
}
