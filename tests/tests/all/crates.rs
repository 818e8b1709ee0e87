//! Which crate may not use which: the layers of ARCHITECTURE.md.

use std::process::Command;

/// What a crate uses directly.
fn dependencies(package: &str) -> Vec<String> {
    let tree = ["tree", "--offline", "--edges", "normal", "--prefix", "none", "--depth", "1"];
    let output = Command::new(env!("CARGO")).args(tree).args(["--package", package]).output();
    let output = output.unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let lines = String::from_utf8(output.stdout).unwrap();
    lines.lines().filter_map(|line| line.split(' ').next()).map(str::to_owned).collect()
}

#[test]
fn no_crate_knows_what_its_layer_must_not_know() {
    for (package, never) in [
        ("zentra-shared", &["axum", "clap", "zentra-ingress", "zentra-worker"][..]),
        ("zentra-ingress", &["axum", "zentra-worker", "zentra-admin"]),
        ("zentra-worker", &["axum", "zentra-ingress", "zentra-admin"]),
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
