//! The command line.

use std::path::PathBuf;

use clap::{Parser, Subcommand};
use clap_complete::Shell;

use crate::archive::ArchiveCommand;
use crate::console::ConsoleCommand;
use crate::dead::DeadCommand;
use crate::destination::DestinationCommand;
use crate::dev::Dev;
use crate::doctor::Doctor;
use crate::event::{DeliveryArgs, EventCommand};
use crate::incident::{IncidentCommand, NotifyCommand};
use crate::init::Init;
use crate::job::JobCommand;
use crate::listen::ListenOptions;
use crate::migrate::Migrate;
use crate::reconcile::Reconcile;
use crate::refused::RefusedCommand;
use crate::rehearse::{Demo, Rehearse};
use crate::send::Send;
use crate::serve::Serve;
use crate::source::{Add, Sign, Verify};
use crate::standalone::Listen;
use crate::token::TokenCommand;
use crate::unrouted::UnroutedCommand;

/// Receive webhooks safely: configure Zentra, run it on one machine, look at events, act on dead
/// letters, rehearse failures.
#[derive(Parser)]
#[command(name = "zentra", version)]
pub(crate) struct Arguments {
    /// Path of the configuration file.
    #[arg(long, global = true, env = "ZENTRA_CONFIG", default_value = "zentra.toml")]
    pub(crate) config: PathBuf,
    #[command(subcommand)]
    pub(crate) command: Command,
}

#[derive(Subcommand)]
pub(crate) enum Command {
    /// Write a configuration with its secrets for one or more providers, to start with.
    Init(Init),
    /// Run Zentra for development: on one file, with every destination at your application. Show live
    /// what happens; `r` replays an event.
    Dev(Dev),
    /// Run the demo: one callback arrives three times, with a failed attempt and a killed worker,
    /// and has one result.
    Demo(Demo),
    /// Rehearse failures of production: play provider and destination, and compare promises with
    /// observations. Uses a private Zentra, or yours.
    Rehearse(Rehearse),
    /// Receive and deliver callbacks in one process on one file (`embedded.path`), without RabbitMQ
    /// and Redis.
    Standalone(Listen),
    /// Show the health of RabbitMQ, Redis, sources, destinations and workers. Exit status 2 if a
    /// part that everything depends on is down.
    Status {
        /// Print JSON.
        #[arg(long)]
        json: bool,
    },
    /// Print what happens to the newest 1,000 deliveries, until it is stopped.
    Tail {
        #[command(flatten)]
        wanted: DeliveryArgs,
        /// Print JSON, one object per line.
        #[arg(long)]
        json: bool,
    },
    /// List, pause and resume destinations.
    #[command(subcommand)]
    Destination(DestinationCommand),
    /// Sign in to the web console, which zentra serve, standalone and dev serve.
    #[command(subcommand)]
    Console(ConsoleCommand),
    /// Serve the web console, and the HTTP API for operators under /v1. Every request of the API needs a
    /// token.
    Serve(Serve),
    /// Forward events of a shared Zentra to an application on this machine, by the API. Forwards
    /// copies, or pulls.
    Listen(ListenOptions),
    /// List running workers.
    Workers {
        /// Print JSON.
        #[arg(long)]
        json: bool,
    },
    /// Create, list and revoke tokens of the HTTP API.
    #[command(subcommand)]
    Token(TokenCommand),
    /// List incidents; acknowledge and resolve them.
    #[command(subcommand)]
    Incident(IncidentCommand),
    /// Test the receivers of notifications.
    #[command(subcommand)]
    Notify(NotifyCommand),
    /// List operators' actions, newest first.
    Audit {
        /// Maximum number of items.
        #[arg(long, default_value_t = 100)]
        limit: usize,
        /// Print JSON.
        #[arg(long)]
        json: bool,
    },
    /// List, find and show events; release or end waiting ones.
    #[command(subcommand)]
    Event(EventCommand),
    /// List, show, requeue and drain dead letters.
    #[command(subcommand)]
    Dead(DeadCommand),
    /// Requeue many dead letters, or replay archived events, with a canary and a rate.
    #[command(subcommand)]
    Job(JobCommand),
    /// Compare a provider's list of events with what came: missing, dead, differing. Exit status 1
    /// if there is any.
    Reconcile(Reconcile),
    /// List and route accepted events that no destination subscribes to.
    #[command(subcommand)]
    Unrouted(UnroutedCommand),
    /// List and show accepted events.
    #[command(subcommand)]
    Archive(ArchiveCommand),
    /// List, show and admit refused callbacks.
    #[command(subcommand)]
    Refused(RefusedCommand),
    /// Move an embedded file's content to RabbitMQ and Redis: undelivered events, dead letters, the
    /// archive and all remembered deliveries. Stop `zentra standalone` first, and start ingress and
    /// workers afterwards. If it is interrupted, run it again.
    Migrate(Migrate),
    /// Add sources, and list the catalogue of providers.
    #[command(subcommand)]
    Source(SourceCommand),
    /// Explain step by step why a captured request verifies or not, with usual causes. Shows no
    /// secret. Exit status 1 if it would be refused.
    Verify(Verify),
    /// Sign a test request as the source's provider would.
    Sign(Sign),
    /// Send a signed test callback to the ingress, as the source's provider would. There are samples
    /// for 21 providers.
    Send(Send),
    /// Validate the configuration; print every error and recommendation.
    Check {
        /// Print JSON.
        #[arg(long)]
        json: bool,
    },
    /// Print what a start of this version with this configuration changes: exchanges, queues and bindings of
    /// RabbitMQ, or the tables of the embedded file. Changes nothing. Also prints the versions of running workers,
    /// and what a newer version has stored. Exit status 1 if a start would fail.
    Plan {
        /// Print JSON.
        #[arg(long)]
        json: bool,
    },
    /// Examine the installation: configuration, file permissions, RabbitMQ and Redis with their
    /// settings, clocks, certificates, destinations, disk. Changes nothing, and sends no request to a
    /// destination. Exit status 1 if there is a problem.
    Doctor(Doctor),
    /// Ask a health endpoint (/livez, /readyz) once. Exit status 1 if it does not answer 2xx within 5 s.
    /// For containers.
    Health {
        /// Its URL, like http://127.0.0.1:9080/readyz.
        url: String,
    },
    /// Print the configuration reference: every key, its default and meaning.
    Config {
        /// Print the JSON Schema of the configuration, for editors.
        #[arg(long)]
        schema: bool,
    },
    /// Print the OpenAPI document of the HTTP API.
    Openapi,
    /// Print the table of error codes, HTTP statuses and exit statuses.
    Errors,
    /// Print the completion script of a shell: source <(zentra completions bash).
    Completions {
        /// The shell.
        shell: Shell,
    },
    /// Write manual pages, one for each command, into a folder: man -l FOLDER/zentra.1
    Man {
        /// The folder.
        folder: PathBuf,
    },
}

#[derive(Subcommand)]
pub(crate) enum SourceCommand {
    /// List the catalogue: what each provider signs, and whether it is proven.
    List {
        /// Print JSON.
        #[arg(long)]
        json: bool,
    },
    /// Add a source to the configuration; print what to enter at the provider.
    Add(Add),
}
