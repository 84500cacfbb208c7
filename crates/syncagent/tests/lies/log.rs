//! Lies about the log, told to a machine that sees it for the first time.

use syncagent_protocol::commit::{Commit, HEADER_LEN, Header, SIGNATURE_LEN};
use syncagent_protocol::{CommitHash, Name, NodeId};
use syncagent_vault::commit::{Position, seal};
use syncagent_vault::keys::VaultKey;
use syncagent_vault::machine::MachineKey;
use syncagent_vault::op::{Draft, Genesis, MachineAdd, Put, PutBody};
use syncagent_vault::random::{OsRandom, Random as _};
use syncagent_vault::secret::Secret;

use crate::court::{Court, hash_of, shows};
use crate::field::Field;
use crate::field::liar::{Answer, Said, framed};

type Log = Vec<Vec<u8>>;

/// Five commits: the vault, B's enrolment, and what A did: two directories and files, an edit, another edit.
fn court(field: &Field) -> Court<'_> {
    let court = Court::new(field, Genesis::default());
    court.put(&[("a", b"one"), ("dir/b", &[7; 5000])]);
    court.put(&[("a", b"one, edited"), ("c", b"another")]);
    court.put(&[("a", b"one, edited again")]);
    court
}

/// Where the first op of a served commit begins, behind the byte that says whether it is whole.
const OP: usize = HEADER_LEN + 1;

#[test]
fn a_bit_in_any_field_of_a_commit_is_found() {
    let field = Field::new();
    let court = court(&field);
    let log = court.log();
    assert_eq!(log.len(), 5);
    for (case, at, code) in [
        ("magic", 0, "E_COMMIT"),
        ("version", 4, "E_VERSION"),
        ("algorithm", 5, "E_VERSION"),
        ("flags", 6, "E_COMMIT"),
        ("the byte behind the flags", 7, "E_COMMIT"),
        ("vault", 8, "E_VAULT"),
        ("machine", 24, "E_COMMIT"),
        ("position", 47, "E_COMMIT"),
        ("position, highest byte", 40, "E_COMMIT"),
        ("previous commit", 48, "E_FORK"),
        ("epoch", 83, "E_VERSION"),
        ("number of ops", 87, "E_LIMIT"),
        ("number of ops, highest byte", 84, "E_LIMIT"),
        ("time", 95, "E_COMMIT"),
        ("salt", 96, "E_COMMIT"),
        ("public key", 130, "E_COMMIT"),
        ("ops root", 160, "E_COMMIT"),
        ("whole or dropped", HEADER_LEN, "E_COMMIT"),
        ("kind of op", OP, "E_COMMIT"),
        ("flags of op", OP + 1, "E_COMMIT"),
        ("node of op", OP + 4, "E_COMMIT"),
        ("number of chunks of op", OP + 23, "E_COMMIT"),
        ("length of op", OP + 27, "E_COMMIT"),
        ("length of op, highest byte", OP + 24, "E_LIMIT"),
        ("reserved byte of op", OP + 31, "E_COMMIT"),
        ("body of op", OP + 40, "E_COMMIT"),
    ] {
        let mut log = log.clone();
        log[4][at] ^= 1;
        court.refuses(case, code, 14, shows(log, 5));
    }
    let mut forged = log.clone();
    let end = forged[4].len();
    forged[4][end - SIGNATURE_LEN] ^= 1;
    court.refuses("signature", "E_COMMIT", 14, shows(forged, 5));
    let mut cut = log.clone();
    cut[4].pop();
    court.refuses("a byte less", "E_COMMIT", 14, shows(cut, 5));
    let mut longer = log;
    longer[4].push(0);
    court.refuses("a byte more", "E_COMMIT", 14, shows(longer, 5));
}

#[test]
fn commits_left_out_repeated_or_exchanged_are_found() {
    let field = Field::new();
    let court = court(&field);
    let log = court.log();
    let with = |change: &dyn Fn(&mut Log)| {
        let mut log = log.clone();
        change(&mut log);
        log
    };
    for (case, code, log) in [
        (
            "the first left out",
            "E_COMMIT",
            with(&|log| drop(log.remove(0))),
        ),
        ("one left out", "E_COMMIT", with(&|log| drop(log.remove(3)))),
        (
            "the last one announced and not shown",
            "E_COMMIT",
            with(&|log| drop(log.pop())),
        ),
        ("nothing shown", "E_COMMIT", Log::new()),
        (
            "one repeated",
            "E_COMMIT",
            with(&|log| log.insert(3, log[2].clone())),
        ),
        (
            "an old one in place of the last",
            "E_COMMIT",
            with(&|log| log[4] = log[2].clone()),
        ),
        ("two exchanged", "E_COMMIT", with(&|log| log.swap(2, 3))),
        ("an empty one", "E_COMMIT", with(&|log| log[3].clear())),
        (
            "bodies of two commits exchanged",
            "E_COMMIT",
            with(&|log| {
                let (third, fourth) = (log[2].clone(), log[3].clone());
                log[2] = [&third[..HEADER_LEN], &fourth[HEADER_LEN..]].concat();
                log[3] = [&fourth[..HEADER_LEN], &third[HEADER_LEN..]].concat();
            }),
        ),
        (
            "bodies of two ops exchanged",
            "E_COMMIT",
            with(&|log| log[3] = swap_bodies(&log[3])),
        ),
        (
            "order of two ops exchanged",
            "E_COMMIT",
            with(&|log| log[3] = swap_ops(&log[3])),
        ),
        (
            "a body dropped that nothing replaces",
            "E_COMMIT",
            with(&|log| log[4] = drop_body(&log[4])),
        ),
        (
            "a body of a machine dropped",
            "E_COMMIT",
            with(&|log| log[1] = drop_body(&log[1])),
        ),
    ] {
        court.refuses(case, code, 14, shows(log, 5));
    }
    for head in [6u64, 1 << 63, u64::MAX] {
        let case = format!("a head at {head} that is not there");
        court.refuses(&case, "E_COMMIT", 14, shows(log.clone(), head));
    }
    // Right in everything else: its author was shown another history.
    let position = Position {
        n: 5,
        prev: hash_of(&log[2]),
        time_ms: 1,
    };
    let (keys, author) = (court.key.keys().unwrap(), court.credentials(&court.a));
    let drafts = vec![Draft::trash(NodeId([9; 16]))];
    let sealed = seal(
        &keys,
        &author.machine,
        position,
        drafts,
        &OsRandom::default(),
    )
    .unwrap();
    let served = Commit::parse(&sealed.bytes).unwrap().to_served();
    let elsewhere = with(&|log| log[4].clone_from(&served));
    court.refuses(
        "one that stands on another",
        "E_FORK",
        14,
        shows(elsewhere, 5),
    );
}

/// The ops of a served commit of two, each with the byte before it.
fn ops_of(served: &[u8]) -> (Vec<u8>, Vec<Vec<u8>>, Vec<u8>) {
    let commit = Commit::parse_served(served).unwrap();
    let mut ops = Vec::new();
    let mut at = HEADER_LEN;
    for op in &commit.ops {
        let len = 1 + 32 + 32 * op.head.n_refs as usize + op.head.ct_len as usize;
        ops.push(served[at..at + len].to_vec());
        at += len;
    }
    (served[..HEADER_LEN].to_vec(), ops, served[at..].to_vec())
}

fn swap_ops(served: &[u8]) -> Vec<u8> {
    let (head, mut ops, end) = ops_of(served);
    ops.swap(0, 1);
    [head, ops.concat(), end].concat()
}

fn swap_bodies(served: &[u8]) -> Vec<u8> {
    let (head, ops, end) = ops_of(served);
    // Both are short files: heads and bodies of one length.
    let (x, y) = ops[0].split_at(33);
    let (z, w) = ops[1].split_at(33);
    assert_eq!((x.len(), y.len()), (z.len(), w.len()));
    [&head, x, w, z, y, &end].concat()
}

fn drop_body(served: &[u8]) -> Vec<u8> {
    let (head, ops, end) = ops_of(served);
    let (op_head, body) = ops[0][1..].split_at(32);
    let hashes = [
        syncagent_protocol::sha256(&[&[]]),
        syncagent_protocol::sha256(&[body]),
    ];
    let rest = ops[1..].concat();
    [&head, &[1][..], op_head, &hashes.concat(), &rest, &end].concat()
}

/// Somebody without the vault key, but with all that the server knows.
struct Stranger {
    key: VaultKey,
    machine: MachineKey,
    random: OsRandom,
}

impl Stranger {
    fn new(vault: syncagent_protocol::VaultId) -> Self {
        let random = OsRandom::default();
        let mut bytes = [0; 32];
        random.fill(&mut bytes);
        Self {
            key: VaultKey::from_parts(Secret::copy_from(&bytes), vault),
            machine: MachineKey::generate(&random).unwrap(),
            random,
        }
    }

    fn seal(&self, n: u64, prev: CommitHash, drafts: Vec<Draft>) -> Vec<u8> {
        let keys = self.key.keys().unwrap();
        let position = Position {
            n,
            prev,
            time_ms: 1,
        };
        let sealed = seal(&keys, &self.machine, position, drafts, &self.random).unwrap();
        Commit::parse(&sealed.bytes).unwrap().to_served()
    }

    fn put(&self) -> Draft {
        let put = Put {
            parent: NodeId::ROOT,
            name: Name::parse("planted").unwrap(),
            mtime_ns: 0,
            body: PutBody::Directory,
            based_on: None,
            conflict_of: None,
        };
        Draft::put(NodeId([9; 16]), &put).unwrap()
    }

    fn add(&self) -> Draft {
        Draft::machine_add(&MachineAdd {
            public_key: *self.machine.public(),
            name: "stranger".into(),
            platform: "linux".into(),
            web: false,
        })
        .unwrap()
    }
}

#[test]
fn commits_of_strangers_and_of_other_vaults_are_refused() {
    let field = Field::new();
    let court = court(&field);
    let log = court.log();
    let head = hash_of(&log[4]);
    let vault = court.key.vault();
    let with = |n: usize, commit: Vec<u8>| {
        let mut log = log.clone();
        log.truncate(n - 1);
        log.push(commit);
        shows(log, n)
    };
    let stranger = Stranger::new(vault);
    let planted = stranger.seal(6, head, vec![stranger.put()]);
    court.refuses("a stranger's file", "E_MACHINE", 14, with(6, planted));
    let trash = stranger.seal(6, head, vec![Draft::trash(NodeId([9; 16]))]);
    court.refuses("a stranger's deletion", "E_MACHINE", 14, with(6, trash));
    let enrolled = stranger.seal(6, head, vec![stranger.add(), stranger.put()]);
    court.refuses(
        "a stranger enrols itself",
        "E_MACHINE",
        14,
        with(6, enrolled),
    );
    let revoke = Draft::machine_revoke(court.credentials(&court.a).id());
    let revoked = stranger.seal(6, head, vec![revoke]);
    court.refuses(
        "a stranger removes a machine",
        "E_MACHINE",
        14,
        with(6, revoked),
    );

    let genesis = || Draft::genesis(&Genesis::default()).unwrap();
    let begin = CommitHash::genesis(vault);
    let made_up = stranger.seal(1, begin, vec![genesis(), stranger.add()]);
    court.refuses(
        "a beginning without the key",
        "E_COMMIT",
        14,
        with(1, made_up),
    );
    let mut other = [0; 16];
    stranger.random.fill(&mut other);
    let other = Stranger::new(syncagent_protocol::VaultId(other));
    let begin = CommitHash::genesis(other.key.vault());
    let elsewhere = other.seal(1, begin, vec![genesis(), other.add()]);
    court.refuses(
        "another vault's beginning",
        "E_VAULT",
        14,
        with(1, elsewhere),
    );
    let spliced = other.seal(6, head, vec![other.put()]);
    court.refuses("another vault's commit", "E_VAULT", 14, with(6, spliced));
    let mut renamed = other.seal(6, head, vec![other.put()]);
    renamed[8..24].copy_from_slice(&vault.0);
    court.refuses(
        "the same with this vault's id",
        "E_COMMIT",
        14,
        with(6, renamed),
    );
}

/// A served commit as it is, but for who says so.
pub(crate) fn signed_anew(served: &[u8], machine: &MachineKey) -> Vec<u8> {
    let mut bytes = served.to_vec();
    bytes[24..40].copy_from_slice(&machine.id().0);
    bytes[128..160].copy_from_slice(machine.public());
    let header: [u8; HEADER_LEN] = bytes[..HEADER_LEN].try_into().unwrap();
    let signature = machine.sign(&Header::signed_message(&header));
    let end = bytes.len() - SIGNATURE_LEN;
    bytes[end..].copy_from_slice(&signature);
    bytes
}

#[test]
fn commits_signed_anew_by_strangers_or_removed_machines_are_refused() {
    let field = Field::new();
    let court = court(&field);
    let removed = court
        .field
        .unlocked("machine-c", &court.key, court.genesis, &court.url);
    removed.sync_once();
    let log = court.log();
    let (keys, random) = (court.key.keys().unwrap(), OsRandom::default());
    let seal_as = |machine: &MachineKey, after: &[u8], draft| {
        let before = Commit::parse_served(after).unwrap();
        let position = Position {
            n: before.header.n + 1,
            prev: hash_of(after),
            time_ms: 1,
        };
        seal(&keys, machine, position, vec![draft], &random).unwrap()
    };
    let (c, a) = (court.credentials(&removed), court.credentials(&court.a));
    let revoke = seal_as(&a.machine, &log[5], Draft::machine_revoke(c.id()));
    assert_eq!(court.ask("POST", "commits", revoke.bytes).status, 200);
    let log = court.log();
    assert_eq!(log.len(), 7);
    // It knows the key, signs well, and stands where it should: only it was removed before.
    let put = Put {
        parent: NodeId::ROOT,
        name: Name::parse("planted").unwrap(),
        mtime_ns: 0,
        body: PutBody::Directory,
        based_on: None,
        conflict_of: None,
    };
    let edit = Draft::put(NodeId([9; 16]), &put).unwrap();
    for (case, draft) in [
        ("a removed machine's file", edit),
        (
            "a removed machine's deletion",
            Draft::trash(NodeId([9; 16])),
        ),
    ] {
        let sealed = seal_as(&c.machine, &log[6], draft);
        // The real server does not take it either, whoever brings it.
        let answer = court.ask("POST", "commits", sealed.bytes.clone());
        assert_ne!(answer.status, 200, "{case}");
        let served = Commit::parse(&sealed.bytes).unwrap().to_served();
        let shown = [&log[..], &[served]].concat();
        court.refuses(case, "E_MACHINE", 14, shows(shown, 8));
    }
    // What A did, said to be of others.
    let stranger = MachineKey::generate(&random).unwrap();
    for (case, machine) in [
        ("an edit of A, signed by a stranger", &stranger),
        ("an edit of A, signed by one enrolled later", &c.machine),
    ] {
        let mut log = log[..5].to_vec();
        log[4] = signed_anew(&log[4], machine);
        court.refuses(case, "E_MACHINE", 14, shows(log, 5));
    }
    // The same of one that had been enrolled by then, and removed.
    court.put(&[("a", b"one, edited after C was removed")]);
    let mut log = court.log();
    assert_eq!(log.len(), 8);
    log[7] = signed_anew(&log[7], &c.machine);
    court.refuses(
        "an edit of A, signed by one removed before",
        "E_MACHINE",
        14,
        shows(log, 8),
    );
}

#[test]
fn pages_beyond_the_limits_are_refused() {
    let field = Field::new();
    let court = court(&field);
    let page = |head: &str, body: Vec<u8>| {
        let answer =
            Answer::new(200, "application/octet-stream", body).with("syncagent-head", head);
        move |request: &crate::field::liar::Request, honest: &crate::field::liar::Honest| {
            match request.is("GET", "/commits") {
                true => Said::Answer(answer.clone()),
                false => honest.ask(request).into(),
            }
        }
    };
    let long = [&u32::MAX.to_be_bytes()[..], &[1; 1000]].concat();
    court.refuses("a commit of 4 GiB", "E_LIMIT", 14, page("5", long));
    let many = vec![vec![0; 300]; 130_000];
    court.refuses(
        "commits of zeros",
        "E_COMMIT",
        14,
        page("5", framed(&many[..2])),
    );
    court.refuses(
        "forty megabytes of them",
        "E_LIMIT",
        14,
        page("5", framed(&many)),
    );
    for (case, more, code) in [
        ("empty commits without end", vec![0; 64 * 1024], "E_COMMIT"),
        ("a body without end", vec![1; 64 * 1024], "E_LIMIT"),
    ] {
        let head = "HTTP/1.1 200 Said\r\nsyncagent-head: 5\r\n";
        let chunked = format!("{head}content-length: {}\r\n\r\n", 1u64 << 62);
        court.refuses(case, code, 14, move |_, _| {
            Said::Endless(chunked.clone().into_bytes(), more.clone())
        });
    }
}
