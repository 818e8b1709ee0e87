//! Each action of the console, on both backends, and what each role sees.

use std::fs;

use serde_json::{Value, json};
use zentra_tests::ledger::{Ledger, Turn, transfer};
use zentra_tests::services::{self, Guarded, folder, free_port};
use zentra_tests::stack::{Program, Stack};
use zentra_tests::world::BOUND;
use zentra_tests::{eventually, namespace, shared_rabbit, shared_redis, sign};

use crate::browser::{Browser, link};
use crate::pull::{On, on_both};

on_both! {
    each_action_on_events_and_letters_asks_for_a_reason_and_is_audited
    sources_are_tested_lists_reconciled_and_sessions_ended
    each_role_sees_its_own_actions_only
    each_action_on_destinations_jobs_and_stored_callbacks_asks_for_a_reason_and_is_audited
    a_keyboard_is_enough_and_of_two_operators_one_acts
    letters_are_selected_by_error_or_one_by_one_and_a_job_lists_what_it_touched
}

/// A Zentra with its console.
pub(crate) struct Site {
    pub(crate) stack: Stack,
    ledger: Ledger,
    pub(crate) listen: String,
    pub(crate) console: String,
    _programs: Vec<Program>,
    _serve: Option<Guarded>,
}

impl Site {
    pub(crate) async fn start(on: On) -> Self {
        Self::start_after(on, "", async |_, _| ()).await
    }

    /// `more` is added to the destination's table. A second attempt comes after an hour. Before, an ingress runs that routes events of `github` nowhere, and gets what `before` sends to it.
    pub(crate) async fn start_after(
        on: On,
        more: &str,
        before: impl AsyncFn(&Stack, &str),
    ) -> Self {
        let ledger = Ledger::start(&folder("ledger")).await.unwrap();
        let retry = "retry = { attempts = 2, initial = \"1h\", max = \"1h\" }";
        let more = format!("{retry}\n{more}");
        let stack = match on {
            On::File => Stack::new("", "", "shop", &ledger.url, &more),
            On::Servers => {
                let (rabbit, redis) = (shared_rabbit(), shared_redis());
                Stack::new(&rabbit, &redis, &namespace(), &ledger.url, &more)
            }
        };
        if matches!(on, On::File) {
            stack.embed();
        }
        stack.replace(", \"github.#\"]", "]");
        let mut ingress = match on {
            On::File => stack.standalone().await,
            On::Servers => stack.ingress().await,
        };
        before(&stack, &ingress.listen).await;
        ingress.process.kill();
        stack.replace("\"stripe-eu.#\"]", "\"stripe-eu.#\", \"github.#\"]");
        if matches!(on, On::File) {
            let program = stack.standalone().await;
            let (listen, console) = (program.listen.clone(), program.console.clone());
            return Self { stack, ledger, listen, console, _programs: vec![program], _serve: None };
        }
        let (ingress, worker) = (stack.ingress().await, stack.worker().await);
        let (listen, console) = (ingress.listen.clone(), format!("127.0.0.1:{}", free_port()));
        let mut serve = stack.command("zentra");
        serve.args(["serve", "--listen", &console, "--admit", "--ingress", &listen]);
        let (serve, console) = (services::start(serve), format!("http://{console}"));
        eventually("the console answers", BOUND, async || {
            stack.http.get(&format!("{console}/healthz")).await
        })
        .await;
        let _programs = vec![ingress, worker];
        Self { stack, ledger, listen, console, _programs, _serve: Some(serve) }
    }

    /// Sends an event to which the ledger answers with these statuses.
    pub(crate) async fn send(&self, id: &str, answers: &[u16]) {
        self.ledger.take_turns(answers.iter().map(|status| Turn::Answer(*status, Vec::new())));
        self.post(id, &transfer(id, id, 1)).await;
    }

    pub(crate) async fn post(&self, id: &str, body: &str) {
        let headers = sign::acme(id, sign::now(), body.as_bytes());
        let url = format!("{}/in/acme", self.listen);
        let answer = self.stack.http.post(&url, &headers, body.to_owned()).await.unwrap();
        assert!(answer.status.is_success(), "{answer:?}");
    }

    pub(crate) async fn until(&self, id: &str, state: &str) -> Value {
        self.stack.until(id, state, BOUND).await
    }

    fn audit(&self) -> String {
        String::from_utf8(self.stack.zentra(&["audit"]).stdout).unwrap()
    }

    async fn sign_in(&self, browser: &Browser, role: &str, more: &[&str]) {
        let asked = [&["--role", role], more].concat();
        browser.go(&link(&self.stack, &self.console, &asked)).await;
        browser.see(".who").await;
        browser.read(role).await;
    }
}

async fn each_action_on_events_and_letters_asks_for_a_reason_and_is_audited(on: On) {
    let site = Site::start(on).await;
    for id in ["evt_now", "evt_end"] {
        site.send(id, &[503]).await;
        site.until(id, "waiting").await;
    }
    for id in ["evt_requeue", "evt_drain", "evt_all"] {
        site.send(id, &[422]).await;
        site.until(id, "dead").await;
    }
    // Another body under a known id.
    site.send("evt_conflict", &[]).await;
    site.until("evt_conflict", "delivered").await;
    site.post("evt_conflict", &transfer("evt_conflict", "trf_other", 2)).await;

    let browser = Browser::open().await;
    site.sign_in(&browser, "operator", &[]).await;
    let act = async |id: &str, action: &str, then: &str| {
        browser.go(&format!("{}/#/events/ledger%2Facme%2F{id}", site.console)).await;
        browser.choose(&format!("{action}…")).await;
        browser.reason(&format!("why {action}")).await;
        browser.read(&format!("{action}: done.")).await;
        browser.read(then).await;
    };
    act("evt_now", "Attempt now", "delivered with 200").await;
    act("evt_end", "End retries", "dead letter: ended").await;
    act("evt_requeue", "Requeue", "delivered with 200").await;
    act("evt_drain", "Drain", "drained by ").await;

    // Of all that match, by a job.
    browser.go(&format!("{}/#/events?state=dead&reason=permanent", site.console)).await;
    browser.choose("evt_all").await;
    browser.read("dead letter: permanent").await;
    browser.run("history.back()").await;
    browser.choose("Requeue all that match…").await;
    browser.reason("why all").await;
    browser.read("nothing was changed").await;
    assert_eq!(site.until("evt_all", "dead").await["record"]["state"], "dead");
    browser.choose("Run…").await;
    browser.reason("why run").await;
    browser.read("finished").await;
    site.until("evt_all", "delivered").await;

    // A conflict is released, and what is delivered is replayed under its key.
    browser.go(&format!("{}/#/dead?reason=conflict", site.console)).await;
    browser.choose("evt_conflict").await;
    browser.choose("Release…").await;
    browser.reason("why Release").await;
    browser.read("Release: done.").await;
    let keys = || {
        let seen = site.ledger.seen().into_iter();
        seen.filter(|one| one.header("idempotency-key") == "ledger/acme/evt_now").count()
    };
    let before = keys();
    browser.go(&format!("{}/#/events/ledger%2Facme%2Fevt_now", site.console)).await;
    browser.choose("Replay…").await;
    browser.reason("why Replay").await;
    browser.read("nothing was changed").await;
    browser.choose("Run…").await;
    browser.reason("why run").await;
    browser.read("finished").await;
    eventually("it is delivered again", BOUND, async || (keys() > before).then_some(())).await;
    let rows = site.ledger.rows().unwrap();
    assert_eq!(rows.iter().filter(|row| row.key.ends_with("evt_now")).count(), 1, "{rows:?}");

    let audit = site.audit();
    for because in ["Attempt now", "End retries", "Requeue", "Drain", "all", "Release", "Replay"] {
        assert!(audit.contains(&format!("why {because}")), "{because}: {audit}");
    }
    browser.close().await;
}

async fn sources_are_tested_lists_reconciled_and_sessions_ended(on: On) {
    let site = Site::start(on).await;
    site.send("evt_came", &[]).await;
    site.until("evt_came", "delivered").await;
    let browser = Browser::open().await;
    site.sign_in(&browser, "admin", &["--payloads"]).await;

    browser.choose("Sources").await;
    browser.choose("Test…").await;
    browser.reason("why test").await;
    browser.read("The ingress accepted it").await;
    browser.press(".notice.good a").await;
    browser.read("How it came").await;

    // A number with more digits than a JavaScript number has stays as it is.
    let list = folder("list").join("events.jsonl");
    let missing = json!({ "id": "evt_missing", "type": "transfer.settled" });
    fs::write(&list, format!("{}\n{{\"id\": \"evt_came\", \"type\": \"transfer.settled\", \"at\": 12345678901234567890123}}\n", missing)).unwrap();
    browser.choose("Reconcile").await;
    browser.see("select[name=source]").await.send_keys("acme").await.unwrap();
    browser.see("input[name=list]").await.send_keys(list.to_str().unwrap()).await.unwrap();
    browser.press("main form button.primary").await;
    browser.read("1 missing").await;
    browser.choose("Ingest missing events…").await;
    browser.reason("why ingest").await;
    browser.read("Ingested: 1.").await;
    // The ledger takes transfers only.
    site.until("evt_missing", "dead").await;

    // A case file and a command for the clipboard, without a word to the server that changes anything.
    browser.go(&format!("{}/#/events/ledger%2Facme%2Fevt_missing", site.console)).await;
    browser.read("Save a case file").await;
    browser.choose("Show the payload").await;
    browser.read("Copy as curl").await;

    // A token is revoked, and the own session ends with the sign-out.
    let other = site.stack.zentra(&["token", "create", "grafana"]);
    let other = String::from_utf8(other.stdout).unwrap().trim().to_owned();
    let asks = async |token: &str| {
        let headers = vec![("authorization", format!("Bearer {token}"))];
        let url = format!("{}/v1/me", site.console);
        let answer = site.stack.http.send(http::Method::GET, &url, &headers, String::new()).await;
        answer.unwrap().status.as_u16()
    };
    assert_eq!(asks(&other).await, 200);
    browser.choose("System").await;
    browser.read("grafana").await;
    let button = "[...document.querySelectorAll('tr')].find((row) => row.innerText.startsWith('grafana')).querySelector('button').click()";
    browser.run(button).await;
    browser.reason("why revoke").await;
    browser.read("Revoked: grafana.").await;
    assert_eq!(asks(&other).await, 401);
    let own = browser.run("return sessionStorage.getItem('zentra.token')").await;
    browser.choose("Sign out").await;
    browser.see("input[name=token]").await;
    assert_eq!(asks(own.as_str().unwrap()).await, 401);

    let audit = site.audit();
    for because in ["test", "ingest", "revoke"] {
        assert!(audit.contains(&format!("why {because}")), "{because}: {audit}");
    }
    browser.close().await;
}

async fn each_action_on_destinations_jobs_and_stored_callbacks_asks_for_a_reason_and_is_audited(
    on: On,
) {
    // Two failures open the circuit.
    let circuit = "circuit = { failures = 2, first_pause = \"1h\", pause = \"1h\" }";
    let site = Site::start_after(on, circuit, async |stack, listen| {
        let sent = stack.zentra(&["send", "github", "push", "--url", listen]);
        assert!(sent.status.success(), "{sent:?}");
    })
    .await;
    let browser = Browser::open().await;
    site.sign_in(&browser, "operator", &[]).await;

    browser.choose("Archive").await;
    browser.choose("Route unrouted events…").await;
    browser.reason("why route").await;
    browser.read("Routed: 1.").await;
    // The ledger takes transfers only.
    eventually("it was attempted", BOUND, async || {
        let dead = site.stack.zentra(&["dead", "list"]).stdout;
        String::from_utf8_lossy(&dead).contains("github").then_some(())
    })
    .await;

    // Another key has signed it.
    let body = transfer("evt_forged", "trf_1", 1);
    let mut headers = sign::acme("evt_forged", sign::now(), body.as_bytes());
    headers.retain(|(name, _)| *name != "webhook-signature");
    let other = "whsec_b2xkLXNlY3JldC1vZi1hY21l";
    let signature = sign::standard(other, "evt_forged", sign::now(), body.as_bytes());
    headers.push(("webhook-signature", signature));
    let url = format!("{}/in/acme", site.listen);
    let answer = site.stack.http.post(&url, &headers, body).await.unwrap();
    assert_eq!(answer.reason(), "signature_mismatch");
    eventually("it is kept", BOUND, async || {
        let listed = site.stack.zentra(&["refused", "list"]).stdout;
        String::from_utf8_lossy(&listed).contains("signature_mismatch").then_some(())
    })
    .await;
    browser.choose("Refused").await;
    browser.choose("Explain").await;
    browser.see(".steps .bad").await;
    browser.choose("Admit…").await;
    browser.reason("why admit").await;
    browser.read("Still refused: signature mismatch.").await;

    site.send("evt_dead", &[422]).await;
    site.until("evt_dead", "dead").await;
    for id in ["evt_1", "evt_2"] {
        site.send(id, &[503]).await;
        site.until(id, "waiting").await;
    }
    browser.choose("Destinations").await;
    browser.read("✕ open").await;
    browser.choose("Attempt now…").await;
    browser.reason("why attempt").await;
    browser.read("✓ closed").await;
    browser.choose("Pause…").await;
    browser.reason("why pause").await;
    browser.read("because why pause").await;

    // While nothing is attempted, the job waits for its canary.
    browser.choose("Dead letters").await;
    browser.read("dead: permanent").await;
    browser.choose("Requeue ").await;
    browser.reason("why plan").await;
    browser.read("nothing was changed").await;
    for (action, then) in
        [("Run the canary", "Requeued\n2"), ("Pause", "paused"), ("Cancel", "cancelled")]
    {
        browser.choose(&format!("{action}…")).await;
        browser.reason(&format!("why {action}")).await;
        browser.read(then).await;
    }
    browser.choose("Destinations").await;
    browser.choose("Resume…").await;
    browser.reason("why resume").await;
    browser.read("Resume: ledger.").await;
    site.until("evt_dead", "delivered").await;

    let audit = site.audit();
    let all = [
        "route",
        "admit",
        "attempt",
        "pause",
        "plan",
        "Run the canary",
        "Pause",
        "Cancel",
        "resume",
    ];
    for because in all {
        assert!(audit.contains(&format!("why {because}")), "{because}: {audit}");
    }
    browser.close().await;
}

/// Pages, and an event.
const PAGES: [&str; 11] = [
    "sources",
    "",
    "events",
    "events/evt_1",
    "dead",
    "jobs",
    "destinations",
    "refused",
    "stored",
    "reconcile",
    "system",
];
/// Buttons that change nothing at the server.
const HARMLESS: [&str; 8] =
    ["relative", "?", "Sign out", "Filter", "Pause", "Find", "Explain", "Save a case file"];

async fn each_role_sees_its_own_actions_only(on: On) {
    let site = Site::start(on).await;
    site.send("evt_1", &[422]).await;
    site.until("evt_1", "dead").await;
    let browser = Browser::open().await;
    let buttons = async || {
        let mut all = Vec::new();
        for page in PAGES {
            browser.go(&format!("{}/#/{page}", site.console)).await;
            let settled = "return document.querySelector('main h1') && !document.querySelector('main').innerText.includes('Loading')";
            eventually("the page is drawn", BOUND, async || {
                (browser.run(settled).await == true).then_some(())
            })
            .await;
            let shown = browser
                .run("return [...document.querySelectorAll('button')].map((one) => one.innerText)")
                .await;
            let shown =
                shown.as_array().unwrap().iter().map(|one| one.as_str().unwrap().to_owned());
            all.extend(shown.filter(|text| !HARMLESS.contains(&text.as_str())));
        }
        all.sort();
        all.dedup();
        all
    };
    site.sign_in(&browser, "viewer", &[]).await;
    assert_eq!(buttons().await, Vec::<String>::new());
    site.sign_in(&browser, "operator", &[]).await;
    let operators = buttons().await;
    for action in ["Requeue…", "Drain…", "Pause…", "Test…", "Requeue 1…", "Compare"] {
        assert!(operators.iter().any(|one| one == action), "{action}: {operators:?}");
    }
    assert!(
        !operators.iter().any(|one| ["Revoke…", "Show the payload"].contains(&&**one)),
        "{operators:?}"
    );
    site.sign_in(&browser, "admin", &["--payloads"]).await;
    let admins = buttons().await;
    for action in ["Revoke…", "Show the payload"] {
        assert!(admins.iter().any(|one| one == action), "{action}: {admins:?}");
    }
    browser.close().await;
}

async fn letters_are_selected_by_error_or_one_by_one_and_a_job_lists_what_it_touched(on: On) {
    let site = Site::start(on).await;
    let all = ["evt_a", "evt_b", "evt_c", "evt_d"];
    for (id, status) in all.into_iter().zip([422, 422, 422, 400]) {
        site.send(id, &[status]).await;
        site.until(id, "dead").await;
    }
    let dead = || {
        let listed = site.stack.zentra(&["dead", "list", "--json"]).stdout;
        let listed = String::from_utf8(listed).unwrap();
        all.into_iter().filter(|id| listed.contains(&format!("acme/{id}\""))).collect::<Vec<_>>()
    };
    let browser = Browser::open().await;
    site.sign_in(&browser, "operator", &[]).await;
    let run = async || {
        browser.reason("selected").await;
        browser.read("nothing was changed").await;
        browser.choose("Run…").await;
        browser.reason("go").await;
        browser.read("finished").await;
    };

    // Two of three with the same error.
    browser.choose("Dead letters").await;
    browser.read("answered 400").await;
    for id in ["evt_a", "evt_b", "evt_c", "evt_c"] {
        browser.press(&format!("[aria-label='Select {id}']")).await;
    }
    browser.read("2 selected").await;
    browser.choose("Requeue selected…").await;
    run().await;
    for id in ["evt_a", "evt_b"] {
        site.until(id, "delivered").await;
    }
    assert_eq!(dead(), ["evt_c", "evt_d"]);
    browser.choose("The deliveries that it has requeued").await;
    browser.read("evt_b").await;
    let touched = browser.run("return document.querySelector('tbody').innerText").await;
    let touched = touched.as_str().unwrap();
    let is_touched = |id: &&str| touched.contains(*id);
    assert_eq!(all.into_iter().filter(is_touched).collect::<Vec<_>>(), ["evt_a", "evt_b"]);

    // All with one error.
    browser.choose("Dead letters").await;
    browser
        .see("[aria-label='ledger: permanent, answered 400'] button")
        .await
        .click()
        .await
        .unwrap();
    run().await;
    site.until("evt_d", "delivered").await;
    assert_eq!(dead(), ["evt_c"]);

    // All that a group shows, out of the queue for good.
    browser.choose("Dead letters").await;
    browser.press("[aria-label='Select all shown of ledger: permanent, answered 422']").await;
    browser.choose("Drain selected…").await;
    browser.reason("obsolete").await;
    browser.read("1 drained.").await;
    browser.read("There is no dead letter.").await;
    assert_eq!(site.until("evt_c", "dead").await["history"][2]["what"], "discarded");
    browser.close().await;
}

async fn a_keyboard_is_enough_and_of_two_operators_one_acts(on: On) {
    let site = Site::start(on).await;
    for id in ["evt_1", "evt_2"] {
        site.send(id, &[422]).await;
        site.until(id, "dead").await;
    }
    let browser = Browser::open().await;
    site.sign_in(&browser, "operator", &[]).await;
    browser.read("It has dead letters").await;
    // The page's letter, and from there on by the tabulator.
    browser.keys("ge").await;
    browser.read("First taken").await;
    browser.tab_to("evt_1").await;
    browser.keys("\u{e007}").await;
    browser.read("dead letter: permanent").await;
    browser.tab_to("Requeue…").await;
    browser.keys("\u{e007}").await;
    browser.see("dialog").await;
    browser.keys("by keyboard\u{e007}").await;
    browser.read("Requeue: done.").await;
    site.until("evt_1", "delivered").await;

    // While one still writes the reason, the other one acts.
    browser.go(&format!("{}/#/events/ledger%2Facme%2Fevt_2", site.console)).await;
    browser.choose("Requeue…").await;
    browser.see("dialog").await;
    let other = ["dead", "requeue", "evt_2", "--because", "I was faster"];
    assert!(site.stack.zentra(&other).status.success());
    site.until("evt_2", "delivered").await;
    browser.reason("too late").await;
    browser.read("is not dead, so there is nothing to requeue").await;
    let keys = site.ledger.seen().into_iter().map(|seen| seen.header("idempotency-key").to_owned());
    assert_eq!(keys.filter(|key| key.ends_with("evt_2")).count(), 2);
    browser.close().await;
}
