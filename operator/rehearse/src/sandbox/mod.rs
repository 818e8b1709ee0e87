//! Private servers and programs, for rehearsals, the demo and the tests.

mod process;
mod servers;

pub use process::{Guarded, folder, free_port, output, poll, spawn, sweep, workplace};
pub use servers::{Rabbit, Redis, START, greet, versioned};
