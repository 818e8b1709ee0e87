//! One trace from receipt to delivery: W3C Trace Context (Recommendation, 23 November 2021).
//!
//! A callback begins a trace of its own. What a provider sends as its trace is not
//! believed: whoever can send a callback could tie it to any other.

use std::fmt;
use std::str::FromStr;

/// `traceparent`: the trace and the current step.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Trace {
    id: u128,
    span: u64,
    is_sampled: bool,
}

impl Trace {
    /// A new, sampled trace with random ids, never zero.
    pub fn new(chance: &mut impl rand::RngCore) -> Self {
        let id = (u128::from(chance.next_u64()) << 64) | u128::from(chance.next_u64());
        Self { id: id.max(1), span: chance.next_u64().max(1), is_sampled: true }
    }

    /// The trace with these ids; `None` if one of them is zero.
    pub fn from_ids(id: u128, span: u64, is_sampled: bool) -> Option<Self> {
        (id != 0 && span != 0).then_some(Self { id, span, is_sampled })
    }

    /// The ids of trace and span.
    pub fn ids(self) -> (u128, u64) {
        (self.id, self.span)
    }

    /// Whether its spans are exported (section 3.2.2.5.1, `sampled`). It always is where tracing is off, so that a
    /// destination decides for itself.
    pub fn is_sampled(self) -> bool {
        self.is_sampled
    }

    /// The next step of the trace.
    pub fn next(self, chance: &mut impl rand::RngCore) -> Self {
        Self { span: chance.next_u64().max(1), ..self }
    }

    /// The trace id: 32 hexadecimal digits.
    pub fn id(self) -> String {
        format!("{:032x}", self.id)
    }

    /// The span id: 16 hexadecimal digits.
    pub fn span_id(self) -> String {
        format!("{:016x}", self.span)
    }
}

impl fmt::Display for Trace {
    /// The `traceparent` header's value: version 00.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let flags = u8::from(self.is_sampled);
        write!(f, "00-{:032x}-{:016x}-{flags:02x}", self.id, self.span)
    }
}

/// Not a `traceparent` of version 00.
#[derive(Debug, PartialEq, Eq)]
pub struct NoTrace;

impl FromStr for Trace {
    type Err = NoTrace;

    /// Section 3.2: `00-` 32 lower-case hex digits `-` 16 `-` 2; ids of all zeros are
    /// invalid.
    fn from_str(text: &str) -> Result<Self, NoTrace> {
        let parts: Vec<&str> = text.split('-').collect();
        let [version, id, span, flags] = parts[..] else {
            return Err(NoTrace);
        };
        let hex = |part: &str, length| {
            part.len() == length
                && part.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
        };
        if version != "00" || !hex(id, 32) || !hex(span, 16) || !hex(flags, 2) {
            return Err(NoTrace);
        }
        let id = u128::from_str_radix(id, 16).map_err(|_| NoTrace)?;
        let span = u64::from_str_radix(span, 16).map_err(|_| NoTrace)?;
        let flags = u8::from_str_radix(flags, 16).map_err(|_| NoTrace)?;
        Self::from_ids(id, span, flags & 1 == 1).ok_or(NoTrace)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_specifications_example_is_read_and_written() {
        let text = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
        let trace: Trace = text.parse().unwrap();
        assert_eq!(trace.to_string(), text);
        assert_eq!(trace.id(), "4bf92f3577b34da6a3ce929d0e0e4736");
        let next = trace.next(&mut rand::rng());
        assert_eq!(next.id(), trace.id());
        assert_ne!(next, trace);
    }

    #[test]
    fn invalid_ones_are_none() {
        for text in [
            "",
            "00-00000000000000000000000000000000-00f067aa0ba902b7-01",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-0000000000000000-01",
            "00-4BF92F3577B34DA6A3CE929D0E0E4736-00f067aa0ba902b7-01",
            "ff-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01-x",
            "00-+bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
        ] {
            assert_eq!(text.parse::<Trace>(), Err(NoTrace), "{text}");
        }
    }

    proptest! {
        #[test]
        fn no_text_panics_and_every_new_one_is_read_back(text in ".{0,80}") {
            let _ = text.parse::<Trace>();
            let trace = Trace::new(&mut rand::rng());
            prop_assert_eq!(trace.to_string().parse::<Trace>(), Ok(trace));
        }
    }
}
