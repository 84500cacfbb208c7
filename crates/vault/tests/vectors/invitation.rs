use syncagent_protocol::Code;
use syncagent_protocol::invitation::Invitation;

use crate::harness::{Fields, Refusal};

pub(crate) fn code(_: &str) -> Option<Code> {
    None
}

pub(crate) fn case(c: &Fields<'_>) {
    let certificate = c.bytes("certificate_sha256");
    let certificate = (!certificate.is_empty()).then(|| certificate.try_into().unwrap());
    let text = c.text("text");
    assert_eq!(Invitation::new(c.array("secret"), certificate).to_text(), text);
    for typed in [text, &text.to_uppercase(), &format!("\t {text}\r\n")] {
        let read: Invitation = typed.parse().unwrap();
        assert_eq!(read.secret(), &c.array("secret"));
        assert_eq!(read.certificate(), certificate.as_ref());
    }
}

pub(crate) fn refuse(parsed_as: &str, c: &Fields<'_>) -> Refusal {
    assert_eq!(parsed_as, "invitation");
    assert_eq!(c.bytes("bytes"), c.text("text").as_bytes());
    let read: Result<Invitation, _> = c.text("text").parse();
    read.map(drop).map_err(|_| None)
}
