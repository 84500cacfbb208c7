//! Chunks go out: which are missing, many in one stream, or one for ever.

use std::collections::VecDeque;

use axum::body::Body;
use axum::extract::{Path, Request, State};
use axum::response::{IntoResponse, Response};
use bytes::{Bytes, BytesMut};
use futures_util::stream;
use http::{StatusCode, header};
use syncagent_protocol::ChunkId;
use syncagent_protocol::api::OCTETS;
use syncagent_protocol::crash::{Point, point};
use syncagent_protocol::pack::MAX_IDS_PER_REQUEST;

use super::auth::Member;
use super::body;
use super::problem::{Failure, Result};
use crate::app::App;
use crate::catalog::{Gap, Location};
use crate::chunks::{PackId, PackReader, StoreError};
use crate::limits::{PIECE_LEN, Turn};

pub(crate) async fn missing(
    State(app): State<App>,
    member: Member,
    request: Request,
) -> Result<Response> {
    member.founded()?;
    let _turn = app.0.limits.download().await.ok_or_else(Failure::crowded)?;
    let ids = body::ids(request).await?;
    let missing = app
        .0
        .catalog
        .missing(member.vault(), ids, MAX_IDS_PER_REQUEST, app.now_ms())
        .await?;
    let bytes: Vec<u8> = missing.iter().flat_map(|id| id.0).collect();
    Ok(([(header::CONTENT_TYPE, OCTETS)], bytes).into_response())
}

pub(crate) async fn fetch(
    State(app): State<App>,
    member: Member,
    request: Request,
) -> Result<Response> {
    member.founded()?;
    let turn = app.0.limits.download().await.ok_or_else(Failure::crowded)?;
    let ids = body::ids(request).await?;
    let locations = app.0.catalog.locate(member.vault(), ids).await?;
    let sending = Sending {
        app,
        left: locations.into(),
        open: None,
        missed: None,
        within: None,
        framed: true,
        turn,
    };
    let body = Body::from_stream(stream::try_unfold(sending, Sending::next));
    Ok(([(header::CONTENT_TYPE, OCTETS)], body).into_response())
}

pub(crate) async fn get(
    State(app): State<App>,
    member: Member,
    Path((_, id)): Path<(String, String)>,
    request: Request,
) -> Result<Response> {
    member.founded()?;
    let id: ChunkId = id
        .parse()
        .map_err(|_| Failure::usage("the path names no chunk"))?;
    let turn = app.0.limits.download().await.ok_or_else(Failure::crowded)?;
    let locations = app.0.catalog.locate(member.vault(), vec![id]).await?;
    let Some(&Some(location)) = locations.first() else {
        return Err(Failure::not_found("no such chunk in this vault"));
    };
    let etag = format!("\"{id}\"");
    let headers = [
        (header::CONTENT_TYPE, OCTETS.to_owned()),
        // The id is the hash of the bytes: they never change. Private: they are for those who hold a token.
        (
            header::CACHE_CONTROL,
            "private, max-age=31536000, immutable".to_owned(),
        ),
        (header::ETAG, etag.clone()),
    ];
    if request
        .headers()
        .get(header::IF_NONE_MATCH)
        .is_some_and(|known| known.as_bytes() == etag.as_bytes())
    {
        return Ok((StatusCode::NOT_MODIFIED, headers).into_response());
    }
    let reader = match app.0.chunks.open(location.pack).await {
        Ok(reader) => reader,
        Err(error @ (StoreError::NotFound(_) | StoreError::Unreadable(_))) => {
            note_missing(&app, whole(location.pack), &error).await;
            return Err(Failure::not_found("the chunk is gone from the store"));
        }
        Err(error) => return Err(error.into()),
    };
    let left = VecDeque::from([Some(location)]);
    let sending = Sending {
        app,
        left,
        open: Some((location.pack, reader)),
        missed: None,
        within: None,
        framed: false,
        turn,
    };
    let body = Body::from_stream(stream::try_unfold(sending, Sending::next));
    Ok((headers, [(header::CONTENT_LENGTH, location.len)], body).into_response())
}

/// Chunks that are being sent, a piece at a time. A pack is opened once for all its chunks in a row.
struct Sending {
    app: App,
    left: VecDeque<Option<Location>>,
    open: Option<(PackId, Box<dyn PackReader>)>,
    /// The pack that was found missing or cut off last, and from where on.
    missed: Option<(PackId, u64)>,
    /// What is left of a chunk longer than a piece.
    within: Option<Location>,
    /// Whether each chunk is preceded by its length.
    framed: bool,
    #[expect(dead_code, reason = "held until all is sent")]
    turn: Turn,
}

impl Sending {
    async fn next(mut self) -> std::result::Result<Option<(Bytes, Self)>, StoreError> {
        if let Some(rest) = self.within.take() {
            let piece = match self.long(rest).await {
                // Its length was sent: what cannot be read spoils this chunk, and its reader notices, but no other one.
                Err(error) if self.framed => {
                    self.missed(rest, &error).await;
                    vec![0; rest.len.min(PIECE_LEN as u32) as usize].into()
                }
                piece => piece?,
            };
            return Ok(Some((piece, self)));
        }
        let mut out = BytesMut::new();
        while out.len() < PIECE_LEN {
            let Some(next) = self.left.pop_front() else {
                break;
            };
            let Some(first) = next else {
                out.extend_from_slice(&[0; 4]);
                continue;
            };
            if !self.turn_to(first).await? {
                out.extend_from_slice(&[0; 4]);
                continue;
            }
            if first.len as usize > PIECE_LEN {
                match self.long(first).await {
                    Err(error) if self.framed => {
                        self.within = None;
                        self.not_here(first, &error, &mut out).await;
                    }
                    piece => {
                        if self.framed {
                            out.extend_from_slice(&first.len.to_be_bytes());
                        }
                        out.extend_from_slice(&piece?);
                    }
                }
                break;
            }
            self.run(first, &mut out).await?;
        }
        Ok(if out.is_empty() {
            None
        } else {
            point(Point::ChunksRead);
            Some((out.freeze(), self))
        })
    }

    /// The first piece of `rest`; what is left of it waits.
    async fn long(&mut self, rest: Location) -> std::result::Result<Bytes, StoreError> {
        let len = rest.len.min(PIECE_LEN as u32);
        if rest.len > len {
            self.within = Some(Location {
                offset: rest.offset + u64::from(len),
                len: rest.len - len,
                ..rest
            });
        }
        self.reader(rest.pack)?
            .read(rest.offset, len as usize)
            .await
    }

    /// Sends `first` and the chunks asked for next as long as they lie right behind it: one read for all.
    async fn run(
        &mut self,
        first: Location,
        out: &mut BytesMut,
    ) -> std::result::Result<(), StoreError> {
        let mut end = first.offset + u64::from(first.len);
        let mut lens = vec![first.len];
        while let Some(&Some(next)) = self.left.front() {
            let together = (next.offset + u64::from(next.len)).saturating_sub(first.offset);
            // Behind the length that precedes each chunk in a pack.
            if next.pack != first.pack || next.offset != end + 4 || together > PIECE_LEN as u64 {
                break;
            }
            end = next.offset + u64::from(next.len);
            lens.push(next.len);
            self.left.pop_front();
        }
        let bytes = self
            .reader(first.pack)?
            .read(first.offset, (end - first.offset) as usize)
            .await;
        let bytes = match bytes {
            // Something in the run cannot be read: each for itself, so that it takes no other with it.
            Err(_) if self.framed => {
                let mut offset = first.offset;
                for len in lens {
                    match self.reader(first.pack)?.read(offset, len as usize).await {
                        Ok(bytes) => {
                            out.extend_from_slice(&len.to_be_bytes());
                            out.extend_from_slice(&bytes);
                        }
                        Err(error) => {
                            let chunk = Location {
                                offset,
                                len,
                                ..first
                            };
                            self.not_here(chunk, &error, out).await;
                        }
                    }
                    offset += u64::from(len) + 4;
                }
                return Ok(());
            }
            bytes => bytes?,
        };
        let mut at = 0;
        for len in lens {
            // The catalog's length, not the file's: a damaged byte spoils one chunk, never the framing.
            if self.framed {
                out.extend_from_slice(&len.to_be_bytes());
            }
            out.extend_from_slice(&bytes[at..at + len as usize]);
            at += len as usize + 4;
        }
        Ok(())
    }

    /// Says that a chunk is not here, which lets its reader name the file and go on with the others.
    async fn not_here(&mut self, chunk: Location, error: &StoreError, out: &mut BytesMut) {
        self.missed(chunk, error).await;
        out.extend_from_slice(&[0; 4]);
    }

    /// Notes that a chunk, or what is left of it, cannot be read. A missing end of a pack is noted once.
    async fn missed(&mut self, chunk: Location, error: &StoreError) {
        let gone = matches!(error, StoreError::NotFound(_));
        let is_noted =
            { self.missed }.is_some_and(|(pack, from)| pack == chunk.pack && from <= chunk.offset);
        if gone && is_noted {
            return;
        }
        if gone {
            self.missed = Some((chunk.pack, chunk.offset));
        }
        missed(&self.app, chunk, error).await;
    }

    fn reader(&self, pack: PackId) -> std::result::Result<&dyn PackReader, StoreError> {
        self.open
            .as_ref()
            .map(|(_, reader)| &**reader)
            .ok_or(StoreError::NotFound(pack))
    }

    /// Opens the pack of `chunk` if it is not open. Whether it is there.
    async fn turn_to(&mut self, chunk: Location) -> std::result::Result<bool, StoreError> {
        let pack = chunk.pack;
        if self.open.as_ref().is_some_and(|(open, _)| *open == pack) {
            return Ok(true);
        }
        match self.app.0.chunks.open(pack).await {
            Ok(reader) => {
                self.open = Some((pack, reader));
                Ok(true)
            }
            Err(error @ (StoreError::NotFound(_) | StoreError::Unreadable(_))) => {
                if self.missed != Some((pack, 0)) {
                    self.missed = Some((pack, 0));
                    note_missing(&self.app, whole(pack), &error).await;
                }
                Ok(false)
            }
            Err(error) => Err(error),
        }
    }
}

/// A pack that cannot be opened.
fn whole(pack: PackId) -> Gap {
    Gap {
        pack,
        bytes: 0..u64::MAX,
    }
}

/// Notes what of a pack cannot be read, if it is missing or damaged.
async fn missed(app: &App, chunk: Location, error: &StoreError) {
    let gap = match error {
        // A pack that ends here has nothing behind it either.
        StoreError::NotFound(_) => Gap {
            pack: chunk.pack,
            bytes: chunk.offset..u64::MAX,
        },
        StoreError::Unreadable(_) => chunk.gap(),
        // It may well be there: no right to read it, too many files open, the network.
        StoreError::Full | StoreError::Broken(_) => {
            let place = app.0.chunks.place(chunk.pack);
            tracing::error!(%error, place, "a chunk cannot be read");
            return;
        }
    };
    note_missing(app, gap, error).await;
}

/// Says in the log what cannot be read, and lets the catalog know, so that machines are asked for it from now on.
async fn note_missing(app: &App, gap: Gap, error: &StoreError) {
    let place = app.0.chunks.place(gap.pack);
    tracing::error!(
        %error,
        place,
        "chunks cannot be read. They count as missing now, until a machine that still has the files sends them again: run \
         `syncagent recover` there"
    );
    if let Err(error) = app.0.catalog.open_gaps(vec![gap]).await {
        tracing::error!(%error, "cannot note that they are missing; the next start of the server does, or the next look at them");
    }
}
