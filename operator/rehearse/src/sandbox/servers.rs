//! Private RabbitMQ servers on free ports, with their own folders.

use std::fs;
use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

use super::process::{Guarded, folder, free_port, output, poll};
use super::programs;

/// Time limit for a server to answer.
pub const START: Duration = Duration::from_secs(60);

/// Whether every thread of a process is stopped. Each thread stops some time after the signal.
fn threads_stand(pid: &str) -> bool {
    let Ok(threads) = std::fs::read_dir(format!("/proc/{pid}/task")) else { return true };
    threads.flatten().all(|thread| {
        let stat = std::fs::read_to_string(thread.path().join("stat")).unwrap_or_default();
        stat.rsplit(") ").next().is_some_and(|rest| rest.starts_with('T'))
    })
}

/// A private RabbitMQ node.
pub struct Rabbit {
    folder: PathBuf,
    node: Node,
    server: Guarded,
    _epmd: Arc<Guarded>,
}

/// A node's names and ports.
struct Node {
    name: String,
    address: Ipv4Addr,
    port: u16,
    epmd_port: u16,
    dist_port: u16,
    /// Additional lines of its configuration.
    settings: String,
    /// Its plugins, in Erlang's form of a list.
    plugins: &'static str,
    /// Additional flags of its Erlang machine.
    flags: String,
}

impl Node {
    fn alone() -> io::Result<Self> {
        let (port, epmd_port, dist_port) = (free_port()?, free_port()?, free_port()?);
        let (settings, plugins, flags) = (String::new(), "[]", String::new());
        let (name, address) = (format!("zentra{epmd_port}@localhost"), Ipv4Addr::LOCALHOST);
        Ok(Self { name, address, port, epmd_port, dist_port, settings, plugins, flags })
    }
}

impl Rabbit {
    /// Starts one and waits until it accepts connections.
    pub fn start() -> io::Result<Self> {
        Self::start_with(String::new(), "[]")
    }

    /// Starts one with additional lines of configuration, and with these plugins, in Erlang's form
    /// of a list.
    pub fn start_with(settings: String, plugins: &'static str) -> io::Result<Self> {
        let node = Node { settings, plugins, ..Node::alone()? };
        let epmd = Self::name_server(node.epmd_port, &[node.address])?;
        Self::start_node(node, epmd)
    }

    /// Starts three nodes of one cluster, each with an address of its own, so that the network
    /// between them can be cut.
    pub fn cluster() -> io::Result<[Self; 3]> {
        let (port, epmd_port) = (free_port()?, free_port()?);
        // No other cluster has these: the port is reserved.
        let [high, low] = port.to_be_bytes();
        let addresses = [1, 2, 3].map(|last| Ipv4Addr::new(127, high, low, last));
        let names = addresses.map(|address| format!("zentra{}@{address}", address.octets()[3]));
        let settings = String::from("cluster_partition_handling = pause_minority\n");
        let epmd = Self::name_server(epmd_port, &addresses)?;
        let start = |at: usize| {
            let (name, address, settings) = (names[at].clone(), addresses[at], settings.clone());
            let [a, b, c, d] = address.octets();
            // Its own connections come from its address too.
            let flags = format!(
                "-kernel inet_dist_connect_options [{{ip,{{{a},{b},{c},{d}}}}}] -kernel net_ticktime 10"
            );
            let dist_port = free_port()?;
            let plugins = "[]";
            let node = Node { name, address, port, epmd_port, dist_port, settings, plugins, flags };
            Self::start_node(node, epmd.clone())
        };
        let [first, second, third] = [start(0)?, start(1)?, start(2)?];
        // By hand: not every version finds its peers while they are missing.
        for node in [&second, &third] {
            for step in [&["stop_app"][..], &["join_cluster", first.name()], &["start_app"]] {
                node.control(step);
            }
            node.ready()?;
        }
        Ok([first, second, third])
    }

    fn name_server(port: u16, addresses: &[Ipv4Addr]) -> io::Result<Arc<Guarded>> {
        let addresses: Vec<String> = addresses.iter().map(Ipv4Addr::to_string).collect();
        let mut epmd = programs::command("epmd", &folder("epmd")?);
        epmd.args(["-port", &port.to_string(), "-address", &addresses.join(",")]);
        Ok(Arc::new(Guarded::start(epmd)?))
    }

    fn start_node(node: Node, epmd: Arc<Guarded>) -> io::Result<Self> {
        let folder = folder("rabbit")?;
        let conf = format!(
            "listeners.tcp.1 = {}:{}\n\
             vm_memory_high_watermark.absolute = 1GB\n\
             disk_free_limit.absolute = 50MB\n\
             log.console = false\n{}",
            node.address, node.port, node.settings
        );
        write(&folder.join("rabbitmq.conf"), &conf, 0o600)?;
        write(&folder.join("enabled_plugins"), &format!("{}.\n", node.plugins), 0o600)?;
        write(&folder.join(".erlang.cookie"), "zentratests", 0o400)?;
        let server = Self::serve(&folder, &node)?;
        let rabbit = Self { folder, node, server, _epmd: epmd };
        rabbit.ready()?;
        Ok(rabbit)
    }

    /// After a node was killed, it resends messages from a delay queue to their target when no
    /// confirm came within this time, in milliseconds. RabbitMQ's default is three minutes.
    /// docker-compose.yml sets the same value.
    const DEAD_LETTERING: &str = "-rabbit dead_letter_worker_publisher_confirm_timeout 10000";

    fn serve(folder: &Path, node: &Node) -> io::Result<Guarded> {
        let mut command = programs::command(programs::rabbitmq()?, folder);
        let path = |name: &str| folder.join(name);
        let [a, b, c, d] = node.address.octets();
        Self::environment(&mut command, folder, node);
        command
            .arg("-noinput")
            .env("ERL_CRASH_DUMP", path("crash.dump"))
            .env("RABBITMQ_CONFIG_FILE", path("rabbitmq.conf"))
            .env("RABBITMQ_MNESIA_BASE", path("mnesia"))
            .env("RABBITMQ_LOG_BASE", path("log"))
            .env("RABBITMQ_ENABLED_PLUGINS_FILE", path("enabled_plugins"))
            .env("RABBITMQ_DIST_PORT", node.dist_port.to_string())
            .env("RABBITMQ_ALLOW_INPUT", "1")
            .env(
                "RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS",
                format!(
                    "-kernel inet_dist_use_interface {{{a},{b},{c},{d}}} +S 2:2 {} {}",
                    Self::DEAD_LETTERING,
                    node.flags
                ),
            );
        Guarded::start(command)
    }

    fn ready(&self) -> io::Result<()> {
        // The first frame of AMQP is a method frame (1). The node opens its AMQP port last.
        let address = (self.node.address, self.node.port).into();
        let answers = poll(START, || greet(address, b"AMQP\0\0\x09\x01", b"\x01"));
        answers.ok_or_else(|| not_ready("RabbitMQ"))
    }

    /// The address it listens on.
    pub fn url(&self) -> String {
        format!("amqp://guest:guest@{}:{}/%2f", self.node.address, self.node.port)
    }

    /// Its address.
    pub fn address(&self) -> Ipv4Addr {
        self.node.address
    }

    /// Its name in its cluster.
    pub fn name(&self) -> &str {
        &self.node.name
    }

    /// Its process id.
    pub fn id(&self) -> u32 {
        self.server.id()
    }

    /// Kill -9.
    pub fn kill(&mut self) {
        self.server.kill();
    }

    /// Stops it as an operator does (SIGTERM), and starts it again.
    ///
    /// # Errors
    ///
    /// If it does not start again in time.
    pub fn restart_gently(&mut self) -> io::Result<()> {
        self.server.terminate(START);
        self.restart()
    }

    /// Stops it (SIGSTOP). Once this returns, it keeps its connections and answers nothing.
    pub fn freeze(&self) {
        let pid = self.server.id().to_string();
        self.server.freeze();
        let stands = poll(START, || threads_stand(&pid).then_some(()));
        assert!(stands.is_some(), "RabbitMQ keeps running after SIGSTOP");
    }

    /// Continues it after [`Rabbit::freeze`].
    pub fn thaw(&self) {
        self.server.thaw();
    }

    /// Sets or clears the memory alarm.
    pub fn alarm(&self, on: bool) {
        self.allow_memory(if on { "1MB" } else { "1GB" });
    }

    /// Sets how much memory it may use before it blocks publishers.
    pub fn allow_memory(&self, limit: &str) {
        self.control(&["set_vm_memory_high_watermark", "absolute", limit]);
    }

    /// Sets the maximum message size of new channels, in bytes.
    pub fn limit_messages(&self, bytes: usize) {
        // RabbitMQ 3 reads the setting for each channel, and RabbitMQ 4 a copy that it makes at
        // its start.
        let set = format!(
            "application:set_env(rabbit, max_message_size, {bytes}), \
             persistent_term:put(max_message_size, {bytes})."
        );
        self.control(&["eval", &set]);
    }

    /// Evaluates an Erlang expression on the node, and returns what it prints.
    pub fn evaluate(&self, expression: &str) -> String {
        self.control(&["eval", expression])
    }

    /// Deletes everything that the node stores, as a node does that lost its disk.
    pub fn reset(&self) {
        for step in ["stop_app", "reset", "start_app"] {
            self.control(&[step]);
        }
    }

    /// Deletes a queue.
    pub fn delete_queue(&self, name: &str) {
        self.control(&["delete_queue", name]);
    }

    /// Number of connections that it accepted since its first start, according to its log.
    pub fn accepted_connections(&self) -> io::Result<usize> {
        let mut count = 0;
        for file in fs::read_dir(self.folder.join("log"))? {
            let log = fs::read(file?.path())?;
            count += String::from_utf8_lossy(&log).matches("accepting AMQP connection").count();
        }
        Ok(count)
    }

    /// Its queues that are not empty, one line each: name, ready, unacknowledged, consumers.
    pub fn waiting(&self) -> String {
        let columns = ["name", "messages_ready", "messages_unacknowledged", "consumers"];
        let queues = self.control(&[&["list_queues", "--silent"], &columns[..]].concat());
        let waits = |line: &&str| !line.contains("\t0\t0\t");
        queues.lines().filter(waits).collect::<Vec<_>>().join("\n")
    }

    /// Deletes the queues of these namespaces, with their messages.
    pub fn forget(&self, namespaces: &[String]) {
        let namespaces: Vec<_> = namespaces.iter().map(|name| format!("<<\"{name}.\">>")).collect();
        let delete = format!(
            "Gone = [{}], Is = fun(Name) -> fun(Start) -> string:prefix(Name, Start) =/= nomatch end \
             end, [rabbit_amqqueue:delete(Queue, false, false, <<\"tests\">>) || Queue <- \
             rabbit_amqqueue:list(), lists:any(Is(element(4, amqqueue:get_name(Queue))), Gone)], ok.",
            namespaces.join(", ")
        );
        self.control(&["eval", &delete]);
    }

    /// Runs `rabbitmqctl` on the node, and returns what it prints.
    pub fn control(&self, arguments: &[&str]) -> String {
        let server = programs::rabbitmq().unwrap_or_default();
        let mut command = programs::command(server.with_file_name("rabbitmqctl"), &self.folder);
        Self::environment(&mut command, &self.folder, &self.node);
        let done = command.args(arguments).output();
        let done = done.unwrap_or_else(|error| panic!("cannot run rabbitmqctl: {error}"));
        assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
        String::from_utf8_lossy(&done.stdout).into_owned()
    }

    fn environment(command: &mut Command, folder: &Path, node: &Node) {
        command
            .env("HOME", folder)
            .env("ERL_EPMD_PORT", node.epmd_port.to_string())
            .env("ERL_EPMD_ADDRESS", node.address.to_string())
            .env("RABBITMQ_NODENAME", &node.name)
            .env("RABBITMQ_USE_LONGNAME", (node.address != Ipv4Addr::LOCALHOST).to_string())
            .env("RABBITMQ_CONF_ENV_FILE", "/dev/null")
            // Keeps crash dumps out of the current directory.
            .env("ERL_CRASH_DUMP_SECONDS", "0");
    }

    /// Starts it again after [`Rabbit::kill`], with its data on disk.
    pub fn restart(&mut self) -> io::Result<()> {
        self.server = Self::serve(&self.folder, &self.node)?;
        self.ready()
    }
}

/// Whether a server answers this request with this text within two seconds.
fn greet(address: SocketAddr, hello: &[u8], answer: &[u8]) -> Option<()> {
    let mut stream = TcpStream::connect_timeout(&address, Duration::from_secs(1)).ok()?;
    stream.set_read_timeout(Some(Duration::from_secs(2))).ok()?;
    stream.write_all(hello).ok()?;
    let mut got = vec![0; answer.len()];
    stream.read_exact(&mut got).ok()?;
    (got == answer).then_some(())
}

pub(super) fn not_ready(name: &str) -> io::Error {
    io::Error::other(format!("{name} did not start within {START:?}:\n{}", output()))
}

pub(super) fn write(path: &Path, text: &str, mode: u32) -> io::Result<()> {
    fs::write(path, text)?;
    fs::set_permissions(path, fs::Permissions::from_mode(mode))
}
