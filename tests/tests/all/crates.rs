//! Which crate may not use which: the layers of ARCHITECTURE.md.

use std::process::Command;

/// What a crate uses in a normal build: to this depth, where 1 is what it uses directly.
fn dependencies(package: &str, depth: &str) -> Vec<String> {
    let tree = ["tree", "--offline", "--edges", "normal", "--prefix", "none", "--depth", depth];
    let output = Command::new(env!("CARGO")).args(tree).args(["--package", package]).output();
    let output = output.unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let lines = String::from_utf8(output.stdout).unwrap();
    lines.lines().filter_map(|line| line.split(' ').next()).map(str::to_owned).collect()
}

#[test]
fn no_crate_knows_what_its_layer_must_not_know() {
    for (package, never) in [
        ("zentra-shared", &["axum", "clap", "zentra-ingress", "zentra-worker", "zentra-redis"][..]),
        ("zentra-ingress", &["axum", "zentra-worker", "zentra-admin"]),
        ("zentra-worker", &["axum", "zentra-ingress", "zentra-admin"]),
        ("zentra-admin", &["axum", "clap", "indicatif", "zentra-worker", "zentra-api"]),
        ("zentra-api", &["clap", "indicatif", "zentra-rehearse", "zentra-worker"]),
        ("zentra-rehearse", &["axum", "clap", "indicatif", "zentra-api"]),
    ] {
        let all = dependencies(package, "1");
        assert!(
            all.iter().any(|name| name == "zentra-shared" || name == "tokio"),
            "{package}: {all:?}"
        );
        for name in never {
            assert!(!all.iter().any(|known| known == name), "{package} knows {name}");
        }
    }
}

#[test]
fn no_backend_is_built_for_a_crate_that_has_no_use_for_it() {
    let (rabbitmq, redis, sqlite) = ("lapin", "redis", "libsqlite3-sys");
    for (package, never) in [
        ("zentra-shared", &[rabbitmq, redis, sqlite][..]),
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
