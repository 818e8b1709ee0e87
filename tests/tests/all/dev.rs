//! `zentra dev`: from a provider's name, or a configuration, to an event at a local application.

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use zentra_tests::eventually;
use zentra_tests::ledger::{Ledger, Turn};
use zentra_tests::services::{Guarded, folder, poll};
use zentra_tests::stack::Stack;
use zentra_tests::world::BOUND;

use crate::init::{files, in_folder, mode, text};

/// A running `zentra dev`, and what it prints.
struct Dev {
    process: Guarded,
    output: PathBuf,
}

impl Dev {
    /// Starts it on a free port, with its output in a file.
    fn start(stack: &Stack, more: &[&str]) -> Self {
        let output = folder("dev").join("output");
        let mut shell = Command::new("sh");
        shell
            .args(["-c", "output=\"$1\"; shift; exec \"$@\" > \"$output\" 2>&1", "sh"])
            .arg(&output);
        let zentra = stack.command("zentra");
        shell.arg(zentra.get_program()).args(zentra.get_args());
        shell.envs(zentra.get_envs().filter_map(|(name, value)| Some((name, value?))));
        shell.args(["dev", "--listen", "127.0.0.1:0"]).args(more);
        Self { process: zentra_tests::services::start(shell), output }
    }

    fn text(&self) -> String {
        String::from_utf8_lossy(&fs::read(&self.output).unwrap_or_default()).into_owned()
    }

    /// Waits until it has printed all of this.
    async fn prints(&self, parts: &[&str]) -> String {
        let has_all = async || {
            let text = self.text();
            parts.iter().all(|part| text.contains(part)).then_some(text)
        };
        let printed = eventually("it prints what is awaited", BOUND * 2, has_all);
        match tokio::time::timeout(BOUND, printed).await {
            Ok(text) => text,
            Err(_) => panic!("no {parts:?} in {}", self.text()),
        }
    }

    /// The address for callbacks.
    async fn listen(&self) -> String {
        let text = self.prints(&["callbacks  http://", "/in/"]).await;
        let url = text.split_once("callbacks  ").unwrap().1;
        url.split_once("/in/").unwrap().0.to_owned()
    }
}

/// The configuration that it has written.
fn own(folder: &Path) -> Stack {
    let mut stack = in_folder(folder);
    stack.config = folder.join(".zentra/dev.toml");
    stack
}

#[tokio::test(flavor = "multi_thread")]
async fn a_providers_name_is_enough() {
    let folder = folder("dev");
    let stack = in_folder(&folder);
    let dev = Dev::start(&stack, &["--provider", "stripe", "--secret", "whsec_mine"]);
    let url = dev.listen().await;
    let sent = own(&folder).zentra(&[
        "send",
        "stripe",
        "charge.succeeded",
        "--id",
        "evt_1",
        "--url",
        &url,
    ]);
    assert!(sent.status.success(), "{}", text(&sent));
    let forged = format!("{url}/in/stripe");
    let answer = stack.http.post(&forged, &Default::default(), "{}".to_owned()).await;
    assert_eq!(answer.unwrap().status, 401);
    let printed = dev
        .prints(&[
            "accepted  stripe  charge.succeeded  evt_1",
            "delivered: 200",
            "REFUSED   stripe",
        ])
        .await;
    // What an application would get.
    for part in ["idempotency-key: app/stripe/evt_1", "webhook-signature: v1,", "\"id\":\"evt_1\""]
    {
        assert!(printed.replace("\": \"", "\":\"").contains(part), "no {part}: {printed}");
    }
    let shown = text(&own(&folder).zentra(&["event", "show", "evt_1"]));
    assert!(shown.contains("delivered: 200"), "{shown}");
    let secrets = fs::read_to_string(folder.join(".zentra/.env")).unwrap();
    assert!(secrets.contains("STRIPE_SECRET='whsec_mine'"), "{secrets}");
    drop(dev);

    // What was entered at the provider goes on working.
    let dev = Dev::start(&stack, &["--provider", "stripe", "--provider", "github"]);
    dev.listen().await;
    let secrets = fs::read_to_string(folder.join(".zentra/.env")).unwrap();
    assert!(secrets.contains("STRIPE_SECRET='whsec_mine'\n"), "{secrets}");
    assert!(secrets.contains("GITHUB_SECRET='"), "{secrets}");
    assert_eq!(files(&folder), [".zentra"]);
    for (name, is) in [("", 0o700), (".env", 0o600), ("seal.key", 0o600), ("dev.toml", 0o600)] {
        assert_eq!(mode(folder.join(".zentra").join(name)), is, "{name}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_events_of_a_configuration_go_to_the_local_application_alone() {
    let folder = folder("dev");
    let stack = in_folder(&folder);
    let elsewhere = Ledger::start(&zentra_tests::services::folder("ledger")).await.unwrap();
    let local = Ledger::start(&zentra_tests::services::folder("ledger")).await.unwrap();
    local.fail_first_attempts(1);
    let init = stack.zentra(&["init", "stripe", "--forward", &elsewhere.any()]);
    assert!(init.status.success(), "{}", text(&init));
    let dev = Dev::start(&stack, &["--forward", &local.any()]);
    let url = dev.listen().await;
    stack.zentra(&["send", "stripe", "charge.succeeded", "--id", "evt_1", "--url", &url]);
    dev.prints(&["attempt 1", "failed: 500", "attempt 2", "delivered: 200"]).await;
    assert_eq!((local.seen().len(), elsewhere.seen().len()), (2, 0));
    // The configuration shows the same events.
    let shown = text(&stack.zentra(&["event", "show", "evt_1"]));
    assert!(shown.contains("status     delivered"), "{shown}");

    // A second one does not take the file away from the first.
    let second = stack.zentra(&["dev", "--listen", "127.0.0.1:0"]);
    assert!(text(&second).contains("another zentra dev uses"), "{}", text(&second));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_configuration_with_servers_needs_none_of_them() {
    let local = Ledger::start(&folder("ledger")).await.unwrap();
    let stack = Stack::new("amqp://nobody", "redis://nobody", "dev", "https://real.example/", "");
    let dev = Dev::start(&stack, &["--forward", &local.any()]);
    let url = dev.listen().await;
    let sent = stack.zentra(&["send", "github", "push", "--url", &url]);
    assert!(sent.status.success(), "{}", text(&sent));
    dev.prints(&["delivered: 200", "ledger/github/"]).await;
    assert_eq!(local.seen().len(), 1);
    let folder = stack.config.parent().unwrap();
    let listed = text(&own(folder).zentra(&["event", "list"]));
    assert!(listed.contains("delivered"), "{listed}");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_live_view_shows_replays_and_quits() {
    let refuses = Ledger::start(&folder("ledger")).await.unwrap();
    refuses.take_turns([Turn::Answer(422, Vec::new())]);
    // Where it forwards to, the state of the event, and what `r` does.
    for (no_color, forward, state, replayed) in [
        ("", String::new(), "delivered", "replayed"),
        ("1", "--forward http://127.0.0.1:1/".into(), "waiting", "attempted"),
        ("1", format!("--forward {}", refuses.any()), "dead", "requeued"),
    ] {
        let folder = folder("dev");
        let stack = in_folder(&folder);
        let output = folder.join("screen");
        let zentra = stack.command("zentra");
        let quoted = |text: &std::ffi::OsStr| format!("'{}'", text.to_str().unwrap());
        let arguments: Vec<String> =
            [zentra.get_program()].into_iter().chain(zentra.get_args()).map(quoted).collect();
        let command = format!(
            "stty rows 40 cols 140; exec {} dev --provider github --listen 127.0.0.1:0 {forward}",
            arguments.join(" ")
        );
        // A terminal of its own.
        let mut terminal = Command::new("script")
            .args(["-qefc", &command])
            .arg(&output)
            .env("TERM", "xterm-256color")
            .env("NO_COLOR", no_color)
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .spawn()
            .unwrap();
        // Without the first line, which has the command.
        let screen = || {
            let text = String::from_utf8_lossy(&fs::read(&output).unwrap_or_default()).into_owned();
            text.split_once('\n').map(|(_, shown)| shown.to_owned()).unwrap_or_default()
        };
        let shows = async |part: &str| {
            eventually(&format!("{part} is shown"), BOUND, async || {
                screen().contains(part).then_some(())
            })
            .await;
        };
        shows("/in/github").await;
        let text_now = screen();
        let url = text_now.split_once("http://").unwrap().1.split_once("/in/").unwrap().0;
        let url = format!("http://{url}");
        let sent = own(&folder).zentra(&["send", "github", "push", "--url", &url]);
        assert!(sent.status.success(), "{}", text(&sent));
        shows(state).await;
        let mut keys = terminal.stdin.take().unwrap();
        keys.write_all(b"\r").unwrap();
        shows("signature").await;
        keys.write_all(b"r").unwrap();
        shows(replayed).await;
        keys.write_all(b"q").unwrap();
        let ended = poll(BOUND, || terminal.try_wait().unwrap());
        assert!(ended.is_some_and(|status| status.success()), "{}", screen());
        let is_colored = screen().contains("\u{1b}[38;5;");
        assert_eq!(is_colored, no_color.is_empty(), "NO_COLOR={no_color}");
        assert!(folder.join(".zentra/dev.log").exists());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_closed_terminal_ends_it_and_a_second_start_changes_nothing() {
    let folder = folder("dev");
    let stack = in_folder(&folder);
    let dev = Dev::start(&stack, &["--provider", "stripe"]);
    dev.listen().await;
    let before = fs::read(folder.join(".zentra/dev.toml")).unwrap();
    let second = stack.zentra(&["dev", "--provider", "github", "--listen", "127.0.0.1:1"]);
    assert!(text(&second).contains("another zentra dev uses"), "{}", text(&second));
    assert_eq!(fs::read(folder.join(".zentra/dev.toml")).unwrap(), before);
    let hung_up = Command::new("kill").args(["-HUP", &dev.process.id().to_string()]).status();
    assert!(hung_up.unwrap().success());
    eventually("the folder is free", BOUND, async || {
        let lock = fs::File::open(folder.join(".zentra/dev.lock")).unwrap();
        lock.try_lock().ok()
    })
    .await;

    // An empty secret counts as none, and the environment overrides the configuration.
    let secrets = folder.join(".zentra/.env");
    let kept = fs::read(&secrets).unwrap();
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let mut command = stack.command("zentra");
    command.env("ZENTRA__INGRESS__LISTEN", &address);
    command.args(["dev", "--provider", "stripe", "--secret", ""]);
    let refused = text(&command.output().unwrap());
    assert!(refused.contains(&format!("cannot listen on {address}:")), "{refused}");
    assert_eq!(fs::read(&secrets).unwrap(), kept);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_wrong_is_said_with_what_to_do_and_nothing_is_left() {
    let taken_by = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let taken = taken_by.local_addr().unwrap().to_string();
    for (asked, says) in [
        (&["dev"][..], "Write one with zentra init"),
        (&["dev", "--provider", "strip"], "Is it stripe"),
        (&["dev", "--provider", "paypal"], "Give it with --secret"),
        (&["dev", "--provider", "stripe", "--provider", "stripe"], "stripe is named twice"),
        (&["dev", "--provider", "stripe", "--secret", "it's"], "zentra init"),
        (
            &["dev", "--provider", "stripe", "--provider", "github", "--secret", "a"],
            "--secret is for one provider",
        ),
        (&["dev", "--provider", "stripe", "--forward", "x"], "Give one like http://127.0.0.1"),
    ] {
        let folder = folder("dev");
        let refused = in_folder(&folder).zentra(asked);
        assert_eq!(refused.status.code(), Some(1), "{}", text(&refused));
        assert!(text(&refused).contains(says), "{asked:?}: {}", text(&refused));
        assert_eq!(files(&folder), Vec::<String>::new(), "{asked:?}");
    }
    let folder = folder("dev");
    let stack = in_folder(&folder);
    let refused = stack.zentra(&["dev", "--provider", "stripe", "--listen", &taken]);
    assert!(text(&refused).contains("choose another address with --listen"), "{}", text(&refused));
    drop(taken_by);
    fs::remove_dir_all(folder.join(".zentra")).unwrap();
    std::os::unix::fs::symlink("/tmp", folder.join(".zentra")).unwrap();
    let refused = stack.zentra(&["dev", "--provider", "stripe"]);
    assert!(text(&refused).contains("must be a folder"), "{}", text(&refused));
    assert!(!Path::new("/tmp/dev.toml").exists());
}
