//! Lies about chunks: the file is named and not written, every other file comes through.

use std::fs;

use syncagent_protocol::{ChunkId, NodeId};
use syncagent_vault::chunk::{Codec, Scope, seal_data};
use syncagent_vault::keys::VaultKey;
use syncagent_vault::op::Genesis;
use syncagent_vault::random::OsRandom;

use crate::court::{Court, assert_code};
use crate::field::liar::{Answer, Honest, Request, Said, framed, parts};
use crate::field::tree;
use crate::field::{Field, Rng};

impl Court<'_> {
    /// B, which has never seen the vault, gets damaged chunks: it names these files and has all the others, now and
    /// after a restart. Told the truth, it has them all.
    #[track_caller]
    fn spoils(
        &self,
        case: &str,
        victims: &[&str],
        lie: impl Fn(&Request, &Honest) -> Said + Send + Sync + 'static,
    ) {
        self.forget();
        self.liar.lie(lie);
        let mut expected = tree::read(&self.a.folder);
        expected.retain(|path, _| !victims.iter().any(|victim| path.ends_with(victim)));
        for start in ["first", "second"] {
            let done = self.b.try_sync();
            assert_code(&format!("{case}, {start} start"), &done, "E_CHUNK", 1);
            for victim in victims {
                let line = format!("E_CHUNK: {victim}: ");
                assert!(done.stderr.contains(&line), "{case}: no {line:?}: {done}");
            }
            let found = tree::read(&self.b.folder);
            tree::assert_same(case, ("A", &expected), ("B", &found));
        }
        self.assert_nothing_sent(case);
        self.recovers(case);
    }
}

/// Changes the chunks of an answer; they stand in the order of the ids.
fn on_chunks(
    change: impl Fn(&[ChunkId], &mut Vec<Vec<u8>>) + Send + Sync + 'static,
) -> impl Fn(&Request, &Honest) -> Said + Send + Sync + 'static {
    move |request, honest| {
        let answer = honest.ask(request);
        if !request.is("POST", "/chunks/fetch") {
            return answer.into();
        }
        let ids: Vec<ChunkId> = request
            .body
            .as_chunks::<32>()
            .0
            .iter()
            .map(|id| ChunkId(*id))
            .collect();
        answer.reframed(|parts| change(&ids, parts)).into()
    }
}

/// Changes one chunk wherever it is answered.
fn on_chunk(
    victim: ChunkId,
    change: impl Fn(&mut Vec<u8>) + Send + Sync + 'static,
) -> impl Fn(&Request, &Honest) -> Said + Send + Sync + 'static {
    on_chunks(move |ids, parts| {
        for (id, part) in ids.iter().zip(parts) {
            if *id == victim {
                change(part);
            }
        }
    })
}

fn at(ids: &[ChunkId], wanted: ChunkId) -> Option<usize> {
    ids.iter().position(|id| *id == wanted)
}

/// Files of one chunk (shorter than any cut), of several, and of none.
fn court(field: &Field) -> Court<'_> {
    let court = Court::new(field, Genesis::default());
    let mut rng = Rng(11);
    let several = rng.bytes(900_000);
    court.put(&[
        ("one", &rng.bytes(30_000)),
        ("two", &rng.bytes(30_000)),
        ("none", b"so short that it stands in the log"),
        ("several", &several),
        ("others", &rng.bytes(900_000)),
    ]);
    court
}

#[test]
fn a_damaged_chunk_is_named_and_nothing_else_stops() {
    let field = Field::new();
    let court = court(&field);
    let single = court.chunks("one")[0];
    let several = court.chunks("several");
    assert!(several.len() >= 3);
    for (victim, id) in [("one", single), ("several", several[1])] {
        for (place, at) in [
            ("magic", 0),
            ("version", 4),
            ("algorithm", 5),
            ("kind", 6),
            ("reserved byte", 7),
            ("epoch", 11),
            ("start", 12),
            ("middle", 20_000),
        ] {
            let case = format!("a bit in the {place} of a chunk of {victim}");
            court.spoils(&case, &[victim], on_chunk(id, move |chunk| chunk[at] ^= 1));
        }
        let tag = |chunk: &mut Vec<u8>| *chunk.last_mut().unwrap() ^= 0x80;
        court.spoils("a bit in the tag", &[victim], on_chunk(id, tag));
        let shorter = |chunk: &mut Vec<u8>| chunk.truncate(chunk.len() - 1);
        court.spoils("a byte less", &[victim], on_chunk(id, shorter));
        let half = |chunk: &mut Vec<u8>| chunk.truncate(chunk.len() / 2);
        court.spoils("half of it", &[victim], on_chunk(id, half));
        let longer = |chunk: &mut Vec<u8>| chunk.push(0);
        court.spoils("a byte more", &[victim], on_chunk(id, longer));
        court.spoils("said not to be there", &[victim], on_chunk(id, Vec::clear));
    }
}

#[test]
fn chunks_in_the_wrong_place_are_found() {
    let field = Field::new();
    let court = court(&field);
    let (one, two) = (court.chunks("one")[0], court.chunks("two")[0]);
    let (several, others) = (court.chunks("several"), court.chunks("others"));
    let pair = [several[0], several[1]];
    let exchanged = on_chunks(move |ids, parts| {
        if let (Some(a), Some(b)) = (at(ids, one), at(ids, two)) {
            parts.swap(a, b);
        }
    });
    court.spoils("chunks of two files exchanged", &["one", "two"], exchanged);
    let within = on_chunks(move |ids, parts| {
        if let (Some(a), Some(b)) = (at(ids, pair[0]), at(ids, pair[1])) {
            parts.swap(a, b);
        }
    });
    court.spoils("chunks of one file exchanged", &["several"], within);
    let repeated = on_chunks(move |ids, parts| {
        if let (Some(a), Some(b)) = (at(ids, pair[0]), at(ids, pair[1])) {
            parts[b] = parts[a].clone();
        }
    });
    court.spoils("one chunk in place of another", &["several"], repeated);
    let url = court.url.clone();
    // A good chunk, well sealed, of another file: only its name is wrong.
    let (token, vault) = (
        court.credentials(&court.a).token.unwrap(),
        court.key.vault(),
    );
    let foreign = on_chunk(several[2], move |chunk| {
        let request = Request {
            method: "POST".into(),
            path: syncagent_protocol::api::vault_path(vault, "chunks/fetch"),
            headers: vec![("authorization".into(), format!("Bearer {}", *token))],
            body: others[2].0.to_vec(),
        };
        *chunk = parts(&Honest::at(&url).ask(&request).body).remove(0);
    });
    court.spoils("another file's chunk", &["several"], foreign);
    // The same content, well sealed in another vault, and in this one for another file: neither has this name.
    let content = fs::read(court.a.folder.join("one")).unwrap();
    let other = VaultKey::generate(&OsRandom::default());
    let scope = Scope::from(NodeId([9; 16]));
    for (case, key) in [("another vault's", &other), ("another scope's", &court.key)] {
        let sealed = seal_data(&key.keys().unwrap(), scope, &content, Codec::Stored).unwrap();
        let elsewhere = on_chunk(one, move |chunk| chunk.clone_from(&sealed.blob));
        court.spoils(&format!("{case} chunk"), &["one"], elsewhere);
    }
    // One more than was asked for: whatever comes behind it is another's.
    let shifted = on_chunks(move |ids, parts| {
        if let Some(a) = at(ids, pair[1]) {
            parts.insert(a, parts[a - 1].clone());
        }
    });
    court.spoils("one too many", &["several"], shifted);
}

#[test]
fn a_file_of_lists_is_checked_at_every_level() {
    let field = Field::new();
    let court = Court::new(&field, Genesis::default());
    let mut rng = Rng(12);
    court.put(&[
        ("film", &rng.bytes(36_000_000)),
        ("one", &rng.bytes(30_000)),
    ]);
    let lists = court.chunks("film");
    assert!(lists.len() < 10, "not a file of lists");
    for (place, at) in [("number of ids", 15), ("ids", 16), ("keys", usize::MAX)] {
        let case = format!("a bit in the {place} of a list");
        // The keys stand at the end, however many ids there are.
        let flip = move |chunk: &mut Vec<u8>| {
            let at = at.min(chunk.len() - 100);
            chunk[at] ^= 1;
        };
        court.spoils(&case, &["film"], on_chunk(lists[0], flip));
    }
    let first = lists[0];
    let data = on_chunks(move |ids, parts| {
        if at(ids, first).is_none() && ids.len() > 5 {
            parts[5][100] ^= 1;
        }
    });
    court.spoils("a bit in its data", &["film"], data);
}

#[test]
fn a_damaged_new_version_leaves_the_old_one_in_place() {
    let field = Field::new();
    let court = court(&field);
    court.recovers("the old version");
    let old = fs::read(court.b.folder.join("several")).unwrap();
    let mut new = old.clone();
    new[450_000] ^= 1;
    court.put(&[("several", &new), ("none", b"edited, too")]);
    court.liar.lie(on_chunks(|_, parts| {
        parts.iter_mut().for_each(|part| part[20] ^= 1)
    }));
    for _ in 0..2 {
        let done = court.b.try_sync();
        assert_code("a new version", &done, "E_CHUNK", 1);
        assert!(done.stderr.contains("E_CHUNK: several: "), "{done}");
        assert!(fs::read(court.b.folder.join("several")).unwrap() == old);
        assert_eq!(
            fs::read(court.b.folder.join("none")).unwrap(),
            b"edited, too"
        );
    }
    court.assert_nothing_sent("a new version");
    court.recovers("a new version");
}

#[test]
fn what_is_refused_for_one_file_is_that_files_error() {
    let field = Field::new();
    let court = court(&field);
    let several = court.chunks("several")[1];
    court.forget();
    court.liar.lie(move |request, honest| {
        let ids = request.body.as_chunks::<32>().0;
        if !request.is("POST", "/chunks/fetch") || !ids.contains(&several.0) {
            return honest.ask(request).into();
        }
        let problem = r#"{"code":"E_LIMIT","status":413,"title":"too long"}"#;
        Answer::new(413, "application/problem+json", problem).into()
    });
    let mut expected = tree::read(&court.a.folder);
    expected.retain(|path, _| !path.ends_with("several"));
    for _ in 0..2 {
        let done = court.b.try_sync();
        assert!(done.stderr.contains("E_CHUNK: several: "), "{done}");
        let found = tree::read(&court.b.folder);
        tree::assert_same("413", ("A", &expected), ("B", &found));
    }
    // It still sends.
    fs::write(court.b.folder.join("mine"), "of B").unwrap();
    court.b.try_sync();
    court.a.sync_once();
    assert_eq!(fs::read(court.a.folder.join("mine")).unwrap(), b"of B");
    court.recovers("413");
}

#[test]
fn answers_to_a_fetch_beyond_the_limits_or_cut_off_are_refused() {
    let field = Field::new();
    let court = court(&field);
    let fetches = |answer: fn(Answer) -> Said| {
        move |request: &Request, honest: &Honest| match request.is("POST", "/chunks/fetch") {
            true => answer(honest.ask(request)),
            false => honest.ask(request).into(),
        }
    };
    let says = |answer: &Answer, len: u64, body: &[u8]| {
        let head = format!(
            "HTTP/1.1 {} Said\r\ncontent-length: {len}\r\n\r\n",
            answer.status
        );
        [head.as_bytes(), body].concat()
    };
    for (case, code, exit, answer) in [
        (
            "a chunk of 4 GiB",
            "E_LIMIT",
            14,
            (|answer| {
                let body = [&u32::MAX.to_be_bytes()[..], &answer.body].concat();
                Answer { body, ..answer }.into()
            }) as fn(Answer) -> Said,
        ),
        ("cut off in a chunk", "E_OFFLINE", 5, |answer| {
            let body = answer.body[..answer.body.len() - 1_000].to_vec();
            Answer { body, ..answer }.into()
        }),
        ("a chunk left out", "E_OFFLINE", 5, |answer| {
            answer.reframed(|parts| drop(parts.pop())).into()
        }),
        ("nothing", "E_OFFLINE", 5, |answer| {
            Answer {
                body: Vec::new(),
                ..answer
            }
            .into()
        }),
    ] {
        court.liar.lie(fetches(answer));
        court.forget();
        for _ in 0..2 {
            assert_code(case, &court.b.try_sync(), code, exit);
        }
        court.assert_nothing_sent(case);
        court.recovers(case);
    }
    // More is announced than comes, and more comes than was asked for.
    court.forget();
    court.liar.lie(move |request, honest| {
        let answer = honest.ask(request);
        match request.is("POST", "/chunks/fetch") {
            true => Said::Raw(says(&answer, 1 << 63, &answer.body[..10_000])),
            false => answer.into(),
        }
    });
    for _ in 0..2 {
        assert_code("2^63 bytes announced", &court.b.try_sync(), "E_OFFLINE", 5);
    }
    court.assert_nothing_sent("2^63 bytes announced");
    court.recovers("2^63 bytes announced");
    court.forget();
    court.liar.lie(move |request, honest| {
        let answer = honest.ask(request);
        if !request.is("POST", "/chunks/fetch") {
            return answer.into();
        }
        let head = says(&answer, 1 << 62, &answer.body);
        Said::Endless(head, framed(&[vec![7; 60_000]]))
    });
    // What was asked for has come; the rest is not waited for.
    assert_eq!(court.b.try_sync().exit, 0);
    court.assert_equal("more than was asked for");
}
