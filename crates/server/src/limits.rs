//! Every bound on what a client may cost. With all of them reached at once the server stays near 100 MiB.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// Longest JSON body.
pub(crate) const MAX_JSON_LEN: usize = 16 * 1024;
/// Most chunks in one pack.
pub(crate) const MAX_PACK_CHUNKS: usize = 8192;
/// Most bytes of child ids in one pack: four times what a pack of the usual size can hold.
pub(crate) const MAX_PACK_CHILDREN_LEN: usize = 4 * 1024 * 1024;
/// Bytes of child ids that every pack may have without waiting for room.
pub(crate) const FREE_PACK_CHILDREN_LEN: usize = 256 * 1024;
/// How long a body may stand still.
pub(crate) const BODY_IDLE: Duration = Duration::from_secs(30);
/// How long a request may take until its answer begins.
pub(crate) const REQUEST_TIME: Duration = Duration::from_secs(600);
/// How long a request waits for its turn before it is asked to come again.
pub(crate) const TURN_TIME: Duration = Duration::from_secs(60);
/// How much of an unread body is read after an early answer, and for how long.
pub(crate) const DRAIN_LEN: usize = 32 * 1024 * 1024;
/// See [`DRAIN_LEN`].
pub(crate) const DRAIN_TIME: Duration = Duration::from_secs(5);
/// Connections at once.
pub(crate) const MAX_CONNECTIONS: usize = 512;
/// How long a client may take to send the head of a request; also how long an idle connection is kept.
pub(crate) const HEADER_TIME: Duration = Duration::from_secs(60);
/// How long a client may take to agree on keys.
pub(crate) const HANDSHAKE_TIME: Duration = Duration::from_secs(10);
/// What hyper may buffer of one connection, and TLS once more of what is sent.
pub(crate) const CONNECTION_BUFFER_LEN: usize = 64 * 1024;
/// How long an invitation is good.
pub(crate) const INVITATION_MS: u64 = 24 * 60 * 60 * 1000;
/// How long the first connection waits for packs and catalog to be compared. A disk lists some terabytes of packs in that time.
/// A store that takes longer is compared beside the requests, which until then believe the catalog, as they have to at any
/// other time.
pub(crate) const COMPARISON_TIME: Duration = Duration::from_secs(10);
/// Length of the pieces in which packs are written and chunks are read.
pub(crate) const PIECE_LEN: usize = 256 * 1024;
/// Time between pings on a socket.
pub(crate) const PING: Duration = Duration::from_secs(25);
/// Silence after which a socket is closed.
pub(crate) const SILENCE: Duration = Duration::from_secs(75);

const UPLOADS: usize = 48;
const DOWNLOADS: usize = 48;
/// Room for one commit of the longest kind, as it came and as it is kept.
const ROOM_KIB: u32 = 33 * 1024;

/// The turns that are handed out.
#[derive(Debug)]
pub(crate) struct Limits {
    uploads: Arc<Semaphore>,
    downloads: Arc<Semaphore>,
    room_kib: Arc<Semaphore>,
    failures: Mutex<HashMap<IpAddr, Bucket>>,
}

/// A turn; given back when dropped.
pub(crate) type Turn = OwnedSemaphorePermit;

impl Default for Limits {
    fn default() -> Self {
        Self {
            uploads: Arc::new(Semaphore::new(UPLOADS)),
            downloads: Arc::new(Semaphore::new(DOWNLOADS)),
            room_kib: Arc::new(Semaphore::new(ROOM_KIB as usize)),
            failures: Mutex::default(),
        }
    }
}

impl Limits {
    /// A turn to send a pack; none if the wait is too long.
    pub(crate) async fn upload(&self) -> Option<Turn> {
        turn(&self.uploads, 1).await
    }

    /// A turn to be sent a stream.
    pub(crate) async fn download(&self) -> Option<Turn> {
        turn(&self.downloads, 1).await
    }

    /// Room in memory for `len` bytes of something long: a commit, or the ids of very many list chunks.
    pub(crate) async fn room(&self, len: usize) -> Option<Turn> {
        let kib = u32::try_from(len.div_ceil(1024))
            .unwrap_or(ROOM_KIB)
            .min(ROOM_KIB);
        turn(&self.room_kib, kib).await
    }

    /// Whether `address` failed to register too often of late.
    pub(crate) fn may_register(&self, address: IpAddr, now_ms: u64) -> bool {
        let mut failures = self.failures.lock().unwrap_or_else(PoisonError::into_inner);
        failures
            .get_mut(&address)
            .is_none_or(|bucket| bucket.level(now_ms) < Bucket::SIZE)
    }

    /// Notes a failed registration.
    pub(crate) fn registration_failed(&self, address: IpAddr, now_ms: u64) {
        let mut failures = self.failures.lock().unwrap_or_else(PoisonError::into_inner);
        if failures.len() >= 4096 {
            failures.retain(|_, bucket| bucket.level(now_ms) > 0);
            if failures.len() >= 4096 {
                failures.clear();
            }
        }
        let bucket = failures.entry(address).or_insert(Bucket {
            level: 0,
            since_ms: now_ms,
        });
        bucket.level = bucket.level(now_ms) + 1;
    }
}

async fn turn(semaphore: &Arc<Semaphore>, n: u32) -> Option<Turn> {
    tokio::time::timeout(TURN_TIME, Arc::clone(semaphore).acquire_many_owned(n))
        .await
        .ok()?
        .ok()
}

/// Failures of one address, leaking one a second.
#[derive(Debug)]
struct Bucket {
    level: u64,
    since_ms: u64,
}

impl Bucket {
    const SIZE: u64 = 60;

    fn level(&mut self, now_ms: u64) -> u64 {
        let leaked = now_ms.saturating_sub(self.since_ms) / 1000;
        self.level = self.level.saturating_sub(leaked);
        self.since_ms = if self.level == 0 {
            now_ms
        } else {
            self.since_ms + leaked * 1000
        };
        self.level
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn failures_leak_away() {
        let limits = Limits::default();
        let address = IpAddr::from([127, 0, 0, 1]);
        for _ in 0..Bucket::SIZE {
            assert!(limits.may_register(address, 5_000));
            limits.registration_failed(address, 5_000);
        }
        assert!(!limits.may_register(address, 5_999));
        assert!(limits.may_register(address, 6_000));
        assert!(limits.may_register(IpAddr::from([127, 0, 0, 2]), 5_000));
    }
}
