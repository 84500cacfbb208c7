//! Sealed chunks into packs, packs to the server, several at once.

use std::collections::HashSet;
use std::sync::Arc;

use bytes::Bytes;
use syncagent_protocol::ChunkId;
use syncagent_protocol::crash::{Point, point};
use syncagent_protocol::pack::{PACK_HEADER, TARGET_PACK_LEN, push_framed};
use syncagent_vault::chunk::Sealed;
use tokio::task::{JoinError, JoinSet};

use crate::remote::{Remote, RemoteError};

/// Packs on their way at one time: what has to be sent again after a crash, at most.
pub const PACKS_IN_FLIGHT: usize = 3;

/// A pack that the server acknowledged: durable there.
pub type Acknowledged = Vec<ChunkId>;

/// Fills packs and sends them. Memory: [`PACKS_IN_FLIGHT`] packs and the one being filled.
pub struct Uploader {
    remote: Arc<dyn Remote>,
    pack: Vec<u8>,
    pack_ids: Vec<ChunkId>,
    /// Chunks in packs of this uploader: the same content twice is sent once.
    sent: HashSet<ChunkId>,
    in_flight: JoinSet<Result<Acknowledged, RemoteError>>,
    acknowledged: Vec<ChunkId>,
    bytes: u64,
}

impl Uploader {
    /// An uploader with nothing to send.
    pub fn new(remote: Arc<dyn Remote>) -> Self {
        Self {
            remote,
            pack: Vec::new(),
            pack_ids: Vec::new(),
            sent: HashSet::new(),
            in_flight: JoinSet::new(),
            acknowledged: Vec::new(),
            bytes: 0,
        }
    }

    /// Adds a chunk, unless it was added before. Waits while enough packs are on their way.
    pub async fn add(&mut self, chunk: &Sealed) -> Result<(), RemoteError> {
        if !self.sent.insert(chunk.entry.id) {
            return Ok(());
        }
        while let Some(ended) = self.in_flight.try_join_next() {
            self.ended(ended)?;
        }
        if self.pack.len() + 4 + chunk.blob.len() > TARGET_PACK_LEN && !self.pack_ids.is_empty() {
            self.dispatch().await?;
        }
        if self.pack.is_empty() {
            self.pack.extend_from_slice(&PACK_HEADER);
        }
        push_framed(&mut self.pack, &chunk.blob);
        self.pack_ids.push(chunk.entry.id);
        Ok(())
    }

    async fn dispatch(&mut self) -> Result<(), RemoteError> {
        while self.in_flight.len() >= PACKS_IN_FLIGHT {
            self.reap().await?;
        }
        point(Point::PackReady);
        let pack = Bytes::from(std::mem::take(&mut self.pack));
        let ids = std::mem::take(&mut self.pack_ids);
        self.bytes += pack.len() as u64;
        let remote = Arc::clone(&self.remote);
        self.in_flight
            .spawn(async move { remote.post_pack(pack).await.map(|()| ids) });
        Ok(())
    }

    async fn reap(&mut self) -> Result<(), RemoteError> {
        match self.in_flight.join_next().await {
            Some(ended) => self.ended(ended),
            None => Ok(()),
        }
    }

    fn ended(
        &mut self,
        ended: Result<Result<Acknowledged, RemoteError>, JoinError>,
    ) -> Result<(), RemoteError> {
        match ended {
            Ok(result) => {
                self.acknowledged.extend(result?);
                point(Point::PackAcknowledged);
            }
            Err(error) if error.is_panic() => std::panic::resume_unwind(error.into_panic()),
            Err(_) => {}
        }
        Ok(())
    }

    /// Sends what is left and waits until everything is durable on the server.
    pub async fn flush(&mut self) -> Result<(), RemoteError> {
        if !self.pack_ids.is_empty() {
            self.dispatch().await?;
        }
        while !self.in_flight.is_empty() {
            self.reap().await?;
        }
        Ok(())
    }

    /// The chunks acknowledged since the last call: to be noted, so that a restart does not send them again.
    pub fn take_acknowledged(&mut self) -> Acknowledged {
        std::mem::take(&mut self.acknowledged)
    }

    /// Bytes sent so far.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }
}
