//! Holds the key between commands where there is no keyring: `unlock` starts an agent, `lock` ends it.
//!
//! What the agent keeps, in memory that is not swapped, is a slot made for it alone and the random code that opens that
//! slot. The vault key itself is never in its memory, and neither half says anything about it. Whoever can connect to
//! its socket gets both: the socket is its owner's, in a directory that only they may enter.

#[cfg(unix)]
#[path = "agent/unix.rs"]
mod system;
#[cfg(not(unix))]
#[path = "agent/windows.rs"]
mod system;

use std::fs::{self, TryLockError};
use std::io::{self, Read as _, Write as _};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use interprocess::local_socket::prelude::*;
use interprocess::local_socket::{ListenerOptions, Stream};
use notify::Watcher as _;
use syncagent_vault::keys::VaultKey;
use syncagent_vault::random::{self, Random};
use syncagent_vault::recovery::RecoveryCode;
use syncagent_vault::secret::Secret;
use syncagent_vault::slot::{KdfParams, Opener, SLOT_LEN, Slot, SlotRandom};

use crate::error::ClientError;
use crate::home::Home;
use crate::private;

const CODE_LEN: usize = 20;
/// Length of what the agent keeps.
pub const KEEPSAKE_LEN: usize = SLOT_LEN + CODE_LEN;

const GET: u8 = b'g';
const LOCK: u8 = b'l';
const DONE: u8 = b'.';
/// How long either end waits for the other, which is on the same computer.
const PATIENCE: Duration = Duration::from_secs(5);
/// From one look at a home whose key is gone to the next.
const LOOK_AGAIN: Duration = Duration::from_secs(1);

/// What is handed to the agent: a slot, and the code that opens it.
pub struct Keepsake(Secret<KEEPSAKE_LEN>);

impl Keepsake {
    /// Wraps a key for an agent.
    pub fn new(key: &VaultKey, random: &dyn Random, now_ms: u64) -> Result<Self, ClientError> {
        let bytes: Secret<CODE_LEN> = random::secret(random);
        let code = RecoveryCode::from_bytes(bytes.expose());
        let slot_random = SlotRandom::new(random);
        let slot = Slot::seal(
            key,
            &Opener::Recovery(&code),
            KdfParams::DEFAULT,
            now_ms / 1000,
            &slot_random,
        )?;
        let mut keepsake = Secret::zeroed();
        keepsake.as_mut()[..SLOT_LEN].copy_from_slice(slot.as_bytes());
        keepsake.as_mut()[SLOT_LEN..].copy_from_slice(bytes.expose());
        Ok(Self(keepsake))
    }

    /// Reads what [`Self::write`] wrote.
    pub fn read(from: &mut impl io::Read) -> io::Result<Self> {
        let mut keepsake = Secret::zeroed();
        from.read_exact(keepsake.as_mut())?;
        Ok(Self(keepsake))
    }

    /// Hands it on.
    pub fn write(&self, to: &mut impl io::Write) -> io::Result<()> {
        to.write_all(self.0.expose())?;
        to.flush()
    }

    /// Puts the two halves together; none if the code has another length.
    pub(crate) fn of(slot: &Slot, code: &[u8]) -> Option<Self> {
        let code: &[u8; CODE_LEN] = code.try_into().ok()?;
        let mut keepsake = Secret::zeroed();
        keepsake.as_mut()[..SLOT_LEN].copy_from_slice(slot.as_bytes());
        keepsake.as_mut()[SLOT_LEN..].copy_from_slice(code);
        Some(Self(keepsake))
    }

    /// The slot, which says nothing without the code.
    pub(crate) fn slot(&self) -> Result<Slot, ClientError> {
        Ok(Slot::parse(&self.0.expose()[..SLOT_LEN])?)
    }

    /// The code, which says nothing without the slot.
    pub(crate) fn code(&self) -> &[u8] {
        &self.0.expose()[SLOT_LEN..]
    }

    /// Unwraps the key; `check_value` is the one this machine has pinned.
    pub fn open(&self, check_value: Option<&[u8; 16]>) -> Result<VaultKey, ClientError> {
        let bytes = self.0.expose();
        let mut code = Secret::<CODE_LEN>::zeroed();
        code.as_mut().copy_from_slice(&bytes[SLOT_LEN..]);
        let code = RecoveryCode::from_bytes(code.expose());
        Ok(Slot::parse(&bytes[..SLOT_LEN])?.open(&Opener::Recovery(&code), check_value)?)
    }
}

/// The key that the agent of `home` holds; none if there is no agent.
pub fn fetch(home: &Home) -> Result<Option<VaultKey>, ClientError> {
    let Some(mut stream) = connect(home) else {
        return Ok(None);
    };
    let keepsake = stream
        .write_all(&[GET])
        .and_then(|()| Keepsake::read(&mut stream));
    let Ok(keepsake) = keepsake else {
        return Ok(None);
    };
    let pinned = home
        .credentials()?
        .and_then(|credentials| credentials.check_value);
    keepsake.open(pinned.as_ref()).map(Some)
}

/// Ends the agent of `home`; false if there was none.
pub fn lock(home: &Home) -> Result<bool, ClientError> {
    let Some(mut stream) = connect(home) else {
        return Ok(false);
    };
    let mut answer = [0];
    match stream
        .write_all(&[LOCK])
        .and_then(|()| stream.read_exact(&mut answer))
    {
        Ok(()) => Ok(true),
        // Somebody else locked at the same moment, and the agent is gone.
        Err(error) if is_gone(&error) => Ok(true),
        Err(error) => Err(ClientError::io("talk to the agent at", home.agent_path())(
            error,
        )),
    }
}

fn is_gone(error: &io::Error) -> bool {
    use io::ErrorKind::{BrokenPipe, ConnectionReset, UnexpectedEof};
    matches!(error.kind(), BrokenPipe | ConnectionReset | UnexpectedEof)
}

fn connect(home: &Home) -> Option<Stream> {
    let stream = Stream::connect(system::name(&home.agent_path()).ok()?).ok()?;
    system::set_patience(&stream, PATIENCE).ok()?;
    Some(stream)
}

/// Is the agent: says `ready` once it can be asked, and returns when it was told to lock, or when the home is gone, whose
/// key nobody can ask for any more.
pub fn run(home: &Home, keepsake: Keepsake, ready: impl FnOnce()) -> Result<(), ClientError> {
    let path = home.agent_path();
    let dir = path.parent().unwrap_or(&path);
    private::create_dir(dir).map_err(ClientError::io("create", dir))?;
    let turn =
        private::open_lock(&path.with_extension("lock")).map_err(ClientError::io("open", &path))?;
    match turn.try_lock() {
        Ok(()) => {}
        Err(TryLockError::WouldBlock) => {
            return Err(ClientError::Busy("the key is unlocked already".into()));
        }
        Err(TryLockError::Error(error)) => return Err(ClientError::io("lock", &path)(error)),
    }
    // An agent that was killed leaves its socket behind; the lock says that nobody listens there.
    let _ = fs::remove_file(&path);
    let name = system::name(&path).map_err(ClientError::io("use", &path))?;
    let listener = system::listen(ListenerOptions::new().name(name))
        .map_err(ClientError::io("listen on", &path))?;
    // Without this the page may be written to a swap file. A limit that forbids it is no reason to refuse the service.
    let _guard = region::lock(keepsake.0.expose().as_ptr(), KEEPSAKE_LEN)
        .inspect_err(|error| tracing::warn!(%error, "the key cannot be kept out of swap"))
        .ok();
    let keepsake = Arc::new(Mutex::new(Some(keepsake)));
    let kept = Arc::clone(&keepsake);
    system::detach();
    let (told, locked) = std::sync::mpsc::channel();
    let _watched = watch(home, told.clone());
    ready();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            match stream {
                Ok(stream) => {
                    let (keepsake, told) = (Arc::clone(&keepsake), told.clone());
                    // A thread each: one that connects and says nothing keeps nobody waiting.
                    std::thread::spawn(move || serve(stream, &keepsake, &told));
                }
                // Out of file descriptors, most likely: give others time to end.
                Err(_) => std::thread::sleep(Duration::from_millis(100)),
            }
        }
    });
    let whoever_locked = wait(home, &locked);
    // Whoever is told that it is locked finds nobody to ask any more, and nothing in memory. The process ends with this.
    drop(take(&kept));
    let _ = fs::remove_file(&path);
    if let Some(mut stream) = whoever_locked {
        let _ = stream.write_all(&[DONE]);
    }
    Ok(())
}

/// What an agent wakes for.
enum Told {
    Lock(Stream),
    /// Something is missing in the home.
    Look,
}

/// Tells when the key's file is gone. Asleep until the system says that something happened in its directory; none where
/// the system cannot say that.
fn watch(home: &Home, told: Sender<Told>) -> Option<notify::RecommendedWatcher> {
    let key = home.key_path();
    let dir = key.parent().unwrap_or(&key).to_owned();
    // It may be gone before it is watched.
    let _ = told.send(Told::Look);
    let look = move |_: notify::Result<notify::Event>| {
        if !key.exists() {
            let _ = told.send(Told::Look);
        }
    };
    let mut watcher = notify::recommended_watcher(look).ok()?;
    let watched = watcher.watch(&dir, notify::RecursiveMode::NonRecursive);
    watched.ok().map(|()| watcher)
}

/// Returns whoever locks, or none once the home is gone.
fn wait(home: &Home, told: &Receiver<Told>) -> Option<Stream> {
    let key = home.key_path();
    let dir = key.parent().unwrap_or(&key);
    let mut is_whole = true;
    loop {
        // Nobody hears of the end of a directory in which a socket is open, so where the key is gone, it is looked for.
        let next = match is_whole {
            true => told.recv().map_err(|_| RecvTimeoutError::Disconnected),
            false => told.recv_timeout(LOOK_AGAIN),
        };
        match next {
            Ok(Told::Lock(stream)) => return Some(stream),
            Err(RecvTimeoutError::Disconnected) => return None,
            Ok(Told::Look) | Err(RecvTimeoutError::Timeout) if !dir.exists() => return None,
            Ok(Told::Look) | Err(RecvTimeoutError::Timeout) => is_whole = key.exists(),
        }
    }
}

type Kept = Mutex<Option<Keepsake>>;

fn take(kept: &Kept) -> Option<Keepsake> {
    kept.lock().unwrap_or_else(PoisonError::into_inner).take()
}

fn serve(mut stream: Stream, kept: &Kept, told: &Sender<Told>) {
    let mut request = [0];
    let answered =
        system::set_patience(&stream, PATIENCE).and_then(|()| stream.read_exact(&mut request));
    match (answered, request) {
        (Ok(()), [GET]) => {
            // As little as this is taken by any socket at once: nobody waits for a reader that does not read.
            let kept = kept.lock().unwrap_or_else(PoisonError::into_inner);
            if let Some(keepsake) = &*kept {
                let _ = keepsake.write(&mut stream);
            }
        }
        (Ok(()), [LOCK]) => drop(told.send(Told::Lock(stream))),
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use syncagent_vault::random::OsRandom;

    #[test]
    fn the_agent_gives_the_key_until_it_is_locked() {
        let dir = tempfile::tempdir().unwrap();
        let home = Home::at(dir.path());
        let random = OsRandom::default();
        let key = VaultKey::generate(&random);
        assert!(fetch(&home).unwrap().is_none() && !lock(&home).unwrap());
        let (ready, is_ready) = std::sync::mpsc::channel();
        let agent = std::thread::spawn({
            let (home, keepsake) = (home.clone(), Keepsake::new(&key, &random, 1).unwrap());
            move || run(&home, keepsake, || ready.send(()).unwrap())
        });
        is_ready.recv().unwrap();
        let fetched = fetch(&home).unwrap().unwrap();
        assert_eq!(fetched.check_value().unwrap(), key.check_value().unwrap());
        assert_eq!(fetched.vault(), key.vault());
        let second = run(&home, Keepsake::new(&key, &random, 1).unwrap(), || ());
        assert!(matches!(second, Err(ClientError::Busy(_))));
        assert!(lock(&home).unwrap());
        agent.join().unwrap().unwrap();
        assert!(!home.agent_path().exists());
    }

    #[test]
    fn an_agent_with_another_key_is_not_believed() {
        let random = OsRandom::default();
        let key = VaultKey::generate(&random);
        let keepsake = Keepsake::new(&key, &random, 1).unwrap();
        assert!(keepsake.open(Some(&key.check_value().unwrap())).is_ok());
        assert!(keepsake.open(Some(&[1; 16])).is_err());
    }
}
