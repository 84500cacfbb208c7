//! A folder as it can be compared: content, exec bit, mtime of files; targets of links; directories.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use super::checksum;

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Entry {
    File {
        size: u64,
        content: u64,
        exec: bool,
        mtime_ns: i128,
    },
    Link {
        target: PathBuf,
    },
    Directory,
}

/// Everything below a folder but SyncAgent's own directory.
pub(crate) type Tree = BTreeMap<PathBuf, Entry>;

pub(crate) fn entry(path: &Path) -> Entry {
    let meta = fs::symlink_metadata(path).unwrap();
    if meta.is_symlink() {
        return Entry::Link {
            target: fs::read_link(path).unwrap(),
        };
    }
    if meta.is_dir() {
        return Entry::Directory;
    }
    let mtime_ns = i128::from(meta.mtime()) * 1_000_000_000 + i128::from(meta.mtime_nsec());
    let content = checksum(&fs::read(path).unwrap());
    Entry::File {
        size: meta.len(),
        content,
        exec: meta.permissions().mode() & 0o100 != 0,
        mtime_ns,
    }
}

pub(crate) fn read(root: &Path) -> Tree {
    walk(root)
        .into_iter()
        .map(|path| (path.clone(), entry(&root.join(path))))
        .collect()
}

/// All paths below `root`, relative to it.
pub(crate) fn walk(root: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut todo = vec![PathBuf::new()];
    while let Some(dir) = todo.pop() {
        // It may have gone in the meantime where somebody is at work.
        let Ok(entries) = fs::read_dir(root.join(&dir)) else {
            continue;
        };
        for entry in entries.flatten() {
            let path = dir.join(entry.file_name());
            if path == Path::new(".syncagent") {
                continue;
            }
            if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
                todo.push(path.clone());
            }
            found.push(path);
        }
    }
    found
}

/// What changes when a file is written or replaced, even by the same content.
pub(crate) fn identities(root: &Path) -> BTreeMap<PathBuf, (u64, i64, i64)> {
    let identity = |path: &PathBuf| {
        let meta = fs::symlink_metadata(root.join(path)).unwrap();
        (meta.ino(), meta.mtime(), meta.mtime_nsec())
    };
    walk(root)
        .into_iter()
        .map(|path| (path.clone(), identity(&path)))
        .collect()
}

/// The first difference, in words; none if there is none.
pub(crate) fn difference<T: PartialEq + std::fmt::Debug>(
    (want_name, want): (&str, &BTreeMap<PathBuf, T>),
    (have_name, have): (&str, &BTreeMap<PathBuf, T>),
) -> Option<String> {
    for (path, wanted) in want {
        match have.get(path) {
            None => {
                return Some(format!(
                    "{} is in {want_name} but not in {have_name}",
                    path.display()
                ));
            }
            Some(found) if found != wanted => {
                return Some(format!(
                    "{} differs: {wanted:?} in {want_name}, {found:?} in {have_name}",
                    path.display()
                ));
            }
            Some(_) => {}
        }
    }
    let extra = have.keys().find(|path| !want.contains_key(*path))?;
    Some(format!(
        "{} is in {have_name} but not in {want_name}",
        extra.display()
    ))
}

/// Fails with the first path that differs.
pub(crate) fn assert_same<T: PartialEq + std::fmt::Debug>(
    when: &str,
    want: (&str, &BTreeMap<PathBuf, T>),
    have: (&str, &BTreeMap<PathBuf, T>),
) {
    if let Some(difference) = difference(want, have) {
        panic!("{when}: {difference}");
    }
}
