//! `zentra source add`, `zentra verify` and `zentra sign`: a source from its first line in the
//! config to its first callback.

mod add;
mod list;
mod request;

pub(crate) use add::{Add, add, block, notes, scheme, token_variable, variable};
pub(crate) use list::catalogue;
pub(crate) use request::{Sign, Verify, read, sign, verify, write_headers};
