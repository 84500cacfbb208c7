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

// In the order of their names.
files!(
    chunk, chunker, classes, commit, event, export, invitation, keys, list_chunk, manifest, names,
    op, pack, padding, recovery, slot,
);
