use syncagent_protocol::{Code, Name};

use crate::harness::{Fields, Refusal};

pub(crate) fn code(_: &str) -> Option<Code> {
    None
}

fn read(c: &Fields<'_>) -> Option<Name> {
    let name = Name::from_bytes(&c.bytes("bytes")).ok();
    let in_root = c.flag("in_root");
    name.filter(|name| !(in_root && name.is_reserved_in_root()))
}

pub(crate) fn case(c: &Fields<'_>) {
    let name = read(c).unwrap();
    assert_eq!(name.as_str().as_bytes(), c.bytes("bytes"));
}

pub(crate) fn refuse(parsed_as: &str, c: &Fields<'_>) -> Refusal {
    assert_eq!(parsed_as, "name");
    read(c).map(drop).ok_or(None)
}
