//! The latency of honest callbacks during a flood of each kind, and without one before it.
//!
//! Honest callbacks are sent from 127.0.0.1 at fixed times, whether or not earlier ones have been
//! answered. The flood comes from 127.0.0.2 where its kind allows that. The flood's client runs on
//! the same machine, so its CPU time counts against the honest callbacks.

use std::net::IpAddr;
use std::time::Duration;

use anyhow::{Context, ensure};
use bytes::Bytes;
use http::Method;
use tokio::io::AsyncWriteExt;
use tokio::task::JoinSet;
use tokio::time::{Instant, MissedTickBehavior, interval, sleep_until};
use zentra_tests::flood::{connect, unfinished_bodies};
use zentra_tests::http::{Headers, Http};
use zentra_tests::services;
use zentra_tests::sign;
use zentra_tests::stack::{Program, Stack};

use crate::body;

const ROUND: Duration = Duration::from_secs(6);
/// How long a flood runs before the measurement starts.
const WARM_UP: Duration = Duration::from_secs(2);
/// Pause between a refused body and its replacement. The flood is meant to hold places, not to
/// send many requests.
const AGAIN: Duration = Duration::from_secs(1);
/// Honest callbacks per second.
const RATE: u32 = 100;
const STRANGER: [u8; 4] = [127, 0, 0, 2];
/// The broker accepts no larger messages, but the source `acme` does.
const LARGEST: usize = 2 << 20;

/// Runs until it is dropped.
type Flood = JoinSet<()>;

/// Latencies of one round of honest callbacks, and the number that did not get 2xx.
struct Waited {
    times: Vec<Duration>,
    refused: usize,
}

impl Waited {
    fn at(&self, share: f64) -> Duration {
        let at = (self.times.len() as f64 * share).ceil() as usize;
        self.times.get(at.saturating_sub(1)).copied().unwrap_or_default()
    }
}

pub(crate) async fn run(only: &str) -> anyhow::Result<()> {
    let rabbit = services::rabbit();
    rabbit.allow_memory("6GB");
    rabbit.limit_messages(LARGEST);
    let stack = Stack::new(&rabbit.url(), "redis://unused", "flood", "http://127.0.0.1:9/", "");
    stack.replace("[source.acme]\n", "[source.acme]\nmax_body = \"8MiB\"\n");
    stack.replace(
        "[source.github]\n",
        "[source.twilio]\nprovider = \"twilio\"\npublic_url = \"https://hooks.example.com/in/twilio\"\n\
         secrets = [{ name = \"k1\", secret = \"env:GITHUB\" }]\n[source.github]\n",
    );
    let ingress = stack.ingress().await;
    let kinds = [
        "bodies without a byte",
        "bodies that stop after 16 KiB",
        "forged forms of 1 MiB",
        "forged JSON of 1 MiB",
        "forged small callbacks",
        "one captured callback, new ids",
        "headers a byte at a time",
        "connections that come and go",
        "larger than the broker takes",
    ];
    let wanted: Vec<_> = kinds.into_iter().filter(|kind| kind.contains(only)).collect();
    ensure!(!wanted.is_empty(), "no flood is named `{only}`: {kinds:?}");
    println!("\nhonest callbacks, {RATE} a second, beside a flood; milliseconds");
    println!(
        "{:<34} {:>8} {:>8} {:>8} {:>8} {:>8}",
        "", "p50", "p99", "max", "of quiet", "refused"
    );
    for kind in wanted {
        let quiet = honest(&ingress).await?;
        let flood = start(kind, &ingress).await?;
        tokio::time::sleep(WARM_UP).await;
        let beside = honest(&ingress).await?;
        drop(flood);
        row("quiet", &quiet, None);
        row(kind, &beside, Some(&quiet));
    }
    Ok(())
}

fn row(name: &str, waited: &Waited, quiet: Option<&Waited>) {
    let ms = |time: Duration| time.as_secs_f64() * 1e3;
    let of_quiet = quiet.map(|quiet| ms(waited.at(0.99)) / ms(quiet.at(0.99)));
    println!(
        "{name:<34} {:>8.1} {:>8.1} {:>8.1} {:>8} {:>8}",
        ms(waited.at(0.5)),
        ms(waited.at(0.99)),
        ms(waited.at(1.0)),
        of_quiet.map(|times| format!("{times:.2}")).unwrap_or_default(),
        waited.refused,
    );
}

async fn honest(ingress: &Program) -> anyhow::Result<Waited> {
    let (http, url) = (Http::default(), format!("{}/in/acme", ingress.listen));
    let (started, count) = (Instant::now(), RATE * ROUND.as_secs() as u32);
    let mut under_way = JoinSet::new();
    for at in 0..count {
        let due = started + Duration::from_secs(1) / RATE * at;
        sleep_until(due).await;
        let (http, url) = (http.clone(), url.clone());
        let id = format!("evt_{}_{at}", sign::now());
        under_way.spawn(async move {
            let body = body(0);
            let headers = sign::acme(&id, sign::now(), body.as_bytes());
            let answer = http.post(&url, &headers, body).await;
            (due.elapsed(), answer.is_some_and(|answer| answer.status.is_success()))
        });
    }
    let ended = under_way.join_all().await;
    let refused = ended.iter().filter(|(_, taken)| !taken).count();
    let mut times: Vec<Duration> = ended.into_iter().map(|(time, _)| time).collect();
    times.sort_unstable();
    ensure!(times.len() == count as usize, "honest callbacks were lost");
    Ok(Waited { times, refused })
}

async fn start(kind: &str, ingress: &Program) -> anyhow::Result<Flood> {
    let stranger = Some(IpAddr::from(STRANGER));
    let listen = ingress.listen.as_str();
    let post = |path: &str, headers: Headers, body: String, per_second| {
        repeat(format!("{listen}{path}"), headers, body, per_second)
    };
    Ok(match kind {
        "bodies without a byte" => {
            unfinished_bodies(listen, stranger, 129, 32, None, AGAIN).await?
        }
        "bodies that stop after 16 KiB" => {
            let first = Some(Bytes::from(vec![b'x'; 16 << 10]));
            unfinished_bodies(listen, stranger, 129, 32, first, AGAIN).await?
        }
        "forged forms of 1 MiB" => {
            let name = "x".repeat(1000);
            let form = (0..1000).map(|at| format!("{name}{at}=&")).collect::<String>();
            let headers = vec![
                ("content-type", "application/x-www-form-urlencoded".into()),
                ("x-twilio-signature", "MTIzNDU2Nzg5MDEyMzQ1Njc4OTA=".into()),
            ];
            post("/in/twilio", headers, form, 5)
        }
        "forged JSON of 1 MiB" => {
            let ones = format!("[{}1]", "1,".repeat(500_000));
            post("/in/github", forged(&ones), ones, 5)
        }
        "forged small callbacks" => post("/in/github", forged("{}"), "{}".into(), 1000),
        "one captured callback, new ids" => captured(listen.to_owned()),
        "headers a byte at a time" => slow_headers(listen, stranger).await?,
        "connections that come and go" => come_and_go(listen.to_owned(), stranger),
        "larger than the broker takes" => {
            let body = "x".repeat(LARGEST + (1 << 20));
            post("/in/acme", sign::acme("large", sign::now(), body.as_bytes()), body, 5)
        }
        other => anyhow::bail!("no flood is named `{other}`"),
    })
}

/// Headers with the signature of another body.
fn forged(body: &str) -> Headers {
    let mut headers = sign::github("d-1", "push", format!("{body} ").as_bytes());
    headers.push(("content-type", "application/json".into()));
    headers
}

/// Sends the same request this many times per second, whether or not it is answered.
fn repeat(url: String, headers: Headers, body: String, per_second: u32) -> Flood {
    let (http, body) = (Http::default(), Bytes::from(body));
    each(per_second, move |_| {
        let (http, url, headers, body) = (http.clone(), url.clone(), headers.clone(), body.clone());
        async move { drop(http.send(Method::POST, &url, &headers, body).await) }
    })
}

fn captured(listen: String) -> Flood {
    let http = Http::default();
    each(200, move |at| {
        let (http, url) = (http.clone(), format!("{listen}/in/github"));
        async move {
            let headers = sign::github(&format!("made-up-{at}"), "push", b"{\"n\":1}");
            drop(http.post(&url, &headers, "{\"n\":1}").await);
        }
    })
}

fn come_and_go(listen: String, from: Option<IpAddr>) -> Flood {
    each(500, move |_| {
        let listen = listen.clone();
        async move { drop(connect(&listen, from).await) }
    })
}

fn each<F>(per_second: u32, act: impl Fn(u64) -> F + Send + 'static) -> Flood
where
    F: Future<Output = ()> + Send + 'static,
{
    let mut flood = JoinSet::new();
    flood.spawn(async move {
        let mut pace = interval(Duration::from_secs(1) / per_second);
        pace.set_missed_tick_behavior(MissedTickBehavior::Burst);
        let mut under_way = JoinSet::new();
        for at in 0.. {
            pace.tick().await;
            under_way.spawn(act(at));
            while under_way.try_join_next().is_some() {}
        }
    });
    flood
}

/// Connections whose headers never end.
async fn slow_headers(listen: &str, from: Option<IpAddr>) -> anyhow::Result<Flood> {
    let mut flood = JoinSet::new();
    for _ in 0..1000 {
        let mut stream = connect(listen, from).await.context("no connection")?;
        flood.spawn(async move {
            let mut pace = interval(Duration::from_millis(500));
            let _ = stream.write_all(b"POST /in/acme HTTP/1.1\r\nx: ").await;
            while stream.write_all(b"x").await.is_ok() {
                pace.tick().await;
            }
        });
    }
    Ok(flood)
}
