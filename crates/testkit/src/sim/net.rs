//! A network that cuts, delays, repeats and swallows, between one machine and the server.

use std::future::poll_fn;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::Poll;

use bytes::Bytes;
use futures_util::future::BoxFuture;
use futures_util::stream::{self, BoxStream};
use futures_util::{FutureExt as _, StreamExt as _, TryStreamExt as _};
use http::{Method, Request, Response, StatusCode};
use syncagent_client::remote::RemoteError;
use syncagent_client::remote::http::{Body, Transport};
use syncagent_protocol::api::Event;

use super::dice::Dice;
use super::server::SimServer;
use super::trace::Trace;
use crate::transport::RouterTransport;

/// What a machine's network does at present.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Weather {
    /// Everything arrives, sooner or later.
    Fine,
    /// So many requests of a thousand go wrong.
    Rough(usize),
    /// Nothing arrives.
    Offline,
}

struct State {
    weather: Weather,
    dice: Dice,
    /// The connection is broken: the next request fails, and then there is a new one.
    broken: bool,
    /// The server loses the next pack right after it has acknowledged it.
    lose_pack: bool,
}

/// What went on on a machine's way to the server.
#[derive(Debug, Default)]
pub struct Seen {
    /// Times that a machine asked for commits: each round of a pass begins so.
    pub rounds: AtomicU64,
    /// Times that a machine wanted to send something.
    pub posts: AtomicU64,
    /// Requests that will arrive although nobody waits for them any more.
    pub adrift: AtomicU64,
}

/// One machine's way to the server. Clones are the same way.
#[derive(Clone)]
pub struct Net {
    inner: RouterTransport,
    server: SimServer,
    state: Arc<Mutex<State>>,
    seen: Arc<Seen>,
    trace: Trace,
    who: String,
}

/// What becomes of one request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fate {
    Arrives,
    CutBefore,
    ReplyLost,
    Repeated,
    HalfAnswer,
    /// The client has given up long before it arrives.
    Late,
    /// It is answered, and arrives once more much later.
    Echo,
}

impl Net {
    /// A way to `server`.
    pub fn new(server: &SimServer, dice: Dice, trace: Trace, who: &str) -> Self {
        let state = State {
            weather: Weather::Fine,
            dice,
            broken: false,
            lose_pack: false,
        };
        Self {
            inner: RouterTransport::new(server.app.router()),
            server: server.clone(),
            state: Arc::new(Mutex::new(state)),
            seen: Arc::default(),
            trace,
            who: who.to_owned(),
        }
    }

    /// Changes the weather.
    pub fn set(&self, weather: Weather) {
        self.state
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .weather = weather;
    }

    /// What went on here.
    pub fn seen(&self) -> &Arc<Seen> {
        &self.seen
    }

    /// The next pack that arrives is lost as soon as it is acknowledged.
    pub fn lose_pack(&self) {
        self.state
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .lose_pack = true;
    }

    /// The server is not the one any more to which the connection was made.
    pub fn break_off(&self) {
        self.state
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .broken = true;
    }

    fn loses(&self, resource: &str) -> bool {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        resource == "packs" && std::mem::take(&mut state.lose_pack)
    }

    /// Lets a request arrive after so many turns, whoever waits for it.
    fn drift(&self, request: Request<Bytes>, turns: usize) {
        let (inner, seen) = (self.inner.clone(), Arc::clone(&self.seen));
        let (trace, who) = (self.trace.clone(), self.who.clone());
        seen.adrift.fetch_add(1, Ordering::Relaxed);
        tokio::spawn(async move {
            wait(turns).await;
            let what = format!("{} {}", request.method(), resource(&request));
            let status = match inner.send(request).await {
                Ok(response) => {
                    let status = response.status().as_u16();
                    let _ = response.into_body().try_collect::<Vec<Bytes>>().await;
                    status
                }
                Err(_) => 0,
            };
            trace.line(
                &who,
                format_args!("  net: {what} arrives at last -> {status}"),
            );
            seen.adrift.fetch_sub(1, Ordering::Relaxed);
        });
    }

    /// Decides on one request: what becomes of it, and how long it takes there and back.
    fn decide(&self) -> Option<(Fate, usize, usize)> {
        let State {
            weather,
            dice,
            broken,
            ..
        } = &mut *self.state.lock().unwrap_or_else(PoisonError::into_inner);
        if std::mem::take(broken) {
            return None;
        }
        let fate = match weather {
            Weather::Offline => return None,
            Weather::Rough(per_mille) if dice.chance(*per_mille) => {
                let fates = [
                    Fate::CutBefore,
                    Fate::ReplyLost,
                    Fate::ReplyLost,
                    Fate::Repeated,
                    Fate::HalfAnswer,
                    Fate::Late,
                    Fate::Echo,
                ];
                dice.pick(&fates).copied().unwrap_or(Fate::Arrives)
            }
            _ => Fate::Arrives,
        };
        let slow = if dice.chance(100) { 40 } else { 4 };
        Some((fate, 1 + dice.below(slow), 1 + dice.below(slow)))
    }

    fn note(&self, request: &Request<Bytes>, fate: Fate, status: Option<StatusCode>) {
        let what = format!("{} {}", request.method(), resource(request));
        let status = status.map_or("no answer".to_owned(), |status| status.as_u16().to_string());
        self.trace.line(
            &self.who,
            format_args!("  net: {what} {fate:?} -> {status}"),
        );
        match fate {
            Fate::Arrives => {}
            Fate::CutBefore => self.trace.count("request cut"),
            Fate::ReplyLost if request.method() == Method::POST => self.trace.count("lost reply"),
            Fate::ReplyLost => self.trace.count("request cut"),
            Fate::Repeated => self.trace.count("request repeated"),
            Fate::HalfAnswer => self.trace.count("half an answer"),
            Fate::Late => self.trace.count("request late"),
            Fate::Echo => self.trace.count("request echoed"),
        }
    }
}

fn resource(request: &Request<Bytes>) -> &str {
    let path = request
        .uri()
        .path_and_query()
        .map_or("", |path| path.as_str());
    // Behind the vault's id.
    path.splitn(6, '/').nth(5).unwrap_or(path)
}

fn cut() -> RemoteError {
    RemoteError::Offline("the connection was cut by the simulation".to_owned())
}

/// Lets the others go first so many times.
async fn wait(mut turns: usize) {
    poll_fn(|cx| {
        if turns == 0 {
            return Poll::Ready(());
        }
        turns -= 1;
        cx.waker().wake_by_ref();
        Poll::Pending
    })
    .await;
}

impl Transport for Net {
    fn send(&self, request: Request<Bytes>) -> BoxFuture<'_, Result<Response<Body>, RemoteError>> {
        async move {
            match (request.method(), resource(&request)) {
                (&Method::GET, what) if what.starts_with("commits?") => {
                    self.seen.rounds.fetch_add(1, Ordering::Relaxed);
                }
                (&Method::POST, "commits" | "packs") => {
                    self.seen.posts.fetch_add(1, Ordering::Relaxed);
                }
                _ => {}
            }
            let Some((fate, there, back)) = self.decide() else {
                wait(1).await;
                return Err(RemoteError::Offline("no network".to_owned()));
            };
            wait(there).await;
            if fate == Fate::CutBefore {
                self.note(&request, fate, None);
                return Err(cut());
            }
            if fate == Fate::Late {
                self.note(&request, fate, None);
                self.drift(request, 20 * there);
                return Err(cut());
            }
            if fate == Fate::Echo {
                self.drift(request.clone(), 20 * (there + back));
            }
            if fate == Fate::Repeated {
                let first = self.inner.send(request.clone()).await?;
                let _ = first.into_body().try_collect::<Vec<Bytes>>().await?;
                wait(there).await;
            }
            let response = self.inner.send(request.clone()).await?;
            self.note(&request, fate, Some(response.status()));
            match response.status() {
                StatusCode::CONFLICT => self.trace.count("409"),
                StatusCode::UNPROCESSABLE_ENTITY => self.trace.count("422"),
                _ => {}
            }
            if response.status().is_success() && self.loses(resource(&request)) {
                match self.server.lose_fresh() {
                    Ok(0) => {}
                    lost => {
                        self.trace.count("lost pack");
                        self.trace.line(
                            &self.who,
                            format_args!("  server: loses fresh chunks: {lost:?}"),
                        );
                    }
                }
            }
            // The whole answer at once: what the server does then is done, whoever listens.
            let (parts, body) = response.into_parts();
            let bytes: Vec<u8> = body.try_collect::<Vec<Bytes>>().await?.concat();
            wait(back).await;
            let body: Body = match fate {
                Fate::ReplyLost => return Err(cut()),
                Fate::HalfAnswer => {
                    let half = Bytes::copy_from_slice(&bytes[..bytes.len() / 2]);
                    stream::iter([Ok(half), Err(cut())]).boxed()
                }
                _ => stream::iter([Ok(Bytes::from(bytes))]).boxed(),
            };
            Ok(Response::from_parts(parts, body))
        }
        .boxed()
    }

    fn events(
        &self,
        _token: &str,
    ) -> BoxFuture<'_, Result<BoxStream<'static, Event>, RemoteError>> {
        async { Ok(stream::pending().boxed()) }.boxed()
    }
}
