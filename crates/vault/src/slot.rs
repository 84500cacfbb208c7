//! Key slot `SAKS`: the vault key wrapped by a password or a recovery code (format.md, "Keyslot").
//!
//! Hazard: a slot can come from the server. Its derivation parameters are checked against the policy
//! before a single byte is derived or allocated for, and every failure after that is the same error.

use argon2::{Algorithm, Argon2, Params, Version};
use syncagent_protocol::VaultId;
use unicode_normalization::UnicodeNormalization;
use zeroize::{ZeroizeOnDrop, Zeroizing};

use crate::VaultError;
use crate::crypto;
use crate::keys::{EPOCH, VaultKey};
use crate::random::{self, Random};
use crate::recovery::RecoveryCode;
use crate::secret::Secret;

/// Length of a slot in bytes.
pub const SLOT_LEN: usize = 172;
/// The shortest password, in characters.
pub const MIN_PASSWORD_CHARS: usize = 12;

const MAGIC: &[u8; 4] = b"SAKS";

/// What opens a slot.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SlotType {
    /// A password, through Argon2id.
    Password,
    /// A recovery code: 160 random bits, nothing to slow down.
    Recovery,
}

impl SlotType {
    /// The number in the slot, in KEYSLOT ops and in the server's route.
    pub fn number(self) -> u8 {
        match self {
            Self::Password => 1,
            Self::Recovery => 2,
        }
    }

    /// The type with this number.
    pub fn from_number(number: u8) -> Option<Self> {
        [Self::Password, Self::Recovery]
            .into_iter()
            .find(|slot_type| slot_type.number() == number)
    }
}

/// Cost of deriving a key from a password: Argon2id v1.3 (RFC 9106).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct KdfParams {
    /// Memory in KiB.
    pub m_kib: u32,
    /// Passes over the memory.
    pub t: u32,
    /// Lanes.
    pub p: u8,
}

impl KdfParams {
    /// What new slots use.
    pub const DEFAULT: Self = Self {
        m_kib: 131_072,
        t: 3,
        p: 4,
    };
    /// The least that any slot may use. Tests use it.
    pub const FLOOR: Self = Self {
        m_kib: 65_536,
        t: 3,
        p: 4,
    };

    fn is_allowed(self) -> bool {
        (65_536..=1_048_576).contains(&self.m_kib)
            && (3..=16).contains(&self.t)
            && (1..=8).contains(&self.p)
    }
}

/// A master password in the form that is derived from. Wiped when dropped.
#[derive(ZeroizeOnDrop)]
pub struct Password(Zeroizing<String>);

impl Password {
    /// Normalises (NFC) what was typed. Nothing is trimmed: every character counts.
    pub fn new(text: &str) -> Self {
        // Normalising makes no text more than three times as long, so it never moves and leaves a copy.
        let mut normal = Zeroizing::new(String::with_capacity(3 * text.len()));
        normal.extend(text.nfc());
        Self(normal)
    }

    /// [`Password::new`] of a line of a file or pipe, whose line break is not part of it.
    pub fn from_line(line: &str) -> Self {
        let text = line
            .strip_suffix('\n')
            .map_or(line, |text| text.strip_suffix('\r').unwrap_or(text));
        Self::new(text)
    }

    /// Refuses a password that is too short for a new slot.
    pub fn check_strength(&self) -> Result<(), VaultError> {
        match self.0.chars().count() >= MIN_PASSWORD_CHARS {
            true => Ok(()),
            false => Err(VaultError::WeakPassword),
        }
    }

    fn derive(&self, params: KdfParams, salt: &[u8; 16]) -> Result<Secret<32>, VaultError> {
        let mut out = Secret::zeroed();
        let params = Params::new(params.m_kib, params.t, u32::from(params.p), Some(32))
            .map_err(|_| VaultError::KdfPolicy)?;
        let done = argon2id(params, self.0.as_bytes(), salt, out.as_mut());
        wipe_stack();
        done?;
        Ok(out)
    }
}

/// Not inlined: what it leaves on the stack is then below its caller, where [`wipe_stack`] reaches it.
#[inline(never)]
fn argon2id(
    params: Params,
    password: &[u8],
    salt: &[u8; 16],
    out: &mut [u8; 32],
) -> Result<(), VaultError> {
    Argon2::new(Algorithm::Argon2id, Version::V0x13, params)
        .hash_password_into(password, salt, out)
        .map_err(|_| VaultError::Provider)
}

/// Writes over what calls that have returned left on this thread's stack: the last hash of Argon2 has the result in its
/// state, which its library drops as it is.
#[inline(never)]
fn wipe_stack() {
    let mut below = [0_u8; 64 * 1024];
    zeroize::Zeroize::zeroize(&mut below);
}

/// What is used to open or make a slot.
pub enum Opener<'a> {
    /// A password slot.
    Password(&'a Password),
    /// A recovery slot.
    Recovery(&'a RecoveryCode),
}

impl Opener<'_> {
    fn slot_type(&self) -> SlotType {
        match self {
            Self::Password(_) => SlotType::Password,
            Self::Recovery(_) => SlotType::Recovery,
        }
    }
}

/// The random parts of a new slot, apart so that vectors can fix them.
pub struct SlotRandom {
    /// Salt of the derivation.
    pub salt: [u8; 16],
    /// Identifies the slot.
    pub slot_id: [u8; 16],
    /// Nonce of the wrapping.
    pub nonce: [u8; 12],
}

impl SlotRandom {
    /// Fresh randomness.
    pub fn new(random: &dyn Random) -> Self {
        Self {
            salt: random::bytes(random),
            slot_id: random::bytes(random),
            nonce: random::bytes(random),
        }
    }
}

/// A slot whose structure and policy were checked.
#[derive(Clone, PartialEq, Eq)]
pub struct Slot([u8; SLOT_LEN]);

impl Slot {
    /// Wraps `key`. Returns the slot and the derived secret `u`, which exports need once more.
    pub(crate) fn seal_keeping_u(
        key: &VaultKey,
        opener: &Opener<'_>,
        params: KdfParams,
        created_unix_s: u64,
        random: &SlotRandom,
    ) -> Result<(Self, Secret<32>), VaultError> {
        let mut slot = [0; SLOT_LEN];
        slot[..4].copy_from_slice(MAGIC);
        slot[4] = 1;
        slot[5] = opener.slot_type().number();
        match opener {
            Opener::Password(password) => {
                password.check_strength()?;
                if !params.is_allowed() {
                    return Err(VaultError::KdfPolicy);
                }
                slot[6] = 1;
                slot[8..12].copy_from_slice(&params.m_kib.to_be_bytes());
                slot[12..16].copy_from_slice(&params.t.to_be_bytes());
                slot[16] = params.p;
            }
            Opener::Recovery(_) => slot[6] = 2,
        }
        slot[20..36].copy_from_slice(&random.salt);
        slot[36..52].copy_from_slice(&key.vault().0);
        slot[52..56].copy_from_slice(&EPOCH.to_be_bytes());
        slot[56..64].copy_from_slice(&created_unix_s.to_be_bytes());
        slot[64..80].copy_from_slice(&random.slot_id);
        let u = derive_u(opener, params, &random.salt)?;
        let commitment = kek(&u, &slot, "slot-commit")?;
        slot[80..112].copy_from_slice(commitment.expose());
        slot[112..124].copy_from_slice(&random.nonce);
        let kek = kek(&u, &slot, "slot-kek")?;
        let mut wrapped = Zeroizing::new(*key.expose());
        let (aad, sealed) = slot.split_at_mut(124);
        let tag = crypto::seal(kek.expose(), random.nonce, aad, wrapped.as_mut_slice())?;
        sealed[..32].copy_from_slice(wrapped.as_slice());
        sealed[32..].copy_from_slice(&tag);
        Ok((Self(slot), u))
    }

    /// Wraps `key` for `opener`.
    pub fn seal(
        key: &VaultKey,
        opener: &Opener<'_>,
        params: KdfParams,
        created_unix_s: u64,
        random: &SlotRandom,
    ) -> Result<Self, VaultError> {
        Ok(Self::seal_keeping_u(key, opener, params, created_unix_s, random)?.0)
    }

    /// Parses a slot and checks its policy. Nothing is derived yet.
    pub fn parse(bytes: &[u8]) -> Result<Self, VaultError> {
        let slot: [u8; SLOT_LEN] = bytes.try_into().map_err(|_| VaultError::Keyslot)?;
        let (m, t, p) = (be32(&slot, 8), be32(&slot, 12), slot[16]);
        let well_formed = &slot[..4] == MAGIC
            && slot[4] == 1
            && slot[7] == 0
            && slot[17..20] == [0; 3]
            && be32(&slot, 52) == EPOCH
            && matches!((slot[5], slot[6]), (1, 1) | (2, 2));
        if !well_formed {
            return Err(VaultError::Keyslot);
        }
        let allowed = match slot[5] {
            1 => KdfParams { m_kib: m, t, p }.is_allowed(),
            _ => m == 0 && t == 0 && p == 0,
        };
        if allowed {
            Ok(Self(slot))
        } else {
            Err(VaultError::KdfPolicy)
        }
    }

    pub(crate) fn open_keeping_u(
        &self,
        opener: &Opener<'_>,
    ) -> Result<(VaultKey, Secret<32>), VaultError> {
        if self.slot_type() != opener.slot_type() {
            return Err(VaultError::Keyslot);
        }
        let params = KdfParams {
            m_kib: be32(&self.0, 8),
            t: be32(&self.0, 12),
            p: self.0[16],
        };
        let mut salt = [0; 16];
        salt.copy_from_slice(&self.0[20..36]);
        let u = derive_u(opener, params, &salt)?;
        if !crypto::equal(kek(&u, &self.0, "slot-commit")?.expose(), &self.0[80..112]) {
            return Err(VaultError::Keyslot);
        }
        let mut nonce = [0; 12];
        nonce.copy_from_slice(&self.0[112..124]);
        let mut key = Secret::zeroed();
        let kek = kek(&u, &self.0, "slot-kek")?;
        crypto::open(
            kek.expose(),
            nonce,
            &self.0[..124],
            &self.0[124..],
            key.as_mut(),
        )
        .ok_or(VaultError::Keyslot)?;
        Ok((VaultKey::from_parts(key, self.vault()), u))
    }

    /// Unwraps the vault key. If `check_value` is pinned, a key with another one is refused.
    pub fn open(
        &self,
        opener: &Opener<'_>,
        check_value: Option<&[u8; 16]>,
    ) -> Result<VaultKey, VaultError> {
        let (key, _) = self.open_keeping_u(opener)?;
        match check_value {
            Some(pinned) if !crypto::equal(&key.check_value()?, pinned) => Err(VaultError::Keyslot),
            _ => Ok(key),
        }
    }

    /// What opens this slot.
    pub fn slot_type(&self) -> SlotType {
        if self.0[5] == 1 {
            SlotType::Password
        } else {
            SlotType::Recovery
        }
    }

    /// The vault whose key is inside.
    pub fn vault(&self) -> VaultId {
        let mut id = [0; 16];
        id.copy_from_slice(&self.0[36..52]);
        VaultId(id)
    }

    /// Identifies this wrapping.
    pub fn slot_id(&self) -> [u8; 16] {
        let mut id = [0; 16];
        id.copy_from_slice(&self.0[64..80]);
        id
    }

    /// SHA-256 of the slot: what a KEYSLOT op pins.
    pub fn hash(&self) -> [u8; 32] {
        syncagent_protocol::sha256(&[&self.0])
    }

    /// The 172 bytes.
    pub fn as_bytes(&self) -> &[u8; SLOT_LEN] {
        &self.0
    }
}

fn derive_u(
    opener: &Opener<'_>,
    params: KdfParams,
    salt: &[u8; 16],
) -> Result<Secret<32>, VaultError> {
    match opener {
        Opener::Password(password) => password.derive(params, salt),
        // 20 bytes stand where 32 would: HKDF takes keying material of any length.
        Opener::Recovery(code) => Ok(code.keying_material()),
    }
}

/// HKDF over `u` (the whole of it for a password, its 20 bytes for a recovery code), bound to the slot's clear part.
fn kek(u: &Secret<32>, slot: &[u8; SLOT_LEN], label: &str) -> Result<Secret<32>, VaultError> {
    let ikm = if slot[5] == 1 {
        &u.expose()[..]
    } else {
        &u.expose()[..crate::recovery::LEN]
    };
    crypto::hkdf(
        ikm,
        &slot[20..36],
        &[b"SyncAgent/v1/", label.as_bytes(), &[0], &slot[..80]],
    )
}

fn be32(bytes: &[u8], at: usize) -> u32 {
    bytes[at..at + 4]
        .iter()
        .fold(0, |value, &b| value << 8 | u32::from(b))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn slot_of_the_document() -> (VaultKey, Password, Slot, Secret<32>) {
        let key = VaultKey::from_parts(
            Secret::copy_from(&std::array::from_fn(|i| i as u8)),
            VaultId(std::array::from_fn(|i| 0xa0 + i as u8)),
        );
        let password = Password::new("correct horse battery staple");
        let random = SlotRandom {
            salt: std::array::from_fn(|i| 0x10 + i as u8),
            slot_id: std::array::from_fn(|i| 0x20 + i as u8),
            nonce: std::array::from_fn(|i| 0x30 + i as u8),
        };
        let (slot, u) = Slot::seal_keeping_u(
            &key,
            &Opener::Password(&password),
            KdfParams::FLOOR,
            1_700_000_000,
            &random,
        )
        .unwrap();
        (key, password, slot, u)
    }

    fn hex(bytes: &[u8]) -> String {
        data_encoding::HEXLOWER.encode(bytes)
    }

    #[test]
    fn the_values_of_the_document() {
        let (key, password, slot, u) = slot_of_the_document();
        assert_eq!(
            hex(u.expose()),
            "1cd84e588c72f1d0bb3041fdd8a32de5ec738487c23ac9c5d84f119e05858bf8"
        );
        assert_eq!(
            hex(&slot.as_bytes()[80..112]),
            "4a49b403ef42777b16fc875cedc54ce94961b4b275687189468203461c0895c7"
        );
        assert_eq!(
            hex(&slot.hash()),
            "af0b8090c62bd073f902df1e127996b60168185a09c0afd512788f43c95f6f8c"
        );
        let kcv = key.check_value().unwrap();
        assert_eq!(hex(&kcv), "ee4e0cd33260d8d9d5d8cba58a7570db");
        let opened = Slot::parse(slot.as_bytes())
            .unwrap()
            .open(&Opener::Password(&password), Some(&kcv))
            .unwrap();
        assert_eq!(opened.expose(), key.expose());
        assert!(
            slot.open(&Opener::Password(&password), Some(&[0; 16]))
                .is_err()
        );
    }

    #[test]
    fn policy_is_checked_before_deriving() {
        let (_, _, slot, _) = slot_of_the_document();
        for (m, t, p) in [
            (65_535, 3, 4),
            (1_048_577, 3, 4),
            (65_536, 2, 4),
            (65_536, 17, 4),
            (65_536, 3, 0),
            (65_536, 3, 9),
        ] {
            let mut bytes = *slot.as_bytes();
            bytes[8..12].copy_from_slice(&u32::to_be_bytes(m));
            bytes[12..16].copy_from_slice(&u32::to_be_bytes(t));
            bytes[16] = p;
            assert_eq!(
                Slot::parse(&bytes).err(),
                Some(VaultError::KdfPolicy),
                "{m} {t} {p}"
            );
        }
    }

    #[test]
    fn every_bit_of_a_slot_counts() {
        let (key, _, _, _) = slot_of_the_document();
        let code = RecoveryCode::from_bytes(&[7; 20]);
        let opener = Opener::Recovery(&code);
        let random = SlotRandom::new(&crate::random::OsRandom::default());
        let slot = Slot::seal(&key, &opener, KdfParams::FLOOR, 1, &random).unwrap();
        let opens =
            |bytes: &[u8]| Slot::parse(bytes).is_ok_and(|slot| slot.open(&opener, None).is_ok());
        assert!(opens(slot.as_bytes()));
        for bit in 0..8 * SLOT_LEN {
            let mut bytes = *slot.as_bytes();
            bytes[bit / 8] ^= 1 << (bit % 8);
            assert!(!opens(&bytes), "bit {} of byte {}", bit % 8, bit / 8);
        }
    }

    #[test]
    fn short_passwords_make_no_slot() {
        assert!(Password::new("elevenchars").check_strength().is_err());
        assert!(Password::new("twelve chars").check_strength().is_ok());
        // Eleven characters once they are composed.
        let decomposed = "e\u{301}levenchars";
        assert!(Password::new(decomposed).check_strength().is_err());
    }

    #[test]
    fn only_a_line_ends_before_its_line_break() {
        let text = |password: &Password| password.0.to_string();
        for typed in [" twelve chars ", "twelve chars\n", "\ttwelve chars\r\n"] {
            assert_eq!(text(&Password::new(typed)), typed);
        }
        for (line, want) in [
            ("twelve chars\n", "twelve chars"),
            ("twelve chars\r\n", "twelve chars"),
            (" twelve chars \n\n", " twelve chars \n"),
            ("twelve chars\r", "twelve chars\r"),
            ("twelve chars", "twelve chars"),
        ] {
            assert_eq!(text(&Password::from_line(line)), want);
        }
    }
}
