//! `.syncignore`: what it leaves out is never sent, also where its file is as new as what it speaks of.

use crate::world::World;

#[test]
fn rules_that_are_new_hold_in_the_same_pass() {
    let world = World::new();
    let a = world.first("a");
    // In the root, below it, and in a directory that a rule further down brings back.
    a.write(".syncignore", "*.log\n");
    a.write("one.log", "x");
    a.write("sub/.syncignore", "*.tmp\n");
    a.write("sub/two.tmp", "x");
    a.write("sub/deep/three.tmp", "x");
    a.write("sub/kept", "x");
    a.write("two.tmp", "kept: the rule stands below");
    a.sync_once().exits(0);
    let b = world.next("b", &a);
    b.sync_once().exits(0);
    assert_eq!(b.names(), [".syncignore", "sub", "two.tmp"]);
    assert_eq!(b.read("sub/kept").as_deref(), Some("x"));
    assert_eq!(
        (b.read("sub/two.tmp"), b.read("sub/deep/three.tmp")),
        (None, None)
    );
    // And while a daemon looks only where something happened.
    let daemon = a.start_daemon();
    a.run(&["pause"]).exits(0);
    a.write("new/.syncignore", "*.bak\n");
    a.write("new/four.bak", "x");
    a.write("new/kept", "x");
    a.run(&["resume"]).exits(0);
    a.run(&["now"]).exits(0);
    crate::world::until("the new directory", || {
        b.sync_once().exits(0);
        b.read("new/kept")
    });
    assert_eq!(b.read("new/four.bak"), None);
    assert_eq!(daemon.terminate(), 0);
}

#[test]
fn lines_that_are_no_rules_and_rules_beyond_the_limit_are_told() {
    let world = World::new();
    let a = world.first("a");
    // Cut in the middle of the last rule it would be `*`, which is everything.
    let mut long = "*.tmp\n[z-a]\n".to_owned();
    long.push_str(&"#".repeat((1 << 20) - 1 - long.len() - 1));
    long.push_str("\n*.log\n*.bak\n");
    assert_eq!(long.find("*.log"), Some((1 << 20) - 1));
    a.write(".syncignore", &long);
    for name in ["kept", "one.tmp", "two.log"] {
        a.write(name, "x");
    }
    a.sync_once().exits(0);
    let b = world.next("b", &a);
    b.sync_once().exits(0);
    assert_eq!(b.names(), [".syncignore", "kept", "two.log"]);
    let told = |said: &str| {
        let bad = said.contains("line 2 of .syncignore is no rule");
        bad && said.contains(".syncignore is longer than 1 MiB")
    };
    assert!(told(&a.status()["notices"].to_string()), "{}", a.status());
    let checked = a.run(&["ignore", "check", "one.tmp", "two.log"]).exits(0);
    assert!(told(&checked.stderr), "{}", checked.stderr);
    assert_eq!(checked.stderr.lines().count(), 2, "{}", checked.stderr);
    let ignored = checked.stdout.lines().map(|line| line.contains("ignored"));
    assert_eq!(ignored.collect::<Vec<_>>(), [true, false]);
    // Once they are right, nothing is said any more.
    a.write(".syncignore", "*.tmp\n");
    a.sync_once().exits(0);
    let notices = a.status()["notices"].to_string();
    assert!(!notices.contains(".syncignore"), "{notices}");
}
