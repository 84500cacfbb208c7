//! The primitives, in the exact form that the format uses them.

use aws_lc_rs::aead::{AES_256_GCM, Aad, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};
use aws_lc_rs::{hkdf, hmac};

use crate::VaultError;
use crate::secret::Secret;

/// Length of an AES-GCM tag.
pub(crate) const TAG_LEN: usize = 16;

struct Len(usize);

impl hkdf::KeyType for Len {
    fn len(&self) -> usize {
        self.0
    }
}

/// HKDF-SHA-256 (RFC 5869) with `info` in parts.
pub(crate) fn hkdf<const N: usize>(
    ikm: &[u8],
    salt: &[u8],
    info: &[&[u8]],
) -> Result<Secret<N>, VaultError> {
    let mut out = Secret::zeroed();
    hkdf::Salt::new(hkdf::HKDF_SHA256, salt)
        .extract(ikm)
        .expand(info, Len(N))
        .and_then(|okm| okm.fill(out.as_mut()))
        .map_err(|_| VaultError::Provider)?;
    Ok(out)
}

/// HMAC-SHA-256 over `parts` joined.
pub(crate) fn hmac(key: &[u8], parts: &[&[u8]]) -> [u8; 32] {
    let mut context = hmac::Context::with_key(&hmac::Key::new(hmac::HMAC_SHA256, key));
    for part in parts {
        context.update(part);
    }
    let mut out = [0; 32];
    out.copy_from_slice(context.sign().as_ref());
    out
}

/// [`hmac`] whose result is a key.
pub(crate) fn hmac_key(key: &[u8], parts: &[&[u8]]) -> Secret<32> {
    let mut tag = hmac(key, parts);
    let secret = Secret::copy_from(&tag);
    zeroize::Zeroize::zeroize(&mut tag);
    secret
}

fn gcm(key: &[u8; 32]) -> Result<LessSafeKey, VaultError> {
    // "Less safe" means that the caller chooses nonces; the format says why each is used once.
    Ok(LessSafeKey::new(
        UnboundKey::new(&AES_256_GCM, key).map_err(|_| VaultError::Provider)?,
    ))
}

/// AES-256-GCM: encrypts `in_out` in place and returns the tag.
pub(crate) fn seal(
    key: &[u8; 32],
    nonce: [u8; NONCE_LEN],
    aad: &[u8],
    in_out: &mut [u8],
) -> Result<[u8; TAG_LEN], VaultError> {
    let tag = gcm(key)?
        .seal_in_place_separate_tag(Nonce::assume_unique_for_key(nonce), Aad::from(aad), in_out)
        .map_err(|_| VaultError::Provider)?;
    tag.as_ref().try_into().map_err(|_| VaultError::Provider)
}

/// AES-256-GCM: decrypts `ciphertext ‖ tag` into `out`. None if the tag does not fit.
pub(crate) fn open(
    key: &[u8; 32],
    nonce: [u8; NONCE_LEN],
    aad: &[u8],
    sealed: &[u8],
    out: &mut [u8],
) -> Option<()> {
    let (ciphertext, tag) = sealed.split_last_chunk::<TAG_LEN>()?;
    gcm(key)
        .ok()?
        .open_separate_gather(
            Nonce::assume_unique_for_key(nonce),
            Aad::from(aad),
            ciphertext,
            tag,
            out,
        )
        .ok()
}

/// Comparison whose time does not depend on where the inputs differ.
pub(crate) fn equal(a: &[u8], b: &[u8]) -> bool {
    aws_lc_rs::constant_time::verify_slices_are_equal(a, b).is_ok()
}
