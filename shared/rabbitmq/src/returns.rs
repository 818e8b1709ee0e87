//! Decides which confirmed messages are safe, although returned ones are attached to arbitrary
//! confirms.
//!
//! The broker returns an unroutable message before it confirms it. The client library queues
//! returned messages, and each confirm takes the first one, whether or not it is its own. This
//! process sees confirms in any order. Two facts still hold:
//!
//! - A confirm that took no return found the queue empty. If its own message was returned, another
//!   confirm had taken that return before, and has arrived by now.
//! - A confirm that took another message's return may have left its own in the queue. It is
//!   decided once a later confirm finds the queue empty, and that confirm belongs to a message
//!   that was published after the first one had been seen. It is also decided once nothing is
//!   outstanding: every return is followed by its own confirm, so every return has been taken.
//!
//! A lane numbers its publishes and never uses a number twice. An event ID could be in flight
//! twice.

use std::collections::HashSet;

/// Publishes of one channel that are confirmed and not yet decided. `T` is the sender that waits.
pub(super) struct Returns<T> {
    /// Confirmed, and decided at the next call.
    clear: Vec<(u64, bool, T)>,
    /// Confirmed, each with the number of the last message published by then.
    undecided: Vec<(u64, bool, T, u64)>,
    /// Returned, and not yet decided.
    returned: HashSet<u64>,
    /// The latest message whose confirm found the queue of returns empty.
    latest_clear: u64,
}

impl<T> Default for Returns<T> {
    fn default() -> Self {
        Self { clear: Vec::new(), undecided: Vec::new(), returned: HashSet::new(), latest_clear: 0 }
    }
}

impl<T> Returns<T> {
    /// Number of publishes that wait to be decided.
    pub(super) fn undecided(&self) -> usize {
        self.undecided.len()
    }

    /// Records a confirm, positive or negative, and the number of the returned message that it
    /// took. `issued` is the number of the last message published.
    pub(super) fn note(
        &mut self,
        number: u64,
        ack: bool,
        took: Option<u64>,
        issued: u64,
        waits: T,
    ) {
        self.returned.extend(took);
        match took {
            None => {
                self.latest_clear = self.latest_clear.max(number);
                self.clear.push((number, ack, waits));
            }
            Some(own) if own == number => self.clear.push((number, ack, waits)),
            Some(_) => self.undecided.push((number, ack, waits, issued)),
        }
    }

    /// The publishes that are decided now, and whether each is safe. Call this after every confirm
    /// that has arrived was recorded. `done` means that no other publish is outstanding.
    pub(super) fn decide(&mut self, done: bool) -> Vec<(T, bool)> {
        let latest = self.latest_clear;
        let ready = self.undecided.extract_if(.., |(_, _, _, issued)| done || *issued < latest);
        self.clear.extend(ready.map(|(number, ack, waits, _)| (number, ack, waits)));
        let returned = &mut self.returned;
        let decided = self.clear.drain(..);
        decided.map(|(number, ack, waits)| (waits, ack & !returned.remove(&number))).collect()
    }
}

#[cfg(test)]
mod tests {
    use std::collections::VecDeque;

    use proptest::prelude::*;

    use super::*;

    /// One step of a channel: publish, let the broker answer, or look.
    #[derive(Clone, Debug)]
    enum Step {
        /// Whether the message is routable, and whether a full queue rejects it.
        Publish { routable: bool, nack: bool },
        /// Which of the unconfirmed messages is confirmed next.
        Confirm(usize),
        /// Whether the newest confirm is seen first.
        Look { shuffle: u64 },
    }

    fn step() -> impl Strategy<Value = Step> {
        prop_oneof![
            (any::<bool>(), prop::bool::weighted(0.1))
                .prop_map(|(routable, nack)| Step::Publish { routable, nack }),
            any::<usize>().prop_map(Step::Confirm),
            any::<u64>().prop_map(|shuffle| Step::Look { shuffle }),
        ]
    }

    /// A model of the broker and the client library, as observed.
    #[derive(Default)]
    struct Channel {
        issued: u64,
        /// Unconfirmed: number, routable, rejected, and whether its return was sent.
        outstanding: Vec<(u64, bool, bool)>,
        line: VecDeque<u64>,
        /// Confirmed, and not seen yet.
        confirmed: Vec<(u64, bool, Option<u64>)>,
        safe: HashSet<u64>,
    }

    impl Channel {
        fn publish(&mut self, routable: bool, nack: bool) {
            self.issued += 1;
            self.outstanding.push((self.issued, routable, nack));
            if routable && !nack {
                self.safe.insert(self.issued);
            }
            // The return arrives at some time before the confirm. The earliest time is the worst,
            // because other confirms can take it.
            if !routable {
                self.line.push_back(self.issued);
            }
        }

        fn confirm(&mut self, at: usize) {
            if self.outstanding.is_empty() {
                return;
            }
            let (number, _, nack) = self.outstanding.remove(at % self.outstanding.len());
            let took = self.line.pop_front();
            self.confirmed.push((number, !nack, took));
        }
    }

    fn look(channel: &mut Channel, returns: &mut Returns<u64>, shuffle: u64) -> Vec<(u64, bool)> {
        let mut seen = std::mem::take(&mut channel.confirmed);
        // Confirms are seen in any order.
        seen.sort_by_key(|(number, _, _)| number.wrapping_mul(shuffle | 1));
        for (number, ack, took) in seen {
            returns.note(number, ack, took, channel.issued, number);
        }
        returns.decide(channel.outstanding.is_empty())
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(4000))]

        #[test]
        fn no_message_that_was_lost_is_called_safe_and_each_is_decided_in_the_end(
            steps in prop::collection::vec(step(), 1..120),
        ) {
            let (mut channel, mut returns) = (Channel::default(), Returns::default());
            let mut decided = Vec::new();
            for step in steps {
                match step {
                    Step::Publish { routable, nack } => channel.publish(routable, nack),
                    Step::Confirm(at) => channel.confirm(at),
                    Step::Look { shuffle } => decided.extend(look(&mut channel, &mut returns, shuffle)),
                }
            }
            while !channel.outstanding.is_empty() {
                channel.confirm(0);
            }
            decided.extend(look(&mut channel, &mut returns, 1));
            for (number, safe) in &decided {
                prop_assert!(!safe || channel.safe.contains(number), "{} was lost", number);
                prop_assert!(*safe || !channel.safe.contains(number), "{} was safe", number);
            }
            prop_assert_eq!(decided.len() as u64, channel.issued);
        }
    }
}
