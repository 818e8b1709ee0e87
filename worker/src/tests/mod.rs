//! One message's way and one destination's loop, on fakes: each branch fails in milliseconds.

mod consume;
mod fakes;
mod process;
mod pull;

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use prometheus::Registry;
use tokio_util::sync::CancellationToken;
use webhook_verify::Secret;
use zentra_config::{Breaker, ClientTls, Destination};
use zentra_core::clock;
use zentra_core::event::{Context, Envelope, Event, Identity};
use zentra_core::retry::Policy;
use zentra_core::seal::{Key, Sealer};
use zentra_store::control::DesiredState;
use zentra_store::delivery::countersign;
use zentra_store::queue::Message;

use crate::circuit::Circuit;
use crate::deliver::Deliver;
use crate::deliver::handler::{Delivery, Failed, Handlers};
use crate::gate::DestinationGate;
use crate::metrics::Metrics;
use crate::process::Processor;
use crate::unpublished::Unpublished;

use fakes::{FakeJournal, FakeQueue, FakeReceipt, Log};

const LEASE: Duration = Duration::from_secs(30);

/// One destination with its fakes.
struct Bench {
    log: Log,
    queue: FakeQueue,
    journal: FakeJournal,
    stop: CancellationToken,
    processor: Arc<Processor<FakeQueue, FakeJournal>>,
    deliver: Arc<Deliver>,
}

impl Bench {
    /// The handler answers each attempt, by its number from 1.
    fn new(answer: impl Fn(u32) -> Result<(), Failed> + Send + Sync + 'static) -> Self {
        let log = Log::default();
        let mut handlers = Handlers::default();
        let attempts = log.clone();
        handlers.add("ledger", move |delivery: Delivery| {
            attempts.add(format!("attempt {}", delivery.attempt));
            std::future::ready(answer(delivery.attempt))
        });
        Self::with(log, &handlers)
    }

    /// The handler takes five seconds, and reports its start (true) and its end.
    fn slow(report: impl Fn(bool) + Clone + Send + Sync + 'static) -> Self {
        let mut handlers = Handlers::default();
        handlers.add("ledger", move |_| {
            let report = report.clone();
            async move {
                report(true);
                tokio::time::sleep(Duration::from_secs(5)).await;
                report(false);
                Ok(())
            }
        });
        Self::with(Log::default(), &handlers)
    }

    fn with(log: Log, handlers: &Handlers) -> Self {
        let (queue, journal) = (FakeQueue::new(&log), FakeJournal::new(&log));
        let metrics = Metrics::new(&Registry::new()).unwrap().of("ledger", ["acme"].into_iter());
        let destination = destination();
        let circuit = Circuit::new(
            destination.circuit.clone(),
            destination.concurrency,
            metrics.circuit_open.clone(),
        );
        let gate = Arc::new(DestinationGate::new(circuit, metrics.in_flight.clone()));
        let stop = CancellationToken::new();
        let processor = Arc::new(Processor {
            destination,
            worker: "worker-1".into(),
            lease: LEASE,
            sources: Arc::new(HashMap::new()),
            default_retention: Duration::from_secs(3600),
            sealer: sealer(),
            queue: queue.clone(),
            journal: journal.clone(),
            unpublished: Unpublished::new(metrics.unpublished.clone()),
            metrics,
            gate,
            pace: None,
            stop: stop.clone(),
        });
        let deliver = Arc::new(Deliver::Handler(handlers.of("ledger").unwrap()));
        Self { log, queue, journal, stop, processor, deliver }
    }

    /// Handles one message, and returns its steps in their order.
    async fn handle(&self, message: Message) -> Vec<String> {
        let receipt = FakeReceipt { log: self.log.clone() };
        self.processor.handle(message, receipt, &self.deliver).await;
        self.log.take()
    }

    /// The message that was published last.
    fn published(&self) -> Message {
        self.queue.published.lock().unwrap().last().unwrap().clone()
    }

    fn open_gate(&self) {
        self.processor.gate.apply(DesiredState::default());
    }
}

fn destination() -> Destination {
    Destination {
        name: "ledger".into(),
        url: None,
        pull: None,
        method: http::Method::POST,
        headers: http::HeaderMap::new(),
        tls: ClientTls::default(),
        subscribe: vec!["acme.#".into()],
        signing: Vec::new(),
        retry: Policy {
            attempts: 3,
            initial: Duration::from_secs(5),
            multiplier: 3.0,
            max: Duration::from_secs(3600),
            max_retry_after: Duration::from_secs(3600),
            jitter: 0.0,
            max_age: Duration::from_secs(86_400),
        },
        concurrency: 2,
        shards: 1,
        timeout: Duration::from_secs(10),
        permanent: Vec::new(),
        allow_private: false,
        rate: 0,
        circuit: Breaker {
            failures: 5,
            first_pause: Duration::from_secs(1),
            pause: Duration::from_secs(30),
        },
    }
}

fn sealer() -> Sealer {
    let secret = Secret::new("0123456789abcdef0123456789abcdef");
    Sealer::new(vec![Key { name: "k".into(), secret }]).unwrap()
}

/// An event of the source `acme` with this id and body.
fn event(id: &str, body: &'static str) -> Event {
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
    Event { envelope, body: Bytes::from_static(body.as_bytes()) }
}

/// The first message of an event.
fn message(event: Event) -> Message {
    Message::new(sealer().seal(event).unwrap().1)
}

/// A message of this attempt, as a worker sends it on.
fn countersigned(message: Message, generation: u32, attempt: u32) -> Message {
    countersign(&sealer(), "ledger", Message { generation, attempt, ..message }).unwrap()
}
