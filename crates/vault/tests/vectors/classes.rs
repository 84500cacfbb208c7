use syncagent_protocol::Code;
use syncagent_vault::chunker::{CLASSES, Class};

use crate::harness::Fields;

pub(crate) use crate::harness::nothing_is_refused as refuse;

pub(crate) fn code(_: &str) -> Option<Code> {
    None
}

pub(crate) fn case(c: &Fields<'_>) {
    let class = c.byte("class");
    if c.has("size") {
        let current = match c.value("current").is_null() {
            true => None,
            false => Some(Class::from_number(c.byte("current")).unwrap()),
        };
        assert_eq!(Class::of(c.number("size"), current).number(), class);
        return;
    }
    let sizes = Class::from_number(class).unwrap().sizes();
    assert_eq!(sizes.min as u64, c.number("min"));
    assert_eq!(sizes.avg as u64, c.number("avg"));
    assert_eq!(sizes.max as u64, c.number("max"));
    assert_eq!(Class::from_number(CLASSES), None);
}
