//! Credential Manager: a generic credential of this user on this computer, which does not roam.

use std::collections::HashMap;
use std::ffi::OsStr;
use std::sync::Arc;

use keyring_core::api::CredentialStoreApi as _;
use keyring_core::{Entry as Credential, Error};
use windows_native_keyring_store::Store;
use zeroize::Zeroizing;

use super::{Entry, Keyring, KeyringError, SERVICE};

struct CredentialManager(Arc<Store>);

/// The user's credentials.
pub fn open(_bus: Option<&OsStr>) -> Result<Box<dyn Keyring>, KeyringError> {
    let store = Store::new().map_err(|error| KeyringError::Absent(error.to_string()))?;
    Ok(Box::new(CredentialManager(store)))
}

impl CredentialManager {
    fn credential(&self, entry: &Entry) -> Result<Credential, KeyringError> {
        let here = HashMap::from([("persistence", "Local")]);
        let credential = self.0.build(SERVICE, &entry.id, Some(&here));
        credential.map_err(failed)
    }
}

impl Keyring for CredentialManager {
    fn name(&self) -> &'static str {
        "Credential Manager"
    }

    fn put(&self, entry: &Entry, secret: &[u8]) -> Result<(), KeyringError> {
        let credential = self.credential(entry)?;
        credential.set_secret(secret).map_err(failed)?;
        // Only a comment: without it the entry does as well.
        let comment = HashMap::from([("comment", entry.label.as_str())]);
        let _ = credential.update_attributes(&comment);
        Ok(())
    }

    fn get(&self, entry: &Entry) -> Result<Option<Zeroizing<Vec<u8>>>, KeyringError> {
        match self.credential(entry)?.get_secret() {
            Ok(secret) => Ok(Some(Zeroizing::new(secret))),
            Err(Error::NoEntry) => Ok(None),
            Err(error) => Err(failed(error)),
        }
    }

    fn remove(&self, entry: &Entry) -> Result<(), KeyringError> {
        match self.credential(entry)?.delete_credential() {
            Ok(()) | Err(Error::NoEntry) => Ok(()),
            Err(error) => Err(failed(error)),
        }
    }
}

#[expect(clippy::needless_pass_by_value, reason = "for map_err")]
fn failed(error: Error) -> KeyringError {
    match &error {
        Error::NoStorageAccess(_) => KeyringError::Locked,
        _ => KeyringError::Failed(error.to_string()),
    }
}
