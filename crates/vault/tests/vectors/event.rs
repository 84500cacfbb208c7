use syncagent_protocol::{Code, MachineId};
use syncagent_vault::event;

use crate::harness::{Drawn, Fields, Refusal, hex};

pub(crate) fn code(_: &str) -> Option<Code> {
    Some(Code::Commit)
}

pub(crate) fn case(c: &Fields<'_>) {
    let (keys, machine) = (c.keys(), MachineId(c.array("machine_id")));
    let (counter, json) = (c.number("counter"), c.bytes("json_utf8"));
    let json = std::str::from_utf8(&json).unwrap();
    let sealed = event::seal(&keys, machine, counter, json, &Drawn(c.array("salt"))).unwrap();
    assert_eq!(hex(&sealed), c.text("event"));
    // It sealed what is compared.
    c.implied_by_the_rest("event_message_key");
    let opened = event::open(&keys, machine, &sealed).unwrap();
    assert_eq!(opened, (counter, json.to_owned()));
}

pub(crate) fn refuse(parsed_as: &str, c: &Fields<'_>) -> Refusal {
    assert_eq!(parsed_as, "event");
    event::open(&c.keys(), MachineId(c.array("machine_id")), &c.bytes("bytes"))
        .map(drop)
        .map_err(|error| Some(error.code()))
}
