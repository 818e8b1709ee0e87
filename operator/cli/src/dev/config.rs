//! The configuration of `zentra dev`: the one in `zentra.toml`, on a file, with every destination at
//! one address; or a new one for some providers.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{ErrorKind, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use toml::{Table, Value};
use zentra_config::{Environment, Origin, Role, with_env_file};

use crate::failure::Failure;
use crate::init::{random_hex, random_signing_key};
use crate::source::{block, scheme, token_variable, variable};

/// The folder beside the configuration.
const FOLDER: &str = ".zentra";
const CONFIG: &str = "dev.toml";
const LISTEN: &str = "127.0.0.1:8080";
/// Variables that would override what is set here.
const OVERRIDES: [&str; 7] = [
    "ZENTRA__RABBITMQ__",
    "ZENTRA__REDIS__",
    "ZENTRA__EMBEDDED__",
    "ZENTRA__DESTINATION__",
    "ZENTRA__INGRESS__ADMIN",
    "ZENTRA__INGRESS__TLS",
    "ZENTRA__WORKER__ADMIN",
];

/// What to begin with.
pub(super) struct Wanted<'a> {
    /// The configuration file.
    pub(super) config: &'a Path,
    /// Providers, instead of the configuration.
    pub(super) providers: &'a [String],
    /// The secret of the only provider.
    pub(super) secret: Option<&'a str>,
    /// Where callbacks arrive.
    pub(super) listen: Option<&'a str>,
    /// Where all destinations are.
    pub(super) forward: &'a str,
}

/// What `zentra dev` runs on.
pub(super) struct Prepared {
    pub(super) origin: Origin,
    /// The folder of everything that it writes.
    pub(super) folder: PathBuf,
    /// The configuration that other commands read to see the same events.
    pub(super) others: PathBuf,
    /// Keeps others from the folder.
    _alone: File,
}

/// Writes the configuration into the folder.
pub(super) fn prepare(wanted: &Wanted<'_>) -> Result<Prepared, Failure> {
    let folder = match wanted.config.parent() {
        Some(parent) => parent.join(FOLDER),
        None => FOLDER.into(),
    };
    let path = folder.join(CONFIG);
    let environment: Environment = zentra_config::environment()
        .into_iter()
        .filter(|(name, _)| !OVERRIDES.iter().any(|start| name.starts_with(start)))
        .collect();
    let is_given = wanted.providers.is_empty();
    if is_given && !wanted.config.exists() {
        return Err(Failure::Asked(format!(
            "{} does not exist.\nWrite one with zentra init stripe, or name a provider: zentra dev --provider \
             stripe --secret whsec_…",
            wanted.config.display()
        )));
    }
    // Everything that can be wrong with what was asked, before anything is written.
    let (mut table, environment, secrets) = match is_given {
        true => (given(wanted)?, with_env_file(wanted.config, &environment)?, None),
        false => {
            let own = secrets(wanted, &path)?;
            let text = env_file(&own)?;
            (new(wanted)?, environment.into_iter().chain(own).collect(), Some(text))
        }
    };
    make(&folder)?;
    let alone = alone(&folder)?;
    if let Some(text) = secrets {
        write(&path.with_file_name(".env"), &text)?;
    }
    let others = match table.contains_key("embedded") {
        true => wanted.config.to_owned(),
        false => {
            // What is sealed here is opened by nobody else.
            table.insert("seal".into(), seal(&folder)?);
            table.insert("embedded".into(), embedded(&folder));
            path.clone()
        }
    };
    let text = format!("# Written by zentra dev at each start.\n{table}");
    write(&path, &text)?;
    // The command line is above the environment.
    let set = wanted.listen.map(|address| ("ingress.listen", address.to_owned()));
    let set = set.into_iter().collect();
    let origin = Origin { path, role: Role::Standalone, environment, set };
    Ok(Prepared { origin, folder, others, _alone: alone })
}

/// The table in the configuration, changed.
fn given(wanted: &Wanted<'_>) -> Result<Table, Failure> {
    let text = zentra_config::text(wanted.config)?;
    let invalid = |_| {
        let path = wanted.config.display();
        Failure::Asked(format!("{path} is not valid TOML.\nzentra check names the line."))
    };
    let mut table: Table = text.parse().map_err(invalid)?;
    table.remove("rabbitmq");
    table.remove("redis");
    listen(&mut table, wanted.listen);
    let mut patterns = Vec::new();
    change(&mut table, "source", |sources| {
        patterns.extend(sources.keys().map(|name| Value::from(format!("{name}.#"))));
        // `r` replays from the archive.
        each(sources, |source| drop(source.insert("archive".into(), true.into())));
    });
    change(&mut table, "destination", |destinations| {
        if destinations.is_empty() {
            let app = Table::from_iter([("subscribe".to_owned(), Value::Array(patterns))]);
            destinations.insert("app".into(), Value::Table(app));
        }
        each(destinations, |destination| {
            for key in ["handler", "pull", "lease", "tls"] {
                destination.remove(key);
            }
            destination.insert("url".into(), wanted.forward.into());
            destination.insert("allow_private".into(), true.into());
        });
    });
    Ok(table)
}

/// A table for the providers.
fn new(wanted: &Wanted<'_>) -> Result<Table, Failure> {
    let address = wanted.listen.unwrap_or(LISTEN);
    let mut text = String::new();
    for name in wanted.providers {
        let scheme = scheme(name)?;
        let url = scheme.signs_url().then(|| format!("http://{address}/in/{name}"));
        text += &block(name, &scheme, name, &format!("env:{}", variable(name)), url.as_deref());
        text += "archive = true\n";
    }
    let subscribe: Vec<String> =
        wanted.providers.iter().map(|name| format!("\"{name}.#\"")).collect();
    _ = write!(
        text,
        "[destination.app]\nurl = {}\nallow_private = true\nsubscribe = [{}]\n\
         signing = [{{ name = \"k1\", secret = \"env:APP_SIGNING\" }}]\n",
        Value::String(wanted.forward.into()),
        subscribe.join(", ")
    );
    let broken = |error| Failure::Ours(format!("cannot make the configuration: {error}"));
    let mut table: Table = text.parse().map_err(broken)?;
    listen(&mut table, wanted.listen);
    Ok(table)
}

/// The secrets of the providers. Those that are in the `.env` beside the configuration stay, so that what was entered at a provider goes on working.
fn secrets(wanted: &Wanted<'_>, config: &Path) -> Result<BTreeMap<String, String>, Failure> {
    let twice = wanted.providers.iter().enumerate().find(|(at, name)| {
        let before = &wanted.providers[..*at];
        before.contains(name)
    });
    if let Some((_, name)) = twice {
        return Err(Failure::Asked(format!("{name} is named twice.\nName each provider once.")));
    }
    if wanted.secret.is_some() && wanted.providers.len() > 1 {
        let what = "--secret is for one provider.";
        return Err(Failure::Asked(format!("{what}\nzentra init writes a file for several.")));
    }
    let mut known: BTreeMap<String, String> =
        with_env_file(config, &Environment::new())?.into_iter().collect();
    known.retain(|_, value| !value.is_empty());
    for name in wanted.providers {
        let scheme = scheme(name)?;
        let variable = variable(name);
        if let Some(secret) = wanted.secret {
            known.insert(variable, secret.to_owned());
        } else if !scheme.needs_no_secret() && !known.contains_key(&variable) {
            let made = scheme.new_secret(&rand::random());
            let missing = || {
                let what = format!("only {name} can give its key.");
                Failure::Asked(format!("{what}\nGive it with --secret."))
            };
            known.insert(variable, made.ok_or_else(missing)?);
        }
        if scheme.asks_for_token() {
            known.entry(token_variable(name)).or_insert_with(random_hex);
        }
    }
    known.entry("APP_SIGNING".into()).or_insert_with(random_signing_key);
    Ok(known)
}

/// The text of the `.env`.
fn env_file(secrets: &BTreeMap<String, String>) -> Result<String, Failure> {
    let mut text = String::from("# Secrets of zentra dev.\n");
    for (name, value) in secrets {
        if value.contains(['\'', '\n', '\r', '\0']) {
            let what = format!("the value of {name} has a quote or a line break.");
            return Err(Failure::Asked(format!(
                "{what}\nPut it into a configuration: zentra init."
            )));
        }
        _ = writeln!(text, "{name}='{value}'");
    }
    Ok(text)
}

fn embedded(folder: &Path) -> Value {
    let path = folder.join("dev.db").display().to_string();
    Value::Table(Table::from_iter([("path".to_owned(), path.into())]))
}

/// A key of its own.
fn seal(folder: &Path) -> Result<Value, Failure> {
    let path = folder.join("seal.key");
    if !path.exists() {
        write(&path, &(random_hex() + "\n"))?;
    }
    let secret = format!("file:{}", path.display());
    let key = [("name".to_owned(), "dev".into()), ("secret".to_owned(), secret.into())];
    let keys = Value::Array(vec![Value::Table(Table::from_iter(key))]);
    Ok(Value::Table(Table::from_iter([("keys".to_owned(), keys)])))
}

/// Local addresses, without TLS. Health is at free ports, beside whatever runs already.
fn listen(table: &mut Table, address: Option<&str>) {
    change(table, "ingress", |ingress| {
        ingress.remove("tls");
        if let Some(address) = address {
            ingress.insert("listen".into(), address.into());
        }
        ingress.insert("admin".into(), "127.0.0.1:0".into());
    });
    change(table, "worker", |worker| drop(worker.insert("admin".into(), "127.0.0.1:0".into())));
}

/// Changes a table in a table. What is no table is replaced.
fn change(table: &mut Table, name: &str, change: impl FnOnce(&mut Table)) {
    let mut section = match table.remove(name) {
        Some(Value::Table(section)) => section,
        _ => Table::new(),
    };
    change(&mut section);
    table.insert(name.to_owned(), Value::Table(section));
}

/// Changes each table of a table of tables.
fn each(tables: &mut Table, change: impl Fn(&mut Table)) {
    tables.iter_mut().filter_map(|(_, value)| value.as_table_mut()).for_each(change);
}

/// Creates the folder, which git ignores.
fn make(folder: &Path) -> Result<(), Failure> {
    match DirBuilder::new().mode(0o700).create(folder) {
        Err(error) if error.kind() != ErrorKind::AlreadyExists => {
            return Err(unwritable(folder, &error));
        }
        _ => {}
    }
    // A link could lead to where others write.
    if !folder.symlink_metadata().is_ok_and(|about| about.is_dir()) {
        let what = format!("{} must be a folder.", folder.display());
        return Err(Failure::Asked(format!("{what}\nRename what is there.")));
    }
    let ignore = folder.join(".gitignore");
    if !ignore.exists() {
        write(&ignore, "*\n")?;
    }
    Ok(())
}

/// One program at a time writes to the folder. Otherwise a start that fails could change the files of
/// the one that runs.
fn alone(folder: &Path) -> Result<File, Failure> {
    let path = folder.join("dev.lock");
    let lock = OpenOptions::new().create(true).append(true).mode(0o600).open(&path);
    let lock = lock.map_err(|error| unwritable(&path, &error))?;
    let running = |_| {
        let what = format!("another zentra dev uses {}.", folder.display());
        Failure::Asked(format!("{what}\nStop it (q), or use another folder."))
    };
    lock.try_lock().map_err(running)?;
    Ok(lock)
}

/// Replaces a file as a whole. Only the owner can read it.
fn write(path: &Path, text: &str) -> Result<(), Failure> {
    let new = path.with_extension("new");
    let replace = || {
        let _ = fs::remove_file(&new);
        let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&new)?;
        file.write_all(text.as_bytes())?;
        fs::rename(&new, path)
    };
    replace().map_err(|error| unwritable(path, &error))
}

fn unwritable(path: &Path, error: &std::io::Error) -> Failure {
    Failure::Ours(format!(
        "cannot write {}: {error}\nYou must be able to write in this folder.",
        path.display()
    ))
}
