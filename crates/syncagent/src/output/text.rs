//! Sizes, times and columns as people read them.

use std::borrow::Cow;

use syncagent_protocol::TreePath;
use syncagent_protocol::name::steers;
use syncagent_sync::Utc;
use textwrap::{Options, WordSplitter, WrapAlgorithm};

/// `1.4 MiB`.
pub(crate) fn size(bytes: u64) -> String {
    let units = ["B", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB"];
    let mut value = bytes as f64;
    let mut unit = 0;
    // From 1023.95 on, one decimal would round to 1024.0.
    while value >= 1023.95 && unit + 1 < units.len() {
        value /= 1024.0;
        unit += 1;
    }
    match unit {
        0 => format!("{bytes} B"),
        _ => format!("{value:.1} {}", units[unit]),
    }
}

/// `2026-01-02 03:04:05Z`.
pub(crate) fn time(ms: u64) -> String {
    Utc::from_unix_s((ms / 1000).cast_signed()).to_string()
}

/// `2026-01-02T03:04:05.678Z` (RFC 3339).
pub(crate) fn rfc3339(ms: u64) -> String {
    format!(
        "{}.{:03}Z",
        time(ms).replace(' ', "T").trim_end_matches('Z'),
        ms % 1000
    )
}

/// `3 min ago`.
pub(crate) fn ago(then_ms: u64, now_ms: u64) -> String {
    match now_ms.saturating_sub(then_ms) / 1000 {
        0..10 => "just now".to_owned(),
        seconds => format!("{} ago", span(seconds)),
    }
}

/// `3 min`.
pub(crate) fn span(seconds: u64) -> String {
    match seconds {
        0..120 => format!("{seconds} s"),
        120..7_200 => format!("{} min", seconds / 60),
        7_200..172_800 => format!("{} h", seconds / 3600),
        _ => format!("{} days", seconds / 86_400),
    }
}

/// A path of the vault, or a name that is none, without anything that could steer a terminal.
pub(crate) fn shown(path: &str) -> String {
    TreePath::parse(path).map_or_else(|_| path.escape_debug().to_string(), |path| path.to_string())
}

/// Text as it may go to a terminal, whoever wrote parts of it: what would steer one is escaped as `\u{..}`, all but line
/// breaks and tabs.
pub(crate) fn harmless(text: &str) -> Cow<'_, str> {
    let does = |c: char| steers(c) && c != '\n' && c != '\t';
    if !text.contains(does) {
        return Cow::Borrowed(text);
    }
    let mut out = String::with_capacity(text.len() + 64);
    for c in text.chars() {
        match does(c) {
            true => out.extend(c.escape_unicode()),
            false => out.push(c),
        }
    }
    Cow::Owned(out)
}

/// The same for JSON, which is the same to whoever parses it.
pub(crate) fn harmless_json(json: &str) -> String {
    let mut out = String::with_capacity(json.len());
    for c in json.chars() {
        match steers(c) {
            // All of them are in strings, and have four digits at most.
            true => out.push_str(&format!("\\u{:04x}", u32::from(c))),
            false => out.push(c),
        }
    }
    out
}

/// `1 file`, `2 files`.
pub(crate) fn count(n: u64, one: &str) -> String {
    match n {
        1 => format!("1 {one}"),
        n if one.ends_with('y') => format!("{n} {}ies", one.trim_end_matches('y')),
        n => format!("{n} {one}s"),
    }
}

/// Rows in aligned columns, two spaces apart; the last one is left as it is.
pub(crate) fn table(rows: &[Vec<String>]) -> String {
    let columns = rows.iter().map(Vec::len).max().unwrap_or(0);
    let width = |column: usize| {
        rows.iter()
            .filter_map(|row| row.get(column))
            .map(|cell| cell.chars().count())
            .max()
            .unwrap_or(0)
    };
    let widths: Vec<usize> = (0..columns).map(width).collect();
    let mut text = String::new();
    for row in rows {
        let mut line = String::new();
        for (i, cell) in row.iter().enumerate() {
            line.push_str(cell);
            if i + 1 < row.len() {
                line.extend(std::iter::repeat_n(
                    ' ',
                    widths[i] - cell.chars().count() + 2,
                ));
            }
        }
        text.push_str(line.trim_end());
        text.push('\n');
    }
    text
}

/// Lines of at most `width` columns, broken between words and nowhere else: paths and flags can be copied as they are.
/// What follows a break stands two columns farther in than the line began.
pub(crate) fn wrapped(text: &str, width: usize) -> String {
    let lines = text.split('\n').map(|line| {
        let words = line.trim_start_matches(' ');
        let begin = &line[..line.len() - words.len()];
        broken(words, width, begin, &format!("{begin}  "))
    });
    lines.collect::<Vec<_>>().join("\n")
}

/// What stands `indent` columns in, behind a name, broken in the same way; all of it stays there.
pub(crate) fn hanging(text: &str, width: usize, indent: usize) -> String {
    let begin = " ".repeat(indent);
    broken(text, width, &begin, &begin)
        .trim_start_matches(' ')
        .to_owned()
}

fn broken(words: &str, width: usize, begin: &str, later: &str) -> String {
    let options = Options::new(width)
        .initial_indent(begin)
        .subsequent_indent(later)
        .break_words(false)
        .wrap_algorithm(WrapAlgorithm::FirstFit)
        .word_splitter(WordSplitter::NoHyphenation);
    textwrap::wrap(words, options).join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn long_lines_break_between_words() {
        for (text, width, want) in [
            ("", 10, ""),
            ("\nshort\n", 10, "\nshort\n"),
            ("one two three four", 10, "one two\n  three\n  four"),
            ("  one two three", 10, "  one two\n    three"),
            // A path, a flag: longer than a line or with hyphens, and whole.
            (
                "see notes/a-very-long-name.txt now",
                10,
                "see\n  notes/a-very-long-name.txt\n  now",
            ),
            ("say --keep-both", 10, "say\n  --keep-both"),
            // Two columns each.
            ("日本語 日本語", 10, "日本語\n  日本語"),
            ("one  two", 80, "one  two"),
        ] {
            assert_eq!(wrapped(text, width), want, "{text:?}");
        }
    }

    #[test]
    fn what_stands_behind_a_name_stays_there() {
        for (text, want) in [
            ("", ""),
            ("one", "one"),
            ("one two three", "one two\n    three"),
            ("a/very-long-name now", "a/very-long-name\n    now"),
        ] {
            assert_eq!(hanging(text, 12, 4), want, "{text:?}");
        }
    }

    #[test]
    fn nothing_that_is_shown_steers_a_terminal() {
        let text = "\r\x1b[2Kin sync\u{9b}2K\u{202e}\n\tgrün\n";
        let shown = harmless(text);
        assert_eq!(shown, "\\u{d}\\u{1b}[2Kin sync\\u{9b}2K\\u{202e}\n\tgrün\n");
        assert_eq!(harmless(&shown), shown);
        let json = serde_json::to_string(&[text, "\u{7f}\u{2066}"]).unwrap();
        let harmless = harmless_json(&json);
        assert!(!harmless.contains(steers), "{harmless:?}");
        assert_eq!(
            serde_json::from_str::<Vec<String>>(&harmless).unwrap(),
            [text, "\u{7f}\u{2066}"]
        );
    }

    #[test]
    fn sizes_and_times() {
        let sizes = [0, 1023, 1024, 1536, 1_048_575, 1 << 30, u64::MAX].map(size);
        assert_eq!(
            sizes,
            [
                "0 B", "1023 B", "1.0 KiB", "1.5 KiB", "1.0 MiB", "1.0 GiB", "16.0 EiB"
            ]
        );
        assert_eq!(time(1_700_000_000_000), "2023-11-14 22:13:20Z");
        assert_eq!(rfc3339(1_700_000_000_042), "2023-11-14T22:13:20.042Z");
        assert_eq!(
            [0, 15_000, 180_000, 8_000_000].map(|ms| ago(0, ms)),
            ["just now", "15 s ago", "3 min ago", "2 h ago"]
        );
        assert_eq!(
            [count(1, "file"), count(2, "file"), count(0, "copy")],
            ["1 file", "2 files", "0 copies"]
        );
    }

    #[test]
    fn columns_line_up() {
        let rows = [
            vec!["a".into(), "bb".into()],
            vec!["ccc".into(), "d".into()],
        ];
        assert_eq!(table(&rows), "a    bb\nccc  d\n");
    }
}
