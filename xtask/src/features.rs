//! The tables of features, of failures and of lies and the page of invariants name tests. Here it is seen that they exist.

use std::fs;
use std::path::Path;

/// What a table cell names, in backticks and with a slash: `file::function`, a file, or a directory.
fn named(table: &str) -> Vec<&str> {
    table
        .lines()
        .filter(|line| line.starts_with('|'))
        .filter_map(|line| line.trim_end_matches('|').rsplit_once('|'))
        .flat_map(|(_, tests)| tests.split('`').skip(1).step_by(2))
        .collect()
}

#[test]
fn every_test_that_is_named_exists() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
    let read = |page: &str| fs::read_to_string(root.join(page)).unwrap();
    let (features, failures, sync) = (
        read("docs/features.md"),
        read("docs/failures.md"),
        read("docs/sync.md"),
    );
    let testing = read("docs/testing.md");
    let lies = testing
        .split("\n## ")
        .find(|part| part.starts_with("Lies\n"));
    // The invariants name theirs in their text.
    let quoted = sync.split('`').skip(1).step_by(2);
    let of_sync: Vec<&str> = quoted.filter(|name| name.contains(".rs::")).collect();
    let pages = [
        (named(&features), 20),
        (named(&failures), 20),
        (named(lies.unwrap()), 30),
        (of_sync, 28),
    ];
    for (names, at_least) in pages {
        assert!(names.len() >= at_least, "a page was not read: {names:?}");
        for name in names {
            let (path, function) = name.split_once("::").unwrap_or((name, ""));
            assert!(root.join(path).exists(), "{name}: there is no {path}");
            if !function.is_empty() {
                let text = fs::read_to_string(root.join(path)).unwrap();
                assert!(
                    text.contains(&format!("fn {function}(")),
                    "{name}: no such function"
                );
            }
        }
    }
}

#[test]
fn a_row_without_a_test_is_marked() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
    let table = fs::read_to_string(root.join("docs/features.md")).unwrap();
    for line in table.lines().filter(|line| line.starts_with('|')) {
        let cells: Vec<&str> = line.split('|').map(str::trim).collect();
        match cells[..] {
            [_, _, "state" | "---", _, _] => {}
            [_, _, "done" | "part", tests, _] => assert!(!tests.is_empty(), "no test: {line}"),
            [_, _, "not yet", tests, _] => assert!(tests.is_empty(), "has a test: {line}"),
            _ => panic!("no such state: {line}"),
        }
    }
}

#[test]
fn names_are_read_from_the_last_cell() {
    assert_eq!(
        named("| `sync` | done | `a/b.rs::c`, `d/e.py` |\n| x | not yet | |\n`f`\n"),
        ["a/b.rs::c", "d/e.py"]
    );
}
