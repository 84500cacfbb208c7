//! Each verb, and each verb when somebody else is faster.

use std::os::unix::fs::symlink;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use syncagent_protocol::{Code, Name, TreePath};

use super::hooked::{Hooked, error};
use super::{Dir, contents, folder_on, p};
use crate::folder::apply::{ApplyError, Expect, Folder, Staged};
use crate::folder::disk::{At, Disk, ErrorKind};

const MTIME: i64 = 1_700_000_000_123_456_789;

fn staged(folder: &Folder, content: &str) -> Staged {
    let mut staging = folder.stage(Some(content.len() as u64)).unwrap();
    staging.write(content.as_bytes()).unwrap();
    staging.finish(false, MTIME).unwrap()
}

fn place(folder: &Folder, path: &str, content: &str, expect: &Expect) -> Result<(), ApplyError> {
    let mut staged = staged(folder, content);
    folder.sync_staged(&[&staged])?;
    folder.place(&mut staged, &p(path), expect, None).map(drop)
}

fn is_changed(result: &Result<(), ApplyError>) -> bool {
    matches!(result, Err(ApplyError::Changed { .. }))
}

/// The folder as it is with a disk that lacks verbs.
fn lacking(dir: &Dir, verbs: &'static [&'static str]) -> Folder {
    folder_on(Hooked::new(&dir.disk, move |_, verb, _| {
        if verbs.contains(&verb) {
            Err(error(ErrorKind::Unsupported))
        } else {
            Ok(())
        }
    }))
}

/// File systems: Linux's own; without exchange; without hard links; FAT.
const LACKS: [&[&str]; 4] = [
    &[],
    &["exchange"],
    &["hard_link"],
    &["exchange", "hard_link", "rename_noreplace"],
];

#[test]
fn a_new_file_is_placed_whole_with_its_metadata() {
    for lacks in LACKS {
        let dir = Dir::new();
        let folder = lacking(&dir, lacks);
        let mut staging = folder.stage(None).unwrap();
        staging.write_at(b"world", 6).unwrap();
        staging.write_at(b"hello ", 0).unwrap();
        let mut buf = [0; 5];
        assert_eq!(staging.read_at(&mut buf, 6).unwrap(), 5);
        assert_eq!((&buf, staging.len()), (b"world", 11));
        let mut staged = staging.finish(true, MTIME).unwrap();
        folder.sync_staged(&[&staged]).unwrap();
        assert!(
            contents(&dir.path("")).is_empty(),
            "nothing partial is visible"
        );
        let placed = folder
            .place(&mut staged, &p("f"), &Expect::Absent, None)
            .unwrap();
        assert_eq!(placed.fingerprint, dir.fingerprint("f"), "{lacks:?}");
        assert_eq!(
            (placed.fingerprint.mtime_ns, placed.fingerprint.size),
            (MTIME, 11)
        );
        assert_eq!(
            (dir.read("f").as_str(), dir.mode("f") & 0o700),
            ("hello world", 0o700)
        );
        drop(staged);
        folder.settle().unwrap();
        assert_eq!((dir.read("f").as_str(), dir.temps()), ("hello world", 0));
        // Something is there now.
        assert!(is_changed(&place(&folder, "f", "other", &Expect::Absent)));
        assert!(is_changed(&place(
            &folder,
            "none/f",
            "other",
            &Expect::Absent
        )));
        assert_eq!((dir.read("f").as_str(), dir.temps()), ("hello world", 0));
    }
}

#[test]
fn a_file_is_replaced_if_it_is_the_expected_one() {
    for lacks in LACKS {
        let dir = Dir::new();
        let folder = lacking(&dir, lacks);
        dir.write("d/f", "old");
        std::fs::set_permissions(
            dir.path("d/f"),
            std::os::unix::fs::PermissionsExt::from_mode(0o600),
        )
        .unwrap();
        let expect = Expect::File(dir.fingerprint("d/f"));
        let mut new = staged(&folder, "new");
        let placed = folder.place(&mut new, &p("d/f"), &expect, None).unwrap();
        assert_eq!(
            (dir.read("d/f").as_str(), placed.fingerprint),
            ("new", dir.fingerprint("d/f"))
        );
        assert_eq!(dir.mode("d/f"), 0o600, "a private file stays private");
        folder.settle().unwrap();
        assert_eq!(dir.temps(), 0, "{lacks:?}");
        // The old fingerprint no longer fits, nor does "nothing", nor a link.
        for expect in [expect, Expect::Absent, Expect::Link { target: "x".into() }] {
            assert!(is_changed(&place(&folder, "d/f", "newer", &expect)));
        }
        assert_eq!((dir.read("d/f").as_str(), dir.temps()), ("new", 0));
        // What was staged can be tried again after a look.
        let mut again = staged(&folder, "newer");
        assert!(
            folder
                .place(&mut again, &p("d/f"), &Expect::Absent, None)
                .is_err()
        );
        folder
            .place(
                &mut again,
                &p("d/f"),
                &Expect::File(dir.fingerprint("d/f")),
                None,
            )
            .unwrap();
        assert_eq!(dir.read("d/f"), "newer");
    }
}

#[test]
fn an_edit_that_kept_length_and_mtime_before_the_check_is_seen() {
    let dir = Dir::new();
    let folder = dir.folder();
    dir.write("f", "old");
    let before = dir.fingerprint("f");
    let file = std::fs::File::options()
        .write(true)
        .open(dir.path("f"))
        .unwrap();
    std::io::Write::write_all(&mut &file, b"own").unwrap();
    let mtime =
        std::time::UNIX_EPOCH + std::time::Duration::from_nanos(before.mtime_ns.cast_unsigned());
    file.set_modified(mtime).unwrap();
    assert_eq!(dir.fingerprint("f").mtime_ns, before.mtime_ns);
    assert!(is_changed(&place(
        &folder,
        "f",
        "new",
        &Expect::File(before)
    )));
    assert!(is_changed(&folder.remove(&p("f"), &Expect::File(before))));
    assert_eq!(dir.read("f"), "own");
}

#[test]
fn a_conflict_copy_keeps_the_local_file_beside_the_new_one() {
    for lacks in LACKS {
        let dir = Dir::new();
        let folder = lacking(&dir, lacks);
        dir.write("f", "mine");
        let inode = dir.inode("f");
        let mut new = staged(&folder, "theirs");
        let expect = Expect::File(dir.fingerprint("f"));
        folder
            .place(&mut new, &p("f"), &expect, Some(&p("f.conflict")))
            .unwrap();
        folder.settle().unwrap();
        let want = [
            ("f".into(), "theirs".into()),
            ("f.conflict".into(), "mine".into()),
        ];
        assert_eq!(contents(&dir.path("")), want, "{lacks:?}");
        assert_eq!((dir.inode("f.conflict"), dir.temps()), (inode, 0));
        // The name for the copy is taken: nothing happens.
        let expect = Expect::File(dir.fingerprint("f"));
        let mut new = staged(&folder, "more");
        let result = folder.place(&mut new, &p("f"), &expect, Some(&p("f.conflict")));
        assert!(is_changed(&result.map(drop)));
        drop(new);
        assert_eq!((contents(&dir.path("")), dir.temps()), (want.into(), 0));
    }
}

#[test]
fn links_are_placed_replaced_and_removed() {
    for lacks in [LACKS[0], LACKS[1], LACKS[3]] {
        let dir = Dir::new();
        let folder = lacking(&dir, lacks);
        let link = |target: &str| Expect::Link {
            target: target.to_owned(),
        };
        let placed = folder
            .place_link("/etc", MTIME, &p("l"), &Expect::Absent, None)
            .unwrap();
        assert_eq!(
            (placed.fingerprint, placed.fingerprint.mtime_ns),
            (dir.fingerprint("l"), MTIME)
        );
        assert!(is_changed(
            &folder
                .place_link("x", MTIME, &p("l"), &link("other"), None)
                .map(drop)
        ));
        folder
            .place_link("b", MTIME, &p("l"), &link("/etc"), None)
            .unwrap();
        // From a link to a file and back.
        place(&folder, "l", "file", &link("b")).unwrap();
        let file = Expect::File(dir.fingerprint("l"));
        folder
            .place_link("c", MTIME, &p("l"), &file, Some(&p("l.conflict")))
            .unwrap();
        assert!(is_changed(&folder.remove(&p("l"), &link("d"))));
        folder.settle().unwrap();
        let want = [
            ("l".into(), "-> c".into()),
            ("l.conflict".into(), "file".into()),
        ];
        assert_eq!(
            (contents(&dir.path("")), dir.temps()),
            (want.into(), 0),
            "{lacks:?}"
        );
        folder.remove(&p("l"), &link("c")).unwrap();
        folder.settle().unwrap();
        assert_eq!((contents(&dir.path("")).len(), dir.temps()), (1, 0));
    }
}

#[test]
fn directories_and_removal() {
    let dir = Dir::new();
    let folder = dir.folder();
    assert_eq!(folder.make_dir(&p("d")).unwrap(), dir.inode("d"));
    assert!(matches!(
        folder.make_dir(&p("d")),
        Err(ApplyError::Changed { .. })
    ));
    dir.write("d/.DS_Store", "junk");
    assert!(matches!(
        folder.remove_dir(&p("d")),
        Err(ApplyError::NotEmpty { .. })
    ));
    let expect = Expect::File(dir.fingerprint("d/.DS_Store"));
    assert!(is_changed(&folder.remove(&p("d"), &expect)));
    folder.remove(&p("d/.DS_Store"), &expect).unwrap();
    folder.remove_dir(&p("d")).unwrap();
    folder.remove(&p("d/none"), &Expect::Absent).unwrap();
    assert!(is_changed(&folder.remove_dir(&p("d"))));
    assert!(is_changed(&folder.remove(&p("f"), &expect)));
    // A directory that is gone by now does not keep a batch from being made durable.
    folder.settle().unwrap();
    assert_eq!(dir.temps(), 0);
}

#[test]
fn metadata_is_set_if_the_file_is_the_expected_one() {
    let dir = Dir::new();
    let folder = dir.folder();
    dir.write("f", "1");
    let before = dir.fingerprint("f");
    let after = folder
        .set_meta(&p("f"), before, Some(true), Some(MTIME))
        .unwrap();
    assert_eq!((after, after.mtime_ns), (dir.fingerprint("f"), MTIME));
    assert_eq!(dir.mode("f") & 0o100, 0o100);
    assert!(is_changed(
        &folder.set_meta(&p("f"), before, None, Some(0)).map(drop)
    ));
    symlink("f", dir.path("l")).unwrap();
    assert!(is_changed(
        &folder.set_meta(&p("l"), after, None, Some(0)).map(drop)
    ));
    let after = folder.set_meta(&p("f"), after, Some(false), None).unwrap();
    assert_eq!((after, dir.mode("f") & 0o111), (dir.fingerprint("f"), 0));
}

#[test]
fn nodes_move_and_change_places() {
    for lacks in LACKS {
        let dir = Dir::new();
        let folder = lacking(&dir, lacks);
        for path in ["a/f", "b/g", "c"] {
            dir.write(path, path);
        }
        let (a, b, c) = (dir.inode("a"), dir.inode("b"), dir.inode("c"));
        assert!(is_changed(&folder.move_node(&p("a"), &p("b"), a)), "taken");
        assert!(
            is_changed(&folder.move_node(&p("a"), &p("x"), b)),
            "another one"
        );
        assert!(is_changed(&folder.move_node(&p("none"), &p("x"), 0)));
        assert!(folder.move_node(&p("a"), &p("a/inside"), a).is_err());
        folder.move_node(&p("a"), &p("b/a"), a).unwrap();
        folder.move_node(&p("c"), &p("C"), c).unwrap();
        assert!(
            is_changed(&folder.swap_nodes(&p("b"), &p("C"), b, b)) || lacks.contains(&"exchange")
        );
        match folder.swap_nodes(&p("b"), &p("C"), b, c) {
            Ok(()) => assert_eq!(
                (dir.read("C/a/f").as_str(), dir.read("b").as_str()),
                ("a/f", "c")
            ),
            Err(ApplyError::Disk(error)) => {
                assert!(error.kind == ErrorKind::Unsupported && lacks.contains(&"exchange"));
                assert_eq!(dir.read("b/a/f"), "a/f");
            }
            Err(error) => panic!("{error}"),
        }
        folder.settle().unwrap();
    }
}

#[test]
fn two_names_of_one_file_are_not_a_change_of_case() {
    let dir = Dir::new();
    let folder = dir.folder();
    dir.write("a", "1");
    std::fs::hard_link(dir.path("a"), dir.path("A")).unwrap();
    assert!(is_changed(&folder.move_node(
        &p("a"),
        &p("A"),
        dir.inode("a")
    )));
    assert_eq!(contents(&dir.path("")).len(), 2);
}

/// Does `interfere` at the first `verb` on `path`, then applies.
fn meanwhile(
    dir: &Dir,
    verb: &'static str,
    path: &'static str,
    interfere: impl Fn() + Send + Sync + 'static,
) -> Folder {
    let once = std::sync::Once::new();
    folder_on(Hooked::new(&dir.disk, move |_, called, at| {
        if called == verb && at == path {
            once.call_once(&interfere);
        }
        Ok(())
    }))
}

#[test]
fn a_file_saved_between_check_and_exchange_survives() {
    // In place, by rename, replaced by a directory, removed.
    type Save = fn(&std::path::Path);
    let saves: [(Save, &str); 4] = [
        (|path| std::fs::write(path, "user's").unwrap(), "user's"),
        (
            |path| {
                std::fs::write(path.with_extension("new"), "user's").unwrap();
                std::fs::rename(path.with_extension("new"), path).unwrap();
            },
            "user's",
        ),
        (
            |path| {
                std::fs::remove_file(path).unwrap();
                std::fs::create_dir(path).unwrap();
                std::fs::write(path.join("in"), "user's").unwrap();
            },
            "user's",
        ),
        (|path| std::fs::remove_file(path).unwrap(), ""),
    ];
    for aside in [None, Some(p("f.conflict"))] {
        for (save, want) in saves {
            let dir = Dir::new();
            dir.write("f", "old");
            let expect = Expect::File(dir.fingerprint("f"));
            let path = dir.path("f");
            let folder = meanwhile(&dir, "exchange", "f", move || save(&path));
            let mut new = staged(&folder, "new");
            let result = folder.place(&mut new, &p("f"), &expect, aside.as_ref());
            assert!(is_changed(&result.map(drop)));
            drop(new);
            assert!(folder.settle().unwrap().rescued.is_empty());
            let found = contents(&dir.path(""));
            let mut all: Vec<&str> = found.iter().map(|(_, content)| content.as_str()).collect();
            // The last name of what was never sent stays, though its owner overwrote or removed the other one.
            all.retain(|content| aside.is_none() || *content != "old");
            assert_eq!(
                all,
                if want.is_empty() { vec![] } else { vec![want] },
                "{aside:?}"
            );
            assert_eq!(dir.temps(), 0);
        }
    }
}

#[test]
fn faster_twice_is_kept_as_well() {
    let dir = Dir::new();
    dir.write("f", "old");
    let expect = Expect::File(dir.fingerprint("f"));
    let path = dir.path("f");
    let saves = std::sync::atomic::AtomicUsize::new(0);
    let folder = folder_on(Hooked::new(&dir.disk, move |_, verb, at| {
        if verb == "exchange" && at == "f" {
            let n = saves.fetch_add(1, std::sync::atomic::Ordering::SeqCst);
            std::fs::write(&path, format!("user's {n}")).unwrap();
        }
        Ok(())
    }));
    assert!(is_changed(&place(&folder, "f", "new", &expect)));
    let rescued = folder.settle().unwrap().rescued;
    assert_eq!(
        (rescued[0].from.as_ref(), rescued.len()),
        (Some(&p("f")), 1)
    );
    let want = [
        ("f".into(), "user's 0".into()),
        ("f.rescued-0".into(), "user's 1".into()),
    ];
    assert_eq!((contents(&dir.path("")), dir.temps()), (want.into(), 0));
}

#[test]
fn a_program_that_writes_late_through_an_open_handle_loses_nothing() {
    for lacks in [LACKS[0], LACKS[1]] {
        let dir = Dir::new();
        dir.write("f", "old");
        dir.write("g", "old");
        let folder = lacking(&dir, lacks);
        let open = |path: &str| {
            std::fs::File::options()
                .append(true)
                .open(dir.path(path))
                .unwrap()
        };
        let (mut f, mut g) = (open("f"), open("g"));
        place(&folder, "f", "new", &Expect::File(dir.fingerprint("f"))).unwrap();
        folder
            .remove(&p("g"), &Expect::File(dir.fingerprint("g")))
            .unwrap();
        std::io::Write::write_all(&mut f, b" and late").unwrap();
        std::io::Write::write_all(&mut g, b" and late").unwrap();
        let rescued = folder.settle().unwrap().rescued;
        assert_eq!(rescued.len(), 2);
        let want = [
            ("f".into(), "new".into()),
            ("f.rescued-0".into(), "old and late".into()),
            ("g.rescued-0".into(), "old and late".into()),
        ];
        assert_eq!((contents(&dir.path("")), dir.temps()), (want.into(), 0));
    }
}

#[test]
fn a_file_saved_while_it_is_removed_comes_back() {
    let dir = Dir::new();
    dir.write("d/f", "old");
    let (expect, path) = (Expect::File(dir.fingerprint("d/f")), dir.path("d/f"));
    let folder = folder_on(Hooked::new(&dir.disk, move |_, verb, at| {
        if verb == "rename" && at.starts_with(".syncagent/tmp/out-")
            || verb == "rename_noreplace" && at == "d/f"
        {
            std::fs::write(&path, verb).unwrap();
        }
        Ok(())
    }));
    assert!(is_changed(&folder.remove(&p("d/f"), &expect)));
    // The place was taken again before it could be put back: both are there.
    let want = [
        ("d/f".into(), "rename_noreplace".into()),
        ("d/f.rescued-0".into(), "rename".into()),
    ];
    assert_eq!((contents(&dir.path("")), dir.temps()), (want.into(), 0));
    assert_eq!(folder.settle().unwrap().rescued.len(), 1);
}

#[test]
fn a_path_longer_than_a_call_takes_is_gone_in_pieces_and_follows_no_link() {
    let dir = Dir::new();
    let name = "n".repeat(250);
    // 10 KB, and at each level, whichever piece it stands in or ends, a link to that very level.
    let mut levels = vec![TreePath::ROOT];
    for level in 0..40 {
        let here = levels[level].clone();
        let below = here.join(&Name::parse(&name).unwrap());
        dir.disk.mkdir(&below).unwrap();
        let link = here.join(&Name::parse("here").unwrap());
        dir.disk.symlink(".", At::Tree(&link)).unwrap();
        levels.push(below);
    }
    let last = levels.last().unwrap();
    assert!(last.as_str().len() > 2 * 4096);
    let stat = dir.disk.stat(At::Tree(last)).unwrap();
    assert!(dir.disk.list(last).unwrap().entries.is_empty());
    for (level, here) in levels.iter().enumerate().take(40) {
        let rest = vec![name.as_str(); 40 - level].join("/");
        let way = match here.as_str() {
            "" => format!("here/{rest}"),
            above => format!("{above}/here/{rest}"),
        };
        let error = dir.disk.stat(At::Tree(&p(&way))).unwrap_err();
        // Where it ends a piece, it is no directory; anywhere else it would lead on.
        let refused = matches!(error.kind, ErrorKind::Escapes | ErrorKind::NotADirectory);
        assert!(refused, "by the link in level {level}: {error}");
    }
    let folder = folder_on(Arc::clone(&dir.disk));
    let mut file = staged(&folder, "deep down");
    let deep = last.join(&Name::parse("deep").unwrap());
    folder
        .place(&mut file, &deep, &Expect::Absent, None)
        .unwrap();
    assert_eq!(dir.disk.stat(At::Tree(&deep)).unwrap().size, 9);
    assert_eq!(dir.disk.stat(At::Tree(last)).unwrap().inode, stat.inode);
}

#[test]
fn a_directory_replaced_by_a_link_leads_nowhere() {
    // Between the last look and each system call in turn; the directory itself, and one above it.
    for (n, below) in (0..20).flat_map(|n| [(n, ""), (n, "/e")]) {
        let dir = Dir::new();
        let at = |name: &str| format!("d{below}/{name}");
        dir.write(&at("f"), "old");
        let outside = dir.outside();
        std::fs::create_dir_all(format!("{}{below}", outside.display())).unwrap();
        std::fs::write(format!("{}{below}/f", outside.display()), "not ours").unwrap();
        let before = contents(&outside);
        let expect = Expect::File(dir.fingerprint(&at("f")));
        let (d, moved) = (dir.path("d"), dir.path("moved"));
        let link_to = outside.clone();
        let disk = Hooked::new(&dir.disk, move |call, _, _| {
            if call == n {
                std::fs::rename(&d, &moved).unwrap();
                symlink(&link_to, &d).unwrap();
            }
            Ok(())
        });
        let folder = folder_on(Arc::clone(&disk) as Arc<dyn Disk>);
        let mut new = staged(&folder, "new");
        let _ = folder.place(&mut new, &p(&at("f")), &expect, Some(&p(&at("f.conflict"))));
        let _ = folder.place_link("x", MTIME, &p(&at("l")), &Expect::Absent, None);
        let _ = folder.make_dir(&p(&at("sub")));
        let _ = folder.remove(&p(&at("f")), &expect);
        let now = dir
            .disk
            .stat(At::Tree(&p(&format!("moved{below}/f"))))
            .map(|stat| stat.fingerprint())
            .unwrap_or_default();
        let _ = folder.set_meta(&p(&at("f")), now, Some(true), Some(0));
        let _ = folder.move_node(&p(&at("f")), &p(&at("g")), 0);
        let _ = folder.settle();
        assert_eq!(contents(&outside), before, "call {n}, below {below:?}");
        assert_eq!(before.len(), 1);
    }
}

#[test]
fn hostile_paths_are_refused_with_their_code() {
    let dir = Dir::new();
    let folder = dir.folder();
    for path in [".syncagent/root", ".syncagent/tmp/x", ".syncagent"] {
        let error = place(&folder, path, "x", &Expect::Absent).unwrap_err();
        assert_eq!(
            (error.code(), error.is_retryable()),
            (Code::Path, false),
            "{path}"
        );
        assert_eq!(folder.make_dir(&p(path)).unwrap_err().code(), Code::Path);
        assert_eq!(
            folder.move_node(&p(path), &p("x"), 0).unwrap_err().code(),
            Code::Path
        );
    }
    let long = p(&"x".repeat(256));
    assert_eq!(folder.make_dir(&long).unwrap_err().code(), Code::Path);
}

#[test]
fn a_conflict_copy_removed_while_the_file_stood_under_both_names_is_put_again() {
    let dir = Dir::new();
    dir.write("f", "never sent");
    let expect = Expect::File(dir.fingerprint("f"));
    let copy = dir.path("f.conflict");
    let folder = meanwhile(&dir, "exchange", "f", move || {
        std::fs::remove_file(&copy).unwrap();
    });
    let mut new = staged(&folder, "new");
    folder
        .place(&mut new, &p("f"), &expect, Some(&p("f.conflict")))
        .unwrap();
    folder.settle().unwrap();
    assert_eq!(
        contents(&dir.path("")),
        [
            ("f".into(), "new".into()),
            ("f.conflict".into(), "never sent".into())
        ]
    );
    assert_eq!(dir.temps(), 0);
}

#[test]
fn a_conflict_copy_removed_in_the_making_survives_a_crash_too() {
    let dir = Dir::new();
    dir.write("f", "never sent");
    let expect = Expect::File(dir.fingerprint("f"));
    let copy = dir.path("f.conflict");
    let off = AtomicBool::new(false);
    let folder = folder_on(Hooked::new(&dir.disk, move |_, verb, at| {
        if off.load(Ordering::SeqCst) {
            return Err(error(ErrorKind::Io));
        }
        if verb == "exchange" && at == "f" {
            std::fs::remove_file(&copy).unwrap();
            // The exchange is done, and then nothing more.
            off.store(true, Ordering::SeqCst);
        }
        Ok(())
    }));
    let mut new = staged(&folder, "new");
    assert!(
        folder
            .place(&mut new, &p("f"), &expect, Some(&p("f.conflict")))
            .is_err()
    );
    std::mem::forget(new);
    drop(folder);
    let settled = dir.folder().recover(&|_| false).unwrap();
    assert_eq!(settled.rescued.len(), 1);
    let mut all: Vec<String> = contents(&dir.path(""))
        .into_iter()
        .map(|(_, content)| content)
        .collect();
    all.sort();
    assert_eq!(all, ["never sent", "new"]);
    assert_eq!(dir.temps(), 0);
}

#[test]
fn an_old_file_that_cannot_be_let_go_is_named_and_tried_again() {
    let dir = Dir::new();
    dir.write("f", "old");
    dir.write("g", "old too");
    let refuse = Arc::new(AtomicBool::new(false));
    let refusing = Arc::clone(&refuse);
    let folder = folder_on(Hooked::new(&dir.disk, move |_, verb, at| {
        let is_retired = verb == "stat" && at.contains("swap-") && at.ends_with("-f");
        match is_retired && refusing.load(Ordering::SeqCst) {
            true => Err(error(ErrorKind::Denied)),
            false => Ok(()),
        }
    }));
    for path in ["f", "g"] {
        let expect = Expect::File(dir.fingerprint(path));
        let mut new = staged(&folder, "new");
        folder.place(&mut new, &p(path), &expect, None).unwrap();
    }
    refuse.store(true, Ordering::SeqCst);
    let settled = folder.settle().unwrap();
    let held: Vec<_> = settled.held.iter().map(|(path, _)| path.clone()).collect();
    assert_eq!(held, [p("f")]);
    assert_eq!((dir.temps(), folder.is_settled()), (1, false));
    refuse.store(false, Ordering::SeqCst);
    assert!(folder.settle().unwrap().held.is_empty());
    assert_eq!((dir.temps(), folder.is_settled()), (0, true));
    let new = |path: &str| (path.into(), "new".into());
    assert_eq!(contents(&dir.path("")), [new("f"), new("g")]);
}

#[test]
fn a_full_disk_says_so_and_leaves_nothing() {
    let dir = Dir::new();
    dir.write("f", "old");
    for failing in [
        "create_temp",
        "rename",
        "exchange",
        "hard_link",
        "rename_noreplace",
    ] {
        let folder = folder_on(Hooked::new(&dir.disk, move |_, verb, _| {
            if verb == failing {
                Err(error(ErrorKind::Full))
            } else {
                Ok(())
            }
        }));
        let result = folder.stage(Some(3)).and_then(|mut staging| {
            staging.write(b"new")?;
            let mut staged = staging.finish(false, MTIME)?;
            folder.place(
                &mut staged,
                &p("f"),
                &Expect::File(dir.fingerprint("f")),
                Some(&p("aside")),
            )?;
            folder.place(&mut staged, &p("g"), &Expect::Absent, None)
        });
        if failing != "rename_noreplace" {
            assert_eq!(
                result.as_ref().unwrap_err().code(),
                Code::DiskFull,
                "{failing}"
            );
            assert!(result.unwrap_err().is_retryable());
            assert_eq!(
                contents(&dir.path("")),
                [("f".into(), "old".into())],
                "{failing}"
            );
        }
        assert_eq!(dir.temps(), 0, "{failing}");
        if failing == "hard_link" {
            break;
        }
    }
}

#[test]
fn an_unfinished_download_is_taken_up_again() {
    let dir = Dir::new();
    let folder = dir.folder();
    let mut staging = folder.stage_resumable("k1", Some(9)).unwrap();
    staging.write(b"half").unwrap();
    drop(staging);
    folder.stage(None).unwrap().write(b"dropped").unwrap();
    assert_eq!(dir.temps(), 1);
    assert!(folder.stage_resumable("../x", None).is_err());

    let folder = dir.folder();
    assert!(
        folder
            .recover(&|key| key == "k1")
            .unwrap()
            .rescued
            .is_empty()
    );
    let mut staging = folder.stage_resumable("k1", Some(9)).unwrap();
    assert_eq!(staging.len(), 4);
    staging.write(b"whole").unwrap();
    staging.set_len(9).unwrap();
    let mut staged = staging.finish(false, MTIME).unwrap();
    assert_eq!(staged.size(), 9);
    folder
        .place(&mut staged, &p("f"), &Expect::Absent, None)
        .unwrap();
    assert_eq!((dir.read("f").as_str(), dir.temps()), ("halfwhole", 0));

    drop(folder.stage_resumable("k2", None).unwrap());
    folder.recover(&|_| false).unwrap();
    assert_eq!(dir.temps(), 0);
}

#[test]
fn durability_is_bought_once_a_batch() {
    let dir = Dir::new();
    let syncs = Arc::new(std::sync::Mutex::new(Vec::new()));
    let seen = Arc::clone(&syncs);
    let folder = folder_on(Hooked::new(&dir.disk, move |_, verb, _| {
        if verb.starts_with("sync") {
            seen.lock().unwrap().push(verb);
        }
        Ok(())
    }));
    let batch = |n: usize| {
        let mut all: Vec<Staged> = (0..n).map(|_| staged(&folder, "x")).collect();
        folder.sync_staged(&all.iter().collect::<Vec<_>>()).unwrap();
        let verbs = std::mem::take(&mut *syncs.lock().unwrap());
        for (i, staged) in all.iter_mut().enumerate() {
            let path = format!("{n}-{i}");
            folder
                .place(staged, &p(&path), &Expect::Absent, None)
                .unwrap();
        }
        folder.settle().unwrap();
        (verbs, std::mem::take(&mut *syncs.lock().unwrap()))
    };
    assert_eq!(batch(100), (vec!["sync_all"], vec!["sync_dir"]));
    assert_eq!(batch(2), (vec!["sync_file"; 2], vec!["sync_dir"]));
    folder.settle().unwrap();
    assert!(syncs.lock().unwrap().is_empty(), "nothing to do");
}

#[test]
fn what_could_not_be_made_durable_stays_to_be_done() {
    let dir = Dir::new();
    dir.write("f", "old");
    let fails = Arc::new(std::sync::atomic::AtomicBool::new(true));
    let failing = Arc::clone(&fails);
    let folder = folder_on(Hooked::new(&dir.disk, move |_, verb, _| {
        let fail = verb == "sync_dir" && failing.load(std::sync::atomic::Ordering::SeqCst);
        if fail {
            Err(error(ErrorKind::Io))
        } else {
            Ok(())
        }
    }));
    place(&folder, "f", "new", &Expect::File(dir.fingerprint("f"))).unwrap();
    assert!(folder.settle().is_err());
    assert_eq!(
        dir.temps(),
        1,
        "the old file stays until the new one is durable"
    );
    fails.store(false, std::sync::atomic::Ordering::SeqCst);
    folder.settle().unwrap();
    assert_eq!(dir.temps(), 0);
}

#[test]
fn a_file_that_refuses_to_be_flushed_is_named_and_holds_up_no_other() {
    let dir = Dir::new();
    for name in ["f", "g"] {
        dir.write(name, "text");
    }
    let folder = folder_on(Hooked::new(&dir.disk, |_, verb, at| {
        match verb == "sync_file" && at == "f" {
            true => Err(error(ErrorKind::Denied)),
            false => Ok(()),
        }
    }));
    let names = |refused: &[(TreePath, ApplyError)]| -> Vec<TreePath> {
        refused.iter().map(|(path, _)| path.clone()).collect()
    };
    let refused = folder.sync_found(&[p("f"), p("g")], &[TreePath::ROOT].into());
    assert_eq!(names(&refused.unwrap()), [p("f")]);
    // So is one of which something was set; it is tried again, and says so until then.
    for name in ["f", "g"] {
        let print = dir.fingerprint(name);
        folder.set_meta(&p(name), print, None, Some(7)).unwrap();
    }
    for _ in 0..2 {
        assert_eq!(names(&folder.settle().unwrap().unflushed), [p("f")]);
        assert!(!folder.is_settled());
    }
}

#[test]
fn an_error_that_a_system_tells_once_is_heard() {
    for verb in ["sync_file", "sync_dir"] {
        let dir = Dir::new();
        dir.write("f", "text");
        let told = AtomicBool::new(false);
        let folder = folder_on(Hooked::new(&dir.disk, move |_, now, _| {
            match now == verb && !told.swap(true, Ordering::SeqCst) {
                true => Err(error(ErrorKind::Io)),
                false => Ok(()),
            }
        }));
        let synced = folder.sync_found(&[p("f")], &[TreePath::ROOT].into());
        let is_heard = synced.map_or(true, |refused| !refused.is_empty());
        assert!(is_heard, "{verb}");
    }
}

#[test]
fn the_conflict_copy_of_a_name_that_is_long_or_odd() {
    let dir = Dir::new();
    let folder = dir.folder();
    for name in [
        "ü".repeat(127),
        "-".to_owned(),
        "a-b-c\n".to_owned(),
        "日".repeat(85),
    ] {
        dir.write(&name, "old");
        let path = TreePath::parse(&name).unwrap();
        let mut new = staged(&folder, "new");
        let expect = Expect::File(dir.fingerprint(&name));
        folder
            .place(&mut new, &path, &expect, Some(&p("aside")))
            .unwrap();
        folder
            .remove(&p("aside"), &Expect::File(dir.fingerprint("aside")))
            .unwrap();
        folder.settle().unwrap();
        assert_eq!(dir.read(&name), "new");
    }
}
