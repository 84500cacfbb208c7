//! Hears from the operating system where to look again. A hint is never a fact: it may be late, doubled or lost, and
//! the regular scan finds what no hint told.
//!
//! A directory made while it is watched may have content before the watch on it exists. Before hints are handed out
//! the system's watches are therefore brought up to date ([`Watcher::take`]); who then looks at everything below a
//! hinted directory misses nothing.
//!
//! Where the system watches single directories (inotify), each is asked for by itself: one that cannot be watched costs
//! only itself and what is below it. What is not watched is known ([`Watcher::unwatched`]), and tried again as soon as
//! something is heard of it, or somebody asks ([`Watcher::again`]).

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::{fmt, io};

use notify::event::{AccessKind, AccessMode, CreateKind, ModifyKind};
use notify::{Config, EventKind, RecommendedWatcher, RecursiveMode, Watcher as _, WatcherKind};
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
}

impl Hints {
    /// Whether there is nothing to look at.
    pub fn is_empty(&self) -> bool {
        self.paths.is_empty() && !self.rescan_all
    }
}

/// Of what nothing is heard.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unwatched {
    /// Each with everything below it.
    pub paths: BTreeSet<TreePath>,
    /// Why, and what to do about it.
    pub message: String,
}

/// Watches a folder as long as it lives.
pub struct Watcher {
    /// None if the system gave none.
    inner: Option<RecommendedWatcher>,
    shared: Arc<Shared>,
    /// What is not watched, with everything below it, and why.
    unwatched: BTreeMap<TreePath, Why>,
}

/// Why something is not watched.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
enum Why {
    /// The system gives no more; the setting that says how many, below `fs.inotify`.
    Limit(&'static str),
    /// In the system's words.
    Other(String),
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
    /// May be directories that are not watched yet.
    fresh: BTreeSet<TreePath>,
    /// The watcher itself failed.
    failed: Option<Why>,
}

impl Watcher {
    /// Starts to watch `root`, as far as that is possible. Blocks for as long as it takes to list its directories.
    pub fn start(root: &Path) -> Self {
        // Some systems report real paths only.
        let root = root.canonicalize().unwrap_or_else(|_| root.to_owned());
        let shared = Arc::new(Shared {
            root,
            waiting: Mutex::default(),
            wake: Notify::new(),
        });
        let mut watcher = Self {
            inner: None,
            shared,
            // Nothing as yet.
            unwatched: [(TreePath::ROOT, Why::Other(String::new()))].into(),
        };
        watcher.again();
        watcher
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

    /// Asks whether there are hints to take, from anywhere.
    pub fn ear(&self) -> impl Fn() -> bool + Send + Sync + 'static {
        let shared = Arc::clone(&self.shared);
        move || !shared.waiting().hints.is_empty()
    }

    /// Takes what was heard since the last call. Blocks for as long as it takes to watch new directories.
    pub fn take(&mut self) -> Hints {
        let Waiting {
            hints,
            closed,
            open,
            fresh,
            failed,
        } = std::mem::take(&mut *self.shared.waiting());
        if let Some(why) = failed {
            self.inner = None;
            self.unwatched = [(TreePath::ROOT, why)].into();
        } else if hints.rescan_all {
            // New directories may be among what was lost.
            self.watch([TreePath::ROOT]);
        } else {
            let mut tops = fresh;
            for path in &hints.paths {
                tops.extend(within(&self.unwatched, path).cloned());
            }
            self.watch(tops);
        }
        Hints {
            closed_write: closed && open.is_empty(),
            ..hints
        }
    }

    /// Of what nothing is heard; none if everything is watched.
    pub fn unwatched(&self) -> Option<Unwatched> {
        let reasons: BTreeSet<&Why> = self.unwatched.values().collect();
        let reasons: Vec<String> = reasons.into_iter().map(Why::to_string).collect();
        (!reasons.is_empty()).then(|| Unwatched {
            paths: self.unwatched.keys().cloned().collect(),
            message: format!(
                "{}; changes there are found by the regular scan",
                reasons.join("; ")
            ),
        })
    }

    /// Tries what is not watched once more. What changed there before is not hinted at: look at it afterwards.
    pub fn again(&mut self) {
        let tops: Vec<_> = self.unwatched.keys().cloned().collect();
        self.watch(tops);
    }

    /// Watches those of `tops` that are directories, and all directories below them.
    fn watch(&mut self, tops: impl IntoIterator<Item = TreePath>) {
        let mut next: VecDeque<TreePath> = tops.into_iter().collect();
        let mode = match RecommendedWatcher::kind() {
            WatcherKind::Inotify => RecursiveMode::NonRecursive,
            _ => RecursiveMode::Recursive,
        };
        if mode == RecursiveMode::Recursive {
            // The system itself watches all that comes to lie below the root.
            next.retain(|top| top.is_root() && self.unwatched.contains_key(top));
        }
        if next.is_empty() {
            return;
        }
        let inner = match self.inner.take() {
            Some(inner) => inner,
            None => match self.shared.listen() {
                Ok(inner) => {
                    next = [TreePath::ROOT].into();
                    inner
                }
                Err(error) => {
                    self.unwatched = [(TreePath::ROOT, Why::from(error))].into();
                    return;
                }
            },
        };
        let inner = self.inner.insert(inner);
        for top in &next {
            let gone: Vec<_> = within(&self.unwatched, top).cloned().collect();
            for path in gone {
                self.unwatched.remove(&path);
            }
        }
        while let Some(path) = next.pop_front() {
            let place = self.shared.root.join(path.as_str());
            match watch_one(inner, &place, mode) {
                Ok(names) => next.extend(
                    names
                        .iter()
                        .filter(|name| !(path.is_root() && name.as_str() == RESERVED))
                        .map(|name| path.join(name)),
                ),
                Err(Why::Other(_)) if is_gone(&place) => {}
                Err(why @ Why::Limit(_)) => {
                    // All others would be refused, too.
                    next.push_front(path);
                    let rest = next.drain(..).map(|path| (path, why.clone()));
                    self.unwatched.extend(rest);
                }
                Err(why) => drop(self.unwatched.insert(path, why)),
            }
        }
    }
}

/// Watches a directory, and names those in it that have to be watched, too.
fn watch_one(
    inner: &mut RecommendedWatcher,
    place: &Path,
    mode: RecursiveMode,
) -> Result<Vec<Name>, Why> {
    let other = |error: io::Error| Why::Other(error.to_string());
    // A link leads elsewhere, and a file is heard of where it lies.
    if !place.symlink_metadata().map_err(other)?.is_dir() {
        return Ok(Vec::new());
    }
    inner.watch(place, mode)?;
    if mode == RecursiveMode::Recursive {
        return Ok(Vec::new());
    }
    // What is made from here on is heard of.
    let mut names = Vec::new();
    for entry in place.read_dir().map_err(other)? {
        let entry = entry.map_err(other)?;
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            // What is no name is not synchronised.
            let name = entry.file_name().to_str().map(Name::parse);
            names.extend(name.and_then(Result::ok));
        }
    }
    Ok(names)
}

/// What is gone needs no watch.
fn is_gone(place: &Path) -> bool {
    use io::ErrorKind::{NotADirectory, NotFound};
    let found = place.symlink_metadata();
    found.is_err_and(|error| matches!(error.kind(), NotFound | NotADirectory))
}

/// Those of `unwatched` that are `top` or lie in it.
fn within<'a>(
    unwatched: &'a BTreeMap<TreePath, Why>,
    top: &TreePath,
) -> impl Iterator<Item = &'a TreePath> {
    let from = unwatched.range(top.clone()..);
    let top = top.clone();
    from.map(|(path, _)| path)
        .take_while(move |path| path.is_within(&top))
}

impl Shared {
    fn waiting(&self) -> MutexGuard<'_, Waiting> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A watcher that as yet watches nothing.
    fn listen(self: &Arc<Self>) -> notify::Result<RecommendedWatcher> {
        let hearing = Arc::clone(self);
        let config = Config::default().with_follow_symlinks(false);
        RecommendedWatcher::new(move |event| hearing.hear(event), config)
    }

    fn hear(&self, event: notify::Result<notify::Event>) {
        let mut waiting = self.waiting();
        match event {
            Ok(event) => waiting.note(&self.root, &event),
            Err(error) => {
                waiting.failed = Some(Why::from(error));
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
                    self.open.remove(&path);
                    if !self.hints.rescan_all {
                        self.fresh.insert(path.clone());
                    }
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
        self.fresh.clear();
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

impl From<notify::Error> for Why {
    fn from(error: notify::Error) -> Self {
        match error.kind {
            notify::ErrorKind::MaxFilesWatch => Self::Limit("max_user_watches"),
            // The system's word for too many watchers, as for too many open files.
            notify::ErrorKind::Io(io) if io.raw_os_error() == Some(24) => {
                Self::Limit("max_user_instances")
            }
            notify::ErrorKind::Io(io) => Self::Other(io.to_string()),
            _ => Self::Other(error.to_string()),
        }
    }
}

impl fmt::Display for Why {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Limit(setting) => {
                let now = std::fs::read_to_string(format!("/proc/sys/fs/inotify/{setting}"));
                let now = now.ok().and_then(|text| text.trim().parse().ok());
                let enough = enough(setting, now.unwrap_or(0));
                write!(
                    f,
                    "the system's limit is reached, and `sudo sysctl fs.inotify.{setting}={enough}` lifts it"
                )
            }
            Self::Other(error) => f.write_str(error),
        }
    }
}

/// A limit that is likely to do where `now` does not.
fn enough(setting: &str, now: u64) -> u64 {
    let usual = match setting {
        "max_user_instances" => 1024,
        _ => 1_048_576,
    };
    usual.max(now.saturating_mul(2))
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
    fn a_limit_is_lifted_and_never_lowered() {
        for (setting, now, want) in [
            ("max_user_watches", 8192, 1_048_576),
            ("max_user_watches", 1_048_576, 2_097_152),
            ("max_user_instances", 128, 1024),
            ("max_user_instances", u64::MAX, u64::MAX),
        ] {
            assert_eq!(enough(setting, now), want, "{setting} {now}");
        }
    }

    #[tokio::test]
    async fn directories_made_while_too_much_was_heard_are_watched() {
        let dir = tempfile::tempdir().unwrap();
        let mut watcher = Watcher::start(dir.path());
        std::fs::create_dir_all(dir.path().join("x/y")).unwrap();
        watcher.changed().await;
        {
            let mut waiting = watcher.shared.waiting();
            waiting.rescan_all();
            waiting.fresh.clear();
        }
        assert!(watcher.take().rescan_all);
        assert_eq!(watcher.unwatched(), None);
        std::fs::write(dir.path().join("x/y/deep.txt"), "1").unwrap();
        wait_for(&mut watcher, &["x/y/deep.txt"]).await;
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
