//! `conflicts`: what differs, which side is kept, and the way back from each.

use std::fs;

use serde_json::Value;

use crate::world::{Machine, World, keys};

/// Two machines that agreed on `before` and then changed it to `theirs` on the first and `mine` on the second. The
/// second has made the copy, the first has it.
fn conflict(
    name: &str,
    before: &[u8],
    theirs: &[u8],
    mine: &[u8],
) -> (World, Machine, Machine, String) {
    let world = World::new();
    let a = world.first("a");
    let b = world.next("b", &a);
    fs::create_dir_all(a.folder.join(name).parent().unwrap()).unwrap();
    fs::write(a.folder.join(name), before).unwrap();
    a.sync_once().exits(0);
    b.sync_once().exits(0);
    fs::write(a.folder.join(name), theirs).unwrap();
    fs::write(b.folder.join(name), mine).unwrap();
    a.sync_once().exits(0);
    b.sync_once().exits(10);
    a.sync_once().exits(0);
    let copy = open(&b)[0]["copy_path"].as_str().unwrap().to_owned();
    (world, a, b, copy)
}

fn open(machine: &Machine) -> Vec<Value> {
    let list = machine.run(&["conflicts", "list", "--json"]).exits(0);
    list.json()["conflicts"].as_array().unwrap().clone()
}

const BEFORE: &str = "one\ntwo\nthree\nfour\nfive\n";
const THEIRS: &str = "ONE\ntwo\nthree\nfour\nfive\n";
const MINE: &str = "one\ntwo\nthree\nfour\nfive\nsix\n";

#[test]
fn a_conflict_is_known_on_every_machine_and_shown_line_by_line() {
    let (_world, a, b, copy) = conflict(
        "docs/plan.md",
        BEFORE.as_bytes(),
        THEIRS.as_bytes(),
        MINE.as_bytes(),
    );
    // Also where it did not arise.
    assert_eq!(open(&a), open(&b));
    assert_eq!(a.status()["state"], "conflict");
    a.run(&["status"]).exits(10);
    let want = format!(
        "--- docs/plan.md\n+++ {copy}\n@@ -1,5 +1,6 @@\n-ONE\n+one\n two\n three\n four\n five\n+six\n"
    );
    for machine in [&a, &b] {
        for what in ["docs/plan.md", &copy, open(&a)[0]["copy"].as_str().unwrap()] {
            let shown = machine.run(&["conflicts", "diff", what]).exits(0);
            assert_eq!(shown.stdout, want);
            assert!(
                shown.stderr.contains("Both started from version "),
                "{}",
                shown.stderr
            );
        }
    }
    let diffs = b
        .run(&["conflicts", "diff", "docs/plan.md", "--json"])
        .exits(0)
        .json();
    let diff = &diffs["diffs"][0];
    assert_eq!(
        keys(diff),
        [
            "ancestor",
            "copy_path",
            "diff",
            "mine",
            "path",
            "same",
            "theirs"
        ]
    );
    assert_eq!(
        keys(&diff["mine"]),
        ["kind", "modified", "mtime_ns", "path", "size"]
    );
    assert_eq!(
        (&diff["diff"], &diff["same"], &diff["mine"]["size"]),
        (&want.into(), &false.into(), &MINE.len().into())
    );
    let versions = b.run(&["versions", "docs/plan.md", "--json"]).json();
    assert_eq!(
        diff["ancestor"]["version"],
        versions["versions"][1]["version"]
    );

    // An edit of the copy resolves nothing, a new name does.
    b.write(&copy, "one\n");
    b.sync_once().exits(0);
    a.sync_once().exits(0);
    assert_eq!((open(&a).len(), open(&b).len()), (1, 1));
    let edited = a.run(&["conflicts", "diff", &copy, "--json"]).json();
    assert_eq!(edited["diffs"][0]["ancestor"], diff["ancestor"]);
    fs::rename(b.folder.join(&copy), b.folder.join("docs/plan-b.md")).unwrap();
    b.sync_once().exits(0);
    a.sync_once().exits(0);
    assert_eq!((open(&a).len(), open(&b).len()), (0, 0));
    a.run(&["conflicts", "diff", "docs/plan.md"])
        .exits(3)
        .says("E_NOT_FOUND");
    assert_eq!(a.run(&["conflicts"]).exits(0).stdout, "no conflicts\n");
}

#[test]
fn what_is_no_short_text_is_told_by_size_and_time() {
    let (_world, _a, b, copy) = conflict("raw", b"\0", b"\0\x01", b"\0\x01\x02");
    let shown = b.run(&["conflicts", "diff", "raw"]).exits(0).stdout;
    let rows: Vec<&str> = shown.lines().collect();
    assert!(
        rows[0].starts_with("theirs  20") && rows[0].ends_with("2 B  raw"),
        "{shown}"
    );
    assert!(
        rows[1].starts_with("mine ") && rows[1].ends_with(&copy),
        "{shown}"
    );
    assert!(
        rows[2].starts_with("They differ. ") && rows[2].ends_with(" no text."),
        "{shown}"
    );
    let diff = b.run(&["conflicts", "diff", "raw", "--json"]).json();
    let diff = &diff["diffs"][0];
    assert_eq!(
        (&diff["diff"], &diff["not_compared"]),
        (&Value::Null, &"binary".into())
    );

    // Of texts beyond the limit, only whether they are equal is said.
    let long = "line\n".repeat(300_000);
    b.write("raw", &long);
    b.write(&copy, &format!("{long}and one\n"));
    let shown = b.run(&["conflicts", "diff", "raw"]).exits(0).stdout;
    assert!(
        shown.contains("longer than 1 MiB or 10000 lines"),
        "{shown}"
    );
    b.write(&copy, &long);
    let shown = b.run(&["conflicts", "diff", "raw"]).exits(0).stdout;
    assert_eq!(shown, format!("raw and {copy} are the same\n"));
    // What is gone cannot be shown, and what to do is said.
    fs::remove_file(b.folder.join(&copy)).unwrap();
    let gone = b
        .run(&["conflicts", "diff", "raw"])
        .exits(3)
        .says("E_NOT_FOUND");
    assert!(gone.stderr.contains("syncagent sync"), "{}", gone.stderr);
}
