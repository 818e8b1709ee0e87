//! The sandbox for tests, where a failed start may panic; and PostgreSQL, which only tests need.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::Command;

pub use zentra_rehearse::sandbox::{
    Guarded, Rabbit, Redis, RedisCluster, RedisSentinel, output, poll, sweep,
};
use zentra_rehearse::sandbox::{START, greet, newest};

/// This process's folder. All others are below it.
pub fn workplace() -> PathBuf {
    loud(zentra_rehearse::sandbox::workplace()).into()
}

/// A new folder below this process's own.
pub fn folder(name: &str) -> PathBuf {
    loud(zentra_rehearse::sandbox::folder(name))
}

/// A free port.
pub fn free_port() -> u16 {
    loud(zentra_rehearse::sandbox::free_port())
}

/// Starts a program that ends with this process.
pub fn start(command: Command) -> Guarded {
    loud(Guarded::start(command))
}

/// A private RabbitMQ.
pub fn rabbit() -> Rabbit {
    loud(Rabbit::start())
}

/// A private Redis.
pub fn redis() -> Redis {
    loud(Redis::start())
}

/// A private Redis primary with two replicas and three sentinels.
pub fn redis_sentinel() -> RedisSentinel {
    loud(RedisSentinel::start())
}

/// A private Redis Cluster of three primaries, each with a replica.
pub fn redis_cluster() -> RedisCluster {
    loud(RedisCluster::start())
}

fn loud<T>(done: std::io::Result<T>) -> T {
    done.unwrap_or_else(|error| panic!("{error}"))
}

/// A private PostgreSQL server.
pub struct Postgres {
    port: u16,
    _server: Guarded,
}

impl Postgres {
    /// Starts one and waits until it answers.
    pub fn start() -> Self {
        let (folder, port) = (folder("postgres"), free_port());
        let data = folder.join("data");
        // PostgreSQL refuses to run as root.
        let as_root = fs::metadata("/proc/self").is_ok_and(|own| own.uid() == 0);
        if as_root {
            let _ = Command::new("chown").arg("postgres").arg(&folder).status();
        }
        let tool = |name: &str| {
            let path = newest(Path::new("/usr/lib/postgresql"), &format!("bin/{name}"));
            let path = path.unwrap_or_else(|error| panic!("{error}"));
            if !as_root {
                return Command::new(path);
            }
            let mut command = Command::new("setpriv");
            command.args(["--reuid=postgres", "--regid=postgres", "--clear-groups"]);
            command.args(["--pdeathsig", "KILL"]).arg(path);
            command
        };
        let mut init = tool("initdb");
        init.current_dir(&folder).arg("-D").arg(&data);
        init.args(["-U", "zentra", "--auth=trust", "--locale=C", "--no-sync"]);
        let made = init.output().unwrap_or_else(|error| panic!("can't run initdb: {error}"));
        assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
        let mut server = tool("postgres");
        server.current_dir(&folder).arg("-D").arg(&data).args(["-p", &port.to_string()]);
        server.args(["-c", "listen_addresses=127.0.0.1", "-c", "unix_socket_directories="]);
        let postgres = Self { port, _server: start(server) };
        // A request for TLS gets a refusal.
        let answers = poll(START, || {
            greet(([127, 0, 0, 1], port).into(), b"\0\0\0\x08\x04\xd2\x16\x2f", b"N")
        });
        assert!(answers.is_some(), "PostgreSQL didn't start:\n{}", output());
        postgres
    }

    /// The connection string.
    pub fn url(&self) -> String {
        format!("host=127.0.0.1 port={} user=zentra dbname=postgres", self.port)
    }
}
