//! `zentra migrate`.

use std::io::Write;
use std::path::PathBuf;

use zentra_admin::migrate::{self, Moved};
use zentra_admin::progress::Progress as _;
use zentra_config::Config;

use crate::failure::Failure;
use crate::progress::Bar;
use crate::text::{self, print_json};

#[derive(clap::Args)]
pub(crate) struct Migrate {
    /// The file of `zentra standalone`. From now on, only `zentra migrate` can open it.
    #[arg(long, value_name = "FILE")]
    from: PathBuf,
    /// Print what would be moved, and change nothing.
    #[arg(long)]
    dry_run: bool,
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

pub(crate) async fn run(config: &Config, asked: &Migrate) -> Result<(), Failure> {
    let bar = Bar::new();
    let moved = migrate::run(config, &asked.from, asked.dry_run, &bar).await;
    bar.done();
    let (moved, mut out) = (moved?, text::stdout());
    match asked.json {
        true => print_json(&moved, &mut out),
        false => Ok(tell(&moved, asked.dry_run, &mut out)?),
    }
}

fn tell(moved: &Moved, dry_run: bool, out: &mut impl Write) -> std::io::Result<()> {
    let Moved { deliveries, known, work, dead, unrouted, refused, archived, not_archived } = moved;
    writeln!(out, "{}", if dry_run { "would be moved" } else { "moved" })?;
    writeln!(out, "  remembered deliveries  {deliveries}")?;
    if *known > 0 {
        writeln!(out, "    (Redis has {known} of them already: they stay unchanged)")?;
    }
    writeln!(out, "  to be delivered        {work}")?;
    writeln!(out, "  dead letters           {dead}")?;
    writeln!(out, "  unrouted events        {unrouted}")?;
    writeln!(out, "  refused callbacks      {refused}")?;
    writeln!(out, "  archived events        {archived}")?;
    if *not_archived > 0 {
        writeln!(
            out,
            "    (and {not_archived} whose source is no longer archived: left in the file)"
        )?;
    }
    match dry_run {
        true => Ok(()),
        false => writeln!(out, "Start zentra-ingress and zentra-worker now."),
    }
}
