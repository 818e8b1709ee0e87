//! The console in a real browser: Chromium, by WebDriver.

use std::process::Command;
use std::time::{Duration, Instant};

use fantoccini::actions::{InputSource, KeyAction, KeyActions};
use fantoccini::elements::Element;
use fantoccini::wd::{Capabilities, WebDriverCompatibleCommand};
use fantoccini::{Client, ClientBuilder, Locator};
use hyper_util::client::legacy::connect::HttpConnector;
use serde_json::{Value, json};
use zentra_tests::ledger::{Turn, transfer};
use zentra_tests::services::{self, Guarded, folder, free_port};
use zentra_tests::stack::Stack;
use zentra_tests::world::{BOUND, World, dead, delivered};
use zentra_tests::{eventually, namespace, shared_rabbit, shared_redis};

use crate::api::Api;
use crate::standalone::Shop;

/// How long a page may take to show something.
const SHOWN: Duration = Duration::from_secs(30);

/// Records what must not happen, from the first moment of each page on.
const WATCH: &str = "window.violations = []; window.failures = [];
    addEventListener('securitypolicyviolation', (event) => violations.push(event.violatedDirective));
    addEventListener('error', (event) => failures.push(event.message));
    addEventListener('unhandledrejection', (event) => failures.push(String(event.reason)));";

/// A browser with one tab, and the program that drives it.
pub(crate) struct Browser {
    pub(crate) tab: Client,
    _driver: Guarded,
}

/// A command of Chromium's own protocol.
#[derive(Debug)]
pub(crate) struct Devtools(pub(crate) &'static str, pub(crate) Value);

impl WebDriverCompatibleCommand for Devtools {
    fn endpoint(
        &self,
        base: &url::Url,
        session: Option<&str>,
    ) -> Result<url::Url, url::ParseError> {
        base.join(&format!("session/{}/goog/cdp/execute", session.unwrap_or_default()))
    }

    fn method_and_body(&self, _: &url::Url) -> (http::Method, Option<String>) {
        let body = json!({ "cmd": self.0, "params": self.1 });
        (http::Method::POST, Some(body.to_string()))
    }
}

impl Browser {
    pub(crate) async fn open() -> Self {
        let port = free_port();
        let mut driver = Command::new("chromedriver");
        driver.arg(format!("--port={port}"));
        let driver = services::start(driver);
        let profile = folder("chromium").display().to_string();
        let arguments = [
            "--headless",
            "--no-sandbox",
            "--disable-gpu",
            "--disable-dev-shm-usage",
            "--no-first-run",
            "--disable-background-networking",
            "--disable-component-update",
            "--disable-sync",
            "--window-size=1280,900",
            &format!("--user-data-dir={profile}"),
        ];
        let options = json!({ "binary": "/usr/bin/chromium", "args": arguments });
        let mut capabilities = Capabilities::new();
        capabilities.insert("goog:chromeOptions".into(), options);
        let at = format!("http://127.0.0.1:{port}");
        let tab = eventually("the browser starts", BOUND, async || {
            let mut builder = ClientBuilder::new(HttpConnector::new());
            builder.capabilities(capabilities.clone()).connect(&at).await.ok()
        })
        .await;
        let watch = Devtools("Page.addScriptToEvaluateOnNewDocument", json!({ "source": WATCH }));
        tab.issue_cmd(watch).await.unwrap();
        Self { tab, _driver: driver }
    }

    pub(crate) async fn go(&self, url: &str) {
        self.tab.goto(url).await.unwrap();
    }

    pub(crate) async fn see(&self, css: &str) -> Element {
        let wait = self.tab.wait().at_most(SHOWN);
        match wait.for_element(Locator::Css(css)).await {
            Ok(element) => element,
            Err(error) => panic!("{css}: {error}\n{}", self.text().await),
        }
    }

    /// Waits until the page has this text.
    pub(crate) async fn read(&self, text: &str) {
        let mut page = String::new();
        let end = Instant::now() + SHOWN;
        while Instant::now() < end {
            page = self.text().await;
            if page.contains(text) {
                return;
            }
        }
        panic!("the page does not show {text:?}, but\n{page}");
    }

    pub(crate) async fn text(&self) -> String {
        let text = self.run("return document.body.innerText").await;
        text.as_str().unwrap_or_default().to_owned()
    }

    pub(crate) async fn press(&self, css: &str) {
        self.see(css).await.click().await.unwrap();
    }

    /// Presses the link or button with this text.
    pub(crate) async fn choose(&self, text: &str) {
        let path = format!("//*[self::a or self::button][contains(., '{text}')]");
        let wait = self.tab.wait().at_most(SHOWN);
        let found = wait.for_element(Locator::XPath(&path)).await;
        found.unwrap_or_else(|error| panic!("{text}: {error}")).click().await.unwrap();
    }

    /// Gives the reason that a dialog asks for.
    pub(crate) async fn reason(&self, because: &str) {
        self.see("dialog input[name=because]").await.send_keys(because).await.unwrap();
        self.press("dialog button.primary").await;
    }

    /// Types where the focus is. `\u{e007}` is Enter, `\u{e004}` the tabulator.
    pub(crate) async fn keys(&self, keys: &str) {
        let actions = KeyActions::new("keyboard".into());
        let press = |actions: KeyActions, value: char| {
            actions.then(KeyAction::Down { value }).then(KeyAction::Up { value })
        };
        let actions = keys.chars().fold(actions, press);
        self.tab.perform_actions(actions).await.unwrap();
    }

    /// Presses the tabulator until the element with this text has the focus.
    pub(crate) async fn tab_to(&self, text: &str) {
        for _ in 0..60 {
            self.keys("\u{e004}").await;
            if self.run("return document.activeElement.innerText").await == text {
                return;
            }
        }
        panic!("{text} gets no focus");
    }

    pub(crate) async fn run(&self, script: &str) -> Value {
        self.tab.execute(script, Vec::new()).await.unwrap()
    }

    /// Ends the browser. Nothing broke the policy, and no script failed.
    pub(crate) async fn close(self) {
        let wrong = self.run("return [window.violations, window.failures]").await;
        assert_eq!(wrong, json!([[], []]));
        let _ = self.tab.close().await;
    }
}

pub(crate) fn link(stack: &Stack, at: &str, more: &[&str]) -> String {
    let asked = [&["console", "open", "--by", "ada", "--at", at], more].concat();
    let opened = stack.zentra(&asked);
    assert!(opened.status.success(), "{opened:?}");
    String::from_utf8(opened.stdout).unwrap().trim().to_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_link_signs_in_once_and_an_event_is_three_clicks_away_on_one_file() {
    let shop = Shop::with("", "", "shop", "").await;
    let program = shop.stack.standalone().await;
    let link = link(&shop.stack, &program.console, &[]);
    let browser = Browser::open().await;
    browser.go(&link).await;
    browser.read("No event came yet").await;
    let address = browser.tab.current_url().await.unwrap();
    assert!(!address.as_str().contains("code"), "{address}");

    shop.send(&program, "evt_8172").await;
    shop.until("evt_8172", "delivered").await;
    browser.press(".card h3 a").await;
    browser.choose("evt_8172").await;
    browser.read("delivered with 200").await;
    // What happens while it is looked at appears by itself.
    shop.send(&program, "evt_8172").await;
    browser.read("copy of the same body: no effect").await;
    browser.close().await;

    let browser = Browser::open().await;
    browser.go(&link).await;
    browser.read("the link was used already").await;
    assert_eq!(browser.run("return sessionStorage.length").await, 0);
    browser.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_viewer_sees_no_action_and_an_operator_gives_a_reason_that_the_audit_has() {
    let world = World::start(&shared_rabbit(), &shared_redis(), &namespace(), "attempts = 1")
        .await
        .unwrap();
    let _worker = world.stack.worker().await;
    world.ledger.take_turns([Turn::Answer(500, Vec::new())]);
    world.send("evt_1", &transfer("evt_1", "trf_1", 1)).await;
    world.until("evt_1", dead).await;
    let api = Api::start(&world.stack).await;
    let (viewer, at) = (api.token(&["vera"]), api.url(""));
    let browser = Browser::open().await;
    browser.go(&at).await;
    browser.see("input[name=token]").await.send_keys(&viewer).await.unwrap();
    browser.choose("Sign in").await;
    browser.read("It has dead letters").await;
    browser.go(&format!("{at}/#/events/evt_1")).await;
    browser.read("dead letter: exhausted").await;
    assert!(!browser.text().await.contains("Requeue"));
    browser.choose("Sign out").await;
    browser.see("input[name=token]").await;

    browser.go(&link(&world.stack, &at, &["--role", "operator"])).await;
    browser.read("It has dead letters").await;
    browser.go(&format!("{at}/#/events/evt_1")).await;
    browser.choose("Requeue…").await;
    // Without a reason, nothing happens.
    browser.press("dialog button.primary").await;
    browser.reason("it is mended").await;
    browser.read("Requeue: done.").await;
    world.until("evt_1", delivered).await;
    browser.read("delivered with 200").await;
    let audit = String::from_utf8(world.stack.zentra(&["audit"]).stdout).unwrap();
    assert!(
        audit.contains("dead requeue evt_1") || audit.contains("dead requeue ledger/acme/evt_1"),
        "{audit}"
    );
    assert!(audit.contains("it is mended") && audit.contains("ada-console-"), "{audit}");
    browser.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_group_of_dead_letters_is_requeued_by_a_job_with_a_canary() {
    let world = World::start(&shared_rabbit(), &shared_redis(), &namespace(), "attempts = 1")
        .await
        .unwrap();
    let _worker = world.stack.worker().await;
    world.ledger.take_turns((0..3).map(|_| Turn::Answer(500, Vec::new())));
    for id in ["evt_1", "evt_2", "evt_3"] {
        world.send(id, &transfer(id, id, 1)).await;
        world.until(id, dead).await;
    }
    let api = Api::start(&world.stack).await;
    let browser = Browser::open().await;
    browser.go(&link(&world.stack, &api.url(""), &["--role", "admin"])).await;
    browser.choose("Dead letters").await;
    browser.read("answered 500").await;
    browser.choose("Requeue 3…").await;
    browser.reason("it is mended").await;
    browser.read("nothing was changed").await;
    assert_eq!(world.ledger.rows().unwrap().len(), 0);
    browser.choose("Run…").await;
    browser.reason("now").await;
    browser.read("finished").await;
    for id in ["evt_1", "evt_2", "evt_3"] {
        world.until(id, delivered).await;
    }
    assert_eq!(world.ledger.rows().unwrap().len(), 3);
    // Payloads only by a token that allows them; each look is audited.
    browser.go(&format!("{}/#/events/evt_1", api.url(""))).await;
    browser.read("requeued").await;
    assert!(!browser.text().await.contains("Show the payload"));
    browser.go(&link(&world.stack, &api.url(""), &["--role", "admin", "--payloads"])).await;
    browser.choose("Archive").await;
    browser.see("#text").await.send_keys("evt_2").await.unwrap();
    browser.choose("Find").await;
    browser.choose("evt_2").await;
    browser.choose("Show the payload").await;
    browser.read("\"amount_minor\"").await;
    browser.choose("System").await;
    browser.read("archive show").await;
    browser.read("job run").await;
    browser.read("it is mended").await;
    browser.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_destination_is_paused_and_a_refused_callback_explained_and_admitted() {
    let shop = Shop::with("", "", "shop", "").await;
    let program = shop.stack.standalone().await;
    let body = transfer("evt_1", "trf_1", 1);
    let headers = |secret: &str| {
        let now = zentra_tests::sign::now();
        let signature = zentra_tests::sign::standard(secret, "evt_1", now, body.as_bytes());
        let mut headers = zentra_tests::sign::acme("evt_1", now, body.as_bytes());
        headers.retain(|(name, _)| *name != "webhook-signature");
        headers.push(("webhook-signature", signature));
        headers
    };
    let url = format!("{}/in/acme", program.listen);
    let other = "whsec_b2xkLXNlY3JldC1vZi1hY21l";
    let answer = shop.stack.http.post(&url, &headers(other), body.clone()).await.unwrap();
    assert_eq!(answer.reason(), "signature_mismatch");
    let browser = Browser::open().await;
    browser.go(&link(&shop.stack, &program.console, &[])).await;
    browser.choose("Destinations").await;
    browser.choose("Pause…").await;
    browser.reason("we move").await;
    browser.read("because we move").await;
    browser.choose("Resume…").await;
    browser.reason("moved").await;
    browser.read("Resume: ledger.").await;

    browser.choose("Refused").await;
    browser.read("acme: signature mismatch").await;
    browser.choose("Explain").await;
    browser.see(".steps .bad").await;
    browser.choose("Admit…").await;
    browser.reason("a test").await;
    browser.read("Still refused: signature mismatch.").await;
    let audit = String::from_utf8(shop.stack.zentra(&["audit"]).stdout).unwrap();
    for action in ["destination pause ledger: we move", "refused admit"] {
        assert!(audit.contains(action), "{audit}");
    }
    browser.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_strangers_wrote_is_text_and_a_lost_connection_is_made_again() {
    let shop = Shop::with("", "", "shop", "").await;
    let mut program = shop.stack.standalone().await;
    // Markup, and a change of direction.
    let kind = "<img src=x onerror=window.broken=1>\u{202e}lia";
    let body = json!({ "id": "evt_x", "type": kind, "data": {} }).to_string();
    let headers = zentra_tests::sign::acme("evt_x", zentra_tests::sign::now(), body.as_bytes());
    let url = format!("{}/in/acme", program.listen);
    let answer = shop.stack.http.post(&url, &headers, body.clone()).await.unwrap();
    assert_eq!(answer.status, 200, "{answer:?}");
    // The ledger does not take such a type.
    shop.until("evt_x", "dead").await;
    let browser = Browser::open().await;
    browser.go(&link(&shop.stack, &program.console, &[])).await;
    browser.read("Destinations").await;
    browser.go(&format!("{}/#/events", program.console)).await;
    browser.read("<img src=x onerror=window.broken=1>\\u202elia").await;
    browser.choose("evt_x").await;
    browser.read("How it came").await;
    browser.read("<img src=x onerror=window.broken=1>").await;
    assert_eq!(
        browser.run("return window.broken === undefined && !document.querySelector('img')").await,
        true
    );

    let (console, session) = (
        program.console.clone(),
        browser.run("return sessionStorage.getItem('zentra.token')").await,
    );
    assert!(session.as_str().unwrap().starts_with("zentra_"));
    program.process.kill();
    browser.read("The connection is lost").await;
    let address = console.trim_start_matches("http://").to_owned();
    let again = shop.stack.standalone_at(&address).await;
    eventually("the connection is there again", SHOWN, async || {
        (!browser.text().await.contains("The connection is lost")).then_some(())
    })
    .await;
    let answer =
        shop.stack.http.post(&format!("{}/in/acme", again.listen), &headers, body).await.unwrap();
    assert_eq!(answer.status, 200, "{answer:?}");
    browser.read("copy of the same body: no effect").await;
    browser.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn in_production_an_action_asks_for_the_name_of_what_it_changes() {
    let shop = Shop::with("", "", "shop", "").await;
    shop.stack
        .replace("provider = \"github\"", "provider = \"github\"\nenvironment = \"production\"");
    shop.stack.replace("provider = \"stripe\"", "provider = \"stripe\"\nenvironment = \"staging\"");
    let program = shop.stack.standalone().await;
    let browser = Browser::open().await;
    browser.go(&link(&shop.stack, &program.console, &[])).await;
    browser.see(".environment").await;
    let shown = "return [...document.querySelectorAll('.environment')].map((one) => [one.textContent, one.className])";
    let expected =
        json!([["production", "environment state bad"], ["staging", "environment state warn"]]);
    assert_eq!(browser.run(shown).await, expected);
    browser.choose("Destinations").await;
    browser.choose("Pause…").await;
    browser.see("dialog input[name=because]").await.send_keys("we move").await.unwrap();
    browser.see("dialog input[name=name]").await.send_keys("ledgr").await.unwrap();
    browser.press("dialog button.primary").await;
    assert_eq!(
        browser.run("return document.querySelector('dialog input:invalid').name").await,
        "name"
    );
    let audit = String::from_utf8(shop.stack.zentra(&["audit"]).stdout).unwrap();
    assert!(!audit.contains("destination pause"), "{audit}");
    browser.run("document.querySelector('dialog input[name=name]').value = ''").await;
    browser.see("dialog input[name=name]").await.send_keys("ledger").await.unwrap();
    browser.press("dialog button.primary").await;
    browser.read("because we move").await;
    // A source for production gets no test callback from here.
    browser.choose("Sources").await;
    browser.read("stripe-eu").await;
    let tests = "return [...document.querySelectorAll('article')].filter((one) => one.innerText.includes('Test…')).map((one) => one.ariaLabel)";
    assert_eq!(browser.run(tests).await, json!(["Source acme", "Source stripe-eu"]));
    browser.close().await;
}
