//! Tells the sockets of a vault what happened to it. Hints only: whoever misses one loses time, never truth.
//!
//! One process for now. Several processes on one database will feed this hub from the database.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};

use syncagent_protocol::MachineId;
use tokio::sync::broadcast;

use crate::catalog::VaultKey;

/// Notes a slow listener may fall behind before it is told to look at the head instead.
const CAPACITY: usize = 64;

/// What happened to a vault.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Note {
    /// The log has grown to this position.
    Head(u64),
    /// This machine was removed.
    Revoked(MachineId),
}

/// One broadcast channel for each vault that somebody listens to.
#[derive(Debug, Default)]
pub struct Hub {
    vaults: Mutex<HashMap<VaultKey, broadcast::Sender<Note>>>,
}

impl Hub {
    /// Listens to `vault` from now on.
    pub fn listen(&self, vault: VaultKey) -> broadcast::Receiver<Note> {
        let mut vaults = self.vaults.lock().unwrap_or_else(PoisonError::into_inner);
        vaults
            .entry(vault)
            .or_insert_with(|| broadcast::channel(CAPACITY).0)
            .subscribe()
    }

    /// Tells everybody who listens to `vault`.
    pub fn tell(&self, vault: VaultKey, note: Note) {
        let mut vaults = self.vaults.lock().unwrap_or_else(PoisonError::into_inner);
        // An error means that the last listener is gone: forget the channel, so that the map stays small.
        if vaults
            .get(&vault)
            .is_some_and(|sender| sender.send(note).is_err())
        {
            vaults.remove(&vault);
        }
    }
}
