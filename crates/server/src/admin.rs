//! What whoever looks after a server may do to its vaults. None of it needs a key, and none of it is served.

use std::fs::File;

use futures_util::FutureExt as _;
use syncagent_protocol::VaultId;

use crate::app::{OpenError, open_catalog};
use crate::catalog::sqlite::SqliteCatalog;
use crate::catalog::{Answer, Catalog, CatalogError, CommitRow, Vault};
use crate::data_dir::{DataDir, Places};
use crate::work::Work;

/// How long a vault counts as restored from a backup.
pub const RESTORED_MS: u64 = 30 * 24 * 3_600_000;

/// One vault of a server.
pub struct Admin {
    catalog: SqliteCatalog,
    places: Places,
    vault: Vault,
    /// Keeps servers from starting; none beside a running one.
    _lock: Option<Vec<File>>,
}

impl Admin {
    /// A vault of the server in these places, which may be running.
    pub fn beside(places: Places, vault: Option<VaultId>) -> Result<Self, OpenError> {
        Self::open(places, vault, false)
    }

    /// The same, while no server runs there: none is started until this is dropped.
    pub fn alone(places: Places, vault: Option<VaultId>) -> Result<Self, OpenError> {
        Self::open(places, vault, true)
    }

    fn open(places: Places, vault: Option<VaultId>, alone: bool) -> Result<Self, OpenError> {
        if !places.database.exists() {
            return Err(OpenError::Nothing(places.database));
        }
        let directory_error = |error| OpenError::Directory {
            path: places.data.clone(),
            error,
        };
        let data = DataDir::create(&places).map_err(directory_error)?;
        let lock = match alone {
            true => {
                let lock = data.lock().map_err(directory_error)?;
                Some(lock.ok_or_else(|| OpenError::Busy(places.data.clone()))?)
            }
            false => None,
        };
        let catalog = open_catalog(&data, &places.data, Work::Inline)?;
        let vaults = now(&places, catalog.vaults())?;
        let mut found = vaults
            .into_iter()
            .filter(|found| vault.is_none() || found.vid == vault);
        let vault = match (found.next(), found.next()) {
            (Some(vault), None) => vault,
            (None, _) => return Err(OpenError::Vault("there is no such vault".to_owned())),
            (Some(_), Some(_)) => {
                return Err(OpenError::Vault(
                    "there are several vaults: say which one with --vault".to_owned(),
                ));
            }
        };
        Ok(Self {
            catalog,
            places,
            vault,
            _lock: lock,
        })
    }

    /// The vault.
    pub fn vault(&self) -> Vault {
        self.vault
    }

    /// Until when the vault counts as restored from a backup; 0 ends it.
    pub fn set_restored(&self, until_ms: u64) -> Result<(), OpenError> {
        now(
            &self.places,
            self.catalog.set_restored(self.vault.key, until_ms),
        )
    }

    /// The commits after `n`.
    pub fn tail(&self, n: u64) -> Result<Vec<CommitRow>, OpenError> {
        now(&self.places, self.catalog.tail(self.vault.key, n))
    }

    /// Removes the commits after `to`. How many there were.
    pub fn cut(&self, to: u64) -> Result<u64, OpenError> {
        now(&self.places, self.catalog.cut(self.vault.key, to))
    }
}

/// Inline work never waits: the future is ready when it is first looked at.
fn now<T>(places: &Places, answer: Answer<'_, T>) -> Result<T, OpenError> {
    answer
        .now_or_never()
        .unwrap_or(Err(CatalogError::Busy))
        .map_err(|error| OpenError::Catalog {
            path: places.data.clone(),
            error,
        })
}
