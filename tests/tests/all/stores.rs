//! `zentra migrate --from-redis`: what one Redis remembers is copied to other servers, and back.

use std::collections::HashSet;
use std::path::Path;
use std::time::Duration;

use zentra_config::{ClientTls, RedisServers};
use zentra_core::event::{DeliveryKey, Identity};
use zentra_core::lifecycle::Fingerprint;
use zentra_redis::RedisJournal;
use zentra_store::control::OperatorControl;
use zentra_store::journal::list::{Listed, Query};
use zentra_store::journal::{Claim, DeliveryStore, Journal, Summary};
use zentra_tests::ledger::transfer;
use zentra_tests::services::{self, RedisSentinel};
use zentra_tests::stack::Stack;
use zentra_tests::world::{BOUND, RETENTION, World, dead, delivered};
use zentra_tests::{
    by_sentinel, eventually, in_cluster, namespace, one_server, shared_rabbit, shared_redis,
};

/// More than one request of a list returns, also from one partition.
const MANY: usize = 1200;
const ONE: &str = "url = \"env:REDIS_URL\"";

async fn claim(journal: &RedisJournal, id: &str) {
    let summary = Summary { source: "acme".into(), ..Summary::default() };
    let claim = Claim {
        key: &DeliveryKey::new("ledger", "acme", &Identity::from_id(id).unwrap()),
        generation: 0,
        attempt: 1,
        lease: Duration::from_secs(3600),
        worker: "w1",
        fingerprint: &Fingerprint { body: [7; 32], id: None },
        summary: &summary,
        retention: RETENTION,
    };
    journal.claim(&claim).await.unwrap();
}

async fn all(journal: &RedisJournal) -> Vec<Listed> {
    let (mut found, mut next) = (Vec::new(), None::<String>);
    loop {
        let page = journal.list(&Query::default(), next.as_deref(), 100).await.unwrap();
        found.extend(page.items);
        next = page.next;
        if next.is_none() {
            return found;
        }
    }
}

/// All that operators can read of a store.
async fn remembered(journal: &RedisJournal) -> impl PartialEq + std::fmt::Debug {
    let listed = all(journal).await;
    let dead = journal.dead("ledger", MANY, &|_| true).await.unwrap();
    let mut found = Vec::new();
    for id in ["evt_done", "evt_dead"] {
        found.push(journal.find(id, &[("ledger", "acme")]).await.unwrap());
    }
    let tokens = journal.tokens().await.unwrap().items.len();
    let paused = format!("{:?}", journal.desired_states().await.unwrap());
    (listed, dead, found, tokens, paused, journal.audited(100).await.unwrap())
}

/// Copies from the Redis of the old configuration file to that of the stack's. Returns what is
/// printed.
fn copied(stack: &Stack, old: &Path, more: &[&str]) -> String {
    let old = old.display().to_string();
    let arguments = [&["migrate", "--from-redis", &old], more].concat();
    let output = stack.zentra(&arguments);
    let text = [output.stdout, output.stderr].concat();
    let words: Vec<_> =
        String::from_utf8_lossy(&text).split_whitespace().map(str::to_owned).collect();
    words.join(" ")
}

#[tokio::test(flavor = "multi_thread")]
async fn what_one_redis_remembers_is_copied_to_a_cluster_and_back() {
    let cluster = services::redis_cluster();
    let setting = format!("cluster = {{ urls = [\"{}\"] }}", cluster.urls()[0]);
    is_copied_there_and_back(&setting, &in_cluster(&cluster)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_one_redis_remembers_is_copied_to_a_primary_with_sentinels_and_back() {
    let servers = services::redis_sentinel();
    let urls = servers.urls().iter().map(|url| format!("\"{url}\"")).collect::<Vec<_>>().join(", ");
    let setting =
        format!("sentinel = {{ urls = [{urls}], service = \"{}\" }}", RedisSentinel::SERVICE);
    is_copied_there_and_back(&setting, &by_sentinel(&servers)).await;
}

/// From one server to other `servers`, which the `setting` names, and back.
async fn is_copied_there_and_back(setting: &str, servers: &RedisServers) {
    let namespace = namespace();
    let world =
        World::start(&shared_rabbit(), &shared_redis(), &namespace, "attempts = 1").await.unwrap();
    let mut worker = world.stack.worker().await;
    let body = |id: &str, kind: &str| format!(r#"{{"id": "{id}", "type": "{kind}"}}"#);
    world.send("evt_dead", &body("evt_dead", "other")).await;
    world.until("evt_dead", dead).await;
    let done = transfer("evt_done", "trf_1", 1);
    world.send("evt_done", &done).await;
    world.until("evt_done", delivered).await;
    let pause = ["destination", "pause", "ledger", "--because", "we move"];
    assert!(world.stack.zentra(&pause).status.success());
    assert!(world.stack.zentra(&["token", "create", "grafana"]).status.success());
    for at in 0..MANY {
        claim(&world.journal, &format!("evt_{at}")).await;
    }

    let old = world.stack.copy_of_config();
    let same = copied(&world.stack, &old, &[]);
    assert!(same.contains("both configurations have the same [redis]"), "{same}");
    world.stack.replace(ONE, setting);
    let running = copied(&world.stack, &old, &[]);
    assert!(running.contains("1 workers use the Redis to migrate from"), "{running}");
    assert!(worker.process.terminate(BOUND).is_some());

    let open = |servers: &RedisServers| {
        RedisJournal::new(servers, &ClientTls::default(), &namespace, RETENTION).unwrap()
    };
    let (one, other) = (open(&one_server(shared_redis())), open(servers));
    let before = remembered(&one).await;
    let expected = format!("would be copied remembered deliveries {} ", MANY + 2);
    let counted = copied(&world.stack, &old, &["--dry-run"]);
    assert!(counted.starts_with(&expected), "{counted}");
    assert!(all(&other).await.is_empty());
    copied(&world.stack, &old, &[]);
    assert_eq!(remembered(&other).await, before);
    // Once more, it changes nothing.
    let again = copied(&world.stack, &old, &[]);
    assert!(again.contains(&format!("has {} deliveries", MANY + 2)), "{again}");
    assert_eq!(remembered(&other).await, before);

    // A worker there knows what was delivered, and takes it for a copy.
    assert!(world.stack.zentra(&["destination", "resume", "ledger"]).status.success());
    let mut worker = world.stack.worker().await;
    world.send("evt_done", &done).await;
    world.send("evt_new", &transfer("evt_new", "trf_2", 1)).await;
    eventually("the new one is delivered", BOUND, async || {
        (world.ledger.rows().unwrap().len() == 2).then_some(())
    })
    .await;
    assert!(worker.process.terminate(BOUND).is_some());

    // And back, to another namespace of one server, as to an empty one.
    let (there, back) = (world.stack.copy_of_config(), format!("{namespace}-back"));
    world.stack.replace(setting, ONE);
    world.stack.replace(&format!("\"{namespace}\""), &format!("\"{back}\""));
    let printed = copied(&world.stack, &there, &[]);
    assert!(printed.contains(&format!("deliveries {}", MANY + 3)), "{printed}");
    let back =
        RedisJournal::new(&one_server(shared_redis()), &ClientTls::default(), &back, RETENTION)
            .unwrap();
    let (there, here) = (all(&other).await, all(&back).await);
    assert_eq!(there, here);
    let keys: HashSet<_> = here.iter().map(|listed| listed.delivery.key.clone()).collect();
    assert_eq!(keys.len(), MANY + 3);
}
