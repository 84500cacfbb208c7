//! Compares and merges short texts, line by line.
//!
//! Nothing here is about files or the vault: texts in, text out. What is too long to be compared in reasonable time and
//! memory, or no text at all, is said to be so.

use std::fmt;
use std::ops::Range;

use diffy::{DiffOptions, MergeOptions};
use serde::{Deserialize, Serialize};

/// The longest text that is compared, in bytes.
pub const MAX_LEN: u64 = 1024 * 1024;
/// The most lines of a text that is compared: with very different texts, the time grows with their square.
pub const MAX_LINES: usize = 10_000;

/// Why something is not compared line by line.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum NoText {
    /// It is longer than [`MAX_LEN`], or has more than [`MAX_LINES`] lines.
    Long,
    /// It is not UTF-8, or holds NUL.
    Binary,
}

impl fmt::Display for NoText {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Long => write!(
                f,
                "at least one version is longer than {} MiB or {MAX_LINES} lines",
                MAX_LEN / (1024 * 1024)
            ),
            Self::Binary => f.write_str("at least one version is no text"),
        }
    }
}

/// The text that these bytes are.
pub fn of(bytes: &[u8]) -> Result<&str, NoText> {
    if bytes.len() as u64 > MAX_LEN {
        return Err(NoText::Long);
    }
    let text = std::str::from_utf8(bytes).map_err(|_| NoText::Binary)?;
    if text.contains('\0') {
        return Err(NoText::Binary);
    }
    if text.lines().count() > MAX_LINES {
        return Err(NoText::Long);
    }
    Ok(text)
}

/// The difference in the unified form, with three lines of context; empty if there is none.
pub fn unified(old: &str, new: &str, old_name: &str, new_name: &str) -> String {
    if old == new {
        return String::new();
    }
    let mut options = DiffOptions::new();
    options
        .set_original_filename(old_name.to_owned())
        .set_modified_filename(new_name.to_owned());
    options.create_patch(old, new).to_string()
}

/// Lines that both sides changed, each in its own way. Counted from 1; an empty span stands before its first line.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Clash {
    /// In the text under the name.
    pub theirs: Range<usize>,
    /// In the copy.
    pub mine: Range<usize>,
}

/// Both changes in one text, or where they clash (diff3: changes of the same lines of `base`).
pub fn merge(base: &str, theirs: &str, mine: &str) -> Result<String, Vec<Clash>> {
    let merged = MergeOptions::new().merge(base, theirs, mine);
    merged.map_err(|_| clashes(base, theirs, mine))
}

/// A change of some lines of the base, which may be none. From 0.
struct Change<'a> {
    base: Range<usize>,
    lines: Range<usize>,
    text: Vec<&'a str>,
}

fn changes<'a>(base: &str, changed: &'a str) -> Vec<Change<'a>> {
    let patch = DiffOptions::new()
        .set_context_len(0)
        .create_patch(base, changed);
    let lines: Vec<&str> = changed.split_inclusive('\n').collect();
    // A range of no lines names the line before it, any other its first.
    let span = |start: usize, len: usize| match len {
        0 => start..start,
        _ => start.saturating_sub(1)..(start + len).saturating_sub(1),
    };
    let change = |hunk: &diffy::Hunk<'_, str>| {
        let (old, new) = (hunk.old_range(), hunk.new_range());
        let at = span(new.start(), new.len());
        Change {
            base: span(old.start(), old.len()),
            text: lines.get(at.clone()).unwrap_or_default().to_vec(),
            lines: at,
        }
    };
    patch.hunks().iter().map(change).collect()
}

fn clashes(base: &str, theirs: &str, mine: &str) -> Vec<Clash> {
    let (theirs, mine) = (changes(base, theirs), changes(base, mine));
    let meet = |a: &Change<'_>, b: &Change<'_>| {
        let same = a.base == b.base && a.text == b.text;
        // Also side by side: nobody can say which of the two comes first.
        !same && a.base.start <= b.base.end && b.base.start <= a.base.end
    };
    let mut found: Vec<Clash> = Vec::new();
    let mut rest = mine.as_slice();
    for a in &theirs {
        while let Some((first, after)) = rest.split_first()
            && first.base.end < a.base.start
        {
            rest = after;
        }
        let near = rest.iter().take_while(|b| b.base.start <= a.base.end);
        for b in near.filter(|b| meet(a, b)) {
            let (theirs, mine) = (counted(&a.lines), counted(&b.lines));
            match found.last_mut() {
                // One long change may meet several of the other side.
                Some(last) if last.theirs == theirs => last.mine.end = mine.end,
                Some(last) if last.mine == mine => last.theirs.end = theirs.end,
                _ => found.push(Clash { theirs, mine }),
            }
        }
    }
    found
}

fn counted(lines: &Range<usize>) -> Range<usize> {
    lines.start + 1..lines.end + 1
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_short_text_is_said_to_be_so() {
        assert_eq!(of("grün\n".as_bytes()), Ok("grün\n"));
        assert_eq!(of(b"a\0b"), Err(NoText::Binary));
        assert_eq!(of(&[0xff, b'a']), Err(NoText::Binary));
        let long = vec![b'a'; MAX_LEN as usize + 1];
        assert!(of(&long[1..]).is_ok());
        assert_eq!(of(&long), Err(NoText::Long));
        let lines = "\n".repeat(MAX_LINES + 1);
        assert!(of(&lines.as_bytes()[1..]).is_ok());
        assert_eq!(of(lines.as_bytes()), Err(NoText::Long));
    }

    #[test]
    fn a_difference_in_the_unified_form() {
        assert_eq!(unified("a\n", "a\n", "x", "y"), "");
        assert_eq!(
            unified("a\nb\n", "a\nc\n", "x", "y"),
            "--- x\n+++ y\n@@ -1,2 +1,2 @@\n a\n-b\n+c\n"
        );
    }

    #[test]
    fn changes_of_different_lines_come_together() {
        let base = "one\ntwo\nthree\nfour\nfive\n";
        let theirs = "ONE\ntwo\nthree\nfour\nfive\n";
        let mine = "one\ntwo\nthree\nfour\nfive\nsix\n";
        let both = "ONE\ntwo\nthree\nfour\nfive\nsix\n";
        assert_eq!(merge(base, theirs, mine), Ok(both.to_owned()));
        assert_eq!(merge(base, mine, theirs), Ok(both.to_owned()));
        // The same change on both sides is one.
        assert_eq!(merge(base, theirs, theirs), Ok(theirs.to_owned()));
    }

    #[test]
    fn clashes_are_named_by_their_lines() {
        let base = "1\n2\n3\n4\n5\n6\n7\n8\n9\n";
        let theirs = "0\n1\n2\ntheirs\n4\n5\n6\n7\n8\n";
        let mine = "1\n2\nmine\nand mine\n4\n5\n6\n7\n8\nnine\n";
        let clash = |theirs, mine| Clash { theirs, mine };
        assert_eq!(
            merge(base, theirs, mine),
            Err(vec![clash(4..5, 3..5), clash(10..10, 10..11)])
        );
        // Nothing in common at all.
        assert_eq!(merge("", "a\n", "b\nc\n"), Err(vec![clash(1..2, 1..3)]));
    }

    #[test]
    fn texts_that_differ_in_every_line_come_to_an_end() {
        let lines =
            |word: &str| -> String { (0..MAX_LINES).map(|i| format!("{word} {i}\n")).collect() };
        let (base, theirs, mine) = (lines("base"), lines("theirs"), lines("mine"));
        // The worst case of the longest texts: seconds, not hours.
        assert_eq!(merge(&base, &theirs, &mine).unwrap_err().len(), 1);
    }
}
