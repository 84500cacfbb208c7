//! A way to the server that counts bytes, can be cut, and stays where it is when the server does not.

use std::io::{Read, Write as _};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;

/// One direction.
#[derive(Default)]
struct Flow {
    carried: AtomicU64,
    /// No byte beyond this many is carried.
    limit: AtomicU64,
}

#[derive(Default)]
struct Shared {
    upstream: Mutex<Option<SocketAddr>>,
    up: Flow,
    down: Flow,
    ended: AtomicBool,
}

impl Shared {
    fn is_cut(&self) -> bool {
        [&self.up, &self.down].iter().any(|flow| {
            let limit = flow.limit.load(Ordering::SeqCst);
            limit != NEVER && flow.carried.load(Ordering::SeqCst) >= limit
        })
    }
}

const NEVER: u64 = u64::MAX;

/// Listens on a port of its own until dropped.
pub(crate) struct Proxy {
    shared: Arc<Shared>,
    address: SocketAddr,
}

impl Proxy {
    pub(crate) fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let shared = Arc::new(Shared::default());
        for flow in [&shared.up, &shared.down] {
            flow.limit.store(NEVER, Ordering::SeqCst);
        }
        let here = Arc::clone(&shared);
        thread::spawn(move || {
            for client in listener.incoming() {
                if here.ended.load(Ordering::SeqCst) {
                    return;
                }
                if here.is_cut() {
                    continue;
                }
                let upstream = *here.upstream.lock().unwrap();
                if let (Ok(client), Some(Ok(server))) = (client, upstream.map(TcpStream::connect)) {
                    let _ = (client.set_nodelay(true), server.set_nodelay(true));
                    let (from, to) = (client.try_clone().unwrap(), server.try_clone().unwrap());
                    let shared = Arc::clone(&here);
                    thread::spawn(move || carry(from, to, &shared, &shared.up));
                    let shared = Arc::clone(&here);
                    thread::spawn(move || carry(server, client, &shared, &shared.down));
                }
            }
        });
        Self { shared, address }
    }

    pub(crate) fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Where new connections go from now on.
    pub(crate) fn lead_to(&self, url: &str) {
        *self.shared.upstream.lock().unwrap() =
            Some(url.strip_prefix("http://").unwrap().parse().unwrap());
    }

    /// Bytes from clients so far.
    pub(crate) fn up(&self) -> u64 {
        self.shared.up.carried.load(Ordering::SeqCst)
    }

    /// Bytes to clients so far.
    pub(crate) fn down(&self) -> u64 {
        self.shared.down.carried.load(Ordering::SeqCst)
    }

    /// Ends every connection, old and new, once so many more bytes have come from clients.
    pub(crate) fn cut_after_up(&self, bytes: u64) {
        let limit = self.up() + bytes;
        self.shared.up.limit.store(limit, Ordering::SeqCst);
    }

    /// The same for bytes to clients.
    pub(crate) fn cut_after_down(&self, bytes: u64) {
        let limit = self.down() + bytes;
        self.shared.down.limit.store(limit, Ordering::SeqCst);
    }

    /// Whether the cut has come.
    pub(crate) fn is_cut(&self) -> bool {
        self.shared.is_cut()
    }

    /// Takes back every cut.
    pub(crate) fn mend(&self) {
        for flow in [&self.shared.up, &self.shared.down] {
            flow.limit.store(NEVER, Ordering::SeqCst);
        }
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.shared.ended.store(true, Ordering::SeqCst);
        // Wakes the listener.
        let _ = TcpStream::connect(self.address);
    }
}

fn carry(mut from: TcpStream, mut to: TcpStream, shared: &Shared, flow: &Flow) {
    let mut buf = vec![0; 64 * 1024];
    while let Ok(n @ 1..) = from.read(&mut buf) {
        if shared.is_cut() || to.write_all(&buf[..n]).is_err() {
            break;
        }
        flow.carried.fetch_add(n as u64, Ordering::SeqCst);
    }
    let _ = (to.shutdown(Shutdown::Both), from.shutdown(Shutdown::Both));
}
