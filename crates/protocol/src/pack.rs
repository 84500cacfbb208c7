//! Framing of many chunks in one body.
//!
//! An upload is `SAPK` ‖ version 1 ‖ 0^3 and then, to the end of the body, `u32 len ‖ blob`.
//! An answer to a fetch is `u32 len ‖ blob` for each chunk asked for, in that order; len 0 says
//! that the server does not have it. Several commits in one answer are framed the same way.

use crate::code::Code;
use crate::commit::TAG_LEN;
use crate::ids::ChunkId;

/// What an uploaded pack begins with.
pub const PACK_HEADER: [u8; 8] = *b"SAPK\x01\0\0\0";
/// Length of the header of a sealed chunk.
pub const CHUNK_HEADER_LEN: usize = 12;
/// The shortest frame: what the padding makes of anything small.
pub const MIN_FRAME_LEN: usize = 4096;
/// The longest frame: 8 MiB of content and its header, padded.
pub const MAX_FRAME_LEN: usize = 8_650_752;
/// The longest sealed chunk: header, longest frame, tag.
pub const MAX_CHUNK_LEN: usize = CHUNK_HEADER_LEN + MAX_FRAME_LEN + TAG_LEN;
/// The shortest: header, smallest frame, tag.
pub const MIN_CHUNK_LEN: usize = CHUNK_HEADER_LEN + MIN_FRAME_LEN + TAG_LEN;
/// What a client fills a pack up to.
pub const TARGET_PACK_LEN: usize = 8 * 1024 * 1024;
/// The longest pack a server takes.
pub const MAX_PACK_LEN: usize = 32 * 1024 * 1024;
/// Most chunks in one request that lists them.
pub const MAX_IDS_PER_REQUEST: usize = 16_384;
/// Most ids a list chunk holds.
pub const MAX_LIST_ENTRIES: usize = 512;

/// `P(len)`, the length that a frame of `len` bytes is padded to: Padmé ("Reducing Metadata Leakage from
/// Encrypted Files and Communication with PURBs", Nikitin et al., 2019), and at least [`MIN_FRAME_LEN`].
pub fn padded_len(len: usize) -> usize {
    if len <= MIN_FRAME_LEN {
        return MIN_FRAME_LEN;
    }
    let e = len.ilog2();
    let s = e.ilog2() + 1;
    len.next_multiple_of(1 << (e - s))
}

/// What kind of content a sealed chunk holds, as its clear header says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ChunkKind {
    /// Part of a file.
    Data,
    /// The keys of further chunks, whose ids stand in clear.
    List,
}

/// What anyone can see of a sealed chunk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ChunkView<'a> {
    /// What it holds.
    pub kind: ChunkKind,
    /// Epoch of the vault key, 1.
    pub epoch: u32,
    /// The clear part: nothing, or `u32 n ‖ n ids`.
    pub clear: &'a [u8],
    /// The sealed frame, tag included.
    pub ct: &'a [u8],
}

/// Why bytes are no sealed chunk.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum ChunkError {
    /// Too short or too long for any chunk.
    #[error("a chunk has a length that no chunk has")]
    Length,
    /// It does not begin like a chunk.
    #[error("a chunk does not begin like one")]
    Magic,
    /// Unknown version, algorithm, kind or epoch.
    #[error("a chunk was made by a newer SyncAgent")]
    Version,
    /// The list of ids does not fit.
    #[error("a list chunk does not hold what it says")]
    List,
}

impl ChunkError {
    /// The stable code.
    pub fn code(self) -> Code {
        Code::Chunk
    }
}

/// What the first [`ChunkHead::LEN`] bytes of a sealed chunk tell, so that it can be judged while it arrives.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ChunkHead {
    /// What it holds.
    pub kind: ChunkKind,
    /// Epoch of the vault key, 1.
    pub epoch: u32,
    /// Length of the clear part behind the header of [`CHUNK_HEADER_LEN`] bytes.
    pub clear_len: usize,
}

impl ChunkHead {
    /// Bytes needed to judge a chunk: header and, in a list chunk, the number of ids.
    pub const LEN: usize = CHUNK_HEADER_LEN + 4;

    /// Judges a chunk of `len` bytes by its first bytes: every check that needs no key and no hash.
    pub fn parse(first: &[u8; Self::LEN], len: usize) -> Result<Self, ChunkError> {
        if !(MIN_CHUNK_LEN..=MAX_CHUNK_LEN).contains(&len) {
            return Err(ChunkError::Length);
        }
        if &first[..4] != b"SACK" {
            return Err(ChunkError::Magic);
        }
        if first[4] != 1 || first[5] != 1 || first[7] != 0 {
            return Err(ChunkError::Version);
        }
        let epoch = u32::from_be_bytes([first[8], first[9], first[10], first[11]]);
        if epoch != 1 {
            return Err(ChunkError::Version);
        }
        let (kind, clear_len) = match first[6] {
            0 => (ChunkKind::Data, 0),
            1 => {
                let n = u32::from_be_bytes([first[12], first[13], first[14], first[15]]) as usize;
                if n == 0 || n > MAX_LIST_ENTRIES {
                    return Err(ChunkError::List);
                }
                (ChunkKind::List, 4 + 32 * n)
            }
            _ => return Err(ChunkError::Version),
        };
        match len.checked_sub(CHUNK_HEADER_LEN + clear_len + TAG_LEN) {
            None => Err(ChunkError::List),
            Some(frame_len) if padded_len(frame_len) == frame_len => Ok(Self {
                kind,
                epoch,
                clear_len,
            }),
            Some(_) => Err(ChunkError::Length),
        }
    }
}

impl<'a> ChunkView<'a> {
    /// Parses the clear parts of a sealed chunk.
    pub fn parse(blob: &'a [u8]) -> Result<Self, ChunkError> {
        let first = blob.first_chunk().ok_or(ChunkError::Length)?;
        let ChunkHead {
            kind,
            epoch,
            clear_len,
        } = ChunkHead::parse(first, blob.len())?;
        let (clear, ct) = blob[CHUNK_HEADER_LEN..]
            .split_at_checked(clear_len)
            .ok_or(ChunkError::List)?;
        Ok(Self {
            kind,
            epoch,
            clear,
            ct,
        })
    }

    /// The children a list chunk names; none for data.
    pub fn children(&self) -> impl ExactSizeIterator<Item = ChunkId> + use<'a> {
        let ids: &'a [u8] = self.clear.get(4..).unwrap_or(&[]);
        ids.as_chunks::<32>().0.iter().map(|id| ChunkId(*id))
    }
}

/// Appends `u32 len ‖ part` to `out`.
pub fn push_framed(out: &mut Vec<u8>, part: &[u8]) {
    // Chunks and commits are bounded far below 4 GiB.
    out.extend_from_slice(&(part.len() as u32).to_be_bytes());
    out.extend_from_slice(part);
}

/// Takes framed parts out of a byte stream that arrives in pieces. Memory: one part at most.
#[derive(Debug)]
pub struct Deframer {
    buffer: Vec<u8>,
    start: usize,
    max_len: usize,
}

/// A part longer than allowed, or a stream that ended inside a part.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum FrameError {
    /// A part longer than the reader allows.
    #[error("a part of the answer is longer than allowed")]
    TooLong,
    /// The stream ended in the middle.
    #[error("the answer ends in the middle")]
    Truncated,
}

impl Deframer {
    /// A deframer that refuses parts over `max_len` bytes.
    pub fn new(max_len: usize) -> Self {
        Self {
            buffer: Vec::new(),
            start: 0,
            max_len,
        }
    }

    /// Adds bytes that arrived.
    pub fn push(&mut self, bytes: &[u8]) {
        if self.start > 0 {
            self.buffer.drain(..self.start);
            self.start = 0;
        }
        self.buffer.extend_from_slice(bytes);
    }

    /// The next whole part, if it is there.
    pub fn next_part(&mut self) -> Result<Option<&[u8]>, FrameError> {
        let Some((len, rest)) = self.buffer[self.start..].split_first_chunk::<4>() else {
            return Ok(None);
        };
        let len = u32::from_be_bytes(*len) as usize;
        if len > self.max_len {
            return Err(FrameError::TooLong);
        }
        if rest.len() < len {
            return Ok(None);
        }
        let begin = self.start + 4;
        self.start = begin + len;
        Ok(Some(&self.buffer[begin..begin + len]))
    }

    /// Whether the stream ended between parts.
    pub fn finish(&self) -> Result<(), FrameError> {
        if self.start == self.buffer.len() {
            Ok(())
        } else {
            Err(FrameError::Truncated)
        }
    }
}

/// Takes the chunks out of an uploaded pack that arrives in pieces. Memory: one chunk at most.
#[derive(Debug)]
pub struct Unpacker {
    header: usize,
    blobs: Deframer,
    seen_any: bool,
}

/// Why a body is no pack.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum PackError {
    /// It does not begin with [`PACK_HEADER`].
    #[error("this is no pack")]
    Header,
    /// A length that no chunk has: none, or above [`MAX_CHUNK_LEN`].
    #[error("a pack holds something that is no chunk")]
    Length,
    /// It holds no chunk at all.
    #[error("a pack holds nothing")]
    Empty,
    /// It ends in the middle.
    #[error("a pack ends in the middle")]
    Truncated,
}

impl PackError {
    /// The stable code.
    pub fn code(self) -> Code {
        Code::Chunk
    }
}

impl Default for Unpacker {
    fn default() -> Self {
        Self {
            header: 0,
            blobs: Deframer::new(MAX_CHUNK_LEN),
            seen_any: false,
        }
    }
}

impl Unpacker {
    /// Adds bytes that arrived.
    pub fn push(&mut self, bytes: &[u8]) -> Result<(), PackError> {
        let expected = &PACK_HEADER[self.header..];
        let (header, rest) = bytes.split_at(bytes.len().min(expected.len()));
        if !expected.starts_with(header) {
            return Err(PackError::Header);
        }
        self.header += header.len();
        self.blobs.push(rest);
        Ok(())
    }

    /// The bytes of the next chunk, if all of them are there. Nothing in them was checked but their number.
    pub fn next_blob(&mut self) -> Result<Option<&[u8]>, PackError> {
        match self.blobs.next_part() {
            Ok(None) => Ok(None),
            Ok(Some([])) | Err(_) => Err(PackError::Length),
            Ok(Some(blob)) => {
                self.seen_any = true;
                Ok(Some(blob))
            }
        }
    }

    /// Whether the body ended behind a chunk.
    pub fn finish(&self) -> Result<(), PackError> {
        if self.header < PACK_HEADER.len() || self.blobs.finish().is_err() {
            Err(PackError::Truncated)
        } else if !self.seen_any {
            Err(PackError::Empty)
        } else {
            Ok(())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_shortest_and_the_longest_chunk_are_the_documented_ones() {
        assert_eq!(padded_len(8 * 1024 * 1024 + 8), MAX_FRAME_LEN);
        assert_eq!((MIN_CHUNK_LEN, MAX_CHUNK_LEN), (4124, 8_650_780));
        for (document, stated) in [
            (
                include_str!("../../../docs/format.md"),
                "above 8 650 780 (the largest chunk",
            ),
            (
                include_str!("../../../docs/protocol.md"),
                "A chunk has 4124 to 8 650 780 bytes.",
            ),
        ] {
            assert!(document.contains(stated), "{stated}");
        }
    }

    #[test]
    fn only_padded_lengths_are_chunks() {
        let mut first = *b"SACK\x01\x01\0\0\0\0\0\x01\0\0\0\0";
        let parse = |first: &[u8; 16], len| ChunkHead::parse(first, len).map(|head| head.clear_len);
        for frame in [4096, 4352, 1_081_344, MAX_FRAME_LEN] {
            assert_eq!(parse(&first, 12 + frame + 16), Ok(0));
            assert_eq!(parse(&first, 12 + frame + 17), Err(ChunkError::Length));
        }
        assert_eq!(
            parse(&first, MAX_CHUNK_LEN + 262_144),
            Err(ChunkError::Length)
        );
        (first[6], first[15]) = (1, 2);
        assert_eq!(parse(&first, 12 + 68 + 4096 + 16), Ok(68));
        assert_eq!(parse(&first, 12 + 4096 + 16), Err(ChunkError::Length));
        first[11] = 2;
        assert_eq!(parse(&first, 12 + 68 + 4096 + 16), Err(ChunkError::Version));
    }

    #[test]
    fn a_pack_comes_apart_however_it_arrives() {
        let mut pack = PACK_HEADER.to_vec();
        push_framed(&mut pack, b"one");
        push_framed(&mut pack, &[7; 5000]);
        for step in [1, 3, 8, 9, 4096, pack.len()] {
            let mut unpacker = Unpacker::default();
            let mut seen = Vec::new();
            for piece in pack.chunks(step) {
                unpacker.push(piece).unwrap();
                while let Some(blob) = unpacker.next_blob().unwrap() {
                    seen.push(blob.len());
                }
            }
            assert_eq!((seen, unpacker.finish()), (vec![3, 5000], Ok(())));
        }
    }

    #[test]
    fn parts_come_out_whole_however_they_arrive() {
        let parts: [&[u8]; 4] = [b"one", b"", b"three", &[7; 300]];
        let mut bytes = Vec::new();
        for part in parts {
            push_framed(&mut bytes, part);
        }
        for step in [1, 2, 5, 64, bytes.len()] {
            let mut deframer = Deframer::new(300);
            let mut seen: Vec<Vec<u8>> = Vec::new();
            for piece in bytes.chunks(step) {
                deframer.push(piece);
                while let Some(part) = deframer.next_part().unwrap() {
                    seen.push(part.to_vec());
                }
            }
            assert_eq!(seen, parts);
            assert_eq!(deframer.finish(), Ok(()));
        }
    }

    #[test]
    fn too_long_and_cut_off_are_errors() {
        let mut deframer = Deframer::new(4);
        deframer.push(&[0, 0, 0, 5]);
        assert_eq!(deframer.next_part(), Err(FrameError::TooLong));
        let mut deframer = Deframer::new(4);
        deframer.push(&[0, 0, 0, 3, 1]);
        assert_eq!(deframer.next_part(), Ok(None));
        assert_eq!(deframer.finish(), Err(FrameError::Truncated));
    }
}
