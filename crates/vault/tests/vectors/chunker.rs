use syncagent_protocol::Code;
use syncagent_vault::chunker::{Chunker, Class};

use crate::harness::{Fields, sha256};

pub(crate) use crate::harness::nothing_is_refused as refuse;

pub(crate) fn code(_: &str) -> Option<Code> {
    None
}

pub(crate) fn case(c: &Fields<'_>) {
    let key = c.vault_key();
    let gear = key.derive::<2048>("cdc-gear", 2).unwrap();
    assert_eq!(sha256(gear.expose()), c.array("gear_sha256"));
    let content = c.pieces("content");
    assert_eq!(content.len() as u64, c.number("content_length"));
    assert_eq!(sha256(&content), c.array("content_sha256"));
    let keys = key.keys().unwrap();
    let class = Class::from_number(c.byte("class")).unwrap();
    let mut chunker = Chunker::new(&keys, class).unwrap();
    let mut rest = content.as_slice();
    let mut cuts = Vec::new();
    while !rest.is_empty() {
        let whole = chunker.cut(rest).unwrap();
        // Everything up to the end of the file, or only as much as may be in a chunk: the cut is the same.
        let window = &rest[..rest.len().min(chunker.sizes().max)];
        assert_eq!(chunker.cut(window).unwrap(), whole);
        cuts.push(whole as u64);
        rest = &rest[whole..];
    }
    assert_eq!(cuts, c.numbers("cut_lengths"));
}
