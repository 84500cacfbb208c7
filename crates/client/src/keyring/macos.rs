//! Keychain: a generic password in the user's default keychain. The system asks by itself whether this program may read.

use std::ffi::OsStr;

use security_framework::base::Error;
use security_framework::passwords::{
    PasswordOptions, delete_generic_password, generic_password, set_generic_password_options,
};
use zeroize::Zeroizing;

use super::{Entry, Keyring, KeyringError, SERVICE};

/// `errSecItemNotFound`.
const NOT_FOUND: i32 = -25300;
/// `errSecUserCanceled`, `errSecAuthFailed`, `errSecInteractionNotAllowed`.
const REFUSED: [i32; 3] = [-128, -25293, -25308];

struct Keychain;

/// The user's keychain.
pub fn open(_bus: Option<&OsStr>) -> Result<Box<dyn Keyring>, KeyringError> {
    Ok(Box::new(Keychain))
}

impl Keyring for Keychain {
    fn name(&self) -> &'static str {
        "Keychain"
    }

    fn put(&self, entry: &Entry, secret: &[u8]) -> Result<(), KeyringError> {
        let mut options = PasswordOptions::new_generic_password(SERVICE, &entry.id);
        options.set_label(&entry.label);
        set_generic_password_options(secret, options).map_err(failed)
    }

    fn get(&self, entry: &Entry) -> Result<Option<Zeroizing<Vec<u8>>>, KeyringError> {
        match generic_password(PasswordOptions::new_generic_password(SERVICE, &entry.id)) {
            Ok(secret) => Ok(Some(Zeroizing::new(secret))),
            Err(error) if error.code() == NOT_FOUND => Ok(None),
            Err(error) => Err(failed(error)),
        }
    }

    fn remove(&self, entry: &Entry) -> Result<(), KeyringError> {
        match delete_generic_password(SERVICE, &entry.id) {
            Err(error) if error.code() != NOT_FOUND => Err(failed(error)),
            _ => Ok(()),
        }
    }
}

fn failed(error: Error) -> KeyringError {
    match REFUSED.contains(&error.code()) {
        true => KeyringError::Locked,
        false => KeyringError::Failed(error.to_string()),
    }
}
