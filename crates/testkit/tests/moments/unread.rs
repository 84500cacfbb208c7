//! What cannot be read, or cannot be flushed: unknown, not gone, and nothing else waits for it.

use std::collections::BTreeSet;
use std::fs;

use syncagent_client::engine::{Occupied, Restore};
use syncagent_client::folder::disk::ErrorKind;
use syncagent_protocol::TreePath;
use syncagent_testkit::sim::disk::Fault;

use super::two::{
    MANY, Two, at_each_call, make_dir, rename, set_mode, shown, shown_on_drive, write,
};

#[tokio::test]
async fn what_may_have_moved_to_where_nothing_can_be_read_is_not_deleted() {
    // The second error is one of all files, for as long as the pass takes.
    for call in 0..MANY {
        let mut two = Two::new().await;
        two.write("f", "text");
        make_dir(&two.desktop.folder, "e");
        write(&two.desktop.folder, "e/x", "x");
        two.settle().await;
        two.settle().await;
        let node = |two: &Two, path: &str| {
            let tree = &two.laptop.engine.as_ref().unwrap().placed().tree;
            tree.at(&TreePath::parse(path).unwrap())
        };
        let before = node(&two, "f");
        assert!(before.is_some());
        two.drive.with(|fs| {
            let root = fs.root();
            let to = fs.child(root, "e").unwrap();
            fs.rename((root, "f"), (to, "f"), false).unwrap();
        });
        two.clock.advance_ns(1_000_000_000);
        match call {
            0 => two.drive.spell(ErrorKind::Io, MANY),
            _ => two.drive.arm(call - 1, Fault::Error(ErrorKind::Io)),
        }
        let _ = two.world.sync(&mut two.laptop).await;
        if !two.trace.counts().contains_key("disk error") {
            assert!(call > 5, "a pass made only {call} calls");
            return;
        }
        two.drive.disarm();
        two.settle().await;
        assert_eq!(node(&two, "e/f"), before, "an error at call {call}");
        assert_eq!(fs::read(two.path_at_desktop("e/f")).unwrap(), b"text");
    }
    panic!("a pass does not end");
}

#[tokio::test]
async fn what_was_moved_to_and_fro_and_cannot_be_read_is_not_deleted() {
    at_each_call(15, async |call| {
        let mut two = Two::with(|at| write(at, "a", "first")).await;
        two.settle().await;
        two.at_desktop(|at| rename(at, "a", "b")).await;
        if !two.killed_at(call).await {
            return false;
        }
        two.at_desktop(|at| rename(at, "b", "a")).await;
        two.start();
        two.drive.spell(ErrorKind::Io, 1_000_000);
        for _ in 0..3 {
            let _ = two.world.sync(&mut two.laptop).await;
            two.world.sync(&mut two.desktop).await.unwrap();
            let found = two.names_at_desktop();
            assert_eq!(found, ["a"], "killed at {call}");
        }
        two.drive.disarm();
        two.settle().await;
        assert_eq!(two.names_at_desktop(), ["a"], "killed at {call}");
        true
    })
    .await;
}

#[tokio::test]
async fn what_was_removed_and_restored_there_stays_though_something_cannot_be_read() {
    at_each_call(15, async |call| {
        let mut two = Two::with(|at| {
            make_dir(at, "d");
            write(at, "d/x", "x");
            write(at, "a", "text");
        })
        .await;
        let desktop = two.desktop.folder.clone();
        two.settle().await;
        let engine = two.desktop.engine.as_ref().unwrap();
        let path = TreePath::parse("a").unwrap();
        let node = engine.placed().tree.at(&path).unwrap();
        fs::remove_file(desktop.join("a")).unwrap();
        two.world.sync(&mut two.desktop).await.unwrap();
        if !two.killed_at(call).await {
            return false;
        }
        let restore = Restore {
            what: node.to_string(),
            version: None,
            occupied: Occupied::Refuse,
        };
        let engine = two.desktop.engine.as_mut().unwrap();
        engine.restore(&restore).await.unwrap();
        two.world.sync(&mut two.desktop).await.unwrap();
        two.start();
        two.drive.close(Some(&TreePath::parse("d").unwrap()));
        for _ in 0..3 {
            let _ = two.world.sync(&mut two.laptop).await;
        }
        two.drive.close(None);
        two.settle().await;
        assert_eq!(two.names_at_desktop(), ["a", "d"], "killed at {call}");
        assert_eq!(shown_on_drive(&two), shown(&desktop), "killed at {call}");
        true
    })
    .await;
}

#[tokio::test]
async fn a_second_name_that_went_is_deleted_though_the_first_cannot_be_read() {
    let mut two = Two::new().await;
    two.write("b", "text");
    two.drive.with(|fs| {
        let root = fs.root();
        let ino = fs.child(root, "b").unwrap();
        fs.link(ino, root, "a").unwrap();
    });
    two.settle().await;
    two.settle().await;
    two.drive.with(|fs| {
        let root = fs.root();
        fs.remove(root, "a", false).unwrap();
    });
    two.drive.close(Some(&TreePath::parse("b").unwrap()));
    for _ in 0..3 {
        two.clock.advance_ns(1_000_000_000);
        let _ = two.world.sync(&mut two.laptop).await;
    }
    two.world.sync(&mut two.desktop).await.unwrap();
    assert_eq!(two.names_at_desktop(), ["b"]);
}

/// What somebody moved, what is set of a file, and what an interrupted pass had moved, each where the file cannot be opened.
#[tokio::test]
async fn a_file_that_cannot_be_flushed_holds_up_nothing_else() {
    for what in ["moved here", "set", "moved there and cut off"] {
        let mut two = Two::with(|at| {
            write(at, "f", "text");
            write(at, "g", "text");
        })
        .await;
        let desktop = two.desktop.folder.clone();
        two.settle().await;
        let mut closed = "h";
        match what {
            "moved here" => two.drive.with(|fs| {
                let root = fs.root();
                fs.rename((root, "f"), (root, "h"), false).unwrap();
            }),
            "set" => {
                set_mode(&desktop, "f", 0o755);
                closed = "f";
            }
            _ => {
                two.at_desktop(|at| rename(at, "f", "h")).await;
                two.killed_once(|two| two.on_drive().contains_key("h"))
                    .await;
                two.start();
            }
        }
        two.at_desktop(|at| write(at, "g", "another text")).await;
        two.drive.close(Some(&TreePath::parse(closed).unwrap()));
        let left = shown(&desktop);
        for _ in 0..2 {
            let outcome = two.world.sync(&mut two.laptop).await.unwrap();
            let failed: Vec<&str> = { outcome.errors.iter() }.map(|e| e.path.as_str()).collect();
            assert_eq!(failed, [closed], "{what}");
            assert_eq!(shown_on_drive(&two)["g"], left["g"], "{what}");
            // Nobody may say of it what a power cut could undo.
            two.world.sync(&mut two.desktop).await.unwrap();
            assert_eq!(shown(&desktop), left, "{what}");
        }
        two.drive.close(None);
        two.settle().await;
        let (here, there) = (shown_on_drive(&two), shown(&desktop));
        assert_eq!(here, there, "{what}");
        let name = if what == "set" { "f" } else { "h" };
        let names: BTreeSet<&str> = here.keys().map(String::as_str).collect();
        assert_eq!(names, [name, "g"].into(), "{what}");
    }
}
