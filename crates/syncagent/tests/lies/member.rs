//! A member that is hostile: it has the vault's key and signs what no client would ever make. Attributable, but not
//! preventable; what is promised is that it stays in the folder, is named, and stops nothing else.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};

use aws_lc_rs::aead::{AES_256_GCM, Aad, LessSafeKey, Nonce, UnboundKey};
use aws_lc_rs::hmac;
use serde_json::Value;
use syncagent_protocol::commit::{Header, INLINE_CLEAR_LEN, OpHead, OpKind, ops_root, padded_len};
use syncagent_protocol::pack::{PACK_HEADER, push_framed};
use syncagent_protocol::{ChunkId, ContentHash, Name, NodeId, OpHash, sha256};
use syncagent_vault::chunk::{ChunkKey, Codec, Entry, Scope, Sealed, seal_data, seal_list};
use syncagent_vault::chunker::Class;
use syncagent_vault::manifest::Manifest;
use syncagent_vault::op::{Content, File, Genesis, Put, PutBody};
use syncagent_vault::random::{OsRandom, Random as _};

use crate::court::{Court, hash_of};
use crate::field::{Done, Field, tree};

/// One op before it is sealed: nothing is checked.
struct Raw {
    kind: OpKind,
    node: NodeId,
    refs: Vec<ChunkId>,
    tlv: Vec<u8>,
    inline: bool,
}

/// Seals and signs as A does (docs/format.md, "Commits"), whatever the ops say, and posts it to the real server.
fn post(court: &Court<'_>, mut ops: Vec<Raw>) {
    let log = court.log();
    let machine = court.credentials(&court.a).machine;
    ops.sort_by_key(|op| (op.node, op.kind));
    let mut salt = [0; 32];
    OsRandom::default().fill(&mut salt);
    let mut header = Header {
        vault: court.key.vault(),
        n: log.len() as u64 + 1,
        prev: hash_of(&log[log.len() - 1]),
        epoch: 1,
        n_ops: u32::try_from(ops.len()).unwrap(),
        time_ms: 1,
        salt,
        public_key: *machine.public(),
        ops_root: [0; 32],
    };
    let bound = header.encode()[..160].to_vec();
    let op_key = court.key.derive::<32>("op-key", 1).unwrap();
    let mut key = hmac::Context::with_key(&hmac::Key::new(hmac::HMAC_SHA256, op_key.expose()));
    key.update(&[2]);
    key.update(&bound);
    let key = key.sign();
    let (mut bodies, mut hashes) = (Vec::new(), Vec::new());
    for (index, op) in ops.iter().enumerate() {
        let mut clear = u32::try_from(op.tlv.len()).unwrap().to_be_bytes().to_vec();
        clear.extend_from_slice(&op.tlv);
        clear.resize(
            if op.inline {
                INLINE_CLEAR_LEN
            } else {
                padded_len(clear.len())
            },
            0,
        );
        let head = OpHead {
            kind: op.kind,
            node: op.node,
            n_refs: u32::try_from(op.refs.len()).unwrap(),
            ct_len: u32::try_from(clear.len() + 16).unwrap(),
        };
        let head = head.encode();
        let refs: Vec<u8> = op.refs.iter().flat_map(|id| id.0).collect();
        let mut nonce = [0; 12];
        nonce[8..].copy_from_slice(&u32::try_from(index).unwrap().to_be_bytes());
        let aad = [&bound[..], &head, &refs].concat();
        seal(key.as_ref(), nonce, &aad, &mut clear);
        hashes.push(OpHash(sha256(&[
            &[2],
            &head,
            &sha256(&[&refs]),
            &sha256(&[&clear]),
        ])));
        bodies.extend([&head[..], &refs, &clear].concat());
    }
    header.ops_root = ops_root(&hashes);
    let header = header.encode();
    let signature = machine.sign(&Header::signed_message(&header));
    let answer = court.ask(
        "POST",
        "commits",
        [&header[..], &bodies, &signature].concat(),
    );
    assert_eq!(
        answer.status,
        200,
        "{}",
        String::from_utf8_lossy(&answer.body)
    );
}

fn seal(key: &[u8], nonce: [u8; 12], aad: &[u8], in_out: &mut Vec<u8>) {
    let key = LessSafeKey::new(UnboundKey::new(&AES_256_GCM, key).unwrap());
    let nonce = Nonce::assume_unique_for_key(nonce);
    key.seal_in_place_append_tag(nonce, Aad::from(aad), in_out)
        .unwrap();
}

fn id(n: u8) -> NodeId {
    NodeId([n; 16])
}

fn put(node: NodeId, parent: NodeId, name: &[u8], body: PutBody) -> Raw {
    let inline = matches!(
        &body,
        PutBody::File(File {
            content: Content::Inline(_),
            ..
        })
    );
    let put = Put {
        parent,
        name: Name::parse("placeholder").unwrap(),
        mtime_ns: 0,
        body,
        based_on: None,
        conflict_of: None,
    };
    let mut tlv = Vec::new();
    // Field by field, with the name that no `Name` can be.
    let encoded = put.encode();
    let mut rest = &encoded[..];
    while let [tag, a, b, c, d, after @ ..] = rest {
        let (value, after) = after.split_at(u32::from_be_bytes([*a, *b, *c, *d]) as usize);
        let value = if *tag == 2 { name } else { value };
        tlv.push(*tag);
        push_framed(&mut tlv, value);
        rest = after;
    }
    Raw {
        kind: OpKind::Put,
        node,
        refs: put.refs(),
        tlv,
        inline,
    }
}

fn text(content: &str) -> PutBody {
    file(
        content.len() as u64,
        content.as_bytes(),
        Content::Inline(content.into()),
    )
}

fn file(size: u64, content: &[u8], place: Content) -> PutBody {
    PutBody::File(File {
        size,
        exec: false,
        // BLAKE3 of what it says it is.
        hash: ContentHash(hash(content)),
        scope: None,
        class: Class::of(0, None),
        content: place,
    })
}

fn hash(content: &[u8]) -> [u8; 32] {
    *blake3::hash(content).as_bytes()
}

fn link(target: &str) -> PutBody {
    PutBody::Symlink {
        target: target.into(),
    }
}

/// What becomes of a hostile node on B.
#[derive(Clone, Copy, PartialEq, Debug)]
enum Fate {
    /// An error with this code; exit 1.
    Error(&'static str),
    /// Listed among what is left alone.
    LeftAlone,
    /// It is here, and that is right.
    Here(&'static str),
}

struct Case {
    name: &'static str,
    ops: Vec<Raw>,
    /// What to look for, and what must have become of it.
    fates: Vec<(NodeId, Fate)>,
}

/// Everything in the directory round the machines' own, to be compared.
fn outside(field: &Field) -> BTreeMap<PathBuf, tree::Entry> {
    let own = [
        "machine-b",
        "home-machine-b",
        "machine-a",
        "home-machine-a",
        "server",
    ];
    let root = field.path("");
    let mut found = BTreeMap::new();
    for path in tree::walk(&root) {
        let is_log = path.extension().is_some_and(|extension| extension == "log");
        if !is_log && !own.iter().any(|own| path.starts_with(own)) {
            found.insert(path.clone(), tree::entry(&root.join(&path)));
        }
    }
    found
}

fn answer(done: &Done) -> Value {
    serde_json::from_str(&done.stdout).unwrap_or_else(|_| panic!("no answer: {done}"))
}

#[test]
fn hostile_nodes_are_named_stay_in_the_folder_and_stop_nothing() {
    let field = Field::new();
    let court = Court::new(&field, Genesis::default());
    court.put(&[("known", b"1")]);
    court.recovers("before");
    fs::create_dir(field.path("outside")).unwrap();
    fs::write(field.path("outside/canary"), "sings").unwrap();
    let target = field.path("outside").to_str().unwrap().to_owned();
    let bytes = court.ask("POST", "packs", bomb_pack(&court, id(50)));
    assert_eq!(bytes.status, 200);
    let before = outside(&field);

    let named = |name: &'static str, n: u8, bytes: &[u8], fate: Fate| Case {
        name,
        ops: vec![put(id(n), NodeId::ROOT, bytes, text("hostile"))],
        fates: vec![(id(n), fate)],
    };
    let path = Fate::Error("E_PATH");
    let cases = vec![
        named("a name that leads up", 1, b"..", path),
        named("a name that is here", 2, b".", path),
        named("a name with a way in it", 3, b"../outside/planted", path),
        named(
            "an absolute name",
            4,
            format!("{target}/planted").as_bytes(),
            path,
        ),
        named("a name with a NUL", 5, b"known\0.txt", path),
        named("no name", 6, b"", path),
        named("a name that is no text", 7, b"\xff\xfe", path),
        named("a name beyond the limit", 8, &[b'x'; 1025], path),
        named("SyncAgent's own name", 9, b".syncagent", path),
        named(
            "a name this disk cannot hold",
            10,
            &[b'x'; 300],
            Fate::LeftAlone,
        ),
        named(
            "SyncAgent's name in other letters",
            11,
            b".SyncAgent",
            Fate::Here(".SyncAgent"),
        ),
        named(
            "a control character",
            12,
            b"a\x1b[2J\n",
            Fate::Here("a\x1b[2J\n"),
        ),
        // What other systems would take for SyncAgent's own directory or for a way up. It is a name like any other here;
        // there it is left alone: crates/sync/src/placement.rs.
        named(
            "as DOS shortens it",
            37,
            b"SYNCAG~1",
            Fate::Here("SYNCAG~1"),
        ),
        named(
            "with a dot behind",
            38,
            b".syncagent.",
            Fate::Here(".syncagent."),
        ),
        named(
            "as a stream of it",
            39,
            b".syncagent::$INDEX_ALLOCATION",
            Fate::Here(".syncagent::$INDEX_ALLOCATION"),
        ),
        named(
            "a way up as Windows has it",
            40,
            b"..\\outside\\planted",
            Fate::Here("..\\outside\\planted"),
        ),
        Case {
            name: "a directory by a hostile name, and a file in it",
            ops: vec![
                put(id(13), NodeId::ROOT, b"..", PutBody::Directory),
                put(id(14), id(13), b"planted", text("hostile")),
            ],
            fates: vec![(id(13), path), (id(14), Fate::LeftAlone)],
        },
        Case {
            name: "files in SyncAgent's own directory",
            ops: vec![
                put(id(15), NodeId::ROOT, b".syncagent", PutBody::Directory),
                put(id(16), id(15), b"id", text("hostile")),
            ],
            fates: vec![(id(15), path), (id(16), Fate::LeftAlone)],
        },
        Case {
            name: "a link out of the folder, and a file below it",
            ops: vec![
                put(id(17), NodeId::ROOT, b"way out", link(&target)),
                put(id(18), id(17), b"planted", text("hostile")),
            ],
            fates: vec![(id(17), Fate::Here("way out")), (id(18), Fate::LeftAlone)],
        },
        Case {
            name: "a directory with a file in it",
            ops: vec![
                put(id(19), NodeId::ROOT, b"place", PutBody::Directory),
                put(id(20), id(19), b"inside", text("harmless")),
            ],
            fates: vec![(id(20), Fate::Here("place/inside"))],
        },
        Case {
            name: "the directory becomes a link out, and its file is edited",
            ops: vec![
                put(id(19), NodeId::ROOT, b"place", link(&target)),
                put(id(20), id(19), b"canary", text("hostile")),
            ],
            fates: vec![(id(19), Fate::Here("place")), (id(20), Fate::LeftAlone)],
        },
        Case {
            name: "a link of the same name as a directory",
            ops: vec![
                put(id(21), NodeId::ROOT, b"both", link(&target)),
                put(id(22), NodeId::ROOT, b"both", PutBody::Directory),
                put(id(23), id(22), b"planted", text("hostile")),
            ],
            fates: vec![
                (id(21), Fate::Here("both")),
                (id(22), Fate::LeftAlone),
                (id(23), Fate::LeftAlone),
            ],
        },
        Case {
            name: "directories that hang in each other, one in itself, one nowhere",
            ops: vec![
                put(id(24), id(25), b"a", PutBody::Directory),
                put(id(25), id(24), b"b", PutBody::Directory),
                put(id(26), id(26), b"c", PutBody::Directory),
                put(id(27), id(99), b"d", PutBody::Directory),
            ],
            fates: [24, 25, 26, 27].map(|n| (id(n), Fate::LeftAlone)).into(),
        },
        Case {
            name: "a file in a file",
            ops: vec![
                put(id(28), NodeId::ROOT, b"file", text("a file")),
                put(id(29), id(28), b"planted", text("hostile")),
            ],
            fates: vec![(id(28), Fate::Here("file")), (id(29), Fate::LeftAlone)],
        },
        Case {
            name: "a link to nothing that a link can be",
            ops: vec![put(id(30), NodeId::ROOT, b"link", link(&"x".repeat(5000)))],
            fates: vec![(id(30), path)],
        },
        Case {
            name: "a link with a NUL",
            ops: vec![put(id(31), NodeId::ROOT, b"link", link("a\0b"))],
            fates: vec![(id(31), path)],
        },
        Case {
            name: "content that is not what its hash says",
            ops: vec![put(
                id(32),
                NodeId::ROOT,
                b"wrong",
                file(5, b"other", Content::Inline(b"wrong".to_vec())),
            )],
            fates: vec![(id(32), Fate::Error("E_CHUNK"))],
        },
        Case {
            name: "a size that is not its content's",
            ops: vec![put(
                id(33),
                NodeId::ROOT,
                b"size",
                file(1 << 63, b"wrong", Content::Inline(b"wrong".to_vec())),
            )],
            fates: vec![(id(33), path)],
        },
        Case {
            name: "a chunk of 2^63 bytes",
            ops: vec![of_bomb(&court, 34, 1 << 63)],
            fates: vec![(id(34), path)],
        },
        Case {
            name: "lists in lists in lists in lists",
            ops: vec![of_bombs(&court, 41, 4, &[5], 5)],
            fates: vec![(id(41), path)],
        },
        Case {
            name: "255 levels of lists",
            ops: vec![of_bombs(&court, 42, 255, &[5], 5)],
            fates: vec![(id(42), path)],
        },
        Case {
            name: "lengths that are short of the size",
            ops: vec![of_bombs(&court, 43, 0, &[5, 5], 11)],
            fates: vec![(id(43), path)],
        },
        Case {
            name: "lengths that go beyond the size",
            ops: vec![of_bombs(&court, 44, 0, &[5, 5], 9)],
            fates: vec![(id(44), path)],
        },
        Case {
            name: "lengths that come round to the size",
            ops: vec![of_bombs(&court, 45, 1, &[1 << 63, 1 << 63, 5], 5)],
            fates: vec![(id(45), path)],
        },
        Case {
            name: "a length of nothing",
            ops: vec![of_bombs(&court, 46, 0, &[5, 0], 5)],
            fates: vec![(id(46), path)],
        },
        Case {
            name: "a chunk that unpacks to a gigabyte",
            ops: vec![of_bomb(&court, 50, 8 << 20)],
            fates: vec![(id(50), Fate::Error("E_CHUNK"))],
        },
        Case {
            name: "no fields at all",
            ops: vec![Raw {
                tlv: Vec::new(),
                ..put(id(35), NodeId::ROOT, b"x", text(""))
            }],
            fates: vec![(id(35), path)],
        },
        Case {
            name: "a field of 4 GiB",
            ops: vec![Raw {
                tlv: vec![1, 255, 255, 255, 255],
                ..put(id(36), NodeId::ROOT, b"x", text(""))
            }],
            fates: vec![(id(36), path)],
        },
    ];
    for (
        n,
        Case {
            name,
            mut ops,
            fates,
        },
    ) in cases.into_iter().enumerate()
    {
        let good = format!("good {n}");
        ops.push(put(
            id(100 + n as u8),
            NodeId::ROOT,
            good.as_bytes(),
            text(&good),
        ));
        let mut expected = tree::read(&court.b.folder);
        post(&court, ops);
        for _ in 0..2 {
            check(&court, name, &fates);
        }
        assert_nothing_else_came(&court, name, &mut expected, &good, &fates);
        let arrived = fs::read_to_string(court.b.folder.join(&good));
        assert_eq!(arrived.ok(), Some(good), "{name}");
        let after = outside(&field);
        tree::assert_same(name, ("before", &before), ("after", &after));
        assert!(!field.path("outside/planted").exists());
    }
    assert_eq!(fs::read(court.b.folder.join("known")).unwrap(), b"1");
    // Nothing of B's own came to harm: it still is what it was, and still sends.
    fs::write(court.b.folder.join("of B"), "still here").unwrap();
    assert_eq!(court.b.try_sync().exit, 1);
    let names: Vec<_> = court
        .puts()
        .iter()
        .map(|put| put.name.as_str().to_owned())
        .collect();
    assert!(names.contains(&"of B".to_owned()));

    // A name that this disk cannot hold is explained as that, and not by what the disk says when it is asked for it.
    let long = court.b.folder.join("x".repeat(300));
    let explained = court
        .b
        .try_run(&["explain", long.to_str().unwrap(), "--json"]);
    assert_eq!(answer(&explained)["state"], "unplaceable", "{explained}");

    // As it says itself, what hangs nowhere can be given a place.
    let orphan = id(29).to_string();
    let done = answer(&court.b.try_sync());
    let left_alone = done["status"]["skipped"].as_array().unwrap().iter();
    let orphan = { left_alone }.find(|one| one["path"].as_str().unwrap().contains(&orphan));
    let detail = orphan.unwrap()["detail"].as_str().unwrap();
    let command = detail.split('`').nth(1).unwrap();
    let words: Vec<&str> = command.split(' ').skip(1).collect();
    let done = court.b.try_with_key(&words);
    assert_eq!(done.exit, 0, "{command}: {done}");
    court.b.try_sync();
    let planted = fs::read_to_string(court.b.folder.join("planted"));
    assert_eq!(
        planted.ok().as_deref(),
        Some("hostile"),
        "{command}: {done}"
    );
}

#[test]
fn what_has_no_place_is_explained_with_who_wrote_it_and_the_way_back() {
    let field = Field::new();
    let court = Court::new(&field, Genesis::default());
    court.put(&[("known", b"1"), ("moved", b"2")]);
    assert_eq!(court.b.try_sync().exit, 0);
    let listed = answer(&court.b.try_run(&["ls", "--json"]));
    let node_of = |name: &str| {
        let mut entries = listed["entries"].as_array().unwrap().iter();
        let entry = entries.find(|entry| entry["path"] == name).unwrap();
        entry["id"].as_str().unwrap().parse::<NodeId>().unwrap()
    };
    let (known, moved) = (node_of("known"), node_of("moved"));
    // Over what was there, and of things that nobody has heard of.
    post(
        &court,
        vec![
            put(known, NodeId::ROOT, b"..", text("hostile")),
            put(moved, id(99), b"elsewhere", text("moved there")),
            put(id(1), id(99), b"orphan", text("harmless")),
            put(id(2), NodeId::ROOT, b"..", text("hostile")),
            put(id(3), NodeId::ROOT, b".syncagent", text("hostile")),
        ],
    );
    for _ in 0..2 {
        assert_eq!(court.b.try_sync().exit, 1);
    }
    let explained = |what: &str| {
        let done = court.b.try_run(&["explain", what, "--json"]);
        assert_eq!(done.exit, 0, "{what}: {done}");
        let answer = answer(&done);
        assert_eq!(answer["state"], "unplaced", "{what}: {done}");
        answer
    };
    let said = |answer: &Value, key: &str| answer[key].as_str().unwrap().to_owned();
    // What was here stays; what came of it is asked for by the names that `status` gives it.
    let unreadable = "It has no place in the vault: its record in the vault cannot be read, or has a name that nothing can have.";
    let gone = "It has no place in the vault: its directory is gone from the vault.";
    let stays = " What is here stays, and is neither sent nor changed.";
    let in_brackets = |id: NodeId, name: &str| format!("{name} ({id})");
    for (what, node, why, code) in [
        (
            "known".to_owned(),
            known,
            format!("{unreadable}{stays}"),
            "E_PATH",
        ),
        (known.to_string(), known, unreadable.to_owned(), "E_PATH"),
        (id(2).to_string(), id(2), unreadable.to_owned(), "E_PATH"),
        ("moved".to_owned(), moved, format!("{gone}{stays}"), ""),
        ("elsewhere".to_owned(), moved, gone.to_owned(), ""),
        (in_brackets(moved, "elsewhere"), moved, gone.to_owned(), ""),
        ("orphan".to_owned(), id(1), gone.to_owned(), ""),
        (id(1).to_string(), id(1), gone.to_owned(), ""),
    ] {
        let answer = explained(&what);
        assert_eq!(said(&answer, "why"), why, "{what}");
        assert_eq!(said(&answer, "id"), node.to_string(), "{what}");
        assert_eq!(answer["code"].as_str().unwrap_or_default(), code, "{what}");
    }
    for name in ["known", "moved"] {
        assert!(court.b.folder.join(name).exists(), "{name}");
    }
    // Of what cannot be read somebody has to be asked, if there is no version before it.
    let ask = "Ask whoever uses machine-a, which wrote it.";
    for nothing_before in [2, 3] {
        let answer = explained(&id(nothing_before).to_string());
        assert_eq!(said(&answer, "todo"), ask);
        assert_eq!(answer["code"], "E_PATH");
    }
    assert!(said(&explained("known"), "todo").starts_with(ask));

    // The commands that are named bring back what there was.
    for (what, path, content) in [
        ("known", "known", "1"),
        ("moved", "elsewhere", "moved there"),
        ("orphan", "orphan", "harmless"),
    ] {
        let todo = said(&explained(what), "todo");
        let command = todo.split('`').nth(1).unwrap();
        let words: Vec<&str> = command.split(' ').skip(1).collect();
        let done = court.b.try_with_key(&words);
        assert_eq!(done.exit, 0, "{command}: {done}");
        court.b.try_sync();
        let there = fs::read_to_string(court.b.folder.join(path));
        assert_eq!(there.ok().as_deref(), Some(content), "{command}");
        let done = court.b.try_run(&["explain", path, "--json"]);
        assert_eq!(answer(&done)["state"], "in-sync", "{done}");
    }
}

fn check(court: &Court<'_>, name: &str, fates: &[(NodeId, Fate)]) {
    let done = court.b.try_sync();
    assert!([0, 1].contains(&done.exit), "{name}: {done}");
    assert!(!done.stderr.contains("panicked"), "{name}: {done}");
    let answer = answer(&done);
    let status = &answer["status"];
    let listed = |list: &str, node: &NodeId, code: Option<&str>| {
        let names = court.names_of(*node);
        status[list].as_array().unwrap().iter().any(|entry| {
            let path = entry["path"].as_str().unwrap();
            let is_it = path.contains(&node.to_string()) || names.iter().any(|name| name == path);
            is_it && code.is_none_or(|code| entry["code"] == code)
        })
    };
    for (node, fate) in fates {
        let found = match fate {
            Fate::Error(code) => listed("errors", node, Some(code)) && done.exit == 1,
            Fate::LeftAlone => listed("skipped", node, None),
            Fate::Here(path) => court
                .b
                .folder
                .join(Path::new(std::ffi::OsStr::from_bytes(path.as_bytes())))
                .symlink_metadata()
                .is_ok(),
        };
        assert!(found, "{name}: {node} should be {fate:?}: {status:#}");
    }
}

/// What was in a directory whose place something else took stands, as it was, under a conflict name.
fn make_room(folder: &Path, expected: &mut tree::Tree, path: &Path) {
    let conflict = format!("{}.conflict-", path.display());
    let mut beside = tree::walk(folder).into_iter();
    let beside = beside.find(|path| {
        path.components().count() == 1 && path.to_string_lossy().starts_with(&conflict)
    });
    let beside = beside.unwrap_or_else(|| panic!("{} is gone", path.display()));
    let below: Vec<_> = { expected.keys() }
        .filter(|other| other.starts_with(path))
        .cloned()
        .collect();
    for old in below {
        let entry = expected.remove(&old).unwrap();
        // Joined with nothing, a path would end in a slash.
        let rest = old.strip_prefix(path).unwrap();
        let new = beside.components().chain(rest.components()).collect();
        expected.insert(new, entry);
    }
}

/// In the folder is what was there, as it was, and of the new things the good file and what is said to be here: nothing of
/// what was refused or left alone, under whatever name.
fn assert_nothing_else_came(
    court: &Court<'_>,
    name: &str,
    expected: &mut tree::Tree,
    good: &str,
    fates: &[(NodeId, Fate)],
) {
    let mut new = vec![PathBuf::from(good)];
    for (_, fate) in fates {
        if let Fate::Here(path) = fate {
            let path = Path::new(std::ffi::OsStr::from_bytes(path.as_bytes()));
            let above = path.ancestors().filter(|path| !path.as_os_str().is_empty());
            new.extend(above.map(Path::to_owned));
        }
    }
    for path in new {
        let there = tree::entry(&court.b.folder.join(&path));
        if expected.get(&path) == Some(&tree::Entry::Directory) && there != tree::Entry::Directory {
            make_room(&court.b.folder, expected, &path);
        }
        expected.insert(path, there);
    }
    let found = tree::read(&court.b.folder);
    tree::assert_same(name, ("expected", expected), ("found", &found));
    assert_eq!(court.b.temps(), Vec::<String>::new(), "{name}");
    // Nor does it stand in SyncAgent's own directory, which is a way in, too.
    let own = court.b.folder.join(".syncagent");
    for path in tree::walk(&own) {
        let content = fs::read(own.join(&path)).unwrap_or_default();
        let planted = content.windows(7).any(|bytes| bytes == b"hostile");
        assert!(!planted, "{name}: .syncagent/{}", path.display());
    }
}

impl Court<'_> {
    /// The names a node had, as far as they can be read.
    fn names_of(&self, node: NodeId) -> Vec<String> {
        self.puts_of(node)
            .iter()
            .map(|put| put.name.as_str().to_owned())
            .collect()
    }
}

const BOMB: [u8; 32] = [7; 32];

/// A chunk whose frame says that it unpacks, and does so to a gigabyte. Whoever has the key can make one.
fn bomb(court: &Court<'_>, node: NodeId) -> Vec<u8> {
    use std::io::Read as _;
    let packed = zstd::stream::encode_all(std::io::repeat(0).take(1 << 30), 1).unwrap();
    let mut frame = u32::try_from(packed.len()).unwrap().to_be_bytes().to_vec();
    frame.extend_from_slice(&[1, 0, 0, 0]);
    frame.extend_from_slice(&packed);
    frame.resize(syncagent_protocol::pack::padded_len(frame.len()), 0);
    let head = b"SACK\x01\x01\0\0\0\0\0\x01";
    let aad = [&head[..], &court.key.vault().0, &node.0].concat();
    seal(&BOMB, [0; 12], &aad, &mut frame);
    [&head[..], &frame].concat()
}

fn bomb_pack(court: &Court<'_>, node: NodeId) -> Vec<u8> {
    let mut pack = PACK_HEADER.to_vec();
    push_framed(&mut pack, &bomb(court, node));
    pack
}

/// A file of that chunk, which says that it is so long.
fn of_bomb(court: &Court<'_>, n: u8, len: u64) -> Raw {
    of_bombs(court, n, 0, &[len], len)
}

/// A file of so many of them, in a manifest of this level that says how long each is, and of this size.
fn of_bombs(court: &Court<'_>, n: u8, level: u8, lens: &[u64], size: u64) -> Raw {
    let chunk = ChunkId(sha256(&[&bomb(court, id(50))]));
    let entry = |len: &u64| Entry {
        id: chunk,
        key: ChunkKey::from_bytes(&BOMB),
        len: *len,
    };
    let content = Content::Chunks(Manifest {
        level,
        entries: lens.iter().map(entry).collect(),
    });
    let name = format!("bomb {n}");
    put(
        id(n),
        NodeId::ROOT,
        name.as_bytes(),
        file(size, b"", content),
    )
}

/// A list chunk of the file `node`: the ids that the server reads, and the keys and lengths that are sealed behind them.
fn list(court: &Court<'_>, node: NodeId, ids: &[ChunkId], sealed: &[(&ChunkKey, u64)]) -> Vec<u8> {
    let mut clear = u32::try_from(ids.len()).unwrap().to_be_bytes().to_vec();
    ids.iter().for_each(|id| clear.extend_from_slice(&id.0));
    let stored_len = u32::try_from(40 * sealed.len()).unwrap();
    let mut frame = [&stored_len.to_be_bytes()[..], &[0; 4]].concat();
    for (key, len) in sealed {
        frame.extend_from_slice(key.expose());
        frame.extend_from_slice(&len.to_be_bytes());
    }
    frame.resize(syncagent_protocol::pack::padded_len(frame.len()), 0);
    let head = b"SACK\x01\x01\x01\0\0\0\0\x01";
    let aad = [&head[..], &court.key.vault().0, &node.0, &clear].concat();
    seal(&BOMB, [0; 12], &aad, &mut frame);
    [&head[..], &clear, &frame].concat()
}

#[test]
fn lists_that_lie_are_named_and_stop_nothing() {
    let field = Field::new();
    let court = Court::new(&field, Genesis::default());
    let keys = court.key.keys().unwrap();
    let content = b"one chunk, and another".as_slice();
    let (one, two) = content.split_at(10);
    let cases: [(&str, bool, MakeList); 9] = [
        ("a list as it should be", true, |list, [a, b]| {
            list(&[a.id, b.id], &[(&a.key, a.len), (&b.key, b.len)])
        }),
        ("ids in another order than keys", false, |list, [a, b]| {
            list(&[b.id, a.id], &[(&a.key, a.len), (&b.key, b.len)])
        }),
        ("an id more than keys", false, |list, [a, b]| {
            list(&[a.id, b.id], &[(&a.key, a.len + b.len)])
        }),
        ("a key more than ids", false, |list, [a, b]| {
            list(&[a.id], &[(&a.key, a.len), (&b.key, b.len)])
        }),
        ("ids without keys", false, |list, [a, b]| {
            list(&[a.id, b.id], &[])
        }),
        ("lengths that do not add up", false, |list, [a, b]| {
            list(&[a.id, b.id], &[(&a.key, a.len), (&b.key, b.len + 1)])
        }),
        ("lengths that overlap", false, |list, [a, b]| {
            list(&[a.id, b.id], &[(&a.key, a.len + 1), (&b.key, b.len - 1)])
        }),
        ("lengths that come round", false, |list, [a, b]| {
            let round = u64::MAX - b.len + 1;
            let all = a.len + b.len;
            list(
                &[a.id, b.id, a.id],
                &[(&a.key, all), (&b.key, b.len), (&a.key, round)],
            )
        }),
        ("a length of nothing", false, |list, [a, b]| {
            let all = a.len + b.len;
            list(&[a.id, b.id], &[(&a.key, all), (&b.key, 0)])
        }),
    ];
    for (n, (case, is_good, make)) in (1u8..).zip(cases) {
        let node = id(n);
        let chunks = [one, two]
            .map(|content| seal_data(&keys, Scope::from(node), content, Codec::Stored).unwrap());
        let made = make(
            &|ids, sealed| list(&court, node, ids, sealed),
            [&chunks[0].entry, &chunks[1].entry],
        );
        let mut pack = PACK_HEADER.to_vec();
        for chunk in [&chunks[0].blob, &chunks[1].blob, &made] {
            push_framed(&mut pack, chunk);
        }
        assert_eq!(court.ask("POST", "packs", pack).status, 200, "{case}");
        let entry = Entry {
            id: ChunkId(sha256(&[&made])),
            key: ChunkKey::from_bytes(&BOMB),
            len: content.len() as u64,
        };
        let place = Content::Chunks(Manifest {
            level: 1,
            entries: vec![entry],
        });
        let body = file(content.len() as u64, content, place);
        let good = format!("good {n}");
        post(
            &court,
            vec![
                put(node, NodeId::ROOT, case.as_bytes(), body),
                put(id(100 + n), NodeId::ROOT, good.as_bytes(), text(&good)),
            ],
        );
        for _ in 0..2 {
            let done = court.b.try_sync();
            assert!(!done.stderr.contains("panicked"), "{case}: {done}");
            let named = done.stderr.contains(&format!("E_CHUNK: {case}: "));
            assert_eq!(named, !is_good, "{case}: {done}");
            let arrived = fs::read(court.b.folder.join(case)).ok();
            assert_eq!(arrived.as_deref(), is_good.then_some(content), "{case}");
        }
        assert_eq!(
            fs::read(court.b.folder.join(&good)).unwrap(),
            good.as_bytes()
        );
    }
}

/// Makes a list chunk of two entries.
type MakeList =
    for<'a> fn(&dyn Fn(&[ChunkId], &[(&ChunkKey, u64)]) -> Vec<u8>, [&'a Entry; 2]) -> Vec<u8>;

#[test]
fn ten_thousand_levels_stop_nothing() {
    // Longer than a system call takes.
    const LEVELS: u16 = 10_000;
    let field = Field::new();
    let court = Court::new(&field, Genesis::default());
    let level = |n: u16| {
        let mut id = [0xA1; 16];
        id[..2].copy_from_slice(&n.to_be_bytes());
        NodeId(id)
    };
    let dirs: Vec<u16> = (0..LEVELS).collect();
    for part in dirs.chunks(1_000) {
        let ops = part.iter().map(|&n| {
            let parent = n.checked_sub(1).map_or(NodeId::ROOT, level);
            put(level(n), parent, b"d", PutBody::Directory)
        });
        post(&court, ops.collect());
    }
    let deep = put(id(1), level(LEVELS - 1), b"deep", text("deep down"));
    let good = put(id(2), NodeId::ROOT, b"good", text("good"));
    post(&court, vec![deep, good]);
    let before = court.log().len();
    for _ in 0..2 {
        let done = court.b.try_sync();
        assert_eq!(done.exit, 0, "{done}");
        let status = &answer(&done)["status"];
        assert_eq!(status["skipped"], serde_json::json!([]), "{done}");
        // No program could name the one that lies at the bottom.
        assert_eq!(status["files"], 2, "{done}");
        assert_eq!(fs::read(court.b.folder.join("good")).unwrap(), b"good");
    }
    assert_eq!(court.log().len(), before, "B sends what it was shown");
}

#[test]
fn many_levels_and_paths_beyond_any_limit_stop_nothing() {
    const LEVELS: u16 = 500;
    const LONG_NAMES: u16 = 20;
    let field = Field::new();
    let court = Court::new(&field, Genesis::default());
    let level = |kind: u8, n: u16| {
        let mut id = [kind; 16];
        id[..2].copy_from_slice(&n.to_be_bytes());
        NodeId(id)
    };
    let chain = |kind: u8, count: u16, name: &str| -> Vec<Raw> {
        let dirs = (0..count).map(|n| {
            let parent = if n == 0 {
                NodeId::ROOT
            } else {
                level(kind, n - 1)
            };
            put(level(kind, n), parent, name.as_bytes(), PutBody::Directory)
        });
        dirs.collect()
    };
    // Two bytes a level; and longer in all than any program can name at once.
    let (short, long) = ("d", "l".repeat(250));
    post(&court, chain(0xA1, LEVELS, short));
    post(&court, chain(0xA2, LONG_NAMES, &long));
    let in_short = put(id(1), level(0xA1, LEVELS - 1), b"deep", text("deep down"));
    let in_long = put(
        id(2),
        level(0xA2, LONG_NAMES - 1),
        b"deep",
        text("deep down, too"),
    );
    let good = put(id(3), NodeId::ROOT, b"good", text("good"));
    post(&court, vec![in_short, in_long, good]);
    for _ in 0..2 {
        let done = court.b.try_sync();
        assert_eq!(done.exit, 0, "{done}");
        assert_eq!(fs::read(court.b.folder.join("good")).unwrap(), b"good");
        let deep = court
            .b
            .folder
            .join("d/".repeat(usize::from(LEVELS)))
            .join("deep");
        assert_eq!(fs::read(deep).unwrap(), b"deep down");
    }
    // As the machine sees it, all of it is here: it has nothing to send.
    let commits = court.log().len();
    court.b.sync_once();
    assert_eq!(court.log().len(), commits);
}

/// The list of these, as any client seals it, and so many times the same.
fn times(court: &Court<'_>, node: NodeId, n: usize, of: &Entry) -> Sealed {
    let entries: Vec<Entry> = (0..n).map(|_| of.duplicate()).collect();
    seal_list(&court.key.keys().unwrap(), Scope::from(node), &entries).unwrap()
}

fn upload(court: &Court<'_>, blobs: &[&[u8]]) {
    let mut pack = PACK_HEADER.to_vec();
    blobs.iter().for_each(|blob| push_framed(&mut pack, blob));
    assert_eq!(court.ask("POST", "packs", pack).status, 200);
}

/// B names this file, at every start, has the other one that came with it, sends what is its own, and keeps nothing of
/// the file's.
fn named_and_nothing_else_stops(court: &Court<'_>, case: &str, name: &str, good: &str) {
    use std::os::unix::fs::MetadataExt as _;
    let own = format!("of B: {case}");
    fs::write(court.b.folder.join(&own), &own).unwrap();
    for start in ["first", "second"] {
        let case = format!("{case}, {start} start");
        let done = court.b.try_sync();
        crate::court::assert_code(&case, &done, "E_CHUNK", 1);
        assert!(
            done.stderr.contains(&format!("E_CHUNK: {name}: ")),
            "{case}: {done}"
        );
        assert!(!court.b.folder.join(name).exists(), "{case}");
        assert_eq!(
            fs::read(court.b.folder.join(good)).unwrap(),
            good.as_bytes()
        );
        let temps = fs::read_dir(court.b.folder.join(".syncagent/tmp")).unwrap();
        let taken: u64 = temps
            .map(|temp| temp.unwrap().metadata().unwrap().blocks())
            .sum();
        assert_eq!(taken, 0, "{case}: of 512 bytes each");
    }
    let sent = court.puts().iter().any(|put| put.name.as_str() == own);
    assert!(sent, "{case}: B sends nothing any more");
}

#[test]
fn lists_without_end_are_named_and_stop_nothing() {
    let field = Field::new();
    let court = Court::new(&field, Genesis::default());
    let keys = court.key.keys().unwrap();
    for (n, level, entries) in [(1, 2, 33), (2, 3, 128)] {
        let node = id(n);
        let byte = seal_data(&keys, Scope::from(node), b"x", Codec::Stored).unwrap();
        let mut lists = vec![times(&court, node, 512, &byte.entry)];
        for above in 1..usize::from(level) {
            lists.push(times(&court, node, 512, &lists[above - 1].entry));
        }
        let mut blobs = vec![&byte.blob[..]];
        blobs.extend(lists.iter().map(|list| &list.blob[..]));
        upload(&court, &blobs);
        let top = &lists[lists.len() - 1].entry;
        let entries: Vec<Entry> = (0..entries).map(|_| top.duplicate()).collect();
        let manifest = Manifest { level, entries };
        let size = manifest.total_len().unwrap();
        let body = file(size, b"x", Content::Chunks(manifest));
        let (name, good) = (format!("endless {n}"), format!("good {n}"));
        post(
            &court,
            vec![
                put(node, NodeId::ROOT, name.as_bytes(), body),
                put(id(100 + n), NodeId::ROOT, good.as_bytes(), text(&good)),
            ],
        );
        named_and_nothing_else_stops(&court, &format!("{size} bytes in lists"), &name, &good);
    }
}

#[test]
fn a_claimed_size_takes_no_disk_and_stops_nothing() {
    let field = Field::new();
    let court = Court::new(&field, Genesis::default());
    let keys = court.key.keys().unwrap();
    let claims = |entry: &Entry, len: u64| Entry {
        len,
        ..entry.duplicate()
    };
    // Lists that are in order, of chunks that are not; and a leaf that no chunk can be, of whose file something is left.
    for (n, len, pieces) in [(1, 8 << 20, 32), (2, 64 << 30, 1)] {
        let node = id(n);
        let byte = seal_data(&keys, Scope::from(node), b"x", Codec::Stored).unwrap();
        let list = times(&court, node, pieces, &claims(&byte.entry, len));
        upload(&court, &[&byte.blob, &list.blob]);
        let claimed = [n; 5];
        let body = file(
            list.entry.len,
            &claimed,
            Content::Chunks(Manifest {
                level: 1,
                entries: vec![list.entry],
            }),
        );
        let (name, good) = (format!("claimed {n}"), format!("good {n}"));
        post(
            &court,
            vec![
                put(node, NodeId::ROOT, name.as_bytes(), body),
                put(id(100 + n), NodeId::ROOT, good.as_bytes(), text(&good)),
            ],
        );
        named_and_nothing_else_stops(&court, &format!("{len} bytes in a chunk"), &name, &good);
    }
}
