//! RabbitMQ's management API: policies, alarms and the members of queues, which AMQP does not show.
//!
//! Source: <https://www.rabbitmq.com/docs/management#http-api>, and the queue and policy keys of
//! <https://www.rabbitmq.com/docs/policies>.

use http::{HeaderMap, StatusCode, header};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::Value;
use zentra_config::Config;
use zentra_core::clock::{self, Timestamp};

use super::http_get::HttpGet;
use super::{Finding, LIMIT, OtherClock};

/// Policy keys that make a queue drop or expire messages.
const LOSES: [&str; 4] = ["message-ttl", "expires", "max-length", "max-length-bytes"];
/// Policy keys that change where messages go, or how often they are tried.
const CHANGES: [&str; 3] = ["dead-letter-exchange", "delivery-limit", "overflow"];

#[derive(Deserialize)]
struct Node {
    name: String,
    #[serde(default)]
    running: bool,
    #[serde(default)]
    mem_alarm: bool,
    #[serde(default)]
    disk_free_alarm: bool,
    #[serde(default)]
    partitions: Vec<Value>,
}

#[derive(Deserialize)]
struct Queue {
    name: String,
    policy: Option<String>,
    operator_policy: Option<String>,
    /// A map; an empty one is a list.
    #[serde(default)]
    effective_policy_definition: Value,
    #[serde(default)]
    members: Vec<String>,
    #[serde(default)]
    online: Vec<String>,
}

/// Asks the API, if its URL is known.
pub(super) async fn examine(
    config: &Config,
    http: &HttpGet,
    url: Option<&str>,
    clocks: &mut Vec<OtherClock>,
) -> Vec<Finding> {
    let Some(url) = url else {
        let what = "policies, alarms and queue members are not examined without --management";
        return vec![Finding::skipped("rabbitmq management", what)];
    };
    let url = url.trim_end_matches('/');
    let failed = |what: String| {
        vec![Finding::problem("rabbitmq management", what).remedy(
            "Check --management: http://USER:PASSWORD@HOST:15672 of a user with the tag monitoring",
        )]
    };
    let nodes: Vec<Node> = match ask(http, &format!("{url}/api/nodes"), clocks).await {
        Ok(nodes) => nodes,
        Err(what) => return failed(what),
    };
    let columns = "name,policy,operator_policy,effective_policy_definition,members,online";
    let of_queues = format!("{url}/api/queues/{}?columns={columns}", virtual_host(config));
    let queues: Vec<Queue> = match ask(http, &of_queues, &mut Vec::new()).await {
        Ok(queues) => queues,
        Err(what) => return failed(what),
    };
    let mut found: Vec<Finding> = nodes.iter().map(judge_node).collect();
    let namespace = &config.namespace;
    let ours: Vec<&Queue> = queues.iter().filter(|queue| is_ours(namespace, &queue.name)).collect();
    if ours.is_empty() {
        found.push(
            Finding::warning("rabbitmq queues", format!("none starts with {namespace}."))
                .remedy("Start the ingress or a worker: they declare the queues"),
        );
        return found;
    }
    let judged: Vec<Finding> = ours.iter().flat_map(|queue| judge_queue(queue)).collect();
    if judged.is_empty() {
        let text = format!("{}: no policy loses messages, all members are online", ours.len());
        found.push(Finding::ok("rabbitmq queues", text));
    }
    found.extend(judged);
    found
}

/// A queue of this namespace that holds events. Refused callbacks, the archive and probes have
/// bounds anyway.
fn is_ours(namespace: &str, queue: &str) -> bool {
    let Some(rest) = queue.strip_prefix(namespace).and_then(|rest| rest.strip_prefix('.')) else {
        return false;
    };
    rest != "probe" && !["refused.", "archive."].iter().any(|bounded| rest.starts_with(bounded))
}

fn judge_node(node: &Node) -> Finding {
    let about = format!("rabbitmq node {}", node.name);
    match node {
        Node { running: false, .. } => {
            Finding::problem(about, "it does not run").remedy("Start it")
        }
        Node { partitions, .. } if !partitions.is_empty() => {
            Finding::problem(about, "it does not see all other nodes (network partition)")
                .remedy("See https://www.rabbitmq.com/docs/partitions")
        }
        Node { mem_alarm: true, .. } => {
            Finding::problem(about, "memory alarm: it accepts no messages, so callbacks get 503")
                .remedy("Give it more memory, or drain queues")
        }
        Node { disk_free_alarm: true, .. } => {
            Finding::problem(about, "disk alarm: it accepts no messages, so callbacks get 503")
                .remedy("Free room on its disk")
        }
        _ => Finding::ok(about, "runs, no alarm"),
    }
}

fn judge_queue(queue: &Queue) -> Vec<Finding> {
    let about = format!("queue {}", queue.name);
    let mut found = Vec::new();
    let policies: Vec<&str> =
        [&queue.policy, &queue.operator_policy].into_iter().flatten().map(String::as_str).collect();
    let policy = format!("policy {}", policies.join(" and "));
    let sets = |key: &&&str| queue.effective_policy_definition.get(**key).is_some();
    let loses: Vec<&str> = LOSES.iter().filter(sets).copied().collect();
    if !loses.is_empty() {
        found.push(
            Finding::problem(
                &about,
                format!("{policy} sets {}: events can be lost", loses.join(", ")),
            )
            .remedy("Exclude this queue from the policy"),
        );
    }
    let changes: Vec<&str> = CHANGES.iter().filter(sets).copied().collect();
    if !changes.is_empty() {
        let text = format!("{policy} sets {}, which Zentra sets itself", changes.join(", "));
        found.push(Finding::warning(&about, text).remedy("Exclude this queue from the policy"));
    }
    let (all, online) = (queue.members.len(), queue.online.len());
    if online < all {
        let text = format!("{online} of its {all} members are online");
        found.push(match online * 2 > all {
            true => Finding::warning(&about, text).remedy("Start the other nodes"),
            false => Finding::problem(&about, format!("{text}: it accepts no messages"))
                .remedy("Start the other nodes"),
        });
    }
    found
}

async fn ask<T: DeserializeOwned>(
    http: &HttpGet,
    url: &str,
    clocks: &mut Vec<OtherClock>,
) -> Result<T, String> {
    let answer = http.get(url, LIMIT).await?;
    if let Some(theirs) = date(&answer.headers) {
        let ours = clock::now();
        clocks.push(OtherClock { of: "RabbitMQ".into(), theirs, ours });
    }
    match answer.status {
        StatusCode::OK => serde_json::from_slice(&answer.body)
            .map_err(|error| format!("its answer cannot be read: {error}")),
        StatusCode::UNAUTHORIZED => {
            Err("it refuses the user, the password or the user's tag".into())
        }
        status => Err(format!("it answers {status}")),
    }
}

fn date(headers: &HeaderMap) -> Option<Timestamp> {
    let date = httpdate::parse_http_date(headers.get(header::DATE)?.to_str().ok()?).ok()?;
    let since = date.duration_since(std::time::UNIX_EPOCH).ok()?;
    Some(Timestamp::from_secs(since.as_secs()))
}

/// The virtual host of the first URL, encoded for a path.
fn virtual_host(config: &Config) -> String {
    let url = config.rabbitmq.urls.first().map(|url| url.expose()).unwrap_or_default();
    let url = String::from_utf8_lossy(url);
    let path =
        url.split_once("://").and_then(|(_, rest)| rest.split_once('/')).map(|(_, path)| path);
    let path = path.unwrap_or_default().split('?').next().unwrap_or_default();
    if path.is_empty() { "%2f".into() } else { path.into() }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::doctor::Level;

    fn levels(queue: Value) -> Vec<Level> {
        let queue = serde_json::from_value(queue).unwrap();
        judge_queue(&queue).into_iter().map(|found| found.level).collect()
    }

    #[test]
    fn each_policy_that_can_lose_events_is_a_problem() {
        for key in LOSES {
            let queue = json!({
                "name": "z.work.app", "policy": "all", "effective_policy_definition": { key: 1 },
            });
            assert_eq!(levels(queue), [Level::Problem], "{key}");
        }
        for key in CHANGES {
            let queue = json!({ "name": "z.work.app", "effective_policy_definition": { key: 1 } });
            assert_eq!(levels(queue), [Level::Warning], "{key}");
        }
        let none = json!({ "name": "z.work.app", "effective_policy_definition": [] });
        assert_eq!(levels(none), []);
    }

    #[test]
    fn a_queue_needs_a_majority_of_its_members() {
        for (online, level) in [
            (vec!["a", "b"], Level::Warning),
            (vec!["a"], Level::Problem),
            (vec![], Level::Problem),
        ] {
            let queue =
                json!({ "name": "z.dead.app", "members": ["a", "b", "c"], "online": online });
            assert_eq!(levels(queue), [level]);
        }
    }

    #[test]
    fn only_queues_of_events_in_this_namespace_count() {
        for (queue, ours) in [
            ("z.app.0", true),
            ("z.dead.app", true),
            ("z.unrouted", true),
            ("z.work.probe", true),
            ("z.refused.10x10x10", false),
            ("z.archive.1x1", false),
            ("z.probe", false),
            ("zz.app", false),
            ("other", false),
        ] {
            assert_eq!(is_ours("z", queue), ours, "{queue}");
        }
    }
}
