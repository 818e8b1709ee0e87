//! Zentra as its users run it: one configuration file, real binaries, real servers.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::time::Duration;

use serde_json::Value;

use crate::http::Http;
use crate::services::{self, Guarded, folder, free_port};
use crate::{eventually, sign};

/// Time limit for a binary to become ready. The first one declares 40 queues.
const READY: Duration = Duration::from_secs(60);

const SERVERS: &str =
    "[rabbitmq]\nurls = [\"env:RABBITMQ_URL\"]\n[redis]\nurl = \"env:REDIS_URL\"\n";

/// A configuration file, and everything that the binaries need to run with it.
pub struct Stack {
    /// The configuration file.
    pub config: PathBuf,
    /// RabbitMQ's URL.
    pub rabbit: String,
    /// Redis's URL.
    pub redis: String,
    /// The namespace.
    pub namespace: String,
    /// An HTTP client.
    pub http: Http,
    /// The log level of the binaries, for `ZENTRA_LOG`.
    pub log: &'static str,
    /// More environment variables of the binaries.
    pub variables: Vec<(&'static str, String)>,
    /// The folder of the binaries, if they are not of this version.
    pub programs: Option<PathBuf>,
}

/// A running binary.
pub struct Program {
    /// The process.
    pub process: Guarded,
    /// The address for callbacks (the ingress), or an empty text.
    pub listen: String,
    /// The address of metrics and health.
    pub admin: String,
    /// The address of the console (`zentra standalone`), or an empty text.
    pub console: String,
}

impl Stack {
    /// Writes a configuration whose destination `ledger` subscribes to all sources. `more` is
    /// added to the destination's table.
    pub fn new(rabbit: &str, redis: &str, namespace: &str, ledger: &str, more: &str) -> Self {
        let folder = folder("stack");
        let config = folder.join("zentra.toml");
        let text = format!(
            r#"namespace = "{namespace}"
[worker]
lease = "2s"
[rabbitmq]
urls = ["env:RABBITMQ_URL"]
[redis]
url = "env:REDIS_URL"
[seal]
keys = [{{ name = "test", secret = "env:SEAL_KEY" }}]
[source.acme]
provider = "standard-webhooks"
secrets = [{{ name = "k1", secret = "env:ACME" }}]
[source.stripe-eu]
provider = "stripe"
secrets = [{{ name = "k1", secret = "env:STRIPE_EU" }}]
[source.github]
provider = "github"
secrets = [{{ name = "k1", secret = "env:GITHUB" }}]
[destination.ledger]
url = "{ledger}"
subscribe = ["acme.#", "stripe-eu.#", "github.#"]
signing = [{{ name = "k1", secret = "env:LEDGER_SIGNING" }}]
timeout = "1s"
{more}
"#
        );
        fs::write(&config, text).unwrap_or_else(|error| panic!("{}: {error}", config.display()));
        Self {
            config,
            rabbit: rabbit.into(),
            redis: redis.into(),
            namespace: namespace.into(),
            http: Http::default(),
            log: "info,lapin=off",
            variables: Vec::new(),
            programs: None,
        }
    }

    /// Adds tables to the configuration file.
    pub fn add(&self, toml: &str) {
        let text = fs::read_to_string(&self.config).unwrap_or_default();
        self.write(&format!("{text}\n{toml}\n"));
    }

    /// A copy of the configuration file as it is now.
    pub fn copy_of_config(&self) -> PathBuf {
        let copy = folder("config").join("zentra.toml");
        let copied = fs::copy(&self.config, &copy);
        copied.unwrap_or_else(|error| panic!("{}: {error}", copy.display()));
        copy
    }

    /// Changes the configuration file.
    pub fn replace(&self, from: &str, to: &str) {
        let text = fs::read_to_string(&self.config).unwrap_or_default();
        assert!(text.contains(from), "the config has no {from}");
        self.write(&text.replace(from, to));
    }

    fn write(&self, text: &str) {
        let written = fs::write(&self.config, text);
        written.unwrap_or_else(|error| panic!("{}: {error}", self.config.display()));
    }

    /// A command with configuration and secrets.
    pub fn command(&self, binary: &str) -> Command {
        let mut command = Command::new(match &self.programs {
            Some(folder) => folder.join(binary),
            None => binary_path(binary),
        });
        command
            .arg("--config")
            .arg(&self.config)
            .env("ZENTRA_LOG", self.log)
            .env("RABBITMQ_URL", &self.rabbit)
            .env("REDIS_URL", &self.redis)
            .env("SEAL_KEY", "0123456789abcdef0123456789abcdef")
            .env("ACME", sign::ACME_SECRET)
            .env("STRIPE_EU", sign::STRIPE_SECRET)
            .env("GITHUB", sign::GITHUB_SECRET)
            .env("CASE", sign::CASE_SECRET)
            .env("LEDGER_SIGNING", sign::LEDGER_SECRET)
            .envs(self.variables.iter().map(|(name, value)| (name, value)));
        command
    }

    /// Starts the ingress and waits until it is ready.
    pub async fn ingress(&self) -> Program {
        self.ingress_at(&format!("127.0.0.1:{}", free_port())).await
    }

    /// The same, at this address.
    pub async fn ingress_at(&self, listen: &str) -> Program {
        let mut command = self.command("zentra-ingress");
        command.args(["--listen", listen]);
        let mut program = self.start(command).await;
        program.listen = format!("http://{listen}");
        program
    }

    /// Starts a worker and waits until it is ready.
    pub async fn worker(&self) -> Program {
        self.start(self.command("zentra-worker")).await
    }

    /// Switches to one file instead of the two servers. Returns its path.
    pub fn embed(&self) -> PathBuf {
        let path = folder("embedded").join("zentra.db");
        self.shrink(&path);
        path
    }

    /// Switches to this existing file.
    pub fn shrink(&self, path: &Path) {
        self.replace(SERVERS, &embedded(path));
    }

    /// Switches from the file to the two servers.
    pub fn grow_up(&self, path: &Path) {
        self.replace(&embedded(path), SERVERS);
    }

    /// Starts ingress and worker in one program and waits until both are ready. `admin` of the
    /// result is the worker's.
    pub async fn standalone(&self) -> Program {
        self.standalone_at(&format!("127.0.0.1:{}", free_port())).await
    }

    /// The same, with the console at this address.
    pub async fn standalone_at(&self, console: &str) -> Program {
        let [listen, ingress_admin] = [(); 2].map(|()| format!("127.0.0.1:{}", free_port()));
        let admin = format!("127.0.0.1:{}", free_port());
        let mut command = self.command("zentra");
        command.args(["standalone", "--listen", &listen, "--ingress-admin", &ingress_admin]);
        command.args(["--worker-admin", &admin]);
        // 0.2.0 has no console.
        if self.programs.is_none() {
            command.args(["--console", console]);
        }
        let [listen, ingress_admin, admin, console] =
            [&listen, &ingress_admin, &admin, console].map(|at| format!("http://{at}"));
        let program = Program { process: services::start(command), listen, admin, console };
        for admin in [&ingress_admin, &program.admin] {
            self.is_ready("zentra standalone", admin).await;
        }
        program
    }

    async fn is_ready(&self, name: &str, admin: &str) {
        let url = format!("{admin}/readyz");
        eventually(&format!("{name} is ready"), READY, async || {
            let answer = self.http.get(&url).await?;
            answer.status.is_success().then_some(())
        })
        .await;
    }

    /// Starts a program that serves `--admin`, and waits until it is ready.
    pub async fn start(&self, mut command: Command) -> Program {
        let admin = format!("127.0.0.1:{}", free_port());
        command.args(["--admin", &admin]);
        let name = command.get_program().to_string_lossy().into_owned();
        let program = Program {
            process: services::start(command),
            listen: String::new(),
            console: String::new(),
            admin: format!("http://{admin}"),
        };
        self.is_ready(&name, &program.admin).await;
        program
    }

    /// Runs the `zentra` command until it exits.
    pub fn zentra(&self, arguments: &[&str]) -> Output {
        let mut command = self.command("zentra");
        let ran = command.args(arguments).output();
        ran.unwrap_or_else(|error| panic!("can't run zentra: {error}"))
    }

    /// The first delivery of an event, as `zentra event show` prints it.
    pub fn shown(&self, id: &str) -> Option<Value> {
        let shown = self.zentra(&["event", "show", id, "--json"]);
        let shown: Value = serde_json::from_slice(&shown.stdout).ok()?;
        Some(shown["deliveries"][0].clone())
    }

    /// Waits until the first delivery of an event is in this state.
    pub async fn until(&self, id: &str, state: &str, bound: Duration) -> Value {
        eventually(&format!("{id} is {state}"), bound, async || {
            self.shown(id).filter(|shown| shown["record"]["state"] == state)
        })
        .await
    }
}

impl Drop for Stack {
    fn drop(&mut self) {
        crate::done_with(&self.rabbit, &self.namespace);
    }
}

impl Program {
    /// The sum of a metric's lines that contain all of `parts`.
    pub async fn metric(&self, http: &Http, parts: &[&str]) -> f64 {
        let text = http.get(&format!("{}/metrics", self.admin)).await;
        let text = text.map(|answer| answer.body).unwrap_or_default();
        let samples = text.lines().filter(|line| !line.starts_with('#'));
        let samples = samples.filter(|line| parts.iter().all(|part| line.contains(part)));
        let values = samples.filter_map(|line| line.rsplit(' ').next());
        values.filter_map(|value| value.parse::<f64>().ok()).sum()
    }
}

fn embedded(path: &Path) -> String {
    format!("[embedded]\npath = \"{}\"\n", path.display())
}

/// The folder of the workspace's binaries: the folder of this binary, or the one above `deps`.
fn binary_path(name: &str) -> PathBuf {
    let path = programs().join(name);
    assert!(
        path.exists(),
        "{} isn't built: run cargo build --workspace --bins first\n{}",
        path.display(),
        services::output()
    );
    path
}

fn programs() -> PathBuf {
    let own = std::env::current_exe().unwrap_or_default();
    let folder = own.parent().unwrap_or(Path::new("."));
    match folder.ends_with("deps") {
        true => folder.parent().unwrap_or(folder).into(),
        false => folder.into(),
    }
}

/// A folder of what `inbox/install.sh` has installed.
///
/// # Panics
/// If it is not there.
pub fn installed(name: &str) -> PathBuf {
    let target = programs().parent().map(Path::to_path_buf).unwrap_or_default();
    assert!(
        target.join("inbox/stamp").exists(),
        "the packages aren't installed: run inbox/install.sh"
    );
    target.join(name)
}

/// The version of the previous release, and the folder of its binaries (`tests/previous.sh` builds them). `None` in a
/// clone without its history.
///
/// # Panics
/// If they could have been built and are not: the test would pass untried.
pub fn previous() -> Option<(String, PathBuf)> {
    let (version, commit) = include_str!("../previous").trim().split_once(' ').unwrap_or_default();
    let folder = programs().parent()?.join("previous").join(version);
    if folder.exists() {
        return Some((version.to_owned(), folder));
    }
    let mut git = Command::new("git");
    git.args(["cat-file", "-e", &format!("{commit}^{{commit}}")])
        .current_dir(env!("CARGO_MANIFEST_DIR"));
    let has_history = git.output().is_ok_and(|done| done.status.success());
    assert!(!has_history, "the programs of {version} are not built: run tests/previous.sh");
    None
}
