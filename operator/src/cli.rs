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
