//! What the server shows of the log, verified before a word of it is believed.
//!
//! Each commit must stand on the one before, be signed by an enrolled machine and extend what this machine
//! saw before. The first thing that does not fit halts the engine: nothing is applied or sent, and it
//! never goes past that point.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use syncagent_protocol::api::Head;
use syncagent_protocol::commit::{Commit, Op, OpBody};
use syncagent_protocol::name::shown;
use syncagent_protocol::{Code, CommitHash, NodeId};
use syncagent_sync::{Change, LastOp, Utc};
use syncagent_vault::commit::{Opener, Position, SealedCommit};
use syncagent_vault::op::{Draft, Genesis, KeyslotPin, MachineAdd, Opened, Put};
use syncagent_vault::slot::{Slot, SlotType};

use super::Engine;
use crate::error::ClientError;
use crate::index::{Applied, KnownMachine, NodeOp, OpKind, SealedRow, Side};
use crate::remote::{Posted, RemoteError};

/// Commits are kept this long: `recover` can give them back to a server restored from a backup.
const KEEP_SEALED_MS: u64 = 90 * 24 * 3_600_000;
/// What a machine says that finds commits under its own name which it did not write.
const TWICE: &str = "this machine runs twice, or was restored from a backup: the log has changes under its name that it did not make. They came like those of any other machine, and nothing is lost. If its files were copied to a second computer, run `syncagent reset --new-machine` and `syncagent register` with a new invitation on one of the two; if it was restored, there is nothing to do";
/// Under which key the index notes the position that the log had when it was begun, once it has come so far.
const BORN: &str = "born_n";
/// Bytes of other machines' commits that are kept, besides: those machines hold them, too.
const KEEP_OTHERS_LEN: u64 = 64 * 1024 * 1024;

impl Engine {
    /// Fetches and verifies what the log holds beyond this machine's position. A key that came from a slot of the server
    /// is not worked with until that log has named the slot.
    pub(super) async fn pull(&mut self) -> Result<(), ClientError> {
        let began = self.head.n;
        // All of it was read once already, and did not lead there.
        if self.left_log
            && let Some(trusted) = self.credentials.trusted
            && trusted.n > self.head.n
            && { self.shown_at(trusted.n).await? }.is_some_and(|shown| shown != trusted.hash)
        {
            return Err(self.fork(trusted.n));
        }
        let mut pulled = self.pull_log().await;
        if is_fork(&pulled) && self.leave_unconfirmed_log()? && began > 0 {
            // What does not fit may have come with an earlier connection.
            pulled = self.pull_log().await;
            if is_fork(&pulled) {
                self.leave_unconfirmed_log()?;
            }
        }
        if self.credentials.unproven_slot.is_none() {
            return pulled;
        }
        pulled.map_err(|error| self.may_be_the_key(error))?;
        self.prove_slot()?;
        self.note(|credentials| credentials.unproven_slot = None)
    }

    /// Leaves a log behind that did not lead to the position this machine had before it lost its index, or that came with
    /// its key, and says whether there was one: kept, it would make a stranger of the true one. Nothing ever came of it,
    /// because nothing is agreed on before that position is passed.
    fn leave_unconfirmed_log(&mut self) -> Result<bool, ClientError> {
        let Some(trusted) = self.credentials.trusted else {
            return Ok(false);
        };
        if self.head.n == 0 || self.head.n >= trusted.n || !self.ancestor.is_empty() {
            return Ok(false);
        }
        self.index.rewind(0, &[], (BORN, &[0; 8]))?;
        // As of every new index, once it has the whole log.
        self.index.drop_meta(BORN)?;
        self.reload()?;
        self.left_log = true;
        self.genesis = self.credentials.genesis.unwrap_or_default();
        self.reconnected();
        Ok(true)
    }

    /// Refuses to go on with a key from a slot that the log, as far as it is verified, does not name as the last one of
    /// its type (`docs/decisions/0017-a-slot-that-nobody-vouched-for.md`).
    pub(super) fn prove_slot(&self) -> Result<(), ClientError> {
        let Some(slot) = self.credentials.unproven_slot else {
            return Ok(());
        };
        let pinned = self.index.keyslot(slot.slot_type.number())?;
        if pinned == Some(slot.hash) {
            return Ok(());
        }
        let (what, again) = match slot.slot_type {
            SlotType::Password => ("password", "the vault's present password"),
            SlotType::Recovery => (
                "recovery code",
                "`--recovery-code-file` and the vault's present recovery code",
            ),
        };
        let why = match pinned {
            Some(_) => format!(
                "the {what} that this machine joined with opens another key slot than the one in the vault's history: either the {what} was changed since, or the server handed out an old slot"
            ),
            None => format!(
                "the {what} that this machine joined with opens a key slot that the vault's history does not name: it may come yet, with the next `syncagent sync` of the machine that made it"
            ),
        };
        Err(ClientError::Halted {
            code: Code::Keyslot,
            message: format!(
                "{why}. Nothing was written to the folder, and nothing is sent. Run `syncagent join` with the same link again, with {again}; if that is what you gave, ask whoever runs the server"
            ),
        })
    }

    /// Where nothing was ever verified with a key that a server handed out, the key may be what is wrong.
    fn may_be_the_key(&self, error: ClientError) -> ClientError {
        match error {
            ClientError::Halted { code, message } if self.head.n == 0 => ClientError::Halted {
                code,
                message: format!(
                    "{message}. The key of this machine came from that server, too, and nothing was verified with it yet: it may be what does not fit. Run `syncagent join` with the same link again, which fetches it anew; if that says the same, bring the key from another machine with `syncagent export-key` and `syncagent join --export-file FILE`"
                ),
            },
            error => error,
        }
    }

    async fn pull_log(&mut self) -> Result<(), ClientError> {
        let mut held_back: Vec<Applied> = Vec::new();
        // Ops whose dropped body awaits a later op that justifies it.
        let mut unjustified: BTreeMap<NodeId, u64> = BTreeMap::new();
        let mut at = self.head;
        loop {
            let page = self.remote.commits(at.n).await?;
            if page.head < self.seen() {
                return Err(self.rollback(page.head));
            }
            if !self.met {
                self.meet(page.after).await?;
            }
            if page.commits.is_empty() {
                if page.head > at.n {
                    return Err(halt(
                        Code::Commit,
                        at.n + 1,
                        "the server says it exists but does not show it",
                    ));
                }
                break;
            }
            for bytes in &page.commits {
                let applied = self.verify(bytes, at, &held_back)?;
                at = Head {
                    n: applied.n,
                    hash: applied.hash,
                };
                for op in &applied.ops {
                    unjustified.remove(&op.node);
                    if op.put.is_none() && op.kind == OpKind::Put {
                        unjustified.insert(op.node, applied.n);
                    }
                }
                held_back.push(applied);
            }
            if unjustified.is_empty() {
                self.ingest(std::mem::take(&mut held_back))?;
            }
            if at.n >= page.head {
                break;
            }
        }
        if let Some(n) = unjustified.values().next() {
            return Err(halt(
                Code::Commit,
                *n,
                "a body is missing that nothing later replaces",
            ));
        }
        if self.index.meta(BORN)?.is_none() {
            // A new index: whatever is there already was written before it, on however many pages.
            self.index.set_meta(BORN, &at.n.to_be_bytes())?;
        }
        Ok(())
    }

    /// Once a connection: does the server's log still hold this machine's own position? `there` is what the server says
    /// to be the hash of the commit there. A lie in it gains nothing: the next commit must name this machine's own.
    async fn meet(&mut self, there: Option<CommitHash>) -> Result<(), ClientError> {
        if self.head.n == 0 || there == Some(self.head.hash) {
            self.met = true;
            return Ok(());
        }
        if there.is_some() {
            return Err(self.fork(self.head.n));
        }
        let page = self.remote.commits(self.head.n - 1).await?;
        let Some(bytes) = page.commits.first() else {
            return Err(self.rollback(page.head));
        };
        let commit = Commit::parse_served(bytes)
            .map_err(|error| halt(error.code(), self.head.n, &error.to_string()))?;
        if commit.header.n != self.head.n || commit.hash() != self.head.hash {
            return Err(self.fork(self.head.n));
        }
        self.met = true;
        Ok(())
    }

    /// The connection is a new one: what answers may be another server than before, or the same from a backup.
    pub fn reconnected(&mut self) {
        self.met = false;
    }

    /// The farthest position this machine knows of: its own, or the one it had before it lost its index, or the one
    /// that came with its key.
    pub(super) fn seen(&self) -> u64 {
        let trusted = self.credentials.trusted.map_or(0, |head| head.n);
        self.head.n.max(trusted)
    }

    fn rollback(&self, server_n: u64) -> ClientError {
        ClientError::Halted {
            code: Code::Rollback,
            message: format!(
                "the server shows position {server_n}, this machine has already seen {}: it was restored from a backup, or it hides changes. Nothing was changed. If it was restored, `syncagent recover` gives it back what it lost; if not, ask whoever runs it",
                self.seen()
            ),
        }
    }

    fn fork(&self, n: u64) -> ClientError {
        ClientError::Halted {
            code: Code::Fork,
            message: format!(
                "the server shows another history from position {n} on than this machine saw before. Nothing was changed; compare `syncagent fingerprint` between machines. If the server was restored from a backup and has gone on since, `syncagent recover` unites both"
            ),
        }
    }

    /// Checks one commit against everything known before it.
    fn verify(
        &self,
        bytes: &Bytes,
        before: Head,
        held_back: &[Applied],
    ) -> Result<Applied, ClientError> {
        let n = before.n + 1;
        let commit = Commit::parse_served(bytes)
            .map_err(|error| halt(error.code(), n, &error.to_string()))?;
        let header = &commit.header;
        if header.vault != self.vault {
            return Err(halt(Code::Vault, n, "it belongs to another vault"));
        }
        if header.n != n {
            return Err(halt(
                Code::Commit,
                n,
                "it is not the one that was asked for",
            ));
        }
        if header.prev != before.hash {
            return Err(self.fork(n));
        }
        commit
            .verify()
            .map_err(|error| halt(error.code(), n, &error.to_string()))?;
        let hash = commit.hash();
        if let Some(trusted) = self.credentials.trusted
            && trusted.n == n
            && trusted.hash != hash
        {
            return Err(self.fork(n));
        }
        let opener = Opener::new(&self.keys, &commit)
            .map_err(|error| halt(error.code(), n, &error.to_string()))?
            .with_dedup(self.genesis_at(held_back)?.dedup_vault);
        let mut applied = Applied {
            n,
            hash,
            machine: header.machine(),
            time_ms: header.time_ms,
            ops: Vec::with_capacity(commit.ops.len()),
            added: None,
            revoked: Vec::new(),
            keyslots: Vec::new(),
            genesis: None,
            served: bytes.clone(),
        };
        for (index, op) in commit.ops.iter().enumerate() {
            self.open_op(&commit, &opener, index, op, &mut applied)?;
        }
        self.check_author(&applied, held_back)?;
        Ok(applied)
    }

    /// The vault's choices, also while the commit that tells them is not stored yet.
    fn genesis_at(&self, held_back: &[Applied]) -> Result<Genesis, ClientError> {
        match held_back
            .iter()
            .find_map(|applied| applied.genesis.as_deref())
        {
            Some(bytes) => Ok(Genesis::parse(bytes)?),
            None => Ok(self.genesis),
        }
    }

    fn open_op(
        &self,
        commit: &Commit<'_>,
        opener: &Opener<'_>,
        index: usize,
        op: &Op<'_>,
        applied: &mut Applied,
    ) -> Result<(), ClientError> {
        let n = applied.n;
        let op_hash = commit.op_hashes[index];
        let mut node_op = |node, kind, put| {
            applied.ops.push(NodeOp {
                node,
                op_hash,
                kind,
                put,
            })
        };
        match opener.open(index) {
            Ok(Opened::Put(node, put)) => node_op(node, OpKind::Put, Some(put.encode())),
            Ok(Opened::Trash(node)) => node_op(node, OpKind::Trash, None),
            Ok(Opened::Purge(node)) => node_op(node, OpKind::Purge, None),
            Ok(Opened::MachineAdd(add)) => {
                if add.public_key != commit.header.public_key {
                    return Err(halt(
                        Code::Machine,
                        n,
                        "it enrols another key than its author's",
                    ));
                }
                applied.added = Some(add);
            }
            Ok(Opened::MachineRevoke(machine)) => applied.revoked.push(machine),
            Ok(Opened::Keyslot(pin)) => applied.keyslots.push(pin),
            Ok(Opened::Genesis(genesis)) => applied.genesis = Some(genesis.encode()),
            Ok(Opened::Dropped(kind, node)) => {
                let kind = match kind {
                    syncagent_protocol::commit::OpKind::Trash => OpKind::Trash,
                    _ => OpKind::Put,
                };
                node_op(node, kind, None);
            }
            Err(error) if op.head.kind == syncagent_protocol::commit::OpKind::Put => {
                debug_assert!(matches!(op.body, OpBody::Whole { .. }));
                tracing::warn!(n, node = %op.head.node, %error, "an entry of the log cannot be read");
                node_op(op.head.node, OpKind::Unreadable, None);
            }
            Err(error) => {
                let code = match op.head.kind {
                    syncagent_protocol::commit::OpKind::MachineAdd => Code::Machine,
                    _ => error.code(),
                };
                return Err(halt(code, n, &error.to_string()));
            }
        }
        Ok(())
    }

    fn check_author(&self, applied: &Applied, held_back: &[Applied]) -> Result<(), ClientError> {
        let author = applied.machine;
        let earlier = held_back
            .iter()
            .any(|before| before.added.is_some() && before.machine == author);
        let known = self.machines.get(&author);
        let revoked = known.is_some_and(|machine| machine.revoked_n.is_some())
            || self.index.revoked_n(author)?.is_some()
            || held_back
                .iter()
                .any(|before| before.revoked.contains(&author));
        match (known.is_some() || earlier, applied.added.is_some()) {
            _ if revoked => Err(halt(
                Code::Machine,
                applied.n,
                "its author was removed from the vault before",
            )),
            (true, true) => Err(halt(
                Code::Machine,
                applied.n,
                "its author was enrolled before",
            )),
            (false, false) => Err(halt(
                Code::Machine,
                applied.n,
                "its author was never enrolled",
            )),
            _ => Ok(()),
        }
    }

    /// Stores verified commits and takes them into the picture.
    fn ingest(&mut self, commits: Vec<Applied>) -> Result<(), ClientError> {
        let (Some(first), Some(last)) = (commits.first(), commits.last()) else {
            return Ok(());
        };
        let first = first.n;
        let head = Head {
            n: last.n,
            hash: last.hash,
        };
        let born = match self.index.meta(BORN)? {
            Some(bytes) => bytes.try_into().map_or(0, u64::from_be_bytes),
            None => u64::MAX,
        };
        // Whatever can fail comes first: once the index has taken them in, memory has to follow.
        let me = self.credentials.id();
        for commit in &commits {
            if commit.machine == me && commit.n > born && !self.index.is_own(commit.hash)? {
                tracing::warn!(
                    n = commit.n,
                    "written with this machine's key, but not by it"
                );
                self.notice(TWICE.to_owned());
            }
        }
        let genesis = commits
            .iter()
            .rev()
            .find_map(|commit| commit.genesis.as_ref());
        let genesis = genesis.map(|bytes| Genesis::parse(bytes)).transpose()?;
        // Before they are taken in: what was must not be missing there after a crash.
        self.keep_commits(&commits);
        let copies = self.new_copies(&commits)?;
        // Rows of this machine's own commits, too: also of one whose answer was lost, or it would look like a change
        // that somebody else made.
        let own = self.index.apply(&commits)?;
        let settled: Vec<_> = own.iter().filter_map(|row| row.settled.clone()).collect();
        let own = own.into_iter().map(|row| (row.node, row.row)).collect();
        self.remember(own, &settled);
        let mut changed = BTreeSet::new();
        for commit in commits {
            changed.extend(commit.ops.iter().map(|op| op.node));
            if let Some(add) = commit.added {
                if commit.machine != me {
                    self.notice(format!("machine '{}' joined the vault", add.name));
                }
                let machine = KnownMachine {
                    id: commit.machine,
                    add,
                    added_n: commit.n,
                    revoked_n: None,
                };
                self.machines.insert(commit.machine, machine);
            }
            for machine in commit.revoked {
                if let Some(known) = self.machines.get_mut(&machine) {
                    known.revoked_n.get_or_insert(commit.n);
                }
            }
            let changes = commit.ops.into_iter().map(|op| {
                let last = match (op.kind, &op.put) {
                    (OpKind::Trash, _) => LastOp::Trashed,
                    (OpKind::Purge, _) => LastOp::Purged,
                    (OpKind::Put, Some(put)) => match Put::parse(put, op.node) {
                        Ok(put) => LastOp::Put(put.node().into()),
                        Err(_) => LastOp::Unreadable,
                    },
                    _ => LastOp::Unreadable,
                };
                Change {
                    node: op.node,
                    op: last,
                    op_hash: op.op_hash,
                }
            });
            self.log.apply(commit.n, changes);
        }
        if let Some(genesis) = genesis {
            self.genesis = genesis;
        }
        self.head = head;
        self.placed.follow(&self.log, &changed);
        self.log_conflicts(&copies);
        let before_ms = self.now_ms().saturating_sub(KEEP_SEALED_MS);
        if let Err(error) = self.index.drop_sealed(first, head.n, before_ms) {
            // They are in nobody's way.
            tracing::warn!(%error, "cannot forget commits that lost their place");
        }
        Ok(())
    }

    /// Of what commits bring, the conflict copies that were none before.
    fn new_copies(&self, commits: &[Applied]) -> Result<BTreeSet<NodeId>, ClientError> {
        let ops = commits.iter().flat_map(|commit| &commit.ops);
        let is_copy = |op: &&NodeOp| op.put.as_deref().and_then(Put::lost_against).is_some();
        let mut copies: BTreeSet<NodeId> = ops.filter(is_copy).map(|op| op.node).collect();
        if !copies.is_empty() {
            for open in self.index.open_conflicts(&self.placed.tree)? {
                copies.remove(&open.copy);
            }
        }
        Ok(copies)
    }

    /// Who wants to know later what became of a file finds both sides here, also once the conflict is resolved.
    fn log_conflicts(&self, copies: &BTreeSet<NodeId>) {
        if copies.is_empty() {
            return;
        }
        let open = match self.index.open_conflicts(&self.placed.tree) {
            Ok(open) => open,
            // The commits are taken in: what is only said of them must not stop that.
            Err(error) => return tracing::warn!(%error, "cannot log what conflicts there are"),
        };
        let told = |side: Side| {
            let machine = self
                .machines
                .get(&side.machine)
                .map(|known| &known.add.name);
            let machine = machine.map_or_else(|| side.machine.to_string(), |name| shown(name, 255));
            let time = Utc::from_unix_s((side.time_ms / 1000).cast_signed());
            format!("version {} of {machine}, {time}", side.n)
        };
        for conflict in open.iter().filter(|open| copies.contains(&open.copy)) {
            tracing::info!(
                path = %conflict.path,
                copy = %conflict.copy_path,
                theirs = told(conflict.theirs),
                mine = told(conflict.mine),
                "a conflict: two machines changed it at once"
            );
        }
    }

    /// Keeps what others wrote, to give it back to a server that loses it. They are in nobody's way if they are missing.
    fn keep_commits(&mut self, commits: &[Applied]) {
        let now_ms = self.now_ms();
        let mut keep = || -> Result<u64, ClientError> {
            let before = match self.kept_len {
                Some(len) => len,
                None => self.index.kept_len()?,
            };
            let len = before + self.index.keep(commits.iter(), now_ms)?;
            let before_ms = now_ms.saturating_sub(KEEP_SEALED_MS);
            // A quarter more, so that not every commit makes room for itself.
            match len > KEEP_OTHERS_LEN / 4 * 5 || self.kept_len.is_none() {
                true => self.index.drop_kept(before_ms, KEEP_OTHERS_LEN),
                false => Ok(len),
            }
        };
        match keep() {
            Ok(len) => self.kept_len = Some(len),
            Err(error) => tracing::warn!(%error, "cannot keep what other machines wrote"),
        }
    }

    /// Keeps a copy of each slot that the log pins, to give it back to a server that loses it. Nothing waits for it.
    pub(super) async fn keep_slots(&mut self) -> Result<(), ClientError> {
        for (slot_type, hash) in self.index.slots_without_copy()? {
            let mut copy = None;
            for previous in [false, true] {
                match self.remote.slot(slot_type, previous).await {
                    Ok(Some(bytes))
                        if Slot::parse(&bytes).is_ok_and(|slot| slot.hash() == hash) =>
                    {
                        copy = copy.or(Some(bytes));
                    }
                    Ok(_) => {}
                    Err(error) => {
                        // The next pass asks again.
                        tracing::warn!(%error, "no copy could be made of a key slot");
                        return Ok(());
                    }
                }
            }
            self.index.keep_slot(&hash, copy.as_deref())?;
        }
        Ok(())
    }

    /// What the log must say of this machine and its slots before anything else: the vault is opened, the
    /// machine enrolled, slots pinned, and a commit whose answer was lost posted again.
    pub(super) async fn post_own_affairs(&mut self) -> Result<(), ClientError> {
        for _ in 0..super::MAX_ROUNDS {
            if let Some((hash, bytes)) = self.index.sealed_at(self.head.n + 1)? {
                // Nobody would ever take one that is no longer what was sealed.
                let stands_on_head = Commit::parse(&bytes).is_ok_and(|commit| {
                    commit.hash() == hash && commit.header.prev == self.head.hash
                });
                if stands_on_head {
                    // The answer was lost, not necessarily the commit: the very same bytes again.
                    let sealed = SealedCommit {
                        bytes,
                        hash,
                        ops: Vec::new(),
                    };
                    match self.post(&sealed).await? {
                        Posted::Accepted => continue,
                        Posted::Conflict(_) => {
                            let stood_on = self.head;
                            self.pull().await?;
                            if self.head == stood_on {
                                // Somebody was first, it says, and shows nobody.
                                return Err(super::unfinished());
                            }
                            continue;
                        }
                        // What it holds may be gone from this disk by now. What is still here is sent as it is.
                        Posted::Missing(chunks) => {
                            self.server_lost(&chunks)?;
                            self.index.give_up_sealed(hash)?;
                        }
                    }
                }
            }
            let mut drafts = Vec::new();
            let enrolled = self.machines.get(&self.credentials.id());
            if enrolled.is_some_and(|machine| machine.revoked_n.is_some())
                || self.index.revoked_n(self.credentials.id())?.is_some()
            {
                return Err(super::members::removed());
            }
            if self.head.n == 0 {
                drafts.push(Draft::genesis(&self.genesis)?);
            }
            if enrolled.is_none() {
                drafts.push(Draft::machine_add(&MachineAdd {
                    public_key: *self.credentials.machine.public(),
                    name: self.name.clone(),
                    platform: self.platform.clone(),
                    web: false,
                })?);
            }
            if self.head.n > 0 {
                drafts.extend(self.removals_due()?);
            }
            let slot = match self.credentials.pending_slots.first() {
                Some(slot) if self.head.n > 0 => Some(slot.clone()),
                _ => None,
            };
            if let Some(slot) = &slot {
                if self.is_outdated(slot)? {
                    self.settle_slot(slot)?;
                    continue;
                }
                self.put_slot(slot).await?;
                // By this machine, which did not hear of it, or by another one that gave it back.
                if self.index.keyslot(slot.slot_type().number())? == Some(slot.hash()) {
                    self.settle_slot(slot)?;
                    continue;
                }
                drafts.push(Draft::keyslot(&KeyslotPin::of(slot))?);
            }
            if drafts.is_empty() {
                return Ok(());
            }
            let sealed = self.seal(drafts, |_| Vec::new())?;
            match self.post(&sealed).await? {
                Posted::Accepted => {
                    if let Some(slot) = slot {
                        self.index.keep_slot(&slot.hash(), Some(slot.as_bytes()))?;
                        self.settle_slot(&slot)?;
                    }
                }
                Posted::Conflict(_) => self.pull().await?,
                Posted::Missing(_) => {
                    return Err(halt(
                        Code::Commit,
                        self.head.n + 1,
                        "the server misses what it does not need",
                    ));
                }
            }
        }
        Ok(())
    }

    /// Whether a slot that was pinned once, and is to be pinned again after a union, gives way to one that this machine
    /// never saw: a password that was changed since.
    fn is_outdated(&self, slot: &Slot) -> Result<bool, ClientError> {
        let hash = slot.hash();
        let pinned = self.index.keyslot(slot.slot_type().number())?;
        Ok(match pinned {
            Some(pinned) if pinned != hash => {
                self.index.was_pinned(&hash)? && !self.index.was_pinned(&pinned)?
            }
            _ => false,
        })
    }

    fn settle_slot(&mut self, slot: &Slot) -> Result<(), ClientError> {
        let id = slot.slot_id();
        self.note(|credentials| {
            let pending = &mut credentials.pending_slots;
            pending.retain(|slot| slot.slot_id() != id);
        })
    }

    pub(super) async fn put_slot(&self, slot: &Slot) -> Result<(), ClientError> {
        let bytes = Bytes::copy_from_slice(slot.as_bytes());
        Ok(self
            .remote
            .put_slot(slot.slot_type().number(), bytes)
            .await?)
    }

    /// Seals a commit on top of the head and stores it with the rows it leaves: from here on only these bytes may be
    /// posted.
    pub(super) fn seal(
        &mut self,
        drafts: Vec<Draft>,
        rows: impl FnOnce(&SealedCommit) -> Vec<SealedRow>,
    ) -> Result<SealedCommit, ClientError> {
        if !self.credentials.key_used {
            self.note(|credentials| credentials.key_used = true)?;
        }
        let now_ms = self.now_ms();
        let position = Position {
            n: self.head.n + 1,
            prev: self.head.hash,
            time_ms: Position::time_after(self.index.last_time_ms()?, now_ms),
        };
        let sealed = syncagent_vault::commit::seal(
            &self.keys,
            &self.credentials.machine,
            position,
            drafts,
            &*self.random,
        )?;
        let rows = rows(&sealed);
        self.index
            .store_sealed(position.n, sealed.hash, &sealed.bytes, &rows, now_ms)?;
        Ok(sealed)
    }

    /// Posts a stored commit. If it stands, it is taken in like any other.
    pub(super) async fn post(&mut self, sealed: &SealedCommit) -> Result<Posted, ClientError> {
        let posted = self
            .remote
            .post_commit(Bytes::copy_from_slice(&sealed.bytes))
            .await?;
        if posted == Posted::Accepted {
            let served = Commit::parse(&sealed.bytes)
                .map_err(|error| halt(error.code(), self.head.n + 1, &error.to_string()))?
                .to_served();
            let applied = self.verify(&served.into(), self.head, &[])?;
            self.ingest(vec![applied])?;
        }
        // The commit stood on what this machine saw as the last one. Refused for a head that comes after, somebody was
        // first; for one that does not, the server has gone back, and perhaps on from there.
        if let Posted::Conflict(head) = posted {
            if head.n < self.head.n {
                return Err(self.rollback(head.n));
            }
            if head.n == self.head.n && head.hash != self.head.hash {
                return Err(self.fork(head.n));
            }
        }
        Ok(posted)
    }

    /// Posts what a person ordered, who is told now what became of it: an order that failed is not carried out behind
    /// their back.
    pub(super) async fn post_order(
        &mut self,
        sealed: &SealedCommit,
    ) -> Result<Posted, ClientError> {
        match self.post(sealed).await {
            Ok(Posted::Missing(chunks)) => {
                self.server_lost(&chunks)?;
                self.index.give_up_sealed(sealed.hash)?;
                Ok(Posted::Missing(chunks))
            }
            // Nobody has seen it, or it was refused for good: it can be as if it had never been sealed.
            Err(ClientError::Remote(
                error @ (RemoteError::Unreached(_) | RemoteError::Untrusted(_)),
            )) => {
                self.index.give_up_sealed(sealed.hash)?;
                Err(error.into())
            }
            Err(ClientError::Remote(error @ RemoteError::Refused { .. }))
                if !error.is_retryable() =>
            {
                self.index.give_up_sealed(sealed.hash)?;
                Err(error.into())
            }
            Err(error @ ClientError::Halted { .. }) => {
                self.index.give_up_sealed(sealed.hash)?;
                Err(error)
            }
            // It may stand by now. To seal another commit in its place would put two of this machine's into the world,
            // and a server could show each to somebody else: all that can be done is to say so.
            Err(ClientError::Remote(error)) if error.is_retryable() => {
                Err(ClientError::Unanswered(error))
            }
            result => result,
        }
    }

    pub(super) fn server_lost(
        &mut self,
        chunks: &[syncagent_protocol::ChunkId],
    ) -> Result<(), ClientError> {
        self.lost.extend(chunks);
        self.index.forget_acknowledged(Some(chunks))
    }

    /// The hash at a position, for comparing machines.
    pub fn hash_at(&self, n: u64) -> Result<Option<CommitHash>, ClientError> {
        self.index.hash_at(n)
    }
}

fn is_fork(pulled: &Result<(), ClientError>) -> bool {
    pulled
        .as_ref()
        .is_err_and(|error| error.code() == Code::Fork)
}

fn halt(code: Code, n: u64, why: &str) -> ClientError {
    ClientError::Halted {
        code,
        message: format!(
            "the history does not fit at position {n}: {why}. Nothing from there on was applied, and nothing is sent; ask whoever runs the server"
        ),
    }
}
