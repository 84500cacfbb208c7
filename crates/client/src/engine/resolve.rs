//! Ends a conflict: one commit says what becomes of the copy and of what has its name.
//!
//! Nothing on this disk is touched here. The next pass brings the folder there as it does with every commit, with all
//! its checks: an edit that came meanwhile beats a deletion and becomes a conflict copy where both changed.

use std::sync::Arc;

use serde::{Deserialize, Serialize};
use syncagent_protocol::{Code, ContentHash, NodeId, OpHash, TreePath};
use syncagent_vault::chunk::{Scope, max_sealed_len, open_data};
use syncagent_vault::chunker::Class;
use syncagent_vault::op::{Content, Draft, File, Put, PutBody};

use super::{Engine, Preview};
use crate::error::ClientError;
use crate::index::OpenConflict;
use crate::remote::Posted;
use crate::text::{self, Clash};
use crate::transfer::download::fetch_each;
use crate::transfer::seal::{Recipe, SealError, Sealing};
use crate::transfer::upload::Uploader;
use crate::work::Work;

/// Which side of a conflict is kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Keep {
    /// The copy's content, under the name of the other; the copy goes to the trash.
    Mine,
    /// What has the name; the copy goes to the trash.
    Theirs,
    /// Both, under the names they have.
    Both,
    /// The changes of both, in one text under the name; the copy goes to the trash.
    Merge,
}

/// A conflict that is to end.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Resolve {
    /// The copy.
    pub copy: NodeId,
    /// How.
    pub keep: Keep,
    /// The last ops of what has the name and of the copy, as whoever decided knew them. If there are others by now,
    /// nothing is done.
    pub seen: (OpHash, OpHash),
}

/// A step that takes a resolution back.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Undo {
    /// Bring back a version.
    Version {
        /// Of which file.
        path: String,
        /// Its position.
        n: u64,
    },
    /// Bring it back from the trash.
    Trash {
        /// Where it was.
        path: String,
    },
}

/// What became of a conflict.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Resolution {
    /// What both wanted to be.
    pub path: String,
    /// The copy.
    pub copy_path: String,
    /// How.
    pub keep: Keep,
    /// Position of the commit; none if nothing was done.
    pub n: Option<u64>,
    /// Where both changed the same lines. If there is one, nothing was done.
    pub clashes: Vec<Clash>,
    /// Why else nothing was done: it is nothing that can be resolved in this way.
    pub left: Option<String>,
    /// How to take it back, in this order.
    pub undo: Vec<Undo>,
}

impl Resolution {
    /// Nothing was done about this conflict yet.
    pub fn untouched(conflict: &OpenConflict, keep: Keep) -> Self {
        Self {
            path: conflict.path.as_str().to_owned(),
            copy_path: conflict.copy_path.as_str().to_owned(),
            keep,
            n: None,
            clashes: Vec::new(),
            left: None,
            undo: Vec::new(),
        }
    }
}

/// What a resolution comes to.
struct Planned {
    conflict: OpenConflict,
    change: Change,
    undo: Vec<Undo>,
}

enum Change {
    /// These ops; no content moves.
    Ops(Vec<Draft>),
    /// This text becomes the content under the name.
    Text(String),
    Clashes(Vec<Clash>),
    /// None, for this reason.
    Left(String),
}

impl Engine {
    /// Ends a conflict in one commit.
    pub async fn resolve(&mut self, resolve: &Resolve) -> Result<Resolution, ClientError> {
        for _ in 0..super::MAX_ROUNDS {
            self.pull().await?;
            self.post_own_affairs().await?;
            let Planned {
                conflict,
                change,
                undo,
            } = self.plan_resolve(resolve).await?;
            let drafts = match change {
                Change::Ops(drafts) => drafts,
                Change::Text(merged) => self.merged_drafts(&conflict, merged).await?,
                Change::Clashes(clashes) => {
                    return Ok(Resolution {
                        clashes,
                        ..Resolution::untouched(&conflict, resolve.keep)
                    });
                }
                Change::Left(why) => {
                    return Ok(Resolution {
                        left: Some(why),
                        ..Resolution::untouched(&conflict, resolve.keep)
                    });
                }
            };
            let sealed = self.seal(drafts, |_| Vec::new())?;
            match self.post_order(&sealed).await? {
                Posted::Accepted => {
                    return Ok(Resolution {
                        n: Some(self.head.n),
                        undo,
                        ..Resolution::untouched(&conflict, resolve.keep)
                    });
                }
                Posted::Conflict(_) => {}
                Posted::Missing(_) => {
                    if resolve.keep != Keep::Merge {
                        let why = "its content is not on the server: nothing was changed. A pass of a machine that has the file sends it again";
                        return Err(failed(&conflict.copy_path, Code::Missing, why));
                    }
                }
            }
        }
        Err(ClientError::Busy(
            "other machines are writing all the time: try again".into(),
        ))
    }

    async fn plan_resolve(&self, resolve: &Resolve) -> Result<Planned, ClientError> {
        let open = self.index.open_conflicts(&self.placed.tree)?;
        let conflict = open
            .into_iter()
            .find(|open| open.copy == resolve.copy)
            .ok_or_else(|| gone(resolve.copy))?;
        let entry = |node: NodeId| self.log.get(node).ok_or_else(|| gone(node));
        let (won, lost) = (entry(conflict.node)?, entry(conflict.copy)?);
        if (won.op_hash, lost.op_hash) != resolve.seen {
            let why = "it was changed on another machine meanwhile: nothing was changed here. Look again, then decide";
            return Err(failed(&conflict.path, Code::Conflict, why));
        }
        let body = |node: NodeId, op_hash| {
            let put = self.index.put(node, op_hash)?;
            put.ok_or_else(|| gone(node))
        };
        let (theirs, mine) = (
            body(conflict.node, won.op_hash)?,
            body(conflict.copy, lost.op_hash)?,
        );
        let is_directory = |put: &Put| matches!(put.body, PutBody::Directory);
        if resolve.keep != Keep::Both && (is_directory(&theirs) || is_directory(&mine)) {
            let why = "one of the two is a directory. Move what is in it by hand, or let both stay: --keep both";
            return Ok(Planned {
                conflict,
                change: Change::Left(why.to_owned()),
                undo: Vec::new(),
            });
        }
        let trash = || Undo::Trash {
            path: conflict.copy_path.as_str().to_owned(),
        };
        let version = |path: &TreePath, n| Undo::Version {
            path: path.as_str().to_owned(),
            n,
        };
        let (change, undo) = match resolve.keep {
            Keep::Theirs => (
                Change::Ops(vec![Draft::trash(conflict.copy)]),
                vec![trash()],
            ),
            Keep::Both => {
                let mut put = mine;
                put.conflict_of = None;
                put.based_on = Some(lost.op_hash);
                (
                    Change::Ops(vec![Draft::put(conflict.copy, &put)?]),
                    vec![version(&conflict.copy_path, lost.n)],
                )
            }
            Keep::Mine if self.takes_over(&theirs, &mine) => {
                let scope = mine.scope(conflict.copy);
                let mut put = mine;
                if let PutBody::File(file) = &mut put.body {
                    file.scope = stated(scope, conflict.node);
                }
                put.parent = theirs.parent;
                put.name = theirs.name;
                put.based_on = Some(won.op_hash);
                put.conflict_of = None;
                let drafts = vec![
                    Draft::put(conflict.node, &put)?,
                    Draft::trash(conflict.copy),
                ];
                let undo = vec![version(&conflict.path, won.n), trash()];
                (Change::Ops(drafts), undo)
            }
            // A link cannot become a file, nor a file a link: the copy itself takes the name.
            Keep::Mine => {
                let mut put = mine;
                put.parent = theirs.parent;
                put.name = theirs.name;
                put.based_on = Some(lost.op_hash);
                put.conflict_of = None;
                let drafts = vec![
                    Draft::put(conflict.copy, &put)?,
                    Draft::trash(conflict.node),
                ];
                let undo = vec![
                    version(&conflict.path, lost.n),
                    Undo::Trash {
                        path: conflict.path.as_str().to_owned(),
                    },
                ];
                (Change::Ops(drafts), undo)
            }
            Keep::Merge => {
                let change = self.merge(&conflict, theirs, mine).await?;
                (change, vec![version(&conflict.path, won.n), trash()])
            }
        };
        Ok(Planned {
            conflict,
            change,
            undo,
        })
    }

    /// Whether the content of the copy can become a version of what has the name.
    fn takes_over(&self, theirs: &Put, mine: &Put) -> bool {
        match (&theirs.body, &mine.body) {
            (PutBody::File(_), PutBody::File(file)) => match &file.content {
                Content::Inline(_) => Draft::fits_inline(file.size, &theirs.name),
                Content::Chunks(_) => true,
            },
            (PutBody::Symlink { .. }, PutBody::Symlink { .. }) => true,
            _ => false,
        }
    }

    async fn merge(
        &self,
        conflict: &OpenConflict,
        theirs: Put,
        mine: Put,
    ) -> Result<Change, ClientError> {
        let (node, copy) = (conflict.node, conflict.copy);
        let base = self.index.common_version(copy, node)?;
        let base = base
            .map(|version| self.index.put(node, version.op_hash))
            .transpose()?
            .flatten();
        let Some(base) = base else {
            return Ok(cannot_merge(&"no version is known that both started from"));
        };
        let mut texts = Vec::new();
        for (path, of, put) in [
            (&conflict.path, node, base),
            (&conflict.path, node, theirs),
            (&conflict.copy_path, copy, mine),
        ] {
            match self.text_of(path, of, put).await? {
                Ok(text) => texts.push(text),
                Err(why) => return Ok(cannot_merge(&why)),
            }
        }
        let Ok([base, theirs, mine]) = <[String; 3]>::try_from(texts) else {
            return Ok(cannot_merge(&"there are not three texts"));
        };
        let merged = self
            .work
            .run(move || text::merge(&base, &theirs, &mine))
            .await;
        Ok(match merged {
            Ok(merged) => Change::Text(merged),
            Err(clashes) => Change::Clashes(clashes),
        })
    }

    /// The text of a version, from the server if it does not stand in the log itself; or why it has none.
    async fn text_of(
        &self,
        path: &TreePath,
        node: NodeId,
        put: Put,
    ) -> Result<Result<String, String>, ClientError> {
        let scope = put.scope(node);
        let PutBody::File(file) = put.body else {
            return Ok(Err("one of the versions is a link".into()));
        };
        let no_text = |why: text::NoText| why.to_string();
        if file.size > text::MAX_LEN {
            return Ok(Err(no_text(text::NoText::Long)));
        }
        let bytes = self.content_of(path, scope, file).await?;
        Ok(text::of(&bytes).map(str::to_owned).map_err(no_text))
    }

    /// A short file's content, checked as a download's is.
    async fn content_of(
        &self,
        path: &TreePath,
        scope: Scope,
        file: File,
    ) -> Result<Vec<u8>, ClientError> {
        let damaged = |why: &dyn std::fmt::Display| {
            let why = format!("one of its versions cannot be read, so nothing was changed: {why}");
            failed(path, Code::Chunk, &why)
        };
        let bytes = match file.content {
            Content::Inline(bytes) => bytes,
            Content::Chunks(manifest) if manifest.level > 0 => {
                return Err(damaged(&"it is short and yet made of lists"));
            }
            Content::Chunks(manifest) => {
                let entries = manifest.entries.iter();
                let wanted = entries.map(|entry| (entry.id, max_sealed_len(entry.len)));
                let blobs = fetch_each(&*self.remote, wanted).await?;
                let mut bytes = Vec::new();
                for (entry, blob) in manifest.entries.iter().zip(blobs) {
                    let blob = blob.ok_or_else(|| {
                        damaged(&"a chunk is not on the server; any machine that still has the file repairs it")
                    })?;
                    let opened = open_data(&self.keys, scope, entry, &blob);
                    bytes.extend_from_slice(&opened.map_err(|error| damaged(&error))?);
                }
                bytes
            }
        };
        if ContentHash(*blake3::hash(&bytes).as_bytes()) != file.hash {
            return Err(damaged(&"its content is not what was signed"));
        }
        Ok(bytes)
    }

    /// Sends a merged text; the ops that make it the content under the name.
    async fn merged_drafts(
        &mut self,
        conflict: &OpenConflict,
        merged: String,
    ) -> Result<Vec<Draft>, ClientError> {
        let last = self.log.get(conflict.node).map(|entry| entry.op_hash);
        let put = last
            .map(|op_hash| self.index.put(conflict.node, op_hash))
            .transpose()?
            .flatten();
        let Some(mut put) = put else {
            return Err(gone(conflict.node));
        };
        let scope = put.scope(conflict.node);
        let PutBody::File(before) = &put.body else {
            return Err(gone(conflict.node));
        };
        let (exec, size) = (before.exec, merged.len() as u64);
        let recipe = Recipe {
            class: Class::of(size, Some(before.class)),
            scope,
            codec: self.genesis.codec(),
            inline: Draft::fits_inline(size, &put.name),
        };
        let vault = |error: SealError<std::io::Error>| match error {
            SealError::Vault(error) => error.into(),
            SealError::Read(error) => ClientError::State(error.to_string()),
        };
        let mut sealing = Sealing::new(merged.as_bytes(), recipe);
        let content = match sealing.inline().map_err(vault)? {
            Some(bytes) => sealing.finish_inline(bytes).1,
            None => {
                let mut chunks = Vec::new();
                loop {
                    let more = sealing
                        .next_chunks(&self.keys, Work::Inline)
                        .map_err(vault)?;
                    if more.is_empty() {
                        break;
                    }
                    chunks.extend(more);
                }
                let (_, content, lists) = sealing.finish(&self.keys).map_err(vault)?;
                chunks.extend(lists);
                let mut uploader = Uploader::new(Arc::clone(&self.remote));
                self.upload(&chunks, &std::collections::HashSet::new(), &mut uploader)
                    .await?;
                uploader.flush().await?;
                content
            }
        };
        put.body = PutBody::File(File {
            size: content.size,
            exec,
            hash: content.hash,
            scope: stated(scope, conflict.node),
            class: recipe.class,
            content: content.content,
        });
        put.mtime_ns = i64::try_from(self.now_ms())
            .unwrap_or(i64::MAX)
            .saturating_mul(1_000_000);
        put.based_on = last;
        put.conflict_of = None;
        Ok(vec![
            Draft::put(conflict.node, &put)?,
            Draft::trash(conflict.copy),
        ])
    }
}

impl Preview {
    /// What a resolution would come to.
    pub async fn resolve(&mut self, resolve: &Resolve) -> Result<Resolution, ClientError> {
        self.pull().await?;
        let planned = self.engine.plan_resolve(resolve).await?;
        let nothing = Resolution::untouched(&planned.conflict, resolve.keep);
        Ok(match planned.change {
            Change::Clashes(clashes) => Resolution { clashes, ..nothing },
            Change::Left(why) => Resolution {
                left: Some(why),
                ..nothing
            },
            Change::Ops(_) | Change::Text(_) => nothing,
        })
    }
}

fn cannot_merge(why: &dyn std::fmt::Display) -> Change {
    Change::Left(format!(
        "it cannot be merged: {why}. Keep one of the two, or both"
    ))
}

/// The scope as a PUT of `node` says it.
fn stated(scope: Scope, node: NodeId) -> Option<Scope> {
    (scope != Scope::from(node)).then_some(scope)
}

fn failed(path: &TreePath, code: Code, why: &str) -> ClientError {
    ClientError::File {
        path: path.clone(),
        code,
        message: why.to_owned(),
    }
}

fn gone(node: NodeId) -> ClientError {
    failed(
        &TreePath::ROOT,
        Code::NotFound,
        &format!("{node} is no conflict any more: somebody has resolved it"),
    )
}
