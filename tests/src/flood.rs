//! Floods: connections and bodies of clients that only occupy resources.

use std::convert::Infallible;
use std::net::{IpAddr, SocketAddr};
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http::Request;
use hyper::body::{Body, Frame, SizeHint};
use hyper::client::conn::http2;
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::net::{TcpSocket, TcpStream};
use tokio::task::JoinSet;

/// The length of a body of 1 MiB that stops after its first piece, or before it.
pub struct Unfinished(Option<Bytes>);

impl Body for Unfinished {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        match self.0.take() {
            Some(first) => Poll::Ready(Some(Ok(Frame::data(first)))),
            None => Poll::Pending,
        }
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(1 << 20)
    }
}

/// A connection to `listen` (`http://ADDRESS`) from this local address.
pub async fn connect(listen: &str, from: Option<IpAddr>) -> std::io::Result<TcpStream> {
    let address = listen.rsplit('/').next().unwrap_or_default().parse::<SocketAddr>();
    let address = address.map_err(std::io::Error::other)?;
    let socket = TcpSocket::new_v4()?;
    if let Some(from) = from {
        socket.bind((from, 0).into())?;
    }
    socket.connect(address).await
}

/// Callbacks to `/in/acme` on HTTP/2 connections with `streams` streams each. The bodies begin
/// with `first` and never end. They run until the result is dropped. A refused one is sent again
/// after `pause`.
pub async fn unfinished_bodies(
    listen: &str,
    from: Option<IpAddr>,
    connections: usize,
    streams: usize,
    first: Option<Bytes>,
    pause: Duration,
) -> std::io::Result<JoinSet<()>> {
    let mut all = JoinSet::new();
    for _ in 0..connections {
        let stream = TokioIo::new(connect(listen, from).await?);
        let shaken = http2::handshake(TokioExecutor::new(), stream).await;
        let (sender, connection) = shaken.map_err(std::io::Error::other)?;
        all.spawn(async move { drop(connection.await) });
        for _ in 0..streams {
            let (mut sender, url) = (sender.clone(), format!("{listen}/in/acme"));
            let first = first.clone();
            all.spawn(async move {
                while sender.ready().await.is_ok() {
                    let request = Request::post(&url).body(Unfinished(first.clone()));
                    let Ok(request) = request else { return };
                    drop(sender.send_request(request).await);
                    tokio::time::sleep(pause).await;
                }
            });
        }
    }
    Ok(all)
}
