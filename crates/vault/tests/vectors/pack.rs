use syncagent_protocol::Code;
use syncagent_protocol::pack::{PACK_HEADER, PackError, Unpacker, push_framed};

use crate::harness::{Fields, Refusal, hex, unhex};

pub(crate) fn code(_: &str) -> Option<Code> {
    Some(Code::Chunk)
}

fn read(pack: &[u8], step: usize) -> Result<Vec<Vec<u8>>, PackError> {
    let mut unpacker = Unpacker::default();
    let mut blobs = Vec::new();
    for piece in pack.chunks(step) {
        unpacker.push(piece)?;
        while let Some(blob) = unpacker.next_blob()? {
            blobs.push(blob.to_vec());
        }
    }
    unpacker.finish()?;
    Ok(blobs)
}

pub(crate) fn case(c: &Fields<'_>) {
    let blobs: Vec<Vec<u8>> = c.texts("blobs").into_iter().map(unhex).collect();
    let mut pack = PACK_HEADER.to_vec();
    for blob in &blobs {
        push_framed(&mut pack, blob);
    }
    assert_eq!(hex(&pack), c.text("pack"));
    for step in [1, 7, 4096, pack.len()] {
        assert_eq!(read(&pack, step), Ok(blobs.clone()));
    }
}

pub(crate) fn refuse(parsed_as: &str, c: &Fields<'_>) -> Refusal {
    assert_eq!(parsed_as, "pack");
    let pack = c.bytes("bytes");
    let whole = read(&pack, pack.len().max(1));
    assert_eq!(whole, read(&pack, 1));
    whole.map(drop).map_err(|error| Some(error.code()))
}
