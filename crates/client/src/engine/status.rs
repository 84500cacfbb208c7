//! How a machine does, in the words that status, web page and tray share.

use serde::{Deserialize, Serialize};
use syncagent_protocol::api::Head;
use syncagent_protocol::{Code, Kind};
use syncagent_sync::Conflict;
use syncagent_sync::scan::Skipped;

use super::Engine;
use crate::error::ClientError;
use crate::index::OpenConflict;

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
    /// Files in sync here.
    pub files: u64,
    /// When the last pass ended well, milliseconds since 1970.
    pub last_sync: Option<u64>,
    /// Things a person should know.
    pub notices: Vec<String>,
    /// How far the running pass is.
    pub progress: Progress,
}

/// Why nothing moves.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Problem {
    /// The stable code.
    pub code: Code,
    /// What, and what to do.
    pub message: String,
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
        let held = error
            .filter(|_| matches!(state, State::Held | State::Halted))
            .map(|error| Problem {
                code: error.code(),
                message: error.to_string(),
            });
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
            notices: self
                .notices
                .iter()
                .chain(&self.no_rules)
                .chain(&self.unwatched)
                .cloned()
                .collect(),
            progress: Progress::default(),
        };
        self.status.send_replace(status);
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
