//! Hears from the operating system where to look again. A hint is never a fact: it may be late, doubled or lost, and
//! the regular scan finds what no hint told.
//!
//! A directory made while it is watched may have content before the watch on it exists. Before hints are handed out
//! the system's watches are therefore brought up to date ([`Watcher::take`]); who then looks at everything below a
//! hinted directory misses nothing.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use notify::event::{AccessKind, AccessMode, CreateKind, ModifyKind};
use notify::{Config, EventKind, RecommendedWatcher, RecursiveMode, Watcher as _};
use syncagent_protocol::name::RESERVED;
use syncagent_protocol::{Name, TreePath};
use tokio::sync::Notify;

/// With more hints than this waiting, one look at everything is cheaper.
const MANY: usize = 20_000;

/// Where to look again.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Hints {
    /// Look at each, and at everything below it.
    pub paths: BTreeSet<TreePath>,
    /// At least one file was closed after writing, and none was written to and not closed: no need to wait long.
    pub closed_write: bool,
    /// Hints were lost: look at everything.
    pub rescan_all: bool,
    /// Why not everything is watched, and what to do about it. Stays until a new [`Watcher`] is started.
    pub unwatched: Option<String>,
}

impl Hints {
    /// Whether there is nothing to look at.
    pub fn is_empty(&self) -> bool {
        self.paths.is_empty() && !self.rescan_all
    }
}

/// Watches a folder as long as it lives.
pub struct Watcher {
    /// None if the system gave none.
    inner: Option<RecommendedWatcher>,
    shared: Arc<Shared>,
}

struct Shared {
    root: PathBuf,
    waiting: Mutex<Waiting>,
    wake: Notify,
}

/// What was heard and not yet taken.
#[derive(Default)]
struct Waiting {
    hints: Hints,
    closed: bool,
    /// Written to and not closed since.
    open: BTreeSet<TreePath>,
    /// A directory may have appeared that is not watched yet.
    unsteady: bool,
}

impl Watcher {
    /// Starts to watch `root`. If that is not possible, hands out no hints but the reason ([`Hints::unwatched`]).
    pub fn start(root: &Path) -> Self {
        // Some systems report real paths only.
        let root = root.canonicalize().unwrap_or_else(|_| root.to_owned());
        let shared = Arc::new(Shared {
            root,
            waiting: Mutex::default(),
            wake: Notify::new(),
        });
        let hearing = Arc::clone(&shared);
        let config = Config::default().with_follow_symlinks(false);
        let watcher = RecommendedWatcher::new(move |event| hearing.hear(event), config).and_then(
            |mut watcher| {
                watcher.watch(&shared.root, RecursiveMode::Recursive)?;
                Ok(watcher)
            },
        );
        let inner = watcher.map_err(|error| shared.hear(Err(error))).ok();
        Self { inner, shared }
    }

    /// Returns when there are hints to take. May be dropped and called again without losing any.
    pub async fn changed(&self) {
        loop {
            let woken = self.shared.wake.notified();
            if !self.shared.waiting().hints.is_empty() {
                return;
            }
            woken.await;
        }
    }

    /// Takes what was heard since the last call. Blocks for as long as it takes to watch new directories.
    pub fn take(&mut self) -> Hints {
        if std::mem::take(&mut self.shared.waiting().unsteady)
            && let Some(watcher) = &mut self.inner
        {
            // Changes nothing, but is answered only after everything that was heard has been followed up.
            let _ = watcher.configure(Config::default().with_follow_symlinks(false));
        }
        let mut waiting = self.shared.waiting();
        let unwatched = waiting.hints.unwatched.clone();
        let open = std::mem::take(&mut waiting.open);
        let closed = std::mem::take(&mut waiting.closed);
        let taken = std::mem::replace(
            &mut waiting.hints,
            Hints {
                unwatched,
                ..Hints::default()
            },
        );
        Hints {
            closed_write: closed && open.is_empty(),
            ..taken
        }
    }
}

impl Shared {
    fn waiting(&self) -> MutexGuard<'_, Waiting> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn hear(&self, event: notify::Result<notify::Event>) {
        let mut waiting = self.waiting();
        match event {
            Ok(event) => waiting.note(&self.root, &event),
            Err(error) => {
                waiting.hints.unwatched = Some(unwatched(&error));
                waiting.rescan_all();
            }
        }
        if !waiting.hints.is_empty() {
            self.wake.notify_one();
        }
    }
}

impl Waiting {
    fn note(&mut self, root: &Path, event: &notify::Event) {
        if event.need_rescan() {
            self.rescan_all();
        }
        let closed = match event.kind {
            EventKind::Access(AccessKind::Close(AccessMode::Write)) => true,
            EventKind::Access(_) => return,
            _ => false,
        };
        for path in &event.paths {
            let Some(path) = tree_path(root, path) else {
                continue;
            };
            if path.is_root() {
                // Its own times and permissions are not synchronised; that it went away is seen by looking.
                if matches!(
                    event.kind,
                    EventKind::Remove(_) | EventKind::Modify(ModifyKind::Name(_))
                ) {
                    self.rescan_all();
                }
                continue;
            }
            match event.kind {
                EventKind::Modify(ModifyKind::Data(_)) => drop(self.open.insert(path.clone())),
                EventKind::Create(CreateKind::Folder | CreateKind::Any)
                | EventKind::Modify(ModifyKind::Name(_)) => {
                    self.unsteady = true;
                    self.open.remove(&path);
                }
                _ => drop(self.open.remove(&path)),
            }
            self.closed |= closed;
            if !self.hints.rescan_all {
                self.hints.paths.insert(path);
            }
        }
        if self.hints.paths.len() > MANY {
            self.rescan_all();
        }
    }

    fn rescan_all(&mut self) {
        self.hints.rescan_all = true;
        self.hints.paths.clear();
    }
}

/// `path` below the root, as far as its names are text; none for SyncAgent's own directory and what lies elsewhere.
fn tree_path(root: &Path, path: &Path) -> Option<TreePath> {
    let mut found = TreePath::ROOT;
    for part in path.strip_prefix(root).ok()?.components() {
        let std::path::Component::Normal(part) = part else {
            return None;
        };
        if found.is_root() && part == RESERVED {
            return None;
        }
        match part.to_str().map(Name::parse) {
            Some(Ok(name)) => found = found.join(&name),
            _ => break,
        }
    }
    Some(found)
}

fn unwatched(error: &notify::Error) -> String {
    let limit = |setting: &str, value: u32| {
        format!(
            "Not every directory is watched: the system's limit is reached. Lift it with \
             `sudo sysctl fs.inotify.{setting}={value}` and restart; until then changes are found by the regular scan."
        )
    };
    match &error.kind {
        notify::ErrorKind::MaxFilesWatch => limit("max_user_watches", 1_048_576),
        // The system's word for too many watchers, as for too many open files.
        notify::ErrorKind::Io(io) if io.raw_os_error() == Some(24) => {
            limit("max_user_instances", 1024)
        }
        _ => format!("The folder is not watched ({error}); changes are found by the regular scan."),
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    /// Takes hints until all of `wanted` were among them.
    async fn wait_for(watcher: &mut Watcher, wanted: &[&str]) -> Hints {
        wait_until(watcher, wanted, |_| true).await
    }

    /// The same, and until `done`.
    async fn wait_until(
        watcher: &mut Watcher,
        wanted: &[&str],
        done: impl Fn(&Hints) -> bool,
    ) -> Hints {
        let mut all = Hints::default();
        let wanted: Vec<_> = wanted
            .iter()
            .map(|path| TreePath::parse(path).unwrap())
            .collect();
        while !(wanted.iter().all(|path| all.paths.contains(path)) && done(&all)) {
            let heard = tokio::time::timeout(Duration::from_secs(20), watcher.changed()).await;
            heard.unwrap_or_else(|_| panic!("heard only {all:?}"));
            let hints = watcher.take();
            all.paths.extend(hints.paths);
            all.closed_write |= hints.closed_write;
            all.rescan_all |= hints.rescan_all;
        }
        all
    }

    #[tokio::test]
    async fn hears_of_files_also_in_new_directories_but_not_of_its_own() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir_all(dir.path().join(".syncagent/tmp")).unwrap();
        let mut watcher = Watcher::start(dir.path());
        std::fs::write(dir.path().join(".syncagent/tmp/new-1"), "ours").unwrap();
        std::fs::write(dir.path().join("a.txt"), "1").unwrap();
        let hints = wait_until(&mut watcher, &["a.txt"], |hints| hints.closed_write).await;
        assert_eq!(hints.paths.len(), 1, "{hints:?}");
        assert!(!hints.rescan_all);

        std::fs::create_dir_all(dir.path().join("x/y/z")).unwrap();
        wait_for(&mut watcher, &["x"]).await;
        // Once the hint was taken, everything below is watched.
        std::fs::write(dir.path().join("x/y/z/deep.txt"), "1").unwrap();
        wait_for(&mut watcher, &["x/y/z/deep.txt"]).await;

        std::fs::rename(dir.path().join("x"), dir.path().join("w")).unwrap();
        wait_for(&mut watcher, &["x", "w"]).await;
        std::fs::remove_file(dir.path().join("w/y/z/deep.txt")).unwrap();
        wait_for(&mut watcher, &["w/y/z/deep.txt"]).await;
    }

    #[tokio::test]
    async fn a_file_written_and_not_closed_is_not_called_closed() {
        use std::io::Write;
        let dir = tempfile::tempdir().unwrap();
        let mut watcher = Watcher::start(dir.path());
        let mut file = std::fs::File::create(dir.path().join("log")).unwrap();
        file.write_all(b"1").unwrap();
        let hints = wait_for(&mut watcher, &["log"]).await;
        assert!(!hints.closed_write);
    }

    #[test]
    fn the_limit_names_the_command_that_lifts_it() {
        let said = unwatched(&notify::Error::new(notify::ErrorKind::MaxFilesWatch));
        assert!(
            said.contains("sudo sysctl fs.inotify.max_user_watches="),
            "{said}"
        );
    }

    #[test]
    fn names_that_are_not_text_hint_at_their_directory() {
        let root = Path::new("/r");
        for (path, want) in [
            ("/r/a/b", Some("a/b")),
            ("/r", Some("")),
            ("/r/.syncagent/tmp/x", None),
            ("/r/a/.syncagent", Some("a/.syncagent")),
            ("/elsewhere", None),
        ] {
            let found = tree_path(root, Path::new(path));
            assert_eq!(found.as_ref().map(TreePath::as_str), want, "{path}");
        }
        #[cfg(unix)]
        {
            use std::os::unix::ffi::OsStrExt;
            let path = root.join("a").join(std::ffi::OsStr::from_bytes(b"\xff"));
            assert_eq!(tree_path(root, &path), Some(TreePath::parse("a").unwrap()));
        }
    }

    #[test]
    fn too_many_hints_become_one() {
        let mut waiting = Waiting::default();
        for n in 0..=MANY {
            let path = PathBuf::from(format!("/r/{n}"));
            waiting.note(
                Path::new("/r"),
                &notify::Event::new(EventKind::Any).add_path(path),
            );
        }
        assert!(waiting.hints.rescan_all && waiting.hints.paths.is_empty());
    }
}
