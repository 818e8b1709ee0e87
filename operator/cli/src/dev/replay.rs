//! Has a delivery attempted again.

use tokio_util::sync::CancellationToken;
use zentra_admin::audit::Actor;
use zentra_admin::dead::{self, Letters};
use zentra_admin::filter::Filter;
use zentra_admin::job::{self, New, NewPace, Replaying};
use zentra_admin::{AdminError, Backend, event};
use zentra_config::Config;
use zentra_core::event::DeliveryKey;
use zentra_core::lifecycle::State;
use zentra_store::journal::{DeliveryStore, HistoryEvent};

/// Replays it, under the same idempotency key. Returns what was done, or why not.
pub(super) async fn replay(backend: &impl Backend, config: &Config, key: &DeliveryKey) -> String {
    match try_replay(backend, config, key).await {
        Ok(done) => format!("{key}: {done}"),
        Err(error) => format!("{key}: {}", error.text()),
    }
}

async fn try_replay(
    backend: &impl Backend,
    config: &Config,
    key: &DeliveryKey,
) -> Result<&'static str, AdminError> {
    let name = std::env::var("USER").unwrap_or_else(|_| "developer".into());
    let actor = Actor { name, reason: "zentra dev".into() };
    let known = backend.histories().history(key).await?;
    match known.map(|delivery| delivery.record.state) {
        None => Ok("it is no longer remembered"),
        Some(State::InFlight) => Ok("an attempt is running"),
        Some(State::Waiting) => {
            event::release(backend, config, key.as_str(), &actor).await?;
            Ok("it is attempted now")
        }
        Some(State::Dead) => {
            let what = HistoryEvent::Requeued { reason: actor.reason.clone(), job: None };
            let letters = Letters::of(vec![key.as_str().to_owned()]);
            dead::requeue(backend, config, &letters, &what, &actor.name, &()).await?;
            Ok("it is requeued")
        }
        Some(State::Delivered) => {
            let filter = Filter {
                destination: Some(key.destination().to_owned()),
                source: Some(key.source().to_owned()),
                ..Filter::default()
            };
            let (ids, replay) = (vec![key.identity().to_owned()], Replaying { force: true });
            let pace = NewPace { canary: 0, rate: 0, max_failures: 100 };
            let new = New { ids, filter, all: false, replay: Some(replay), pace };
            let planned = job::plan(backend, config, &new, &actor, &()).await?;
            let stop = CancellationToken::new();
            job::run(backend, config, &planned.id, false, &actor, &stop, &()).await?;
            Ok("it is replayed")
        }
    }
}
