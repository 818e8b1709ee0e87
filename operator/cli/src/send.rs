//! `zentra send`: a signed test callback, by the way that the provider's callbacks take.

use std::io::Write;
use std::path::{Path, PathBuf};

use serde_json::json;
use zentra_admin::test_callback::{Prepared, Samples, TestCallback, prepare};

use crate::failure::Failure;
use crate::source::{read, write_headers};
use crate::text::{self, in_shell, print_json};

/// A test callback.
#[derive(clap::Args)]
pub(crate) struct Send {
    /// A source of the configuration, or a provider that one source has.
    #[arg(required_unless_present = "list")]
    source: Option<String>,
    /// Type of the event, for which there is a sample; see --list.
    #[arg(value_name = "TYPE")]
    kind: Option<String>,
    /// List the providers and types of which there are samples.
    #[arg(long, exclusive = true)]
    list: bool,
    /// File with the exact body, instead of a sample (`-`: standard input).
    #[arg(long, value_name = "FILE")]
    body: Option<PathBuf>,
    /// The event's ID (default: a new one). With --body, only if the provider sends it in a header. A
    /// sample has the time at which it is sent: for copies of the same bytes, use --times.
    #[arg(long)]
    id: Option<String>,
    /// Address of the ingress (default: http:// and `ingress.listen`).
    #[arg(long, value_name = "URL")]
    url: Option<String>,
    /// How often to send it. All of them are the same event.
    #[arg(long, value_name = "NUMBER", default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..=1000))]
    times: u16,
    /// Print the request, and don't send it.
    #[arg(long)]
    dry_run: bool,
    /// Send to a source with `environment = "production"` too.
    #[arg(long)]
    force: bool,
    /// Print JSON.
    #[arg(long, conflicts_with = "dry_run")]
    json: bool,
}

/// Sends it. Fails if the ingress does not accept it.
pub(crate) async fn run(config: &Path, asked: &Send) -> Result<(), Failure> {
    let Some(to) = &asked.source else { return Ok(list()?) };
    let callback = TestCallback {
        to: to.clone(),
        kind: asked.kind.clone(),
        body: asked.body.as_deref().map(read).transpose()?,
        id: asked.id.clone(),
        url: asked.url.clone(),
        force: asked.force || asked.dry_run,
    };
    let prepared = prepare(config, &callback)?;
    if asked.dry_run {
        return Ok(show(&prepared)?);
    }
    let answers = prepared.send(asked.times).await?;
    let mut out = text::stdout();
    match asked.json {
        true => print_json(&json!({ "callback": prepared, "answers": answers }), &mut out)?,
        false => report(&prepared, &answers, &options(config), &mut out)?,
    }
    let refused = answers.iter().find(|answer| !answer.starts_with('2'));
    refused.map_or(Ok(()), |answer| Err(not_accepted(&prepared, answer, &options(config))))
}

/// Options with which other commands see the event.
fn options(config: &Path) -> String {
    let is_default =
        config == Path::new("zentra.toml") || std::env::var_os("ZENTRA_CONFIG").is_some();
    if is_default { String::new() } else { format!(" --config {}", in_shell(config)) }
}

fn report(
    prepared: &Prepared,
    answers: &[String],
    options: &str,
    out: &mut impl Write,
) -> std::io::Result<()> {
    let kind = prepared.kind.as_deref().unwrap_or("event");
    let alike = answers.chunk_by(|one, other| one == other).map(|answers| match answers.len() {
        1 => answers[0].clone(),
        count => format!("{count} × {}", answers[0]),
    });
    let answers_text = alike.collect::<Vec<_>>().join(", ");
    writeln!(out, "{kind} to {}: {answers_text}", prepared.url)?;
    let is_accepted = answers.iter().any(|answer| answer.starts_with('2'));
    match &prepared.event_id {
        Some(id) if is_accepted => writeln!(out, "See it: zentra event show {id}{options}"),
        None if is_accepted => {
            writeln!(out, "See it: zentra event list --source {}{options}", prepared.source)
        }
        _ => Ok(()),
    }
}

fn not_accepted(prepared: &Prepared, answer: &str, options: &str) -> Failure {
    let next = match answer.get(..3) {
        Some("no ") => "Does the ingress run there? With TLS, or elsewhere: --url https://…".into(),
        Some("400" | "401" | "403" | "409" | "422") => format!("See zentra refused list{options}."),
        _ => "See the log of the ingress (zentra dev: .zentra/dev.log).".into(),
    };
    Failure::Asked(format!("{} did not accept it: {answer}.\n{next}", prepared.url))
}

/// The request as a provider sends it.
fn show(prepared: &Prepared) -> std::io::Result<()> {
    let mut out = std::io::stdout().lock();
    writeln!(out, "POST {}", prepared.url)?;
    write_headers(prepared.headers(), &mut out)?;
    writeln!(out)?;
    out.write_all(prepared.body())?;
    writeln!(out)
}

fn list() -> std::io::Result<()> {
    let mut out = text::stdout();
    for provider in Samples::providers() {
        let samples = Samples::of(provider);
        let types: Vec<&str> = samples.iter().flat_map(Samples::types).collect();
        writeln!(out, "{provider:<18} {}", types.join(", "))?;
    }
    Ok(())
}
