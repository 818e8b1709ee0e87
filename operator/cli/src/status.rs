//! `zentra status`.

use std::io::Write;
use std::time::Duration;

use zentra_admin::Backend;
use zentra_admin::status::{self, Rate, Source, Status};
use zentra_config::Config;
use zentra_core::clock::Timestamp;

use crate::failure::Failure;
use crate::table;
use crate::text::{self, print_json};

pub(crate) async fn command(
    config: &Config,
    backend: &impl Backend,
    json: bool,
) -> Result<(), Failure> {
    let status = status::look(backend, config).await?;
    let mut out = text::stdout();
    match json {
        true => print_json(&status, &mut out)?,
        false => show(&status, &mut out)?,
    }
    match status.is_up() {
        true => Ok(()),
        false => Err(Failure::Ours("a part that everything depends on is down: see above.".into())),
    }
}

/// Shows it.
fn show(status: &Status, out: &mut impl Write) -> std::io::Result<()> {
    for part in &status.parts {
        match &part.problem {
            None => writeln!(out, "{:<10} up", part.name)?,
            Some(problem) => writeln!(out, "{:<10} DOWN: {}", part.name, first_line(problem))?,
        }
    }
    if let Some(count) = status.unrouted.filter(|count| *count > 0) {
        writeln!(out, "{:<10} {count} (zentra unrouted list)", "unrouted")?;
    }
    writeln!(out)?;
    let ago = |at: Option<Timestamp>| at.map_or("never".into(), |at| ago(status.at, at));
    let sources = status.sources.iter().map(|source| {
        let delay = source.delay_ms.map(|(middle, _)| short(Duration::from_millis(middle)));
        let refused: u64 = source.refused.values().sum();
        let keys = source.keys_in_use.iter().cloned().collect::<Vec<_>>().join(",");
        [
            source.source.clone(),
            ago(source.last_accepted),
            source.events.to_string(),
            source.copies.count.to_string(),
            delay.unwrap_or_else(|| "-".into()),
            refused.to_string(),
            keys,
            findings(&source.findings),
        ]
    });
    let names = ["SOURCE", "LAST", "EVENTS", "COPIES", "DELAY", "REFUSED", "KEYS", "FINDINGS"];
    table::write(out, names, sources)?;
    for source in &status.sources {
        for rate in rates(source) {
            writeln!(out, "{}: {rate}", source.source)?;
        }
    }
    writeln!(out)?;
    let destinations = status.destinations.iter().map(|one| {
        let rate = match one.attempts {
            0 => "-".into(),
            all => format!("{} %", one.succeeded * 100 / all),
        };
        let dead: usize = one.dead.values().sum();
        [
            one.destination.clone(),
            ago(one.last_delivered),
            one.backlog.map_or_else(|| "-".into(), |count| count.to_string()),
            (one.waiting + one.in_flight).to_string(),
            one.oldest.map_or_else(|| "-".into(), |at| ago(Some(at))),
            rate,
            dead.to_string(),
            findings(&one.findings),
        ]
    });
    let names =
        ["DESTINATION", "LAST", "BACKLOG", "WAITING", "OLDEST", "SUCCESS", "DEAD", "FINDINGS"];
    table::write(out, names, destinations)?;
    let seen = &status.seen;
    writeln!(out)?;
    match (seen.since, seen.all) {
        (None, _) => writeln!(out, "No deliveries are remembered."),
        (Some(_), true) => {
            writeln!(out, "Counted over all {} remembered deliveries.", seen.deliveries)
        }
        (Some(since), false) => {
            writeln!(out, "Counted over the newest {} deliveries, since {since}.", seen.deliveries)
        }
    }
}

/// What is worth a line of its own.
fn rates(of: &Source) -> Vec<String> {
    let all = [
        ("conflicts", &of.conflicts),
        ("rendered retries", &of.rendered_retries),
        ("suspected replays", &of.suspected_replays),
    ];
    let some = all.into_iter().filter(|(_, rate)| rate.count > 0);
    let line = |(name, rate): (&str, &Rate)| {
        let Rate { count, last_hour, last_hour_percent, .. } = rate;
        format!("{count} {name} ({last_hour} in the last hour: {last_hour_percent:.1} %)")
    };
    some.map(line).collect()
}

fn findings(all: &[&str]) -> String {
    match all {
        [] => "-".into(),
        all => all.join(", ").replace('_', " "),
    }
}

fn ago(now: Timestamp, at: Timestamp) -> String {
    format!("{} ago", short(now.since(at)))
}

/// In its largest unit.
fn short(time: Duration) -> String {
    let seconds = time.as_secs();
    match seconds {
        0 => format!("{} ms", time.as_millis()),
        1..120 => format!("{seconds} s"),
        120..7200 => format!("{} m", seconds / 60),
        7200..172_800 => format!("{} h", seconds / 3600),
        _ => format!("{} d", seconds / 86_400),
    }
}

fn first_line(text: &str) -> &str {
    text.lines().next().unwrap_or_default()
}
