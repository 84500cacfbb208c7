//! A change of very many files waits for a yes, and a yes is to one list.
//!
//! What was agreed to may be done, all of it or less: which node, at which path, on which side, deleted or replaced. A
//! pass that would do anything else beyond the limits holds again, however long ago somebody said yes to something.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};
use syncagent_protocol::{Code, Kind};
use syncagent_sync::Plan;
use syncagent_sync::guard::{self, Affected, Change, Direction, Held};

use super::Engine;
use crate::error::ClientError;

/// Changes that are listed one by one, at most ...
const MAX_LISTED: usize = 10_000;
/// ... and the bytes of their paths.
const MAX_LISTED_LEN: usize = 4 * 1024 * 1024;

/// What a pass was held for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct HeldChange {
    /// The file that would go, where it stands on that side.
    pub path: String,
    /// What would happen to it.
    pub change: HeldVerb,
    /// Where.
    pub side: Side,
}

/// What would happen to a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum HeldVerb {
    /// It would go.
    Deleted,
    /// Its content would be another.
    Replaced,
}

/// Where files would go.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Side {
    /// In this folder, because other machines did so.
    Here,
    /// In the vault, and with it on all other machines, because this folder has changed so.
    Vault,
}

impl HeldVerb {
    /// The word.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Deleted => "deleted",
            Self::Replaced => "replaced",
        }
    }
}

impl Side {
    /// For people.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Here => "in this folder",
            Self::Vault => "on all other machines",
        }
    }
}

/// One change of one file, as it was agreed to: a hash, so that a list of any length takes little memory.
type Item = [u8; 32];

/// What the last pass waits with.
pub(super) struct Waiting {
    items: BTreeSet<Item>,
    /// The first of them.
    pub(super) listed: Vec<HeldChange>,
}

impl Waiting {
    pub(super) fn total(&self) -> u64 {
        self.items.len() as u64
    }
}

/// What somebody said yes to.
#[derive(Default)]
pub(super) enum Consent {
    #[default]
    Nothing,
    /// Whatever the pass that comes now would do.
    ThisPass,
    /// These changes and no others.
    To(BTreeSet<Item>),
}

impl Engine {
    /// Says yes to whatever the next pass would change, and only the next one: for somebody who asks for both at once.
    pub fn allow_mass_change(&mut self) {
        self.consent = Consent::ThisPass;
    }

    /// Says yes to exactly what the last pass waits with. To how many changes; 0 if nothing waits, and then it was a yes
    /// to nothing.
    pub fn agree_to_held(&mut self) -> u64 {
        let Some(waiting) = &self.waiting else {
            return 0;
        };
        self.consent = Consent::To(waiting.items.clone());
        waiting.total()
    }

    /// After a pass. What was agreed to and not all done, because the server went away, still may be.
    pub(super) fn use_up_consent(&mut self, ended_well: bool) {
        if ended_well || matches!(self.consent, Consent::ThisPass) {
            self.consent = Consent::Nothing;
        }
    }

    /// A pass that would delete or replace very many files waits for a person.
    pub(super) fn brake(&mut self, plan: &Plan) -> Result<(), ClientError> {
        let on_disk = self.ancestor.count(Kind::File) + self.ancestor.count(Kind::Symlink);
        let held = guard::check(
            plan,
            &self.placed,
            on_disk as u64,
            &guard::Limits::default(),
        );
        if held.is_empty() {
            return Ok(());
        }
        let items = items(&held);
        match &self.consent {
            Consent::ThisPass => return Ok(()),
            Consent::To(agreed) if items.is_subset(agreed) => return Ok(()),
            _ => {}
        }
        // If there was a yes, it was to something else.
        self.consent = Consent::Nothing;
        let message = message(&held);
        self.waiting = Some(Waiting {
            items,
            listed: listed(&held),
        });
        Err(ClientError::Held {
            code: Code::Brake,
            message,
        })
    }
}

fn items(held: &[Held]) -> BTreeSet<Item> {
    let all = held.iter().flat_map(|held| {
        let items = held.affected.iter();
        items.map(|affected| item(held.direction, affected))
    });
    all.collect()
}

fn item(direction: Direction, affected: &Affected) -> Item {
    let side = match direction {
        Direction::OnDisk => 0,
        Direction::InVault => 1,
    };
    let change = match affected.change {
        Change::Deleted => 0,
        Change::Replaced => 1,
    };
    let mut hasher = blake3::Hasher::new();
    hasher.update(&[side, change]);
    hasher.update(&affected.node.0);
    hasher.update(affected.path.as_str().as_bytes());
    *hasher.finalize().as_bytes()
}

fn listed(held: &[Held]) -> Vec<HeldChange> {
    let all = held.iter().flat_map(|held| {
        let side = match held.direction {
            Direction::OnDisk => Side::Here,
            Direction::InVault => Side::Vault,
        };
        held.affected.iter().map(move |affected| HeldChange {
            path: affected.path.as_str().to_owned(),
            change: match affected.change {
                Change::Deleted => HeldVerb::Deleted,
                Change::Replaced => HeldVerb::Replaced,
            },
            side,
        })
    });
    let mut len = 0;
    all.take(MAX_LISTED)
        .take_while(|change| {
            len += change.path.len();
            len <= MAX_LISTED_LEN
        })
        .collect()
}

fn message(held: &[Held]) -> String {
    let sides: Vec<_> = held
        .iter()
        .map(|held| {
            let first = held.affected.first();
            let first = first.map(|affected| affected.path.to_string());
            let because = match held.direction {
                Direction::OnDisk => "in this folder, because other machines did so",
                Direction::InVault => "on all other machines, because this folder has changed so",
            };
            format!(
                "{} of {} files would be deleted or replaced {because} (the first is {})",
                held.affected.len(),
                held.files,
                first.unwrap_or_default()
            )
        })
        .collect();
    format!(
        "{}. Nothing was done. `syncagent status --held` lists them. If that is meant: `syncagent now --yes` while `syncagent sync` runs, else `syncagent sync --once --yes`",
        sides.join("; and ")
    )
}
