//! The commands that scripts and packagers rely on, in their order and exactly as they are promised.

use std::fs;

use serde_json::Value;

use crate::world::{World, command, keys, run};

#[test]
fn the_scripted_use_works_line_by_line() {
    let world = World::new();
    let data = world.path("server").canonicalize().unwrap();
    assert_eq!(
        world.announced,
        format!("listening on {}, data in {}\n", world.url, data.display())
    );

    let a = world.machine("a");
    let init = a.run(&[
        "init",
        "--password-file",
        "password",
        "--cloud-slot",
        "--dedup",
        "vault",
        "--recovery-file",
        "code",
    ]);
    assert_eq!(init.exits(0).stdout, "");
    assert_eq!(
        fs::read_to_string(world.path("code")).unwrap().trim().len(),
        44
    );
    world.register(&a);
    let export = a.with_passwords("export-key").exits(0).stdout;
    assert!(export.ends_with('\n') && export.lines().count() == 1);
    let b = world.next("b", &a);

    a.write("docs/plan.md", "one");
    a.write("gone.txt", "gone");
    a.sync_once().exits(0);
    b.sync_once().exits(0);
    assert_eq!(
        (
            b.read("docs/plan.md").as_deref(),
            b.read("gone.txt").as_deref()
        ),
        (Some("one"), Some("gone"))
    );

    let status = a.status();
    let promised = [
        "state",
        "pending",
        "errors",
        "skipped",
        "conflicts",
        "held",
        "head",
        "files",
        "last_sync",
        "running",
        "recovery_tested",
    ];
    assert!(
        promised.iter().all(|key| keys(&status).contains(key)),
        "{status}"
    );
    assert_eq!(
        (&status["state"], &status["pending"], &status["files"]),
        (&"idle".into(), &0.into(), &2.into())
    );
    assert_eq!(status["head"]["hash"].as_str().unwrap().len(), 64);
    assert!(status["held"].is_null() && status["last_sync"].as_u64().is_some());
    assert!(
        ["errors", "skipped", "conflicts"]
            .iter()
            .all(|key| status[key] == Value::Array(Vec::new()))
    );

    // Trash: gone, listed, back.
    fs::remove_file(b.folder.join("gone.txt")).unwrap();
    b.sync_once().exits(0);
    a.sync_once().exits(0);
    assert_eq!(a.names(), ["docs"]);
    let trash = a.run(&["trash", "list", "--json"]).exits(0).json();
    assert_eq!(
        (
            trash["trash"].as_array().unwrap().len(),
            &trash["trash"][0]["path"]
        ),
        (1, &"gone.txt".into())
    );
    assert_eq!(trash["trash"][0]["machine"], "b-machine");
    a.run(&[
        "trash",
        "restore",
        "gone.txt",
        "--password-file",
        "password",
    ])
    .exits(0);
    assert_eq!(a.read("gone.txt").as_deref(), Some("gone"));
    assert_eq!(
        a.run(&["trash", "list", "--json"]).json()["trash"],
        Value::Array(Vec::new())
    );

    // Something in the place: refused, beside it, instead of it.
    fs::remove_file(a.folder.join("gone.txt")).unwrap();
    a.sync_once().exits(0);
    a.write("gone.txt", "new");
    a.sync_once().exits(0);
    let refused = a
        .run(&[
            "trash",
            "restore",
            "gone.txt",
            "--password-file",
            "password",
        ])
        .exits(5)
        .says("E_CONFLICT");
    assert!(refused.stderr.contains("--keep-both") && refused.stderr.contains("--replace"));
    a.run(&[
        "trash",
        "restore",
        "gone.txt",
        "--keep-both",
        "--password-file",
        "password",
    ])
    .exits(0);
    assert_eq!(a.read("gone.txt").as_deref(), Some("new"));
    assert!(
        a.names()
            .iter()
            .any(|name| name.starts_with("gone.restored-") && name.ends_with(".txt")),
        "{:?}",
        a.names()
    );

    // Versions.
    b.sync_once().exits(0);
    b.write("docs/plan.md", "two");
    b.sync_once().exits(0);
    a.sync_once().exits(0);
    assert_eq!(a.read("docs/plan.md").as_deref(), Some("two"));
    let versions = a
        .run(&["versions", "docs/plan.md", "--json"])
        .exits(0)
        .json();
    let rows = versions["versions"].as_array().unwrap();
    let seen: Vec<_> = rows
        .iter()
        .map(|row| {
            (
                row["machine"].as_str().unwrap(),
                row["size"].as_u64().unwrap(),
            )
        })
        .collect();
    assert_eq!(seen, [("b-machine", 3), ("a-machine", 3)]);
    let first = rows[1]["version"].to_string();
    a.run(&[
        "restore",
        "docs/plan.md",
        "--version",
        &first,
        "--password-file",
        "password",
    ])
    .exits(0);
    assert_eq!(a.read("docs/plan.md").as_deref(), Some("one"));

    // Conflicts.
    b.sync_once().exits(0);
    a.write("docs/plan.md", "from a");
    b.write("docs/plan.md", "from b");
    a.sync_once().exits(0);
    b.sync_once().exits(10);
    assert_eq!(b.read("docs/plan.md").as_deref(), Some("from a"));
    let conflicts = b.run(&["conflicts", "list", "--json"]).exits(0).json();
    let conflict = &conflicts["conflicts"][0];
    assert_eq!(conflict["path"], "docs/plan.md");
    assert_eq!(
        b.read(conflict["copy_path"].as_str().unwrap()).as_deref(),
        Some("from b")
    );
    let status = b.run(&["status", "--json"]).exits(10).json();
    assert_eq!(
        (
            &status["state"],
            status["conflicts"].as_array().unwrap().len()
        ),
        (&"conflict".into(), 1)
    );
}

#[test]
fn json_is_all_that_is_on_stdout() {
    let world = World::new();
    let a = world.machine("a");
    let made = a
        .run(&["--json", "init", "--password-file", "password"])
        .exits(0)
        .json();
    assert_eq!(keys(&made), ["cloud_slot", "recovery_code", "vault"]);
    let token = world.invite();
    let folder = a.folder.to_str().unwrap();
    let registered = a.run(&[
        "register", "--server", &world.url, "--token", &token, "--name", "anna", "--folder",
        folder, "--json",
    ]);
    assert_eq!(
        keys(&registered.exits(0).json()),
        ["folder", "head", "name", "server", "vault"]
    );
    a.write("x", "x");
    let synced = a
        .run(&["sync", "--once", "--password-file", "password", "--json"])
        .exits(0)
        .json();
    assert_eq!(
        keys(&synced),
        [
            "bytes_sent",
            "conflicts",
            "exit",
            "fetched",
            "removed",
            "sent",
            "status"
        ]
    );
    let file = &["exec", "id", "kind", "modified", "mtime_ns", "path", "size"];
    let listed = a.run(&["ls", "--json"]).exits(0).json();
    assert_eq!(
        (keys(&listed), keys(&listed["entries"][0])),
        (vec!["entries", "head", "unplaced"], file.to_vec())
    );
    let version = &[
        "action",
        "available",
        "machine",
        "path",
        "size",
        "time",
        "time_ms",
        "version",
    ];
    let versions = a.run(&["versions", "x", "--json"]).exits(0).json();
    assert_eq!(
        (keys(&versions), keys(&versions["versions"][0])),
        (vec!["id", "path", "versions"], version.to_vec())
    );
    let machines = a.run(&["machines", "--json"]).exits(0).json();
    let machine = &[
        "files",
        "id",
        "last_seen",
        "last_seen_ms",
        "member",
        "name",
        "platform",
        "removal_signed",
        "removed",
        "state",
        "synced_n",
        "this",
    ];
    assert_eq!(
        (keys(&machines), keys(&machines["machines"][0])),
        (vec!["machines"], machine.to_vec())
    );
    assert_eq!(machines["machines"][0]["name"], "anna");
    let words = a.run(&["fingerprint", "--json"]).exits(0).json();
    assert_eq!(
        (keys(&words), words["words"].as_array().unwrap().len()),
        (vec!["head", "vault", "words"], 6)
    );
    let ignored = a
        .run(&["ignore", "check", "x", ".DS_Store", "--json"])
        .exits(0)
        .json();
    assert_eq!(
        (
            &ignored["paths"][0]["ignored"],
            &ignored["paths"][1]["source"]
        ),
        (&false.into(), &"built in".into())
    );
    assert_eq!(
        a.run(&["paths", "--json"]).exits(0).json()["folder"],
        folder
    );
    assert_eq!(
        keys(
            &a.run(&[
                "export-key",
                "--password-file",
                "password",
                "--export-password-file",
                "export-password",
                "--json"
            ])
            .json()
        ),
        ["export"]
    );
    let invitation =
        run(command(world.dir()).args(["server", "invite", "--data", "server", "--json"]))
            .exits(0)
            .json();
    assert_eq!(keys(&invitation), ["expires_in_s", "invitation"]);
    // An error is JSON, too.
    let error = a
        .run(&["ls", "nothing/here", "--json"])
        .exits(3)
        .says("E_NOT_FOUND")
        .json();
    assert_eq!(
        (keys(&error["error"]), &error["error"]["exit"]),
        (vec!["code", "exit", "message"], &3.into())
    );
}

/// The names in the first `{...}` of a row of the page's table, and whether each is always there.
fn documented(page: &str, verb: &str) -> Vec<(String, bool)> {
    let (alone, first) = (format!("| `{verb}` |"), format!("| `{verb}`, "));
    let second = format!(", `{verb}` |");
    let names_it = |line: &&str| {
        line.starts_with(&alone)
            || line.starts_with(&first)
            || line.contains(&second)
            || line.starts_with(&format!("| `{verb}` / "))
    };
    let row = page
        .lines()
        .filter(|line| line.contains("| `{"))
        .find(names_it);
    let shape = row
        .unwrap_or_else(|| panic!("{verb} has no row"))
        .split_once("| `{")
        .unwrap()
        .1;
    let (mut depth, mut names, mut name) = (0, Vec::new(), String::new());
    for c in shape.chars() {
        match c {
            '{' | '[' => depth += 1,
            '}' | ']' if depth > 0 => depth -= 1,
            ',' | '}' if depth == 0 => {
                let key = name.split(':').next().unwrap().trim();
                names.push((key.trim_end_matches('?').to_owned(), !key.ends_with('?')));
                name.clear();
                if c == '}' {
                    return names;
                }
            }
            _ if depth == 0 => name.push(c),
            _ => {}
        }
    }
    panic!("{verb}: {shape}");
}

#[test]
fn the_page_names_what_json_has() {
    let page =
        fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/cli.md")).unwrap();
    let world = World::new();
    let a = world.first("a");
    for text in ["one", "two"] {
        a.write("x", text);
        a.sync_once().exits(0);
    }
    fs::remove_file(a.folder.join("x")).unwrap();
    a.write("y", "y");
    for (verb, more, with_password) in [
        ("sync --once --dry-run", &[][..], true),
        ("sync --once", &[], true),
        ("status", &[], false),
        ("ls", &[], false),
        ("versions", &["y"], false),
        ("trash list", &[], false),
        ("trash restore --dry-run", &["x"], true),
        ("trash restore", &["x"], true),
        ("conflicts list", &[], false),
        ("machines", &[], false),
        ("fingerprint", &[], false),
        ("explain", &["y"], false),
        ("ignore check", &["y"], false),
        ("recover", &["--dry-run"], true),
        ("verify", &[], true),
        ("doctor", &[], false),
        ("paths", &[], false),
        ("reset", &["--yes"], false),
        ("export-key", &["--export-password-file", "password"], true),
        ("lock", &[], false),
    ] {
        let mut line: Vec<&str> = verb.split(' ').collect();
        line.extend(more);
        line.push("--json");
        if with_password {
            line.extend(["--password-file", "password"]);
        }
        let answer = a.run(&line).json();
        let told = documented(&page, verb);
        let here = keys(&answer);
        for (key, is_always) in &told {
            assert!(
                !is_always || here.contains(&key.as_str()),
                "{verb}: no {key} in {answer}"
            );
        }
        for key in here {
            assert!(
                told.iter().any(|(told, _)| told == key),
                "{verb}: {key} is not told of"
            );
        }
    }
}
