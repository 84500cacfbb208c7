//! What ops say, once opened: the bodies of PUT, GENESIS, MACHINE_ADD and KEYSLOT.

use syncagent_protocol::commit::{INLINE_CLEAR_LEN, MAX_REFS, OpKind, padded_len};
use syncagent_protocol::{Body, ChunkId, ContentHash, Kind, MachineId, Name, Node, NodeId, OpHash};

use crate::VaultError;
use crate::chunk::{Codec, Scope};
use crate::chunker::Class;
use crate::manifest::Manifest;
use crate::slot::Slot;
use crate::tlv::{Fields, Writer};

/// The longest content that stands in an op instead of in chunks.
pub const MAX_INLINE_LEN: usize = 2048;
/// The longest target of a link.
pub const MAX_TARGET_LEN: usize = 4096;

/// The whole state of a node.
pub struct Put {
    /// The directory it hangs in.
    pub parent: NodeId,
    /// Its name there.
    pub name: Name,
    /// Nanoseconds since 1970.
    pub mtime_ns: i64,
    /// What it holds.
    pub body: PutBody,
    /// The op that the edit started from.
    pub based_on: Option<OpHash>,
    /// Set on a conflict copy: the node and version that it lost against.
    pub conflict_of: Option<(NodeId, OpHash)>,
}

/// What a node holds, with all that is needed to fetch it.
pub enum PutBody {
    /// A regular file.
    File(File),
    /// A directory.
    Directory,
    /// A symbolic link.
    Symlink {
        /// Where it points.
        target: String,
    },
}

/// A file's content.
pub struct File {
    /// Length in bytes.
    pub size: u64,
    /// Whether its owner may execute it.
    pub exec: bool,
    /// BLAKE3 of the content.
    pub hash: ContentHash,
    /// Scope of its chunks, if it is not the node's own.
    pub scope: Option<Scope>,
    /// Class of its chunk sizes.
    pub class: Class,
    /// Where the content is.
    pub content: Content,
}

/// Where a file's content is.
pub enum Content {
    /// Here.
    Inline(Vec<u8>),
    /// In chunks.
    Chunks(Manifest),
}

impl Put {
    /// What decisions need of it.
    pub fn node(&self) -> Node {
        let body = match &self.body {
            PutBody::File(file) => Body::File {
                hash: file.hash,
                size: file.size,
                exec: file.exec,
            },
            PutBody::Directory => Body::Directory,
            PutBody::Symlink { target } => Body::Symlink {
                target: target.clone(),
            },
        };
        Node {
            parent: self.parent,
            name: self.name.clone(),
            mtime_ns: self.mtime_ns,
            body,
        }
    }

    /// The scope its chunks are sealed in.
    pub fn scope(&self, node: NodeId) -> Scope {
        match &self.body {
            PutBody::File(File {
                scope: Some(scope), ..
            }) => *scope,
            _ => node.into(),
        }
    }

    /// The chunks it names in clear.
    pub fn refs(&self) -> Vec<ChunkId> {
        match &self.body {
            PutBody::File(File {
                content: Content::Chunks(manifest),
                ..
            }) => manifest.refs(),
            _ => Vec::new(),
        }
    }

    /// The TLV form: also what a client keeps of a node it may have to fetch later.
    pub fn encode(&self) -> Vec<u8> {
        let mut w = Writer::default();
        w.field(1, &self.parent.0)
            .field(2, self.name.as_str().as_bytes());
        let kind = match self.body {
            PutBody::File(_) => 1,
            PutBody::Directory => 2,
            PutBody::Symlink { .. } => 3,
        };
        w.field(3, &[kind]);
        if let PutBody::File(file) = &self.body {
            w.field(4, &file.size.to_be_bytes());
        }
        w.field(5, &self.mtime_ns.to_be_bytes());
        match &self.body {
            PutBody::File(file) => {
                w.field(6, &[u8::from(file.exec)]).field(7, &file.hash.0);
                if let Some(scope) = file.scope {
                    w.field(8, &scope.0);
                }
                w.field(9, &[file.class.number()]);
                match &file.content {
                    Content::Chunks(manifest) => {
                        let mut bytes = Vec::with_capacity(1 + 72 * manifest.entries.len());
                        manifest.encode(&mut bytes);
                        w.field(10, &bytes);
                    }
                    Content::Inline(content) => {
                        w.field(11, content);
                    }
                }
            }
            PutBody::Directory => {
                w.field(6, &[0]);
            }
            PutBody::Symlink { target } => {
                w.field(12, target.as_bytes());
            }
        }
        if let Some(hash) = self.based_on {
            w.field(13, &hash.0);
        }
        if let Some((node, hash)) = self.conflict_of {
            w.field(14, &[&node.0[..], &hash.0].concat());
        }
        w.finish()
    }

    /// Parses the TLV form of the PUT of `node`.
    pub fn parse(bytes: &[u8], node: NodeId) -> Result<Self, VaultError> {
        let f = Fields::parse(bytes, 1..=14)?;
        let name = f.get(2).ok_or(VaultError::Op("a field is missing"))?;
        let name = Name::from_bytes(name).map_err(|_| VaultError::Op("an invalid name"))?;
        let exec = |f: &Fields<'_>| match f.u8(6)? {
            0 => Ok(false),
            1 => Ok(true),
            _ => Err(VaultError::Op("unknown mode bits")),
        };
        let body = match kind_of(f.u8(3)?)? {
            Kind::File => {
                f.none_of(&[12])?;
                let size = u64::from_be_bytes(f.array(4)?);
                let scope = f.optional_array(8)?.map(Scope);
                if scope.is_some_and(|scope| scope == node.into()) {
                    return Err(VaultError::Op("a scope that goes without saying"));
                }
                let content = match (f.get(10), f.get(11)) {
                    (Some(manifest), None) => Content::Chunks(Manifest::parse(manifest)?),
                    (None, Some(content)) if content.len() <= MAX_INLINE_LEN => {
                        Content::Inline(content.to_vec())
                    }
                    (None, Some(_)) => {
                        return Err(VaultError::Op("inline content beyond its limit"));
                    }
                    _ => {
                        return Err(VaultError::Op(
                            "content must be inline or in chunks, one of them",
                        ));
                    }
                };
                let content_len = match &content {
                    Content::Inline(content) => Some(content.len() as u64),
                    Content::Chunks(manifest) => manifest.total_len(),
                };
                if content_len != Some(size) {
                    return Err(VaultError::Op(
                        "the content's length is not the file's size",
                    ));
                }
                PutBody::File(File {
                    size,
                    exec: exec(&f)?,
                    hash: ContentHash(f.array(7)?),
                    scope,
                    class: Class::from_number(f.u8(9)?)
                        .ok_or(VaultError::Op("unknown class of chunk sizes"))?,
                    content,
                })
            }
            Kind::Directory => {
                f.none_of(&[4, 7, 8, 9, 10, 11, 12])?;
                exec(&f)?;
                PutBody::Directory
            }
            Kind::Symlink => {
                f.none_of(&[4, 6, 7, 8, 9, 10, 11])?;
                let target = f.text(12)?;
                if target.is_empty() || target.len() > MAX_TARGET_LEN || target.contains('\0') {
                    return Err(VaultError::Op("an invalid target of a link"));
                }
                PutBody::Symlink {
                    target: target.to_owned(),
                }
            }
        };
        let conflict_of = f.optional_array::<48>(14)?.map(|bytes| {
            let (mut node, mut hash) = ([0; 16], [0; 32]);
            node.copy_from_slice(&bytes[..16]);
            hash.copy_from_slice(&bytes[16..]);
            (NodeId(node), OpHash(hash))
        });
        Ok(Self {
            parent: NodeId(f.array(1)?),
            name,
            mtime_ns: i64::from_be_bytes(f.array(5)?),
            body,
            based_on: f.optional_array(13)?.map(OpHash),
            conflict_of,
        })
    }
}

fn kind_of(number: u8) -> Result<Kind, VaultError> {
    match number {
        1 => Ok(Kind::File),
        2 => Ok(Kind::Directory),
        3 => Ok(Kind::Symlink),
        _ => Err(VaultError::Op("unknown kind of node")),
    }
}

/// The choices of a vault that are fixed for ever.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Genesis {
    /// Whether chunks may be compressed.
    pub zstd: bool,
    /// Whether equal content is stored once in the whole vault, at the price that equality shows.
    pub dedup_vault: bool,
    /// A hint for servers: days that trash and versions are kept.
    pub retention_days: u32,
}

impl Default for Genesis {
    fn default() -> Self {
        Self {
            zstd: true,
            dedup_vault: false,
            retention_days: 30,
        }
    }
}

impl Genesis {
    /// The codec that the vault allows.
    pub fn codec(&self) -> Codec {
        if self.zstd {
            Codec::Zstd
        } else {
            Codec::Stored
        }
    }

    /// The scope field of PUTs of `node`'s own content.
    pub fn scope(&self) -> Option<Scope> {
        self.dedup_vault.then_some(Scope::VAULT)
    }

    /// The TLV form, also part of exports.
    pub fn encode(&self) -> Vec<u8> {
        let mut w = Writer::default();
        w.field(1, &[1])
            .field(2, &[2])
            .field(3, &[u8::from(self.zstd)])
            .field(4, &[u8::from(self.dedup_vault)])
            .field(5, &[0])
            .field(6, &[0])
            .field(7, &self.retention_days.to_be_bytes());
        w.finish()
    }

    /// Parses the TLV form; anything from the future is refused.
    pub fn parse(bytes: &[u8]) -> Result<Self, VaultError> {
        let f = Fields::parse(bytes, 1..=7)?;
        let flag = |tag| match f.u8(tag)? {
            0 => Ok(false),
            1 => Ok(true),
            _ => Err(VaultError::Op(
                "the vault uses a choice this version does not know",
            )),
        };
        if f.u8(1)? != 1 || f.u8(2)? != 2 || f.u8(5)? != 0 || f.u8(6)? != 0 {
            return Err(VaultError::Op("the vault needs a newer SyncAgent"));
        }
        Ok(Self {
            zstd: flag(3)?,
            dedup_vault: flag(4)?,
            retention_days: u32::from_be_bytes(f.array(7)?),
        })
    }
}

/// A machine joins.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MachineAdd {
    /// Its Ed25519 key.
    pub public_key: [u8; 32],
    /// Its name, for people.
    pub name: String,
    /// Its operating system, for people.
    pub platform: String,
    /// Whether it is a browser.
    pub web: bool,
}

impl MachineAdd {
    fn encode(&self) -> Vec<u8> {
        let mut w = Writer::default();
        w.field(1, &self.public_key)
            .field(2, self.name.as_bytes())
            .field(3, self.platform.as_bytes())
            .field(4, &[if self.web { 2 } else { 1 }]);
        w.finish()
    }

    fn parse(bytes: &[u8]) -> Result<Self, VaultError> {
        let f = Fields::parse(bytes, 1..=4)?;
        let web = match f.u8(4)? {
            1 => false,
            2 => true,
            _ => return Err(VaultError::Op("unknown kind of machine")),
        };
        Ok(Self {
            public_key: f.array(1)?,
            name: f.text(2)?.to_owned(),
            platform: f.text(3)?.to_owned(),
            web,
        })
    }
}

/// A slot held by the server was replaced; this pins which one is right.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct KeyslotPin {
    /// SHA-256 of the slot.
    pub hash: [u8; 32],
    /// The slot's own id.
    pub slot_id: [u8; 16],
    /// Its type's number.
    pub slot_type: u8,
}

impl KeyslotPin {
    /// The pin of `slot`.
    pub fn of(slot: &Slot) -> Self {
        Self {
            hash: slot.hash(),
            slot_id: slot.slot_id(),
            slot_type: slot.slot_type().number(),
        }
    }

    fn encode(&self) -> Vec<u8> {
        let mut w = Writer::default();
        w.field(1, &self.hash)
            .field(2, &self.slot_id)
            .field(3, &[self.slot_type]);
        w.finish()
    }

    fn parse(bytes: &[u8]) -> Result<Self, VaultError> {
        let f = Fields::parse(bytes, 1..=3)?;
        Ok(Self {
            hash: f.array(1)?,
            slot_id: f.array(2)?,
            slot_type: f.u8(3)?,
        })
    }
}

/// An op that is about to be sealed.
pub struct Draft {
    pub(crate) kind: OpKind,
    pub(crate) node: NodeId,
    pub(crate) refs: Vec<ChunkId>,
    /// `u32 len ‖ TLV ‖ zeros`; empty for kinds without a body.
    pub(crate) clear: Vec<u8>,
}

impl Draft {
    /// The op that gives `node` a new state.
    pub fn put(node: NodeId, put: &Put) -> Result<Self, VaultError> {
        let inline = matches!(
            &put.body,
            PutBody::File(File {
                content: Content::Inline(_),
                ..
            })
        );
        let refs = put.refs();
        if refs.len() > MAX_REFS {
            return Err(VaultError::Op("a manifest beyond its limits"));
        }
        Ok(Self {
            kind: OpKind::Put,
            node,
            refs,
            clear: pad(&put.encode(), inline)?,
        })
    }

    /// Whether a file's content of `len` bytes and a name this long fit into an op.
    pub fn fits_inline(len: u64, name: &Name) -> bool {
        // Every other field of a file's PUT has a bounded length; see `Put::encode`.
        const OTHER_FIELDS: usize = 320;
        len <= MAX_INLINE_LEN as u64
            && len as usize + name.as_str().len() + OTHER_FIELDS <= INLINE_CLEAR_LEN
    }

    /// The op that moves `node` to the trash.
    pub fn trash(node: NodeId) -> Self {
        Self {
            kind: OpKind::Trash,
            node,
            refs: Vec::new(),
            clear: Vec::new(),
        }
    }

    /// The op that lets every version of `node` go.
    pub fn purge(node: NodeId) -> Self {
        Self {
            kind: OpKind::Purge,
            node,
            refs: Vec::new(),
            clear: Vec::new(),
        }
    }

    /// The op that opens a vault.
    pub fn genesis(genesis: &Genesis) -> Result<Self, VaultError> {
        Ok(Self {
            kind: OpKind::Genesis,
            node: NodeId::ROOT,
            refs: Vec::new(),
            clear: pad(&genesis.encode(), false)?,
        })
    }

    /// The op that enrols a machine.
    pub fn machine_add(machine: &MachineAdd) -> Result<Self, VaultError> {
        let node = NodeId(MachineId::of(&machine.public_key).0);
        Ok(Self {
            kind: OpKind::MachineAdd,
            node,
            refs: Vec::new(),
            clear: pad(&machine.encode(), false)?,
        })
    }

    /// The op that removes a machine.
    pub fn machine_revoke(machine: MachineId) -> Self {
        Self {
            kind: OpKind::MachineRevoke,
            node: NodeId(machine.0),
            refs: Vec::new(),
            clear: Vec::new(),
        }
    }

    /// The op that pins a slot.
    pub fn keyslot(pin: &KeyslotPin) -> Result<Self, VaultError> {
        Ok(Self {
            kind: OpKind::Keyslot,
            node: NodeId::ROOT,
            refs: Vec::new(),
            clear: pad(&pin.encode(), false)?,
        })
    }

    /// What it does, to which node.
    pub fn target(&self) -> (OpKind, NodeId) {
        (self.kind, self.node)
    }

    /// Bytes it will take in a commit.
    pub fn sealed_len(&self) -> usize {
        let tag = if self.clear.is_empty() {
            0
        } else {
            crate::crypto::TAG_LEN
        };
        syncagent_protocol::commit::OP_HEAD_LEN + 32 * self.refs.len() + self.clear.len() + tag
    }
}

/// An op of the log, opened.
pub enum Opened {
    /// First op of the vault.
    Genesis(Genesis),
    /// New state of a node.
    Put(NodeId, Box<Put>),
    /// The node goes to the trash.
    Trash(NodeId),
    /// The node's versions may go.
    Purge(NodeId),
    /// A machine joins.
    MachineAdd(MachineAdd),
    /// A machine is removed.
    MachineRevoke(MachineId),
    /// A slot is pinned.
    Keyslot(KeyslotPin),
    /// The body was dropped by retention: a later op of the same node must justify it.
    Dropped(OpKind, NodeId),
}

fn pad(tlv: &[u8], inline: bool) -> Result<Vec<u8>, VaultError> {
    let len = 4 + tlv.len();
    let padded = if inline {
        INLINE_CLEAR_LEN
    } else {
        padded_len(len)
    };
    if len > padded {
        return Err(VaultError::Op("inline content does not fit"));
    }
    let mut clear = Vec::with_capacity(padded + crate::crypto::TAG_LEN);
    clear.extend_from_slice(&(tlv.len() as u32).to_be_bytes());
    clear.extend_from_slice(tlv);
    clear.resize(padded, 0);
    Ok(clear)
}

pub(crate) fn parse_clear(kind: OpKind, node: NodeId, clear: &[u8]) -> Result<Opened, VaultError> {
    let (len, rest) = clear
        .split_first_chunk::<4>()
        .ok_or(VaultError::Op("an empty body"))?;
    let (tlv, padding) = rest
        .split_at_checked(u32::from_be_bytes(*len) as usize)
        .ok_or(VaultError::Op("a length beyond the body"))?;
    let opened = match kind {
        OpKind::Genesis => Opened::Genesis(Genesis::parse(tlv)?),
        OpKind::Put => Opened::Put(node, Box::new(Put::parse(tlv, node)?)),
        OpKind::MachineAdd => Opened::MachineAdd(MachineAdd::parse(tlv)?),
        OpKind::Keyslot => Opened::Keyslot(KeyslotPin::parse(tlv)?),
        OpKind::Trash => Opened::Trash(node),
        OpKind::Purge => Opened::Purge(node),
        OpKind::MachineRevoke => Opened::MachineRevoke(MachineId(node.0)),
    };
    let inline = matches!(&opened, Opened::Put(_, put)
        if matches!(&put.body, PutBody::File(File { content: Content::Inline(_), .. })));
    let expected = if inline {
        INLINE_CLEAR_LEN
    } else {
        padded_len(4 + tlv.len())
    };
    if clear.len() != expected || padding.iter().any(|&b| b != 0) {
        return Err(VaultError::Op("padding that tells something"));
    }
    Ok(opened)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(content: Content, size: u64, scope: Option<Scope>) -> Put {
        Put {
            parent: NodeId::ROOT,
            name: Name::parse(&"n".repeat(700)).unwrap(),
            mtime_ns: -5,
            body: PutBody::File(File {
                size,
                exec: true,
                hash: ContentHash([9; 32]),
                scope,
                class: Class::of(size, None),
                content,
            }),
            based_on: Some(OpHash([1; 32])),
            conflict_of: Some((NodeId([2; 16]), OpHash([3; 32]))),
        }
    }

    #[test]
    fn the_bound_for_inline_content_is_safe() {
        let name = Name::parse(&"n".repeat(700)).unwrap();
        let len = (0..=MAX_INLINE_LEN as u64)
            .rev()
            .find(|&len| Draft::fits_inline(len, &name))
            .unwrap();
        let put = file(
            Content::Inline(vec![0; len as usize]),
            len,
            Some(Scope([4; 16])),
        );
        assert!(Draft::put(NodeId([1; 16]), &put).is_ok());
    }

    #[test]
    fn put_round_trip() {
        let put = file(Content::Inline(b"abc".to_vec()), 3, None);
        let bytes = put.encode();
        let back = Put::parse(&bytes, NodeId([1; 16])).unwrap();
        assert_eq!(back.encode(), bytes);
        assert_eq!(back.node(), put.node());
    }

    #[test]
    fn size_and_content_must_agree() {
        let put = file(Content::Inline(b"abc".to_vec()), 4, None);
        assert!(Put::parse(&put.encode(), NodeId([1; 16])).is_err());
    }
}
