//! One event gives one delivery, and two events give two, by each provider's own way of
//! identifying events, on both backends.

use base64::Engine;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use hmac::{Hmac, KeyInit, Mac};
use http::Method;
use serde_json::Value;
use sha2::{Digest, Sha256};
use zentra_tests::http::{Answer, Headers, Http};
use zentra_tests::ledger::{Ledger, Seen};
use zentra_tests::services::folder;
use zentra_tests::sign::CASE_SECRET as SECRET;
use zentra_tests::stack::{Program, Stack};
use zentra_tests::world::BOUND;
use zentra_tests::{eventually, namespace, shared_rabbit, shared_redis, sign};

/// A Zentra with one more source, `s`, and a destination `app` for all its types.
pub(crate) struct Site {
    pub(crate) stack: Stack,
    pub(crate) ledger: Ledger,
    programs: Vec<Program>,
    listen: String,
    http: Http,
}

impl Site {
    /// A callback of GitHub, whose signature covers neither type nor ID.
    pub(crate) async fn github(&self, kind: &str, id: &str, body: &str) {
        let tag = format!("sha256={}", hex::encode(hmac(body.as_bytes())));
        let headers = json(&[
            ("x-github-event", kind),
            ("x-github-delivery", id),
            ("x-hub-signature-256", &tag),
        ]);
        self.post(&headers, body).await;
    }

    /// `tables` is the configuration of the source `s` and anything else. Its secret is
    /// `env:CASE`.
    pub(crate) async fn start(embedded: bool, tables: &str) -> Self {
        Self::subscribed(embedded, tables, "s.#").await
    }

    /// With another subscription pattern.
    pub(crate) async fn subscribed(embedded: bool, tables: &str, pattern: &str) -> Self {
        let ledger = Ledger::start(&folder("ledger")).await.unwrap();
        let more = format!(
            "[destination.app]\ntimeout = \"1s\"\nurl = \"{}\"\nsubscribe = [\"{pattern}\"]\n{}",
            ledger.any(),
            tables.replace("ANY", &ledger.any())
        );
        let (rabbit, redis) = match embedded {
            true => Default::default(),
            false => (shared_rabbit(), shared_redis()),
        };
        let stack = Stack::new(&rabbit, &redis, &namespace(), &ledger.url, &more);
        let (listen, programs) = if embedded {
            stack.embed();
            let program = stack.standalone().await;
            (program.listen.clone(), vec![program])
        } else {
            let ingress = stack.ingress().await;
            (ingress.listen.clone(), vec![ingress, stack.worker().await])
        };
        Self { stack, ledger, programs, listen, http: Http::default() }
    }

    /// Sends to the source `s`.
    pub(crate) async fn send(
        &self,
        method: Method,
        query: &str,
        headers: &Headers,
        body: impl Into<bytes::Bytes>,
    ) -> Answer {
        let url = format!("{}/in/s{query}", self.listen);
        self.http.send(method, &url, headers, body).await.unwrap()
    }

    pub(crate) async fn post(&self, headers: &Headers, body: &str) {
        let answer = self.send(Method::POST, "", headers, body.to_owned()).await;
        assert!(answer.status.is_success(), "{answer:?}");
    }

    /// All deliveries of `s`, by state.
    pub(crate) fn deliveries(&self) -> Vec<Value> {
        let listed = self.stack.zentra(&["event", "list", "--source", "s", "--json"]);
        let listed: Value = serde_json::from_slice(&listed.stdout).unwrap_or_default();
        listed["items"].as_array().cloned().unwrap_or_default()
    }

    /// Waits until the callbacks have led to these numbers of requests at the destination,
    /// recorded copies, and dead letters.
    pub(crate) async fn until(&self, what: &str, requests: usize, copies: usize, dead: usize) {
        let wanted = (requests, copies, dead);
        eventually(&format!("{what}: {wanted:?}"), BOUND, async || {
            let all = self.deliveries();
            let lines = all.iter().filter_map(|one| one["history"].as_array()).flatten();
            let copy = |line: &&Value| ["duplicate", "stale"].iter().any(|of| line["what"] == *of);
            let dead = all.iter().filter(|one| one["record"]["state"] == "dead").count();
            let found = (self.ledger.seen().len(), lines.filter(copy).count(), dead);
            (found == wanted).then_some(())
        })
        .await;
    }

    /// Waits for the counts of suspected replays: all, and those that are not kept.
    async fn counts_suspected(&self, wanted: [f64; 2]) {
        eventually(&format!("suspected, not kept: {wanted:?}"), BOUND, async || {
            let mut counted = [0.0; 2];
            for program in &self.programs {
                for (sum, of) in counted.iter_mut().zip(["", "_not_kept"]) {
                    let name = format!("zentra_worker_suspected_replays{of}_total{{");
                    *sum += program.metric(&self.http, &[&name]).await;
                }
            }
            (counted == wanted).then_some(())
        })
        .await;
    }

    /// Replays the whole archive, including what is delivered.
    pub(crate) async fn replay(&self) {
        let id = eventually("it is archived", BOUND, async || {
            let plan = ["job", "plan", "--archive", "--source", "s", "--force", "--json"];
            let planned = self.stack.zentra(&plan);
            let planned: Value = serde_json::from_slice(&planned.stdout).ok()?;
            planned["id"].as_str().map(str::to_owned)
        })
        .await;
        let ran = self.stack.zentra(&["job", "run", &id]);
        assert!(ran.status.success(), "{ran:?}");
    }

    pub(crate) fn seen(&self) -> Vec<Seen> {
        self.ledger.seen()
    }
}

/// The source `s`.
pub(crate) fn source(provider: &str, more: &str) -> String {
    let secret = "secrets = [{ name = \"a\", secret = \"env:CASE\" }]";
    format!("[source.s]\nprovider = \"{provider}\"\n{secret}\n{more}\n")
}

fn json(more: &[(&'static str, &str)]) -> Headers {
    let all = more.iter().map(|(name, value)| (*name, (*value).to_owned()));
    [("content-type", "application/json".to_owned())].into_iter().chain(all).collect()
}

fn hmac(content: &[u8]) -> Vec<u8> {
    let mac = Hmac::<Sha256>::new_from_slice(SECRET.as_bytes()).unwrap();
    mac.chain_update(content).finalize().into_bytes().to_vec()
}

/// A token signed by HS256, as in RFC 7515.
pub(crate) fn token(claims: &Value) -> String {
    let encode = |value: &Value| URL_SAFE_NO_PAD.encode(value.to_string());
    let content = format!(
        "{}.{}",
        encode(&serde_json::json!({ "alg": "HS256", "typ": "JWT" })),
        encode(claims)
    );
    let tag = URL_SAFE_NO_PAD.encode(hmac(content.as_bytes()));
    format!("Bearer {content}.{tag}")
}

/// Dropbox reports that something changed, with the same bytes each time.
async fn a_second_change_of_the_same_account_is_delivered(embedded: bool) {
    let site = Site::start(embedded, &source("dropbox", "")).await;
    let body = r#"{"list_folder": {"accounts": ["dbid:AAH1"]}, "delta": {"users": [12345]}}"#;
    let tag = "cf20539a95e43a003ccbdb57b03e812046dae46dd7e703a262123cdc149020fe";
    for _ in 0..2 {
        site.post(&json(&[("x-dropbox-signature", tag)]), body).await;
    }
    site.until("both changes", 2, 0, 0).await;
    let keys: Vec<_> =
        site.seen().iter().map(|seen| seen.header("idempotency-key").to_owned()).collect();
    assert_ne!(keys[0], keys[1]);
    let checked = site.stack.zentra(&["check"]);
    let printed = String::from_utf8_lossy(&checked.stdout).into_owned()
        + &String::from_utf8_lossy(&checked.stderr);
    assert!(printed.contains("source.s: at least once"), "{printed}");
}

/// Three states of one message are three events, each delivered once.
async fn states_of_one_message_are_events_of_their_own(embedded: bool) {
    let site = Site::start(embedded, &source("vonage", "")).await;
    let states = ["submitted", "delivered", "read"];
    let send = async |state: &str, later: u64| {
        let body = serde_json::json!({
            "message_uuid": "aaaaaaaa-bbbb-4ccc-8ddd-0123456789ab", "status": state,
            "timestamp": "2026-11-28T18:17:50Z",
        })
        .to_string();
        let now = sign::now() + later;
        let claims = serde_json::json!({
            "iat": now, "exp": now + 300, "jti": state, "iss": "Vonage",
            "payload_hash": hex::encode(Sha256::digest(&body)), "api_key": "k",
        });
        site.post(&json(&[("authorization", &token(&claims))]), &body).await;
    };
    for state in states {
        send(state, 0).await;
    }
    site.until("three states", 3, 0, 0).await;
    // A retry is signed anew.
    send("read", 1).await;
    site.until("and a copy of the last", 3, 1, 0).await;
}

/// Viber's `seen` has the token and the time of `delivered`.
async fn what_happens_to_one_message_at_one_time_is_told_apart(embedded: bool) {
    let site = Site::start(embedded, &source("viber", "")).await;
    for (event, tag) in [
        ("delivered", "139a07687e788aa9f59fbc5d66abfb98068475b0a3ab54a6b822a4556142e762"),
        ("seen", "19e2e5f46fcb06ed664acd83622396e84e40151a71bff01f51721742645babd5"),
    ] {
        let body = format!(
            r#"{{"event": "{event}", "timestamp": 1457764197627, "message_token": 4912661846655238145, "user_id": "u=="}}"#
        );
        site.post(&json(&[("x-viber-content-signature", tag)]), &body).await;
    }
    site.until("delivered and seen", 2, 0, 0).await;
}

/// Two Google channels number their messages independently.
async fn the_same_number_of_two_channels_is_two_events(embedded: bool) {
    let site = Site::start(embedded, &source("google-channels", "")).await;
    let send = async |channel: &str, number: &str| {
        let resource = format!("r-{channel}");
        let headers: Headers = [
            ("x-goog-channel-token", SECRET),
            ("x-goog-channel-id", channel),
            ("x-goog-resource-id", &resource),
            ("x-goog-resource-state", "exists"),
            ("x-goog-message-number", number),
        ]
        .map(|(name, value)| (name, value.to_owned()))
        .into();
        site.post(&headers, "").await;
    };
    send("calendar-of-ann", "17").await;
    send("calendar-of-bob", "17").await;
    site.until("ann's and bob's", 2, 0, 0).await;
    send("calendar-of-ann", "18").await;
    site.until("ann's next", 3, 0, 0).await;
    send("calendar-of-ann", "18").await;
    site.until("ann's next, sent again", 3, 1, 0).await;
}

/// woocommerce#19764: an order that is created and updated at once, with the same bytes.
async fn two_topics_with_the_same_bytes_both_arrive(embedded: bool) {
    let site = Site::start(embedded, &source("woocommerce", "")).await;
    let send = async |topic: &str, id: &str| {
        let headers = json(&[
            ("x-wc-webhook-topic", topic),
            ("x-wc-webhook-delivery-id", id),
            ("x-wc-webhook-signature", "b4MsDYL9hmFknrTpEiGjdey30w9x72eSRCMjG+Q8n7w="),
        ]);
        site.post(&headers, r#"{"id":77,"status":"processing"}"#).await;
    };
    send("order.created", "d1").await;
    send("order.updated", "d2").await;
    site.until("both topics", 2, 0, 0).await;
    send("order.updated", "d2").await;
    site.until("and a copy", 2, 1, 0).await;
    send("order.updated", "d3").await;
    site.until("and a replay under another id", 2, 1, 1).await;
}

/// Mailgun signs time and token of each attempt, and the event keeps its ID.
async fn a_retry_that_is_signed_anew_is_a_copy_by_its_events_id(embedded: bool) {
    let site = Site::start(embedded, &source("mailgun", "")).await;
    for (second, token) in [(0, "t"), (1, "u")] {
        let (time, token) = ((sign::now() + second).to_string(), token.repeat(50));
        let tag = hex::encode(hmac(format!("{time}{token}").as_bytes()));
        let body = serde_json::json!({
            "event-data": { "id": "CPgfbmQMTCKtHW6uIWtuVe", "event": "delivered" },
            "signature": { "timestamp": time, "token": token, "signature": tag },
        });
        site.post(&json(&[]), &body.to_string()).await;
    }
    eventually("the retry is recorded as one that was written anew", BOUND, async || {
        let all = site.deliveries();
        let lines = all.first()?["history"].as_array()?;
        (all.len() == 1 && lines.iter().any(|line| line["what"] == "conflict")).then_some(())
    })
    .await;
    site.until("one event", 1, 0, 0).await;
}

/// Somebody who has seen a callback of GitHub can send it under another type, to that type's
/// subscribers.
async fn signed_bytes_under_another_type_reach_no_further_destination(embedded: bool) {
    let more =
        "[destination.deploys]\ntimeout = \"1s\"\nurl = \"ANY\"\nsubscribe = [\"s.deployment\"]\n";
    let site = Site::start(embedded, &format!("{more}{}", source("github", ""))).await;
    let body = r#"{"ref":"main"}"#;
    let send = async |kind: &str, id: &str| site.github(kind, id, body).await;
    send("push", "d1").await;
    site.until("the push", 1, 0, 0).await;
    // With the delivery's own ID and with another one. It has no effect at either destination.
    send("deployment", "d1").await;
    site.until("under its id", 1, 0, 2).await;
    send("deployment", "d2").await;
    site.until("under another id", 1, 0, 4).await;
    send("push", "d1").await;
    site.until("a true copy", 1, 1, 4).await;
    let dead = site.stack.zentra(&["dead", "list", "--json"]);
    let dead = String::from_utf8_lossy(&dead.stdout).into_owned();
    assert!(dead.contains("suspected_replay"), "{dead}");
    let checked = site.stack.zentra(&["check"]);
    let printed = String::from_utf8_lossy(&checked.stdout).into_owned()
        + &String::from_utf8_lossy(&checked.stderr);
    assert!(printed.contains("source.s: type unsigned"), "{printed}");
    // The operator decides that it is genuine.
    let all = site.deliveries();
    let at_deploys = |one: &&Value| {
        one["record"]["state"] == "dead"
            && one["key"].as_str().is_some_and(|key| key.starts_with("deploys/"))
    };
    let key = all.iter().find(at_deploys).unwrap()["key"].as_str().unwrap();
    let released = site.stack.zentra(&["event", "release", key, "--because", "meant so"]);
    assert!(released.status.success(), "{released:?}");
    site.until("released", 2, 1, 3).await;
}

/// Somebody who has seen a callback of GitHub can send it under any number of IDs.
async fn of_the_same_signed_bytes_the_first_few_copies_are_kept(embedded: bool) {
    let site = Site::start(embedded, &source("github", "")).await;
    let body = r#"{"ref":"main"}"#;
    let send = async |kind: &str, id: &str| site.github(kind, id, body).await;
    send("push", "d0").await;
    site.until("the push", 1, 0, 0).await;
    for at in 0..20 {
        send("push", &format!("d{}", at + 1)).await;
        send(&format!("kind{at}"), "d0").await;
    }
    site.counts_suspected([40.0, 35.0]).await;
    site.until("the first few", 1, 0, 5).await;
    // One of those that are kept takes no further place.
    let kept = site.deliveries().into_iter().find(|one| one["record"]["state"] == "dead").unwrap();
    let of = |field: &str| kept["event"][field].as_str().unwrap().to_owned();
    send(&of("event_type"), &of("event_id")).await;
    eventually("a copy of it", BOUND, async || {
        let lines = site.deliveries();
        let lines = lines.iter().filter_map(|one| one["history"].as_array()).flatten();
        let copies = lines.filter(|line| line["what"] == "duplicate_dead").count();
        (copies == 1).then_some(())
    })
    .await;
    site.until("the same", 1, 0, 5).await;
}

/// Without the value that distinguishes events, the same bytes may be another event, or a replay
/// by somebody who has seen them. So a few are delivered per hour.
async fn of_the_same_bytes_that_may_be_new_events_the_first_few_are_delivered(embedded: bool) {
    // The type is unsigned, and part of the identity.
    let site = Site::start(embedded, &source("helpscout", "")).await;
    let send = async |body: &str, kind: &str| {
        let mut mac = Hmac::<sha1::Sha1>::new_from_slice(SECRET.as_bytes()).unwrap();
        mac.update(body.as_bytes());
        let tag = STANDARD.encode(mac.finalize().into_bytes());
        let headers = json(&[("x-helpscout-event", kind), ("x-helpscout-signature", &tag)]);
        site.post(&headers, body).await;
    };
    for at in 0..12 {
        send(r#"{"id":7}"#, &format!("kind{}", at % 3)).await;
    }
    site.counts_suspected([7.0, 2.0]).await;
    site.until("a few requests, a few letters", 5, 0, 5).await;
    send(r#"{"id":8}"#, "kind0").await;
    site.until("other bytes", 6, 0, 5).await;
    let dead = site.deliveries().into_iter().find(|one| one["record"]["state"] == "dead").unwrap();
    assert_eq!(dead["reason"], "suspected_replay");
    let key = dead["key"].as_str().unwrap();
    let released = site.stack.zentra(&["event", "release", key, "--because", "a new event"]);
    assert!(released.status.success(), "{released:?}");
    site.until("released", 7, 0, 4).await;
}

/// Another body under an ID that is not known to name one event waits for an operator, with its
/// bytes.
async fn another_body_under_a_delivery_id_is_a_dead_letter_that_can_be_released(embedded: bool) {
    let site =
        Site::start(embedded, &source("standard-webhooks", "").replace("CASE", "ACME")).await;
    let send = async |body: &str| {
        site.post(&sign::acme("msg_1", sign::now(), body.as_bytes()), body).await;
    };
    let (first, other) = (r#"{"type":"t","n":1}"#, r#"{"type":"t","n":2}"#);
    send(first).await;
    site.until("the first", 1, 0, 0).await;
    send(other).await;
    site.until("another body", 1, 0, 1).await;
    send(other).await;
    eventually("a copy of it", BOUND, async || {
        let all = site.deliveries();
        let lines = all.iter().filter_map(|one| one["history"].as_array()).flatten();
        let copies = lines.filter(|line| line["what"] == "duplicate_dead").count();
        (copies == 1 && all.len() == 2).then_some(())
    })
    .await;
    let dead = site.deliveries().into_iter().find(|one| one["record"]["state"] == "dead").unwrap();
    assert_eq!(dead["reason"], "conflict");
    let key = dead["key"].as_str().unwrap();
    let requeued = site.stack.zentra(&["dead", "requeue", key]);
    assert!(
        String::from_utf8_lossy(&requeued.stderr).contains("zentra event release"),
        "{requeued:?}"
    );
    let released = site.stack.zentra(&["event", "release", key, "--because", "two payments"]);
    assert!(released.status.success(), "{released:?}");
    site.until("released", 2, 0, 0).await;
    assert_eq!(site.seen()[1].body, other);
    let status = site.stack.zentra(&["status"]);
    let printed = String::from_utf8_lossy(&status.stdout).into_owned();
    assert!(printed.contains("1 conflicts (1 in the last hour"), "{printed}");
}

/// Stripe's ID names an event: another body is the same event, rendered anew for a retry.
async fn another_body_under_an_events_id_is_a_retry_that_was_written_anew(embedded: bool) {
    let site = Site::start(embedded, &source("stripe", "").replace("CASE", "STRIPE_EU")).await;
    for pending in [2, 1] {
        let body = format!(r#"{{"id":"evt_1","type":"t","pending_webhooks":{pending}}}"#);
        site.post(&sign::stripe(sign::now(), body.as_bytes()), &body).await;
    }
    eventually("the retry is recorded", BOUND, async || {
        let status = site.stack.zentra(&["status", "--json"]);
        let status: Value = serde_json::from_slice(&status.stdout).ok()?;
        let source = status["sources"].as_array()?.iter().find(|one| one["source"] == "s")?;
        (source["rendered_retries"]["count"] == 1 && source["conflicts"]["count"] == 0)
            .then_some(())
    })
    .await;
    site.until("one event", 1, 0, 0).await;
}

/// Each runs on RabbitMQ and Redis, and on one file.
macro_rules! on_both {
    ($($name:ident)*) => {
        mod servers { $(
            #[tokio::test(flavor = "multi_thread")]
            async fn $name() { super::$name(false).await; }
        )* }
        mod file { $(
            #[tokio::test(flavor = "multi_thread")]
            async fn $name() { super::$name(true).await; }
        )* }
    };
}

pub(crate) use on_both;

on_both! {
    a_second_change_of_the_same_account_is_delivered
    states_of_one_message_are_events_of_their_own
    what_happens_to_one_message_at_one_time_is_told_apart
    the_same_number_of_two_channels_is_two_events
    two_topics_with_the_same_bytes_both_arrive
    a_retry_that_is_signed_anew_is_a_copy_by_its_events_id
    signed_bytes_under_another_type_reach_no_further_destination
    of_the_same_signed_bytes_the_first_few_copies_are_kept
    of_the_same_bytes_that_may_be_new_events_the_first_few_are_delivered
    another_body_under_a_delivery_id_is_a_dead_letter_that_can_be_released
    another_body_under_an_events_id_is_a_retry_that_was_written_anew
}

/// Another encoding of the same form under another unsigned ID, in every order: it is settled, and
/// there is one request.
#[tokio::test(flavor = "multi_thread")]
async fn what_differs_from_one_event_in_several_things_comes_to_an_end() {
    let more = "public_url = \"https://hooks.example.com/in/s\"";
    let site = Site::start(true, &source("twilio", more)).await;
    let content = "https://hooks.example.com/in/sMessageSidSM2MessageStatussent";
    let mac = Hmac::<sha1::Sha1>::new_from_slice(SECRET.as_bytes()).unwrap();
    let tag = base64::engine::general_purpose::STANDARD
        .encode(mac.chain_update(content).finalize().into_bytes());
    let bodies = [
        "MessageSid=SM2&MessageStatus=sent",
        "MessageSid=S%4d2&MessageStatus=sent",
        "MessageSid=SM2&MessageStatus=s%65nt",
    ];
    let sent = [(0, "id0"), (1, "X"), (2, "id0"), (2, "X"), (1, "id0"), (0, "X"), (0, "id0")];
    for (body, id) in sent {
        let headers = vec![
            ("content-type", "application/x-www-form-urlencoded".to_owned()),
            ("x-twilio-signature", tag.clone()),
            ("i-twilio-idempotency-token", id.to_owned()),
        ];
        site.post(&headers, bodies[body]).await;
    }
    eventually("the queue is empty", BOUND, async || {
        let status = site.stack.zentra(&["status", "--json"]);
        let status: Value = serde_json::from_slice(&status.stdout).ok()?;
        let app =
            status["destinations"].as_array()?.iter().find(|one| one["destination"] == "app")?;
        (app["backlog"] == 0 && app["in_flight"] == 0).then_some(())
    })
    .await;
    assert_eq!(site.seen().len(), 1);
}
