use syncagent_protocol::Code;
use syncagent_protocol::{commit, pack};

use crate::harness::Fields;

pub(crate) use crate::harness::nothing_is_refused as refuse;

pub(crate) fn code(_: &str) -> Option<Code> {
    None
}

pub(crate) fn case(c: &Fields<'_>) {
    if c.has("tlv_length") {
        let body_len = c.number("body_length") as usize;
        assert_eq!(
            commit::padded_len(4 + c.number("tlv_length") as usize),
            body_len
        );
        assert!(commit::is_padded_len(body_len));
        return;
    }
    let padded = c.number("padded") as usize;
    assert_eq!(pack::padded_len(c.number("length") as usize), padded);
    assert_eq!(pack::padded_len(padded), padded);
}
