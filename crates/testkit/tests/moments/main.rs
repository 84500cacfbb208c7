//! One thing that happens, tried at every call of a pass in turn: a machine on a simulated drive, another on a real disk.
//!
//! Simulated worlds come across the same moments by chance; here none is left out.

#![allow(clippy::unwrap_used, reason = "a test stops where it fails")]

mod interrupted;
mod power;
mod two;
mod unread;

use std::fs;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

use syncagent_protocol::Code;
use syncagent_testkit::sim::clock::TICK_NS;
use syncagent_testkit::sim::disk::Fault;
use syncagent_testkit::sim::fs::Fs;

use self::two::{MANY, Two, at_each_call, rename, write};

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

/// A file that a program keeps mapped and has just written to: it stores once more, at each call of the pass in turn.
/// The kernel stamps the first store to a page only, until it has written the page back. Not in the microseconds around a
/// change of the program's own, as said in the head of the client's `folder::apply`.
#[tokio::test]
async fn a_store_through_a_mapping_is_seen() {
    let long = 3 * 512 * 1024;
    for (what, len) in [("new", 9), ("edited", 9), ("known there", 9), ("new", long)] {
        at_each_call(5, async |call| {
            let mut two = Two::new().await;
            let text = |byte: u8| vec![byte; len];
            if what == "edited" {
                two.write("f", "before");
                two.settle().await;
                two.settle().await;
            }
            if what == "known there" {
                two.at_desktop(|at| fs::write(at.join("f"), text(b'1')).unwrap())
                    .await;
            }
            two.write("f", std::str::from_utf8(&text(b'1')).unwrap());
            // Whether it came to that call, and what then stood there.
            let stands = Arc::new(Mutex::new(None));
            let (noted, stored) = (Arc::clone(&stands), text(b'2'));
            let store = move |fs: &mut Fs| {
                let ino = fs.child(fs.root(), "f").unwrap();
                if !fs.in_change {
                    fs.store(ino, |content| *content = stored).unwrap();
                }
                *noted.lock().unwrap() = Some(fs.content(ino).unwrap().bytes().to_vec());
            };
            // It was written a while ago, and is not written back yet.
            two.clock.advance_ns(1_000_000_000);
            two.drive.arm(call, Fault::Meanwhile(Box::new(store)));
            two.world.sync(&mut two.laptop).await.unwrap();
            two.drive.disarm();
            two.settle().await;
            let Some(stands) = stands.lock().unwrap().take() else {
                return false;
            };
            // Under another name where both made the file.
            let names = two.names_at_desktop().into_iter();
            let mut contents = names.map(|name| fs::read(two.path_at_desktop(&name)).unwrap());
            assert!(
                contents.any(|content| content == stands),
                "{what}, {len} bytes, stored at call {call}"
            );
            true
        })
        .await;
    }
}
