//! Killed at any moment, the server comes back with everything it acknowledged.
//!
//! The server runs in a process of its own: this very test binary, asked for one ignored test.

use std::net::SocketAddr;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use syncagent_protocol::ChunkId;
use syncagent_protocol::api::{Head, REGISTER, RegisterResponse};
use syncagent_protocol::commit::Commit;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use crate::world::{Machine, VAULT, World, blob, config, id, ids, pack};

const DATA: &str = "SYNCAGENT_TEST_CRASH_DATA";

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
    // Renamed into place, so that the parent never reads half of it.
    std::fs::write(data.join("address.new"), address).unwrap();
    std::fs::rename(data.join("address.new"), data.join("address")).unwrap();
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
        let _ = std::fs::remove_file(data.join("address"));
        let child = Command::new(std::env::current_exe().unwrap())
            .args(["--ignored", "--exact", "crash::child"])
            .env(DATA, data)
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let deadline = Instant::now() + Duration::from_secs(20);
        let address = loop {
            if let Ok(address) = std::fs::read_to_string(data.join("address")) {
                break address.parse().unwrap();
            }
            assert!(Instant::now() < deadline, "the server does not start");
            tokio::time::sleep(Duration::from_millis(5)).await;
        };
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

/// The body of the answer, if it came whole and said 200.
async fn post(address: SocketAddr, token: &str, path: &str, body: &[u8]) -> Option<Vec<u8>> {
    let mut stream = TcpStream::connect(address).await.ok()?;
    let len = body.len();
    let head = format!(
        "POST {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\
         authorization: Bearer {token}\r\ncontent-length: {len}\r\n\r\n"
    );
    stream.write_all(head.as_bytes()).await.ok()?;
    stream.write_all(body).await.ok()?;
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).await.ok()?;
    let end = answer.windows(4).position(|at| at == b"\r\n\r\n")?;
    answer
        .starts_with(b"HTTP/1.1 200")
        .then(|| answer.split_off(end + 4))
}

/// What the server acknowledged.
#[derive(Default)]
struct Acknowledged {
    chunks: Vec<ChunkId>,
    head: Option<Head>,
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_acknowledged_survives_a_kill() {
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path();
    let mut acknowledged = Acknowledged::default();
    let mut machine = Machine::new(1);
    let vault_path = |resource| syncagent_protocol::api::vault_path(VAULT, resource);
    let mut seed = 0;
    for round in 0..6u64 {
        let mut server = Server::start(data).await;
        if round == 0 {
            let parts = config(data, &Arc::default());
            let invitation = syncagent_server::invite(data, &*parts.clock, &parts.entropy).unwrap();
            let request = machine.registration(&invitation.to_text(), "laptop");
            let body = serde_json::to_vec(&request).unwrap();
            let answer = post(server.address, "", REGISTER, &body).await.unwrap();
            machine.token = serde_json::from_slice::<RegisterResponse>(&answer)
                .unwrap()
                .token;
            let genesis = machine.genesis(VAULT);
            let answer = post(
                server.address,
                &machine.token,
                &vault_path("commits"),
                &genesis,
            )
            .await
            .unwrap();
            acknowledged.head = Some(serde_json::from_slice(&answer).unwrap());
        }
        let address = server.address;
        let kill = tokio::spawn(async move {
            tokio::time::sleep(Duration::from_millis(40 + 37 * round)).await;
            server.kill();
        });
        // Uploads and commits until the server is gone.
        loop {
            seed += 10;
            let blobs: Vec<_> = (seed..seed + 4).map(|seed| blob(seed, 150_000)).collect();
            let chunks: Vec<_> = blobs.iter().map(|blob| id(blob)).collect();
            let token = &machine.token;
            if post(address, token, &vault_path("packs"), &pack(&blobs))
                .await
                .is_none()
            {
                break;
            }
            acknowledged.chunks.extend(&chunks);
            let commit = machine.put(acknowledged.head.unwrap(), &chunks);
            let Some(answer) = post(address, token, &vault_path("commits"), &commit).await else {
                // Perhaps appended, perhaps not: the next round asks, as a client does.
                break;
            };
            acknowledged.head = Some(serde_json::from_slice(&answer).unwrap());
        }
        kill.await.unwrap();

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
