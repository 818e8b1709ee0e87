//! The `zentra` command.

mod actor;
mod archive;
mod arguments;
mod console;
mod dead;
mod destination;
mod dev;
mod doctor;
mod errors;
mod event;
mod failure;
mod history;
mod incident;
mod init;
mod job;
mod listen;
mod manual;
mod migrate;
mod payload;
mod plan;
mod progress;
mod reconcile;
mod refused;
mod rehearse;
mod send;
mod serve;
#[cfg(test)]
mod shown;
mod source;
mod standalone;
mod status;
mod table;
mod text;
mod token;
mod unrouted;

use std::io::Write;
use std::path::Path;
use std::process::ExitCode;

use clap::Parser;
use zentra_admin::Backend;
use zentra_admin::backend::{File, Servers};
use zentra_config::{Config, Role};

use arguments::{Arguments, Command, SourceCommand};
use failure::Failure;
use refused::RefusedCommand;
use text::print_json;

/// Exit status for an invalid command line (`EX_USAGE`).
const USAGE: u8 = 64;

/// Most allocations of `zentra standalone` are small and short-lived; `make bench` measured the
/// gain.
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
    match arguments.command {
        // It decides where its logs go.
        Command::Dev(_) => {}
        Command::Standalone(_) | Command::Serve(_) => {
            zentra_telemetry::init_logs("info");
            zentra_telemetry::otlp::start("zentra");
        }
        _ => zentra_telemetry::init_logs("warn"),
    }
    let ended = run(arguments).await;
    zentra_telemetry::otlp::finish().await;
    match ended {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => failure.report(),
    }
}

async fn run(arguments: Arguments) -> Result<(), Failure> {
    let path = &arguments.config;
    let role = match &arguments.command {
        Command::Config { schema: false } => {
            return Ok(write!(std::io::stdout(), "{}", zentra_config::reference())?);
        }
        Command::Config { schema: true } => {
            return print_json(&zentra_config::schema(), &mut std::io::stdout());
        }
        Command::Openapi => return openapi(),
        Command::Errors => return Ok(write!(std::io::stdout(), "{}", errors::page())?),
        Command::Completions { shell } => {
            return manual::completions(*shell, &mut std::io::stdout());
        }
        Command::Man { folder } => {
            let pages = manual::pages(folder)?.len();
            return Ok(writeln!(std::io::stdout(), "{pages} pages are in {}", folder.display())?);
        }
        Command::Source(SourceCommand::List { json: false }) => {
            return Ok(write!(std::io::stdout(), "{}", webhook_verify::table())?);
        }
        Command::Source(SourceCommand::List { json: true }) => {
            return print_json(&source::catalogue(), &mut std::io::stdout());
        }
        Command::Source(SourceCommand::Add(asked)) => return source::add(path, asked),
        Command::Verify(asked) => return source::verify(path, asked),
        Command::Sign(asked) => return source::sign(path, asked),
        Command::Send(asked) => return send::run(path, asked).await,
        Command::Init(asked) => return init::run(path, asked),
        Command::Doctor(asked) => return doctor::run(path, asked).await,
        Command::Listen(asked) => return listen::run(asked).await,
        Command::Health { url } => return health(url).await,
        Command::Check { json: false } => return check(path),
        Command::Check { json: true } => return check_as_json(path),
        Command::Dev(asked) => return dev::run(path, asked).await,
        Command::Standalone(listen) => return standalone::run(path, listen).await,
        Command::Demo(asked) => return rehearse::demo(asked).await,
        Command::Rehearse(asked) => return rehearse::rehearse(path, asked).await,
        Command::Refused(RefusedCommand::Admit { .. } | RefusedCommand::Explain { .. }) => {
            Role::Admission
        }
        Command::Reconcile(asked) if asked.ingest => Role::Admission,
        Command::Serve(asked) if asked.admit => Role::AdmittingServer,
        Command::Serve(_) | Command::Notify(_) => Role::Server,
        _ => Role::Operator,
    };
    // One command is all that this program does: its config lives as long.
    let config: &'static Config = Box::leak(Box::new(load(path, role)?));
    if let Command::Migrate(asked) = &arguments.command {
        return migrate::run(config, asked).await;
    }
    if let Command::Plan { json } = &arguments.command {
        return plan::run(config, *json).await;
    }
    match (&config.embedded, &arguments.command) {
        (Some(embedded), Command::Serve(asked)) => {
            serve::run(config, File::open_upgraded(config, embedded).await?, asked).await
        }
        (Some(embedded), _) => on(config, File::open(config, embedded)?, arguments.command).await,
        (None, _) => on(config, Servers::new(config)?, arguments.command).await,
    }
}

async fn on<B: Backend + 'static>(
    config: &'static Config,
    backend: B,
    command: Command,
) -> Result<(), Failure> {
    if let Command::Serve(asked) = &command {
        return serve::run(config, backend, asked).await;
    }
    let done = with(config, &backend, command).await;
    // Acknowledgements reach the broker before the program ends.
    backend.close().await;
    done
}

async fn with(config: &Config, backend: &impl Backend, command: Command) -> Result<(), Failure> {
    match command {
        Command::Status { json } => status::command(config, backend, json).await,
        Command::Destination(command) => destination::command(config, backend, command).await,
        Command::Workers { json } => destination::workers(backend, json).await,
        Command::Console(command) => console::command(backend, command).await,
        Command::Token(command) => token::command(config, backend, command).await,
        Command::Incident(command) => incident::command(backend, command).await,
        Command::Notify(command) => incident::notify(config, backend, command).await,
        Command::Audit { limit, json } => destination::audit(backend, limit, json).await,
        Command::Tail { wanted, json } => event::tail(backend, &wanted, json).await,
        Command::Event(command) => event::command(config, backend, command).await,
        Command::Dead(command) => dead::command(config, backend, command).await,
        Command::Job(command) => job::command(config, backend, command).await,
        Command::Reconcile(asked) => reconcile::run(config, backend, asked).await,
        Command::Unrouted(command) => unrouted::command(config, backend, command).await,
        Command::Archive(command) => archive::command(config, backend, command).await,
        Command::Refused(command) => refused::command(config, backend, command).await,
        Command::Config { .. }
        | Command::Errors
        | Command::Openapi
        | Command::Completions { .. }
        | Command::Man { .. }
        | Command::Serve(_)
        | Command::Source(_)
        | Command::Verify(_)
        | Command::Sign(_)
        | Command::Send(_)
        | Command::Init(_)
        | Command::Check { .. }
        | Command::Doctor(_)
        | Command::Plan { .. }
        | Command::Health { .. }
        | Command::Listen(_)
        | Command::Standalone(_)
        | Command::Migrate(_)
        | Command::Demo(_)
        | Command::Dev(_)
        | Command::Rehearse(_) => Ok(()),
    }
}

fn openapi() -> Result<(), Failure> {
    let document = zentra_api::document().map_err(std::io::Error::from)?;
    Ok(writeln!(std::io::stdout(), "{document}")?)
}

async fn health(url: &str) -> Result<(), Failure> {
    let unhealthy = |why| Failure::Asked(format!("not healthy: {why}\nSee the program's log."));
    zentra_admin::doctor::health(url).await.map_err(unhealthy)
}

fn check(path: &Path) -> Result<(), Failure> {
    let config = load(path, Role::Check)?;
    let mut out = text::stdout();
    for advice in config.advice() {
        writeln!(out, "note: {advice}")?;
    }
    let (sources, destinations) = (config.sources.len(), config.destinations.len());
    Ok(writeln!(
        out,
        "the configuration is valid: sources: {sources}, destinations: {destinations}"
    )?)
}

/// Prints the result as JSON, also of an invalid configuration.
fn check_as_json(path: &Path) -> Result<(), Failure> {
    let loaded = Config::load(path, Role::Check, &zentra_config::environment(), &[]);
    let result = match &loaded {
        Ok(config) => serde_json::json!({
            "valid": true, "problems": [], "notes": config.advice(),
            "sources": config.sources.len(), "destinations": config.destinations.len(),
        }),
        Err(error) => serde_json::json!({ "valid": false, "problems": error.0, "notes": [] }),
    };
    print_json(&result, &mut text::stdout())?;
    loaded.map(|_| ()).map_err(Into::into)
}

fn load(path: &Path, role: Role) -> Result<Config, Failure> {
    let environment = zentra_config::environment();
    Ok(Config::load(path, role, &environment, &[])?)
}
