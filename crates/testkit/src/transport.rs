//! The way from a client to a server in the same process: real requests, real router, no sockets.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use axum::Router;
use axum::extract::ConnectInfo;
use bytes::Bytes;
use futures_util::future::BoxFuture;
use futures_util::stream::BoxStream;
use futures_util::{FutureExt as _, StreamExt as _, TryStreamExt as _};
use http::{Request, Response};
use syncagent_client::remote::RemoteError;
use syncagent_client::remote::http::{Body, Transport};
use syncagent_protocol::ChunkId;
use syncagent_protocol::api::Event;
use syncagent_protocol::pack::Unpacker;
use tower::ServiceExt as _;

/// Requests go straight into the router.
#[derive(Clone)]
pub struct RouterTransport {
    router: Router,
    carried: Option<Carried>,
}

/// The chunks that went through a transport, each as often as it did.
#[derive(Clone, Default)]
pub struct Carried(Arc<Mutex<Chunks>>);

/// Chunks by their ids.
#[derive(Debug, Clone, Default)]
pub struct Chunks {
    /// In packs, up.
    pub sent: Vec<ChunkId>,
    /// Asked for.
    pub fetched: Vec<ChunkId>,
}

impl Carried {
    /// What went through so far.
    pub fn chunks(&self) -> Chunks {
        self.lock().clone()
    }

    fn lock(&self) -> MutexGuard<'_, Chunks> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn note(&self, path: &str, body: &[u8]) {
        if path.ends_with("/chunks/fetch") {
            let ids = body.as_chunks().0.iter().map(|id| ChunkId(*id));
            self.lock().fetched.extend(ids);
        } else if path.ends_with("/packs") {
            let mut unpacker = Unpacker::default();
            // What is no pack, the server refuses.
            let _ = unpacker.push(body);
            while let Ok(Some(blob)) = unpacker.next_blob() {
                let id = ChunkId(syncagent_protocol::sha256(&[blob]));
                self.lock().sent.push(id);
            }
        }
    }
}

impl RouterTransport {
    /// A transport into `router`.
    pub fn new(router: Router) -> Self {
        Self {
            router,
            carried: None,
        }
    }

    /// The same, noting in `carried` what goes through.
    pub fn noting(mut self, carried: &Carried) -> Self {
        self.carried = Some(carried.clone());
        self
    }
}

impl Transport for RouterTransport {
    fn send(&self, request: Request<Bytes>) -> BoxFuture<'_, Result<Response<Body>, RemoteError>> {
        async move {
            if let Some(carried) = &self.carried {
                carried.note(request.uri().path(), request.body());
            }
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
