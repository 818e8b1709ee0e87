//! The command line.

use std::path::PathBuf;

use clap::{Parser, Subcommand};
use clap_complete::Shell;

use crate::archive::ArchiveCommand;
use crate::dead::DeadCommand;
use crate::destination::DestinationCommand;
use crate::event::{DeliveryArgs, EventCommand};
use crate::job::JobCommand;
use crate::migrate::Migrate;
use crate::reconcile::Reconcile;
use crate::refused::RefusedCommand;
use crate::rehearse::{Demo, Rehearse};
use crate::serve::Serve;
use crate::source::{Add, Sign, Verify};
use crate::standalone::Listen;
use crate::token::TokenCommand;
use crate::unrouted::UnroutedCommand;

/// Operate Zentra: events, dead letters, refused callbacks, jobs, destinations, tokens; configure and rehearse it.
#[derive(Parser)]
#[command(name = "zentra", version)]
pub(crate) struct Arguments {
    /// The configuration file.
    #[arg(long, global = true, default_value = "zentra.toml")]
    pub(crate) config: PathBuf,
    #[command(subcommand)]
    pub(crate) command: Command,
}

#[derive(Subcommand)]
pub(crate) enum Command {
    /// Shows what Zentra is for: a transfer's callback arrives three times, with a failed attempt
    /// and a killed worker in between, and has one result.
    Demo(Demo),
    /// Rehearses production's failures: plays provider and destination, and compares what is
    /// promised with what comes of it. On a private Zentra, or on yours.
    Rehearse(Rehearse),
    /// Takes callbacks and delivers them, all in one program and one file ([embedded] path),
    /// without RabbitMQ and Redis.
    Standalone(Listen),
    /// Tells whether all is well: what Zentra depends on, each source, each destination. Exit status
    /// 2 if something that all depends on is down.
    Status {
        /// As JSON.
        #[arg(long)]
        json: bool,
    },
    /// Tells what happens, as it happens, of the newest thousand deliveries, until it is stopped.
    Tail {
        #[command(flatten)]
        wanted: DeliveryArgs,
        /// As JSON, a line each.
        #[arg(long)]
        json: bool,
    },
    /// Destinations: how they stand, and what their workers are to do.
    #[command(subcommand)]
    Destination(DestinationCommand),
    /// Serves the operators' API by HTTP, under /v1, until it is stopped. Who asks needs a token.
    Serve(Serve),
    /// Lists the workers that run.
    Workers {
        /// As JSON.
        #[arg(long)]
        json: bool,
    },
    /// Tokens for the operators' API.
    #[command(subcommand)]
    Token(TokenCommand),
    /// Lists what operators did, when and why: the newest first.
    Audit {
        /// At most so many.
        #[arg(long, default_value_t = 100)]
        limit: usize,
        /// As JSON.
        #[arg(long)]
        json: bool,
    },
    /// Events and their histories.
    #[command(subcommand)]
    Event(EventCommand),
    /// Dead letters.
    #[command(subcommand)]
    Dead(DeadCommand),
    /// Many dead letters at once: planned, tried on a few, and run at a pace of their own.
    #[command(subcommand)]
    Job(JobCommand),
    /// Compares what a provider says it had with what came: missing, dead, differing. Exit status 1 if
    /// any is; --ingest brings in what is missing.
    Reconcile(Reconcile),
    /// Accepted events that no destination subscribes to.
    #[command(subcommand)]
    Unrouted(UnroutedCommand),
    /// What was accepted, whatever became of it.
    #[command(subcommand)]
    Archive(ArchiveCommand),
    /// Refused callbacks that were kept.
    #[command(subcommand)]
    Refused(RefusedCommand),
    /// Moves what an embedded file holds to the RabbitMQ and Redis of the config: what is
    /// undelivered, the dead, the archive, and all that is remembered. Stop zentra standalone
    /// before, and start ingress and workers after it. If it is broken off, run it again.
    Migrate(Migrate),
    /// Sources, and the providers that they can be of.
    #[command(subcommand)]
    Source(SourceCommand),
    /// Explains, step by step, why a captured request does or doesn't verify, and what usually is
    /// behind it. Shows no secret. Exit status 1 if it would be refused.
    Verify(Verify),
    /// Signs a request as a source's provider would, for testing.
    Sign(Sign),
    /// Checks the whole config: tells all its problems, and what it had better say.
    Check,
    /// Prints the reference of the configuration: every key, its default, its meaning.
    Config,
    /// Print the OpenAPI document of the HTTP API.
    Openapi,
    /// Print the table of error codes, HTTP statuses and exit statuses.
    Errors,
    /// Prints what a shell reads to complete this command line: source <(zentra completions bash).
    Completions {
        /// For which shell.
        shell: Shell,
    },
    /// Writes manual pages, one for each command, into a folder: man -l FOLDER/zentra.1
    Man {
        /// Where to.
        folder: PathBuf,
    },
}

#[derive(Subcommand)]
pub(crate) enum SourceCommand {
    /// Lists the catalogue: what each provider signs, and what proves that we read it right.
    List,
    /// Adds a source of a provider to the config, and tells what to enter at the provider.
    Add(Add),
}
