//! `zentra migrate`.

use std::io::Write;
use std::path::{Path, PathBuf};

use zentra_admin::migrate::{self, Copied, Moved};
use zentra_admin::progress::Progress as _;
use zentra_config::{Config, Role};

use crate::failure::Failure;
use crate::progress::Bar;
use crate::text::{self, print_json};

#[derive(clap::Args)]
pub(crate) struct Migrate {
    /// The file of `zentra standalone`. From now on, only `zentra migrate` can open it.
    #[arg(long, value_name = "FILE", required_unless_present = "from_redis")]
    from: Option<PathBuf>,
    /// A configuration with the old `[redis]`: what it remembers is copied to the new one, also from one
    /// server to a cluster. Stop all workers first. RabbitMQ is not touched.
    #[arg(long, value_name = "CONFIG", conflicts_with = "from")]
    from_redis: Option<PathBuf>,
    /// Print what would be moved, and change nothing.
    #[arg(long)]
    dry_run: bool,
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

pub(crate) async fn run(config: &Config, asked: &Migrate) -> Result<(), Failure> {
    let bar = Bar::new();
    let mut out = text::stdout();
    if let Some(old) = &asked.from_redis {
        let old = crate::load(old, Role::Operator)?;
        let copied = migrate::between_stores(config, &old, asked.dry_run, &bar).await;
        bar.done();
        return match asked.json {
            true => print_json(&copied?, &mut out),
            false => Ok(tell_copied(&copied?, asked.dry_run, &mut out)?),
        };
    }
    // The command line asks for one of them.
    let from = asked.from.as_deref().unwrap_or(Path::new(""));
    let moved = migrate::run(config, from, asked.dry_run, &bar).await;
    bar.done();
    match asked.json {
        true => print_json(&moved?, &mut out),
        false => Ok(tell(&moved?, asked.dry_run, &mut out)?),
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

fn tell_copied(copied: &Copied, dry_run: bool, out: &mut impl Write) -> std::io::Result<()> {
    let Copied { deliveries, known, others, others_known } = copied;
    writeln!(out, "{}", if dry_run { "would be copied" } else { "copied" })?;
    writeln!(out, "  remembered deliveries         {deliveries}")?;
    writeln!(out, "  indexes, tokens, audit, jobs  {others} keys")?;
    if known + others_known > 0 {
        writeln!(
            out,
            "    (the new Redis has {known} deliveries and {others_known} other keys already: \
             they stay unchanged)"
        )?;
    }
    match dry_run {
        true => Ok(()),
        false => writeln!(out, "Start zentra-worker with the new configuration now."),
    }
}
