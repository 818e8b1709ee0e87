//! What every Zentra binary agrees on.
#![warn(missing_docs)]

pub mod secret;
