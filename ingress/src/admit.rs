//! Admitting a callback: verify → fresh → identify → seal → publish.

use std::collections::HashMap;
use std::time::Instant;

use futures_util::stream::{self, StreamExt, TryStreamExt};
use http::Method;
use tokio::sync::Semaphore;
use tokio::task::{JoinHandle, block_in_place};
use zentra_shared::clock;
use zentra_shared::config::Config;
use zentra_shared::event::{Admitted, Envelope, Event};
use zentra_shared::queue::Publish;
use zentra_shared::seal::Sealer;
use zentra_shared::secret::Secret;
use zentra_shared::trace::Trace;
use zentra_shared::verify::{self, Answered, Source, Unverified, Verified};

use crate::keep::Keeper;
use crate::keys::Keys;
use crate::metrics::Metrics;
use crate::refusal::Refusal;

/// How many of one callback's events may wait for their confirm.
const AT_A_TIME: usize = 256;
/// A larger body is verified beside the runtime: one of 1 MiB can take as long as a thousand small
/// callbacks.
const LARGE: usize = 64 * 1024;

/// The one way in, for a callback that has just come and for one that was refused at
/// first and is `admitted` by an operator. Returns the envelopes of its events when the broker
/// has confirmed all of them: only then may a 2xx go out.
pub async fn admit(
    callback: &Unverified,
    source: &Source,
    sealer: &Sealer,
    queue: &impl Publish,
    keys: &Keys,
    admitted: Option<Admitted>,
) -> Result<Vec<Envelope>, Refusal> {
    let verified =
        keys.judge(callback, source, None, |key| callback.verify_by(source, key)).await?;
    publish(verified, sealer, queue, admitted).await
}

async fn publish(
    verified: Verified,
    sealer: &Sealer,
    queue: &impl Publish,
    admitted: Option<Admitted>,
) -> Result<Vec<Envelope>, Refusal> {
    let trace = Trace::new(&mut rand::rng());
    let one = |mut event: Event| {
        let admitted = admitted.clone();
        async move {
            event.envelope.admitted = admitted;
            let (envelope, mut sealed) = sealer.seal(event).map_err(|_| Refusal::Seal)?;
            sealed.trace = Some(trace);
            queue.publish(&sealed).await?;
            tracing::debug!(
                source = envelope.source,
                id = sealed.id,
                trace = trace.id(),
                "event accepted"
            );
            Ok(envelope)
        }
    };
    // All or nothing for the provider: if one can't be queued, it sends all of them again, and
    // those that were are copies then.
    let events = stream::iter(verified.into_events());
    events.map(one).buffered(AT_A_TIME).try_collect().await
}

/// What a callback was.
pub(crate) enum Taken {
    /// Events, now durable.
    Events(Vec<Envelope>),
    /// None: its provider makes sure of the endpoint.
    Handshake(Box<Answered>),
}

/// All that it takes to let a callback in.
pub(crate) struct Gate<Q> {
    sources: HashMap<String, Source>,
    sealer: Sealer,
    queue: Q,
    keeper: Keeper,
    keys: Keys,
    /// Large bodies that are verified at a time: they leave a core to the small ones.
    large: Semaphore,
    /// Those that are verified or wait for it: they leave most of `max_in_flight` to the small ones.
    large_waiting: Semaphore,
    metrics: Metrics,
}

impl<Q: Publish> Gate<Q> {
    /// As the config says. The handle ends when all that was kept is queued, after the
    /// gate is gone.
    pub(crate) fn new(config: &Config, queue: Q, metrics: &Metrics) -> (Self, JoinHandle<()>) {
        metrics.know(&config.sources);
        let sealer = config.seal.clone();
        let (keeper, keeping) = Keeper::start(
            &config.refused,
            &config.sources,
            sealer.clone(),
            queue.clone(),
            metrics.clone(),
        );
        let sources = config.sources.iter().map(|source| (source.name.clone(), source.clone()));
        let (keys, metrics) = (Keys::default(), metrics.clone());
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        let gate = Self {
            sources: sources.collect(),
            sealer,
            queue,
            keeper,
            keys,
            large: Semaphore::new(cores.div_ceil(2)),
            large_waiting: Semaphore::new((config.ingress.bounds.max_in_flight / 4).max(1) as usize),
            metrics,
        };
        (gate, keeping)
    }

    pub(crate) fn source(&self, name: &str) -> Result<&Source, Refusal> {
        self.sources.get(name).ok_or(Refusal::UnknownSource)
    }

    /// Admits a callback, or keeps it where it doesn't verify.
    pub(crate) async fn admit(
        &self,
        callback: Unverified,
        source: &Source,
    ) -> Result<Taken, Refusal> {
        let is_large = callback.body.len() > LARGE || callback.is_compressed();
        let by = |key: Option<&Secret>| {
            let started = Instant::now();
            let verified = match is_large {
                true => block_in_place(|| callback.verify_by_either(source, key, clock::stepped)),
                false => callback.verify_by_either(source, key, clock::stepped),
            };
            self.metrics.verified(&source.name, started.elapsed());
            verified
        };
        let turns = is_large.then_some(&self.large);
        let waiting = match is_large {
            true => Some(self.large_waiting.try_acquire().map_err(|_| Refusal::Overloaded)?),
            false => None,
        };
        let judged = self.keys.judge(&callback, source, turns, by).await;
        drop(waiting);
        match judged {
            Ok(verified) => match verified.handshake() {
                Some(answer) => {
                    if let Some(address) = &answer.visit {
                        self.keys.visit(address, &callback, source).await?;
                    }
                    Ok(Taken::Handshake(Box::new(answer.clone())))
                }
                None => {
                    let published = publish(verified, &self.sealer, &self.queue, None).await;
                    published.map(Taken::Events)
                }
            },
            Err(refusal) => {
                let answer = match refusal {
                    verify::Refusal::SignatureMissing => {
                        callback.unsigned_handshake(&Method::POST, source)
                    }
                    _ => None,
                };
                // It may hold what the operator has to see: a new secret, for one.
                self.keeper.keep(callback, source, refusal);
                answer
                    .map(|answer| Taken::Handshake(Box::new(answer)))
                    .ok_or_else(|| refusal.into())
            }
        }
    }
}
