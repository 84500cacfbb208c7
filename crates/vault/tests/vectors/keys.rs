use syncagent_protocol::{Code, CommitHash};
use syncagent_vault::machine::MachineKey;
use syncagent_vault::secret::Secret;

use crate::harness::{Fields, hex, sha256};

pub(crate) use crate::harness::nothing_is_refused as refuse;

pub(crate) fn code(_: &str) -> Option<Code> {
    None
}

pub(crate) fn case(c: &Fields<'_>) {
    if c.has("machine_seed") {
        let machine = MachineKey::from_seed(Secret::copy_from(&c.array("machine_seed"))).unwrap();
        assert_eq!(machine.public(), &c.array("public_key"));
        assert_eq!(machine.id().0, c.array("machine_id"));
        return;
    }
    // That these are the keys that seal is what the vectors of chunks, commits, events and cuts show.
    let key = c.vault_key();
    for (label, field) in [
        ("chunk-key", "chunk_key"),
        ("op-key", "op_key"),
        ("event-key", "event_key"),
    ] {
        let derived = key.derive::<32>(label, 1).unwrap();
        assert_eq!(hex(derived.expose()), c.text(field));
    }
    assert_eq!(key.check_value().unwrap(), c.array("kcv"));
    let gear = key.derive::<2048>("cdc-gear", 2).unwrap();
    let gear = gear.expose();
    assert_eq!(sha256(gear), c.array("gear_sha256"));
    assert_eq!(hex(&gear[..8]), c.text("gear_first"));
    assert_eq!(hex(&gear[2040..]), c.text("gear_last"));
    let aes = key.derive::<16>("cdc-aes", 2).unwrap();
    assert_eq!(hex(aes.expose()), c.text("cdc_aes_key"));
    assert_eq!(CommitHash::genesis(key.vault()).0, c.array("hash_0"));
}
