//! Files: who can read and write them, and the room on the disk.

use std::fs::Metadata;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use rustix::fs::{Access, access};
use rustix::process::{Resource, geteuid, getrlimit};
use zentra_config::{Config, Embedded, secret_files};

use super::Finding;

/// Files that are open beside the connections of callbacks.
const OTHER_FILES: u64 = 256;
/// Part of `max_size`, in percent, from which the file counts as nearly full. Refused callbacks are
/// dropped from here on.
const NEARLY_FULL: u64 = 75;

/// What others may do with the configuration and the files of secrets.
pub(super) fn permissions(path: &Path) -> Vec<Finding> {
    let mut found = Vec::new();
    if is_open_to(path, 0o002) {
        let what = "everybody can write to it, and so decide who receives events";
        found.push(Finding::problem(shown(path), what).remedy(chmod("o-w", path)));
    }
    let text = zentra_config::text(path).unwrap_or_default();
    let secrets = secret_files(&text).into_iter().chain([path.with_file_name(".env")]);
    let (open, private): (Vec<PathBuf>, Vec<PathBuf>) =
        secrets.filter(|secret| secret.exists()).partition(|secret| is_open_to(secret, 0o007));
    found.extend(open.iter().map(|secret| {
        let what = "it holds secrets, and everybody can read or write it";
        Finding::problem(shown(secret), what).remedy(chmod("o-rwx", secret))
    }));
    if !private.is_empty() {
        let text = format!("files that only owner and group read: {}", private.len());
        found.push(Finding::ok("secrets", text));
    }
    found
}

/// Whether each connection can have a file.
pub(super) fn open_files(config: &Config) -> Option<Finding> {
    let needed = u64::from(config.ingress.bounds.max_connections) + OTHER_FILES;
    let limit = getrlimit(Resource::Nofile).maximum?;
    (limit < needed).then(|| {
        Finding::warning(
            "open files",
            format!("the limit is {limit}, and ingress.max_connections needs {needed}"),
        )
        .remedy("Raise it (LimitNOFILE= or ulimit -n), or lower ingress.max_connections")
    })
}

/// The embedded file, its folder, and its disk.
pub(super) fn embedded(Embedded { path, max_size }: &Embedded) -> Vec<Finding> {
    let folder = match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    };
    let about = shown(path);
    if !folder.is_dir() {
        let what = format!("its folder {} does not exist", folder.display());
        return vec![
            Finding::problem(about, what).remedy(format!("mkdir -m 700 {}", folder.display())),
        ];
    }
    let size = match path.symlink_metadata() {
        Ok(of_file) => match not_usable(&of_file) {
            Some(what) => return vec![Finding::problem(about, what)],
            None => of_file.len(),
        },
        Err(_) if access(folder, Access::WRITE_OK).is_err() => {
            let what = format!("this user cannot create it in {}", folder.display());
            return vec![
                Finding::problem(about, what).remedy("Run as the user that owns the folder"),
            ];
        }
        Err(_) => 0,
    };
    let mib = |bytes: u64| bytes >> 20;
    let state = format!("{} MiB of embedded.max_size = {} MiB", mib(size), mib(*max_size));
    let mut found = vec![match size * 100 >= max_size.saturating_mul(NEARLY_FULL) {
        true => Finding::warning(&about, format!("nearly full: {state}"))
            .remedy("Raise embedded.max_size, or drain dead letters (zentra dead list)"),
        false => Finding::ok(&about, state),
    }];
    if let Ok(disk) = rustix::fs::statvfs(folder) {
        let free = disk.f_bavail.saturating_mul(disk.f_frsize);
        let needed = max_size.saturating_sub(size);
        let state = format!("{} MiB free", mib(free));
        found.push(match free < needed {
            true => Finding::warning(
                "disk",
                format!("{state}, and the embedded file may still grow by {} MiB", mib(needed)),
            )
            .remedy("Free room, or lower embedded.max_size"),
            false => Finding::ok("disk", state),
        });
    }
    found
}

/// Why a file cannot be the embedded one.
fn not_usable(file: &Metadata) -> Option<String> {
    if !file.is_file() {
        return Some("it must be a plain file, and no link".into());
    }
    if file.uid() != geteuid().as_raw() {
        return Some(format!("it belongs to user {}: run as that user", file.uid()));
    }
    (file.mode() & 0o002 != 0).then(|| "everybody can write to it: chmod o-w".into())
}

fn is_open_to(path: &Path, mode: u32) -> bool {
    path.metadata().is_ok_and(|about| about.mode() & mode != 0)
}

fn chmod(mode: &str, path: &Path) -> String {
    format!("chmod {mode} {}", path.display())
}

fn shown(path: &Path) -> String {
    path.display().to_string()
}
