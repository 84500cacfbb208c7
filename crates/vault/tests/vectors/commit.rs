use syncagent_protocol::commit::{Commit, OpBody, OpKind};
use syncagent_protocol::{Code, CommitHash, NodeId};
use syncagent_vault::VaultError;
use syncagent_vault::commit::{Opener, Position, seal};
use syncagent_vault::machine::MachineKey;
use syncagent_vault::op::{Draft, Opened};
use syncagent_vault::secret::Secret;

use crate::harness::{Drawn, Fields, Refusal, hex, sha256, unhex};
use crate::op::{dedup, draft_of_tlv, refs};

pub(crate) fn code(rule: &str) -> Option<Code> {
    Some(match rule {
        "unknown_version" | "unknown_alg" | "unknown_op_kind" | "wrong_epoch" => Code::Version,
        "n_ops_out_of_range" | "op_too_many_refs" | "op_too_large" => Code::Limit,
        "machine_add_not_of_the_author"
        | "machine_added_and_revoked"
        | "machine_add_of_another_key" => Code::Machine,
        "first_commit_not_on_hash_0" => Code::Fork,
        _ => Code::Commit,
    })
}

pub(crate) fn case(c: &Fields<'_>) {
    let keys = c.keys();
    let machine = MachineKey::from_seed(Secret::copy_from(&c.array("machine_seed"))).unwrap();
    assert_eq!(machine.id().0, c.array("machine_id"));
    let position = Position {
        n: c.number("n"),
        prev: CommitHash(c.array("prev")),
        time_ms: c.number("time_ms"),
    };
    let ops = c.objects("ops");
    let mut drafts: Vec<Draft> = ops
        .iter()
        .map(|op| {
            let kind = OpKind::from_u8(op.byte("kind")).unwrap();
            let node = NodeId(op.array("node_id"));
            draft_of_tlv(kind, node, dedup(c), &refs(op), &op.bytes("tlv"))
        })
        .collect();
    // The writer brings them into order.
    drafts.reverse();
    let sealed = seal(&keys, &machine, position, drafts, &Drawn(c.array("random"))).unwrap();

    assert_eq!(hex(&sealed.bytes[96..128]), c.text("salt"));
    assert_eq!(hex(&sealed.bytes[160..192]), c.text("ops_root"));
    assert_eq!(hex(&sealed.bytes[..192]), c.text("header"));
    let signature = &sealed.bytes[sealed.bytes.len() - 64..];
    assert_eq!(hex(signature), c.text("signature"));
    assert_eq!(hex(&sealed.bytes), c.text("commit"));
    assert_eq!(sealed.hash.0, c.array("hash"));
    // It sealed the ciphertexts that are compared.
    c.implied_by_the_rest("commit_key");

    let commit = Commit::parse(&sealed.bytes).unwrap();
    commit.verify().unwrap();
    assert_eq!(commit.hash(), sealed.hash);
    let opener = Opener::new(&keys, &commit).unwrap().with_dedup(dedup(c));
    assert_eq!(commit.ops.len(), ops.len());
    assert_eq!(sealed.ops.len(), ops.len());
    for (index, fields) in ops.iter().enumerate() {
        let op = commit.ops[index];
        assert_eq!(fields.number("index"), index as u64);
        // Nothing is sealed where there is no body.
        let nonce = match op.head.kind.has_body() {
            true => [&[0; 8][..], &(index as u32).to_be_bytes()].concat(),
            false => Vec::new(),
        };
        assert_eq!(hex(&nonce), fields.text("nonce"));
        assert_eq!(hex(op.head_bytes), fields.text("head"));
        let OpBody::Whole { ct, .. } = op.body else {
            panic!("nothing was dropped");
        };
        assert_eq!(hex(ct), fields.text("ct"));
        assert_eq!(op.hash().0, fields.array("op_hash"));
        assert_eq!(commit.op_hashes[index], op.hash());
        assert_eq!(sealed.ops[index], (op.head.node, op.hash()));
        // What the TLV says was compared with vectors/v1/op.json; sealing it again gives the same TLV.
        match opener.open(index).unwrap_or_else(|error| panic!("{error}")) {
            Opened::Put(node, put) => {
                assert_eq!(node, op.head.node);
                assert_eq!(hex(&put.encode()), fields.text("tlv"));
            }
            Opened::Genesis(genesis) => assert_eq!(hex(&genesis.encode()), fields.text("tlv")),
            Opened::Trash(node) | Opened::Purge(node) => assert_eq!(node, op.head.node),
            Opened::MachineAdd(add) => assert_eq!(&add.public_key, machine.public()),
            Opened::MachineRevoke(id) => assert_eq!(id.0, op.head.node.0),
            Opened::Keyslot(_) => assert_eq!(op.head.node, NodeId::ROOT),
            Opened::Dropped(..) => panic!("nothing was dropped"),
        }
    }

    let served = c.objects("served");
    assert!(!served.is_empty());
    for served in served {
        let mut commit = Commit::parse(&sealed.bytes).unwrap();
        let dropped = served.numbers("dropped");
        let hashes: Vec<([u8; 32], [u8; 32])> = commit
            .ops
            .iter()
            .map(|op| match op.body {
                OpBody::Whole { refs, ct } => (sha256(refs), sha256(ct)),
                OpBody::Dropped { .. } => panic!("nothing was dropped"),
            })
            .collect();
        for &index in &dropped {
            let (refs_hash, ct_hash) = &hashes[index as usize];
            commit.ops[index as usize].body = OpBody::Dropped { refs_hash, ct_hash };
        }
        assert_eq!(hex(&commit.to_served()), served.text("bytes"));
        let bytes = unhex(served.text("bytes"));
        let read = Commit::parse_served(&bytes).unwrap();
        read.verify().unwrap();
        assert_eq!((read.hash(), read.to_served()), (sealed.hash, bytes.clone()));
        assert_eq!(read.op_hashes, commit.op_hashes);
        let opener = Opener::new(&keys, &read).unwrap().with_dedup(dedup(c));
        for index in 0..read.ops.len() {
            let opened = opener.open(index).unwrap_or_else(|error| panic!("{error}"));
            assert_eq!(
                matches!(opened, Opened::Dropped(..)),
                dropped.contains(&(index as u64))
            );
        }
    }
}

pub(crate) fn refuse(parsed_as: &str, c: &Fields<'_>) -> Refusal {
    let bytes = c.bytes("bytes");
    let refused = |error: VaultError| Some(error.code());
    match parsed_as {
        "commit" | "commit_served" => {
            let parsed = match parsed_as {
                "commit" => Commit::parse(&bytes),
                _ => Commit::parse_served(&bytes),
            };
            parsed
                .and_then(|commit| commit.verify())
                .map_err(|error| Some(error.code()))
        }
        "commit_open" => {
            // Well-formed and signed: a server takes it.
            let commit = Commit::parse(&bytes).unwrap();
            commit.verify().unwrap();
            let keys = c.keys();
            let opener = Opener::new(&keys, &commit).map_err(refused)?.with_dedup(dedup(c));
            (0..commit.ops.len())
                .try_for_each(|index| opener.open(index).map(drop))
                .map_err(refused)
        }
        other => panic!("nobody reads {other}"),
    }
}
