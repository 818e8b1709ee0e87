//! Finds secrets that somebody could guess, change or confuse.

use std::collections::{HashMap, HashSet};

use super::Config;
use webhook_verify::Secret;

/// Shorter secrets can be guessed.
const SHORT: usize = 16;
/// Fewer distinct bytes are no random key.
const FEW: usize = 8;

impl Config {
    /// The weaknesses of the secrets that this role needs, each with its key. The text reveals
    /// nothing of a secret.
    pub(super) fn weak_secrets(&self) -> Vec<String> {
        let mut notes = Vec::new();
        let mut first_at: HashMap<&[u8], &str> = HashMap::new();
        for source in
            self.sources.iter().filter(|one| !one.endpoint.scheme.signature.algorithm.is_public())
        {
            let name = source.name.as_str();
            for known in &source.endpoint.secrets {
                let key = format!("source.{name}.secrets: {}", known.name);
                note(&mut notes, &key, &known.secret);
                match first_at.get(known.secret.expose()) {
                    Some(other) if *other != name => notes.push(format!(
                        "{key} is a secret of source.{other} too: whoever can sign for one can sign for \
                         the other"
                    )),
                    Some(_) => {}
                    None => drop(first_at.insert(known.secret.expose(), name)),
                }
            }
        }
        for key in self.seal.keys() {
            let name = format!("seal.keys: {}", key.name);
            note(&mut notes, &name, &key.secret);
            if key.secret.expose().iter().collect::<HashSet<_>>().len() < FEW {
                notes.push(format!(
                    "{name} is not a random key: create one with openssl rand -base64 32"
                ));
            }
        }
        for destination in &self.destinations {
            for key in &destination.signing {
                let name = format!("destination.{}.signing: {}", destination.name, key.name);
                note(&mut notes, &name, &key.secret);
            }
        }
        notes
    }
}

fn note(notes: &mut Vec<String>, key: &str, secret: &Secret) {
    if secret.expose().len() < SHORT {
        notes.push(format!("{key} has fewer than {SHORT} bytes: it can be guessed"));
    }
    if secret.others_can_write() {
        notes.push(format!("{key} is in a file that everyone can write to: chmod o-w"));
    }
}
