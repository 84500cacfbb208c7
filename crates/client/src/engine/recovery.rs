//! A server that went back behind what this machine has seen, as one that was restored from a backup did.
//!
//! What it lost is given back: the very bytes of the commits, whoever wrote them, and the chunks that this disk can seal
//! again. Where that is not possible, because the server has gone on or the bytes are no longer here, the log is taken
//! as the server shows it, and both sides are united: nothing is deleted on either.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::sync::Arc;

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use syncagent_protocol::commit::Commit;
use syncagent_protocol::pack::MAX_IDS_PER_REQUEST;
use syncagent_protocol::{
    Body, ChunkId, Code, CommitHash, ContentHash, MachineId, NodeId, OpHash, TreePath,
};
use syncagent_sync::plan::Step;
use syncagent_sync::scan::{Fingerprint, Observed};
use syncagent_sync::{AncestorNode, LastOp, LocalState, Op};
use syncagent_vault::chunk::{Scope, Sealed};
use syncagent_vault::op::{Content, File, Put, PutBody};

use super::decide::{Decision, hash_file};
use super::{Engine, Hint, Preview, State, TouchedFile};
use crate::error::ClientError;
use crate::folder::read::open_stable;
use crate::home::PendingRemoval;
use crate::index::OpKind;
use crate::remote::{Posted, RemoteError};
use crate::transfer::seal::{Recipe, Sealing};
use crate::transfer::upload::Uploader;

/// Rounds of deciding until no deletion is left to be kept from.
const MAX_ROUNDS: usize = 16;
/// Deletions that are listed.
const MAX_LISTED: usize = 10_000;
/// Under which key the index notes a union that is not finished, with the paths that were kept so far.
const UNITING: &str = "uniting";
/// Under which key it notes that with the union the positions go that were seen before the index was lost.
const FORGETTING: &str = "forgetting";
/// Looks at the folder in one try of a union, if something could not be seen before.
const MAX_LOOKS: usize = 3;
/// Files that an error names.
const NAMED: usize = 3;

/// What has to be done about the server.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Way {
    /// It has lost nothing that this machine knows of.
    Nothing,
    /// It shows the beginning of what this machine has seen: the rest is posted again.
    GiveBack,
    /// It has gone on from an earlier position, or this machine no longer has what it lost: both sides are united.
    Unite,
}

/// Where server and machine stand, and what follows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Course {
    /// What has to be done.
    pub way: Way,
    /// The last position that the server shows.
    pub server_n: u64,
    /// The last one that this machine has seen.
    pub own_n: u64,
    /// The last one at which both have the same history.
    pub common_n: u64,
}

/// A commit that the server has no longer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct LostCommit {
    /// Position.
    pub n: u64,
    /// Name of the machine that wrote it.
    pub machine: String,
    /// Time it carries, milliseconds since 1970.
    pub time_ms: u64,
    /// Whether its bytes are still here.
    pub held: bool,
}

/// What `recover` would do.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Recovery {
    /// Where things stand.
    #[serde(flatten)]
    pub course: Course,
    /// What the server has no longer, in order.
    pub lost: Vec<LostCommit>,
    /// Names of the machines whose removal is among it. They stay removed.
    pub removed: Vec<String>,
}

/// What `recover` did.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Recovered {
    /// Commits that the server has again.
    pub commits: u64,
    /// Chunks that were sealed again for it.
    pub chunks: u64,
    /// Key slots that it has again.
    pub slots: u64,
    /// Versions whose content this disk does not have. The server may get it from another machine.
    pub versions_lost: Vec<TouchedFile>,
    /// What was deleted on one side, and was not deleted on the other.
    pub not_deleted: Vec<String>,
}

/// A version of a file that the server may lack chunks of.
struct Version {
    node: NodeId,
    n: u64,
    file: File,
    scope: Scope,
    refs: Vec<ChunkId>,
}

impl Preview {
    /// What [`Engine::rejoin`] would do now.
    pub async fn recovery(&self) -> Result<Recovery, ClientError> {
        self.engine.recovery().await
    }
}

impl Engine {
    /// Where server and machine stand, and what the server has lost.
    pub async fn recovery(&self) -> Result<Recovery, ClientError> {
        let server_n = self.remote.commits(self.head.n).await?.head;
        let common_n = self.common(server_n.min(self.head.n)).await?;
        let lost: Vec<LostCommit> = { self.index.commits_after(common_n)?.into_iter() }
            .map(|commit| LostCommit {
                n: commit.n,
                machine: self.machine_name(commit.machine),
                time_ms: commit.time_ms,
                held: commit.held,
            })
            .collect();
        let own_n = self.seen();
        let way = match common_n == self.head.n {
            true if server_n >= own_n && self.shows_what_was_seen().await? => Way::Nothing,
            // It was farther once, and has forgotten what it saw.
            true => Way::Unite,
            false if server_n == common_n && lost.iter().all(|commit| commit.held) => Way::GiveBack,
            false => Way::Unite,
        };
        Ok(Recovery {
            course: Course {
                way,
                server_n,
                own_n,
                common_n,
            },
            lost,
            removed: { self.index.revoked_after(common_n)?.into_iter() }
                .map(|machine| self.machine_name(machine))
                .collect(),
        })
    }

    /// Whether the server has the commit that this machine has seen, if it has forgotten all of it but its hash.
    async fn shows_what_was_seen(&self) -> Result<bool, ClientError> {
        match self.credentials.trusted {
            Some(seen) if seen.n > self.head.n => {
                Ok(self.shown_at(seen.n).await? == Some(seen.hash))
            }
            _ => Ok(true),
        }
    }

    fn machine_name(&self, machine: MachineId) -> String {
        match self.machines.get(&machine) {
            Some(known) => known.add.name.clone(),
            None => machine.to_string(),
        }
    }

    /// The last position up to `top` at which the server has the commit that this machine verified. Each names the one
    /// before, so all before it are the same, too. Looks near the end first: little is lost as a rule.
    async fn common(&self, top: u64) -> Result<u64, ClientError> {
        let (mut same, mut most) = (0, top);
        let (mut n, mut step) = (top, 1);
        while n > 0 {
            if self.agrees(n).await? {
                same = n;
                break;
            }
            most = n - 1;
            n = n.saturating_sub(step);
            step *= 2;
        }
        while same < most {
            let n = same + (most - same).div_ceil(2);
            match self.agrees(n).await? {
                true => same = n,
                false => most = n - 1,
            }
        }
        Ok(same)
    }

    async fn agrees(&self, n: u64) -> Result<bool, ClientError> {
        let shown = self.shown_at(n).await?;
        Ok(shown.is_some() && shown == self.index.hash_at(n)?)
    }

    /// The hash of the commit that the server shows at a position.
    pub(super) async fn shown_at(&self, n: u64) -> Result<Option<CommitHash>, ClientError> {
        let page = self.remote.commits(n - 1).await?;
        let commit = { page.commits.first() }.and_then(|bytes| Commit::parse_served(bytes).ok());
        let commit = commit.filter(|commit| commit.header.n == n);
        Ok(commit.map(|commit| commit.hash()))
    }

    /// Brings server and machine together again, if things stand as they did when somebody agreed to it. The next pass
    /// goes on as ever.
    pub async fn rejoin(&mut self, agreed: Course) -> Result<Recovered, ClientError> {
        self.prove_slot()?;
        let Recovery { course, .. } = self.recovery().await?;
        let as_agreed = match (course.way, agreed.way) {
            // Where something can be given back, somebody may choose not to.
            (Way::GiveBack, Way::Unite) => Course {
                way: Way::Unite,
                ..course
            },
            _ => course,
        };
        if as_agreed != agreed {
            return Err(ClientError::Busy(
                "the server has gone on meanwhile: run `syncagent recover` again".into(),
            ));
        }
        // What it acknowledged it may have lost, too.
        self.index.forget_acknowledged(None)?;
        self.index.look_for_slots_again()?;
        let mut recovered = Recovered::default();
        match agreed.way {
            Way::Nothing => {
                self.give_chunks(course.common_n, &mut recovered).await?;
                self.give_slots(&mut recovered).await?;
            }
            Way::GiveBack => {
                let mut from = course.common_n;
                if course.server_n == 0 {
                    // A vault takes chunks once it has its first commit, which names none.
                    self.give_back(0, 1, &mut recovered).await?;
                    from = 1;
                }
                self.give_chunks(course.common_n, &mut recovered).await?;
                self.give_back(from, u64::MAX, &mut recovered).await?;
                self.give_slots(&mut recovered).await?;
            }
            Way::Unite => self.go_back(course.common_n)?,
        }
        // Also one that was begun before, whatever the server has done since.
        self.compare_copies().await?;
        recovered.not_deleted = self.unite_on().await?;
        self.reconnected();
        // Who is told to end before the next pass says where this machine stands now.
        self.publish(State::Syncing);
        Ok(recovered)
    }

    /// Posts the commits after `from` again, up to `to`.
    async fn give_back(
        &mut self,
        from: u64,
        to: u64,
        recovered: &mut Recovered,
    ) -> Result<(), ClientError> {
        let past = self.index.commits_after(from)?.into_iter();
        for past in past.take_while(|past| past.n <= to) {
            let served = self.index.served(past.n, past.hash)?.ok_or_else(|| {
                ClientError::State(format!("position {} is no longer here", past.n))
            })?;
            let posted = Commit::parse_served(&served)
                .map_err(|error| ClientError::State(error.to_string()))?
                .to_posted();
            let posted = match posted {
                Some(bytes) => self.remote.post_commit(bytes.into()).await,
                None => Ok(Posted::Missing(Vec::new())),
            };
            // Where something of it is no longer there, it depends on whether the vault is marked as restored.
            let posted = match posted {
                Ok(Posted::Missing(_)) => self.remote.post_lost(Bytes::from(served)).await,
                Err(error) if error.code() == Code::Machine => {
                    self.remote.post_lost(Bytes::from(served)).await
                }
                posted => posted,
            };
            let posted = match posted {
                Err(error) if error.code() == Code::Missing => {
                    return Err(lacking(past.n, recovered));
                }
                posted => posted?,
            };
            match posted {
                Posted::Accepted => recovered.commits += 1,
                // Another machine gives it back as well, and was faster.
                Posted::Conflict(head) if self.index.hash_at(head.n)? == Some(head.hash) => {}
                Posted::Conflict(_) => {
                    return Err(ClientError::Busy(
                        "the server has gone on meanwhile: run `syncagent recover` again".into(),
                    ));
                }
                Posted::Missing(_) => return Err(lacking(past.n, recovered)),
            }
        }
        Ok(())
    }

    /// Puts the key slots that the log pins and the server lacks.
    async fn give_slots(&self, recovered: &mut Recovered) -> Result<(), ClientError> {
        // Who is behind may have a slot that no longer counts.
        if self.remote.commits(self.head.n).await?.head != self.head.n {
            return Ok(());
        }
        for slot in self.index.slots_kept(None)? {
            let number = slot.slot_type().number();
            let mut has = false;
            for previous in [false, true] {
                let served = self.remote.slot(number, previous).await?;
                has |= served.is_some_and(|served| served == slot.as_bytes()[..]);
            }
            if !has {
                self.put_slot(&slot).await?;
                recovered.slots += 1;
            }
        }
        Ok(())
    }

    /// Seals again what the server lacks: of the versions after `common_n`, and of what is in the vault now.
    async fn give_chunks(
        &mut self,
        common_n: u64,
        recovered: &mut Recovered,
    ) -> Result<(), ClientError> {
        let mut versions = self.versions_lacking(common_n).await?;
        // The newest first: what they share with older ones is there then.
        versions.reverse();
        let wanted: HashSet<ContentHash> =
            versions.iter().map(|version| version.file.hash).collect();
        let mut places: HashMap<ContentHash, Vec<TreePath>> = HashMap::new();
        for (id, row) in self.ancestor.iter() {
            if let Body::File { hash, .. } = row.node.body
                && wanted.contains(&hash)
                && let Some(path) = self.ancestor_path(id)
            {
                places.entry(hash).or_default().push(path);
            }
        }
        let mut uploader = Uploader::new(Arc::clone(&self.remote));
        let mut left = Vec::new();
        for version in &versions {
            let given = self.seal_from(&places, version, &mut uploader, recovered);
            if !given.await? {
                left.push(version);
            }
        }
        if !left.is_empty() {
            let places = self.places_now(&left);
            for version in left {
                self.seal_from(&places, version, &mut uploader, recovered)
                    .await?;
            }
        }
        uploader.flush().await?;
        // An older version may share all it lacked with a newer one.
        for version in versions.into_iter().rev() {
            if !self.remote.missing(version.refs).await?.is_empty() {
                let touched = self.touched((version.node, version.n));
                recovered.versions_lost.push(touched);
            }
        }
        Ok(())
    }

    /// Where the content of these versions stands, under whichever name: files of their length that are not known to be
    /// something else.
    fn places_now(&mut self, wanted: &[&Version]) -> HashMap<ContentHash, Vec<TreePath>> {
        let mut places: HashMap<ContentHash, Vec<TreePath>> = HashMap::new();
        // Without its folder this machine has no content to give.
        if self.look_everywhere().is_err() {
            return places;
        }
        let sizes: HashSet<u64> = wanted.iter().map(|version| version.file.size).collect();
        let is_known = |path: &TreePath, print: &Fingerprint| {
            let mut rows =
                { self.ancestor.at_path(path).into_iter() }.filter_map(|id| self.ancestor.get(id));
            rows.any(|row| row.fingerprint.as_ref() == Some(print))
        };
        let scan = self.scan.iter().flat_map(|scan| &scan.entries);
        let alike: Vec<TreePath> = scan
            .filter(|(path, seen)| match seen {
                Observed::File { fingerprint, .. } => {
                    sizes.contains(&fingerprint.size) && !is_known(path, fingerprint)
                }
                _ => false,
            })
            .map(|(path, _)| path.clone())
            .collect();
        if self.hash_files(&alike).is_err() {
            return places;
        }
        for path in alike {
            if let Some((_, hash)) = self.hashes.get(&path) {
                places.entry(*hash).or_default().push(path);
            }
        }
        places
    }

    /// Seals a version from one of the places where its content stands. Whether there was one.
    async fn seal_from(
        &mut self,
        places: &HashMap<ContentHash, Vec<TreePath>>,
        version: &Version,
        uploader: &mut Uploader,
        recovered: &mut Recovered,
    ) -> Result<bool, ClientError> {
        for path in places.get(&version.file.hash).into_iter().flatten() {
            if self.seal_again(path, version, uploader, recovered).await? {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// The versions after `common_n`, and those in the vault now, of which the server lacks something.
    async fn versions_lacking(&self, common_n: u64) -> Result<Vec<Version>, ClientError> {
        let mut versions = Vec::new();
        for (node, n, bytes) in self.index.puts()? {
            let is_last = self.log.get(node).is_some_and(|entry| entry.n == n);
            if n <= common_n && !is_last {
                continue;
            }
            let Ok(put) = Put::parse(&bytes, node) else {
                continue;
            };
            let scope = put.scope(node);
            let PutBody::File(file) = put.body else {
                continue;
            };
            let Content::Chunks(manifest) = &file.content else {
                continue;
            };
            versions.push(Version {
                node,
                n,
                refs: manifest.refs(),
                file,
                scope,
            });
        }
        versions.sort_by_key(|version| (version.n, version.node));
        let has_lists = |version: &Version| match &version.file.content {
            Content::Chunks(manifest) => manifest.level > 0,
            Content::Inline(_) => false,
        };
        // What lies below lists is asked for file by file: the answer does not say whose it is.
        let ids: BTreeSet<ChunkId> = { versions.iter() }
            .filter(|version| !has_lists(version))
            .flat_map(|version| version.refs.iter().copied())
            .collect();
        let ids: Vec<ChunkId> = ids.into_iter().collect();
        let mut missing = HashSet::new();
        for ids in ids.chunks(MAX_IDS_PER_REQUEST) {
            missing.extend(self.remote.missing(ids.to_vec()).await?);
        }
        let mut lacking = Vec::new();
        for version in versions {
            let lacks = match has_lists(&version) {
                true => !self.remote.missing(version.refs.clone()).await?.is_empty(),
                false => version.refs.iter().any(|id| missing.contains(id)),
            };
            if lacks {
                lacking.push(version);
            }
        }
        Ok(lacking)
    }

    /// Seals the file at `path` as `version` was, and sends what the server lacks. Whether it is that version.
    async fn seal_again(
        &mut self,
        path: &TreePath,
        version: &Version,
        uploader: &mut Uploader,
        recovered: &mut Recovered,
    ) -> Result<bool, ClientError> {
        let (disk, at) = (Arc::clone(self.folder.disk()), path.clone());
        let now_ns = i64::try_from(self.now_ms())
            .unwrap_or(i64::MAX)
            .saturating_mul(1_000_000);
        let read = self
            .work
            .run(move || hash_file(&*disk, &at, now_ns).ok())
            .await;
        let Some((reading, _)) = read.filter(|(_, hash)| *hash == version.file.hash) else {
            return Ok(false);
        };
        let Ok(source) = open_stable(&**self.folder.disk(), path, Some(reading.fingerprint)) else {
            return Ok(false);
        };
        let recipe = Recipe {
            class: version.file.class,
            scope: version.scope,
            codec: self.genesis.codec(),
            inline: false,
        };
        let mut sealing = Sealing::new(source, recipe);
        loop {
            let (keys, work) = (Arc::clone(&self.keys), self.work);
            let (returned, chunks) = work
                .run(move || {
                    let chunks = sealing.next_chunks(&keys, work);
                    (sealing, chunks)
                })
                .await;
            sealing = returned;
            match chunks {
                Ok(chunks) if chunks.is_empty() => break,
                Ok(chunks) => self.give(&chunks, uploader, recovered).await?,
                // It is being changed: not that version any more.
                Err(_) => return Ok(false),
            }
        }
        let Ok((_, content, lists)) = sealing.finish(&self.keys) else {
            return Ok(false);
        };
        self.give(&lists, uploader, recovered).await?;
        let same = match &content.content {
            Content::Chunks(manifest) => manifest.refs() == version.refs,
            Content::Inline(_) => false,
        };
        Ok(same)
    }

    /// Sends those chunks that the server lacks.
    async fn give(
        &self,
        chunks: &[Sealed],
        uploader: &mut Uploader,
        recovered: &mut Recovered,
    ) -> Result<(), ClientError> {
        if chunks.is_empty() {
            return Ok(());
        }
        let ids = chunks.iter().map(|chunk| chunk.entry.id).collect();
        let missing: HashSet<ChunkId> = self.remote.missing(ids).await?.into_iter().collect();
        for chunk in chunks {
            if missing.contains(&chunk.entry.id) {
                uploader.add(chunk).await?;
                recovered.chunks += 1;
            }
        }
        Ok(())
    }

    /// Goes back to the last common position. From here on [`Engine::unite_on`] goes on, whatever happens.
    fn go_back(&mut self, common_n: u64) -> Result<(), ClientError> {
        let rows = self.rows_at(common_n)?;
        let mut kept = self.kept_so_far()?.unwrap_or_default();
        for path in self.deleted_after(common_n)? {
            list(&mut kept, path);
        }
        let slots = self.index.slots_kept(Some(common_n))?;
        let removed = self.index.revoked_after(common_n)?;
        if removed.contains(&self.credentials.id()) {
            return Err(super::members::removed());
        }
        let removals: Vec<PendingRemoval> = { removed.into_iter() }
            .map(|machine| PendingRemoval {
                machine,
                name: self.machine_name(machine),
                since_n: common_n,
            })
            .collect();
        self.note(|credentials| {
            // The next pass pins them again: a password that was changed stays changed. One that waits is newer.
            let pending = &mut credentials.pending_slots;
            for slot in &slots {
                if pending.iter().all(|p| p.slot_type() != slot.slot_type()) {
                    pending.push(slot.clone());
                }
            }
            // Nor does anybody come back who was removed.
            let pending = &mut credentials.pending_removals;
            for removal in &removals {
                if pending.iter().all(|p| p.machine != removal.machine) {
                    pending.push(removal.clone());
                }
            }
        })?;
        self.index.set_meta(FORGETTING, b"")?;
        self.index
            .rewind(common_n, &rows, (UNITING, &listed(&kept)?))?;
        self.forget_seen()?;
        self.reload()?;
        self.publish(State::Syncing);
        Ok(())
    }

    /// Forgets the positions that were seen before an index was lost: somebody agreed to go on from what there is. Not
    /// before it is noted that both sides are being united, or what was deleted on one would be deleted on the other.
    fn forget_seen(&mut self) -> Result<(), ClientError> {
        if let Some(home) = &self.home {
            home.forget_last_status()?;
        }
        self.note(|credentials| credentials.trusted = None)?;
        self.index.drop_meta(FORGETTING)
    }

    /// Goes on with a union that is not finished. What was deleted on one side only and kept, all that time.
    pub(super) async fn unite_on(&mut self) -> Result<Vec<String>, ClientError> {
        let Some(mut kept) = self.kept_so_far()? else {
            return Ok(Vec::new());
        };
        if self.index.meta(FORGETTING)?.is_some() {
            self.forget_seen()?;
        }
        self.keep_from_deleting(&mut kept).await?;
        for path in &kept {
            self.notice(format!(
                "{path} was deleted on one side while the server had lost what came before. It was not deleted on the other: delete it again if that is meant"
            ));
        }
        Ok(kept.into_iter().collect())
    }

    /// Of a union that is not finished; none if there is none.
    fn kept_so_far(&self) -> Result<Option<BTreeSet<String>>, ClientError> {
        let note = self.index.meta(UNITING)?;
        // Without the list it is a union all the same.
        Ok(note.map(|bytes| serde_json::from_slice(&bytes).unwrap_or_default()))
    }

    pub(super) fn look_everywhere(&mut self) -> Result<(), ClientError> {
        self.errors.clear();
        self.look(&Hint::Everything);
        self.check_root().inspect_err(|_| self.scan = None)?;
        self.take_in_interrupted()
    }

    /// Drops the rows of what one side no longer has, or may not have, so that it counts as new on the other.
    async fn keep_from_deleting(&mut self, kept: &mut BTreeSet<String>) -> Result<(), ClientError> {
        self.reconnected();
        self.check_root()?;
        self.pull().await?;
        self.look_everywhere()?;
        let mut looks = 1;
        for _ in 0..MAX_ROUNDS {
            let Decision {
                local,
                plan,
                missing,
            } = self.decide()?;
            // What cannot be seen may be deleted, and that would come out when both are one.
            let unseen: BTreeSet<NodeId> = { local.nodes.iter() }
                .filter(|(_, here)| here.state == LocalState::Unknown)
                .map(|(id, _)| *id)
                .filter(|id| self.ancestor.get(*id).is_some())
                .collect();
            // What is missing may have been moved to where nothing can be read.
            let is_unsure =
                local.root_incomplete || !unseen.is_empty() || !self.unreadable_now().is_empty();
            if is_unsure && looks < MAX_LOOKS {
                self.look_everywhere()?;
                looks += 1;
                continue;
            }
            if local.root_incomplete {
                return Err(super::file_error(
                    &TreePath::ROOT,
                    Code::Read,
                    &"the folder cannot be listed; both sides are united once it can",
                ));
            }
            let mut deleted = BTreeSet::new();
            for op in plan.all_ops() {
                if let Op::Trash { node } = op {
                    deleted.insert(*node);
                }
            }
            for step in &plan.steps {
                if let Step::Remove { node, .. } = step {
                    deleted.insert(*node);
                }
            }
            let gone = self.ancestor.iter().map(|(id, _)| id).filter(|id| {
                let last = self.log.get(*id).map(|entry| &entry.op);
                matches!(last, None | Some(LastOp::Trashed | LastOp::Purged))
            });
            let doubtful: BTreeSet<NodeId> = { deleted.iter().copied() }
                .chain(unseen)
                .chain(missing)
                .chain(gone)
                .collect();
            if doubtful.is_empty() {
                return self.index.drop_meta(UNITING);
            }
            for node in deleted {
                if let Some(path) = self.ancestor_path(node) {
                    list(kept, path.as_str().to_owned());
                }
            }
            // First the list: what has no row any more is not found again.
            self.index.set_meta(UNITING, &listed(kept)?)?;
            // An id that was meant for a path would make it known again.
            let meant = { self.pending_ids.iter() }
                .filter(|(_, id)| doubtful.contains(id))
                .map(|(path, _)| path.clone())
                .collect();
            let rows = doubtful.into_iter().map(|node| (node, None)).collect();
            self.record(rows, meant)?;
        }
        Err(super::unfinished())
    }

    /// What was there at `common_n` and was deleted in the commits after it.
    fn deleted_after(&self, common_n: u64) -> Result<Vec<String>, ClientError> {
        let mut paths = Vec::new();
        let nodes: BTreeSet<NodeId> = { self.index.ops_after(common_n)?.into_iter() }
            .map(|(_, op)| op.node)
            .collect();
        for node in nodes {
            let versions = self.index.versions(node)?;
            let is_gone = { versions.first() }
                .is_some_and(|last| matches!(last.kind, OpKind::Trash | OpKind::Purge));
            let before = { versions.iter() }
                .find(|version| version.n <= common_n)
                .filter(|version| version.kind == OpKind::Put);
            if let (true, Some(before)) = (is_gone, before) {
                paths.push(self.trashed_path(node, before));
            }
        }
        paths.sort();
        Ok(paths)
    }

    /// The rows that differ from the present ones if the last common position is `common_n`.
    fn rows_at(&self, common_n: u64) -> Result<Vec<(NodeId, Option<AncestorNode>)>, ClientError> {
        let after: HashSet<(NodeId, OpHash)> = { self.index.ops_after(common_n)?.into_iter() }
            .map(|(_, op)| (op.node, op.op_hash))
            .collect();
        let mut rows = Vec::new();
        for (node, row) in self.ancestor.iter() {
            if !after.contains(&(node, row.op_hash)) {
                continue;
            }
            let before = self.index.versions(node)?;
            let before = before.into_iter().find(|version| version.n <= common_n);
            let put = before.and_then(|version| {
                let put = Put::parse(&version.put?, node).ok()?;
                Some((put.node(), version.op_hash))
            });
            let changed = put.map(|(agreed, op_hash)| AncestorNode {
                node: agreed,
                op_hash,
                // What stands here is the later version.
                fingerprint: None,
                inode: row.fingerprint.map_or(row.inode, |print| print.inode),
                not_here: row.not_here,
            });
            rows.push((node, changed));
        }
        Ok(rows)
    }
}

/// Adds what was kept to what is said.
fn list(kept: &mut BTreeSet<String>, path: String) {
    if kept.len() < MAX_LISTED {
        kept.insert(path);
    }
}

fn listed(kept: &BTreeSet<String>) -> Result<Vec<u8>, ClientError> {
    serde_json::to_vec(kept).map_err(|error| ClientError::State(error.to_string()))
}

fn lacking(n: u64, recovered: &Recovered) -> ClientError {
    let mut named: Vec<String> = { recovered.versions_lost.iter().take(NAMED) }
        .map(|file| format!("{}, version {}", file.path, file.version))
        .collect();
    if recovered.versions_lost.len() > NAMED {
        named.push(format!("{} more", recovered.versions_lost.len() - NAMED));
    }
    let why = match named.is_empty() {
        true => "its author is not registered there any more, or not all of it is left".to_owned(),
        false => format!(
            "it lacks content that this machine no longer has ({})",
            named.join("; ")
        ),
    };
    ClientError::Remote(RemoteError::Refused {
        code: Code::Missing,
        message: format!(
            "the server does not take position {n} back: {why}. If it was restored from a backup, whoever runs it says so with `syncagent server admin restored`; then run `syncagent recover` again"
        ),
    })
}
