//! Two machines of one vault: A speaks with the server, B with a liar in front of it.

use std::fs;
use std::path::Path;

use syncagent_client::home::{Credentials, Home};
use syncagent_protocol::commit::Commit;
use syncagent_protocol::{ChunkId, CommitHash, NodeId};
use syncagent_vault::commit::Opener;
use syncagent_vault::keys::VaultKey;
use syncagent_vault::op::{Genesis, Opened, Put};
use syncagent_vault::random::OsRandom;

use crate::field::liar::{Answer, Honest, Liar, Request, Said, framed, parts};
use crate::field::tree::{self, assert_same};
use crate::field::{Done, Field, Machine, Running};

pub(crate) struct Court<'a> {
    pub(crate) field: &'a Field,
    pub(crate) key: VaultKey,
    pub(crate) genesis: Genesis,
    pub(crate) server: Running,
    pub(crate) url: String,
    pub(crate) liar: Liar,
    pub(crate) a: Machine<'a>,
    pub(crate) b: Machine<'a>,
}

impl<'a> Court<'a> {
    /// A vault that both machines are enrolled in, and no file yet.
    pub(crate) fn new(field: &'a Field, genesis: Genesis) -> Self {
        let (server, url) = field.start_server();
        let key = VaultKey::generate(&OsRandom::default());
        let liar = Liar::start();
        liar.lead_to(&url);
        let a = field.unlocked("machine-a", &key, genesis, &url);
        let b = field.unlocked("machine-b", &key, genesis, &liar.url());
        a.sync_once();
        b.sync_once();
        Self {
            field,
            key,
            genesis,
            server,
            url,
            liar,
            a,
            b,
        }
    }

    /// Writes files on A and sends them, in one commit.
    pub(crate) fn put(&self, files: &[(&str, &[u8])]) {
        for (name, content) in files {
            let path = self.a.folder.join(name);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, content).unwrap();
        }
        self.a.sync_once();
    }

    /// B has its key and its token, and has never seen the vault.
    pub(crate) fn forget(&self) {
        let index = ["state.db", "state.db-wal", "state.db-shm"];
        // How far the log went, the last status would remember.
        for file in { index.iter() }.chain(&["last-status.json"]) {
            let _ = fs::remove_file(self.b.home.join(file));
        }
        fs::remove_dir_all(&self.b.folder).unwrap();
        fs::create_dir(&self.b.folder).unwrap();
    }

    pub(crate) fn credentials(&self, machine: &Machine<'_>) -> Credentials {
        Home::at(&machine.home).credentials().unwrap().unwrap()
    }

    /// Asks the server itself, as A.
    pub(crate) fn ask(&self, method: &str, resource: &str, body: Vec<u8>) -> Answer {
        let token = self.credentials(&self.a).token.unwrap();
        let request = Request {
            method: method.into(),
            path: syncagent_protocol::api::vault_path(self.key.vault(), resource),
            headers: vec![
                ("host".into(), "x".into()),
                ("authorization".into(), format!("Bearer {}", *token)),
                (
                    "content-type".into(),
                    syncagent_protocol::api::OCTETS.into(),
                ),
            ],
            body,
        };
        Honest::at(&self.url).ask(&request)
    }

    /// Every commit as the server serves it.
    pub(crate) fn log(&self) -> Vec<Vec<u8>> {
        parts(&self.ask("GET", "commits?after=0", Vec::new()).body)
    }

    /// Every PUT of the log that can be read, in order.
    pub(crate) fn puts(&self) -> Vec<Put> {
        self.puts_where(|_| true)
    }

    /// Those of one node.
    pub(crate) fn puts_of(&self, wanted: NodeId) -> Vec<Put> {
        self.puts_where(|node| node == wanted)
    }

    fn puts_where(&self, wanted: impl Fn(NodeId) -> bool) -> Vec<Put> {
        let keys = self.key.keys().unwrap();
        let mut puts = Vec::new();
        for bytes in self.log() {
            let commit = Commit::parse_served(&bytes).unwrap();
            let opener = Opener::new(&keys, &commit).unwrap();
            let opener = opener.with_dedup(self.genesis.dedup_vault);
            for index in 0..commit.ops.len() {
                if let Ok(Opened::Put(node, put)) = opener.open(index)
                    && wanted(node)
                {
                    puts.push(*put);
                }
            }
        }
        puts
    }

    /// The chunks that the last PUT of a name speaks of.
    pub(crate) fn chunks(&self, name: &str) -> Vec<ChunkId> {
        let puts = self.puts();
        let named = puts.iter().rev().find(|put| put.name.as_str() == name);
        named.unwrap().refs()
    }

    /// B, which has never seen the vault, is lied to: it says this code, has written nothing and sent nothing, not
    /// even the file it came with. So it is after a restart. Told the truth, it has what A has.
    #[track_caller]
    pub(crate) fn refuses(
        &self,
        case: &str,
        code: &str,
        exit: i32,
        lie: impl Fn(&Request, &Honest) -> Said + Send + Sync + 'static,
    ) {
        self.forget();
        fs::write(self.b.folder.join("mine"), "not to be sent to a liar").unwrap();
        self.liar.lie(lie);
        for start in ["first", "second"] {
            let done = self.b.try_sync();
            assert_code(&format!("{case}, {start} start"), &done, code, exit);
        }
        self.assert_nothing_sent(case);
        assert_eq!(
            tree::walk(&self.b.folder),
            [Path::new("mine")],
            "{case}: B wrote something"
        );
        fs::remove_file(self.b.folder.join("mine")).unwrap();
        self.recovers(case);
    }

    /// The liar heard something, and nothing that would change what the server has.
    #[track_caller]
    pub(crate) fn assert_nothing_sent(&self, case: &str) {
        let heard = self.liar.heard();
        assert!(!heard.is_empty(), "{case}: B did not ask");
        let uploads: Vec<_> = heard.iter().filter(|request| request.uploads()).collect();
        let uploads: Vec<_> = uploads.iter().map(|request| &request.path).collect();
        assert!(uploads.is_empty(), "{case}: B sent {uploads:?}");
    }

    /// Told the truth, B has what A has.
    #[track_caller]
    pub(crate) fn recovers(&self, case: &str) {
        self.liar.tell_the_truth();
        let done = self.b.try_sync();
        assert_eq!(done.exit, 0, "{case}, and then the truth: {done}");
        self.assert_equal(case);
    }

    /// Told the truth, B sends what it has, and A gets it.
    #[track_caller]
    pub(crate) fn recovers_both(&self, case: &str) {
        self.liar.tell_the_truth();
        self.b.sync_once();
        self.a.sync_once();
        self.assert_equal(case);
    }

    #[track_caller]
    pub(crate) fn assert_equal(&self, case: &str) {
        let (a, b) = (tree::read(&self.a.folder), tree::read(&self.b.folder));
        assert_same(case, ("A", &a), ("B", &b));
    }
}

/// The command failed for this reason, and a person can read it.
#[track_caller]
pub(crate) fn assert_code(case: &str, done: &Done, code: &str, exit: i32) {
    assert_eq!(done.exit, exit, "{case}: {done}");
    let line = done.stderr.lines().find(|line| line.contains(code));
    assert!(line.is_some(), "{case}: no {code}: {done}");
    assert!(!done.stderr.contains("panicked"), "{case}: {done}");
}

/// Shows this log, and says that its head is there.
pub(crate) fn shows(
    log: Vec<Vec<u8>>,
    head: impl ToString,
) -> impl Fn(&Request, &Honest) -> Said + Send + Sync + 'static {
    let head = head.to_string();
    move |request, honest| {
        if !request.is("GET", "/commits") {
            return honest.ask(request).into();
        }
        let after = request.path.split_once("after=").unwrap().1;
        let after: usize = after.parse().unwrap();
        let page = log.get(after..).unwrap_or_default();
        Answer::new(200, syncagent_protocol::api::OCTETS, framed(page))
            .with("syncagent-head", &head)
            .into()
    }
}

pub(crate) fn hash_of(served: &[u8]) -> CommitHash {
    Commit::parse_served(served).unwrap().hash()
}
