//! Chunks, lists, manifests and packs.

use serde_json::Value;
use syncagent_protocol::pack::{
    ChunkView, Deframer, FrameError, MAX_CHUNK_LEN, PACK_HEADER, PackError, Unpacker, push_framed,
};
use syncagent_protocol::{ChunkId, sha256};
use syncagent_vault::chunk::{ChunkKey, Entry, MAX_CONTENT_LEN, Scope, open_data, open_list};
use syncagent_vault::manifest::Manifest;

use crate::engine::{fuzz, within};
use crate::made;
use crate::seeds;

const KEY: [u8; 32] = [9; 32];
const SCOPE: [u8; 16] = [3; 16];

fn entry(blob: &[u8], len: u64) -> Entry {
    Entry {
        id: ChunkId(sha256(&[blob])),
        key: ChunkKey::from_bytes(&KEY),
        len,
    }
}

/// `promised u64 ‖ clear_len u16 ‖ clear ‖ frame` of the vectors that open.
fn opened(object: &Value) -> Vec<Vec<u8>> {
    let attempt = || {
        let blob = seeds::field(object, "blob").or_else(|| seeds::field(object, "bytes"))?;
        let (key, scope) = (seeds::field(object, "ck")?, seeds::field(object, "scope")?);
        let promised = object["len"].as_u64()?;
        let (header, rest) = blob.split_at_checked(12)?;
        let clear_len = match header[6] {
            1 => 4 + 32 * u32::from_be_bytes(*rest.first_chunk()?) as usize,
            _ => 0,
        };
        let (clear, sealed) = rest.split_at_checked(clear_len)?;
        let aad = [header, &made::VID, &scope, clear].concat();
        let frame = made::opened(&key, [0; 12], &aad, sealed)?;
        let clear_len = (clear.len() as u16).to_be_bytes();
        Some([&promised.to_be_bytes()[..], &clear_len, clear, &frame].concat())
    };
    attempt().into_iter().collect()
}

/// What [`opened`] put together.
fn parts(input: &[u8]) -> Option<(u64, Vec<u8>, Vec<u8>)> {
    let (promised, rest) = input.split_first_chunk::<8>()?;
    let (clear_len, rest) = rest.split_first_chunk::<2>()?;
    let clear_len = usize::from(u16::from_be_bytes(*clear_len));
    let (clear, frame) = rest.split_at_checked(clear_len)?;
    Some((
        u64::from_be_bytes(*promised),
        clear.to_vec(),
        frame.to_vec(),
    ))
}

/// Cuts or fills a frame to the length and the padding that its data ask for.
fn padded(frame: &[u8]) -> Vec<u8> {
    let Some((head, rest)) = frame.split_first_chunk::<8>() else {
        return frame.to_vec();
    };
    let stored = u32::from_be_bytes([head[0], head[1], head[2], head[3]]) as usize;
    let Some(data) = rest.get(..stored) else {
        return frame.to_vec();
    };
    let mut out = [head, data].concat();
    out.resize(made::padded(out.len()), 0);
    out
}

#[test]
fn sealed_chunk() {
    let mut known = seeds::bytes("chunk", &["blob", "bytes"]);
    known.extend(seeds::bytes("list_chunk", &["blob", "bytes"]));
    let keys = made::keys();
    fuzz("sealed chunk", known, 60_000, |blob, _| {
        // It borrows all there is.
        let view = within(0, || ChunkView::parse(blob)).map_err(|error| format!("{error:?}"))?;
        let again = [&blob[..12], view.clear, view.ct].concat();
        assert_eq!(again, blob);
        let ids: Vec<u8> = view.children().flat_map(|id| id.0).collect();
        assert_eq!(ids, view.clear.get(4..).unwrap_or_default());
        let entry = entry(blob, 45);
        let frame_and_little = 2 * blob.len() + 4096;
        within(frame_and_little, || {
            assert!(open_data(&keys, Scope(SCOPE), &entry, blob).is_err());
        });
        within(frame_and_little, || {
            assert!(open_list(&keys, Scope(SCOPE), &entry, blob).is_err());
        });
        Ok(format!("{:?}", view.kind))
    });
}

#[test]
fn data_chunk_behind_the_tag() {
    let keys = made::keys();
    let mut known = seeds::from("chunk", opened);
    known.extend(compressed());
    fuzz("data chunk", known, 40_000, |input, dice| {
        let (promised, _, frame) = parts(input).ok_or("too short for a case")?;
        let frame = match dice.one_in(4) {
            true => frame,
            false => padded(&frame),
        };
        let blob = made::chunk(0, &KEY, &SCOPE, &[], &frame);
        let entry = entry(&blob, promised);
        // The frame once, and what was promised (never more than a chunk holds) where it is unpacked.
        let content = MAX_CONTENT_LEN.min(promised as usize);
        let most = 2 * blob.len() + content + 4096;
        let codec = frame.get(4).copied();
        match within(most, || open_data(&keys, Scope(SCOPE), &entry, &blob)) {
            Ok(content) => {
                assert_eq!(content.len() as u64, promised);
                match codec {
                    Some(0) => assert_eq!(made::frame(0, &content), frame),
                    _ => {
                        let len = u32::from_be_bytes(*frame.first_chunk().unwrap()) as usize;
                        assert_eq!(made::frame(1, &frame[8..8 + len]), frame);
                        assert_eq!(one_zstd_frame(&frame[8..8 + len]), content);
                    }
                }
                Ok(format!("codec {codec:?}"))
            }
            Err(error) => Err(format!("{error}, codec {}", codec.unwrap_or(9).min(2))),
        }
    });
}

/// Texts of many lengths, compressed in several ways.
fn compressed() -> Vec<Vec<u8>> {
    let mut known = Vec::new();
    for (len, level) in [
        (1, 1),
        (300, 1),
        (300, 19),
        (5000, 3),
        (70_000, 1),
        (300_000, 19),
    ] {
        let text: Vec<u8> = (0..len)
            .map(|i: u32| (u64::from(i).pow(2) >> 7) as u8 & 31)
            .collect();
        let packed = zstd::bulk::compress(&text, level).unwrap();
        let frame = made::frame(1, &packed);
        known.push([&u64::from(len).to_be_bytes()[..], &[0; 2], &frame].concat());
    }
    known
}

/// Another way through the library: as a stream, and only the first frame.
fn one_zstd_frame(data: &[u8]) -> Vec<u8> {
    let mut content = Vec::new();
    let mut reader = zstd::stream::read::Decoder::with_buffer(data)
        .unwrap()
        .single_frame();
    std::io::Read::read_to_end(&mut reader, &mut content).unwrap();
    assert!(reader.finish().is_empty(), "something follows the frame");
    content
}

#[test]
fn list_chunk_behind_the_tag() {
    let keys = made::keys();
    let known = seeds::from("list_chunk", opened);
    fuzz("list chunk", known, 40_000, |input, dice| {
        let (mut promised, mut clear, mut frame) = parts(input).ok_or("too short for a case")?;
        if !dice.one_in(4) && clear.len() >= 4 {
            let n = (clear.len() - 4) / 32;
            clear.truncate(4 + 32 * n);
            clear[..4].copy_from_slice(&(n as u32).to_be_bytes());
        }
        if !dice.one_in(4) {
            frame = padded(&frame);
        }
        if !dice.one_in(4) {
            let lens = frame.get(8..).unwrap_or_default().as_chunks::<40>().0;
            let n = clear.len().saturating_sub(4) / 32;
            promised = lens
                .iter()
                .take(n)
                .map(|bytes| u64::from_be_bytes(*bytes.last_chunk().unwrap()))
                .fold(0, u64::wrapping_add);
        }
        let blob = made::chunk(1, &KEY, &SCOPE, &clear, &frame);
        let entry = entry(&blob, promised);
        // The frame, and an entry with a key of its own for 72 bytes of it; vectors grow by doubling.
        let most = 6 * blob.len() + 4096;
        match within(most, || open_list(&keys, Scope(SCOPE), &entry, &blob)) {
            Ok(entries) => {
                let ids: Vec<u8> = entries.iter().flat_map(|entry| entry.id.0).collect();
                assert_eq!(ids, clear[4..]);
                let data: Vec<u8> = entries
                    .iter()
                    .flat_map(|entry| [&entry.key.expose()[..], &entry.len.to_be_bytes()].concat())
                    .collect();
                assert_eq!(made::frame(0, &data), frame);
                let sum = entries.iter().map(|entry| u128::from(entry.len)).sum();
                assert_eq!(u128::from(promised), sum);
                assert!(entries.iter().all(|entry| entry.len > 0));
                Ok(format!("{} children", entries.len().ilog2()))
            }
            Err(error) => Err(error.to_string()),
        }
    });
}

#[test]
fn manifest() {
    let mut known = seeds::bytes("manifest", &["manifest"]);
    known.extend(seeds::from("op", |object| {
        seeds::field(&object["fields"], "manifest")
            .into_iter()
            .collect()
    }));
    known.push(vec![0; 73]);
    fuzz("manifest", known, 200_000, |input, _| {
        // An entry of 72 bytes becomes a record and a key of its own; the vector grows by doubling.
        let most = 4 * input.len() + 1024;
        let read = within(most, || Manifest::parse(input)).map_err(|error| error.to_string())?;
        assert_eq!(*read.encode(), input);
        assert!((1..=128).contains(&read.entries.len()) && read.level <= 3);
        let total: u128 = read.entries.iter().map(|entry| u128::from(entry.len)).sum();
        assert_eq!(
            read.total_len().map(u128::from),
            u64::try_from(total).ok().map(u128::from)
        );
        assert!(read.refs().len() <= read.entries.len());
        Ok(format!("level {}", read.level))
    });
}

/// Everything a pack holds, given in pieces as `next_piece` says.
fn unpack(
    input: &[u8],
    mut next_piece: impl FnMut(usize) -> usize,
) -> Result<Vec<Vec<u8>>, PackError> {
    let mut unpacker = Unpacker::default();
    let mut blobs = Vec::new();
    let mut rest = input;
    while !rest.is_empty() {
        let (piece, behind) = rest.split_at(next_piece(rest.len()));
        unpacker.push(piece)?;
        while let Some(blob) = unpacker.next_blob()? {
            assert!((1..=MAX_CHUNK_LEN).contains(&blob.len()));
            blobs.push(blob.to_vec());
        }
        rest = behind;
    }
    unpacker.finish().map(|()| blobs)
}

#[test]
fn pack() {
    let known = seeds::bytes("pack", &["pack", "bytes"]);
    fuzz("pack", known, 100_000, |input, dice| {
        // A piece that is not taken apart yet, twice while the buffer grows, and what the test collects of it.
        let most = 8 * input.len() + 4096;
        let whole = within(most, || unpack(input, |left| left));
        let step = 1 + dice.below(700);
        let pieces = within(most, || {
            unpack(input, |left| left.min(1 + dice.below(step)))
        });
        assert_eq!(whole, pieces, "it depends on how it arrives");
        let blobs = whole.map_err(|error| format!("{error:?}"))?;
        let mut again = PACK_HEADER.to_vec();
        blobs.iter().for_each(|blob| push_framed(&mut again, blob));
        assert_eq!(again, input);
        Ok(format!("{} blobs", blobs.len().min(9)))
    });
}

fn deframe(
    input: &[u8],
    max_len: usize,
    mut next_piece: impl FnMut(usize) -> usize,
) -> Result<Vec<Vec<u8>>, FrameError> {
    let mut deframer = Deframer::new(max_len);
    let mut parts = Vec::new();
    let mut rest = input;
    while !rest.is_empty() {
        let (piece, behind) = rest.split_at(next_piece(rest.len()));
        deframer.push(piece);
        while let Some(part) = deframer.next_part()? {
            assert!(part.len() <= max_len);
            parts.push(part.to_vec());
        }
        rest = behind;
    }
    deframer.finish().map(|()| parts)
}

#[test]
fn framed_answer() {
    let mut known = Vec::new();
    for parts in [
        &[&b"one"[..], b"", b"three"][..],
        &[&[7; 300]],
        &[b"", b""],
        &[],
    ] {
        let mut framed = Vec::new();
        parts.iter().for_each(|part| push_framed(&mut framed, part));
        known.push(framed);
    }
    fuzz("framed answer", known, 200_000, |input, dice| {
        // A part is a vector of its own here, which an empty one of four bytes costs most.
        let most = 24 * input.len() + 4096;
        let whole = within(most, || deframe(input, 1000, |left| left));
        let step = 1 + dice.below(700);
        let pieces = within(most, || {
            deframe(input, 1000, |left| left.min(1 + dice.below(step)))
        });
        assert_eq!(whole, pieces, "it depends on how it arrives");
        let parts = whole.map_err(|error| format!("{error:?}"))?;
        let mut again = Vec::new();
        parts.iter().for_each(|part| push_framed(&mut again, part));
        assert_eq!(again, input);
        Ok(format!("{} parts", parts.len().min(9)))
    });
}
