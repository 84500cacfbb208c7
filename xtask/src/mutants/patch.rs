//! One mutant as a file: what it breaks and which test must see that, in lines of `Name: value`, and then a unified diff.
//!
//! A hunk is found by its lines, not by its numbers: what it takes away and the lines round it must stand in the file
//! exactly once. So a patch survives edits elsewhere in the file, and can never hit another place than it was made for.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use anyhow::{Context, Result, bail};

/// A small patch that breaks one invariant.
#[derive(Debug)]
pub(crate) struct Mutant {
    /// Of the file, without `.patch`.
    pub name: String,
    /// Number in docs/sync.md.
    pub invariant: u32,
    pub test: Test,
    /// Set for the test, in addition to what stands there.
    pub env: BTreeMap<String, String>,
    /// What the failing test must print, so that it fails for the right reason.
    pub says: Option<String>,
    pub changes: Vec<Change>,
}

/// The test that must fail.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Test {
    pub package: String,
    pub target: Target,
    /// With its modules, as `--exact` takes it.
    pub name: String,
}

/// What cargo builds for a test.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Target {
    Lib,
    Bin(String),
    Test(String),
}

/// The hunks of one file.
#[derive(Debug)]
pub(crate) struct Change {
    /// Below the root of the tree.
    pub path: String,
    /// Lines before and after, in order.
    pub hunks: Vec<(String, String)>,
}

impl Mutant {
    pub(crate) fn parse(name: &str, text: &str) -> Result<Self> {
        let at = text.find("diff --git ").context("it has no diff")?;
        let (head, diff) = text.split_at(at);
        let mut fields = BTreeMap::new();
        for line in head.lines().filter(|line| !line.trim().is_empty()) {
            let (key, value) = line
                .split_once(": ")
                .with_context(|| format!("{line:?} is no `Name: value`"))?;
            if !matches!(key, "Invariant" | "Breaks" | "Test" | "Env" | "Says") {
                bail!("{key} is no line of a mutant");
            }
            fields.insert(key, value.trim());
        }
        let field = |key| {
            let value = fields.get(key).copied();
            value.with_context(|| format!("it has no line `{key}: `"))
        };
        if field("Breaks")?.is_empty() {
            bail!("it does not say what it breaks");
        }
        let env = fields.get("Env").copied().unwrap_or_default();
        Ok(Self {
            name: name.to_owned(),
            invariant: field("Invariant")?.parse().context("Invariant")?,
            test: Test::parse(field("Test")?)?,
            env: env
                .split_whitespace()
                .map(|set| {
                    let (key, value) = set.split_once('=').context("Env takes NAME=value")?;
                    Ok((key.to_owned(), value.to_owned()))
                })
                .collect::<Result<_>>()?,
            says: fields.get("Says").map(|says| (*says).to_owned()),
            changes: changes(diff)?,
        })
    }

    /// All mutants of a tree, by name.
    pub(crate) fn all(root: &Path) -> Result<Vec<Self>> {
        let dir = root.join("crates/testkit/mutants");
        let mut mutants = Vec::new();
        for entry in fs::read_dir(&dir).with_context(|| format!("cannot list {}", dir.display()))? {
            let path = entry?.path();
            let Some(name) = path
                .file_name()
                .and_then(|name| name.to_str())
                .and_then(|name| name.strip_suffix(".patch"))
            else {
                continue;
            };
            let text = fs::read_to_string(&path)
                .with_context(|| format!("cannot read {}", path.display()))?;
            let mutant = Self::parse(name, &text);
            mutants.push(mutant.with_context(|| path.display().to_string())?);
        }
        mutants.sort_by(|a, b| a.name.cmp(&b.name));
        Ok(mutants)
    }
}

impl Test {
    /// `cargo test -p PACKAGE --lib NAME`, or with `--bin BINARY` or `--test TARGET` in place of `--lib`.
    fn parse(line: &str) -> Result<Self> {
        let words: Vec<&str> = line.split_whitespace().collect();
        let (package, target, name) = match words[..] {
            ["cargo", "test", "-p", package, "--lib", name] => (package, Target::Lib, name),
            ["cargo", "test", "-p", package, "--bin", bin, name] => {
                (package, Target::Bin(bin.to_owned()), name)
            }
            ["cargo", "test", "-p", package, "--test", target, name] => {
                (package, Target::Test(target.to_owned()), name)
            }
            _ => bail!(
                "{line:?} is not `cargo test -p PACKAGE --lib NAME`, nor that with `--bin BINARY` or `--test TARGET`"
            ),
        };
        Ok(Self {
            package: package.to_owned(),
            target,
            name: name.to_owned(),
        })
    }

    /// The directory of its package, below the root.
    pub(crate) fn directory(&self) -> String {
        let folder = self.package.strip_prefix("syncagent-");
        format!("crates/{}", folder.unwrap_or(&self.package))
    }
}

impl Change {
    /// The file with the hunks in it.
    pub(crate) fn apply(&self, text: &str) -> Result<String> {
        let mut text = text.to_owned();
        for (old, new) in &self.hunks {
            let starts = |at: &usize| *at == 0 || text.as_bytes()[at - 1] == b'\n';
            let mut places = text
                .match_indices(old.as_str())
                .map(|(at, _)| at)
                .filter(starts);
            match (places.next(), places.next()) {
                (Some(at), None) => text.replace_range(at..at + old.len(), new),
                (None, _) => bail!("{} holds these lines no longer:\n{old}", self.path),
                (Some(_), Some(_)) => bail!("{} holds these lines twice:\n{old}", self.path),
            }
        }
        Ok(text)
    }
}

fn changes(diff: &str) -> Result<Vec<Change>> {
    let mut changes: Vec<Change> = Vec::new();
    // Lines that the hunk still has to have, before and after.
    let mut left = (0, 0);
    for line in diff.lines() {
        if left == (0, 0) {
            if let Some(path) = line.strip_prefix("+++ b/") {
                changes.push(Change {
                    path: path.to_owned(),
                    hunks: Vec::new(),
                });
            } else if let Some(ranges) = line.strip_prefix("@@ ") {
                let change = changes.last_mut().context("a hunk of no file")?;
                change.hunks.push((String::new(), String::new()));
                left = lengths(ranges).with_context(|| format!("{line:?} heads no hunk"))?;
            } else if line.starts_with(['+', '-', ' ']) && !line.starts_with("--- a/") {
                bail!("{line:?} stands in no hunk");
            }
            continue;
        }
        let hunk = changes
            .last_mut()
            .and_then(|change| change.hunks.last_mut());
        let (old, new) = hunk.context("a line of no hunk")?;
        let (sign, rest) = line.split_at_checked(1).unwrap_or((" ", ""));
        let (before, after) = match sign {
            " " => (1, 1),
            "-" => (1, 0),
            "+" => (0, 1),
            _ => bail!("{line:?} is no line of a hunk"),
        };
        for (text, n) in [(old, before), (new, after)] {
            if n > 0 {
                text.push_str(rest);
                text.push('\n');
            }
        }
        let less = |a: usize, b| a.checked_sub(b).context("a hunk is longer than it says");
        left = (less(left.0, before)?, less(left.1, after)?);
    }
    if left != (0, 0) {
        bail!("a hunk is shorter than it says");
    }
    if changes.is_empty() || changes.iter().any(|change| change.hunks.is_empty()) {
        bail!("it changes nothing");
    }
    Ok(changes)
}

/// `-3,4 +3,5 @@` is 4 lines before and 5 after.
fn lengths(ranges: &str) -> Option<(usize, usize)> {
    let (ranges, _) = ranges.split_once(" @@")?;
    let (old, new) = ranges.strip_prefix('-')?.split_once(" +")?;
    let length = |range: &str| match range.split_once(',') {
        Some((_, length)) => length.parse().ok(),
        None => Some(1),
    };
    Some((length(old)?, length(new)?))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::path::PathBuf;

    use super::*;

    const PATCH: &str = "\
Invariant: 3
Breaks: b is c.
Test: cargo test -p syncagent-sync --test table rows::first
Env: A=1 B=2

diff --git a/x.rs b/x.rs
--- a/x.rs
+++ b/x.rs
@@ -7,2 +7,3 @@ somewhere
 a
-b
+c
+d
";

    #[test]
    fn a_mutant_is_read_and_applied_wherever_its_lines_stand() {
        let mutant = Mutant::parse("03-x", PATCH).unwrap();
        assert_eq!((mutant.invariant, mutant.env.len()), (3, 2));
        assert_eq!(mutant.test.directory(), "crates/sync");
        assert_eq!(mutant.test.name, "rows::first");
        let change = &mutant.changes[0];
        assert_eq!(change.path, "x.rs");
        assert_eq!(change.apply("0\na\nb\n").unwrap(), "0\na\nc\nd\n");
        for (text, why) in [
            ("a\n", "no longer"),
            ("a\nb\na\nb\n", "twice"),
            ("xa\nb\n", "no longer"),
        ] {
            let error = change.apply(text).unwrap_err().to_string();
            assert!(error.contains(why), "{text:?}: {error}");
        }
    }

    #[test]
    fn what_is_no_mutant_is_refused() {
        for (from, to) in [
            ("Invariant: 3\n", ""),
            ("Invariant: 3", "Invariant: three"),
            ("Breaks", "Brakes"),
            ("--test table ", ""),
            ("A=1", "A"),
            ("diff --git", "diff"),
            ("-7,2", "-7,3"),
            ("+7,3", "+7,2"),
            ("+++ b/x.rs\n", ""),
        ] {
            let text = PATCH.replace(from, to);
            assert!(Mutant::parse("x", &text).is_err(), "{from:?} as {to:?}");
        }
    }

    fn root() -> PathBuf {
        Path::new(env!("CARGO_MANIFEST_DIR"))
            .parent()
            .unwrap()
            .to_owned()
    }

    fn sources(dir: &Path, into: &mut String) {
        for entry in fs::read_dir(dir).into_iter().flatten() {
            let path = entry.unwrap().path();
            match path.is_dir() {
                true => sources(&path, into),
                false => into.push_str(&fs::read_to_string(path).unwrap_or_default()),
            }
        }
    }

    #[test]
    fn every_mutant_applies_and_names_a_test_that_exists() {
        let root = root();
        let mutants = Mutant::all(&root).unwrap();
        assert!(mutants.len() >= 30, "only {} are left", mutants.len());
        // All at once: one edit of the sources may have outdated several.
        let mut wrong = Vec::new();
        for mutant in &mutants {
            let name = &mutant.name;
            for change in &mutant.changes {
                let text = fs::read_to_string(root.join(&change.path)).unwrap_or_default();
                match change.apply(&text) {
                    Ok(made) if made == text => wrong.push(format!("{name} changes nothing")),
                    Ok(_) => {}
                    Err(error) => wrong.push(format!("{name} does not apply: {error:#}")),
                }
            }
            let package = root.join(mutant.test.directory());
            let mut text = String::new();
            match &mutant.test.target {
                Target::Lib | Target::Bin(_) => sources(&package.join("src"), &mut text),
                Target::Test(target) => {
                    let file = package.join(format!("tests/{target}.rs"));
                    text = fs::read_to_string(file).unwrap_or_default();
                    sources(&package.join("tests").join(target), &mut text);
                }
            }
            let function = mutant.test.name.rsplit("::").next().unwrap();
            if !text.contains(&format!("fn {function}(")) {
                wrong.push(format!("{name}: {:?} has no test {function}", mutant.test));
            }
        }
        assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    }

    #[test]
    fn every_invariant_has_a_mutant() {
        let page = fs::read_to_string(root().join("docs/sync.md")).unwrap();
        let stated: BTreeSet<u32> = page
            .lines()
            .skip_while(|line| *line != "## Invariants")
            .skip(1)
            .take_while(|line| !line.starts_with("## "))
            .filter_map(|line| line.split_once(". **")?.0.parse().ok())
            .collect();
        assert!(stated.len() >= 21, "the page was not read: {stated:?}");
        let broken: BTreeSet<u32> = Mutant::all(&root())
            .unwrap()
            .iter()
            .map(|mutant| mutant.invariant)
            .collect();
        assert_eq!(stated, broken);
    }
}
