//! Request bodies: bounded in length before and while they are read, and in how long they stand still.

use axum::body::Body;
use axum::extract::Request;
use bytes::Bytes;
use http::StatusCode;
use http_body::Body as _;
use http_body_util::BodyExt;
use serde::de::DeserializeOwned;
use syncagent_protocol::pack::MAX_IDS_PER_REQUEST;
use syncagent_protocol::{ChunkId, Code};

use super::problem::{Failure, Result};
use crate::limits::{BODY_IDLE, MAX_JSON_LEN};

/// A body that is read piece by piece.
pub(crate) struct Pieces {
    body: Body,
    room: usize,
    limit: usize,
    announced: Option<u64>,
}

impl Pieces {
    /// The body of `request`, if it does not say itself that it is longer than `limit`.
    pub(crate) fn new(request: Request, limit: usize) -> Result<Self> {
        let body = request.into_body();
        let announced = body.size_hint().exact();
        if announced.is_some_and(|len| len > limit as u64) {
            return Err(Self::too_long(limit));
        }
        Ok(Self {
            body,
            room: limit,
            limit,
            announced,
        })
    }

    /// The length, if it was announced.
    pub(crate) fn announced(&self) -> Option<usize> {
        self.announced.and_then(|len| usize::try_from(len).ok())
    }

    /// The next piece; none at the end. A body that was cut off is an error.
    pub(crate) async fn next(&mut self) -> Result<Option<Bytes>> {
        loop {
            let frame = tokio::time::timeout(BODY_IDLE, self.body.frame())
                .await
                .map_err(|_| {
                    Failure::new(
                        StatusCode::REQUEST_TIMEOUT,
                        Code::Busy,
                        "the body stopped before its end",
                    )
                })?;
            match frame {
                None => return Ok(None),
                Some(Err(error)) => {
                    return Err(Failure::usage(format!("the body was cut off: {error}")));
                }
                Some(Ok(frame)) => {
                    let Ok(data) = frame.into_data() else {
                        continue;
                    };
                    self.room = self
                        .room
                        .checked_sub(data.len())
                        .ok_or_else(|| Self::too_long(self.limit))?;
                    return Ok(Some(data));
                }
            }
        }
    }

    /// Appends to `out` until it holds at least `len` bytes or the body ends.
    pub(crate) async fn fill(&mut self, out: &mut Vec<u8>, len: usize) -> Result<()> {
        while out.len() < len {
            let Some(piece) = self.next().await? else {
                break;
            };
            out.extend_from_slice(&piece);
        }
        Ok(())
    }

    fn too_long(limit: usize) -> Failure {
        Failure::too_long(format!("a body of this kind is at most {limit} bytes long"))
    }
}

/// The whole of a short body.
pub(crate) async fn whole(request: Request, limit: usize) -> Result<Vec<u8>> {
    let mut pieces = Pieces::new(request, limit)?;
    let mut bytes = Vec::with_capacity(pieces.announced().unwrap_or(0));
    pieces.fill(&mut bytes, usize::MAX).await?;
    Ok(bytes)
}

pub(crate) async fn json<T: DeserializeOwned>(request: Request) -> Result<T> {
    let bytes = whole(request, MAX_JSON_LEN).await?;
    serde_json::from_slice(&bytes).map_err(|error| Failure::usage(error.to_string()))
}

/// A list of chunk ids, 32 bytes each.
pub(crate) async fn ids(request: Request) -> Result<Vec<ChunkId>> {
    let bytes = whole(request, 32 * MAX_IDS_PER_REQUEST).await?;
    let (ids, rest) = bytes.as_chunks::<32>();
    if !rest.is_empty() {
        return Err(Failure::usage(
            "a list of chunk ids is a multiple of 32 bytes long",
        ));
    }
    Ok(ids.iter().map(|id| ChunkId(*id)).collect())
}
