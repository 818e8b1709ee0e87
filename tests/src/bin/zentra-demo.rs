//! `make demo`: one transfer, three callbacks, a failed attempt, a killed worker, and
//! three callbacks that must not get in. One result.
//!
//! Everything is real: private RabbitMQ and Redis, the binaries, HTTP, signatures,
//! kill -9. Exits non-zero if anything differs from the contract.

use std::process::ExitCode;
use std::time::Duration;

use zentra_shared::journal::{Delivery, What};
use zentra_tests::http::{Answer, Headers};
use zentra_tests::ledger::{Turn, transfer};
use zentra_tests::services::{self};
use zentra_tests::sign;
use zentra_tests::world::{BOUND, World, count, delivered, is_copy};

const EVENT: &str = "evt_8172";
const TRANSFER: &str = "trf_8172";
const AMOUNT_MINOR: i64 = 125_000;
const ALL: Duration = Duration::from_secs(180);
const RETRY: &str = r#"attempts = 5, initial = "500ms", multiplier = 2.0, jitter = 0.2"#;

#[tokio::main]
async fn main() -> ExitCode {
    let played = tokio::time::timeout(ALL, play()).await;
    services::sweep();
    match played {
        Ok(Ok(0)) => ExitCode::SUCCESS,
        Ok(Ok(differing)) => {
            println!("\n{differing} of the contract's lines differ");
            ExitCode::FAILURE
        }
        Ok(Err(error)) => {
            println!("\nthe demo failed: {error:#}");
            ExitCode::FAILURE
        }
        Err(_) => {
            println!("\nthe demo did not end within {ALL:?}");
            ExitCode::FAILURE
        }
    }
}

/// What was promised beside what was seen.
#[derive(Default)]
struct Contract {
    differing: usize,
}

impl Contract {
    fn line(&mut self, promised: &str, kept: bool, observed: &str) {
        let mark = if kept { "ok  " } else { "DIFF" };
        println!("  {mark}  {promised:<62} → {observed}");
        self.differing += usize::from(!kept);
    }

    fn refused(&mut self, what: &str, answer: Option<Answer>, reason: &str) {
        let promised = format!("{what} copy is refused: 401 {reason}");
        let status = answer.as_ref().map_or(0, |answer| answer.status.as_u16());
        let observed = answer.map(|answer| answer.reason()).unwrap_or_default();
        self.line(
            &promised,
            (status, observed.as_str()) == (401, reason),
            &format!("{status} {observed}"),
        );
    }
}

async fn play() -> anyhow::Result<usize> {
    println!("Zentra demo: transfer {TRANSFER}, 1,250.00 USD, its callback arrives three times\n");
    println!("starting RabbitMQ, Redis, an ingress, two workers and a ledger …");
    let (rabbit, redis) = (services::rabbit(), services::redis());
    let mut world = World::start(&rabbit.url(), &redis.url(), "demo", RETRY).await?;
    let mut workers = [world.stack.worker().await, world.stack.worker().await];
    world.ledger.take_turns([Turn::Answer(500, Vec::new()), Turn::WriteAndHang]);
    let body = transfer(EVENT, TRANSFER, AMOUNT_MINOR);
    println!("playing …\n\n        contract{:57}observed", "");
    let mut contract = Contract::default();

    let mut accepted = Vec::new();
    for _ in 0..3 {
        let answer = world.post(&sign::acme(EVENT, sign::now(), body.as_bytes()), &body).await;
        accepted.push(answer.map_or(0, |answer| answer.status.as_u16()));
    }
    let seen = format!("{accepted:?}");
    contract.line("three genuine callbacks get a 2xx", accepted == [200; 3], &seen);

    let wrote = tokio::time::timeout(BOUND, world.ledger.hung.recv()).await;
    anyhow::ensure!(wrote.is_ok_and(|wrote| wrote.is_some()), "the ledger was never written to");
    let killed = world.kill_the_holder(EVENT, &mut workers).await?;
    let killed = killed.process.id();
    let promised = "a worker is killed with -9 right after the ledger's write";
    contract.line(promised, true, &format!("killed process {killed}"));

    refusals(&world, &body, &mut contract).await;
    let done = world.until(EVENT, |d| delivered(d) && count(d, is_copy) == 2).await;
    outcome(&world, &done, &body, &mut contract)?;

    let shown = world.stack.zentra(&["event", "show", EVENT]);
    println!("\n$ zentra event show {EVENT}\n{}", String::from_utf8_lossy(&shown.stdout));
    anyhow::ensure!(shown.status.success(), "zentra event show failed");
    let results = world.ledger.rows()?.len();
    println!("{results} result{}", if results == 1 { "" } else { "s" });
    Ok(contract.differing)
}

async fn refusals(world: &World, body: &str, contract: &mut Contract) {
    let now = sign::now();
    let mut forged = sign::acme(EVENT, now, body.as_bytes());
    let signature = sign::standard("whsec_bm90IHRoZSBzZWNyZXQ=", EVENT, now, body.as_bytes());
    for (name, value) in &mut forged {
        if *name == "webhook-signature" {
            value.clone_from(&signature);
        }
    }
    contract.refused("a forged", world.post(&forged, body).await, "signature_mismatch");
    let unsigned: Headers = vec![("content-type", "application/json".into())];
    contract.refused("an unsigned", world.post(&unsigned, body).await, "signature_missing");
    let stale = sign::acme(EVENT, now - 3600, body.as_bytes());
    contract.refused("a stale", world.post(&stale, body).await, "timestamp_stale");
}

fn outcome(
    world: &World,
    done: &Delivery,
    body: &str,
    contract: &mut Contract,
) -> anyhow::Result<()> {
    let failed = count(done, |what| matches!(what, What::Failed { .. }));
    contract.line(
        "one attempt failed, and was tried again",
        failed == 1,
        &format!("{failed} failed"),
    );
    let again = count(done, |what| matches!(what, What::Claimed { reclaimed: true, .. }));
    let promised = "the killed worker's claim passed to the other worker";
    contract.line(promised, again == 1, &format!("{again} claimed again"));
    let copies = count(done, is_copy);
    let promised = "two of three callbacks are recorded as copies without effect";
    contract.line(promised, copies == 2, &format!("{copies} copies"));

    let requests = world.ledger.seen();
    let mut keys: Vec<&str> = requests.iter().map(|seen| seen.header("idempotency-key")).collect();
    keys.dedup();
    let one_key = keys == ["ledger/acme/evt_8172"];
    let promised = "all attempts carry one idempotency key";
    contract.line(promised, one_key, &format!("{} attempts, {}", requests.len(), keys.join(", ")));

    let rows = world.ledger.rows()?;
    let exact = rows.iter().all(|row| row.body == body.as_bytes());
    contract.line(
        "the ledger got the provider's exact bytes",
        exact,
        if exact { "equal" } else { "not equal" },
    );
    let right = rows.iter().all(|row| {
        (row.transfer.as_str(), row.amount_minor, row.currency.as_str())
            == (TRANSFER, AMOUNT_MINOR, "USD")
    });
    let promised = "the ledger has one row: trf_8172, 125000 minor units of USD";
    contract.line(promised, rows.len() == 1 && right, &format!("{} row", rows.len()));
    Ok(())
}
