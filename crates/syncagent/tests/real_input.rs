//! Ten thousand files as they lie on real machines, there and back, with two people at work.
#![cfg(unix)]
#![allow(clippy::unwrap_used, reason = "a test fails loudly")]

mod field;

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::{Path, PathBuf};
use std::time::Instant;

use field::tree::{self, Entry, Tree, assert_same};
use field::{Field, Machine, Rng};

const SEED: u64 = 20_260_101;
/// Files, links, and all their bytes with the large file.
const MAX_FILES: usize = 10_400;
const MAX_BYTES: u64 = 300_000_000;
const LARGE: u64 = 101_000_000;
/// So that many files fit.
const MAX_ONE: u64 = 4_000_000;
const LINKS: usize = 400;
const EXECUTABLES: usize = 200;
const STRANGE: usize = 60;
const EMPTY: usize = 20;

#[test]
fn real_files_there_and_back() {
    println!("seed {SEED}");
    let began = Instant::now();
    let step = |what: &str| println!("{:>8.1} s  {what}", began.elapsed().as_secs_f64());
    let field = Field::new();
    let (_server, url) = field.start_server();
    let [a, b] = field.machines(&url);
    let mut rng = Rng(SEED);
    fill(&a.folder, &mut rng);
    let want = tree::read(&a.folder);
    assert_real(&want);
    step("A is filled");

    sync_well(&a);
    step("A is sent");
    sync_well(&b);
    step("B has it");
    let have = tree::read(&b.folder);
    assert_same("after the first sync", ("A", &want), ("B", &have));
    assert_same(
        "the sync changed its own source",
        ("A before", &want),
        ("A after", &tree::read(&a.folder)),
    );

    let want = work_on_both(&a.folder, &b.folder, want, &mut rng);
    step("both were at work");
    for machine in [&a, &b, &a, &b] {
        sync_well(machine);
    }
    step("everything went both ways");
    for (name, machine) in [("A", &a), ("B", &b)] {
        assert_same(
            "after work on both sides",
            ("what was done", &want),
            (name, &tree::read(&machine.folder)),
        );
    }

    let before = [&a, &b].map(|machine| {
        (
            machine.status()["head"].clone(),
            tree::identities(&machine.folder),
        )
    });
    for machine in [&a, &b] {
        let answer = sync_well(machine);
        assert!(
            ["sent", "fetched", "removed", "bytes_sent"]
                .iter()
                .all(|what| answer[what] == 0),
            "a sync with nothing to do did something on {}: {answer}",
            machine.name
        );
    }
    for (machine, (head, files)) in [&a, &b].into_iter().zip(before) {
        assert_eq!(
            machine.status()["head"],
            head,
            "a sync with nothing to do moved the log, seen by {}",
            machine.name
        );
        let after = tree::identities(&machine.folder);
        assert_same(
            "a sync with nothing to do touched a file",
            ("the folder before", &files),
            ("the folder after", &after),
        );
    }
    for machine in [&a, &b] {
        assert_eq!(
            machine.temps(),
            Vec::<String>::new(),
            "temporary files are left on {}",
            machine.name
        );
    }
    step("and a third sync changed nothing");
}

fn sync_well(machine: &Machine<'_>) -> serde_json::Value {
    let answer = machine.sync_once();
    let status = &answer["status"];
    for list in ["errors", "skipped", "conflicts"] {
        assert_eq!(
            status[list],
            serde_json::json!([]),
            "{list} on {}",
            machine.name
        );
    }
    answer
}

/// What the issue asks for, counted on the folder itself.
fn assert_real(tree: &Tree) {
    let count = |wanted: &dyn Fn(&Path, &Entry) -> bool| {
        tree.iter()
            .filter(|(path, entry)| wanted(path, entry))
            .count()
    };
    let size = |entry: &Entry| {
        if let Entry::File { size, .. } = entry {
            *size
        } else {
            0
        }
    };
    let files = count(&|_, entry| matches!(entry, Entry::File { .. }));
    let links = count(&|_, entry| matches!(entry, Entry::Link { .. }));
    let executables = count(&|_, entry| matches!(entry, Entry::File { exec: true, .. }));
    let strange = count(&|path, _| path.file_name().is_some_and(|name| !name.is_ascii()));
    let empty_files = count(&|_, entry| matches!(entry, Entry::File { size: 0, .. }));
    let full: BTreeSet<&Path> = tree.keys().filter_map(|path| path.parent()).collect();
    let empty_dirs = count(&|path, entry| *entry == Entry::Directory && !full.contains(path));
    let bytes: u64 = tree.values().map(size).sum();
    println!(
        "{files} files of {bytes} bytes, {links} links, {executables} executables, {strange} names beyond ASCII, \
         {empty_files} empty files, {empty_dirs} empty directories"
    );
    assert!(
        files >= 10_000 && files + links <= MAX_FILES,
        "{files} files and {links} links are not the size that was asked for"
    );
    assert!(bytes <= MAX_BYTES, "{bytes} bytes are too many");
    assert!(links >= 200, "only {links} links");
    assert!(executables >= 100, "only {executables} executables");
    assert!(strange >= 50, "only {strange} names beyond ASCII");
    assert!(
        empty_files >= EMPTY && empty_dirs >= EMPTY,
        "only {empty_files} empty files, {empty_dirs} empty directories"
    );
    assert!(
        tree.values().any(|entry| size(entry) > 100_000_000),
        "no file beyond 100 MB"
    );
}

/// A seeded selection of what this computer has, and what it may not have.
fn fill(root: &Path, rng: &mut Rng) {
    let registry = std::env::var_os("CARGO_HOME")
        .map(PathBuf::from)
        .or_else(|| std::env::var_os("HOME").map(|home| PathBuf::from(home).join(".cargo")))
        .map(|home| home.join("registry/src"));
    let sources = [
        ("share", Some("/usr/share".into())),
        ("lib", Some("/usr/lib".into())),
        ("registry", registry),
    ];
    let (mut links, mut executables, mut files) = (Vec::new(), Vec::new(), Vec::new());
    for (name, source) in sources {
        let Some(source) = source else { continue };
        for path in tree::walk(&source) {
            let from = source.join(&path);
            let Ok(meta) = fs::symlink_metadata(&from) else {
                continue;
            };
            let to = root.join(name).join(&path);
            if to.to_str().is_none()
                || path
                    .components()
                    .any(|part| is_ignored(&part.as_os_str().to_string_lossy()))
            {
                continue;
            }
            let found = (from, to, meta.len());
            match meta.file_type() {
                kind if kind.is_symlink() => links.push(found),
                kind if kind.is_file() && meta.len() <= MAX_ONE => {
                    match meta.permissions().mode() & 0o100 {
                        0 => files.push(found),
                        _ => executables.push(found),
                    }
                }
                _ => {}
            }
        }
    }
    // `read_dir` has no order of its own.
    for list in [&mut links, &mut executables, &mut files] {
        list.sort();
        rng.shuffle(list);
    }
    files.extend(executables.drain(EXECUTABLES.min(executables.len())..));
    links.truncate(LINKS);
    let (mut left, mut bytes) = (
        MAX_FILES - STRANGE - EMPTY - 1,
        MAX_BYTES - LARGE - 5_000_000,
    );
    for (from, to, len) in links.into_iter().chain(executables).chain(files) {
        if left > 0 && len <= bytes && copy(&from, &to) {
            left -= 1;
            bytes -= len;
        }
    }
    make(root, rng);
}

/// What no machine synchronises, or what would change what is: `syncagent_sync::ignore`.
fn is_ignored(name: &str) -> bool {
    let litter = [
        ".DS_Store",
        "Thumbs.db",
        "ehthumbs.db",
        "desktop.ini",
        "lost+found",
        ".syncagent",
    ];
    name.starts_with(".syncignore")
        || name.ends_with(".syncagent-tmp")
        || litter.iter().any(|known| known.eq_ignore_ascii_case(name))
}

/// With link target, exec bit and mtime. False if this user may not read it.
fn copy(from: &Path, to: &Path) -> bool {
    fs::create_dir_all(to.parent().unwrap()).unwrap();
    let meta = fs::symlink_metadata(from).unwrap();
    if meta.is_symlink() {
        symlink(fs::read_link(from).unwrap(), to).unwrap();
        return true;
    }
    let Ok(content) = fs::read(from) else {
        return false;
    };
    fs::write(to, content).unwrap();
    let mode = 0o644 | meta.permissions().mode() & 0o111;
    fs::set_permissions(to, fs::Permissions::from_mode(mode)).unwrap();
    File::options()
        .write(true)
        .open(to)
        .unwrap()
        .set_modified(meta.modified().unwrap())
        .unwrap();
    true
}

/// Names beyond ASCII, empty things, and one large file.
fn make(root: &Path, rng: &mut Rng) {
    let words = [
        "Ärger",
        "日本語の名前",
        "Ελληνικά",
        "смета",
        "emoji 🦀",
        "عربي",
        "naïve café",
        "ไทย",
        "नमस्ते",
        "한글",
    ];
    for i in 0..STRANGE {
        let path = root
            .join("made/Über alles")
            .join(format!("{} {i}.txt", words[i % words.len()]));
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        let len = rng.below(5000) + 1;
        fs::write(path, rng.bytes(len)).unwrap();
    }
    for i in 0..EMPTY {
        fs::create_dir_all(root.join(format!("made/empty/inner {i}"))).unwrap();
        fs::write(root.join(format!("made/empty file {i}")), "").unwrap();
    }
    fs::write(root.join("made/large"), rng.bytes(LARGE as usize)).unwrap();
}

/// Edits, new files, deletions and renamed directories on both sides at once; what must come of it.
fn work_on_both(a: &Path, b: &Path, mut want: Tree, rng: &mut Rng) -> Tree {
    let mut files: Vec<PathBuf> = want
        .iter()
        .filter(|(_, entry)| matches!(entry, Entry::File { .. }))
        .map(|(path, _)| path.clone())
        .collect();
    rng.shuffle(&mut files);
    let large = PathBuf::from("made/large");
    files.retain(|path| *path != large);
    let mut files = files.into_iter();
    for (name, root) in [("A", a), ("B", b)] {
        for path in files.by_ref().take(150) {
            let mut content = fs::read(root.join(&path)).unwrap();
            let at = rng.below(content.len() + 1);
            content.splice(at..at, format!("edited on {name}\n").into_bytes());
            fs::write(root.join(&path), content).unwrap();
            want.insert(path.clone(), tree::entry(&root.join(&path)));
        }
        for path in files.by_ref().take(100) {
            fs::remove_file(root.join(&path)).unwrap();
            want.remove(&path);
        }
        for (i, beside) in files.by_ref().take(100).enumerate() {
            let path = beside.with_file_name(format!("new on {name} {i}"));
            let len = rng.below(20_000);
            fs::write(root.join(&path), rng.bytes(len)).unwrap();
            want.insert(path.clone(), tree::entry(&root.join(&path)));
        }
        for path in files.by_ref().take(20) {
            let Some(Entry::File { exec, .. }) = want.get(&path).cloned() else {
                continue;
            };
            let mode = if exec { 0o644 } else { 0o755 };
            fs::set_permissions(root.join(&path), fs::Permissions::from_mode(mode)).unwrap();
            want.insert(path.clone(), tree::entry(&root.join(&path)));
        }
    }
    // A few bytes in the middle of the large one.
    let mut content = fs::read(a.join(&large)).unwrap();
    let middle = content.len() / 2;
    content.splice(middle..middle, *b"inserted on A");
    fs::write(a.join(&large), content).unwrap();
    want.insert(large.clone(), tree::entry(&a.join(&large)));
    rename_directories(a, b, want, rng)
}

/// Every directory is renamed on one side only; what the other side did in it goes along.
fn rename_directories(a: &Path, b: &Path, want: Tree, rng: &mut Rng) -> Tree {
    let is_dir =
        |path: &&PathBuf| path.components().count() == 2 && want[*path] == Entry::Directory;
    let mut dirs: Vec<PathBuf> = want.keys().filter(is_dir).cloned().collect();
    rng.shuffle(&mut dirs);
    assert!(dirs.len() >= 4, "too few directories to rename: {dirs:?}");
    let mut moves = Vec::new();
    for (i, dir) in dirs.iter().take(16).enumerate() {
        let (name, root) = if i % 2 == 0 { ("A", a) } else { ("B", b) };
        let mut new = dir.clone().into_os_string();
        new.push(format!(" renamed on {name}"));
        let new = PathBuf::from(new);
        fs::rename(root.join(dir), root.join(&new)).unwrap();
        moves.push((dir, new));
    }
    want.iter()
        .map(|(path, entry)| {
            let moved = moves.iter().find_map(|(old, new)| {
                let rest = path.strip_prefix(old).ok()?;
                Some(if rest.as_os_str().is_empty() {
                    new.clone()
                } else {
                    new.join(rest)
                })
            });
            (moved.unwrap_or_else(|| path.clone()), entry.clone())
        })
        .collect()
}
