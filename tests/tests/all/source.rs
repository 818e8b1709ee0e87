//! A source from `zentra source add` to its first callback, and `zentra verify` for one that is
//! refused.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Output;

use zentra_tests::http::Headers;
use zentra_tests::services::folder;
use zentra_tests::stack::Stack;
use zentra_tests::{namespace, shared_rabbit, shared_redis, sign};

const BODY: &str = "{\"id\": \"evt_1\", \"type\": \"charge.succeeded\"}";

fn stack() -> Stack {
    Stack::new(&shared_rabbit(), &shared_redis(), &namespace(), "http://127.0.0.1:9/", "")
}

fn stdout(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned()
}

fn stderr(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// A captured request, and its verdict.
struct Captured<'s> {
    stack: &'s Stack,
    headers: PathBuf,
    body: PathBuf,
}

impl<'s> Captured<'s> {
    fn new(stack: &'s Stack, headers: &str, body: &str) -> Self {
        let folder = folder("captured");
        let one = Self { stack, headers: folder.join("headers"), body: folder.join("body") };
        fs::write(&one.headers, headers).unwrap();
        fs::write(&one.body, body).unwrap();
        one
    }

    fn path(path: &Path) -> &str {
        path.to_str().unwrap()
    }

    /// Whether it verifies, and the explanation.
    fn verify(&self, source: &str, more: &[&str]) -> (bool, String) {
        let (headers, body) = (Self::path(&self.headers), Self::path(&self.body));
        let arguments = ["verify", "--source", source, "--headers", headers, "--body", body];
        let output = self.stack.zentra(&[&arguments[..], more].concat());
        let output_text = stdout(&output) + &stderr(&output);
        let secrets = [sign::STRIPE_SECRET, sign::GITHUB_SECRET, sign::ACME_SECRET];
        assert!(!secrets.iter().any(|secret| output_text.contains(secret)), "{output_text}");
        (output.status.success(), output_text)
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_source_that_is_added_takes_what_is_signed_for_it() {
    let stack = stack();
    let before = fs::read_to_string(&stack.config).unwrap();
    let shown = stack.zentra(&["source", "add", "meta", "--print"]);
    assert!(stdout(&shown).contains("handshake_token = \"env:META_HANDSHAKE_TOKEN\""));
    assert_eq!(fs::read_to_string(&stack.config).unwrap(), before, "it was only to be printed");

    let secret = ["--secret", "env:STRIPE_EU"];
    let added = stack.zentra(&[&["source", "add", "slack"][..], &secret].concat());
    let printed = stdout(&added);
    assert!(added.status.success(), "{}", stderr(&added));
    assert!(
        printed.contains("https://YOUR-HOST/in/slack") && printed.contains("[\"slack.#\"]"),
        "{printed}"
    );
    let text = fs::read_to_string(&stack.config).unwrap();
    assert!(text.starts_with(&before) && text.ends_with('\n'), "{text}");
    for (arguments, error) in [
        (&["source", "add", "slack"][..], "[source.slack] exists already"),
        (&["source", "add", "slac"], "Is it slack?"),
        (&["source", "add", "square"], "--public-url"),
        (
            &["source", "add", "github", "--name", "g", "--public-url", "https://x/"],
            "does not sign",
        ),
    ] {
        let refused = stack.zentra(arguments);
        assert_eq!(refused.status.code(), Some(1), "{arguments:?}");
        assert!(stderr(&refused).contains(error), "{arguments:?}: {}", stderr(&refused));
    }
    assert_eq!(fs::read_to_string(&stack.config).unwrap(), text, "what fails changes nothing");

    let ingress = stack.ingress().await;
    let captured = Captured::new(&stack, "", BODY);
    let body = Captured::path(&captured.body);
    for source in ["slack", "stripe-eu", "acme", "github"] {
        let signed = stack.zentra(&["sign", "--source", source, "--body", body, "--id", "evt_9"]);
        let lines = stdout(&signed);
        let headers: Headers = lines
            .lines()
            .map(|line| line.split_once(": ").unwrap())
            .map(|(name, value)| (&*name.to_owned().leak(), value.to_owned()))
            .collect();
        let url = format!("{}/in/{source}", ingress.listen);
        let answer = stack.http.post(&url, &headers, BODY.to_owned()).await.unwrap();
        assert_eq!(answer.status, 200, "{source}: {answer:?}");
        let (good, output_text) = Captured::new(&stack, &lines, BODY).verify(source, &[]);
        assert!(good && output_text.contains("It fits the secret k1"), "{output_text}");
    }
    let url = format!("{}/in/acme", ingress.listen);
    let command = stack.zentra(&["sign", "--source", "acme", "--body", body, "--curl", &url]);
    let command = stdout(&command);
    assert!(command.starts_with(&format!("curl --request POST '{url}'")), "{command}");
}

#[tokio::test(flavor = "multi_thread")]
async fn why_a_captured_request_is_refused_is_told_with_what_usually_is_behind_it() {
    let stack = stack();
    stack.add(
        r#"[source.stripe-us]
provider = "stripe"
secrets = [{ name = "us", secret = "env:ACME" }]
[source.without]
provider = "stripe"
secrets = [{ name = "k", secret = "env:NOWHERE" }]
[source.shop]
provider = "square"
public_url = "https://hooks.example.com/in/shop"
secrets = [{ name = "k1", secret = "env:GITHUB" }]"#,
    );
    let now = sign::now();
    let stripe = |body: &str| {
        let headers = sign::stripe(now, body.as_bytes());
        headers.iter().map(|(name, value)| format!("{name}: {value}\n")).collect::<String>()
    };
    let judged = |headers: &str, body: &str, source: &str, more: &[&str]| {
        Captured::new(&stack, headers, body).verify(source, more)
    };
    let (good, output_text) = judged(&stripe(BODY), BODY, "stripe-eu", &[]);
    assert!(
        good && output_text.contains("Event evt_1, charge.succeeded; identified by evt_1"),
        "{output_text}"
    );
    // Captured with its request line, and with other letter case.
    let named = stripe(BODY).replacen("stripe", "Stripe", 1);
    let raw = format!("POST /in/stripe-eu HTTP/1.1\r\nHost: x\r\n{named}");
    assert!(judged(&raw, BODY, "stripe-eu", &[]).0);

    let spaced = serde_json::to_string_pretty(&serde_json::json!({ "a": [1, "b c"] })).unwrap();
    let square = |url: &str| {
        let tag = sign::base64(sign::GITHUB_SECRET, &format!("{url}{BODY}"));
        format!("POST /in/shop?a=1 HTTP/1.1\nx-square-hmacsha256-signature: {tag}\n")
    };
    let cases = [
        (String::new(), BODY, "stripe-eu", "There is no header `stripe-signature`"),
        ("stripe-signature: v1=00\n".into(), BODY, "stripe-eu", "signature_malformed"),
        ("stripe-signature: nothing\n".into(), BODY, "stripe-eu", "isn't a list with v1=SIGNATURE"),
        (stripe(BODY), "{}", "stripe-eu", "None of the usual reasons fits"),
        (stripe(&format!("{BODY}\n")), BODY, "stripe-eu", "with a line break at its end"),
        (stripe(r#"{"a":[1,"b c"]}"#), &spaced, "stripe-eu", "without white space in its JSON"),
        (stripe(&spaced), r#"{"a":[1,"b c"]}"#, "stripe-eu", "indented by two"),
        (stripe(BODY), BODY, "stripe-us", "It fits a secret of the source stripe-eu"),
        (stripe(BODY), BODY, "github", "There is no header `x-hub-signature-256`"),
        (
            square("http://hooks.example.com/in/shop?a=1"),
            BODY,
            "shop",
            "http://hooks.example.com/in/shop: set public_url",
        ),
        (square("https://hooks.example.com/in/shop"), BODY, "shop", "without its query"),
    ];
    for (headers, body, source, wanted) in &cases {
        let (good, output_text) = judged(headers, body, source, &[]);
        assert!(!good && output_text.contains(wanted), "{wanted}: {output_text}");
    }
    let later = (now + 3600).to_string();
    let (good, output_text) = judged(&stripe(BODY), BODY, "stripe-eu", &["--at", &later]);
    assert!(
        !good && output_text.contains("not within 5m") && output_text.contains("--at"),
        "{output_text}"
    );
    let (good, output_text) = judged(&stripe(BODY), BODY, "nobody", &[]);
    assert!(!good && output_text.contains("source.nobody: no such source"), "{output_text}");
    let (good, output_text) = judged(&stripe(BODY), BODY, "without", &[]);
    assert!(!good && output_text.contains("NOWHERE"), "{output_text}");
    let (_, output_text) = judged(&stripe(BODY), "{}", "stripe-eu", &["--json"]);
    let json: serde_json::Value =
        serde_json::from_str(output_text.lines().next().unwrap()).unwrap();
    assert_eq!((&json["verified"], &json["reason"]), (&false.into(), &"signature_mismatch".into()));
    let (_, output_text) = judged(&stripe(BODY).replace("stripe-", "x-hub-"), BODY, "github", &[]);
    assert!(output_text.contains("There is no header"), "{output_text}");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_signed_in_the_body_or_the_query_can_be_made_as_well() {
    let stack = stack();
    let key = folder("adyen").join("key");
    fs::write(&key, "44782DEF547AAA06C910C43932B1EB0C71FC68D9D0C057550C48EC2ACF6BA056").unwrap();
    stack.add(&format!(
        "[source.adyen]\nprovider = \"adyen\"\n\
         secrets = [{{ name = \"k1\", secret = \"file:{}\" }}]\n",
        key.display()
    ));
    for provider in ["pandadoc", "braintree", "mercadopago", "mailgun", "dropbox-sign"] {
        stack.add(&format!(
            "[source.{provider}]\nprovider = \"{provider}\"\n\
             secrets = [{{ name = \"k1\", secret = \"env:GITHUB\" }}]\n"
        ));
    }
    let ingress = stack.ingress().await;
    let items = r#"{"notificationItems":[{"NotificationRequestItem":{"pspReference":"1"}},
        {"NotificationRequestItem":{"pspReference":"2"}}]}"#;
    let token = r#"{"signature":{"token":"t"},"event-data":{"id":"e"}}"#;
    for (source, body) in [
        ("adyen", items),
        ("pandadoc", "[]"),
        ("braintree", "bt_payload=e30%3D"),
        ("mercadopago", "{}"),
        ("mailgun", token),
        ("dropbox-sign", r#"{"event":{"event_type":"template_created"}}"#),
    ] {
        let captured = Captured::new(&stack, "", body);
        let file = Captured::path(&captured.body);
        let made = stack.zentra(&["sign", "--source", source, "--body", file]);
        assert!(made.status.success(), "{source}: {}", stderr(&made));
        let text = stdout(&made);
        let (head, signed) = match text.split_once("\n\n") {
            Some((head, signed)) => (head, signed.strip_suffix('\n').unwrap()),
            None => match text.strip_prefix('\n') {
                Some(signed) => ("", signed.strip_suffix('\n').unwrap()),
                None => (&*text, body),
            },
        };
        let (good, output_text) = Captured::new(&stack, head, signed).verify(source, &[]);
        assert!(good, "{source}: {output_text}");
        let (first, headers) = match head.strip_prefix("POST ") {
            Some(rest) => rest.split_once(" HTTP/1.1\n").unwrap_or((rest, "")),
            None => ("", head),
        };
        let path = match first.strip_suffix(" HTTP/1.1").unwrap_or(first) {
            "" => format!("/in/{source}"),
            path => path.to_owned(),
        };
        let headers: Headers = headers
            .lines()
            .filter_map(|line| line.split_once(": "))
            .map(|(name, value)| (&*name.to_owned().leak(), value.to_owned()))
            .collect();
        let url = format!("{}{path}", ingress.listen);
        let answer = stack.http.post(&url, &headers, signed.to_owned()).await.unwrap();
        assert_eq!(answer.status, 200, "{source}: {answer:?}\n{text}");
        let forged = stack.http.post(&url, &headers, format!(" {body}")).await.unwrap();
        let open = matches!(source, "mercadopago");
        assert!(open || forged.status == 401, "{source}: {forged:?}");
        let command =
            stack.zentra(&["sign", "--source", source, "--body", file, "--curl", "http://h/"]);
        let command = stdout(&command);
        let kind = match source {
            "braintree" => "application/x-www-form-urlencoded'",
            "dropbox-sign" => "multipart/form-data; boundary=",
            _ => "application/json'",
        };
        assert!(command.contains(&format!("content-type: {kind}")), "{command}");
        assert_eq!(command.matches("content-type: ").count(), 1, "{command}");
    }
    let other = Captured::new(&stack, "", "a=b");
    let file = Captured::path(&other.body);
    let lacking = stack.zentra(&["sign", "--source", "braintree", "--body", file]);
    assert!(stderr(&lacking).contains("field `bt_payload` of the form"), "{}", stderr(&lacking));
}

#[tokio::test(flavor = "multi_thread")]
async fn who_sent_a_callback_is_believed_of_a_trusted_proxy_only() {
    let seen = async |settings: &str| {
        let stack = stack();
        stack.add(&format!("[ingress]\n{settings}"));
        let ingress = stack.ingress().await;
        let url = format!("{}/in/github", ingress.listen);
        let headers = vec![("x-forwarded-for", "198.51.100.6, 203.0.113.7".to_owned())];
        let answer = stack.http.post(&url, &headers, "{}").await.unwrap();
        assert_eq!(answer.status, 401, "{answer:?}");
        zentra_tests::eventually("it is kept", zentra_tests::world::BOUND, async || {
            let listed = stack.zentra(&["refused", "list", "--json"]);
            let listed: serde_json::Value = serde_json::from_slice(&listed.stdout).ok()?;
            let id = listed["items"][0]["id"].as_str()?.to_owned();
            Some(stdout(&stack.zentra(&["refused", "show", &id])))
        })
        .await
    };
    let behind = seen("trusted_proxies = [\"127.0.0.0/8\"]").await;
    assert!(behind.contains(" from 203.0.113.7"), "{behind}");
    let directly = seen("").await;
    assert!(directly.contains(" from 127.0.0.1"), "{directly}");
}
