//! Private RabbitMQ and Redis servers on free ports, with folders of their own.
//!
//! Nothing is left behind, however the process ends: each server is started so that the
//! kernel kills it when this process dies, and a reaper process, which notices our end
//! by the end of a pipe, sweeps up what is left and removes the folder.

use std::fs;
use std::io::{self, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU16, Ordering};
use std::sync::{LazyLock, Mutex, PoisonError, mpsc};
use std::time::{Duration, Instant};

/// How long a server may take until it answers.
const START: Duration = Duration::from_secs(60);

/// This process's folder, and the pipe that keeps its reaper waiting.
struct Workplace {
    folder: PathBuf,
    reaper: Mutex<Child>,
}

static WORKPLACE: LazyLock<Workplace> = LazyLock::new(|| {
    let folder = std::env::temp_dir().join(format!("zentra-{}", std::process::id()));
    fs::create_dir_all(&folder).unwrap_or_else(|error| panic!("{}: {error}", folder.display()));
    // `read` ends with our end of the pipe. A pid is killed only if its process still
    // names this folder, so a pid that was given out anew is safe.
    let script = r#"
        trap '' INT TERM HUP
        read -r _
        if [ -f "$1/pids" ]; then
          while read -r pid; do
            tr '\0' '\n' <"/proc/$pid/environ" 2>/dev/null | grep -qF "$1" && kill -9 "$pid"
          done <"$1/pids"
        fi
        for _ in 1 2 3 4 5; do rm -rf "$1" 2>/dev/null && break; sleep 0.2; done
    "#;
    let reaper = Command::new("bash")
        .args(["-c", script, "zentra-reaper"])
        .arg(&folder)
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .process_group(0)
        .spawn()
        .unwrap_or_else(|error| panic!("can't start the reaper: {error}"));
    Workplace { folder, reaper: Mutex::new(reaper) }
});

/// This process's own folder, below which all others are.
pub fn workplace() -> PathBuf {
    WORKPLACE.folder.clone()
}

/// A new folder below this process's own.
pub fn folder(name: &str) -> PathBuf {
    static NEXT: AtomicU16 = AtomicU16::new(0);
    let number = NEXT.fetch_add(1, Ordering::Relaxed);
    let folder = WORKPLACE.folder.join(format!("{name}-{number}"));
    fs::create_dir_all(&folder).unwrap_or_else(|error| panic!("{}: {error}", folder.display()));
    folder
}

/// Removes this process's folder now. Not needed for tidiness: the reaper does it anyway.
pub fn sweep() {
    let mut reaper = WORKPLACE.reaper.lock().unwrap_or_else(PoisonError::into_inner);
    drop(reaper.stdin.take());
    let _ = reaper.wait();
}

/// A port that is free now, outside the range that the kernel gives to outgoing
/// connections: polling a free port inside it can connect to itself.
pub fn free_port() -> u16 {
    const FROM: u16 = 20_000;
    const SPAN: u16 = 12_000;
    static NEXT: AtomicU16 = AtomicU16::new(0);
    let start = u16::try_from(std::process::id() * 97 % u32::from(SPAN)).unwrap_or(0);
    for _ in 0..SPAN {
        let step = NEXT.fetch_add(1, Ordering::Relaxed);
        let port = FROM + (start + step) % SPAN;
        if TcpListener::bind(("127.0.0.1", port)).is_ok() {
            return port;
        }
    }
    panic!("no free port between {FROM} and {}", FROM + SPAN);
}

/// Starts a child that the kernel kills when this process dies. That signal follows the
/// thread that forked, so one thread, which never ends, forks them all.
pub fn spawn(command: Command) -> io::Result<Child> {
    type Order = (Command, mpsc::Sender<io::Result<Child>>);
    static FORKER: LazyLock<Mutex<mpsc::Sender<Order>>> = LazyLock::new(|| {
        let (orders, inbox) = mpsc::channel::<Order>();
        std::thread::spawn(move || {
            for (mut command, answer) in inbox {
                let _ = answer.send(command.spawn());
            }
        });
        Mutex::new(orders)
    });
    let mut wrapped = Command::new("setpriv");
    wrapped.args(["--pdeathsig", "KILL"]).arg(command.get_program());
    wrapped.args(command.get_args());
    for (key, value) in command.get_envs() {
        match value {
            Some(value) => wrapped.env(key, value),
            None => wrapped.env_remove(key),
        };
    }
    if let Some(folder) = command.get_current_dir() {
        wrapped.current_dir(folder);
    }
    let log = WORKPLACE.folder.join("output.log");
    let log = fs::File::options().create(true).append(true).open(log)?;
    wrapped.env("ZENTRA_WORKPLACE", &WORKPLACE.folder);
    wrapped.stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log);
    let (answer, result) = mpsc::channel();
    let gone = || io::Error::other("the forking thread is gone");
    FORKER
        .lock()
        .unwrap_or_else(PoisonError::into_inner)
        .send((wrapped, answer))
        .map_err(|_| gone())?;
    let child = result.recv().map_err(|_| gone())??;
    let pids = WORKPLACE.folder.join("pids");
    let mut pids = fs::File::options().create(true).append(true).open(pids)?;
    writeln!(pids, "{}", child.id())?;
    Ok(child)
}

/// What all children of this process have printed, for a failing test to show.
pub fn output() -> String {
    fs::read_to_string(WORKPLACE.folder.join("output.log")).unwrap_or_default()
}

/// A child that is killed when it is dropped.
pub struct Guarded(Child);

impl Guarded {
    /// Starts it; see [`spawn`].
    pub fn start(command: Command) -> Self {
        let name = command.get_program().to_string_lossy().into_owned();
        Self(spawn(command).unwrap_or_else(|error| panic!("can't start {name}: {error}")))
    }

    /// Its process id.
    pub fn id(&self) -> u32 {
        self.0.id()
    }

    /// Kill -9, and wait until it is gone.
    pub fn kill(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }

    /// Whether it has ended by itself.
    pub fn has_ended(&mut self) -> bool {
        self.0.try_wait().is_ok_and(|status| status.is_some())
    }

    /// SIGHUP.
    pub fn hang_up(&self) {
        let _ = Command::new("kill").args(["-HUP", &self.0.id().to_string()]).status();
    }

    /// SIGTERM, and the exit status if it ends within the bound.
    pub fn terminate(&mut self, bound: Duration) -> Option<std::process::ExitStatus> {
        let _ = Command::new("kill").arg(self.0.id().to_string()).status();
        poll(bound, || self.0.try_wait().ok().flatten())
    }
}

impl Drop for Guarded {
    fn drop(&mut self) {
        self.kill();
    }
}

/// Asks until there is an answer or the bound has passed.
pub fn poll<T>(bound: Duration, mut ask: impl FnMut() -> Option<T>) -> Option<T> {
    let end = Instant::now() + bound;
    loop {
        if let Some(answer) = ask() {
            return Some(answer);
        }
        if Instant::now() > end {
            return None;
        }
        std::thread::park_timeout(Duration::from_millis(20));
    }
}

/// Whether no thread of a process runs: each stops by itself, some time after the signal.
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
    port: u16,
    epmd_port: u16,
    dist_port: u16,
    server: Guarded,
    _epmd: Guarded,
}

impl Rabbit {
    /// Starts one and waits until it accepts connections.
    pub fn start() -> Self {
        let folder = folder("rabbit");
        let (port, epmd_port, dist_port) = (free_port(), free_port(), free_port());
        let conf = format!(
            "listeners.tcp.1 = 127.0.0.1:{port}\n\
             vm_memory_high_watermark.absolute = 1GB\n\
             disk_free_limit.absolute = 50MB\n\
             log.console = false\n"
        );
        write(&folder.join("rabbitmq.conf"), &conf, 0o600);
        write(&folder.join("enabled_plugins"), "[].\n", 0o600);
        write(&folder.join(".erlang.cookie"), "zentratests", 0o400);
        let mut epmd = Command::new("epmd");
        epmd.args(["-port", &epmd_port.to_string(), "-address", "127.0.0.1"]);
        let epmd = Guarded::start(epmd);
        let server = Self::serve(&folder, epmd_port, dist_port);
        let rabbit = Self { folder, port, epmd_port, dist_port, server, _epmd: epmd };
        rabbit.ready();
        rabbit
    }

    /// What a killed node had under way from a delay queue to its target it sends once more
    /// when no confirm came within this time (milliseconds): three minutes, unless it is told
    /// otherwise. As in docker-compose.yml.
    const DEAD_LETTERING: &str = "-rabbit dead_letter_worker_publisher_confirm_timeout 10000";

    fn serve(folder: &Path, epmd_port: u16, dist_port: u16) -> Guarded {
        let mut command = Command::new(versioned_server());
        let path = |name: &str| folder.join(name);
        Self::environment(&mut command, folder, epmd_port);
        command
            .arg("-noinput")
            .current_dir(folder)
            .env("ERL_CRASH_DUMP", path("crash.dump"))
            .env("RABBITMQ_CONFIG_FILE", path("rabbitmq.conf"))
            .env("RABBITMQ_MNESIA_BASE", path("mnesia"))
            .env("RABBITMQ_LOG_BASE", path("log"))
            .env("RABBITMQ_ENABLED_PLUGINS_FILE", path("enabled_plugins"))
            .env("RABBITMQ_DIST_PORT", dist_port.to_string())
            .env("RABBITMQ_ALLOW_INPUT", "1")
            .env(
                "RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS",
                format!(
                    "-kernel inet_dist_use_interface {{127,0,0,1}} +S 2:2 {}",
                    Self::DEAD_LETTERING
                ),
            );
        Guarded::start(command)
    }

    fn ready(&self) {
        // Its first word of AMQP is a method frame (1). It opens its port last of all.
        let answers = poll(START, || greet(self.port, b"AMQP\0\0\x09\x01", b"\x01"));
        assert!(answers.is_some(), "RabbitMQ didn't start:\n{}", output());
    }

    /// Where it listens.
    pub fn url(&self) -> String {
        format!("amqp://guest:guest@127.0.0.1:{}/%2f", self.port)
    }

    /// Its process id.
    pub fn id(&self) -> u32 {
        self.server.id()
    }

    /// Kill -9.
    pub fn kill(&mut self) {
        self.server.kill();
    }

    /// Stops it where it is (SIGSTOP): it keeps its connections and answers nothing any more,
    /// once this returns.
    pub fn freeze(&self) {
        let pid = self.server.id().to_string();
        let _ = Command::new("kill").args(["-STOP", &pid]).status();
        let stands = poll(START, || threads_stand(&pid).then_some(()));
        assert!(stands.is_some(), "RabbitMQ goes on after SIGSTOP");
    }

    /// Lets it go on after [`Rabbit::freeze`].
    pub fn thaw(&self) {
        let pid = self.server.id().to_string();
        let _ = Command::new("kill").args(["-CONT", &pid]).status();
    }

    /// Sets off the memory alarm, or ends it.
    pub fn alarm(&self, on: bool) {
        self.allow_memory(if on { "1MB" } else { "1GB" });
    }

    /// How much memory it may take before it blocks publishers.
    pub fn allow_memory(&self, limit: &str) {
        let server = versioned_server();
        let mut command = Command::new(server.with_file_name("rabbitmqctl"));
        Self::environment(&mut command, &self.folder, self.epmd_port);
        command.args(["set_vm_memory_high_watermark", "absolute"]);
        let done = command.arg(limit).output();
        let done = done.unwrap_or_else(|error| panic!("can't run rabbitmqctl: {error}"));
        assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
    }

    fn environment(command: &mut Command, folder: &Path, epmd_port: u16) {
        command
            .env("HOME", folder)
            .env("ERL_EPMD_PORT", epmd_port.to_string())
            .env("ERL_EPMD_ADDRESS", "127.0.0.1")
            .env("RABBITMQ_NODENAME", format!("zentra{epmd_port}@localhost"))
            .env("RABBITMQ_CONF_ENV_FILE", "/dev/null");
    }

    /// Starts it again after [`Rabbit::kill`], with what it has on disk.
    pub fn restart(&mut self) {
        self.server = Self::serve(&self.folder, self.epmd_port, self.dist_port);
        self.ready();
    }
}

/// The server script of the installed version. The one on the PATH changes the user.
fn versioned_server() -> PathBuf {
    versioned("/usr/lib/rabbitmq/lib", "sbin/rabbitmq-server")
}

/// A program of the newest version in a folder that has one folder per version.
fn versioned(folder: &str, program: &str) -> PathBuf {
    let mut found: Vec<PathBuf> = fs::read_dir(folder)
        .into_iter()
        .flatten()
        .flatten()
        .map(|entry| entry.path().join(program))
        .filter(|path| path.exists())
        .collect();
    found.sort();
    let hint = format!("no {program} in {folder}: run deploy/install-services.sh");
    found.pop().unwrap_or_else(|| panic!("{hint}"))
}

/// A private Redis server that keeps what it acknowledged.
pub struct Redis {
    folder: PathBuf,
    port: u16,
    server: Guarded,
}

impl Redis {
    /// Starts one and waits until it answers.
    pub fn start() -> Self {
        let (folder, port) = (folder("redis"), free_port());
        let server = Self::serve(&folder, port);
        let redis = Self { folder, port, server };
        redis.ready();
        redis
    }

    fn serve(folder: &Path, port: u16) -> Guarded {
        let mut command = Command::new("redis-server");
        command.current_dir(folder).arg("--port").arg(port.to_string());
        command.args(["--bind", "127.0.0.1", "--appendonly", "yes", "--appendfsync", "always"]);
        command.args(["--save", "", "--maxmemory-policy", "noeviction"]);
        Guarded::start(command)
    }

    fn ready(&self) {
        let answers = poll(START, || greet(self.port, b"PING\r\n", b"+PONG"));
        assert!(answers.is_some(), "Redis didn't start:\n{}", output());
    }

    /// Its process id.
    pub fn id(&self) -> u32 {
        self.server.id()
    }

    /// Its port on 127.0.0.1.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Where it listens.
    pub fn url(&self) -> String {
        format!("redis://127.0.0.1:{}/", self.port)
    }

    /// Kill -9.
    pub fn kill(&mut self) {
        self.server.kill();
    }

    /// Starts it again after [`Redis::kill`], with what it has on disk.
    pub fn restart(&mut self) {
        self.server = Self::serve(&self.folder, self.port);
        self.ready();
    }
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
        // It refuses to run as root.
        let as_root = fs::metadata("/proc/self").is_ok_and(|own| own.uid() == 0);
        if as_root {
            let _ = Command::new("chown").arg("postgres").arg(&folder).status();
        }
        let tool = |name: &str| {
            let path = versioned("/usr/lib/postgresql", &format!("bin/{name}"));
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
        let postgres = Self { port, _server: Guarded::start(server) };
        // Asked for TLS, it says no.
        let answers = poll(START, || greet(port, b"\0\0\0\x08\x04\xd2\x16\x2f", b"N"));
        assert!(answers.is_some(), "PostgreSQL didn't start:\n{}", output());
        postgres
    }

    /// How to connect.
    pub fn url(&self) -> String {
        format!("host=127.0.0.1 port={} user=zentra dbname=postgres", self.port)
    }
}

/// Whether a server that is told this answers with that, within two seconds.
fn greet(port: u16, hello: &[u8], answer: &[u8]) -> Option<()> {
    let address = ([127, 0, 0, 1], port).into();
    let mut stream = TcpStream::connect_timeout(&address, Duration::from_secs(1)).ok()?;
    stream.set_read_timeout(Some(Duration::from_secs(2))).ok()?;
    stream.write_all(hello).ok()?;
    let mut got = vec![0; answer.len()];
    stream.read_exact(&mut got).ok()?;
    (got == answer).then_some(())
}

fn write(path: &Path, text: &str, mode: u32) {
    fs::write(path, text).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    fs::set_permissions(path, fs::Permissions::from_mode(mode))
        .unwrap_or_else(|error| panic!("{}: {error}", path.display()));
}
