//! The variables that hold a source's secrets, in the `.env` beside the configuration.

use std::fmt::Write as _;
use std::fs::OpenOptions;
use std::io::Write;
use std::path::Path;

use webhook_verify::Scheme;
use zentra_config::Environment;

use crate::failure::Failure;

/// A variable.
pub(crate) struct Variable {
    pub(crate) name: String,
    /// Empty if only the provider can give it.
    pub(crate) value: String,
    /// A comment.
    about: Option<String>,
}

/// The environment variable with the secret of a source.
pub(crate) fn variable(source: &str) -> String {
    format!("{}_SECRET", source.to_uppercase().replace('-', "_"))
}

/// The environment variable with the token that the provider shows in a handshake.
pub(crate) fn token_variable(source: &str) -> String {
    format!("{}_HANDSHAKE_TOKEN", source.to_uppercase().replace('-', "_"))
}

/// The variables of a source, with new values where any value is good for tests.
pub(crate) fn variables(source: &str, scheme: &Scheme) -> Vec<Variable> {
    let mut all = Vec::new();
    if !scheme.needs_no_secret() {
        let made = scheme.new_secret(&rand::random());
        let about = match made {
            Some(_) => "for tests; replace it if the provider shows you a secret",
            None => "what the provider shows you; see zentra source list",
        };
        let (name, value) = (variable(source), made.unwrap_or_default());
        all.push(Variable { name, value, about: Some(format!("{source}: {about}")) });
    }
    if scheme.asks_for_token() {
        let (name, value) = (token_variable(source), hex::encode(rand::random::<[u8; 32]>()));
        all.push(Variable { name, value, about: None });
    }
    all
}

/// The variables as lines of a `.env`.
pub(crate) fn lines<'a>(all: impl IntoIterator<Item = &'a Variable>) -> String {
    let mut text = String::new();
    for Variable { name, value, about } in all {
        if let Some(about) = about {
            _ = writeln!(text, "# {about}");
        }
        _ = writeln!(text, "{name}={value}");
    }
    text
}

/// Appends those that are set neither in the environment nor in the `.env` beside the configuration.
/// Returns whether all are in that file now; `false` if there is no such file.
///
/// # Errors
/// If the file cannot be read or written.
pub(super) fn add(
    config: &Path,
    all: Vec<Variable>,
    environment: &Environment,
) -> Result<bool, Failure> {
    let path = config.with_file_name(".env");
    if !path.is_file() {
        return Ok(false);
    }
    let known = zentra_config::with_env_file(config, environment)?;
    let new = lines(all.iter().filter(|variable| !known.contains_key(&variable.name)));
    let append = || {
        let text = std::fs::read(&path)?;
        let start = if text.is_empty() || text.ends_with(b"\n") { "" } else { "\n" };
        let mut file = OpenOptions::new().append(true).open(&path)?;
        file.write_all(format!("{start}{new}").as_bytes())?;
        file.sync_all()
    };
    append().map_err(|error: std::io::Error| {
        Failure::Ours(format!(
            "cannot write {}: {error}\nThe source is in the configuration: put its secret there by hand.",
            path.display()
        ))
    })?;
    let inside = zentra_config::with_env_file(config, &Environment::new())?;
    Ok(all.iter().all(|variable| inside.contains_key(&variable.name)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_set_nowhere_is_added() {
        let folder = std::env::temp_dir().join(format!("zentra-variables-{}", std::process::id()));
        std::fs::create_dir(&folder).unwrap();
        let (config, env) = (folder.join("zentra.toml"), folder.join(".env"));
        let github = || variables("github", &Scheme::named("github").unwrap());
        assert!(!add(&config, github(), &Environment::new()).unwrap(), "there is no .env");
        assert!(!env.exists());

        std::fs::write(&env, "A=1").unwrap();
        assert!(add(&config, github(), &Environment::new()).unwrap());
        let text = std::fs::read_to_string(&env).unwrap();
        assert!(text.starts_with("A=1\n# github: for tests"), "{text}");
        assert!(add(&config, github(), &Environment::new()).unwrap());
        assert_eq!(std::fs::read_to_string(&env).unwrap(), text, "a second time changes nothing");

        let set = Environment::from([("META_SECRET".into(), "x".into())]);
        let meta = variables("meta", &Scheme::named("meta").unwrap());
        assert!(!add(&config, meta, &set).unwrap(), "one is set in the environment");
        let text = std::fs::read_to_string(&env).unwrap();
        assert!(!text.contains("META_SECRET") && text.contains("META_HANDSHAKE_TOKEN="), "{text}");
        std::fs::remove_dir_all(folder).unwrap();
    }
}
