//! `zentra source add`, `zentra verify` and `zentra sign`: a source from its first line in the
//! config to its first callback.

mod add;
mod list;
mod request;
mod variables;

pub(crate) use add::{Add, add, block, notes, scheme, secret_in_env};
pub(crate) use list::catalogue;
pub(crate) use request::{Sign, Verify, explain, read, sign, verify, write_headers};
pub(crate) use variables::{lines, token_variable, variable, variables};
