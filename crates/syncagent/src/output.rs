//! What a person or a script gets to see. Results go to stdout, everything else to stderr.

pub(crate) mod progress;
pub(crate) mod text;

use std::ffi::OsString;
use std::io::{IsTerminal, Write as _};

use serde::Serialize;
use syncagent_protocol::Code;

use crate::cli::Global;
use crate::failure::{Failure, Result};

/// Where results and remarks go.
#[derive(Clone, Debug)]
pub(crate) struct Output {
    json: bool,
    quiet: bool,
}

impl Output {
    pub(crate) fn new(global: &Global) -> Self {
        Self {
            json: global.json,
            quiet: global.quiet,
        }
    }

    /// For words that were not understood: nobody knows more of them than whether one asks for JSON.
    pub(crate) fn of(arguments: &[OsString]) -> Self {
        let mut flags = arguments.iter().take_while(|word| *word != "--");
        Self {
            json: flags.any(|word| word == "--json"),
            quiet: false,
        }
    }

    /// Whether a script reads.
    pub(crate) fn is_json(&self) -> bool {
        self.json
    }

    pub(crate) fn is_quiet(&self) -> bool {
        self.quiet
    }

    /// The one result of a command: as JSON, or as text made only then.
    pub(crate) fn result(&self, json: &impl Serialize, text: impl FnOnce() -> String) -> Result {
        match self.json {
            true => self.json_line(json),
            false => self.text(&text::harmless(&text())),
        }
    }

    /// The same for text that may hold colours, or content as it is: whoever makes it sees to it that it is harmless.
    pub(crate) fn result_as_it_is(
        &self,
        json: &impl Serialize,
        text: impl FnOnce() -> String,
    ) -> Result {
        match self.json {
            true => self.json_line(json),
            false => self.text(&text()),
        }
    }

    /// The same for sentences: on a terminal they are wrapped at words.
    pub(crate) fn sentences(&self, json: &impl Serialize, text: impl FnOnce() -> String) -> Result {
        self.result(json, || on_terminal(text(), &std::io::stdout()))
    }

    /// A line of JSON.
    pub(crate) fn json_line(&self, json: &impl Serialize) -> Result {
        let line = serde_json::to_string(json)
            .map_err(|error| Failure::new(Code::State, error.to_string()))?;
        print(&format!("{}\n", text::harmless_json(&line)))
    }

    /// Text for stdout, exactly; a line break is added if there is none.
    pub(crate) fn text(&self, text: &str) -> Result {
        let end = if text.is_empty() || text.ends_with('\n') {
            ""
        } else {
            "\n"
        };
        print(&format!("{text}{end}"))
    }

    /// A remark for the person in front of the terminal.
    pub(crate) fn remark(&self, text: &str) {
        if !self.quiet {
            eprintln!("{}", on_terminal(text.to_owned(), &std::io::stderr()));
        }
    }

    /// The error that ends a command.
    pub(crate) fn failure(&self, failure: &Failure) {
        #[derive(Serialize)]
        struct Shape<'a> {
            error: Inner<'a>,
        }
        #[derive(Serialize)]
        struct Inner<'a> {
            code: Code,
            message: &'a str,
            exit: u8,
        }
        let text = format!("error[{}]: {}", failure.code, failure.message);
        eprintln!("{}", on_terminal(text, &std::io::stderr()));
        if self.json {
            let error = Inner {
                code: failure.code,
                message: &failure.message,
                exit: failure.code.exit(),
            };
            // Whether stdout can be written no longer matters.
            let _ = self.json_line(&Shape { error });
        }
    }
}

/// How many columns stdout has, if it is a terminal.
pub(crate) fn columns() -> Option<usize> {
    std::io::stdout().is_terminal().then(textwrap::termwidth)
}

/// Fits the width of a terminal, and steers none; for anything else a line stays a line.
pub(crate) fn on_terminal(text: String, out: &impl IsTerminal) -> String {
    let text = text::harmless(&text);
    match out.is_terminal() {
        true => text::wrapped(&text, textwrap::termwidth()),
        false => text.into_owned(),
    }
}

fn print(text: &str) -> Result {
    let mut stdout = std::io::stdout().lock();
    match stdout
        .write_all(text.as_bytes())
        .and_then(|()| stdout.flush())
    {
        // `syncagent ls | head` has seen enough.
        Err(error) if error.kind() == std::io::ErrorKind::BrokenPipe => Ok(()),
        Err(error) => Err(Failure::new(
            Code::Write,
            format!("cannot write to stdout: {error}"),
        )),
        Ok(()) => Ok(()),
    }
}
