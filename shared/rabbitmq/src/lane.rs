//! Publishing. A lane is a channel with at most 64 publishes in flight.
//!
//! The client library attaches a returned (unroutable) message to whichever confirm of its channel
//! comes next. So a confirm alone says nothing about its own message. The module `returns` works
//! out which messages are safe.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, Wake, Waker};
use std::time::{Duration, Instant};

use bytes::Bytes;
use futures_util::poll;
use futures_util::stream::{FuturesUnordered, StreamExt};
use lapin::message::BasicReturnMessage;
use lapin::options::{BasicPublishOptions, ConfirmSelectOptions};
use lapin::types::ShortString;
use lapin::{BasicProperties, Channel, Connection};
use tokio::sync::{mpsc, oneshot};
use tokio::time::{MissedTickBehavior, interval};
use zentra_telemetry::GaugeGuard;

use super::QueueError;
use super::returns::Returns;
use super::session::{DEAD, Session};
use crate::error::failed;

/// Maximum number of publishes in flight on one channel.
pub(super) const WINDOW: usize = 64;
/// Maximum bytes of their bodies. A larger body is published alone.
const WINDOW_BYTES: usize = 4 * 1024 * 1024;

/// One publish.
pub(super) struct Job {
    pub(super) exchange: ShortString,
    pub(super) key: ShortString,
    pub(super) body: Bytes,
    /// With a message ID.
    pub(super) properties: BasicProperties,
    pub(super) done: oneshot::Sender<Result<(), QueueError>>,
}

/// A channel in confirm mode.
pub(super) async fn open(connection: &Connection) -> lapin::Result<Channel> {
    let channel = connection.create_channel().await?;
    channel.confirm_select(ConfirmSelectOptions::default()).await?;
    Ok(channel)
}

/// Works off jobs until the connection is given up. The outcome of jobs that are dropped without
/// an answer is unknown, and their senders learn that.
pub(super) async fn run(
    session: Arc<Session>,
    channel: Channel,
    jobs: mpsc::Receiver<Job>,
    patience: Duration,
) {
    let window = Window::new();
    let mut lane = Lane { session: &session, channel, jobs, window, patience, number: 0 };
    tokio::select! {
        () = session.gone.cancelled() => {}
        result = lane.work() => if let Err(error) = result {
            session.learn(&error);
            match failed(error) {
                error @ QueueError::Unusable(_) => tracing::error!(%error, "publishing failed"),
                error => tracing::debug!(%error, "publishing failed"),
            }
            // Nothing on this connection is trusted any more.
            session.discard();
        }
    }
}

struct Lane<'s> {
    session: &'s Session,
    channel: Channel,
    jobs: mpsc::Receiver<Job>,
    window: Window,
    patience: Duration,
    /// The number of the last publish.
    number: u64,
}

impl Lane<'_> {
    async fn work(&mut self) -> lapin::Result<()> {
        let mut look = interval(self.patience / 4);
        look.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut busy = None;
        loop {
            tokio::select! {
                biased;
                Some(confirmed) = self.window.pending.next() => {
                    self.window.take(confirmed, self.number)?;
                    self.session.confirmed();
                }
                job = self.jobs.recv(), if self.window.has_room() => {
                    let Some(job) = job else {
                        return Ok(());
                    };
                    // Tasks that are about to publish run first: publishing together costs the
                    // broker and this process fewer wake-ups than publishing one by one.
                    tokio::task::yield_now().await;
                    self.publish(job).await?;
                    while self.window.has_room()
                        && let Ok(job) = self.jobs.try_recv()
                    {
                        self.publish(job).await?;
                    }
                }
                _ = look.tick(), if !self.window.is_empty() => {
                    self.judge(self.window.progress.elapsed())?;
                }
            }
            match self.window.is_empty() {
                true => busy = None,
                false if busy.is_none() => {
                    busy = Some(GaugeGuard::more(&self.session.metrics.lanes_busy));
                }
                false => {}
            }
        }
    }

    /// Hands a message to the client library without waiting until it is written, so that many are
    /// written at once.
    async fn publish(&mut self, job: Job) -> lapin::Result<()> {
        // Skips jobs whose sender has given up.
        if job.done.is_closed() {
            return Ok(());
        }
        let Job { exchange, key, body, properties, done } = job;
        self.number += 1;
        let number = self.number;
        let properties = properties.with_correlation_id(number.to_string().into());
        let (channel, bytes) = (self.channel.clone(), body.len());
        let mut sent = Box::pin(async move {
            let options = BasicPublishOptions { mandatory: true, immediate: false };
            let confirm = channel.basic_publish(exchange, key, options, &body, properties).await?;
            let confirmation = confirm.await?;
            let (ack, returned) = (confirmation.is_ack(), confirmation.take_message());
            Ok(Confirmed { ack, returned, number, bytes, done })
        });
        // The first poll puts it in line, so the order of the numbers is the order of publishing.
        self.window.grow(bytes);
        match poll!(&mut sent) {
            Poll::Ready(at_once) => {
                self.window.take(at_once, number)?;
                self.session.confirmed();
            }
            Poll::Pending => self.window.pending.push(sent),
        }
        Ok(())
    }

    /// Records on the session that nothing moves, and gives the session up after [`DEAD`], or
    /// after the time limit of a confirm if that is longer. A blocked broker is alive, and
    /// confirms later.
    fn judge(&self, still: Duration) -> lapin::Result<()> {
        if still < self.patience || self.session.blocked() {
            return Ok(());
        }
        if still >= DEAD.max(self.patience) {
            return Err(std::io::Error::other("no confirm arrived in time").into());
        }
        self.session.stall();
        Ok(())
    }
}

/// A publish in flight.
type Pending = Pin<Box<dyn Future<Output = lapin::Result<Confirmed>> + Send>>;

/// A confirm, and the returned message that came with it: its own or another's.
struct Confirmed {
    ack: bool,
    returned: Option<BasicReturnMessage>,
    number: u64,
    bytes: usize,
    done: oneshot::Sender<Result<(), QueueError>>,
}

/// The publishes in flight on one channel.
struct Window {
    pending: FuturesUnordered<Pending>,
    bytes: usize,
    returns: Returns<oneshot::Sender<Result<(), QueueError>>>,
    /// When a publish was last sent or confirmed.
    progress: Instant,
    woken: Arc<Woken>,
}

/// A waker that only records whether it was woken.
#[derive(Default)]
struct Woken(AtomicBool);

impl Wake for Woken {
    fn wake(self: Arc<Self>) {
        self.0.store(true, Ordering::Release);
    }
}

impl Window {
    fn new() -> Self {
        Self {
            pending: FuturesUnordered::new(),
            bytes: 0,
            returns: Returns::default(),
            progress: Instant::now(),
            woken: Arc::default(),
        }
    }

    fn is_empty(&self) -> bool {
        self.pending.is_empty()
    }

    fn has_room(&self) -> bool {
        self.pending.len() + self.returns.undecided() < WINDOW && self.bytes < WINDOW_BYTES
    }

    /// Makes room for one more publish.
    fn grow(&mut self, bytes: usize) {
        if self.is_empty() {
            self.progress = Instant::now();
        }
        self.bytes += bytes;
    }

    /// Takes one confirm and all others that have arrived, and answers the senders whose messages
    /// are decided. `issued` is the number of the last publish.
    fn take(&mut self, first: lapin::Result<Confirmed>, issued: u64) -> lapin::Result<()> {
        self.progress = Instant::now();
        self.note(first?, issued)?;
        while let Some(more) = self.seen() {
            self.note(more?, issued)?;
        }
        for (done, safe) in self.returns.decide(self.pending.is_empty()) {
            let _ = done.send(if safe { Ok(()) } else { Err(QueueError::Refused) });
        }
        Ok(())
    }

    /// One more confirm that has arrived. The set of publishes also returns "pending" to let other
    /// tasks run, and then wakes the task. Only "pending" without a wake means that no confirm is
    /// there, and `returns` relies on that.
    fn seen(&mut self) -> Option<lapin::Result<Confirmed>> {
        let waker = Waker::from(self.woken.clone());
        loop {
            self.woken.0.store(false, Ordering::Release);
            match self.pending.poll_next_unpin(&mut Context::from_waker(&waker)) {
                Poll::Ready(next) => return next,
                Poll::Pending if self.woken.0.load(Ordering::Acquire) => {}
                Poll::Pending => return None,
            }
        }
    }

    fn note(&mut self, confirmed: Confirmed, issued: u64) -> lapin::Result<()> {
        let Confirmed { ack, returned, number, bytes, done } = confirmed;
        self.bytes -= bytes;
        // A returned message without a number could belong to any publish: nothing on this
        // connection is trusted any more.
        let lost = || std::io::Error::other("a returned message has no number");
        let returned = match returned {
            None => None,
            Some(message) => {
                let id = message.delivery.properties.correlation_id().as_ref();
                Some(id.and_then(|id| id.as_str().parse().ok()).ok_or_else(lost)?)
            }
        };
        self.returns.note(number, ack, returned, issued, done);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::future::{poll_fn, ready};

    use super::*;

    #[tokio::test]
    async fn a_confirm_is_seen_behind_publishes_that_are_written_just_then() {
        let mut window = Window::new();
        for _ in 0..3 {
            // Woken while it is polled, as by the connection's own thread.
            window.pending.push(Box::pin(poll_fn(|context| {
                context.waker().wake_by_ref();
                Poll::Pending
            })));
        }
        let (done, _answer) = oneshot::channel();
        let confirmed = Confirmed { ack: true, returned: None, number: 4, bytes: 0, done };
        window.pending.push(Box::pin(ready(Ok(confirmed))));
        assert!(matches!(window.seen(), Some(Ok(Confirmed { number: 4, .. }))));
    }
}
