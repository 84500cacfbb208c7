//! Takes a machine out of the vault, in the log, where the others see it and the server cannot take it back.

use syncagent_protocol::{Code, MachineId};
use syncagent_vault::op::Draft;

use super::Engine;
use crate::error::ClientError;
use crate::remote::Posted;

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
            match self.post(&sealed).await? {
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
}
