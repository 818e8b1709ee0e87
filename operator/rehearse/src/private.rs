//! A private Zentra for a rehearsal: its configuration, secrets and programs, on an embedded file
//! or on private RabbitMQ and Redis servers. Everything is removed at the end.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

use crate::sandbox::{Guarded, Rabbit, Redis, folder, free_port, output};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use http::StatusCode;
use http_body_util::{BodyExt, Empty};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use serde::Serialize;
use tokio::time::{Instant, sleep};
use toml::{Table, Value};
use zentra_config::{Config, Environment, Role, environment};

use super::scenario::Program;
use crate::error::{broken, unusable};
use zentra_admin::AdminError;

/// Time limit for a program to become ready.
const READY: Duration = Duration::from_secs(60);
const LOOK: Duration = Duration::from_millis(20);
/// Time limit for a response of an admin address.
const ANSWER: Duration = Duration::from_secs(5);
const SERVERS: &str = "rabbitmq.urls = [\"env:RABBITMQ_URL\"]\nredis.url = \"env:REDIS_URL\"";

/// The backend of a private Zentra.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    /// One file. No server is needed.
    Embedded,
    /// RabbitMQ and Redis, which must be installed. Private servers are started.
    Rabbitmq,
}

/// Servers that several rehearsals share. Each rehearsal has its own namespace.
pub(crate) type Servers = Arc<(Rabbit, Redis)>;

/// Starts them.
pub(crate) async fn servers() -> Result<Servers, AdminError> {
    let started = tokio::task::spawn_blocking(|| -> std::io::Result<Servers> {
        Ok(Arc::new((Rabbit::start()?, Redis::start()?)))
    });
    let started = started.await.map_err(|error| broken(error.to_string()))?;
    started.map_err(|error| {
        unusable(format!("cannot start private servers: {error}"))
            .hint("Install RabbitMQ and Redis, or rehearse on the embedded file.")
    })
}

/// A running private Zentra.
pub(crate) struct Private {
    path: PathBuf,
    table: Table,
    environment: Environment,
    ports: Ports,
    servers: Option<Servers>,
    ingress: Option<Guarded>,
    /// In a standalone, it is also the ingress.
    workers: Vec<Guarded>,
}

struct Ports {
    listen: u16,
    admin: u16,
    workers: [u16; 2],
}

impl Private {
    /// Starts a Zentra that delivers to this URL. `over` overrides parts of its configuration.
    pub(crate) async fn start(
        servers: Option<Servers>,
        namespace: &str,
        url: &str,
        over: &Table,
    ) -> Result<Self, AdminError> {
        let folder = folder("rehearsal").map_err(sandbox)?;
        let mut environment: Environment =
            environment().into_iter().filter(|(name, _)| !overrides(name)).collect();
        let mut table = config(namespace, url)?;
        match &servers {
            Some(servers) => {
                environment.insert("RABBITMQ_URL".into(), servers.0.url());
                environment.insert("REDIS_URL".into(), servers.1.url());
                merge(&mut table, &parsed(SERVERS)?);
            }
            None => {
                let file = Value::String(folder.join("zentra.db").display().to_string());
                let embedded = Table::from_iter([("path".to_owned(), file)]);
                table.insert("embedded".into(), embedded.into());
            }
        }
        merge(&mut table, over);
        for name in ["SEAL_KEY", "ACME_K1", "ACME_K2", "STRIPE", "GITHUB", "SIGNING"] {
            let key = STANDARD.encode(rand::random::<[u8; 24]>());
            environment.insert(name.into(), format!("whsec_{key}"));
        }
        let port = || free_port().map_err(sandbox);
        let ports = Ports { listen: port()?, admin: port()?, workers: [port()?, port()?] };
        let path = folder.join("zentra.toml");
        let mut this =
            Self { path, table, environment, ports, servers, ingress: None, workers: Vec::new() };
        this.write()?;
        this.start_all().await?;
        Ok(this)
    }

    /// Its configuration, for the rehearsal.
    pub(crate) fn config(&self) -> Result<Config, AdminError> {
        Ok(Config::load(&self.path, Role::Rehearsal, &self.environment, &[])?)
    }

    /// The address of its ingress.
    pub(crate) fn ingress_url(&self) -> String {
        format!("http://127.0.0.1:{}", self.ports.listen)
    }

    /// The path of a Zentra program.
    pub(crate) fn command(&self, name: &str) -> Command {
        let own = std::env::current_exe().unwrap_or_default();
        let program = match name {
            "zentra" => own,
            name => own.with_file_name(name),
        };
        let mut command = Command::new(program);
        command.arg("--config").arg(&self.path).envs(&self.environment);
        command.env("ZENTRA_LOG", "info,lapin=off");
        for name in environment().keys().filter(|name| overrides(name)) {
            command.env_remove(name);
        }
        command
    }

    fn write(&self) -> Result<(), AdminError> {
        let text = toml::to_string(&self.table);
        let text = text.map_err(|error| broken(format!("its config: {error}")))?;
        std::fs::write(&self.path, text).map_err(sandbox)
    }

    async fn start_all(&mut self) -> Result<(), AdminError> {
        if self.servers.is_some() {
            self.start_ingress().await?;
            for port in self.ports.workers {
                let worker = self.start_worker(port).await?;
                self.workers.push(worker);
            }
            return Ok(());
        }
        let at = |port: u16| format!("127.0.0.1:{port}");
        let mut command = self.command("zentra");
        command.args(["standalone", "--listen", &at(self.ports.listen)]);
        command.args(["--ingress-admin", &at(self.ports.admin)]);
        command.args(["--worker-admin", &at(self.ports.workers[0])]);
        let mut program = started(command)?;
        ready(&mut program, self.ports.admin).await?;
        ready(&mut program, self.ports.workers[0]).await?;
        self.workers.push(program);
        Ok(())
    }

    async fn start_ingress(&mut self) -> Result<(), AdminError> {
        let mut command = self.command("zentra-ingress");
        command.args(["--listen", &format!("127.0.0.1:{}", self.ports.listen)]);
        command.args(["--admin", &format!("127.0.0.1:{}", self.ports.admin)]);
        let mut program = started(command)?;
        ready(&mut program, self.ports.admin).await?;
        self.ingress = Some(program);
        Ok(())
    }

    async fn start_worker(&self, port: u16) -> Result<Guarded, AdminError> {
        let mut command = self.command("zentra-worker");
        command.args(["--admin", &format!("127.0.0.1:{port}")]);
        let mut program = started(command)?;
        ready(&mut program, port).await?;
        Ok(program)
    }

    /// Kills a program with -9, and starts it again: the worker with this process ID, or all
    /// workers. Returns which process was killed.
    pub(crate) async fn kill(
        &mut self,
        program: Program,
        holder: Option<u32>,
    ) -> Result<Vec<u32>, AdminError> {
        if self.servers.is_none() {
            let killed = self.workers.drain(..).map(killed).collect();
            self.start_all().await?;
            return Ok(killed);
        }
        if program == Program::Ingress {
            let killed = self.ingress.take().map(killed).into_iter().collect();
            self.start_ingress().await?;
            return Ok(killed);
        }
        let mut all = Vec::new();
        for at in 0..self.workers.len() {
            if holder.is_none_or(|holder| self.workers[at].id() == holder) {
                self.workers[at].kill();
                all.push(self.workers[at].id());
                self.workers[at] = self.start_worker(self.ports.workers[at]).await?;
            }
        }
        Ok(all)
    }

    /// Stops the worker with this process ID for this long. Returns whether such a worker exists.
    pub(crate) async fn freeze(&self, holder: u32, time: Duration) -> bool {
        let Some(worker) = self.workers.iter().find(|worker| worker.id() == holder) else {
            return false;
        };
        worker.freeze();
        sleep(time).await;
        worker.thaw();
        true
    }

    /// Removes all other secrets of those sources that have one of these.
    pub(crate) async fn keep_secrets(&mut self, active: &[String]) -> Result<(), AdminError> {
        let named = |secret: &Value| {
            let name = secret.get("name").and_then(Value::as_str);
            name.is_some_and(|name| active.iter().any(|active| active == name))
        };
        let sources = self.table.get_mut("source").and_then(Value::as_table_mut);
        for (_, source) in sources.into_iter().flatten() {
            let secrets = source.get_mut("secrets").and_then(Value::as_array_mut);
            if let Some(secrets) = secrets.filter(|secrets| secrets.iter().any(named)) {
                secrets.retain(named);
            }
        }
        self.write()?;
        let reloads = "zentra_config_reloads_total{outcome=\"ok\"}";
        let before = metric(self.ports.admin, reloads).await;
        let ingress = self.ingress.as_ref().or(self.workers.first());
        if let Some(ingress) = ingress {
            ingress.hang_up();
        }
        let until = Instant::now() + READY;
        while metric(self.ports.admin, reloads).await <= before {
            if Instant::now() > until {
                return Err(broken(format!("the configuration was not reloaded:\n{}", tail())));
            }
            sleep(LOOK).await;
        }
        Ok(())
    }
}

fn sandbox(error: std::io::Error) -> AdminError {
    broken(format!("cannot start a private Zentra: {error}"))
}

/// Whether a variable changes the configuration. The user's own variables are not meant for a
/// private Zentra.
fn overrides(name: &str) -> bool {
    name.starts_with("ZENTRA__")
}

/// Kills it, and returns its process ID.
fn killed(mut program: Guarded) -> u32 {
    program.kill();
    program.id()
}

fn started(command: Command) -> Result<Guarded, AdminError> {
    let program = Path::new(command.get_program());
    if !program.exists() {
        return Err(unusable(format!("{} does not exist.", program.display()))
            .hint("Build all programs first (cargo build), or rehearse on the embedded file."));
    }
    Guarded::start(command).map_err(sandbox)
}

async fn ready(program: &mut Guarded, port: u16) -> Result<(), AdminError> {
    let until = Instant::now() + READY;
    loop {
        if get(port, "/readyz").await.is_some_and(|(status, _)| status.is_success()) {
            return Ok(());
        }
        if program.has_ended() || Instant::now() > until {
            return Err(broken(format!("a private Zentra did not start:\n{}", tail())));
        }
        sleep(LOOK).await;
    }
}

/// A metric's value. 0 while it is not exported.
async fn metric(port: u16, name: &str) -> f64 {
    let text = get(port, "/metrics").await.map(|(_, text)| text).unwrap_or_default();
    let value = text.lines().find_map(|line| line.strip_prefix(name));
    value.and_then(|value| value.trim().parse().ok()).unwrap_or(0.0)
}

/// The response of an admin address.
async fn get(port: u16, path: &str) -> Option<(StatusCode, String)> {
    let http: Client<HttpConnector, Empty<Bytes>> =
        Client::builder(TokioExecutor::new()).build_http();
    let url = format!("http://127.0.0.1:{port}{path}").parse().ok()?;
    let exchange = async {
        let (parts, body) = http.get(url).await.ok()?.into_parts();
        let bytes = body.collect().await.ok()?.to_bytes();
        Some((parts.status, String::from_utf8_lossy(&bytes).into_owned()))
    };
    tokio::time::timeout(ANSWER, exchange).await.ok()?
}

/// The last log lines of the programs.
fn tail() -> String {
    let output = output();
    let lines: Vec<&str> = output.lines().collect();
    lines[lines.len().saturating_sub(12)..].join("\n")
}

fn config(namespace: &str, url: &str) -> Result<Table, AdminError> {
    let text = format!(
        r##"namespace = "{namespace}"
worker.lease = "2s"
seal.keys = [{{ name = "k1", secret = "env:SEAL_KEY" }}]
[source.acme]
provider = "standard-webhooks"
secrets = [{{ name = "k1", secret = "env:ACME_K1" }}, {{ name = "k2", secret = "env:ACME_K2" }}]
[source.stripe-eu]
provider = "stripe"
secrets = [{{ name = "live", secret = "env:STRIPE" }}]
[source.github]
provider = "github"
secrets = [{{ name = "hook", secret = "env:GITHUB" }}]
[destination.ledger]
url = "{url}"
subscribe = ["#"]
signing = [{{ name = "k1", secret = "env:SIGNING" }}]
timeout = "1s"
retry = {{ attempts = 5, initial = "300ms", multiplier = 2.0, jitter = 0.2 }}
"##
    );
    parsed(&text)
}

fn parsed(text: &str) -> Result<Table, AdminError> {
    text.parse().map_err(|error| broken(format!("its config: {error}")))
}

/// Merges `over` into the configuration, table by table.
fn merge(table: &mut Table, over: &Table) {
    for (key, value) in over {
        match (table.get_mut(key), value) {
            (Some(Value::Table(table)), Value::Table(over)) => merge(table, over),
            _ => {
                table.insert(key.clone(), value.clone());
            }
        }
    }
}
