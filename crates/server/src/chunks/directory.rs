//! Packs as files: `aa/<id>` below one directory, `aa` being the first two digits of the id.
//!
//! Written under `incoming/`, fsynced, renamed, and the directory fsynced too: a crash leaves a whole pack
//! or a file in `incoming/`, and those are removed when the store is opened.

use std::collections::HashSet;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use data_encoding::HEXLOWER;
use syncagent_protocol::crash::{Point, point};

use super::room::Room;
use super::{ChunkStore, PackId, PackReader, PackWriter, StoreError, Stored, StoredPack, uncached};
use crate::work::Work;

const INCOMING: &str = "incoming";
/// Pieces of this many bytes and more go past the page cache. What an edit sends is shorter: it is fetched by other
/// machines in a moment.
const LONG: usize = 128 * 1024;

/// See the module.
pub struct DirectoryStore {
    work: Work,
    inner: Arc<Inner>,
}

struct Inner {
    root: PathBuf,
    /// Directories that are known to be there and on disk.
    made: Mutex<HashSet<PathBuf>>,
    room: Room,
}

impl DirectoryStore {
    /// Opens the store, making the directory if need be and removing what a crash left half written.
    pub fn open(root: &Path, work: Work) -> io::Result<Self> {
        let incoming = root.join(INCOMING);
        fs::create_dir_all(&incoming)?;
        for entry in fs::read_dir(&incoming)? {
            let path = entry?.path();
            // A store may be told to lie anywhere: what is not a pack's was put there by somebody else.
            if !path.file_name().is_some_and(is_pack_name) {
                continue;
            }
            fs::remove_file(&path)?;
            tracing::info!(path = %path.display(), "removed a half-written pack");
        }
        sync_dir(root)?;
        Ok(Self {
            work,
            inner: Arc::new(Inner {
                root: root.to_owned(),
                made: Mutex::default(),
                room: Room::on(root),
            }),
        })
    }

    fn run<T: Send + 'static>(
        &self,
        id: PackId,
        job: impl FnOnce(&Inner) -> io::Result<T> + Send + 'static,
    ) -> Stored<'_, T> {
        let inner = Arc::clone(&self.inner);
        run(self.work, id, move || job(&inner))
    }
}

fn is_pack_name(name: &std::ffi::OsStr) -> bool {
    let name = name.as_encoded_bytes();
    HEXLOWER
        .decode(name)
        .is_ok_and(|id| id.len() == size_of::<PackId>())
}

/// Runs `job` where blocking work belongs.
fn run<T: Send + 'static>(
    work: Work,
    id: PackId,
    job: impl FnOnce() -> io::Result<T> + Send + 'static,
) -> Stored<'static, T> {
    Box::pin(async move {
        match work.run(job).await {
            Ok(done) => done.map_err(|error| store_error(id, &error)),
            Err(lost) => Err(StoreError::Broken(lost.to_string())),
        }
    })
}

fn store_error(id: PackId, error: &io::Error) -> StoreError {
    match error.kind() {
        io::ErrorKind::NotFound | io::ErrorKind::UnexpectedEof => StoreError::NotFound(id),
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => StoreError::Full,
        _ if is_of_the_medium(error) => StoreError::Unreadable(id),
        _ => StoreError::Broken(error.to_string()),
    }
}

/// Whether bytes that were written cannot be read back, or a checksum of the file system says that they are others. Anything
/// else (no right to read, too many files open) says nothing about the pack.
#[cfg(unix)]
fn is_of_the_medium(error: &io::Error) -> bool {
    use rustix::io::Errno;
    let medium = [
        Errno::IO,
        Errno::BADMSG,
        #[cfg(target_os = "linux")]
        Errno::UCLEAN,
    ];
    let raw = error.raw_os_error();
    { medium.iter() }.any(|errno| raw == Some(errno.raw_os_error()))
}

#[cfg(not(unix))]
fn is_of_the_medium(error: &io::Error) -> bool {
    // ERROR_CRC, ERROR_FILE_CORRUPT, ERROR_DISK_CORRUPT.
    matches!(error.raw_os_error(), Some(23 | 1392 | 1393))
}

impl Inner {
    fn path(&self, id: PackId) -> PathBuf {
        let name = id.to_string();
        self.root.join(&name[..2]).join(name)
    }

    /// Makes the directory of a pack, once, durably.
    fn make_parent(&self, path: &Path) -> io::Result<()> {
        let Some(parent) = path.parent() else {
            return Ok(());
        };
        let mut made = self.made.lock().unwrap_or_else(PoisonError::into_inner);
        if !made.contains(parent) {
            fs::create_dir_all(parent)?;
            // The parent's parent: after a crash the new directory may otherwise be gone with all in it.
            sync_dir(&self.root)?;
            made.insert(parent.to_owned());
        }
        Ok(())
    }
}

/// Puts what was written on the disk.
fn sync_file(file: &File, path: &Path) -> io::Result<()> {
    file.sync_all()?;
    note_flushed(path);
    Ok(())
}

#[cfg(test)]
use tests::note_flushed;

/// For the tests, which cannot see a flush otherwise.
#[cfg(not(test))]
fn note_flushed(_: &Path) {}

#[cfg(unix)]
fn sync_dir(path: &Path) -> io::Result<()> {
    sync_file(&File::open(path)?, path)
}

// A directory cannot be opened for this elsewhere; NTFS keeps renames in its journal.
#[cfg(not(unix))]
fn sync_dir(_: &Path) -> io::Result<()> {
    Ok(())
}

impl ChunkStore for DirectoryStore {
    fn begin(&self, id: PackId) -> Stored<'_, Box<dyn PackWriter>> {
        let work = self.work;
        let inner = Arc::clone(&self.inner);
        self.run(id, move |store| {
            drop(store.room.keep_free(0)?);
            let path = store.root.join(INCOMING).join(id.to_string());
            let file = OpenOptions::new()
                .read(true)
                .write(true)
                .create_new(true)
                .open(&path)?;
            point(Point::PackBegun);
            let temp = Temp { path, file, len: 0 };
            Ok(Box::new(Writer {
                id,
                work,
                inner,
                temp: Some(temp),
            }) as Box<dyn PackWriter>)
        })
    }

    fn open(&self, id: PackId) -> Stored<'_, Box<dyn PackReader>> {
        let work = self.work;
        self.run(id, move |store| {
            let file = File::open(store.path(id)).map_err(|error| {
                match error.kind() == io::ErrorKind::NotFound && !store.root.join(INCOMING).is_dir()
                {
                    // The whole store is away, which says nothing of one pack.
                    true => io::Error::other("the directory of the packs is gone"),
                    false => error,
                }
            })?;
            let file = Arc::new(Mutex::new(file));
            Ok(Box::new(Reader { id, work, file }) as Box<dyn PackReader>)
        })
    }

    fn delete(&self, id: PackId) -> Stored<'_, ()> {
        self.run(id, move |store| match fs::remove_file(store.path(id)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            _ => Ok(()),
        })
    }

    fn list(&self, after: Option<PackId>, max: usize) -> Stored<'_, Vec<StoredPack>> {
        self.run(PackId([0; 16]), move |store| {
            let mut directories = Vec::new();
            for directory in fs::read_dir(&store.root)? {
                let directory = directory?;
                let first = HEXLOWER.decode(directory.file_name().as_encoded_bytes());
                if let Ok(&[first]) = first.as_deref()
                    && after.is_none_or(|after| first >= after.0[0])
                    && fs::metadata(directory.path()).is_ok_and(|found| found.is_dir())
                {
                    directories.push((first, directory.path()));
                }
            }
            directories.sort();
            let mut found = Vec::new();
            for (first, directory) in directories {
                let mut here = packs_in(first, &directory)?;
                here.retain(|pack| after.is_none_or(|after| pack.id > after));
                here.sort_by_key(|pack| pack.id);
                found.append(&mut here);
                if found.len() >= max {
                    break;
                }
            }
            found.truncate(max);
            Ok(found)
        })
    }

    fn place(&self, id: PackId) -> String {
        self.inner.path(id).display().to_string()
    }
}

/// The packs in the directory of those whose id begins with `first`.
fn packs_in(first: u8, directory: &Path) -> io::Result<Vec<StoredPack>> {
    let mut found = Vec::new();
    for file in fs::read_dir(directory)? {
        let file = file?;
        let bytes = HEXLOWER.decode(file.file_name().as_encoded_bytes());
        let Ok(Ok(id)) = bytes.map(<[u8; 16]>::try_from) else {
            continue;
        };
        if id[0] != first {
            continue;
        }
        // Of what a link leads to: somebody may have moved packs to another disk.
        match fs::metadata(file.path()) {
            Ok(metadata) if metadata.is_file() => found.push(StoredPack {
                id: PackId(id),
                len: metadata.len(),
            }),
            Ok(_) => {}
            // Deleted since the directory was read.
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(error),
        }
    }
    Ok(found)
}

struct Writer {
    id: PackId,
    work: Work,
    inner: Arc<Inner>,
    /// None while a job has it, and for ever after one was lost.
    temp: Option<Temp>,
}

/// A file in `incoming/` that removes itself.
struct Temp {
    path: PathBuf,
    file: File,
    len: u64,
}

impl Drop for Temp {
    fn drop(&mut self) {
        // Not there any more once it was renamed.
        match fs::remove_file(&self.path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                tracing::warn!(path = %self.path.display(), %error, "cannot remove a half-written pack");
            }
            _ => {}
        }
    }
}

impl Temp {
    fn append(&mut self, bytes: &[u8]) -> io::Result<()> {
        if bytes.len() < LONG {
            self.file.seek(SeekFrom::Start(self.len))?;
            self.file.write_all(bytes)?;
        } else {
            uncached::write_all_at(&self.file, bytes, self.len)?;
        }
        point(Point::PackPieceWritten);
        self.len += bytes.len() as u64;
        Ok(())
    }

    /// Leaves only `keep`, moved together.
    fn keep(&mut self, keep: &[Range<u64>]) -> io::Result<()> {
        let mut to = 0;
        let mut piece = vec![0; 256 * 1024];
        for range in keep {
            let mut from = range.start;
            if from == to {
                to = range.end;
                continue;
            }
            while from < range.end {
                let len = piece
                    .len()
                    .min(usize::try_from(range.end - from).unwrap_or(usize::MAX));
                self.file.seek(SeekFrom::Start(from))?;
                self.file.read_exact(&mut piece[..len])?;
                self.file.seek(SeekFrom::Start(to))?;
                self.file.write_all(&piece[..len])?;
                from += len as u64;
                to += len as u64;
            }
        }
        if to != self.len {
            self.file.set_len(to)?;
            self.len = to;
        }
        Ok(())
    }
}

impl PackWriter for Writer {
    fn append(&mut self, bytes: Bytes) -> Stored<'_, ()> {
        Box::pin(async move {
            let Some(mut temp) = self.temp.take() else {
                return Err(StoreError::Broken("the pack was given up".into()));
            };
            let inner = Arc::clone(&self.inner);
            let written = run(self.work, self.id, move || {
                let _room = inner.room.keep_free(bytes.len() as u64)?;
                temp.append(&bytes)?;
                Ok(temp)
            });
            self.temp = Some(written.await?);
            Ok(())
        })
    }

    fn finish(mut self: Box<Self>, keep: Vec<Range<u64>>) -> Stored<'static, ()> {
        let Some(mut temp) = self.temp.take() else {
            return Box::pin(async { Err(StoreError::Broken("the pack was given up".into())) });
        };
        let Self { id, work, .. } = *self;
        let inner = Arc::clone(&self.inner);
        run(work, id, move || {
            temp.keep(&keep)?;
            point(Point::PackWritten);
            sync_file(&temp.file, &temp.path)?;
            point(Point::PackFlushed);
            let path = inner.path(id);
            inner.make_parent(&path)?;
            fs::rename(&temp.path, &path)?;
            point(Point::PackNamed);
            // The directory too: after a crash the rename may otherwise be gone.
            path.parent().map_or(Ok(()), sync_dir)
        })
    }
}

struct Reader {
    id: PackId,
    work: Work,
    file: Arc<Mutex<File>>,
}

impl PackReader for Reader {
    fn read(&self, offset: u64, len: usize) -> Stored<'_, Bytes> {
        let file = Arc::clone(&self.file);
        run(self.work, self.id, move || {
            let mut file = file.lock().unwrap_or_else(PoisonError::into_inner);
            let mut bytes = vec![0; len];
            if len < LONG {
                file.seek(SeekFrom::Start(offset))?;
                file.read_exact(&mut bytes)?;
            } else {
                uncached::read_exact_at(&file, &mut bytes, offset)?;
            }
            Ok(bytes.into())
        })
    }
}

#[cfg(test)]
mod tests {
    use std::cell::RefCell;
    use std::sync::atomic::{AtomicU32, Ordering};

    use super::*;

    thread_local! {
        /// What was flushed in this thread, and how many entries it had then, if it was there and a directory.
        static FLUSHED: RefCell<Vec<(PathBuf, Option<usize>)>> = const { RefCell::new(Vec::new()) };
    }

    pub(super) fn note_flushed(path: &Path) {
        // Under this name, that is: what was renamed before is not noted.
        if path.exists() {
            let entries = fs::read_dir(path).ok().map(Iterator::count);
            FLUSHED.with_borrow_mut(|flushed| flushed.push((path.to_owned(), entries)));
        }
    }

    #[cfg(unix)]
    #[tokio::test]
    async fn a_pack_is_flushed_before_it_has_its_name_and_its_name_after() {
        let dir = tempfile::tempdir().unwrap();
        let store = DirectoryStore::open(dir.path(), Work::Inline).unwrap();
        let mut writer = store.begin(PackId([0xab; 16])).await.unwrap();
        writer.append(Bytes::from_static(b"x")).await.unwrap();
        FLUSHED.take();
        let keep = std::iter::once(0..1).collect();
        writer.finish(keep).await.unwrap();
        let below = |path: &str| dir.path().join(path);
        let want = [
            (below(INCOMING).join("ab".repeat(16)), None),
            // "ab" is new in it.
            (dir.path().to_owned(), Some(2)),
            (below("ab"), Some(1)),
        ];
        assert_eq!(FLUSHED.take(), want);
    }

    #[tokio::test]
    async fn a_directory_passes_the_suite() {
        for work in [Work::Pool, Work::Inline] {
            let dir = tempfile::tempdir().unwrap();
            let next = AtomicU32::new(0);
            crate::chunks::conformance::check(|| {
                let root = dir
                    .path()
                    .join(next.fetch_add(1, Ordering::Relaxed).to_string());
                Arc::new(DirectoryStore::open(&root, work).unwrap())
            })
            .await;
        }
    }

    #[tokio::test]
    async fn packs_lie_where_the_documents_say() {
        let dir = tempfile::tempdir().unwrap();
        let store = DirectoryStore::open(dir.path(), Work::Pool).unwrap();
        let mut writer = store.begin(PackId([0xab; 16])).await.unwrap();
        writer.append(Bytes::from_static(b"x")).await.unwrap();
        writer
            .finish(std::iter::once(0..1).collect())
            .await
            .unwrap();
        assert_eq!(
            fs::read(dir.path().join("ab").join("ab".repeat(16))).unwrap(),
            b"x"
        );
        assert_eq!(fs::read_dir(dir.path().join(INCOMING)).unwrap().count(), 0);
    }

    #[tokio::test]
    async fn a_crash_in_the_middle_is_cleared_away() {
        let dir = tempfile::tempdir().unwrap();
        let store = DirectoryStore::open(dir.path(), Work::Pool).unwrap();
        let mut writer = store.begin(PackId([1; 16])).await.unwrap();
        writer.append(Bytes::from_static(b"half")).await.unwrap();
        // As if the process had died: nobody removes the file.
        std::mem::forget(writer);
        assert_eq!(fs::read_dir(dir.path().join(INCOMING)).unwrap().count(), 1);
        let notes = dir.path().join(INCOMING).join("notes.txt");
        fs::write(&notes, "somebody else's").unwrap();
        let store = DirectoryStore::open(dir.path(), Work::Pool).unwrap();
        assert_eq!(fs::read_dir(dir.path().join(INCOMING)).unwrap().count(), 1);
        assert!(notes.exists());
        assert_eq!(store.list(None, 9).await.unwrap(), []);
    }
}
