//! How a machine does, in the words that status, web page and tray share.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};
use syncagent_protocol::api::Head;
use syncagent_protocol::{Code, Kind, TreePath};
use syncagent_sync::Conflict;
use syncagent_sync::scan::Skipped;

use super::Engine;
use super::brake::{Consent, HeldChange, Waiting};
use crate::error::ClientError;
use crate::index::OpenConflict;

/// Directories that are not watched are named up to this many.
const MAX_UNWATCHED: usize = 20;

/// The nine states.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum State {
    /// Everything is in sync.
    #[default]
    Idle,
    /// Working.
    Syncing,
    /// Some files failed, or the last pass did.
    Error,
    /// In sync, with conflicts to look at.
    Conflict,
    /// The server cannot be reached.
    Offline,
    /// Paused by a person.
    Paused,
    /// The key is not at hand.
    Locked,
    /// Waiting for a person's yes.
    Held,
    /// The history does not fit; nothing moves until a person has looked.
    Halted,
}

impl State {
    /// Whether what folder and vault agreed on is the same, as far as anybody has heard. Something may be left alone
    /// beside it: [`Status::is_in_sync`].
    pub fn is_in_sync(self) -> bool {
        matches!(self, Self::Idle | Self::Conflict)
    }

    /// The word.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Idle => "idle",
            Self::Syncing => "syncing",
            Self::Error => "error",
            Self::Conflict => "conflict",
            Self::Offline => "offline",
            Self::Paused => "paused",
            Self::Locked => "locked",
            Self::Held => "held",
            Self::Halted => "halted",
        }
    }
}

/// A file that failed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FileError {
    /// Which one.
    pub path: String,
    /// The stable code.
    pub code: Code,
    /// What is wrong, and what to do.
    pub message: String,
}

/// How far a pass is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Progress {
    /// Files that have to be sent or fetched.
    pub files_total: u64,
    /// Of those, done.
    pub files_done: u64,
    /// Their bytes.
    pub bytes_total: u64,
    /// Of those, done.
    pub bytes_done: u64,
}

/// Everything `status --json` shows of a machine.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Status {
    /// One of the nine words.
    pub state: State,
    /// Files still to be sent or fetched.
    pub pending: u64,
    /// What failed.
    pub errors: Vec<FileError>,
    /// What is left alone, and why.
    pub skipped: Vec<SkippedFile>,
    /// Conflicts that nobody has resolved.
    pub conflicts: Vec<ConflictFile>,
    /// Why everything waits, if it does.
    pub held: Option<Problem>,
    /// The verified position of the log.
    pub head: Option<Head>,
    /// Files that folder and vault agreed on when they were last compared.
    pub files: u64,
    /// When the last pass ended well, milliseconds since 1970.
    pub last_sync: Option<u64>,
    /// Things a person should know.
    pub notices: Vec<String>,
    /// Of what no change is heard, if there is such a thing.
    pub unwatched: Option<Unwatched>,
    /// How far the running pass is.
    pub progress: Progress,
}

impl Status {
    /// Whether somebody has looked at everything, and nothing is left to do, to decide or to know of: the one place where
    /// that is said.
    pub fn is_in_sync(&self) -> bool {
        self.state == State::Idle
            && self.last_sync.is_some()
            && self.pending == 0
            && self.errors.is_empty()
            && self.skipped.is_empty()
            && self.conflicts.is_empty()
            && self.held.is_none()
            && self.unwatched.is_none()
    }
}

/// What is looked at by the regular scan alone, because the system does not watch it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Unwatched {
    /// Directories, each with everything below it: the first twenty. An empty path is the whole folder.
    pub paths: Vec<String>,
    /// How many there are besides.
    pub more: u64,
    /// Why, and what to do.
    pub message: String,
}

/// Why nothing moves.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Problem {
    /// The stable code.
    pub code: Code,
    /// What, and what to do.
    pub message: String,
    /// How many files would be deleted or replaced, if that is why.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub total: Option<u64>,
    /// Which: all of them up to 10,000 and 4 MiB of paths, else the first ones.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub changes: Vec<HeldChange>,
}

/// Something that is left alone.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SkippedFile {
    /// Which thing.
    pub path: String,
    /// A stable word.
    pub reason: String,
    /// One sentence.
    pub detail: String,
}

/// A conflict copy.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ConflictFile {
    /// The name both wanted.
    pub path: String,
    /// The copy.
    pub copy: String,
    /// When it was made, milliseconds since 1970.
    pub time_ms: u64,
}

impl From<OpenConflict> for ConflictFile {
    fn from(open: OpenConflict) -> Self {
        Self {
            path: open.path.as_str().to_owned(),
            copy: open.copy_path.as_str().to_owned(),
            time_ms: open.time_ms,
        }
    }
}

/// What came of a pass.
#[derive(Debug, Clone, Default)]
pub struct Outcome {
    /// Files sent.
    pub sent: u64,
    /// Files fetched.
    pub fetched: u64,
    /// Files, directories and links removed here.
    pub removed: u64,
    /// Bytes uploaded in packs.
    pub bytes_sent: u64,
    /// Conflict copies made.
    pub conflicts: Vec<Conflict>,
    /// Files that failed.
    pub errors: Vec<FileError>,
    /// What is left alone, and why.
    pub skipped: Vec<SkippedFile>,
}

pub(super) fn state_of(error: &ClientError) -> State {
    match error {
        ClientError::Halted { .. } => State::Halted,
        ClientError::Held { .. } => State::Held,
        ClientError::Locked(_) => State::Locked,
        error if error.code() == Code::Offline => State::Offline,
        _ => State::Error,
    }
}

impl From<&Skipped> for SkippedFile {
    fn from(skipped: &Skipped) -> Self {
        Self {
            path: skipped.path.clone(),
            reason: skipped.reason.to_owned(),
            detail: skipped.detail.clone(),
        }
    }
}

impl Engine {
    pub(super) fn resting_state(&self) -> State {
        if !self.all_errors().is_empty() {
            State::Error
        } else if self.open_conflicts().is_empty() {
            State::Idle
        } else {
            State::Conflict
        }
    }

    /// Everything that failed: reading here, content from there.
    pub(super) fn all_errors(&self) -> Vec<FileError> {
        let scanned = self
            .scan
            .iter()
            .flat_map(|scan| &scan.skipped)
            .chain(&self.skipped);
        let scanned = scanned.filter_map(|skipped| {
            skipped.code.map(|code| FileError {
                path: skipped.path.clone(),
                code,
                message: skipped.detail.clone(),
            })
        });
        let mut errors: Vec<FileError> = self
            .errors
            .values()
            .chain(self.unavailable.values())
            .cloned()
            .chain(scanned)
            .collect();
        errors.sort_by(|a, b| a.path.cmp(&b.path));
        errors.dedup_by(|a, b| a.path == b.path);
        errors
    }

    pub(super) fn all_skipped(&self) -> Vec<SkippedFile> {
        let scanned = self
            .scan
            .iter()
            .flat_map(|scan| &scan.skipped)
            .chain(&self.skipped);
        scanned
            .filter(|skipped| skipped.code.is_none())
            .map(SkippedFile::from)
            .collect()
    }

    /// Conflicts that nobody has resolved, on whichever machine they arose.
    pub(super) fn open_conflicts(&self) -> Vec<ConflictFile> {
        let open = self.index.open_conflicts(&self.placed.tree);
        let open = open.unwrap_or_default().into_iter();
        open.map(ConflictFile::from).collect()
    }

    /// What is not watched, without what is left alone anyway.
    fn unwatched_now(&self) -> Option<Unwatched> {
        let unwatched = self.unwatched.as_ref()?;
        let skipped = self.scan.iter().flat_map(|scan| &scan.skipped);
        let left_alone: BTreeSet<TreePath> = skipped
            .filter(|skipped| skipped.code.is_none())
            .filter_map(|skipped| TreePath::parse(&skipped.path).ok())
            .collect();
        let is_left_alone = |path: &TreePath| {
            let above = std::iter::successors(Some(path.clone()), TreePath::parent);
            above.into_iter().any(|path| left_alone.contains(&path))
        };
        let mut paths = unwatched.paths.iter().filter(|path| !is_left_alone(path));
        let first: Vec<String> = { paths.by_ref().take(MAX_UNWATCHED) }
            .map(|path| path.as_str().to_owned())
            .collect();
        (!first.is_empty()).then(|| Unwatched {
            paths: first,
            more: paths.count() as u64,
            message: unwatched.message.clone(),
        })
    }

    pub(super) fn publish(&mut self, state: State) {
        self.publish_error(state, None);
    }

    pub(super) fn publish_error(&mut self, state: State, error: Option<&ClientError>) {
        let files = self.ancestor.count(Kind::File);
        let mut errors = self.all_errors();
        if let Some(error) = error
            && matches!(state, State::Error | State::Offline)
        {
            errors.push(FileError {
                path: String::new(),
                code: error.code(),
                message: error.to_string(),
            });
        }
        let held = match (error, state) {
            (Some(error), State::Held | State::Halted) => Some(self.problem(error)),
            // A pause, or another look, makes no answer to what waits for one.
            (None, State::Paused) => self.held_before(),
            (None, State::Syncing) if matches!(self.consent, Consent::Nothing) => {
                self.held_before().filter(|held| held.code == Code::Brake)
            }
            _ => None,
        };
        let status = Status {
            state,
            pending: 0,
            errors,
            skipped: self.all_skipped(),
            conflicts: self.open_conflicts(),
            held,
            head: Some(self.head),
            files: files as u64,
            last_sync: (self.last_sync_ms > 0).then_some(self.last_sync_ms),
            notices: self.notices.iter().chain(&self.no_rules).cloned().collect(),
            unwatched: self.unwatched_now(),
            progress: Progress::default(),
        };
        self.status.send_replace(status);
    }

    /// What kept the last pass.
    fn held_before(&self) -> Option<Problem> {
        self.rested.as_ref().and_then(|rested| rested.held.clone())
    }

    /// Why nothing moves, with what waits for a yes.
    pub(super) fn problem(&self, error: &ClientError) -> Problem {
        let waiting = { self.waiting.as_ref() }.filter(|_| error.code() == Code::Brake);
        Problem {
            code: error.code(),
            message: error.to_string(),
            total: waiting.map(Waiting::total),
            changes: waiting.map_or_else(Vec::new, |waiting| waiting.listed.clone()),
        }
    }

    pub(super) fn progress(&self, change: impl FnOnce(&mut Progress)) {
        self.status.send_modify(|status| {
            change(&mut status.progress);
            status.pending = status
                .progress
                .files_total
                .saturating_sub(status.progress.files_done);
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn in_sync_is_said_of_nothing_less() {
        let good = Status {
            last_sync: Some(1),
            ..Status::default()
        };
        assert!(good.is_in_sync());
        for state in [
            State::Syncing,
            State::Error,
            State::Conflict,
            State::Offline,
            State::Paused,
            State::Locked,
            State::Held,
            State::Halted,
        ] {
            let status = Status {
                state,
                ..good.clone()
            };
            assert!(!status.is_in_sync(), "{state:?}");
        }
        let cases: [fn(&mut Status); 7] = [
            |status| status.last_sync = None,
            |status| status.pending = 1,
            |status| {
                status.errors.push(FileError {
                    path: "x".into(),
                    code: Code::Read,
                    message: "why".into(),
                });
            },
            |status| {
                status.skipped.push(SkippedFile {
                    path: "x".into(),
                    reason: "special".into(),
                    detail: "why".into(),
                });
            },
            |status| {
                status.conflicts.push(ConflictFile {
                    path: "x".into(),
                    copy: "y".into(),
                    time_ms: 1,
                });
            },
            |status| {
                status.held = Some(Problem {
                    code: Code::Brake,
                    message: "why".into(),
                    total: None,
                    changes: Vec::new(),
                });
            },
            |status| {
                status.unwatched = Some(Unwatched {
                    paths: vec!["x".into()],
                    more: 0,
                    message: "why".into(),
                });
            },
        ];
        for (i, change) in cases.into_iter().enumerate() {
            let mut status = good.clone();
            change(&mut status);
            assert!(!status.is_in_sync(), "{i}: {status:?}");
        }
    }
}
