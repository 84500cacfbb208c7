use syncagent_protocol::{ChunkId, Code};
use syncagent_vault::chunk::{
    self, ChunkKey, Codec, Entry, Scope, open_data, open_list, seal_data,
};

use crate::harness::{Fields, Refusal, hex, sha256};

pub(crate) fn code(_: &str) -> Option<Code> {
    Some(Code::Chunk)
}

pub(crate) fn entry(c: &Fields<'_>) -> Entry {
    Entry {
        id: ChunkId(c.array("chunk_id")),
        key: ChunkKey::from_bytes(&c.array("ck")),
        len: c.number("len"),
    }
}

pub(crate) fn same(a: &Entry, b: &Entry) -> bool {
    a.id == b.id && a.key.expose() == b.key.expose() && a.len == b.len
}

pub(crate) fn case(c: &Fields<'_>) {
    assert_eq!(c.number("kind"), 0);
    let (keys, scope) = (c.keys(), Scope(c.array("scope")));
    let (content, entry) = (c.pieces("content"), entry(c));
    assert_eq!(content.len() as u64, entry.len);
    let frame_len = c.number("frame_length") as usize;
    assert_eq!(c.number("blob_length") as usize, 12 + frame_len + 16);
    let stored = c.text("codec") == "none";
    if stored {
        let mut frame = (content.len() as u32).to_be_bytes().to_vec();
        frame.extend_from_slice(&[0; 4]);
        frame.extend_from_slice(&content);
        frame.resize(chunk::padded_len(frame.len()), 0);
        assert_eq!(frame.len(), frame_len);
        assert_eq!(sha256(&frame), c.array("frame_sha256"));
    } else {
        assert_eq!(c.text("codec"), "zstd");
        // It is what opens as the content below.
        c.implied_by_the_rest("frame_sha256");
    }
    let blob = match c.flag("seal") {
        true => {
            assert!(stored);
            let sealed = seal_data(&keys, scope, &content, Codec::Stored).unwrap();
            assert!(same(&sealed.entry, &entry));
            if c.has("blob") {
                assert_eq!(hex(&sealed.blob), c.text("blob"));
            }
            sealed.blob
        }
        false => c.bytes("blob"),
    };
    assert_eq!(blob.len(), 12 + frame_len + 16);
    assert_eq!(sha256(&blob), entry.id.0);
    assert_eq!(open_data(&keys, scope, &entry, &blob).unwrap(), content);
}

pub(crate) fn refuse(parsed_as: &str, c: &Fields<'_>) -> Refusal {
    assert_eq!(parsed_as, "chunk");
    let keys = c.keys_of_vid_alone();
    let (scope, entry, blob) = (Scope(c.array("scope")), entry(c), c.bytes("bytes"));
    let opened = match c.number("kind") {
        0 => open_data(&keys, scope, &entry, &blob).map(drop),
        1 => open_list(&keys, scope, &entry, &blob).map(drop),
        kind => panic!("there are no chunks of kind {kind}"),
    };
    opened.map_err(|error| Some(error.code()))
}
