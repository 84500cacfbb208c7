//! The folder on real temporary directories, with a wrapper that does something at a chosen call.

#![allow(
    clippy::unwrap_used,
    reason = "clippy takes only `cfg(test)` alone for a test"
)]

mod apply;
mod crash;
pub(crate) mod hooked;
mod root;
mod scan;

use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use syncagent_protocol::{Name, TreePath};
use syncagent_sync::scan::Fingerprint;

use super::apply::Folder;
use super::disk::unix::UnixDisk;
use super::disk::{At, Disk, conformance};

/// A temporary directory with a prepared disk over it.
struct Dir {
    temp: tempfile::TempDir,
    disk: Arc<dyn Disk>,
}

impl Dir {
    fn new() -> Self {
        Self::on(tempfile::tempdir().unwrap())
    }

    /// In memory, where the system has a place for that: ext4 writes a file out whenever it replaces another one.
    fn in_memory() -> Self {
        let shm = Path::new("/dev/shm");
        Self::on(if shm.is_dir() {
            tempfile::tempdir_in(shm).unwrap()
        } else {
            tempfile::tempdir().unwrap()
        })
    }

    fn on(temp: tempfile::TempDir) -> Self {
        std::fs::create_dir(temp.path().join("root")).unwrap();
        let disk = UnixDisk::open(&temp.path().join("root")).unwrap();
        disk.prepare().unwrap();
        Self {
            temp,
            disk: Arc::new(disk),
        }
    }

    fn path(&self, below: &str) -> PathBuf {
        self.temp.path().join("root").join(below)
    }

    /// Until what happens next has another stamp than what happened before.
    fn wait_a_tick(&self) {
        let stamp = || {
            let probe = self.temp.path().join("tick");
            std::fs::write(&probe, "").unwrap();
            let of = std::fs::metadata(&probe).unwrap();
            (of.ctime(), of.ctime_nsec())
        };
        let before = stamp();
        let started = std::time::Instant::now();
        while stamp() == before {
            assert!(started.elapsed().as_secs() < 10, "time stands still");
        }
    }

    /// A directory beside the root.
    fn outside(&self) -> PathBuf {
        let outside = self.temp.path().join("outside");
        std::fs::create_dir_all(&outside).unwrap();
        outside
    }

    fn write(&self, path: &str, content: &str) {
        let path = self.path(path);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, content).unwrap();
    }

    fn read(&self, path: &str) -> String {
        std::fs::read_to_string(self.path(path)).unwrap()
    }

    fn fingerprint(&self, path: &str) -> Fingerprint {
        self.disk.stat(At::Tree(&p(path))).unwrap().fingerprint()
    }

    fn inode(&self, path: &str) -> u64 {
        self.fingerprint(path).inode
    }

    fn folder(&self) -> Folder {
        folder_on(Arc::clone(&self.disk))
    }

    fn temps(&self) -> usize {
        self.disk.list_temp().unwrap().len()
    }

    fn mode(&self, path: &str) -> u32 {
        std::fs::metadata(self.path(path))
            .unwrap()
            .permissions()
            .mode()
            & 0o777
    }
}

fn folder_on(disk: Arc<dyn Disk>) -> Folder {
    let rescue_name =
        |name: &Name, n: u32| Name::parse(&format!("{}.rescued-{n}", name.as_str())).unwrap();
    Folder::new(disk, Box::new(rescue_name))
}

fn p(text: &str) -> TreePath {
    TreePath::parse(text).unwrap()
}

/// Every file below `dir` with its content, but for our own directory.
fn contents(dir: &Path) -> Vec<(String, String)> {
    let mut found = Vec::new();
    let mut dirs = vec![dir.to_owned()];
    while let Some(at) = dirs.pop() {
        for entry in std::fs::read_dir(&at).unwrap() {
            let path = entry.unwrap().path();
            let shown = path.strip_prefix(dir).unwrap().to_str().unwrap().to_owned();
            if shown == ".syncagent" {
                continue;
            }
            let stat = path.symlink_metadata().unwrap();
            if stat.is_dir() {
                dirs.push(path);
            } else if stat.is_symlink() {
                found.push((
                    shown,
                    format!("-> {}", std::fs::read_link(path).unwrap().display()),
                ));
            } else {
                found.push((shown, std::fs::read_to_string(path).unwrap()));
            }
        }
    }
    found.sort();
    found
}

#[test]
fn the_real_disk_conforms() {
    for (name, case) in conformance::CASES {
        println!("{name}");
        case(&*Dir::new().disk);
        case(&*Dir::in_memory().disk);
    }
}
