//! The commands that the documentation shows work. Their placeholders stand for something that is there.
//! The tests in `documentation.rs` run the tutorial and the how-to pages as they are written.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use serde_json::Value;
use zentra_core::lifecycle::State;
use zentra_tests::ledger::{Turn, transfer};
use zentra_tests::services::poll;
use zentra_tests::world::{BOUND, World, dead};
use zentra_tests::{eventually, namespace, shared_rabbit, shared_redis, sign};

use crate::api::Api;
use crate::documentation::{Reader, blocks, pages, root};

const OLD_SECRET: &str = "whsec_b2xkLXNlY3JldC1vZi1hY21l";
/// How long a command may run, in seconds. Some of them end only with their reader.
const WHILE: &str = "10";
/// The exit status of `timeout`, if it ended the command.
const STOPPED: i32 = 124;

/// Pages that are run as they are written, apart from their `console` blocks: `documentation.rs`.
const AS_WRITTEN: [&str; 2] = ["docs/tutorial.md", "docs/how-to/"];
/// Pages whose commands are run one by one, each by a test below.
const ONE_BY_ONE: [&str; 8] = [
    "README.md",
    "docs/console.md",
    "docs/deploying.md",
    "docs/destinations.md",
    "docs/developing.md",
    "docs/operating.md",
    "docs/rehearsals.md",
    "docs/sources.md",
];
/// A command that is not run as it is shown: its page, how it begins, and why.
type Excuse = (&'static str, &'static str, &'static str);
const NOT_RUN: [Excuse; 34] = [
    ("README.md", "cargo run -- demo", "rehearse.rs runs `zentra demo`"),
    ("README.md", "make test", "it runs these tests"),
    ("README.md", "make bench", "it takes minutes; performance.md has its figures"),
    ("README.md", "zentra-ingress", "each test on RabbitMQ and Redis starts it"),
    ("README.md", "zentra-worker", "each test on RabbitMQ and Redis starts it"),
    ("README.md", "zentra reconcile", "it asks Stripe; reconcile.rs has an API of its own"),
    ("README.md", "zentra rehearse", "rehearse.rs plays all scenarios on both backends"),
    ("docs/notifications.md", "zentra notify test", "notify.rs tests each kind"),
    ("docs/notifications.md", "zentra incident list", "notify.rs lists incidents"),
    ("docs/notifications.md", "zentra incident acknowledge", "notify.rs acknowledges one"),
    ("docs/notifications.md", "zentra incident resolve", "notify.rs resolves one"),
    ("docs/rehearsals.md", "zentra rehearse #", "rehearse.rs plays all scenarios"),
    ("docs/rehearsals.md", "zentra rehearse --backend", "rehearse.rs plays all scenarios"),
    ("docs/rehearsals.md", "zentra rehearse --json", "rehearse.rs plays all scenarios"),
    ("docs/rehearsals.md", "zentra rehearse --config", "rehearse.rs has a running Zentra"),
    ("docs/tutorial.md", "apt install", "`make dist-check` runs it"),
    ("docs/deploying.md", "apt install", "`make dist-check` runs it"),
    (
        "docs/deploying.md",
        "zentra init stripe --system",
        "`make dist-check` runs it: it writes to /etc",
    ),
    ("docs/deploying.md", "bash deploy/compose/secrets.sh", "deploy.rs runs it"),
    ("docs/deploying.md", "docker compose", "it needs an engine; `make compose-test` runs it"),
    ("docs/deploying.md", "systemctl", "it needs systemd; `make dist-check` verifies the unit"),
    ("docs/deploying.md", "sudo", "`make dist-check` has the package's user"),
    ("docs/how-to/kubernetes.md", "helm", "it needs a cluster; check.sh renders the chart"),
    ("docs/how-to/kubernetes.md", "kubectl", "it needs a cluster"),
    ("docs/how-to/move-to-servers.md", "zentra migrate", "migrate.rs moves a file to servers"),
    ("docs/how-to/proxies.md", "", "it needs a proxy with TLS and a public name"),
    (
        "docs/how-to/recover-from-an-outage.md",
        "zentra reconcile",
        "reconcile.rs has an API of its own",
    ),
    ("docs/inbox.md", "(cd inbox/node", "inbox/install.sh packs and installs it"),
    ("docs/inbox.md", "pip install", "inbox/install.sh builds and installs it"),
    ("docs/how-to/upgrade.md", "dpkg-deb", "`make dist-check` extracts the package"),
    (
        "docs/how-to/upgrade.md",
        "new/usr/bin/zentra plan",
        "upgrade.rs runs it on servers and files",
    ),
    (
        "docs/how-to/upgrade.md",
        "new/usr/bin/zentra check",
        "`make dist-check` has the package's configuration",
    ),
    ("docs/how-to/upgrade.md", "apt install", "`make dist-check` upgrades"),
    ("docs/how-to/upgrade.md", "zentra doctor", "`make dist-check` upgrades"),
];

/// The lines of commands in a page's blocks of one of the kinds, with their comments.
fn lines(page: &str, kinds: &[&str]) -> Vec<String> {
    let text = fs::read_to_string(root().join(page)).unwrap();
    let wanted = blocks(&text).into_iter().filter(|(info, _)| kinds.contains(&&**info));
    let text: String = wanted.map(|(_, text)| text).collect();
    let lines = text.lines().map(|line| {
        line.trim().trim_start_matches("$ ").split_whitespace().collect::<Vec<_>>().join(" ")
    });
    lines.filter(|line| !line.is_empty()).collect()
}

fn excuses_of(page: &str, line: &str) -> impl Iterator<Item = &'static Excuse> {
    NOT_RUN.iter().filter(move |(at, start, _)| *at == page && line.starts_with(start))
}

/// The commands of a page that are run one by one, without their comments.
fn commands(page: &str) -> Vec<String> {
    assert!(ONE_BY_ONE.contains(&page));
    let shown = lines(page, &["sh", "console"])
        .into_iter()
        .filter(|line| excuses_of(page, line).next().is_none());
    shown.map(|line| line.split(" #").next().unwrap_or_default().to_owned()).collect()
}

#[test]
fn each_command_that_a_page_shows_is_run_or_says_why_not() {
    let (mut left, mut excuses) = (Vec::new(), BTreeSet::<&Excuse>::new());
    for path in pages() {
        let page = path.strip_prefix(root()).unwrap().to_str().unwrap();
        let kinds: &[&str] = match AS_WRITTEN.iter().any(|start| page.starts_with(start)) {
            true => &["console"],
            false => &["sh", "console"],
        };
        for line in lines(page, kinds) {
            let found: Vec<_> = excuses_of(page, &line).collect();
            if found.is_empty() && !ONE_BY_ONE.contains(&page) {
                left.push(format!("{page}: {line}"));
            }
            excuses.extend(found);
        }
    }
    assert_eq!(left, Vec::<String>::new());
    assert_eq!(excuses.len(), NOT_RUN.len(), "commands that no page shows: {excuses:?}");
}

/// Runs a command in the reader's folder, and returns what it prints.
fn done(reader: &Reader, line: &str) -> String {
    let (is_ok, printed) = reader.run(line);
    assert!(is_ok, "{line}: {printed}");
    printed
}

/// Runs a command that ends only with its reader.
fn stopped(reader: &Reader, line: &str) -> String {
    done(reader, &format!("timeout {WHILE} {line} || test $? -eq {STOPPED}"))
}

/// The word of an output that comes after another one.
fn after<'a>(printed: &'a str, word: &str) -> &'a str {
    let mut words = printed.split_whitespace().skip_while(|at| *at != word).skip(1);
    words
        .next()
        .unwrap_or_else(|| panic!("{word} is not in {printed}"))
        .trim_end_matches([',', ':'])
}

#[test]
fn each_command_of_the_readme_works() {
    let mut reader = Reader::new();
    reader.start("python3 -m http.server 3000");
    let mut id = String::new();
    for line in commands("README.md") {
        let line = line.replace("evt_…", &id).replace("show ID", &format!("show {id}"));
        let line = line.replace("--reason exhausted", "--reason ended");
        match line.split_whitespace().nth(1).unwrap() {
            "dev" => reader.start(&line),
            "tail" | "serve" => drop(stopped(&reader, &line)),
            "send" => id = after(&done(&reader, &line), "show").to_owned(),
            "job" => {
                let end = format!("zentra event end {id} --because test");
                assert!(poll(BOUND, || reader.run(&end).0.then_some(())).is_some());
                done(&reader, &line);
            }
            _ => drop(done(&reader, &line)),
        }
    }
    assert!(done(&reader, "zentra audit").contains("job plan"));
}

#[test]
fn each_command_of_the_page_about_developing_works() {
    let mut reader = Reader::new();
    done(&reader, "zentra init stripe");
    let mut token = String::new();
    for line in commands("docs/developing.md") {
        let line = line.replace("whsec_…", OLD_SECRET);
        let line = line.replace("https://zentra.example", "http://127.0.0.1:9470");
        match line.split_whitespace().nth(1).unwrap() {
            "dev" => {
                reader.background.clear();
                reader.start(&line);
                // The console of this one.
                let link = done(&reader, "zentra console open --config .zentra/dev.toml");
                assert!(link.contains("http://127.0.0.1:9471/#code="), "{link}");
            }
            "serve" => {
                done(&reader, "zentra send stripe charge.succeeded --id evt_before");
                reader.start(&line);
            }
            "token" => token = done(&reader, &format!("{line} 2> /dev/null")).trim().to_owned(),
            "listen" => {
                let printed = stopped(&reader, &format!("env ZENTRA_TOKEN={token} {line}"));
                assert_eq!(printed.contains("evt_before"), line.contains("--since"), "{printed}");
            }
            _ => panic!("{line} is not run"),
        }
    }
}

#[test]
fn each_command_of_the_page_about_rehearsals_works() {
    let page = fs::read_to_string(root().join("docs/rehearsals.md")).unwrap();
    let (_, scenario) = blocks(&page).into_iter().find(|(info, _)| info == "toml").unwrap();
    let reader = Reader::new();
    fs::write(reader.folder.join("mine.toml"), scenario).unwrap();
    let commands = commands("docs/rehearsals.md");
    assert_eq!(commands.len(), 1, "{commands:?}");
    assert!(done(&reader, &commands[0]).contains("mine"));
}

#[test]
fn the_page_about_deploying_has_no_command_that_could_run_here() {
    assert_eq!(commands("docs/deploying.md"), Vec::<String>::new());
}

#[test]
fn each_command_of_the_page_about_sources_works() {
    let mut reader = Reader::new();
    done(&reader, "zentra init github");
    let commands = commands("docs/sources.md");
    let [add, send, sign, verify, check] = &commands[..] else { panic!("{commands:?}") };
    done(&reader, add);
    reader.start("zentra dev");
    done(&reader, send);
    let event = r#"{"id": "evt_1", "type": "charge.succeeded"}"#;
    fs::write(reader.folder.join("event.json"), event).unwrap();
    let request = done(&reader, sign);
    assert!(done(&reader, &request).contains(r#"{"accepted":true}"#));
    let capture = sign.split(" --curl").next().unwrap();
    done(&reader, &format!("{capture} > headers.txt; cp event.json body.json"));
    assert!(done(&reader, verify).contains("evt_1"));
    done(&reader, check);
}

/// A world with something for each command: dead letters, waiting events, and a refused callback.
async fn eventful() -> World {
    let retry = "attempts = 2, initial = \"200ms\", max = \"200ms\"";
    let world = World::start(&shared_rabbit(), &shared_redis(), &namespace(), retry).await.unwrap();
    let later = || Turn::Answer(503, vec![("retry-after", "3600".into())]);
    world.ledger.take_turns([later(), later()]);
    let _worker = world.stack.worker().await;
    for id in ["wait_1", "wait_2"] {
        world.send(id, &transfer(id, id, 1)).await;
        world.until(id, |delivery| delivery.record.state == State::Waiting).await;
    }
    for id in ["dead_1", "dead_2", "dead_3"] {
        world.ledger.take_turns([Turn::Answer(500, Vec::new()), Turn::Answer(500, Vec::new())]);
        world.send(id, &transfer(id, id, 1)).await;
        world.until(id, dead).await;
    }
    let (body, now) = (transfer("evt_1", "trf_1", 1), sign::now());
    let mut headers = sign::acme("evt_1", now, body.as_bytes());
    headers.retain(|(name, _)| *name != "webhook-signature");
    let signature = sign::standard(OLD_SECRET, "evt_1", now, body.as_bytes());
    headers.push(("webhook-signature", signature));
    assert_eq!(world.post(&headers, &body).await.unwrap().reason(), "signature_mismatch");
    eventually("the refused callback is kept", Duration::from_secs(20), async || {
        let kept = ["zentra_ingress_refused_kept_total", "acme"];
        (world.ingress.metric(&world.stack.http, &kept).await > 0.0).then_some(())
    })
    .await;
    // The secret is corrected.
    world.stack.replace(
        "[source.acme]\nprovider = \"standard-webhooks\"\nsecrets = [",
        "[source.acme]\nprovider = \"standard-webhooks\"\nsecrets = [{ name = \"old\", secret = \"env:OLD\" }, ",
    );
    world
}

/// The command, ended after a while if it does not end.
fn bounded(command: &Command) -> Command {
    let mut bounded = Command::new("timeout");
    bounded.arg(WHILE).arg(command.get_program()).args(command.get_args());
    bounded.envs(command.get_envs().filter_map(|(name, value)| Some((name, value?))));
    bounded
}

/// Runs a line in a shell where `zentra` is the world's.
fn shell(world: &World, line: &str) -> String {
    let zentra = world.stack.command("zentra");
    let programs = Path::new(zentra.get_program()).parent().unwrap().display().to_string();
    let path = format!("{programs}:{}", std::env::var("PATH").unwrap_or_default());
    let mut shell = Command::new("sh");
    shell
        .args(["-euc", line])
        .env("PATH", path)
        .env("ZENTRA_CONFIG", zentra.get_args().nth(1).unwrap());
    shell.envs(zentra.get_envs().filter_map(|(name, value)| Some((name, value?))));
    let output = shell.output().unwrap();
    assert!(output.status.success(), "{line}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

/// What a placeholder of a command stands for.
fn meant<'a>(words: &[&'a str], refused: &'a str, job: &'a str) -> Vec<&'a str> {
    let id = match words[..2] {
        ["refused", _] => refused,
        ["job", _] => job,
        ["event", "release"] => "wait_1",
        ["event", "end"] => "wait_2",
        ["dead", "drain"] => "dead_2",
        _ => "dead_1",
    };
    let meant = words.iter().map(|word| match word.trim_end_matches('…') {
        "ID" => id,
        "NAME" => "ledger",
        "TEXT" => "trf_1",
        word => word,
    });
    meant.collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn each_command_of_the_pages_for_operators_works() {
    let world = eventful().await;
    let _worker = world.stack.worker().await;
    let run = |words: &[&str]| {
        let mut command = world.stack.command("zentra");
        let output = bounded(command.env("OLD", OLD_SECRET).args(words)).output().unwrap();
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        (output.status.code(), text(&output.stdout), text(&output.stderr))
    };
    let (_, listed, _) = run(&["refused", "list", "--json"]);
    let listed: Value = serde_json::from_str(&listed).unwrap();
    let refused = listed["items"][0]["id"].as_str().unwrap();
    let mut job = String::new();
    let api = Api::start(&world.stack).await;
    let pages = ["docs/operating.md", "docs/destinations.md", "docs/console.md"];
    let lines: Vec<String> = pages.into_iter().flat_map(commands).collect();
    assert!(lines.len() > 30, "{lines:?}");
    for line in lines {
        if line.starts_with("curl ") {
            let host = api.at.trim_start_matches("http://");
            let printed = shell(&world, &line.replace("localhost:9470", host));
            assert!(printed.contains("\"sources\""), "{printed}");
            continue;
        }
        let words: Vec<&str> = line.split_whitespace().skip(1).chain([""]).collect();
        let words = meant(&words, refused, &job);
        let words = &words[..words.len() - 1];
        let (code, printed, errors) = run(words);
        let fits = match words[0] {
            // A server of the tests may have a problem.
            "doctor" => matches!(code, Some(0 | 1)),
            "tail" => code == Some(STOPPED),
            _ => code == Some(0),
        };
        assert!(fits, "{words:?}: {code:?}: {printed}{errors}");
        if words.starts_with(&["job", "plan"]) {
            let id = printed.split_whitespace().nth(1).unwrap_or_default();
            job = id.trim_end_matches(',').to_owned();
        }
    }
}
