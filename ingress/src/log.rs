//! Refusals in the log: each one; in a flood a limited number per second, with the number of
//! omitted ones. The metric counts all.

use std::collections::HashMap;
use std::num::NonZeroU32;
use std::sync::{Mutex, PoisonError};

use governor::{DefaultDirectRateLimiter, Quota, RateLimiter};

use crate::refusal::Refusal;

/// Lines per second of one source and reason: a flood of one kind hides no other.
const PER_SECOND: NonZeroU32 = NonZeroU32::new(10).unwrap();

/// Logs refusals.
#[derive(Default)]
pub(crate) struct Log {
    kinds: Mutex<HashMap<(String, &'static str), Kind>>,
}

struct Kind {
    allowance: DefaultDirectRateLimiter,
    /// Omitted lines since the last one.
    left_out: u64,
}

impl Log {
    /// Logs a refusal. `source` is a configured name or `unknown`, because it is kept.
    pub(crate) fn refused(&self, source: &str, refusal: &Refusal) {
        let reason = refusal.reason();
        let Some(left_out) = self.line(source, reason) else {
            return;
        };
        match refusal {
            Refusal::Queue(cause) => {
                tracing::error!(source, reason, %cause, left_out, "callback refused");
            }
            _ => tracing::warn!(source, reason, left_out, "callback refused"),
        }
    }

    /// How many lines were left out before this one; `None` if this one is to be, too.
    fn line(&self, source: &str, reason: &'static str) -> Option<u64> {
        let mut kinds = self.kinds.lock().unwrap_or_else(PoisonError::into_inner);
        let kind = kinds.entry((source.to_owned(), reason)).or_insert_with(|| Kind {
            allowance: RateLimiter::direct(Quota::per_second(PER_SECOND)),
            left_out: 0,
        });
        if kind.allowance.check().is_err() {
            kind.left_out += 1;
            return None;
        }
        Some(std::mem::take(&mut kind.left_out))
    }
}
