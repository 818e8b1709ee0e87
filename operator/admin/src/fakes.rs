//! A queue and a delivery store in memory, for tests. Both write into one log, so that a test sees
//! the order of their steps.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use zentra_config::{Config, Environment, Role};
use zentra_core::clock::{self, Timestamp};
use zentra_core::event::{Context, DeliveryKey, Envelope, Event, Identity};
use zentra_core::lifecycle::{DeadReason, Record, State};
use zentra_core::seal::Sealed;
use zentra_store::delivery::open;
use zentra_store::job::{Halt, Job, Jobs};
use zentra_store::journal::list::{Page, Query};
use zentra_store::journal::{Delivery, DeliveryStore, Entry, HistoryEvent, JournalError};
use zentra_store::queue::{Archive, Archived, Message, Operate, Place, QueueError, Receipt, Walk};
use zentra_store::stored::Listing;

/// The destination of all fakes.
pub(crate) const LEDGER: &str = "ledger";

/// What became of an event after a requeue.
#[derive(Clone, Copy)]
pub(crate) enum Worker {
    /// It is delivered.
    Delivers,
    /// It is dead-lettered again.
    Fails,
    /// No worker runs.
    Absent,
}

/// What the fakes share.
struct Inner {
    log: Vec<String>,
    dead: VecDeque<Message>,
    archive: Vec<Sealed>,
    deliveries: HashMap<DeliveryKey, Delivery>,
    jobs: HashMap<String, Job>,
    asked: HashMap<String, Halt>,
    /// Who holds the destinations.
    holder: Option<String>,
    worker: Worker,
    /// Whether no history entry can be written.
    notes_fail: bool,
    /// Whether the first answer of a replay is lost, and the client repeats it.
    repeats_reopen: bool,
    /// Fails the next requeues.
    blocked: u32,
    requeues: u32,
    /// An operator's request that arrives after this number of requeues.
    ask_after: Option<(u32, Halt)>,
}

/// The fakes of one test. Clones share their state.
#[derive(Clone)]
pub(crate) struct Fakes {
    inner: Arc<Mutex<Inner>>,
    pub(crate) config: Arc<Config>,
}

impl Fakes {
    pub(crate) fn new() -> Self {
        let inner = Inner {
            log: Vec::new(),
            dead: VecDeque::new(),
            archive: Vec::new(),
            deliveries: HashMap::new(),
            jobs: HashMap::new(),
            asked: HashMap::new(),
            holder: None,
            worker: Worker::Delivers,
            notes_fail: false,
            repeats_reopen: false,
            blocked: 0,
            requeues: 0,
            ask_after: None,
        };
        Self { inner: Arc::new(Mutex::new(inner)), config: Arc::new(config()) }
    }

    fn with<T>(&self, act: impl FnOnce(&mut Inner) -> T) -> T {
        act(&mut self.inner.lock().unwrap())
    }

    /// The steps since the last call.
    pub(crate) fn take_log(&self) -> Vec<String> {
        self.with(|inner| std::mem::take(&mut inner.log))
    }

    /// Sets what becomes of requeued events from now on.
    pub(crate) fn worker(&self, worker: Worker) {
        self.with(|inner| inner.worker = worker);
    }

    /// The store writes no history entry from now on.
    pub(crate) fn repeat_reopen(&self) {
        self.with(|inner| inner.repeats_reopen = true);
    }

    pub(crate) fn fail_notes(&self) {
        self.with(|inner| inner.notes_fail = true);
    }

    /// The broker blocks the next requeues.
    pub(crate) fn block(&self, requeues: u32) {
        self.with(|inner| inner.blocked = requeues);
    }

    /// Another program holds the destinations.
    pub(crate) fn take_over(&self, holder: &str) {
        self.with(|inner| inner.holder = Some(holder.to_owned()));
    }

    /// An operator sends this request after this number of requeues.
    pub(crate) fn ask_after(&self, requeues: u32, halt: Halt) {
        self.with(|inner| inner.ask_after = Some((requeues, halt)));
    }

    /// The IDs of the dead letters, in the queue's order.
    pub(crate) fn dead(&self) -> Vec<String> {
        self.with(|inner| inner.dead.iter().map(id).collect())
    }

    /// An event that is dead: its letter and its delivery.
    pub(crate) fn add_dead(&self, id: &str) {
        let message = Message { dead: Some(DeadReason::Exhausted), ..self.message(id) };
        self.add_delivery(id, State::Dead, 0);
        self.with(|inner| inner.dead.push_back(message));
    }

    /// A letter, whatever the delivery store knows.
    pub(crate) fn add_letter(&self, message: Message) {
        self.with(|inner| inner.dead.push_back(message));
    }

    pub(crate) fn add_archived(&self, id: &str) {
        let sealed = self.message(id).sealed;
        self.with(|inner| inner.archive.push(sealed));
    }

    pub(crate) fn add_delivery(&self, id: &str, state: State, generation: u32) {
        self.add_delivery_of(&self.message(id), state, generation);
    }

    pub(crate) fn add_delivery_of(&self, message: &Message, state: State, generation: u32) {
        let opened = open(&self.config.seal, LEDGER, &message.sealed);
        let until = clock::now().plus(Duration::from_secs(30));
        let fingerprint = opened.fingerprint;
        let record =
            Record { state, generation, attempt: 1, expired: 0, fence: 1, until, fingerprint };
        let reason = (state == State::Dead).then_some(DeadReason::Exhausted);
        let (key, event) = (opened.key.clone(), opened.summary);
        let delivery = Delivery { key, record, reason, event, history: Vec::new() };
        self.with(|inner| inner.deliveries.insert(opened.key, delivery));
    }

    /// Changes a delivery that is known.
    pub(crate) fn change(&self, id: &str, act: impl FnOnce(&mut Delivery)) {
        let key = self.key(id);
        self.with(|inner| act(inner.deliveries.get_mut(&key).unwrap()));
    }

    pub(crate) fn key(&self, id: &str) -> DeliveryKey {
        DeliveryKey::new(LEDGER, "acme", &Identity::from_id(id).unwrap())
    }

    /// The first message of an event.
    pub(crate) fn message(&self, id: &str) -> Message {
        self.message_of(event(id))
    }

    pub(crate) fn message_of(&self, event: Event) -> Message {
        Message::new(self.config.seal.seal(event).unwrap().1)
    }
}

impl Inner {
    /// What a worker does with a requeued message.
    fn process(&mut self, key: &DeliveryKey, message: &Message) {
        let Some(delivery) = self.deliveries.get_mut(key) else { return };
        let record = &mut delivery.record;
        match self.worker {
            Worker::Absent => return,
            Worker::Delivers => (record.state, delivery.reason) = (State::Delivered, None),
            Worker::Fails => {
                record.state = State::Dead;
                let dead = Some(DeadReason::Exhausted);
                self.dead.push_back(Message { dead, ..message.clone() });
            }
        }
        (record.generation, record.attempt) = (message.generation, 1);
    }
}

/// The ID of a message's event, as its queue shows it.
fn id(message: &Message) -> String {
    message.sealed.id.rsplit('/').next().unwrap_or_default().to_owned()
}

pub(crate) fn event(id: &str) -> Event {
    let envelope = Envelope {
        v: 1,
        source: "acme".into(),
        provider: "standard-webhooks".into(),
        identity: Identity::from_id(id).unwrap(),
        unsigned_id: None,
        event_type: Some("transfer.settled".into()),
        content_type: None,
        received_at: clock::now(),
        provider_time: None,
        verified_with: "k1".into(),
        context: Context::default(),
        admitted: None,
        renders_retries: false,
        same_bytes: None,
        suspected: false,
        set_apart: None,
    };
    Event { envelope, body: Bytes::from_static(b"{}") }
}

fn config() -> Config {
    let text = r#"
        rabbitmq.urls = ["amqp://127.0.0.1"]
        redis.url = "redis://127.0.0.1"
        seal.keys = [{ name = "k", secret = "env:SEAL" }]
        [source.acme]
        provider = "standard-webhooks"
        secrets = [{ name = "k1", secret = "env:ACME" }]
        [destination.ledger]
        url = "https://ledger.example"
        subscribe = ["acme.#"]
        signing = [{ name = "k1", secret = "env:ACME" }]
    "#;
    let environment: Environment = [
        ("SEAL", "0123456789abcdef0123456789abcdef"),
        ("ACME", "whsec_MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNkZWY="),
    ]
    .map(|(name, value)| (name.to_owned(), value.to_owned()))
    .into();
    Config::parse(text, Role::Operator, &environment, &[]).unwrap()
}

impl DeliveryStore for Fakes {
    async fn find(&self, _: &str, _: &[(&str, &str)]) -> Result<Vec<DeliveryKey>, JournalError> {
        Ok(Vec::new())
    }

    async fn refuses_claims(&self) -> Result<Option<String>, JournalError> {
        Ok(None)
    }

    async fn history(&self, key: &DeliveryKey) -> Result<Option<Delivery>, JournalError> {
        Ok(self.with(|inner| inner.deliveries.get(key).cloned()))
    }

    async fn list(&self, _: &Query, _: Option<&str>, _: usize) -> Result<Page, JournalError> {
        unreachable!("no pass lists deliveries")
    }

    async fn dead(
        &self,
        _: &str,
        _: usize,
        _: &(dyn Fn(&Delivery) -> bool + Sync),
    ) -> Result<Vec<Delivery>, JournalError> {
        unreachable!("no pass lists dead deliveries")
    }

    async fn reopen(
        &self,
        key: &DeliveryKey,
        by: &str,
        what: &HistoryEvent,
    ) -> Result<Option<u32>, JournalError> {
        let opened = self.with(|inner| {
            let known = inner.deliveries.get_mut(key)?;
            let record = &mut known.record;
            let delivered = record.state == State::Delivered;
            delivered.then(|| {
                (record.state, record.attempt) = (State::Waiting, 1);
                record.generation += 1;
                record.generation
            })
        });
        if let Some(generation) = opened {
            self.note(key, generation, by, what).await?;
        }
        Ok(opened.filter(|_| !self.with(|inner| inner.repeats_reopen)))
    }

    async fn note(
        &self,
        key: &DeliveryKey,
        generation: u32,
        by: &str,
        what: &HistoryEvent,
    ) -> Result<bool, JournalError> {
        if self.with(|inner| inner.notes_fail) {
            return Err(JournalError::Unavailable("away".into()));
        }
        let word = match what {
            HistoryEvent::Requeued { .. } => "requeued",
            HistoryEvent::Released { .. } => "released",
            HistoryEvent::Replayed { .. } => "replayed",
            HistoryEvent::Discarded { .. } => "discarded",
            _ => "other",
        };
        let (by, what) = (by.to_owned(), what.clone());
        let entry = Entry { at: clock::now(), generation, attempt: 1, by, what };
        Ok(self.with(|inner| {
            inner.log.push(format!("note {} {word} {generation}", key.identity()));
            let known = inner.deliveries.get_mut(key);
            known.map(|known| known.history.push(entry)).is_some()
        }))
    }
}

impl Jobs for Fakes {
    async fn keep_job(&self, job: &Job) -> Result<(), JournalError> {
        self.with(|inner| inner.jobs.insert(job.id.clone(), job.clone()));
        Ok(())
    }

    async fn job(&self, id: &str) -> Result<Option<Job>, JournalError> {
        Ok(self.with(|inner| inner.jobs.get(id).cloned()))
    }

    async fn jobs(&self) -> Result<Listing<Job>, JournalError> {
        let items = self.with(|inner| inner.jobs.values().cloned().collect());
        Ok(Listing { items, newer: Vec::new() })
    }

    async fn ask_job(&self, id: &str, halt: Option<Halt>) -> Result<(), JournalError> {
        self.with(|inner| match halt {
            Some(halt) => inner.asked.insert(id.to_owned(), halt),
            None => inner.asked.remove(id),
        });
        Ok(())
    }

    async fn asked_of_job(&self, id: &str) -> Result<Option<Halt>, JournalError> {
        Ok(self.with(|inner| {
            let due = inner.ask_after.filter(|(requeues, _)| inner.requeues >= *requeues);
            due.map(|(_, halt)| halt).or_else(|| inner.asked.get(id).copied())
        }))
    }

    async fn hold(&self, _: &[String], holder: &str) -> Result<Option<String>, JournalError> {
        Ok(self.with(|inner| match &inner.holder {
            Some(other) if other != holder => Some(other.clone()),
            _ => {
                inner.holder = Some(holder.to_owned());
                None
            }
        }))
    }

    async fn let_go(&self, _: &[String], _: &str) -> Result<(), JournalError> {
        self.with(|inner| inner.holder = None);
        Ok(())
    }
}

impl Operate for Fakes {
    type Walk = FakeWalk;
    type Archived = FakeArchived;

    fn blocked(&self) -> Option<String> {
        None
    }

    async fn walk(&self, _: Place<'_>) -> Result<FakeWalk, QueueError> {
        let letters = self.with(|inner| std::mem::take(&mut inner.dead));
        let held = Arc::new(Mutex::new(Vec::new()));
        Ok(FakeWalk { fakes: self.clone(), letters, held })
    }

    async fn depth(&self, _: Place<'_>) -> Result<u64, QueueError> {
        Ok(self.with(|inner| inner.dead.len() as u64))
    }

    async fn archived(&self, _: &Archive, _: Timestamp) -> Result<FakeArchived, QueueError> {
        Ok(FakeArchived { events: self.with(|inner| inner.archive.clone().into()) })
    }

    async fn archived_after(&self, archive: &Archive, _: &str) -> Result<FakeArchived, QueueError> {
        self.archived(archive, Timestamp::default()).await
    }

    async fn reroute(&self, _: &Sealed) -> Result<(), QueueError> {
        unreachable!("no pass routes an event again")
    }

    async fn requeue(&self, destination: &str, message: &Message) -> Result<(), QueueError> {
        let opened = open(&self.config.seal, destination, &message.sealed);
        self.with(|inner| {
            if inner.blocked > 0 {
                inner.blocked -= 1;
                return Err(QueueError::Blocked);
            }
            let line = format!("requeue {} {}", opened.key.identity(), message.generation);
            inner.log.push(line);
            inner.requeues += 1;
            inner.process(&opened.key, message);
            Ok(())
        })
    }
}

/// Holds the letters that it has read, until it ends.
pub(crate) struct FakeWalk {
    fakes: Fakes,
    letters: VecDeque<Message>,
    held: Arc<Mutex<Vec<Message>>>,
}

impl Walk for FakeWalk {
    type Receipt = FakeReceipt;

    async fn next(&mut self) -> Result<Option<(Message, FakeReceipt)>, QueueError> {
        let arrived = || self.fakes.with(|inner| inner.dead.pop_front());
        let Some(message) = self.letters.pop_front().or_else(arrived) else { return Ok(None) };
        self.held.lock().unwrap().push(message.clone());
        let (fakes, held) = (self.fakes.clone(), self.held.clone());
        let seal = message.sealed.seal.clone();
        Ok(Some((message, FakeReceipt { fakes, held, seal })))
    }

    async fn finish(self) -> Result<(), QueueError> {
        Ok(())
    }
}

/// A broker takes back what a walk held, however the walk ends.
impl Drop for FakeWalk {
    fn drop(&mut self) {
        let held = std::mem::take(&mut *self.held.lock().unwrap());
        let back: Vec<Message> = held.into_iter().chain(self.letters.drain(..)).collect();
        self.fakes.with(|inner| {
            for message in back.into_iter().rev() {
                inner.dead.push_front(message);
            }
        });
    }
}

pub(crate) struct FakeReceipt {
    fakes: Fakes,
    held: Arc<Mutex<Vec<Message>>>,
    seal: String,
}

impl Receipt for FakeReceipt {
    async fn ack(self) {
        let mut held = self.held.lock().unwrap();
        let at = held.iter().position(|message| message.sealed.seal == self.seal);
        let message = held.remove(at.expect("a receipt is used once"));
        self.fakes.with(|inner| inner.log.push(format!("ack {}", id(&message))));
    }

    async fn give_back(self) {}
}

pub(crate) struct FakeArchived {
    events: VecDeque<Sealed>,
}

impl Archived for FakeArchived {
    async fn next(&mut self) -> Result<Option<Sealed>, QueueError> {
        Ok(self.events.pop_front())
    }

    fn position(&self) -> Option<String> {
        None
    }
}
