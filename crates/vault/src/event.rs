//! Live progress between machines: sealed hints that never change a state (format.md, "Events").

use syncagent_protocol::MachineId;
use syncagent_protocol::commit::FormatError;

use crate::VaultError;
use crate::crypto;
use crate::keys::Keys;
use crate::random::{self, Random};

/// The longest plaintext: counter, JSON text and the spaces behind it.
pub const MAX_PLAIN_LEN: usize = 4096;

const SALT_LEN: usize = 32;
const STEP: usize = 256;

fn aad(keys: &Keys, machine: MachineId) -> [u8; 32] {
    let mut aad = [0; 32];
    aad[..16].copy_from_slice(&keys.vault.0);
    aad[16..].copy_from_slice(&machine.0);
    aad
}

/// Seals `json` as message number `counter` of this connection.
pub fn seal(
    keys: &Keys,
    machine: MachineId,
    counter: u64,
    json: &str,
    random: &dyn Random,
) -> Result<Vec<u8>, VaultError> {
    // Spaces after the JSON text mean nothing to its parser.
    let len = (8 + json.len()).next_multiple_of(STEP);
    if len > MAX_PLAIN_LEN {
        return Err(VaultError::Commit(FormatError::Limit("size of an event")));
    }
    let salt: [u8; SALT_LEN] = random::bytes(random);
    let key = crypto::hmac_key(keys.event.expose(), &[&[3], &machine.0, &salt]);
    let mut clear = Vec::with_capacity(len);
    clear.extend_from_slice(&counter.to_be_bytes());
    clear.extend_from_slice(json.as_bytes());
    clear.resize(len, b' ');
    let tag = crypto::seal(key.expose(), [0; 12], &aad(keys, machine), &mut clear)?;
    Ok([&salt[..], &clear, &tag].concat())
}

/// Opens an event of `machine`: its counter and its JSON text, whose form was checked.
pub fn open(keys: &Keys, machine: MachineId, bytes: &[u8]) -> Result<(u64, String), VaultError> {
    let bad = || VaultError::Op("an event that does not open");
    let (salt, sealed) = bytes.split_first_chunk::<SALT_LEN>().ok_or_else(bad)?;
    let len = sealed.len().saturating_sub(crypto::TAG_LEN);
    if len == 0 || len > MAX_PLAIN_LEN || !len.is_multiple_of(STEP) {
        return Err(bad());
    }
    let key = crypto::hmac_key(keys.event.expose(), &[&[3], &machine.0, salt]);
    let mut clear = vec![0; len];
    crypto::open(
        key.expose(),
        [0; 12],
        &aad(keys, machine),
        sealed,
        &mut clear,
    )
    .ok_or_else(bad)?;
    let (counter, json) = clear.split_first_chunk::<8>().ok_or_else(bad)?;
    let json = std::str::from_utf8(json).map_err(|_| bad())?;
    // The padding, too, is part of the JSON text: white space at its end.
    serde_json::from_str::<serde::de::IgnoredAny>(json).map_err(|_| bad())?;
    let json = json.trim_end_matches(' ').to_owned();
    Ok((u64::from_be_bytes(*counter), json))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::keys::VaultKey;
    use crate::random::OsRandom;

    #[test]
    fn only_the_named_machine_could_have_sent_it() {
        let random = OsRandom::default();
        let keys = VaultKey::generate(&random).keys().unwrap();
        let sealed = seal(&keys, MachineId([1; 16]), 7, r#"{"a":1}"#, &random).unwrap();
        assert_eq!(
            open(&keys, MachineId([1; 16]), &sealed).unwrap(),
            (7, r#"{"a":1}"#.to_owned())
        );
        assert!(open(&keys, MachineId([2; 16]), &sealed).is_err());
        assert!(open(&keys, MachineId([1; 16]), &sealed[1..]).is_err());
        assert!(open(&keys, MachineId([1; 16]), &[]).is_err());
    }

    #[test]
    fn lengths_tell_steps_of_256_and_end_at_4096() {
        let random = OsRandom::default();
        let keys = VaultKey::generate(&random).keys().unwrap();
        let machine = MachineId([1; 16]);
        let sealed = |len: usize| {
            let json = format!("\"{}\"", "x".repeat(len - 2));
            seal(&keys, machine, 1, &json, &random)
        };
        for (len, plain) in [(2, 256), (248, 256), (249, 512), (4088, 4096)] {
            let event = sealed(len).unwrap();
            assert_eq!(event.len(), 32 + plain + 16);
            assert_eq!(open(&keys, machine, &event).unwrap().1.len(), len);
        }
        assert_eq!(sealed(4089).unwrap_err().code().as_str(), "E_LIMIT");
    }
}
