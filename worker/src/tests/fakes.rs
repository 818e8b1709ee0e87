//! A queue and a delivery store in memory. Both write into one log, so that a test sees the order of
//! their steps.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use prometheus::Registry;
use tokio::sync::mpsc;
use zentra_core::clock::{self, Timestamp};
use zentra_core::event::DeliveryKey;
use zentra_core::lifecycle::{Answer, DeadReason, Input, Outcome, Record, step};
use zentra_store::control::{DesiredStates, Heartbeat, WorkerControl};
use zentra_store::journal::{Claim, Delivery, First, Journal, JournalError, Settle, Summary};
use zentra_store::queue::{
    Consumer, Delay, Fetch, Fetcher, Message, Process, QueueError, Receipt, Routes, Subscribe,
};

/// What happened, in its order.
#[derive(Clone, Default)]
pub(crate) struct Log(Arc<Mutex<Vec<String>>>);

impl Log {
    pub(crate) fn add(&self, line: impl Into<String>) {
        self.0.lock().unwrap().push(line.into());
    }

    /// The lines since the last call.
    pub(crate) fn take(&self) -> Vec<String> {
        std::mem::take(&mut self.0.lock().unwrap())
    }
}

/// Fails the next calls, a number that a test sets.
#[derive(Clone, Default)]
pub(crate) struct Failing(Arc<Mutex<u32>>);

impl Failing {
    pub(crate) fn next(&self, calls: u32) {
        *self.0.lock().unwrap() = calls;
    }

    fn fails(&self) -> bool {
        let mut left = self.0.lock().unwrap();
        let fails = *left > 0;
        *left = left.saturating_sub(1);
        fails
    }
}

/// A queue whose messages a test hands out, and that keeps what is published.
#[derive(Clone)]
pub(crate) struct FakeQueue {
    pub(crate) log: Log,
    pub(crate) failing: Failing,
    /// Messages that were published for a retry or as dead letters.
    pub(crate) published: Arc<Mutex<Vec<Message>>>,
    /// What fetchers get, in this order; then nothing.
    pub(crate) fetches: Arc<Mutex<VecDeque<Fetched>>>,
    source: Arc<Mutex<Option<mpsc::UnboundedReceiver<Message>>>>,
    pub(crate) sender: mpsc::UnboundedSender<Message>,
}

impl FakeQueue {
    pub(crate) fn new(log: &Log) -> Self {
        let (sender, receiver) = mpsc::unbounded_channel();
        Self {
            log: log.clone(),
            failing: Failing::default(),
            published: Arc::default(),
            fetches: Arc::default(),
            source: Arc::new(Mutex::new(Some(receiver))),
            sender,
        }
    }

    fn publish(&self, line: String, message: &Message) -> Result<(), QueueError> {
        if self.failing.fails() {
            self.log.add(format!("{line}: blocked"));
            return Err(QueueError::Blocked);
        }
        self.log.add(line);
        self.published.lock().unwrap().push(message.clone());
        Ok(())
    }
}

impl Subscribe for FakeQueue {
    const SYSTEM: &'static str = "fake";

    async fn subscribe(&self, _: Routes) {}

    fn register(&self, _: &Registry) -> prometheus::Result<()> {
        Ok(())
    }
}

impl Process for FakeQueue {
    type Consumer = FakeConsumer;

    fn consume(&self, _: &str, _: u16) -> FakeConsumer {
        self.log.add("consume");
        let messages = self.source.lock().unwrap().take();
        FakeConsumer { log: self.log.clone(), home: self.source.clone(), messages, stopped: false }
    }

    async fn retry(&self, _: &str, message: &Message, delay: Duration) -> Result<(), QueueError> {
        self.publish(format!("retry attempt {} in {}s", message.attempt, delay.as_secs()), message)
    }

    fn delay(&self, wanted: Delay) -> Duration {
        match wanted {
            Delay::Near(delay) | Delay::AtLeast(delay) => delay,
        }
    }

    async fn dead(
        &self,
        _: &str,
        message: &Message,
        reason: DeadReason,
        _: Option<&str>,
    ) -> Result<(), QueueError> {
        self.publish(format!("dead {}", reason.as_str()), message)
    }

    fn ready(&self) -> bool {
        true
    }
}

impl Fetch for FakeQueue {
    type Fetcher = FakeFetcher;

    fn fetcher(&self, _: &str) -> FakeFetcher {
        FakeFetcher(self.clone())
    }
}

/// How the queue answers a fetcher.
pub(crate) enum Fetched {
    Messages(Vec<Message>),
    Fails,
    Hangs,
}

pub(crate) struct FakeFetcher(FakeQueue);

impl Fetcher for FakeFetcher {
    type Receipt = FakeReceipt;

    async fn fetch(&mut self, _: usize) -> Result<Vec<(Message, FakeReceipt)>, QueueError> {
        let next = self.0.fetches.lock().unwrap().pop_front();
        let messages = match next {
            None => Vec::new(),
            Some(Fetched::Messages(messages)) => messages,
            Some(Fetched::Fails) => return Err(QueueError::Disconnected),
            Some(Fetched::Hangs) => std::future::pending().await,
        };
        let receipt = || FakeReceipt { log: self.0.log.clone() };
        Ok(messages.into_iter().map(|message| (message, receipt())).collect())
    }
}

pub(crate) struct FakeConsumer {
    log: Log,
    home: Arc<Mutex<Option<mpsc::UnboundedReceiver<Message>>>>,
    messages: Option<mpsc::UnboundedReceiver<Message>>,
    stopped: bool,
}

impl Consumer for FakeConsumer {
    type Receipt = FakeReceipt;

    async fn next(&mut self) -> Option<(Message, FakeReceipt)> {
        let messages = self.messages.as_mut()?;
        if self.stopped && messages.is_empty() {
            return None;
        }
        let message = messages.recv().await?;
        Some((message, FakeReceipt { log: self.log.clone() }))
    }

    async fn set_room(&mut self, _: usize, _: usize) {}

    async fn stop(&mut self) {
        self.stopped = true;
    }

    async fn finish(self) {
        self.log.add("finish");
        *self.home.lock().unwrap() = self.messages;
    }
}

pub(crate) struct FakeReceipt {
    pub(crate) log: Log,
}

impl Receipt for FakeReceipt {
    async fn ack(self) {
        self.log.add("ack");
    }

    async fn give_back(self) {
        self.log.add("give back");
    }
}

/// A delivery store that [`step`] decides for.
#[derive(Clone)]
pub(crate) struct FakeJournal {
    pub(crate) log: Log,
    pub(crate) failing: Failing,
    pub(crate) records: Arc<Mutex<HashMap<DeliveryKey, Record>>>,
    first: Arc<Mutex<HashMap<(&'static str, String), String>>>,
}

impl FakeJournal {
    pub(crate) fn new(log: &Log) -> Self {
        Self {
            log: log.clone(),
            failing: Failing::default(),
            records: Arc::default(),
            first: Arc::default(),
        }
    }

    fn step(&self, key: &DeliveryKey, event: &Input) -> Answer {
        let mut records = self.records.lock().unwrap();
        let (record, answer) = step(records.get(key), event, clock::now());
        if let Some(record) = record {
            records.insert(key.clone(), record);
        }
        answer
    }

    fn check(&self, what: &str) -> Result<(), JournalError> {
        match self.failing.fails() {
            true => {
                self.log.add(format!("{what}: away"));
                Err(JournalError::Unavailable("away".into()))
            }
            false => Ok(()),
        }
    }
}

impl Journal for FakeJournal {
    const SYSTEM: &'static str = "fake";

    async fn claim(&self, claim: &Claim<'_>) -> Result<Answer, JournalError> {
        self.check("claim")?;
        let Claim { generation, attempt, lease, .. } = *claim;
        let event = Input::Claim { generation, attempt, lease, fingerprint: *claim.fingerprint };
        let answer = self.step(claim.key, &event);
        let word = match answer {
            Answer::Claimed { .. } => "granted",
            Answer::Busy { .. } => "busy",
            Answer::Done => "done",
            Answer::Dead => "dead",
            Answer::Stale => "stale",
            Answer::Conflict => "conflict",
            Answer::Suspected => "suspected",
            _ => "other",
        };
        self.log.add(format!("claim {generation}/{attempt}: {word}"));
        Ok(answer)
    }

    async fn known(&self, key: &DeliveryKey) -> Result<Option<Delivery>, JournalError> {
        self.check("known")?;
        let record = self.records.lock().unwrap().get(key).cloned();
        Ok(record.map(|record| Delivery {
            key: key.clone(),
            record,
            reason: None,
            event: Summary::default(),
            history: Vec::new(),
        }))
    }

    async fn first(&self, of: First<'_>, value: &str, _: Duration) -> Result<String, JournalError> {
        self.check("first")?;
        let mut first = self.first.lock().unwrap();
        Ok(first.entry(of.name()).or_insert_with(|| value.to_owned()).clone())
    }

    async fn renew(
        &self,
        key: &DeliveryKey,
        fence: u64,
        lease: Duration,
    ) -> Result<Answer, JournalError> {
        Ok(self.step(key, &Input::Renew { fence, lease }))
    }

    async fn settle(&self, settle: &Settle<'_>) -> Result<Answer, JournalError> {
        self.check("settle")?;
        let Settle { fence, generation, attempt, outcome, .. } = *settle;
        let fingerprint = *settle.fingerprint;
        let event = Input::Settle { fence, generation, attempt, outcome, fingerprint };
        let word = match outcome {
            Outcome::Delivered => "delivered",
            Outcome::Retry { .. } => "retry",
            Outcome::Dead(_) => "dead",
        };
        self.log.add(format!("settle {word}"));
        Ok(self.step(settle.key, &event))
    }

    async fn oldest_dead(&self, _: &str) -> Result<Option<Timestamp>, JournalError> {
        Ok(None)
    }

    async fn tidy(&self, _: Duration) -> Result<(), JournalError> {
        Ok(())
    }

    async fn ready(&self) -> Result<(), JournalError> {
        Ok(())
    }
}

impl WorkerControl for FakeJournal {
    async fn heartbeat(&self, _: &Heartbeat) -> Result<DesiredStates, JournalError> {
        Ok(DesiredStates::new())
    }

    async fn leave(&self, _: &str) -> Result<(), JournalError> {
        Ok(())
    }
}
