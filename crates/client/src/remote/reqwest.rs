//! The network: HTTP through `reqwest`, the event socket through `tokio-tungstenite`, both over the same TLS.

use std::error::Error;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::future::BoxFuture;
use futures_util::stream::BoxStream;
use futures_util::{FutureExt as _, StreamExt as _, TryStreamExt as _};
use http::{Request, Response};
use reqwest::Url;
use rustls::ClientConfig;
use rustls::pki_types::ServerName;
use syncagent_protocol::api::{EVENTS, Event};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_tungstenite::tungstenite::client::IntoClientRequest as _;
use tokio_tungstenite::tungstenite::protocol::WebSocketConfig;
use tokio_tungstenite::tungstenite::{Error as SocketError, Message};

use super::RemoteError;
use super::http::{Body, Transport};
use super::tls::{self, Trust};

/// Time to set up a connection.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// Longest silence in the middle of an answer.
const READ_TIMEOUT: Duration = Duration::from_secs(60);
/// Longest silence on the event socket; the server pings every 25 s.
const EVENT_TIMEOUT: Duration = Duration::from_secs(75);

/// A server at an address.
pub struct Network {
    client: reqwest::Client,
    base: Url,
    /// Of the event socket; none over plain http.
    tls: Option<Arc<ClientConfig>>,
    /// What its certificate is checked by, in words.
    authorities: String,
}

/// What the event socket runs over.
trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}
impl<S: AsyncRead + AsyncWrite + Send + Unpin> Stream for S {}

impl Network {
    /// A transport to `base`. Redirects are not followed: a token goes to one host only. Plain http is for
    /// this computer alone, unless `trust` says otherwise, and never where a certificate is known.
    pub fn new(base: &str, trust: &Trust) -> Result<Self, RemoteError> {
        let bad = |why: &str| RemoteError::Refused {
            code: syncagent_protocol::Code::Usage,
            message: format!("'{base}' is not the address of a server: {why}"),
        };
        let base_url = Url::parse(base).map_err(|error| bad(&error.to_string()))?;
        match base_url.scheme() {
            "https" => {}
            "http" if trust.certificate.is_some() => {
                return Err(bad(
                    "it begins with http://, but the server has a certificate: use https",
                ));
            }
            "http" if trust.insecure || is_loopback(&base_url) => {}
            "http" => {
                return Err(bad(
                    "plain http reaches this computer only; use https, or --insecure if you must",
                ));
            }
            _ => return Err(bad("it starts with http:// or https://")),
        }
        let (tls, tls_of_events) = match base_url.scheme() {
            "https" => {
                let mut tls = trust.tls()?;
                tls.alpn_protocols = vec![b"http/1.1".to_vec()];
                let tls_of_events = Arc::new(tls.clone());
                tls.alpn_protocols.insert(0, b"h2".to_vec());
                (tls, Some(tls_of_events))
            }
            _ => (tls::nobody()?, None),
        };
        let client = reqwest::Client::builder()
            .tls_backend_preconfigured(tls)
            .redirect(reqwest::redirect::Policy::none())
            .no_proxy()
            .connect_timeout(CONNECT_TIMEOUT)
            .read_timeout(READ_TIMEOUT)
            .tcp_nodelay(true)
            .user_agent(concat!("syncagent/", env!("CARGO_PKG_VERSION")))
            .build()
            .map_err(|error| RemoteError::Offline(cause(&error)))?;
        Ok(Self {
            client,
            base: base_url,
            tls: tls_of_events,
            authorities: trust.authorities(),
        })
    }

    /// Whether what is sent goes to another computer without TLS.
    pub fn is_in_the_open(&self) -> bool {
        self.tls.is_none() && !is_loopback(&self.base)
    }

    /// Why there is no answer.
    fn failure(&self, error: &(dyn Error + 'static)) -> RemoteError {
        let host = self.base.host_str().unwrap_or_default();
        tls::failure(host, &self.authorities, error)
            .or_else(|| no_http(host, error))
            .unwrap_or_else(|| RemoteError::Offline(cause(error)))
    }

    /// A connection of its own, for the event socket.
    async fn connect(&self) -> Result<Box<dyn Stream>, RemoteError> {
        let host = self.base.host_str().unwrap_or_default();
        let host = host.trim_matches(['[', ']']).to_owned();
        let port = self.base.port_or_known_default().unwrap_or_default();
        let stream = TcpStream::connect((host.as_str(), port))
            .await
            .map_err(|error| self.failure(&error))?;
        stream
            .set_nodelay(true)
            .map_err(|error| self.failure(&error))?;
        let Some(tls) = &self.tls else {
            return Ok(Box::new(stream));
        };
        let name =
            ServerName::try_from(host).map_err(|error| RemoteError::Offline(error.to_string()))?;
        let stream = TlsConnector::from(Arc::clone(tls))
            .connect(name, stream)
            .await
            .map_err(|error| self.failure(&error))?;
        Ok(Box::new(stream))
    }

    fn url(&self, path_and_query: &str) -> Result<Url, RemoteError> {
        self.base
            .join(path_and_query)
            .map_err(|error| RemoteError::Protocol(error.to_string()))
    }
}

fn is_loopback(url: &Url) -> bool {
    match url.host_str() {
        Some("localhost") => true,
        Some(host) => host
            .trim_matches(['[', ']'])
            .parse::<std::net::IpAddr>()
            .is_ok_and(|ip| ip.is_loopback()),
        None => false,
    }
}

/// What answers is no HTTP: a server that speaks TLS, more often than not.
fn no_http(host: &str, error: &(dyn Error + 'static)) -> Option<RemoteError> {
    let mut at = Some(error);
    let found = loop {
        let error = at?;
        match error.downcast_ref::<hyper::Error>() {
            Some(found) => break found,
            None => at = error.source(),
        }
    };
    found.is_parse().then(|| {
        RemoteError::Offline(format!(
            "what answers at {host} at this port does not speak HTTP: is its address one with https://?"
        ))
    })
}

/// The innermost cause: "connection refused" is what a person needs to see, not the layers round it.
fn cause(error: &dyn Error) -> String {
    let mut innermost = error;
    while let Some(source) = innermost.source() {
        innermost = source;
    }
    let text = innermost.to_string();
    match text.find(" (os error") {
        Some(at) => text[..at].to_lowercase(),
        None => text,
    }
}

impl Transport for Network {
    fn send(&self, request: Request<Bytes>) -> BoxFuture<'_, Result<Response<Body>, RemoteError>> {
        async move {
            let (parts, body) = request.into_parts();
            let url = self.url(parts.uri.path_and_query().map_or("/", |path| path.as_str()))?;
            let response = self
                .client
                .request(parts.method, url)
                .headers(parts.headers)
                .body(body)
                .send()
                .await
                .map_err(|error| match self.failure(&error) {
                    RemoteError::Offline(why) if error.is_connect() => RemoteError::Unreached(why),
                    failure => failure,
                })?;
            let mut out = Response::builder().status(response.status());
            if let Some(headers) = out.headers_mut() {
                headers.extend(response.headers().clone());
            }
            let body = response
                .bytes_stream()
                .map_err(|error| RemoteError::Offline(cause(&error)))
                .boxed();
            out.body(body)
                .map_err(|error| RemoteError::Protocol(error.to_string()))
        }
        .boxed()
    }

    fn events(&self, token: &str) -> BoxFuture<'_, Result<BoxStream<'static, Event>, RemoteError>> {
        let token = zeroize::Zeroizing::new(token.to_owned());
        async move {
            let offline = |error: SocketError| RemoteError::Offline(cause(&error));
            let mut url = self.url(EVENTS)?;
            let scheme = if url.scheme() == "https" { "wss" } else { "ws" };
            url.set_scheme(scheme)
                .map_err(|()| RemoteError::Protocol("address".into()))?;
            let mut request = url.as_str().into_client_request().map_err(offline)?;
            let bearer = format!("Bearer {}", *token)
                .parse()
                .map_err(|_| RemoteError::Protocol("token".into()))?;
            request
                .headers_mut()
                .insert(http::header::AUTHORIZATION, bearer);
            let config = WebSocketConfig::default()
                .max_message_size(Some(64 * 1024))
                .max_frame_size(Some(64 * 1024));
            let connect = async {
                let stream = self.connect().await?;
                tokio_tungstenite::client_async_with_config(request, stream, Some(config))
                    .await
                    .map_err(offline)
            };
            let (socket, _) = tokio::time::timeout(CONNECT_TIMEOUT, connect)
                .await
                .map_err(|_| RemoteError::Offline("the event socket does not open".into()))??;
            let events = futures_util::stream::unfold(socket, |mut socket| async move {
                loop {
                    match tokio::time::timeout(EVENT_TIMEOUT, socket.next()).await {
                        Ok(Some(Ok(Message::Text(text)))) => {
                            // An unknown kind of message is a newer server's; a hint more or less changes nothing.
                            if let Ok(event) = serde_json::from_str::<Event>(&text) {
                                return Some((event, socket));
                            }
                        }
                        Ok(Some(Ok(Message::Close(_)) | Err(_)) | None) | Err(_) => return None,
                        Ok(Some(Ok(_))) => {}
                    }
                }
            });
            Ok(events.boxed())
        }
        .boxed()
    }
}
