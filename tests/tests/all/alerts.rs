//! The alerts in `deploy/prometheus`: Prometheus's own tool runs their tests, their metrics exist, and each has a
//! runbook.

use std::collections::BTreeSet;
use std::fs;
use std::path::PathBuf;
use std::process::Command;

use crate::documentation::root;

fn folder() -> PathBuf {
    root().join("deploy/prometheus")
}

fn read(name: &str) -> String {
    fs::read_to_string(folder().join(name)).unwrap()
}

/// The part of each alert, by its name.
fn alerts(rules: &str) -> Vec<(&str, &str)> {
    let parts = rules.split("- alert: ").skip(1);
    parts.filter_map(|part| part.split_once('\n')).map(|(name, rest)| (name.trim(), rest)).collect()
}

#[test]
fn each_alert_fires_and_is_quiet_by_prometheus_own_tool() {
    for arguments in [["check", "rules", "rules.yml"], ["test", "rules", "tests.yml"]] {
        let mut promtool = Command::new("promtool");
        let output = promtool.args(arguments).current_dir(folder()).output().unwrap();
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        assert!(output.status.success(), "{}{}", text(&output.stdout), text(&output.stderr));
    }
    let tests = read("tests.yml");
    for (name, _) in alerts(&read("rules.yml")) {
        for outcome in ["fires", "is quiet"] {
            assert!(tests.contains(&format!("name: {name} {outcome}\n")), "{name} {outcome}");
        }
    }
}

#[test]
fn each_alert_says_what_to_do_and_has_a_runbook() {
    let (rules, page) =
        (read("rules.yml"), fs::read_to_string(root().join("docs/runbooks.md")).unwrap());
    let alerts = alerts(&rules);
    assert!(alerts.len() >= 20, "{}", alerts.len());
    for (name, alert) in &alerts {
        let runbook = format!("runbook: docs/runbooks.md#{}\n", name.to_lowercase());
        for part in ["summary: \"", "description: \"", &runbook] {
            assert!(alert.contains(part), "{name} has no {part}");
        }
        let severity = alert.split("severity: ").nth(1).and_then(|rest| rest.split(' ').next());
        assert!(matches!(severity, Some("critical" | "warning" | "info")), "{name}: {severity:?}");
        let section = page.split(&format!("### {name}\n")).nth(1);
        let section = section.and_then(|rest| rest.split("\n##").next());
        let section = section.unwrap_or_else(|| panic!("{name} has no runbook"));
        assert!(section.contains("- Look: ") && section.contains("- Act: "), "{name}");
    }
    let sections: BTreeSet<&str> =
        page.lines().filter_map(|line| line.strip_prefix("### ")).collect();
    assert_eq!(sections, alerts.iter().map(|(name, _)| *name).collect());
}

#[test]
fn each_metric_of_the_alerts_exists() {
    // Another test compares the page with the programs.
    let page = fs::read_to_string(root().join("docs/metrics.md")).unwrap();
    let text = read("rules.yml") + &read("tests.yml");
    let words = text.split(|c: char| !c.is_ascii_alphanumeric() && c != '_' && c != ':');
    let metrics: BTreeSet<&str> = words.filter(|word| word.starts_with("zentra_")).collect();
    assert!(metrics.len() > 20, "{metrics:?}");
    for metric in metrics {
        let name = metric.strip_suffix("_bucket").unwrap_or(metric);
        assert!(page.contains(&format!("| `{name}` |")), "no program has {metric}");
    }
}
