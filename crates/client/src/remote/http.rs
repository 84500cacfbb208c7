//! The protocol of docs/protocol.md, over any transport that carries HTTP.
//!
//! Hazard: answers come from a server that may lie. Each is bounded before it is read, and nothing
//! in it is believed that the vault's keys do not confirm.

use std::sync::Arc;

use bytes::Bytes;
use futures_util::future::BoxFuture;
use futures_util::stream::{self, BoxStream};
use futures_util::{FutureExt as _, StreamExt as _, TryStreamExt as _};
use http::{Method, Request, Response, StatusCode, header};
use syncagent_protocol::api::{
    self, AFTER_HEADER, Event, HEAD_HEADER, Machine, MachineReport, OCTETS, Problem,
    RegisterRequest, RegisterResponse, vault_path,
};
use syncagent_protocol::commit::{HEADER_LEN, MAX_COMMIT_LEN, MAX_OPS, SIGNATURE_LEN};
use syncagent_protocol::crash::{Point, point};
use syncagent_protocol::name::shown;
use syncagent_protocol::pack::{Deframer, MAX_CHUNK_LEN};
use syncagent_protocol::{ChunkId, Code, MachineId, VaultId};

use super::{Page, Posted, Remote, RemoteError};

/// The longest JSON answer.
const MAX_JSON_LEN: usize = 4 * 1024 * 1024;
/// The longest sentence of a server's that is passed on, in characters.
const MAX_SENTENCE: usize = 400;
/// The longest word of another machine's, as its name.
const MAX_WORD: usize = 255;
/// The longest page of the log: what a server aims at, and one commit beyond.
const MAX_PAGE_LEN: usize = 2 * (MAX_COMMIT_LEN + MAX_OPS + 4);

/// The body of an answer, in pieces.
pub type Body = BoxStream<'static, Result<Bytes, RemoteError>>;

/// Carries requests to a server. Paths only: the transport knows the address.
pub trait Transport: Send + Sync {
    /// Sends a request and returns when the answer's head is there.
    fn send(&self, request: Request<Bytes>) -> BoxFuture<'_, Result<Response<Body>, RemoteError>>;
    /// Opens the event socket.
    fn events(&self, token: &str) -> BoxFuture<'_, Result<BoxStream<'static, Event>, RemoteError>>;
}

/// One machine's connection to its vault.
pub struct HttpRemote {
    transport: Arc<dyn Transport>,
    vault: VaultId,
    token: zeroize::Zeroizing<String>,
}

/// Registers a machine with an invitation. Needs no token yet.
pub async fn register(
    transport: &dyn Transport,
    request: &RegisterRequest,
) -> Result<RegisterResponse, RemoteError> {
    let body =
        serde_json::to_vec(request).map_err(|error| RemoteError::Protocol(error.to_string()))?;
    let request = Request::post(api::REGISTER)
        .header(header::CONTENT_TYPE, "application/json")
        .body(Bytes::from(body))
        .map_err(|error| RemoteError::Protocol(error.to_string()))?;
    json(expect(transport.send(request).await?).await?).await
}

/// Asks a server whether it is there. Its clock, milliseconds since 1970 (whole seconds), if it tells it
/// (`Date`, RFC 9110 section 6.6.1).
pub async fn server_time(transport: &dyn Transport) -> Result<Option<u64>, RemoteError> {
    let request = Request::get("/healthz")
        .body(Bytes::new())
        .map_err(|error| RemoteError::Protocol(error.to_string()))?;
    let response = transport.send(request).await?;
    if !response.status().is_success() {
        return Err(RemoteError::Protocol(format!(
            "status {}",
            response.status().as_u16()
        )));
    }
    let date = response.headers().get(header::DATE);
    let date = date.and_then(|date| httpdate::parse_http_date(date.to_str().ok()?).ok());
    let since = date.and_then(|date| date.duration_since(std::time::UNIX_EPOCH).ok());
    Ok(since.and_then(|since| u64::try_from(since.as_millis()).ok()))
}

impl HttpRemote {
    /// The vault's routes, with this machine's token.
    pub fn new(transport: Arc<dyn Transport>, vault: VaultId, token: &str) -> Self {
        Self {
            transport,
            vault,
            token: zeroize::Zeroizing::new(token.to_owned()),
        }
    }

    fn request(
        &self,
        method: Method,
        resource: &str,
        content_type: &str,
        body: Bytes,
    ) -> Result<Request<Bytes>, RemoteError> {
        Request::builder()
            .method(method)
            .uri(vault_path(self.vault, resource))
            .header(header::AUTHORIZATION, format!("Bearer {}", *self.token))
            .header(header::CONTENT_TYPE, content_type)
            .body(body)
            .map_err(|error| RemoteError::Protocol(error.to_string()))
    }

    async fn send(
        &self,
        method: Method,
        resource: &str,
        body: Bytes,
    ) -> Result<Response<Body>, RemoteError> {
        self.transport
            .send(self.request(method, resource, OCTETS, body)?)
            .await
    }

    async fn call(
        &self,
        method: Method,
        resource: &str,
        body: Bytes,
    ) -> Result<Response<Body>, RemoteError> {
        expect(self.send(method, resource, body).await?).await
    }

    async fn post_to(&self, resource: &str, commit: Bytes) -> Result<Posted, RemoteError> {
        let response = self.send(Method::POST, resource, commit).await?;
        match response.status() {
            status if status.is_success() => {
                point(Point::CommitAnswered);
                Ok(Posted::Accepted)
            }
            StatusCode::CONFLICT | StatusCode::UNPROCESSABLE_ENTITY => {
                let problem = problem(response).await?;
                match (problem.code, problem.head) {
                    (Code::Conflict, Some(head)) => Ok(Posted::Conflict(head)),
                    (Code::Missing, _) if !problem.missing.is_empty() => {
                        Ok(Posted::Missing(problem.missing))
                    }
                    _ => Err(refused(problem)),
                }
            }
            _ => Err(refused(problem(response).await?)),
        }
    }
}

/// What a header of the answer says, if it is there and well-formed.
fn said<B, T: std::str::FromStr>(response: &Response<B>, name: &str) -> Option<T> {
    response.headers().get(name)?.to_str().ok()?.parse().ok()
}

impl Remote for HttpRemote {
    fn commits(&self, after: u64) -> BoxFuture<'_, Result<Page, RemoteError>> {
        async move {
            let response = self
                .call(Method::GET, &format!("commits?after={after}"), Bytes::new())
                .await?;
            let head = said(&response, HEAD_HEADER)
                .ok_or_else(|| RemoteError::Protocol("no head".into()))?;
            let after = said(&response, AFTER_HEADER);
            let mut deframer = Deframer::new(MAX_COMMIT_LEN + MAX_OPS);
            let mut body = response.into_body();
            let mut page = Page {
                commits: Vec::new(),
                head,
                after,
            };
            let mut len = 0;
            while let Some(piece) = body.try_next().await? {
                len += piece.len();
                if len > MAX_PAGE_LEN {
                    return Err(RemoteError::Limit("a page of the log"));
                }
                deframer.push(&piece);
                while let Some(part) = deframer
                    .next_part()
                    .map_err(|_| RemoteError::Limit("a commit"))?
                {
                    page.commits.push(Bytes::copy_from_slice(part));
                    if part.len() < HEADER_LEN + SIGNATURE_LEN {
                        // No commit is so short, and the machine will say so. Millions of them would cost memory first.
                        return Ok(page);
                    }
                }
            }
            deframer
                .finish()
                .map_err(|error| RemoteError::Offline(error.to_string()))?;
            if !page.commits.is_empty() {
                point(Point::CommitsFetched);
            }
            Ok(page)
        }
        .boxed()
    }

    fn post_commit(&self, commit: Bytes) -> BoxFuture<'_, Result<Posted, RemoteError>> {
        self.post_to("commits", commit).boxed()
    }

    fn post_lost(&self, commit: Bytes) -> BoxFuture<'_, Result<Posted, RemoteError>> {
        self.post_to("commits?lost=1", commit).boxed()
    }
    fn post_pack(&self, pack: Bytes) -> BoxFuture<'_, Result<(), RemoteError>> {
        async move { self.call(Method::POST, "packs", pack).await.map(drop) }.boxed()
    }

    fn missing(&self, ids: Vec<ChunkId>) -> BoxFuture<'_, Result<Vec<ChunkId>, RemoteError>> {
        async move {
            let response = self
                .call(Method::POST, "chunks/missing", id_bytes(&ids))
                .await?;
            let bytes = collect(
                response.into_body(),
                32 * syncagent_protocol::pack::MAX_IDS_PER_REQUEST,
            )
            .await?;
            Ok(bytes
                .as_chunks::<32>()
                .0
                .iter()
                .map(|id| ChunkId(*id))
                .collect())
        }
        .boxed()
    }

    fn fetch(&self, ids: Vec<ChunkId>) -> BoxStream<'_, Result<Option<Vec<u8>>, RemoteError>> {
        let wanted = ids.len();
        let open = async move {
            let response = self
                .call(Method::POST, "chunks/fetch", id_bytes(&ids))
                .await?;
            Ok((response.into_body(), Deframer::new(MAX_CHUNK_LEN), 0))
        };
        let parts = open.into_stream().map_ok(move |state| {
            stream::try_unfold(state, move |(mut body, mut deframer, given)| async move {
                loop {
                    if given == wanted {
                        return Ok(None);
                    }
                    let part = deframer
                        .next_part()
                        .map_err(|_| RemoteError::Limit("a chunk"))?;
                    if let Some(part) = part.map(|part| (!part.is_empty()).then(|| part.to_vec())) {
                        return Ok(Some((part, (body, deframer, given + 1))));
                    }
                    match body.try_next().await? {
                        Some(piece) => deframer.push(&piece),
                        None => {
                            return Err(RemoteError::Offline(
                                "the answer ends in the middle".into(),
                            ));
                        }
                    }
                }
            })
        });
        parts.try_flatten().boxed()
    }

    fn slot(
        &self,
        slot_type: u8,
        previous: bool,
    ) -> BoxFuture<'_, Result<Option<Bytes>, RemoteError>> {
        async move {
            let which = if previous { "?which=previous" } else { "" };
            let response = self
                .send(
                    Method::GET,
                    &format!("slots/{slot_type}{which}"),
                    Bytes::new(),
                )
                .await?;
            if response.status() == StatusCode::NOT_FOUND {
                return Ok(None);
            }
            let body = expect(response).await?.into_body();
            collect(body, 1024)
                .await
                .map(|bytes| Some(Bytes::from(bytes)))
        }
        .boxed()
    }

    fn put_slot(&self, slot_type: u8, slot: Bytes) -> BoxFuture<'_, Result<(), RemoteError>> {
        async move {
            self.call(Method::PUT, &format!("slots/{slot_type}"), slot)
                .await
                .map(drop)
        }
        .boxed()
    }

    fn machines(&self) -> BoxFuture<'_, Result<Vec<Machine>, RemoteError>> {
        #[derive(serde::Deserialize)]
        struct Answer {
            machines: Vec<Machine>,
        }
        async move {
            let answer: Answer =
                json(self.call(Method::GET, "machines", Bytes::new()).await?).await?;
            let mut machines = answer.machines;
            for machine in &mut machines {
                for word in [&mut machine.name, &mut machine.platform, &mut machine.state] {
                    *word = shown(word, MAX_WORD);
                }
            }
            Ok(machines)
        }
        .boxed()
    }

    fn remove_machine(&self, machine: MachineId) -> BoxFuture<'_, Result<(), RemoteError>> {
        async move {
            self.call(Method::DELETE, &format!("machines/{machine}"), Bytes::new())
                .await
                .map(drop)
        }
        .boxed()
    }

    fn report(&self, report: MachineReport) -> BoxFuture<'_, Result<(), RemoteError>> {
        async move {
            let body = serde_json::to_vec(&report)
                .map_err(|error| RemoteError::Protocol(error.to_string()))?;
            let request = self.request(Method::PUT, "report", "application/json", body.into())?;
            expect(self.transport.send(request).await?).await.map(drop)
        }
        .boxed()
    }

    fn events(&self) -> BoxFuture<'_, Result<BoxStream<'static, Event>, RemoteError>> {
        self.transport.events(&self.token)
    }
}

fn id_bytes(ids: &[ChunkId]) -> Bytes {
    ids.iter().flat_map(|id| id.0).collect()
}

async fn expect(response: Response<Body>) -> Result<Response<Body>, RemoteError> {
    if response.status().is_success() {
        Ok(response)
    } else {
        Err(refused(problem(response).await?))
    }
}

fn refused(problem: Problem) -> RemoteError {
    let Problem {
        code,
        title,
        detail,
        ..
    } = problem;
    // It ends up on a terminal, where nobody shall tell it from what this program says.
    let (title, detail) = (shown(&title, MAX_SENTENCE), shown(&detail, MAX_SENTENCE));
    let message = if detail.is_empty() {
        title
    } else {
        format!("{title}: {detail}")
    };
    RemoteError::Refused { code, message }
}

async fn problem(response: Response<Body>) -> Result<Problem, RemoteError> {
    let status = response.status();
    let bytes = collect(response.into_body(), MAX_JSON_LEN).await?;
    serde_json::from_slice(&bytes)
        .map_err(|_| RemoteError::Protocol(format!("status {}", status.as_u16())))
}

async fn json<T: serde::de::DeserializeOwned>(response: Response<Body>) -> Result<T, RemoteError> {
    let bytes = collect(response.into_body(), MAX_JSON_LEN).await?;
    // The error repeats words of the answer.
    serde_json::from_slice(&bytes)
        .map_err(|error| RemoteError::Protocol(shown(&error.to_string(), MAX_SENTENCE)))
}

async fn collect(mut body: Body, limit: usize) -> Result<Vec<u8>, RemoteError> {
    let mut bytes = Vec::new();
    while let Some(piece) = body.try_next().await? {
        if bytes.len() + piece.len() > limit {
            return Err(RemoteError::Limit("an answer"));
        }
        bytes.extend_from_slice(&piece);
    }
    Ok(bytes)
}
