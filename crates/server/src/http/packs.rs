//! Packs come in: hashed and judged while they are written, kept whole or not at all.

use std::collections::HashSet;
use std::ops::Range;

use aws_lc_rs::digest::{Context, SHA256};
use axum::Json;
use axum::extract::{Request, State};
use bytes::BytesMut;
use http::StatusCode;
use syncagent_protocol::api::PackReceipt;
use syncagent_protocol::crash::{Point, point};
use syncagent_protocol::pack::{
    CHUNK_HEADER_LEN, ChunkError, ChunkHead, ChunkKind, MAX_PACK_LEN, PACK_HEADER,
};
use syncagent_protocol::{ChunkId, Code};

use super::auth::Member;
use super::body::Pieces;
use super::problem::{Failure, Result};
use crate::app::App;
use crate::catalog::{Location, NewChunk, NewPack, VaultKey};
use crate::chunks::{PackId, PackReader, PackWriter, StoreError};
use crate::limits::{FREE_PACK_CHILDREN_LEN, MAX_PACK_CHILDREN_LEN, MAX_PACK_CHUNKS, PIECE_LEN};

pub(crate) async fn post(
    State(app): State<App>,
    member: Member,
    request: Request,
) -> Result<Json<PackReceipt>> {
    member.founded()?;
    let mut pieces = Pieces::new(request, MAX_PACK_LEN)?;
    let _turn = app.0.limits.upload().await.ok_or_else(Failure::crowded)?;
    let id = PackId(app.random());
    let mut writer = app.0.chunks.begin(id).await?;
    let mut judge = Judge::default();
    let mut room = None;
    // Written in larger pieces than they come in: fewer trips to the threads that may block. All are of one length, so
    // that none but the last ends within a page.
    let mut piece = BytesMut::new();
    while let Some(bytes) = pieces.next().await? {
        judge.push(&bytes)?;
        if judge.children_len > FREE_PACK_CHILDREN_LEN && room.is_none() {
            let len = MAX_PACK_CHILDREN_LEN;
            room = Some(app.0.limits.room(len).await.ok_or_else(Failure::crowded)?);
        }
        piece.extend_from_slice(&bytes);
        while piece.len() >= PIECE_LEN {
            writer.append(piece.split_to(PIECE_LEN).freeze()).await?;
        }
    }
    if !piece.is_empty() {
        writer.append(piece.freeze()).await?;
    }
    let chunks = judge.finish()?;
    let (app_, vault) = (app.clone(), member.vault());
    let receipt = app
        .0
        .work
        .see_through(async move { keep(&app_, vault, id, writer, chunks).await })
        .await??;
    Ok(Json(receipt))
}

/// Stores what is new and makes it known.
async fn keep(
    app: &App,
    vault: VaultKey,
    id: PackId,
    writer: Box<dyn PackWriter>,
    chunks: Vec<NewChunk>,
) -> Result<PackReceipt> {
    let (catalog, store) = (&app.0.catalog, &app.0.chunks);
    let total = chunks.len() as u32;
    let known = there(app, vault, &chunks).await?;
    let mut seen = HashSet::new();
    let mut renewed = Vec::new();
    let mut new = Vec::new();
    let mut len = PACK_HEADER.len() as u64;
    let header = 0..len;
    let mut keep: Vec<Range<u64>> = Vec::from([header]);
    for (mut chunk, known) in chunks.into_iter().zip(known) {
        if known {
            renewed.push(chunk.id);
        } else if seen.insert(chunk.id) {
            let frame = chunk.offset - 4..chunk.offset + u64::from(chunk.len);
            chunk.offset = len + 4;
            len += frame.end - frame.start;
            match keep.last_mut() {
                Some(last) if last.end == frame.start => last.end = frame.end,
                _ => keep.push(frame),
            }
            new.push(chunk);
        }
    }
    let now_ms = app.now_ms();
    if new.is_empty() {
        drop(writer);
        if !renewed.is_empty() {
            catalog.missing(vault, renewed, 1, now_ms).await?;
        }
        return Ok(PackReceipt {
            stored: 0,
            known: total,
        });
    }
    writer.finish(keep).await?;
    point(Point::PackDurable);
    // Before this one is recorded: of what fails meanwhile nobody knows yet.
    let doubted = app.take_doubted();
    let stored = match catalog
        .record_pack(
            vault,
            NewPack {
                id,
                len,
                chunks: new,
                renewed,
                now_ms,
            },
        )
        .await
    {
        Ok(stored) => stored,
        Err(error) => {
            app.doubt(doubted);
            match error.may_come_back() {
                // Then the catalog must not name a pack that is not there.
                true => app.doubt([id]),
                // Unknown to the catalog it would lie there for ever.
                false => store.delete(id).await?,
            }
            return Err(error.into());
        }
    };
    // What was recorded stands in the place of whatever was left of failures before it: no crash brings those back now.
    for failed in doubted {
        remove_unrecorded(app, failed).await;
    }
    if stored == 0 {
        // Another upload of the same chunks was faster.
        store.delete(id).await?;
    }
    point(Point::PackRecorded);
    Ok(PackReceipt {
        stored,
        known: total - stored,
    })
}

/// Removes a pack that the catalog does not know after all. What goes wrong leaves it where it is, which costs only room.
async fn remove_unrecorded(app: &App, pack: PackId) {
    let (catalog, store) = (&app.0.catalog, &app.0.chunks);
    let before = u128::from_be_bytes(pack.0).checked_sub(1);
    let before = before.map(|id| PackId(id.to_be_bytes()));
    let removed = match catalog.packs(before, 1).await {
        Ok(next) if next.first().is_some_and(|next| next.id == pack) => return,
        Ok(_) => store.delete(pack).await.map_err(|error| error.to_string()),
        Err(error) => Err(error.to_string()),
    };
    if let Err(error) = removed {
        tracing::warn!(
            error,
            place = store.place(pack),
            "cannot remove a pack that was not recorded"
        );
    }
}

/// Which chunks are stored already, and can be read: what the catalog says is looked at, because what came now is thrown away
/// for it. Reads no more than was sent.
async fn there(app: &App, vault: VaultKey, chunks: &[NewChunk]) -> Result<Vec<bool>> {
    let (catalog, store) = (&app.0.catalog, &app.0.chunks);
    let ids: Vec<_> = chunks.iter().map(|chunk| chunk.id).collect();
    let mut there = catalog.known(vault, ids.clone()).await?;
    if !there.contains(&true) {
        return Ok(there);
    }
    let locations = catalog.locate(vault, ids).await?;
    let mut known: Vec<_> = { locations.into_iter().enumerate() }
        .filter_map(|(at, location)| Some((location.filter(|_| there[at])?, at)))
        .collect();
    // Each pack is opened once, and read from front to back.
    known.sort_by_key(|(location, at)| (location.pack, location.offset, *at));
    type Opened = std::result::Result<Box<dyn PackReader>, StoreError>;
    let mut open: Option<(PackId, Opened)> = None;
    let mut gaps = Vec::new();
    for (location, at) in known {
        let pack = location.pack;
        let opened = match open.take().filter(|(open, _)| *open == pack) {
            Some((_, opened)) => opened,
            None => store.open(pack).await,
        };
        let found = match &opened {
            Ok(reader) => look(&**reader, location, chunks[at].id).await,
            Err(error) => Look::of(error),
        };
        open = Some((pack, opened));
        there[at] = found == Look::Whole;
        if found == Look::Gone {
            gaps.push(location.gap());
        }
    }
    if let Some(gap) = gaps.first() {
        tracing::error!(
            "{} chunks are missing, damaged or cannot be read, one of them in {}. A machine has sent them again, and they are \
             stored anew",
            gaps.len(),
            store.place(gap.pack)
        );
        catalog.open_gaps(gaps).await?;
    }
    Ok(there)
}

/// What a look at the bytes of a chunk says.
#[derive(PartialEq, Eq)]
enum Look {
    /// They are there.
    Whole,
    /// They are not, or are others.
    Gone,
    /// Nothing: no right to read them, too many files open.
    Unsure,
}

impl Look {
    fn of(error: &StoreError) -> Self {
        match error {
            StoreError::NotFound(_) | StoreError::Unreadable(_) => Self::Gone,
            StoreError::Full | StoreError::Broken(_) => Self::Unsure,
        }
    }
}

async fn look(reader: &dyn PackReader, location: Location, id: ChunkId) -> Look {
    let mut hash = Context::new(&SHA256);
    let mut at = location.offset;
    let end = at + u64::from(location.len);
    while at < end {
        let len = (end - at).min(PIECE_LEN as u64);
        let bytes = match reader.read(at, len as usize).await {
            Ok(bytes) => bytes,
            Err(error) => return Look::of(&error),
        };
        hash.update(&bytes);
        at += len;
    }
    match hash.finish().as_ref() == id.0 {
        true => Look::Whole,
        false => Look::Gone,
    }
}

/// Reads the framing of a pack as it arrives. Memory: what the catalog will need, and no blob.
#[derive(Default)]
struct Judge {
    stage: Stage,
    /// Bytes seen so far.
    at: u64,
    chunks: Vec<NewChunk>,
    children_len: usize,
}

enum Stage {
    PackHeader(Vec<u8>),
    Length(Vec<u8>),
    Chunk(Box<Arriving>),
}

impl Default for Stage {
    fn default() -> Self {
        Self::PackHeader(Vec::with_capacity(PACK_HEADER.len()))
    }
}

/// A chunk of which not all is there.
struct Arriving {
    offset: u64,
    len: u32,
    left: usize,
    hash: Context,
    /// The first bytes: enough to judge, and in a list chunk the ids.
    first: Vec<u8>,
    head: Option<ChunkHead>,
}

impl Judge {
    fn push(&mut self, mut bytes: &[u8]) -> Result<()> {
        while !bytes.is_empty() {
            let taken = match &mut self.stage {
                Stage::PackHeader(so_far) => {
                    let taken = take(so_far, &mut bytes, PACK_HEADER.len());
                    if so_far.len() == PACK_HEADER.len() {
                        if so_far[..] != PACK_HEADER {
                            return Err(bad("the body does not begin like a pack"));
                        }
                        self.stage = Stage::Length(Vec::with_capacity(4));
                    }
                    taken
                }
                Stage::Length(so_far) => {
                    let taken = take(so_far, &mut bytes, 4);
                    if let Some(len) = so_far.first_chunk::<4>() {
                        let len = u32::from_be_bytes(*len);
                        self.stage =
                            Stage::Chunk(Box::new(Arriving::new(self.at + taken as u64, len)?));
                    }
                    taken
                }
                Stage::Chunk(chunk) => {
                    let (now, rest) = bytes.split_at(bytes.len().min(chunk.left));
                    bytes = rest;
                    chunk.push(now)?;
                    if chunk.left == 0 {
                        let chunk = std::mem::replace(
                            &mut self.stage,
                            Stage::Length(Vec::with_capacity(4)),
                        );
                        if let Stage::Chunk(chunk) = chunk {
                            self.arrived(*chunk)?;
                        }
                    }
                    now.len()
                }
            };
            self.at += taken as u64;
        }
        Ok(())
    }

    fn arrived(&mut self, chunk: Arriving) -> Result<()> {
        let chunk = chunk.finish()?;
        self.children_len += chunk.children.len();
        self.chunks.push(chunk);
        if self.chunks.len() > MAX_PACK_CHUNKS {
            return Err(Failure::too_long(format!(
                "a pack holds at most {MAX_PACK_CHUNKS} chunks"
            )));
        }
        if self.children_len > MAX_PACK_CHILDREN_LEN {
            return Err(Failure::too_long(
                "the pack holds too many list chunks: send them in several",
            ));
        }
        Ok(())
    }

    fn finish(self) -> Result<Vec<NewChunk>> {
        match self.stage {
            Stage::Length(so_far) if so_far.is_empty() => Ok(self.chunks),
            _ => Err(bad("the pack ends in the middle")),
        }
    }
}

impl Arriving {
    fn new(offset: u64, len: u32) -> Result<Self> {
        // Judged by its length before a byte of it is taken; by the rest once that is there.
        let range =
            syncagent_protocol::pack::MIN_CHUNK_LEN..=syncagent_protocol::pack::MAX_CHUNK_LEN;
        if !range.contains(&(len as usize)) {
            return Err(bad(&ChunkError::Length.to_string()));
        }
        Ok(Self {
            offset,
            len,
            left: len as usize,
            hash: Context::new(&SHA256),
            first: Vec::new(),
            head: None,
        })
    }

    fn push(&mut self, bytes: &[u8]) -> Result<()> {
        self.left -= bytes.len();
        self.hash.update(bytes);
        let mut rest = bytes;
        take(&mut self.first, &mut rest, ChunkHead::LEN);
        if self.head.is_none()
            && let Some(first) = self.first.first_chunk()
        {
            self.head = Some(
                ChunkHead::parse(first, self.len as usize)
                    .map_err(|error| bad(&error.to_string()))?,
            );
        }
        if let Some(ChunkHead {
            kind: ChunkKind::List,
            clear_len,
            ..
        }) = self.head
        {
            take(&mut self.first, &mut rest, CHUNK_HEADER_LEN + clear_len);
        }
        Ok(())
    }

    fn finish(mut self) -> Result<NewChunk> {
        let head = self
            .head
            .ok_or_else(|| bad(&ChunkError::Length.to_string()))?;
        let children = match head.kind {
            ChunkKind::Data => Vec::new(),
            ChunkKind::List => self.first.split_off(ChunkHead::LEN),
        };
        let id = ChunkId::from_slice(self.hash.finish().as_ref())
            .ok_or_else(|| Failure::server(&"a hash of another length"))?;
        Ok(NewChunk {
            id,
            offset: self.offset,
            len: self.len,
            kind: head.kind,
            children,
        })
    }
}

/// Moves bytes from the front of `from` until `to` holds `len`. How many were moved.
fn take(to: &mut Vec<u8>, from: &mut &[u8], len: usize) -> usize {
    let n = len.saturating_sub(to.len()).min(from.len());
    let (now, rest) = from.split_at(n);
    to.extend_from_slice(now);
    *from = rest;
    n
}

fn bad(detail: &str) -> Failure {
    Failure::new(StatusCode::BAD_REQUEST, Code::Chunk, detail)
}
