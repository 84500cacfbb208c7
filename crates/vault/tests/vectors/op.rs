use syncagent_protocol::commit::{INLINE_CLEAR_LEN, Op, OpBody, OpHead, OpKind, padded_len};
use syncagent_protocol::{Code, ContentHash, MachineId, Name, NodeId, OpHash};
use syncagent_vault::VaultError;
use syncagent_vault::chunk::Scope;
use syncagent_vault::chunker::Class;
use syncagent_vault::manifest::Manifest;
use syncagent_vault::op::{
    Content, Draft, File, Genesis, KeyslotPin, MachineAdd, Opened, Put, PutBody, Surroundings,
    read_body, read_body_as,
};

use crate::harness::{Fields, Refusal, hex, unhex};

pub(crate) fn code(rule: &str) -> Option<Code> {
    Some(match rule {
        "genesis_min_version" => Code::Version,
        rule if rule.starts_with("genesis_unknown_") => Code::Version,
        "unknown_machine_kind" | "name_length" | "name_not_utf8" | "public_key_length" => {
            Code::Machine
        }
        _ => Code::Commit,
    })
}

pub(crate) fn dedup(c: &Fields<'_>) -> bool {
    match c.number("dedup") {
        0 => false,
        1 => true,
        other => panic!("there is no dedup {other}"),
    }
}

fn kind(c: &Fields<'_>) -> OpKind {
    OpKind::from_u8(c.byte("kind")).unwrap()
}

pub(crate) fn refs(c: &Fields<'_>) -> Vec<u8> {
    c.texts("refs").into_iter().flat_map(unhex).collect()
}

/// The op that makes what `opened` says.
fn draft(opened: &Opened) -> Draft {
    match opened {
        Opened::Genesis(genesis) => Draft::genesis(genesis).unwrap(),
        Opened::Put(node, put) => Draft::put(*node, put).unwrap(),
        Opened::Trash(node) => Draft::trash(*node),
        Opened::Purge(node) => Draft::purge(*node),
        Opened::MachineAdd(machine) => Draft::machine_add(machine).unwrap(),
        Opened::MachineRevoke(machine) => Draft::machine_revoke(*machine),
        Opened::Keyslot(pin) => Draft::keyslot(pin).unwrap(),
        Opened::Dropped(..) => panic!("nothing was dropped"),
    }
}

/// The op with this TLV.
pub(crate) fn draft_of_tlv(kind: OpKind, node: NodeId, dedup_vault: bool, refs: &[u8], tlv: &[u8]) -> Draft {
    let surroundings = Surroundings {
        kind,
        node,
        refs,
        dedup_vault,
    };
    let mut body = (tlv.len() as u32).to_be_bytes().to_vec();
    body.extend_from_slice(tlv);
    let padded = padded_len(body.len());
    body.resize(padded, 0);
    let opened = match kind.has_body() {
        false => bodyless(kind, node),
        true => read_body(surroundings, &body).unwrap_or_else(|_| {
            body.resize(INLINE_CLEAR_LEN, 0);
            read_body(surroundings, &body).ok().unwrap()
        }),
    };
    draft(&opened)
}

fn bodyless(kind: OpKind, node: NodeId) -> Opened {
    match kind {
        OpKind::Trash => Opened::Trash(node),
        OpKind::Purge => Opened::Purge(node),
        OpKind::MachineRevoke => Opened::MachineRevoke(MachineId(node.0)),
        other => panic!("{other:?} has a body"),
    }
}

/// What the fields of a case say, but for a name that nothing can have.
fn stated(kind: OpKind, node: NodeId, f: &Fields<'_>) -> Opened {
    match kind {
        OpKind::Genesis => {
            assert_eq!((f.number("min_version"), f.number("cdc")), (1, 2));
            assert_eq!((f.number("padding"), f.number("enrol_policy")), (1, 0));
            Opened::Genesis(Genesis {
                zstd: f.number("codecs") == 1,
                dedup_vault: f.number("dedup") == 1,
                retention_days: f.number("retention_hint_days") as u32,
            })
        }
        OpKind::Put => Opened::Put(node, Box::new(put(f))),
        OpKind::MachineAdd => Opened::MachineAdd(MachineAdd {
            public_key: f.array("public_key"),
            name: String::from_utf8(f.bytes("name")).unwrap(),
            platform: String::from_utf8(f.bytes("platform")).unwrap(),
            web: f.number("kind") == 2,
        }),
        OpKind::Keyslot => Opened::Keyslot(KeyslotPin {
            hash: f.array("slot_hash"),
            slot_id: f.array("slot_id"),
            slot_type: f.byte("type"),
        }),
        kind => bodyless(kind, node),
    }
}

fn put(f: &Fields<'_>) -> Put {
    let body = match f.number("kind") {
        1 => PutBody::File(File {
            size: f.number("size"),
            exec: f.number("mode") == 1,
            hash: ContentHash(f.array("content_hash")),
            scope: f.has("scope").then(|| Scope(f.array("scope"))),
            class: Class::from_number(f.byte("class")).unwrap(),
            content: match f.has("inline") {
                true => Content::Inline(f.bytes("inline")),
                false => Content::Chunks(Manifest::parse(&f.bytes("manifest")).ok().unwrap()),
            },
        }),
        2 => {
            assert_eq!(f.number("mode"), 0);
            PutBody::Directory
        }
        _ => PutBody::Symlink {
            target: String::from_utf8(f.bytes("symlink_target")).unwrap(),
        },
    };
    let conflict_of = f.has("conflict_of").then(|| {
        let bytes: [u8; 48] = f.array("conflict_of");
        (
            NodeId(bytes[..16].try_into().unwrap()),
            OpHash(bytes[16..].try_into().unwrap()),
        )
    });
    Put {
        parent: NodeId(f.array("parent")),
        name: Name::from_bytes(&f.bytes("name")).unwrap_or_else(|_| substitute()),
        mtime_ns: f.text("mtime_ns").parse().unwrap(),
        body,
        based_on: f.has("based_on").then(|| OpHash(f.array("based_on"))),
        conflict_of,
    }
}

/// Stands for a name that cannot be.
fn substitute() -> Name {
    Name::parse("substitute").unwrap()
}

/// Compares through the TLV, which has every field once and one encoding for each.
fn assert_same(a: &Opened, b: &Opened) {
    let (a, b) = (draft(a), draft(b));
    assert_eq!(a.head(), b.head());
    assert_eq!(a.refs_bytes(), b.refs_bytes());
    assert_eq!(hex(a.body()), hex(b.body()));
}

pub(crate) fn case(c: &Fields<'_>) {
    let (kind, node, refs) = (kind(c), NodeId(c.array("node_id")), refs(c));
    let stated = stated(kind, node, &c.object("fields"));
    let (tlv, body) = (c.bytes("tlv"), c.bytes("body"));
    if kind.has_body() {
        assert_eq!(body[..4], (tlv.len() as u32).to_be_bytes());
        assert_eq!(body[4..][..tlv.len()], tlv);
        assert!(body[4 + tlv.len()..].iter().all(|&b| b == 0));
    } else {
        assert!(tlv.is_empty() && body.is_empty());
    }
    let head: [u8; 32] = c.array("head");
    let parsed = OpHead::parse(&head).unwrap();
    assert_eq!((parsed.kind, parsed.node, parsed.encode()), (kind, node, head));
    let op = Op {
        head: parsed,
        head_bytes: &head,
        body: OpBody::Whole {
            refs: &[],
            ct: &[],
        },
    };
    if c.has("op_hash") {
        assert_eq!(op.hash().0, c.array("op_hash"));
    }

    let surroundings = Surroundings {
        kind,
        node,
        refs: &refs,
        dedup_vault: dedup(c),
    };
    // `encode` says what a writer makes; ours makes no name that nothing can have.
    let mut writes = c.flag("encode");
    if kind.has_body() {
        let read = match read_body(surroundings, &body) {
            Err(error @ VaultError::Name(_)) => {
                assert_eq!(c.name(), "file_invalid_name_is_readable_and_not_placed");
                assert_eq!(error.code(), Code::Path);
                writes = false;
                read_body_as(surroundings, &body, Some(&substitute()))
            }
            read => read,
        };
        assert_same(&read.unwrap_or_else(|error| panic!("{error}")), &stated);
    }
    if writes {
        let draft = draft(&stated);
        assert_eq!(draft.target(), (kind, node));
        assert_eq!(draft.head().encode(), head);
        assert_eq!(draft.refs_bytes(), refs);
        assert_eq!(hex(draft.body()), hex(&body));
        let sealed = 32 + refs.len() + parsed.ct_len as usize;
        assert_eq!(draft.sealed_len(), sealed);
    }
}

pub(crate) fn refuse(parsed_as: &str, c: &Fields<'_>) -> Refusal {
    assert_eq!(parsed_as, "op_body");
    let surroundings = Surroundings {
        kind: kind(c),
        node: NodeId(c.array("node_id")),
        refs: &refs(c),
        dedup_vault: dedup(c),
    };
    read_body(surroundings, &c.bytes("bytes"))
        .map(drop)
        .map_err(|error| Some(error.code()))
}
