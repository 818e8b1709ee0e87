//! The set of `docker-compose.yml`: its definition, and the same set from Debian's packages (`deploy/local`).

use std::collections::BTreeSet;
use std::fs;
use std::net::{Ipv4Addr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use serde_json::Value;
use zentra_tests::http::Http;
use zentra_tests::ledger::transfer;
use zentra_tests::services::folder;
use zentra_tests::world::BOUND;
use zentra_tests::{eventually, sign};

const REPOSITORY: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/..");
/// Number of ports of a set.
const PORTS: u16 = 40;
/// Events that are sent while everything is restarted, at least.
const EVENTS: usize = 200;
/// One event in this time: the demo application syncs its database for each.
const PAUSE: Duration = Duration::from_millis(20);

fn succeeds(command: &mut Command) -> String {
    let Output { status, stdout, stderr } = command.output().unwrap();
    let text = String::from_utf8(stdout).unwrap();
    assert!(status.success(), "{command:?}\n{text}{}", String::from_utf8_lossy(&stderr));
    text
}

/// A file of YAML, as JSON.
fn json_of(yaml: &str) -> Value {
    let path = folder("yaml").join("file.yml");
    fs::write(&path, yaml).unwrap();
    let read = "import json, sys, yaml; json.dump(yaml.safe_load(open(sys.argv[1])), sys.stdout)";
    let text = succeeds(Command::new("/usr/bin/python3").args(["-c", read]).arg(path));
    serde_json::from_str(&text).unwrap()
}

#[test]
fn compose_is_valid_its_images_are_pinned_and_each_program_has_the_secrets_that_it_reads() {
    let mut config = Command::new("docker-compose");
    let set = json_of(&succeeds(config.arg("config").current_dir(REPOSITORY)));
    let services = set["services"].as_object().unwrap();
    for (name, service) in services {
        let image = service["image"].as_str().unwrap();
        let (_, tag) = image.rsplit_once(':').unwrap();
        let is_exact = tag.trim_start_matches('v').split(['.', '-']).take(3).all(is_number);
        assert!(is_exact || image == "zentra:local", "{name}: {image}");
        for (variable, value) in service["environment"].as_object().into_iter().flatten() {
            let is_secret = ["PASSWORD", "SECRET", "TOKEN"].iter().any(|it| variable.contains(it));
            let is_file = value.as_str().is_some_and(|value| value.starts_with("/run/secrets/"));
            assert!(!is_secret || is_file, "{name}: {variable}");
        }
    }

    // Each secret is made, and given to each program that reads it.
    let made = folder("compose-secrets");
    succeeds(Command::new("bash").arg(in_repository("deploy/compose/secrets.sh")).arg(&made));
    let defined: BTreeSet<&str> = keys(&set["secrets"]).collect();
    for name in &defined {
        assert!(!fs::read_to_string(made.join(name)).unwrap().trim().is_empty(), "{name}");
    }
    let of = |service: &str| -> BTreeSet<&str> {
        let given = services[service]["secrets"].as_array().unwrap();
        given.iter().map(|one| one.as_str().or(one["source"].as_str()).unwrap()).collect()
    };
    let queue = ["rabbitmq_url", "seal"];
    for (service, more) in [
        ("ingress", &["acme"][..]),
        ("worker", &["ledger_signing", "redis_url"]),
        ("serve", &["acme", "ledger_signing", "redis_url"]),
        ("token", &["redis_url"]),
    ] {
        let reads: BTreeSet<&str> = queue.iter().chain(more).copied().collect();
        assert_eq!(of(service), reads, "{service}");
    }
    let text = fs::read_to_string(in_repository("deploy/compose/zentra.toml")).unwrap();
    let mut read = text.split("file:/run/secrets/").skip(1);
    assert!(read.all(|rest| of("serve").contains(rest.split('"').next().unwrap())), "{text}");
}

fn is_number(part: &str) -> bool {
    !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_digit())
}

fn keys(object: &Value) -> impl Iterator<Item = &str> {
    object.as_object().unwrap().keys().map(String::as_str)
}

fn in_repository(path: &str) -> PathBuf {
    Path::new(REPOSITORY).join(path)
}

#[test]
fn the_configurations_of_the_other_programs_are_valid() {
    let amtool = &mut Command::new("amtool");
    succeeds(amtool.arg("check-config").arg(in_repository("deploy/compose/alertmanager.yml")));
    let haproxy = &mut Command::new("/usr/sbin/haproxy");
    succeeds(haproxy.args(["-c", "-f"]).arg(in_repository("deploy/compose/haproxy.cfg")));
    // Prometheus looks for the file of the token.
    let place = folder("prometheus");
    let prometheus = fs::read_to_string(in_repository("deploy/prometheus/prometheus.yml")).unwrap();
    let token = place.join("token");
    fs::write(&token, "token").unwrap();
    let text = prometheus.replace("/etc/zentra-token/prometheus", token.to_str().unwrap());
    fs::write(place.join("prometheus.yml"), text).unwrap();
    fs::copy(in_repository("deploy/prometheus/rules.yml"), place.join("rules.yml")).unwrap();
    let promtool = &mut Command::new("promtool");
    succeeds(promtool.args(["check", "config"]).arg(place.join("prometheus.yml")));
}

/// The set of `deploy/local`. It ends with this.
struct Local {
    folder: PathBuf,
    base: u16,
    http: Http,
}

impl Local {
    fn new() -> Self {
        let local = Self { folder: folder("local"), base: free_ports(), http: Http::default() };
        // Callbacks are signed by this secret. What exists stays.
        let secrets = local.folder.join("secrets");
        fs::create_dir(&secrets).unwrap();
        fs::write(secrets.join("acme"), sign::ACME_SECRET).unwrap();
        local
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let programs = std::env::current_exe().unwrap();
        let mut command = Command::new("bash");
        command
            .arg(in_repository("deploy/local/local.sh"))
            .args(arguments)
            .env("ZENTRA_LOCAL_DIR", &self.folder)
            .env("ZENTRA_LOCAL_PORT", self.base.to_string())
            .env("ZENTRA_BIN", programs.parent().unwrap().parent().unwrap())
            .env("LEDGER_FAILS", "1");
        command
    }

    fn run(&self, arguments: &[&str]) -> String {
        succeeds(&mut self.command(arguments))
    }

    async fn get(&self, port: u16, path: &str) -> Value {
        let url = format!("http://127.0.0.1:{}{path}", self.base + port);
        let answer = self.http.get(&url).await;
        answer.and_then(|answer| serde_json::from_str(&answer.body).ok()).unwrap_or_default()
    }

    /// The idempotency keys that the ledger has written.
    async fn keys(&self) -> Vec<String> {
        let rows = self.get(2, "/").await;
        let key = |row: &Value| row["idempotency_key"].as_str().unwrap().to_owned();
        rows.as_array().map(|rows| rows.iter().map(key).collect()).unwrap_or_default()
    }

    /// Sends as a provider does: until it gets a 2xx.
    async fn send(&self, id: &str) {
        let body = transfer(id, id, 1);
        let headers = sign::acme(id, sign::now(), body.as_bytes());
        let url = format!("http://127.0.0.1:{}/in/acme", self.base);
        eventually("it is accepted", BOUND, async || {
            let answer = self.http.post(&url, &headers, body.clone()).await?;
            answer.status.is_success().then_some(())
        })
        .await;
    }
}

impl Drop for Local {
    fn drop(&mut self) {
        for file in fs::read_dir(self.folder.join("run")).into_iter().flatten().flatten() {
            let text = fs::read_to_string(file.path()).unwrap_or_default();
            let pid = text.split(' ').next().unwrap_or_default();
            let _ = Command::new("kill").args(["-KILL", "--", &format!("-{pid}")]).status();
        }
    }
}

/// The entries of this kind in a delivery's history.
fn count(delivery: &Value, what: &str) -> usize {
    let history = delivery["history"].as_array().unwrap();
    history.iter().filter(|entry| entry["what"] == what).count()
}

/// The first of several free ports, below those that other tests reserve.
fn free_ports() -> u16 {
    let is_free = |port: u16| TcpListener::bind((Ipv4Addr::LOCALHOST, port)).is_ok();
    let start = 10_000 + u16::try_from(std::process::id() % 100).unwrap() * PORTS;
    let mut bases = (start..20_000 - PORTS).step_by(usize::from(PORTS));
    bases.find(|base| (*base..base + PORTS).all(is_free)).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn the_set_of_debian_packages_keeps_each_event_while_everything_is_restarted() {
    let local = Local::new();
    local.run(&["up"]);

    // The picture: three callbacks, a failed attempt in between, one result.
    for _ in 0..3 {
        local.send("trf_8172").await;
    }
    let delivery =
        eventually("it is delivered, with its copies", Duration::from_secs(60), async || {
            let shown = local.command(&["zentra", "event", "show", "trf_8172", "--json"]).output();
            let shown: Value = serde_json::from_slice(&shown.unwrap().stdout).ok()?;
            let delivery = shown["deliveries"][0].clone();
            let copies = count(&delivery, "stale") + count(&delivery, "duplicate");
            let is_done = delivery["record"]["state"] == "delivered" && copies == 2;
            is_done.then_some(delivery)
        })
        .await;
    assert_eq!((count(&delivery, "failed"), count(&delivery, "delivered")), (1, 1), "{delivery}");
    assert_eq!(local.keys().await, ["ledger/acme/trf_8172"]);

    // Each worker is scraped, and alerts have a place to go.
    local.run(&["scale", "worker=5"]);
    eventually("all are scraped", BOUND, async || {
        let targets = local.get(3, "/api/v1/targets").await["data"]["activeTargets"].clone();
        let targets = targets.as_array()?;
        let is_up = |target: &&Value| target["health"] == "up";
        let workers = targets.iter().filter(|it| it["labels"]["job"] == "zentra-worker").count();
        (workers == 5 && targets.iter().all(|it| is_up(&it)) && targets.len() == 9).then_some(())
    })
    .await;
    let alertmanagers = local.get(3, "/api/v1/alertmanagers").await;
    let active = alertmanagers["data"]["activeAlertmanagers"].as_array().unwrap();
    assert_eq!(active.len(), 1, "{alertmanagers}");

    // A rolling restart of everything under load.
    let (local, is_over) = (Arc::new(local), Arc::new(AtomicBool::new(false)));
    let sent = Arc::new(AtomicUsize::new(0));
    let sending = tokio::spawn({
        let (local, is_over, sent) = (local.clone(), is_over.clone(), sent.clone());
        async move {
            let mut tick = tokio::time::interval(PAUSE);
            while !is_over.load(Ordering::Relaxed) || sent.load(Ordering::Relaxed) < EVENTS {
                local.send(&format!("evt_{}", sent.load(Ordering::Relaxed))).await;
                sent.fetch_add(1, Ordering::Relaxed);
                tick.tick().await;
            }
        }
    });
    for name in [
        "ingress-1",
        "ingress-2",
        "worker-1",
        "worker-2",
        "worker-3",
        "worker-4",
        "worker-5",
        "serve",
        "load-balancer",
        "ledger",
        "redis",
        "rabbitmq",
    ] {
        let local = local.clone();
        tokio::task::spawn_blocking(move || local.run(&["restart", name])).await.unwrap();
    }
    is_over.store(true, Ordering::Relaxed);
    sending.await.unwrap();
    let sent = sent.load(Ordering::Relaxed);
    let keys = eventually("each is delivered", BOUND, async || {
        let keys = local.keys().await;
        (keys.len() > sent).then_some(keys)
    })
    .await;
    let keys: BTreeSet<&str> = keys.iter().map(String::as_str).collect();
    assert_eq!(keys.len(), sent + 1, "each once");
    let dead = local.run(&["zentra", "dead", "list"]);
    assert!(dead.contains("no dead letters"), "{dead}");

    local.run(&["down"]);
    assert_eq!(fs::read_dir(local.folder.join("run")).unwrap().count(), 0);
}
