//! `zentra source add`: the block for the config, and what goes where at the provider.

use std::fmt::Write as _;
use std::io::Write;
use std::path::Path;
use std::time::Duration;

use webhook_verify::Scheme;

use super::variables::{self, token_variable, variable, variables};
use crate::failure::Failure;
use crate::text::duration;

/// Options of `zentra source add`.
#[derive(clap::Args)]
pub(crate) struct Add {
    /// A provider of the catalogue; see `zentra source list`.
    provider: String,
    /// Name of the source, a part of its address (default: the provider's name).
    #[arg(long)]
    name: Option<String>,
    /// Reference to the signing secret: `env:NAME` or `file:PATH`.
    #[arg(long, value_name = "REFERENCE")]
    secret: Option<String>,
    /// Address that the provider sends to, if the provider signs it.
    #[arg(long, value_name = "URL")]
    public_url: Option<String>,
    /// Print the block, and don't change the configuration.
    #[arg(long)]
    print: bool,
}

/// Appends the block to the configuration, or prints it, and prints what to do at the provider.
pub(crate) fn add(path: &Path, asked: &Add) -> Result<(), Failure> {
    let provider = &asked.provider;
    let scheme = scheme(provider)?;
    let name = asked.name.as_deref().unwrap_or(provider);
    check_public_url(asked, &scheme, name)?;
    let secret = asked.secret.clone().unwrap_or_else(|| format!("env:{}", variable(name)));
    let block =
        format!("\n{}", block(provider, &scheme, name, &secret, asked.public_url.as_deref()));
    let mut out = std::io::stdout().lock();
    if asked.print {
        write!(out, "{block}")?;
    } else {
        append(path, name, &block)?;
        writeln!(out, "Added to {}:\n\n{}", path.display(), block.trim())?;
    }
    let mut needed = variables(name, &scheme);
    needed.retain(|needed| asked.secret.is_none() || needed.name != variable(name));
    let is_stored = !asked.print && variables::add(path, needed, &zentra_config::environment())?;
    let todo = left_to_do(provider, &scheme, name, &secret, is_stored);
    Ok(write!(out, "\n{todo}")?)
}

/// A provider of the catalogue.
///
/// # Errors
/// The names that are like it, if there is no such provider.
pub(crate) fn scheme(provider: &str) -> Result<Scheme, Failure> {
    Scheme::named(provider).ok_or_else(|| unknown(provider))
}

fn unknown(provider: &str) -> Failure {
    let near: Vec<&str> = Scheme::names()
        .filter(|name| name.contains(provider) || provider.contains(*name))
        .collect();
    let near = match near.is_empty() {
        true => String::new(),
        false => format!(" Is it {}?", near.join(" or ")),
    };
    Failure::Asked(format!(
        "the catalogue has no provider {provider}.{near}\nzentra source list shows all of them; one \
         of your own is a [provider.NAME] in the config: see deploy/zentra.example.toml."
    ))
}

fn check_public_url(asked: &Add, scheme: &Scheme, name: &str) -> Result<(), Failure> {
    let provider = &asked.provider;
    match (&asked.public_url, scheme.signs_url()) {
        (None, true) => Err(Failure::Asked(format!(
            "{provider} signs the URL that it sends to.\nGive that URL, as the provider knows it, with --public-url \
             https://YOUR-HOST/in/{name}."
        ))),
        (Some(_), false) => Err(Failure::Asked(format!(
            "{provider} does not sign the URL that it sends to.\nOmit --public-url."
        ))),
        _ => Ok(()),
    }
}

/// The `[source.NAME]` of a provider.
pub(crate) fn block(
    provider: &str,
    scheme: &Scheme,
    name: &str,
    secret: &str,
    public_url: Option<&str>,
) -> String {
    let quoted = |text: &str| toml::Value::String(text.into()).to_string();
    let mut block = format!("[source.{name}]\nprovider = {}\n", quoted(provider));
    if let Some(url) = public_url {
        _ = writeln!(block, "public_url = {}", quoted(url));
    }
    if scheme.asks_for_token() {
        _ = writeln!(block, "handshake_token = \"env:{}\"", token_variable(name));
    }
    if !scheme.needs_no_secret() {
        _ = writeln!(block, "secrets = [{{ name = \"k1\", secret = {} }}]", quoted(secret));
    }
    block
}

/// Appends to the file. Fails if it has a source of this name.
fn append(path: &Path, name: &str, block: &str) -> Result<(), Failure> {
    let found = match std::fs::read_to_string(path) {
        Ok(text) => text,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => String::new(),
        Err(error) => return Err(unwritable(path, &error)),
    };
    let both = format!("{}{block}", found.trim_end().to_owned() + "\n");
    let table: Result<toml::Table, _> = found.parse();
    let known = table.map_err(|_| {
        let path = path.display();
        Failure::Asked(format!("{path} is not valid TOML.\nzentra check shows the line."))
    })?;
    if known.get("source").and_then(|sources| sources.get(name)).is_some() {
        return Err(Failure::Asked(format!(
            "[source.{name}] exists already.\nChoose another name with --name."
        )));
    }
    if both.parse::<toml::Table>().is_err() {
        return Err(Failure::Asked(format!(
            "cannot append [source.{name}] to {}: it has its sources in another \
             form.\nPut in what --print shows.",
            path.display()
        )));
    }
    let mut file = std::fs::OpenOptions::new()
        .create(true)
        .append(true)
        .open(path)
        .map_err(|error| unwritable(path, &error))?;
    let text = if found.is_empty() || found.ends_with('\n') { "" } else { "\n" };
    file.write_all(format!("{text}{block}").as_bytes()).map_err(|error| unwritable(path, &error))
}

fn unwritable(path: &Path, error: &std::io::Error) -> Failure {
    Failure::Ours(format!(
        "cannot read or write {}: {error}\n--print shows the block instead.",
        path.display()
    ))
}

/// What a person does with the secret that `.env` has.
pub(crate) fn secret_in_env(name: &str, scheme: &Scheme) -> String {
    let variable = variable(name);
    match scheme.new_secret(&[0; 32]) {
        Some(_) => format!(
            "If the provider shows you a secret, put it into {variable} in .env. If it asks for one, \
             enter the one that is there."
        ),
        None => format!("Put the key that the provider shows you into {variable} in .env."),
    }
}

fn left_to_do(
    provider: &str,
    scheme: &Scheme,
    name: &str,
    secret: &str,
    is_stored: bool,
) -> String {
    let mut text = String::from("Next steps:\n");
    let mut steps = 0;
    let mut step = |what: String| {
        steps += 1;
        _ = writeln!(text, "  {steps}. {what}");
    };
    step(format!(
        "At {provider}, set the webhook URL to https://YOUR-HOST/in/{name} (POST, {}): the \
         address of the ingress, or of the proxy before it.",
        scheme.content_type()
    ));
    if !scheme.needs_no_secret() {
        step(match scheme.is_token() {
            _ if is_stored && *secret == format!("env:{}", variable(name)) => {
                secret_in_env(name, scheme)
            }
            true => format!("At {provider}, enter a long random secret, and put it into {secret}."),
            false => format!("Put the signing secret that {provider} shows into {secret}."),
        });
    }
    if scheme.asks_for_token() {
        step(match is_stored {
            true => {
                format!("At {provider}, enter the verify token: {} in .env.", token_variable(name))
            }
            false => format!(
                "At {provider}, enter a random verify token, and store it where handshake_token points."
            ),
        });
    }
    step(format!("Let a destination subscribe to the events: subscribe = [\"{name}.#\"]."));
    step(format!(
        "Run zentra check, then restart zentra dev, or let the other programs reload (SIGHUP). zentra sign \
         --source {name} --body FILE creates a test request."
    ));
    text + &notes(scheme)
}

/// What to know about a provider.
pub(crate) fn notes(scheme: &Scheme) -> String {
    let mut text = String::new();
    if let Some(note) = &scheme.note {
        _ = writeln!(text, "\nNote: {note}");
    }
    if let Some(most) = scheme.max_body {
        let most = bytesize::ByteSize(most as u64).display().iec();
        _ = writeln!(
            text,
            "\nIt sends bodies up to {most}, and this source accepts them (max_body). A proxy before \
             the ingress, and RabbitMQ's max_message_size, must accept them too."
        );
    }
    if scheme.delivers_at_least_once() {
        _ = writeln!(
            text,
            "\nAt least once: it sends the same bytes for different events, so each callback is \
             delivered, and a retry may be delivered again (docs/identity.md)."
        );
    }
    if scheme.type_unsigned() {
        _ = writeln!(
            text,
            "\nType unsigned: it does not sign the event's type. See docs/identity.md."
        );
    }
    if let Some(timeout) = scheme.timeout.time() {
        _ = writeln!(text, "\nIt waits {} for the response.", duration(timeout));
    }
    match scheme.retries.time() {
        Some(Duration::ZERO) => {
            _ = writeln!(
                text,
                "\nIt never retries a callback: an event that was not accepted is missing until \
                 zentra reconcile finds it."
            );
        }
        Some(horizon) => {
            let horizon = duration(horizon);
            _ = writeln!(text, "\nIt retries callbacks that were not accepted for {horizon}.");
        }
        None => {}
    }
    if let Some(weakness) = scheme.weakness() {
        _ = writeln!(text, "\nWeak: {}.", weakness.words());
    }
    if scheme.proof.is_none() {
        _ = writeln!(
            text,
            "\nUnproven: this entry follows the documentation, and was not tested with an SDK of the provider. \
             Try it with a real callback; zentra verify explains one that is refused."
        );
    }
    if let Some(url) = &scheme.documents {
        _ = writeln!(text, "\nDocumentation: {url}");
    }
    text
}
