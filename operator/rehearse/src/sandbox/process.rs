//! Processes and folders that are removed however this process ends. The kernel kills each child
//! when this process dies. A reaper process notices that end by a closed pipe, kills what is left
//! and removes the folder.

use std::fs;
use std::io::{self, Write};
use std::net::{Ipv4Addr, SocketAddrV4};

use std::ops::Range;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::fs::DirBuilderExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicU16, Ordering};
use std::sync::{LazyLock, Mutex, PoisonError, mpsc};
use std::time::{Duration, Instant};

use rustix::io::Errno;
use rustix::net::{self, AddressFamily, SocketFlags, SocketType};
use rustix::process::{Pid, Signal, kill_process};

/// This process's folder, and the pipe that its reaper waits on.
struct Workplace {
    folder: PathBuf,
    reaper: Mutex<Child>,
}

static WORKPLACE: LazyLock<Result<Workplace, io::Error>> = LazyLock::new(Workplace::new);

impl Workplace {
    fn new() -> io::Result<Self> {
        // Other users can write to the parent folder. They cannot guess this folder's name, and
        // nothing that they created is used. A server that runs as another user must be able to
        // enter.
        let name = format!("zentra-{}-{:016x}", std::process::id(), rand::random::<u64>());
        let folder = std::env::temp_dir().join(name);
        fs::DirBuilder::new().mode(0o711).create(&folder)?;
        // `read` ends when our end of the pipe closes. A process is killed only if it still refers
        // to this folder, so a reused process ID is safe.
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
            .spawn()?;
        Ok(Self { folder, reaper: Mutex::new(reaper) })
    }
}

/// This process's folder. All others are below it.
pub fn workplace() -> io::Result<&'static Path> {
    match &*WORKPLACE {
        Ok(workplace) => Ok(&workplace.folder),
        Err(error) => Err(io::Error::new(error.kind(), error.to_string())),
    }
}

/// A new folder below this process's own.
pub fn folder(name: &str) -> io::Result<PathBuf> {
    static NEXT: AtomicU16 = AtomicU16::new(0);
    let number = NEXT.fetch_add(1, Ordering::Relaxed);
    let folder = workplace()?.join(format!("{name}-{number}"));
    fs::DirBuilder::new().mode(0o700).create(&folder)?;
    Ok(folder)
}

/// Removes this process's folder now. The reaper would do it anyway.
pub fn sweep() {
    let Ok(workplace) = &*WORKPLACE else { return };
    let mut reaper = workplace.reaper.lock().unwrap_or_else(PoisonError::into_inner);
    drop(reaper.stdin.take());
    let _ = reaper.wait();
}

/// The range of ports. It is outside the range of outgoing connections, because polling a free
/// port inside that range can connect to itself.
const PORTS: Range<u16> = 20_000..32_000;
const PORTS_PER_BLOCK: u16 = 100;

/// Reserves ports for as long as this process lives: a program may listen on its port only later.
struct ReservedPorts {
    left: Range<u16>,
    /// Each process reserves a block by a name, which the kernel releases when the process ends.
    blocks: Vec<UnixDatagram>,
}

static RESERVED: Mutex<ReservedPorts> =
    Mutex::new(ReservedPorts { left: 0..0, blocks: Vec::new() });

impl ReservedPorts {
    fn reserve_block(&mut self) -> io::Result<()> {
        let starts: Vec<u16> = PORTS.step_by(PORTS_PER_BLOCK.into()).collect();
        let skip = std::process::id() as usize % starts.len();
        for start in starts.iter().cycle().skip(skip).take(starts.len()) {
            let name = SocketAddr::from_abstract_name(format!("zentra-ports-{start}"))?;
            match UnixDatagram::bind_addr(&name) {
                Ok(block) => self.blocks.push(block),
                Err(error) if error.kind() == io::ErrorKind::AddrInUse => continue,
                Err(error) => return Err(error),
            }
            self.left = *start..start + PORTS_PER_BLOCK;
            return Ok(());
        }
        Err(io::Error::other(format!(
            "all ports from {} to {} are reserved",
            PORTS.start, PORTS.end
        )))
    }
}

/// A free port that no other caller gets, in any process, until this process ends.
pub fn free_port() -> io::Result<u16> {
    let mut ports = RESERVED.lock().unwrap_or_else(PoisonError::into_inner);
    loop {
        match ports.left.next() {
            Some(port) if is_free(port)? => return Ok(port),
            Some(_) => {}
            None => ports.reserve_block()?,
        }
    }
}

/// Binds the port without listening. A child that is forked meanwhile keeps the socket until it
/// executes its program, and a listening socket would block the port.
fn is_free(port: u16) -> io::Result<bool> {
    let (kind, flags) = (SocketType::STREAM, SocketFlags::CLOEXEC);
    let socket = net::socket_with(AddressFamily::INET, kind, flags, None)?;
    net::sockopt::set_socket_reuseaddr(&socket, true)?;
    match net::bind(&socket, &SocketAddrV4::new(Ipv4Addr::LOCALHOST, port)) {
        Ok(()) => Ok(true),
        Err(Errno::ADDRINUSE) => Ok(false),
        Err(error) => Err(error.into()),
    }
}

/// Starts a child that the kernel kills when this process dies. The signal follows the thread that
/// forked, so one thread, which never ends, forks all children.
pub fn spawn(command: Command) -> io::Result<Child> {
    type SpawnRequest = (Command, mpsc::Sender<io::Result<Child>>);
    static FORKER: LazyLock<Mutex<mpsc::Sender<SpawnRequest>>> = LazyLock::new(|| {
        let (requests, inbox) = mpsc::channel::<SpawnRequest>();
        std::thread::spawn(move || {
            for (mut command, answer) in inbox {
                let _ = answer.send(command.spawn());
            }
        });
        Mutex::new(requests)
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
    let workplace = workplace()?;
    let log = workplace.join("output.log");
    let log = fs::File::options().create(true).append(true).open(log)?;
    wrapped.env("ZENTRA_WORKPLACE", workplace);
    wrapped.stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log);
    let (answer, result) = mpsc::channel();
    let gone = || io::Error::other("the forking thread is gone");
    FORKER
        .lock()
        .unwrap_or_else(PoisonError::into_inner)
        .send((wrapped, answer))
        .map_err(|_| gone())?;
    let child = result.recv().map_err(|_| gone())??;
    let pids = workplace.join("pids");
    let mut pids = fs::File::options().create(true).append(true).open(pids)?;
    writeln!(pids, "{}", child.id())?;
    Ok(child)
}

/// The output of all children, to be shown when something fails.
pub fn output() -> String {
    let log = workplace().map(|folder| folder.join("output.log"));
    log.and_then(fs::read_to_string).unwrap_or_default()
}

/// A child that is killed when it is dropped.
pub struct Guarded(Child);

impl Guarded {
    /// Starts it. See [`spawn`].
    pub fn start(command: Command) -> io::Result<Self> {
        let name = command.get_program().to_string_lossy().into_owned();
        let failed = |error: io::Error| {
            io::Error::new(error.kind(), format!("cannot start {name}: {error}"))
        };
        spawn(command).map(Self).map_err(failed)
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

    /// Whether it has exited.
    pub fn has_ended(&mut self) -> bool {
        self.0.try_wait().is_ok_and(|status| status.is_some())
    }

    /// Sends a signal. A process that has exited gets none.
    fn signal(&self, signal: Signal) {
        let pid = i32::try_from(self.0.id()).ok().and_then(Pid::from_raw);
        let _ = pid.map(|pid| kill_process(pid, signal));
    }

    /// SIGHUP.
    pub fn hang_up(&self) {
        self.signal(Signal::HUP);
    }

    /// Stops it (SIGSTOP).
    pub fn freeze(&self) {
        self.signal(Signal::STOP);
    }

    /// Continues it after [`Guarded::freeze`].
    pub fn thaw(&self) {
        self.signal(Signal::CONT);
    }

    /// Sends SIGTERM. Returns the exit status if it exits within the time limit.
    pub fn terminate(&mut self, bound: Duration) -> Option<ExitStatus> {
        self.signal(Signal::TERM);
        poll(bound, || self.0.try_wait().ok().flatten())
    }
}

impl Drop for Guarded {
    fn drop(&mut self) {
        self.kill();
    }
}

/// Calls `ask` until it returns a value or the time limit has passed.
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

#[cfg(test)]
mod tests {
    use std::collections::HashSet;
    use std::net::TcpListener;

    use super::*;

    #[test]
    fn a_port_is_handed_out_once_and_its_block_to_one_process() {
        let many = usize::from(PORTS_PER_BLOCK) + 1;
        let ports: HashSet<u16> = (0..many).map(|_| free_port().unwrap()).collect();
        assert_eq!(ports.len(), many, "also of two blocks");
        for port in ports {
            let name = format!("zentra-ports-{}", port - port % PORTS_PER_BLOCK);
            let name = SocketAddr::from_abstract_name(name).unwrap();
            let other = UnixDatagram::bind_addr(&name);
            assert_eq!(other.unwrap_err().kind(), io::ErrorKind::AddrInUse);
        }
    }

    #[test]
    fn a_port_that_somebody_listens_on_is_not_free() {
        let listener = TcpListener::bind(("127.0.0.1", 0)).unwrap();
        let port = listener.local_addr().unwrap().port();
        assert!(!is_free(port).unwrap());
        drop(listener);
        assert!(is_free(port).unwrap());
    }
}
