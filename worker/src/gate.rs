//! Whether a destination's messages are taken: what its circuit says, and what operators say.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use prometheus::IntGauge;
use tokio::sync::watch;
use zentra_core::clock::Timestamp;
use zentra_store::control::{BEAT, Beat, Follow, Order, Orders, Work};

use crate::circuit::Circuit;

/// The gate of one destination. It is shut until the first word of operators has come: what they
/// stopped, a new worker doesn't start.
pub(crate) struct Gate {
    pub(crate) circuit: Circuit,
    said: watch::Sender<Standing>,
    in_flight: IntGauge,
}

/// What operators have said.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Standing {
    /// What they want, once that is known.
    order: Option<Order>,
}

impl Standing {
    pub(crate) fn is_open(&self) -> bool {
        self.order.as_ref().is_some_and(|order| order.pause.is_none())
    }
}

impl Gate {
    pub(crate) fn new(circuit: Circuit, in_flight: IntGauge) -> Self {
        Self { circuit, said: watch::Sender::default(), in_flight }
    }

    /// Tells of each change.
    pub(crate) fn watch(&self) -> watch::Receiver<Standing> {
        self.said.subscribe()
    }

    fn hear(&self, order: Order) {
        self.said.send_if_modified(|standing| {
            let again = standing.order.as_ref().is_some_and(|known| known.close != order.close);
            // What was said before this worker began is past.
            if again && order.close.is_some() {
                self.circuit.close();
            }
            let new = Standing { order: Some(order) };
            let changed = *standing != new;
            *standing = new;
            changed
        });
    }

    fn work(&self) -> Work {
        let order = self.said.borrow();
        let paused = order.order.as_ref().is_some_and(|order| order.pause.is_some());
        Work {
            in_flight: self.in_flight.get().try_into().unwrap_or_default(),
            circuit: self.circuit.standing(Instant::now()),
            paused,
        }
    }
}

/// The gates of all destinations that this worker works for.
#[derive(Clone, Default)]
pub(crate) struct Gates(Arc<Mutex<Hall>>);

#[derive(Default)]
struct Hall {
    gates: BTreeMap<String, Arc<Gate>>,
    /// As they were last heard.
    orders: Option<Orders>,
}

impl Gates {
    /// In the place of those of the config before.
    pub(crate) fn replace(&self, gates: BTreeMap<String, Arc<Gate>>) {
        let mut hall = self.hall();
        hall.gates = gates;
        hall.tell();
    }

    /// Tells how the worker does and hears what is wanted, again and again.
    pub(crate) async fn beat<C: Follow>(self, control: C, worker: String, began: Timestamp) {
        let mut tick = tokio::time::interval(BEAT);
        tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            tick.tick().await;
            let destinations =
                self.hall().gates.iter().map(|(name, gate)| (name.clone(), gate.work())).collect();
            let beat = Beat {
                worker: worker.clone(),
                version: env!("CARGO_PKG_VERSION").into(),
                started_at: began,
                destinations,
            };
            match control.beat(&beat).await {
                Ok(orders) => {
                    let mut hall = self.hall();
                    hall.orders = Some(orders);
                    hall.tell();
                }
                // It goes on as it last heard.
                Err(error) => tracing::debug!(%error, "operators weren't heard"),
            }
        }
    }

    fn hall(&self) -> MutexGuard<'_, Hall> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Hall {
    fn tell(&self) {
        let Some(orders) = &self.orders else { return };
        for (name, gate) in &self.gates {
            gate.hear(orders.get(name).cloned().unwrap_or_default());
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use zentra_config::Breaker;
    use zentra_store::control::{Circuit as Shown, Said};

    use super::*;

    fn said(at: u64) -> Option<Said> {
        Some(Said { by: "ada".into(), at: Timestamp::from_millis(at), because: String::new() })
    }

    #[test]
    fn it_is_shut_until_operators_are_heard_and_only_a_new_word_closes_the_circuit() {
        let gauge = || IntGauge::new("g", "g").unwrap();
        let hour = Duration::from_secs(3600);
        let settings = Breaker { failures: 1, first_pause: hour, pause: hour };
        let gate = Gate::new(Circuit::new(settings, 1, gauge()), gauge());
        let fails = || gate.circuit.attempted(false, gate.circuit.epoch(), Instant::now());
        let watch = gate.watch();
        let open = || watch.borrow().is_open();
        let circuit = || gate.work().circuit;
        assert!(!open());
        fails();
        // What was said before this worker began.
        gate.hear(Order { pause: said(1), close: said(1) });
        assert_eq!((open(), gate.work().paused, circuit()), (false, true, Shown::Open));
        gate.hear(Order { pause: None, close: said(1) });
        assert_eq!((open(), gate.work().paused, circuit()), (true, false, Shown::Open));
        gate.hear(Order { pause: None, close: said(2) });
        assert_eq!((open(), circuit()), (true, Shown::Closed));
        fails();
        // Forgotten by the store, it is no word.
        gate.hear(Order::default());
        assert_eq!(circuit(), Shown::Open);
    }
}
