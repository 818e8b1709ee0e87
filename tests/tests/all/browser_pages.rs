//! Each page of the console in a light and a dark theme, on a desk and on a phone: nothing is cut off, and axe
//! (https://github.com/dequelabs/axe-core) finds nothing serious. With ZENTRA_SCREENSHOTS=FOLDER, it keeps pictures.

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};

use flate2::Compression;
use flate2::write::GzEncoder;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use zentra_tests::ledger::transfer;
use zentra_tests::stack::Stack;
use zentra_tests::world::BOUND;
use zentra_tests::{eventually, sign};

use crate::browser::{Browser, Devtools, link};
use crate::browser_actions::Site;
use crate::pull::On;

const THEMES: [&str; 2] = ["light", "dark"];
/// Width and height, in CSS pixels.
const SIZES: [(u32, u32); 2] = [(1280, 900), (390, 844)];
/// The name of a page's pictures, and its address.
const PAGES: [(&str, &str); 12] = [
    ("overview", ""),
    ("events", "events"),
    ("event", "events/trf_8172"),
    ("dead-letters", "dead"),
    ("jobs", "jobs"),
    ("job", "jobs/JOB"),
    ("sources", "sources"),
    ("destinations", "destinations"),
    ("refused", "refused"),
    ("archive", "stored"),
    ("reconcile", "reconcile"),
    ("system", "system"),
];

fn vendored() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("vendor")
}

/// Files of others are as they were published: the list has their digests.
#[test]
fn vendored_files_are_unchanged_and_listed() {
    let list = fs::read_to_string(vendored().join("vendored.json")).unwrap();
    let list: Vec<Value> = serde_json::from_str(&list).unwrap();
    let mut listed = 0;
    for package in &list {
        assert!(["name", "version", "license"].iter().all(|key| package[*key].is_string()));
        for (path, digest) in package["files"].as_object().unwrap() {
            let file = fs::read(vendored().join(path)).unwrap();
            assert_eq!(&hex::encode(Sha256::digest(file)), digest.as_str().unwrap(), "{path}");
            listed += 1;
        }
    }
    let there = fs::read_dir(vendored().join("axe-core")).unwrap().count();
    assert_eq!(listed, there);
}

/// Something for each page.
async fn eventful() -> (Site, String) {
    let site = Site::start(On::File).await;
    // What rehearsals leave behind, and events of everyday life.
    let of = ["--at", &site.listen, "--source", "acme", "--type", "transfer.settled"];
    let played = site.stack.zentra(&[&["rehearse", "forged", "malformed"][..], &of].concat());
    assert!(played.status.success(), "{played:?}");
    for id in ["evt_1041", "evt_1042", "evt_1043"] {
        site.send(id, &[]).await;
        site.until(id, "delivered").await;
    }
    // The picture: a failed attempt, and three callbacks.
    site.send("trf_8172", &[503]).await;
    let waiting = site.until("trf_8172", "waiting").await;
    let key = waiting["key"].as_str().unwrap().to_owned();
    let released =
        site.stack.zentra(&["event", "release", &key, "--because", "the ledger is up again"]);
    assert!(released.status.success(), "{released:?}");
    site.until("trf_8172", "delivered").await;
    for _ in 0..2 {
        site.post("trf_8172", &transfer("trf_8172", "trf_8172", 1)).await;
    }
    site.send("evt_1050", &[503]).await;
    site.until("evt_1050", "waiting").await;
    for id in ["evt_1051", "evt_1052", "evt_1053", "evt_1054"] {
        site.send(id, &[422]).await;
        site.until(id, "dead").await;
    }
    site.post("evt_1041", &transfer("evt_1041", "trf_other", 2)).await;
    for kind in ["charge.succeeded", "charge.refunded"] {
        let sent = site.stack.zentra(&["send", "stripe-eu", kind, "--url", &site.listen]);
        assert!(sent.status.success(), "{sent:?}");
    }
    let body = transfer("evt_1060", "trf_1060", 1);
    let mut headers = sign::acme("evt_1060", sign::now(), body.as_bytes());
    headers.retain(|(name, _)| *name != "webhook-signature");
    let url = format!("{}/in/acme", site.listen);
    assert!(site.stack.http.post(&url, &headers, body).await.unwrap().status.is_client_error());
    let planned = ["job", "plan", "--reason", "permanent", "--because", "the ledger is mended"];
    let planned = site.stack.zentra(&planned);
    let planned = String::from_utf8(planned.stdout).unwrap();
    let job = planned.split_whitespace().nth(1).unwrap().trim_end_matches(',').to_owned();
    (site, job)
}

impl Browser {
    /// Draws as on such a screen.
    async fn look_like(&self, theme: &str, (width, height): (u32, u32)) {
        let size =
            json!({ "width": width, "height": height, "deviceScaleFactor": 1, "mobile": false });
        self.tab.issue_cmd(Devtools("Emulation.setDeviceMetricsOverride", size)).await.unwrap();
        let features = json!([{ "name": "prefers-color-scheme", "value": theme }]);
        let media = json!({ "features": features });
        self.tab.issue_cmd(Devtools("Emulation.setEmulatedMedia", media)).await.unwrap();
    }

    async fn is_drawn(&self) {
        let settled = "const main = document.querySelector('main');
            return main?.querySelector('h1') && !main.innerText.includes('Loading');";
        eventually("the page is drawn", BOUND, async || {
            (self.run(settled).await == true).then_some(())
        })
        .await;
    }

    /// Serious findings of axe, each with the elements.
    async fn findings(&self, axe: &str) -> Vec<String> {
        let source = json!({ "expression": axe });
        self.tab.issue_cmd(Devtools("Runtime.evaluate", source)).await.unwrap();
        let run = "const done = arguments[arguments.length - 1];
            axe.run(document).then(({ violations }) => done(violations
                .filter(({ impact }) => ['serious', 'critical'].includes(impact))
                .flatMap(({ id, nodes }) => nodes.map((node) => `${id}: ${node.html}`))));";
        let found = self.tab.execute_async(run, Vec::new()).await.unwrap();
        found.as_array().unwrap().iter().map(ToString::to_string).collect()
    }
}

/// Maximum size of all files of the console, compressed, in bytes.
const MOST: usize = 150_000;

#[test]
fn all_files_together_are_small() {
    let mut folders = vec![Path::new(env!("CARGO_MANIFEST_DIR")).join("../operator/console")];
    let (mut sum, mut files) = (0, 0);
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
                continue;
            }
            let mut packed = GzEncoder::new(Vec::new(), Compression::default());
            packed.write_all(&fs::read(path).unwrap()).unwrap();
            sum += packed.finish().unwrap().len();
            files += 1;
        }
    }
    assert!(files > 20 && sum < MOST, "{files} files with {sum} bytes");
}

#[tokio::test(flavor = "multi_thread")]
async fn each_page_fits_its_screen_and_everybody_can_use_it() {
    let axe = fs::read_to_string(vendored().join("axe-core/axe.min.js")).unwrap();
    let pictures = std::env::var_os("ZENTRA_SCREENSHOTS").map(PathBuf::from);
    let (site, job) = eventful().await;
    let browser = Browser::open().await;
    browser.go(&link(&site.stack, &site.console, &["--role", "admin", "--payloads"])).await;
    browser.see(".who").await;
    let paint = "return performance.getEntriesByName('first-contentful-paint')[0]?.startTime";
    println!("first contentful paint: {} ms", browser.run(paint).await);
    // The last hour is collected every ten seconds.
    browser.see(".spark rect").await;
    let mut problems = Vec::new();
    for (theme, size) in THEMES.iter().flat_map(|theme| SIZES.map(|size| (theme, size))) {
        browser.look_like(theme, size).await;
        for (name, page) in PAGES {
            browser.go(&format!("{}/#/{}", site.console, page.replace("JOB", &job))).await;
            browser.is_drawn().await;
            let name = format!("{name}-{theme}-{}", size.0);
            let found = browser.findings(&axe).await;
            problems.extend(found.into_iter().map(|what| format!("{name}: {what}")));
            let wide =
                browser.run("return document.documentElement.scrollWidth - innerWidth").await;
            if wide.as_i64() > Some(0) {
                problems.push(format!("{name} is {wide} px wider than its screen"));
            }
            if let Some(folder) = &pictures {
                fs::create_dir_all(folder).unwrap();
                let picture = browser.tab.screenshot().await.unwrap();
                fs::write(folder.join(format!("{name}.png")), picture).unwrap();
            }
        }
    }
    assert!(problems.is_empty(), "{}", problems.join("\n"));
    browser.close().await;
}

/// Bodies that strangers could send, each with what the console shows of it.
fn corpus() -> Vec<(&'static str, Vec<u8>, &'static str)> {
    let long = format!(r#"{{"type":"long","line":"{}<end>"}}"#, "x".repeat(1 << 20));
    let mut broken = br#"{"type":"broken","text":""#.to_vec();
    broken.extend(b"\xff\xfe<i>\"}");
    vec![
        ("evt_markup", br#"{"type":"<script>window.broken=1</script>","a":"<img src=x onerror=window.broken=1>"}"#.to_vec(), "<img src=x onerror=window.broken=1>"),
        ("evt_numbers", br#"{"type":"n","a":9223372036854775807,"b":1234567890123456789012345678901234567890,"c":1e400}"#.to_vec(), "1234567890123456789012345678901234567890"),
        ("evt_bidi", "{\"type\":\"b\u{202e}idi\",\"a\":\"\u{2066}x\u{200b}\"}".into(), "\\u202e"),
        ("evt_long", long.into_bytes(), "<end>"),
        ("evt_broken", broken, "\u{fffd}"),
        ("evt_style", br#"{"type":"s","a":"</style><style>*{display:none}</style>","__proto__":{"x":1}}"#.to_vec(), "</style>"),
    ]
}

#[tokio::test(flavor = "multi_thread")]
async fn what_strangers_send_is_shown_as_it_is_and_runs_nowhere() {
    let larger = async |stack: &Stack, _: &str| {
        stack.replace("[source.acme]\n", "[source.acme]\nmax_body = \"2MiB\"\n");
    };
    let site = Site::start_after(On::File, "", larger).await;
    for (id, body, _) in corpus() {
        let mut headers = sign::acme(id, sign::now(), &body);
        headers.push(("x-note", "<img src=x onerror=window.broken=1>".into()));
        let url =
            format!("{}/in/acme?q=<img>", site.listen).replace('<', "%3C").replace('>', "%3E");
        let answer = site.stack.http.post(&url, &headers, body).await.unwrap();
        assert!(answer.status.is_success(), "{id}: {answer:?}");
        site.until(id, "dead").await;
    }
    let browser = Browser::open().await;
    browser.go(&link(&site.stack, &site.console, &["--role", "admin", "--payloads"])).await;
    browser.see(".who").await;
    for (id, _, shown) in corpus() {
        browser.go(&format!("{}/#/events/ledger%2Facme%2F{id}", site.console)).await;
        browser.choose("Show the payload").await;
        browser.see("pre.payload").await;
        let payload = browser.run("return document.querySelector('pre.payload').innerText").await;
        assert!(payload.as_str().unwrap().contains(shown), "{id}: {payload:.300}");
    }
    for (_, page) in PAGES {
        browser.go(&format!("{}/#/{}", site.console, page.replace("JOB", "none"))).await;
        browser.is_drawn().await;
        let runs = "return window.broken !== undefined || document.querySelector('main img, main script, main style') !== null";
        assert_eq!(browser.run(runs).await, false, "{page}");
    }
    browser.close().await;
}
