//! The command line.

use std::path::PathBuf;

use clap::{Parser, Subcommand};

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
    /// Events and their histories.
    #[command(subcommand)]
    Event(EventCommand),
    /// Dead letters.
    #[command(subcommand)]
    Dead(DeadCommand),
    /// Accepted events that no destination subscribes to.
    #[command(subcommand)]
    Unrouted(UnroutedCommand),
    /// Refused callbacks that were kept.
    #[command(subcommand)]
    Refused(RefusedCommand),
    /// Checks the whole config: tells all its problems, and what it had better say.
    Check,
    /// Prints the reference of the configuration: every key, its default, its meaning.
    Config,
}

#[derive(Subcommand)]
pub(crate) enum EventCommand {
    /// Shows where an event stands, and its whole history.
    Show {
        /// A provider's event id, an identity, or a delivery key (destination/source/id).
        id: String,
        /// As JSON: a list with one element per delivery.
        #[arg(long)]
        json: bool,
    },
    /// Lets a suspected replay go on as an event of its own: the provider did mean to send
    /// the same bytes again.
    Release {
        /// The provider's id of it, or its delivery key.
        id: String,
        /// Why; for the history.
        #[arg(long)]
        reason: String,
        /// Look through at most so many dead letters.
        #[arg(long, default_value_t = 10_000)]
        look: usize,
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
    /// Lists dead deliveries, oldest first. Looks at the journal, not at the queue.
    List {
        /// Only this destination's.
        #[arg(long)]
        destination: Option<String>,
        /// At most so many of each destination.
        #[arg(long, default_value_t = 100)]
        limit: usize,
        /// As JSON.
        #[arg(long)]
        json: bool,
    },
    /// Sends a dead letter back to its work queue. It passes the same seal, claim and
    /// attempt as at first.
    Requeue {
        /// A provider's event id, an identity, or a delivery key (destination/source/id).
        id: String,
        /// Look through at most so many dead letters.
        #[arg(long, default_value_t = 10_000)]
        look: usize,
        /// Who asks; for the history.
        #[arg(long, env = "USER", default_value = "operator")]
        by: String,
        /// As JSON.
        #[arg(long)]
        json: bool,
    },
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
        /// Writes its body and nothing else.
        #[arg(long, conflicts_with = "json")]
        body: bool,
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
        /// Who asks; for the history.
        #[arg(long, env = "USER", default_value = "operator")]
        by: String,
        /// Only tells which would be let in.
        #[arg(long)]
        dry_run: bool,
        /// As JSON.
        #[arg(long)]
        json: bool,
    },
}
