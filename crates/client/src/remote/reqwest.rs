//! The network: HTTP through `reqwest`, the event socket through `tokio-tungstenite`.

use std::time::Duration;

use bytes::Bytes;
use futures_util::future::BoxFuture;
use futures_util::stream::BoxStream;
use futures_util::{FutureExt as _, StreamExt as _, TryStreamExt as _};
use http::{Request, Response};
use reqwest::Url;
use syncagent_protocol::api::{EVENTS, Event};
use tokio_tungstenite::tungstenite::client::IntoClientRequest as _;
use tokio_tungstenite::tungstenite::protocol::WebSocketConfig;
use tokio_tungstenite::tungstenite::{Error as SocketError, Message};

use super::RemoteError;
use super::http::{Body, Transport};

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
}

impl Network {
    /// A transport to `base`. Redirects are not followed: a token goes to one host only. Plain http is for
    /// this computer alone, unless `insecure`.
    pub fn new(base: &str, insecure: bool) -> Result<Self, RemoteError> {
        let bad = |why: &str| RemoteError::Refused {
            code: syncagent_protocol::Code::Usage,
            message: format!("'{base}' is not the address of a server: {why}"),
        };
        let base_url = Url::parse(base).map_err(|error| bad(&error.to_string()))?;
        match base_url.scheme() {
            "https" => {}
            "http" if insecure || is_loopback(&base_url) => {}
            "http" => {
                return Err(bad(
                    "plain http reaches this computer only; use https, or --insecure if you must",
                ));
            }
            _ => return Err(bad("it starts with http:// or https://")),
        }
        let client = reqwest::Client::builder()
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
        })
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

/// The innermost cause: "connection refused" is what a person needs to see, not the layers round it.
fn cause(error: &dyn std::error::Error) -> String {
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
                .map_err(|error| RemoteError::Offline(cause(&error)))?;
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
            let connect = tokio_tungstenite::connect_async_with_config(request, Some(config), true);
            let (socket, _) = tokio::time::timeout(CONNECT_TIMEOUT, connect)
                .await
                .map_err(|_| RemoteError::Offline("the event socket does not open".into()))?
                .map_err(offline)?;
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
