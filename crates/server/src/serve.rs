//! Sockets: accepts connections, bounded in number, and lets them end in order when the server goes down.

use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use hyper::body::Incoming;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use hyper_util::server::graceful::{GracefulShutdown, Watcher};
use hyper_util::service::TowerToHyperService;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, watch};
use tokio::task::JoinHandle;

use crate::app::App;
use crate::limits::{
    COMPARISON_TIME, CONNECTION_BUFFER_LEN, HANDSHAKE_TIME, HEADER_TIME, MAX_CONNECTIONS,
};
use crate::tls::Tls;

/// How long requests that are under way may take when the server goes down.
const GRACE: Duration = Duration::from_secs(10);

/// The other end of a connection, put into every request.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Peer(pub(crate) SocketAddr);

/// Serves `app` in plain HTTP on `listener` until `shutdown` is ready; then closes the sockets, lets requests that
/// are under way end, and returns.
pub async fn serve(
    app: App,
    listener: TcpListener,
    shutdown: impl Future<Output = ()>,
) -> io::Result<()> {
    serve_all(app, listener, None, shutdown).await
}

/// [`serve`], through TLS and in no other way. From now on invitations of `app` name the certificate, if they have to.
pub fn serve_tls(
    app: App,
    listener: TcpListener,
    tls: Tls,
    shutdown: impl Future<Output = ()>,
) -> impl Future<Output = io::Result<()>> {
    app.served_with(&tls);
    serve_all(app, listener, Some(tls), shutdown)
}

async fn serve_all(
    app: App,
    listener: TcpListener,
    tls: Option<Tls>,
    shutdown: impl Future<Output = ()>,
) -> io::Result<()> {
    let router = app.router();
    let mut builder = auto::Builder::new(TokioExecutor::new());
    builder
        .http1()
        .timer(TokioTimer::new())
        .header_read_timeout(HEADER_TIME)
        .max_buf_size(CONNECTION_BUFFER_LEN)
        .http2()
        .timer(TokioTimer::new())
        .max_concurrent_streams(16)
        .initial_stream_window_size(4 * CONNECTION_BUFFER_LEN as u32)
        .initial_connection_window_size(4 * CONNECTION_BUFFER_LEN as u32)
        .max_send_buf_size(CONNECTION_BUFFER_LEN)
        .keep_alive_interval(Duration::from_secs(30));
    let graceful = GracefulShutdown::new();
    let connections = Arc::new(Semaphore::new(MAX_CONNECTIONS));
    tokio::pin!(shutdown);
    let comparison = tokio::spawn({
        let app = app.clone();
        async move { app.compare_and_tell().await }
    });
    let mut comparing = Comparing(comparison);
    // Connections wait in the system's queue meanwhile.
    let mut ending = tokio::select! {
        biased;
        () = &mut shutdown => true,
        _ = tokio::time::timeout(COMPARISON_TIME, &mut comparing.0) => false,
    };
    while !ending {
        let accepted = tokio::select! {
            biased;
            () = &mut shutdown => {
                ending = true;
                continue;
            }
            accepted = accept(&listener, &connections) => accepted,
        };
        let Some((stream, peer, turn)) = accepted else {
            continue;
        };
        if let Err(error) = stream.set_nodelay(true) {
            tracing::debug!(%peer, %error, "cannot switch off Nagle's algorithm");
        }
        let connection = Connection {
            builder: builder.clone(),
            router: router.clone(),
            peer,
            watcher: graceful.watcher(),
        };
        let tls = tls.clone();
        let closing = app.0.closing.subscribe();
        tokio::spawn(async move {
            let _turn = turn;
            match tls {
                None => connection.serve(stream).await,
                Some(tls) => match shake_hands(&tls, stream, closing).await {
                    Ok(stream) => connection.serve(stream).await,
                    Err(error) => tracing::debug!(%peer, %error, "no TLS came about"),
                },
            }
        });
    }
    drop(listener);
    app.close();
    drop(comparing);
    if tokio::time::timeout(GRACE, graceful.shutdown())
        .await
        .is_err()
    {
        tracing::warn!("some requests did not end in time");
    }
    Ok(())
}

/// A comparison that ends with this.
struct Comparing(JoinHandle<()>);

impl Drop for Comparing {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// One connection, and how it is served.
struct Connection {
    builder: auto::Builder<TokioExecutor>,
    router: axum::Router,
    peer: SocketAddr,
    watcher: Watcher,
}

impl Connection {
    async fn serve(self, stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static) {
        let Self {
            builder,
            router,
            peer,
            watcher,
        } = self;
        let service = tower::service_fn(move |mut request: http::Request<Incoming>| {
            request.extensions_mut().insert(Peer(peer));
            tower::ServiceExt::oneshot(router.clone(), request.map(axum::body::Body::new))
        });
        let connection = builder.serve_connection_with_upgrades(
            TokioIo::new(stream),
            TowerToHyperService::new(service),
        );
        if let Err(error) = watcher.watch(connection.into_owned()).await {
            tracing::debug!(%peer, error, "a connection ended early");
        }
    }
}

/// Agrees on keys, unless that takes too long or the server goes down.
async fn shake_hands(
    tls: &Tls,
    stream: TcpStream,
    mut closing: watch::Receiver<bool>,
) -> io::Result<tokio_rustls::server::TlsStream<TcpStream>> {
    tokio::select! {
        biased;
        _ = closing.wait_for(|closing| *closing) => Err(io::ErrorKind::ConnectionAborted.into()),
        done = tokio::time::timeout(HANDSHAKE_TIME, tls.accept(stream)) => done?,
    }
}

async fn accept(
    listener: &TcpListener,
    connections: &Arc<Semaphore>,
) -> Option<(TcpStream, SocketAddr, tokio::sync::OwnedSemaphorePermit)> {
    // First the turn: connections beyond the limit wait in the system's queue and cost nothing here.
    let turn = Arc::clone(connections).acquire_owned().await.ok()?;
    match listener.accept().await {
        Ok((stream, peer)) => Some((stream, peer, turn)),
        Err(error) => {
            tracing::warn!(%error, "cannot accept a connection");
            // Out of file descriptors, most likely: give others time to end.
            tokio::time::sleep(Duration::from_millis(100)).await;
            None
        }
    }
}
