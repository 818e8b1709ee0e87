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
    let token = CancellationToken::new();
    let (mut terminate, mut interrupt) =
        (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
    let stop = token.clone();
    tokio::spawn(async move {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
        tracing::info!("stopping: no new work is accepted, running work is finished");
        stop.cancel();
    });
    Ok(token)
}
