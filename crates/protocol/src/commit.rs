//! The signed log as anyone can check it without the vault key: envelope, hash chain, signature.
//!
//! A commit is `header 192 ‖ ops ‖ signature 64` (format.md, "Commits"). This module parses and
//! checks everything that needs no key; what the ops mean is opened by the `vault` crate.
//!
//! Hazard: each byte here comes from a network. Parsing borrows, allocates at most one small record
//! an op, and `n_ops` is bounded before anything is reserved.

use crate::bytes::Reader;
use crate::code::Code;
use crate::ids::{ChunkId, CommitHash, MachineId, NodeId, OpHash, VaultId};
use crate::{sha256, signature};

/// Length of the header in bytes.
pub const HEADER_LEN: usize = 192;
/// Length of the signature in bytes.
pub const SIGNATURE_LEN: usize = 64;
/// Length of an op's head in bytes.
pub const OP_HEAD_LEN: usize = 32;
/// Most ops in a commit.
pub const MAX_OPS: usize = 1024;
/// Most bytes of one op: head, references and ciphertext.
pub const MAX_OP_LEN: usize = 64 * 1024;
/// Most chunks one op may name.
pub const MAX_REFS: usize = 128;
/// Most bytes of a commit.
pub const MAX_COMMIT_LEN: usize = 16 * 1024 * 1024;
/// Most bytes of a commit as it is served: a byte more an op, and two hashes where a TRASH had nothing.
pub const MAX_SERVED_LEN: usize = MAX_COMMIT_LEN + MAX_OPS * (1 + 64);
/// Length of the AES-GCM tag at the end of a ciphertext.
pub const TAG_LEN: usize = 16;
/// Clear length of an op with inline content.
pub const INLINE_CLEAR_LEN: usize = 3072;

const MAGIC: &[u8; 4] = b"SACM";
const SIGNATURE_CONTEXT: &[u8] = b"SyncAgent/v1/commit\0";

/// Why bytes are not what they should be.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum FormatError {
    /// The bytes end too early.
    #[error("it ends too early")]
    Truncated,
    /// Bytes are left over.
    #[error("bytes are left over at its end")]
    Trailing,
    /// It does not begin as it should.
    #[error("it does not begin like one")]
    Magic,
    /// A version, algorithm, epoch or kind this program does not know.
    #[error("it was made by a newer SyncAgent ({0})")]
    Version(&'static str),
    /// A byte that must be zero is not.
    #[error("a byte that must be zero is not ({0})")]
    Reserved(&'static str),
    /// Over a limit.
    #[error("it is beyond the limits ({0})")]
    Limit(&'static str),
    /// A rule of the log is broken.
    #[error("{0}")]
    Rule(&'static str),
    /// It enrols or removes a machine in a way that no commit may.
    #[error("{0}")]
    Machine(&'static str),
    /// It stands on another history.
    #[error("{0}")]
    Fork(&'static str),
    /// The signature is not the author's.
    #[error("its signature is not valid")]
    Signature,
}

impl FormatError {
    /// The stable code a client halts with or a server answers with.
    pub fn code(&self) -> Code {
        match self {
            Self::Version(_) => Code::Version,
            Self::Limit(_) => Code::Limit,
            Self::Machine(_) => Code::Machine,
            Self::Fork(_) => Code::Fork,
            Self::Truncated
            | Self::Trailing
            | Self::Magic
            | Self::Reserved(_)
            | Self::Rule(_)
            | Self::Signature => Code::Commit,
        }
    }
}

/// What an op does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum OpKind {
    /// First op of a vault: its fixed choices.
    Genesis = 0,
    /// The whole state of a node.
    Put = 1,
    /// The node goes to the trash.
    Trash = 2,
    /// Every version of the node may be dropped at once.
    Purge = 3,
    /// A machine joins the vault.
    MachineAdd = 4,
    /// A machine is removed from the vault.
    MachineRevoke = 5,
    /// A key slot held by the server was replaced.
    Keyslot = 7,
}

impl OpKind {
    /// The kind with this number. 6, 8 and 9 are reserved for later versions.
    pub fn from_u8(value: u8) -> Option<Self> {
        Some(match value {
            0 => Self::Genesis,
            1 => Self::Put,
            2 => Self::Trash,
            3 => Self::Purge,
            4 => Self::MachineAdd,
            5 => Self::MachineRevoke,
            7 => Self::Keyslot,
            _ => return None,
        })
    }

    /// Whether ops of this kind carry a ciphertext.
    pub fn has_body(self) -> bool {
        !matches!(self, Self::Trash | Self::Purge | Self::MachineRevoke)
    }

    /// Whether ops of this kind decide the state of a node.
    pub fn is_about_node(self) -> bool {
        matches!(self, Self::Put | Self::Trash | Self::Purge)
    }
}

/// The fixed part of a commit.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Header {
    /// The vault whose log this extends.
    pub vault: VaultId,
    /// Position in the log, from 1.
    pub n: u64,
    /// Hash of commit n-1.
    pub prev: CommitHash,
    /// Epoch of the vault key the ops are sealed with.
    pub epoch: u32,
    /// Number of ops, 1 to [`MAX_OPS`].
    pub n_ops: u32,
    /// When, in milliseconds since 1970. Shown to people, decides nothing.
    pub time_ms: u64,
    /// Makes the commit's key unique; new at every sealing.
    pub salt: [u8; 32],
    /// The author's Ed25519 key; its hash is the author's machine id.
    pub public_key: [u8; 32],
    /// Hash over the op hashes.
    pub ops_root: [u8; 32],
}

impl Header {
    /// The author.
    pub fn machine(&self) -> MachineId {
        MachineId::of(&self.public_key)
    }

    /// The 192 bytes that are signed.
    pub fn encode(&self) -> [u8; HEADER_LEN] {
        let mut out = [0; HEADER_LEN];
        let mut at = 0;
        let mut put = |bytes: &[u8]| {
            out[at..at + bytes.len()].copy_from_slice(bytes);
            at += bytes.len();
        };
        put(MAGIC);
        put(&[1, 1, 0, 0]);
        put(&self.vault.0);
        put(&self.machine().0);
        put(&self.n.to_be_bytes());
        put(&self.prev.0);
        put(&self.epoch.to_be_bytes());
        put(&self.n_ops.to_be_bytes());
        put(&self.time_ms.to_be_bytes());
        put(&self.salt);
        put(&self.public_key);
        put(&self.ops_root);
        out
    }

    /// Parses and checks the fields; the signature is checked with the whole commit.
    pub fn parse(bytes: &[u8; HEADER_LEN]) -> Result<Self, FormatError> {
        let mut r = Reader::new(bytes);
        if &r.array::<4>()? != MAGIC {
            return Err(FormatError::Magic);
        }
        if r.u8()? != 1 {
            return Err(FormatError::Version("commit version"));
        }
        if r.u8()? != 1 {
            return Err(FormatError::Version("algorithm"));
        }
        // Flags and the byte behind them.
        r.zeros(2, "commit header")?;
        let vault = VaultId(r.array()?);
        let machine = MachineId(r.array()?);
        let n = r.u64()?;
        let prev = CommitHash(r.array()?);
        let epoch = r.u32()?;
        let n_ops = r.u32()?;
        let header = Self {
            vault,
            n,
            prev,
            epoch,
            n_ops,
            time_ms: r.u64()?,
            salt: r.array()?,
            public_key: r.array()?,
            ops_root: r.array()?,
        };
        if n == 0 || n > i64::MAX as u64 {
            return Err(FormatError::Rule("its position is out of range"));
        }
        if n_ops == 0 || n_ops as usize > MAX_OPS {
            return Err(FormatError::Limit("number of ops"));
        }
        if epoch != 1 {
            return Err(FormatError::Version("epoch"));
        }
        if !signature::is_acceptable_key(&header.public_key) || header.machine() != machine {
            return Err(FormatError::Rule("its machine id is not that of its key"));
        }
        Ok(header)
    }

    /// What the author signs.
    pub fn signed_message(bytes: &[u8; HEADER_LEN]) -> Vec<u8> {
        [SIGNATURE_CONTEXT, bytes].concat()
    }
}

/// `hash_n` of the commit with this header and signature.
pub fn commit_hash(header: &[u8; HEADER_LEN], signature: &[u8; SIGNATURE_LEN]) -> CommitHash {
    CommitHash(sha256(&[&[0], header, signature]))
}

/// The clear part of an op.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct OpHead {
    /// What it does.
    pub kind: OpKind,
    /// To which node (or machine).
    pub node: NodeId,
    /// Number of chunks it names.
    pub n_refs: u32,
    /// Length of its ciphertext in bytes, tag included.
    pub ct_len: u32,
}

impl OpHead {
    /// The 32 bytes of the head.
    pub fn encode(&self) -> [u8; OP_HEAD_LEN] {
        let mut out = [0; OP_HEAD_LEN];
        out[0] = self.kind as u8;
        out[4..20].copy_from_slice(&self.node.0);
        out[20..24].copy_from_slice(&self.n_refs.to_be_bytes());
        out[24..28].copy_from_slice(&self.ct_len.to_be_bytes());
        out
    }

    /// Parses a head and checks what its kind allows.
    pub fn parse(bytes: &[u8; OP_HEAD_LEN]) -> Result<Self, FormatError> {
        let mut r = Reader::new(bytes);
        let kind = OpKind::from_u8(r.u8()?).ok_or(FormatError::Version("kind of op"))?;
        // Flags and the two bytes behind them.
        r.zeros(3, "op head")?;
        let head = Self {
            kind,
            node: NodeId(r.array()?),
            n_refs: r.u32()?,
            ct_len: r.u32()?,
        };
        r.zeros(4, "op head")?;
        head.check()?;
        Ok(head)
    }

    fn check(&self) -> Result<(), FormatError> {
        let len = OP_HEAD_LEN as u64 + 32 * u64::from(self.n_refs) + u64::from(self.ct_len);
        if self.n_refs as usize > MAX_REFS || len > MAX_OP_LEN as u64 {
            return Err(FormatError::Limit("size of an op"));
        }
        if self.n_refs != 0 && self.kind != OpKind::Put {
            return Err(FormatError::Rule(
                "an op that holds no content names chunks",
            ));
        }
        let body_fits = match self.kind.has_body() {
            false => self.ct_len == 0,
            true => (self.ct_len as usize)
                .checked_sub(TAG_LEN)
                .is_some_and(is_padded_len),
        };
        if !body_fits {
            return Err(FormatError::Rule(
                "an op has a length that its kind never has",
            ));
        }
        let root = self.node == NodeId::ROOT;
        match self.kind {
            OpKind::Genesis | OpKind::Keyslot if !root => {
                Err(FormatError::Rule("an op about the vault names a node"))
            }
            OpKind::Put | OpKind::Trash | OpKind::Purge if root => {
                Err(FormatError::Rule("the root is never written"))
            }
            _ => Ok(()),
        }
    }

    fn refs_len(&self) -> usize {
        32 * self.n_refs as usize
    }
}

/// Whether `len` is a length that the padding of ops produces.
pub fn is_padded_len(len: usize) -> bool {
    match len {
        0 => false,
        1..=1024 => len.is_multiple_of(256),
        _ => len.is_multiple_of(1024),
    }
}

/// The smallest padded length that holds `len` bytes.
pub fn padded_len(len: usize) -> usize {
    match len {
        0..=1024 => len.next_multiple_of(256).max(256),
        _ => len.next_multiple_of(1024),
    }
}

/// One op, as posted (`Whole`) or as served after its body was dropped by retention.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Op<'a> {
    /// The parsed head.
    pub head: OpHead,
    /// The head's bytes, which are authenticated together with the body.
    pub head_bytes: &'a [u8; OP_HEAD_LEN],
    /// References and ciphertext, or their hashes.
    pub body: OpBody<'a>,
}

/// What is served of an op beyond its head.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OpBody<'a> {
    /// The op as its author made it.
    Whole {
        /// `n_refs` chunk ids of 32 bytes.
        refs: &'a [u8],
        /// The sealed body.
        ct: &'a [u8],
    },
    /// Dropped by retention: only the hashes are left.
    Dropped {
        /// SHA-256 of the references.
        refs_hash: &'a [u8; 32],
        /// SHA-256 of the ciphertext.
        ct_hash: &'a [u8; 32],
    },
}

impl<'a> Op<'a> {
    /// What the ops root is built from: the same whether the body is there or dropped.
    pub fn hash(&self) -> OpHash {
        OpHash(match self.body {
            OpBody::Whole { refs, ct } => {
                sha256(&[&[2], self.head_bytes, &sha256(&[refs]), &sha256(&[ct])])
            }
            OpBody::Dropped { refs_hash, ct_hash } => {
                sha256(&[&[2], self.head_bytes, refs_hash, ct_hash])
            }
        })
    }

    /// The chunks this op names; none if its body was dropped.
    pub fn refs(&self) -> impl ExactSizeIterator<Item = ChunkId> + use<'a> {
        let refs: &'a [u8] = match self.body {
            OpBody::Whole { refs, .. } => refs,
            OpBody::Dropped { .. } => &[],
        };
        refs.as_chunks::<32>().0.iter().map(|id| ChunkId(*id))
    }

    fn parse_whole(r: &mut Reader<'a>) -> Result<Self, FormatError> {
        let (head_bytes, head) = Self::parse_head(r)?;
        let refs = r.take(head.refs_len())?;
        let ct = r.take(head.ct_len as usize)?;
        Ok(Self {
            head,
            head_bytes,
            body: OpBody::Whole { refs, ct },
        })
    }

    fn parse_dropped(r: &mut Reader<'a>) -> Result<Self, FormatError> {
        let (head_bytes, head) = Self::parse_head(r)?;
        if !matches!(head.kind, OpKind::Put | OpKind::Trash) {
            return Err(FormatError::Rule(
                "the body of an op that is kept for ever is missing",
            ));
        }
        let hash = |r: &mut Reader<'a>| {
            r.take(32)
                .and_then(|h| h.try_into().map_err(|_| FormatError::Truncated))
        };
        Ok(Self {
            head,
            head_bytes,
            body: OpBody::Dropped {
                refs_hash: hash(r)?,
                ct_hash: hash(r)?,
            },
        })
    }

    fn parse_head(r: &mut Reader<'a>) -> Result<(&'a [u8; OP_HEAD_LEN], OpHead), FormatError> {
        let bytes: &'a [u8; OP_HEAD_LEN] = r
            .take(OP_HEAD_LEN)?
            .try_into()
            .map_err(|_| FormatError::Truncated)?;
        Ok((bytes, OpHead::parse(bytes)?))
    }
}

/// A commit whose structure, order and ops root were checked. See [`Commit::verify`] for the signature.
#[derive(Debug, Clone)]
pub struct Commit<'a> {
    /// The parsed header.
    pub header: Header,
    /// The header's bytes.
    pub header_bytes: &'a [u8; HEADER_LEN],
    /// The ops, in order of (node id, kind).
    pub ops: Vec<Op<'a>>,
    /// Hash of each op, in the same order.
    pub op_hashes: Vec<OpHash>,
    /// The author's signature.
    pub signature: &'a [u8; SIGNATURE_LEN],
}

impl<'a> Commit<'a> {
    /// Parses a commit as its author posts it.
    pub fn parse(bytes: &'a [u8]) -> Result<Self, FormatError> {
        Self::parse_with(bytes, MAX_COMMIT_LEN, Op::parse_whole)
    }

    /// Parses a commit as the server hands it out, where each op is preceded by 0 (whole) or 1 (dropped).
    pub fn parse_served(bytes: &'a [u8]) -> Result<Self, FormatError> {
        Self::parse_with(bytes, MAX_SERVED_LEN, |r| match r.u8()? {
            0 => Op::parse_whole(r),
            1 => Op::parse_dropped(r),
            _ => Err(FormatError::Rule(
                "an op is neither served whole nor dropped",
            )),
        })
    }

    fn parse_with(
        bytes: &'a [u8],
        max_len: usize,
        mut op: impl FnMut(&mut Reader<'a>) -> Result<Op<'a>, FormatError>,
    ) -> Result<Self, FormatError> {
        if bytes.len() > max_len {
            return Err(FormatError::Limit("size of a commit"));
        }
        let (header_bytes, rest) = bytes
            .split_first_chunk::<HEADER_LEN>()
            .ok_or(FormatError::Truncated)?;
        let header = Header::parse(header_bytes)?;
        let (ops_bytes, signature) = rest
            .split_last_chunk::<SIGNATURE_LEN>()
            .ok_or(FormatError::Truncated)?;
        let mut r = Reader::new(ops_bytes);
        let ops = (0..header.n_ops)
            .map(|_| op(&mut r))
            .collect::<Result<Vec<_>, _>>()?;
        r.end()?;
        let op_hashes: Vec<OpHash> = ops.iter().map(Op::hash).collect();
        let commit = Self {
            header,
            header_bytes,
            ops,
            op_hashes,
            signature,
        };
        commit.check_rules()?;
        Ok(commit)
    }

    fn check_rules(&self) -> Result<(), FormatError> {
        let mut previous: Option<OpHead> = None;
        for op in &self.ops {
            if let Some(before) = previous {
                if (before.node, before.kind) >= (op.head.node, op.head.kind) {
                    return Err(FormatError::Rule("its ops are out of order or repeated"));
                }
                if before.node == op.head.node
                    && before.kind.is_about_node()
                    && op.head.kind.is_about_node()
                {
                    return Err(FormatError::Rule("two ops decide the same node"));
                }
                let kinds = (before.kind, op.head.kind);
                if before.node == op.head.node
                    && kinds == (OpKind::MachineAdd, OpKind::MachineRevoke)
                {
                    return Err(FormatError::Machine("it enrols and removes one machine"));
                }
            }
            if op.head.kind == OpKind::MachineAdd && op.head.node.0 != self.header.machine().0 {
                return Err(FormatError::Machine(
                    "it enrols another machine than its author",
                ));
            }
            previous = Some(op.head);
        }
        let is_genesis = |op: &Op<'_>| op.head.kind == OpKind::Genesis;
        let is_first = self.header.n == 1;
        let opens_vault = self.ops.len() == 2
            && self.ops.iter().any(is_genesis)
            && self.ops.iter().any(|op| op.head.kind == OpKind::MachineAdd);
        if is_first != self.ops.iter().any(is_genesis) || (is_first && !opens_vault) {
            return Err(FormatError::Rule(
                "the first commit, and only it, opens the vault",
            ));
        }
        if is_first && self.header.prev != CommitHash::genesis(self.header.vault) {
            return Err(FormatError::Fork(
                "the first commit does not stand on the vault's beginning",
            ));
        }
        if ops_root(&self.op_hashes) != self.header.ops_root {
            return Err(FormatError::Rule("its ops are not those its author signed"));
        }
        Ok(())
    }

    /// Checks the author's signature over the header.
    pub fn verify(&self) -> Result<(), FormatError> {
        let message = Header::signed_message(self.header_bytes);
        match signature::verify(&self.header.public_key, &message, self.signature) {
            true => Ok(()),
            false => Err(FormatError::Signature),
        }
    }

    /// `hash_n`.
    pub fn hash(&self) -> CommitHash {
        commit_hash(self.header_bytes, self.signature)
    }

    /// The form its author posts; none if a body was dropped.
    pub fn to_posted(&self) -> Option<Vec<u8>> {
        let mut out = Vec::with_capacity(HEADER_LEN + SIGNATURE_LEN + self.ops.len() * 1024);
        out.extend_from_slice(self.header_bytes);
        for op in &self.ops {
            let OpBody::Whole { refs, ct } = op.body else {
                return None;
            };
            out.extend_from_slice(op.head_bytes);
            out.extend_from_slice(refs);
            out.extend_from_slice(ct);
        }
        out.extend_from_slice(self.signature);
        Some(out)
    }

    /// The form the server keeps and hands out.
    pub fn to_served(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(HEADER_LEN + SIGNATURE_LEN + self.ops.len() * 1024);
        out.extend_from_slice(self.header_bytes);
        for op in &self.ops {
            let (form, a, b): (u8, &[u8], &[u8]) = match op.body {
                OpBody::Whole { refs, ct } => (0, refs, ct),
                OpBody::Dropped { refs_hash, ct_hash } => (1, refs_hash, ct_hash),
            };
            out.push(form);
            out.extend_from_slice(op.head_bytes);
            out.extend_from_slice(a);
            out.extend_from_slice(b);
        }
        out.extend_from_slice(self.signature);
        out
    }
}

/// The hash over the op hashes that the header carries.
pub fn ops_root(hashes: &[OpHash]) -> [u8; 32] {
    let parts: Vec<&[u8]> = hashes.iter().map(|h| h.0.as_slice()).collect();
    sha256(&parts)
}

#[cfg(test)]
mod tests;
