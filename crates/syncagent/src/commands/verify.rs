//! `verify`: is everything that the server keeps whole?

use serde::Serialize;
use syncagent_client::engine::Verified;
use syncagent_protocol::Code;

use super::sync;
use crate::cli::PasswordArgs;
use crate::context::Context;
use crate::failure::Result;
use crate::output::progress::Progress;
use crate::output::text::{self, shown};
use crate::password;

pub(super) fn run(context: &Context, args: &PasswordArgs, sample: Option<usize>) -> Result<u8> {
    #[derive(Serialize)]
    struct Answer {
        #[serde(flatten)]
        verified: Verified,
        exit: u8,
    }
    let home = context.home()?;
    sync::is_set_up(context, &home)?;
    let key = password::open_key(context, &home, args)?;
    let mut progress = Progress::new(context);
    let verified = context.block_on(async {
        let mut preview = sync::open_to_look(context, &home, key)?;
        let mut told = |done, total| progress.show("reading", done, total);
        Ok(preview.verify(sample, &mut told).await?)
    })?;
    drop(progress);
    let exit = match verified.bad.is_empty() {
        true => 0,
        false => Code::Chunk.exit(),
    };
    for bad in &verified.bad {
        for file in &bad.files {
            let which = match file.current {
                true => String::new(),
                false => format!(", version {}", file.version),
            };
            let (path, why) = (shown(&file.path), &bad.why);
            context
                .output
                .remark(&format!("{}: {path}{which}: {why}", Code::Chunk));
        }
    }
    let answer = Answer { verified, exit };
    context
        .output
        .result(&answer, || summary(&answer.verified))?;
    Ok(exit)
}

fn summary(verified: &Verified) -> String {
    let of = match verified.read < verified.chunks {
        true => format!(" of {}", verified.chunks),
        false => String::new(),
    };
    let read = format!(
        "read {}{of} chunks, {} of content",
        verified.read,
        text::size(verified.bytes)
    );
    match verified.bad.len() as u64 {
        0 => format!("whole: {read}"),
        bad => format!(
            "{} of them cannot be used: {read}",
            text::count(bad, "chunk")
        ),
    }
}
