//! `zentra verify` and `zentra sign`: captured and made requests.

use std::io::{Read, Write};
use std::path::{Path, PathBuf};

use http::{HeaderMap, header};
use serde_json::json;
use webhook_verify::Secret;
use webhook_verify::{Callback, Explanation, Signed, Unverified, captured};
use zentra_config::Config;
use zentra_core::clock::{self, Timestamp};
use zentra_core::source::Source;

use crate::failure::Failure;
use crate::text;

/// A captured request.
#[derive(clap::Args)]
pub(crate) struct Verify {
    /// The source that received it.
    #[arg(long)]
    source: String,
    /// File with the headers as `Name: value` lines. If the query matters, the request line comes
    /// first (`POST /in/x?a=b HTTP/1.1`).
    #[arg(long, value_name = "FILE")]
    headers: PathBuf,
    /// File with the exact body (`-`: standard input).
    #[arg(long, value_name = "FILE")]
    body: PathBuf,
    /// Time of receipt (2026-11-26T12:00:00Z or Unix seconds; default: now).
    #[arg(long, value_parser = time)]
    at: Option<Timestamp>,
    /// File with the provider's published key (a certificate in PEM).
    #[arg(long, value_name = "FILE")]
    key: Option<PathBuf>,
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

/// A test request.
#[derive(clap::Args)]
pub(crate) struct Sign {
    /// The source that will receive it.
    #[arg(long)]
    source: String,
    /// File with the exact body (`-`: standard input).
    #[arg(long, value_name = "FILE")]
    body: PathBuf,
    /// The event's id, if the provider sends it in a header.
    #[arg(long, default_value = "evt_test")]
    id: String,
    /// The event's type, if the provider sends it in a header.
    #[arg(long = "type", default_value = "test")]
    kind: String,
    /// Name of the secret (default: the first one).
    #[arg(long, value_name = "NAME")]
    key: Option<String>,
    /// Signed time (2026-11-26T12:00:00Z or Unix seconds; default: now).
    #[arg(long, value_parser = time)]
    at: Option<Timestamp>,
    /// Print a curl command that sends it to this address, instead of the headers.
    #[arg(long, value_name = "URL")]
    curl: Option<String>,
}

fn time(text: &str) -> Result<Timestamp, String> {
    let seconds = text.parse().ok().map(Timestamp::from_secs);
    let written = || {
        let time = humantime::parse_rfc3339_weak(text).ok()?;
        let since = time.duration_since(std::time::UNIX_EPOCH).ok()?;
        Some(Timestamp::from_secs(since.as_secs()))
    };
    seconds
        .or_else(written)
        .ok_or_else(|| "must be a time like 2026-11-26T12:00:00Z or 1764158400".into())
}

/// Explains a captured request. Fails if it would be refused.
pub(crate) fn verify(path: &Path, asked: &Verify) -> Result<(), Failure> {
    let (source, others) = sources(path, &asked.source)?;
    let text = String::from_utf8(read(&asked.headers)?);
    let text = text.map_err(|_| unreadable(&asked.headers, "it is not text"))?;
    let (headers, query) = captured(&text).map_err(|what| unreadable(&asked.headers, &what))?;
    let callback = Unverified {
        method: http::Method::POST,
        headers,
        query: query.filter(|_| source.endpoint.scheme.needs_query()),
        peer: None,
        body: read(&asked.body)?.into(),
        received_at: asked.at.unwrap_or_else(clock::now),
        receipt: 0,
    };
    let key = asked.key.as_deref().map(read).transpose()?.map(Secret::new);
    explain(&callback, &source, &others, key.as_ref(), asked.json)
}

/// Explains a callback. Its secret may be that of another source.
///
/// # Errors
/// The reason, if it would be refused.
pub(crate) fn explain(
    callback: &Unverified,
    source: &Source,
    all: &[Source],
    key: Option<&Secret>,
    json: bool,
) -> Result<(), Failure> {
    let explained = zentra_admin::refused::explain(callback, source, all, key);
    let outcome = outcome(callback, source, key);
    let mut out = text::stdout();
    match json {
        true => writeln!(out, "{}", as_json(&explained, &outcome, source))?,
        false => show(&explained, &outcome, &mut out)?,
    }
    match explained.refusal {
        None => Ok(()),
        Some(refusal) => Err(Failure::Asked(format!(
            "it would be refused: {} ({refusal}).\nThe details are above.",
            refusal.reason()
        ))),
    }
}

fn show(explained: &Explanation, outcome: &[String], out: &mut impl Write) -> std::io::Result<()> {
    for step in &explained.steps {
        writeln!(out, "{} {}", if step.good { "ok  " } else { "FAIL" }, step.found)?;
    }
    for hint in &explained.hints {
        writeln!(out, "hint {hint}")?;
    }
    for line in outcome {
        writeln!(out, "     {line}")?;
    }
    Ok(())
}

/// The result, if it is accepted.
fn outcome(callback: &Unverified, source: &Source, key: Option<&Secret>) -> Vec<String> {
    let Ok(verified) = callback.verify_by(&source.endpoint, key) else { return Vec::new() };
    if let Some(answer) = verified.handshake() {
        return vec![format!(
            "It is a handshake, answered with {}, and not an event.",
            answer.status
        )];
    }
    let events = verified.into_events();
    if events.is_empty() {
        return vec!["It holds no event.".into()];
    }
    let lines = events.iter().map(|event| {
        let kind = event.event_type.as_deref().unwrap_or("(no type)");
        let id = event.event_id().unwrap_or("(no id)");
        format!("Event {id}, {kind}; identified by {}.", event.identity.as_str())
    });
    lines.collect()
}

fn as_json(explained: &Explanation, outcome: &[String], source: &Source) -> serde_json::Value {
    let steps =
        explained.steps.iter().map(|step| json!({ "good": step.good, "found": step.found }));
    json!({
        "source": source.name,
        "provider": source.endpoint.provider,
        "verified": explained.refusal.is_none(),
        "reason": explained.refusal.map(|refusal| refusal.reason()),
        "steps": steps.collect::<Vec<_>>(),
        "hints": explained.hints,
        "outcome": outcome,
    })
}

/// Prints the headers of a request that this source accepts, or a command that sends it.
pub(crate) fn sign(path: &Path, asked: &Sign) -> Result<(), Failure> {
    let (source, _) = sources(path, &asked.source)?;
    let body = read(&asked.body)?;
    let named = match &asked.key {
        None => source.endpoint.secrets.first(),
        Some(name) => source.endpoint.secrets.iter().find(|named| named.name == *name),
    };
    let named = named.ok_or_else(|| {
        Failure::Asked(format!("the source {} has no such secret.\nSee its secrets.", source.name))
    })?;
    let callback = Callback {
        id: &asked.id,
        kind: &asked.kind,
        time: asked.at.unwrap_or_else(clock::now),
        body: &body,
        url: source.endpoint.public_url.as_deref().unwrap_or_default(),
    };
    let signed = source.endpoint.scheme.sign(&named.secret, &callback).map_err(|what| {
        Failure::Asked(format!(
            "cannot create a callback of {}: {what}.\nLet the provider send a test callback \
             instead, or see docs/providers.md for what it signs.",
            source.endpoint.provider
        ))
    })?;
    let mut out = std::io::stdout().lock();
    let changed = signed.body != body;
    let written = match &asked.curl {
        None => write_request(&source, &signed, changed, &mut out),
        Some(url) => {
            let data = match changed {
                false => format!("@{}", asked.body.display()),
                true => String::from_utf8_lossy(&signed.body).into_owned(),
            };
            writeln!(out, "{}", curl(url, &signed, source.endpoint.scheme.content_type(), &data))
        }
    };
    Ok(written?)
}

/// Writes a request as it is captured: the request line if the query matters, the headers, and the
/// body if the signature is in it.
fn write_request(
    source: &Source,
    signed: &Signed,
    changed: bool,
    out: &mut impl Write,
) -> std::io::Result<()> {
    if let Some(query) = &signed.query {
        writeln!(out, "POST /in/{}?{query} HTTP/1.1", source.name)?;
    }
    write_headers(&signed.headers, out)?;
    if changed {
        writeln!(out)?;
        out.write_all(&signed.body)?;
        writeln!(out)?;
    }
    Ok(())
}

/// Writes each header on its line.
pub(crate) fn write_headers(headers: &HeaderMap, out: &mut impl Write) -> std::io::Result<()> {
    for (name, value) in headers {
        writeln!(out, "{name}: {}", String::from_utf8_lossy(value.as_bytes()))?;
    }
    Ok(())
}

/// A command for a shell.
fn curl(url: &str, signed: &Signed, kind: &str, data: &str) -> String {
    let quoted = |text: &str| format!("'{}'", text.replace('\'', r"'\''"));
    let url = match &signed.query {
        Some(query) => format!("{url}?{query}"),
        None => url.to_owned(),
    };
    let mut command = format!("curl --request POST {}", quoted(&url));
    for (name, value) in &signed.headers {
        let line = format!("{name}: {}", String::from_utf8_lossy(value.as_bytes()));
        command += &format!(" \\\n  --header {}", quoted(&line));
    }
    if !signed.headers.contains_key(header::CONTENT_TYPE) {
        command += &format!(" \\\n  --header {}", quoted(&format!("content-type: {kind}")));
    }
    command + &format!(" \\\n  --data-binary {}", quoted(data))
}

fn sources(path: &Path, name: &str) -> Result<(Source, Vec<Source>), Failure> {
    let environment = zentra_config::with_env_file(path, &zentra_config::environment())?;
    Ok(Config::sources(&zentra_config::text(path)?, name, &environment)?)
}

/// Reads a file, or the standard input for `-`.
pub(crate) fn read(path: &Path) -> Result<Vec<u8>, Failure> {
    let mut bytes = Vec::new();
    let read = match path.as_os_str() == "-" {
        true => std::io::stdin().lock().read_to_end(&mut bytes),
        false => std::fs::File::open(path).and_then(|mut file| file.read_to_end(&mut bytes)),
    };
    read.map_err(|error| unreadable(path, &error.to_string()))?;
    Ok(bytes)
}

fn unreadable(path: &Path, what: &str) -> Failure {
    Failure::Asked(format!("cannot read {}: {what}.\nGive it as it was captured.", path.display()))
}
