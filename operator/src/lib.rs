//! What the `zentra` command shares with the tests: a sandbox of real servers and programs.

pub mod sandbox;
