//! A disk that asks before each call: to fail it, or to do something behind the caller's back.
//! It does not really make anything durable: that takes time, and no test of this process would see it.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use syncagent_protocol::TreePath;

use crate::folder::disk::{
    At, Capabilities, Dir, Disk, DiskError, ErrorKind, Guard, Listing, Meta, Origin, ReadHandle,
    Stat, TempName, WriteHandle,
};

type Result<T> = std::result::Result<T, DiskError>;

/// Called with the number of the call, its verb and its path.
pub(crate) type Hook = Box<dyn Fn(usize, &'static str, &str) -> Result<()> + Send + Sync>;

pub(crate) struct Hooked {
    inner: Arc<dyn Disk>,
    hook: Hook,
    calls: AtomicUsize,
}

impl Hooked {
    pub(crate) fn new(
        inner: &Arc<dyn Disk>,
        hook: impl Fn(usize, &'static str, &str) -> Result<()> + Send + Sync + 'static,
    ) -> Arc<Self> {
        Arc::new(Self {
            inner: Arc::clone(inner),
            hook: Box::new(hook),
            calls: AtomicUsize::new(0),
        })
    }

    pub(crate) fn calls(&self) -> usize {
        self.calls.load(Ordering::SeqCst)
    }

    fn ask(&self, verb: &'static str, path: impl std::fmt::Display) -> Result<()> {
        (self.hook)(
            self.calls.fetch_add(1, Ordering::SeqCst),
            verb,
            &path.to_string(),
        )
    }
}

pub(crate) fn error(kind: ErrorKind) -> DiskError {
    DiskError::new(kind, "test", "x", "made by a test")
}

impl Disk for Hooked {
    fn capabilities(&self) -> Capabilities {
        Capabilities {
            parallel: false,
            ..self.inner.capabilities()
        }
    }
    fn root_device(&self) -> u64 {
        self.inner.root_device()
    }
    fn list(&self, dir: &TreePath) -> Result<Listing> {
        self.ask("list", dir)?;
        let listing = self.inner.list(dir);
        self.ask("listed", dir)?;
        listing
    }
    fn list_temp(&self) -> Result<Vec<TempName>> {
        self.ask("list_temp", "")?;
        self.inner.list_temp()
    }
    fn stat(&self, at: At<'_>) -> Result<Stat> {
        self.ask("stat", at)?;
        self.inner.stat(at)
    }
    fn open(&self, at: At<'_>) -> Result<Box<dyn ReadHandle>> {
        self.ask("open", at)?;
        self.inner.open(at)
    }
    fn read_link(&self, at: At<'_>) -> Result<String> {
        self.ask("read_link", at)?;
        self.inner.read_link(at)
    }
    fn create_temp(&self, name: &TempName) -> Result<Box<dyn WriteHandle>> {
        self.ask("create_temp", At::Temp(name))?;
        self.inner.create_temp(name)
    }
    fn reopen_temp(&self, name: &TempName) -> Result<Box<dyn WriteHandle>> {
        self.ask("reopen_temp", At::Temp(name))?;
        self.inner.reopen_temp(name)
    }
    fn symlink(&self, target: &str, at: At<'_>) -> Result<()> {
        self.ask("symlink", at)?;
        self.inner.symlink(target, at)
    }
    fn hard_link(&self, from: At<'_>, to: At<'_>) -> Result<()> {
        self.ask("hard_link", to)?;
        self.inner.hard_link(from, to)
    }
    fn mkdir(&self, path: &TreePath) -> Result<()> {
        self.ask("mkdir", path)?;
        self.inner.mkdir(path)
    }
    fn rename(&self, from: At<'_>, to: At<'_>) -> Result<()> {
        self.ask("rename", to)?;
        self.inner.rename(from, to)
    }
    fn rename_noreplace(&self, from: At<'_>, to: At<'_>) -> Result<()> {
        self.ask("rename_noreplace", to)?;
        self.inner.rename_noreplace(from, to)
    }
    fn exchange(&self, a: At<'_>, b: At<'_>) -> Result<()> {
        self.ask("exchange", b)?;
        self.inner.exchange(a, b)
    }
    fn rmdir(&self, path: &TreePath) -> Result<()> {
        self.ask("rmdir", path)?;
        self.inner.rmdir(path)
    }
    fn unlink(&self, at: At<'_>) -> Result<()> {
        self.ask("unlink", at)?;
        self.inner.unlink(at)
    }
    fn set_meta(&self, at: At<'_>, meta: Meta) -> Result<()> {
        self.ask("set_meta", at)?;
        self.inner.set_meta(at, meta)
    }
    fn sync_file(&self, at: At<'_>) -> Result<()> {
        self.ask("sync_file", at)?;
        self.inner.stat(at).map(drop)
    }
    fn sync_dir(&self, dir: Dir<'_>) -> Result<()> {
        self.ask("sync_dir", format_args!("{dir:?}"))?;
        if let Dir::Tree(path) = dir {
            self.inner.list(path).map(drop)
        } else {
            Ok(())
        }
    }
    fn sync_all(&self) -> Result<bool> {
        self.ask("sync_all", "")?;
        Ok(true)
    }
    fn prepare(&self) -> Result<()> {
        self.inner.prepare()
    }
    fn lock(&self) -> Result<Guard> {
        self.inner.lock()
    }
    fn identity_origin(&self) -> Option<Origin> {
        self.inner.identity_origin()
    }
    fn root_is_same(&self) -> Result<bool> {
        self.inner.root_is_same()
    }
}
