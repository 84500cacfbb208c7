//! One thing that happens, tried at every call of a pass in turn: a machine on a simulated drive, another on a real disk.
//!
//! Simulated worlds come across the same moments by chance; here none is left out.

#![allow(clippy::unwrap_used, reason = "a test stops where it fails")]

mod interrupted;
mod power;
mod two;
mod unread;

use std::fs;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use syncagent_protocol::Code;
use syncagent_testkit::sim::clock::TICK_NS;
use syncagent_testkit::sim::disk::Fault;
use syncagent_testkit::sim::fs::Fs;

use self::two::{MANY, Two, rename, write};

/// Takes away whatever lies below a directory.
fn empty(fs: &mut Fs, dir: u64) {
    let entries = fs.entries(dir).unwrap().clone();
    for (name, ino) in entries {
        let is_dir = fs.entries(ino).is_ok();
        if is_dir {
            empty(fs, ino);
        }
        fs.remove(dir, &name, is_dir).unwrap();
    }
}

#[tokio::test]
async fn a_drive_that_goes_away_at_any_call_deletes_nothing() {
    for call in 0..MANY {
        let mut two = Two::new().await;
        for name in ["one", "two", "three"] {
            two.write(name, name);
        }
        two.settle().await;
        let before = two.names_at_desktop();
        assert_eq!(before.len(), 3);
        let happened = Arc::new(AtomicBool::new(false));
        let noted = Arc::clone(&happened);
        let go_away = move |fs: &mut Fs| {
            // As an unmounted drive looks: the directory is there, what was in it is not.
            empty(fs, fs.root());
            noted.store(true, Ordering::SeqCst);
        };
        two.drive.arm(call, Fault::Meanwhile(Box::new(go_away)));
        let pass = two.world.sync(&mut two.laptop).await;
        if !happened.load(Ordering::SeqCst) {
            assert!(call > 5, "a pass made only {call} calls");
            return;
        }
        if let Err(error) = pass {
            assert_eq!(error.code(), Code::Root, "{error}");
        }
        two.world.sync(&mut two.desktop).await.unwrap();
        assert_eq!(two.names_at_desktop(), before, "gone at call {call}");
    }
    panic!("a pass does not end");
}

#[tokio::test]
async fn what_moved_and_was_edited_since_is_staged_once() {
    let mut two = Two::with(|at| write(at, "a", "text")).await;
    two.at_desktop(|at| rename(at, "a", "b")).await;
    two.at_desktop(|at| write(at, "b", "another text")).await;
    let before = two.trace.lines().len();
    two.world.sync(&mut two.laptop).await.unwrap();
    let lines = two.trace.lines();
    let staged =
        { lines[before..].iter() }.filter(|line| line.contains("create .syncagent/tmp/new"));
    assert_eq!(staged.count(), 1, "{lines:#?}");
    let moved = { lines[before..].iter() }.any(|line| line.contains("rename_noreplace a -> b"));
    assert!(moved, "{lines:#?}");
}

#[tokio::test]
async fn a_write_within_the_clocks_grain_is_seen() {
    for passes in [1, 2] {
        let mut two = Two::new().await;
        // To the start of a tick: what follows has one stamp.
        let into = two.clock.now_ns().rem_euclid(TICK_NS);
        two.clock.advance_ns(TICK_NS - into);
        two.write("f", "one");
        let stat = |two: &Two| {
            two.drive
                .with(|fs| fs.stat(fs.child(fs.root(), "f").unwrap()).unwrap())
        };
        let before = stat(&two);
        for _ in 0..passes {
            two.world.sync(&mut two.laptop).await.unwrap();
        }
        two.write("f", "two");
        assert_eq!(stat(&two), before, "the passes took longer than a tick");
        two.settle().await;
        let found = fs::read(two.path_at_desktop("f")).unwrap();
        assert_eq!(found, b"two", "after {passes} pass(es)");
    }
}
