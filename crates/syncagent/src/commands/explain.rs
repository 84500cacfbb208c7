//! `explain`: why is this file in the state it is in?
//!
//! Looks at the disk, at what this machine has verified and agreed on, and at what the last pass or a running `sync` says.
//! Needs no key and no server, and changes nothing.

mod moved;

use std::path::Path;

use serde::Serialize;
use syncagent_client::daemon::control::Client;
use syncagent_client::engine::{self, Status, kept_placement};
use syncagent_client::folder::disk::{At, Disk, EntryKind, ErrorKind, NativeDisk, Stat};
use syncagent_client::folder::read::open_stable;
use syncagent_client::index::{Index, Version};
use syncagent_protocol::{Body, Code, Kind, NodeId, TreePath};
use syncagent_sync::ignore::{BUILT_IN, LOCAL, SHARED, TEMPORARY_SUFFIX, Verdict};
use syncagent_sync::{Ancestor, AncestorNode, LogTree, Placed, Why};
use syncagent_vault::op::Put;

use super::{browse, ignore, resolve, status};
use crate::context::{Context, not_registered};
use crate::failure::{Failure, Result};
use crate::output::text::{count, time};

/// A file that was written to so recently may not be whole yet, in milliseconds.
const RESTLESS_MS: i64 = 3_000;

/// What a file can be in. docs/cli.md has the table, made of [`State::ALL`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum State {
    InSync,
    ToSend,
    ToReceive,
    ToDelete,
    ToRemove,
    BeingWritten,
    Unreadable,
    Unwritable,
    Damaged,
    Ignored,
    Unplaceable,
    Unplaced,
    Special,
    Mount,
    Own,
    ConflictCopy,
    Conflict,
    Trash,
    Waiting,
    Brake,
    Folder,
    Halted,
}

impl State {
    /// In the order in which docs/cli.md has them.
    pub(crate) const ALL: [Self; 22] = [
        Self::InSync,
        Self::Waiting,
        Self::ToSend,
        Self::ToReceive,
        Self::ToDelete,
        Self::ToRemove,
        Self::BeingWritten,
        Self::Unreadable,
        Self::Unwritable,
        Self::Damaged,
        Self::Ignored,
        Self::Unplaceable,
        Self::Unplaced,
        Self::Special,
        Self::Mount,
        Self::Own,
        Self::ConflictCopy,
        Self::Conflict,
        Self::Trash,
        Self::Brake,
        Self::Folder,
        Self::Halted,
    ];

    fn words(self) -> &'static str {
        match self {
            Self::InSync => "in sync",
            Self::ToSend => "waits to be sent",
            Self::ToReceive => "waits to be received",
            Self::ToDelete => "is gone here, and not yet elsewhere",
            Self::ToRemove => "waits to be removed here",
            Self::BeingWritten => "is being written",
            Self::Unreadable => "cannot be read",
            Self::Unwritable => "cannot be written",
            Self::Damaged => "cannot be fetched",
            Self::Ignored => "ignored",
            Self::Unplaceable => "cannot stand here",
            Self::Unplaced => "has no place",
            Self::Special | Self::Mount => "left alone",
            Self::Own => "SyncAgent's own",
            Self::ConflictCopy => "a conflict copy",
            Self::Conflict => "has a conflict copy",
            Self::Trash => "in the trash",
            Self::Waiting => "not all in sync",
            Self::Brake | Self::Folder | Self::Halted => "everything waits",
        }
    }

    /// Its stable name, as `--json` has it.
    pub(crate) fn name(self) -> String {
        let name = serde_json::to_value(self).unwrap_or_default();
        name.as_str().unwrap_or_default().to_owned()
    }

    /// What it means, and what to do; the latter empty if there is nothing.
    pub(crate) fn meaning(self) -> (&'static str, &'static str) {
        match self {
            Self::InSync => (
                "the same here and in the vault; of a directory, with all that is in it",
                "nothing, unless it says that changes are not watched for",
            ),
            Self::Waiting => (
                "a directory in which not everything is in sync yet",
                "as for what is in it",
            ),
            Self::ToSend => (
                "new or changed here; the vault does not have that yet",
                "wait, or what it says: nothing runs, paused, locked, server away",
            ),
            Self::ToReceive => ("the vault has a newer state of it", "the same"),
            Self::ToDelete => (
                "deleted or moved here; the other machines do not know yet",
                "the same",
            ),
            Self::ToRemove => (
                "deleted or moved elsewhere; still here",
                "the same; an edit keeps it",
            ),
            Self::BeingWritten => ("written to just now; sent once it holds still", ""),
            Self::Unreadable => (
                "cannot be read here",
                "give the right to read it, or close what holds it",
            ),
            Self::Unwritable => (
                "cannot be written here",
                "give the right to write there, or make room",
            ),
            Self::Damaged => (
                "its content cannot be fetched: damaged or missing on the server",
                "a machine that has the file repairs it; `versions`, `verify`",
            ),
            Self::Ignored => (
                "a rule leaves it out; which, in which file and line",
                "a line with `!` takes it in",
            ),
            Self::Unplaceable => (
                "this disk cannot hold the name: reserved, too long, or a twin in other case",
                "rename it elsewhere",
            ),
            Self::Unplaced => (
                "a record that cannot be read or placed, perhaps of a hostile member; or one whose directory hangs nowhere",
                "ask who wrote it, or restore its directory",
            ),
            Self::Special => (
                "a socket, pipe or device, or no UTF-8",
                "leave it, or a name in UTF-8",
            ),
            Self::Mount => (
                "another file system is mounted there",
                "give it a folder and a machine of its own",
            ),
            Self::Own => ("in `.syncagent`", "leave it"),
            Self::ConflictCopy => (
                "made because two machines changed a file at once",
                "`conflicts diff`, `conflicts resolve`",
            ),
            Self::Conflict => ("has such a copy", "the same"),
            Self::Trash => ("was deleted and can be brought back", "`trash restore`"),
            Self::Brake => (
                "waits because too much would change at once (`E_BRAKE`)",
                "look, then say yes",
            ),
            Self::Folder => (
                "the folder is missing, emptied or replaced (`E_ROOT`)",
                "bring it back",
            ),
            Self::Halted => (
                "the history does not fit (`E_ROLLBACK` and the others of exit 14)",
                "docs/failures.md",
            ),
        }
    }

    /// Whether a pass would change it.
    fn waits(self) -> bool {
        matches!(
            self,
            Self::ToSend | Self::ToReceive | Self::ToDelete | Self::ToRemove | Self::Waiting
        )
    }
}

#[derive(Serialize)]
struct Answer {
    path: TreePath,
    state: State,
    why: String,
    /// What to do; none if there is nothing.
    todo: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    id: Option<NodeId>,
    #[serde(skip_serializing_if = "Option::is_none")]
    code: Option<Code>,
    #[serde(skip_serializing_if = "Option::is_none")]
    rule: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    source: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    line: Option<usize>,
    /// Of a directory: how many things below it are not in sync.
    #[serde(skip_serializing_if = "Option::is_none")]
    waiting: Option<u64>,
}

pub(super) fn run(context: &Context, path: &Path) -> Result {
    let home = context.home()?;
    let index = browse::open_index(context)?;
    let folder = context.config(&home)?.folder.ok_or_else(not_registered)?;
    if let Some(no_text) = ignore::no_text(context, &folder, path) {
        let path = TreePath::parse(&no_text)
            .map_err(|_| Failure::usage(format!("{no_text} is no path in the folder")))?;
        let why = "The name, or one on the way to it, is not well-formed UTF-8; what is not text is shown as \\xNN. It is neither sent nor changed.";
        let todo = "Give it a name in UTF-8.";
        return show(context, &answer(&path, State::Special, why, Some(todo)));
    }
    let path = ignore::in_folder(context, &folder, path)?;
    let running = context.block_on(async {
        Ok(match Client::connect(&home).await {
            Some(daemon) => daemon.status().await.ok(),
            None => None,
        })
    })?;
    let is_running = running.is_some();
    let status = match running {
        Some(status) => status,
        None => status::last(&home)?,
    };
    let (log, ancestor) = index.load()?;
    let world = World {
        now_ms: context.now_ms().cast_signed(),
        disk: NativeDisk::open(&folder).map_err(|error| error.to_string()),
        placed: log.placed(),
        folder: &folder,
        is_running,
        index,
        log,
        ancestor,
        status: status::with_folder(status, Some(&folder)),
    };
    show(context, &world.explain(&path)?)
}

fn show(context: &Context, answer: &Answer) -> Result {
    context.output.sentences(answer, || {
        let mut text = format!(
            "{}: {}\n  {}\n",
            answer.path,
            answer.state.words(),
            answer.why
        );
        if let Some(todo) = &answer.todo {
            text.push_str(&format!("  {todo}\n"));
        }
        text
    })
}

/// All that is known.
struct World<'a> {
    now_ms: i64,
    folder: &'a Path,
    /// Or why it cannot be looked at.
    disk: std::result::Result<NativeDisk, String>,
    is_running: bool,
    status: Status,
    index: Index,
    log: LogTree,
    placed: Placed,
    ancestor: Ancestor,
}

impl World<'_> {
    fn explain(&self, path: &TreePath) -> Result<Answer> {
        let own = path.components().next() == Some(".syncagent");
        if own {
            let why = "SyncAgent keeps its own files in .syncagent; they stay on this machine.";
            let todo = "Leave it as it is. To synchronise a file of yours, put it elsewhere.";
            return Ok(answer(path, State::Own, why, Some(todo)));
        }
        let disk = match &self.disk {
            Ok(disk) => disk,
            Err(why) => {
                let todo = "Bring the folder back: mount its disk, or put the directory in its place again. Nothing is deleted anywhere meanwhile.";
                return Ok(answer(path, State::Folder, why, Some(todo)));
            }
        };
        let found = match disk.stat(At::Tree(path)) {
            Ok(stat) => Some(stat),
            // Below a link or a file there is nothing: links are not followed.
            Err(error)
                if matches!(
                    error.kind,
                    ErrorKind::NotFound | ErrorKind::NotADirectory | ErrorKind::Escapes
                ) =>
            {
                None
            }
            // What this disk cannot hold it cannot be asked for, either.
            Err(_)
                if { self.placed.tree.at(path) }
                    .is_some_and(|node| self.refused(node).is_some()) =>
            {
                None
            }
            Err(error) => {
                let todo = "Give this user the right to read it, or look at the disk; then it goes on by itself.";
                return Ok(answer(
                    path,
                    State::Unreadable,
                    &error.to_string(),
                    Some(todo),
                ));
            }
        };
        if let Some(ignored) = self.ignored(path, found)? {
            return Ok(ignored);
        }
        if let Some(stat) = found {
            if stat.kind == EntryKind::Special {
                let why = "It is a socket, pipe or device; only files, directories and links are synchronised.";
                let todo = "It may stay; `syncagent status` lists it as left alone for as long as it is there.";
                return Ok(answer(path, State::Special, why, Some(todo)));
            }
            if stat.device != disk.root_device() {
                let why = "Another file system is mounted here; it is not entered.";
                let todo =
                    "To synchronise what is in it, give it a folder and a machine of its own.";
                return Ok(answer(path, State::Mount, why, Some(todo)));
            }
        }
        if let Some(held) = self.held(path) {
            return Ok(held);
        }
        let node = self.placed.tree.at(path);
        if node.is_none()
            && let Some((id, why)) = self.unplaced(path)
        {
            return self.no_place(path, id, why, found.is_some());
        }
        if let Some(told) = self.told(path) {
            return Ok(Answer { id: node, ..told });
        }
        let state = self.state(disk, path, node, found);
        let mut answer = match state {
            Some(state) => self.describe(disk, path, state, node, found)?,
            None => self.absent(disk, path)?,
        };
        answer.id = answer.id.or(node.filter(|node| *node != NodeId::ROOT));
        if answer.state.waits()
            && let Some(held) = &self.status.held
            && held.code == Code::Brake
        {
            answer.state = State::Brake;
            answer.code = Some(held.code);
            answer.todo = Some(held.message.clone());
        }
        if answer.state == State::InSync && answer.todo.is_none() {
            answer.todo = self.unwatched(path);
        }
        Ok(answer)
    }

    /// What is in sync now, and of whose changes nobody would hear, says so.
    fn unwatched(&self, path: &TreePath) -> Option<String> {
        let unwatched = self.status.unwatched.as_ref()?;
        let is_above = |top: &String| TreePath::parse(top).is_ok_and(|top| path.is_within(&top));
        let is_meant = unwatched.paths.iter().any(is_above);
        is_meant.then(|| format!("It is not watched: {}.", unwatched.message))
    }

    fn ignored(&self, path: &TreePath, found: Option<Stat>) -> Result<Option<Answer>> {
        // What is synchronised already goes on being so.
        if self.placed.tree.at(path).is_some() || self.ancestor.knows(path) {
            return Ok(None);
        }
        let is_dir = found.is_some_and(|stat| stat.kind == EntryKind::Directory);
        // What lies in a directory says nothing of the directory.
        let above = path.parent().unwrap_or(TreePath::ROOT);
        let (rules, _) = ignore::rules_for(self.folder, &above)?;
        let Verdict::Ignored { rule, source, line } = rules.check(path, is_dir) else {
            return Ok(None);
        };
        let name = path.name().map(|name| name.as_str().to_owned());
        let name = name.unwrap_or_default();
        let why = match source == BUILT_IN {
            true => format!("The rule {rule} leaves it out. It is built in."),
            false => format!("The rule {rule} in {source}, line {line}, leaves it out."),
        };
        let is_ours = name == LOCAL || name.ends_with(TEMPORARY_SUFFIX);
        let todo = match found.map(|stat| stat.kind) {
            Some(EntryKind::Special) => {
                "It may stay: a socket, pipe or device is not synchronised without the rule, either."
                    .to_owned()
            }
            _ if is_ours => "Leave it as it is: it is for this machine alone.".to_owned(),
            _ if source == BUILT_IN => format!(
                "Operating systems leave such things behind, so it may stay. To synchronise it all the same, add the line \
                 !{name} to {SHARED}."
            ),
            _ => format!("To synchronise it, add a line with ! and the name to {source}."),
        };
        Ok(Some(Answer {
            rule: Some(rule),
            source: Some(source),
            line: Some(line),
            ..answer(path, State::Ignored, &why, Some(&todo))
        }))
    }

    /// What keeps everything.
    fn held(&self, path: &TreePath) -> Option<Answer> {
        let held = self.status.held.as_ref()?;
        let state = match (self.status.state, held.code) {
            (engine::State::Halted, _) => State::Halted,
            (_, Code::Root) => State::Folder,
            _ => return None,
        };
        let todo = match state {
            State::Halted => {
                "Nothing is sent or changed until that is settled. `syncagent doctor` says more."
            }
            _ => {
                "Nothing is deleted anywhere. Once the folder is as it was, `syncagent sync` goes on."
            }
        };
        Some(Answer {
            code: Some(held.code),
            ..answer(path, state, &held.message, Some(todo))
        })
    }

    /// What the last pass said of it.
    fn told(&self, path: &TreePath) -> Option<Answer> {
        let shown = path.to_string();
        // An error without a path is of a whole pass, and says nothing of the folder itself.
        let is_it = |told: &str| !told.is_empty() && (told == path.as_str() || told == shown);
        if let Some(error) = self.status.errors.iter().find(|error| is_it(&error.path)) {
            let (state, todo) = match error.code {
                Code::Write | Code::DiskFull => (
                    State::Unwritable,
                    "Give this user the right to write there, or make room; then it goes on by itself.",
                ),
                Code::Path => (
                    State::Unplaced,
                    "Ask whoever uses the machine that wrote it; nothing of it is touched here.",
                ),
                Code::Chunk | Code::Missing => (
                    State::Damaged,
                    "A machine that still has the file repairs it with its next change; `syncagent versions` shows older ones, `syncagent verify` what else is touched.",
                ),
                _ => (
                    State::Unreadable,
                    "Give this user the right to read it, or close the program that holds it; then it goes on by itself.",
                ),
            };
            return Some(Answer {
                code: Some(error.code),
                ..answer(path, state, &error.message, Some(todo))
            });
        }
        let skipped = self
            .status
            .skipped
            .iter()
            .find(|skipped| is_it(&skipped.path))?;
        let (state, todo) = match skipped.reason.as_str() {
            "unplaceable" => (
                State::Unplaceable,
                "Rename it on a machine that can hold the name; the vault keeps it.",
            ),
            "held" => (
                State::Unplaced,
                "Restore its directory, or move it elsewhere.",
            ),
            "changing" => (State::BeingWritten, "It is looked at again by itself."),
            "not-utf8" => (State::Special, "Give it a name or target in UTF-8."),
            _ => return None,
        };
        Some(answer(path, state, &skipped.detail, Some(todo)))
    }

    /// The state of what is there or in the vault; none if it is neither.
    fn state(
        &self,
        disk: &NativeDisk,
        path: &TreePath,
        node: Option<NodeId>,
        found: Option<Stat>,
    ) -> Option<State> {
        let row = node.and_then(|node| self.ancestor.get(node));
        match (node, found) {
            (Some(NodeId::ROOT), Some(_)) => Some(State::InSync),
            (Some(node), None) => Some(match row {
                Some(row) if !row.not_here && self.stood_at(node) == Some(path.clone()) => {
                    State::ToDelete
                }
                _ if self.refused(node).is_some() => State::Unplaceable,
                _ => State::ToReceive,
            }),
            (Some(node), Some(stat)) => {
                let in_vault = self.placed.tree.get(node)?;
                let Some(row) = row else {
                    return Some(State::ToReceive);
                };
                if self.waits_for_quiet(&stat) && row.fingerprint != Some(stat.fingerprint()) {
                    return Some(State::BeingWritten);
                }
                let moved = self.stood_at(node).as_ref() != Some(path);
                if self.touched(disk, path, row, &stat).is_some() {
                    return Some(State::ToSend);
                }
                Some(match row.node.body == in_vault.body && !moved {
                    true => State::InSync,
                    false => State::ToReceive,
                })
            }
            (None, Some(stat)) => Some(match self.ancestor.knows(path) {
                true => State::ToRemove,
                false if self.waits_for_quiet(&stat) => State::BeingWritten,
                false => State::ToSend,
            }),
            (None, None) => None,
        }
    }

    /// Whether a `sync` that runs lets it hold still first. Where none does, or none goes on, that is not what it waits for.
    fn waits_for_quiet(&self, stat: &Stat) -> bool {
        use engine::State::{Conflict, Error, Idle, Syncing};
        self.is_running
            && matches!(self.status.state, Idle | Syncing | Conflict | Error)
            && is_restless(stat, self.now_ms)
    }

    /// What was changed of a thing since disk and vault last agreed; none if nothing.
    fn touched(
        &self,
        disk: &NativeDisk,
        path: &TreePath,
        row: &AncestorNode,
        stat: &Stat,
    ) -> Option<Touched> {
        let exec = match (&row.node.body, stat.kind) {
            (Body::Directory, EntryKind::Directory) => return None,
            (Body::Symlink { target }, EntryKind::Symlink) => {
                let found = disk.read_link(At::Tree(path));
                let is_same = found.is_ok_and(|found| found == *target);
                return (!is_same).then_some(Touched::Content);
            }
            (Body::File { hash, size, exec }, EntryKind::File) => {
                let is_same = row.fingerprint == Some(stat.fingerprint())
                    || (stat.size == *size && content_is(disk, path, hash.0));
                if !is_same {
                    return Some(Touched::Content);
                }
                *exec
            }
            _ => return Some(Touched::Content),
        };
        let placement = kept_placement(&self.index).ok().flatten();
        if placement.is_none_or(|can| can.exec_bit) && exec != stat.exec() {
            return Some(Touched::Exec);
        }
        // A file system may round what it was told: a file that was not touched has the time of its row.
        let same_time = stat.mtime_ns == row.node.mtime_ns
            || (row.fingerprint).is_some_and(|print| print.mtime_ns == stat.mtime_ns);
        (!same_time).then_some(Touched::Time)
    }

    /// What hangs nowhere, stood at `path` before, and may be there still; or is asked for by its id, as `status` names it.
    fn unplaced(&self, path: &TreePath) -> Option<(NodeId, Why)> {
        let text = path.as_str();
        let is_meant = |id: NodeId| {
            let name = id.to_string();
            text == name
                || text.ends_with(&format!(" ({name})"))
                || self.stood_at(id).as_ref() == Some(path)
        };
        let mut unplaced = self.placed.unplaced.iter().map(|(id, why)| (*id, *why));
        unplaced.find(|(id, _)| is_meant(*id))
    }

    /// What hangs nowhere: why, and the way back.
    fn no_place(&self, path: &TreePath, id: NodeId, why: Why, is_here: bool) -> Result<Answer> {
        let versions = self.index.versions(id)?;
        let has_name = |version: &&Version| {
            let put = version.put.as_deref().map(|put| Put::parse(put, id));
            put.is_some_and(|put| {
                put.is_ok_and(|put| put.parent != NodeId::ROOT || !put.name.is_reserved_in_root())
            })
        };
        let restore = { versions.iter().find(has_name) }
            .map(|version| format!("`syncagent restore {id} --version {}`", version.n));
        let author = match versions.first() {
            Some(newest) => {
                let names = browse::machine_names(&self.index)?;
                format!(
                    "whoever uses {}, which wrote it",
                    browse::name_of(&names, newest.machine)
                )
            }
            None => "whoever wrote it".to_owned(),
        };
        let todo = match (why.code(), restore) {
            (None, Some(restore)) => format!("{restore} places it again."),
            (_, Some(restore)) => {
                format!("Ask {author}. {restore} brings back the last version that can stand here.")
            }
            (_, None) => format!("Ask {author}."),
        };
        let stays = match is_here {
            true => " What is here stays, and is neither sent nor changed.",
            false => "",
        };
        let why_not = format!("It has no place in the vault: {}.{stays}", why.words());
        Ok(Answer {
            id: Some(id),
            code: why.code(),
            ..answer(path, State::Unplaced, &why_not, Some(&todo))
        })
    }

    /// Where disk and vault last agreed that it hangs.
    fn stood_at(&self, node: NodeId) -> Option<TreePath> {
        let mut names = Vec::new();
        let mut at = node;
        while at != NodeId::ROOT {
            let row = self.ancestor.get(at).filter(|_| names.len() < 4096)?;
            names.push(row.node.name.clone());
            at = row.node.parent;
        }
        let names = names.iter().rev();
        Some(names.fold(TreePath::ROOT, |path, name| path.join(name)))
    }

    /// Why this disk cannot hold it.
    fn refused(&self, node: NodeId) -> Option<String> {
        let placement = kept_placement(&self.index).ok()??;
        let tree = &self.placed.tree;
        let this = tree.get(node)?;
        if let Some(why) = placement.refuses(this.parent, &this.name) {
            return Some(why.to_owned());
        }
        let key = placement.key(&this.name);
        let twin = |(name, id): &(&_, NodeId)| *id != node && placement.key(name) == key;
        let (twin, _) = tree.children(this.parent).find(twin)?;
        Some(format!(
            "this file system takes the name for the same as {twin}"
        ))
    }

    fn describe(
        &self,
        disk: &NativeDisk,
        path: &TreePath,
        state: State,
        node: Option<NodeId>,
        found: Option<Stat>,
    ) -> Result<Answer> {
        let is_directory = match node {
            Some(NodeId::ROOT) => true,
            Some(node) => { self.placed.tree.get(node) }
                .is_some_and(|node| node.body.kind() == Kind::Directory),
            None => disk
                .stat(At::Tree(path))
                .is_ok_and(|stat| stat.kind == EntryKind::Directory),
        };
        if state == State::InSync && is_directory {
            if let Err(error) = disk.list(path) {
                let todo = "Give this user the right to list it, or look at the disk; then it goes on by itself. What is in it is not taken for deleted.";
                return Ok(answer(
                    path,
                    State::Unreadable,
                    &error.to_string(),
                    Some(todo),
                ));
            }
            let n = self.waiting_below(disk, path)?;
            let mut answer = match n {
                0 => answer(
                    path,
                    State::InSync,
                    "The directory and all that is in it are the same here and in the vault.",
                    None,
                ),
                n => {
                    let why = format!(
                        "The directory is in sync, but {} below it not yet.",
                        count(n, "thing")
                    );
                    answer(path, State::Waiting, &why, Some(&self.onward()))
                }
            };
            answer.waiting = Some(n);
            return Ok(answer);
        }
        let open = self.index.open_conflicts(&self.placed.tree)?;
        if let Some(conflict) = open.iter().find(|open| Some(open.copy) == node) {
            let why = format!(
                "It was made at {}, because {} was changed on two machines at once.",
                time(conflict.time_ms),
                conflict.path
            );
            return Ok(answer(
                path,
                State::ConflictCopy,
                &why,
                Some(&resolve_todo(path)),
            ));
        }
        let copies = open.iter().filter(|open| Some(open.node) == node);
        let copies: Vec<String> = copies.map(|open| open.copy_path.to_string()).collect();
        if !copies.is_empty() {
            let others = match copies.as_slice() {
                [one] => format!("the other version is {one}"),
                more => format!("the other versions are {}", listed(more)),
            };
            let why = format!("It was changed on several machines at once; {others}.");
            let todo = resolve_todo(path);
            return Ok(answer(path, State::Conflict, &why, Some(&todo)));
        }
        if matches!(state, State::ToSend | State::InSync)
            && !is_directory
            && let Err(error) = readable(disk, path)
        {
            let todo = "Give this user the right to read it, or close the program that holds it; then it goes on by itself.";
            return Ok(answer(path, State::Unreadable, &error, Some(todo)));
        }
        let onward = self.onward();
        let (why, todo) = match state {
            State::InSync => ("It is the same here and in the vault.".to_owned(), None),
            State::ToSend => (self.unsent(disk, path, node, found), Some(onward)),
            State::ToReceive => (
                "The vault has a newer state of it, which is not in this folder yet.".to_owned(),
                Some(onward),
            ),
            State::ToDelete => match node.and_then(|node| self.moved_to(disk, node)) {
                Some(to) => (
                    format!(
                        "It was {} {to} here; the other machines do not know yet.",
                        went(path, &to)
                    ),
                    Some(onward),
                ),
                None => (
                    "It was deleted here; the other machines do not know yet.".to_owned(),
                    Some(format!("{onward} It will be in the trash.")),
                ),
            },
            State::ToRemove => (
                "It was deleted or moved on another machine.".to_owned(),
                Some(format!(
                    "{onward} To keep it, change it: an edit beats a deletion."
                )),
            ),
            State::BeingWritten => (
                "It was written to just now, and is sent once it holds still.".to_owned(),
                None,
            ),
            State::Unplaceable => (
                format!(
                    "It is in the vault, but not here: {}.",
                    node.and_then(|node| self.refused(node)).unwrap_or_default()
                ),
                Some("Rename it on a machine that can hold the name.".to_owned()),
            ),
            _ => (String::new(), None),
        };
        Ok(answer(path, state, &why, todo.as_deref()))
    }

    /// What is new about a thing that the vault does not have like that.
    fn unsent(
        &self,
        disk: &NativeDisk,
        path: &TreePath,
        node: Option<NodeId>,
        found: Option<Stat>,
    ) -> String {
        if let Some(from) = found.and_then(|stat| self.moved_from(disk, path, &stat)) {
            return format!(
                "It was {from}, and was {} this here; the vault does not have that yet.",
                went(&from, path)
            );
        }
        let row = node.and_then(|node| self.ancestor.get(node));
        let touched = row.zip(found);
        let touched = touched.and_then(|(row, stat)| self.touched(disk, path, row, &stat));
        match (node, touched) {
            (None, _) => "It is new here, and the vault does not have it yet.",
            (_, Some(Touched::Exec)) => {
                "Whether it may be executed was changed here, and the vault does not have that yet."
            }
            (_, Some(Touched::Time)) => {
                "Its time was changed here, and nothing else; the vault does not have that yet."
            }
            _ => "It was changed here, and the vault does not have that yet.",
        }
        .to_owned()
    }

    /// What is neither here nor has a place in the vault.
    fn absent(&self, disk: &NativeDisk, path: &TreePath) -> Result<Answer> {
        if let Some(trashed) = browse::trashed(&self.index)?
            .into_iter()
            .find(|trashed| trashed.path == *path)
        {
            let why = "It was deleted, and can be brought back.";
            let command = resolve::command(&["trash", "restore"], path.as_str());
            let todo = format!("`{command}` brings it back.");
            return Ok(Answer {
                id: Some(trashed.id),
                ..answer(path, State::Trash, why, Some(&todo))
            });
        }
        let name = path.name();
        let unplaced = self.placed.unplaced.iter().find(|(id, _)| {
            let entry = self.log.get(**id).and_then(|entry| entry.op.node());
            entry.is_some_and(|node| Some(&node.name) == name.as_ref())
        });
        match unplaced {
            Some((id, why)) => self.no_place(path, *id, *why, false),
            None => {
                let below = match above_is_link(disk, path) {
                    Some(link) => format!(
                        " {link} is a link; links are synchronised as links, and are not followed."
                    ),
                    None => String::new(),
                };
                Err(Failure::not_found(format!(
                    "{path} is neither in the folder nor in the vault nor in the trash.{below} `syncagent ls` shows what there is"
                )))
            }
        }
    }

    /// How many things in a directory are not in sync.
    fn waiting_below(&self, disk: &NativeDisk, dir: &TreePath) -> Result<u64> {
        let mut n = 0;
        let mut dirs = vec![dir.clone()];
        while let Some(dir) = dirs.pop() {
            // Nobody knows what is in it.
            let Ok(listing) = disk.list(&dir) else {
                n += 1;
                continue;
            };
            let (rules, _) = ignore::rules_for(self.folder, &dir)?;
            let names = listing
                .entries
                .into_iter()
                .filter_map(|entry| entry.name.ok());
            let mut names: std::collections::BTreeSet<_> = names.collect();
            if let Some(node) = self.placed.tree.at(&dir) {
                names.extend(
                    self.placed
                        .tree
                        .children(node)
                        .map(|(name, _)| name.clone()),
                );
            }
            for name in names {
                let path = dir.join(&name);
                if path.as_str() == ".syncagent" {
                    continue;
                }
                let node = self.placed.tree.at(&path);
                let found = disk.stat(At::Tree(&path)).ok();
                let is_dir = found.is_some_and(|stat| stat.kind == EntryKind::Directory);
                let known = node.is_some() || self.ancestor.knows(&path);
                let left_out = found.is_some_and(|stat| {
                    stat.kind == EntryKind::Special || stat.device != disk.root_device()
                }) || matches!(rules.check(&path, is_dir), Verdict::Ignored { .. });
                if left_out && !known {
                    continue;
                }
                n += u64::from(!matches!(
                    self.state(disk, &path, node, found),
                    None | Some(State::InSync)
                ));
                if is_dir {
                    dirs.push(path);
                }
            }
        }
        Ok(n)
    }

    /// When it goes on.
    fn onward(&self) -> String {
        match self.status.state {
            _ if !self.is_running => "Nothing is running: `syncagent sync` goes on.",
            engine::State::Paused => "This machine is paused: `syncagent resume` goes on.",
            engine::State::Locked => "The key is locked: `syncagent unlock` goes on.",
            engine::State::Offline => {
                "The server cannot be reached; it goes on by itself once it can."
            }
            _ => "It happens by itself, mostly within seconds; `syncagent now` looks at once.",
        }
        .to_owned()
    }
}

/// What was changed of a thing.
#[derive(Clone, Copy)]
enum Touched {
    Content,
    Exec,
    Time,
}

/// `renamed to` in the same directory, else `moved to`.
fn went(from: &TreePath, to: &TreePath) -> &'static str {
    match from.parent() == to.parent() {
        true => "renamed to",
        false => "moved to",
    }
}

/// `a, b and c`.
fn listed(several: &[String]) -> String {
    match several {
        [first @ .., last] if !first.is_empty() => format!("{} and {last}", first.join(", ")),
        _ => several.concat(),
    }
}

fn resolve_todo(path: &TreePath) -> String {
    let command = |verb| resolve::command(&["conflicts", verb], path.as_str());
    format!(
        "`{}` shows in what they differ, `{}` keeps one, both, or the changes of both.",
        command("diff"),
        command("resolve")
    )
}

/// The link on the way to a path, if there is one.
fn above_is_link(disk: &NativeDisk, path: &TreePath) -> Option<TreePath> {
    let mut above = path.parent();
    let mut found = None;
    while let Some(dir) = above.filter(|dir| !dir.is_root()) {
        let stat = disk.stat(At::Tree(&dir)).ok();
        if stat.is_some_and(|stat| stat.kind == EntryKind::Symlink) {
            found = Some(dir.clone());
        }
        above = dir.parent();
    }
    found
}

fn answer(path: &TreePath, state: State, why: &str, todo: Option<&str>) -> Answer {
    Answer {
        path: path.clone(),
        state,
        why: why.to_owned(),
        todo: todo.map(str::to_owned),
        id: None,
        code: None,
        rule: None,
        source: None,
        line: None,
        waiting: None,
    }
}

fn is_restless(stat: &Stat, now_ms: i64) -> bool {
    stat.kind == EntryKind::File && (now_ms - stat.mtime_ns / 1_000_000).abs() < RESTLESS_MS
}

fn content_is(disk: &NativeDisk, path: &TreePath, hash: [u8; 32]) -> bool {
    content_of(disk, path) == Some(hash)
}

/// The hash of a file's content; none if it cannot be read.
fn content_of(disk: &NativeDisk, path: &TreePath) -> Option<[u8; 32]> {
    let mut file = open_stable(disk, path, None).ok()?;
    let mut hasher = blake3::Hasher::new();
    let mut buf = vec![0; 256 * 1024];
    loop {
        match file.read(&mut buf) {
            Ok(0) => return Some(*hasher.finalize().as_bytes()),
            Ok(n) => hasher.update(&buf[..n]),
            Err(_) => return None,
        };
    }
}

fn readable(disk: &NativeDisk, path: &TreePath) -> std::result::Result<(), String> {
    match disk.stat(At::Tree(path)) {
        Ok(stat) if stat.kind == EntryKind::File => {
            let opened = open_stable(disk, path, None);
            opened.map(drop).map_err(|error| error.to_string())
        }
        _ => Ok(()),
    }
}
