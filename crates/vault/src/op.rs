//! What ops say, once opened: the bodies of PUT, GENESIS, MACHINE_ADD and KEYSLOT.

use syncagent_protocol::commit::{
    FormatError, INLINE_CLEAR_LEN, MAX_REFS, OP_HEAD_LEN, OpHead, OpKind, TAG_LEN, padded_len,
};
use syncagent_protocol::{Body, ChunkId, ContentHash, Kind, MachineId, Name, Node, NodeId, OpHash};
use zeroize::Zeroizing;

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
/// The longest name or platform of a machine, in bytes.
pub const MAX_MACHINE_TEXT_LEN: usize = 255;

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

    /// Whether a file says its scope exactly if the vault wants it said.
    fn scope_fits(&self, dedup_vault: bool) -> bool {
        match &self.body {
            PutBody::File(file) if dedup_vault => file.scope == Some(Scope::VAULT),
            PutBody::File(file) => file.scope != Some(Scope::VAULT),
            PutBody::Directory | PutBody::Symlink { .. } => true,
        }
    }

    /// Whether the chunks that it names are lists of chunks.
    pub fn has_lists(&self) -> bool {
        matches!(&self.body, PutBody::File(File { content: Content::Chunks(manifest), .. }) if manifest.level > 0)
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
    ///
    /// It holds the keys of the chunks; who keeps it wipes it.
    pub fn encode(&self) -> Vec<u8> {
        std::mem::take(&mut *self.tlv())
    }

    fn tlv(&self) -> Zeroizing<Vec<u8>> {
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
                        w.field(10, &manifest.encode());
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
    ///
    /// [`VaultError::Name`] says that all of it can be read, and that nothing can have the name in it.
    /// Whether the scope is one that the vault allows is checked when an op is opened.
    pub fn parse(bytes: &[u8], node: NodeId) -> Result<Self, VaultError> {
        Self::parse_as(bytes, node, None)
    }

    /// What a conflict copy lost against, read from the TLV form of its PUT; none of anything else.
    pub fn lost_against(bytes: &[u8]) -> Option<(NodeId, OpHash)> {
        conflict_of(&Fields::parse(bytes, 1..=14).ok()?).ok()?
    }

    /// [`Put::parse`]; if `name` is given, it takes the place of the one inside, whatever that is.
    fn parse_as(bytes: &[u8], node: NodeId, name: Option<&Name>) -> Result<Self, VaultError> {
        let f = Fields::parse(bytes, 1..=14)?;
        let own_name = f.get(2).ok_or(VaultError::Op("a field is missing"))?;
        let body = match kind_of(f.u8(3)?)? {
            Kind::File => {
                f.none_of(&[12])?;
                let size = u64::from_be_bytes(f.array(4)?);
                let scope = f.optional_array(8)?.map(Scope);
                if scope == Some(node.into()) {
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
                    exec: match f.u8(6)? {
                        0 => false,
                        1 => true,
                        _ => return Err(VaultError::Op("unknown mode bits")),
                    },
                    hash: ContentHash(f.array(7)?),
                    scope,
                    class: Class::from_number(f.u8(9)?)
                        .ok_or(VaultError::Op("unknown class of chunk sizes"))?,
                    content,
                })
            }
            Kind::Directory => {
                f.none_of(&[4, 7, 8, 9, 10, 11, 12])?;
                if f.u8(6)? != 0 {
                    return Err(VaultError::Op("unknown mode bits"));
                }
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
        let conflict_of = conflict_of(&f)?;
        let (parent, mtime_ns) = (NodeId(f.array(1)?), i64::from_be_bytes(f.array(5)?));
        let based_on = f.optional_array(13)?.map(OpHash);
        // Last, so that this error says that everything else is as it should be.
        let name = match name {
            Some(name) => name.clone(),
            None => Name::from_bytes(own_name).map_err(VaultError::Name)?,
        };
        Ok(Self {
            parent,
            name,
            mtime_ns,
            body,
            based_on,
            conflict_of,
        })
    }
}

fn conflict_of(f: &Fields<'_>) -> Result<Option<(NodeId, OpHash)>, VaultError> {
    let both = f.optional_array::<48>(14)?;
    Ok(both.map(|bytes| {
        let (mut node, mut hash) = ([0; 16], [0; 32]);
        node.copy_from_slice(&bytes[..16]);
        hash.copy_from_slice(&bytes[16..]);
        (NodeId(node), OpHash(hash))
    }))
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
            .field(5, &[1])
            .field(6, &[0])
            .field(7, &self.retention_days.to_be_bytes());
        std::mem::take(&mut *w.finish())
    }

    /// Parses the TLV form; anything from the future is refused.
    pub fn parse(bytes: &[u8]) -> Result<Self, VaultError> {
        let f = Fields::parse(bytes, 1..=7)?;
        let flag = |tag, what| match f.u8(tag)? {
            0 => Ok(false),
            1 => Ok(true),
            _ => Err(VaultError::Version(what)),
        };
        for (tag, only, what) in [
            (1, 1, "version"),
            (2, 2, "chunker"),
            (5, 1, "padding"),
            (6, 0, "enrol policy"),
        ] {
            if f.u8(tag)? != only {
                return Err(VaultError::Version(what));
            }
        }
        Ok(Self {
            zstd: flag(3, "codecs")?,
            dedup_vault: flag(4, "dedup")?,
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
    fn encode(&self) -> Zeroizing<Vec<u8>> {
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
        let machine = Self {
            public_key: f.array(1)?,
            name: f.text(2)?.to_owned(),
            platform: f.text(3)?.to_owned(),
            web,
        };
        machine.check()?;
        Ok(machine)
    }

    fn check(&self) -> Result<(), VaultError> {
        let fits = |text: &str| (1..=MAX_MACHINE_TEXT_LEN).contains(&text.len());
        match fits(&self.name) && fits(&self.platform) {
            true => Ok(()),
            false => Err(VaultError::Machine(
                "its name or platform is empty or too long",
            )),
        }
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

    fn encode(&self) -> Zeroizing<Vec<u8>> {
        let mut w = Writer::default();
        w.field(1, &self.hash)
            .field(2, &self.slot_id)
            .field(3, &[self.slot_type]);
        w.finish()
    }

    fn parse(bytes: &[u8]) -> Result<Self, VaultError> {
        let f = Fields::parse(bytes, 1..=3)?;
        let slot_type = f.u8(3)?;
        if !(1..=2).contains(&slot_type) {
            return Err(VaultError::Op("unknown type of slot"));
        }
        Ok(Self {
            hash: f.array(1)?,
            slot_id: f.array(2)?,
            slot_type,
        })
    }
}

/// An op that is about to be sealed. What it holds in clear is wiped when it is dropped.
pub struct Draft {
    pub(crate) kind: OpKind,
    pub(crate) node: NodeId,
    pub(crate) refs: Vec<ChunkId>,
    /// `u32 len ‖ TLV ‖ zeros`; empty for kinds without a body. Has room for the tag.
    pub(crate) clear: Zeroizing<Vec<u8>>,
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
        if matches!(&put.body, PutBody::File(file) if file.scope == Some(node.into())) {
            return Err(VaultError::Op("a scope that goes without saying"));
        }
        let refs = put.refs();
        if refs.len() > MAX_REFS {
            return Err(VaultError::Commit(FormatError::Limit("chunks of an op")));
        }
        Ok(Self {
            kind: OpKind::Put,
            node,
            refs,
            clear: pad(&put.tlv(), inline)?,
        })
    }

    /// Whether a file's content of `len` bytes and a name this long fit into an op.
    pub fn fits_inline(len: u64, name: &Name) -> bool {
        // The length of the TLV, and of all fields of `Put::encode` but for name and content.
        const OTHER_FIELDS: usize = 4 + 14 * 5 - 2 * 5 + 16 + 1 + 8 + 8 + 1 + 32 + 16 + 1 + 32 + 48;
        len <= MAX_INLINE_LEN as u64
            && len as usize + name.as_str().len() + OTHER_FIELDS <= INLINE_CLEAR_LEN
    }

    /// The op that moves `node` to the trash.
    pub fn trash(node: NodeId) -> Self {
        Self {
            kind: OpKind::Trash,
            node,
            refs: Vec::new(),
            clear: Zeroizing::default(),
        }
    }

    /// The op that lets every version of `node` go.
    pub fn purge(node: NodeId) -> Self {
        Self {
            kind: OpKind::Purge,
            node,
            refs: Vec::new(),
            clear: Zeroizing::default(),
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
        machine.check()?;
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
            clear: Zeroizing::default(),
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

    /// The head it will have in a commit.
    pub fn head(&self) -> OpHead {
        let tag_len = if self.clear.is_empty() { 0 } else { TAG_LEN };
        OpHead {
            kind: self.kind,
            node: self.node,
            n_refs: self.refs.len() as u32,
            ct_len: (self.clear.len() + tag_len) as u32,
        }
    }

    /// The chunks it names, one behind the other.
    pub fn refs_bytes(&self) -> Vec<u8> {
        self.refs.iter().flat_map(|id| id.0).collect()
    }

    /// What will be sealed: `u32 len ‖ TLV ‖ zeros`, or nothing.
    pub fn body(&self) -> &[u8] {
        &self.clear
    }

    /// Bytes it will take in a commit.
    pub fn sealed_len(&self) -> usize {
        OP_HEAD_LEN + 32 * self.refs.len() + self.head().ct_len as usize
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

fn pad(tlv: &[u8], inline: bool) -> Result<Zeroizing<Vec<u8>>, VaultError> {
    let len = 4 + tlv.len();
    let padded = if inline {
        INLINE_CLEAR_LEN
    } else {
        padded_len(len)
    };
    if len > padded {
        return Err(VaultError::Commit(FormatError::Limit("inline content")));
    }
    let mut clear = Zeroizing::new(Vec::with_capacity(padded + TAG_LEN));
    clear.extend_from_slice(&(tlv.len() as u32).to_be_bytes());
    clear.extend_from_slice(tlv);
    clear.resize(padded, 0);
    Ok(clear)
}

/// What surrounds a body and has to fit it.
#[derive(Clone, Copy)]
pub struct Surroundings<'a> {
    /// What the op does.
    pub kind: OpKind,
    /// To which node or machine.
    pub node: NodeId,
    /// The chunks it names in clear, one behind the other.
    pub refs: &'a [u8],
    /// Whether the vault stores equal content once.
    pub dedup_vault: bool,
}

/// Reads the body of an op, `u32 len ‖ TLV ‖ zeros`, in its `surroundings`.
pub fn read_body(surroundings: Surroundings<'_>, clear: &[u8]) -> Result<Opened, VaultError> {
    read_body_as(surroundings, clear, None)
}

/// [`read_body`]; if `name` is given, it takes the place of the one in a PUT.
pub fn read_body_as(
    surroundings: Surroundings<'_>,
    clear: &[u8],
    name: Option<&Name>,
) -> Result<Opened, VaultError> {
    let kind = surroundings.kind;
    read_any_body(surroundings, clear, name).map_err(|error| match error {
        VaultError::Op(what) if kind == OpKind::MachineAdd => VaultError::Machine(what),
        error => error,
    })
}

fn read_any_body(
    surroundings: Surroundings<'_>,
    clear: &[u8],
    name: Option<&Name>,
) -> Result<Opened, VaultError> {
    let Surroundings {
        kind,
        node,
        refs,
        dedup_vault,
    } = surroundings;
    let (len, rest) = clear
        .split_first_chunk::<4>()
        .ok_or(VaultError::Op("an empty body"))?;
    let (tlv, padding) = rest
        .split_at_checked(u32::from_be_bytes(*len) as usize)
        .ok_or(VaultError::Op("a length beyond the body"))?;
    // The padding before the rest: an error about a name says that everything else is in order.
    let inline = kind == OpKind::Put && Fields::parse(tlv, 1..=14)?.get(11).is_some();
    let expected = if inline {
        INLINE_CLEAR_LEN
    } else {
        padded_len(4 + tlv.len())
    };
    if clear.len() != expected || padding.iter().any(|&b| b != 0) {
        return Err(VaultError::Op("padding that tells something"));
    }
    match kind {
        OpKind::Genesis => Genesis::parse(tlv).map(Opened::Genesis),
        OpKind::Put => {
            // A name that nothing can have is told last: everything else has to be as it should.
            let (put, misnamed) = match Put::parse_as(tlv, node, name) {
                Err(VaultError::Name(error)) => {
                    let any = Name::parse("-").map_err(VaultError::Name)?;
                    (Put::parse_as(tlv, node, Some(&any))?, Some(error))
                }
                put => (put?, None),
            };
            let named: Vec<u8> = put.refs().iter().flat_map(|id| id.0).collect();
            if named != refs {
                return Err(VaultError::Op(
                    "it names other chunks than its content needs",
                ));
            }
            if !put.scope_fits(dedup_vault) {
                return Err(VaultError::Op("a scope that its vault does not allow"));
            }
            match misnamed {
                Some(error) => Err(VaultError::Name(error)),
                None => Ok(Opened::Put(node, Box::new(put))),
            }
        }
        OpKind::MachineAdd => match MachineAdd::parse(tlv)? {
            machine if MachineId::of(&machine.public_key).0 == node.0 => {
                Ok(Opened::MachineAdd(machine))
            }
            _ => Err(VaultError::Machine("its key belongs to another machine")),
        },
        OpKind::Keyslot => KeyslotPin::parse(tlv).map(Opened::Keyslot),
        OpKind::Trash | OpKind::Purge | OpKind::MachineRevoke => {
            Err(VaultError::Op("a body where none belongs"))
        }
    }
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
        // And exact: another byte of a longer name would not fit.
        let name = |len| Name::parse(&"n".repeat(len)).unwrap();
        let longest = (0..=1024)
            .rev()
            .find(|&len| Draft::fits_inline(MAX_INLINE_LEN as u64, &name(len)))
            .unwrap();
        let full = |len| {
            let content = Content::Inline(vec![0; MAX_INLINE_LEN]);
            let mut put = file(content, MAX_INLINE_LEN as u64, Some(Scope([4; 16])));
            put.name = name(len);
            Draft::put(NodeId([1; 16]), &put).map(drop)
        };
        assert!(full(longest).is_ok() && full(longest + 1).is_err());
    }

    #[test]
    fn a_scope_that_goes_without_saying_is_not_written() {
        let put = file(Content::Inline(vec![1]), 1, Some(Scope([1; 16])));
        assert!(Draft::put(NodeId([1; 16]), &put).is_err());
        assert!(Draft::put(NodeId([2; 16]), &put).is_ok());
    }

    #[test]
    fn machines_have_names() {
        let machine = |name: &str, platform: &str| {
            Draft::machine_add(&MachineAdd {
                public_key: [7; 32],
                name: name.into(),
                platform: platform.into(),
                web: false,
            })
            .map(drop)
            .map_err(|error| error.code().as_str())
        };
        let long = "x".repeat(256);
        assert_eq!(machine("a", &long[1..]), Ok(()));
        for (name, platform) in [("", "b"), ("a", ""), (&long, "b"), ("a", &long)] {
            assert_eq!(machine(name, platform), Err("E_MACHINE"));
        }
    }

    #[test]
    fn a_forbidden_name_is_told_last() {
        let node = NodeId([1; 16]);
        let put = |size| {
            let mut put = file(Content::Inline(b"abc".to_vec()), size, None);
            put.name = Name::parse("#").unwrap();
            let mut tlv = put.encode();
            let at = tlv.iter().position(|&b| b == b'#').unwrap();
            tlv[at] = b'/';
            tlv
        };
        let error = |tlv: &[u8]| Put::parse(tlv, node).map(drop).unwrap_err();
        assert_eq!(error(&put(3)).code().as_str(), "E_PATH");
        assert_eq!(error(&put(4)).code().as_str(), "E_COMMIT");
        let name = Name::parse("better").unwrap();
        let renamed = Put::parse_as(&put(3), node, Some(&name)).unwrap();
        assert_eq!(renamed.name, name);
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
