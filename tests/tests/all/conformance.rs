//! The conformance suite of `zentra-store` on each backend.

use std::path::{Path, PathBuf};
use std::time::Duration;

use tokio::time::timeout;
use webhook_verify::Secret;
use zentra_rabbitmq::{Amqp, Settings};
use zentra_redis::RedisJournal;
use zentra_sqlite::{EmbeddedJournal, EmbeddedQueue, Store};
use zentra_store::conformance::{Backend, RETENTION, suite};
use zentra_store::queue::Routes;
use zentra_tests::services::folder;
use zentra_tests::{namespace, queue_settings, shared_rabbit, shared_redis};

const BOUND: Duration = Duration::from_secs(20);

mod servers {
    use super::Servers;
    super::suite!(Servers);
}

mod file {
    use super::File;
    super::suite!(File);
}

/// RabbitMQ and Redis.
struct Servers(String);

impl Backend for Servers {
    type Queue = Amqp;
    type Journal = RedisJournal;

    fn new() -> Self {
        Self(namespace())
    }

    async fn open(&self, routes: Routes) -> (Amqp, RedisJournal) {
        let settings = queue_settings(&shared_rabbit(), &self.0);
        let queue = Amqp::ingress(Settings { routes: Some(routes), ..settings });
        timeout(BOUND, queue.connected()).await.unwrap();
        let url = Secret::new(shared_redis());
        (queue, RedisJournal::new(&url, &self.0, RETENTION).unwrap())
    }
}

/// One file.
struct File(PathBuf);

impl Backend for File {
    type Queue = EmbeddedQueue;
    type Journal = EmbeddedJournal;

    fn new() -> Self {
        Self(folder("embedded").join("zentra.db"))
    }

    async fn open(&self, routes: Routes) -> (EmbeddedQueue, EmbeddedJournal) {
        let store = Store::open(&self.0, 1 << 30).unwrap();
        let refused = queue_settings("", "").refused;
        let queue = EmbeddedQueue::new(store.clone(), routes, refused);
        (queue, EmbeddedJournal::new(store, RETENTION))
    }
}

#[test]
fn every_promise_is_in_the_suite() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../shared/store/src/conformance");
    let text = |name: &str| std::fs::read_to_string(folder.join(name)).unwrap();
    let listed = text("mod.rs");
    let mut promises = 0;
    for part in ["restart.rs", "queue.rs", "journal.rs", "jobs.rs"] {
        for rest in text(part).split("\npub async fn ").skip(1) {
            let end = rest.find(['<', '(']).unwrap();
            let name = rest[..end].trim();
            assert!(listed.contains(name), "{name} is not in the suite");
            promises += 1;
        }
    }
    assert!(promises > 20, "{promises}");
}
