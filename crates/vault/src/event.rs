//! Live progress between machines: sealed hints that never change a state (format.md, "Events").

use syncagent_protocol::MachineId;

use crate::VaultError;
use crate::crypto;
use crate::keys::Keys;
use crate::random::{self, Random};

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
    let salt: [u8; SALT_LEN] = random::bytes(random);
    let key = crypto::hmac_key(keys.event.expose(), &[&[3], &machine.0, &salt]);
    let mut clear = counter.to_be_bytes().to_vec();
    clear.extend_from_slice(json.as_bytes());
    // Spaces after the JSON text mean nothing to its parser.
    clear.resize(8 + json.len().next_multiple_of(STEP).max(STEP), b' ');
    let tag = crypto::seal(key.expose(), [0; 12], &aad(keys, machine), &mut clear)?;
    Ok([&salt[..], &clear, &tag].concat())
}

/// Opens an event of `machine`: its counter and its JSON text.
pub fn open(keys: &Keys, machine: MachineId, bytes: &[u8]) -> Result<(u64, String), VaultError> {
    let bad = VaultError::Op("an event that does not open");
    let (salt, sealed) = bytes.split_first_chunk::<SALT_LEN>().ok_or(bad.clone())?;
    let key = crypto::hmac_key(keys.event.expose(), &[&[3], &machine.0, salt]);
    let mut clear = vec![0; sealed.len().saturating_sub(crypto::TAG_LEN)];
    crypto::open(
        key.expose(),
        [0; 12],
        &aad(keys, machine),
        sealed,
        &mut clear,
    )
    .ok_or(bad.clone())?;
    let (counter, json) = clear.split_first_chunk::<8>().ok_or(bad.clone())?;
    if json.is_empty() || !json.len().is_multiple_of(STEP) {
        return Err(bad);
    }
    let json = std::str::from_utf8(json)
        .map_err(|_| bad)?
        .trim_end_matches(' ')
        .to_owned();
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
}
