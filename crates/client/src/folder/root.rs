//! Is this still the folder that was adopted, and is it ours alone?
//!
//! "Absence is not deletion": a folder that is missing, emptied, unmounted or replaced must stop everything. So the
//! folder carries an identity, `.syncagent/root`, which an empty mount point or another folder does not have, and the
//! directory that was opened must be the one its path still leads to.

use std::fmt;

use syncagent_protocol::{Code, VaultId};

use super::disk::{At, Dir, Disk, DiskError, ErrorKind, Guard, TempName};

/// Whose folder this is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Identity {
    /// The vault it is kept in.
    pub vault: VaultId,
    /// Chosen at random when the folder was adopted.
    pub folder: [u8; 16],
}

/// What the root is like.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RootState {
    /// The folder that was adopted.
    Fine,
    /// Nothing is at its path.
    Missing,
    /// A directory without identity: emptied, not mounted, or new.
    NoIdentity,
    /// A folder with another identity.
    Other,
    /// The path leads to another directory than the one that was opened: open it anew, then look again.
    Swapped,
}

impl RootState {
    /// One sentence: what, and what to do. None if it is fine.
    pub const fn problem(self) -> Option<&'static str> {
        match self {
            Self::Fine => None,
            Self::Missing => {
                Some("The folder is missing. Put it back or mount its drive; nothing was deleted.")
            }
            Self::NoIdentity => Some(
                "The folder lacks .syncagent/root: it is empty or not mounted, or somebody deleted .syncagent. Nothing was \
                 deleted elsewhere. Mount its disk or put the folder back; if it is the right one as it is, `syncagent reset` \
                 and then `syncagent sync` take it up again and keep what is on both sides.",
            ),
            Self::Other => Some(
                "Another folder stands in its place: .syncagent/root is damaged or of another one. Nothing was deleted. Put \
                     the right folder back; if this one is to be synchronised from now on, `syncagent reset` and then \
                     `syncagent sync` take it up and keep what is on both sides.",
            ),
            Self::Swapped => Some(
                "The folder was replaced while it was open, or its disk is not mounted any more. Put it back; nothing was \
                 deleted.",
            ),
        }
    }
}

/// Why a folder was not adopted.
#[derive(Debug, Clone, thiserror::Error)]
pub enum RootError {
    /// It is kept in another vault or was adopted under another identity.
    #[error(
        "this folder belongs to another vault or set-up. Choose another folder, or remove .syncagent/root in it"
    )]
    Other,
    /// Its identity cannot be understood.
    #[error(
        ".syncagent/root is damaged. If nothing else uses this folder, remove that file and try again"
    )]
    Damaged,
    /// The disk refused; [`ErrorKind::Busy`]: a second daemon.
    #[error(transparent)]
    Disk(#[from] DiskError),
}

impl RootError {
    /// The stable code.
    pub fn code(&self) -> Code {
        match self {
            Self::Other | Self::Damaged => Code::Root,
            Self::Disk(error) if error.kind == ErrorKind::Busy => Code::Busy,
            Self::Disk(error) => error.code(),
        }
    }
}

impl fmt::Display for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "syncagent folder 1\nvault {}", self.vault)?;
        f.write_str("folder ")?;
        self.folder
            .iter()
            .try_for_each(|byte| write!(f, "{byte:02x}"))?;
        writeln!(f)
    }
}

impl Identity {
    fn parse(text: &str) -> Option<Self> {
        let mut lines = text.lines();
        if lines.next()? != "syncagent folder 1" {
            return None;
        }
        let vault = lines.next()?.strip_prefix("vault ")?.parse().ok()?;
        let digits = lines.next()?.strip_prefix("folder ")?;
        if digits.len() != 32 || !digits.bytes().all(|b| b.is_ascii_hexdigit()) {
            return None;
        }
        let folder = u128::from_str_radix(digits, 16).ok()?.to_be_bytes();
        Some(Self { vault, folder })
    }
}

/// The identity in the folder; none if it was never adopted.
pub fn read_identity(disk: &dyn Disk) -> Result<Option<Identity>, RootError> {
    let file = match disk.open(At::Identity) {
        Err(error) if error.kind == ErrorKind::NotFound => return Ok(None),
        result => result?,
    };
    let mut text = [0; 512];
    let mut len = 0;
    while len < text.len() {
        match file.read_at(&mut text[len..], len as u64)? {
            0 => break,
            n => len += n,
        }
    }
    let identity = std::str::from_utf8(&text[..len])
        .ok()
        .and_then(Identity::parse);
    identity.map(Some).ok_or(RootError::Damaged)
}

/// Looks whether the root is what it should be. Call it before each scan whose absences count, and after it.
pub fn check_root(disk: &dyn Disk, expected: &Identity) -> Result<RootState, DiskError> {
    match disk.root_is_same() {
        Ok(true) => {}
        Ok(false) => return Ok(RootState::Swapped),
        Err(error) if matches!(error.kind, ErrorKind::NotFound | ErrorKind::NotADirectory) => {
            return Ok(RootState::Missing);
        }
        Err(error) => return Err(error),
    }
    match read_identity(disk) {
        Ok(Some(found)) if found == *expected => Ok(RootState::Fine),
        Ok(Some(_)) | Err(RootError::Other | RootError::Damaged) => Ok(RootState::Other),
        Ok(None) => Ok(RootState::NoIdentity),
        Err(RootError::Disk(error)) => Err(error),
    }
}

/// Locks the folder of this identity; the guard holds the lock. For every start but the first.
pub fn lock(disk: &dyn Disk) -> Result<Guard, RootError> {
    // Makes the directory for temps, should somebody have tidied it away.
    disk.prepare()?;
    Ok(disk.lock()?)
}

/// Makes the folder one of SyncAgent's and locks it. Nothing outside `.syncagent` changes. Adopting again under the
/// same identity is fine.
pub fn adopt(disk: &dyn Disk, identity: &Identity) -> Result<Guard, RootError> {
    if read_identity(disk)?.is_some_and(|found| found != *identity) {
        return Err(RootError::Other);
    }
    disk.prepare()?;
    let guard = disk.lock()?;
    // Once more, now that nobody else can write it.
    match read_identity(disk)? {
        Some(found) if found == *identity => return Ok(guard),
        Some(_) => return Err(RootError::Other),
        None => {}
    }
    let temp = unused(disk, "id")?;
    let file = disk.create_temp(&temp)?;
    file.write_at(identity.to_string().as_bytes(), 0)?;
    file.sync()?;
    drop(file);
    disk.rename(At::Temp(&temp), At::Identity)?;
    disk.sync_dir(Dir::Own)?;
    disk.sync_dir(Dir::Tree(&syncagent_protocol::TreePath::ROOT))?;
    Ok(guard)
}

/// A temp's name that nothing has, under the folder's lock.
pub(super) fn unused(disk: &dyn Disk, prefix: &str) -> Result<TempName, DiskError> {
    let taken = disk.list_temp()?;
    let free = (0..=taken.len())
        .filter_map(|n| TempName::parse(&format!("{prefix}-{n}")))
        .find(|name| taken.binary_search(name).is_err());
    free.ok_or_else(|| DiskError::new(ErrorKind::Exists, "write", ".syncagent/tmp", "no free name"))
}
