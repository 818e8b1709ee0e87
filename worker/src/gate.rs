//! Whether a destination's messages are taken: its circuit, and the desired state of operators.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use prometheus::IntGauge;
use tokio::sync::watch;
use zentra_core::clock::Timestamp;
use zentra_store::control::{
    DesiredState, DesiredStates, HEARTBEAT_INTERVAL, Heartbeat, Work, WorkerControl,
};

use crate::circuit::Circuit;
use crate::tally::Tallies;

/// The gate of one destination. It is closed until the desired state was read: a new worker doesn't
/// start what operators paused.
pub(crate) struct DestinationGate {
    pub(crate) circuit: Circuit,
    state: watch::Sender<KnownState>,
    in_flight: IntGauge,
    pub(crate) tallies: Tallies,
}

/// The desired state, as far as it is known.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct KnownState {
    /// `None` until it was read.
    desired: Option<DesiredState>,
}

impl KnownState {
    pub(crate) fn is_known(&self) -> bool {
        self.desired.is_some()
    }

    pub(crate) fn is_paused(&self) -> bool {
        self.desired.as_ref().is_some_and(|desired| desired.pause.is_some())
    }

    pub(crate) fn is_open(&self) -> bool {
        self.desired.as_ref().is_some_and(|desired| desired.pause.is_none())
    }
}

impl DestinationGate {
    pub(crate) fn new(circuit: Circuit, in_flight: IntGauge) -> Self {
        let (state, tallies) = (watch::Sender::default(), Tallies::default());
        Self { circuit, state, in_flight, tallies }
    }

    /// Receives each change.
    pub(crate) fn watch(&self) -> watch::Receiver<KnownState> {
        self.state.subscribe()
    }

    pub(crate) fn apply(&self, desired: DesiredState) {
        self.state.send_if_modified(|known| {
            let again = known.desired.as_ref().is_some_and(|known| known.close != desired.close);
            // Requests from before this worker's start are ignored.
            if again && desired.close.is_some() {
                self.circuit.close();
            }
            let new = KnownState { desired: Some(desired) };
            let changed = *known != new;
            *known = new;
            changed
        });
    }

    fn work(&self) -> Work {
        let desired = self.state.borrow();
        let paused = desired.desired.as_ref().is_some_and(|desired| desired.pause.is_some());
        Work {
            in_flight: self.in_flight.get().try_into().unwrap_or_default(),
            circuit: self.circuit.state(Instant::now()),
            paused,
            last: self.tallies.last(),
        }
    }
}

/// The gates of all destinations of this worker.
#[derive(Clone, Default)]
pub(crate) struct Gates(Arc<Mutex<GateTable>>);

#[derive(Default)]
struct GateTable {
    gates: BTreeMap<String, Arc<DestinationGate>>,
    /// Last read desired states.
    desired_states: Option<DesiredStates>,
}

impl Gates {
    /// Replaces the gates of the previous configuration.
    pub(crate) fn replace(&self, gates: BTreeMap<String, Arc<DestinationGate>>) {
        let mut table = self.table();
        table.gates = gates;
        table.notify();
    }

    /// Writes heartbeats and reads desired states periodically.
    pub(crate) async fn heartbeat<C: WorkerControl>(
        self,
        control: C,
        worker: String,
        began: Timestamp,
    ) {
        let mut tick = tokio::time::interval(HEARTBEAT_INTERVAL);
        tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            tick.tick().await;
            let destinations =
                self.table().gates.iter().map(|(name, gate)| (name.clone(), gate.work())).collect();
            let heartbeat = Heartbeat {
                worker: worker.clone(),
                version: env!("CARGO_PKG_VERSION").into(),
                started_at: began,
                destinations,
            };
            match control.heartbeat(&heartbeat).await {
                Ok(desired_states) => {
                    let mut table = self.table();
                    table.desired_states = Some(desired_states);
                    table.notify();
                }
                // The last desired states stay in force.
                Err(error) => tracing::debug!(%error, "cannot read the operators' settings"),
            }
        }
    }

    fn table(&self) -> MutexGuard<'_, GateTable> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl GateTable {
    fn notify(&self) {
        let Some(desired_states) = &self.desired_states else { return };
        for (name, gate) in &self.gates {
            gate.apply(desired_states.get(name).cloned().unwrap_or_default());
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use zentra_config::Breaker;
    use zentra_store::control::{Attribution, Circuit as CircuitState};

    use super::*;

    fn attribution(at: u64) -> Option<Attribution> {
        Some(Attribution {
            by: "ada".into(),
            at: Timestamp::from_millis(at),
            because: String::new(),
        })
    }

    #[test]
    fn it_is_shut_until_operators_are_heard_and_only_a_new_word_closes_the_circuit() {
        let gauge = || IntGauge::new("g", "g").unwrap();
        let hour = Duration::from_secs(3600);
        let settings = Breaker { failures: 1, first_pause: hour, pause: hour };
        let gate = DestinationGate::new(Circuit::new(settings, 1, gauge()), gauge());
        let fails = || gate.circuit.attempted(false, gate.circuit.epoch(), Instant::now());
        let watch = gate.watch();
        let open = || watch.borrow().is_open();
        let circuit = || gate.work().circuit;
        assert!(!open());
        fails();
        // What was said before this worker began.
        gate.apply(DesiredState { pause: attribution(1), close: attribution(1) });
        assert_eq!((open(), gate.work().paused, circuit()), (false, true, CircuitState::Open));
        gate.apply(DesiredState { pause: None, close: attribution(1) });
        assert_eq!((open(), gate.work().paused, circuit()), (true, false, CircuitState::Open));
        gate.apply(DesiredState { pause: None, close: attribution(2) });
        assert_eq!((open(), circuit()), (true, CircuitState::Closed));
        fails();
        // Forgotten by the store, it is no word.
        gate.apply(DesiredState::default());
        assert_eq!(circuit(), CircuitState::Open);
    }
}
