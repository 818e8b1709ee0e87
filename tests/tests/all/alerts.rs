//! The alerts in `deploy/prometheus` and the dashboards in `deploy/grafana`: Prometheus's own tool runs their tests,
//! their metrics exist, and each alert has a runbook.

use std::collections::BTreeSet;
use std::fs;
use std::path::PathBuf;
use std::process::Command;

use serde_json::Value;
use zentra_tests::services::folder;

use crate::documentation::root;

fn prometheus() -> PathBuf {
    root().join("deploy/prometheus")
}

fn read(name: &str) -> String {
    fs::read_to_string(prometheus().join(name)).unwrap()
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
        let output = promtool.args(arguments).current_dir(prometheus()).output().unwrap();
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

/// The Prometheus metrics of Zentra in a text; each is in docs/metrics.md.
fn metrics(text: &str) -> BTreeSet<&str> {
    // Another test compares the page with the programs.
    let page = fs::read_to_string(root().join("docs/metrics.md")).unwrap();
    let words = text.split(|c: char| !c.is_ascii_alphanumeric() && c != '_' && c != ':');
    let metrics: BTreeSet<&str> = words.filter(|word| word.starts_with("zentra_")).collect();
    for metric in &metrics {
        let name = metric.strip_suffix("_bucket").unwrap_or(metric);
        assert!(page.contains(&format!("| `{name}` |")), "no program has {metric}");
    }
    metrics
}

#[test]
fn each_metric_of_the_alerts_exists() {
    let text = read("rules.yml") + &read("tests.yml");
    assert!(metrics(&text).len() > 20);
}

#[test]
fn each_panel_of_the_dashboards_is_a_query_of_metrics_that_exist() {
    let rules = read("rules.yml");
    let recorded: BTreeSet<&str> =
        rules.lines().filter_map(|line| line.trim().strip_prefix("- record: ")).collect();
    let (mut queries, mut uids) = (Vec::new(), BTreeSet::new());
    for name in ["overview", "source", "destination"] {
        let file = root().join(format!("deploy/grafana/{name}.json"));
        let board: Value = serde_json::from_slice(&fs::read(&file).unwrap()).unwrap();
        assert_eq!(board["uid"], format!("zentra-{name}"));
        let of = queries.len();
        let mut ids = BTreeSet::new();
        for panel in board["panels"].as_array().unwrap() {
            let title = panel["title"].as_str().unwrap();
            assert!(ids.insert(panel["id"].as_u64().unwrap()), "{name}: {title}");
            if panel["type"] == "row" {
                continue;
            }
            assert!(
                panel["description"].as_str().is_some_and(|text| text.ends_with('.')),
                "{title}"
            );
            assert_eq!(panel["datasource"]["uid"], "${datasource}", "{name}: {title}");
            for target in panel["targets"].as_array().unwrap() {
                queries.push(target["expr"].as_str().unwrap().to_owned());
            }
        }
        assert!(queries.len() >= of + 18, "{name}");
        uids.insert(board["uid"].to_string());
    }
    assert_eq!(uids.len(), 3);

    let text = queries.join("\n");
    assert!(metrics(&text).len() > 40);
    let words = text.split(|c: char| !c.is_ascii_alphanumeric() && c != '_' && c != ':');
    for used in words.filter(|word| word.starts_with("zentra:")) {
        assert!(recorded.contains(used), "no rule records {used}");
    }

    // Prometheus's own parser reads them.
    let mut as_rules = String::from("groups:\n  - name: panels\n    rules:\n");
    for (at, query) in queries.iter().enumerate() {
        let query = query.replace("$__rate_interval", "5m").replace(['$'], "");
        let query = serde_json::to_string(&query).unwrap();
        as_rules += &format!("      - record: panel:{at}\n        expr: {query}\n");
    }
    let file = folder("panels").join("panels.yml");
    fs::write(&file, as_rules).unwrap();
    let output = Command::new("promtool").args(["check", "rules"]).arg(&file).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}
