//! Export `SAEX`: the vault key under a password of its own, with the position its maker had seen.
//!
//! One line of text (base64url without padding). The new machine starts from the position inside and so
//! notices a server that shows it an older or different history.

use data_encoding::BASE64URL_NOPAD;
use syncagent_protocol::CommitHash;
use zeroize::Zeroizing;

use crate::VaultError;
use crate::crypto;
use crate::keys::VaultKey;
use crate::op::Genesis;
use crate::secret::Secret;
use crate::slot::{KdfParams, Opener, Password, SLOT_LEN, Slot, SlotRandom};

const MAGIC: &[u8; 8] = b"SAEX\x01\0\0\0";
const MAC_LEN: usize = 32;

/// What travels beside the key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Contents {
    /// The position the exporting machine had verified; 0 before the first commit.
    pub n: u64,
    /// The hash at that position.
    pub hash: CommitHash,
    /// The vault's fixed choices.
    pub genesis: Genesis,
    /// Address of the server; may be empty.
    pub url: String,
}

fn mac_key(u: &Secret<32>, slot: &[u8]) -> Result<Secret<32>, VaultError> {
    crypto::hkdf(u.expose(), &slot[20..36], &[b"SyncAgent/v1/export"])
}

/// Seals an export: one line of text, without a line break.
pub fn seal(
    key: &VaultKey,
    password: &Password,
    params: KdfParams,
    created_unix_s: u64,
    random: &SlotRandom,
    contents: &Contents,
) -> Result<Zeroizing<String>, VaultError> {
    let (slot, u) = Slot::seal_keeping_u(
        key,
        &Opener::Password(password),
        params,
        created_unix_s,
        random,
    )?;
    let genesis = contents.genesis.encode();
    let url_len = u16::try_from(contents.url.len()).map_err(|_| VaultError::Export)?;
    let mut bytes = Vec::new();
    bytes.extend_from_slice(MAGIC);
    bytes.extend_from_slice(slot.as_bytes());
    bytes.extend_from_slice(&contents.n.to_be_bytes());
    bytes.extend_from_slice(&contents.hash.0);
    bytes.extend_from_slice(&(genesis.len() as u16).to_be_bytes());
    bytes.extend_from_slice(&genesis);
    bytes.extend_from_slice(&url_len.to_be_bytes());
    bytes.extend_from_slice(contents.url.as_bytes());
    let mac = crypto::hmac(mac_key(&u, slot.as_bytes())?.expose(), &[&bytes]);
    bytes.extend_from_slice(&mac);
    Ok(Zeroizing::new(BASE64URL_NOPAD.encode(&bytes)))
}

/// Opens an export.
pub fn open(text: &str, password: &Password) -> Result<(VaultKey, Contents), VaultError> {
    let bytes = BASE64URL_NOPAD
        .decode(text.trim().as_bytes())
        .map_err(|_| VaultError::Export)?;
    // The form first: nothing is derived for a text that is no export.
    let (body, mac) = bytes
        .split_last_chunk::<MAC_LEN>()
        .ok_or(VaultError::Export)?;
    let (magic, rest) = body.split_first_chunk::<8>().ok_or(VaultError::Export)?;
    let (slot_bytes, rest) = rest
        .split_first_chunk::<SLOT_LEN>()
        .ok_or(VaultError::Export)?;
    let (n, rest) = rest.split_first_chunk::<8>().ok_or(VaultError::Export)?;
    let (hash, rest) = rest.split_first_chunk::<32>().ok_or(VaultError::Export)?;
    let (genesis, rest) = prefixed(rest)?;
    let (url, rest) = prefixed(rest)?;
    if magic != MAGIC || !rest.is_empty() {
        return Err(VaultError::Export);
    }
    let slot = Slot::parse(slot_bytes).map_err(|error| match error {
        VaultError::KdfPolicy => error,
        _ => VaultError::Export,
    })?;
    let (key, u) = slot
        .open_keeping_u(&Opener::Password(password))
        .map_err(|_| VaultError::Export)?;
    if !crypto::equal(
        &crypto::hmac(mac_key(&u, slot_bytes)?.expose(), &[body]),
        mac,
    ) {
        return Err(VaultError::Export);
    }
    let genesis = Genesis::parse(genesis).map_err(|error| match error {
        VaultError::Version(_) => error,
        _ => VaultError::Export,
    })?;
    let (n, hash) = (u64::from_be_bytes(*n), CommitHash(*hash));
    let stands = match n {
        0 => hash == CommitHash::genesis(slot.vault()),
        _ => i64::try_from(n).is_ok(),
    };
    if !stands {
        return Err(VaultError::Export);
    }
    let url = std::str::from_utf8(url)
        .map_err(|_| VaultError::Export)?
        .to_owned();
    let contents = Contents {
        n,
        hash,
        genesis,
        url,
    };
    Ok((key, contents))
}

fn prefixed(bytes: &[u8]) -> Result<(&[u8], &[u8]), VaultError> {
    let (len, rest) = bytes.split_first_chunk::<2>().ok_or(VaultError::Export)?;
    rest.split_at_checked(usize::from(u16::from_be_bytes(*len)))
        .ok_or(VaultError::Export)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::random::OsRandom;

    #[test]
    fn an_export_opens_with_its_password_only() {
        let random = OsRandom::default();
        let key = VaultKey::generate(&random);
        let password = Password::new("a password of its own");
        let contents = Contents {
            n: 7,
            hash: CommitHash([4; 32]),
            genesis: Genesis {
                dedup_vault: true,
                ..Genesis::default()
            },
            url: "http://127.0.0.1:1".into(),
        };
        let text = seal(
            &key,
            &password,
            KdfParams::FLOOR,
            1,
            &SlotRandom::new(&random),
            &contents,
        )
        .unwrap();
        let (back, seen) = open(&format!("{}\n", *text), &password).ok().unwrap();
        assert_eq!(
            (back.expose(), back.vault(), seen),
            (key.expose(), key.vault(), contents)
        );
        assert_eq!(
            open(&text, &Password::new("another password")).err(),
            Some(VaultError::Export)
        );
        assert!(open(&text[..text.len() - 4], &password).is_err());
    }
}
