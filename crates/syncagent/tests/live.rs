//! Two daemons: what is saved on one machine is on the other at once, in both directions, and never in part.
#![cfg(unix)]
#![allow(clippy::unwrap_used, reason = "a test fails loudly")]

mod field;

use std::fs::{self, File};
use std::io::Write as _;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use field::{Field, Machine, Rng, is_whole, until, watch};

const FILES: usize = 100;
const VERSIONS: usize = 100;
const PATIENCE: Duration = Duration::from_secs(60);

#[test]
fn what_is_saved_here_is_there_at_once() {
    let field = Field::new();
    let (_server, url) = field.start_server();
    let [a, b] = field.machines(&url);
    let _daemons = [&a, &b].map(Machine::start);
    for machine in [&a, &b] {
        until("the daemon makes its first pass", PATIENCE, || {
            machine.is_idle().then_some(())
        });
    }
    let mut rng = Rng(2);
    for (from, to) in [(&a, &b), (&b, &a)] {
        let mut latencies = Vec::new();
        for i in 0..FILES {
            let len = 10 + rng.below(if i % 10 == 0 { 1_000_000 } else { 20_000 });
            let content = rng.sealed(len);
            let name = format!("from {} {i}", from.name);
            let saved = Instant::now();
            fs::write(from.folder.join(&name), &content).unwrap();
            until(
                &format!("'{name}' arrives at {}", to.name),
                PATIENCE,
                || {
                    let found = fs::read(to.folder.join(&name)).ok()?;
                    // The writer was not done in one step: what it had written so far is a version, too.
                    assert!(
                        content.starts_with(&found),
                        "'{name}' is visible at {} with other content",
                        to.name
                    );
                    (found == content).then_some(())
                },
            );
            latencies.push(saved.elapsed());
        }
        latencies.sort();
        println!(
            "{} files from {} to {}: median {:?}, 95th percentile {:?}, longest {:?}",
            FILES,
            from.name,
            to.name,
            latencies[FILES / 2],
            latencies[FILES * 95 / 100],
            latencies[FILES - 1],
        );
    }
    many_versions(&field, &a, &b);
}

/// Saved the way editors do: written beside, flushed, renamed over the last one.
fn many_versions(field: &Field, a: &Machine<'_>, b: &Machine<'_>) {
    let mut rng = Rng(3);
    let mut save = || {
        let len = 100_000 + rng.below(300_000);
        let content = rng.sealed(len);
        let beside = field.path("new version");
        let mut file = File::create(&beside).unwrap();
        file.write_all(&content)
            .and_then(|()| file.sync_all())
            .unwrap();
        fs::rename(&beside, a.folder.join("versions")).unwrap();
        content
    };
    let end = AtomicBool::new(false);
    let seen = thread::scope(|scope| {
        let reader = scope.spawn(|| {
            let mut seen = 0;
            let mut last = 0;
            watch(&end, || {
                seen += usize::from(read_whole(&b.folder.join("versions"), &mut last))
            });
            seen
        });
        let mut content = Vec::new();
        let began = Instant::now();
        for _ in 0..VERSIONS {
            content = save();
        }
        println!("{VERSIONS} versions saved in {:?}", began.elapsed());
        let saved = Instant::now();
        until("the last version arrives", PATIENCE, || {
            (fs::read(b.folder.join("versions")).ok()? == content).then_some(())
        });
        println!("the last version arrived after {:?}", saved.elapsed());
        // And it stays: both machines come to rest with it.
        for machine in [a, b] {
            until("both machines come to rest", PATIENCE, || {
                machine.is_idle().then_some(())
            });
        }
        end.store(true, Ordering::SeqCst);
        let seen = reader.join().unwrap();
        for machine in [a, b] {
            let found = fs::read(machine.folder.join("versions")).unwrap();
            assert!(
                found == content,
                "{} does not end with the last version",
                machine.name
            );
            let copies: Vec<_> = fs::read_dir(&machine.folder)
                .unwrap()
                .flatten()
                .map(|entry| entry.file_name())
                .collect();
            // .syncagent, the files from both sides, and this one.
            assert_eq!(
                copies.len(),
                2 + 2 * FILES,
                "{} has more than was saved: {copies:?}",
                machine.name
            );
        }
        seen
    });
    println!("the reader saw {seen} different versions, all whole");
    assert!(seen >= 1);
}

/// Reads the file if it is there; whether it is another version than the last time. Never one that is not whole.
fn read_whole(path: &Path, last: &mut u64) -> bool {
    let Ok(content) = fs::read(path) else {
        return false;
    };
    assert!(
        is_whole(&content),
        "{} is visible in part or mixed: {} bytes",
        path.display(),
        content.len()
    );
    let sum = field::checksum(&content);
    std::mem::replace(last, sum) != sum
}
