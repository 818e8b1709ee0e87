//! `zentra serve`.

use std::net::SocketAddr;

use tokio::net::TcpListener;
use zentra_admin::Backend;
use zentra_api::Secrets;
use zentra_config::Config;
use zentra_telemetry::shutdown;

use crate::failure::Failure;

/// Options of the HTTP API.
#[derive(clap::Args)]
pub(crate) struct Serve {
    /// Address to listen on. Port 0 uses a free port and logs it.
    #[arg(long, default_value = crate::console::ADDRESS, value_name = "ADDRESS")]
    listen: SocketAddr,
    /// A proxy in front ends TLS. Required to listen on another address than loopback, because
    /// tokens must be encrypted on the network.
    #[arg(long)]
    behind_tls: bool,
    /// Allow refused callbacks to be explained and admitted, and test callbacks to be sent. Needs the sources'
    /// secrets.
    #[arg(long)]
    pub(crate) admit: bool,
    /// Address of the ingress, for test callbacks (default: http:// and `ingress.listen`).
    #[arg(long, value_name = "URL", requires = "admit")]
    ingress: Option<String>,
}

/// Serves until SIGTERM or SIGINT.
pub(crate) async fn run<B: Backend + 'static>(
    config: &'static Config,
    backend: B,
    asked: &Serve,
) -> Result<(), Failure> {
    let Serve { listen, behind_tls, admit, ingress } = asked;
    if !listen.ip().is_loopback() && !behind_tls {
        return Err(Failure::Asked(format!(
            "{listen} is reachable from other hosts, and this is plain HTTP.\nPut a TLS proxy before \
             it and add --behind-tls; or listen on 127.0.0.1."
        )));
    }
    let listener = TcpListener::bind(listen).await.map_err(|error| {
        Failure::Asked(format!("cannot listen on {listen}: {error}\n127.0.0.1:0 uses a free port."))
    })?;
    let stop = shutdown::on_signal()?;
    let secrets = admit.then(|| Secrets { ingress: ingress.clone() });
    tracing::info!(listen = %listener.local_addr()?, "zentra serve started; zentra console open signs in");
    zentra_api::serve(listener, config, backend, secrets, stop).await;
    tracing::info!("zentra serve stopped");
    Ok(())
}
