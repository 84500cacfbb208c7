use data_encoding::BASE64URL_NOPAD;
use syncagent_protocol::{Code, CommitHash};
use syncagent_vault::export::{self, Contents};
use syncagent_vault::op::Genesis;
use syncagent_vault::slot::{KdfParams, SlotRandom};

use crate::harness::{Fields, Refusal};
use crate::slot::password;

pub(crate) fn code(rule: &str) -> Option<Code> {
    Some(match rule {
        rule if rule.starts_with("policy_") => Code::KdfPolicy,
        "genesis_unknown_enrol_policy" => Code::Version,
        _ => Code::Keyslot,
    })
}

pub(crate) fn case(c: &Fields<'_>) {
    let (slot, password) = (c.bytes("slot"), password(c));
    let key = syncagent_vault::keys::VaultKey::from_parts(
        syncagent_vault::secret::Secret::copy_from(&c.array("vault_key")),
        syncagent_protocol::VaultId(c.array("vid")),
    );
    let u32_at = |at: usize| u32::from_be_bytes(slot[at..at + 4].try_into().unwrap());
    let params = KdfParams {
        m_kib: u32_at(8),
        t: u32_at(12),
        p: slot[16],
    };
    let created = u64::from_be_bytes(slot[56..64].try_into().unwrap());
    let random = SlotRandom {
        salt: slot[20..36].try_into().unwrap(),
        slot_id: slot[64..80].try_into().unwrap(),
        nonce: slot[112..124].try_into().unwrap(),
    };
    let contents = Contents {
        n: c.number("n"),
        hash: CommitHash(c.array("hash_n")),
        genesis: Genesis::parse(&c.bytes("genesis_tlv")).unwrap(),
        url: c.text("url").to_owned(),
    };
    assert_eq!(contents.genesis.encode(), c.bytes("genesis_tlv"));
    let text = export::seal(&key, &password, params, created, &random, &contents).unwrap();
    assert_eq!(*text, c.text("text"));
    assert_eq!(BASE64URL_NOPAD.encode(&c.bytes("export")), c.text("text"));
    // The slot and the MAC, both of which are inside, are made with it.
    c.implied_by_the_rest("u");

    let (opened, seen) = export::open(&format!(" {}\r\n", *text), &password)
        .ok()
        .unwrap();
    assert_eq!(opened.vault(), key.vault());
    assert_eq!(opened.check_value(), key.check_value());
    assert_eq!(seen, contents);
    // Padding and spare bits make other texts of the same bytes.
    assert!(export::open(&format!("{}=", *text), &password).is_err());
    assert!(export::open(&format!("{}==", *text), &password).is_err());
}

pub(crate) fn refuse(parsed_as: &str, c: &Fields<'_>) -> Refusal {
    assert_eq!(parsed_as, "export");
    let text = BASE64URL_NOPAD.encode(&c.bytes("bytes"));
    export::open(&text, &password(c))
        .map(drop)
        .map_err(|error| Some(error.code()))
}
