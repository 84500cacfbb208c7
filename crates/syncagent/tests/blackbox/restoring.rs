//! Bringing back what was, into a place where something else stands by now: nothing is overwritten without being told so,
//! and whatever makes room can be brought back in its turn.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;

use serde_json::Value;

use crate::world::{Machine, Run, World};

const PASSWORD: [&str; 2] = ["--password-file", "password"];

fn ask(machine: &Machine, words: &[&str]) -> Run {
    machine.run(&[words, &PASSWORD, &["--json"]].concat())
}

/// Brings something back, and where it is now.
#[track_caller]
fn brings(machine: &Machine, words: &[&str]) -> String {
    let answer = ask(machine, words).exits(0).json();
    assert_eq!(answer["on_disk"], true, "{answer}");
    answer["restored"]["path"].as_str().unwrap().to_owned()
}

/// Says no because something stands in the place, says how it would be done, and changes nothing.
#[track_caller]
fn refuses(machine: &Machine, words: &[&str]) {
    let before = files(machine);
    let refused = ask(machine, words).exits(5).json();
    assert_eq!(refused["error"]["code"], "E_CONFLICT");
    let said = refused["error"]["message"].as_str().unwrap();
    assert!(said.contains("--keep-both"), "{said}");
    assert_eq!(files(machine), before);
}

/// All files, with what is in them.
fn files(machine: &Machine) -> BTreeMap<String, String> {
    fn collect(root: &Path, dir: &Path, found: &mut BTreeMap<String, String>) {
        for entry in fs::read_dir(dir).unwrap() {
            let path = entry.unwrap().path();
            let name = path.strip_prefix(root).unwrap().to_str().unwrap();
            if name == ".syncagent" {
                continue;
            }
            match path.is_dir() {
                true => collect(root, &path, found),
                false => drop(found.insert(name.into(), fs::read_to_string(&path).unwrap())),
            }
        }
    }
    let mut found = BTreeMap::new();
    collect(&machine.folder, &machine.folder, &mut found);
    found
}

fn tree(files: &[(&str, &str)]) -> BTreeMap<String, String> {
    let pair = |(path, text): &(&str, &str)| ((*path).to_owned(), (*text).to_owned());
    files.iter().map(pair).collect()
}

/// Sees that both machines have exactly this.
#[track_caller]
fn both_have(one: &Machine, other: &Machine, wanted: &[(&str, &str)]) {
    other.sync_once().exits(0);
    for machine in [one, other] {
        assert_eq!(files(machine), tree(wanted));
    }
}

fn trash(machine: &Machine) -> BTreeSet<String> {
    let list = machine.run(&["trash", "list", "--json"]).exits(0).json();
    let rows = list["trash"].as_array().unwrap().iter();
    rows.map(|row| row["path"].as_str().unwrap().to_owned())
        .collect()
}

fn id(machine: &Machine, path: &str) -> Value {
    let list = machine
        .run(&["ls", "--recursive", "--json"])
        .exits(0)
        .json();
    let entries = list["entries"].as_array().unwrap();
    let entry = entries.iter().find(|entry| entry["path"] == path);
    entry.unwrap_or_else(|| panic!("no {path} in {list}"))["id"].clone()
}

/// The versions of a file, from the latest to the first.
fn versions(machine: &Machine, path: &str) -> Vec<String> {
    let list = machine.run(&["versions", path, "--json"]).exits(0).json();
    let rows = list["versions"].as_array().unwrap().iter();
    rows.map(|row| row["version"].to_string()).collect()
}

#[track_caller]
fn delete(machine: &Machine, path: &str) {
    let place = machine.folder.join(path);
    match place.is_dir() {
        true => fs::remove_dir_all(place).unwrap(),
        false => fs::remove_file(place).unwrap(),
    }
    machine.sync_once().exits(0);
}

fn two() -> (World, Machine, Machine) {
    let world = World::new();
    let a = world.first("a");
    let b = world.next("b", &a);
    (world, a, b)
}

#[test]
fn what_makes_room_is_in_the_trash_and_changes_places_again() {
    let (_world, a, b) = two();
    a.write("docs/plan", "first");
    a.sync_once().exits(0);
    delete(&a, "docs/plan");
    a.write("docs/plan", "second");
    a.sync_once().exits(0);
    b.sync_once().exits(0);
    let restore = ["trash", "restore", "docs/plan"];
    let replace = ["trash", "restore", "docs/plan", "--replace"];
    refuses(&a, &restore);
    // By hand, on the other machine, and beside a daemon.
    assert_eq!(brings(&a, &replace), "docs/plan");
    both_have(&a, &b, &[("docs/plan", "first")]);
    assert_eq!(trash(&a), ["docs/plan".to_owned()].into());
    assert_eq!(brings(&b, &replace), "docs/plan");
    both_have(&b, &a, &[("docs/plan", "second")]);
    let daemon = b.start_daemon();
    refuses(&b, &restore);
    assert_eq!(brings(&b, &replace), "docs/plan");
    both_have(&b, &a, &[("docs/plan", "first")]);
    let beside = brings(&b, &["trash", "restore", "docs/plan", "--keep-both"]);
    assert!(beside.starts_with("docs/plan.restored-"), "{beside}");
    both_have(&b, &a, &[("docs/plan", "first"), (&beside, "second")]);
    assert_eq!(trash(&a), BTreeSet::new());
    assert_eq!(daemon.terminate(), 0);
}

#[test]
fn missing_directories_come_back_and_living_ones_are_used() {
    let (_world, a, b) = two();
    a.write("x/y/z/file", "file");
    a.write("x/other", "other");
    a.sync_once().exits(0);
    b.sync_once().exits(0);
    let before = id(&a, "x/y/z");
    delete(&a, "x");
    assert_eq!(
        brings(&a, &["trash", "restore", "x/y/z/file"]),
        "x/y/z/file"
    );
    both_have(&a, &b, &[("x/y/z/file", "file")]);
    // The same ones, not others of the same name; all else stays in the trash.
    assert_eq!(id(&b, "x/y/z"), before);
    assert_eq!(trash(&b), ["x/other".to_owned()].into());

    // Another directory has the path by now: it is used, and what is in it stays.
    delete(&a, "x");
    a.write("x/y/living", "living");
    a.sync_once().exits(0);
    let living = id(&a, "x/y");
    assert_eq!(
        brings(&a, &["trash", "restore", "x/y/z/file"]),
        "x/y/z/file"
    );
    let all = [("x/y/living", "living"), ("x/y/z/file", "file")];
    both_have(&a, &b, &all);
    assert_eq!((id(&b, "x/y"), id(&b, "x/y/z")), (living, before));

    // Its directory goes by another name by now: that is where it hangs.
    delete(&a, "x/y/z/file");
    fs::rename(a.folder.join("x"), a.folder.join("renamed")).unwrap();
    a.sync_once().exits(0);
    let path = brings(&a, &["trash", "restore", "renamed/y/z/file"]);
    assert_eq!(path, "renamed/y/z/file");
    let all = [("renamed/y/living", "living"), ("renamed/y/z/file", "file")];
    both_have(&a, &b, &all);
}

#[test]
fn a_directory_comes_back_with_all_that_was_in_it() {
    let (_world, a, b) = two();
    let all = [
        ("d/one", "1"),
        ("d/below/two", "2"),
        ("d/below/deep/x", "3"),
    ];
    for (path, text) in all {
        a.write(path, text);
    }
    a.sync_once().exits(0);
    b.sync_once().exits(0);
    let before = ["d", "d/one", "d/below", "d/below/deep/x"].map(|path| id(&a, path));
    delete(&a, "d");
    // As `trash list` prints it.
    let listed = a.run(&["trash", "list"]).exits(0).stdout;
    assert!(listed.contains(" d/\n"), "{listed}");
    let foreseen = ask(&a, &["trash", "restore", "d/", "--dry-run"]).exits(0);
    let foreseen = foreseen.json()["restores"]["below"].clone();
    let mut foreseen: Vec<_> = foreseen.as_array().unwrap().clone();
    foreseen.sort_by_key(ToString::to_string);
    let below = [
        "d/below",
        "d/below/deep",
        "d/below/deep/x",
        "d/below/two",
        "d/one",
    ];
    assert_eq!(foreseen, below.map(Value::from));
    assert_eq!(files(&a), tree(&[]));
    let run = a.run(&[&["trash", "restore", "d/"], &PASSWORD[..]].concat());
    assert_eq!(
        run.exits(0).stdout,
        "restored d with 5 things that were in it\n"
    );
    both_have(&a, &b, &all);
    assert_eq!(trash(&a), BTreeSet::new());
    let after = ["d", "d/one", "d/below", "d/below/deep/x"].map(|path| id(&b, path));
    assert_eq!(after, before);

    // By its id, and beside a daemon.
    delete(&a, "d");
    b.sync_once().exits(0);
    let daemon = b.start_daemon();
    assert_eq!(
        brings(&b, &["trash", "restore", before[0].as_str().unwrap()]),
        "d"
    );
    both_have(&b, &a, &all);
    assert_eq!(daemon.terminate(), 0);
}

#[test]
fn what_came_back_with_a_directory_pushes_nothing_away() {
    let (_world, a, b) = two();
    a.write("d/plan", "older");
    a.write("d/below/file", "file");
    a.write("d/other", "other");
    a.sync_once().exits(0);
    delete(&a, "d/plan");
    a.write("d/plan", "newer");
    a.sync_once().exits(0);
    delete(&a, "d");
    // Of two with one name, the one that was deleted last comes back.
    let answer = ask(&a, &["trash", "restore", "d"]).exits(0).json();
    assert_eq!(
        (&answer["restored"]["below"], &answer["restored"]["older"]),
        (&4.into(), &1.into())
    );
    let all = [
        ("d/plan", "newer"),
        ("d/below/file", "file"),
        ("d/other", "other"),
    ];
    both_have(&a, &b, &all);
    assert_eq!(trash(&a), ["d/plan".to_owned()].into());

    // One file of it came back, or was made anew: the rest comes to it, and what lives stays as it is.
    delete(&a, "d");
    assert_eq!(brings(&a, &["trash", "restore", "d/other"]), "d/other");
    a.write("d/plan", "made anew");
    a.write("d/below/new", "new");
    a.sync_once().exits(0);
    let rest = ask(&a, &["trash", "restore", "d/"]).exits(5).json();
    assert_eq!(rest["restored"]["path"], "d", "{rest}");
    let left = rest["restored"]["left"].as_array().unwrap();
    assert!(
        left.iter()
            .all(|left| left["path"] == "d/plan" && left["code"] == "E_CONFLICT"),
        "{rest}"
    );
    let all = [
        ("d/plan", "made anew"),
        ("d/below/file", "file"),
        ("d/below/new", "new"),
        ("d/other", "other"),
    ];
    both_have(&a, &b, &all);
    // And beside it, if that is wanted.
    ask(&a, &["trash", "restore", "d", "--keep-both"]).exits(0);
    let found = files(&a);
    let texts: BTreeSet<&str> = found.values().map(String::as_str).collect();
    assert!(
        texts.is_superset(&["newer", "made anew"].into()),
        "{found:?}"
    );
    assert_eq!(found["d/plan"], "made anew");
    // What has nothing to come back is not found.
    ask(&a, &["trash", "restore", "d/other"]).exits(3);
}

#[test]
fn a_directory_of_more_than_a_commit_holds_comes_back_whole() {
    let world = World::new();
    let a = world.first("a");
    for i in 0..1_100 {
        a.write(&format!("d/{}/{i}", i % 3), "");
    }
    a.sync_once().exits(0);
    let all = files(&a);
    fs::remove_dir_all(a.folder.join("d")).unwrap();
    a.run(&[&["sync", "--once", "--yes"], &PASSWORD[..]].concat())
        .exits(0);
    let answer = ask(&a, &["trash", "restore", "d"]).exits(0).json();
    assert_eq!(answer["restored"]["below"], 1_103);
    assert_eq!(files(&a), all);
    assert_eq!(trash(&a), BTreeSet::new());
}

#[test]
fn what_the_server_has_no_content_of_is_named_and_the_rest_comes_back() {
    let mut world = World::new();
    let a = world.first("a");
    a.write("d/short", "short");
    a.sync_once().exits(0);
    // One of a few chunks, and one of so many that its op names lists of them.
    a.write("d/long", &"no longer in the log itself\n".repeat(5_000));
    let noise: Vec<u8> = (0..6_000_000_u32).flat_map(u32::to_le_bytes).collect();
    fs::write(a.folder.join("d/with lists"), noise).unwrap();
    a.sync_once().exits(0);
    delete(&a, "d");
    // A server that keeps them no longer, but for the lists.
    let address = world.address();
    world.stop_server();
    let db = rusqlite::Connection::open(world.path("server/syncagent.db")).unwrap();
    db.pragma_update(None, "foreign_keys", false).unwrap();
    let data =
        "DELETE FROM chunks WHERE NOT EXISTS (SELECT 1 FROM lists WHERE lists.id = chunks.id)";
    assert!(db.execute(data, []).unwrap() > 0);
    assert!(
        db.query_row("SELECT count(*) > 0 FROM chunks", [], |row| row
            .get::<_, bool>(0))
            .unwrap()
    );
    drop(db);
    world.start_server(&address);
    let answer = ask(&a, &["trash", "restore", "d"]).exits(1).json();
    let left = &answer["restored"]["left"];
    let named = |at: usize| (&left[at]["path"], &left[at]["code"]);
    let code = "E_MISSING".into();
    assert_eq!(left.as_array().unwrap().len(), 2, "{answer}");
    assert_eq!(named(0), (&"d/long".into(), &code), "{answer}");
    assert_eq!(named(1), (&"d/with lists".into(), &code), "{answer}");
    assert_eq!(files(&a), tree(&[("d/short", "short")]));
    let both = ["d/long", "d/with lists"].map(str::to_owned);
    assert_eq!(trash(&a), both.into());
}

#[test]
fn a_version_that_was_elsewhere_says_which_name_goes() {
    let (_world, a, b) = two();
    a.write("old", "one");
    a.sync_once().exits(0);
    fs::rename(a.folder.join("old"), a.folder.join("new")).unwrap();
    a.sync_once().exits(0);
    let first = versions(&a, "new").pop().unwrap();
    let version = ["restore", "new", "--version", &first];
    let foreseen = ask(&a, &[&version[..], &["--dry-run"]].concat()).exits(0);
    assert_eq!(foreseen.json()["restores"]["from"], "new");
    let dry = [&version[..], &["--dry-run"], &PASSWORD].concat();
    let said = a.run(&dry).exits(0).stdout;
    assert!(said.contains("move new to old"), "{said}");
    let said = a.run(&[&version[..], &PASSWORD].concat()).exits(0).stdout;
    assert!(
        said.starts_with("restored old") && said.contains("it is no longer new"),
        "{said}"
    );
    both_have(&a, &b, &[("old", "one")]);
    // Whole paths are understood here as elsewhere.
    let whole = a.folder.join("old").to_string_lossy().into_owned();
    assert_eq!(versions(&a, &whole), versions(&a, "old"));
    let listed = |path: &str| a.run(&["ls", path]).exits(0).stdout;
    assert_eq!(listed(&whole), listed("old"));
    let latest = versions(&a, &whole).remove(0);
    assert_eq!(
        brings(&a, &["restore", &whole, "--version", &latest]),
        "old"
    );
    let outside = a.run(&["versions", "/etc/passwd"]).exits(2).says("E_USAGE");
    outside.names("/etc/passwd is not in ");
}

#[test]
fn a_directory_whose_name_is_taken_comes_back_beside_and_says_where() {
    let (_world, a, b) = two();
    a.write("x/y/file", "file");
    a.sync_once().exits(0);
    delete(&a, "x");
    a.write("x", "a file by now");
    a.sync_once().exits(0);
    let path = brings(&a, &["trash", "restore", "x/y/file"]);
    assert!(
        path.starts_with("x.restored-") && path.ends_with("/y/file"),
        "{path}"
    );
    both_have(&a, &b, &[("x", "a file by now"), (&path, "file")]);
}

#[test]
fn a_version_does_not_push_away_what_has_its_place() {
    let (_world, a, b) = two();
    a.write("old", "one");
    a.sync_once().exits(0);
    fs::rename(a.folder.join("old"), a.folder.join("new")).unwrap();
    a.sync_once().exits(0);
    a.write("new", "two");
    a.write("old", "another");
    a.sync_once().exits(0);
    b.sync_once().exits(0);
    let first = versions(&a, "new").pop().unwrap();
    let version = ["restore", "new", "--version", &first];
    refuses(&a, &version);
    let beside = brings(&a, &[&version[..], &["--keep-both"]].concat());
    assert!(beside.starts_with("old.restored-"), "{beside}");
    both_have(&a, &b, &[("old", "another"), (&beside, "one")]);
    // In the place of the other one, which then is in the trash.
    let version = ["restore", &beside, "--version", &first, "--replace"];
    assert_eq!(brings(&a, &version), "old");
    both_have(&a, &b, &[("old", "one")]);
    assert_eq!(trash(&a), ["old".to_owned()].into());
    let replace = ["trash", "restore", "old", "--replace"];
    assert_eq!(brings(&b, &replace), "old");
    both_have(&b, &a, &[("old", "another")]);
}

#[test]
fn a_version_of_a_file_that_was_there_before_is_found_by_its_path() {
    let (_world, a, b) = two();
    a.write("plan", "one");
    a.sync_once().exits(0);
    a.write("plan", "two!");
    a.sync_once().exits(0);
    let first = versions(&a, "plan").pop().unwrap();
    delete(&a, "plan");
    // Of what lies in the trash.
    let version = ["restore", "plan", "--version", &first];
    assert_eq!(brings(&a, &version), "plan");
    both_have(&a, &b, &[("plan", "one")]);
    delete(&a, "plan");
    // And although another one has the path.
    a.write("plan", "another file");
    a.sync_once().exits(0);
    refuses(&a, &version);
    assert_eq!(brings(&a, &[&version[..], &["--replace"]].concat()), "plan");
    both_have(&a, &b, &[("plan", "one")]);
    let unknown = ask(&a, &["restore", "plan", "--version", "9999"]).exits(3);
    assert!(
        unknown.stdout.contains("syncagent versions"),
        "{}",
        unknown.stdout
    );
}

#[test]
fn a_directory_makes_room_with_all_that_is_in_it() {
    let (_world, a, b) = two();
    a.write("x", "file");
    a.sync_once().exits(0);
    delete(&a, "x");
    for name in ["x/one", "x/two", "x/below/three"] {
        a.write(name, name);
    }
    a.sync_once().exits(0);
    b.sync_once().exits(0);
    refuses(&a, &["trash", "restore", "x"]);
    // What nobody has heard of yet makes no room: the directory stays for it, and the file, too.
    b.write("x/unsent", "unsent");
    assert_eq!(brings(&a, &["trash", "restore", "x", "--replace"]), "x");
    assert_eq!(files(&a), tree(&[("x", "file")]));
    let gone = ["x", "x/one", "x/two", "x/below", "x/below/three"];
    assert!(trash(&a).is_superset(&gone.map(str::to_owned).into()));
    b.run(&["sync", "--once", "--password-file", "password"]);
    a.sync_once();
    b.sync_once();
    assert_eq!(files(&a), files(&b));
    let kept: BTreeSet<String> = files(&a).into_values().collect();
    assert_eq!(kept, ["file", "unsent"].map(str::to_owned).into());
    // And each of them comes back, wherever its directory is by now.
    for end in ["/one", "/below/three"] {
        let trashed = trash(&a);
        let name = trashed.iter().find(|path| path.ends_with(end)).unwrap();
        let path = brings(&a, &["trash", "restore", name, "--keep-both"]);
        let text = a.read(&path).unwrap();
        assert!(
            text.starts_with("x/") && text.ends_with(end),
            "{path}: {text}"
        );
    }
}

#[test]
fn more_than_a_commit_holds_does_not_make_room() {
    let world = World::new();
    let a = world.first("a");
    a.write("x", "file");
    a.sync_once().exits(0);
    delete(&a, "x");
    for i in 0..1_100 {
        a.write(&format!("x/{i}"), "");
    }
    a.sync_once().exits(0);
    refuses(&a, &["trash", "restore", "x", "--replace"]);
    let path = brings(&a, &["trash", "restore", "x", "--keep-both"]);
    assert_eq!(a.read(&path).as_deref(), Some("file"));
    assert_eq!(files(&a).len(), 1_101);
}

#[test]
fn what_hung_too_deep_for_one_commit_comes_into_the_root() {
    let world = World::new();
    let a = world.first("a");
    let deep = "d/".repeat(1_100);
    a.write(&format!("{deep}file"), "deep");
    a.sync_once().exits(0);
    let file = id(&a, &format!("{deep}file"));
    delete(&a, "d");
    let path = brings(&a, &["trash", "restore", file.as_str().unwrap()]);
    assert_eq!(path, "file");
    assert_eq!(files(&a), tree(&[("file", "deep")]));
}

#[test]
fn what_nobody_has_heard_of_survives_in_the_place() {
    for way in [&[][..], &["--keep-both"], &["--replace"]] {
        // Of a file that stands there anew, and of one that was edited.
        for is_edit in [false, true] {
            let (_world, a, b) = two();
            a.write("plan", "first");
            a.sync_once().exits(0);
            a.write("plan", "second");
            a.sync_once().exits(0);
            let first = versions(&a, "plan").pop().unwrap();
            let restore = match is_edit {
                true => vec!["restore", "plan", "--version", &first],
                false => {
                    delete(&a, "plan");
                    vec!["trash", "restore", "plan"]
                }
            };
            a.write("plan", "unsent");
            ask(&a, &[&restore[..], way].concat()).exits(0);
            let restored = if is_edit { "first" } else { "second" };
            b.sync_once();
            a.sync_once();
            b.sync_once();
            let found = files(&a);
            assert_eq!(found, files(&b), "{restore:?} {way:?}");
            let texts: Vec<&str> = found.values().map(String::as_str).collect();
            assert!(
                texts.contains(&restored) && texts.contains(&"unsent"),
                "{restore:?} {way:?}: {found:?}"
            );
        }
    }
}
