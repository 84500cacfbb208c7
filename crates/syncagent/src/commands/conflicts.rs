//! `conflicts list` and `conflicts diff`: what two machines changed at once, and in what the two differ.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::io::IsTerminal as _;

use serde::Serialize;
use syncagent_client::folder::disk::{At, Disk, EntryKind, ErrorKind, NativeDisk};
use syncagent_client::folder::read::{StableRead, open_stable};
use syncagent_client::index::{self, Index, OpenConflict};
use syncagent_client::text::{self as compare, NoText};
use syncagent_protocol::name::steers;
use syncagent_protocol::{Code, MachineId, NodeId, TreePath};

use super::browse::{machine_names, name_of, open_index};
use super::ignore::in_folder;
use crate::context::{Context, not_registered};
use crate::failure::{Failure, Result};
use crate::output::text::{self, shown};

/// The newest version of one of the two, in the terms of `versions`.
#[derive(Serialize)]
struct Newest {
    version: u64,
    machine: String,
    time: String,
    time_ms: u64,
}

impl Newest {
    fn new(side: index::Side, names: &BTreeMap<MachineId, String>) -> Self {
        Self {
            version: side.n,
            machine: name_of(names, side.machine),
            time: text::rfc3339(side.time_ms),
            time_ms: side.time_ms,
        }
    }

    fn words(&self) -> String {
        let Self {
            version, machine, ..
        } = self;
        format!(
            "version {version} of {machine}, {}",
            text::time(self.time_ms)
        )
    }
}

#[derive(Serialize)]
struct Row {
    path: String,
    copy_path: String,
    node: NodeId,
    copy: NodeId,
    theirs: Newest,
    mine: Newest,
    time: String,
    time_ms: u64,
}

impl Row {
    /// What has the name, and the copy below it; of each which version it is.
    fn text(&self) -> String {
        let sides = [
            ("theirs", &self.theirs, &self.path),
            ("mine", &self.mine, &self.copy_path),
        ];
        let sides = sides.map(|(whose, newest, path)| {
            format!("{whose:6}  {}\n        {}\n", shown(path), newest.words())
        });
        sides.concat()
    }
}

/// All conflicts that nobody has resolved, oldest first.
pub(super) fn open(index: &Index) -> Result<Vec<OpenConflict>> {
    let (log, _) = index.load()?;
    Ok(index.open_conflicts(&log.placed().tree)?)
}

/// Those that a person means by the name of either file, or by an id.
pub(super) fn about(
    context: &Context,
    open: Vec<OpenConflict>,
    what: &str,
) -> Result<Vec<OpenConflict>> {
    let folder = context.home()?.config()?.folder;
    let on_disk = folder.and_then(|folder| in_folder(context, &folder, what.as_ref()).ok());
    let id = what.parse::<NodeId>().ok();
    let meant = |path: &TreePath| path.as_str() == what || on_disk.as_ref() == Some(path);
    let about = open.into_iter().filter(|open| {
        meant(&open.path)
            || meant(&open.copy_path)
            || id.is_some_and(|id| [open.node, open.copy].contains(&id))
    });
    let about: Vec<_> = about.collect();
    match about.is_empty() {
        true => Err(Failure::not_found(format!(
            "there is no conflict about {}: `syncagent conflicts` lists those there are",
            shown(what)
        ))),
        false => Ok(about),
    }
}

pub(super) fn list(context: &Context) -> Result {
    #[derive(Serialize)]
    struct Answer {
        conflicts: Vec<Row>,
    }
    let index = open_index(context)?;
    let names = machine_names(&index)?;
    let mut open = open(&index)?;
    // As a person looks for one; of several copies the oldest comes first.
    open.sort_by(|a, b| a.path.cmp(&b.path));
    let rows = open.into_iter().map(|row| Row {
        theirs: Newest::new(row.theirs, &names),
        mine: Newest::new(row.mine, &names),
        time: text::rfc3339(row.time_ms),
        path: row.path.as_str().to_owned(),
        copy_path: row.copy_path.as_str().to_owned(),
        node: row.node,
        copy: row.copy,
        time_ms: row.time_ms,
    });
    let answer = Answer {
        conflicts: rows.collect(),
    };
    context
        .output
        .result(&answer, || match answer.conflicts.is_empty() {
            true => "no conflicts".to_owned(),
            false => { answer.conflicts.iter() }
                .map(Row::text)
                .collect::<Vec<_>>()
                .join("\n")
                .trim_end()
                .to_owned(),
        })?;
    if !answer.conflicts.is_empty() {
        context.output.remark(
            "`syncagent conflicts diff PATH` shows in what they differ, `syncagent conflicts resolve PATH` keeps one, both, \
             or the changes of both.",
        );
    }
    Ok(())
}

/// One of the two files.
#[derive(Serialize)]
struct Side {
    path: TreePath,
    kind: &'static str,
    size: u64,
    modified: String,
    mtime_ns: i64,
    #[serde(skip_serializing_if = "Option::is_none")]
    target: Option<String>,
    /// What the vault has of it: on this disk it may be edited since.
    #[serde(flatten)]
    newest: Newest,
    /// Its first bytes: all of them, if it is not longer than what is compared.
    #[serde(skip)]
    bytes: Vec<u8>,
}

/// The version both started from.
#[derive(Serialize)]
struct Common {
    version: u64,
    time: String,
    time_ms: u64,
}

#[derive(Serialize)]
struct Difference {
    path: TreePath,
    copy_path: TreePath,
    same: bool,
    theirs: Side,
    mine: Side,
    ancestor: Option<Common>,
    /// The unified form; none if they are not compared line by line.
    diff: Option<String>,
    /// Why not.
    #[serde(skip_serializing_if = "Option::is_none")]
    not_compared: Option<&'static str>,
}

pub(super) fn diff(context: &Context, what: &str) -> Result {
    #[derive(Serialize)]
    struct Answer {
        diffs: Vec<Difference>,
    }
    let index = open_index(context)?;
    let about = about(context, open(&index)?, what)?;
    let folder = context.config(&context.home()?)?.folder;
    let folder = folder.ok_or_else(not_registered)?;
    let disk =
        NativeDisk::open(&folder).map_err(|error| Failure::new(Code::Root, error.to_string()))?;
    let names = machine_names(&index)?;
    let mut diffs = Vec::new();
    for conflict in about {
        let common = index.common_version(conflict.copy, conflict.node)?;
        let ancestor = common.map(|version| Common {
            version: version.n,
            time: text::rfc3339(version.time_ms),
            time_ms: version.time_ms,
        });
        diffs.push(difference(&disk, conflict, ancestor, &names)?);
    }
    let answer = Answer { diffs };
    let colour = std::io::stdout().is_terminal() && context.variables.get("NO_COLOR").is_none();
    let safe = std::io::stdout().is_terminal();
    context.output.result_as_it_is(&answer, || {
        let mut all = String::new();
        for diff in &answer.diffs {
            all.push_str(&described(diff, colour, safe));
        }
        all
    })?;
    for diff in answer.diffs.iter().filter(|diff| !diff.same) {
        for (side, file) in [("Theirs", &diff.theirs), ("Mine", &diff.mine)] {
            context
                .output
                .remark(&format!("{side}: {}, {}.", file.path, file.newest.words()));
        }
        let Some(Common {
            version, time_ms, ..
        }) = &diff.ancestor
        else {
            continue;
        };
        context.output.remark(&format!(
            "Both started from version {version} of {}, of {}.",
            diff.path,
            text::time(*time_ms)
        ));
    }
    Ok(())
}

fn difference(
    disk: &NativeDisk,
    conflict: OpenConflict,
    ancestor: Option<Common>,
    names: &BTreeMap<MachineId, String>,
) -> Result<Difference> {
    let newest = |side| Newest::new(side, names);
    let theirs = side(disk, &conflict.path, newest(conflict.theirs))?;
    let mine = side(disk, &conflict.copy_path, newest(conflict.mine))?;
    let both_files = theirs.kind == "file" && mine.kind == "file";
    let (same, diff, not_compared) = match (compare::of(&theirs.bytes), compare::of(&mine.bytes)) {
        _ if !both_files => {
            let same = theirs.kind == mine.kind
                && theirs.target == mine.target
                && theirs.kind == "symlink";
            (same, None, Some("kind"))
        }
        (Ok(old), Ok(new)) => {
            let diff = compare::unified(old, new, &theirs.path.to_string(), &mine.path.to_string());
            (old == new, Some(diff), None)
        }
        (Err(NoText::Long), _) | (_, Err(NoText::Long)) => {
            let same = theirs.size == mine.size && same_content(disk, &theirs, &mine)?;
            (same, None, Some("long"))
        }
        _ => (theirs.bytes == mine.bytes, None, Some("binary")),
    };
    Ok(Difference {
        path: conflict.path,
        copy_path: conflict.copy_path,
        same,
        theirs,
        mine,
        ancestor,
        diff,
        not_compared,
    })
}

/// What stands on this disk, with as much of it as is compared and one byte more.
fn side(disk: &NativeDisk, path: &TreePath, newest: Newest) -> Result<Side> {
    let unreadable = |code, why: String| Failure::new(code, format!("{path}: {why}"));
    let stat = disk.stat(At::Tree(path)).map_err(|error| match error.kind {
        ErrorKind::NotFound => unreadable(
            Code::NotFound,
            "it is not in the folder: `syncagent sync --once` brings it, or takes note that it is gone".to_owned(),
        ),
        _ => Failure::new(error.code(), error.to_string()),
    })?;
    let mut side = Side {
        path: path.clone(),
        kind: match stat.kind {
            EntryKind::File => "file",
            EntryKind::Directory => "directory",
            EntryKind::Symlink => "symlink",
            _ => "other",
        },
        size: stat.size,
        modified: text::rfc3339(u64::try_from(stat.mtime_ns / 1_000_000).unwrap_or(0)),
        mtime_ns: stat.mtime_ns,
        target: None,
        newest,
        bytes: Vec::new(),
    };
    match stat.kind {
        EntryKind::Symlink => {
            let target = disk.read_link(At::Tree(path));
            side.target =
                Some(target.map_err(|error| Failure::new(error.code(), error.to_string()))?);
        }
        EntryKind::File => {
            let mut file = read(disk, path)?;
            side.size = file.size();
            side.bytes = first(
                &mut file,
                usize::try_from(compare::MAX_LEN + 1).unwrap_or(usize::MAX),
            )?;
        }
        _ => {}
    }
    Ok(side)
}

fn read(disk: &NativeDisk, path: &TreePath) -> Result<StableRead> {
    open_stable(disk, path, None).map_err(|error| Failure::new(Code::Read, error.to_string()))
}

/// At most `len` bytes.
fn first(file: &mut StableRead, len: usize) -> Result<Vec<u8>> {
    let most = usize::try_from(file.size()).unwrap_or(usize::MAX).min(len);
    let mut bytes = vec![0; most];
    let mut at = 0;
    while at < bytes.len() {
        match file.read(&mut bytes[at..]) {
            Ok(0) => break,
            Ok(n) => at += n,
            Err(error) => return Err(Failure::new(Code::Read, error.to_string())),
        }
    }
    bytes.truncate(at);
    Ok(bytes)
}

/// Compares long files piece by piece.
fn same_content(disk: &NativeDisk, theirs: &Side, mine: &Side) -> Result<bool> {
    const PIECE: usize = 1024 * 1024;
    let (mut theirs, mut mine) = (read(disk, &theirs.path)?, read(disk, &mine.path)?);
    loop {
        let pieces = (first(&mut theirs, PIECE)?, first(&mut mine, PIECE)?);
        if pieces.0 != pieces.1 {
            return Ok(false);
        }
        if pieces.0.is_empty() {
            return Ok(true);
        }
    }
}

fn described(difference: &Difference, colour: bool, safe: bool) -> String {
    let Difference { theirs, mine, .. } = difference;
    if difference.same {
        return format!("{} and {} are the same\n", theirs.path, mine.path);
    }
    if let Some(diff) = &difference.diff {
        return match safe {
            true => for_terminal(diff, colour),
            false => diff.clone(),
        };
    }
    let row = |whose: &str, side: &Side| {
        let what = match (side.kind, &side.target) {
            ("file", _) => text::size(side.size),
            (_, Some(target)) => format!("link to {}", target.escape_debug()),
            (kind, _) => kind.to_owned(),
        };
        let time = text::time(u64::try_from(side.mtime_ns / 1_000_000).unwrap_or(0));
        vec![whose.to_owned(), time, what, side.path.to_string()]
    };
    let why = match difference.not_compared {
        Some("kind") => "They are not both files.".to_owned(),
        Some("binary") => not_shown(NoText::Binary),
        _ => not_shown(NoText::Long),
    };
    let mut text = text::table(&[row("theirs", theirs), row("mine", mine)]);
    let _ = writeln!(text, "{why}");
    text
}

fn not_shown(why: NoText) -> String {
    format!("They differ. Their lines are not shown: {why}.")
}

/// What other machines wrote must not steer a terminal.
fn for_terminal(diff: &str, colour: bool) -> String {
    let mut out = String::with_capacity(diff.len() + diff.len() / 4);
    for (i, line) in diff.lines().enumerate() {
        let on = match line.as_bytes().first() {
            _ if !colour => "",
            _ if i < 2 => "\x1b[1m",
            Some(b'@') => "\x1b[36m",
            Some(b'-') => "\x1b[31m",
            Some(b'+') => "\x1b[32m",
            _ => "",
        };
        out.push_str(on);
        for c in line.chars() {
            match c {
                '\t' => out.push(c),
                c if steers(c) => out.extend(c.escape_default()),
                c => out.push(c),
            }
        }
        if !on.is_empty() {
            out.push_str("\x1b[0m");
        }
        out.push('\n');
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_terminal_gets_colours_and_no_orders() {
        let diff = "--- a\n+++ b\n@@ -1 +1 @@\n-x\n+\x1b[2J\ty\n";
        assert_eq!(
            for_terminal(diff, false),
            "--- a\n+++ b\n@@ -1 +1 @@\n-x\n+\\u{1b}[2J\ty\n"
        );
        assert_eq!(
            for_terminal(diff, true),
            "\x1b[1m--- a\x1b[0m\n\x1b[1m+++ b\x1b[0m\n\x1b[36m@@ -1 +1 @@\x1b[0m\n\x1b[31m-x\x1b[0m\n\x1b[32m+\\u{1b}[2J\ty\x1b[0m\n"
        );
    }
}
