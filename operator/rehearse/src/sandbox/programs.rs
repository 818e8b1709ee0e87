//! The servers' programs: this system's, or those of another Debian in a folder.
//!
//! `ZENTRA_SERVERS` names such a folder, as `deploy/install-servers.sh` makes it. Its programs run
//! in a mount namespace of their own, where the folder is the root, and `/proc`, `/dev` and the
//! folder for temporary files are this system's. The namespace ends with the process, so no mount
//! is left behind. This needs root. `ZENTRA_STORE` names the server of the delivery store:
//! `redis-server` (the default) or `valkey-server`.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::LazyLock;

static ROOT: LazyLock<Option<PathBuf>> =
    LazyLock::new(|| variable("ZENTRA_SERVERS").map(Into::into));

/// Enters the folder `$1`. `$2` is the folder for temporary files, `$3` the current directory.
const ENTER: &str = r#"
    root=$1 temporary=$2 folder=$3
    shift 3
    for shared in /proc /dev "$temporary"; do
      mkdir -p "$root$shared" && mount --rbind "$shared" "$root$shared" || exit 1
    done
    exec chroot "$root" env -C "$folder" "$@"
"#;

fn variable(name: &str) -> Option<String> {
    std::env::var(name).ok().filter(|value| !value.is_empty())
}

/// A command for one of the servers' programs, to run in this folder. Its process id is the
/// program's.
pub(super) fn command(program: impl AsRef<Path>, folder: &Path) -> Command {
    let program = program.as_ref();
    let Some(root) = &*ROOT else {
        let mut command = Command::new(program);
        command.current_dir(folder);
        return command;
    };
    let mut command = Command::new("unshare");
    command.args(["--mount", "--propagation", "private", "sh", "-c", ENTER, "sh"]);
    command.arg(root).arg(std::env::temp_dir()).arg(folder).arg(program);
    command
}

/// The name of the delivery store's server.
pub(super) fn store() -> String {
    variable("ZENTRA_STORE").unwrap_or_else(|| "redis-server".into())
}

/// RabbitMQ's server script of the installed version. The one on the PATH changes the user.
pub(super) fn rabbitmq() -> io::Result<PathBuf> {
    let root = ROOT.as_deref().unwrap_or(Path::new("/"));
    let found = newest(&root.join("usr/lib/rabbitmq/lib"), "sbin/rabbitmq-server")?;
    // As the program itself sees it.
    Ok(Path::new("/").join(found.strip_prefix(root).unwrap_or(&found)))
}

/// A program of the newest version, in a folder that contains one folder per version.
pub fn newest(folder: &Path, program: &str) -> io::Result<PathBuf> {
    let mut found: Vec<PathBuf> = fs::read_dir(folder)
        .into_iter()
        .flatten()
        .flatten()
        .map(|entry| entry.path().join(program))
        .filter(|path| path.exists())
        .collect();
    found.sort();
    let missing =
        || io::Error::other(format!("{program} is not installed (not in {})", folder.display()));
    found.pop().ok_or_else(missing)
}
