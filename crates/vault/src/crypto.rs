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
    hkdf_into(ikm, salt, info, out.as_mut())?;
    Ok(out)
}

fn hkdf_into(ikm: &[u8], salt: &[u8], info: &[&[u8]], out: &mut [u8]) -> Result<(), VaultError> {
    hkdf::Salt::new(hkdf::HKDF_SHA256, salt)
        .extract(ikm)
        .expand(info, Len(out.len()))
        .and_then(|okm| okm.fill(out))
        .map_err(|_| VaultError::Provider)
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

/// Project Wycheproof's known answers and known attacks, through the functions that all else here uses.
#[cfg(test)]
mod tests {
    use syncagent_protocol::signature;
    use wycheproof::{TestResult, aead, eddsa, hkdf as hkdf_tests, mac};

    use super::*;

    /// All of a set is tried but for what the types here cannot say, and that much is known.
    fn all_but(number_of_tests: usize, tried: usize, cannot_be_said: usize) {
        assert!(tried >= 60, "{tried} of {number_of_tests}");
        assert_eq!(tried + cannot_be_said, number_of_tests);
    }

    /// Nothing in these sets is left to taste.
    fn is_valid(result: TestResult) -> bool {
        assert!(
            !matches!(result, TestResult::Acceptable),
            "neither right nor wrong"
        );
        !result.must_fail()
    }

    #[test]
    fn aes_256_gcm_opens_what_it_should_and_nothing_else() {
        let set = aead::TestSet::load(aead::TestName::AesGcm).unwrap();
        let (mut tried, mut cannot_be_said) = (0, 0);
        for group in &set.test_groups {
            for test in &group.tests {
                let key: Result<[u8; 32], _> = test.key.as_slice().try_into();
                let nonce: Result<[u8; NONCE_LEN], _> = test.nonce.as_slice().try_into();
                let (Ok(key), Ok(nonce)) = (key, nonce) else {
                    cannot_be_said += 1;
                    continue;
                };
                let number = test.tc_id;
                let sealed = [test.ct.as_slice(), test.tag.as_slice()].concat();
                let mut clear = vec![0; test.ct.len()];
                let opened = open(&key, nonce, &test.aad, &sealed, &mut clear);
                assert_eq!(opened.is_some(), is_valid(test.result), "{number}");
                if opened.is_some() {
                    assert_eq!(clear, test.pt.as_slice(), "{number}");
                    let mut again = test.pt.to_vec();
                    let tag = seal(&key, nonce, &test.aad, &mut again).unwrap();
                    again.extend_from_slice(&tag);
                    assert_eq!(again, sealed, "{number}");
                }
                tried += 1;
            }
        }
        all_but(set.number_of_tests, tried, cannot_be_said);
    }

    #[test]
    fn hkdf_sha_256_gives_the_known_answers() {
        let set = hkdf_tests::TestSet::load(hkdf_tests::TestName::HkdfSha256).unwrap();
        let mut tried = 0;
        for test in set.test_groups.iter().flat_map(|group| &group.tests) {
            let mut out = vec![0; test.size];
            let derived = hkdf_into(&test.ikm, &test.salt, &[&test.info], &mut out);
            assert_eq!(derived.is_ok(), is_valid(test.result), "{}", test.tc_id);
            if derived.is_ok() {
                assert_eq!(out, test.okm.as_slice(), "{}", test.tc_id);
                // However `info` is cut into parts.
                let (head, tail) = test.info.split_at(test.info.len() / 2);
                hkdf_into(&test.ikm, &test.salt, &[head, tail], &mut out).unwrap();
                assert_eq!(out, test.okm.as_slice(), "{}", test.tc_id);
            }
            tried += 1;
        }
        all_but(set.number_of_tests, tried, 0);
    }

    #[test]
    fn hmac_sha_256_gives_the_known_answers() {
        let set = mac::TestSet::load(mac::TestName::HmacSha256).unwrap();
        let mut tried = 0;
        for group in &set.test_groups {
            for test in &group.tests {
                let (head, tail) = test.msg.split_at(test.msg.len() / 2);
                let whole = hmac(&test.key, &[head, tail]);
                assert_eq!(hmac_key(&test.key, &[&test.msg]).expose(), &whole);
                // Some of them use a shorter tag, which the format never does.
                let same = equal(&whole[..group.tag_size / 8], &test.tag);
                assert_eq!(same, is_valid(test.result), "{}", test.tc_id);
                tried += 1;
            }
        }
        all_but(set.number_of_tests, tried, 0);
    }

    #[test]
    fn ed25519_accepts_what_it_should_and_nothing_else() {
        let set = eddsa::TestSet::load(eddsa::TestName::Ed25519).unwrap();
        let (mut tried, mut cannot_be_said) = (0, 0);
        for group in &set.test_groups {
            let key: [u8; 32] = group.key.pk.as_slice().try_into().unwrap();
            for test in &group.tests {
                let Ok(sig) = <[u8; 64]>::try_from(test.sig.as_slice()) else {
                    assert!(!is_valid(test.result));
                    cannot_be_said += 1;
                    continue;
                };
                let accepted = signature::verify(&key, &test.msg, &sig);
                assert_eq!(accepted, is_valid(test.result), "{}", test.tc_id);
                tried += 1;
            }
        }
        all_but(set.number_of_tests, tried, cannot_be_said);
    }
}
