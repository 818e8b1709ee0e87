//! Which crate may not use which: the layers of ARCHITECTURE.md.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::process::Command;

/// The crates in a crate's normal build, to this depth. 1 means direct dependencies.
fn dependencies(package: &str, depth: &str) -> Vec<String> {
    let tree = ["tree", "--offline", "--edges", "normal", "--prefix", "none", "--depth", depth];
    let output = Command::new(env!("CARGO")).args(tree).args(["--package", package]).output();
    let output = output.unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let lines = String::from_utf8(output.stdout).unwrap();
    lines.lines().filter_map(|line| line.split(' ').next()).map(str::to_owned).collect()
}

/// Lowest first. A crate uses only crates that stand before it.
const LAYERS: [&str; 14] = [
    "webhook-verify",
    "zentra-core",
    "zentra-store",
    "zentra-telemetry",
    "zentra-config",
    "zentra-rabbitmq",
    "zentra-redis",
    "zentra-sqlite",
    "zentra-ingress",
    "zentra-worker",
    "zentra-admin",
    "zentra-rehearse",
    "zentra-api",
    "zentra-cli",
];

#[test]
fn a_crate_uses_only_crates_of_lower_layers() {
    for (at, package) in LAYERS.iter().enumerate() {
        let all = dependencies(package, "1");
        assert!(all.first().is_some_and(|name| name == package), "{package}: {all:?}");
        for higher in &LAYERS[at + 1..] {
            assert!(!all.iter().any(|name| name == higher), "{package} uses {higher}");
        }
    }
}

#[test]
fn no_crate_knows_what_its_layer_must_not_know() {
    for (package, never) in [
        ("webhook-verify", &["tokio", "tracing", "prometheus", "hyper", "utoipa"][..]),
        ("zentra-core", &["tokio", "hyper", "axum", "clap"]),
        ("zentra-store", &["tokio", "hyper", "axum", "clap", "utoipa"]),
        ("zentra-telemetry", &["webhook-verify", "zentra-store", "clap"]),
        ("zentra-config", &["axum", "clap", "hyper"]),
        ("zentra-ingress", &["axum"]),
        ("zentra-worker", &["axum", "zentra-ingress"]),
        ("zentra-admin", &["axum", "clap", "indicatif", "utoipa", "zentra-worker"]),
        ("zentra-rehearse", &["axum", "clap", "indicatif"]),
        ("zentra-api", &["clap", "indicatif", "zentra-rehearse"]),
    ] {
        let all = dependencies(package, "1");
        for name in never {
            assert!(!all.iter().any(|known| known == name), "{package} knows {name}");
        }
    }
}

#[test]
fn no_backend_is_built_for_a_crate_that_has_no_use_for_it() {
    let (rabbitmq, redis, sqlite) = ("lapin", "redis", "libsqlite3-sys");
    for (package, never) in [
        ("webhook-verify", &[rabbitmq, redis, sqlite, "tokio"][..]),
        ("zentra-config", &[rabbitmq, redis, sqlite]),
        ("zentra-telemetry", &[rabbitmq, redis, sqlite]),
        ("zentra-rabbitmq", &[redis, sqlite]),
        ("zentra-redis", &[rabbitmq, sqlite]),
        ("zentra-sqlite", &[rabbitmq, redis]),
        ("zentra-ingress", &[redis, sqlite]),
        ("zentra-worker", &[sqlite]),
    ] {
        let all = dependencies(package, "1000");
        for name in never {
            assert!(!all.iter().any(|known| known == name), "{package} builds {name}");
        }
    }
}

/// The modules that each module of a crate uses, according to the source.
fn modules(source: &Path) -> BTreeMap<String, BTreeSet<String>> {
    fn texts(path: &Path, all: &mut String) {
        match std::fs::read_dir(path) {
            Ok(folder) => folder.for_each(|file| texts(&file.unwrap().path(), all)),
            Err(_) => all.push_str(&std::fs::read_to_string(path).unwrap()),
        }
    }
    let mut uses = BTreeMap::new();
    for file in std::fs::read_dir(source).unwrap() {
        let path = file.unwrap().path();
        let name = path.file_stem().unwrap().to_str().unwrap().to_owned();
        let mut text = String::new();
        texts(&path, &mut text);
        let used: BTreeSet<String> = text
            .split("crate::")
            .skip(1)
            .flat_map(|rest| match rest.strip_prefix('{') {
                Some(list) => list.split('}').next().unwrap().split(',').collect(),
                None => vec![rest],
            })
            .map(|path| path.trim().chars().take_while(|c| c.is_alphanumeric() || *c == '_'))
            .map(Iterator::collect)
            .collect();
        if !matches!(name.as_str(), "lib" | "main") {
            uses.insert(name, used);
        }
    }
    uses
}

#[test]
fn no_modules_of_the_operators_crates_use_each_other_in_a_circle() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../operator");
    for name in ["admin", "api", "rehearse", "cli"] {
        let uses = modules(&root.join(name).join("src"));
        assert!(uses.len() > 5, "{name}: {uses:?}");
        for start in uses.keys() {
            let (mut reached, mut next) = (BTreeSet::new(), vec![start]);
            while let Some(module) = next.pop() {
                let new = uses.get(module).into_iter().flatten().filter(|one| *one != module);
                next.extend(new.filter(|one| reached.insert(*one)));
            }
            assert!(!reached.contains(start), "{name}: {start} is in a circle: {reached:?}");
        }
    }
}

/// What `cargo deny check licenses bans sources` checks, without the tool.
#[test]
fn every_dependency_is_allowed_by_deny_toml() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let rules: toml::Table =
        std::fs::read_to_string(root.join("deny.toml")).unwrap().parse().unwrap();
    let texts = |value: &toml::Value| -> Vec<String> {
        value.as_array().unwrap().iter().map(|text| text.as_str().unwrap().to_owned()).collect()
    };
    let allowed = texts(&rules["licenses"]["allow"]);
    let exceptions = rules["licenses"]["exceptions"].as_array().unwrap();
    let exceptions: Vec<(&str, Vec<String>)> = exceptions
        .iter()
        .map(|rule| (rule["crate"].as_str().unwrap(), texts(&rule["allow"])))
        .collect();
    let registries = texts(&rules["sources"]["allow-registry"]);
    let denied: Vec<&str> = rules["bans"]["deny"]
        .as_array()
        .unwrap()
        .iter()
        .map(|ban| ban["crate"].as_str().unwrap())
        .collect();
    // Only the dependencies of this platform were downloaded.
    let platform = format!("{}-unknown-linux-gnu", std::env::consts::ARCH);
    let output = Command::new(env!("CARGO"))
        .args(["metadata", "--offline", "--format-version", "1", "--filter-platform", &platform])
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let metadata: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    let packages = metadata["packages"].as_array().unwrap();
    assert!(packages.len() > 200, "{}", packages.len());
    for package in packages {
        let name = package["name"].as_str().unwrap();
        assert!(!denied.contains(&name), "{name} is banned");
        if let Some(source) = package["source"].as_str() {
            let known = registries.iter().any(|known| source == format!("registry+{known}"));
            assert!(known, "{name} is from {source}");
        }
        let license = package["license"].as_str().unwrap_or_default();
        let expression = spdx::Expression::parse_mode(license, spdx::ParseMode::LAX).unwrap();
        let except = exceptions.iter().filter(|(of, _)| *of == name).flat_map(|(_, allow)| allow);
        let allowed: Vec<&String> = allowed.iter().chain(except).collect();
        let fits = expression.evaluate(|required| allowed.contains(&&required.to_string()));
        assert!(fits, "{name}: {license} is not allowed");
    }
}
