//! The TCP or TLS connection that the client library speaks AMQP over.
//!
//! The library's own TLS always trusts the system's CAs. A TLS stream of another kind needs a
//! runtime of its own type: [`Kit`] is Tokio's with our streams.

use std::io::{self, Read, Write};
use std::net::SocketAddr;
use std::os::fd::{AsFd, AsRawFd};
use std::sync::Arc;
use std::time::{Duration, Instant};

use async_rs::traits::{Executor, Reactor, RuntimeKit};
use async_rs::util::Task;
use async_rs::{Runtime, Tokio};
use futures_core::Stream;
use futures_io::{AsyncRead, AsyncWrite};
use lapin::tcp::AsyncTcpStream;
use lapin::uri::{AMQPScheme, AMQPUri};
use lapin::{Connection, ConnectionProperties};
use rustls::pki_types::ServerName;
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tokio_util::compat::{Compat, TokioAsyncReadCompatExt};
use tokio_util::either::Either;
use zentra_config::ClientTls;

/// Time limit for TCP and TLS. The caller's own is shorter.
const LIMIT: Duration = Duration::from_secs(30);

/// A plain or a TLS stream.
pub(crate) type Socket = Either<TcpStream, TlsStream<TcpStream>>;
/// As the client library reads it.
type Transport = Compat<Socket>;

/// Connects to one address. Over TLS if the URL starts with `amqps://`.
pub(crate) async fn connect(
    uri: AMQPUri,
    tls: ClientTls,
    properties: ConnectionProperties,
) -> lapin::Result<Connection> {
    let open = async move |uri: AMQPUri, _: Runtime<Kit>| {
        // The library runs this in a thread of its own, which nothing else ends.
        let opened = timeout(LIMIT, open(&uri, &tls)).await.map_err(io::Error::from)?;
        Ok(AsyncTcpStream::Plain(opened?.compat()))
    };
    Connection::connector(uri, Runtime::new(Kit(Tokio::current())), open, properties).await
}

/// Parses a URL. The library would take `localhost` for an IPv6 address.
pub(crate) fn uri(url: &str) -> Option<AMQPUri> {
    let mut uri: AMQPUri = url.parse().ok()?;
    if let Some((address, _)) = url.split_once('[').and_then(|(_, rest)| rest.split_once(']')) {
        uri.authority.host = address.into();
    }
    Some(uri)
}

/// Connects, and shakes hands over TLS if the URL asks for it.
pub(crate) async fn open(uri: &AMQPUri, tls: &ClientTls) -> io::Result<Socket> {
    let host = uri.authority.host.as_str();
    let tcp = TcpStream::connect((host, uri.authority.port)).await?;
    tcp.set_nodelay(true)?;
    Ok(match uri.scheme {
        AMQPScheme::AMQP => Either::Left(tcp),
        AMQPScheme::AMQPS => {
            let name = ServerName::try_from(host.to_owned()).map_err(io::Error::other)?;
            let client = Arc::new(tls.client_config().map_err(io::Error::other)?);
            Either::Right(TlsConnector::from(client).connect(name, tcp).await?)
        }
    })
}

/// Tokio, with [`Transport`] as its stream.
#[derive(Clone, Debug)]
struct Kit(Tokio);

impl RuntimeKit for Kit {}

impl Executor for Kit {
    type Task<T: Send + 'static> = <Tokio as Executor>::Task<T>;

    fn block_on<T, F: Future<Output = T>>(&self, future: F) -> T {
        self.0.block_on(future)
    }

    fn spawn<T: Send + 'static, F: Future<Output = T> + Send + 'static>(
        &self,
        future: F,
    ) -> Task<Self::Task<T>> {
        self.0.spawn(future)
    }

    fn spawn_blocking<T: Send + 'static, F: FnOnce() -> T + Send + 'static>(
        &self,
        work: F,
    ) -> Task<Self::Task<T>> {
        self.0.spawn_blocking(work)
    }
}

impl Reactor for Kit {
    type TcpStream = Transport;
    type Sleep = <Tokio as Reactor>::Sleep;

    fn register<H: Read + Write + AsFd + AsRawFd + Send + 'static>(
        &self,
        socket: H,
    ) -> io::Result<impl AsyncRead + AsyncWrite + Send + Unpin + 'static> {
        self.0.register(socket)
    }

    fn sleep(&self, time: Duration) -> Self::Sleep {
        self.0.sleep(time)
    }

    fn interval(&self, time: Duration) -> impl Stream<Item = Instant> + Send + 'static {
        self.0.interval(time)
    }

    #[expect(clippy::manual_async_fn, reason = "an async function would borrow `self`")]
    fn tcp_connect_addr(
        &self,
        address: SocketAddr,
    ) -> impl Future<Output = io::Result<Self::TcpStream>> + Send + 'static {
        async move { Ok(Either::Left(TcpStream::connect(address).await?).compat()) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_host_of_a_url_is_the_host_that_is_connected_to() {
        for (url, host, port) in [
            ("amqp://rabbit.internal/%2f", "rabbit.internal", 5672),
            ("amqp://u:p@10.0.0.7:5673/%2f", "10.0.0.7", 5673),
            ("amqps://u:p@[2001:db8::1]:5671/%2f", "2001:db8::1", 5671),
            ("amqps://[::1]/%2f", "::1", 5671),
        ] {
            let found = uri(url).unwrap().authority;
            assert_eq!((found.host.as_str(), found.port), (host, port), "{url}");
        }
        assert!(uri("amqp://rabbit:port/").is_none());
    }
}
