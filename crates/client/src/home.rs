//! Where one machine keeps its own things, and what it keeps there.
//!
//! `config.toml` (what a person may edit), `machine.json` (signing key and token, 0600), `key.saks` (the
//! vault key, sealed by the password), `state.db` (observations; can be rebuilt), `last-status.json` (what the last
//! pass said) and `control.sock`.
//! Small files are replaced whole: written beside, flushed, renamed.

use std::fs;
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use syncagent_protocol::api::Head;
use syncagent_protocol::{MachineId, VaultId};
use syncagent_sync::schedule::Config as Schedule;
use syncagent_vault::keys::VaultKey;
use syncagent_vault::machine::MachineKey;
use syncagent_vault::random::Random;
use syncagent_vault::secret::Secret;
use syncagent_vault::slot::{Opener, Password, Slot, SlotType};

use crate::error::ClientError;
use crate::private;
use crate::remote::tls::Trust;

/// The files of one machine.
#[derive(Debug, Clone)]
pub struct Home {
    config_dir: PathBuf,
    state_dir: PathBuf,
    runtime_dir: PathBuf,
}

/// One lock: no two are the same.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LockMark(Vec<u8>);

/// What a person may edit: `config.toml`.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// Address of the server, `http://` or `https://`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub server: Option<String>,
    /// Name of this machine.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// The synchronised folder, absolute.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub folder: Option<PathBuf>,
    /// Command whose first line of output is the password.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub password_command: Option<String>,
    /// Whether `unlock` may use the system's keyring; unless it says no, it does.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub keyring: Option<bool>,
    /// Plain http to another computer is allowed, as `register --insecure` was told.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub insecure: bool,
    /// SHA-256 of the server's certificate in hexadecimal digits, if it came with the invitation: the only one that is
    /// accepted.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub certificate: Option<String>,
    /// File of the authorities that vouch for the server, in place of the system's.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ca: Option<PathBuf>,
    /// Quiet time after a file was closed, milliseconds.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub closed_ms: Option<u64>,
    /// Quiet time after any other change, milliseconds.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub quiet_ms: Option<u64>,
    /// How long a file that is written over and over is waited for, milliseconds.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub settle_ms: Option<u64>,
    /// From one full scan to the next, seconds.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub full_scan_s: Option<u64>,
}

impl Config {
    /// What makes a server the right one.
    pub fn trust(&self) -> Result<Trust, ClientError> {
        let certificate = match &self.certificate {
            Some(text) => {
                let mut hash = [0; 32];
                decode_hex(text, &mut hash).ok_or_else(|| {
                    ClientError::Setup(format!(
                        "`certificate` in config.toml is '{text}', but takes the 64 hexadecimal digits of the server's \
                         certificate: register this machine again with a new invitation"
                    ))
                })?;
                Some(hash)
            }
            None => None,
        };
        Ok(Trust {
            insecure: self.insecure,
            certificate,
            ca: self.ca.clone(),
        })
    }

    /// The waiting times of a daemon.
    pub fn schedule(&self) -> Schedule {
        let usual = Schedule::default();
        Schedule {
            closed_ms: self.closed_ms.unwrap_or(usual.closed_ms),
            quiet_ms: self.quiet_ms.unwrap_or(usual.quiet_ms),
            settle_ms: self.settle_ms.unwrap_or(usual.settle_ms),
            full_scan_ms: self
                .full_scan_s
                .map_or(usual.full_scan_ms, |seconds| seconds.saturating_mul(1000)),
            ..usual
        }
    }
}

/// What proves that this machine is this machine: `machine.json`. A secret: no `Debug`.
#[derive(Serialize, Deserialize)]
struct CredentialsFile {
    seed: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    token: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    vault: Option<VaultId>,
    #[serde(skip_serializing_if = "Option::is_none")]
    check_value: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    genesis: Option<String>,
    #[serde(default)]
    key_used: bool,
    #[serde(default)]
    recovery_tested: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    trusted: Option<Head>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pending_slots: Vec<String>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pending_removals: Vec<PendingRemoval>,
    #[serde(skip_serializing_if = "Option::is_none")]
    unproven_slot: Option<UnprovenSlotFile>,
}

#[derive(Serialize, Deserialize)]
struct UnprovenSlotFile {
    r#type: u8,
    hash: String,
}

/// The slot that a server handed out and this machine's key came from, as long as no log that this machine verified
/// has named it: nothing is written or sent before.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct UnprovenSlot {
    /// What opened it.
    pub slot_type: SlotType,
    /// Its hash, which the last KEYSLOT op of that type has to pin.
    pub hash: [u8; 32],
}

/// A machine that was removed in a part of the log that a union left behind: the next pass removes it again.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PendingRemoval {
    /// The machine.
    pub machine: MachineId,
    /// The name it was known by.
    pub name: String,
    /// The last position at which both histories are the same.
    pub since_n: u64,
}

impl Drop for CredentialsFile {
    fn drop(&mut self) {
        use zeroize::Zeroize as _;
        self.seed.zeroize();
        self.token.zeroize();
    }
}

/// Signing key, token, and what is pinned about the vault. A secret: no `Debug`, no `Clone`.
pub struct Credentials {
    /// The machine's signing key.
    pub machine: MachineKey,
    /// Bearer token of the server, once registered.
    pub token: Option<zeroize::Zeroizing<String>>,
    /// The vault whose key this machine was given.
    pub vault: Option<VaultId>,
    /// Key-check value of that key.
    pub check_value: Option<[u8; 16]>,
    /// The vault's fixed choices, as made here or told by an export; the log has the last word.
    pub genesis: Option<syncagent_vault::op::Genesis>,
    /// Whether anything was ever sealed for the vault with the key: then it is not replaced without a question.
    pub key_used: bool,
    /// Whether `recovery test` has succeeded.
    pub recovery_tested: bool,
    /// A position somebody vouched for (an export); the log must pass through it.
    pub trusted: Option<Head>,
    /// Slots for the server that no KEYSLOT op of the log pins yet; the next pass posts them.
    pub pending_slots: Vec<Slot>,
    /// Machines that the next pass removes again, because a union left their removal behind.
    pub pending_removals: Vec<PendingRemoval>,
    /// Where the key came from, until the log has vouched for it.
    pub unproven_slot: Option<UnprovenSlot>,
}

impl Home {
    /// Everything under one directory (`SYNCAGENT_HOME`): many machines on one computer.
    pub fn at(dir: impl Into<PathBuf>) -> Self {
        let dir = dir.into();
        Self {
            config_dir: dir.clone(),
            state_dir: dir.clone(),
            runtime_dir: dir,
        }
    }

    /// The platform's directories, for the configuration, the state and the control socket.
    pub fn in_dirs(config_dir: PathBuf, state_dir: PathBuf, runtime_dir: PathBuf) -> Self {
        Self {
            config_dir,
            state_dir,
            runtime_dir,
        }
    }

    /// Path of `config.toml`.
    pub fn config_path(&self) -> PathBuf {
        self.config_dir.join("config.toml")
    }

    /// Path of the sealed vault key.
    pub fn key_path(&self) -> PathBuf {
        self.config_dir.join("key.saks")
    }

    /// Path of the signing key and token.
    pub fn machine_path(&self) -> PathBuf {
        self.config_dir.join("machine.json")
    }

    /// Path of the index.
    pub fn state_path(&self) -> PathBuf {
        self.state_dir.join("state.db")
    }

    /// Path of the lock that one process holds.
    pub fn lock_path(&self) -> PathBuf {
        self.state_dir.join("lock")
    }

    /// Path of the daemon's control socket.
    pub fn socket_path(&self) -> PathBuf {
        self.runtime_dir.join("control.sock")
    }

    /// Path of the socket behind which `unlock` keeps the key, in a directory of its own.
    pub fn agent_path(&self) -> PathBuf {
        self.runtime_dir.join("agent").join("agent.sock")
    }

    /// Path of the slot that a code in the system's keyring opens, while `unlock` keeps the key there.
    pub fn unlocked_path(&self) -> PathBuf {
        self.state_dir.join("unlocked.saks")
    }

    /// Path of what the last pass said.
    pub fn last_status_path(&self) -> PathBuf {
        self.state_dir.join("last-status.json")
    }

    fn last_lock_path(&self) -> PathBuf {
        self.state_dir.join("last-lock")
    }

    /// Whether this machine's own files, the key among them, lie in `folder`, which then would be sent.
    pub fn overlaps(&self, folder: &Path) -> bool {
        [&self.config_dir, &self.state_dir].into_iter().any(|dir| {
            let dir = fs::canonicalize(dir).unwrap_or_else(|_| dir.clone());
            dir.starts_with(folder)
        })
    }

    /// Directory of the log files.
    pub fn log_dir(&self) -> PathBuf {
        self.state_dir.join("logs")
    }

    /// Makes the directories, readable by their owner alone.
    pub fn create(&self) -> Result<(), ClientError> {
        for dir in [&self.config_dir, &self.state_dir, &self.runtime_dir] {
            private::create_dir(dir).map_err(ClientError::io("create", dir))?;
        }
        Ok(())
    }

    /// Reads `config.toml`; a missing one is empty.
    pub fn config(&self) -> Result<Config, ClientError> {
        let path = self.config_path();
        match fs::read_to_string(&path) {
            Ok(text) => toml::from_str(&text).map_err(|error| {
                let before = error.span().map_or(0, |span| span.start.min(text.len()));
                let begin = text[..before].rfind('\n').map_or(0, |end| end + 1);
                let line = text[..before].matches('\n').count() + 1;
                let key = text[begin..].split(['=', '\n']).next().unwrap_or_default();
                ClientError::Setup(format!(
                    "{}, line {line}, `{}`: {}",
                    path.display(),
                    key.trim(),
                    error.message()
                ))
            }),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Config::default()),
            Err(error) => Err(ClientError::io("read", path)(error)),
        }
    }

    /// Replaces `config.toml`.
    pub fn save_config(&self, config: &Config) -> Result<(), ClientError> {
        let text =
            toml::to_string(config).map_err(|error| ClientError::State(error.to_string()))?;
        self.replace(&self.config_path(), text.as_bytes())
    }

    /// Reads `machine.json`, if there is one.
    pub fn credentials(&self) -> Result<Option<Credentials>, ClientError> {
        let path = self.machine_path();
        let text = match fs::read(&path) {
            Ok(text) => zeroize::Zeroizing::new(text),
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(ClientError::io("read", path)(error)),
        };
        let damaged = || {
            ClientError::Setup(format!(
                "{} is damaged. `syncagent reset --new-machine` makes a new one, and then `syncagent register` with a new \
                 invitation lets this machine take part again; no file is touched",
                path.display()
            ))
        };
        let file: CredentialsFile = serde_json::from_slice(&text).map_err(|_| damaged())?;
        let mut seed = Secret::<32>::zeroed();
        decode_hex(&file.seed, seed.as_mut()).ok_or_else(damaged)?;
        let check_value = match &file.check_value {
            Some(text) => {
                let mut value = [0; 16];
                decode_hex(text, &mut value).ok_or_else(damaged)?;
                Some(value)
            }
            None => None,
        };
        let genesis = match &file.genesis {
            Some(text) => {
                let bytes = data_encoding::HEXLOWER
                    .decode(text.as_bytes())
                    .map_err(|_| damaged())?;
                Some(syncagent_vault::op::Genesis::parse(&bytes)?)
            }
            None => None,
        };
        let unproven_slot = match &file.unproven_slot {
            Some(slot) => {
                let mut hash = [0; 32];
                decode_hex(&slot.hash, &mut hash).ok_or_else(damaged)?;
                let slot_type = SlotType::from_number(slot.r#type).ok_or_else(damaged)?;
                Some(UnprovenSlot { slot_type, hash })
            }
            None => None,
        };
        Ok(Some(Credentials {
            machine: MachineKey::from_seed(seed)?,
            token: file.token.clone().map(zeroize::Zeroizing::new),
            vault: file.vault,
            check_value,
            genesis,
            key_used: file.key_used,
            recovery_tested: file.recovery_tested,
            trusted: file.trusted,
            pending_slots: file
                .pending_slots
                .iter()
                .map(|text| {
                    let bytes = data_encoding::HEXLOWER
                        .decode(text.as_bytes())
                        .map_err(|_| damaged())?;
                    Ok(Slot::parse(&bytes)?)
                })
                .collect::<Result<_, ClientError>>()?,
            pending_removals: file.pending_removals.clone(),
            unproven_slot,
        }))
    }

    /// Puts a `machine.json` that cannot be read under another name, so that a new one can be made.
    pub fn set_damaged_credentials_aside(&self) -> Result<(), ClientError> {
        match self.credentials() {
            Err(ClientError::Io { .. }) | Ok(_) => Ok(()),
            Err(_) => {
                let path = self.machine_path();
                fs::rename(&path, path.with_extension("json.damaged"))
                    .map_err(ClientError::io("rename", path))
            }
        }
    }

    /// Reads the credentials, or makes a new signing key and keeps it.
    pub fn credentials_or_new(&self, random: &dyn Random) -> Result<Credentials, ClientError> {
        if let Some(credentials) = self.credentials()? {
            return Ok(credentials);
        }
        let credentials = Credentials {
            machine: MachineKey::generate(random)?,
            token: None,
            vault: None,
            check_value: None,
            genesis: None,
            key_used: false,
            recovery_tested: false,
            trusted: None,
            pending_slots: Vec::new(),
            pending_removals: Vec::new(),
            unproven_slot: None,
        };
        self.save_credentials(&credentials)?;
        Ok(credentials)
    }

    /// Replaces `machine.json`.
    pub fn save_credentials(&self, credentials: &Credentials) -> Result<(), ClientError> {
        let hex = |bytes: &[u8]| data_encoding::HEXLOWER.encode(bytes);
        let file = CredentialsFile {
            seed: hex(credentials.machine.seed().expose()),
            token: credentials.token.as_ref().map(|token| token.to_string()),
            vault: credentials.vault,
            check_value: credentials.check_value.map(|value| hex(&value)),
            genesis: credentials.genesis.map(|genesis| hex(&genesis.encode())),
            key_used: credentials.key_used,
            recovery_tested: credentials.recovery_tested,
            trusted: credentials.trusted,
            pending_slots: credentials
                .pending_slots
                .iter()
                .map(|slot| hex(slot.as_bytes()))
                .collect(),
            pending_removals: credentials.pending_removals.clone(),
            unproven_slot: credentials.unproven_slot.map(|slot| UnprovenSlotFile {
                r#type: slot.slot_type.number(),
                hash: hex(&slot.hash),
            }),
        };
        let text = serde_json::to_vec_pretty(&file)
            .map_err(|error| ClientError::State(error.to_string()))?;
        self.replace(&self.machine_path(), &zeroize::Zeroizing::new(text))
    }

    /// Reads the credentials (new ones, if there are none), changes them and keeps them, while no other process does.
    ///
    /// A daemon and a command may both have something to note; whoever saved what it read long ago would take back
    /// what the other wrote.
    pub fn update_credentials<T>(
        &self,
        random: &dyn Random,
        change: impl FnOnce(&mut Credentials) -> T,
    ) -> Result<T, ClientError> {
        self.create()?;
        let path = self.config_dir.join("machine.lock");
        let turn = private::open_lock(&path).map_err(ClientError::io("open", &path))?;
        turn.lock().map_err(ClientError::io("lock", &path))?;
        let mut credentials = self.credentials_or_new(random)?;
        let done = change(&mut credentials);
        self.save_credentials(&credentials)?;
        Ok(done)
    }

    /// The sealed vault key, if there is one.
    pub fn slot(&self) -> Result<Option<Slot>, ClientError> {
        let path = self.key_path();
        match fs::read(&path) {
            Ok(bytes) => match Slot::parse(&bytes) {
                Ok(slot) => Ok(Some(slot)),
                Err(source) => Err(ClientError::KeyFile { path, source }),
            },
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(ClientError::io("read", path)(error)),
        }
    }

    /// Replaces the sealed vault key.
    pub fn save_slot(&self, slot: &Slot) -> Result<(), ClientError> {
        self.replace(&self.key_path(), slot.as_bytes())
    }

    /// The slot for the keyring's code. One that is damaged is as good as none.
    pub(crate) fn unlocked(&self) -> Result<Option<Slot>, ClientError> {
        let path = self.unlocked_path();
        match fs::read(&path) {
            Ok(bytes) => Ok(Slot::parse(&bytes).ok()),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(ClientError::io("read", path)(error)),
        }
    }

    /// Replaces it.
    pub(crate) fn save_unlocked(&self, slot: &Slot) -> Result<(), ClientError> {
        self.replace(&self.unlocked_path(), slot.as_bytes())
    }

    /// Removes it, for good, and what a crash left of one that was to be; false if there was none.
    pub(crate) fn remove_unlocked(&self) -> Result<bool, ClientError> {
        let path = self.unlocked_path();
        let left = temp_of(&path);
        match fs::remove_file(&left) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                return Err(ClientError::io("remove", left)(error));
            }
            _ => {}
        }
        match fs::remove_file(&path) {
            Ok(()) => {
                // After a crash it may otherwise be there again.
                let synced = private::sync_dir(&self.state_dir);
                synced.map_err(ClientError::io("write", &self.state_dir))?;
                Ok(true)
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
            Err(error) => Err(ClientError::io("remove", path)(error)),
        }
    }

    /// The last lock, to be compared with a later look. Whoever reads it before the key, and again once they can be
    /// told to lock, has missed none.
    pub fn last_lock(&self) -> Result<LockMark, ClientError> {
        let path = self.last_lock_path();
        match fs::read(&path) {
            Ok(bytes) => Ok(LockMark(bytes)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(LockMark(Vec::new())),
            Err(error) => Err(ClientError::io("read", path)(error)),
        }
    }

    /// Notes that somebody locks, before they look who has the key.
    pub fn note_lock(&self, random: &dyn Random) -> Result<(), ClientError> {
        // Where nothing is set up nobody opens anything.
        if !self.state_dir.exists() {
            return Ok(());
        }
        let mark: [u8; 16] = syncagent_vault::random::bytes(random);
        self.replace(&self.last_lock_path(), &mark)
    }

    /// What the last pass said, as [`Home::save_last_status`] left it; none if there is nothing that can be read.
    pub fn last_status(&self) -> Option<Vec<u8>> {
        fs::read(self.last_status_path()).ok()
    }

    /// The position that the last pass had verified, if what it said can be read.
    pub fn last_head(&self) -> Option<Head> {
        #[derive(Deserialize)]
        struct Said {
            head: Option<Head>,
        }
        let said: Said = serde_json::from_slice(&self.last_status()?).ok()?;
        said.head
    }

    /// Forgets what the last pass said.
    pub fn forget_last_status(&self) -> Result<(), ClientError> {
        let path = self.last_status_path();
        match fs::remove_file(&path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                Err(ClientError::io("remove", path)(error))
            }
            _ => Ok(()),
        }
    }

    /// Keeps what a pass said, for questions while nothing runs. It is written at every pass and nothing depends on it:
    /// it is not flushed, so that a pass with nothing to do waits for no disk, and after a power cut it may be older or
    /// damaged.
    pub fn save_last_status(&self, status: &[u8]) -> Result<(), ClientError> {
        self.write(&self.last_status_path(), |path, temp| {
            private::create_file(temp)?.write_all(status)?;
            fs::rename(temp, path)
        })
    }

    /// Opens the vault key with the password.
    pub fn unlock(&self, password: &Password) -> Result<VaultKey, ClientError> {
        let slot = self.slot()?.ok_or_else(|| {
            ClientError::Setup(
                "this machine has no key yet: run `syncagent init` or `syncagent import-key`"
                    .into(),
            )
        })?;
        let pinned = self
            .credentials()?
            .and_then(|credentials| credentials.check_value);
        Ok(slot.open(&Opener::Password(password), pinned.as_ref())?)
    }

    fn replace(&self, path: &Path, bytes: &[u8]) -> Result<(), ClientError> {
        self.write(path, |path, temp| {
            let mut file = private::create_file(temp)?;
            file.write_all(bytes)?;
            file.sync_all()?;
            fs::rename(temp, path)?;
            // The directory too: after a crash the rename may otherwise be gone.
            private::sync_dir(path.parent().unwrap_or(Path::new(".")))
        })
    }

    /// Lets `write` make what is to stand at the first path at the second, and move it.
    fn write(
        &self,
        path: &Path,
        write: impl FnOnce(&Path, &Path) -> io::Result<()>,
    ) -> Result<(), ClientError> {
        self.create()?;
        let temp = temp_of(path);
        write(path, &temp).map_err(|error| {
            // It may hold half of something by now, and nobody asks for it.
            let _ = fs::remove_file(&temp);
            ClientError::io("write", path)(error)
        })
    }
}

/// Where what is to stand at `path` is written first.
fn temp_of(path: &Path) -> PathBuf {
    path.with_extension("tmp")
}

impl Credentials {
    /// The machine's id.
    pub fn id(&self) -> MachineId {
        self.machine.id()
    }

    /// From now on the server has to show this position, unless a later one was known already.
    pub fn trust(&mut self, head: Head) {
        if self.trusted.is_none_or(|known| known.n < head.n) {
            self.trusted = Some(head);
        }
    }
}

fn decode_hex<const N: usize>(text: &str, out: &mut [u8; N]) -> Option<()> {
    let bytes = zeroize::Zeroizing::new(data_encoding::HEXLOWER.decode(text.as_bytes()).ok()?);
    out.copy_from_slice(bytes.get(..).filter(|bytes| bytes.len() == N)?);
    Some(())
}

/// The lock on a home: a second process on it is refused.
#[derive(Debug)]
pub struct HomeLock(#[expect(dead_code, reason = "held, not used")] fs::File);

impl HomeLock {
    /// Takes the lock, or says who has it.
    pub fn acquire(home: &Home) -> Result<Self, ClientError> {
        home.create()?;
        let path = home.lock_path();
        let file = private::open_lock(&path).map_err(ClientError::io("open", &path))?;
        match file.try_lock() {
            Ok(()) => Ok(Self(file)),
            Err(fs::TryLockError::WouldBlock) => Err(ClientError::Busy(format!(
                "another SyncAgent is already running with {}: `syncagent status` shows what it does",
                path.parent().unwrap_or(&path).display()
            ))),
            Err(fs::TryLockError::Error(error)) => Err(ClientError::io("lock", path)(error)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use syncagent_vault::random::OsRandom;

    #[test]
    fn credentials_survive_and_stay_private() {
        let dir = tempfile::tempdir().unwrap();
        let home = Home::at(dir.path().join("home"));
        let random = OsRandom::default();
        let mut credentials = home.credentials_or_new(&random).unwrap();
        credentials.token = Some(zeroize::Zeroizing::new("t".repeat(64)));
        credentials.vault = Some(VaultId([3; 16]));
        home.save_credentials(&credentials).unwrap();
        let text = fs::read_to_string(home.machine_path()).unwrap();
        // As it always was where there is nothing to say.
        assert!(!text.contains("unproven_slot"), "{text}");
        assert_eq!(home.credentials().unwrap().unwrap().unproven_slot, None);
        credentials.unproven_slot = Some(UnprovenSlot {
            slot_type: SlotType::Recovery,
            hash: [7; 32],
        });
        home.save_credentials(&credentials).unwrap();
        let back = home.credentials().unwrap().unwrap();
        assert_eq!(back.unproven_slot, credentials.unproven_slot);
        assert_eq!(back.id(), credentials.id());
        assert_eq!(back.vault, credentials.vault);
        assert_eq!(back.token.unwrap().as_str(), "t".repeat(64));
    }

    #[test]
    fn one_process_a_home() {
        let dir = tempfile::tempdir().unwrap();
        let home = Home::at(dir.path());
        let held = HomeLock::acquire(&home).unwrap();
        assert!(matches!(
            HomeLock::acquire(&home),
            Err(ClientError::Busy(_))
        ));
        drop(held);
        assert!(HomeLock::acquire(&home).is_ok());
    }

    #[test]
    fn a_mistyped_setting_is_named() {
        let dir = tempfile::tempdir().unwrap();
        let home = Home::at(dir.path());
        fs::write(home.config_path(), "sever = \"x\"").unwrap();
        assert!(home.config().unwrap_err().to_string().contains("`sever`"));
        fs::write(home.config_path(), "name = \"x\"\nquiet_ms = \"soon\"").unwrap();
        let slip = home.config().unwrap_err().to_string();
        assert!(slip.contains("config.toml, line 2, `quiet_ms`: "), "{slip}");
    }

    #[test]
    fn waiting_times_come_from_the_file() {
        let dir = tempfile::tempdir().unwrap();
        let home = Home::at(dir.path());
        assert_eq!(home.config().unwrap().schedule(), Schedule::default());
        let text = "closed_ms = 1\nquiet_ms = 2\nsettle_ms = 3\nfull_scan_s = 4\n";
        fs::write(home.config_path(), text).unwrap();
        let want = Schedule {
            closed_ms: 1,
            quiet_ms: 2,
            settle_ms: 3,
            full_scan_ms: 4000,
            ..Schedule::default()
        };
        assert_eq!(home.config().unwrap().schedule(), want);
    }
}
