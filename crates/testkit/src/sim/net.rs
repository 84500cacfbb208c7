//! A network that cuts, delays, repeats and swallows, between one machine and the server.

use std::future::poll_fn;
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
}

/// One machine's way to the server. Clones are the same way.
#[derive(Clone)]
pub struct Net {
    inner: RouterTransport,
    state: Arc<Mutex<State>>,
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
}

impl Net {
    /// A way to the server behind `inner`.
    pub fn new(inner: RouterTransport, dice: Dice, trace: Trace, who: &str) -> Self {
        let state = State {
            weather: Weather::Fine,
            dice,
        };
        Self {
            inner,
            state: Arc::new(Mutex::new(state)),
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

    /// Decides on one request: what becomes of it, and how long it takes there and back.
    fn decide(&self) -> Option<(Fate, usize, usize)> {
        let State { weather, dice } =
            &mut *self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let fate = match weather {
            Weather::Offline => return None,
            Weather::Rough(per_mille) if dice.chance(*per_mille) => {
                let fates = [
                    Fate::CutBefore,
                    Fate::ReplyLost,
                    Fate::ReplyLost,
                    Fate::Repeated,
                    Fate::HalfAnswer,
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
        }
    }
}

fn resource(request: &Request<Bytes>) -> &str {
    let path = request
        .uri()
        .path_and_query()
        .map_or("", |path| path.as_str());
    // Behind the vault's id.
    path.splitn(5, '/').nth(4).unwrap_or(path)
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
            let Some((fate, there, back)) = self.decide() else {
                wait(1).await;
                return Err(RemoteError::Offline("no network".to_owned()));
            };
            wait(there).await;
            if fate == Fate::CutBefore {
                self.note(&request, fate, None);
                return Err(cut());
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
