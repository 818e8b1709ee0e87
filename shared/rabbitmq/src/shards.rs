//! The work queues of a destination.
//!
//! ```text
//! one queue:     events, retry ─▶ work.<destination>
//! more than one: events, retry ─▶ shards.<destination>.<count> (headers) ─(bucket)─▶ work.<destination>
//!                                                   │                              work.<destination>.1 …
//!                                                   └─(no binding)─▶ unsharded.<destination> ─▶ work.<destination>
//! ```
//!
//! A message carries the bucket of its delivery in a header, so all messages of one delivery are in
//! one queue. Messages of an older version have no bucket and go to the first queue.
//!
//! Each count has an exchange of its own. So a program with the former configuration cannot change
//! what a newer one bound: it can only add its own exchange again, which is unbound soon (see
//! [`applied`](super::applied)). A change of the count is one new binding for `events` and one for
//! `retry`. Between binding the new exchange and unbinding the former one, a message goes to both:
//! the workers recognise the copy.
//!
//! Only workers bind the queues, because only they consume them: an ingress that reads a count
//! which no worker has had yet sends to the first queue. Workers also consume the queues of former
//! counts, and look now and then for counts that others have applied.

use sha2::{Digest, Sha256};

use super::topology::Names;

/// Number of buckets: 1, 2, 3, 4, 6, 8, 12 and 16 queues get equal parts of them.
pub(super) const BUCKETS: u8 = 48;
/// The header with the bucket, as decimal digits.
pub(super) const BUCKET: &str = "zentra-bucket";

/// The bucket of a delivery, by its message id (`source/identity`).
pub(super) fn bucket(id: &str) -> u8 {
    let digest = Sha256::digest(id);
    let number = u16::from_be_bytes([digest[0], digest[1]]);
    u8::try_from(number % u16::from(BUCKETS)).unwrap_or_default()
}

/// The numbers of work queues of a destination.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Shards {
    /// Number of queues that messages are routed to.
    pub(super) current: u16,
    /// The highest number so far. The queues above `current` get no new messages.
    pub(super) highest: u16,
}

impl Names {
    /// One of a destination's work queues, counted from 0.
    pub(super) fn work_queue(&self, destination: &str, shard: u16) -> String {
        match shard {
            0 => format!("{}.work.{destination}", self.namespace()),
            _ => format!("{}.work.{destination}.{shard}", self.namespace()),
        }
    }

    /// The exchange to this number of work queues.
    pub(super) fn shards(&self, destination: &str, count: u16) -> String {
        format!("{}.shards.{destination}.{count}", self.namespace())
    }

    /// The exchange to the first work queue, for messages without a bucket.
    pub(super) fn unsharded(&self, destination: &str) -> String {
        format!("{}.unsharded.{destination}", self.namespace())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bucket_never_changes_and_all_are_used() {
        let some = ["acme/a", "acme/b", "stripe/evt_1"].map(bucket);
        assert_eq!(some, [26, 43, 40]);
        let mut counts = [0; BUCKETS as usize];
        for n in 0..4800 {
            counts[usize::from(bucket(&format!("acme/evt_{n}")))] += 1;
        }
        assert!(counts.iter().all(|count| (50..=150).contains(count)), "{counts:?}");
    }
}
