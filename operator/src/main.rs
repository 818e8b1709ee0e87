//! The `zentra` command: event histories and dead letters.

fn main() {}
