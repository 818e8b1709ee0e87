//! The documentation: its links lead somewhere, and the commands of the tutorial do what it says.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use zentra_tests::services::{Guarded, folder, poll, start};
use zentra_tests::world::BOUND;

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().to_owned()
}

/// The Markdown files of the project.
fn pages() -> Vec<PathBuf> {
    let tracked = Command::new("git").args(["ls-files", "*.md"]).current_dir(root()).output();
    let tracked = String::from_utf8(tracked.unwrap().stdout).unwrap();
    let pages: Vec<PathBuf> = tracked.lines().map(|path| root().join(path)).collect();
    assert!(pages.len() > 10, "{pages:?}");
    pages
}

/// Text without code, where brackets are no links.
fn prose(text: &str) -> String {
    let mut in_block = false;
    let lines = text.lines().filter(|line| {
        let is_fence = line.trim_start().starts_with("```");
        in_block ^= is_fence;
        !in_block && !is_fence
    });
    // Every second part is between backticks.
    let text = lines.collect::<Vec<_>>().join("\n");
    text.split('`').step_by(2).collect()
}

/// The anchors of a page, as GitHub and mdBook make them.
fn anchors(text: &str) -> BTreeSet<String> {
    let headings = text.lines().filter(|line| line.starts_with('#'));
    let slug = |heading: &str| {
        let heading = heading.trim_start_matches('#').trim().to_lowercase();
        let kept = heading.chars().filter(|c| c.is_alphanumeric() || " -_".contains(*c));
        kept.map(|c| if c == ' ' { '-' } else { c }).collect()
    };
    headings.map(slug).collect()
}

#[test]
fn each_link_leads_to_a_file_and_a_heading() {
    let mut broken = Vec::new();
    let mut followed = 0;
    for page in pages() {
        let text = fs::read_to_string(&page).unwrap();
        for link in prose(&text).split("](").skip(1).filter_map(|rest| rest.split(')').next()) {
            if link.contains("://") || link.starts_with("mailto:") {
                continue;
            }
            followed += 1;
            let (path, anchor) = link.split_once('#').unwrap_or((link, ""));
            let target = match path {
                "" => page.clone(),
                path => page.parent().unwrap().join(path),
            };
            let found = match anchor {
                "" => target.exists(),
                anchor => {
                    fs::read_to_string(&target).is_ok_and(|text| anchors(&text).contains(anchor))
                }
            };
            if !found {
                broken.push(format!("{}: {link}", page.display()));
            }
        }
    }
    assert!(followed > 50, "only {followed} links were found");
    assert_eq!(broken, Vec::<String>::new());
}

/// A block of code: the words after the fence, and the text.
fn blocks(text: &str) -> Vec<(String, String)> {
    let mut found = Vec::new();
    let mut open: Option<(String, String)> = None;
    for line in text.lines() {
        match (line.strip_prefix("```"), &mut open) {
            (Some(info), None) => open = Some((info.to_owned(), String::new())),
            (Some(_), Some(_)) => found.extend(open.take()),
            (None, Some((_, block))) => {
                block.push_str(line);
                block.push('\n');
            }
            (None, None) => {}
        }
    }
    found
}

/// A folder and a network of its own, so that the ports of the page are free.
struct Reader {
    folder: PathBuf,
    network: Option<Guarded>,
    background: Vec<Guarded>,
}

impl Reader {
    fn new() -> Self {
        let mut alone = Command::new("unshare");
        alone.args(["--net", "true"]).stderr(Stdio::null());
        let network = alone.status().is_ok_and(|status| status.success()).then(|| {
            let mut holder = Command::new("unshare");
            holder.args(["--net", "sleep", "600"]);
            start(holder)
        });
        let reader = Self { folder: folder("reader"), network, background: Vec::new() };
        if let Some(network) = &reader.network {
            // It has one as soon as it is not this process's.
            let id = |pid: &str| fs::read_link(format!("/proc/{pid}/ns/net")).ok();
            let pid = network.id().to_string();
            assert!(poll(BOUND, || (id(&pid) != id("self")).then_some(())).is_some());
            // The loopback of a new network is down. SIOCSIFFLAGS with IFF_UP.
            let up = "import fcntl, socket, struct\n\
                      fcntl.ioctl(socket.socket(), 0x8914, struct.pack('16sH14s', b'lo', 0x49, b''))";
            let done = reader.shell("python3 -c \"$UP\"").env("UP", up).output().unwrap();
            assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
        }
        reader
    }

    /// A shell in the folder and the network, with the programs of this build.
    fn shell(&self, text: &str) -> Command {
        let mut shell = match &self.network {
            Some(network) => {
                let mut enter = Command::new("nsenter");
                enter.arg(format!("--net=/proc/{}/ns/net", network.id())).arg("sh");
                enter
            }
            None => Command::new("sh"),
        };
        let programs = std::env::current_exe().unwrap();
        let programs = programs.parent().and_then(Path::parent).unwrap().display().to_string();
        let path = format!("{programs}:{}", std::env::var("PATH").unwrap_or_default());
        shell.args(["-euc", text]).current_dir(&self.folder).env("PATH", path);
        shell
    }

    /// Runs a block, and returns what it prints.
    fn run(&self, text: &str) -> (bool, String) {
        let done = self.shell(text).output().unwrap();
        let printed = [done.stdout, done.stderr].concat();
        (done.status.success(), String::from_utf8_lossy(&printed).into_owned())
    }

    /// Sockets that listen in the network.
    fn listening(&self) -> usize {
        let (_, table) = self.run("cat /proc/net/tcp");
        table.lines().filter(|line| line.split_whitespace().nth(3) == Some("0A")).count()
    }

    /// Starts a program of a block, and waits until it listens.
    fn start(&mut self, text: &str) {
        let before = self.listening();
        let log = self.folder.join(format!(".output-{}", self.background.len()));
        let text = format!("exec > {} 2>&1; exec {text}", log.display());
        self.background.push(start(self.shell(&text)));
        let listens = poll(BOUND, || (self.listening() > before).then_some(()));
        assert!(listens.is_some(), "{text}: {}", fs::read_to_string(&log).unwrap_or_default());
    }

    /// Reads a page: writes its files, runs its commands, and compares what they print.
    fn read(&mut self, page: &str) {
        let mut last = String::new();
        for (info, text) in blocks(page) {
            match info.split_once(' ') {
                Some(("sh", "background")) => self.start(text.trim()),
                Some(("python", name)) => fs::write(self.folder.join(name), text).unwrap(),
                _ if info == "sh" => {
                    let (is_ok, printed) = self.run(&text);
                    assert!(is_ok, "{text}{printed}");
                    last = text;
                }
                _ if info == "text" => {
                    // What happens in the background takes a moment. Each command can be repeated.
                    let mut printed = String::new();
                    let says = poll(BOUND, || {
                        printed = self.run(&last).1;
                        text.lines().all(|line| printed.contains(line)).then_some(())
                    });
                    assert!(says.is_some(), "{last}should print\n{text}but prints\n{printed}");
                }
                _ => assert_eq!(info, "console", "an unknown kind of block: {text}"),
            }
        }
    }
}

#[test]
fn the_tutorial_works_as_it_is_written() {
    let page = fs::read_to_string(root().join("docs/tutorial.md")).unwrap();
    let mut reader = Reader::new();
    reader.read(&page);
    let ledger = fs::read_to_string(reader.folder.join("ledger.txt")).unwrap();
    assert_eq!(ledger, "app/stripe/evt_first\napp/stripe/evt_refund\n");
}
