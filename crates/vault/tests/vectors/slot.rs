use syncagent_protocol::Code;
use syncagent_vault::recovery::RecoveryCode;
use syncagent_vault::slot::{KdfParams, Opener, Password, Slot, SlotRandom, SlotType};

use crate::harness::{Fields, Refusal, sha256};

pub(crate) fn code(rule: &str) -> Option<Code> {
    Some(match rule.starts_with("policy_") {
        true => Code::KdfPolicy,
        false => Code::Keyslot,
    })
}

pub(crate) fn password(c: &Fields<'_>) -> Password {
    Password::new(std::str::from_utf8(&c.bytes("password_utf8")).unwrap())
}

fn recovery_code(c: &Fields<'_>) -> RecoveryCode {
    RecoveryCode::from_bytes(&c.array("recovery_secret"))
}

pub(crate) fn case(c: &Fields<'_>) {
    let key = c.vault_key();
    let random = SlotRandom {
        salt: c.array("salt"),
        slot_id: c.array("slot_id"),
        nonce: c.array("nonce"),
    };
    let params = KdfParams {
        m_kib: c.number("m_kib").try_into().unwrap(),
        t: c.number("t").try_into().unwrap(),
        p: c.byte("p"),
    };
    let (password, recovery);
    let (slot_type, opener) = match c.number("type") {
        1 => {
            password = self::password(c);
            (SlotType::Password, Opener::Password(&password))
        }
        _ => {
            recovery = recovery_code(c);
            (SlotType::Recovery, Opener::Recovery(&recovery))
        }
    };
    let slot = Slot::seal(&key, &opener, params, c.number("created"), &random).unwrap();
    let raw = c.bytes("slot");
    assert_eq!(slot.as_bytes().as_slice(), raw);
    assert_eq!(raw[80..112], c.bytes("commitment"));
    assert_eq!(slot.hash(), c.array("slot_sha256"));
    assert_eq!(slot.hash(), sha256(&raw));
    assert_eq!(u64::from(slot_type.number()), c.number("type"));
    // The commitment is a hash of it.
    c.implied_by_the_rest("u");

    let read = Slot::parse(&raw).unwrap();
    assert_eq!(read.slot_type(), slot_type);
    assert_eq!((read.vault().0, read.slot_id()), (c.array("vid"), random.slot_id));
    let check_value = key.check_value().unwrap();
    let opened = read.open(&opener, Some(&check_value)).unwrap();
    assert_eq!(opened.check_value(), key.check_value());
    let another = [check_value[0] ^ 1; 16];
    assert!(read.open(&opener, Some(&another)).is_err());
}

pub(crate) fn refuse(parsed_as: &str, c: &Fields<'_>) -> Refusal {
    let (password, recovery);
    let (opener, derives) = match parsed_as {
        "slot_password" | "slot_recovery" => {
            password = Password::new("");
            recovery = RecoveryCode::from_bytes(&[0; 20]);
            match parsed_as {
                "slot_password" => (Opener::Password(&password), false),
                _ => (Opener::Recovery(&recovery), false),
            }
        }
        "slot_open_password" => {
            password = self::password(c);
            (Opener::Password(&password), true)
        }
        "slot_open_recovery" => {
            recovery = recovery_code(c);
            (Opener::Recovery(&recovery), true)
        }
        other => panic!("nobody reads {other}"),
    };
    let expected = match opener {
        Opener::Password(_) => SlotType::Password,
        Opener::Recovery(_) => SlotType::Recovery,
    };
    let slot = Slot::parse(&c.bytes("bytes")).map_err(|error| Some(error.code()))?;
    // What has the form and the type that is expected would be derived for.
    assert_eq!(slot.slot_type() == expected, derives);
    slot.open(&opener, None)
        .map(drop)
        .map_err(|error| Some(error.code()))
}
