//! What a pass or a restore would do, without doing it.
//!
//! A [`Preview`] takes no lock and is given a copy of the index: folder, index and server stay as they are, and it may
//! look while a daemon works. What the server shows is verified as ever; a history that does not fit is an error here, too.

use std::collections::BTreeSet;

use serde::Serialize;
use syncagent_protocol::{Body, Code, NodeId, TreePath};
use syncagent_sync::plan::{Content, Step as PlanStep};
use syncagent_sync::{Op, Placement, Plan, Put};

use super::below::{Below, Left};
use super::status::{ConflictFile, FileError, Problem, SkippedFile};
use super::{
    Engine, EngineConfig, Hint, Restore, forget_another, held_root, known_folder, root_error,
};
use crate::error::ClientError;
use crate::folder::placement::{composed, fold};
use crate::folder::root::{self, Identity, RootState};
use crate::index::Index;
use crate::remote::RemoteError;

/// Under which key the index keeps what the folder's file system can hold.
const PLACEMENT: &str = "placement";

/// One machine that only looks.
pub struct Preview {
    pub(super) engine: Engine,
    /// Whether the folder was ever synchronised. If not, there is nothing that could be missing from it.
    adopted: bool,
}

/// What a pass would do.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Foreseen {
    /// In the folder, in this order.
    pub here: Vec<Step>,
    /// In the vault, for the other machines.
    pub vault: Vec<Step>,
    /// Conflict copies that would be made.
    pub conflicts: Vec<ConflictFile>,
    /// What cannot be read or fetched.
    pub errors: Vec<FileError>,
    /// What is left alone, and why.
    pub skipped: Vec<SkippedFile>,
    /// Why it would wait for a yes first.
    pub held: Option<Problem>,
}

/// One thing that would be done.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Step {
    /// What.
    pub action: Verb,
    /// To which thing; where it will be.
    pub path: TreePath,
    /// Where it is now, if it moves.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub from: Option<TreePath>,
    /// Bytes of content, for files that are sent or fetched.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub size: Option<u64>,
}

/// What would be done to a thing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Verb {
    /// Make it where nothing is.
    Add,
    /// Give it other content, another target, time or bit.
    Change,
    /// Take it elsewhere or name it anew.
    Move,
    /// Put it into the trash.
    Remove,
}

impl Verb {
    /// The word.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Add => "add",
            Self::Change => "change",
            Self::Move => "move",
            Self::Remove => "remove",
        }
    }
}

/// What a restore would do.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct ForeseenRestore {
    /// Where it would be.
    pub path: TreePath,
    /// Position of the version.
    pub version: u64,
    /// Directories that would be put again for it.
    pub directories: Vec<TreePath>,
    /// What would go into the trash for it.
    pub replaces: Vec<TreePath>,
    /// Where it is now, if it lives under another path.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub from: Option<TreePath>,
    /// Of a directory from the trash: what would come back that was in it.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub below: Vec<TreePath>,
    /// What was in it and would stay in the trash.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub left: Vec<Left>,
}

impl Preview {
    /// Takes a look at a folder. `config.index` is a copy ([`Index::copy_of`]), and `config.home` is none.
    pub fn open(mut config: EngineConfig) -> Result<Self, ClientError> {
        let vault = config.key.vault();
        let found = match known_folder(&config.index, vault)? {
            Some(identity) => Some(identity),
            None => root::read_identity(&*config.disk).map_err(|error| root_error(&error))?,
        };
        if found.is_some_and(|identity| identity.vault != vault) {
            return Err(root_error(&root::RootError::Other));
        }
        let identity = found.unwrap_or(Identity {
            vault,
            folder: [0; 16],
        });
        // Before the first start, what is usual on a disk that can do what this one can.
        let placement = match (kept_placement(&config.index)?, config.disk.capabilities()) {
            (Some(placement), _) => placement,
            (None, can) if can.exec => Placement::UNIX,
            (None, _) => Placement::WINDOWS,
        };
        forget_another(&mut config.index, &*config.disk)?;
        let mut preview = Self {
            engine: Engine::build(config, identity, None, placement)?,
            adopted: found.is_some(),
        };
        preview.check_root()?;
        Ok(preview)
    }

    fn check_root(&mut self) -> Result<(), ClientError> {
        match (self.adopted, self.engine.check_root()) {
            (true, result) => result,
            (false, _) => match self.engine.folder.disk().root_is_same() {
                Ok(true) => Ok(()),
                _ => Err(held_root(RootState::Missing)),
            },
        }
    }

    pub(super) async fn pull(&mut self) -> Result<(), ClientError> {
        let engine = &mut self.engine;
        engine.pull().await?;
        match engine.index.revoked_n(engine.credentials.id())? {
            None => Ok(()),
            Some(_) => Err(ClientError::Remote(RemoteError::Refused {
                code: Code::Revoked,
                message: "this machine was removed from the vault".into(),
            })),
        }
    }

    /// Says yes to whatever the pass would change, as [`Engine::allow_mass_change`] does.
    pub fn allow_mass_change(&mut self) {
        self.engine.allow_mass_change();
    }

    /// What a pass would do now.
    pub async fn plan(&mut self) -> Result<Foreseen, ClientError> {
        self.check_root()?;
        self.engine.compare_copies().await?;
        self.engine.unite_on().await?;
        self.pull().await?;
        self.engine.look(&Hint::Everything);
        self.check_root()?;
        let engine = &mut self.engine;
        engine.take_in_interrupted()?;
        let plan = engine.decide()?.plan;
        engine.skipped.clone_from(&plan.skipped);
        let held = engine.brake(&plan).err();
        let held = held.map(|error| engine.problem(&error));
        Ok(engine.foresee(&plan, held))
    }

    /// What a restore would do now.
    pub async fn restore(&mut self, restore: &Restore) -> Result<ForeseenRestore, ClientError> {
        self.pull().await?;
        let planned = self.engine.plan_restore(restore, &BTreeSet::new())?;
        let Below { back, left, .. } = planned.below;
        Ok(ForeseenRestore {
            path: planned.path,
            version: planned.version,
            directories: planned.made,
            replaces: planned.trashed,
            from: planned.from,
            below: back.into_iter().map(|back| back.path).collect(),
            left: left.into_iter().map(|(_, left)| left).collect(),
        })
    }
}

impl Engine {
    fn foresee(&self, plan: &Plan, held: Option<Problem>) -> Foreseen {
        let conflicts = plan.conflicts.iter().map(|conflict| ConflictFile {
            path: conflict.path.as_str().to_owned(),
            copy: conflict.copy_path.as_str().to_owned(),
            time_ms: self.now_ms(),
        });
        let vault = plan.all_ops().filter_map(|op| match op {
            Op::Put(put) => Some(self.foresee_put(plan, put)),
            Op::Trash { node } => Some(Step {
                action: Verb::Remove,
                path: self.placed.tree.path_of(*node)?,
                from: None,
                size: None,
            }),
        });
        Foreseen {
            here: plan
                .steps
                .iter()
                .map(|step| self.foresee_step(step))
                .collect(),
            vault: vault.collect(),
            conflicts: conflicts.collect(),
            errors: self.all_errors(),
            skipped: self.all_skipped(),
            held,
        }
    }

    fn foresee_step(&self, step: &PlanStep) -> Step {
        let size_of = |node: NodeId| match self.placed.tree.get(node).map(|node| &node.body) {
            Some(Body::File { size, .. }) => Some(*size),
            _ => None,
        };
        let (action, path, from, size) = match step {
            PlanStep::MakeDir { path, .. } => (Verb::Add, path, None, None),
            PlanStep::Fetch {
                node,
                path,
                replaces,
                ..
            } => (added_or_changed(replaces), path, None, size_of(*node)),
            PlanStep::Link { path, replaces, .. } => (added_or_changed(replaces), path, None, None),
            PlanStep::SetMeta { path, .. } => (Verb::Change, path, None, None),
            PlanStep::Move { from, to, .. } => (Verb::Move, to, Some(from.clone()), None),
            PlanStep::Remove { path, .. } => (Verb::Remove, path, None, None),
        };
        Step {
            action,
            path: path.clone(),
            from,
            size,
        }
    }

    fn foresee_put(&self, plan: &Plan, put: &Put) -> Step {
        let record = plan.records.get(&put.node);
        let path = record.map(|record| record.path.clone()).unwrap_or_default();
        let before = self.placed.tree.path_of(put.node);
        let from = before.clone().filter(|before| *before != path);
        // A conflict copy is what stands at the other path as long as nothing is done.
        let copy = plan
            .conflicts
            .iter()
            .find(|conflict| conflict.copy == put.node);
        let copied = copy.map_or(0, |conflict| self.scanned_len_at(&conflict.path));
        let (size, sent) = match &put.content {
            Content::FromDisk { .. } => (Some(self.scanned_len(put).max(copied)), true),
            Content::Symlink { .. } => (None, true),
            Content::Keep | Content::Directory => (None, false),
        };
        let action = match (&before, &from) {
            (None, _) => Verb::Add,
            (Some(_), Some(_)) if !sent => Verb::Move,
            (Some(_), _) => Verb::Change,
        };
        Step {
            action,
            path,
            from,
            size,
        }
    }
}

fn added_or_changed(replaces: &Option<NodeId>) -> Verb {
    match replaces {
        None => Verb::Add,
        Some(_) => Verb::Change,
    }
}

/// Notes what the file system can hold: to find it out takes files, which a preview must not make.
pub(super) fn keep_placement(index: &Index, placement: &Placement) -> Result<(), ClientError> {
    let form = match (placement.normalise.is_some(), placement.case_insensitive) {
        (false, _) => 0,
        (true, false) => 1,
        (true, true) => 2,
    };
    let bytes = [
        u8::from(placement.case_insensitive),
        form,
        u8::from(placement.windows_names),
        u8::from(placement.utf16_lengths),
        u8::from(placement.symlinks),
        u8::from(placement.exec_bit),
    ];
    if index.meta(PLACEMENT)?.as_deref() != Some(&bytes) {
        index.set_meta(PLACEMENT, &bytes)?;
    }
    Ok(())
}

/// What the folder's file system can hold, as it was found out at the last start; none before the first.
pub fn kept_placement(index: &Index) -> Result<Option<Placement>, ClientError> {
    let kept: Option<[u8; 6]> = index
        .meta(PLACEMENT)?
        .and_then(|bytes| bytes.try_into().ok());
    let Some([case, form, windows, utf16, symlinks, exec]) = kept else {
        return Ok(None);
    };
    Ok(Some(Placement {
        case_insensitive: case != 0,
        normalise: match form {
            0 => None,
            1 => Some(composed),
            _ => Some(fold),
        },
        windows_names: windows != 0,
        max_name_len: 255,
        utf16_lengths: utf16 != 0,
        symlinks: symlinks != 0,
        exec_bit: exec != 0,
    }))
}
