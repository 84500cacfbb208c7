use syncagent_protocol::Code;
use syncagent_vault::recovery::RecoveryCode;

use crate::harness::{Fields, Refusal};

pub(crate) fn code(_: &str) -> Option<Code> {
    Some(Code::Keyslot)
}

pub(crate) fn case(c: &Fields<'_>) {
    let text = c.text("text");
    assert_eq!(*RecoveryCode::from_bytes(&c.array("recovery_secret")).to_text(), text);
    assert!(text.ends_with(c.text("check")));
    let also_read = c.texts("also_read");
    assert!(!also_read.is_empty());
    for typed in also_read.into_iter().chain([text]) {
        let read: RecoveryCode = typed.parse().ok().unwrap();
        // One code has one text, so equal texts are equal codes.
        assert_eq!(*read.to_text(), text, "{typed}");
    }
}

pub(crate) fn refuse(parsed_as: &str, c: &Fields<'_>) -> Refusal {
    assert_eq!(parsed_as, "recovery_code");
    assert_eq!(c.bytes("bytes"), c.text("text").as_bytes());
    let read: Result<RecoveryCode, _> = c.text("text").parse();
    read.map(drop).map_err(|error| Some(error.code()))
}
