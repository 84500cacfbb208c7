//! Questions, and only to somebody who sits there: otherwise the flag that answers is named.

use std::io::{BufRead as _, Write as _};

use syncagent_protocol::Code;
use zeroize::Zeroizing;

use crate::context::Context;
use crate::failure::{Failure, Result};
use crate::output::on_terminal;
use crate::output::text::harmless;

/// A question that `--yes` answers.
pub(crate) fn yes(context: &Context, question: &str) -> Result<bool> {
    if context.global.yes {
        return Ok(true);
    }
    if !context.interactive {
        return Err(Failure::usage(format!(
            "{question} Nobody can be asked here: --yes answers"
        )));
    }
    let question = on_terminal(format!("{question} [y/N]"), &std::io::stderr());
    loop {
        let answer = line(&format!("{question} "))?;
        match answer.trim().to_lowercase().as_str() {
            "y" | "yes" => return Ok(true),
            "" | "n" | "no" => return Ok(false),
            _ => {}
        }
    }
}

/// A line typed in sight.
pub(crate) fn line(prompt: &str) -> Result<Zeroizing<String>> {
    let failed = |error| Failure::new(Code::Read, format!("cannot ask: {error}"));
    let mut stderr = std::io::stderr();
    stderr
        .write_all(harmless(prompt).as_bytes())
        .and_then(|()| stderr.flush())
        .map_err(failed)?;
    let mut text = Zeroizing::new(String::new());
    match std::io::stdin()
        .lock()
        .read_line(&mut text)
        .map_err(failed)?
    {
        0 => Err(Failure::usage("stopped: there was no answer")),
        _ => Ok(text),
    }
}

/// A line typed out of sight.
pub(crate) fn hidden(prompt: &str) -> Result<Zeroizing<String>> {
    rpassword::prompt_password(prompt)
        .map(Zeroizing::new)
        .map_err(|error| Failure::new(Code::Locked, format!("cannot ask for a password: {error}")))
}
