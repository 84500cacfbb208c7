//! Over a real socket: events, removal, bodies that are cut, an orderly end.

use std::net::SocketAddr;
use std::time::Duration;

use futures_util::{FutureExt, StreamExt};
use http::Method;
use syncagent_protocol::api::{Event, Head, Problem, vault_path};
use syncagent_protocol::commit::OpKind;
use syncagent_protocol::{Code, NodeId};

use syncagent_server::{Ended, Work};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::oneshot;
use tokio_tungstenite::tungstenite::client::IntoClientRequest;
use tokio_tungstenite::tungstenite::{self, Message};

use crate::world::{Machine, VAULT, World, blob, id, op, pack, send};

type Socket = tokio_tungstenite::WebSocketStream<TcpStream>;

struct Server {
    address: SocketAddr,
    stop: oneshot::Sender<()>,
    done: tokio::task::JoinHandle<std::io::Result<()>>,
}

async fn serve(world: &World) -> Server {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let (stop, stopped) = oneshot::channel();
    let shutdown = async move { drop(stopped.await) };
    let done = tokio::spawn(syncagent_server::serve(
        world.app.clone(),
        listener,
        shutdown,
    ));
    Server {
        address,
        stop,
        done,
    }
}

async fn connect(server: &Server, token: &str) -> Result<Socket, tungstenite::Error> {
    let mut request = format!("ws://{}/ws/events", server.address)
        .into_client_request()
        .unwrap();
    request
        .headers_mut()
        .insert("authorization", format!("Bearer {token}").parse().unwrap());
    let stream = TcpStream::connect(server.address).await.unwrap();
    tokio_tungstenite::client_async(request, stream)
        .await
        .map(|(socket, _)| socket)
}

/// The next message that is no ping.
async fn next(socket: &mut Socket) -> Message {
    let message = async {
        loop {
            match socket.next().await.unwrap().unwrap() {
                Message::Ping(_) => {}
                message => return message,
            }
        }
    };
    tokio::time::timeout(Duration::from_secs(10), message)
        .await
        .unwrap()
}

async fn event(socket: &mut Socket) -> Event {
    serde_json::from_str(next(socket).await.to_text().unwrap()).unwrap()
}

async fn closed_with(socket: &mut Socket) -> u16 {
    match next(socket).await {
        Message::Close(Some(frame)) => frame.code.into(),
        other => panic!("{other:?}"),
    }
}

/// One request, written by hand; the answer's status line and body.
async fn exchange(server: &Server, bytes: &[u8], finish: bool) -> (String, String) {
    let mut stream = TcpStream::connect(server.address).await.unwrap();
    // The server may answer and close before it was given everything.
    let _ = stream.write_all(bytes).await;
    if finish {
        stream.shutdown().await.unwrap();
    }
    let mut answer = Vec::new();
    let _ = stream.read_to_end(&mut answer).await;
    let text = String::from_utf8_lossy(&answer).into_owned();
    let (head, body) = text.split_once("\r\n\r\n").unwrap_or((&text, ""));
    (
        head.lines().next().unwrap_or_default().to_owned(),
        body.to_owned(),
    )
}

fn raw(machine: &Machine, resource: &str, len: usize, body: &[u8]) -> Vec<u8> {
    let path = vault_path(VAULT, resource);
    let token = &machine.token;
    let head = format!(
        "POST {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\nauthorization: Bearer {token}\r\ncontent-length: {len}\r\n\r\n"
    );
    [head.as_bytes(), body].concat()
}

#[tokio::test]
async fn the_head_is_told_at_once_and_whenever_it_moves() {
    let (world, a, b, head) = World::founded().await;
    let server = serve(&world).await;
    let mut socket = connect(&server, &b.token).await.unwrap();
    assert_eq!(event(&mut socket).await, Event::Head { n: 1 });
    let head: Head = world.post(&a, &a.put(head, &[])).await.ok().json();
    assert_eq!(event(&mut socket).await, Event::Head { n: 2 });
    // A repeated post moves nothing and tells nothing.
    world.post(&a, &a.put(head, &[])).await.ok();
    assert_eq!(event(&mut socket).await, Event::Head { n: 3 });
}

#[tokio::test]
async fn a_removed_machine_loses_its_socket() {
    let (world, a, b, head) = World::founded().await;
    let server = serve(&world).await;
    let mut socket_a = connect(&server, &a.token).await.unwrap();
    let mut socket_b = connect(&server, &b.token).await.unwrap();
    event(&mut socket_a).await;
    event(&mut socket_b).await;
    let removal = a.seal(
        VAULT,
        head,
        vec![op(OpKind::MachineRevoke, NodeId(b.id.0), &[])],
    );
    world.post(&a, &removal).await.ok();
    assert_eq!(event(&mut socket_a).await, Event::Head { n: 2 });
    assert_eq!(event(&mut socket_b).await, Event::Head { n: 2 });
    assert_eq!(closed_with(&mut socket_b).await, 4403);
    let refused = connect(&server, &b.token).await;
    assert!(matches!(refused, Err(tungstenite::Error::Http(r)) if r.status() == 403));
    // By hand too.
    let c = world.machine(3).await;
    let mut socket_c = connect(&server, &c.token).await.unwrap();
    event(&mut socket_c).await;
    let request = a.request(Method::DELETE, &format!("machines/{}", c.id), Vec::new());
    send(&world.app, request).await.ok();
    assert_eq!(closed_with(&mut socket_c).await, 4403);
}

#[tokio::test]
async fn a_socket_needs_a_token() {
    let (world, ..) = World::founded().await;
    let server = serve(&world).await;
    let refused = connect(&server, &"00".repeat(32)).await;
    assert!(matches!(refused, Err(tungstenite::Error::Http(r)) if r.status() == 401));
}

#[tokio::test]
async fn going_down_closes_sockets_and_ends() {
    let (world, a, ..) = World::founded().await;
    let server = serve(&world).await;
    let mut socket = connect(&server, &a.token).await.unwrap();
    event(&mut socket).await;
    server.stop.send(()).unwrap();
    assert_eq!(closed_with(&mut socket).await, 1001);
    drop(socket);
    tokio::time::timeout(Duration::from_secs(5), server.done)
        .await
        .unwrap()
        .unwrap()
        .unwrap();
    assert!(TcpStream::connect(server.address).await.is_err());
}

#[tokio::test]
async fn a_cut_body_leaves_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let world = World::on(dir.path());
    let a = world.machine(1).await;
    let head: Head = world.post(&a, &a.genesis(VAULT)).await.ok().json();
    let server = serve(&world).await;
    let body = pack(&[blob(1, 900_000), blob(2, 900_000)]);
    for keep in [0, 4, 100, 500_000, body.len() - 1] {
        exchange(&server, &raw(&a, "packs", body.len(), &body[..keep]), true).await;
    }
    let commit = a.put(head, &[]);
    exchange(
        &server,
        &raw(&a, "commits", commit.len(), &commit[..300]),
        true,
    )
    .await;
    exchange(
        &server,
        &raw(&a, "commits", commit.len(), &commit[..100]),
        true,
    )
    .await;
    // A server that ends waits for its handlers: those whose client is gone have cleaned up by then.
    server.stop.send(()).unwrap();
    tokio::time::timeout(Duration::from_secs(20), server.done)
        .await
        .unwrap()
        .unwrap()
        .unwrap();
    assert_eq!(
        std::fs::read_dir(dir.path().join("packs/incoming"))
            .unwrap()
            .count(),
        0
    );
    let other = std::fs::read_dir(dir.path().join("packs")).unwrap().count();
    assert_eq!(other, 1, "only incoming");
    assert_eq!(world.head(&a).await, head);
    let server = serve(&world).await;
    let (status, _) = exchange(&server, &raw(&a, "packs", body.len(), &body), false).await;
    assert!(status.contains("200"), "{status}");
    let (status, _) = exchange(&server, &raw(&a, "commits", commit.len(), &commit), false).await;
    assert!(status.contains("200"), "{status}");
    let resource = format!("chunks/{}", id(&blob(2, 900_000)));
    world.get(&a, &resource).await.ok();
}

#[tokio::test]
async fn an_early_answer_is_not_lost() {
    let (world, a, b, head) = World::founded().await;
    let server = serve(&world).await;
    // A stale commit of some megabytes: answered from its header, read to the end all the same.
    let mut commit = b.put(head, &[]);
    world.post(&a, &a.put(head, &[])).await.ok();
    commit.resize(12 * 1024 * 1024, 0);
    let (status, body) = exchange(&server, &raw(&b, "commits", commit.len(), &commit), false).await;
    assert!(status.contains("409"), "{status}");
    let problem: Problem = serde_json::from_str(&body).unwrap();
    assert_eq!((problem.code, problem.head.unwrap().n), (Code::Conflict, 2));
    // And so it is for a machine without a good token.
    let stranger = Machine {
        token: "00".repeat(32),
        ..Machine::new(1)
    };
    let body = pack(&[blob(1, 8_000_000)]);
    let (status, _) = exchange(&server, &raw(&stranger, "packs", body.len(), &body), false).await;
    assert!(status.contains("401"), "{status}");
}

#[tokio::test]
async fn a_deterministic_world_needs_no_thread() {
    let world = World::with_work(Work::Inline);
    let a = world.machine(1).await;
    let mut watch = world.app.watch(&a.token).await.unwrap();
    assert_eq!(watch.next().await, Ok(Event::Head { n: 0 }));
    assert!(watch.next().now_or_never().is_none());
    // The whole exchange is ready at the first look: nothing waited for anybody.
    let commit = a.genesis(VAULT);
    world.post(&a, &commit).now_or_never().unwrap().ok();
    assert_eq!(watch.next().now_or_never(), Some(Ok(Event::Head { n: 1 })));
    let request = a.request(Method::DELETE, &format!("machines/{}", a.id), Vec::new());
    send(&world.app, request).now_or_never().unwrap().ok();
    assert_eq!(watch.next().now_or_never(), Some(Err(Ended::Revoked)));
    let refused = world.app.watch(&a.token).await.err().unwrap();
    assert_eq!(refused.code, Code::Revoked);
}

#[tokio::test]
async fn a_slow_listener_is_told_the_head_it_missed() {
    let world = World::with_work(Work::Inline);
    let a = world.machine(1).await;
    let mut head: Head = world.post(&a, &a.genesis(VAULT)).await.ok().json();
    let mut watch = world.app.watch(&a.token).await.unwrap();
    watch.next().await.unwrap();
    for _ in 0..100 {
        head = world.post(&a, &a.put(head, &[])).await.ok().json();
    }
    assert_eq!(watch.next().await, Ok(Event::Head { n: 101 }));
    assert!(watch.next().now_or_never().is_none());
}
