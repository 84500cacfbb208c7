//! Recovery code: 160 random bits on a piece of paper.
//!
//! Crockford base32, 32 characters in groups of four, then a group of four that catches typing
//! errors (the first 20 bits of SHA-256 of the bytes).

use std::str::FromStr;

use zeroize::{ZeroizeOnDrop, Zeroizing};

use crate::VaultError;
use crate::random::{self, Random};
use crate::secret::Secret;

/// Length of the code in bytes.
pub(crate) const LEN: usize = 20;

const ALPHABET: &[u8; 32] = b"0123456789ABCDEFGHJKMNPQRSTVWXYZ";

/// A recovery code. Wiped when dropped.
#[derive(ZeroizeOnDrop)]
pub struct RecoveryCode(Secret<LEN>);

impl RecoveryCode {
    /// A new random code.
    pub fn generate(random: &dyn Random) -> Self {
        Self(random::secret(random))
    }

    /// The code with these bytes, for vectors.
    pub fn from_bytes(bytes: &[u8; LEN]) -> Self {
        Self(Secret::copy_from(bytes))
    }

    /// What is written down: nine groups of four.
    pub fn to_text(&self) -> Zeroizing<String> {
        let bytes = self.0.expose();
        let check = syncagent_protocol::sha256(&[bytes]);
        let mut text = Zeroizing::new(String::with_capacity(44));
        for (i, symbol) in symbols(bytes).chain(symbols(&check).take(4)).enumerate() {
            if i > 0 && i.is_multiple_of(4) {
                text.push('-');
            }
            text.push(char::from(ALPHABET[usize::from(symbol)]));
        }
        text
    }

    /// `u`: the code's bytes, in a secret of the length passwords derive to.
    pub(crate) fn keying_material(&self) -> Secret<32> {
        let mut u = Secret::zeroed();
        u.as_mut()[..LEN].copy_from_slice(self.0.expose());
        u
    }
}

/// The bits of `bytes` in groups of five.
fn symbols(bytes: &[u8]) -> impl Iterator<Item = u8> {
    (0..bytes.len() * 8 / 5).map(|i| {
        (0..5).fold(0, |value, j| {
            let bit = 5 * i + j;
            value << 1 | (bytes[bit / 8] >> (7 - bit % 8) & 1)
        })
    })
}

impl FromStr for RecoveryCode {
    type Err = VaultError;

    /// Forgives case, white space, dashes, and the letters that Crockford's alphabet leaves out.
    fn from_str(text: &str) -> Result<Self, VaultError> {
        let mut values = Zeroizing::new(Vec::with_capacity(36));
        for c in text.bytes() {
            if matches!(c, b'-' | b' ' | b'\t' | b'\r' | b'\n') {
                continue;
            }
            // One more than fits is enough to know, and the memory stays where it is wiped.
            if values.len() == 36 {
                return Err(VaultError::RecoveryCode);
            }
            let c = match c.to_ascii_uppercase() {
                b'O' => b'0',
                b'I' | b'L' => b'1',
                c => c,
            };
            let value = ALPHABET
                .iter()
                .position(|&a| a == c)
                .ok_or(VaultError::RecoveryCode)?;
            values.push(value as u8);
        }
        if values.len() != 36 {
            return Err(VaultError::RecoveryCode);
        }
        let mut bytes = Secret::<LEN>::zeroed();
        for (i, value) in values[..32].iter().enumerate() {
            for j in 0..5 {
                let bit = 5 * i + j;
                bytes.as_mut()[bit / 8] |= (value >> (4 - j) & 1) << (7 - bit % 8);
            }
        }
        let check = syncagent_protocol::sha256(&[bytes.expose()]);
        match symbols(&check).take(4).eq(values[32..].iter().copied()) {
            true => Ok(Self(bytes)),
            false => Err(VaultError::RecoveryCode),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_down_can_be_typed_again() {
        let code = RecoveryCode::from_bytes(&std::array::from_fn(|i| (i * 13) as u8));
        let text = code.to_text();
        assert_eq!(text.len(), 36 + 8);
        for typed in [
            text.to_string(),
            text.to_lowercase(),
            text.replace('-', " "),
            text.replace('0', "o"),
            text.replace('-', "\r\n\t"),
        ] {
            let back: RecoveryCode = typed.parse().ok().unwrap();
            assert_eq!(back.0.expose(), code.0.expose());
        }
    }

    #[test]
    fn a_typing_error_is_caught() {
        let text = RecoveryCode::from_bytes(&[7; 20]).to_text();
        let mut wrong = text.to_string();
        let other = if wrong.starts_with('0') { "1" } else { "0" };
        wrong.replace_range(0..1, other);
        assert!(wrong.parse::<RecoveryCode>().is_err());
        assert!(text[..43].parse::<RecoveryCode>().is_err());
        assert!("U".repeat(36).parse::<RecoveryCode>().is_err());
        assert!(format!("{}0", *text).parse::<RecoveryCode>().is_err());
        assert!(format!("{}\u{a0}", *text).parse::<RecoveryCode>().is_err());
    }
}
