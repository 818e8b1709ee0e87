//! Secrets in the configuration: `env:NAME` or `file:PATH`, never the secret itself.

use std::collections::HashMap;
use std::ffi::OsString;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

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
/// that is set in the environment is not replaced. The error shows no value.
pub fn with_env_file(config: &Path, environment: &Environment) -> Result<Environment, ConfigError> {
    let path = config.with_file_name(".env");
    let mut all = environment.clone();
    if !path.exists() {
        return Ok(all);
    }
    let mut last = None;
    let problem = |what: String| ConfigError(vec![format!("{}: {what}", path.display())]);
    let lines = dotenvy::from_path_iter(&path).map_err(|error| problem(unreadable(&error)))?;
    for line in lines {
        let (name, value) = line.map_err(|error| match (error, &last) {
            (dotenvy::Error::LineParse(..), None) => {
                problem("must begin with a line NAME=VALUE".into())
            }
            (dotenvy::Error::LineParse(..), Some(name)) => {
                problem(format!("the line after {name} must be NAME=VALUE"))
            }
            (error, _) => problem(unreadable(&error)),
        })?;
        last = Some(name.clone());
        all.entry(name).or_insert(value);
    }
    Ok(all)
}

fn unreadable(error: &dotenvy::Error) -> String {
    match error {
        dotenvy::Error::Io(error) => format!("cannot read it: {}", error.kind()),
        _ => "cannot read it".into(),
    }
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
