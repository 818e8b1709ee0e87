//! Which crate may not know which library: the layers of ARCHITECTURE.md.

use std::process::Command;

/// What a crate depends on, directly or not, in a normal build.
fn dependencies(package: &str) -> Vec<String> {
    let tree = ["tree", "--offline", "--edges", "normal", "--prefix", "none", "--package", package];
    let output = Command::new(env!("CARGO")).args(tree).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let lines = String::from_utf8(output.stdout).unwrap();
    lines.lines().filter_map(|line| line.split(' ').next()).map(str::to_owned).collect()
}

#[test]
fn no_crate_knows_what_its_layer_must_not_know() {
    for (package, never) in [
        ("zentra-shared", &["axum", "clap", "zentra-ingress", "zentra-worker"][..]),
        ("zentra-ingress", &["axum", "clap", "zentra-worker", "zentra-admin"]),
        ("zentra-worker", &["axum", "clap", "zentra-ingress", "zentra-admin"]),
        ("zentra-admin", &["axum", "clap", "indicatif", "zentra-worker", "zentra-api"]),
        ("zentra-api", &["clap", "indicatif", "zentra-rehearse", "zentra-worker"]),
        ("zentra-rehearse", &["axum", "clap", "indicatif", "zentra-api"]),
    ] {
        let all = dependencies(package);
        assert!(all.iter().any(|name| name == "tokio"), "{package}: {all:?}");
        for name in never {
            assert!(!all.iter().any(|known| known == name), "{package} knows {name}");
        }
    }
}
