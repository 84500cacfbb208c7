//! An invitation: one line of text that lets one machine register with one vault, once.
//!
//! `sa1-` followed by base32 (RFC 4648, lower case, no padding) of version 1, 16 secret bytes and,
//! optionally, the SHA-256 of the server's certificate, which the client then pins. A reader ignores
//! case and the white space around it.

use std::str::FromStr;

use data_encoding::{BASE32_NOPAD, Encoding, Specification};

const PREFIX: &str = "sa1-";
const VERSION: u8 = 1;

/// An invitation as it is handed from person to person. A secret: no `Debug`, no `Serialize`.
pub struct Invitation {
    secret: [u8; 16],
    certificate: Option<[u8; 32]>,
}

/// A text that is no invitation.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("this is not an invitation: it starts with 'sa1-' and is copied whole")]
pub struct InvitationError;

fn base32_lower() -> Encoding {
    let mut spec = Specification::new();
    spec.symbols.push_str("abcdefghijklmnopqrstuvwxyz234567");
    // The alphabet above is a constant: 32 distinct symbols.
    spec.encoding().unwrap_or(BASE32_NOPAD)
}

impl Invitation {
    /// An invitation with this random secret, pinning `certificate` if the server has its own.
    pub fn new(secret: [u8; 16], certificate: Option<[u8; 32]>) -> Self {
        Self {
            secret,
            certificate,
        }
    }

    /// The same invitation, pinning `certificate`, which is no part of its secret.
    pub fn pinning(self, certificate: Option<[u8; 32]>) -> Self {
        Self {
            certificate,
            ..self
        }
    }

    /// The secret bytes, as the server is shown them at registration.
    pub fn secret(&self) -> &[u8; 16] {
        &self.secret
    }

    /// SHA-256 of the server certificate to pin.
    pub fn certificate(&self) -> Option<&[u8; 32]> {
        self.certificate.as_ref()
    }

    /// What a server stores instead of the secret.
    pub fn hash(&self) -> [u8; 32] {
        crate::sha256(&[b"SyncAgent/v1/invitation\0", &self.secret])
    }

    /// The text form.
    pub fn to_text(&self) -> String {
        let mut bytes = vec![VERSION];
        bytes.extend_from_slice(&self.secret);
        if let Some(hash) = &self.certificate {
            bytes.extend_from_slice(hash);
        }
        format!("{PREFIX}{}", base32_lower().encode(&bytes))
    }
}

impl FromStr for Invitation {
    type Err = InvitationError;

    fn from_str(text: &str) -> Result<Self, InvitationError> {
        let text = text.trim().to_ascii_lowercase();
        let body = text.strip_prefix(PREFIX).ok_or(InvitationError)?;
        let bytes = base32_lower()
            .decode(body.as_bytes())
            .map_err(|_| InvitationError)?;
        let (&version, rest) = bytes.split_first().ok_or(InvitationError)?;
        if version != VERSION {
            return Err(InvitationError);
        }
        let (secret, rest) = rest.split_first_chunk::<16>().ok_or(InvitationError)?;
        let certificate = match rest.len() {
            0 => None,
            32 => rest.first_chunk::<32>().copied(),
            _ => return Err(InvitationError),
        };
        Ok(Self {
            secret: *secret,
            certificate,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_round_trip_with_and_without_certificate() {
        for certificate in [None, Some([9; 32])] {
            let text = Invitation::new([3; 16], certificate).to_text();
            assert!(
                text.bytes()
                    .all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-')
            );
            let back: Invitation = text.parse().unwrap();
            assert_eq!(
                (back.secret(), back.certificate()),
                (&[3; 16], certificate.as_ref())
            );
        }
    }

    #[test]
    fn anything_else_is_refused() {
        let good = Invitation::new([3; 16], None).to_text();
        for bad in [
            "",
            "sa1-",
            "sa2-aaaa",
            &good[..good.len() - 2],
            &format!("{good}aa"),
            &good.replace('-', ""),
            &format!("{good}===="),
        ] {
            assert!(bad.parse::<Invitation>().is_err(), "{bad}");
        }
    }

    #[test]
    fn case_and_surrounding_white_space_do_not_matter() {
        let good = Invitation::new([3; 16], None).to_text();
        for typed in [good.to_uppercase(), format!(" {good}\r\n"), good] {
            let read: Invitation = typed.parse().unwrap();
            assert_eq!(read.secret(), &[3; 16]);
        }
    }

    #[test]
    fn one_invitation_has_one_text() {
        let good = Invitation::new([3; 16], None).to_text();
        // 17 bytes are 27 characters and one bit: the last character has four spare bits.
        let mut spare = good.clone();
        let last = spare.pop().unwrap();
        spare.push(if last == 'a' {
            'b'
        } else {
            char::from(last as u8 + 1)
        });
        assert!(good.parse::<Invitation>().is_ok());
        assert!(spare.parse::<Invitation>().is_err());
    }

    #[test]
    fn a_server_knows_an_invitation_by_its_secret_alone() {
        let plain = Invitation::new([3; 16], None);
        let hash = plain.hash();
        let pinned = plain.pinning(Some([9; 32]));
        assert_eq!(pinned.certificate(), Some(&[9; 32]));
        assert_eq!((pinned.secret(), pinned.hash()), (&[3; 16], hash));
        assert_eq!(pinned.pinning(None).certificate(), None);
        assert_ne!(Invitation::new([4; 16], None).hash(), hash);
    }
}
