//! Secrets in the configuration: `env:NAME` or `file:PATH`, never the secret itself.

use std::collections::{HashMap, HashSet};
use std::ffi::OsString;
use std::io::ErrorKind;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use toml::{Table, Value};

use super::ConfigError;
use super::section::Section;
use webhook_verify::Secret;

/// Maximum length of a secret or a list of certificates, in bytes.
const MAX: u64 = 1024 * 1024;

/// The process environment, passed in so that tests can replace it.
pub type Environment = HashMap<String, String>;

/// The environment of this process, without variables that are not UTF-8.
pub fn environment() -> Environment {
    let text = |(name, value): (OsString, OsString)| {
        Some((name.into_string().ok()?, value.into_string().ok()?))
    };
    std::env::vars_os().filter_map(text).collect()
}

/// The environment, and what the file `.env` in the folder of a configuration adds to it. A variable
/// that is set in the environment is not replaced.
///
/// # Errors
///
/// A line that is not `NAME=VALUE`, sets a name again, or has a `$` outside of single quotes: it
/// would be replaced in some programs and not in others. The error names the line, and no text of
/// it, because that could be a secret.
pub fn with_env_file(config: &Path, environment: &Environment) -> Result<Environment, ConfigError> {
    let path = config.with_file_name(".env");
    let mut all = environment.clone();
    let problem = |what: String| ConfigError(vec![format!("{}: {what}", path.display())]);
    let is_file = match std::fs::metadata(&path) {
        Ok(about) => about.is_file() && about.len() <= MAX,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(all),
        Err(error) => return Err(problem(format!("cannot read it: {}", error.kind()))),
    };
    if !is_file {
        return Err(problem("must be a file of at most 1 MiB".into()));
    }
    let text = std::fs::read_to_string(&path);
    let text = text.map_err(|error| problem(format!("cannot read it: {}", error.kind())))?;
    let text = text.strip_prefix('\u{feff}').unwrap_or(&text);
    let own = variables(text).map_err(|(line, what)| problem(format!("line {line} {what}")))?;
    for (name, value) in own {
        all.entry(name).or_insert(value);
    }
    Ok(all)
}

/// The files of secrets that a configuration refers to as `file:PATH`, each once. None if it is not
/// valid TOML. Certificates are not secret.
pub fn secret_files(text: &str) -> Vec<PathBuf> {
    fn collect(key: &str, value: &Value, found: &mut Vec<PathBuf>) {
        match value {
            Value::String(_) if matches!(key, "ca" | "certificate") => {}
            Value::String(text) => found.extend(text.strip_prefix("file:").map(PathBuf::from)),
            Value::Array(values) => values.iter().for_each(|value| collect(key, value, found)),
            Value::Table(values) => {
                values.iter().for_each(|(key, value)| collect(key, value, found));
            }
            _ => {}
        }
    }
    let mut found = Vec::new();
    if let Ok(table) = text.parse::<Table>() {
        collect("", &Value::Table(table), &mut found);
    }
    found.sort();
    found.dedup();
    found
}

/// The variables of an environment file; or the number of a wrong line, and what it should be.
fn variables(text: &str) -> Result<Vec<(String, String)>, (usize, &'static str)> {
    let read = |text: &str| -> Option<Vec<(String, String)>> {
        dotenvy::from_read_iter(text.as_bytes()).collect::<Result<_, _>>().ok()
    };
    let lines: Vec<&str> = text.lines().collect();
    let is_replaced = |line: &&str| match line.split_once('=') {
        Some((name, value)) => {
            let is_comment = name.trim_start().starts_with('#');
            value.contains('$') && !value.trim_start().starts_with('\'') && !is_comment
        }
        None => false,
    };
    if let Some(at) = lines.iter().position(is_replaced) {
        return Err((at + 1, "has a $: put the value between '…'"));
    }
    // A value between quotes may have several lines.
    let Some(all) = read(text) else {
        let good = (0..lines.len()).rev().find(|end| read(&lines[..*end].join("\n")).is_some());
        let what = "must be NAME=VALUE, with '…' around a value that has spaces";
        return Err((good.unwrap_or(0) + 1, what));
    };
    let mut names = HashSet::new();
    for (at, line) in lines.iter().enumerate() {
        let Some((name, _)) = line.split_once('=') else { continue };
        let name = name.trim().trim_start_matches("export ").trim();
        let is_set = all.iter().any(|(other, _)| other == name);
        if is_set && !names.insert(name) {
            return Err((at + 1, "sets a name again"));
        }
    }
    Ok(all)
}

/// Reads the reference to a secret and resolves it if this program needs the secret. `None` if it
/// does not, or if an error was recorded.
pub(super) fn secret(
    section: &mut Section<'_>,
    key: &str,
    environment: &Environment,
    needed: bool,
) -> Option<Secret> {
    if section.missing(key) {
        section.problem(key, "is missing: \"env:NAME\" or \"file:PATH\"");
        return None;
    }
    let text = section.text(key)?;
    resolve(&text, environment, needed).unwrap_or_else(|what| {
        section.problem(key, &what);
        None
    })
}

/// Resolves one reference. The error says what is wrong, and never contains the text.
pub(super) fn resolve(
    text: &str,
    environment: &Environment,
    needed: bool,
) -> Result<Option<Secret>, String> {
    let secret = if let Some(name) = text.strip_prefix("env:") {
        if !needed {
            return Ok(None);
        }
        let value = environment.get(name).ok_or_else(|| missing_variable(name))?;
        Secret::new(value.as_bytes())
    } else if let Some(path) = text.strip_prefix("file:") {
        if !needed {
            return Ok(None);
        }
        read_file(path)?
    } else {
        return Err("must be \"env:NAME\" or \"file:PATH\": secrets are not written here".into());
    };
    // NUL bytes: what a crash can leave of a file, and equal to the empty key for HMAC.
    if secret.expose().iter().all(|&byte| byte == 0) {
        return Err("the secret is empty".into());
    }
    Ok(Some(secret))
}

/// Shows the name only if it looks like one, because somebody may have pasted the secret in its
/// place.
fn missing_variable(name: &str) -> String {
    let plain = |byte: u8| byte.is_ascii_uppercase() || byte.is_ascii_digit() || byte == b'_';
    match !name.is_empty() && name.bytes().all(plain) {
        true => format!("the environment variable {name} is not set"),
        false => "the environment variable is not set".into(),
    }
}

fn read_file(path: &str) -> Result<Secret, String> {
    let failed = |error: std::io::Error| format!("cannot read the file: {}", error.kind());
    let about = std::fs::metadata(path).map_err(failed)?;
    if about.len() > MAX {
        return Err("the file is longer than 1 MiB".into());
    }
    let mut bytes = std::fs::read(path).map_err(failed)?;
    // Editors add one line end at the end of a file. It is not part of the secret.
    if bytes.ends_with(b"\n") {
        bytes.pop();
        if bytes.ends_with(b"\r") {
            bytes.pop();
        }
    }
    let secret = Secret::new(bytes);
    Ok(if about.mode() & 0o002 != 0 { secret.written_by_others() } else { secret })
}
