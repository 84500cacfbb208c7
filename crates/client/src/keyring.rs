//! Holds the key where the system keeps a person's secrets: `unlock` puts it there, `lock` takes it away.
//!
//! The keyring gets a random code and nothing else. What that code opens is a slot made for it alone, a file of the
//! home (`unlocked.saks`). Neither half says anything about the vault key, so a keyring that is copied, backed up or
//! carried to another computer gives nothing away; and whoever has removed the file has locked, even if the keyring
//! cannot be reached. Each `unlock` makes both anew, and the slot's id names the entry: homes never share one.
//!
//! [`Keyring`] is a seam: Secret Service, Keychain or Credential Manager is behind it.

#[cfg(target_os = "macos")]
#[path = "keyring/macos.rs"]
mod system;
#[cfg(all(unix, not(target_os = "macos")))]
#[path = "keyring/unix.rs"]
mod system;
#[cfg(not(unix))]
#[path = "keyring/windows.rs"]
mod system;

use syncagent_vault::keys::VaultKey;
use syncagent_vault::random::Random;
use syncagent_vault::slot::Slot;
use zeroize::Zeroizing;

use crate::agent::Keepsake;
use crate::error::ClientError;
use crate::home::Home;

pub use system::open as system;

/// Under which name the entries stand, beside their ids.
const SERVICE: &str = "syncagent";

/// Why a keyring does not do what it is asked. Never a reason to give up: there is the agent, and the password.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum KeyringError {
    /// There is none, or none that could be asked.
    #[error("there is no keyring: {0}")]
    Absent(String),
    /// It is locked, and nobody opened it when it asked.
    #[error("the keyring is locked, and nobody unlocked it")]
    Locked,
    /// It did not answer in time.
    #[error("the keyring does not answer")]
    Silent,
    /// It refused or failed.
    #[error("the keyring failed: {0}")]
    Failed(String),
}

/// One entry of a keyring.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// What it is found by: letters and digits, never two times the same.
    pub id: String,
    /// What a person who looks through their keyring reads.
    pub label: String,
}

impl Entry {
    fn of(home: &Home, slot: &Slot) -> Self {
        Self {
            id: data_encoding::HEXLOWER.encode(&slot.slot_id()),
            label: format!("SyncAgent: the key of {}", home.key_path().display()),
        }
    }
}

/// A place for small secrets that the system opens for its user.
pub trait Keyring: Send + Sync {
    /// What the system calls it.
    fn name(&self) -> &'static str;
    /// Puts a secret there, in place of one of the same id.
    fn put(&self, entry: &Entry, secret: &[u8]) -> Result<(), KeyringError>;
    /// The secret; none if there is no such entry.
    fn get(&self, entry: &Entry) -> Result<Option<Zeroizing<Vec<u8>>>, KeyringError>;
    /// Takes an entry away. One that is not there is no error.
    fn remove(&self, entry: &Entry) -> Result<(), KeyringError>;
}

/// What of [`keep`] did not work.
#[derive(Debug, thiserror::Error)]
pub enum KeepError {
    /// The keyring; the agent can take its place.
    #[error(transparent)]
    Keyring(#[from] KeyringError),
    /// Anything else.
    #[error(transparent)]
    Client(#[from] ClientError),
}

/// Whether `unlock` left a half in this home, so that asking the keyring makes sense.
pub fn is_kept(home: &Home) -> bool {
    home.unlocked_path().exists()
}

/// Puts the key into the keyring, in place of what this home had there.
pub fn keep(
    home: &Home,
    keyring: &dyn Keyring,
    key: &VaultKey,
    random: &dyn Random,
    now_ms: u64,
) -> Result<(), KeepError> {
    forget(home, Some(keyring))?;
    let keepsake = Keepsake::new(key, random, now_ms)?;
    let slot = keepsake.slot()?;
    let entry = Entry::of(home, &slot);
    // The file first: wherever this is cut short, `forget` finds which entry to remove.
    home.save_unlocked(&slot)?;
    let kept = keyring.put(&entry, keepsake.code()).and_then(|()| {
        let stands = keyring
            .get(&entry)
            .map(|read| read.is_some_and(|read| read.as_slice() == keepsake.code()));
        let stands = match stands {
            Ok(true) => return Ok(()),
            Ok(false) => KeyringError::Failed("it did not keep what it was given".into()),
            Err(error) => error,
        };
        // Alone it opens nothing; it only should not lie about.
        let _ = keyring.remove(&entry);
        Err(stands)
    });
    if kept.is_err() {
        home.remove_unlocked()?;
    }
    Ok(kept?)
}

/// The key that [`keep`] put there; none if there is none, or one of another time or vault.
pub fn fetch(home: &Home, keyring: &dyn Keyring) -> Result<Option<VaultKey>, KeepError> {
    let Some(slot) = home.unlocked()? else {
        return Ok(None);
    };
    let Some(code) = keyring.get(&Entry::of(home, &slot))? else {
        return Ok(None);
    };
    let Some(keepsake) = Keepsake::of(&slot, &code) else {
        return Ok(None);
    };
    let pinned = home
        .credentials()?
        .and_then(|credentials| credentials.check_value);
    Ok(keepsake.open(pinned.as_ref()).ok())
}

/// What came of [`forget`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Forgotten {
    /// Whether there was anything.
    pub was_kept: bool,
    /// Why the entry may still be in the keyring, where it opens nothing any more.
    pub left: Option<KeyringError>,
}

/// Takes the key away. When this returns well nothing in the keyring opens the vault any more.
pub fn forget(home: &Home, keyring: Option<&dyn Keyring>) -> Result<Forgotten, ClientError> {
    // One that cannot be read is removed all the same.
    let slot = home.unlocked().ok().flatten();
    // First, because this is what locks.
    let was_kept = home.remove_unlocked()?;
    let left = match (slot, keyring) {
        (Some(slot), Some(keyring)) => keyring.remove(&Entry::of(home, &slot)).err(),
        _ => None,
    };
    Ok(Forgotten { was_kept, left })
}

/// What every keyring promises.
#[cfg(any(test, feature = "conformance"))]
pub mod conformance {
    use super::{Entry, Keyring};

    /// Fails if `keyring` is none. `unique` keeps two runs in one keyring apart.
    #[track_caller]
    pub fn check(keyring: &dyn Keyring, unique: &str) {
        let entry = |n: u8| Entry {
            id: format!("{unique}{n}"),
            label: format!("SyncAgent's own test, entry {n}"),
        };
        let (one, two) = (entry(1), entry(2));
        let get = |entry| keyring.get(entry).map(|secret| secret.map(|s| s.to_vec()));
        assert!(!keyring.name().is_empty());
        assert_eq!(get(&one), Ok(None), "nothing was put there");
        assert_eq!(keyring.remove(&one), Ok(()), "nothing to remove");
        let every_byte: Vec<u8> = (0..=255).collect();
        assert_eq!(keyring.put(&one, &every_byte), Ok(()));
        assert_eq!(keyring.put(&two, b"another"), Ok(()));
        assert_eq!(get(&one), Ok(Some(every_byte)));
        assert_eq!(get(&two), Ok(Some(b"another".to_vec())));
        assert_eq!(keyring.put(&one, b"in its place"), Ok(()));
        assert_eq!(get(&one), Ok(Some(b"in its place".to_vec())));
        let renamed = Entry {
            label: "read by nobody but a person".into(),
            ..one.clone()
        };
        assert_eq!(get(&renamed), Ok(Some(b"in its place".to_vec())));
        assert_eq!(keyring.remove(&one), Ok(()));
        assert_eq!(get(&one), Ok(None));
        assert_eq!(get(&two), Ok(Some(b"another".to_vec())));
        assert_eq!(keyring.remove(&two), Ok(()));
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::panic::{AssertUnwindSafe, catch_unwind};
    use std::sync::Mutex;

    use syncagent_vault::random::OsRandom;

    use super::*;

    /// A keyring in memory, whose bus may be dead.
    #[derive(Default)]
    struct Memory {
        entries: Mutex<BTreeMap<String, Vec<u8>>>,
        dead: Mutex<bool>,
        /// Whoever puts something here ends as soon as it is there.
        last_word: Mutex<bool>,
    }

    impl Memory {
        fn entries(
            &self,
        ) -> Result<std::sync::MutexGuard<'_, BTreeMap<String, Vec<u8>>>, KeyringError> {
            match *self.dead.lock().unwrap() {
                true => Err(KeyringError::Silent),
                false => Ok(self.entries.lock().unwrap()),
            }
        }
    }

    impl Keyring for Memory {
        fn name(&self) -> &'static str {
            "memory"
        }

        fn put(&self, entry: &Entry, secret: &[u8]) -> Result<(), KeyringError> {
            self.entries()?.insert(entry.id.clone(), secret.to_vec());
            let ends = *self.last_word.lock().unwrap();
            assert!(!ends, "the process ends here");
            Ok(())
        }

        fn get(&self, entry: &Entry) -> Result<Option<Zeroizing<Vec<u8>>>, KeyringError> {
            Ok(self.entries()?.get(&entry.id).cloned().map(Zeroizing::new))
        }

        fn remove(&self, entry: &Entry) -> Result<(), KeyringError> {
            self.entries()?.remove(&entry.id);
            Ok(())
        }
    }

    #[test]
    fn the_double_is_a_keyring() {
        conformance::check(&Memory::default(), "x");
    }

    #[test]
    fn what_is_kept_opens_until_it_is_forgotten() {
        let dir = tempfile::tempdir().unwrap();
        let (random, keyring) = (OsRandom::default(), Memory::default());
        let key = VaultKey::generate(&random);
        let homes = ["a", "b"].map(|name| Home::at(dir.path().join(name)));
        for home in &homes {
            home.create().unwrap();
            assert!(fetch(home, &keyring).unwrap().is_none() && !is_kept(home));
            keep(home, &keyring, &key, &random, 1).unwrap();
            // Again is in place of the first.
            keep(home, &keyring, &key, &random, 2).unwrap();
            let fetched = fetch(home, &keyring).unwrap().unwrap();
            assert_eq!(fetched.check_value().unwrap(), key.check_value().unwrap());
        }
        assert_eq!(keyring.entries().unwrap().len(), 2);
        let done = forget(&homes[0], Some(&keyring)).unwrap();
        assert_eq!((done.was_kept, done.left), (true, None));
        assert_eq!(keyring.entries().unwrap().len(), 1);
        assert!(fetch(&homes[0], &keyring).unwrap().is_none());
        assert!(fetch(&homes[1], &keyring).unwrap().is_some());
        assert!(!forget(&homes[0], Some(&keyring)).unwrap().was_kept);
    }

    #[test]
    fn a_keyring_that_is_gone_can_be_locked() {
        let dir = tempfile::tempdir().unwrap();
        let (random, keyring) = (OsRandom::default(), Memory::default());
        let home = Home::at(dir.path());
        keep(&home, &keyring, &VaultKey::generate(&random), &random, 1).unwrap();
        *keyring.dead.lock().unwrap() = true;
        assert!(matches!(
            fetch(&home, &keyring),
            Err(KeepError::Keyring(KeyringError::Silent))
        ));
        let done = forget(&home, Some(&keyring)).unwrap();
        assert_eq!(
            (done.was_kept, done.left),
            (true, Some(KeyringError::Silent))
        );
        *keyring.dead.lock().unwrap() = false;
        assert!(fetch(&home, &keyring).unwrap().is_none());
    }

    #[test]
    fn half_of_another_time_or_vault_opens_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let (random, keyring) = (OsRandom::default(), Memory::default());
        let home = Home::at(dir.path());
        let key = VaultKey::generate(&random);
        keep(&home, &keyring, &key, &random, 1).unwrap();
        let old = std::fs::read(home.unlocked_path()).unwrap();
        keep(&home, &keyring, &key, &random, 1).unwrap();
        assert!(fetch(&home, &keyring).unwrap().is_some());
        home.update_credentials(&random, |credentials| {
            credentials.check_value = Some([1; 16])
        })
        .unwrap();
        assert!(fetch(&home, &keyring).unwrap().is_none());
        home.update_credentials(&random, |credentials| {
            credentials.check_value = Some(key.check_value().unwrap())
        })
        .unwrap();
        assert!(fetch(&home, &keyring).unwrap().is_some());
        for text in [old, b"no slot".to_vec()] {
            std::fs::write(home.unlocked_path(), text).unwrap();
            assert!(fetch(&home, &keyring).unwrap().is_none());
        }
        assert!(forget(&home, Some(&keyring)).unwrap().was_kept);
        assert!(!is_kept(&home));
    }

    #[test]
    fn a_lock_finds_the_entry_of_an_unlock_that_was_cut_short() {
        let dir = tempfile::tempdir().unwrap();
        let (random, keyring) = (OsRandom::default(), Memory::default());
        let home = Home::at(dir.path());
        let key = VaultKey::generate(&random);
        *keyring.last_word.lock().unwrap() = true;
        let cut = || keep(&home, &keyring, &key, &random, 1);
        assert!(catch_unwind(AssertUnwindSafe(cut)).is_err());
        assert_eq!(keyring.entries().unwrap().len(), 1);
        forget(&home, Some(&keyring)).unwrap();
        assert_eq!(keyring.entries().unwrap().len(), 0);
        assert!(!is_kept(&home));
    }
}
