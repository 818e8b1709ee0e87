//! Private Redis servers on free ports: one, a primary with replicas and sentinels, and a cluster.

use std::io::{self, BufRead, BufReader, Write};
use std::net::{Ipv4Addr, TcpStream};
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::process::{Guarded, folder, free_port, poll};
use super::programs;
use super::servers::{START, not_ready, write};

/// After this time without an answer a server counts as dead, for the sentinels and in a cluster.
const DOWN_AFTER_MS: &str = "1000";

/// A private Redis server that persists every acknowledged write.
pub struct Redis {
    folder: PathBuf,
    port: u16,
    options: Vec<String>,
    server: Guarded,
}

impl Redis {
    /// Starts one, and waits until it answers.
    pub fn start() -> io::Result<Self> {
        Self::with(Vec::new())
    }

    /// Starts one with additional options of the command line.
    pub fn with(options: Vec<String>) -> io::Result<Self> {
        let (folder, port) = (folder("redis")?, free_port()?);
        let server = Self::serve(&folder, port, &options)?;
        let redis = Self { folder, port, options, server };
        redis.ready()?;
        Ok(redis)
    }

    fn serve(folder: &Path, port: u16, options: &[String]) -> io::Result<Guarded> {
        let mut command = programs::command(programs::store(), folder);
        command.arg("--port").arg(port.to_string());
        command.args(["--bind", "127.0.0.1", "--appendonly", "yes", "--appendfsync", "always"]);
        command.args(["--save", "", "--maxmemory-policy", "noeviction"]).args(options);
        Guarded::start(command)
    }

    fn ready(&self) -> io::Result<()> {
        let answers = poll(START, || self.tell("PING").ok().filter(|answer| answer == "PONG"));
        answers.map(|_| ()).ok_or_else(|| not_ready("Redis"))
    }

    /// Its process id.
    pub fn id(&self) -> u32 {
        self.server.id()
    }

    /// Its port on 127.0.0.1.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// The address it listens on.
    pub fn url(&self) -> String {
        format!("redis://127.0.0.1:{}/", self.port)
    }

    /// Kill -9.
    pub fn kill(&mut self) {
        self.server.kill();
    }

    /// Stops all its threads, without closing a connection.
    pub fn freeze(&self) {
        self.server.freeze();
    }

    /// Lets them run again.
    pub fn thaw(&self) {
        self.server.thaw();
    }

    /// Starts it again after [`Redis::kill`], with its data on disk.
    pub fn restart(&mut self) -> io::Result<()> {
        self.server = Self::serve(&self.folder, self.port, &self.options)?;
        self.ready()
    }

    /// Sends a command of simple words, and returns the text of the answer.
    ///
    /// # Errors
    ///
    /// No answer within two seconds, or an answer that is an error.
    pub fn tell(&self, command: &str) -> io::Result<String> {
        tell(self.port, command)
    }
}

/// A primary with two replicas and three sentinels.
pub struct RedisSentinel {
    /// The servers. The first one is the primary at the start.
    pub servers: [Redis; 3],
    sentinels: Vec<(u16, Guarded)>,
}

impl RedisSentinel {
    /// The name of the primary and its replicas at the sentinels.
    pub const SERVICE: &str = "zentra";

    /// Starts all of them, and waits until the sentinels know the replicas and each other.
    pub fn start() -> io::Result<Self> {
        let words = |text: &str| text.split(' ').map(Into::into).collect::<Vec<String>>();
        let options = "--repl-diskless-sync-delay 0 --min-replicas-to-write 1 \
                       --min-replicas-max-lag 2";
        let primary = Redis::with(words(options))?;
        let replica = format!("{options} --replicaof 127.0.0.1 {}", primary.port);
        let servers = [primary, Redis::with(words(&replica))?, Redis::with(words(&replica))?];
        let start = |_| Self::sentinel(servers[0].port);
        let sentinels = (0..3).map(start).collect::<io::Result<_>>()?;
        let started = Self { servers, sentinels };
        started.ready()?;
        Ok(started)
    }

    fn sentinel(primary: u16) -> io::Result<(u16, Guarded)> {
        let (folder, port, service) = (folder("sentinel")?, free_port()?, Self::SERVICE);
        let file = folder.join("sentinel.conf");
        let text = format!(
            "port {port}\nbind 127.0.0.1\ndir {}\n\
             sentinel monitor {service} 127.0.0.1 {primary} 2\n\
             sentinel down-after-milliseconds {service} {DOWN_AFTER_MS}\n\
             sentinel failover-timeout {service} 2000\n",
            folder.display()
        );
        write(&file, &text, 0o600)?;
        let mut command = programs::command(programs::store(), &folder);
        command.arg(&file).arg("--sentinel");
        Ok((port, Guarded::start(command)?))
    }

    fn ready(&self) -> io::Result<()> {
        let field = |port, name: &str| {
            let all = tell(port, &format!("SENTINEL MASTER {}", Self::SERVICE)).ok()?;
            let mut fields = all.split('\n').skip_while(|field| *field != name);
            fields.nth(1).map(str::to_owned)
        };
        let knows = |port: u16| {
            field(port, "num-slaves").as_deref() == Some("2")
                && field(port, "num-other-sentinels").as_deref() == Some("2")
        };
        let all = || self.sentinels.iter().all(|(port, _)| knows(*port)).then_some(());
        poll(START, all).ok_or_else(|| not_ready("Redis Sentinel"))
    }

    /// The addresses of the sentinels.
    pub fn urls(&self) -> Vec<String> {
        self.sentinels.iter().map(|(port, _)| format!("redis://127.0.0.1:{port}/")).collect()
    }

    /// Orders a failover while the primary works.
    pub fn fail_over(&self) -> io::Result<()> {
        let order = format!("SENTINEL FAILOVER {}", Self::SERVICE);
        tell(self.sentinels[0].0, &order).map(drop)
    }

    /// Which of the servers the sentinels name. They may not agree at the moment.
    pub fn primary(&self) -> Option<usize> {
        let ask = format!("SENTINEL GET-MASTER-ADDR-BY-NAME {}", Self::SERVICE);
        let asked = self.sentinels.iter().map(|(port, _)| tell(*port, &ask).ok());
        let named: Vec<Option<String>> = asked.collect();
        let port = named[0].as_ref()?.split('\n').nth(1)?.parse::<u16>().ok()?;
        let agreed = named.iter().all(|other| *other == named[0]);
        self.servers.iter().position(|server| agreed && server.port == port)
    }
}

/// A cluster of three primaries, each with a replica.
pub struct RedisCluster {
    /// The nodes. The first three are the primaries at the start.
    pub nodes: Vec<Redis>,
}

impl RedisCluster {
    /// Starts all of them, and waits until the cluster takes writes.
    pub fn start() -> io::Result<Self> {
        let mut nodes = Vec::new();
        let mut bus_ports = Vec::new();
        for _ in 0..6 {
            let bus = free_port()?;
            let options = [
                "--cluster-enabled",
                "yes",
                "--cluster-node-timeout",
                DOWN_AFTER_MS,
                "--cluster-port",
                &bus.to_string(),
                "--repl-diskless-sync-delay",
                "0",
            ];
            nodes.push(Redis::with(options.map(Into::into).into())?);
            bus_ports.push(bus);
        }
        for (at, slots) in ["0 5460", "5461 10922", "10923 16383"].iter().enumerate() {
            nodes[at].tell(&format!("CLUSTER ADDSLOTSRANGE {slots}"))?;
            nodes[at].tell(&format!("CLUSTER SET-CONFIG-EPOCH {}", at + 1))?;
        }
        for (node, bus) in nodes.iter().zip(&bus_ports).skip(1) {
            nodes[0].tell(&format!("CLUSTER MEET {} {} {bus}", Ipv4Addr::LOCALHOST, node.port))?;
        }
        let cluster = Self { nodes };
        cluster.all("cluster_known_nodes:6")?;
        for at in 3..6 {
            let primary = cluster.nodes[at - 3].tell("CLUSTER MYID")?;
            let replicate = format!("CLUSTER REPLICATE {primary}");
            // It may not have heard of its primary yet.
            let done = || cluster.nodes[at].tell(&replicate).ok();
            poll(START, done).ok_or_else(|| not_ready("a replica of Redis Cluster"))?;
        }
        cluster.is_complete()?;
        Ok(cluster)
    }

    /// Waits until all nodes take part, and every replica follows its primary.
    pub fn is_complete(&self) -> io::Result<()> {
        self.all("cluster_state:ok")?;
        self.all_replicate()
    }

    fn all(&self, says: &str) -> io::Result<()> {
        let is = |node: &Redis| node.tell("CLUSTER INFO").is_ok_and(|info| info.contains(says));
        let all = || self.nodes.iter().all(is).then_some(());
        poll(START, all).ok_or_else(|| not_ready("Redis Cluster"))
    }

    fn all_replicate(&self) -> io::Result<()> {
        let is = |node: &Redis| {
            let info = node.tell("INFO replication").unwrap_or_default();
            info.contains("role:master") || info.contains("master_link_status:up")
        };
        let all = || self.nodes.iter().all(is).then_some(());
        poll(START, all).ok_or_else(|| not_ready("Redis Cluster's replication"))
    }

    /// The addresses of its nodes.
    pub fn urls(&self) -> Vec<String> {
        self.nodes.iter().map(Redis::url).collect()
    }
}

fn tell(port: u16, command: &str) -> io::Result<String> {
    const LIMIT: Duration = Duration::from_secs(2);
    let address = (Ipv4Addr::LOCALHOST, port).into();
    let mut stream = TcpStream::connect_timeout(&address, LIMIT)?;
    stream.set_read_timeout(Some(LIMIT))?;
    stream.write_all(format!("{command}\r\n").as_bytes())?;
    let mut texts = Vec::new();
    read(&mut BufReader::new(stream), &mut texts)?;
    Ok(texts.join("\n"))
}

/// Reads one value of RESP 2. The texts of an array follow one another.
fn read(from: &mut impl BufRead, texts: &mut Vec<String>) -> io::Result<()> {
    let mut line = String::new();
    from.read_line(&mut line)?;
    let (kind, rest) = line.trim_end().split_at_checked(1).unwrap_or_default();
    let count = || rest.parse::<usize>().map_err(io::Error::other);
    match kind {
        "+" | ":" => texts.push(rest.into()),
        "$" if rest == "-1" => texts.push(String::new()),
        "$" => {
            let mut bytes = vec![0; count()? + 2];
            from.read_exact(&mut bytes)?;
            texts.push(String::from_utf8_lossy(&bytes[..bytes.len() - 2]).into_owned());
        }
        "*" => {
            for _ in 0..count()? {
                read(from, texts)?;
            }
        }
        _ => return Err(io::Error::other(line)),
    }
    Ok(())
}
