//! Delivery to a Rust handler in this process.

use std::any::Any;
use std::collections::HashMap;
use std::fmt;
use std::future::Future;
use std::panic::AssertUnwindSafe;
use std::pin::Pin;
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures_util::FutureExt;
use zentra_core::clock::millis;
use zentra_core::event::{DeliveryKey, Event};
use zentra_core::trace::Trace;
use zentra_store::journal::{AttemptResult, ErrorClass};

use super::{AttemptRequest, Attempted, Verdict};

/// Maximum length of an error in the history, in characters.
const MAX_ERROR: usize = 1024;

/// One attempt at a delivery, as a handler gets it.
#[derive(Clone, Debug)]
pub struct Delivery {
    /// The idempotency key: the same for every attempt and every replay. Write under it, in
    /// the same transaction as the effect; see [`crate::inbox`].
    pub key: DeliveryKey,
    /// The event: envelope and the provider's exact body.
    pub event: Event,
    /// Number of the attempt, from 1.
    pub attempt: u32,
    /// The event's trace (W3C Trace Context), and this attempt's step in it.
    pub trace: Trace,
}

/// The failure of a handler. `?` converts any error into one that is retried.
#[derive(Debug)]
pub struct Failed {
    pub(super) verdict: Verdict,
    pub(super) error: String,
}

impl Failed {
    /// A failure that is retried by the destination's `retry` table.
    pub fn again(error: impl fmt::Display) -> Self {
        Self::new(Verdict::Failed { retry_after: None }, error)
    }

    /// A failure that is retried after `wait` at the earliest, up to `retry.max_retry_after`.
    pub fn after(wait: Duration, error: impl fmt::Display) -> Self {
        Self::new(Verdict::Failed { retry_after: Some(wait) }, error)
    }

    /// A permanent failure: a dead letter at once.
    pub fn permanent(error: impl fmt::Display) -> Self {
        Self::new(Verdict::Permanent, error)
    }

    fn new(verdict: Verdict, error: impl fmt::Display) -> Self {
        Self { verdict, error: error.to_string().chars().take(MAX_ERROR).collect() }
    }
}

impl<E: std::error::Error> From<E> for Failed {
    fn from(error: E) -> Self {
        Self::again(zentra_telemetry::causes(&error))
    }
}

type Handling = Pin<Box<dyn Future<Output = Result<(), Failed>> + Send>>;
type Handler = Arc<dyn Fn(Delivery) -> Handling + Send + Sync>;

/// The handlers of a worker, by destination.
#[derive(Clone, Default)]
pub(crate) struct Handlers(HashMap<String, Handler>);

impl Handlers {
    pub(crate) fn add<F, R>(&mut self, destination: &str, handler: F)
    where
        F: Fn(Delivery) -> R + Send + Sync + 'static,
        R: Future<Output = Result<(), Failed>> + Send + 'static,
    {
        let boxed: Handler = Arc::new(move |delivery| Box::pin(handler(delivery)));
        self.0.insert(destination.to_owned(), boxed);
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub(crate) fn names(&self) -> impl Iterator<Item = &str> {
        self.0.keys().map(String::as_str)
    }

    pub(crate) fn of(&self, destination: &str) -> Option<HandlerDelivery> {
        self.0.get(destination).cloned().map(HandlerDelivery)
    }
}

/// One destination's handler.
#[derive(Clone)]
pub(crate) struct HandlerDelivery(Handler);

impl HandlerDelivery {
    /// Calls the handler once, within the destination's timeout. A panic is a failed attempt.
    pub(crate) async fn deliver(&self, request: &AttemptRequest<'_>) -> Attempted {
        let started = Instant::now();
        let delivery = Delivery {
            key: request.key.clone(),
            event: request.event.clone(),
            attempt: request.attempt,
            trace: request.trace,
        };
        let limit = request.destination.timeout;
        // It can panic before its first await too.
        let handling = AssertUnwindSafe(async { (self.0)(delivery).await }).catch_unwind();
        let (class, ended) = match tokio::time::timeout(limit, handling).await {
            Ok(Ok(ended)) => (ErrorClass::Handler, ended),
            Ok(Err(panic)) => {
                let error = format!("the handler panicked: {}", words(&*panic));
                (ErrorClass::Panic, Err(Failed::again(error)))
            }
            Err(_) => {
                let error = format!("the handler took longer than {limit:?}");
                (ErrorClass::Timeout, Err(Failed::again(error)))
            }
        };
        let (verdict, error) = match ended {
            Ok(()) => (Verdict::Delivered, None),
            Err(Failed { verdict, error }) => (verdict, Some(error)),
        };
        let (duration_ms, class) = (millis(started.elapsed()), error.as_ref().map(|_| class));
        let result = AttemptResult { duration_ms, error, class, ..Default::default() };
        Attempted { verdict, result }
    }
}

/// The message of a panic, if it is text.
fn words(panic: &(dyn Any + Send)) -> &str {
    let text = panic.downcast_ref::<&str>().copied();
    text.or_else(|| panic.downcast_ref::<String>().map(String::as_str)).unwrap_or("without a word")
}
