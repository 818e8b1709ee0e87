//! Private servers and programs, for rehearsals, the demo and the tests.

mod process;
mod programs;
mod redis;
mod servers;

pub use process::{Guarded, folder, free_port, output, poll, spawn, sweep, workplace};
pub use programs::newest;
pub use redis::{Redis, RedisCluster, RedisSentinel};
pub use servers::{Rabbit, START};
