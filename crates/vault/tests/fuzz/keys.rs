//! Key slots, exports, recovery codes, invitations and events: what people carry and machines tell each other.

use data_encoding::BASE64URL_NOPAD;
use syncagent_protocol::invitation::Invitation;
use syncagent_protocol::{Code, MachineId};
use syncagent_vault::VaultError;
use syncagent_vault::event;
use syncagent_vault::export;
use syncagent_vault::recovery::RecoveryCode;
use syncagent_vault::slot::{Opener, Password, Slot, SlotType};

use crate::engine::{fuzz, within};
use crate::made;
use crate::seeds;

const KIB: usize = 1024;

fn slots() -> Vec<Vec<u8>> {
    seeds::bytes("slot", &["slot", "bytes"])
}

fn said(error: &VaultError) -> String {
    format!("{} {error}", error.code())
}

#[test]
fn key_slot() {
    fuzz("key slot", slots(), 300_000, |input, _| {
        // It is copied, and nothing is asked for on the heap.
        let slot = within(0, || Slot::parse(input)).map_err(|error| said(&error))?;
        assert_eq!(slot.as_bytes().as_slice(), input);
        Ok(format!("{:?}", slot.slot_type() == SlotType::Password))
    });
}

#[test]
fn key_slot_behind_the_commitment() {
    let secret = [0x5a; 20];
    fuzz("key slot, sealed", slots(), 60_000, |input, _| {
        let mut fields = [0; 80];
        let len = input.len().min(80);
        fields[..len].copy_from_slice(&input[..len]);
        let slot = made::slot(&fields, &secret, [1; 12]);
        let slot = within(0, || Slot::parse(&slot)).map_err(|error| said(&error))?;
        if slot.slot_type() == SlotType::Password {
            return Ok("a password's".into());
        }
        // Form and policy are all that may stand in the way of what is sealed as it should be.
        let code = RecoveryCode::from_bytes(&secret);
        let key = within(4 * KIB, || slot.open(&Opener::Recovery(&code), None)).unwrap();
        assert_eq!(key.vault().0, fields[36..52]);
        let other = RecoveryCode::from_bytes(&[0x5b; 20]);
        assert!(slot.open(&Opener::Recovery(&other), None).is_err());
        Ok("opened".into())
    });
}

/// Where the parts of an export stand, if all of it is there: genesis, address.
fn parts(export: &[u8]) -> Option<(&[u8], &[u8])> {
    let prefixed = |at: usize| {
        let len = u16::from_be_bytes(*export.get(at..)?.first_chunk()?);
        export.get(at + 2..at + 2 + usize::from(len))
    };
    let genesis = prefixed(220)?;
    Some((genesis, prefixed(222 + genesis.len())?))
}

/// Deriving takes a tenth of a second, so there are few cases; what is refused before costs nothing.
#[test]
fn export_behind_its_mac() {
    let known = seeds::bytes("export", &["export", "bytes"]);
    let password = Password::new("correct horse battery staple");
    let u = seeds::bytes("export", &["u"]).remove(0);
    let cases = known.len() as u64 + 50;
    fuzz("export", known, cases, |input, dice| {
        let mut input = input.to_vec();
        // Without salt and parameters as they are, no password is the right one.
        let floor = [&65_536u32.to_be_bytes()[..], &3u32.to_be_bytes(), &[4]].concat();
        let derives = match input.get(8..180).map(Slot::parse) {
            Some(Ok(_)) if input[16..25] != floor => return Err("another derivation".into()),
            Some(Ok(_)) => true,
            _ => false,
        };
        if derives && !dice.one_in(4) {
            let end = input.len().saturating_sub(32).max(180);
            input.truncate(end);
            let salt: [u8; 16] = input[28..44].try_into().unwrap();
            let mac_key = made::hkdf(&u, &salt, &[b"SyncAgent/v1/export"]);
            let mac = made::hmac(&mac_key, &[&input]);
            input.extend_from_slice(&mac);
        }
        let text = BASE64URL_NOPAD.encode(&input);
        // The derivation fills the memory that the policy's floor asks for, and lanes need a little beside it.
        let derivation = if derives { 65_536 * KIB + 64 * KIB } else { 0 };
        let most = 8 * text.len() + 4 * KIB + derivation;
        let (key, contents) =
            within(most, || export::open(&text, &password)).map_err(|error| said(&error))?;
        let (genesis, url) = parts(&input).unwrap();
        assert_eq!(contents.url.as_bytes(), url);
        assert_eq!(
            (contents.n.to_be_bytes(), contents.hash.0),
            (
                input[180..188].try_into().unwrap(),
                input[188..220].try_into().unwrap()
            )
        );
        assert_eq!(key.vault().0, input[44..60]);
        if genesis.iter().all(|byte| *byte < 128) {
            assert_eq!(contents.genesis.encode(), genesis);
        }
        Ok("opened".into())
    });
}

/// The text of an export, whose bytes are not looked at: what is no base64url costs its own length.
#[test]
fn export_text() {
    let mut known = vec![b"SAEX".to_vec(), b" AA==\n".to_vec(), b"AAB".to_vec()];
    known.extend(seeds::from("export", |object| {
        object["text"]
            .as_str()
            .map(|text| text.as_bytes().to_vec())
            .into_iter()
            .collect()
    }));
    let password = Password::new("correct horse battery staple");
    let whole = known.iter().map(Vec::len).max().unwrap();
    fuzz("export text", known, 120, |input, _| {
        let text = String::from_utf8_lossy(input);
        let bytes = BASE64URL_NOPAD.decode(text.trim().as_bytes());
        let derives = bytes.as_ref().is_ok_and(|bytes| {
            bytes
                .get(8..180)
                .is_some_and(|slot| Slot::parse(slot).is_ok())
        });
        if derives && input.len() != whole {
            return Err("a slot, and another length".into());
        }
        let most = 8 * text.len() + 4 * KIB + if derives { 65_600 * KIB } else { 0 };
        let (_, contents) =
            within(most, || export::open(&text, &password)).map_err(|error| said(&error))?;
        assert_eq!(BASE64URL_NOPAD.encode(&bytes.unwrap()), text.trim());
        Ok(format!("position {}", contents.n))
    });
}

#[test]
fn recovery_code() {
    let known = seeds::from("recovery", |object| {
        let also = object["also_read"].as_array().into_iter().flatten();
        let texts = also
            .chain([&object["text"]])
            .filter_map(serde_json::Value::as_str);
        texts.map(|text| text.as_bytes().to_vec()).collect()
    });
    fuzz("recovery code", known, 200_000, |input, _| {
        let text = String::from_utf8_lossy(input);
        // 36 values, 20 bytes; not a byte more however long the text is.
        let read: Result<RecoveryCode, _> = within(256, || text.parse());
        let read = read.map_err(|error| said(&error))?;
        let plain: String = text
            .chars()
            .filter(|c| !matches!(c, '-' | ' ' | '\t' | '\r' | '\n'))
            .map(|c| match c.to_ascii_uppercase() {
                'O' => '0',
                'I' | 'L' => '1',
                c => c,
            })
            .collect();
        assert_eq!(read.to_text().replace('-', ""), plain);
        Ok("read".into())
    });
}

#[test]
fn invitation() {
    let known = seeds::from("invitation", |object| {
        let text = object["text"].as_str();
        text.map(|text| text.as_bytes().to_vec())
            .into_iter()
            .collect()
    });
    fuzz("invitation", known, 200_000, |input, _| {
        let text = String::from_utf8_lossy(input);
        // The text in lower case, its bytes, and the tables of the alphabet.
        let most = 3 * text.len() + 4 * KIB;
        let read: Result<Invitation, _> = within(most, || text.parse());
        let read = read.map_err(|error| error.to_string())?;
        assert_eq!(read.to_text(), text.trim().to_ascii_lowercase());
        Ok(format!("{}", read.certificate().is_some()))
    });
}

const MACHINE: [u8; 16] = [0x77; 16];

#[test]
fn event_behind_the_tag() {
    let mut known: Vec<Vec<u8>> = Vec::new();
    for json in [
        "{}",
        "{\"type\":\"progress\",\"path\":\"a/b\",\"done\":1e3}",
        "[[[[]]]]",
        "\"\\ud83d\\ude00\"",
        "nul",
    ] {
        for len in [256, 512, 4096] {
            let mut clear = [&9u64.to_be_bytes()[..], json.as_bytes()].concat();
            clear.resize(len, b' ');
            known.push(clear);
        }
    }
    known.extend(["", " ", "null"].map(|json| [&[0; 8], json.as_bytes()].concat()));
    let keys = made::keys();
    fuzz("event", known, 100_000, |input, dice| {
        let mut clear = input.to_vec();
        if !dice.one_in(4) && clear.len() >= 8 {
            // Let it not fail for its length alone.
            while clear.len() > 8 && clear.ends_with(b" ") {
                clear.pop();
            }
            clear.truncate(4096);
            clear.resize(clear.len().next_multiple_of(256), b' ');
        }
        let sealed = made::event(&MACHINE, &[4; 32], &clear);
        // Never more than the longest event is worth, whatever comes.
        let opened = within(16 * KIB, || event::open(&keys, MachineId(MACHINE), &sealed));
        let (counter, json) = opened.map_err(|error| {
            assert_eq!(error.code(), Code::Commit);
            format!("{} bytes", if clear.len() > 4096 { "many" } else { "few" })
        })?;
        let mut again = [&counter.to_be_bytes()[..], json.as_bytes()].concat();
        again.resize(clear.len(), b' ');
        assert_eq!(again, clear);
        let value: serde_json::Value = serde_json::from_str(&json).unwrap_or_default();
        let kind = match value {
            serde_json::Value::Null => "null, or too deep",
            serde_json::Value::Object(_) => "object",
            _ => "other",
        };
        Ok(kind.into())
    });
}

#[test]
fn sealed_event() {
    let known = seeds::bytes("event", &["event", "bytes"]);
    let keys = made::keys();
    let author = seeds::from("event", |object| {
        let author = seeds::field(object, "machine_id");
        author
            .filter(|_| object["event"].is_string())
            .into_iter()
            .collect()
    });
    let author = MachineId(author[0].as_slice().try_into().unwrap());
    fuzz("sealed event", known, 200_000, |input, _| {
        let opened = within(16 * KIB, || event::open(&keys, author, input));
        opened
            .map(|_| "opened".into())
            .map_err(|error| said(&error))
    });
}
