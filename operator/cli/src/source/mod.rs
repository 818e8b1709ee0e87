//! `zentra source add`, `zentra verify` and `zentra sign`: a source from its first line in the
//! config to its first callback.

mod add;
mod request;

pub(crate) use add::{Add, add};
pub(crate) use request::{Sign, Verify, sign, verify};
