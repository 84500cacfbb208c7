//! `conflicts`: what differs, which side is kept, and the way back from each.

use std::fs;

use serde_json::Value;

use crate::world::{Machine, World, keys, until};

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
        [
            "kind", "machine", "modified", "mtime_ns", "path", "size", "time", "time_ms", "version"
        ]
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

/// All that a machine has logged.
fn logged(machine: &Machine) -> String {
    let files = fs::read_dir(machine.home().join("logs")).unwrap();
    let text = |file: std::io::Result<fs::DirEntry>| fs::read_to_string(file.unwrap().path());
    files.map(|file| text(file).unwrap()).collect()
}

#[test]
fn both_sides_are_told_apart_by_version_machine_and_time_also_in_the_log() {
    let (_world, a, b, copy) = conflict("plan", BEFORE.as_bytes(), b"theirs", b"mine");
    let newest = |path: &str| {
        let versions = a.run(&["versions", path, "--json"]).exits(0).json();
        let newest = &versions["versions"][0];
        let of = ["version", "machine", "time", "time_ms"];
        of.map(|key| newest[key].clone())
    };
    let (theirs, mine) = (newest("plan"), newest(&copy));
    assert_eq!(
        (&theirs[1], &mine[1]),
        (&"a-machine".into(), &"b-machine".into())
    );
    assert!(theirs[0].as_u64() < mine[0].as_u64(), "{theirs:?} {mine:?}");
    let told =
        |side: &Value| ["version", "machine", "time", "time_ms"].map(|key| side[key].clone());
    let clock = |side: &[Value; 4]| {
        let time = side[2].as_str().unwrap();
        format!("{}Z", time[..19].replace('T', " "))
    };
    let words = |side: &[Value; 4]| {
        let (version, machine) = (&side[0], side[1].as_str().unwrap());
        format!("version {version} of {machine}, {}", clock(side))
    };
    for machine in [&a, &b] {
        let listed = &open(machine)[0];
        assert_eq!(
            (told(&listed["theirs"]), told(&listed["mine"])),
            (theirs.clone(), mine.clone())
        );
        let diff = machine.run(&["conflicts", "diff", "plan", "--json"]);
        let diff = &diff.exits(0).json()["diffs"][0];
        assert_eq!(
            (told(&diff["theirs"]), told(&diff["mine"])),
            (theirs.clone(), mine.clone())
        );
        // For people, too.
        let list = machine.run(&["conflicts"]).exits(0).stdout;
        let told = format!(
            "theirs  plan\n        {}\nmine    {copy}\n        {}\n",
            words(&theirs),
            words(&mine)
        );
        assert_eq!(list, told);
        let shown = machine.run(&["conflicts", "diff", "plan"]).exits(0).stderr;
        for side in [&theirs, &mine] {
            assert!(shown.contains(&words(side)), "{shown}");
        }
        // Where it arose, and where it was heard of: in one line, once.
        let log = logged(machine);
        let lines = log
            .lines()
            .filter(|line| line.contains(&copy) && line.contains(&words(&theirs)));
        let lines: Vec<&str> = lines.collect();
        assert_eq!(lines.len(), 1, "{log}");
        assert!(lines[0].contains(&words(&mine)), "{log}");
    }

    // An edit of the copy on the other machine is a version of that machine, and no conflict that would be new.
    a.write(&copy, "mine, edited");
    a.sync_once().exits(0);
    b.sync_once().exits(0);
    let edited = newest(&copy);
    assert_eq!(edited[1], "a-machine");
    for machine in [&a, &b] {
        assert_eq!(told(&open(machine)[0]["mine"]), edited);
        assert_eq!(told(&open(machine)[0]["theirs"]), theirs);
        let log = logged(machine);
        let lines = log
            .lines()
            .filter(|line| line.contains("version ") && line.contains(&copy));
        assert_eq!(lines.count(), 1, "{log}");
    }
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

const PASSWORD: [&str; 2] = ["--password-file", "password"];

fn resolve(machine: &Machine, arguments: &[&str]) -> crate::world::Run {
    let all = [&["conflicts", "resolve"], arguments, &PASSWORD[..]].concat();
    machine.run(&all)
}

/// Resolves the only conflict and returns what is said of it.
#[track_caller]
fn resolved(machine: &Machine, what: &str, keep: &str) -> Value {
    let answer = resolve(machine, &[what, "--keep", keep, "--json"])
        .exits(0)
        .json();
    assert_eq!(keys(&answer), ["exit", "failed", "on_disk", "resolved"]);
    assert_eq!(answer["on_disk"], true);
    let rows = answer["resolved"].as_array().unwrap();
    assert_eq!(rows.len(), 1);
    assert_eq!(
        keys(&rows[0]),
        ["clashes", "copy_path", "keep", "n", "path", "undo"]
    );
    rows[0].clone()
}

/// Takes a resolution back with the commands that it named.
#[track_caller]
fn undo(machine: &Machine, row: &Value) {
    let commands = row["undo"].as_array().unwrap();
    assert!(!commands.is_empty());
    for command in commands {
        let words = command.as_array().unwrap().iter();
        let words: Vec<&str> = words.map(|word| word.as_str().unwrap()).collect();
        machine.run(&[&words[..], &PASSWORD].concat()).exits(0);
    }
}

/// All that both machines have, after the other one has heard of it.
#[track_caller]
fn both_have(one: &Machine, other: &Machine, files: &[(&str, &str)], conflicts: usize) {
    other
        .run(&[&["sync", "--once"], &PASSWORD[..]].concat())
        .exits(0);
    let mut names: Vec<&str> = files.iter().map(|(name, _)| *name).collect();
    names.sort_unstable();
    for machine in [one, other] {
        assert_eq!(machine.names(), names);
        for (name, text) in files {
            assert_eq!(machine.read(name).as_deref(), Some(*text), "{name}");
        }
        assert_eq!(open(machine).len(), conflicts);
        let state = if conflicts == 0 { "idle" } else { "conflict" };
        assert_eq!(machine.status()["state"], state);
    }
}

#[test]
fn theirs_is_kept_and_the_copy_comes_back() {
    let (_world, a, b, copy) = conflict("plan", BEFORE.as_bytes(), b"theirs", b"mine");
    // Resolved where the conflict did not arise, under the copy's name.
    let row = resolved(&a, &copy, "theirs");
    both_have(&a, &b, &[("plan", "theirs")], 0);
    undo(&b, &row);
    both_have(&b, &a, &[("plan", "theirs"), (&copy, "mine")], 1);
}

#[test]
fn mine_comes_under_the_name_and_goes_back() {
    let long = "a line that is repeated often\n".repeat(1000);
    let (_world, a, b, copy) = conflict("plan", BEFORE.as_bytes(), b"theirs", long.as_bytes());
    let row = resolved(&b, "plan", "mine");
    both_have(&b, &a, &[("plan", &long)], 0);
    // What was under the name is a version.
    let versions = a.run(&["versions", "plan", "--json"]).json();
    assert_eq!(versions["versions"].as_array().unwrap().len(), 3);
    undo(&b, &row);
    both_have(&b, &a, &[("plan", "theirs"), (&copy, &long)], 1);
}

#[test]
fn both_stay_and_are_no_conflict_any_more() {
    let (_world, a, b, copy) = conflict("plan", BEFORE.as_bytes(), b"theirs", b"mine");
    let id = open(&a)[0]["node"].as_str().unwrap().to_owned();
    let row = resolved(&a, &id, "both");
    let files = [("plan", "theirs"), (copy.as_str(), "mine")];
    both_have(&a, &b, &files, 0);
    // Nor do they become one again when they are edited.
    b.write(&copy, "mine too");
    b.sync_once().exits(0);
    both_have(&b, &a, &[("plan", "theirs"), (&copy, "mine too")], 0);
    undo(&a, &row);
    both_have(&a, &b, &files, 1);
}

#[test]
fn changes_of_different_lines_are_merged_and_taken_back() {
    let body = "unchanged\n".repeat(500);
    let text = |first: &str, last: &str| format!("{first}\n{body}{last}\n");
    let (theirs, mine) = (text("theirs", "last"), text("first", "mine"));
    let (_world, a, b, copy) = conflict(
        "plan",
        text("first", "last").as_bytes(),
        theirs.as_bytes(),
        mine.as_bytes(),
    );
    let row = resolved(&a, "plan", "merge");
    both_have(&a, &b, &[("plan", &text("theirs", "mine"))], 0);
    undo(&b, &row);
    both_have(&b, &a, &[("plan", &theirs), (&copy, &mine)], 1);
}

#[test]
fn what_clashes_or_has_nothing_in_common_is_left_as_it_is() {
    let (_world, a, b, copy) = conflict("plan", b"1\n2\n3\n", b"1\ntwo\n3\n", b"1\nzwei\ndrei\n");
    let files = [("plan", "1\ntwo\n3\n"), (copy.as_str(), "1\nzwei\ndrei\n")];
    let run = resolve(&a, &["plan", "--keep", "merge"]).exits(10);
    let said = format!(
        "plan: not merged, both changed the same lines: line 2 here, lines 2-3 in {copy}. "
    );
    assert!(run.stdout.starts_with(&said), "{}", run.stdout);
    let answer = resolve(&b, &["plan", "--keep", "merge", "--json"])
        .exits(10)
        .json();
    assert_eq!(
        (
            &answer["resolved"][0]["n"],
            &answer["resolved"][0]["clashes"]
        ),
        (
            &Value::Null,
            &serde_json::json!([{"theirs": {"start": 2, "end": 3}, "mine": {"start": 2, "end": 4}}])
        )
    );
    both_have(&a, &b, &files, 1);

    // Two files that were never one have no version to start from.
    a.write("new", "from a\n");
    b.write("new", "from b\n");
    a.sync_once().exits(0);
    b.sync_once().exits(10);
    let run = resolve(&b, &["new", "--keep", "merge"]).exits(10);
    let why = "new: left as it is: it cannot be merged: no version is known";
    assert!(run.stdout.starts_with(why), "{}", run.stdout);
    // Nor do bytes that are no text have lines.
    let (_world, _a, b, _) = conflict("raw", b"\0", b"\0\x01", b"\0\x02");
    let run = resolve(&b, &["raw", "--keep", "merge"]).exits(10);
    assert!(run.stdout.contains(" is no text. "), "{}", run.stdout);
    assert_eq!(open(&b).len(), 1);
}

#[test]
fn an_edit_that_nobody_has_heard_of_survives_every_way() {
    for (keep, edited) in [("theirs", true), ("mine", false)] {
        let (_world, a, b, copy) = conflict(
            "plan",
            BEFORE.as_bytes(),
            THEIRS.as_bytes(),
            MINE.as_bytes(),
        );
        // On the other machine, of the copy or of what has the name.
        let edit = if edited { copy.as_str() } else { "plan" };
        b.write(edit, "edited meanwhile\n");
        resolved(&a, "plan", keep);
        b.run(&[&["sync", "--once"], &PASSWORD[..]].concat());
        a.sync_once();
        for machine in [&a, &b] {
            let names = machine.names();
            let kept = names
                .iter()
                .filter(|name| machine.read(name).as_deref() == Some("edited meanwhile\n"));
            assert_eq!(kept.count(), 1, "{keep} {edit}: {names:?}");
        }
    }
}

#[cfg(unix)]
#[test]
fn a_file_takes_the_name_of_a_link_and_gives_it_back() {
    let world = World::new();
    let a = world.first("a");
    let b = world.next("b", &a);
    std::fs::create_dir_all(&a.folder).unwrap();
    std::os::unix::fs::symlink("theirs", a.folder.join("x")).unwrap();
    b.write("x", "mine");
    a.sync_once().exits(0);
    b.sync_once().exits(10);
    let copy = open(&b)[0]["copy_path"].as_str().unwrap().to_owned();
    let shown = b.run(&["conflicts", "diff", "x"]).exits(0).stdout;
    assert!(shown.contains("link to theirs"), "{shown}");
    let row = resolved(&b, "x", "mine");
    a.sync_once().exits(0);
    for machine in [&a, &b] {
        assert_eq!(
            (machine.names(), open(machine).len()),
            (vec!["x".to_owned()], 0)
        );
        assert_eq!(machine.read("x").as_deref(), Some("mine"));
    }
    undo(&b, &row);
    a.run(&[&["sync", "--once"], &PASSWORD[..]].concat())
        .exits(0);
    for machine in [&a, &b] {
        assert_eq!(
            fs::read_link(machine.folder.join("x")).unwrap().to_str(),
            Some("theirs")
        );
        assert_eq!(
            (machine.read(&copy).as_deref(), open(machine).len()),
            (Some("mine"), 1)
        );
    }
}

#[test]
fn all_at_once_goes_on_past_what_fails_beside_a_daemon() {
    let (_world, a, b, _) = conflict(
        "1-clean",
        BEFORE.as_bytes(),
        THEIRS.as_bytes(),
        MINE.as_bytes(),
    );
    for (name, before, theirs, mine) in [
        ("2-raw", "\0", "\0a", "\0b"),
        ("3-clash", "1\n", "2\n", "3\n"),
        ("4-clean", BEFORE, MINE, THEIRS),
    ] {
        a.write(name, before);
        a.sync_once().exits(0);
        b.sync_once().exits(0);
        a.write(name, theirs);
        b.write(name, mine);
        a.sync_once().exits(0);
        b.sync_once().exits(10);
    }
    // Nobody is asked where nobody sits; the flags are named.
    let run = resolve(&b, &["--all"]).exits(2).says("E_USAGE");
    assert!(run.stderr.contains("--keep"), "{}", run.stderr);
    let run = resolve(&b, &["--all", "--keep", "merge"]).exits(2);
    assert!(
        run.stderr.contains("in 4 conflicts?") && run.stderr.contains("--yes"),
        "{}",
        run.stderr
    );
    resolve(&b, &["1-clean", "--all", "--keep", "merge"]).exits(2);
    // A look first.
    // By name, whichever arose first.
    let rows = open(&b);
    let paths: Vec<&str> = rows
        .iter()
        .map(|row| row["path"].as_str().unwrap())
        .collect();
    assert!(paths.is_sorted(), "{paths:?}");
    let before = b.names();
    let run = resolve(&b, &["--all", "--keep", "merge", "--dry-run"]).exits(10);
    assert!(
        run.stdout.contains("1-clean: would be merged with "),
        "{}",
        run.stdout
    );
    assert!(run.stderr.contains("Nothing was changed"), "{}", run.stderr);
    assert_eq!((b.names(), open(&b).len()), (before, 4));

    let daemon = b.start_daemon_that_rests("conflict");
    let run = b
        .run(&["conflicts", "resolve", "--all", "--keep", "merge", "--yes"])
        .exits(10);
    let lines: Vec<&str> = run.stdout.lines().collect();
    assert_eq!(lines.len(), 4, "{}", run.stdout);
    assert!(
        lines[0].starts_with("1-clean: merged with ")
            && lines[0].contains("To undo: syncagent restore 1-clean --version ")
    );
    assert!(lines[2].starts_with("3-clash: not merged"));
    assert!(lines[3].starts_with("4-clean: merged with "));
    assert!(lines[1].starts_with("2-raw: left as it is: it cannot be merged"));
    let both = "ONE\ntwo\nthree\nfour\nfive\nsix\n";
    assert_eq!(
        (b.read("1-clean").as_deref(), b.read("4-clean").as_deref()),
        (Some(both), Some(both))
    );
    assert_eq!(open(&b).len(), 2);
    // The daemon resolves what is named, too.
    b.run(&["conflicts", "resolve", "2-raw", "--keep", "theirs"])
        .exits(0);
    b.run(&["conflicts", "resolve", "3-clash", "--keep", "mine"])
        .exits(0);
    assert_eq!(
        (b.names(), b.read("3-clash").as_deref()),
        (
            ["1-clean", "2-raw", "3-clash", "4-clean"]
                .map(str::to_owned)
                .to_vec(),
            Some("3\n")
        )
    );
    until("the daemon to rest", || {
        (b.status()["state"] == "idle").then_some(())
    });
    assert_eq!(daemon.terminate(), 0);
    let run = resolve(&b, &["--all", "--keep", "theirs", "--yes"]).exits(0);
    assert_eq!(run.stdout, "no conflicts\n");
}

/// Every file with what is in it.
#[cfg(unix)]
fn all_of(machine: &Machine) -> Vec<(String, Option<String>)> {
    let content = |name: String| (name.clone(), machine.read(&name));
    machine.names().into_iter().map(content).collect()
}

/// The open conflicts without their times: one that is back is dated anew.
#[cfg(unix)]
fn which(machine: &Machine) -> Vec<[String; 4]> {
    let text = |row: &Value, key: &str| row[key].as_str().unwrap().to_owned();
    let row = |row| ["path", "copy_path", "node", "copy"].map(|key| text(row, key));
    let mut rows: Vec<_> = open(machine).iter().map(row).collect();
    rows.sort();
    rows
}

/// Runs a command as it was printed, from where a person would paste it.
#[cfg(unix)]
#[track_caller]
fn in_a_shell(world: &World, machine: &Machine, command: &str) {
    let script = format!("set -e; syncagent() {{ \"$BIN\" \"$@\"; }}; {command}");
    let mut shell = std::process::Command::new("sh");
    crate::world::like(&machine.command(&[]), &mut shell);
    shell
        .args(["-c", &script])
        .env("BIN", crate::world::binary())
        .env("SYNCAGENT_PASSWORD_FILE", world.path("password"));
    crate::world::run(&mut shell).exits(0);
}

#[cfg(unix)]
#[test]
fn several_copies_of_one_file_are_undone_in_the_order_that_is_printed() {
    let lines = |changed: &[usize]| -> String {
        let line = |i: usize| match changed.contains(&i) {
            true => format!("line {i}, changed\n"),
            false => format!("line {i}\n"),
        };
        (0..12).map(line).collect()
    };
    let world = World::new();
    let a = world.first("a");
    let b = world.next("b", &a);
    let c = world.next("c", &a);
    a.write("plan", &lines(&[]));
    for machine in [&a, &b, &c] {
        machine.sync_once().exits(0);
    }
    for (machine, line) in [(&a, 1), (&b, 5), (&c, 9)] {
        machine.write("plan", &lines(&[line]));
    }
    a.sync_once().exits(0);
    b.sync_once().exits(10);
    c.sync_once().exits(10);
    b.sync_once();
    let before = (all_of(&b), which(&b));
    assert_eq!((before.0.len(), before.1.len()), (3, 2));

    // Which one is meant has to be said, and how.
    let run = resolve(&b, &["--keep", "theirs"]).exits(2).says("E_USAGE");
    run.names("--all");
    let run = resolve(&b, &["--all", "--keep", "mine", "--yes"]).exits(10);
    for [_, copy, ..] in &before.1 {
        let command = format!("`syncagent conflicts resolve {copy} --keep mine`");
        assert!(run.stdout.contains(&command), "{}", run.stdout);
    }

    for is_json in [false, true] {
        let wanted = ["plan", "--keep", "merge"];
        match is_json {
            false => {
                let run = resolve(&b, &wanted).exits(0);
                assert_eq!(b.read("plan"), Some(lines(&[1, 5, 9])));
                let commands = run.stdout.split("To undo: ").skip(1);
                for command in commands.map(|rest| rest.lines().next().unwrap()) {
                    in_a_shell(&world, &b, command);
                }
            }
            true => {
                let answer = resolve(&b, &[&wanted[..], &["--json"]].concat());
                let answer = answer.exits(0).json();
                assert_eq!(b.read("plan"), Some(lines(&[1, 5, 9])));
                let rows = answer["resolved"].as_array().unwrap();
                rows.iter().for_each(|row| undo(&b, row));
            }
        }
        assert_eq!((all_of(&b), which(&b)), before, "{is_json}");
    }
}

#[cfg(unix)]
#[test]
fn all_at_once_is_undone_by_the_commands_that_are_printed() {
    // Names that a shell would take for something else among them.
    const NAMES: [&str; 4] = ["plan", "it's $HOME & more.tar.gz", ".profile", "-n *"];
    let world = World::new();
    let a = world.first("a");
    let b = world.next("b", &a);
    let write = |machine: &Machine, text: &str| {
        for name in NAMES {
            machine.write(name, &format!("{text} of {name}"));
        }
    };
    write(&a, "before");
    a.sync_once().exits(0);
    b.sync_once().exits(0);
    write(&a, "theirs!");
    write(&b, "mine");
    a.sync_once().exits(0);
    b.sync_once().exits(10);
    a.sync_once().exits(0);
    let before = (all_of(&a), which(&a));
    assert_eq!(before.0.len(), 2 * NAMES.len());
    assert_eq!(before, (all_of(&b), which(&b)));

    for (keep, left) in [("mine", 4), ("theirs", 4), ("both", 8), ("merge", 8)] {
        let run = resolve(&b, &["--all", "--keep", keep, "--yes"]);
        // Nothing of these texts can be merged.
        let run = run.exits(if keep == "merge" { 10 } else { 0 });
        let other = a.run(&[&["sync", "--once"], &PASSWORD[..]].concat());
        other.exits(0);
        assert_eq!(all_of(&a), all_of(&b));
        assert_eq!(b.names().len(), left);
        let text = if keep == "mine" { "mine" } else { "theirs!" };
        for name in NAMES {
            assert_eq!(a.read(name), Some(format!("{text} of {name}")), "{keep}");
        }
        assert_eq!(open(&a).len(), if keep == "merge" { 4 } else { 0 });

        let commands = run.stdout.split("To undo: ").skip(1);
        let commands: Vec<&str> = commands.map(|rest| rest.lines().next().unwrap()).collect();
        assert_eq!(
            commands.len(),
            if keep == "merge" { 0 } else { 4 },
            "{}",
            run.stdout
        );
        for command in commands {
            in_a_shell(&world, &b, command);
        }
        a.run(&[&["sync", "--once"], &PASSWORD[..]].concat())
            .exits(0);
        for machine in [&a, &b] {
            assert_eq!((all_of(machine), which(machine)), before, "{keep}");
        }
    }
}

/// Date and time of this moment as they stand in names, in UTC.
#[cfg(target_os = "linux")]
fn stamp(seconds_from_now: u64) -> String {
    let at = format!("+{seconds_from_now} seconds");
    let mut date = std::process::Command::new("date");
    let output = date.args(["-u", "-d", &at, "+%Y%m%d-%H%M%S"]).output();
    String::from_utf8(output.unwrap().stdout)
        .unwrap()
        .trim()
        .to_owned()
}

#[cfg(target_os = "linux")]
#[test]
fn a_copy_is_named_after_the_time_in_utc_and_the_machine_and_counts_what_is_taken() {
    const NAME: &str = "backup.tar.gz";
    let world = World::new();
    let a = world.first("a");
    let b = world.next("b", &a);
    let far_east = |machine: &Machine| {
        let mut command = machine.command(&["sync", "--once", "--password-file", "password"]);
        crate::world::run(command.env("TZ", "Pacific/Kiritimati")).exits(10);
    };
    a.write(NAME, "a");
    b.write(NAME, "b");
    a.sync_once().exits(0);
    let from = stamp(0);
    far_east(&b);
    let until = stamp(0);
    a.sync_once().exits(0);
    let names = a.names();
    assert_eq!((names.len(), &names), (2, &b.names()));
    let copy = names.iter().find(|name| *name != NAME).unwrap();
    let middle = copy.strip_prefix("backup.conflict-").unwrap();
    let at = middle.strip_suffix("-b-machine.tar.gz").unwrap();
    assert!(
        (from.as_str()..=until.as_str()).contains(&at),
        "{copy}: not in {from}..={until}"
    );
    assert_eq!(a.read(copy).as_deref(), Some("b"));

    // Every name that could come next is taken.
    for second in 0..300 {
        b.write(
            &format!("backup.conflict-{}-b-machine.tar.gz", stamp(second)),
            "taken",
        );
    }
    b.sync_once();
    a.sync_once();
    a.write(NAME, "a again");
    b.write(NAME, "b again");
    a.sync_once();
    far_east(&b);
    a.sync_once();
    let names = a.names();
    assert_eq!(names, b.names());
    let counted = names
        .iter()
        .filter(|name| name.ends_with("-b-machine-2.tar.gz"));
    let counted: Vec<&String> = counted.collect();
    assert_eq!(counted.len(), 1, "{names:?}");
    assert_eq!(a.read(counted[0]).as_deref(), Some("b again"));
    let taken = names
        .iter()
        .filter(|name| a.read(name).as_deref() == Some("taken"));
    assert_eq!(taken.count(), 300);
}
