//! The receiving libraries (`inbox/`), each in an application of its own process: one suite for all languages. The
//! packages come from `inbox/install.sh`.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use futures_util::StreamExt;
use futures_util::stream;
use rand::rngs::StdRng;
use rand::seq::SliceRandom;
use rand::{Rng, SeedableRng};
use tokio::sync::Mutex;
use zentra_tests::databases::Database;
use zentra_tests::http::{Answer, Headers, Http};
use zentra_tests::ledger::transfer;
use zentra_tests::services::{Guarded, free_port, start};
use zentra_tests::sign::LEDGER_SECRET;
use zentra_tests::stack::installed;
use zentra_tests::world::{World, delivered};
use zentra_tests::{eventually, namespace, shared_rabbit, shared_redis, sign};

const BOUND: Duration = Duration::from_secs(60);
const OLD_SECRET: &str = "whsec_b2xkLXNpZ25pbmcta2V5LW9mLTI0LWJ5dGVz";
const FORGED_SECRET: &str = "whsec_Zm9yZ2VkLXNpZ25pbmcta2V5LTI0LWJ5dGVz";

/// The application of the suite: its language, and the library by which it writes.
#[derive(Clone, Copy, Debug)]
enum App {
    Rust,
    Node,
    Python(&'static str),
}

impl App {
    fn command(self, database: &Database) -> Command {
        let mut url = database.url();
        let (mut command, store) = match self {
            Self::Rust => (Command::new(env!("CARGO_BIN_EXE_zentra-test-inbox")), ""),
            Self::Node => (node(&["app.mjs"]), store_of(database)),
            Self::Python(store) => (python("tests", &["app.py"]), store),
        };
        if let Self::Python("sqlalchemy") = self {
            url = match database {
                Database::Sqlite(path) => format!("sqlite:///{}", path.display()),
                Database::Postgres(_) => url.replace("postgres:", "postgresql+psycopg:"),
                Database::Mariadb(_) => url.replace("mysql:", "mysql+pymysql:"),
            };
        }
        let secrets = format!("{LEDGER_SECRET} {OLD_SECRET}");
        command.env("STORE", store).env("DATABASE", url).env("SECRETS", secrets);
        command
    }
}

fn store_of(database: &Database) -> &'static str {
    match database {
        Database::Sqlite(_) => "sqlite",
        Database::Postgres(_) => "postgres",
        Database::Mariadb(_) => "mysql",
    }
}

/// Node in the folder in which the package is installed, which has copies of the tests and examples.
fn node(arguments: &[&str]) -> Command {
    let mut command = Command::new("node");
    command.args(arguments).current_dir(installed("inbox/node"));
    command
}

/// Python of the environment in which the package is installed, in a folder of its sources.
fn python(folder: &str, arguments: &[&str]) -> Command {
    let mut command = Command::new(installed("inbox/venv").join("bin/python"));
    command.args(arguments).current_dir(sources().join("python").join(folder));
    command.env("PYTHONDONTWRITEBYTECODE", "1");
    command
}

fn sources() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../inbox")
}

/// A running application, which is started again when it has died.
struct Process {
    command: Box<dyn Fn() -> Command + Send + Sync>,
    port: u16,
    child: Mutex<Guarded>,
}

impl Process {
    async fn start(command: impl Fn() -> Command + Send + Sync + 'static) -> Self {
        let port = free_port();
        let child = spawn(&command, port);
        let process = Self { command: Box::new(command), port, child: Mutex::new(child) };
        process.accepts().await;
        process
    }

    /// Starts it again if it has died.
    async fn revive(&self) {
        let mut child = self.child.lock().await;
        if child.has_ended() {
            *child = spawn(&self.command, self.port);
            self.accepts().await;
        }
    }

    async fn restart(&self) {
        self.child.lock().await.kill();
        self.revive().await;
    }

    async fn accepts(&self) {
        eventually("the application accepts", BOUND, async || {
            tokio::net::TcpStream::connect(("127.0.0.1", self.port)).await.ok()
        })
        .await;
    }

    async fn post(&self, http: &Http, path: &str, headers: &Headers, body: &str) -> Option<Answer> {
        let url = format!("http://127.0.0.1:{}{path}", self.port);
        http.post(&url, headers, body.to_owned()).await
    }

    /// The status and the text of its answer to one signed request.
    async fn answer(&self, secret: &str, id: &str, at: u64, body: &str) -> (u16, String) {
        let headers = signed(secret, id, at, body);
        let answer = self.post(&Http::default(), "/webhooks", &headers, body).await;
        answer.map(|answer| (answer.status.as_u16(), answer.body)).unwrap_or_default()
    }
}

fn spawn(command: &dyn Fn() -> Command, port: u16) -> Guarded {
    let mut command = command();
    command.env("PORT", port.to_string());
    start(command)
}

fn signed(secret: &str, id: &str, at: u64, body: &str) -> Headers {
    vec![
        ("content-type", "application/json".into()),
        ("webhook-id", id.into()),
        ("webhook-timestamp", at.to_string()),
        ("webhook-signature", sign::standard(secret, id, at, body.as_bytes())),
    ]
}

fn key(number: usize) -> String {
    format!("ledger/acme/evt_{number}")
}

async fn with_effects(database: Database) -> Database {
    database.run("CREATE TABLE effect (event_key VARCHAR(512) NOT NULL)").await;
    database
}

/// 200 events three times each, to two processes at once, which are killed 20 times between their commit and the
/// answer, and 10 times before the commit. Each delivery is repeated until it gets a 2xx.
async fn deliver_and_kill(database: Database, apps: [App; 2]) {
    const EVENTS: usize = 200;
    const TRIES: usize = 50;
    const BODY: &str = r#"{"type":"transfer.settled"}"#;
    let database = &*Box::leak(Box::new(with_effects(database).await));
    let [one, two] = apps.map(|app| Process::start(move || app.command(database)));
    let (one, two) = tokio::join!(one, two);
    let processes = [one, two];
    let seed = std::env::var("ZENTRA_SEED").ok().and_then(|seed| seed.parse().ok()).unwrap_or(38);
    let mut random = StdRng::seed_from_u64(seed);
    let mut deliveries: Vec<(usize, Option<&'static str>)> =
        (0..EVENTS).flat_map(|event| [(event, None); 3]).collect();
    deliveries.shuffle(&mut random);
    let moments = ["after the commit"; 20].into_iter().chain(["before the commit"; 10]);
    for (delivery, moment) in deliveries.iter_mut().zip(moments) {
        delivery.1 = Some(moment);
    }
    deliveries.shuffle(&mut random);
    let (http, killing, deaths) = (Http::default(), Mutex::new(()), AtomicU32::new(0));
    let deliver = async |(event, mut dies): (usize, Option<&'static str>), turn: usize| {
        // One death at a time, so that each is seen.
        let _alone = if dies.is_some() { Some(killing.lock().await) } else { None };
        for process in [turn % 2, 1 - turn % 2].repeat(TRIES).iter().map(|at| &processes[*at]) {
            let mut headers = signed(LEDGER_SECRET, &key(event), sign::now(), BODY);
            headers.extend(dies.map(|moment| ("x-test-die", moment.to_owned())));
            match process.post(&http, "/webhooks", &headers, BODY).await {
                Some(answer) if answer.status.is_success() => return,
                Some(_) => {}
                None => {
                    process.revive().await;
                    deaths.fetch_add(dies.take().is_some().into(), Ordering::Relaxed);
                }
            }
        }
        panic!("seed {seed}: {} is not done after {} tries", key(event), 2 * TRIES);
    };
    let turns: Vec<usize> = deliveries.iter().map(|_| random.random_range(0..2)).collect();
    let all = deliveries.into_iter().zip(turns).map(|(delivery, turn)| deliver(delivery, turn));
    stream::iter(all).buffer_unordered(8).collect::<Vec<()>>().await;

    let deaths = deaths.into_inner();
    assert!((20..=30).contains(&deaths), "seed {seed}: {deaths} deaths");
    let mut keys: Vec<String> = (0..EVENTS).map(key).collect();
    keys.sort();
    for select in ["SELECT event_key FROM effect ORDER BY 1", &stored_keys(database)] {
        let mut rows = database.run(select).await;
        rows.sort();
        assert_eq!(rows, keys, "seed {seed}: {apps:?}: {select}");
    }
}

fn stored_keys(database: &Database) -> String {
    let name = if let Database::Mariadb(_) = database { "`key`" } else { "key" };
    format!("SELECT {name} FROM zentra_inbox")
}

#[tokio::test(flavor = "multi_thread")]
async fn on_sqlite_each_event_has_one_effect_in_every_language() {
    for app in [App::Rust, App::Node, App::Python("sqlite")] {
        deliver_and_kill(Database::sqlite(), [app, app]).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn on_postgresql_each_event_has_one_effect_in_every_language() {
    for app in [App::Rust, App::Node, App::Python("psycopg"), App::Python("django")] {
        deliver_and_kill(Database::postgres().await, [app, app]).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn on_mariadb_each_event_has_one_effect_in_every_language() {
    for app in [App::Node, App::Python("sqlalchemy")] {
        deliver_and_kill(Database::mariadb().await, [app, app]).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_languages_share_one_table() {
    deliver_and_kill(Database::sqlite(), [App::Rust, App::Python("sqlalchemy")]).await;
    deliver_and_kill(Database::postgres().await, [App::Rust, App::Node]).await;
    deliver_and_kill(Database::postgres().await, [App::Node, App::Python("sqlalchemy")]).await;
    deliver_and_kill(Database::mariadb().await, [App::Node, App::Python("sqlalchemy")]).await;
}

/// What a handler does decides the answer, and nothing of a failure stays. Signatures are checked before anything.
async fn judge(database: Database, app: App) {
    let database = &*Box::leak(Box::new(with_effects(database).await));
    let process = Process::start(move || app.command(database)).await;
    let now = sign::now();
    let answer = async |number: usize, then: &str| {
        let body = format!(r#"{{"then":"{then}"}}"#);
        process.answer(LEDGER_SECRET, &key(number), now, &body).await
    };
    let wanted = |status: u16, text: &str| (status, text.to_owned());
    assert_eq!(answer(1, "is permanent").await, wanted(422, "no such account"), "{app:?}");
    // The text of an error can hold secrets.
    assert_eq!(answer(2, "fails").await, wanted(500, "failed"), "{app:?}");
    assert_eq!(answer(3, "rolls back").await, wanted(500, "failed"), "{app:?}");
    assert_eq!(database.run("SELECT event_key FROM effect").await, Vec::<String>::new());
    assert_eq!(database.run(&stored_keys(database)).await, Vec::<String>::new());

    // PostgreSQL has then given the transaction up.
    let goes_on = !matches!(database, Database::Postgres(_));
    let expected = if goes_on { wanted(200, "done") } else { wanted(500, "failed") };
    assert_eq!(answer(4, "goes on after an error").await, expected, "{app:?}");
    assert_eq!(database.run("SELECT event_key FROM effect").await.len(), usize::from(goes_on));

    let signed_by = async |secret: &str, at: u64| process.answer(secret, &key(5), at, "{}").await;
    assert_eq!(signed_by(FORGED_SECRET, now).await, wanted(401, "signature_mismatch"), "{app:?}");
    assert_eq!(signed_by(LEDGER_SECRET, now - 400).await, wanted(401, "timestamp_stale"));
    assert_eq!(signed_by(LEDGER_SECRET, now + 400).await, wanted(401, "timestamp_future"));
    let unsigned =
        process.post(&Http::default(), "/webhooks", &Headers::new(), "{}").await.unwrap();
    assert_eq!((unsigned.status.as_u16(), &*unsigned.body), (401, "signature_missing"));
    assert_eq!(signed_by(OLD_SECRET, now).await, wanted(200, "done"), "{app:?}: rotation");
    assert_eq!(signed_by(LEDGER_SECRET, now).await, wanted(200, "done before"));

    // Old keys are removed at the first event after a start, and once an hour.
    let age = match database {
        Database::Sqlite(_) => "at = at - 61 * 86400",
        Database::Postgres(_) => "at = at - interval '61 days'",
        Database::Mariadb(_) => "at = at - INTERVAL 61 DAY",
    };
    database.run(&format!("UPDATE zentra_inbox SET {age}")).await;
    process.restart().await;
    assert_eq!(answer(6, "").await, wanted(200, "done"));
    eventually("old keys are removed", BOUND, async || {
        (database.run(&stored_keys(database)).await == [key(6)]).then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn signatures_and_the_handler_decide_the_answer_in_every_language() {
    for app in [App::Rust, App::Node, App::Python("sqlite"), App::Python("sqlalchemy")] {
        judge(Database::sqlite(), app).await;
    }
    for store in ["psycopg", "django", "sqlalchemy"] {
        judge(Database::postgres().await, App::Python(store)).await;
    }
    for app in [App::Rust, App::Node] {
        judge(Database::postgres().await, app).await;
    }
    for app in [App::Node, App::Python("sqlalchemy")] {
        judge(Database::mariadb().await, app).await;
    }
}

/// The examples, as their pages start them. `PORT` stands for the port.
const EXAMPLES: [(&str, &[&str]); 6] = [
    ("sqlite", &["node", "http.mjs"]),
    ("postgres", &["node", "express.mjs"]),
    ("mysql", &["node", "fastify.mjs"]),
    ("sqlite", &["python", "-m", "flask", "--app", "flask_app", "run", "--port", "PORT"]),
    ("postgres", &["python", "-m", "uvicorn", "fastapi_app:app", "--port", "PORT"]),
    ("sqlite", &["python", "django_app.py", "runserver", "--noreload", "127.0.0.1:PORT"]),
];

async fn example(store: &str, arguments: &'static [&'static str]) -> (&'static Database, Process) {
    let database = match store {
        "postgres" => Database::postgres().await,
        "mysql" => Database::mariadb().await,
        _ => Database::sqlite(),
    };
    database.run("CREATE TABLE ledger (transfer VARCHAR(100) NOT NULL)").await;
    let database = &*Box::leak(Box::new(database));
    let port = free_port();
    let command = move || {
        let mut command = if arguments[0] == "node" { node(&[]) } else { python("examples", &[]) };
        command.args(arguments[1..].iter().map(|one| one.replace("PORT", &port.to_string())));
        command.env("DATABASE", database.url()).env("LEDGER_SIGNING", LEDGER_SECRET);
        command.env("PORT", port.to_string());
        command
    };
    let child = Mutex::new(start(command()));
    let process = Process { command: Box::new(command), port, child };
    process.accepts().await;
    (database, process)
}

#[tokio::test(flavor = "multi_thread")]
async fn each_frameworks_example_writes_an_event_once() {
    for (store, arguments) in EXAMPLES {
        let (database, process) = example(store, arguments).await;
        let send = async |secret| {
            process.answer(secret, &key(1), sign::now(), r#"{"id":"trf_8172"}"#).await
        };
        assert_eq!(send(FORGED_SECRET).await, (401, "signature_mismatch".into()), "{arguments:?}");
        for text in ["done", "done before", "done before"] {
            assert_eq!(send(LEDGER_SECRET).await, (200, text.into()), "{arguments:?}");
        }
        assert_eq!(database.run("SELECT transfer FROM ledger").await, ["trf_8172"]);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn zentras_own_deliveries_are_received() {
    let (database, process) = example("postgres", EXAMPLES[1].1).await;
    let world = World::start(&shared_rabbit(), &shared_redis(), &namespace(), "attempts = 3")
        .await
        .unwrap();
    let url = format!("http://127.0.0.1:{}/webhooks", process.port);
    world.stack.replace(&world.ledger.url, &url);
    let _worker = world.stack.worker().await;
    for _ in 0..3 {
        world.send("evt_8172", &transfer("trf_8172", "k", 125_000)).await;
    }
    world.until("evt_8172", delivered).await;
    assert_eq!(database.run("SELECT transfer FROM ledger").await, ["trf_8172"]);
    assert_eq!(database.run(&stored_keys(database)).await, ["ledger/acme/evt_8172"]);
}

fn succeeds(mut command: Command) {
    let ran = command.output().unwrap_or_else(|error| panic!("{command:?}: {error}"));
    let text = |bytes| String::from_utf8_lossy(bytes).into_owned();
    assert!(ran.status.success(), "{command:?}: {}{}", text(&ran.stdout), text(&ran.stderr));
}

#[test]
fn the_libraries_own_tests_pass_and_their_types_hold() {
    let vectors = Path::new(env!("CARGO_MANIFEST_DIR")).join("vectors/standard-webhooks.json");
    let mut units = node(&["--test", "verify.test.mjs"]);
    units.env("ZENTRA_VECTORS", &vectors);
    succeeds(units);
    succeeds(node(&["node_modules/typescript/bin/tsc"]));
    let mut units = python("tests", &["-m", "unittest", "test_verify"]);
    units.env("ZENTRA_VECTORS", &vectors);
    succeeds(units);
    let cache = installed("inbox/venv").join("mypy");
    let mut types = python("", &["-m", "mypy", "src", "tests", "examples", "--cache-dir"]);
    types.arg(cache);
    succeeds(types);
}

#[test]
fn the_packages_have_this_version() {
    let version = env!("CARGO_PKG_VERSION");
    for (file, line) in [
        ("node/package.json", format!("\"version\": \"{version}\"")),
        ("python/pyproject.toml", format!("version = \"{version}\"")),
        ("../docs/inbox.md", format!("zentra-inbox-{version}.tgz")),
    ] {
        let text = std::fs::read_to_string(sources().join(file)).unwrap();
        assert!(text.contains(&line), "{file}");
    }
}
