//! SIGTERM, SIGINT and SIGHUP, for the binaries' `main` alone.

use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

/// A message for each SIGHUP, which asks to read the config anew.
///
/// # Errors
/// If the signal can't be listened for.
pub fn hangups() -> std::io::Result<mpsc::Receiver<()>> {
    let mut hangup = signal(SignalKind::hangup())?;
    let (tell, heard) = mpsc::channel(1);
    tokio::spawn(async move {
        while hangup.recv().await.is_some() {
            // One that waits already will read what the file says then.
            let _ = tell.try_send(());
        }
    });
    Ok(heard)
}

/// A token that the first SIGTERM or SIGINT cancels.
///
/// # Errors
/// If the signals can't be listened for.
pub fn on_signal() -> std::io::Result<CancellationToken> {
    cancelled_by(&[SignalKind::terminate(), SignalKind::interrupt()])
}

/// The same, and SIGHUP: the terminal was closed. For a program that belongs to a terminal.
///
/// # Errors
/// If the signals can't be listened for.
pub fn on_signal_or_hangup() -> std::io::Result<CancellationToken> {
    cancelled_by(&[SignalKind::terminate(), SignalKind::interrupt(), SignalKind::hangup()])
}

fn cancelled_by(kinds: &[SignalKind]) -> std::io::Result<CancellationToken> {
    let token = CancellationToken::new();
    for kind in kinds {
        let (mut signal, stop) = (signal(*kind)?, token.clone());
        tokio::spawn(async move {
            if signal.recv().await.is_some() && !stop.is_cancelled() {
                tracing::info!("stopping: no new work is accepted, running work is finished");
                stop.cancel();
            }
        });
    }
    Ok(token)
}
