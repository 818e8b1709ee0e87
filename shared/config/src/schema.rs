//! The JSON Schema of the configuration, for editors: `docs/zentra.schema.json`.
//!
//! It is made of the list of keys that the reader takes its bounds from. What the reader accepts,
//! the schema accepts. The schema does not know rules between several keys, and of durations and
//! sizes in text form it knows the form and not the bounds.

use serde_json::{Map, Value, json};
use webhook_verify::Scheme;

use super::aliases::ALIASES;
use super::keys::{self, KEYS, Kind};
use super::overrides;

/// Names that the user chooses. See `section::usable_name`.
const NAME: &str = "^[a-z0-9][a-z0-9_-]{0,63}$";
/// A header's name: a token of RFC 9110, 5.6.2.
const HEADER: &str = "^[!#$%&'*+.^_`|~0-9A-Za-z-]+$";
/// As humantime reads it: numbers with units, or a bare zero.
const DURATION: &str = r"^\s*(0|[0-9][0-9a-zA-Zµ\s.]*)\s*$";
/// As bytesize reads it.
const SIZE: &str = r"^\s*[0-9.]+\s*[a-zA-Z]*\s*$";

/// The JSON Schema (draft 7, which editors of TOML read) of `zentra.toml`.
pub fn schema() -> Value {
    let mut root = table();
    root["$schema"] = "http://json-schema.org/draft-07/schema#".into();
    root["title"] = "Zentra's configuration".into();
    for key in KEYS {
        insert(&mut root, key.path, leaf(key));
    }
    for (old, new) in ALIASES {
        let Some(key) = keys::find(new) else { continue };
        let mut leaf = leaf(key);
        leaf["deprecated"] = true.into();
        leaf["description"] = format!("Old name of {new}.").into();
        insert(&mut root, old, leaf);
    }
    // It reads itself, in the form of the catalogue.
    let provider = json!({ "type": "object" });
    insert(&mut root, "provider.NAME", provider);
    root
}

/// A table with nothing in it yet.
fn table() -> Value {
    json!({ "type": "object", "additionalProperties": false })
}

/// Puts a key where its path says, with the tables on the way.
fn insert(root: &mut Value, path: &str, leaf: Value) {
    let mut at = root;
    for part in path.split('.') {
        let (group, name) = match part {
            "NAME" => ("patternProperties", NAME),
            part => ("properties", part),
        };
        if at[group].is_null() {
            at[group] = Value::Object(Map::new());
        }
        at = &mut at[group][name];
        if at.is_null() {
            *at = table();
        }
    }
    *at = leaf;
}

fn leaf(key: &keys::Key) -> Value {
    let mut leaf = match (key.path, key.kind) {
        // Editors offer the catalogue; an own provider has any name.
        ("source.NAME.provider", _) => {
            let names: Vec<&str> = Scheme::names().collect();
            json!({ "anyOf": [{ "enum": names }, { "type": "string", "pattern": NAME }] })
        }
        ("source.NAME.identity", _) => json!({ "enum": ["signed", "id"] }),
        (_, kind) => takes(kind),
    };
    leaf["description"] = key.meaning.into();
    if !key.default.is_empty() {
        // A text such as `:0` is no value of TOML, and then stands for itself.
        leaf["default"] = json_of(overrides::value(key.default));
    }
    leaf
}

fn takes(kind: Kind) -> Value {
    let reference = || json!({ "type": "string", "pattern": "^(env|file):" });
    match kind {
        Kind::Text | Kind::Address => json!({ "type": "string" }),
        Kind::Flag => json!({ "type": "boolean" }),
        Kind::Duration(..) => json!({ "type": "string", "pattern": DURATION }),
        Kind::Size(from, to) => json!({ "anyOf": [
            { "type": "integer", "minimum": from, "maximum": to },
            { "type": "string", "pattern": SIZE },
        ] }),
        Kind::Integer(from, to) => json!({ "type": "integer", "minimum": from, "maximum": to }),
        Kind::Integers(from, to) => json!({
            "type": "array",
            "items": { "type": "integer", "minimum": from, "maximum": to },
        }),
        Kind::Number(from, to) => json!({ "type": "number", "minimum": from, "maximum": to }),
        Kind::Texts => json!({ "type": "array", "items": { "type": "string" } }),
        Kind::Secret => reference(),
        Kind::SecretTable => json!({
            "type": "object",
            "propertyNames": { "pattern": HEADER },
            "additionalProperties": reference(),
        }),
        Kind::Secrets => json!({
            "type": "array",
            "minItems": 1,
            "items": {
                "type": "object",
                "additionalProperties": false,
                "required": ["name", "secret"],
                "properties": {
                    "name": { "type": "string", "pattern": "^[A-Za-z0-9._-]{1,64}$" },
                    "secret": reference(),
                },
            },
        }),
    }
}

fn json_of(value: toml::Value) -> Value {
    serde_json::to_value(value).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use toml::{Table, Value as Toml};

    use super::*;
    use crate::secrets::secret;
    use crate::section::{self, Problems};
    use crate::{Environment, Reader, Role};

    const EXAMPLE: &str = include_str!("../../../deploy/zentra.example.toml");

    #[test]
    fn the_committed_schema_is_the_codes() {
        let committed = include_str!("../../../docs/zentra.schema.json");
        let schema = serde_json::to_string_pretty(&schema()).unwrap();
        assert!(
            committed.trim_end() == schema,
            "run: zentra config --schema > docs/zentra.schema.json"
        );
    }

    #[test]
    fn the_example_is_valid_and_a_misspelt_key_is_not() {
        let check = jsonschema::draft7::new(&schema()).unwrap();
        let json = |text: &str| json_of(Toml::Table(text.parse::<Table>().unwrap()));
        let errors: Vec<_> = check.iter_errors(&json(EXAMPLE)).map(|e| e.to_string()).collect();
        assert_eq!(errors, Vec::<String>::new());
        for key in KEYS {
            // The last part of each key, misspelt.
            let path = key.path.replace("NAME", "some");
            let (table, last) = path.rsplit_once('.').unwrap_or(("", &path));
            let misspelt = match table {
                "" => format!("{last}x = 1"),
                table => format!("[{table}]\n{last}x = 1"),
            };
            assert!(!check.is_valid(&json(&misspelt)), "{misspelt}");
        }
    }

    fn values() -> impl Strategy<Value = Toml> {
        let texts = prop_oneof![
            "[a-z:/.]{0,12}",
            "(env|file):[A-Z]{0,4}",
            "[0-9]{1,4}(ms|s|m|h|d|days| days 3h)?",
            "[0-9]{1,4}(B|KiB|MiB|GB)?",
            "[0-9.:]{1,16}",
            Just("signed".to_owned()),
            Just("stripe".to_owned()),
        ];
        let name = |name: &'static str, texts: BoxedStrategy<String>| {
            texts.prop_map(move |text| (name.to_owned(), Toml::String(text)))
        };
        let secret = (
            name("name", "[a-z]{0,3}".boxed()),
            name("secret", texts.clone().boxed()),
            proptest::option::of(name("more", texts.clone().boxed())),
        );
        let secret = secret.prop_map(|(name, secret, more)| {
            Toml::Table([name, secret].into_iter().chain(more).collect())
        });
        let one = prop_oneof![
            texts.prop_map(Toml::String),
            any::<bool>().prop_map(Toml::Boolean),
            (-2_i64..5000).prop_map(Toml::Integer),
            any::<i64>().prop_map(Toml::Integer),
            (-1.0..200.0).prop_map(Toml::Float),
            secret,
        ];
        prop_oneof![one.clone(), proptest::collection::vec(one, 0..3).prop_map(Toml::Array)]
    }

    /// Whether the reader takes this value for a key.
    fn is_read(key: &keys::Key, value: &Toml) -> bool {
        let (problems, environment) = (Problems::default(), Environment::new());
        let (mut section, name) = section::holding(key.path, &value.to_string(), &problems);
        let reader = Reader { role: Role::Operator, environment: &environment };
        match key.kind {
            Kind::Text => drop(section.text(&name)),
            Kind::Flag => drop(section.flag(&name)),
            Kind::Address => drop(section.address(&name)),
            Kind::Duration(..) => drop(section.duration(&name)),
            Kind::Size(..) => drop(section.size(&name)),
            Kind::Integer(..) => drop(section.integer(&name)),
            Kind::Integers(..) => drop(section.integers(&name)),
            Kind::Number(..) => drop(section.number(&name)),
            Kind::Texts => drop(section.texts(&name)),
            Kind::Secret => drop(secret(&mut section, &name, &environment, false)),
            Kind::Secrets => drop(reader.secrets(&mut section, &name, false)),
            Kind::SecretTable => drop(reader.headers(&mut section, &name)),
        }
        problems.into_inner().is_empty()
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]
        /// What is read is valid. What is valid is read, except for texts whose bounds or other
        /// rules the schema does not know.
        #[test]
        fn reader_and_schema_take_the_same(value in values()) {
            let schema = schema();
            for key in KEYS {
                let mut at = &schema;
                for part in key.path.split('.') {
                    at = match part {
                        "NAME" => &at["patternProperties"][NAME],
                        part => &at["properties"][part],
                    };
                }
                let is_valid = jsonschema::draft7::is_valid(at, &json_of(value.clone()));
                let is_read = is_read(key, &value);
                let narrowed = matches!(key.path, "source.NAME.provider" | "source.NAME.identity");
                let loose = matches!(key.kind, Kind::Duration(..) | Kind::Size(..) | Kind::Address);
                prop_assert!(!is_read || is_valid || narrowed, "{} = {value}: read, not valid", key.path);
                prop_assert!(!is_valid || is_read || (loose && value.is_str()) || is_double(&value),
                    "{} = {value}: valid, not read", key.path);
            }
        }
    }

    /// Whether two secrets of a list have one name.
    fn is_double(value: &Toml) -> bool {
        let names =
            value.as_array().into_iter().flatten().filter_map(|one| one.get("name")?.as_str());
        let all: Vec<&str> = names.collect();
        all.iter().enumerate().any(|(at, name)| all[..at].contains(name))
    }
}
