//! One file out of its parts, from the first byte to the last: each part from wherever it is at hand.
//!
//! Written in order and hashed on the way, so that nothing is read back; what the server is asked for is on its way
//! meanwhile.

use std::collections::HashMap;
use std::ops::Range;

use syncagent_protocol::crash::{Point, point};
use syncagent_protocol::{ChunkId, ContentHash};
use syncagent_vault::chunk::{Codec, Entry, Scope, seal_data};
use syncagent_vault::keys::Keys;

use crate::folder::apply::{ApplyError, Staging};
use crate::folder::read::StableRead;

/// Content is written in pieces of this many bytes: few calls, and none ends within a page but the last. A page that is
/// written in two goes may have to be read in between.
const PIECE: u64 = 1 << 20;

/// A file's data chunks and where they go.
pub(super) struct Parts {
    pub(super) entries: Vec<Entry>,
    offsets: Vec<u64>,
    /// Length of the file.
    pub(super) size: u64,
}

impl Parts {
    pub(super) fn new(entries: Vec<Entry>) -> Self {
        let mut size = 0_u64;
        let offsets = entries.iter().map(|entry| {
            let offset = size;
            size = size.saturating_add(entry.len);
            offset
        });
        Self {
            offsets: offsets.collect(),
            size,
            entries,
        }
    }

    /// Which parts an interrupted download left in `staging`. Anything may stand there, so each is sealed again and
    /// compared.
    pub(super) fn left_in(
        &self,
        staging: &Staging,
        keys: &Keys,
        scope: Scope,
    ) -> Result<Vec<bool>, ApplyError> {
        let mut left = vec![false; self.entries.len()];
        let mut buf = Vec::new();
        for (i, entry) in self.entries.iter().enumerate() {
            if self.offsets[i] >= staging.len() {
                break;
            }
            buf.resize(usize::try_from(entry.len).unwrap_or(0), 0);
            let mut got = 0;
            while got < buf.len() {
                match staging.read_at(&mut buf[got..], self.offsets[i] + got as u64)? {
                    0 => break,
                    n => got += n,
                }
            }
            left[i] = got == buf.len()
                && [Codec::Zstd, Codec::Stored].into_iter().any(|codec| {
                    seal_data(keys, scope, &buf, codec)
                        .is_ok_and(|sealed| sealed.entry.id == entry.id)
                });
        }
        Ok(left)
    }
}

/// Where a part is taken from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Origin {
    /// It is in its place already.
    Here,
    /// Origin this source, at this offset.
    Source(usize, u64),
    /// It stood further up in the same file, as this part.
    Above(usize),
    /// Origin the server.
    Server,
}

/// A file that may hold some of the parts.
pub(super) struct OpenSource {
    pub(super) read: StableRead,
    /// What is in it; `None`: exactly the wanted file.
    pub(super) leaves: Option<std::sync::Arc<Vec<(ChunkId, u64)>>>,
}

/// Where each part is taken from, given what is here already and what the sources hold.
pub(super) fn plan(parts: &Parts, here: &[bool], sources: &[OpenSource]) -> Vec<Origin> {
    let mut held: HashMap<(ChunkId, u64), Origin> = HashMap::new();
    let mut whole = None;
    for (k, source) in sources.iter().enumerate() {
        match &source.leaves {
            None if source.read.size() == parts.size => whole = whole.or(Some(k)),
            None => {}
            Some(leaves) => {
                let mut at = 0_u64;
                for &(id, len) in leaves.iter() {
                    held.entry((id, len)).or_insert(Origin::Source(k, at));
                    at = at.saturating_add(len);
                }
            }
        }
    }
    let mut first: HashMap<(ChunkId, u64), usize> = HashMap::new();
    let entries = parts.entries.iter().zip(&parts.offsets).zip(here);
    entries
        .enumerate()
        .map(|(i, ((entry, &offset), here))| {
            let what = (entry.id, entry.len);
            let above = *first.entry(what).or_insert(i);
            match (here, whole, held.get(&what)) {
                (true, _, _) => Origin::Here,
                (_, Some(k), _) => Origin::Source(k, offset),
                (_, _, Some(source)) => *source,
                _ if above < i => Origin::Above(above),
                _ => Origin::Server,
            }
        })
        .collect()
}

/// A file growing from its first part to its last.
pub(super) struct Assembly {
    staging: Staging,
    hasher: blake3::Hasher,
    /// The next part.
    pub(super) next: usize,
    /// Up to here it is written; what is not even a piece waits.
    written: u64,
    waiting: Vec<u8>,
    buf: Vec<u8>,
}

/// The source that did not hold what it should.
pub(super) struct Lost(pub(super) usize);

impl Assembly {
    pub(super) fn new(staging: Staging) -> Self {
        Self {
            staging,
            hasher: blake3::Hasher::new(),
            next: 0,
            written: 0,
            waiting: Vec::new(),
            buf: Vec::new(),
        }
    }

    /// Takes the next part as it came from the server.
    pub(super) fn put(&mut self, content: &[u8]) -> Result<(), ApplyError> {
        self.hasher.update(content);
        self.next += 1;
        let mut rest = content;
        while !rest.is_empty() {
            let end = self.written + self.waiting.len() as u64;
            let to_boundary = (PIECE - end % PIECE) as usize;
            let (now, later) = rest.split_at(to_boundary.min(rest.len()));
            self.waiting.extend_from_slice(now);
            if now.len() == to_boundary {
                self.flush()?;
            }
            rest = later;
        }
        Ok(())
    }

    fn flush(&mut self) -> Result<(), ApplyError> {
        if !self.waiting.is_empty() {
            self.staging.write_at(&self.waiting, self.written)?;
            point(Point::PartWritten);
            self.written += self.waiting.len() as u64;
            self.waiting.clear();
        }
        Ok(())
    }

    /// Takes the parts of `range`, which begins with the next one and needs nothing from the server, or ends before one
    /// whose source is lost.
    pub(super) fn take(
        &mut self,
        parts: &Parts,
        plan: &[Origin],
        sources: &[OpenSource],
        range: Range<usize>,
    ) -> Result<Option<Lost>, ApplyError> {
        let mut buf = std::mem::take(&mut self.buf);
        for i in range {
            buf.resize(usize::try_from(parts.entries[i].len).unwrap_or(0), 0);
            match plan[i] {
                Origin::Source(k, offset) => {
                    if !read_whole(&mut buf, |buf, at| {
                        sources[k].read.read_at(buf, offset + at).ok()
                    }) {
                        return Ok(Some(Lost(k)));
                    }
                    self.put(&buf)?;
                }
                Origin::Above(j) => {
                    self.flush()?;
                    self.read_back(&mut buf, parts.offsets[j])?;
                    self.put(&buf)?;
                }
                Origin::Here | Origin::Server => {
                    self.flush()?;
                    self.read_back(&mut buf, parts.offsets[i])?;
                    self.hasher.update(&buf);
                    self.written += buf.len() as u64;
                    self.next += 1;
                }
            }
        }
        self.buf = buf;
        Ok(None)
    }

    fn read_back(&self, buf: &mut [u8], offset: u64) -> Result<(), ApplyError> {
        let mut failed = None;
        let whole = read_whole(buf, |buf, at| {
            let read = self.staging.read_at(buf, offset + at);
            read.map_err(|error| failed = Some(error)).ok()
        });
        match failed {
            Some(error) => Err(error),
            // Somebody cut it off: the hash will not be the wanted one.
            None if !whole => {
                buf.fill(0);
                Ok(())
            }
            None => Ok(()),
        }
    }

    /// The file, written to its end, and the hash of all that was put into it.
    pub(super) fn end(mut self) -> Result<(Staging, ContentHash), ApplyError> {
        self.flush()?;
        self.staging.set_len(self.written)?;
        Ok((
            self.staging,
            ContentHash(*self.hasher.finalize().as_bytes()),
        ))
    }
}

/// Whether `read(into, offset)`, repeated, filled `buf`.
fn read_whole(buf: &mut [u8], mut read: impl FnMut(&mut [u8], u64) -> Option<usize>) -> bool {
    let mut got = 0;
    while got < buf.len() {
        match read(&mut buf[got..], got as u64) {
            Some(n @ 1..) => got += n,
            _ => return false,
        }
    }
    true
}
