//! Machines with keys, commits they sign, chunks nobody can open, and a server to send them to.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use aws_lc_rs::signature::{Ed25519KeyPair, KeyPair};
use axum::body::Body;
use data_encoding::HEXLOWER;
use http::{Method, Request, StatusCode};
use http_body_util::BodyExt;
use serde::Serialize;
use serde::de::DeserializeOwned;
use syncagent_protocol::api::{
    Head, Problem, RegisterRequest, RegisterResponse, register_message, vault_path,
};
use syncagent_protocol::commit::{Header, Op, OpBody, OpHead, OpKind, ops_root};
use syncagent_protocol::pack::{PACK_HEADER, push_framed};
use syncagent_protocol::time::Clock;
use syncagent_protocol::{ChunkId, Code, CommitHash, MachineId, NodeId, OpHash, VaultId, sha256};
use syncagent_server::{App, Entropy, ServerConfig, Work};
use tower::ServiceExt;

pub(crate) const VAULT: VaultId = VaultId([0xa0; 16]);

/// A clock that goes when it is told to.
#[derive(Default)]
pub(crate) struct TestClock(pub(crate) AtomicU64);

impl Clock for TestClock {
    fn now_ms(&self) -> u64 {
        self.0.load(Ordering::SeqCst)
    }
}

pub(crate) fn entropy() -> Entropy {
    Arc::new(|out| aws_lc_rs::rand::fill(out).unwrap())
}

pub(crate) struct World {
    pub(crate) app: App,
    pub(crate) clock: Arc<TestClock>,
}

pub(crate) struct Machine {
    pub(crate) pair: Ed25519KeyPair,
    pub(crate) key: [u8; 32],
    pub(crate) id: MachineId,
    pub(crate) token: String,
}

/// An answer, read to its end.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: StatusCode,
    pub(crate) headers: http::HeaderMap,
    pub(crate) body: Vec<u8>,
}

impl Answer {
    #[track_caller]
    pub(crate) fn ok(self) -> Self {
        assert!(
            self.status.is_success(),
            "{} {}",
            self.status,
            String::from_utf8_lossy(&self.body)
        );
        self
    }

    #[track_caller]
    pub(crate) fn json<T: DeserializeOwned>(&self) -> T {
        serde_json::from_slice(&self.body)
            .unwrap_or_else(|e| panic!("{e}: {}", String::from_utf8_lossy(&self.body)))
    }

    #[track_caller]
    pub(crate) fn problem(&self, status: u16, code: Code) -> Problem {
        assert_eq!(
            self.status.as_u16(),
            status,
            "{}",
            String::from_utf8_lossy(&self.body)
        );
        assert_eq!(self.headers["content-type"], "application/problem+json");
        let problem: Problem = self.json();
        assert_eq!(
            (problem.code, problem.status),
            (code, status),
            "{}",
            problem.detail
        );
        problem
    }

    pub(crate) fn framed(&self) -> Vec<Vec<u8>> {
        framed(&self.body)
    }
}

pub(crate) fn framed(mut bytes: &[u8]) -> Vec<Vec<u8>> {
    let mut parts = Vec::new();
    while let Some((len, rest)) = bytes.split_first_chunk::<4>() {
        let (part, rest) = rest.split_at(u32::from_be_bytes(*len) as usize);
        parts.push(part.to_vec());
        bytes = rest;
    }
    assert!(bytes.is_empty());
    parts
}

pub(crate) async fn send(app: &App, request: Request<Body>) -> Answer {
    let response = app.router().oneshot(request).await.unwrap();
    let (status, headers) = (response.status(), response.headers().clone());
    let body = response
        .into_body()
        .collect()
        .await
        .unwrap()
        .to_bytes()
        .to_vec();
    Answer {
        status,
        headers,
        body,
    }
}

impl World {
    /// A server in memory.
    pub(crate) fn new() -> Self {
        Self::with_work(Work::Pool)
    }

    pub(crate) fn with_work(work: Work) -> Self {
        let clock = Arc::new(TestClock(AtomicU64::new(1_700_000_000_000)));
        let app = App::in_memory(Arc::clone(&clock) as Arc<dyn Clock>, entropy(), work).unwrap();
        Self { app, clock }
    }

    /// A server on a directory.
    pub(crate) fn on(data: &std::path::Path) -> Self {
        let clock = Arc::new(TestClock(AtomicU64::new(1_700_000_000_000)));
        Self {
            app: syncagent_server::open(&config(data, &clock)).unwrap(),
            clock,
        }
    }

    pub(crate) async fn register(&self, invitation: &str, seed: u8, name: &str) -> Answer {
        let machine = Machine::new(seed);
        let request = machine.registration(invitation, name);
        send(
            &self.app,
            json_request(Method::POST, "/api/v1/register", None, &request),
        )
        .await
    }

    /// A registered machine.
    pub(crate) async fn machine(&self, seed: u8) -> Machine {
        let invitation = self.app.invite().await.unwrap().to_text();
        let answer: RegisterResponse = self
            .register(&invitation, seed, &format!("machine-{seed}"))
            .await
            .ok()
            .json();
        let machine = Machine {
            token: answer.token,
            ..Machine::new(seed)
        };
        assert_eq!(answer.machine, machine.id);
        machine
    }

    /// Two machines and a vault with its first commit, made by the first.
    pub(crate) async fn founded() -> (Self, Machine, Machine, Head) {
        let world = Self::new();
        let (a, b) = (world.machine(1).await, world.machine(2).await);
        let head = world.post(&a, &a.genesis(VAULT)).await.ok().json();
        (world, a, b, head)
    }

    pub(crate) async fn get(&self, machine: &Machine, resource: &str) -> Answer {
        send(
            &self.app,
            machine.request(Method::GET, resource, Vec::new()),
        )
        .await
    }

    pub(crate) async fn post_to(&self, machine: &Machine, resource: &str, body: Vec<u8>) -> Answer {
        send(&self.app, machine.request(Method::POST, resource, body)).await
    }

    pub(crate) async fn post(&self, machine: &Machine, commit: &[u8]) -> Answer {
        self.post_to(machine, "commits", commit.to_vec()).await
    }

    pub(crate) async fn upload(&self, machine: &Machine, blobs: &[Vec<u8>]) -> Answer {
        self.post_to(machine, "packs", pack(blobs)).await
    }

    pub(crate) async fn head(&self, machine: &Machine) -> Head {
        self.get(machine, "head").await.ok().json()
    }
}

pub(crate) fn config(data: &std::path::Path, clock: &Arc<TestClock>) -> ServerConfig {
    ServerConfig {
        places: data.into(),
        listen: ([127, 0, 0, 1], 0).into(),
        clock: Arc::clone(clock) as Arc<dyn Clock>,
        entropy: entropy(),
    }
}

pub(crate) fn json_request(
    method: Method,
    path: &str,
    token: Option<&str>,
    body: &impl Serialize,
) -> Request<Body> {
    let mut builder = Request::builder()
        .method(method)
        .uri(path)
        .header("content-type", "application/json");
    if let Some(token) = token {
        builder = builder.header("authorization", format!("Bearer {token}"));
    }
    builder
        .body(Body::from(serde_json::to_vec(body).unwrap()))
        .unwrap()
}

impl Machine {
    pub(crate) fn new(seed: u8) -> Self {
        let pair = Ed25519KeyPair::from_seed_unchecked(&[seed; 32]).unwrap();
        let key: [u8; 32] = pair.public_key().as_ref().try_into().unwrap();
        Self {
            pair,
            key,
            id: MachineId::of(&key),
            token: String::new(),
        }
    }

    pub(crate) fn registration(&self, invitation: &str, name: &str) -> RegisterRequest {
        let hash = invitation
            .parse::<syncagent_protocol::invitation::Invitation>()
            .map_or([0; 32], |i| i.hash());
        RegisterRequest {
            invitation: invitation.to_owned(),
            public_key: HEXLOWER.encode(&self.key),
            name: name.to_owned(),
            platform: "linux".to_owned(),
            signature: HEXLOWER.encode(self.pair.sign(&register_message(&hash, name)).as_ref()),
        }
    }

    pub(crate) fn request(&self, method: Method, resource: &str, body: Vec<u8>) -> Request<Body> {
        Request::builder()
            .method(method)
            .uri(vault_path(VAULT, resource))
            .header("authorization", format!("Bearer {}", self.token))
            .body(Body::from(body))
            .unwrap()
    }

    pub(crate) fn genesis(&self, vault: VaultId) -> Vec<u8> {
        let ops = vec![
            op(OpKind::Genesis, NodeId::ROOT, &[]),
            op(OpKind::MachineAdd, NodeId(self.id.0), &[]),
        ];
        self.seal(
            vault,
            Head {
                n: 0,
                hash: CommitHash::genesis(vault),
            },
            ops,
        )
    }

    /// A commit with one PUT naming `refs`.
    pub(crate) fn put(&self, head: Head, refs: &[ChunkId]) -> Vec<u8> {
        self.seal(VAULT, head, vec![op(OpKind::Put, NodeId([7; 16]), refs)])
    }

    pub(crate) fn seal(&self, vault: VaultId, head: Head, ops: Vec<TestOp>) -> Vec<u8> {
        self.seal_with(vault, head, ops, |_| ())
    }

    /// Seals ops on top of `head`; `change` may spoil the header before it is signed.
    pub(crate) fn seal_with(
        &self,
        vault: VaultId,
        head: Head,
        mut ops: Vec<TestOp>,
        change: impl FnOnce(&mut Header),
    ) -> Vec<u8> {
        ops.sort_by_key(|op| (op.head.node, op.head.kind));
        let hashes: Vec<OpHash> = ops.iter().map(TestOp::hash).collect();
        let mut header = Header {
            vault,
            n: head.n + 1,
            prev: head.hash,
            epoch: 1,
            n_ops: ops.len() as u32,
            time_ms: 1,
            salt: [head.n as u8; 32],
            public_key: self.key,
            ops_root: ops_root(&hashes),
        };
        change(&mut header);
        let header = header.encode();
        let signature = self.pair.sign(&Header::signed_message(&header));
        let mut out = header.to_vec();
        for op in &ops {
            out.extend_from_slice(&op.head.encode());
            out.extend_from_slice(&op.refs);
            out.extend_from_slice(&op.ct);
        }
        out.extend_from_slice(signature.as_ref());
        out
    }
}

pub(crate) struct TestOp {
    pub(crate) head: OpHead,
    refs: Vec<u8>,
    ct: Vec<u8>,
}

impl TestOp {
    fn hash(&self) -> OpHash {
        let head_bytes = self.head.encode();
        Op {
            head: self.head,
            head_bytes: &head_bytes,
            body: OpBody::Whole {
                refs: &self.refs,
                ct: &self.ct,
            },
        }
        .hash()
    }
}

pub(crate) fn op(kind: OpKind, node: NodeId, refs: &[ChunkId]) -> TestOp {
    op_of(kind, node, refs, 272)
}

pub(crate) fn op_of(kind: OpKind, node: NodeId, refs: &[ChunkId], ct_len: u32) -> TestOp {
    let ct_len = if kind.has_body() { ct_len } else { 0 };
    TestOp {
        head: OpHead {
            kind,
            node,
            n_refs: refs.len() as u32,
            ct_len,
        },
        refs: refs.iter().flat_map(|id| id.0).collect(),
        ct: vec![0x5a; ct_len as usize],
    }
}

/// A sealed data chunk that nobody can open, with a frame of at least this length.
pub(crate) fn blob(seed: u32, frame_len: usize) -> Vec<u8> {
    let mut blob = b"SACK\x01\x01\x00\x00\x00\x00\x00\x01".to_vec();
    let mut x = u64::from(seed) | 1 << 40;
    blob.extend(
        (0..syncagent_protocol::pack::padded_len(frame_len) + 16).map(|_| {
            x = x
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1_442_695_040_888_963_407);
            (x >> 56) as u8
        }),
    );
    blob
}

/// A list chunk over `children`.
pub(crate) fn list(children: &[ChunkId]) -> Vec<u8> {
    let mut blob = b"SACK\x01\x01\x01\x00\x00\x00\x00\x01".to_vec();
    blob.extend_from_slice(&(children.len() as u32).to_be_bytes());
    blob.extend(children.iter().flat_map(|id| id.0));
    blob.extend_from_slice(&[0x33; 4096 + 16]);
    blob
}

pub(crate) fn id(blob: &[u8]) -> ChunkId {
    ChunkId(sha256(&[blob]))
}

pub(crate) fn ids(ids: &[ChunkId]) -> Vec<u8> {
    ids.iter().flat_map(|id| id.0).collect()
}

pub(crate) fn pack(blobs: &[Vec<u8>]) -> Vec<u8> {
    let mut pack = PACK_HEADER.to_vec();
    for blob in blobs {
        push_framed(&mut pack, blob);
    }
    pack
}
