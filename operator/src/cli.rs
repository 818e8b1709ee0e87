//! The command line.

use std::path::PathBuf;

use clap::{Parser, Subcommand};
use clap_complete::Shell;

use crate::api::Serve;
use crate::archive::Wanted;
use crate::control::Asked;
use crate::dead::Filter;
use crate::event;
use crate::job::JobCommand;
use crate::payload::Payload;
use crate::reconcile::Reconcile;
use crate::rehearse::{Demo, Rehearse};
use crate::source::{Add, Sign, Verify};
use crate::standalone::Listen;
use crate::token::New;

/// Reads event histories, and lists and re-queues dead letters.
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
        wanted: event::Wanted,
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
pub(crate) enum TokenCommand {
    /// Makes one, and shows it this one time.
    Create(New),
    /// Lists them, without their secrets.
    List {
        /// As JSON.
        #[arg(long)]
        json: bool,
    },
    /// Takes one back.
    Revoke {
        /// As listed.
        id: String,
        #[command(flatten)]
        asked: Asked,
    },
}

#[derive(Subcommand)]
pub(crate) enum DestinationCommand {
    /// Lists them: workers, running attempts, circuit, and whether they are paused.
    List {
        /// As JSON.
        #[arg(long)]
        json: bool,
    },
    /// Stops attempts at it: those that run go on to their end, all others wait, and so do new
    /// events. Reaches all workers within a second, and holds until it is resumed, whatever starts
    /// anew.
    Pause(Told),
    /// Goes on with a paused one.
    Resume(Told),
    /// Has its workers try again now, though their circuits are open.
    CloseCircuit(Told),
}

/// What is told to a destination's workers.
#[derive(clap::Args)]
pub(crate) struct Told {
    /// Which one.
    pub(crate) destination: String,
    #[command(flatten)]
    pub(crate) asked: Asked,
    /// As JSON: how it stands.
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Subcommand)]
pub(crate) enum EventCommand {
    /// Lists deliveries, those that were taken up last first.
    List {
        #[command(flatten)]
        wanted: event::Wanted,
        /// At most so many.
        #[arg(long, default_value_t = 100, value_parser = clap::value_parser!(u32).range(1..=1000))]
        limit: u32,
        /// Where to go on: what the page before it told.
        #[arg(long, conflicts_with = "id")]
        cursor: Option<String>,
        /// As JSON: the deliveries with their histories, and the next page's cursor.
        #[arg(long)]
        json: bool,
    },
    /// Find the events whose bodies contain a text, like a transfer's number: in dead letters, the
    /// archive, and what is unrouted or refused. The audit log records who searched for what. Exit
    /// status 1 if there is none.
    Find {
        /// The text, as it stands in the body that is shown by `--body`.
        #[arg(value_parser = clap::builder::NonEmptyStringValueParser::new())]
        text: String,
        /// Search also what the sources redact.
        #[arg(long)]
        unredacted: bool,
        /// Who searches; for the audit log.
        #[arg(long, env = "USER", default_value = "operator")]
        by: String,
        /// As JSON.
        #[arg(long)]
        json: bool,
    },
    /// Shows where an event stands, and its whole history.
    Show {
        /// A provider's event id, an identity, or a delivery key (destination/source/id).
        id: String,
        /// As JSON: `deliveries`, `accepted` and `refused`, each a list.
        #[arg(long)]
        json: bool,
        /// Writes it as a page for a ticket, in Markdown; `-` is the standard output.
        #[arg(long, value_name = "FILE", conflicts_with = "json")]
        case_file: Option<PathBuf>,
    },
    /// Release a suspected replay or a conflict as an event of its own: the provider meant to send
    /// it. A delivery that waits for its next attempt is attempted now.
    Release {
        /// The provider's id of it, or its delivery key.
        id: String,
        /// Why; for the history.
        #[arg(long, value_parser = reason)]
        reason: String,
        /// Who asks; for the history.
        #[arg(long, env = "USER", default_value = "operator")]
        by: String,
        /// As JSON.
        #[arg(long)]
        json: bool,
    },
    /// Ends the retries of one that waits for its next attempt: it is a dead letter then.
    End {
        /// The provider's id of it, or its delivery key.
        id: String,
        /// Why; for the history.
        #[arg(long, value_parser = reason)]
        reason: String,
        /// Who asks; for the history.
        #[arg(long, env = "USER", default_value = "operator")]
        by: String,
        /// As JSON.
        #[arg(long)]
        json: bool,
    },
}

#[derive(Subcommand)]
pub(crate) enum DeadCommand {
    /// Lists dead deliveries, oldest first. Looks at the journal, not at the queues.
    List {
        #[command(flatten)]
        filter: Filter,
        /// At most so many of each destination.
        #[arg(long, default_value_t = 100)]
        limit: usize,
        /// As JSON.
        #[arg(long)]
        json: bool,
    },
    /// Shows a dead letter: its history, and with --body its original bytes.
    Show {
        /// A provider's event id, an identity, or a delivery key (destination/source/id).
        id: String,
        #[command(flatten)]
        payload: Payload,
        /// As JSON.
        #[arg(long)]
        json: bool,
    },
    /// Sends dead letters back to their work queues, in their order. Each passes the same
    /// seal, claim and attempt as at first, under the same idempotency key.
    Requeue {
        #[command(flatten)]
        letters: Letters,
        /// Why; for the history.
        #[arg(long = "because", value_name = "WHY", default_value = "", value_parser = reason)]
        why: String,
    },
    /// Takes dead letters out of the queues for good, with a reason for the history; into a
    /// file before, with --export. What is drained can't be re-queued any more.
    Drain {
        #[command(flatten)]
        letters: Letters,
        /// Why; for the history.
        #[arg(long = "because", value_name = "WHY", value_parser = reason)]
        why: String,
        /// Writes each letter to the end of this file first, as a line of JSON with its bytes.
        #[arg(long, value_name = "FILE")]
        export: Option<PathBuf>,
        /// Writes there also what the letters' sources redact.
        #[arg(long, requires = "export")]
        unredacted: bool,
    },
}

/// Which dead letters are dealt with, and how.
#[derive(clap::Args, Default)]
pub(crate) struct Letters {
    /// Events or deliveries. None: those that the options choose.
    pub(crate) ids: Vec<String>,
    #[command(flatten)]
    pub(crate) filter: Filter,
    /// All of them.
    #[arg(long, conflicts_with = "ids")]
    pub(crate) all: bool,
    /// At most so many.
    #[arg(long, default_value_t = 1_000_000)]
    pub(crate) limit: usize,
    /// At most so many a second; 0 is no bound.
    #[arg(long, default_value_t = 100)]
    pub(crate) rate: u32,
    /// Only tells how many, which, and how old. So it is without --yes, unless letters are
    /// named.
    #[arg(long)]
    pub(crate) dry_run: bool,
    /// Does it, where letters are chosen and not named.
    #[arg(long, conflicts_with = "dry_run")]
    pub(crate) yes: bool,
    /// Who asks; for the history.
    #[arg(long, env = "USER", default_value = "operator")]
    pub(crate) by: String,
    /// As JSON.
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Subcommand)]
pub(crate) enum UnroutedCommand {
    /// Lists them, oldest first.
    List {
        /// Only this source's.
        #[arg(long)]
        source: Option<String>,
        /// At most so many.
        #[arg(long, default_value_t = 100)]
        limit: usize,
        /// As JSON.
        #[arg(long)]
        json: bool,
    },
    /// Routes those that a destination of the config subscribes to by now. Each passes the
    /// same seal, claim and attempt as any event.
    Requeue {
        /// Only this source's.
        #[arg(long)]
        source: Option<String>,
        /// At most so many.
        #[arg(long, default_value_t = 100)]
        limit: usize,
        /// Only tells which would be routed.
        #[arg(long)]
        dry_run: bool,
        #[command(flatten)]
        asked: Asked,
        /// As JSON.
        #[arg(long)]
        json: bool,
    },
}

#[derive(Subcommand)]
pub(crate) enum SourceCommand {
    /// Lists the catalogue: what each provider signs, and what proves that we read it right.
    List,
    /// Adds a source of a provider to the config, and tells what to enter at the provider.
    Add(Add),
}

#[derive(Subcommand)]
pub(crate) enum ArchiveCommand {
    /// Lists archived events, oldest first.
    List {
        #[command(flatten)]
        wanted: Wanted,
        /// As JSON.
        #[arg(long)]
        json: bool,
    },
    /// Shows one; with --body its original bytes.
    Show {
        /// The provider's id, or the identity.
        id: String,
        #[command(flatten)]
        payload: Payload,
        /// As JSON.
        #[arg(long)]
        json: bool,
    },
}

#[derive(Subcommand)]
pub(crate) enum RefusedCommand {
    /// Lists refused callbacks, oldest first.
    List {
        /// Only this source's.
        #[arg(long)]
        source: Option<String>,
        /// Only those refused for this reason.
        #[arg(long)]
        reason: Option<String>,
        /// At most so many.
        #[arg(long, default_value_t = 100)]
        limit: usize,
        /// As JSON.
        #[arg(long)]
        json: bool,
    },
    /// Shows one: its headers, and with --body the bytes that were received.
    Show {
        /// As listed.
        id: String,
        #[command(flatten)]
        payload: Payload,
        /// As JSON.
        #[arg(long)]
        json: bool,
    },
    /// Lets in what verifies now that the source's secrets are right. Freshness is judged
    /// by the time of receipt. What doesn't verify stays refused.
    Admit {
        /// As listed. None: those chosen by --source and --reason.
        #[arg(required_unless_present = "source")]
        ids: Vec<String>,
        /// Those of this source.
        #[arg(long)]
        source: Option<String>,
        /// Those refused for this reason.
        #[arg(long)]
        reason: Option<String>,
        /// At most so many.
        #[arg(long, default_value_t = 100)]
        limit: usize,
        #[command(flatten)]
        asked: Asked,
        /// Only tells which would be let in.
        #[arg(long)]
        dry_run: bool,
        /// As JSON.
        #[arg(long)]
        json: bool,
    },
}

#[derive(clap::Args)]
pub(crate) struct Migrate {
    /// The file that zentra standalone worked on. From now on, it works on it no more.
    #[arg(long, value_name = "FILE")]
    pub(crate) from: PathBuf,
    /// Only tells what would be moved.
    #[arg(long)]
    pub(crate) dry_run: bool,
    /// As JSON.
    #[arg(long)]
    pub(crate) json: bool,
}

/// The longest reason, in bytes: a history holds it with each letter that it is given for.
const MAX_REASON: usize = 1000;

pub(crate) fn reason(text: &str) -> Result<String, String> {
    match text.len() {
        _ if text.chars().any(char::is_control) => Err("it has control characters".into()),
        0..=MAX_REASON => Ok(text.to_owned()),
        length => Err(format!("{length} bytes are too many for a history; at most {MAX_REASON}")),
    }
}
