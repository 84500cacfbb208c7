//! A TCP relay on loopback that counts what goes through.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;

use anyhow::{Context, Result};

/// Stops accepting when it is dropped; connections end when either side's does.
pub(super) struct Relay {
    pub(super) port: u16,
    bytes: Arc<AtomicU64>,
    closed: Arc<AtomicBool>,
}

impl Relay {
    /// In front of a port of this machine.
    pub(super) fn start(target: u16) -> Result<Self> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).context("cannot listen")?;
        let port = listener.local_addr()?.port();
        let (bytes, closed) = (
            Arc::new(AtomicU64::new(0)),
            Arc::new(AtomicBool::new(false)),
        );
        let (counter, ended) = (Arc::clone(&bytes), Arc::clone(&closed));
        thread::spawn(move || {
            for near in listener.incoming() {
                if ended.load(Ordering::SeqCst) {
                    break;
                }
                // Whoever connects sees that it failed when its own connection closes.
                if let Ok(near) = near {
                    let _ = join(near, target, &counter);
                }
            }
        });
        Ok(Self {
            port,
            bytes,
            closed,
        })
    }

    /// All bytes so far, in both directions.
    pub(super) fn bytes(&self) -> u64 {
        self.bytes.load(Ordering::SeqCst)
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        self.closed.store(true, Ordering::SeqCst);
        let _ = TcpStream::connect(SocketAddr::from((Ipv4Addr::LOCALHOST, self.port)));
    }
}

fn join(near: TcpStream, target: u16, counter: &Arc<AtomicU64>) -> Result<()> {
    let far = TcpStream::connect((Ipv4Addr::LOCALHOST, target))?;
    for stream in [&near, &far] {
        stream.set_nodelay(true)?;
    }
    for (from, to) in [(near.try_clone()?, far.try_clone()?), (far, near)] {
        let counter = Arc::clone(counter);
        thread::spawn(move || pump(from, to, &counter));
    }
    Ok(())
}

fn pump(mut from: TcpStream, mut to: TcpStream, counter: &AtomicU64) {
    let mut buffer = vec![0; 256 << 10];
    while let Ok(count @ 1..) = from.read(&mut buffer) {
        counter.fetch_add(count as u64, Ordering::SeqCst);
        if to.write_all(&buffer[..count]).is_err() {
            break;
        }
    }
    let _ = to.shutdown(Shutdown::Write);
}
