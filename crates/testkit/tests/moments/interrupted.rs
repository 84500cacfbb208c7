//! A pass that was killed, or that met an error, half-way: what it had done is nobody's edit, and what people did since is.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;

use syncagent_client::folder::disk::ErrorKind;
use syncagent_protocol::TreePath;
use syncagent_testkit::sim::disk::Fault;
use syncagent_testkit::sim::fs::{Body, Content, Item};

use super::two::{
    MANY, Two, at_each_call, exchange, make_dir, rename, set_mode, shown, shown_on_drive, write,
};

#[tokio::test]
async fn a_move_that_a_kill_cut_off_is_no_touch() {
    at_each_call(5, async |call| {
        let mut two = Two::with(|at| write(at, "a", "text")).await;
        two.at_desktop(|at| rename(at, "a", "b")).await;
        if !two.killed_at(call).await {
            return false;
        }
        // Nobody has touched it since it was moved, so this is the last word.
        two.at_desktop(|at| fs::remove_file(at.join("b")).unwrap())
            .await;
        two.start();
        two.settle().await;
        let found = (two.on_drive(), two.names_at_desktop());
        assert_eq!(found, Default::default(), "killed at call {call}");
        true
    })
    .await;
}

#[tokio::test]
async fn what_was_fetched_and_not_yet_recorded_is_no_new_thing() {
    // The index learns of it last; until then it looks like something that a person made.
    for (fault, call) in (0..MANY).flat_map(|call| [("crash", call), ("error", call)]) {
        let mut two = Two::new().await;
        two.at_desktop(|at| {
            write(at, "file", "text");
            make_dir(at, "dir");
            write(at, "dir/inside", "more text");
            symlink("file", at.join("link")).unwrap();
        })
        .await;
        let armed = match fault {
            "crash" => Fault::Crash,
            _ => Fault::Error(ErrorKind::Io),
        };
        two.drive.arm(call, armed);
        let _ = two.world.sync(&mut two.laptop).await;
        let happened = match fault {
            "crash" => two.drive.crashed_in().is_some(),
            _ => two.trace.counts().contains_key("disk error"),
        };
        if !happened {
            assert!(call > 20, "a pass made only {call} calls");
            return;
        }
        two.drive.disarm();
        two.drive.kill();
        two.at_desktop(|at| {
            for name in ["file", "link"] {
                fs::remove_file(at.join(name)).unwrap();
            }
            fs::remove_dir_all(at.join("dir")).unwrap();
        })
        .await;
        two.start();
        two.settle().await;
        let found = (two.on_drive(), two.names_at_desktop());
        assert_eq!(found, Default::default(), "{fault} at call {call}");
    }
    panic!("a pass does not end");
}

/// What is done in a directory: before, then, and when a pass that brought that was interrupted elsewhere.
type Act = fn(&Path);

fn dir_of_two(at: &Path) {
    make_dir(at, "d");
    write(at, "d/a", "first");
    write(at, "d/kept", "kept");
}

const LEFT_BEHIND: [(&str, Act, Act, Act); 16] = [
    (
        "edited twice in a directory that moved",
        dir_of_two,
        |at| {
            rename(at, "d", "e");
            write(at, "e/a", "second");
        },
        |at| write(at, "e/a", "third"),
    ),
    (
        "edited and removed in a directory that moved",
        dir_of_two,
        |at| {
            rename(at, "d", "e");
            write(at, "e/a", "second");
        },
        |at| fs::remove_file(at.join("e/a")).unwrap(),
    ),
    (
        "set and taken away in a directory that moved",
        dir_of_two,
        |at| {
            rename(at, "d", "e");
            set_mode(at, "e/a", 0o755);
        },
        |at| set_mode(at, "e/a", 0o644),
    ),
    (
        "edited twice",
        |at| write(at, "a", "first"),
        |at| write(at, "a", "second"),
        |at| write(at, "a", "third"),
    ),
    (
        "edited and taken back",
        |at| write(at, "a", "first"),
        |at| write(at, "a", "second"),
        |at| write(at, "a", "first"),
    ),
    (
        "made and edited",
        |_| (),
        |at| write(at, "a", "first"),
        |at| write(at, "a", "second"),
    ),
    (
        "made and moved",
        |at| make_dir(at, "d"),
        |at| write(at, "a", "first"),
        |at| rename(at, "a", "d/b"),
    ),
    (
        "set and taken away",
        |at| write(at, "a", "first"),
        |at| set_mode(at, "a", 0o755),
        |at| set_mode(at, "a", 0o644),
    ),
    (
        "moved and back",
        |at| {
            make_dir(at, "d");
            write(at, "a", "first");
        },
        |at| rename(at, "a", "d/b"),
        |at| rename(at, "d/b", "a"),
    ),
    (
        "moved and on",
        |at| {
            make_dir(at, "d");
            write(at, "a", "first");
        },
        |at| rename(at, "a", "d/b"),
        |at| rename(at, "d/b", "c"),
    ),
    (
        "a directory made and moved",
        |_| (),
        |at| {
            make_dir(at, "d");
            write(at, "d/a", "first");
        },
        |at| rename(at, "d", "e"),
    ),
    (
        "a directory in the place of a file, and moved",
        |at| write(at, "a", "first"),
        |at| {
            fs::remove_file(at.join("a")).unwrap();
            make_dir(at, "a");
            write(at, "a/b", "second");
        },
        |at| {
            rename(at, "a", "c");
            write(at, "a", "third");
        },
    ),
    (
        "exchanged, and one removed",
        |at| {
            make_dir(at, "d");
            write(at, "a", "first");
            write(at, "d/a", "second");
        },
        |at| exchange(at, "a", "d/a"),
        |at| fs::remove_file(at.join("a")).unwrap(),
    ),
    (
        "exchanged, one removed at once, the other edited",
        |at| {
            make_dir(at, "d");
            write(at, "a", "first");
            write(at, "d/a", "second");
        },
        |at| {
            exchange(at, "a", "d/a");
            fs::remove_file(at.join("a")).unwrap();
        },
        |at| write(at, "d/a", "third"),
    ),
    (
        "another in its place, and both edited",
        |at| write(at, "a", "first"),
        |at| {
            rename(at, "a", "b");
            write(at, "a", "second");
        },
        |at| {
            write(at, "a", "third");
            write(at, "b", "fourth");
        },
    ),
    (
        "a link made and moved",
        |_| (),
        |at| symlink("somewhere", at.join("l")).unwrap(),
        |at| rename(at, "l", "m"),
    ),
];

/// Every call that changes something, first with a kill, then with an error.
#[tokio::test]
async fn what_an_interrupted_pass_had_done_is_no_edit_once_the_vault_has_gone_on() {
    let (mut kills, mut next, mut killed_at) = (0, 0, None);
    while next < MANY {
        // The call that a kill was at fails as well.
        let call = killed_at.unwrap_or(next);
        let mut two = Two::with(|at| {
            for (what, before, ..) in LEFT_BEHIND {
                make_dir(at, what);
                before(&at.join(what));
            }
        })
        .await;
        let desktop = two.desktop.folder.clone();
        let each = |act: fn(&(&str, Act, Act, Act)) -> Act| {
            for case in &LEFT_BEHIND {
                act(case)(&desktop.join(case.0));
            }
        };
        two.at_desktop(|_| each(|case| case.2)).await;
        let before = two.drive.calls();
        let fault = match killed_at {
            Some(_) => Fault::Error(ErrorKind::Io),
            None => Fault::CrashInChange,
        };
        two.drive.arm(call, fault);
        let _ = two.world.sync(&mut two.laptop).await;
        let killed = two
            .drive
            .crashed_in()
            .map(|_| two.drive.calls() - before - 1);
        two.drive.disarm();
        two.at_desktop(|_| each(|case| case.3)).await;
        let left = shown(&desktop);
        if killed.is_some() {
            two.drive.kill();
            two.start();
        }
        two.settle().await;
        let said = format!("killed at {killed:?}, failed at {killed_at:?}");
        assert_eq!(shown_on_drive(&two), left, "{said}");
        assert_eq!(shown(&desktop), left, "{said}");
        match (killed_at, killed) {
            (None, None) => {
                assert!(kills > 40, "a pass made only {kills} changes");
                return;
            }
            (None, Some(at)) => (killed_at, kills) = (Some(at), kills + 1),
            // Files are staged at once, and not always in one order.
            (Some(at), _) => (next, killed_at) = (next.max(at) + 1, None),
        }
    }
    panic!("a pass does not end");
}

#[tokio::test]
async fn a_time_that_is_set_after_a_pass_was_cut_off_is_sent() {
    const SET_NS: i64 = 7_000_000_001;
    let mut was_set = BTreeSet::new();
    at_each_call(5, async |call| {
        let mut two = Two::with(|at| write(at, "a", "text")).await;
        let desktop = two.desktop.folder.clone();
        two.at_desktop(|at| {
            rename(at, "a", "moved");
            write(at, "new", "other text");
        })
        .await;
        if !two.killed_at(call).await {
            return false;
        }
        let set: Vec<&str> = two.drive.with(|fs| {
            let there = ["moved", "new"].into_iter();
            let set = there.filter(|name| match fs.child(fs.root(), name) {
                Ok(ino) => fs.set_attributes(ino, Some(SET_NS), None).is_ok(),
                Err(_) => false,
            });
            set.collect()
        });
        two.start();
        two.settle().await;
        for (at, files) in [
            ("laptop", shown_on_drive(&two)),
            ("desktop", shown(&desktop)),
        ] {
            for name in &set {
                let is_set = files[*name].ends_with(&format!("mtime {SET_NS}"));
                assert!(is_set, "{name} on {at}, killed at {call}: {files:?}");
            }
        }
        was_set.extend(set);
        true
    })
    .await;
    assert_eq!(was_set, ["moved", "new"].into());
}

#[tokio::test]
async fn a_bit_that_was_set_with_an_edit_that_both_made_is_sent_though_it_is_cut_off() {
    at_each_call(15, async |call| {
        let mut two = Two::with(|at| write(at, "a", "first")).await;
        let desktop = two.desktop.folder.clone();
        two.settle().await;
        two.write("a", "second");
        two.drive.with(|fs| {
            let ino = fs.child(fs.root(), "a").unwrap();
            let mode = fs.stat(ino).unwrap().mode | 0o100;
            fs.set_attributes(ino, None, Some(mode)).unwrap();
        });
        two.at_desktop(|at| write(at, "a", "second")).await;
        let is_killed = two.killed_at(call).await;
        two.start();
        two.settle().await;
        let found = shown(&desktop);
        assert!(
            found["a"].contains("exec true"),
            "killed at {call}: {found:?}"
        );
        is_killed
    })
    .await;
}

#[tokio::test]
async fn what_was_to_be_placed_makes_no_leftover_of_what_stands_there() {
    at_each_call(5, async |call| {
        let mut two = Two::with(|at| {
            write(at, "a", "first text");
            write(at, "b", "other text");
        })
        .await;
        // Both change places; then the one that is called a now holds what the other one held.
        two.at_desktop(|at| {
            rename(at, "a", "c");
            rename(at, "b", "a");
            rename(at, "c", "b");
        })
        .await;
        two.at_desktop(|at| {
            write(at, "a", "first text");
            write(at, "b", "third text");
        })
        .await;
        let is_killed = two.killed_at(call).await;
        two.start();
        // What is taken away cannot come back while the disk is full.
        two.drive.spell(ErrorKind::Full, MANY);
        for _ in 0..2 {
            two.world.sync(&mut two.laptop).await.unwrap();
            let found = two.on_drive();
            assert_eq!(found.len(), 2, "killed at call {call}: {found:?}");
        }
        two.drive.disarm();
        two.settle().await;
        let found = two.on_drive();
        for (name, text) in [("a", "first text"), ("b", "third text")] {
            let Some(Item::File { hash, .. }) = found.get(name) else {
                panic!("killed at call {call}: {found:?}");
            };
            let expected = Content::new(text.into()).hash();
            assert_eq!(*hash, expected, "{name}, killed at call {call}");
        }
        is_killed
    })
    .await;
}

#[tokio::test]
async fn what_was_to_make_room_and_could_not_is_no_stranger() {
    for (call, kills) in (0..MANY).flat_map(|call| [(call, true), (call, false)]) {
        let mut two = Two::with(|at| {
            make_dir(at, "d");
            write(at, "a", "first");
            write(at, "b", "other");
        })
        .await;
        let desktop = two.desktop.folder.clone();
        two.at_desktop(|at| {
            rename(at, "a", "d/a");
            write(at, "a", "second");
            rename(at, "b", "d/b");
            make_dir(at, "b");
        })
        .await;
        let left = shown(&desktop);
        // Where they shall go cannot be looked into; the names that they have are wanted.
        two.drive.close(Some(&TreePath::parse("d").unwrap()));
        two.drive.arm(
            call,
            match kills {
                true => Fault::CrashInChange,
                false => Fault::Error(ErrorKind::Full),
            },
        );
        let _ = two.world.sync(&mut two.laptop).await;
        let is_killed = two.drive.crashed_in().is_some();
        two.drive.disarm();
        two.drive.close(None);
        if is_killed {
            two.drive.kill();
            two.start();
        }
        two.settle().await;
        let found = (shown_on_drive(&two), shown(&desktop));
        assert_eq!(
            found,
            (left.clone(), left),
            "call {call}, killed: {is_killed}"
        );
        if kills && !is_killed {
            assert!(call > 20, "a pass made only {call} calls");
            return;
        }
    }
    panic!("a pass does not end");
}

/// A directory that could not move leaves another in its place for a while, which may be about to go.
#[tokio::test]
async fn nothing_is_put_into_a_directory_that_is_not_the_one_meant() {
    at_each_call(10, async |call| {
        let mut two = Two::with(|at| {
            make_dir(at, "x");
            write(at, "x/kept", "kept");
            make_dir(at, "docs");
            write(at, "docs/old", "old");
        })
        .await;
        two.at_desktop(|at| {
            fs::remove_dir_all(at.join("docs")).unwrap();
            rename(at, "x", "docs");
            make_dir(at, "x");
            symlink("somewhere", at.join("docs/link")).unwrap();
            write(at, "docs/new", "new");
        })
        .await;
        let left = shown(&two.desktop.folder);
        let errors = two.trace.counts().get("disk error").copied();
        two.drive.arm(call, Fault::Error(ErrorKind::Full));
        two.world.sync(&mut two.laptop).await.unwrap();
        let is_hit = two.trace.counts().get("disk error").copied() != errors;
        two.drive.disarm();
        two.settle().await;
        let found = (shown_on_drive(&two), shown(&two.desktop.folder));
        assert_eq!(found, (left.clone(), left), "full at call {call}");
        is_hit
    })
    .await;
}

/// Deleted where the last batch had brought it, and made anew there: a note of the batch says nothing of it any more.
#[tokio::test]
async fn what_is_made_anew_where_a_batch_brought_something_stays() {
    let mut two = Two::with(|at| {
        write(at, "a", "text");
        write(at, "c", "other text");
    })
    .await;
    two.at_desktop(|at| {
        rename(at, "a", "b");
        make_dir(at, "e");
        write(at, "f", "fetched");
    })
    .await;
    two.settle().await;
    // One goes to a directory that is not synchronised, and comes back from there.
    let bin = two.drive.with(|fs| {
        let root = fs.root();
        let empty = || Body::Dir(BTreeMap::new());
        let bin = fs.create(root, ".Trashes", empty()).unwrap();
        fs.rename((root, "f"), (bin, "f"), false).unwrap();
        fs.remove(root, "b", false).unwrap();
        fs.remove(root, "e", true).unwrap();
        bin
    });
    two.settle().await;
    assert_eq!(two.names_at_desktop(), ["c"]);
    two.write("b", "text");
    two.drive.with(|fs| {
        let root = fs.root();
        fs.create(root, "e", Body::Dir(BTreeMap::new())).unwrap();
        fs.rename((bin, "f"), (root, "f"), false).unwrap();
    });
    two.start();
    two.settle().await;
    assert_eq!(two.names_at_desktop(), ["b", "c", "e", "f"]);
    let found: Vec<String> = shown_on_drive(&two).into_keys().collect();
    assert_eq!(found, [".Trashes", "b", "c", "e", "f"]);
}

#[tokio::test]
async fn what_was_edited_here_and_moved_there_is_no_conflict_if_it_is_cut_off() {
    at_each_call(20, async |call| {
        let mut two = Two::with(|at| write(at, "a", "first")).await;
        let desktop = two.desktop.folder.clone();
        two.write("a", "edited here");
        two.at_desktop(|at| rename(at, "a", "b")).await;
        if !two.killed_at(call).await {
            return false;
        }
        two.start();
        two.settle().await;
        assert_eq!(two.names_at_desktop(), ["b"], "killed at {call}");
        let found = fs::read_to_string(desktop.join("b")).unwrap();
        assert_eq!(found, "edited here", "killed at {call}");
        assert_eq!(shown_on_drive(&two), shown(&desktop), "killed at {call}");
        true
    })
    .await;
}

/// The look after an interruption fails at each call in turn, or cannot list the directory.
#[tokio::test]
async fn what_was_noted_is_known_after_a_look_that_failed() {
    for (call, removes) in (0..MANY).flat_map(|call| [(call, false), (call, true)]) {
        let mut two = Two::with(|at| {
            make_dir(at, "d");
            write(at, "d/a", "first");
            write(at, "d/b", "other");
        })
        .await;
        let desktop = two.desktop.folder.clone();
        two.at_desktop(|at| write(at, "d/a", "second")).await;
        let second = shown(&desktop)["d/a"].clone();
        two.killed_once(|two| shown_on_drive(two)["d/a"] == second)
            .await;
        two.at_desktop(|at| match removes {
            true => fs::remove_file(at.join("d/a")).unwrap(),
            false => write(at, "d/a", "third"),
        })
        .await;
        let left = shown(&desktop);
        two.start();
        let errors = two.trace.counts().get("disk error").copied();
        match call {
            0 => two.drive.close(Some(&TreePath::parse("d").unwrap())),
            _ => two.drive.arm(call - 1, Fault::Error(ErrorKind::Io)),
        }
        let _ = two.world.sync(&mut two.laptop).await;
        let is_hit = two.trace.counts().get("disk error").copied() != errors;
        two.drive.close(None);
        two.drive.disarm();
        two.settle().await;
        let found = (shown_on_drive(&two), shown(&desktop));
        assert_eq!(found, (left.clone(), left), "an error at call {call}");
        if !is_hit {
            assert!(call > 10, "a pass made only {call} calls");
            return;
        }
    }
    panic!("a pass does not end");
}
