//! Whatever stands in a `.syncignore`: nothing panics, no line takes another one with it, and memory stays bounded.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

#[path = "../../vault/tests/fuzz/engine.rs"]
mod engine;

use syncagent_protocol::TreePath;
use syncagent_sync::ignore::{Ignore, SHARED, Verdict};

use engine::{fuzz, within};

const MIB: usize = 1 << 20;

fn path(text: &str) -> TreePath {
    TreePath::parse(text).unwrap()
}

fn is_ignored(ignore: &Ignore, text: &str) -> bool {
    ignore.check(&path(text), false) != Verdict::Kept
}

/// What is wrong with a line, without the line.
fn kind(reason: &str) -> &str {
    let reason = reason.rsplit("': ").next().unwrap_or(reason);
    reason.split([';', '(']).next().unwrap_or(reason)
}

#[test]
fn syncignore() {
    let known: Vec<Vec<u8>> = [
        "# note\n*.log\n!keep.log\n/build/\n!.DS_Store\n*.{tmp\n",
        "\u{feff}a\r\nb/\r\n",
        "**/x/**\n[a-z]*.[!b]\n\\#a\n\\!b\nc\\ \n",
        "{a,b}{c,{d,e}}*?\n[\n[z-a]\n{\n\\\n",
        "!.syncagent\n!*.syncagent-tmp\n!/**\n",
        "{{{{a,b},c},d},e}\n[[:alpha:]]\n***\n**a**\n",
        "*?*?*?*?*?*?*?*?*?*?*?*?\n{*,?}{*,?}{*,?}{*,?}\n",
    ]
    .map(|text| text.as_bytes().to_vec())
    .into();
    fuzz("syncignore", known, 2_000, |input, dice| {
        let input = &input[..input.len().min(4096)];
        let text = format!("{}\nthe last line\n", String::from_utf8_lossy(input));
        let mut ignore = Ignore::new(dice.one_in(2));
        // A line becomes a program for matching it, which the library limits to 10 MiB; it is made in a few steps.
        let bad = within(64 * MIB, || ignore.set_file(&path(SHARED), &text));
        let lines = text.lines().count();
        assert!(
            bad.iter().all(|bad| (1..lines).contains(&bad.line)),
            "what is wrong has a place: {bad:?}"
        );
        assert!(
            is_ignored(&ignore, "the last line"),
            "a good line went with a bad one: {bad:?}"
        );
        for fixed in [".syncagent", ".syncagent/key", "a.syncagent-tmp"] {
            assert!(is_ignored(&ignore, fixed), "{fixed} is never synchronised");
        }
        let mut answers = 0;
        for asked in [
            "a",
            "b/c",
            "a.log",
            "d/e/f.tmp",
            "keep.log",
            "ä/\u{202e}",
            &"x".repeat(300),
        ] {
            if let Verdict::Ignored { source, line, .. } = ignore.check(&path(asked), false) {
                assert!(
                    source != SHARED || (1..=lines).contains(&line),
                    "{asked}: {line}"
                );
                answers += 1;
            }
        }
        match bad.first() {
            None => Ok(format!("{answers} ignored")),
            Some(bad) => Err(kind(&bad.reason).to_owned()),
        }
    });
}

/// A program for matching has a greatest size, which one line can exceed, or many together.
#[test]
fn rules_too_large_for_one_program_hold_all_the_same() {
    let many: String = (0..20_000).map(|i| format!("*{i}?x*y[a-f]z\n")).collect();
    let nested = format!("{}a{}", "{a,".repeat(400), "}".repeat(400));
    for (text, bad_lines) in [(many, 0), ("?".repeat(400_000), 1), (nested, 1)] {
        let mut ignore = Ignore::new(false);
        let text = format!("first\nkept\n{}\n!kept\nlast\n", text.trim_end());
        let bad = ignore.set_file(&path(SHARED), &text);
        assert_eq!(
            bad.iter().map(|bad| bad.line).collect::<Vec<_>>(),
            vec![3; bad_lines]
        );
        assert!(is_ignored(&ignore, "first") && is_ignored(&ignore, "last"));
        assert!(
            !is_ignored(&ignore, "kept"),
            "the last line that matches wins"
        );
    }
}
