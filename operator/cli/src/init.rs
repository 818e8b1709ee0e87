//! `zentra init`: a configuration to start with, and its secrets.

use std::fmt::Write as _;
use std::fs::{self, DirBuilder, OpenOptions, Permissions};
use std::io::{ErrorKind, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt, fchown};
use std::path::{Path, PathBuf};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use webhook_verify::Scheme;
use zentra_admin::test_callback::Samples;
use zentra_config::{Config, Environment, Role};

use crate::failure::Failure;
use crate::source::{
    block, lines, notes, scheme, secret_in_env, token_variable, variable, variables,
};
use crate::text::{in_shell, word_in_shell};

/// The provider without a name: any that follows Standard Webhooks.
const ANY: &str = "standard-webhooks";
/// The folder of the embedded file.
const STORE: &str = ".zentra";
/// What the package creates.
const SYSTEM_CONFIG: &str = "/etc/zentra/zentra.toml";
const SYSTEM_STORE: &str = "/var/lib/zentra";
const SYSTEM_GROUP: &str = "zentra";
/// Where the ingress listens, if nothing else is configured.
const LISTEN: &str = "http://127.0.0.1:8080";

/// What to begin with.
#[derive(clap::Args)]
pub(crate) struct Init {
    /// Providers of the catalogue, each as a source of its name (default: standard-webhooks). See
    /// `zentra source list`.
    providers: Vec<String>,
    /// Use RabbitMQ and Redis instead of one file.
    #[arg(long)]
    servers: bool,
    /// For the services of the package: write to /etc/zentra, for user root and group zentra, and
    /// keep the data in /var/lib/zentra. Run it as root.
    #[arg(long)]
    system: bool,
    /// Address of your application, which receives the events.
    #[arg(long, value_name = "URL", default_value = "http://127.0.0.1:3000/webhooks")]
    forward: String,
}

/// A file to write.
struct New {
    path: PathBuf,
    mode: u32,
    text: String,
    /// What it is for.
    about: &'static str,
}

/// One source.
struct Start {
    name: String,
    scheme: Scheme,
}

/// Writes the files, and prints what to do next. Nothing that exists is changed.
pub(crate) fn run(path: &Path, asked: &Init) -> Result<(), Failure> {
    let starts = starts(&asked.providers)?;
    let group = if asked.system { Some(system_group()?) } else { None };
    let path = if asked.system { Path::new(SYSTEM_CONFIG) } else { path };
    let folder = folder(path)?;
    let files = files(path, &folder, asked, &starts);
    // Before the first one is written.
    let missing = missing(&files)?;
    for file in files.iter().filter(|file| !is_optional(file)) {
        if file.path.symlink_metadata().is_ok() {
            return Err(exists(&file.path));
        }
    }
    if !asked.servers && !asked.system {
        make(&folder.join(STORE))?;
    }
    let written = write_all(&files, group)?;
    let mut out = std::io::stdout().lock();
    for file in &written {
        writeln!(out, "{:<28} {}", file.path.display(), file.about)?;
    }
    if let Some(ignored) = files.iter().find(|file| is_optional(file) && !is_in(&written, file)) {
        let known = fs::read_to_string(&ignored.path).unwrap_or_default();
        let lacks = |line: &&str| !known.lines().any(|other| other == *line);
        let lines: Vec<&str> = ignored.text.lines().filter(lacks).collect();
        if !lines.is_empty() {
            let path = ignored.path.display();
            writeln!(out, "\n{path} exists: it should contain {}.", lines.join(", "))?;
        }
    }
    for start in &starts {
        write!(out, "\n{}", at_provider(start))?;
    }
    write!(out, "\n{}", next(path, &starts, asked))?;
    if !missing.is_empty() {
        writeln!(out, "\nNot complete yet:\n  {}", missing.join("\n  "))?;
    }
    Ok(())
}

/// The group of the services, which the package creates.
fn system_group() -> Result<u32, Failure> {
    let groups = fs::read_to_string("/etc/group").unwrap_or_default();
    let id = groups.lines().find_map(|line| {
        let mut fields = line.split(':');
        let is_it = fields.next() == Some(SYSTEM_GROUP);
        fields.nth(1).filter(|_| is_it)?.parse().ok()
    });
    id.filter(|_| Path::new(SYSTEM_STORE).is_dir()).ok_or_else(|| {
        Failure::Asked(format!(
            "there is no group {SYSTEM_GROUP}, or no folder {SYSTEM_STORE}.\nInstall the package first: it \
             creates both. Without it, omit --system."
        ))
    })
}

/// The folder of the configuration. Paths in it are absolute, unless it is the current one.
fn folder(path: &Path) -> Result<PathBuf, Failure> {
    let others = [".env", ".gitignore", "seal.key", "zentra.schema.json"];
    if path.file_name().is_none_or(|name| others.iter().any(|other| name == *other)) {
        return Err(Failure::Asked(format!(
            "{} cannot be the configuration.\nName another file with --config.",
            path.display()
        )));
    }
    match path.parent() {
        None => Ok(PathBuf::new()),
        Some(parent) if parent.as_os_str().is_empty() => Ok(PathBuf::new()),
        Some(parent) => std::path::absolute(parent).map_err(|error| unwritable(parent, &error)),
    }
}

/// Secrets that only a provider can give, one line each.
///
/// # Errors
/// Everything else that is wrong with what would be written.
fn missing(files: &[New]) -> Result<Vec<String>, Failure> {
    let [config, secrets, seal, ..] = files else { return Ok(Vec::new()) };
    let lines = secrets.text.lines().filter_map(|line| line.split_once('='));
    let mut environment: Environment =
        lines.map(|(name, value)| (name.to_owned(), value.to_owned())).collect();
    environment.insert("SEAL".into(), seal.text.clone());
    // The file of the seal does not exist yet.
    let seal = toml::Value::String(format!("file:{}", seal.path.display())).to_string();
    let text = config.text.replace(&seal, "\"env:SEAL\"");
    let Err(error) = Config::parse(&text, Role::Check, &environment, &[]) else {
        return Ok(Vec::new());
    };
    let (missing, wrong): (Vec<String>, Vec<String>) =
        error.0.into_iter().partition(|problem| problem.contains("].secret: "));
    match wrong.iter().find(|problem| !problem.starts_with("destination: ")) {
        None => Ok(missing),
        Some(wrong) => {
            Err(Failure::Asked(format!("{wrong}\nNothing was written. See zentra init --help.")))
        }
    }
}

/// Creates the folder of the embedded file.
fn make(store: &Path) -> Result<(), Failure> {
    if store.is_dir() {
        return Ok(());
    }
    DirBuilder::new().mode(0o700).create(store).map_err(|error| unwritable(store, &error))
}

fn starts(providers: &[String]) -> Result<Vec<Start>, Failure> {
    let mut names: Vec<&str> = providers.iter().map(String::as_str).collect();
    if names.is_empty() {
        names.push(ANY);
    }
    let mut starts: Vec<Start> = Vec::new();
    for name in names {
        if starts.iter().any(|start| start.name == name) {
            let what =
                "Name each provider once; zentra source add --name adds another source of it.";
            return Err(Failure::Asked(format!("{name} is named twice.\n{what}")));
        }
        starts.push(Start { name: name.to_owned(), scheme: scheme(name)? });
    }
    Ok(starts)
}

fn files(path: &Path, folder: &Path, asked: &Init, starts: &[Start]) -> Vec<New> {
    let new = |name: &str, mode, text, about| New { path: folder.join(name), mode, text, about };
    let schema = serde_json::to_string_pretty(&zentra_config::schema()).unwrap_or_default();
    vec![
        New {
            path: path.to_path_buf(),
            mode: 0o644,
            text: config(folder, asked, starts),
            about: "the configuration",
        },
        new(".env", 0o600, secrets(asked, starts), "secrets: only you can read them"),
        new("seal.key", 0o600, random_hex() + "\n", "seals stored events: keep a copy"),
        new("zentra.schema.json", 0o644, schema + "\n", "for completion in editors"),
        new(
            ".gitignore",
            0o644,
            "/.env\n/seal.key\n/.zentra/\n".into(),
            "keeps secrets out of git",
        ),
    ]
}

/// Whether a file is left alone where it exists.
fn is_optional(file: &New) -> bool {
    file.path.ends_with(".gitignore")
}

fn is_in(written: &[&New], file: &New) -> bool {
    written.iter().any(|other| other.path == file.path)
}

fn random() -> [u8; 32] {
    rand::random()
}

/// 32 random bytes, in hex.
pub(crate) fn random_hex() -> String {
    hex::encode(random())
}

/// A new key of Standard Webhooks.
pub(crate) fn random_signing_key() -> String {
    format!("whsec_{}", STANDARD.encode(random()))
}

fn config(folder: &Path, asked: &Init, starts: &[Start]) -> String {
    let quoted = |path: String| toml::Value::String(path);
    let store = if asked.system { SYSTEM_STORE.into() } else { folder.join(STORE) };
    let mut text = String::from(
        "#:schema ./zentra.schema.json\n\
         # The configuration of Zentra. All keys and defaults: zentra config. Check it: zentra check.\n\
         # Secrets are in .env and seal.key.\n\n",
    );
    text += &match asked.servers {
        true => "[rabbitmq]\nurls = [\"env:RABBITMQ_URL\"]\n\n\
                 [redis]                       # appendonly yes, maxmemory-policy noeviction\n\
                 url = \"env:REDIS_URL\"\n\n"
            .into(),
        false => format!(
            "[embedded]                    # everything is in this file\n\
             path = {}\n\n",
            quoted(store.join("zentra.db").display().to_string())
        ),
    };
    _ = write!(
        text,
        "[ingress]                     # callbacks arrive at POST /in/SOURCE\n\
         listen = \"127.0.0.1:8080\"\n\n\
         [seal]\n\
         keys = [{{ name = \"k1\", secret = {} }}]\n",
        quoted(format!("file:{}", folder.join("seal.key").display()))
    );
    for Start { name, scheme } in starts {
        // As the provider knows it.
        let url = scheme.signs_url().then(|| format!("{LISTEN}/in/{name}"));
        let secret = format!("env:{}", variable(name));
        text += "\n";
        text += &block(name, scheme, name, &secret, url.as_deref());
    }
    let subscribe: Vec<String> =
        starts.iter().map(|start| format!("\"{}.#\"", start.name)).collect();
    _ = write!(
        text,
        "\n[destination.app]             # your application\n\
         url = {}\n\
         subscribe = [{}]\n\
         signing = [{{ name = \"k1\", secret = \"env:APP_SIGNING\" }}]\n",
        toml::Value::String(asked.forward.clone()),
        subscribe.join(", ")
    );
    if is_local_name(&asked.forward) {
        text += "allow_private = true          # the name of the url means an address in here\n";
    }
    text
}

/// Whether a URL has a host name without a domain, such as localhost or a container's.
fn is_local_name(url: &str) -> bool {
    let url: Option<http::Uri> = url.parse().ok();
    let host = url.as_ref().and_then(http::Uri::host);
    host.is_some_and(|host| !host.contains(['.', ':']))
}

fn secrets(asked: &Init, starts: &[Start]) -> String {
    let mut text = String::from("# Secrets of zentra.toml. The environment overrides this file.\n");
    for Start { name, scheme } in starts {
        text += &lines(&variables(name, scheme));
    }
    _ = writeln!(
        text,
        "# signs requests to your application (Standard Webhooks): it verifies them with this key\n\
         APP_SIGNING={}",
        random_signing_key()
    );
    if asked.servers {
        text += "RABBITMQ_URL=amqp://guest:guest@127.0.0.1:5672/%2f\nREDIS_URL=redis://127.0.0.1:6379/\n";
    }
    text
}

/// Writes all of them, or none. Returns those that were written. A group can read them.
fn write_all(files: &[New], group: Option<u32>) -> Result<Vec<&New>, Failure> {
    let mut written: Vec<&New> = Vec::new();
    for file in files {
        match write_new(file, group) {
            Ok(()) => written.push(file),
            Err(error) if error.kind() == ErrorKind::AlreadyExists && is_optional(file) => {}
            Err(error) => {
                for file in &written {
                    let _ = fs::remove_file(&file.path);
                }
                return Err(match error.kind() {
                    ErrorKind::AlreadyExists => exists(&file.path),
                    _ => unwritable(&file.path, &error),
                });
            }
        }
    }
    Ok(written)
}

fn write_new(file: &New, group: Option<u32>) -> std::io::Result<()> {
    let new = OpenOptions::new().write(true).create_new(true).mode(file.mode).open(&file.path)?;
    let share = || match group {
        Some(group) => {
            fchown(&new, None, Some(group))?;
            new.set_permissions(Permissions::from_mode(file.mode | 0o040))
        }
        None => Ok(()),
    };
    let done = share().and_then(|()| (&new).write_all(file.text.as_bytes()));
    let done = done.and_then(|()| new.sync_all());
    if done.is_err() {
        let _ = fs::remove_file(&file.path);
    }
    done
}

fn unwritable(path: &Path, error: &std::io::Error) -> Failure {
    Failure::Ours(format!(
        "cannot write {}: {error}\nThe folder must exist, and you must be able to write there.",
        path.display()
    ))
}

fn exists(path: &Path) -> Failure {
    Failure::Asked(format!(
        "{} exists already. Nothing was written.\nzentra source add adds a source to a configuration; or use an \
         empty folder.",
        path.display()
    ))
}

fn at_provider(Start { name, scheme }: &Start) -> String {
    let mut text = format!(
        "At {name}: set the webhook URL to https://YOUR-HOST/in/{name} (POST, {}).\n",
        scheme.content_type()
    );
    if !scheme.needs_no_secret() {
        _ = writeln!(text, "{}", secret_in_env(name, scheme));
    }
    if scheme.asks_for_token() {
        _ = writeln!(text, "Its verify token is {} in .env.", token_variable(name));
    }
    if scheme.signs_url() {
        text += "Set public_url in zentra.toml to the URL that you enter there: it is signed.\n";
    }
    for line in notes(scheme).lines().filter(|line| !line.is_empty()) {
        text += line;
        text.push('\n');
    }
    text
}

fn next(path: &Path, starts: &[Start], asked: &Init) -> String {
    let config = match path == Path::new("zentra.toml") {
        true => String::new(),
        false => format!(" --config {}", in_shell(path)),
    };
    let run = match (asked.system, asked.servers) {
        (true, true) => "systemctl enable --now zentra-ingress zentra-worker".into(),
        (true, false) => format!(
            "systemctl enable --now zentra-standalone      # your application runs at {}",
            asked.forward
        ),
        (false, true) => format!(
            "zentra-ingress{config}      # with RabbitMQ and Redis; and, beside it:\n  zentra-worker{config}"
        ),
        (false, false) => format!(
            "zentra dev{config} --forward {0}      # shows each event live\n  \
             zentra standalone{config}      # in production; your application runs at {0}",
            asked.forward
        ),
    };
    let sample = starts.iter().find_map(|Start { name, .. }| {
        let samples = Samples::of(name)?;
        let kind = word_in_shell(samples.types().next()?);
        Some(format!("zentra send {name} {kind}{config}      # a signed test callback\n"))
    });
    format!("Next:\n  {run}\n  {}", sample.unwrap_or_else(|| format!("zentra check{config}\n")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_host_name_without_a_domain_is_local() {
        for url in ["http://localhost:3000/x", "http://app/x", "https://app:1"] {
            assert!(is_local_name(url), "{url}");
        }
        for url in ["http://127.0.0.1:3000/x", "http://[::1]:1/", "https://app.example/x", "/x"] {
            assert!(!is_local_name(url), "{url}");
        }
    }
}
