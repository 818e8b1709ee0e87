//! The `zentra` command: event histories, dead letters, refused callbacks.

mod api;
mod archive;
mod backend;
mod cli;
mod control;
mod dead;
mod event;
mod failure;
mod job;
mod list;
mod look;
mod manual;
mod migrate;
mod payload;
mod progress;
mod reconcile;
mod refused;
mod rehearse;
mod source;
mod standalone;
mod status;
mod text;
mod token;
mod unrouted;

use std::io::Write;
use std::path::Path;
use std::process::ExitCode;

use clap::Parser;
use serde::Serialize;
use zentra_shared::config::{self, Config, Role};
use zentra_shared::{telemetry, verify};

use backend::{Backend, File, Servers};
use cli::{Arguments, Command, RefusedCommand, SourceCommand};
use failure::Failure;

/// For a command line that can't be read (`EX_USAGE`).
const USAGE: u8 = 64;

/// Most of what `zentra standalone` does is short-lived and small: measured by `make bench`.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    // The file has threads of its own, and threads that have little to do mostly wake one another.
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let mut runtime = tokio::runtime::Builder::new_multi_thread();
    match runtime.worker_threads(cores.div_ceil(2)).enable_all().build() {
        Ok(runtime) => runtime.block_on(command()),
        Err(error) => Failure::from(error).report(),
    }
}

async fn command() -> ExitCode {
    let arguments = match Arguments::try_parse() {
        Ok(arguments) => arguments,
        Err(error) => {
            let _ = error.print();
            return ExitCode::from(if error.use_stderr() { USAGE } else { 0 });
        }
    };
    telemetry::init_logs(match arguments.command {
        Command::Standalone(_) | Command::Serve(_) => "info",
        _ => "warn",
    });
    match run(arguments).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => failure.report(),
    }
}

async fn run(arguments: Arguments) -> Result<(), Failure> {
    let path = &arguments.config;
    let role = match &arguments.command {
        Command::Config => return Ok(write!(std::io::stdout(), "{}", config::reference())?),
        Command::Openapi => return Ok(writeln!(std::io::stdout(), "{}", api::document()?)?),
        Command::Completions { shell } => {
            return manual::completions(*shell, &mut std::io::stdout());
        }
        Command::Man { folder } => {
            let pages = manual::pages(folder)?.len();
            return Ok(writeln!(std::io::stdout(), "{pages} pages are in {}", folder.display())?);
        }
        Command::Source(SourceCommand::List) => {
            return Ok(write!(std::io::stdout(), "{}", verify::table())?);
        }
        Command::Source(SourceCommand::Add(asked)) => return source::add(path, asked),
        Command::Verify(asked) => return source::verify(path, asked),
        Command::Sign(asked) => return source::sign(path, asked),
        Command::Check => return check(path),
        Command::Standalone(listen) => return standalone::run(path, listen).await,
        Command::Demo(asked) => return rehearse::demo(asked).await,
        Command::Rehearse(asked) => return rehearse::rehearse(path, asked).await,
        Command::Refused(RefusedCommand::Admit { .. }) => Role::Admission,
        Command::Reconcile(asked) if asked.ingest => Role::Admission,
        Command::Serve(asked) if asked.admit => Role::Admission,
        _ => Role::Operator,
    };
    // One command is all that this program does: its config lives as long.
    let config: &'static Config = Box::leak(Box::new(load(path, role)?));
    if let Command::Migrate(asked) = &arguments.command {
        return migrate::run(config, asked).await;
    }
    match &config.embedded {
        Some(embedded) => on(config, File::open(config, embedded)?, arguments.command).await,
        None => on(config, Servers(config), arguments.command).await,
    }
}

async fn on<B: Backend + Send + Sync + 'static>(
    config: &'static Config,
    backend: B,
    command: Command,
) -> Result<(), Failure> {
    if let Command::Serve(asked) = &command {
        return api::serve(config, backend, asked).await;
    }
    let backend = &backend;
    match command {
        Command::Status { json } => status_command(config, backend, json).await,
        Command::Destination(command) => control::command(config, backend, command).await,
        Command::Workers { json } => control::workers(backend, json).await,
        Command::Token(command) => token::command(backend, command).await,
        Command::Audit { limit, json } => control::audit(backend, limit, json).await,
        Command::Tail { wanted, json } => {
            let (histories, id) = (backend.histories()?, wanted.id.as_deref());
            let query = wanted.query()?;
            event::tail(&histories, &query, id, json, &mut text::stdout()).await
        }
        Command::Event(command) => event::command(config, backend, command).await,
        Command::Dead(command) => dead::command(config, backend, command).await,
        Command::Job(command) => job::command(config, backend, command).await,
        Command::Reconcile(asked) => reconcile::run(backend, config, &asked).await,
        Command::Unrouted(command) => unrouted::command(config, backend, command).await,
        Command::Archive(command) => archive::command(config, backend, command).await,
        Command::Refused(command) => refused::command(config, backend, command).await,
        Command::Config
        | Command::Openapi
        | Command::Completions { .. }
        | Command::Man { .. }
        | Command::Serve(_)
        | Command::Source(_)
        | Command::Verify(_)
        | Command::Sign(_)
        | Command::Check
        | Command::Standalone(_)
        | Command::Migrate(_)
        | Command::Demo(_)
        | Command::Rehearse(_) => Ok(()),
    }
}

fn check(path: &Path) -> Result<(), Failure> {
    let config = load(path, Role::Check)?;
    let mut out = text::stdout();
    for advice in config.advice() {
        writeln!(out, "note: {advice}")?;
    }
    let (sources, destinations) = (config.sources.len(), config.destinations.len());
    Ok(writeln!(out, "the config is good: sources: {sources}, destinations: {destinations}")?)
}

async fn status_command(
    config: &Config,
    backend: &impl Backend,
    json: bool,
) -> Result<(), Failure> {
    let status = status::look(backend, config).await?;
    let mut out = text::stdout();
    match json {
        true => print_json(&status, &mut out)?,
        false => status::show(&status, &mut out)?,
    }
    match status.is_up() {
        true => Ok(()),
        false => Err(Failure::Ours("something that all depends on is down: see above.".into())),
    }
}

fn load(path: &Path, role: Role) -> Result<Config, Failure> {
    let environment = config::environment();
    Ok(Config::load(path, role, &environment, &[])?)
}

fn destinations(config: &Config, only: Option<String>) -> Result<Vec<String>, Failure> {
    let all: Vec<String> = config.destinations.iter().map(|d| d.name.clone()).collect();
    match only {
        None => Ok(all),
        Some(name) if all.contains(&name) => Ok(vec![name]),
        Some(name) => Err(Failure::Asked(format!(
            "there is no destination {name}.\nThe config has: {}.",
            all.join(", ")
        ))),
    }
}

fn print_json(value: &impl Serialize, out: &mut impl Write) -> Result<(), Failure> {
    serde_json::to_writer_pretty(&mut *out, value).map_err(std::io::Error::from)?;
    Ok(writeln!(out)?)
}
