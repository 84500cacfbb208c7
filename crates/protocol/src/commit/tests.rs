//! A row for each rule of header, op head and order; each limit just met and just passed.
//!
//! The commits are put together here from `docs/format.md`, with numbers instead of the constants of the code.

use aws_lc_rs::signature::{Ed25519KeyPair, KeyPair};

use super::*;

const AUTHOR: u8 = 7;

fn pair() -> Ed25519KeyPair {
    Ed25519KeyPair::from_seed_unchecked(&[AUTHOR; 32]).unwrap()
}

fn public_key() -> [u8; 32] {
    pair().public_key().as_ref().try_into().unwrap()
}

fn author() -> NodeId {
    NodeId(MachineId::of(&public_key()).0)
}

/// Commit `n` of a vault, whose ops are filled in by [`Draft::bytes`].
fn header(n: u64) -> Header {
    let vault = VaultId([0x11; 16]);
    Header {
        vault,
        n,
        prev: match n {
            1 => CommitHash::genesis(vault),
            _ => CommitHash([0x22; 32]),
        },
        epoch: 1,
        n_ops: 0,
        time_ms: 0x0102_0304_0506_0708,
        salt: [0x33; 32],
        public_key: public_key(),
        ops_root: [0; 32],
    }
}

/// An op of `kind` with as much of everything as it needs.
fn op(kind: OpKind, node: NodeId) -> Made {
    let ct = match kind {
        OpKind::Trash | OpKind::Purge | OpKind::MachineRevoke => vec![],
        OpKind::Genesis | OpKind::Put | OpKind::MachineAdd | OpKind::Keyslot => vec![9; 272],
    };
    Made {
        head: OpHead {
            kind,
            node,
            n_refs: 0,
            ct_len: u32::try_from(ct.len()).unwrap(),
        },
        refs: vec![],
        ct,
    }
}

/// A file with two chunks.
fn file(node: u8) -> Made {
    let mut made = op(OpKind::Put, NodeId([node; 16]));
    made.head.n_refs = 2;
    made.refs = [[4; 32], [5; 32]].concat();
    made
}

#[derive(Clone)]
struct Made {
    head: OpHead,
    refs: Vec<u8>,
    ct: Vec<u8>,
}

impl Made {
    fn posted(&self) -> Vec<u8> {
        [&self.head.encode()[..], &self.refs, &self.ct].concat()
    }

    fn dropped(&self) -> Vec<u8> {
        let hashes = [sha256(&[&self.refs]), sha256(&[&self.ct])].concat();
        [&self.head.encode()[..], &hashes].concat()
    }

    fn hash(&self) -> [u8; 32] {
        let (refs, ct) = (sha256(&[&self.refs]), sha256(&[&self.ct]));
        sha256(&[&[&[2][..], &self.head.encode(), &refs, &ct].concat()])
    }
}

/// A commit before it is signed.
struct Draft {
    header: Header,
    ops: Vec<Made>,
}

impl Draft {
    fn new(n: u64, ops: Vec<Made>) -> Self {
        let mut header = header(n);
        header.n_ops = u32::try_from(ops.len()).unwrap();
        let hashes: Vec<_> = ops.iter().map(Made::hash).collect();
        header.ops_root = sha256(&[&hashes.concat()]);
        Self { header, ops }
    }

    fn signed(&self, form: impl Fn(&Made) -> Vec<u8>) -> Vec<u8> {
        let header = self.header.encode();
        let message = [&b"SyncAgent/v1/commit\0"[..], &header].concat();
        let ops: Vec<u8> = self.ops.iter().flat_map(form).collect();
        [&header[..], &ops, pair().sign(&message).as_ref()].concat()
    }

    fn posted(&self) -> Vec<u8> {
        self.signed(Made::posted)
    }

    fn served(&self) -> Vec<u8> {
        self.signed(|op| [vec![0], op.posted()].concat())
    }

    fn refusal(&self) -> Option<FormatError> {
        refusal(&self.posted())
    }
}

fn refusal(posted: &[u8]) -> Option<FormatError> {
    Commit::parse(posted).err()
}

fn first() -> Draft {
    let ops = vec![
        op(OpKind::Genesis, NodeId::ROOT),
        op(OpKind::MachineAdd, author()),
    ];
    Draft::new(1, ops)
}

fn second() -> Draft {
    let ops = vec![file(1), op(OpKind::Trash, NodeId([2; 16]))];
    Draft::new(2, ops)
}

#[test]
fn a_commit_is_read_as_it_was_made() {
    for draft in [first(), second()] {
        let (posted, served) = (draft.posted(), draft.served());
        let read = Commit::parse(&posted).unwrap();
        assert_eq!(read.verify(), Ok(()));
        assert_eq!(read.header, draft.header);
        assert_eq!(read.header.machine().0, author().0);
        assert_eq!(read.to_posted().as_ref(), Some(&posted));
        assert_eq!(read.to_served(), served);
        let (head, tail) = (&posted[..192], &posted[posted.len() - 64..]);
        assert_eq!(read.hash().0, sha256(&[&[0], head, tail]));
        let again = Commit::parse_served(&served).unwrap();
        assert_eq!((again.verify(), again.hash()), (Ok(()), read.hash()));
        assert_eq!(again.to_posted().as_ref(), Some(&posted));
        for (read, made) in read.ops.iter().zip(&draft.ops) {
            assert_eq!((read.head, read.hash().0), (made.head, made.hash()));
            let refs: Vec<u8> = read.refs().flat_map(|id| id.0).collect();
            assert_eq!(refs, made.refs);
        }
    }
}

#[test]
fn what_retention_dropped_keeps_its_place_under_the_signature() {
    let draft = second();
    let served = draft.signed(|op| [vec![1], op.dropped()].concat());
    let read = Commit::parse_served(&served).unwrap();
    assert_eq!(read.verify(), Ok(()));
    assert_eq!(read.hash(), Commit::parse(&draft.posted()).unwrap().hash());
    assert!(read.ops.iter().all(|op| op.refs().len() == 0));
    assert_eq!(read.to_posted(), None);
    assert_eq!(read.to_served(), served);

    let kept = Draft::new(2, vec![op(OpKind::Purge, NodeId([1; 16]))]);
    for draft in [first(), kept] {
        let served = draft.signed(|op| [vec![1], op.dropped()].concat());
        assert_eq!(
            Commit::parse_served(&served).err(),
            Some(FormatError::Rule(
                "the body of an op that is kept for ever is missing"
            ))
        );
    }
    let served = draft.signed(|op| [vec![2], op.posted()].concat());
    assert_eq!(
        Commit::parse_served(&served).err(),
        Some(FormatError::Rule(
            "an op is neither served whole nor dropped"
        ))
    );
}

#[test]
fn each_field_of_the_header_has_its_place() {
    let header = second().header;
    let bytes = header.encode();
    let fields: [(usize, &[u8]); 11] = [
        (0, b"SACM"),
        (4, &[1, 1, 0, 0]),
        (8, &[0x11; 16]),
        (24, &author().0),
        (40, &2u64.to_be_bytes()),
        (48, &[0x22; 32]),
        (80, &1u32.to_be_bytes()),
        (84, &2u32.to_be_bytes()),
        (88, &[1, 2, 3, 4, 5, 6, 7, 8]),
        (96, &[0x33; 32]),
        (128, &public_key()),
    ];
    for (at, field) in fields {
        assert_eq!(&bytes[at..at + field.len()], field, "byte {at}");
    }
    assert_eq!(bytes[160..], header.ops_root);
    assert_eq!(bytes.len(), 192);
}

#[test]
fn a_header_that_no_program_makes_is_refused() {
    let key_of_small_order = |bytes: &mut [u8]| {
        bytes[128..160].fill(0);
        let machine = MachineId::of(&[0; 32]);
        bytes[24..40].copy_from_slice(&machine.0);
    };
    let beyond = i64::MAX as u64 + 1;
    type Row<'a> = (&'a dyn Fn(&mut [u8]), FormatError);
    let rows: [Row<'_>; 13] = [
        (&|b| b[0] ^= 1, FormatError::Magic),
        (&|b| b[4] = 2, FormatError::Version("commit version")),
        (&|b| b[5] = 2, FormatError::Version("algorithm")),
        (&|b| b[6] = 1, FormatError::Reserved("commit header")),
        (&|b| b[7] = 1, FormatError::Reserved("commit header")),
        (
            &|b| b[24] ^= 1,
            FormatError::Rule("its machine id is not that of its key"),
        ),
        (
            &|b| b[128] ^= 1,
            FormatError::Rule("its machine id is not that of its key"),
        ),
        (
            &key_of_small_order,
            FormatError::Rule("its machine id is not that of its key"),
        ),
        (
            &|b| b[40..48].fill(0),
            FormatError::Rule("its position is out of range"),
        ),
        (
            &|b| b[40..48].copy_from_slice(&beyond.to_be_bytes()),
            FormatError::Rule("its position is out of range"),
        ),
        (&|b| b[83] = 0, FormatError::Version("epoch")),
        (&|b| b[83] = 2, FormatError::Version("epoch")),
        (&|b| b[87] = 0, FormatError::Limit("number of ops")),
    ];
    for (nr, (change, error)) in rows.into_iter().enumerate() {
        let mut bytes = second().posted();
        change(&mut bytes);
        assert_eq!(refusal(&bytes), Some(error), "row {nr}");
    }
    assert_eq!(Draft::new(i64::MAX as u64, second().ops).refusal(), None);
}

#[test]
fn a_commit_holds_at_most_1024_ops() {
    let trash = |nr: u32| {
        let mut node = NodeId([1; 16]);
        node.0[..4].copy_from_slice(&nr.to_be_bytes());
        op(OpKind::Trash, node)
    };
    let most = Draft::new(2, (0..1024).map(trash).collect());
    assert_eq!(most.refusal(), None);
    let over = Draft::new(2, (0..1025).map(trash).collect());
    assert_eq!(over.refusal(), Some(FormatError::Limit("number of ops")));
}

#[test]
fn a_commit_is_measured_before_it_is_read() {
    let limit = Some(FormatError::Limit("size of a commit"));
    let posted = vec![0; 16_777_217];
    assert_eq!(refusal(&posted), limit);
    assert_eq!(refusal(&posted[1..]), Some(FormatError::Magic));
    // A byte more for each of 1,024 ops, and two hashes in the place of a body that was empty.
    let served = vec![0; 16_777_216 + 1024 * 65 + 1];
    assert_eq!(Commit::parse_served(&served).err(), limit);
    assert_eq!(
        Commit::parse_served(&served[1..]).err(),
        Some(FormatError::Magic)
    );
}

#[test]
fn bytes_too_few_or_too_many_are_refused() {
    let posted = second().posted();
    for len in 0..posted.len() {
        assert!(refusal(&posted[..len]).is_some(), "{len} bytes");
    }
    let (start, signature) = posted.split_at(posted.len() - 64);
    let longer = [start, &[0], signature].concat();
    assert_eq!(refusal(&longer), Some(FormatError::Trailing));
}

#[test]
fn a_signature_of_another_message_is_refused() {
    for at in [192 - 1, 100] {
        let mut bytes = second().posted();
        bytes[at] ^= 1;
        // The salt is signed and nothing else depends on it; the root depends on the ops.
        let read = Commit::parse(&bytes).map(|commit| commit.verify());
        let expected = match at {
            100 => Ok(Err(FormatError::Signature)),
            _ => Err(FormatError::Rule("its ops are not those its author signed")),
        };
        assert_eq!(read, expected);
    }
    let message = Header::signed_message(&[6; 192]);
    assert_eq!(message, [&b"SyncAgent/v1/commit\0"[..], &[6; 192]].concat());
}

#[test]
fn ops_stand_in_order_and_decide_each_node_once() {
    let node = |nr: u8| NodeId([nr; 16]);
    let order = || Some(FormatError::Rule("its ops are out of order or repeated"));
    let twice = || Some(FormatError::Rule("two ops decide the same node"));
    let other = || {
        Some(FormatError::Machine(
            "it enrols another machine than its author",
        ))
    };
    let comes_and_goes = || Some(FormatError::Machine("it enrols and removes one machine"));
    let (add, revoke) = (OpKind::MachineAdd, OpKind::MachineRevoke);
    let rows = [
        (
            vec![op(OpKind::Put, node(2)), op(OpKind::Put, node(3))],
            None,
        ),
        (
            vec![op(OpKind::Put, node(3)), op(OpKind::Put, node(2))],
            order(),
        ),
        (
            vec![op(OpKind::Put, node(2)), op(OpKind::Put, node(2))],
            order(),
        ),
        (
            vec![op(OpKind::Trash, node(2)), op(OpKind::Put, node(2))],
            order(),
        ),
        (
            vec![op(OpKind::Put, node(2)), op(OpKind::Trash, node(2))],
            twice(),
        ),
        (
            vec![op(OpKind::Put, node(2)), op(OpKind::Purge, node(2))],
            twice(),
        ),
        (
            vec![op(OpKind::Trash, node(2)), op(OpKind::Purge, node(2))],
            twice(),
        ),
        // A machine's id and a node's have nothing to do with each other.
        (vec![op(OpKind::Put, author()), op(add, author())], None),
        (vec![op(OpKind::Put, node(2)), op(revoke, node(2))], None),
        (
            vec![op(add, author()), op(revoke, author())],
            comes_and_goes(),
        ),
        (vec![op(add, node(2))], other()),
        (vec![op(add, author())], None),
        (vec![op(revoke, author())], None),
        (vec![op(revoke, node(2)), op(revoke, node(3))], None),
    ];
    for (nr, (ops, expected)) in rows.into_iter().enumerate() {
        assert_eq!(Draft::new(2, ops).refusal(), expected, "row {nr}");
    }
    let enrolled_and_another_removed = {
        let mut ops = vec![op(add, author()), op(revoke, node(2))];
        ops.sort_by_key(|op| op.head.node);
        Draft::new(2, ops)
    };
    assert_eq!(enrolled_and_another_removed.refusal(), None);
}

#[test]
fn only_the_first_commit_opens_the_vault() {
    let opens = || {
        Some(FormatError::Rule(
            "the first commit, and only it, opens the vault",
        ))
    };
    let genesis = || op(OpKind::Genesis, NodeId::ROOT);
    let add = || op(OpKind::MachineAdd, author());
    assert_eq!(first().refusal(), None);
    assert_eq!(Draft::new(2, vec![genesis(), add()]).refusal(), opens());
    assert_eq!(Draft::new(1, vec![genesis()]).refusal(), opens());
    assert_eq!(Draft::new(1, vec![add()]).refusal(), opens());
    assert_eq!(Draft::new(1, vec![genesis(), file(1)]).refusal(), opens());
    assert_eq!(
        Draft::new(1, vec![op(OpKind::Keyslot, NodeId::ROOT), add()]).refusal(),
        opens()
    );
    let mut third = vec![genesis(), file(1), add()];
    third.sort_by_key(|op| op.head.node);
    assert_eq!(Draft::new(1, third).refusal(), opens());

    let mut elsewhere = first();
    elsewhere.header.prev.0[0] ^= 1;
    let fork = FormatError::Fork("the first commit does not stand on the vault's beginning");
    assert_eq!(elsewhere.refusal(), Some(fork));
}

#[test]
fn an_op_has_the_size_that_its_kind_allows() {
    let node = NodeId([1; 16]);
    let size = Some(FormatError::Limit("size of an op"));
    let length = Some(FormatError::Rule(
        "an op has a length that its kind never has",
    ));
    let chunks = Some(FormatError::Rule(
        "an op that holds no content names chunks",
    ));
    let vault = Some(FormatError::Rule("an op about the vault names a node"));
    let root = Some(FormatError::Rule("the root is never written"));
    // Kind, node, chunks named, bytes of ciphertext.
    let rows = [
        (OpKind::Put, node, 0, 272, None),
        (OpKind::Put, node, 128, 272, None),
        (OpKind::Put, node, 129, 272, size.clone()),
        (OpKind::Put, node, u32::MAX, u32::MAX, size.clone()),
        // The largest body beside 128 references and a head is 59 KiB; without references it is 63 KiB.
        (OpKind::Put, node, 128, 59 * 1024 + 16, None),
        (OpKind::Put, node, 128, 60 * 1024 + 16, size.clone()),
        (OpKind::Put, node, 0, 63 * 1024 + 16, None),
        (OpKind::Put, node, 0, 64 * 1024 + 16, size.clone()),
        // 64 KiB are within the limit, a byte more is not; neither is padded.
        (OpKind::Put, node, 0, 65_536 - 32, length.clone()),
        (OpKind::Put, node, 0, 65_536 - 31, size),
        (OpKind::Put, node, 0, 271, length.clone()),
        (OpKind::Put, node, 0, 16, length.clone()),
        (OpKind::Put, node, 0, 15, length.clone()),
        (OpKind::Put, node, 0, 0, length.clone()),
        (OpKind::Put, NodeId::ROOT, 0, 272, root.clone()),
        (OpKind::Trash, node, 0, 0, None),
        (OpKind::Trash, node, 0, 272, length.clone()),
        (OpKind::Trash, node, 1, 0, chunks.clone()),
        (OpKind::Trash, NodeId::ROOT, 0, 0, root.clone()),
        (OpKind::Purge, node, 0, 0, None),
        (OpKind::Purge, node, 0, 272, length.clone()),
        (OpKind::Purge, NodeId::ROOT, 0, 0, root),
        (OpKind::MachineAdd, node, 0, 272, None),
        (OpKind::MachineAdd, node, 1, 272, chunks.clone()),
        (OpKind::MachineAdd, node, 0, 0, length.clone()),
        (OpKind::MachineRevoke, node, 0, 0, None),
        (OpKind::MachineRevoke, node, 0, 272, length.clone()),
        (OpKind::Genesis, NodeId::ROOT, 0, 272, None),
        (OpKind::Genesis, NodeId::ROOT, 0, 0, length.clone()),
        (OpKind::Genesis, node, 0, 272, vault.clone()),
        (OpKind::Keyslot, NodeId::ROOT, 0, 272, None),
        (OpKind::Keyslot, NodeId::ROOT, 1, 272, chunks),
        (OpKind::Keyslot, NodeId::ROOT, 0, 0, length),
        (OpKind::Keyslot, node, 0, 272, vault),
    ];
    for (nr, (kind, node, n_refs, ct_len, expected)) in rows.into_iter().enumerate() {
        let head = OpHead {
            kind,
            node,
            n_refs,
            ct_len,
        };
        assert_eq!(OpHead::parse(&head.encode()).err(), expected, "row {nr}");
    }
}

#[test]
fn each_field_of_an_op_head_has_its_place() {
    let head = OpHead {
        kind: OpKind::Put,
        node: NodeId([7; 16]),
        n_refs: 3,
        ct_len: 0x1010,
    };
    let node = [7; 16];
    let bytes = [
        &[1, 0, 0, 0][..],
        &node,
        &[0, 0, 0, 3],
        &[0, 0, 0x10, 0x10],
        &[0; 4],
    ]
    .concat();
    assert_eq!(head.encode()[..], bytes);
    assert_eq!(OpHead::parse(&head.encode()), Ok(head));
}

#[test]
fn padding_lengths() {
    for (len, want) in [
        (1, 256),
        (256, 256),
        (257, 512),
        (1024, 1024),
        (1025, 2048),
        (3000, 3072),
        (3073, 4096),
    ] {
        assert_eq!(padded_len(len), want);
        assert!(is_padded_len(want));
    }
    assert!(!is_padded_len(0) && !is_padded_len(1280) && !is_padded_len(255));
}

#[test]
fn flags_are_zero_and_not_a_version() {
    for at in [1, 2, 3, 28, 31] {
        let mut bytes = op(OpKind::Trash, NodeId([1; 16])).head.encode();
        bytes[at] = 1;
        let refused = OpHead::parse(&bytes).map_err(|e| e.code());
        assert_eq!(refused, Err(Code::Commit), "byte {at}");
    }
}

#[test]
fn reserved_kinds_come_from_the_future() {
    for kind in [6, 8, 9, 10, 255] {
        let mut bytes = op(OpKind::Trash, NodeId([1; 16])).head.encode();
        bytes[0] = kind;
        let refused = OpHead::parse(&bytes).map_err(|e| e.code());
        assert_eq!(refused, Err(Code::Version), "kind {kind}");
    }
}

#[test]
fn each_refusal_has_its_code() {
    for (error, code) in [
        (FormatError::Version("epoch"), Code::Version),
        (FormatError::Limit("number of ops"), Code::Limit),
        (
            FormatError::Machine("it enrols another machine"),
            Code::Machine,
        ),
        (FormatError::Fork("it stands elsewhere"), Code::Fork),
        (FormatError::Truncated, Code::Commit),
        (FormatError::Trailing, Code::Commit),
        (FormatError::Magic, Code::Commit),
        (FormatError::Reserved("op head"), Code::Commit),
        (FormatError::Rule("its ops are out of order"), Code::Commit),
        (FormatError::Signature, Code::Commit),
    ] {
        assert_eq!(error.code(), code, "{error}");
    }
}

#[test]
fn the_inline_content_of_an_op_is_padded_to_3072_bytes() {
    assert_eq!(INLINE_CLEAR_LEN, 3072);
    assert!(is_padded_len(INLINE_CLEAR_LEN));
}
