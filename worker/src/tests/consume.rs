use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use zentra_core::clock;
use zentra_store::control::{Attribution, DesiredState};

use super::{Bench, event, message};
use crate::consume::consume;
use crate::deliver::handler::Failed;

fn pause() -> DesiredState {
    let by = Attribution { by: "ada".into(), at: clock::now(), because: String::new() };
    DesiredState { pause: Some(by), close: None }
}

async fn a_while() {
    tokio::time::sleep(Duration::from_secs(1)).await;
}

#[tokio::test(start_paused = true)]
async fn nothing_is_consumed_before_the_desired_state_is_known_and_none_in_a_pause() {
    let bench = Bench::new(|_| Ok(()));
    let running =
        tokio::spawn(consume(bench.processor.clone(), bench.deliver.clone(), bench.stop.clone()));
    bench.queue.sender.send(message(event("evt_1", "{}"))).unwrap();
    a_while().await;
    assert!(bench.log.take().is_empty(), "the gate is closed");
    bench.open_gate();
    a_while().await;
    let steps = bench.log.take();
    assert_eq!(steps[0], "consume");
    assert_eq!(steps.last().unwrap(), "ack");
    bench.processor.gate.apply(pause());
    a_while().await;
    a_while().await;
    assert_eq!(bench.log.take(), ["finish"]);
    bench.queue.sender.send(message(event("evt_2", "{}"))).unwrap();
    a_while().await;
    assert!(bench.log.take().is_empty(), "it is paused");
    bench.open_gate();
    a_while().await;
    assert_eq!(bench.log.take().last().unwrap(), "ack");
    bench.stop.cancel();
    tokio::time::timeout(Duration::from_secs(60), running).await.unwrap().unwrap();
}

#[tokio::test(start_paused = true)]
async fn no_more_run_at_a_time_than_the_concurrency() {
    let (now, most) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
    let counts = (now.clone(), most.clone());
    let bench = Bench::slow(move |entered| match entered {
        true => {
            let running = counts.0.fetch_add(1, Ordering::SeqCst) + 1;
            counts.1.fetch_max(running, Ordering::SeqCst);
        }
        false => {
            counts.0.fetch_sub(1, Ordering::SeqCst);
        }
    });
    for number in 0..10 {
        bench.queue.sender.send(message(event(&format!("evt_{number}"), "{}"))).unwrap();
    }
    bench.open_gate();
    let running =
        tokio::spawn(consume(bench.processor.clone(), bench.deliver.clone(), bench.stop.clone()));
    tokio::time::sleep(Duration::from_secs(60)).await;
    assert_eq!((now.load(Ordering::SeqCst), most.load(Ordering::SeqCst)), (0, 2));
    bench.stop.cancel();
    running.await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn an_open_circuit_leaves_messages_where_they_are() {
    let bench = Bench::new(|_| Err(Failed::again("no")));
    for number in 0..20 {
        bench.queue.sender.send(message(event(&format!("evt_{number}"), "{}"))).unwrap();
    }
    bench.open_gate();
    let running =
        tokio::spawn(consume(bench.processor.clone(), bench.deliver.clone(), bench.stop.clone()));
    tokio::time::sleep(Duration::from_millis(500)).await;
    let attempts = bench.log.take().iter().filter(|step| step.starts_with("attempt")).count();
    assert!((5..=7).contains(&attempts), "{attempts} before it opened");
    bench.stop.cancel();
    running.await.unwrap();
    let steps = bench.log.take();
    let returned = steps.iter().filter(|step| *step == "give back").count();
    assert_eq!(returned + attempts, 20, "the others go back when it stops");
}

#[tokio::test(start_paused = true)]
async fn a_stopping_worker_lets_a_running_attempt_end() {
    let bench = Bench::slow(|_| ());
    bench.queue.sender.send(message(event("evt_1", "{}"))).unwrap();
    bench.open_gate();
    let running =
        tokio::spawn(consume(bench.processor.clone(), bench.deliver.clone(), bench.stop.clone()));
    tokio::time::sleep(Duration::from_secs(1)).await;
    bench.stop.cancel();
    running.await.unwrap();
    let steps = bench.log.take();
    assert_eq!(steps[steps.len() - 3..], ["settle delivered", "ack", "finish"]);
}
