//! Acknowledges many messages with one command, because the broker pays for each acknowledgement.
//!
//! An acknowledgement may cover every delivery up to a tag (`multiple`). Deliveries that ended
//! without a gap, counted from the lowest tag, are acknowledged that way. A delivery that ended
//! behind a gap waits for a few more rounds, because gaps usually close soon. Then it is
//! acknowledged by itself, so one slow message holds back no others.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use lapin::Channel;
use lapin::options::BasicAckOptions;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio::time::{Instant, timeout_at};

/// Number of messages per acknowledgement, if they end within [`LINGER`].
pub(super) const BATCH: u16 = 32;
const LINGER: Duration = Duration::from_millis(2);
/// Maximum number of rounds, each at most [`LINGER`] after the last, that a delivery waits for a
/// gap to close.
const LOOKS: u32 = 4;

/// How a delivery ended in this process.
pub(super) enum Ended {
    /// To acknowledge.
    Done(u64),
    /// Already returned to the broker: needs no acknowledgement.
    Passed(u64),
}

/// Reports ended deliveries. The task ends when all clones are dropped.
pub(super) type Ends = mpsc::UnboundedSender<Ended>;

/// Acknowledges what ends on a channel. At most the channel's prefetch count can wait here.
pub(super) fn start(channel: Channel) -> (Ends, JoinHandle<()>) {
    let (ends, ended) = mpsc::unbounded_channel();
    (ends, tokio::spawn(acknowledge(channel, ended)))
}

async fn acknowledge(channel: Channel, mut ended: mpsc::UnboundedReceiver<Ended>) {
    let mut tags = Tags::default();
    loop {
        // Deliveries behind a gap are examined again soon.
        let first = match tags.done.is_empty() {
            true => ended.recv().await,
            false => match timeout_at(Instant::now() + LINGER, ended.recv()).await {
                Ok(next) => next,
                Err(_) => {
                    if !send(&channel, &mut tags).await {
                        return;
                    }
                    continue;
                }
            },
        };
        let Some(first) = first else {
            // All senders are gone: no further delivery can end.
            while !tags.done.is_empty() && send(&channel, &mut tags).await {}
            return;
        };
        tags.note(first);
        let end = Instant::now() + LINGER;
        while tags.done.len() < usize::from(BATCH)
            && let Ok(Some(next)) = timeout_at(end, ended.recv()).await
        {
            tags.note(next);
        }
        if !send(&channel, &mut tags).await {
            return;
        }
    }
}

/// Returns `false` if the channel is gone. The broker then redelivers its messages.
async fn send(channel: &Channel, tags: &mut Tags) -> bool {
    for (tag, multiple) in tags.due() {
        if let Err(error) = channel.basic_ack(tag, BasicAckOptions { multiple }).await {
            tracing::debug!(%error, "acknowledgements came too late; the broker redelivers the messages");
            return false;
        }
    }
    true
}

/// The delivery tags of one channel: 1, 2, 3 …
#[derive(Default)]
struct Tags {
    /// No delivery up to this tag needs an acknowledgement any more.
    up_to: u64,
    /// Ended but not acknowledged, with the number of rounds spent behind a gap.
    done: BTreeMap<u64, u32>,
    /// Above `up_to`, and acknowledged or returned.
    passed: BTreeSet<u64>,
}

impl Tags {
    fn note(&mut self, ended: Ended) {
        match ended {
            Ended::Done(tag) => {
                self.done.insert(tag, 0);
            }
            Ended::Passed(tag) => {
                self.passed.insert(tag);
            }
        }
    }

    /// What to acknowledge now: a tag, and whether it covers all tags below it. The tag itself
    /// must be unacknowledged, or the broker closes the channel.
    fn due(&mut self) -> Vec<(u64, bool)> {
        let (mut due, mut last, mut count) = (Vec::new(), None, 0);
        loop {
            let next = self.up_to + 1;
            if self.done.remove(&next).is_some() {
                last = Some(next);
                count += 1;
            } else if !self.passed.remove(&next) {
                break;
            }
            self.up_to = next;
        }
        due.extend(last.map(|tag| (tag, count > 1)));
        let passed = &mut self.passed;
        self.done.retain(|tag, looks| {
            *looks += 1;
            let wait = *looks <= LOOKS;
            if !wait {
                passed.insert(*tag);
                due.push((*tag, false));
            }
            wait
        });
        due
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        /// In whatever order deliveries end, each is acknowledged once, none before it ended, and
        /// none that was returned.
        #[test]
        fn each_ended_message_is_acknowledged_once_and_no_other_is(
            order in Just((1..=60u64).collect::<Vec<_>>()).prop_shuffle(),
            given_back in prop::collection::hash_set(1..=60u64, 0..10),
            never in prop::collection::hash_set(1..=60u64, 0..4),
            looks in prop::collection::vec(any::<bool>(), 60),
        ) {
            let mut tags = Tags::default();
            let mut outstanding: BTreeSet<u64> = (1..=60).collect();
            let mut ended = BTreeSet::new();
            let check = |tags: &mut Tags, outstanding: &mut BTreeSet<u64>, ended: &BTreeSet<u64>| {
                for (tag, multiple) in tags.due() {
                    prop_assert!(outstanding.contains(&tag), "{} twice", tag);
                    let acknowledged: Vec<u64> = match multiple {
                        true => outstanding.range(..=tag).copied().collect(),
                        false => vec![tag],
                    };
                    for tag in acknowledged {
                        prop_assert!(ended.contains(&tag), "{} has not ended", tag);
                        outstanding.remove(&tag);
                    }
                }
                Ok(())
            };
            for (tag, look) in order.into_iter().zip(looks) {
                if never.contains(&tag) {
                    continue;
                }
                if given_back.contains(&tag) {
                    outstanding.remove(&tag);
                    tags.note(Ended::Passed(tag));
                } else {
                    ended.insert(tag);
                    tags.note(Ended::Done(tag));
                }
                if look {
                    check(&mut tags, &mut outstanding, &ended)?;
                }
            }
            for _ in 0..=LOOKS {
                check(&mut tags, &mut outstanding, &ended)?;
            }
            // Where no gap is left, the next ones are acknowledged together again.
            prop_assert!(!never.is_empty() || (tags.up_to, tags.passed.len()) == (60, 0));
            prop_assert_eq!(outstanding, never.into_iter().collect::<BTreeSet<_>>());
        }
    }
}
