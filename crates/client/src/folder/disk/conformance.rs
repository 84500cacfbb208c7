//! What every [`Disk`] must do, one function a promise. The real one and every double run all of [`CASES`].

#![allow(clippy::unwrap_used, reason = "a test suite: what fails is to be seen")]

use syncagent_protocol::{Name, TreePath};

use super::{At, Dir, Disk, DiskError, EntryKind, ErrorKind, Meta, TempName};

/// A promise: its name, and the function that panics if it is broken. It gets a disk with an empty root of its own,
/// prepared ([`Disk::prepare`]).
pub type Case = (&'static str, fn(&dyn Disk));

/// All promises.
pub const CASES: &[Case] = &[
    ("temps are made once, written and read anywhere", temps),
    ("metadata is set and found exactly", metadata),
    ("a listing holds everything but our own directory", listing),
    ("links are shown, never followed", links),
    ("rename replaces a file", rename),
    ("rename_noreplace replaces nothing", rename_noreplace),
    ("exchange lets two things change places", exchange),
    ("a hard link is a second name", hard_link),
    ("directories are made and removed empty", directories),
    ("our own directory is not part of the tree", reserved),
    ("names are exact", names),
    ("paths longer than any system call takes", deep),
    ("a handle stays on its file", handles),
    ("one lock at a time", lock),
    ("everything can be made durable", durable),
    ("the root is the root", root),
    ("long files are written and read anywhere", long_files),
];

fn p(text: &str) -> TreePath {
    TreePath::parse(text).unwrap()
}

fn t(text: &str) -> TempName {
    TempName::parse(text).unwrap()
}

/// Puts a file with this content at `path`.
pub fn put(disk: &dyn Disk, path: &str, content: &str) {
    let temp = t("put");
    let file = disk.create_temp(&temp).unwrap();
    file.write_at(content.as_bytes(), 0).unwrap();
    drop(file);
    disk.rename(At::Temp(&temp), At::Tree(&p(path))).unwrap();
}

/// The content of the file at `path`.
pub fn get(disk: &dyn Disk, path: &str) -> String {
    let file = disk.open(At::Tree(&p(path))).unwrap();
    let mut content = vec![0; 4096];
    let n = file.read_at(&mut content, 0).unwrap();
    String::from_utf8(content[..n].to_vec()).unwrap()
}

fn kind<T>(result: Result<T, DiskError>) -> ErrorKind {
    result.err().expect("this must fail").kind
}

fn stat(disk: &dyn Disk, path: &str) -> Result<super::Stat, DiskError> {
    disk.stat(At::Tree(&p(path)))
}

/// Whether the disk has this verb at all; if so, it must have worked.
fn supported(result: Result<(), DiskError>) -> bool {
    match result {
        Ok(()) => true,
        Err(error) if error.kind == ErrorKind::Unsupported => false,
        Err(error) => panic!("{error}"),
    }
}

fn temps(disk: &dyn Disk) {
    let name = t("new-1");
    let file = disk.create_temp(&name).unwrap();
    assert_eq!(kind(disk.create_temp(&name).map(drop)), ErrorKind::Exists);
    assert_eq!(
        kind(disk.reopen_temp(&t("none")).map(drop)),
        ErrorKind::NotFound
    );
    file.write_at(b"world", 6).unwrap();
    file.write_at(b"hello ", 0).unwrap();
    file.allocate(1 << 20).unwrap();
    assert_eq!(file.stat().unwrap().size, 11, "claimed space is not length");
    drop(file);
    let file = disk.reopen_temp(&name).unwrap();
    let mut buf = [0; 16];
    assert_eq!(file.read_at(&mut buf, 6).unwrap(), 5);
    assert_eq!(&buf[..5], b"world");
    assert_eq!(file.read_at(&mut buf, 11).unwrap(), 0);
    assert_eq!(file.read_at(&mut buf, 99).unwrap(), 0);
    file.set_len(5).unwrap();
    file.set_len(7).unwrap();
    assert_eq!(file.read_at(&mut buf, 0).unwrap(), 7);
    assert_eq!(&buf[..7], b"hello\0\0");
    assert_eq!(disk.list_temp().unwrap(), std::slice::from_ref(&name));
    disk.unlink(At::Temp(&name)).unwrap();
    assert!(disk.list_temp().unwrap().is_empty());
    assert_eq!(kind(disk.unlink(At::Temp(&name))), ErrorKind::NotFound);
}

fn metadata(disk: &dyn Disk) {
    put(disk, "f", "12345");
    for mtime_ns in [1_700_000_000_123_456_700, 0, 100] {
        disk.set_meta(
            At::Tree(&p("f")),
            Meta {
                mtime_ns: Some(mtime_ns),
                mode: None,
            },
        )
        .unwrap();
        let stat = stat(disk, "f").unwrap();
        assert_eq!(
            (stat.kind, stat.size, stat.mtime_ns),
            (EntryKind::File, 5, mtime_ns)
        );
    }
    let can = disk.capabilities();
    if can.exec {
        let mode = stat(disk, "f").unwrap().mode;
        assert!(!stat(disk, "f").unwrap().exec());
        let mode = super::mode_with_exec(mode, true);
        disk.open(At::Tree(&p("f")))
            .unwrap()
            .set_meta(Meta {
                mtime_ns: None,
                mode: Some(mode),
            })
            .unwrap();
        assert!(stat(disk, "f").unwrap().exec());
        assert_eq!(stat(disk, "f").unwrap().mtime_ns, 100);
    }
    if can.inodes {
        put(disk, "g", "12345");
        let (f, g) = (stat(disk, "f").unwrap(), stat(disk, "g").unwrap());
        assert!(
            f.inode != 0 && f.inode != g.inode && f.device == disk.root_device() && f.links == 1
        );
    }
    assert_eq!(
        kind(disk.set_meta(
            At::Tree(&p("none")),
            Meta {
                mtime_ns: Some(0),
                mode: None
            }
        )),
        ErrorKind::NotFound
    );
}

fn listing(disk: &dyn Disk) {
    put(disk, "f", "1");
    disk.mkdir(&p("d")).unwrap();
    put(disk, "d/g", "22");
    let shown = |dir: &str| {
        let listing = disk.list(&p(dir)).unwrap();
        assert!(listing.incomplete.is_none());
        assert_eq!(listing.dir.kind, EntryKind::Directory);
        let mut entries: Vec<_> = listing
            .entries
            .into_iter()
            .map(|entry| {
                (
                    entry.name.unwrap().as_str().to_owned(),
                    entry.stat.unwrap().kind,
                )
            })
            .collect();
        entries.sort_by(|a, b| a.0.cmp(&b.0));
        entries
    };
    assert_eq!(
        shown(""),
        [
            ("d".into(), EntryKind::Directory),
            ("f".into(), EntryKind::File)
        ]
    );
    assert_eq!(shown("d"), [("g".into(), EntryKind::File)]);
    assert_eq!(kind(disk.list(&p("none"))), ErrorKind::NotFound);
    assert_eq!(kind(disk.list(&p("f"))), ErrorKind::NotADirectory);
    assert_eq!(kind(stat(disk, "f/below")), ErrorKind::NotADirectory);
    if disk.capabilities().inodes {
        let before = disk.list(&p("d")).unwrap().dir;
        put(disk, "d/h", "");
        disk.unlink(At::Tree(&p("d/h"))).unwrap();
        let after = stat(disk, "d").unwrap();
        assert_eq!(before.inode, after.inode);
        assert!(after.mtime_ns >= before.mtime_ns);
    }
}

fn links(disk: &dyn Disk) {
    if !disk.capabilities().symlinks {
        return;
    }
    disk.mkdir(&p("d")).unwrap();
    put(disk, "d/f", "inside");
    for (name, target) in [
        ("up", ".."),
        ("etc", "/etc"),
        ("d-link", "d"),
        ("f-link", "d/f"),
        ("odd", "a\nb ü"),
    ] {
        disk.symlink(target, At::Tree(&p(name))).unwrap();
        assert_eq!(stat(disk, name).unwrap().kind, EntryKind::Symlink);
        assert_eq!(disk.read_link(At::Tree(&p(name))).unwrap(), target);
        assert_eq!(
            kind(disk.symlink("x", At::Tree(&p(name)))),
            ErrorKind::Exists
        );
        assert!(matches!(
            kind(disk.open(At::Tree(&p(name))).map(drop)),
            ErrorKind::Escapes | ErrorKind::NotAFile
        ));
    }
    let temp = t("new-1");
    drop(disk.create_temp(&temp).unwrap());
    let through = p("d-link/f");
    let refused = |result: Result<(), DiskError>| {
        let kind = kind(result);
        assert!(
            matches!(kind, ErrorKind::Escapes | ErrorKind::NotADirectory),
            "{kind:?}"
        );
    };
    refused(disk.stat(At::Tree(&through)).map(drop));
    refused(disk.open(At::Tree(&through)).map(drop));
    refused(disk.list(&p("d-link")).map(drop));
    refused(disk.list(&p("up")).map(drop));
    refused(disk.mkdir(&p("d-link/new")));
    refused(disk.symlink("x", At::Tree(&p("d-link/new"))));
    refused(disk.unlink(At::Tree(&through)));
    refused(disk.rename(At::Temp(&temp), At::Tree(&through)));
    refused(disk.rename_noreplace(At::Temp(&temp), At::Tree(&p("up/new"))));
    refused(disk.exchange(At::Temp(&temp), At::Tree(&through)));
    refused(disk.hard_link(At::Temp(&temp), At::Tree(&p("d-link/new"))));
    refused(disk.set_meta(
        At::Tree(&through),
        Meta {
            mtime_ns: Some(0),
            mode: None,
        },
    ));
    refused(disk.rmdir(&p("d-link/x")));
    assert_eq!(get(disk, "d/f"), "inside");
    // The time of a link is its own.
    let before = stat(disk, "d/f").unwrap().mtime_ns;
    disk.set_meta(
        At::Tree(&p("f-link")),
        Meta {
            mtime_ns: Some(77_000),
            mode: None,
        },
    )
    .unwrap();
    assert_eq!(stat(disk, "f-link").unwrap().mtime_ns, 77_000);
    assert_eq!(stat(disk, "d/f").unwrap().mtime_ns, before);
    disk.rename(At::Tree(&p("f-link")), At::Tree(&p("moved")))
        .unwrap();
    assert_eq!(disk.read_link(At::Tree(&p("moved"))).unwrap(), "d/f");
    disk.unlink(At::Tree(&p("moved"))).unwrap();
    assert_eq!(get(disk, "d/f"), "inside");
}

fn rename(disk: &dyn Disk) {
    put(disk, "a", "a");
    put(disk, "b", "b");
    let before = stat(disk, "a").unwrap();
    disk.rename(At::Tree(&p("a")), At::Tree(&p("b"))).unwrap();
    let after = stat(disk, "b").unwrap();
    assert_eq!(get(disk, "b"), "a");
    assert_eq!(
        (before.inode, before.mtime_ns, before.size),
        (after.inode, after.mtime_ns, after.size)
    );
    assert_eq!(kind(stat(disk, "a")), ErrorKind::NotFound);
    assert_eq!(
        kind(disk.rename(At::Tree(&p("a")), At::Tree(&p("c")))),
        ErrorKind::NotFound
    );
    assert_eq!(
        kind(disk.rename(At::Tree(&p("b")), At::Tree(&p("no/c")))),
        ErrorKind::NotFound
    );
    disk.mkdir(&p("d")).unwrap();
    put(disk, "d/f", "f");
    disk.rename(At::Tree(&p("d")), At::Tree(&p("e"))).unwrap();
    assert_eq!(get(disk, "e/f"), "f");
    assert!(
        disk.rename(At::Tree(&p("e")), At::Tree(&p("e/inside")))
            .is_err()
    );
    assert_eq!(get(disk, "e/f"), "f");
}

fn rename_noreplace(disk: &dyn Disk) {
    put(disk, "a", "a");
    put(disk, "b", "b");
    match disk.rename_noreplace(At::Tree(&p("a")), At::Tree(&p("b"))) {
        Err(error) if error.kind == ErrorKind::Unsupported => return,
        result => assert_eq!(kind(result), ErrorKind::Exists),
    }
    assert_eq!(
        (get(disk, "a").as_str(), get(disk, "b").as_str()),
        ("a", "b")
    );
    disk.rename_noreplace(At::Tree(&p("a")), At::Tree(&p("c")))
        .unwrap();
    assert_eq!(get(disk, "c"), "a");
    disk.mkdir(&p("d")).unwrap();
    disk.mkdir(&p("e")).unwrap();
    // Not even an empty directory, which a plain rename would replace.
    assert_eq!(
        kind(disk.rename_noreplace(At::Tree(&p("d")), At::Tree(&p("e")))),
        ErrorKind::Exists
    );
    assert_eq!(
        kind(disk.rename_noreplace(At::Tree(&p("none")), At::Tree(&p("x")))),
        ErrorKind::NotFound
    );
}

fn exchange(disk: &dyn Disk) {
    put(disk, "a", "a");
    put(disk, "b", "b");
    if !supported(disk.exchange(At::Tree(&p("a")), At::Tree(&p("b")))) {
        return;
    }
    assert_eq!(
        (get(disk, "a").as_str(), get(disk, "b").as_str()),
        ("b", "a")
    );
    disk.mkdir(&p("d")).unwrap();
    put(disk, "d/f", "f");
    disk.exchange(At::Tree(&p("a")), At::Tree(&p("d"))).unwrap();
    assert_eq!(
        (get(disk, "d").as_str(), get(disk, "a/f").as_str()),
        ("b", "f")
    );
    let temp = t("new-1");
    drop(disk.create_temp(&temp).unwrap());
    disk.exchange(At::Temp(&temp), At::Tree(&p("b"))).unwrap();
    assert_eq!(get(disk, "b"), "");
    assert_eq!(disk.stat(At::Temp(&temp)).unwrap().size, 1);
    assert_eq!(
        kind(disk.exchange(At::Tree(&p("b")), At::Tree(&p("none")))),
        ErrorKind::NotFound
    );
    assert_eq!(
        kind(disk.exchange(At::Tree(&p("none")), At::Tree(&p("b")))),
        ErrorKind::NotFound
    );
    assert_eq!(get(disk, "b"), "");
}

fn hard_link(disk: &dyn Disk) {
    put(disk, "a", "a");
    put(disk, "b", "b");
    if !supported(disk.hard_link(At::Tree(&p("a")), At::Tree(&p("c")))) {
        return;
    }
    assert_eq!(
        kind(disk.hard_link(At::Tree(&p("a")), At::Tree(&p("b")))),
        ErrorKind::Exists
    );
    assert_eq!(
        kind(disk.hard_link(At::Tree(&p("none")), At::Tree(&p("d")))),
        ErrorKind::NotFound
    );
    if disk.capabilities().inodes {
        let (a, c) = (stat(disk, "a").unwrap(), stat(disk, "c").unwrap());
        assert_eq!((a.inode, a.links, c.links), (c.inode, 2, 2));
    }
    disk.unlink(At::Tree(&p("a"))).unwrap();
    assert_eq!(get(disk, "c"), "a");
}

fn directories(disk: &dyn Disk) {
    disk.mkdir(&p("d")).unwrap();
    assert_eq!(kind(disk.mkdir(&p("d"))), ErrorKind::Exists);
    assert_eq!(kind(disk.mkdir(&p("no/d"))), ErrorKind::NotFound);
    put(disk, "d/f", "f");
    assert_eq!(kind(disk.rmdir(&p("d"))), ErrorKind::NotEmpty);
    assert_eq!(kind(disk.rmdir(&p("d/f"))), ErrorKind::NotADirectory);
    assert_eq!(kind(disk.unlink(At::Tree(&p("d")))), ErrorKind::NotAFile);
    assert_eq!(
        kind(disk.open(At::Tree(&p("d"))).map(drop)),
        ErrorKind::NotAFile
    );
    disk.unlink(At::Tree(&p("d/f"))).unwrap();
    disk.rmdir(&p("d")).unwrap();
    assert_eq!(kind(disk.rmdir(&p("d"))), ErrorKind::NotFound);
}

fn reserved(disk: &dyn Disk) {
    put(disk, "f", "f");
    for path in [".syncagent", ".syncagent/root", ".syncagent/tmp/x"] {
        let path = p(path);
        let at = At::Tree(&path);
        assert_eq!(kind(disk.stat(at)), ErrorKind::Reserved);
        assert_eq!(kind(disk.open(at).map(drop)), ErrorKind::Reserved);
        assert_eq!(kind(disk.list(&path)), ErrorKind::Reserved);
        assert_eq!(kind(disk.mkdir(&path)), ErrorKind::Reserved);
        assert_eq!(kind(disk.rmdir(&path)), ErrorKind::Reserved);
        assert_eq!(kind(disk.unlink(at)), ErrorKind::Reserved);
        assert_eq!(
            kind(disk.rename(At::Tree(&p("f")), at)),
            ErrorKind::Reserved
        );
        assert_eq!(
            kind(disk.rename(at, At::Tree(&p("g")))),
            ErrorKind::Reserved
        );
        assert_eq!(kind(disk.symlink("x", at)), ErrorKind::Reserved);
    }
    // Only in the root.
    disk.mkdir(&p("d")).unwrap();
    disk.mkdir(&p("d/.syncagent")).unwrap();
    assert_eq!(disk.list(&p("d")).unwrap().entries.len(), 1);
}

fn names(disk: &dyn Disk) {
    let long = "x".repeat(255);
    for name in ["a b", "ü", "日本", "-rf", "~", "..a", long.as_str()] {
        put(disk, name, name);
        let listed = disk.list(&TreePath::ROOT).unwrap().entries;
        let mut listed = listed.into_iter().map(|entry| entry.name.unwrap());
        assert!(listed.any(|listed| listed.as_str() == name), "{name}");
        disk.unlink(At::Tree(&p(name))).unwrap();
    }
    let too_long = p(&"x".repeat(256));
    assert_eq!(kind(disk.mkdir(&too_long)), ErrorKind::BadName);
}

fn deep(disk: &dyn Disk) {
    let name = Name::parse(&"d".repeat(200)).unwrap();
    let mut path = TreePath::ROOT;
    for _ in 0..25 {
        path = path.join(&name);
        disk.mkdir(&path).unwrap();
    }
    let file = path.join(&name);
    let temp = t("new-1");
    drop(disk.create_temp(&temp).unwrap());
    disk.rename_noreplace(At::Temp(&temp), At::Tree(&file))
        .unwrap();
    assert_eq!(disk.list(&path).unwrap().entries.len(), 1);
    disk.open(At::Tree(&file)).unwrap();
    disk.sync_dir(Dir::Tree(&path)).unwrap();
    disk.unlink(At::Tree(&file)).unwrap();
    while let Some(parent) = path.parent() {
        disk.rmdir(&path).unwrap();
        path = parent;
    }
}

fn handles(disk: &dyn Disk) {
    put(disk, "a", "old");
    let handle = disk.open(At::Tree(&p("a"))).unwrap();
    let before = handle.stat().unwrap();
    put(disk, "a", "newer");
    let mut buf = [0; 8];
    assert_eq!(handle.read_at(&mut buf, 0).unwrap(), 3);
    assert_eq!(&buf[..3], b"old");
    assert_eq!(handle.stat().unwrap().size, 3);
    assert_eq!(handle.stat().unwrap().inode, before.inode);
    assert_eq!(get(disk, "a"), "newer");
    // Written through a temp's handle after it got its place.
    let temp = t("new-1");
    let writing = disk.create_temp(&temp).unwrap();
    disk.rename(At::Temp(&temp), At::Tree(&p("b"))).unwrap();
    writing.write_at(b"late", 0).unwrap();
    assert_eq!(get(disk, "b"), "late");
}

/// Long files may be written and read in another way.
fn long_files(disk: &dyn Disk) {
    const LEN: u64 = 17 << 20;
    let name = t("new-1");
    let file = disk.create_temp(&name).unwrap();
    file.allocate(LEN).unwrap();
    let piece: Vec<u8> = (0..100_000_u32).flat_map(u32::to_le_bytes).collect();
    // Within a page, across several, over what is there, and at the end.
    let at = [0, 5, 3_999_999, LEN - piece.len() as u64];
    for at in at {
        file.write_at(&piece, at).unwrap();
    }
    file.write_at(&[], 1).unwrap();
    file.sync().unwrap();
    drop(file);
    disk.rename(At::Temp(&name), At::Tree(&p("long"))).unwrap();
    let file = disk.open(At::Tree(&p("long"))).unwrap();
    assert_eq!(file.stat().unwrap().size, LEN);
    let read = |at: u64, len: usize| {
        let mut buf = vec![0xff; len];
        let mut got = 0;
        while got < len {
            match file.read_at(&mut buf[got..], at + got as u64).unwrap() {
                0 => break,
                n => got += n,
            }
        }
        buf.truncate(got);
        buf
    };
    assert_eq!(read(0, 5), piece[..5]);
    for at in &at[1..] {
        assert!(read(*at, piece.len()) == piece, "at {at}");
    }
    assert_eq!(read(3_000_000, 10), [0; 10]);
    assert_eq!(read(LEN - 3, 10), piece[piece.len() - 3..]);
    assert!(read(LEN, 10).is_empty());
}

fn lock(disk: &dyn Disk) {
    let held = disk.lock().unwrap();
    assert_eq!(kind(disk.lock().map(drop)), ErrorKind::Busy);
    drop(held);
    drop(disk.lock().unwrap());
}

fn durable(disk: &dyn Disk) {
    disk.mkdir(&p("d")).unwrap();
    put(disk, "d/f", "f");
    disk.sync_file(At::Tree(&p("d/f"))).unwrap();
    for dir in [
        Dir::Tree(&TreePath::ROOT),
        Dir::Tree(&p("d")),
        Dir::Own,
        Dir::Temp,
    ] {
        disk.sync_dir(dir).unwrap();
    }
    assert_eq!(
        kind(disk.sync_dir(Dir::Tree(&p("none")))),
        ErrorKind::NotFound
    );
    assert_eq!(
        kind(disk.sync_file(At::Tree(&p("none")))),
        ErrorKind::NotFound
    );
    disk.sync_all().unwrap();
    let temp = t("id-1");
    let file = disk.create_temp(&temp).unwrap();
    file.write_at(b"x", 0).unwrap();
    file.sync().unwrap();
    assert_eq!(kind(disk.open(At::Identity).map(drop)), ErrorKind::NotFound);
    disk.rename(At::Temp(&temp), At::Identity).unwrap();
    assert_eq!(disk.open(At::Identity).unwrap().stat().unwrap().size, 1);
}

fn root(disk: &dyn Disk) {
    assert!(disk.root_is_same().unwrap());
    assert_eq!(stat(disk, "").unwrap().kind, EntryKind::Directory);
    assert!(
        disk.rmdir(&TreePath::ROOT).is_err() && disk.unlink(At::Tree(&TreePath::ROOT)).is_err()
    );
    assert!(
        disk.rename(At::Tree(&TreePath::ROOT), At::Tree(&p("x")))
            .is_err()
    );
    disk.prepare().unwrap();
}
