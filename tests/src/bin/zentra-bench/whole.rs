//! From the provider to the application: ingress, RabbitMQ, worker, Redis and a load at a steady
//! rate, all on one machine.

use std::fmt::Write as _;
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use zentra_tests::http::Http;
use zentra_tests::services::{self};
use zentra_tests::sign;
use zentra_tests::stack::Program;

use crate::worker::{BOUND, Sink, stack};
use crate::{body, cpu};

const ROUND: Duration = Duration::from_secs(15);
/// Connections, and the pause of each between two callbacks.
const PROVIDERS: usize = 130;
const PAUSE: Duration = Duration::from_millis(10);

pub(crate) async fn run() -> anyhow::Result<()> {
    let (rabbit, redis) = (services::rabbit(), services::redis());
    rabbit.allow_memory("6GB");
    let sink = Sink::start().await?;
    let stack = stack(&rabbit, &redis, &sink.url);
    let (ingress, worker) = (stack.ingress().await, stack.worker().await);
    let script = script()?;
    let used = || anyhow::Ok((cpu(ingress.process.id())?, cpu(worker.process.id())?));
    let before = used()?;

    let mut wrk = tokio::process::Command::new("wrk");
    wrk.args(["-t1", &format!("-c{PROVIDERS}"), &format!("-d{}s", ROUND.as_secs()), "-s"]);
    let url = format!("{}/in/acme", ingress.listen);
    let output = wrk.arg(script).arg(url).output().await.context("wrk can't be run")?;
    let printed = String::from_utf8_lossy(&output.stdout);
    ensure!(
        output.status.success() && !printed.contains("Non-2xx"),
        "not all were accepted: {printed}"
    );

    let http = Http::default();
    let accepted = ingress.metric(&http, &["zentra_ingress_accepted_total", "acme"]).await;
    let ended = Instant::now();
    let mut tick = tokio::time::interval(Duration::from_millis(10));
    while (sink.count(&http).await?.0 as f64) < accepted {
        tick.tick().await;
        ensure!(ended.elapsed() < BOUND, "not all that was accepted was delivered");
    }
    let after = used()?;
    let each = 10_000.0 / accepted;
    println!(
        "\nend to end, {PROVIDERS} connections: {:.0} per s for {ROUND:?}, the last delivered \
         {:?} after the end; CPU s / 10,000: ingress {:.2}, worker {:.2}",
        accepted / ROUND.as_secs_f64(),
        ended.elapsed(),
        (after.0 - before.0) * each,
        (after.1 - before.1) * each,
    );
    println!(
        "from receipt to the application's answer: {}",
        within(&worker, &http, accepted).await?
    );
    Ok(())
}

/// The number of callbacks per latency.
async fn within(worker: &Program, http: &Http, all: f64) -> anyhow::Result<String> {
    let name = "zentra_worker_delivery_seconds";
    // The application counts before it answers, and the worker after that.
    zentra_tests::eventually("all are counted", BOUND, async || {
        let counted = worker.metric(http, &[&format!("{name}_count")]).await;
        (counted >= all).then_some(())
    })
    .await;
    let mut printed = String::new();
    for limit in ["0.05", "0.1", "0.25", "0.5", "1"] {
        let (bucket, limits) = (format!("{name}_bucket"), format!("le=\"{limit}\""));
        let share = worker.metric(http, &[&bucket, &limits]).await / all * 100.0;
        write!(printed, "{share:.2} % within {limit} s, ")?;
    }
    Ok(printed.trim_end_matches(", ").to_owned())
}

/// Callbacks with one body, and each with its own ID and signature, as `wrk` sends them. They are
/// signed now, so they are fresh for five minutes.
fn script() -> anyhow::Result<std::path::PathBuf> {
    let folder = services::folder("wrk");
    let (signed, script) = (folder.join("signed"), folder.join("whole.lua"));
    let (body, time) = (body(0), sign::now());
    let most = PROVIDERS as u128 * (ROUND.as_millis() / PAUSE.as_millis());
    let mut lines = String::new();
    for at in 0..most {
        let id = format!("evt_{at}");
        let signature = sign::standard(sign::ACME_SECRET, &id, time, body.as_bytes());
        writeln!(lines, "{id} {signature}")?;
    }
    std::fs::write(&signed, lines)?;
    let text = format!(
        "local body = '{body}'\n\
         local signed = io.open('{}')\n\
         request = function()\n\
           local id, signature = signed:read():match('^(%S+) (%S+)$')\n\
           return wrk.format('POST', nil, {{ ['content-type'] = 'application/json',\n\
             ['webhook-id'] = id, ['webhook-timestamp'] = '{time}',\n\
             ['webhook-signature'] = signature }}, body)\n\
         end\n\
         delay = function() return {} end\n",
        signed.display(),
        PAUSE.as_millis()
    );
    std::fs::write(&script, text)?;
    Ok(script)
}
