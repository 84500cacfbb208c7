//! `conflicts resolve`: keep one side, both, or the changes of both.

use std::collections::BTreeMap;
use std::io::IsTerminal as _;

use serde::Serialize;
use syncagent_client::daemon::control::{Client, Command};
use syncagent_client::engine::{Engine, Hint, Keep, Preview, Resolution, Resolve, State, Undo};
use syncagent_client::home::{Home, HomeLock};
use syncagent_client::index::{Index, OpenConflict};
use syncagent_client::text::Clash;
use syncagent_protocol::Code;
use syncagent_protocol::name::steers;

use super::{browse, conflicts, restore, status, sync};
use crate::ask;
use crate::cli::{DryRun, KeepSide, PasswordArgs};
use crate::context::Context;
use crate::failure::{Exit, Failure, Result};
use crate::output::text::{self, shown};
use crate::password;

/// Which conflicts, and how.
pub(super) struct Wanted<'a> {
    /// One by the name of either file or an id.
    pub(super) what: Option<&'a str>,
    pub(super) all: bool,
    pub(super) keep: Option<KeepSide>,
}

#[derive(Serialize)]
struct Row {
    path: String,
    copy_path: String,
    keep: Keep,
    /// Position of the commit; null if nothing was done.
    n: Option<u64>,
    /// Lines that both changed, from and up to but not including.
    clashes: Vec<Clash>,
    /// Why else nothing was done.
    #[serde(skip_serializing_if = "Option::is_none")]
    left: Option<String>,
    /// Commands that take it back, in this order.
    undo: Vec<Vec<String>>,
}

#[derive(Serialize)]
struct Failed {
    path: String,
    copy_path: String,
    code: Code,
    message: String,
}

#[derive(Serialize)]
struct Answer {
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    dry_run: bool,
    resolved: Vec<Row>,
    failed: Vec<Failed>,
    #[serde(skip_serializing_if = "Option::is_none")]
    on_disk: Option<bool>,
    exit: u8,
}

/// What ends conflicts: the daemon, an engine of this process, or one that only looks.
enum Way {
    Daemon,
    Here(Box<(HomeLock, Engine)>),
    Look(Box<Preview>),
}

pub(super) fn run(
    context: &Context,
    args: &PasswordArgs,
    wanted: &Wanted<'_>,
    dry_run: DryRun,
) -> Result<u8> {
    let home = context.home()?;
    sync::is_set_up(context, &home)?;
    let chosen = choose(context, wanted)?;
    let keep = keep(context, wanted, &chosen, dry_run)?;
    if chosen.is_empty() {
        let answer = Answer {
            dry_run: dry_run.is_set(),
            resolved: Vec::new(),
            failed: Vec::new(),
            on_disk: None,
            exit: 0,
        };
        context
            .output
            .result(&answer, || "no conflicts".to_owned())?;
        return Ok(0);
    }
    let running = context.block_on(async { Ok(Client::connect(&home).await.is_some()) })?;
    let key = match running && !dry_run.is_set() {
        true => None,
        false => Some(password::open_key(context, &home, args)?),
    };
    let answer = context.block_on(async {
        let mut way = match key {
            None => Way::Daemon,
            Some(key) if dry_run.is_set() => {
                Way::Look(Box::new(sync::open_to_look(context, &home, key)?))
            }
            Some(key) => Way::Here(Box::new(sync::open(context, &home, key)?)),
        };
        // What was edited here comes first: it is what a person has seen.
        up_to_date(context, &home, &mut way).await?;
        all(context, &home, &mut way, &chosen, keep).await
    })?;
    context.output.result(&answer, || {
        answer
            .resolved
            .iter()
            .map(|row| described(row, answer.dry_run))
            .collect()
    })?;
    for failed in &answer.failed {
        context
            .output
            .remark(&format!("{} ({})", failed.message, failed.code));
    }
    if answer.dry_run {
        context.output.remark("Nothing was changed (--dry-run).");
    } else if answer.on_disk == Some(false) {
        context
            .output
            .remark("The vault has it; the folder follows with the next `syncagent sync`.");
    }
    Ok(answer.exit)
}

fn choose(context: &Context, wanted: &Wanted<'_>) -> Result<Vec<OpenConflict>> {
    if wanted.what.is_none() && !wanted.all {
        return Err(Failure::usage(
            "say which conflict: `syncagent conflicts resolve PATH`, or --all for all there are. `syncagent conflicts` lists \
             them",
        ));
    }
    let open = conflicts::open(&browse::open_index(context)?)?;
    match wanted.what {
        Some(what) => conflicts::about(context, open, what),
        None => Ok(open),
    }
}

/// Which side; asked for if nobody said so.
fn keep(
    context: &Context,
    wanted: &Wanted<'_>,
    chosen: &[OpenConflict],
    dry_run: DryRun,
) -> Result<Keep> {
    let asks = context.interactive && std::io::stdout().is_terminal();
    let keep = match wanted.keep {
        Some(keep) => keep.into(),
        None if asks && !chosen.is_empty() => ask_keep(chosen)?,
        None => {
            return Err(Failure::usage(
                "say which side: --keep theirs (what has the name), mine (the copy), both, or merge",
            ));
        }
    };
    if wanted.what.is_some() && chosen.len() > 1 && keep == Keep::Mine {
        let copies = chosen.iter().map(|open| open.copy_path.to_string());
        return Err(Failure::usage(format!(
            "{} has {} copies, and only one can be kept in its place. Name one: {}",
            chosen[0].path,
            chosen.len(),
            copies.collect::<Vec<_>>().join(", ")
        )));
    }
    if wanted.what.is_none() && !chosen.is_empty() && !dry_run.is_set() {
        let n = text::count(chosen.len() as u64, "conflict");
        let question = format!("Keep {} in {n}?", word(keep));
        if !ask::yes(context, &question)? {
            return Err(Failure::usage("nothing was changed"));
        }
    }
    Ok(keep)
}

fn ask_keep(chosen: &[OpenConflict]) -> Result<Keep> {
    let what = match chosen {
        [one] => format!("{} and {}", one.path, one.copy_path),
        more => text::count(more.len() as u64, "conflict"),
    };
    loop {
        let question = format!(
            "{what}: keep [t]heirs (what has the name), [m]ine (the copy), [b]oth, mer[g]e them, or [s]top? "
        );
        match ask::line(&question)?.trim() {
            "t" => return Ok(Keep::Theirs),
            "m" => return Ok(Keep::Mine),
            "b" => return Ok(Keep::Both),
            "g" => return Ok(Keep::Merge),
            "s" => return Err(Failure::usage("nothing was changed")),
            _ => {}
        }
    }
}

impl From<KeepSide> for Keep {
    fn from(side: KeepSide) -> Self {
        match side {
            KeepSide::Mine => Self::Mine,
            KeepSide::Theirs => Self::Theirs,
            KeepSide::Both => Self::Both,
            KeepSide::Merge => Self::Merge,
        }
    }
}

fn word(keep: Keep) -> &'static str {
    match keep {
        Keep::Mine => "mine",
        Keep::Theirs => "theirs",
        Keep::Both => "both",
        Keep::Merge => "the changes of both",
    }
}

async fn up_to_date(context: &Context, home: &Home, way: &mut Way) -> Result {
    match way {
        Way::Look(_) => {}
        Way::Here(here) => {
            here.1.pass(Hint::Everything).await?;
        }
        Way::Daemon => {
            let daemon = Client::connect(home).await.ok_or_else(restore::gone)?;
            // A pause is a pause: then it is the vault's state that counts.
            if daemon.status().await?.state != State::Paused {
                let told_ms = context.now_ms();
                let daemon = Client::connect(home).await.ok_or_else(restore::gone)?;
                daemon.tell(Command::Now).await?;
                restore::wait_for_pass(home, told_ms).await?;
            }
        }
    }
    Ok(())
}

async fn all(
    context: &Context,
    home: &Home,
    way: &mut Way,
    chosen: &[OpenConflict],
    keep: Keep,
) -> Result<Answer> {
    let mut exit = Exit::default();
    let mut answer = Answer {
        dry_run: matches!(way, Way::Look(_)),
        resolved: Vec::new(),
        failed: Vec::new(),
        on_disk: None,
        exit: 0,
    };
    let mut told_ms = context.now_ms();
    for (i, conflict) in chosen.iter().enumerate() {
        // Of several copies of one file, only one can take its place.
        let copies = chosen.iter().filter(|other| other.node == conflict.node);
        let copies: Vec<&str> = copies.map(|other| other.copy_path.as_str()).collect();
        let result = match copies.len() > 1 && keep == Keep::Mine {
            true => Ok(left(conflict, keep, &several(&copies))),
            false => one(home, way, conflict, keep).await,
        };
        told_ms = context.now_ms();
        match result {
            Ok(resolution) => {
                if !resolution.clashes.is_empty() || resolution.left.is_some() {
                    exit.add(Exit::CONFLICTS);
                }
                answer.resolved.push(resolution.into());
            }
            // What holds for the first holds for all: nobody wants to read it a hundred times.
            Err(failure) if chosen.len() == 1 || (i == 0 && concerns_all(failure.code)) => {
                return Err(failure);
            }
            Err(failure) => {
                exit.add(failure.code.exit());
                answer.failed.push(Failed {
                    path: conflict.path.as_str().to_owned(),
                    copy_path: conflict.copy_path.as_str().to_owned(),
                    code: failure.code,
                    message: failure.message,
                });
            }
        }
    }
    if answer.resolved.iter().any(|row| row.n.is_some()) {
        answer.on_disk = Some(match way {
            Way::Look(_) => false,
            Way::Daemon => restore::wait_for_pass(home, told_ms).await?,
            Way::Here(here) => {
                let engine = &mut here.1;
                let passed = engine.pass(Hint::Everything).await.is_ok();
                status::remember(home, &engine.status());
                passed
            }
        });
    }
    last_first(&mut answer.resolved);
    answer.exit = exit.status();
    Ok(answer)
}

/// Rows about one file change places, so that the last change of it stands first: whoever follows their undo from the top
/// takes back one after the other, and comes to what was there before.
fn last_first(rows: &mut [Row]) {
    let mut of_file: BTreeMap<String, Vec<usize>> = BTreeMap::new();
    for (i, row) in rows.iter().enumerate() {
        if row.n.is_some() {
            of_file.entry(row.path.clone()).or_default().push(i);
        }
    }
    for places in of_file.values() {
        let from_the_end = places.iter().rev();
        let pairs = places.iter().zip(from_the_end).take(places.len() / 2);
        pairs.for_each(|(one, other)| rows.swap(*one, *other));
    }
}

/// Why nothing is kept of several copies, and how one is.
fn several(copies: &[&str]) -> String {
    let commands = copies.iter().map(|copy| {
        let words = words(
            &["conflicts", "resolve"],
            (*copy).to_owned(),
            &["--keep", "mine"],
        );
        let words: Vec<String> = words.iter().map(|word| quoted(word)).collect();
        format!("`syncagent {}`", words.join(" "))
    });
    format!(
        "it has several copies, and only one can be kept in its place: {}",
        commands.collect::<Vec<_>>().join(" or ")
    )
}

fn left(conflict: &OpenConflict, keep: Keep, why: &str) -> Resolution {
    Resolution {
        left: Some(why.to_owned()),
        ..Resolution::untouched(conflict, keep)
    }
}

fn concerns_all(code: Code) -> bool {
    !matches!(
        code,
        Code::NotFound | Code::Conflict | Code::Chunk | Code::Missing
    )
}

async fn one(
    home: &Home,
    way: &mut Way,
    conflict: &OpenConflict,
    keep: Keep,
) -> Result<Resolution> {
    // Anew for each: what was resolved before may have changed it.
    let last_ops = |index: &Index| -> Result<_> {
        let (log, _) = index.load()?;
        let last = |node| log.get(node).map(|entry| entry.op_hash);
        let both = last(conflict.node).zip(last(conflict.copy));
        both.ok_or_else(|| {
            let path = &conflict.path;
            Failure::not_found(format!(
                "{path} is no conflict any more: somebody has resolved it"
            ))
        })
    };
    let resolve = |seen| Resolve {
        copy: conflict.copy,
        keep,
        seen,
    };
    match way {
        Way::Here(here) => {
            let seen = last_ops(here.1.index())?;
            Ok(here.1.resolve(&resolve(seen)).await?)
        }
        Way::Look(preview) => {
            let seen = last_ops(&Index::open(&home.state_path())?)?;
            Ok(preview.resolve(&resolve(seen)).await?)
        }
        Way::Daemon => {
            let seen = last_ops(&Index::open(&home.state_path())?)?;
            let daemon = Client::connect(home).await.ok_or_else(restore::gone)?;
            let answer = daemon.tell(Command::Resolve(resolve(seen))).await?;
            serde_json::from_value(answer).map_err(|_| {
                Failure::new(Code::Busy, "the daemon speaks another version: restart it")
            })
        }
    }
}

impl From<Resolution> for Row {
    fn from(resolution: Resolution) -> Self {
        let command = |step: Undo| match step {
            Undo::Version { path, n } => words(&["restore"], path, &["--version", &n.to_string()]),
            Undo::Trash { path } => words(&["trash", "restore"], path, &[]),
        };
        Self {
            path: resolution.path,
            copy_path: resolution.copy_path,
            keep: resolution.keep,
            n: resolution.n,
            clashes: resolution.clashes,
            left: resolution.left,
            undo: resolution.undo.into_iter().map(command).collect(),
        }
    }
}

fn described(row: &Row, dry_run: bool) -> String {
    let path = shown(&row.path);
    if let Some(why) = &row.left {
        return format!("{path}: left as it is: {why}\n");
    }
    if !row.clashes.is_empty() {
        let lines = |of: fn(&Clash) -> &std::ops::Range<usize>| {
            let spans = row.clashes.iter().map(|clash| span(of(clash)));
            spans.collect::<Vec<_>>().join(", ")
        };
        return format!(
            "{path}: not merged, both changed the same lines: {} here, {} in {}. Nothing was changed; `syncagent conflicts \
             diff` shows them\n",
            lines(|clash| &clash.theirs),
            lines(|clash| &clash.mine),
            shown(&row.copy_path)
        );
    }
    let copy = shown(&row.copy_path);
    let did = match (row.keep, dry_run) {
        (Keep::Theirs, false) => format!("kept theirs; {copy} is in the trash"),
        (Keep::Theirs, true) => format!("would keep theirs; {copy} would go to the trash"),
        (Keep::Mine, false) => format!("kept mine, which was {copy}"),
        (Keep::Mine, true) => format!("would keep mine, which is {copy}"),
        (Keep::Both, false) => format!("kept both; {copy} is no conflict copy any more"),
        (Keep::Both, true) => format!("would keep both; {copy} would be no conflict copy any more"),
        (Keep::Merge, false) => format!("merged with {copy}"),
        (Keep::Merge, true) => format!("would be merged with {copy}, without clashes"),
    };
    let undo: Vec<String> = row
        .undo
        .iter()
        .map(|command| {
            let words = command.iter().map(|word| quoted(word)).collect::<Vec<_>>();
            format!("syncagent {}", words.join(" "))
        })
        .collect();
    match undo.is_empty() {
        true => format!("{path}: {did}\n"),
        false => format!("{path}: {did}. To undo: {}\n", undo.join(" && ")),
    }
}

/// `line 3`, `lines 3-5`, `before line 3`.
fn span(lines: &std::ops::Range<usize>) -> String {
    match lines.len() {
        0 => format!("before line {}", lines.start),
        1 => format!("line {}", lines.start),
        _ => format!("lines {}-{}", lines.start, lines.end - 1),
    }
}

/// A command about a path: no path is taken for a flag.
fn words(verb: &[&str], path: String, flags: &[&str]) -> Vec<String> {
    let owned = |words: &[&str]| words.iter().map(|word| (*word).to_owned()).collect();
    let (mut all, flags): (Vec<String>, Vec<String>) = (owned(verb), owned(flags));
    if path.starts_with('-') {
        all.extend(flags);
        all.extend(["--".to_owned(), path]);
    } else {
        all.push(path);
        all.extend(flags);
    }
    all
}

/// A command about a path, as a shell takes it.
pub(super) fn command(verb: &[&str], path: &str) -> String {
    let words = words(verb, path.to_owned(), &[]);
    let words: Vec<String> = words.iter().map(|word| quoted(word)).collect();
    format!("syncagent {}", words.join(" "))
}

/// As a shell takes it for one word.
fn quoted(word: &str) -> String {
    let plain = |c: char| c.is_alphanumeric() || "-_./+@%:,=".contains(c);
    if word.chars().all(plain) && !word.is_empty() {
        return word.to_owned();
    }
    if !word.contains(steers) {
        return format!("'{}'", word.replace('\'', "'\\''"));
    }
    // What would steer a terminal can be written in bash, zsh and the shells of POSIX.1-2024.
    let escaped = word.chars().map(|c| match c {
        '\'' | '\\' => format!("\\{c}"),
        c if steers(c) => {
            let mut bytes = [0; 4];
            let bytes = c.encode_utf8(&mut bytes).bytes();
            bytes.map(|byte| format!("\\{byte:03o}")).collect()
        }
        c => c.to_string(),
    });
    format!("$'{}'", escaped.collect::<String>())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_of_a_command_survive_a_shell() {
        assert_eq!(quoted("docs/plan.md"), "docs/plan.md");
        assert_eq!(quoted("my plan's"), r"'my plan'\''s'");
        assert_eq!(
            quoted("a\nb's\\\u{9b}\u{7f}"),
            r"$'a\012b\'s\\\302\233\177'"
        );
        assert_eq!(
            [3..3, 3..4, 3..6].map(|lines| span(&lines)),
            ["before line 3", "line 3", "lines 3-5"]
        );
    }
}
