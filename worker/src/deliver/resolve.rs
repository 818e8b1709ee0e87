//! Which addresses a destination's name may resolve to, checked at each connection.
//!
//! A name that resolves to a private address (an internal service, a cloud's metadata) would let
//! its owner direct requests there. An IP address in the configuration is intended, and isn't
//! resolved.

use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::task::{Context, Poll};

use hyper_util::client::legacy::connect::dns::{GaiResolver, Name};
use tower_service::Service;
use zentra_core::address::public_only;

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
        Box::pin(
            async move { Ok(public_only(found.await?).map_err(io::Error::other)?.into_iter()) },
        )
    }
}

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
