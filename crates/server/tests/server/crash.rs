//! Killed at any moment, the server comes back with everything it acknowledged.
//!
//! The server runs in a process of its own: this very test binary, asked for one ignored test.

use std::net::SocketAddr;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use syncagent_protocol::ChunkId;
use syncagent_protocol::api::{Head, REGISTER, RegisterResponse};
use syncagent_protocol::commit::Commit;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use crate::world::{Machine, VAULT, World, blob, config, id, ids, pack};

const DATA: &str = "SYNCAGENT_TEST_CRASH_DATA";
/// Where the parent waits to be told the server's address.
const PARENT: &str = "SYNCAGENT_TEST_CRASH_PARENT";

/// Not a test: the server that is killed. It serves for ever where its parent tells it to.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "runs as the child of the test below"]
async fn child() {
    let Some(data) = std::env::var_os(DATA) else {
        return;
    };
    let data = Path::new(&data);
    let app = syncagent_server::open(&config(data, &Arc::default())).unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let parent = std::env::var(PARENT).unwrap();
    let mut parent = TcpStream::connect(parent).await.unwrap();
    parent.write_all(address.as_bytes()).await.unwrap();
    drop(parent);
    syncagent_server::serve(app, listener, std::future::pending())
        .await
        .unwrap();
}

struct Server {
    child: Child,
    address: SocketAddr,
}

impl Server {
    async fn start(data: &Path) -> Self {
        let here = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let child = Command::new(std::env::current_exe().unwrap())
            .args(["--ignored", "--exact", "crash::child"])
            .env(DATA, data)
            .env(PARENT, here.local_addr().unwrap().to_string())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let told = async {
            let mut address = String::new();
            let (mut stream, _) = here.accept().await.unwrap();
            stream.read_to_string(&mut address).await.unwrap();
            address.parse().unwrap()
        };
        let address = tokio::time::timeout(Duration::from_secs(20), told)
            .await
            .expect("the server starts");
        Self { child, address }
    }

    /// SIGKILL, in the middle of whatever it does.
    fn kill(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// When the server is killed: after so many bytes of requests, or after so many answers. The same for the same seed.
struct Fuse {
    seed: u64,
    bytes: usize,
    answers: usize,
}

impl Fuse {
    /// splitmix64, below `n`.
    fn below(&mut self, n: usize) -> usize {
        self.seed = self.seed.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.seed;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        usize::try_from((z ^ (z >> 31)) % n as u64).unwrap()
    }

    /// In turn: somewhere in a body, at the very end of a pack or a commit, right after an answer.
    fn light(&mut self, round: u64, pack: usize, commit: usize) {
        let turns = self.below(4);
        (self.bytes, self.answers) = match round % 3 {
            0 => (1 + self.below(4 * (pack + commit)), usize::MAX),
            1 => (
                turns * (pack + commit) + pack + self.below(2) * commit,
                usize::MAX,
            ),
            _ => (usize::MAX, 1 + self.below(8)),
        };
    }

    /// Writes as much as may be written, and kills the server when that was all.
    async fn write(
        &mut self,
        server: &mut Server,
        stream: &mut TcpStream,
        bytes: &[u8],
    ) -> Option<()> {
        let len = bytes.len().min(self.bytes);
        stream.write_all(&bytes[..len]).await.ok()?;
        self.bytes -= len;
        if self.bytes == 0 {
            server.kill();
        }
        Some(())
    }

    fn answered(&mut self, server: &mut Server) {
        self.answers -= 1;
        if self.answers == 0 {
            server.kill();
        }
    }
}

/// The body of the answer, if it came whole and said 200.
async fn post(
    server: &mut Server,
    fuse: &mut Fuse,
    token: &str,
    path: &str,
    body: &[u8],
) -> Option<Vec<u8>> {
    let mut stream = TcpStream::connect(server.address).await.ok()?;
    let len = body.len();
    let head = format!(
        "POST {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\
         authorization: Bearer {token}\r\ncontent-length: {len}\r\n\r\n"
    );
    stream.write_all(head.as_bytes()).await.ok()?;
    fuse.write(server, &mut stream, body).await?;
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).await.ok()?;
    let end = answer.windows(4).position(|at| at == b"\r\n\r\n")?;
    if !answer.starts_with(b"HTTP/1.1 200") {
        return None;
    }
    fuse.answered(server);
    Some(answer.split_off(end + 4))
}

/// What the server acknowledged.
#[derive(Default)]
struct Acknowledged {
    chunks: Vec<ChunkId>,
    head: Option<Head>,
}

fn ids_of(blobs: &[Vec<u8>]) -> Vec<ChunkId> {
    blobs.iter().map(|blob| id(blob)).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_acknowledged_survives_a_kill() {
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path();
    let mut acknowledged = Acknowledged::default();
    let mut machine = Machine::new(1);
    let vault_path = |resource| syncagent_protocol::api::vault_path(VAULT, resource);
    let mut seed = 0;
    let mut fuse = Fuse {
        seed: 6,
        bytes: usize::MAX,
        answers: usize::MAX,
    };
    for round in 0..9u64 {
        let mut server = Server::start(data).await;
        if round == 0 {
            let parts = config(data, &Arc::default());
            let invitation = syncagent_server::invite(data, &*parts.clock, &parts.entropy).unwrap();
            let request = machine.registration(&invitation.to_text(), "laptop");
            let body = serde_json::to_vec(&request).unwrap();
            let answer = post(&mut server, &mut fuse, "", REGISTER, &body)
                .await
                .unwrap();
            machine.token = serde_json::from_slice::<RegisterResponse>(&answer)
                .unwrap()
                .token;
            let genesis = machine.genesis(VAULT);
            let commits = vault_path("commits");
            let answer = post(&mut server, &mut fuse, &machine.token, &commits, &genesis)
                .await
                .unwrap();
            acknowledged.head = Some(serde_json::from_slice(&answer).unwrap());
        }
        let blobs: Vec<_> = (1..5).map(|seed| blob(seed, 150_000)).collect();
        let commit = machine.put(acknowledged.head.unwrap(), &ids_of(&blobs));
        fuse.light(round, pack(&blobs).len(), commit.len());
        // Uploads and commits until the server is gone.
        loop {
            seed += 10;
            let blobs: Vec<_> = (seed..seed + 4).map(|seed| blob(seed, 150_000)).collect();
            let chunks = ids_of(&blobs);
            let token = &machine.token;
            let packs = vault_path("packs");
            let answer = post(&mut server, &mut fuse, token, &packs, &pack(&blobs)).await;
            if answer.is_none() {
                break;
            }
            acknowledged.chunks.extend(&chunks);
            let commit = machine.put(acknowledged.head.unwrap(), &chunks);
            let commits = vault_path("commits");
            let answer = post(&mut server, &mut fuse, token, &commits, &commit).await;
            let Some(answer) = answer else {
                // Perhaps appended, perhaps not: the next round asks, as a client does.
                break;
            };
            acknowledged.head = Some(serde_json::from_slice(&answer).unwrap());
        }
        drop(server);

        let world = World::on(data);
        let head = world.head(&machine).await;
        let known = acknowledged.head.unwrap();
        assert!(
            head == known || head.n == known.n + 1,
            "{head:?} after {known:?}"
        );
        let log = world.get(&machine, "commits?after=0").await.ok().framed();
        assert_eq!(log.len() as u64, head.n);
        assert_eq!(
            Commit::parse_served(&log[known.n as usize - 1])
                .unwrap()
                .hash(),
            known.hash
        );
        acknowledged.head = Some(head);
        let asked = acknowledged.chunks.clone();
        let got = world
            .post_to(&machine, "chunks/fetch", ids(&asked))
            .await
            .ok()
            .framed();
        for (got, asked) in got.iter().zip(&asked) {
            assert_eq!(id(got), *asked);
        }
        assert_eq!(
            std::fs::read_dir(data.join("packs/incoming"))
                .unwrap()
                .count(),
            0
        );
    }
    assert!(
        acknowledged.head.unwrap().n > 1,
        "something was acknowledged"
    );
}
