//! Setting one machine up: its key, its registration, and what carries the key to the next machine.
//!
//! Nothing here asks or prints. What is new is whole in memory before the first file is written, and the key file comes
//! last: a machine that has one has everything that belongs to it.

mod strength;
mod words;

use std::fs;
use std::path::{Path, PathBuf};

use syncagent_protocol::api::{Head, RegisterRequest, is_machine_name, register_message};
use syncagent_protocol::invitation::Invitation;
use syncagent_protocol::{Code, CommitHash, VaultId};
use syncagent_vault::export::{self, Contents};
use syncagent_vault::keys::VaultKey;
use syncagent_vault::machine::MachineKey;
use syncagent_vault::op::Genesis;
use syncagent_vault::random::Random;
use syncagent_vault::recovery::RecoveryCode;
use syncagent_vault::slot::{KdfParams, Opener, Password, Slot, SlotRandom, SlotType};
use syncagent_vault::{VaultError, slot};
use zeroize::Zeroizing;

pub use strength::{CLOUD_BITS, estimate};
pub use words::{WORDS, fingerprint};

use crate::error::ClientError;
use crate::home::{Config, Credentials, Home, UnprovenSlot};
use crate::index::Index;
use crate::remote::http::{self, Transport};
use crate::remote::tls::Trust;
use crate::remote::{Remote, RemoteError};

type Result<T> = std::result::Result<T, SetupError>;

/// Why a machine cannot be set up as asked.
#[derive(Debug, thiserror::Error)]
pub enum SetupError {
    /// What was asked for cannot be done so.
    #[error("{0}")]
    Usage(String),
    /// A recovery code without a typing error that does not open this vault.
    #[error(
        "this recovery code does not open this vault: it belongs to another one, or was replaced by a newer code"
    )]
    WrongCode,
    /// Anything else.
    #[error(transparent)]
    Client(#[from] ClientError),
}

impl SetupError {
    /// The stable code.
    pub fn code(&self) -> Code {
        match self {
            Self::Usage(_) => Code::Usage,
            Self::WrongCode => Code::Keyslot,
            Self::Client(error) => error.code(),
        }
    }
}

impl From<VaultError> for SetupError {
    fn from(error: VaultError) -> Self {
        Self::Client(error.into())
    }
}

impl From<RemoteError> for SetupError {
    fn from(error: RemoteError) -> Self {
        Self::Client(error.into())
    }
}

/// One machine that is being set up, with the time and the randomness for it.
pub struct Setup<'a> {
    /// Its files.
    pub home: &'a Home,
    /// Where keys come from.
    pub random: &'a dyn Random,
    /// Now, milliseconds since 1970.
    pub now_ms: u64,
    /// Cost of the slots that are made.
    pub kdf: KdfParams,
}

/// What is chosen when a vault is made, and never again.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct VaultChoices {
    /// Equal content is stored once in the whole vault; the server may see that it is equal.
    pub dedup_vault: bool,
    /// The server keeps a password slot: the password alone then opens a new machine or the web page.
    pub cloud_slot: bool,
}

/// A new vault, complete but not yet kept. Its recovery code is shown now or never.
pub struct NewVault {
    key: VaultKey,
    code: RecoveryCode,
    slot: Slot,
    genesis: Genesis,
    /// For the server: recovery, and password if that was chosen.
    pending: Vec<Slot>,
}

impl NewVault {
    /// What is written down.
    pub fn recovery_code(&self) -> Zeroizing<String> {
        self.code.to_text()
    }
}

/// How a key that is to be kept relates to the one that is there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum InPlace {
    /// There is none.
    Nothing,
    /// It is the same one.
    Same,
    /// There is another one, with which nothing was ever written.
    Unused,
    /// There is another one, and things were written with it.
    Used,
}

/// A key from elsewhere, complete but not yet kept.
pub struct ForeignKey {
    key: VaultKey,
    genesis: Option<Genesis>,
    trusted: Option<Head>,
    server: Option<String>,
    slot: Option<UnprovenSlot>,
}

impl ForeignKey {
    /// The vault it opens.
    pub fn vault(&self) -> VaultId {
        self.key.vault()
    }

    /// Address of the server, if the export told one.
    pub fn server(&self) -> Option<&str> {
        self.server.as_deref()
    }

    /// The slot of a server that it came from. Only the log can say whether that slot is the one that counts.
    pub fn slot(&self) -> Option<UnprovenSlot> {
        self.slot
    }

    /// The key itself.
    pub fn into_key(self) -> VaultKey {
        self.key
    }
}

/// What is kept beside a key.
struct Kept {
    genesis: Option<Genesis>,
    trusted: Option<Head>,
    slot: Option<UnprovenSlot>,
}

/// How a machine wants to be registered.
pub struct Registration<'a> {
    /// What somebody handed over.
    pub invitation: &'a Invitation,
    /// Address of the server.
    pub server: &'a str,
    /// Name of the machine.
    pub name: &'a str,
    /// The folder, absolute.
    pub folder: &'a Path,
    /// What made the server the right one; it is kept.
    pub trust: &'a Trust,
    /// Operating system and processor, for people.
    pub platform: &'a str,
}

/// What the server said to a registration.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Registered {
    /// The vault, if it has a first commit.
    pub vault: Option<VaultId>,
    /// Where its log ends.
    pub head: Option<Head>,
}

impl Setup<'_> {
    /// Makes a vault in memory.
    pub fn new_vault(&self, password: &str, choices: VaultChoices) -> Result<NewVault> {
        if choices.cloud_slot && estimate(password) < CLOUD_BITS {
            return Err(SetupError::Usage(
                "this password is too easy to guess for a slot on the server, where one may try as often as one likes. \
                 Choose a longer one, such as five random words, or leave out --cloud-slot"
                    .into(),
            ));
        }
        let password = Password::new(password);
        let key = VaultKey::generate(self.random);
        let code = RecoveryCode::generate(self.random);
        let slot = self.seal(&key, &Opener::Password(&password))?;
        let mut pending = vec![self.seal(&key, &Opener::Recovery(&code))?];
        if choices.cloud_slot {
            pending.push(self.seal(&key, &Opener::Password(&password))?);
        }
        let genesis = Genesis {
            dedup_vault: choices.dedup_vault,
            ..Genesis::default()
        };
        Ok(NewVault {
            key,
            code,
            slot,
            genesis,
            pending,
        })
    }

    /// Makes a new vault this machine's own.
    pub fn keep_vault(&self, vault: NewVault) -> Result<VaultKey> {
        let NewVault {
            key,
            slot,
            genesis,
            pending,
            ..
        } = vault;
        let kept = Kept {
            genesis: Some(genesis),
            trusted: None,
            slot: None,
        };
        self.keep(&key, &slot, kept, pending)?;
        Ok(key)
    }

    /// How `vault`'s key relates to the one that is here; with its check value, if that is known.
    pub fn in_place(&self, vault: VaultId, check_value: Option<[u8; 16]>) -> Result<InPlace> {
        match self.home.slot() {
            Ok(None) => return Ok(InPlace::Nothing),
            // What cannot be read any more is to be replaced all the more, and was a key none the less.
            Ok(Some(_)) | Err(ClientError::KeyFile { .. }) => {}
            Err(error) => return Err(error.into()),
        }
        Ok(match self.home.credentials()? {
            Some(here)
                if here.vault == Some(vault)
                    && check_value.is_some()
                    && here.check_value == check_value =>
            {
                InPlace::Same
            }
            Some(here) if here.key_used => InPlace::Used,
            _ => InPlace::Unused,
        })
    }

    /// [`Self::in_place`] for a key from elsewhere.
    pub fn foreign_in_place(&self, foreign: &ForeignKey) -> Result<InPlace> {
        self.in_place(foreign.key.vault(), Some(foreign.key.check_value()?))
    }

    /// Registers this machine, makes its folder, and notes what the server said.
    pub async fn register(
        &self,
        transport: &dyn Transport,
        registration: Registration<'_>,
    ) -> Result<Registered> {
        let Registration {
            invitation,
            server,
            name,
            folder,
            trust,
            platform,
        } = registration;
        if !is_machine_name(name) {
            return Err(SetupError::Usage(format!(
                "'{name}' is no name for a machine: 3 to 32 of the characters A-Z a-z 0-9 _ -"
            )));
        }
        let folder = self.make_folder(folder)?;
        let (message, public, id) = self.home.update_credentials(self.random, |credentials| {
            let signature = credentials
                .machine
                .sign(&register_message(&invitation.hash(), name));
            (signature, *credentials.machine.public(), credentials.id())
        })?;
        let hex = |bytes: &[u8]| data_encoding::HEXLOWER.encode(bytes);
        let request = RegisterRequest {
            invitation: invitation.to_text(),
            public_key: hex(&public),
            name: name.to_owned(),
            platform: platform.to_owned(),
            signature: hex(&message),
        };
        let response = http::register(transport, &request).await?;
        let token = Zeroizing::new(response.token);
        if response.machine != id
            || token.len() != 64
            || !token.bytes().all(|b| b.is_ascii_hexdigit())
        {
            return Err(RemoteError::Protocol("not an answer to this registration".into()).into());
        }
        let ours = self
            .home
            .credentials()?
            .and_then(|credentials| credentials.vault);
        if let (Some(ours), Some(theirs)) = (
            ours.filter(|_| self.home.key_path().exists()),
            response.vault,
        ) && ours != theirs
        {
            return Err(ClientError::Halted {
                code: Code::Vault,
                message: "the invitation is for another vault than this machine's key opens. Import that vault's key with \
                          `syncagent import-key`, or ask for an invitation to this one"
                    .into(),
            }
            .into());
        }
        self.home
            .update_credentials(self.random, |credentials| credentials.token = Some(token))?;
        let config = Config {
            server: Some(server.to_owned()),
            name: Some(name.to_owned()),
            folder: Some(folder),
            insecure: trust.insecure,
            certificate: trust.certificate.map(|hash| hex(&hash)),
            ca: trust.ca.clone(),
            ..self.home.config()?
        };
        self.home.save_config(&config)?;
        Ok(Registered {
            vault: response.vault,
            head: response.head,
        })
    }

    fn make_folder(&self, folder: &Path) -> Result<PathBuf> {
        fs::create_dir_all(folder).map_err(ClientError::io("create", folder))?;
        let folder = fs::canonicalize(folder).map_err(ClientError::io("open", folder))?;
        self.home.create()?;
        match self.home.overlaps(&folder) {
            false => Ok(folder),
            true => Err(SetupError::Usage(format!(
                "{} holds SyncAgent's own files, the key among them: choose another folder",
                folder.display()
            ))),
        }
    }

    /// Seals the key for another machine. `server` tells it where to go.
    pub fn export(&self, key: &VaultKey, password: &str) -> Result<Zeroizing<String>> {
        let here = self.home.credentials()?;
        if here.is_some_and(|here| here.unproven_slot.is_some()) {
            // Whoever imports it would take this machine's word for it.
            return Err(ClientError::Halted {
                code: Code::Keyslot,
                message: "this machine has its key from the server and has not compared it with the vault's history yet. Run \
                          `syncagent sync --once` first, which does, then export it"
                    .into(),
            }
            .into());
        }
        let (head, genesis) = self.known(key.vault())?;
        let contents = Contents {
            n: head.n,
            hash: head.hash,
            genesis,
            url: self.home.config()?.server.unwrap_or_default(),
        };
        let random = SlotRandom::new(self.random);
        Ok(export::seal(
            key,
            &Password::new(password),
            self.kdf,
            self.now_ms / 1000,
            &random,
            &contents,
        )?)
    }

    /// The position this machine has verified, and the vault's choices.
    fn known(&self, vault: VaultId) -> Result<(Head, Genesis)> {
        let here = self.home.credentials()?;
        let (mut head, mut genesis) = (None, None);
        if self.home.state_path().exists() {
            let index = Index::open(&self.home.state_path())?;
            head = index.position()?;
            genesis = index
                .genesis()?
                .map(|bytes| Genesis::parse(&bytes))
                .transpose()?;
        }
        let trusted = here.as_ref().and_then(|here| here.trusted);
        let head = head.or(trusted).unwrap_or(Head {
            n: 0,
            hash: CommitHash::genesis(vault),
        });
        Ok((
            head,
            genesis
                .or(here.and_then(|here| here.genesis))
                .unwrap_or_default(),
        ))
    }

    /// Opens an export.
    pub fn open_export(&self, text: &str, password: &str) -> Result<ForeignKey> {
        let (key, contents) = export::open(text, &Password::new(password))?;
        let trusted = (contents.n > 0).then_some(Head {
            n: contents.n,
            hash: contents.hash,
        });
        let server = (!contents.url.is_empty()).then_some(contents.url);
        Ok(ForeignKey {
            key,
            genesis: Some(contents.genesis),
            trusted,
            server,
            slot: None,
        })
    }

    /// Makes a key from elsewhere this machine's own, sealed by `password`.
    pub fn keep_foreign(&self, foreign: &ForeignKey, password: &str) -> Result<()> {
        let slot = self.seal(&foreign.key, &Opener::Password(&Password::new(password)))?;
        let kept = Kept {
            genesis: foreign.genesis,
            trusted: foreign.trusted,
            slot: foreign.slot,
        };
        self.keep(&foreign.key, &slot, kept, Vec::new())
    }

    fn keep(
        &self,
        key: &VaultKey,
        slot: &Slot,
        kept: Kept,
        pending_slots: Vec<Slot>,
    ) -> Result<()> {
        let Kept {
            genesis,
            trusted,
            slot: unproven_slot,
        } = kept;
        let check_value = key.check_value()?;
        let same = self.in_place(key.vault(), Some(check_value))? == InPlace::Same;
        // What was verified with another key was another history, whatever vault it called itself.
        let another = self.home.credentials()?.is_some_and(|here| {
            here.vault.is_some_and(|vault| vault != key.vault())
                || here.check_value.is_some_and(|value| value != check_value)
        });
        if another {
            forget_index(self.home)?;
        }
        self.home
            .update_credentials(self.random, |credentials: &mut Credentials| {
                credentials.vault = Some(key.vault());
                credentials.check_value = Some(check_value);
                if !same {
                    credentials.genesis = genesis;
                    credentials.key_used = false;
                    credentials.recovery_tested = false;
                    credentials.pending_slots = pending_slots;
                    credentials.trusted = trusted;
                } else if trusted.map(|head| head.n) > credentials.trusted.map(|head| head.n) {
                    credentials.trusted = trusted;
                }
                // A key that this machine works with already needs nobody's word.
                if !same || credentials.unproven_slot.is_some() {
                    credentials.unproven_slot = unproven_slot;
                }
            })?;
        Ok(self.home.save_slot(slot)?)
    }

    /// Seals the key anew under another password; true if the server's slot will be replaced, too.
    pub fn change_password(&self, key: &VaultKey, password: &str) -> Result<bool> {
        let opener = Password::new(password);
        let cloud = self.has_cloud_slot()?;
        if cloud && estimate(password) < CLOUD_BITS {
            return Err(SetupError::Usage(
                "the server keeps a slot for this vault's password, and the new one is too easy to guess for that: choose \
                 a longer one, such as five random words"
                    .into(),
            ));
        }
        let slot = self.seal(key, &Opener::Password(&opener))?;
        let on_server = cloud
            .then(|| self.seal(key, &Opener::Password(&opener)))
            .transpose()?;
        self.home.save_slot(&slot)?;
        if let Some(on_server) = on_server {
            self.home.update_credentials(self.random, |credentials| {
                credentials
                    .pending_slots
                    .retain(|slot| slot.slot_type() != SlotType::Password);
                credentials.pending_slots.push(on_server);
            })?;
        }
        Ok(cloud)
    }

    fn has_cloud_slot(&self) -> Result<bool> {
        let number = SlotType::Password.number();
        let pending = self.home.credentials()?.is_some_and(|credentials| {
            credentials
                .pending_slots
                .iter()
                .any(|slot| slot.slot_type() == SlotType::Password)
        });
        Ok(pending
            || (self.home.state_path().exists()
                && Index::open(&self.home.state_path())?
                    .keyslot(number)?
                    .is_some()))
    }

    /// Proves that the recovery code opens what is kept for it, and notes that it does.
    pub async fn test_recovery(
        &self,
        code: &RecoveryCode,
        remote: Option<&dyn Remote>,
    ) -> Result<()> {
        let here = self.home.credentials()?;
        let waiting = here.as_ref().and_then(|here| {
            here.pending_slots
                .iter()
                .find(|slot| slot.slot_type() == SlotType::Recovery)
                .map(|slot| slot.as_bytes().to_vec())
        });
        let pinned = match self.home.state_path().exists() {
            true => Index::open(&self.home.state_path())?.keyslot(SlotType::Recovery.number())?,
            false => None,
        };
        let slots = match (waiting, remote) {
            (Some(slot), _) => vec![Slot::parse(&slot)?],
            (None, Some(remote)) => slots_of(remote, SlotType::Recovery).await?,
            (None, None) => Vec::new(),
        };
        let slot = slots
            .iter()
            .find(|slot| pinned.is_none_or(|pinned| pinned == slot.hash()))
            .or(slots.first())
            .ok_or_else(|| {
                ClientError::Setup(
                    "no recovery code was ever made for this vault, or the server lost it".into(),
                )
            })?;
        let check_value = here.and_then(|here| here.check_value);
        slot.open(&Opener::Recovery(code), check_value.as_ref())
            .map_err(|error| match error {
                VaultError::Keyslot => SetupError::WrongCode,
                error => error.into(),
            })?;
        Ok(self.home.update_credentials(self.random, |credentials| {
            credentials.recovery_tested = true
        })?)
    }

    fn seal(&self, key: &VaultKey, opener: &Opener<'_>) -> Result<Slot> {
        Ok(Slot::seal(
            key,
            opener,
            self.kdf,
            self.now_ms / 1000,
            &SlotRandom::new(self.random),
        )?)
    }
}

/// Opens a key through the slots that a server keeps. It knows which of them opened: only the log, once it is read, can
/// say whether that slot is the one that counts.
pub fn open_slots(slots: &[Slot], opener: &Opener<'_>) -> Result<ForeignKey> {
    let mut wrong = VaultError::Keyslot;
    for slot in slots {
        match slot.open(opener, None) {
            Ok(key) => {
                return Ok(ForeignKey {
                    key,
                    genesis: None,
                    trusted: None,
                    server: None,
                    slot: Some(UnprovenSlot {
                        slot_type: slot.slot_type(),
                        hash: slot.hash(),
                    }),
                });
            }
            Err(error) => wrong = error,
        }
    }
    Err(wrong.into())
}

/// The slots of a type that a server keeps, the newest first. One that is of no use is left out; if there is no other,
/// the error says why: it is not the same as if there were none.
pub async fn slots_of(remote: &dyn Remote, slot_type: SlotType) -> Result<Vec<Slot>> {
    let mut slots = Vec::new();
    let mut useless = None;
    for previous in [false, true] {
        let Some(bytes) = remote.slot(slot_type.number(), previous).await? else {
            continue;
        };
        match Slot::parse(&bytes) {
            Ok(slot) if slot.slot_type() == slot_type => slots.push(slot),
            Ok(_) => drop(useless.get_or_insert(VaultError::Keyslot)),
            Err(error) => drop(useless.get_or_insert(error)),
        }
    }
    match useless {
        Some(error) if slots.is_empty() => Err(error.into()),
        _ => Ok(slots),
    }
}

/// Drops the index and keeps the position it had verified: everything else is found again from the folder and the
/// server, but that a server shows an older history would not be.
pub fn reset(home: &Home, random: &dyn Random) -> Result<()> {
    // An index that cannot be read any more is the reason to be here.
    let verified = Index::open(&home.state_path())
        .and_then(|index| index.position())
        .ok()
        .flatten();
    for head in [verified, home.last_head()].into_iter().flatten() {
        home.update_credentials(random, |credentials| credentials.trust(head))?;
    }
    forget_index(home)
}

/// [`reset`], and a new signing key in place of the old one: to the vault another machine, which needs an invitation.
/// The vault key stays.
pub fn become_another(home: &Home, random: &dyn Random) -> Result<()> {
    home.set_damaged_credentials_aside()?;
    reset(home, random)?;
    let machine = MachineKey::generate(random)?;
    Ok(home.update_credentials(random, |credentials| {
        credentials.machine = machine;
        credentials.token = None;
    })?)
}

/// Removes the index, and what was said of it.
fn forget_index(home: &Home) -> Result<()> {
    let index = |suffix| {
        let mut file = home.state_path().into_os_string();
        file.push(suffix);
        PathBuf::from(file)
    };
    home.forget_last_status()?;
    for file in [index(""), index("-wal"), index("-shm")] {
        match fs::remove_file(&file) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                return Err(ClientError::io("remove", file)(error).into());
            }
            _ => {}
        }
    }
    Ok(())
}

/// A name for a machine that the computer's name suggests.
pub fn machine_name(host: &str) -> String {
    let short = host.split('.').next().unwrap_or_default();
    let name: String = short
        .chars()
        .map(|c| {
            if c.is_ascii_alphanumeric() || c == '_' {
                c
            } else {
                '-'
            }
        })
        .collect();
    let name: String = name.trim_matches('-').chars().take(32).collect();
    match name.len() {
        0 => "machine".to_owned(),
        1 | 2 => format!("{name}-machine"),
        _ => name,
    }
}

/// Whether a text can be a new password: the rule is counted in characters after normalisation.
pub fn check_password(text: &str) -> Result<()> {
    Password::new(text).check_strength().map_err(Into::into)
}

/// The shortest new password, in characters.
pub const MIN_PASSWORD_CHARS: usize = slot::MIN_PASSWORD_CHARS;

#[cfg(test)]
mod tests;
