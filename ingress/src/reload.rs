//! What may change while callbacks are taken.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use zentra_shared::config::{Environment, Tls};

use crate::server;

/// How often the certificate's files are looked at.
const LOOK: Duration = Duration::from_secs(2);

/// Serves by the certificate, and by a new one soon after its files have changed.
/// Connections that are open keep the old one.
pub(crate) fn certificates(
    tls: Option<Tls>,
    environment: Environment,
    stop: CancellationToken,
) -> server::Tls {
    let (publish, current) = watch::channel(tls.as_ref().map(|tls| Arc::clone(&tls.server)));
    if let Some(mut tls) = tls {
        tokio::spawn(async move {
            let mut told = String::new();
            while tokio::time::timeout(LOOK, stop.cancelled()).await.is_err() {
                match tls.changed(&environment) {
                    Ok(None) => told.clear(),
                    Ok(Some(new)) => {
                        told.clear();
                        tracing::info!("the certificate was read anew");
                        publish.send_replace(Some(Arc::clone(&new.server)));
                        tls = new;
                    }
                    // Certificate and key are seldom replaced in one step.
                    Err(problem) if problem == told => {}
                    Err(problem) => {
                        tracing::error!(
                            problem,
                            "the new certificate can't be used; the old stays"
                        );
                        told = problem;
                    }
                }
            }
        });
    }
    current
}
