//! The documentation: its links lead somewhere, each page is in the table of contents, and the commands
//! of the tutorial and of the how-to pages do what they say.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use zentra_tests::services::{Guarded, folder, poll, start};
use zentra_tests::world::BOUND;

pub(crate) fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().to_owned()
}

/// The Markdown files of the project.
pub(crate) fn pages() -> Vec<PathBuf> {
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
pub(crate) fn blocks(text: &str) -> Vec<(String, String)> {
    let mut found = Vec::new();
    let mut open: Option<(String, String)> = None;
    for line in text.lines() {
        match (line.trim_start().strip_prefix("```"), &mut open) {
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

/// How often in a row a program must listen on the same number of ports.
const SETTLED: usize = 5;
/// Blocks that are not run as they stand. `shown.rs` has the commands among them.
const NOT_RUN: [&str; 5] = ["console", "toml", "nginx", "caddyfile", "yaml"];

/// A folder and a network of its own, so that the ports of the page are free.
pub(crate) struct Reader {
    pub(crate) folder: PathBuf,
    network: Option<Guarded>,
    pub(crate) background: Vec<Guarded>,
}

impl Reader {
    pub(crate) fn new() -> Self {
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
            let entered = || id(&pid).is_some() && id(&pid) != id("self");
            assert!(poll(BOUND, || entered().then_some(())).is_some());
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
    pub(crate) fn run(&self, text: &str) -> (bool, String) {
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
    pub(crate) fn start(&mut self, text: &str) {
        let before = self.listening();
        let log = self.folder.join(format!(".output-{}", self.background.len()));
        let text = format!("exec > {} 2>&1; exec {text}", log.display());
        self.background.push(start(self.shell(&text)));
        // It may listen on several ports, one after the other.
        let (mut last, mut same) = (before, 0);
        let listens = poll(BOUND, || {
            let now = self.listening();
            same = if now > before && now == last { same + 1 } else { 0 };
            last = now;
            (same > SETTLED).then_some(())
        });
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
                // Commands that need servers, and parts of files.
                _ => assert!(NOT_RUN.contains(&&*info), "an unknown kind of block: {info}: {text}"),
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
    assert_eq!(ledger, "app/stripe/evt_first\napp/stripe/evt_copies\napp/stripe/evt_refund\n");
}

/// Pages about one task, each with its text.
fn how_to_pages() -> Vec<(PathBuf, String)> {
    let how_to = root().join("docs/how-to");
    let all = pages().into_iter().filter(|page| page.starts_with(&how_to));
    let all: Vec<_> = all.map(|page| (page.clone(), fs::read_to_string(page).unwrap())).collect();
    assert!(all.len() > 25, "{all:?}");
    all
}

#[test]
fn the_how_to_pages_work_as_they_are_written() {
    let pages = how_to_pages();
    let mut runs = 0;
    // Without networks of their own, they would need the same ports at the same time.
    let together = if Reader::new().network.is_some() { 4 } else { 1 };
    for some in pages.chunks(together) {
        std::thread::scope(|scope| {
            for (path, page) in some {
                let read = scope.spawn(move || {
                    println!("{}", path.display());
                    Reader::new().read(page);
                });
                runs += usize::from(!blocks(page).is_empty());
                drop(read);
            }
        });
    }
    assert!(runs > 20, "{runs}");
}

/// Titles and paths of the table of contents.
fn contents() -> Vec<(String, String)> {
    let summary = fs::read_to_string(root().join("docs/SUMMARY.md")).unwrap();
    let link = |line: &str| {
        let (title, path) = line.split_once("](")?;
        Some((title.split_once('[')?.1.to_owned(), path.trim_end_matches(')').to_owned()))
    };
    summary.lines().filter_map(link).collect()
}

#[test]
fn each_page_is_in_the_table_of_contents_and_for_programs() {
    let docs = root().join("docs");
    let listed: BTreeSet<PathBuf> = contents().iter().map(|(_, path)| docs.join(path)).collect();
    let is_page = |page: &PathBuf| page.starts_with(&docs) && !page.ends_with("SUMMARY.md");
    let there: BTreeSet<PathBuf> = pages().into_iter().filter(is_page).collect();
    assert_eq!(listed, there);
    // https://llmstxt.org: a title, a summary, and links with what is behind them.
    let text = fs::read_to_string(docs.join("llms.txt")).unwrap();
    assert!(text.starts_with("# Zentra\n\n> "), "{text}");
    for (title, path) in contents() {
        let start = format!("- [{title}]({path}): ");
        let line = text.lines().find(|line| line.starts_with(&start));
        assert!(
            line.is_some_and(|line| line.len() > start.len() + 10),
            "{start} is not in llms.txt"
        );
    }
}
