//! Real faults raise their alerts in a real Prometheus, and no others. The rules are those of `deploy/prometheus`,
//! with a second for each of their minutes.

use std::collections::BTreeSet;
use std::fs;
use std::future::Future;
use std::process::Command;
use std::time::Duration;

use serde_json::Value;
use zentra_tests::ledger::{Turn, transfer};
use zentra_tests::services::{self, Guarded, folder, free_port};
use zentra_tests::stack::Stack;
use zentra_tests::world::{BOUND, World};
use zentra_tests::{eventually, namespace, sign};

use crate::documentation::root;
use crate::reload::reload;
use crate::worker::redis_is_told;

/// Time between two looks at the alerts, and two callbacks of a fault.
const PACE: Duration = Duration::from_millis(250);
/// Maximum number of looks until a fault's alerts fire.
const ROUNDS: usize = 480;

/// A Prometheus that scrapes each second.
struct Prometheus {
    at: String,
    _process: Guarded,
}

impl Prometheus {
    /// `targets` are jobs with their `host:port`; `serve` is scraped with a token.
    fn start(targets: &[(&str, &str)], serve: &str, token: &str) -> Self {
        let (folder, at) = (folder("prometheus"), format!("127.0.0.1:{}", free_port()));
        let rules = fs::read_to_string(root().join("deploy/prometheus/rules.yml")).unwrap();
        fs::write(folder.join("rules.yml"), faster(rules)).unwrap();
        let mut config = String::from(
            "global: { scrape_interval: 1s, scrape_timeout: 1s, evaluation_interval: 1s }\n\
             rule_files: [rules.yml]\nscrape_configs:\n",
        );
        for (job, target) in targets {
            config += &format!(
                "  - job_name: {job}\n    static_configs: [{{ targets: [\"{target}\"] }}]\n"
            );
        }
        config += &format!(
            "  - job_name: zentra-serve\n    metrics_path: /v1/metrics\n    \
             scrape_interval: 8s\n    scrape_timeout: 8s\n    \
             authorization: {{ credentials: \"{token}\" }}\n    \
             static_configs: [{{ targets: [\"{serve}\"] }}]\n"
        );
        fs::write(folder.join("prometheus.yml"), config).unwrap();
        let mut command = Command::new("prometheus");
        command.arg(format!("--config.file={}", folder.join("prometheus.yml").display()));
        command.arg(format!("--storage.tsdb.path={}", folder.join("data").display()));
        command.arg(format!("--web.listen-address={at}")).arg("--log.level=warn");
        Self { at: format!("http://{at}"), _process: services::start(command) }
    }

    /// The names of the alerts that fire. `None` while it does not answer.
    async fn firing(&self, stack: &Stack) -> Option<BTreeSet<String>> {
        let answer = stack.http.get(&format!("{}/api/v1/alerts", self.at)).await?;
        let answer: Value = serde_json::from_str(&answer.body).ok()?;
        let alerts = answer["data"]["alerts"].as_array()?;
        let firing = alerts.iter().filter(|alert| alert["state"] == "firing");
        Some(
            firing.map(|alert| alert["labels"]["alertname"].as_str().unwrap().to_owned()).collect(),
        )
    }
}

/// Minutes become seconds, and hours twenty of them.
fn faster(mut rules: String) -> String {
    for minutes in 1..60 {
        for (before, after) in [("[", "]"), ("for: ", "\n")] {
            let [from, to] = ["m", "s"].map(|unit| format!("{before}{minutes}{unit}{after}"));
            rules = rules.replace(&from, &to);
        }
    }
    let rules = rules.replace("[1h]", "[20s]").replace("for: 1h\n", "for: 20s\n");
    // zentra serve reads deliveries once a minute, and queues at once. On a busy machine, an ingress that was started
    // again binds the archive late.
    let rules = slower(&rules, "ZentraUnlistedLetters", "15s", "90s");
    slower(&rules, "ZentraArchiveDown", "5s", "30s")
}

/// Lets an alert wait for longer.
fn slower(rules: &str, alert: &str, from: &str, to: &str) -> String {
    let (before, rest) = rules.split_once(&format!("- alert: {alert}\n")).unwrap();
    let wait = format!("for: {from}\n");
    assert!(rest.split("- alert: ").next().unwrap().contains(&wait), "{alert}");
    format!("{before}- alert: {alert}\n{}", rest.replacen(&wait, &format!("for: {to}\n"), 1))
}

/// A running Zentra, and who watches it.
struct Site<'a> {
    world: &'a World,
    prometheus: Prometheus,
}

impl Site<'_> {
    /// Waits until the alerts fire, while `what` goes on. Only `may` can fire besides.
    async fn fires(&self, must: &[&str], may: &[&str], what: impl AsyncFn(usize)) {
        let (mut seen, mut pace) = (BTreeSet::new(), tokio::time::interval(PACE));
        for round in 0.. {
            assert!(round < ROUNDS, "of {must:?} only {seen:?} fired");
            pace.tick().await;
            what(round).await;
            self.allows(must, may, &mut seen).await;
            if must.iter().all(|name| seen.contains(*name)) {
                return;
            }
        }
    }

    /// Waits until no alert fires.
    async fn is_quiet(&self, after: &[&str], may: &[&str]) {
        eventually(&format!("{after:?} end"), BOUND, async || {
            let now = self.allows(after, may, &mut BTreeSet::new()).await?;
            now.is_empty().then_some(())
        })
        .await;
    }

    async fn allows(
        &self,
        must: &[&str],
        may: &[&str],
        seen: &mut BTreeSet<String>,
    ) -> Option<BTreeSet<String>> {
        let now = self.prometheus.firing(&self.world.stack).await?;
        let known = |name: &&String| must.contains(&name.as_str()) || may.contains(&name.as_str());
        let others: Vec<_> = now.iter().filter(|name| !known(name)).collect();
        assert!(others.is_empty(), "{others:?} fire at the fault of {must:?}");
        seen.extend(now.iter().cloned());
        Some(now)
    }

    /// A fault, and its end.
    async fn fault(
        &self,
        must: &[&str],
        may: &[&str],
        what: impl AsyncFn(usize),
        end: impl Future<Output = ()>,
    ) {
        self.fires(must, may, what).await;
        end.await;
        self.is_quiet(must, may).await;
    }

    async fn send(&self, id: &str) {
        self.world.send(id, &transfer(id, id, 1)).await;
    }
}

async fn nothing(_: usize) {}

#[tokio::test(flavor = "multi_thread")]
async fn real_faults_raise_their_alerts_and_no_others() {
    let (mut rabbit, mut redis) = (services::rabbit(), services::redis());
    let redis_url = redis.url();
    let retry = "attempts = 100, initial = \"500ms\", max = \"500ms\"";
    let world = World::start(&rabbit.url(), &redis_url, &namespace(), retry).await.unwrap();
    let stack = &world.stack;
    let circuit = "circuit = { failures = 5, first_pause = \"500ms\", pause = \"500ms\" }";
    stack.replace("timeout = \"1s\"\n", &format!("timeout = \"1s\"\n{circuit}\n"));
    stack.replace(", \"github.#\"]", "]");
    let mut worker = stack.worker().await;
    let ingress_reload = async |outcome| reload(&stack.http, &world.ingress, outcome).await;
    ingress_reload("ok").await;

    let serve_at = format!("127.0.0.1:{}", free_port());
    let mut serve = stack.command("zentra");
    serve.args(["serve", "--listen", &serve_at]);
    let _serve = services::start(serve);
    let made = stack.zentra(&["token", "create", "prometheus"]);
    let token = String::from_utf8(made.stdout).unwrap();
    let host = |url: &str| url.trim_start_matches("http://").to_owned();
    let targets =
        [("zentra-ingress", host(&world.ingress.admin)), ("zentra-worker", host(&worker.admin))];
    let targets = targets.each_ref().map(|(job, at)| (*job, at.as_str()));
    let prometheus = Prometheus::start(&targets, &serve_at, token.trim());
    let site = Site { world: &world, prometheus };
    let tell = async |command: &[&str]| redis_is_told(&redis_url, command).await;

    // Nothing is wrong: events are delivered, and copies are.
    for at in 0..8 {
        site.send(&format!("evt_{at}")).await;
        site.send(&format!("evt_{at}")).await;
    }
    eventually("Prometheus has seen each program", BOUND, async || {
        let up =
            stack.http.get(&format!("{}/api/v1/query?query=sum(up)", site.prometheus.at)).await?;
        up.body.contains("\"3\"").then_some(())
    })
    .await;
    site.is_quiet(&[], &[]).await;

    // Forged callbacks, and late ones.
    let forged = async |round| {
        let mut headers = sign::acme("evt_forged", sign::now(), b"{}");
        headers.retain(|(name, _)| *name != "webhook-signature");
        headers.push(("webhook-signature", "v1,AAAA".into()));
        assert_eq!(world.post(&headers, "{}").await.unwrap().status, 401, "{round}");
    };
    site.fault(&["ZentraRefusalsRising"], &[], forged, async {}).await;
    let late = async |round| {
        let (id, body) = (format!("evt_late_{round}"), transfer("evt", "trf", 1));
        let headers = sign::acme(&id, sign::now() - 100, body.as_bytes());
        assert_eq!(world.post(&headers, &body).await.unwrap().status, 200);
    };
    site.fault(&["ZentraProviderDelayed"], &[], late, async {}).await;

    // An application that fails, and one that gives up.
    let fails = async |round| {
        world.ledger.take_turns((0..20).map(|_| Turn::Answer(500, Vec::new())));
        if round < 8 {
            site.send(&format!("evt_fails_{round}")).await;
        }
    };
    let recovers = async { world.ledger.forget_turns() };
    site.fault(&["ZentraCircuitOpen", "ZentraRetryStorm"], &[], fails, recovers).await;
    let rejects = async |round| {
        world.ledger.take_turns([Turn::Answer(422, Vec::new())]);
        site.send(&format!("evt_rejects_{round}")).await;
    };
    let recovers = async { world.ledger.forget_turns() };
    site.fault(&["ZentraDeadLettersGrowing"], &[], rejects, recovers).await;

    // Other bodies under known ids.
    let other = async |round: usize| {
        if round < 8 {
            let id = format!("evt_{round}");
            world.send(&id, &transfer(&id, "trf_other", 2)).await;
        }
    };
    site.fault(&["ZentraConflicts"], &[], other, async {}).await;

    // A type that no destination takes.
    let unrouted = async |round| {
        if round == 0 {
            let headers = sign::github("d-1", "push", b"{}");
            let url = format!("{}/in/github", world.ingress.listen);
            assert_eq!(stack.http.post(&url, &headers, "{}").await.unwrap().status, 200);
        }
    };
    let subscribed = async {
        stack.replace("\"stripe-eu.#\"]", "\"stripe-eu.#\", \"github.#\"]");
        reload(&stack.http, &worker, "ok").await;
        ingress_reload("ok").await;
        let routed = stack.zentra(&["unrouted", "requeue", "--because", "it is subscribed"]);
        assert!(routed.status.success(), "{routed:?}");
    };
    site.fault(&["ZentraUnroutedEvents"], &[], unrouted, subscribed).await;

    // A configuration with an error, and a destination that an operator paused.
    stack.add("colour = 1");
    ingress_reload("refused").await;
    let mended = async {
        stack.replace("colour = 1", "");
        ingress_reload("ok").await;
    };
    site.fault(&["ZentraConfigurationRefused"], &[], nothing, mended).await;
    let pause = |what| stack.zentra(&["destination", what, "ledger", "--because", "a test"]);
    assert!(pause("pause").status.success());
    let resumed = async { assert!(pause("resume").status.success()) };
    site.fault(&["ZentraDestinationPaused"], &[], nothing, resumed).await;

    // Redis: a replica, nearly full, evicting, gone.
    tell(&["REPLICAOF", "127.0.0.1", "9"]).await;
    let primary = tell(&["REPLICAOF", "NO", "ONE"]);
    site.fault(&["ZentraStoreNotWritable"], &[], nothing, primary).await;
    let mib = "x".repeat(1 << 20);
    for at in 0..16 {
        tell(&["SET", &format!("other:{at}"), &mib, "EX", "900"]).await;
    }
    let info = redis.tell("INFO memory").unwrap();
    let used = info.lines().find_map(|line| line.strip_prefix("used_memory:")).unwrap();
    let most = used.trim().parse::<u64>().unwrap() / 10 * 11;
    tell(&["CONFIG", "SET", "maxmemory", &most.to_string()]).await;
    site.fires(&["ZentraStoreNearlyFull"], &[], nothing).await;
    // Keys of another application, which expire first: none of Zentra's own is evicted.
    tell(&["CONFIG", "SET", "maxmemory-policy", "volatile-ttl"]).await;
    let fill = async |round| tell(&["SET", &format!("more:{round}"), &mib, "EX", "900"]).await;
    let evicts = ["ZentraStoreNearlyFull", "ZentraStoreEvicting"];
    site.fires(&evicts, &[], fill).await;
    tell(&["CONFIG", "SET", "maxmemory", "0"]).await;
    tell(&["CONFIG", "SET", "maxmemory-policy", "noeviction"]).await;
    site.is_quiet(&evicts, &[]).await;
    redis.kill();
    let again = async { redis.restart().unwrap() };
    // zentra serve knows no token without Redis.
    site.fault(&["ZentraStoreDown", "ZentraTargetDown"], &[], nothing, again).await;

    // RabbitMQ is gone, and then all workers are.
    rabbit.kill();
    let refused = async |round| {
        let (id, body) = (format!("evt_away_{round}"), transfer("evt", "trf", 1));
        let answer = world.post(&sign::acme(&id, sign::now(), body.as_bytes()), &body).await;
        assert_eq!(answer.unwrap().status, 503);
    };
    let again = async { rabbit.restart().unwrap() };
    let unreachable = ["ZentraRabbitmqDown", "ZentraCallbacksUnavailable"];
    site.fault(&unreachable, &[], refused, again).await;
    worker.process.kill();
    site.fires(&["ZentraNoWorker", "ZentraTargetDown"], &[], nothing).await;
}
