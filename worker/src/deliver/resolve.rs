//! Which addresses a destination's name may resolve to, checked at each connection.
//!
//! A name that resolves to a private address (an internal service, a cloud's metadata) would let
//! its owner direct requests there. An IP address in the configuration is intended, and isn't
//! resolved.

use std::future::Future;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::pin::Pin;
use std::task::{Context, Poll};

use hyper_util::client::legacy::connect::dns::{GaiResolver, Name};
use tower_service::Service;
use zentra_core::address::is_public;

/// Resolves names to public addresses only.
#[derive(Clone)]
pub(super) struct PublicOnly(GaiResolver);

impl PublicOnly {
    pub(super) fn new() -> Self {
        Self(GaiResolver::new())
    }
}

impl Service<Name> for PublicOnly {
    type Response = std::vec::IntoIter<SocketAddr>;
    type Error = io::Error;
    type Future = Pin<Box<dyn Future<Output = io::Result<Self::Response>> + Send>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.0.poll_ready(context)
    }

    fn call(&mut self, name: Name) -> Self::Future {
        let found = self.0.call(name);
        Box::pin(async move {
            let (public, inside): (Vec<_>, Vec<_>) =
                found.await?.partition(|address| is_public(address.ip()));
            match (public.is_empty(), inside.first()) {
                (true, Some(address)) => Err(io::Error::other(PrivateAddress(address.ip()))),
                _ => Ok(public.into_iter()),
            }
        })
    }
}

/// A name resolves to a private address.
#[derive(Debug, thiserror::Error)]
#[error(
    "the name resolves to {0}, which is not a public address: if that is intended, set \
     allow_private = true for this destination"
)]
pub(super) struct PrivateAddress(IpAddr);

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_name_for_an_address_inside_is_refused_with_what_to_do() {
        let refused = PublicOnly::new().call("localhost".parse().unwrap()).await.unwrap_err();
        let message = refused.to_string();
        assert!(
            message.contains("is not a public address") && message.contains("allow_private"),
            "{message}"
        );
    }
}
