//! Sealing ops into a signed commit, and opening them again.
//!
//! Every sealing has a salt of its own and with it a key of its own; a commit that meets a 409 is
//! sealed anew, never patched (format.md, "Commits").

use syncagent_protocol::commit::{
    Commit, FormatError, HEADER_LEN, Header, MAX_OPS, OP_HEAD_LEN, OpBody, OpHead, OpKind,
    SIGNATURE_LEN, TAG_LEN, commit_hash,
};
use syncagent_protocol::{CommitHash, MachineId, Name, NodeId, OpHash, sha256};

use crate::VaultError;
use crate::crypto;
use crate::keys::{EPOCH, Keys};
use crate::machine::MachineKey;
use crate::op::{Draft, Opened, Surroundings, read_body_as};
use crate::random::{self, Random};
use crate::secret::Secret;

/// Length of the part of the header that the ops are bound to: everything before the ops root.
const BOUND_LEN: usize = 160;

/// Where a new commit stands.
#[derive(Debug, Clone, Copy)]
pub struct Position {
    /// Its number, from 1.
    pub n: u64,
    /// Hash of the commit before it.
    pub prev: CommitHash,
    /// When, in milliseconds since 1970.
    pub time_ms: u64,
}

impl Position {
    /// The time a commit carries: never before the previous one's, unless that is more than an hour ahead.
    pub fn time_after(previous_ms: u64, now_ms: u64) -> u64 {
        const HOUR_MS: u64 = 3_600_000;
        if previous_ms > now_ms.saturating_add(HOUR_MS) {
            now_ms
        } else {
            now_ms.max(previous_ms)
        }
    }
}

/// A commit, sealed and signed: the only bytes that may ever be posted for it.
#[derive(Clone)]
pub struct SealedCommit {
    /// Header, ops, signature.
    pub bytes: Vec<u8>,
    /// `hash_n`.
    pub hash: CommitHash,
    /// The ops it holds, in their order.
    pub ops: Vec<(NodeId, OpHash)>,
}

/// Seals `drafts` (in any order) into a commit at `position`, signed by `machine`.
///
/// What it returns was parsed again: a commit that a server would refuse is an error here.
pub fn seal(
    keys: &Keys,
    machine: &MachineKey,
    position: Position,
    mut drafts: Vec<Draft>,
    random: &dyn Random,
) -> Result<SealedCommit, VaultError> {
    if drafts.is_empty() || drafts.len() > MAX_OPS {
        return Err(FormatError::Limit("number of ops").into());
    }
    drafts.sort_by_key(|draft| (draft.node, draft.kind));
    let mut header = Header {
        vault: keys.vault,
        n: position.n,
        prev: position.prev,
        epoch: EPOCH,
        n_ops: drafts.len() as u32,
        time_ms: position.time_ms,
        salt: [0; 32],
        public_key: *machine.public(),
        ops_root: [0; 32],
    };
    let clear: Vec<([u8; OP_HEAD_LEN], Vec<u8>)> = drafts
        .iter()
        .map(|draft| (draft.head().encode(), draft.refs_bytes()))
        .collect();
    // All that is authenticated under the key of this commit enters the salt that makes the key.
    let plain: Vec<&[u8]> = clear
        .iter()
        .zip(&drafts)
        .flat_map(|((head, refs), draft)| [head.as_slice(), refs, draft.body()])
        .collect();
    let fresh: Secret<32> = random::secret(random);
    header.salt = crypto::hmac(
        keys.op.expose(),
        &[
            &[4],
            fresh.expose(),
            &header.encode()[..96],
            &sha256(&plain),
        ],
    );

    let bound: [u8; BOUND_LEN] = first(&header.encode());
    let key = commit_key(keys, &bound);
    let len: usize = drafts.iter().map(Draft::sealed_len).sum();
    let mut bytes = Vec::with_capacity(HEADER_LEN + len + SIGNATURE_LEN);
    bytes.resize(HEADER_LEN, 0);
    let mut hashes = Vec::with_capacity(drafts.len());
    for (index, (draft, (head, refs))) in drafts.iter_mut().zip(&clear).enumerate() {
        if !draft.clear.is_empty() {
            let tag = crypto::seal(
                key.expose(),
                op_nonce(index),
                &op_aad(&bound, head, refs),
                &mut draft.clear,
            )?;
            draft.clear.extend_from_slice(&tag);
        }
        hashes.push(OpHash(sha256(&[
            &[2],
            head,
            &sha256(&[refs]),
            &sha256(&[&draft.clear]),
        ])));
        bytes.extend_from_slice(head);
        bytes.extend_from_slice(refs);
        bytes.extend_from_slice(&draft.clear);
    }
    header.ops_root = syncagent_protocol::commit::ops_root(&hashes);
    let header_bytes = header.encode();
    bytes[..HEADER_LEN].copy_from_slice(&header_bytes);
    let signature = machine.sign(&Header::signed_message(&header_bytes));
    bytes.extend_from_slice(&signature);
    Commit::parse(&bytes)?;
    let ops = drafts.iter().map(|draft| draft.node).zip(hashes).collect();
    Ok(SealedCommit {
        bytes,
        hash: commit_hash(&header_bytes, &signature),
        ops,
    })
}

/// Opens the ops of one commit, which was parsed and verified before.
pub struct Opener<'a> {
    commit: &'a Commit<'a>,
    bound: [u8; BOUND_LEN],
    key: Secret<32>,
    dedup_vault: bool,
}

impl<'a> Opener<'a> {
    /// An opener for `commit`, in a vault without dedup. A commit of another vault is refused.
    pub fn new(keys: &Keys, commit: &'a Commit<'a>) -> Result<Self, VaultError> {
        if commit.header.vault != keys.vault {
            return Err(VaultError::OtherVault);
        }
        let bound = first(commit.header_bytes);
        Ok(Self {
            commit,
            bound,
            key: commit_key(keys, &bound),
            dedup_vault: false,
        })
    }

    /// The same in a vault whose GENESIS says this: with dedup, and only there, files have the vault's scope.
    #[must_use]
    pub fn with_dedup(mut self, dedup_vault: bool) -> Self {
        self.dedup_vault = dedup_vault;
        self
    }

    /// What op number `index` says. An error of a PUT concerns its node alone.
    pub fn open(&self, index: usize) -> Result<Opened, VaultError> {
        self.open_with(index, None)
    }

    /// [`Opener::open`] for a PUT, with `name` in place of the name in it.
    ///
    /// So a node whose own name is forbidden ([`VaultError::Name`]) can be brought back under another.
    pub fn open_as(&self, index: usize, name: &Name) -> Result<Opened, VaultError> {
        self.open_with(index, Some(name))
    }

    fn open_with(&self, index: usize, name: Option<&Name>) -> Result<Opened, VaultError> {
        let op = self
            .commit
            .ops
            .get(index)
            .ok_or(VaultError::Op("no such op"))?;
        let head = op.head;
        let OpBody::Whole { refs, ct } = op.body else {
            return Ok(Opened::Dropped(head.kind, head.node));
        };
        if !head.kind.has_body() {
            return parse_bodyless(&op.head);
        }
        let mut clear = zeroize::Zeroizing::new(vec![0; ct.len().saturating_sub(TAG_LEN)]);
        crypto::open(
            self.key.expose(),
            op_nonce(index),
            &op_aad(&self.bound, op.head_bytes, refs),
            ct,
            &mut clear,
        )
        .ok_or(match head.kind {
            OpKind::MachineAdd => VaultError::Machine("it has not the vault's key"),
            _ => VaultError::Op("it was not sealed with this vault's key"),
        })?;
        let surroundings = Surroundings {
            kind: head.kind,
            node: head.node,
            refs,
            dedup_vault: self.dedup_vault,
        };
        let opened = read_body_as(surroundings, &clear, name)?;
        if let Opened::MachineAdd(machine) = &opened
            && machine.public_key != self.commit.header.public_key
        {
            return Err(VaultError::Machine("its key is not the one that signed"));
        }
        Ok(opened)
    }
}

fn parse_bodyless(head: &OpHead) -> Result<Opened, VaultError> {
    match head.kind {
        OpKind::Trash => Ok(Opened::Trash(head.node)),
        OpKind::Purge => Ok(Opened::Purge(head.node)),
        OpKind::MachineRevoke => Ok(Opened::MachineRevoke(MachineId(head.node.0))),
        _ => Err(VaultError::Op("a body is missing")),
    }
}

fn commit_key(keys: &Keys, bound: &[u8; BOUND_LEN]) -> Secret<32> {
    crypto::hmac_key(keys.op.expose(), &[&[2], bound])
}

fn op_nonce(index: usize) -> [u8; 12] {
    let mut nonce = [0; 12];
    nonce[8..].copy_from_slice(&(index as u32).to_be_bytes());
    nonce
}

fn op_aad(bound: &[u8; BOUND_LEN], head: &[u8; OP_HEAD_LEN], refs: &[u8]) -> Vec<u8> {
    [bound.as_slice(), head, refs].concat()
}

fn first<const N: usize>(bytes: &[u8; HEADER_LEN]) -> [u8; N] {
    std::array::from_fn(|i| bytes[i])
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::keys::VaultKey;
    use crate::op::{Genesis, MachineAdd, Put, PutBody};
    use crate::random::OsRandom;
    use syncagent_protocol::Name;

    fn link(target: &str) -> Put {
        Put {
            parent: NodeId::ROOT,
            name: Name::parse("link").unwrap(),
            mtime_ns: 1,
            body: PutBody::Symlink {
                target: target.into(),
            },
            based_on: None,
            conflict_of: None,
        }
    }

    /// Right after the genesis.
    const SECOND: Position = Position {
        n: 2,
        prev: CommitHash([1; 32]),
        time_ms: 6,
    };

    #[test]
    fn what_is_sealed_opens_and_nothing_else_does() {
        let random = OsRandom::default();
        let vault_key = VaultKey::generate(&random);
        let keys = vault_key.keys().unwrap();
        let machine = MachineKey::generate(&random).unwrap();
        let add = MachineAdd {
            public_key: *machine.public(),
            name: "abc".into(),
            platform: "linux".into(),
            web: false,
        };
        let first_position = Position {
            n: 1,
            prev: CommitHash::genesis(keys.vault()),
            time_ms: 5,
        };
        let drafts = vec![
            Draft::machine_add(&add).unwrap(),
            Draft::genesis(&Genesis::default()).unwrap(),
        ];
        let sealed = seal(&keys, &machine, first_position, drafts, &random).unwrap();
        let commit = Commit::parse(&sealed.bytes).unwrap();
        commit.verify().unwrap();
        assert_eq!(commit.hash(), sealed.hash);
        let opener = Opener::new(&keys, &commit).unwrap();
        assert!(matches!(opener.open(0), Ok(Opened::Genesis(g)) if g == Genesis::default()));
        assert!(matches!(opener.open(1), Ok(Opened::MachineAdd(m)) if m == add));

        let nodes = [NodeId([9; 16]), NodeId([3; 16])];
        let drafts = vec![
            Draft::put(nodes[0], &link("a")).unwrap(),
            Draft::trash(nodes[1]),
        ];
        let position = Position {
            n: 2,
            prev: sealed.hash,
            time_ms: 6,
        };
        let second = seal(&keys, &machine, position, drafts, &random).unwrap();
        let commit = Commit::parse(&second.bytes).unwrap();
        let opener = Opener::new(&keys, &commit).unwrap();
        assert!(matches!(opener.open(0), Ok(Opened::Trash(node)) if node == nodes[1]));
        assert!(matches!(opener.open(1), Ok(Opened::Put(node, _)) if node == nodes[0]));
        let served = commit.to_served();
        assert_eq!(Commit::parse_served(&served).unwrap().hash(), second.hash);
        assert_eq!(commit.to_posted(), Some(second.bytes.clone()));

        let other = VaultKey::from_parts(crate::random::secret(&random), keys.vault())
            .keys()
            .unwrap();
        assert!(Opener::new(&other, &commit).unwrap().open(1).is_err());
        for bit in 0..8 * second.bytes.len() {
            let mut bytes = second.bytes.clone();
            bytes[bit / 8] ^= 1 << (bit % 8);
            let accepted = Commit::parse(&bytes).is_ok_and(|commit| commit.verify().is_ok());
            assert!(!accepted, "bit {} of byte {}", bit % 8, bit / 8);
        }
    }

    #[test]
    fn what_has_no_body_opens_as_what_it_is() {
        let random = OsRandom::default();
        let keys = VaultKey::generate(&random).keys().unwrap();
        let machine = MachineKey::generate(&random).unwrap();
        let drafts = vec![
            Draft::trash(NodeId([1; 16])),
            Draft::purge(NodeId([2; 16])),
            Draft::machine_revoke(MachineId([3; 16])),
        ];
        let sealed = seal(&keys, &machine, SECOND, drafts, &random).unwrap();
        let commit = Commit::parse(&sealed.bytes).unwrap();
        let opener = Opener::new(&keys, &commit).unwrap();
        let opened = |index| opener.open(index).unwrap();
        assert!(matches!(opened(0), Opened::Trash(node) if node == NodeId([1; 16])));
        assert!(matches!(opened(1), Opened::Purge(node) if node == NodeId([2; 16])));
        assert!(matches!(opened(2), Opened::MachineRevoke(id) if id == MachineId([3; 16])));
        assert!(opener.open(3).is_err());
    }

    #[test]
    fn a_machine_without_the_key_is_told_from_a_damaged_op() {
        let random = OsRandom::default();
        let vault_key = VaultKey::generate(&random);
        let keys = vault_key.keys().unwrap();
        let (machine, stranger) = (
            MachineKey::generate(&random).unwrap(),
            MachineKey::generate(&random).unwrap(),
        );
        let add = MachineAdd {
            public_key: *machine.public(),
            name: "abc".into(),
            platform: "linux".into(),
            web: false,
        };
        let code = |keys: &Keys, signer: &MachineKey, draft: Draft| {
            let told = |error: VaultError| error.code().as_str();
            let sealed = seal(keys, signer, SECOND, vec![draft], &random).map_err(told)?;
            let commit = Commit::parse(&sealed.bytes).unwrap();
            let opener = Opener::new(&vault_key.keys().unwrap(), &commit).unwrap();
            opener.open(0).map(drop).map_err(told)
        };
        let other = VaultKey::from_parts(crate::random::secret(&random), keys.vault())
            .keys()
            .unwrap();
        let put = || Draft::put(NodeId([9; 16]), &link("a")).unwrap();
        let added = || Draft::machine_add(&add).unwrap();
        assert_eq!(code(&keys, &machine, added()), Ok(()));
        assert_eq!(code(&other, &machine, added()), Err("E_MACHINE"));
        // Nobody adds another machine than the one that signs.
        assert_eq!(code(&keys, &stranger, added()), Err("E_MACHINE"));
        assert_eq!(code(&keys, &machine, put()), Ok(()));
        assert_eq!(code(&other, &machine, put()), Err("E_COMMIT"));
    }

    #[test]
    fn an_op_opens_only_under_the_head_it_was_sealed_with() {
        let random = OsRandom::default();
        let keys = VaultKey::generate(&random).keys().unwrap();
        let machine = MachineKey::generate(&random).unwrap();
        let put = Draft::put(NodeId([9; 16]), &link("a")).unwrap();
        let sealed = seal(&keys, &machine, SECOND, vec![put], &random).unwrap();
        // Everything else is made to fit, and signed: what a machine could do that has no key.
        let under = |node: [u8; 16]| {
            let mut bytes = sealed.bytes.clone();
            let (header_bytes, rest) = bytes.split_first_chunk_mut::<HEADER_LEN>().unwrap();
            let (op, signature) = rest.split_last_chunk_mut::<SIGNATURE_LEN>().unwrap();
            let (head, ct) = op.split_first_chunk_mut::<OP_HEAD_LEN>().unwrap();
            let at = head.windows(16).position(|id| id == [9; 16]).unwrap();
            head[at..at + 16].copy_from_slice(&node);
            let hash = sha256(&[&[2], head, &sha256(&[]), &sha256(&[ct])]);
            let mut header = Header::parse(header_bytes).unwrap();
            header.ops_root = syncagent_protocol::commit::ops_root(&[OpHash(hash)]);
            *header_bytes = header.encode();
            *signature = machine.sign(&Header::signed_message(header_bytes));
            let commit = Commit::parse(&bytes).unwrap();
            commit.verify().unwrap();
            let opened = Opener::new(&keys, &commit).unwrap().open(0);
            opened.map(drop).map_err(|error| error.code().as_str())
        };
        assert_eq!(under([9; 16]), Ok(()));
        assert_eq!(under([8; 16]), Err("E_COMMIT"));
    }

    #[test]
    fn a_name_that_nothing_can_have_is_told_as_such_and_can_be_replaced() {
        let random = OsRandom::default();
        let keys = VaultKey::generate(&random).keys().unwrap();
        let machine = MachineKey::generate(&random).unwrap();
        let node = NodeId([9; 16]);
        let put_named = |name: &[u8; 4], target: &str| {
            let mut draft = Draft::put(node, &link(target)).unwrap();
            let at = draft.clear.windows(4).position(|four| four == b"link");
            draft.clear[at.unwrap()..][..4].copy_from_slice(name);
            draft
        };
        let better = Name::parse("better").unwrap();
        for name in [b"../x", b"/etc", b"a\0bc", b"a\xff\xffb"] {
            let drafts = vec![put_named(name, "target")];
            let sealed = seal(&keys, &machine, SECOND, drafts, &random).unwrap();
            let commit = Commit::parse(&sealed.bytes).unwrap();
            let opener = Opener::new(&keys, &commit).unwrap();
            let error = opener.open(0).map(drop).unwrap_err();
            assert_eq!(error.code().as_str(), "E_PATH", "{name:?}");
            let Ok(Opened::Put(_, put)) = opener.open_as(0, &better) else {
                panic!("{name:?}: the name is all that is wrong with it");
            };
            assert_eq!(put.name, better);
        }
        // What is wrong in another way as well is told for that, and no name makes it readable.
        let mut broken = put_named(b"../x", "target");
        let at = broken.clear.windows(6).position(|six| six == b"target");
        broken.clear[at.unwrap()] = 0;
        let sealed = seal(&keys, &machine, SECOND, vec![broken], &random).unwrap();
        let commit = Commit::parse(&sealed.bytes).unwrap();
        let opener = Opener::new(&keys, &commit).unwrap();
        for opened in [opener.open(0), opener.open_as(0, &better)] {
            assert_eq!(opened.map(drop).unwrap_err().code().as_str(), "E_COMMIT");
        }
    }

    #[test]
    fn sealing_again_never_repeats_a_salt_or_a_key() {
        let random = OsRandom::default();
        let keys = VaultKey::generate(&random).keys().unwrap();
        let machine = MachineKey::generate(&random).unwrap();
        let seal = || {
            let draft = Draft::put(NodeId([9; 16]), &link("a")).unwrap();
            seal(&keys, &machine, SECOND, vec![draft], &random)
                .unwrap()
                .bytes
        };
        let (a, b) = (seal(), seal());
        assert_ne!(a[96..128], b[96..128]);
        assert_ne!(
            a[HEADER_LEN + OP_HEAD_LEN..][..256],
            b[HEADER_LEN + OP_HEAD_LEN..][..256]
        );
    }

    #[test]
    fn no_two_ops_of_a_commit_share_a_nonce() {
        let random = OsRandom::default();
        let keys = VaultKey::generate(&random).keys().unwrap();
        let machine = MachineKey::generate(&random).unwrap();
        let put = |node| Draft::put(NodeId([node; 16]), &link("a")).unwrap();
        let sealed = seal(&keys, &machine, SECOND, (1..9).map(put).collect(), &random).unwrap();
        let commit = Commit::parse(&sealed.bytes).unwrap();
        // Equal texts under one key: only the nonce can tell what is sealed apart.
        let mut seen = std::collections::BTreeSet::new();
        for op in &commit.ops {
            let OpBody::Whole { ct, .. } = op.body else {
                panic!("an op without a body")
            };
            assert!(seen.insert(&ct[..ct.len() - TAG_LEN]));
        }
        assert_eq!(seen.len(), 8);
    }

    #[test]
    fn a_broken_random_generator_repeats_no_key() {
        struct Broken;
        impl Random for Broken {
            fn fill(&self, out: &mut [u8]) {
                out.fill(0);
            }
        }
        let random = OsRandom::default();
        let keys = VaultKey::generate(&random).keys().unwrap();
        let machine = MachineKey::generate(&random).unwrap();
        let salt = |drafts| {
            let position = Position {
                n: 2,
                prev: CommitHash([1; 32]),
                time_ms: 6,
            };
            let sealed = seal(&keys, &machine, position, drafts, &Broken).unwrap();
            sealed.bytes[96..128].to_vec()
        };
        let put = |node| Draft::put(NodeId([node; 16]), &link("a")).unwrap();
        let trash = |node| Draft::trash(NodeId([node; 16]));
        let same = salt(vec![put(9), trash(3)]);
        assert_eq!(same, salt(vec![put(9), trash(3)]));
        // Heads alone differ: they are authenticated under the same key as the bodies.
        assert_ne!(same, salt(vec![put(8), trash(3)]));
        assert_ne!(same, salt(vec![put(9), trash(4)]));
    }

    #[test]
    fn what_no_server_would_take_is_not_sealed() {
        let random = OsRandom::default();
        let keys = VaultKey::generate(&random).keys().unwrap();
        let machine = MachineKey::generate(&random).unwrap();
        let code = |n, drafts| {
            let position = Position {
                n,
                prev: CommitHash([1; 32]),
                time_ms: 6,
            };
            seal(&keys, &machine, position, drafts, &random)
                .map(drop)
                .map_err(|error| error.code().as_str())
        };
        let node = NodeId([9; 16]);
        assert_eq!(code(2, vec![Draft::trash(node)]), Ok(()));
        assert_eq!(code(2, Vec::new()), Err("E_LIMIT"));
        let many = |n: u32| {
            let draft = |i: u32| {
                let mut id = [1; 16];
                id[..4].copy_from_slice(&i.to_be_bytes());
                Draft::trash(NodeId(id))
            };
            (0..n).map(draft).collect()
        };
        assert_eq!(code(2, many(1024)), Ok(()));
        assert_eq!(code(2, many(1025)), Err("E_LIMIT"));
        let twice = vec![Draft::trash(node), Draft::purge(node)];
        assert_eq!(code(2, twice), Err("E_COMMIT"));
        assert_eq!(code(1, vec![Draft::trash(node)]), Err("E_COMMIT"));
        assert_eq!(code(2, vec![Draft::trash(NodeId::ROOT)]), Err("E_COMMIT"));
    }

    #[test]
    fn time_never_runs_backwards_but_a_mad_clock_is_not_followed() {
        assert_eq!(Position::time_after(10, 20), 20);
        assert_eq!(Position::time_after(20, 10), 20);
        assert_eq!(Position::time_after(3_600_010, 10), 3_600_010);
        assert_eq!(Position::time_after(3_600_011, 10), 10);
    }
}
