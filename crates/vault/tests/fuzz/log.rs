//! Heads, bodies and commits of the log, as posted and as served.

use std::collections::BTreeSet;

use serde_json::Value;
use syncagent_protocol::commit::{Commit, Header, OpBody, OpHead};
use syncagent_protocol::{Code, Name, NodeId};
use syncagent_vault::VaultError;
use syncagent_vault::commit::Opener;
use syncagent_vault::machine::MachineKey;
use syncagent_vault::op::{Draft, Genesis, Opened, Put, Surroundings, read_body, read_body_as};
use syncagent_vault::secret::Secret;

use crate::engine::{Answer, fuzz, within};
use crate::made;
use crate::seeds;

const KIB: usize = 1024;

fn said(error: &VaultError) -> String {
    format!("{} {error}", error.code())
}

/// An op's body and what stands around it.
struct Case {
    kind: u8,
    dedup: bool,
    node: [u8; 16],
    refs: Vec<u8>,
    /// The body, or the TLV in it.
    rest: Vec<u8>,
}

impl Case {
    /// `kind u8 ‖ dedup u8 ‖ node 16 ‖ n_refs u8 ‖ refs ‖ rest`.
    fn parse(input: &[u8]) -> Result<Self, String> {
        let split = || {
            let (head, rest) = input.split_first_chunk::<19>()?;
            let (refs, rest) = rest.split_at_checked(32 * usize::from(head[18]))?;
            Some(Self {
                kind: head[0],
                dedup: head[1] & 1 == 1,
                node: *head[2..].first_chunk()?,
                refs: refs.to_vec(),
                rest: rest.to_vec(),
            })
        };
        split().ok_or_else(|| "too short for a case".into())
    }

    fn head(&self, body: &[u8]) -> [u8; 32] {
        let mut head = [0; 32];
        head[0] = self.kind;
        head[4..20].copy_from_slice(&self.node);
        head[20..24].copy_from_slice(&(self.refs.len() as u32 / 32).to_be_bytes());
        head[24..28].copy_from_slice(&(body.len() as u32 + 16).to_be_bytes());
        head
    }

    /// The seed for a case of op.json, with what `take` takes of its body.
    fn seed(object: &Value, take: impl Fn(&[u8]) -> Vec<u8>) -> Vec<Vec<u8>> {
        let make = || {
            let body = seeds::field(object, "body").or_else(|| seeds::field(object, "bytes"))?;
            let refs: Vec<u8> = object["refs"]
                .as_array()?
                .iter()
                .filter_map(|id| seeds::hex(id.as_str()?))
                .flatten()
                .collect();
            let kind = object["kind"].as_u64()? as u8;
            let dedup = object["dedup"].as_u64()? as u8;
            let node = seeds::field(object, "node_id")?;
            let n_refs = (refs.len() / 32) as u8;
            Some([&[kind, dedup], &node[..], &[n_refs], &refs, &take(&body)].concat())
        };
        make().into_iter().collect()
    }
}

/// Fields of a TLV as far as it goes.
fn fields(mut tlv: &[u8]) -> Vec<(u8, &[u8])> {
    let mut fields = Vec::new();
    while let Some((&[tag, a, b, c, d], rest)) = tlv.split_first_chunk::<5>() {
        let Some((value, rest)) = rest.split_at_checked(u32::from_be_bytes([a, b, c, d]) as usize)
        else {
            break;
        };
        fields.push((tag, value));
        tlv = rest;
    }
    fields
}

fn tlv_of(body: &[u8]) -> &[u8] {
    let Some((len, rest)) = body.split_first_chunk::<4>() else {
        return &[];
    };
    rest.get(..u32::from_be_bytes(*len) as usize).unwrap_or(&[])
}

/// The op that writes what was read.
fn draft(opened: &Opened) -> Draft {
    match opened {
        Opened::Genesis(genesis) => Draft::genesis(genesis).unwrap(),
        Opened::Put(node, put) => Draft::put(*node, put).unwrap(),
        Opened::MachineAdd(machine) => Draft::machine_add(machine).unwrap(),
        Opened::Keyslot(pin) => Draft::keyslot(pin).unwrap(),
        Opened::Trash(_) | Opened::Purge(_) | Opened::MachineRevoke(_) | Opened::Dropped(..) => {
            panic!("it has no body")
        }
    }
}

fn name_of(opened: &Opened) -> &'static str {
    match opened {
        Opened::Genesis(_) => "genesis",
        Opened::Put(_, put) => match &put.body {
            syncagent_vault::op::PutBody::File(_) => "file",
            syncagent_vault::op::PutBody::Directory => "directory",
            syncagent_vault::op::PutBody::Symlink { .. } => "link",
        },
        Opened::Trash(_) => "trash",
        Opened::Purge(_) => "purge",
        Opened::MachineAdd(_) => "machine",
        Opened::MachineRevoke(_) => "revoked",
        Opened::Keyslot(_) => "keyslot",
        Opened::Dropped(..) => "dropped",
    }
}

/// Reads a body, and writes again what was read.
fn read(case: &Case, body: &[u8]) -> Answer {
    // An op whose head is refused is never opened. What length its body has is looked at again, so any will do.
    let head = OpHead::parse(&case.head(&[0; 256])).map_err(|error| format!("head: {error}"))?;
    let kind = head.kind;
    let around = Surroundings {
        kind,
        node: NodeId(case.node),
        refs: &case.refs,
        dedup_vault: case.dedup,
    };
    // A copy of what it holds and, of an entry of a manifest with its 72 bytes, a record and a key; 142 fields at most.
    let most = 6 * body.len() + 16 * KIB;
    let opened = match within(most, || read_body(around, body)) {
        Ok(opened) => opened,
        Err(error @ VaultError::Name(_)) => {
            assert_eq!(error.code(), Code::Path);
            // Then the name is all that is wrong with it.
            let name = Name::parse("another").unwrap();
            let opened = within(most, || read_body_as(around, body, Some(&name)));
            assert!(matches!(opened, Ok(Opened::Put(_, put)) if put.name == name));
            return Err(said(&error));
        }
        Err(error) => return Err(said(&error)),
    };
    let again = draft(&opened);
    assert_eq!(again.target(), (kind, NodeId(case.node)));
    assert_eq!(again.refs_bytes(), case.refs);
    let known: Vec<_> = fields(tlv_of(body))
        .into_iter()
        .filter(|(tag, _)| *tag < 128)
        .collect();
    if known.len() == fields(tlv_of(body)).len() {
        assert_eq!(again.body(), body);
        Ok(name_of(&opened).into())
    } else {
        // What may be skipped is left out, and everything else stays.
        assert_eq!(fields(tlv_of(again.body())), known);
        Ok(format!("{}, something skipped", name_of(&opened)))
    }
}

#[test]
fn op_body() {
    let known = seeds::from("op", |object| Case::seed(object, <[u8]>::to_vec));
    fuzz("op body", known, 200_000, |input, _| {
        let case = Case::parse(input)?;
        read(&case, &case.rest)
    });
}

/// As long as it has to be, naming the chunks it needs, and sealed into a commit: only the fields count.
#[test]
fn op_fields_sealed_in_a_commit() {
    let known = seeds::from("op", |object| {
        Case::seed(object, |body| tlv_of(body).to_vec())
    });
    let (header, machine) = (header(), machine());
    let keys = made::keys();
    fuzz("op fields", known, 30_000, |input, dice| {
        let mut case = Case::parse(input)?;
        let fields = fields(&case.rest);
        let inline = case.kind == 1 && fields.iter().any(|(tag, _)| *tag == 11);
        let body = made::body(&case.rest, inline);
        if !dice.one_in(8) {
            let manifest = fields.iter().find(|(tag, _)| case.kind == 1 && *tag == 10);
            let entries = manifest.map_or(&[][..], |(_, value)| value.get(1..).unwrap_or(&[]));
            let mut ids: Vec<&[u8]> = Vec::new();
            for entry in entries.as_chunks::<72>().0 {
                if !ids.contains(&&entry[..32]) {
                    ids.push(&entry[..32]);
                }
            }
            case.refs = ids.concat();
        }
        let answer = read(&case, &body);

        let head = case.head(&body);
        // What commit_key and the tag are over has to be in the header before it is sealed.
        let mut header = header;
        header[24..40].copy_from_slice(&machine.id().0);
        header[84..88].copy_from_slice(&1u32.to_be_bytes());
        header[128..160].copy_from_slice(machine.public());
        let op = made::Op {
            head,
            ct: made::op_ct(&header, 0, &head, &case.refs, &body),
            refs: case.refs.clone(),
        };
        let bytes = made::commit(&header, &[(0, op)], false, &machine);
        let commit = match Commit::parse(&bytes) {
            Ok(commit) => commit,
            // It may be too long for an op, or of a kind that stands elsewhere.
            Err(error) => return Err(format!("commit: {error}")),
        };
        commit.verify().unwrap();
        let opener = Opener::new(&keys, &commit).unwrap().with_dedup(case.dedup);
        let most = 8 * bytes.len() + 16 * KIB;
        let opened = within(most, || opener.open(0));
        match (&answer, opened) {
            (Ok(_), Ok(opened)) => assert!(answer.as_ref().unwrap().starts_with(name_of(&opened))),
            (Err(said_before), Err(error)) => assert_eq!(*said_before, said(&error)),
            (Ok(_), Err(error)) => assert!(matches!(error, VaultError::Machine(_)), "{error}"),
            (Err(before), Ok(_)) => panic!("{before}, but not in a commit"),
        }
        answer
    });
}

#[test]
fn put_and_genesis_as_they_are_kept() {
    let known = seeds::from("op", |object| {
        Case::seed(object, |body| tlv_of(body).to_vec())
    });
    fuzz("put", known, 200_000, |input, _| {
        let case = Case::parse(input)?;
        let (tlv, all) = (&case.rest, fields(&case.rest));
        let skipped = all.iter().any(|(tag, _)| *tag >= 128);
        let most = 6 * tlv.len() + 16 * KIB;
        let again = match case.kind {
            0 => within(most, || Genesis::parse(tlv)).map(|genesis| genesis.encode()),
            _ => within(most, || Put::parse(tlv, NodeId(case.node))).map(|put| put.encode()),
        };
        let again = again.map_err(|error| said(&error))?;
        assert!(skipped || again == *tlv, "written in another way");
        Ok(format!("skipped {skipped}"))
    });
}

#[test]
fn op_head() {
    let mut known = seeds::bytes("op", &["head"]);
    known.extend(seeds::bytes("commit", &["head"]));
    fuzz("op head", known, 300_000, |input, _| {
        let bytes = input.first_chunk::<32>().ok_or("too short for a case")?;
        let head = within(0, || OpHead::parse(bytes)).map_err(|error| error.to_string())?;
        assert_eq!(&head.encode(), bytes);
        Ok(format!("{:?}", head.kind))
    });
}

#[test]
fn commit_header() {
    let known = seeds::bytes("commit", &["header"]);
    fuzz("commit header", known, 200_000, |input, dice| {
        let mut bytes = *input.first_chunk::<192>().ok_or("too short for a case")?;
        if !dice.one_in(4) {
            let id = syncagent_protocol::MachineId::of(bytes[128..].first_chunk().unwrap());
            bytes[24..40].copy_from_slice(&id.0);
        }
        let header = within(0, || Header::parse(&bytes)).map_err(|error| error.to_string())?;
        assert_eq!(header.encode(), bytes);
        Ok("parsed".into())
    });
}

fn machine() -> MachineKey {
    MachineKey::from_seed(Secret::copy_from(&[0x42; 32])).unwrap()
}

/// That of a commit of the vectors that is not the first.
fn header() -> [u8; 192] {
    let headers = seeds::bytes("commit", &["header"]);
    let header = headers.iter().find(|header| header[47] == 3).unwrap();
    header.as_slice().try_into().unwrap()
}

/// A commit as it came, put together again from what was parsed.
fn posted(commit: &Commit<'_>) -> Vec<u8> {
    let mut out = commit.header.encode().to_vec();
    for op in &commit.ops {
        let OpBody::Whole { refs, ct } = op.body else {
            panic!("nothing is dropped in what is posted");
        };
        assert_eq!(op.refs().flat_map(|id| id.0).collect::<Vec<_>>(), refs);
        out.extend_from_slice(&op.head.encode());
        out.extend_from_slice(refs);
        out.extend_from_slice(ct);
    }
    out.extend_from_slice(commit.signature);
    out
}

/// A record and a hash for each op, which has at least 32 bytes; vectors grow by doubling.
fn memory_of_a_commit(bytes: &[u8]) -> usize {
    13 * bytes.len() + KIB
}

fn parse_posted(bytes: &[u8]) -> Result<Commit<'_>, String> {
    let commit = within(memory_of_a_commit(bytes), || Commit::parse(bytes))
        .map_err(|error| format!("{} {error}", error.code()))?;
    assert_eq!(posted(&commit), bytes);
    let served = commit.to_served();
    let back = Commit::parse_served(&served).unwrap();
    assert_eq!(
        (back.hash(), &back.op_hashes),
        (commit.hash(), &commit.op_hashes)
    );
    Ok(commit)
}

fn parse_served(bytes: &[u8]) -> Result<Commit<'_>, String> {
    let commit = within(memory_of_a_commit(bytes), || Commit::parse_served(bytes))
        .map_err(|error| format!("{} {error}", error.code()))?;
    assert_eq!(commit.to_served(), bytes);
    Ok(commit)
}

fn commits() -> Vec<Vec<u8>> {
    seeds::bytes("commit", &["commit", "bytes"])
}

#[test]
fn commit_as_it_comes() {
    fuzz("commit", commits(), 60_000, |input, _| {
        let (posted, served) = (parse_posted(input), parse_served(input));
        let either = match (posted, served) {
            (Ok(commit), _) => ("posted", commit),
            (_, Ok(commit)) => ("served", commit),
            (Err(posted), Err(served)) => return Err(format!("{posted}; served: {served}")),
        };
        let verified = either.1.verify().is_ok();
        Ok(format!("{}, verified {verified}", either.0))
    });
}

/// Numbered, rooted and signed as it should be, so that rules and bodies are what is left to refuse it for.
#[test]
fn commit_behind_its_signature() {
    let (machine, keys) = (machine(), made::keys());
    let bodies = seeds::from("op", |object| Case::seed(object, <[u8]>::to_vec));
    let bodies: Vec<Case> = bodies
        .iter()
        .filter_map(|seed| Case::parse(seed).ok())
        .collect();
    fuzz("signed commit", commits(), 30_000, |input, dice| {
        let mut header = [0; 192];
        let len = input.len().min(192);
        header[..len].copy_from_slice(&input[..len]);
        let rest = input.get(192..).unwrap_or(&[]);
        let rest = &rest[..rest.len().saturating_sub(64)];
        let served = dice.one_in(2);
        let mut ops = made::ops(rest, served);
        header[84..88].copy_from_slice(&(ops.len() as u32).to_be_bytes());
        header[24..40].copy_from_slice(&machine.id().0);
        header[128..160].copy_from_slice(machine.public());
        for (_, op) in ops.iter_mut().filter(|(_, op)| op.head[0] == 4) {
            if !dice.one_in(4) {
                op.head[4..20].copy_from_slice(&machine.id().0);
            }
        }
        if !dice.one_in(4) {
            ops.sort_by_key(|(_, op)| (op.head[4..20].to_vec(), op.head[0]));
            if dice.one_in(2) {
                ops.dedup_by_key(|(_, op)| op.head[4..20].to_vec());
            }
        }
        if header[40..48] == 1u64.to_be_bytes() && !dice.one_in(4) {
            let vault = syncagent_protocol::VaultId(*header[8..].first_chunk().unwrap());
            let beginning = syncagent_protocol::CommitHash::genesis(vault);
            header[48..80].copy_from_slice(&beginning.0);
        }
        // Whatever bodies there are, they open.
        for (index, (_, op)) in ops
            .iter_mut()
            .enumerate()
            .filter(|(_, (form, _))| *form == 0)
        {
            let case = &bodies[dice.below(bodies.len())];
            if case.kind == op.head[0] && !dice.one_in(4) {
                op.head[20..28].copy_from_slice(&case.head(&case.rest)[20..28]);
                op.refs.clone_from(&case.refs);
                op.ct = made::op_ct(&header, index as u32, &op.head, &op.refs, &case.rest);
            }
        }
        let bytes = made::commit(&header, &ops, served, &machine);
        let commit = match served {
            true => parse_served(&bytes)?,
            false => parse_posted(&bytes)?,
        };
        commit.verify().unwrap();
        let opener = match Opener::new(&keys, &commit) {
            Ok(opener) => opener,
            Err(error) => return Ok(said(&error)),
        };
        let most = 8 * bytes.len() + 16 * KIB;
        let another = Name::parse("another").unwrap();
        let mut answers = BTreeSet::new();
        for index in 0..commit.ops.len() {
            match within(most, || opener.open(index)) {
                Ok(opened) => _ = answers.insert(name_of(&opened).to_owned()),
                Err(error) => {
                    // A name is told last, so it alone is in the way.
                    let renamed = within(most, || opener.open_as(index, &another)).is_ok();
                    assert_eq!(error.code() == Code::Path, renamed, "{error}");
                    answers.insert(error.code().to_string());
                }
            }
        }
        assert!(
            opener.open(commit.ops.len()).is_err(),
            "there is no such op"
        );
        Ok(format!("{answers:?}"))
    });
}
