//! The way from a client to a server in the same process: real requests, real router, no sockets.

use std::net::{Ipv4Addr, SocketAddr};

use axum::Router;
use axum::extract::ConnectInfo;
use bytes::Bytes;
use futures_util::future::BoxFuture;
use futures_util::stream::BoxStream;
use futures_util::{FutureExt as _, StreamExt as _, TryStreamExt as _};
use http::{Request, Response};
use syncagent_client::remote::RemoteError;
use syncagent_client::remote::http::{Body, Transport};
use syncagent_protocol::api::Event;
use tower::ServiceExt as _;

/// Requests go straight into the router.
#[derive(Clone)]
pub struct RouterTransport {
    router: Router,
}

impl RouterTransport {
    /// A transport into `router`.
    pub fn new(router: Router) -> Self {
        Self { router }
    }
}

impl Transport for RouterTransport {
    fn send(&self, request: Request<Bytes>) -> BoxFuture<'_, Result<Response<Body>, RemoteError>> {
        async move {
            let mut request = request.map(axum::body::Body::from);
            let peer = SocketAddr::from((Ipv4Addr::LOCALHOST, 1));
            request.extensions_mut().insert(ConnectInfo(peer));
            let response = match self.router.clone().oneshot(request).await {
                Ok(response) => response,
                Err(never) => match never {},
            };
            Ok(response.map(|body| {
                body.into_data_stream()
                    .map_err(|error| RemoteError::Offline(error.to_string()))
                    .boxed()
            }))
        }
        .boxed()
    }

    fn events(
        &self,
        _token: &str,
    ) -> BoxFuture<'_, Result<BoxStream<'static, Event>, RemoteError>> {
        async { Ok(futures_util::stream::pending().boxed()) }.boxed()
    }
}
