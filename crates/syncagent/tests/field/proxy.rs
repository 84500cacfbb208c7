//! A way to the server that counts bytes and stays where it is when the server does not.

use std::io::{Read, Write as _};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;

#[derive(Default)]
struct Shared {
    upstream: Mutex<Option<SocketAddr>>,
    up: AtomicU64,
    down: AtomicU64,
    ended: AtomicBool,
}

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
        let here = Arc::clone(&shared);
        thread::spawn(move || {
            for client in listener.incoming() {
                if here.ended.load(Ordering::SeqCst) {
                    return;
                }
                let upstream = *here.upstream.lock().unwrap();
                if let (Ok(client), Some(Ok(server))) = (client, upstream.map(TcpStream::connect)) {
                    let _ = (client.set_nodelay(true), server.set_nodelay(true));
                    let (from, to) = (client.try_clone().unwrap(), server.try_clone().unwrap());
                    let shared = Arc::clone(&here);
                    thread::spawn(move || carry(from, to, &shared.up));
                    let shared = Arc::clone(&here);
                    thread::spawn(move || carry(server, client, &shared.down));
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
        self.shared.up.load(Ordering::SeqCst)
    }

    /// Bytes to clients so far.
    pub(crate) fn down(&self) -> u64 {
        self.shared.down.load(Ordering::SeqCst)
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.shared.ended.store(true, Ordering::SeqCst);
        // Wakes the listener.
        let _ = TcpStream::connect(self.address);
    }
}

fn carry(mut from: TcpStream, mut to: TcpStream, count: &AtomicU64) {
    let mut buf = vec![0; 64 * 1024];
    while let Ok(n @ 1..) = from.read(&mut buf) {
        if to.write_all(&buf[..n]).is_err() {
            break;
        }
        count.fetch_add(n as u64, Ordering::SeqCst);
    }
    let _ = (to.shutdown(Shutdown::Both), from.shutdown(Shutdown::Both));
}
