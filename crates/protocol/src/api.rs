//! The shapes of the HTTP API (docs/protocol.md). Routes stand here once, for client, server and tests.

use serde::{Deserialize, Serialize};

use crate::code::Code;
use crate::ids::{ChunkId, CommitHash, MachineId, VaultId};

/// Media type of commits, packs and chunks.
pub const OCTETS: &str = "application/octet-stream";
/// Media type of errors (RFC 9457).
pub const PROBLEM: &str = "application/problem+json";

/// Path of registration.
pub const REGISTER: &str = "/api/v1/register";
/// Path of the machines' event socket.
pub const EVENTS: &str = "/ws/events";
/// Path that answers 200 when the server is ready.
pub const HEALTH: &str = "/healthz";

/// Response header of a page of commits: position of the last commit of the log.
pub const HEAD_HEADER: &str = "syncagent-head";
/// Header of an answer with commits: the hash of the commit after which they were asked for, if there is one.
pub const AFTER_HEADER: &str = "syncagent-after";
/// Most bytes of commits in one page; a single longer commit still makes a page of its own.
pub const MAX_COMMIT_PAGE_LEN: usize = 16 * 1024 * 1024;
/// Length of a key slot as the server holds it.
pub const SLOT_LEN: usize = 172;
/// The state words a machine may report.
pub const STATES: [&str; 9] = [
    "idle", "syncing", "error", "conflict", "offline", "paused", "locked", "held", "halted",
];

/// `/api/v1/vaults/{vault}/{resource}`.
pub fn vault_path(vault: VaultId, resource: &str) -> String {
    format!("/api/v1/vaults/{vault}/{resource}")
}

/// An error as the server reports it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Problem {
    /// The stable code.
    pub code: Code,
    /// The HTTP status, repeated as RFC 9457 asks.
    pub status: u16,
    /// One sentence.
    pub title: String,
    /// What to do, or which thing is meant.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub detail: String,
    /// With `E_CONFLICT`: the head that stands.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub head: Option<Head>,
    /// With `E_MISSING`: the chunks to upload first.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub missing: Vec<ChunkId>,
}

/// The end of the log.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Head {
    /// Position of the last commit; 0 before the first.
    pub n: u64,
    /// Its hash; `hash_0` of the vault before the first.
    pub hash: CommitHash,
}

/// What a machine sends with an invitation.
#[derive(Clone, Serialize, Deserialize)]
pub struct RegisterRequest {
    /// The invitation's text.
    pub invitation: String,
    /// Ed25519 public key, 64 hexadecimal digits.
    pub public_key: String,
    /// Name of the machine, `^[A-Za-z0-9_-]{3,32}$`.
    pub name: String,
    /// Operating system, for people.
    pub platform: String,
    /// Signature over [`register_message`] under the key, 128 hexadecimal digits.
    pub signature: String,
}

/// What a registering machine signs, so that nobody can register a key they do not hold.
pub fn register_message(invitation_hash: &[u8; 32], name: &str) -> Vec<u8> {
    [
        b"SyncAgent/v1/register\0",
        invitation_hash.as_slice(),
        name.as_bytes(),
    ]
    .concat()
}

/// The answer to a registration.
#[derive(Clone, Serialize, Deserialize)]
pub struct RegisterResponse {
    /// The bearer token, 64 hexadecimal digits. Shown once, kept hashed by the server.
    pub token: String,
    /// The machine's id, derived from its key.
    pub machine: MachineId,
    /// The vault, if its first commit was made.
    pub vault: Option<VaultId>,
    /// The vault's head, if there is a vault.
    pub head: Option<Head>,
}

/// The answer to an uploaded pack.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct PackReceipt {
    /// Chunks that are kept now and were not before.
    pub stored: u32,
    /// Chunks that were there already, or came twice; they are not stored again.
    pub known: u32,
}

/// The answer to `GET machines`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Machines {
    /// Every machine that ever registered, in order of name, removed ones last.
    pub machines: Vec<Machine>,
}

/// A machine as the server lists it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Machine {
    /// Derived from its key.
    pub id: MachineId,
    /// Its name.
    pub name: String,
    /// Operating system.
    pub platform: String,
    /// When it was last heard of, milliseconds since 1970.
    pub last_seen_ms: u64,
    /// Whether its token was taken away.
    pub revoked: bool,
    /// State word it last reported (`idle`, `syncing`, ...), empty if none.
    #[serde(default)]
    pub state: String,
    /// Position up to which it has everything.
    #[serde(default)]
    pub synced_n: u64,
    /// Number of files exactly in sync there.
    #[serde(default)]
    pub files: u64,
}

/// What a machine reports of itself: state word and counters only.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct MachineReport {
    /// One of the nine state words.
    pub state: String,
    /// Position up to which it has everything.
    pub synced_n: u64,
    /// Number of files exactly in sync.
    pub files: u64,
}

/// A message on the event socket. A hint: it causes a verified fetch, never a change of state.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum Event {
    /// The log has grown to at least `n`.
    Head {
        /// Position of the last commit.
        n: u64,
    },
}

/// Whether `name` may be the name of a machine: `^[A-Za-z0-9_-]{3,32}$`.
pub fn is_machine_name(name: &str) -> bool {
    (3..=32).contains(&name.len())
        && name
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || b == b'_' || b == b'-')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn machine_names() {
        for good in ["abc", "Laptop_2-x", &"a".repeat(32)] {
            assert!(is_machine_name(good));
        }
        for bad in ["", "ab", "a b c", "ümlaut", &"a".repeat(33), "abc\n"] {
            assert!(!is_machine_name(bad));
        }
    }

    #[test]
    fn problems_leave_out_what_is_not_meant() {
        let problem = Problem {
            code: Code::Auth,
            status: 401,
            title: "t".into(),
            detail: String::new(),
            head: None,
            missing: vec![],
        };
        assert_eq!(
            serde_json::to_value(&problem).unwrap(),
            serde_json::json!({"code": "E_AUTH", "status": 401, "title": "t"})
        );
    }

    #[test]
    fn a_path_names_its_vault() {
        let path = vault_path(VaultId([0xab; 16]), "commits");
        assert_eq!(path, format!("/api/v1/vaults/{}/commits", "ab".repeat(16)));
    }

    #[test]
    fn a_registration_is_signed_for_one_invitation_and_one_name() {
        let message = register_message(&[1; 32], "abc");
        assert!(message.starts_with(b"SyncAgent/v1/register\0") && message.ends_with(b"abc"));
        assert_ne!(message, register_message(&[2; 32], "abc"));
        assert_ne!(message, register_message(&[1; 32], "abd"));
    }
}
