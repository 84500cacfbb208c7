//! Takes a machine out of the vault, in the log, where the others see it and the server cannot take it back.

use syncagent_protocol::{Code, MachineId};
use syncagent_vault::op::Draft;

use super::Engine;
use crate::error::ClientError;
use crate::home::PendingRemoval;
use crate::remote::{Posted, RemoteError};

/// This machine was removed.
pub(super) fn removed() -> ClientError {
    ClientError::Remote(RemoteError::Refused {
        code: Code::Revoked,
        message: "this machine was removed from the vault".into(),
    })
}

impl Engine {
    /// Signs the removal of `machine`; the server ends its token in the same transaction. Returns the position of
    /// the commit that removed it, which may be an earlier one.
    pub async fn remove_machine(&mut self, machine: MachineId) -> Result<u64, ClientError> {
        for _ in 0..super::MAX_ROUNDS {
            self.pull().await?;
            if let Some(n) = self.index.revoked_n(machine)? {
                return Ok(n);
            }
            self.post_own_affairs().await?;
            let sealed = self.seal(vec![Draft::machine_revoke(machine)], |_| Vec::new())?;
            match self.post_order(&sealed).await? {
                Posted::Accepted => return Ok(self.head.n),
                Posted::Conflict(_) => {}
                Posted::Missing(_) => {
                    return Err(ClientError::Halted {
                        code: Code::Commit,
                        message: "the server wants chunks for a commit that names none".into(),
                    });
                }
            }
        }
        Err(ClientError::Busy(
            "other machines are writing all the time: try again".into(),
        ))
    }

    /// The removals that a union left behind and that are still to be signed again. Those that the log has are settled.
    pub(super) fn removals_due(&mut self) -> Result<Vec<Draft>, ClientError> {
        let mut due = Vec::new();
        let mut done = Vec::new();
        for removal in self.credentials.pending_removals.clone() {
            match self.index.revoked_n(removal.machine)? {
                Some(n) => done.push((removal, n)),
                None => due.push(Draft::machine_revoke(removal.machine)),
            }
        }
        for (removal, n) in done {
            let PendingRemoval {
                machine,
                name,
                since_n,
            } = removal;
            let since = self.index.commits_after(since_n)?;
            let written = since.iter().filter(|commit| commit.machine == machine);
            let written = written.count();
            let written = match written {
                0 => "It has written nothing meanwhile".to_owned(),
                n => format!(
                    "It has written {n} times meanwhile, after position {since_n}: if it is not in your hands, look at what changed since"
                ),
            };
            self.notice(format!(
                "machine '{name}', whose removal the server had lost, is removed again at position {n}. {written}"
            ));
            self.note(|credentials| {
                credentials
                    .pending_removals
                    .retain(|p| p.machine != machine)
            })?;
        }
        Ok(due)
    }
}
