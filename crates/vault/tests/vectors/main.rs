//! Does this implementation agree with the one that was written from docs/format.md alone?
//!
//! Each file of `vectors/v1` has a module here: `case` compares everything a case states, `refuse` reads
//! what must be refused, and `code` says with which stable code.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod harness;

macro_rules! files {
    ($($file:ident),* $(,)?) => {
        $(
            mod $file;

            #[test]
            fn $file() {
                harness::check(
                    &harness::load(stringify!($file)),
                    $file::case,
                    $file::refuse,
                    $file::code,
                );
            }
        )*

        #[test]
        fn every_file_has_a_test() {
            assert_eq!(harness::files(), [$(stringify!($file)),*]);
        }
    };
}

/// A file that lost its must-fail cases would otherwise pass.
#[test]
fn what_must_fail_is_plenty_and_each_has_a_name_of_its_own() {
    let mut names = std::collections::BTreeSet::new();
    let mut count = 0;
    for file in harness::files() {
        let vectors = harness::load(&file);
        for case in vectors["must_fail"].as_array().into_iter().flatten() {
            let (name, rule) = (case["name"].as_str(), case["rule"].as_str());
            assert!(
                rule.is_some_and(|rule| !rule.is_empty()),
                "{file}: {name:?}"
            );
            names.insert((file.clone(), name.unwrap().to_owned()));
            count += 1;
        }
    }
    assert_eq!(names.len(), count, "two of one name");
    assert!(count >= 60, "{count} are left");
}

// In the order of their names.
files!(
    chunk, chunker, classes, commit, event, export, invitation, keys, list_chunk, manifest, names,
    op, pack, padding, recovery, slot,
);
