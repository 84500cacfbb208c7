//! `fingerprint`: six words for the head, to compare between machines.

use serde::Serialize;
use syncagent_client::index::Index;
use syncagent_client::setup::{WORDS, fingerprint};
use syncagent_protocol::VaultId;
use syncagent_protocol::api::Head;

use crate::context::Context;
use crate::failure::{Failure, Result};

#[derive(Serialize)]
struct Answer {
    words: [String; WORDS],
    vault: VaultId,
    head: Head,
}

pub(super) fn run(context: &Context) -> Result {
    let home = context.home()?;
    let vault = context.vault(&home)?;
    let head = match home.state_path().exists() {
        true => Index::open(&home.state_path())?.position()?,
        false => None,
    };
    let head = head.ok_or_else(|| {
        Failure::setup("nothing was synchronised yet: run `syncagent sync` first")
    })?;
    let words = fingerprint(vault, head);
    let shown = format!("{}  (position {})", words.join(" "), head.n);
    context
        .output
        .result(&Answer { words, vault, head }, || shown)?;
    context.output.remark("Two machines at the same position show the same words, or somebody shows them different histories.");
    Ok(())
}
