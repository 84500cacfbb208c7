//! What is not synchronised by choice: `.syncignore` (synchronised itself), `.syncignore.local` (not).
//!
//! The rules are git's. A file in a deeper directory speaks before one further up, the local one before the
//! shared one beside it, the last matching line of a file before those above it.

use std::borrow::Cow;
use std::collections::BTreeMap;

use ignore::Match;
use ignore::gitignore::{Gitignore, GitignoreBuilder};
use serde::Serialize;
use syncagent_protocol::TreePath;

/// The rules everybody gets.
pub const SHARED: &str = ".syncignore";
/// The rules of this machine alone.
pub const LOCAL: &str = ".syncignore.local";
/// What names of files end in that are still being written by SyncAgent.
pub const TEMPORARY_SUFFIX: &str = ".syncagent-tmp";

/// Where the rules stand that everybody gets without a file.
pub const BUILT_IN: &str = "built in";

/// More of a file is not read.
pub const MAX_LEN: usize = 1024 * 1024;
/// Lines of one file that are told to be no rules; of further ones only how many there are.
const MAX_TOLD: usize = 5;

/// Rubbish that operating systems leave behind, and nothing else. `!` in a `.syncignore` takes it back.
const DEFAULT_RULES: &str = "\
.DS_Store
Thumbs.db
ehthumbs.db
desktop.ini
/.Spotlight-V100
/.Trashes
/.fseventsd
/.TemporaryItems
/lost+found
/$RECYCLE.BIN
/System Volume Information
";

/// Our own. Nothing takes these back.
const FIXED_RULES: &str = "\
/.syncagent
*.syncagent-tmp
.syncignore.local
";

/// Whether a path is synchronised, and which line says so.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Verdict {
    /// Nothing is said against it.
    Kept,
    /// A rule is against it.
    Ignored {
        /// The rule as written.
        rule: String,
        /// The file it stands in, or [`BUILT_IN`].
        source: String,
        /// Its line there, from 1.
        line: usize,
    },
}

/// A line that is no rule.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct BadLine {
    /// Its number, from 1.
    pub line: usize,
    /// What is wrong with it.
    pub reason: String,
}

#[derive(Debug, Clone)]
struct Source {
    name: String,
    directory: TreePath,
    /// Its rules in their order: one program for all of them, or several if one would be too large.
    rules: Vec<Gitignore>,
    lines: BTreeMap<String, usize>,
}

/// All rules that hold in a folder.
#[derive(Debug, Clone)]
pub struct Ignore {
    case_insensitive: bool,
    /// The one that speaks first comes last.
    sources: Vec<Source>,
    fixed: Source,
    fallback: Source,
}

impl Ignore {
    /// Only the built-in rules.
    pub fn new(case_insensitive: bool) -> Self {
        let built_in = |text| Source::new(BUILT_IN, TreePath::ROOT, text, case_insensitive).0;
        Self {
            case_insensitive,
            sources: Vec::new(),
            fixed: built_in(FIXED_RULES),
            fallback: built_in(DEFAULT_RULES),
        }
    }

    /// Whether a file of this name holds rules.
    pub fn is_rules_file(name: &str) -> bool {
        name == SHARED || name == LOCAL
    }

    /// Adds the rules in the file at `path`, in place of those it held before. Lines that are no rules are
    /// returned and otherwise passed over.
    pub fn set_file(&mut self, path: &TreePath, text: &str) -> Vec<BadLine> {
        self.remove_file(path);
        let directory = path.parent().unwrap_or_default();
        let (source, bad) = Source::new(path.as_str(), directory, text, self.case_insensitive);
        self.sources.push(source);
        self.sources
            .sort_by_key(|source| (source.directory.components().count(), source.name.clone()));
        bad
    }

    /// [`Ignore::set_file`] with a file as it was read, [`MAX_LEN`] and one byte at most. What of it does not count comes
    /// back in sentences for a person.
    pub fn read_file(&mut self, path: &TreePath, bytes: &[u8]) -> Vec<String> {
        let (text, is_cut) = whole_lines(bytes);
        let bad = self.set_file(path, &text);
        let told = bad.iter().take(MAX_TOLD).map(|bad| {
            // The line may have come from another machine, and steer a terminal.
            let reason = bad.reason.escape_debug();
            format!(
                "line {} of {path} is no rule and is passed over: {reason}",
                bad.line
            )
        });
        let mut told: Vec<String> = told.collect();
        if let more @ 1.. = bad.len().saturating_sub(MAX_TOLD) {
            told.push(format!(
                "{more} more lines of {path} are no rules and are passed over"
            ));
        }
        if is_cut {
            told.push(format!(
                "{path} is longer than 1 MiB: the rules beyond that are passed over"
            ));
        }
        told
    }

    /// Takes back the rules of the file at `path`.
    pub fn remove_file(&mut self, path: &TreePath) {
        self.sources.retain(|source| source.name != path.as_str());
    }

    /// Whether `path` is synchronised. What is in an ignored directory is ignored.
    pub fn check(&self, path: &TreePath, is_dir: bool) -> Verdict {
        let mut above = TreePath::ROOT;
        let depth = path.components().count();
        for (i, name) in path.components().enumerate() {
            let Ok(name) = syncagent_protocol::Name::parse(name) else {
                continue;
            };
            above = above.join(&name);
            let verdict = self.check_in_kept(&above, is_dir || i + 1 < depth);
            if verdict != Verdict::Kept {
                return verdict;
            }
        }
        Verdict::Kept
    }

    /// The same of something in a directory that is known to be synchronised, without asking about each one above.
    pub fn check_in_kept(&self, path: &TreePath, is_dir: bool) -> Verdict {
        let order = std::iter::once(&self.fixed)
            .chain(self.sources.iter().rev())
            .chain([&self.fallback]);
        order
            .filter_map(|source| source.says(path, is_dir))
            .next()
            .unwrap_or(Verdict::Kept)
    }
}

/// The lines within [`MAX_LEN`], and whether there is more. Half a line would be another rule: `*` of `*.log`.
fn whole_lines(bytes: &[u8]) -> (Cow<'_, str>, bool) {
    if bytes.len() <= MAX_LEN {
        return (String::from_utf8_lossy(bytes), false);
    }
    let within = &bytes[..MAX_LEN];
    let end = within.iter().rposition(|byte| *byte == b'\n').unwrap_or(0);
    (String::from_utf8_lossy(&within[..end]), true)
}

impl Source {
    fn new(
        name: &str,
        directory: TreePath,
        text: &str,
        case_insensitive: bool,
    ) -> (Self, Vec<BadLine>) {
        let mut bad = Vec::new();
        let mut good = Vec::new();
        let mut lines = BTreeMap::new();
        let mut tried = GitignoreBuilder::new("");
        for (i, line) in text.lines().enumerate() {
            let line = if i == 0 {
                line.trim_start_matches('\u{feff}')
            } else {
                line
            };
            match tried.add_line(None, line) {
                Ok(_) => {
                    good.push((i + 1, line));
                    lines.insert(line.trim_end().to_owned(), i + 1);
                }
                Err(error) => bad.push(BadLine {
                    line: i + 1,
                    reason: error.to_string(),
                }),
            }
        }
        let rules = compile(&good, case_insensitive, &mut bad);
        bad.sort_by_key(|bad| bad.line);
        (
            Self {
                name: name.to_owned(),
                directory,
                rules,
                lines,
            },
            bad,
        )
    }

    fn says(&self, path: &TreePath, is_dir: bool) -> Option<Verdict> {
        let relative = path
            .rebase(&self.directory, &TreePath::ROOT)
            .filter(|path| !path.is_root())?;
        let last_match = self
            .rules
            .iter()
            .rev()
            .map(|rules| rules.matched(relative.as_str(), is_dir))
            .find(|found| !found.is_none());
        match last_match? {
            Match::None => None,
            Match::Whitelist(_) => Some(Verdict::Kept),
            Match::Ignore(glob) => {
                let rule = glob.original().to_owned();
                let line = self.lines.get(rule.trim_end()).copied().unwrap_or(0);
                Some(Verdict::Ignored {
                    rule,
                    source: self.name.clone(),
                    line,
                })
            }
        }
    }
}

/// Makes rules of lines that are rules each for itself. A program for matching has a greatest size; where all lines
/// together are beyond it they are halved, so that no line, however monstrous, takes another with it.
fn compile(
    lines: &[(usize, &str)],
    case_insensitive: bool,
    bad: &mut Vec<BadLine>,
) -> Vec<Gitignore> {
    let mut builder = GitignoreBuilder::new("");
    // The option only fails while rules are there already.
    let _ = builder.case_insensitive(case_insensitive);
    for (_, line) in lines {
        // It was one before.
        let _ = builder.add_line(None, line);
    }
    match (builder.build(), lines) {
        (Ok(rules), _) => vec![rules],
        (Err(_), []) => Vec::new(),
        (Err(error), [(line, _)]) => {
            bad.push(BadLine {
                line: *line,
                reason: error.to_string(),
            });
            Vec::new()
        }
        (Err(_), _) => {
            let (first, second) = lines.split_at(lines.len() / 2);
            let mut rules = compile(first, case_insensitive, bad);
            rules.extend(compile(second, case_insensitive, bad));
            rules
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn path(text: &str) -> TreePath {
        TreePath::parse(text).unwrap()
    }

    fn line(ignore: &Ignore, text: &str, is_dir: bool) -> Option<String> {
        match ignore.check(&path(text), is_dir) {
            Verdict::Kept => None,
            Verdict::Ignored { source, line, .. } => Some(format!("{source}:{line}")),
        }
    }

    #[test]
    fn only_rubbish_is_ignored_by_default() {
        let ignore = Ignore::new(false);
        for bad in [
            ".DS_Store",
            "a/b/.DS_Store",
            "a/desktop.ini",
            ".syncagent",
            ".syncagent/x",
            "a/x.syncagent-tmp",
        ] {
            assert!(line(&ignore, bad, false).is_some(), "{bad}");
        }
        for good in [
            "a",
            ".git",
            "node_modules/x",
            "a~",
            ".bashrc",
            "a/.syncagent",
            "a/lost+found",
            ".syncignore",
        ] {
            assert_eq!(line(&ignore, good, false), None, "{good}");
        }
    }

    #[test]
    fn the_nearest_file_speaks_first_and_the_last_line_wins() {
        let mut ignore = Ignore::new(false);
        let bad = ignore.set_file(
            &path(".syncignore"),
            "# note\n*.log\n!keep.log\n/build/\n!.DS_Store\n*.{tmp\n",
        );
        assert_eq!(bad.iter().map(|bad| bad.line).collect::<Vec<_>>(), [6]);
        ignore.set_file(&path(".syncignore.local"), "keep.log\n!.syncagent\n");
        ignore.set_file(&path("sub/.syncignore"), "!*.log\n/only\n");
        for (text, is_dir, want) in [
            ("a.log", false, Some(".syncignore:2")),
            ("x/a.log", false, Some(".syncignore:2")),
            ("keep.log", false, Some(".syncignore.local:1")),
            ("build", true, Some(".syncignore:4")),
            ("build/x/y", false, Some(".syncignore:4")),
            ("build", false, None),
            ("sub/a.log", false, None),
            ("sub/only", false, Some("sub/.syncignore:2")),
            ("sub/x/only", false, None),
            ("only", false, None),
            (".DS_Store", false, None),
            (".syncagent", true, Some("built in:1")),
        ] {
            assert_eq!(line(&ignore, text, is_dir).as_deref(), want, "{text}");
        }
        ignore.remove_file(&path(".syncignore"));
        assert_eq!(line(&ignore, "a.log", false), None);
    }

    #[test]
    fn case() {
        let mut ignore = Ignore::new(true);
        ignore.set_file(&path(".syncignore"), "*.LOG\n");
        assert!(
            line(&ignore, "a.log", false).is_some() && line(&ignore, "thumbs.DB", false).is_some()
        );
    }
}
