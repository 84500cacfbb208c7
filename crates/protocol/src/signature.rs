//! Ed25519 as the log uses it: strict, so that every verifier accepts exactly the same signatures.
//!
//! RFC 8032 leaves room (cofactor, non-canonical encodings, keys of small order) in which two
//! implementations may disagree about one signature, and then about a whole history. This module
//! adds to the library's cofactorless check with S < L: the key and R are canonical encodings and
//! not of small order ("Taming the many EdDSAs", Chalkias, Garillot, Nikolaenko, 2020).

use aws_lc_rs::signature::{ED25519, UnparsedPublicKey};

/// y-coordinates (sign bit cleared, little-endian) of the points whose order divides 8.
const SMALL_ORDER: [[u8; 32]; 5] = [
    // 0: order 4
    [0; 32],
    // 1: the neutral element
    {
        let mut y = [0; 32];
        y[0] = 1;
        y
    },
    // two of order 8
    [
        0x26, 0xe8, 0x95, 0x8f, 0xc2, 0xb2, 0x27, 0xb0, 0x45, 0xc3, 0xf4, 0x89, 0xf2, 0xef, 0x98,
        0xf0, 0xd5, 0xdf, 0xac, 0x05, 0xd3, 0xc6, 0x33, 0x39, 0xb1, 0x38, 0x02, 0x88, 0x6d, 0x53,
        0xfc, 0x05,
    ],
    [
        0xc7, 0x17, 0x6a, 0x70, 0x3d, 0x4d, 0xd8, 0x4f, 0xba, 0x3c, 0x0b, 0x76, 0x0d, 0x10, 0x67,
        0x0f, 0x2a, 0x20, 0x53, 0xfa, 0x2c, 0x39, 0xcc, 0xc6, 0x4e, 0xc7, 0xfd, 0x77, 0x92, 0xac,
        0x03, 0x7a,
    ],
    // p - 1: order 2
    {
        let mut y = [0xff; 32];
        y[0] = 0xec;
        y[31] = 0x7f;
        y
    },
];

/// Whether `point` is the canonical encoding of a point that is not of small order.
///
/// Says nothing about whether it is on the curve: the library's check does.
fn is_acceptable_point(point: &[u8; 32]) -> bool {
    let mut y = *point;
    y[31] &= 0x7f;
    // p = 2^255 - 19, little-endian ed ff .. ff 7f: y >= p means all high bytes full and the low one >= ed.
    let above_p = y[31] == 0x7f && y[1..31].iter().all(|&b| b == 0xff) && y[0] >= 0xed;
    !above_p && !SMALL_ORDER.contains(&y)
}

/// Whether `public_key` may stand for a machine at all.
pub fn is_acceptable_key(public_key: &[u8; 32]) -> bool {
    is_acceptable_point(public_key)
}

/// Strict verification of an Ed25519 `signature` over `message`.
pub fn verify(public_key: &[u8; 32], message: &[u8], signature: &[u8; 64]) -> bool {
    let mut r = [0; 32];
    r.copy_from_slice(&signature[..32]);
    is_acceptable_point(public_key)
        && is_acceptable_point(&r)
        && UnparsedPublicKey::new(&ED25519, public_key)
            .verify(message, signature)
            .is_ok()
}

#[cfg(test)]
mod tests {
    use aws_lc_rs::signature::{Ed25519KeyPair, KeyPair};

    use super::*;

    #[test]
    fn accepts_what_was_signed_and_nothing_else() {
        let pair = Ed25519KeyPair::from_seed_unchecked(&[7; 32]).unwrap();
        let key: [u8; 32] = pair.public_key().as_ref().try_into().unwrap();
        let mut signature: [u8; 64] = pair.sign(b"message").as_ref().try_into().unwrap();
        assert!(verify(&key, b"message", &signature));
        assert!(!verify(&key, b"massage", &signature));
        signature[3] ^= 1;
        assert!(!verify(&key, b"message", &signature));
    }

    #[test]
    fn small_order_and_non_canonical_keys_are_refused() {
        // With the neutral element as key and as R and S = 0, the bare equation holds for every message.
        let mut neutral = [0; 32];
        neutral[0] = 1;
        let mut signature = [0; 64];
        signature[0] = 1;
        assert!(!verify(&neutral, b"anything", &signature));
        for y in SMALL_ORDER {
            let mut negative = y;
            negative[31] |= 0x80;
            assert!(!is_acceptable_key(&y) && !is_acceptable_key(&negative));
        }
        let mut p_plus_two = [0xff; 32];
        (p_plus_two[0], p_plus_two[31]) = (0xef, 0x7f);
        assert!(!is_acceptable_key(&p_plus_two));
    }
}
