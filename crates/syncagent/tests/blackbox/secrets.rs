//! What must not be found where nobody may have it: everything between the master password and the keys of daily work,
//! computed from key file and password by the words of docs/format.md.

use std::fs;

use aws_lc_rs::aead::{AES_256_GCM, Aad, LessSafeKey, Nonce, UnboundKey};
use aws_lc_rs::hkdf;
use data_encoding::HEXLOWER;
use memchr::memmem::Finder;
use serde_json::Value;
use syncagent_protocol::VaultId;
use syncagent_vault::keys::VaultKey;
use syncagent_vault::secret::Secret;

use crate::world::Machine;

/// Half of a key is as good as a find: what was partly written over counts, too.
const PART: usize = 16;

/// Names and bytes.
pub(crate) struct Secrets(Vec<(&'static str, Vec<u8>)>);

struct Len(usize);

impl hkdf::KeyType for Len {
    fn len(&self) -> usize {
        self.0
    }
}

fn hkdf(ikm: &[u8], salt: &[u8], info: &[&[u8]]) -> [u8; 32] {
    let mut out = [0; 32];
    hkdf::Salt::new(hkdf::HKDF_SHA256, salt)
        .extract(ikm)
        .expand(info, Len(32))
        .and_then(|okm| okm.fill(&mut out))
        .unwrap();
    out
}

impl Secrets {
    /// Those of a machine that has a key.
    pub(crate) fn of(machine: &Machine) -> Self {
        let slot = fs::read(machine.home().join("key.saks")).unwrap();
        let text = fs::read_to_string(&machine.password).unwrap();
        let password = text.trim_end();
        let number = |at: usize| u32::from_be_bytes(slot[at..at + 4].try_into().unwrap());
        let params = argon2::Params::new(number(8), number(12), u32::from(slot[16]), Some(32));
        let mut u = [0; 32];
        argon2::Argon2::new(
            argon2::Algorithm::Argon2id,
            argon2::Version::V0x13,
            params.unwrap(),
        )
        .hash_password_into(password.as_bytes(), &slot[20..36], &mut u)
        .unwrap();
        let kek = hkdf(
            &u,
            &slot[20..36],
            &[b"SyncAgent/v1/", b"slot-kek", &[0], &slot[..80]],
        );
        let mut sealed = slot[124..].to_vec();
        let opened = LessSafeKey::new(UnboundKey::new(&AES_256_GCM, &kek).unwrap())
            .open_in_place(
                Nonce::try_assume_unique_for_key(&slot[112..124]).unwrap(),
                Aad::from(&slot[..124]),
                &mut sealed,
            )
            .unwrap();
        let raw: [u8; 32] = (&*opened).try_into().unwrap();
        let vault = VaultId(slot[36..52].try_into().unwrap());
        let key = VaultKey::from_parts(Secret::copy_from(&raw), vault);
        // It is the key that this machine has pinned, or the search would be for nothing.
        let here = fs::read_to_string(machine.home().join("machine.json")).unwrap();
        let here: Value = serde_json::from_str(&here).unwrap();
        let pinned = here["check_value"].as_str().unwrap();
        assert_eq!(HEXLOWER.encode(&key.check_value().unwrap()), pinned);
        let derived = |label, context| key.derive::<32>(label, context).unwrap().expose().to_vec();
        let table = key.derive::<2048>("cdc-gear", 2).unwrap();
        // In memory the table is of numbers.
        let numbers = table.expose()[..64]
            .chunks(8)
            .flat_map(|bytes| u64::from_be_bytes(bytes.try_into().unwrap()).to_ne_bytes());
        Self(vec![
            ("password", password.as_bytes().to_vec()),
            ("derived from the password", u.to_vec()),
            ("key of the slot", kek.to_vec()),
            ("vault key", raw.to_vec()),
            (
                "vault key in hexadecimal",
                HEXLOWER.encode(&raw).into_bytes(),
            ),
            ("chunk key", derived("chunk-key", 1)),
            ("op key", derived("op-key", 1)),
            ("event key", derived("event-key", 1)),
            ("chunker's table", numbers.collect()),
            ("chunker's table as derived", table.expose()[..64].to_vec()),
            (
                "chunker's key",
                key.derive::<16>("cdc-aes", 2).unwrap().expose().to_vec(),
            ),
        ])
    }

    /// One more.
    pub(crate) fn and(mut self, name: &'static str, bytes: &[u8]) -> Self {
        self.0.push((name, bytes.to_vec()));
        self
    }

    /// The names of those of which a part stands somewhere in `bytes`.
    pub(crate) fn found_in(&self, bytes: &[u8]) -> Vec<&'static str> {
        let stands = |secret: &Vec<u8>| {
            secret
                .chunks(PART)
                .filter(|part| part.len() == PART)
                .any(|part| Finder::new(part).find(bytes).is_some())
        };
        let found = self.0.iter().filter(|(_, secret)| stands(secret));
        found.map(|(name, _)| *name).collect()
    }
}
