//! Round every handler: a panic answers 500, nothing takes for ever, and an early answer is not lost.

use std::panic::AssertUnwindSafe;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};

use axum::body::Body;
use axum::extract::Request;
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use futures_util::FutureExt;
use http::{StatusCode, header};
use http_body::{Frame, SizeHint};
use http_body_util::BodyExt;
use syncagent_protocol::Code;
use syncagent_protocol::api::PROBLEM;

use super::problem::Failure;
use crate::limits::{DRAIN_LEN, DRAIN_TIME, REQUEST_TIME};

pub(crate) async fn guard(request: Request, next: Next) -> Response {
    let (parts, body) = request.into_parts();
    let shared = Shared(Arc::new(Mutex::new(body)));
    let request = Request::from_parts(parts, Body::new(shared.clone()));
    let answer = AssertUnwindSafe(tokio::time::timeout(REQUEST_TIME, next.run(request)))
        .catch_unwind()
        .await;
    let response = match answer {
        Ok(Ok(response)) => in_one_shape(response),
        Ok(Err(_)) => Failure::new(
            StatusCode::REQUEST_TIMEOUT,
            Code::Busy,
            "the request took too long",
        )
        .into_response(),
        Err(_) => Failure::server(&"a handler panicked").into_response(),
    };
    if response.status().is_client_error() || response.status().is_server_error() {
        // A client that still sends would find its connection reset and never see why.
        let _ = tokio::time::timeout(DRAIN_TIME, shared.drain()).await;
    }
    response
}

/// Errors of the framework itself (a path that is no UTF-8, a query that does not parse) as ours.
fn in_one_shape(response: Response) -> Response {
    let status = response.status();
    let is_error = status.is_client_error() || status.is_server_error();
    let ours = |value: &http::HeaderValue| value == PROBLEM;
    if !is_error
        || response
            .headers()
            .get(header::CONTENT_TYPE)
            .is_some_and(ours)
    {
        return response;
    }
    let code = if status.is_server_error() {
        Code::Server
    } else {
        Code::Usage
    };
    Failure::new(status, code, status.canonical_reason().unwrap_or_default()).into_response()
}

/// The request's body, of which the guard keeps hold.
#[derive(Clone)]
struct Shared(Arc<Mutex<Body>>);

impl Shared {
    async fn drain(mut self) {
        let mut read = 0;
        while let Some(Ok(frame)) = self.frame().await {
            read += frame.data_ref().map_or(0, Bytes::len);
            if read > DRAIN_LEN {
                break;
            }
        }
    }
}

impl http_body::Body for Shared {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        let mut body = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        Pin::new(&mut *body).poll_frame(cx)
    }

    fn is_end_stream(&self) -> bool {
        self.0
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.0
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .size_hint()
    }
}
