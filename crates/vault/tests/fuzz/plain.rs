//! Names, paths and what is said in JSON.

use serde::Serialize;
use serde::de::DeserializeOwned;
use syncagent_protocol::api::{
    Event, Head, Machine, MachineReport, Machines, PackReceipt, Problem, RegisterRequest,
    RegisterResponse,
};
use syncagent_protocol::name::MAX_NAME_LEN;
use syncagent_protocol::{ChunkId, Code, CommitHash, MachineId, Name, TreePath, VaultId};

use crate::engine::{Answer, fuzz, within};
use crate::seeds;

/// What an `Arc` takes beside its content, rounded up to whole words.
const COUNTS: usize = 3 * size_of::<usize>();

#[test]
fn name() {
    let known = seeds::bytes("names", &["bytes"]);
    fuzz("name", known, 300_000, |input, _| {
        // One copy, of what is no longer than a name may be, and two counts of who shares it.
        let name = within(MAX_NAME_LEN + COUNTS, || Name::from_bytes(input))
            .map_err(|error| format!("{error:?}"))?;
        assert_eq!(name.as_str().as_bytes(), input);
        assert!(!name.as_str().contains(['/', '\0']) && !matches!(name.as_str(), "." | ".."));
        // Shown, it draws nothing but itself.
        let shown = name.to_string();
        assert!(!shown.chars().any(char::is_control));
        Ok(format!("shown as it is: {}", shown == name.as_str()))
    });
}

#[test]
fn tree_path() {
    let mut known = seeds::bytes("names", &["bytes"]);
    for path in [
        "",
        ".",
        "./",
        "a/b/c",
        "./a/",
        "a//b",
        "/a",
        "a/..",
        "../a",
        "a/./b",
        "..\\x",
        "a/b/c/d/e/f/g",
    ] {
        known.push(path.into());
    }
    fuzz("path", known, 200_000, |input, _| {
        let text = String::from_utf8_lossy(input);
        // What it is joined to, and the joined.
        let most = 3 * text.len() + MAX_NAME_LEN;
        let path = within(most, || TreePath::parse(&text)).map_err(|error| format!("{error:?}"))?;
        assert_eq!(TreePath::parse(path.as_str()), Ok(path.clone()));
        let mut joined = TreePath::ROOT;
        for part in path.components() {
            joined = joined.join(&Name::parse(part).unwrap());
        }
        assert_eq!(joined, path);
        assert_eq!(
            path.is_root(),
            path.name().is_none() && path.parent().is_none()
        );
        if let (Some(parent), Some(name)) = (path.parent(), path.name()) {
            assert_eq!(parent.join(&name), path);
            assert!(path.is_within(&parent) && !parent.is_within(&path));
            assert_eq!(path.rebase(&parent, &TreePath::ROOT), Some(name.into()));
        }
        Ok(format!("{} names", path.components().count().min(9)))
    });
}

/// Read, written, read again: the same, whatever the first text looked like.
fn there_and_back<T: Serialize + DeserializeOwned>(input: &[u8]) -> Result<(), String> {
    // Strings and ids are copied; a record of a machine is a few times what is the least to be said of one.
    let most = 8 * input.len() + 4096;
    let read: T = within(most, || serde_json::from_slice(input)).map_err(|error| {
        // Not the whole sentence, which has numbers in it.
        error
            .to_string()
            .split(['`', ',', '"'])
            .next()
            .unwrap_or_default()
            .chars()
            .take(24)
            .collect::<String>()
    })?;
    let written = serde_json::to_vec(&read).unwrap();
    let again: T = serde_json::from_slice(&written).unwrap();
    assert_eq!(serde_json::to_vec(&again).unwrap(), written);
    Ok(())
}

fn text(value: &impl Serialize) -> Vec<u8> {
    serde_json::to_vec(value).unwrap()
}

#[test]
fn json() {
    let head = Head {
        n: u64::MAX,
        hash: CommitHash([1; 32]),
    };
    let machine = Machine {
        id: MachineId([2; 16]),
        name: "laptop".into(),
        platform: "linux".into(),
        last_seen_ms: 1,
        revoked: true,
        state: "idle".into(),
        synced_n: 7,
        files: 8,
    };
    let known = vec![
        text(&Event::Head { n: 5 }),
        text(&head),
        text(&Machines {
            machines: vec![machine.clone(), machine],
        }),
        text(&MachineReport {
            state: "held".into(),
            synced_n: 1,
            files: 2,
        }),
        text(&PackReceipt {
            stored: 1,
            known: u32::MAX,
        }),
        text(&Problem {
            code: Code::Missing,
            status: 422,
            title: "t".into(),
            detail: "d\u{202e}\"".into(),
            head: Some(head),
            missing: vec![ChunkId([3; 32]); 3],
        }),
        text(&RegisterRequest {
            invitation: "sa1-".into(),
            public_key: "00".repeat(32),
            name: "a-b".into(),
            platform: String::new(),
            signature: "00".repeat(64),
        }),
        text(&RegisterResponse {
            token: "ff".repeat(32),
            machine: MachineId([2; 16]),
            vault: Some(VaultId([4; 16])),
            head: None,
        }),
        b"{\"type\":\"head\",\"n\":1e3}".to_vec(),
        [&b"["[..]; 300].concat(),
    ];
    fuzz("json", known, 100_000, |input, _| -> Answer {
        let answers = [
            there_and_back::<Event>(input),
            there_and_back::<Head>(input),
            there_and_back::<Machines>(input),
            there_and_back::<MachineReport>(input),
            there_and_back::<PackReceipt>(input),
            there_and_back::<Problem>(input),
            there_and_back::<RegisterRequest>(input),
            there_and_back::<RegisterResponse>(input),
        ];
        let accepted: Vec<usize> = (0..answers.len()).filter(|i| answers[*i].is_ok()).collect();
        match accepted.is_empty() {
            false => Ok(format!("as {accepted:?}")),
            true => Err(answers[0].clone().unwrap_err()),
        }
    });
}
