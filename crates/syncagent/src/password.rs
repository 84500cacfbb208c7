//! Where a password comes from, and in which order it is looked for.
//!
//! [`ORDER`] says it. Where there is none, the flags are named.

use std::path::Path;
use std::process::Stdio;

use serde::Serialize;
use syncagent_client::agent;
use syncagent_client::home::Home;
use syncagent_client::keyring::{self, KeepError};
use syncagent_client::setup::{self, MIN_PASSWORD_CHARS};
use syncagent_protocol::Code;
use syncagent_vault::keys::VaultKey;
use syncagent_vault::slot::Password;
use zeroize::Zeroizing;

use crate::ask;
use crate::cli::PasswordArgs;
use crate::context::{Context, no_key};
use crate::failure::{Failure, Result};
use crate::shell;

/// What [`open_key`] tries, one after the other: the list in docs/cli.md.
pub(crate) const ORDER: [&str; 6] = [
    "`--password-file FILE`: its first line",
    "`--password-command COMMAND`: the first line of its output",
    "the file that `SYNCAGENT_PASSWORD_FILE` names",
    "`SYNCAGENT_PASSWORD_COMMAND`, or `password_command` in `config.toml`",
    "the key that `unlock` keeps, in keyring or memory",
    "a question on the terminal",
];

/// How often somebody may mistype the password before the command gives up.
const TRIES: u32 = 3;

pub(crate) type Text = Zeroizing<String>;

/// The vault key of this machine.
pub(crate) fn open_key(context: &Context, home: &Home, args: &PasswordArgs) -> Result<VaultKey> {
    if home.slot()?.is_none() {
        return Err(no_key());
    }
    if let Some(text) = given(context, home, args)? {
        return Ok(home.unlock(&Password::new(&text))?);
    }
    if let Some((key, _)) = kept(context, home)? {
        return Ok(key);
    }
    if !context.interactive {
        return Err(Failure::new(
            Code::Locked,
            "the key is locked and nobody can be asked. Run `syncagent unlock` first, or give --password-file, \
             --password-command or SYNCAGENT_PASSWORD_FILE",
        ));
    }
    let mut tries = TRIES;
    loop {
        tries -= 1;
        match home.unlock(&Password::new(&ask::hidden("Master password: ")?)) {
            Err(error) if error.code() == Code::Keyslot && tries > 0 => {
                context.output.remark("That is not it. Once more.");
            }
            result => return Ok(result?),
        }
    }
}

/// Where `unlock` keeps a key.
#[derive(Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Place {
    /// In the system's keyring.
    Keyring,
    /// In the memory of an agent.
    Agent,
}

/// The key that `unlock` keeps, if it does.
pub(crate) fn kept(context: &Context, home: &Home) -> Result<Option<(VaultKey, Place)>> {
    if keyring::is_kept(home) && context.config(home)?.keyring != Some(false) {
        let fetched = context
            .keyring()
            .map_err(KeepError::from)
            .and_then(|keyring| keyring::fetch(home, &*keyring));
        match fetched {
            Ok(Some(key)) => return Ok(Some((key, Place::Keyring))),
            Ok(None) => {}
            Err(KeepError::Keyring(error)) => context.output.remark(&format!(
                "The key that `unlock` keeps is out of reach: {error}."
            )),
            Err(KeepError::Client(error)) => return Err(error.into()),
        }
    }
    Ok(agent::fetch(home)?.map(|key| (key, Place::Agent)))
}

/// The master password of a vault that exists already, for a machine that has no key yet.
pub(crate) fn existing(context: &Context, home: &Home, args: &PasswordArgs) -> Result<Text> {
    match given(context, home, args)? {
        Some(text) => Ok(text),
        None if context.interactive => ask::hidden("Master password of the vault: "),
        None => Err(nobody("--password-file or --password-command")),
    }
}

/// A password that seals something new: long enough, and typed twice.
pub(crate) fn new(context: &Context, home: &Home, args: &PasswordArgs, what: &str) -> Result<Text> {
    match given(context, home, args)? {
        Some(text) => Ok(setup::check_password(&text).map(|()| text)?),
        None => asked_twice(context, what, "--password-file or --password-command"),
    }
}

/// A new password from a file, or typed twice.
pub(crate) fn new_from_file(
    context: &Context,
    file: Option<&Path>,
    what: &str,
    flag: &str,
) -> Result<Text> {
    match file {
        Some(file) => {
            let text = first_line_of(context, file)?;
            Ok(setup::check_password(&text).map(|()| text)?)
        }
        None => asked_twice(context, what, flag),
    }
}

/// A password from a file, or typed.
pub(crate) fn from_file(
    context: &Context,
    file: Option<&Path>,
    what: &str,
    flag: &str,
) -> Result<Text> {
    match file {
        Some(file) => first_line_of(context, file),
        None if context.interactive => ask::hidden(&format!("{what}: ")),
        None => Err(nobody(flag)),
    }
}

/// The first line of a file, without its end.
pub(crate) fn first_line_of(context: &Context, file: &Path) -> Result<Text> {
    let file = context.absolute(file);
    let text = std::fs::read_to_string(&file).map(Zeroizing::new);
    text.map(|text| first_line(&text)).map_err(Failure::file(
        Code::Locked,
        "read the password in",
        &file,
    ))
}

fn asked_twice(context: &Context, what: &str, flag: &str) -> Result<Text> {
    if !context.interactive {
        return Err(nobody(flag));
    }
    loop {
        let text = ask::hidden(&format!(
            "{what} (at least {MIN_PASSWORD_CHARS} characters): "
        ))?;
        if let Err(error) = setup::check_password(&text) {
            context.output.remark(&sentence(&error.to_string()));
        } else if ask::hidden("Once more: ")? == text {
            return Ok(text);
        } else {
            context.output.remark("These are two different ones.");
        }
    }
}

/// With a capital and a full stop: it stands alone here, not behind a code.
pub(crate) fn sentence(text: &str) -> String {
    let mut chars = text.chars();
    let first: String = chars
        .next()
        .into_iter()
        .flat_map(char::to_uppercase)
        .collect();
    format!("{first}{}.", chars.as_str())
}

fn nobody(flag: &str) -> Failure {
    Failure::new(
        Code::Locked,
        format!("a password is needed and nobody can be asked: give {flag}"),
    )
}

/// What needs no question.
fn given(context: &Context, home: &Home, args: &PasswordArgs) -> Result<Option<Text>> {
    if let Some(file) = &args.password_file {
        return first_line_of(context, file).map(Some);
    }
    if let Some(line) = &args.password_command {
        return output_of(line).map(Some);
    }
    if let Some(file) = context.variables.path("SYNCAGENT_PASSWORD_FILE") {
        return first_line_of(context, &file).map(Some);
    }
    match context.config(home)?.password_command {
        Some(line) => output_of(&line).map(Some),
        None => Ok(None),
    }
}

fn output_of(line: &str) -> Result<Text> {
    let failed =
        |why: String| Failure::new(Code::Locked, format!("the password command `{line}` {why}"));
    // It may ask somebody by itself, so it gets the terminal.
    let output = shell::command(line)
        .stdin(Stdio::inherit())
        .stderr(Stdio::inherit())
        .stdout(Stdio::piped())
        .output()
        .map_err(|error| failed(format!("cannot be run: {error}")))?;
    if !output.status.success() {
        return Err(failed(format!("failed ({})", output.status)));
    }
    let text = Zeroizing::new(output.stdout);
    std::str::from_utf8(&text)
        .map(first_line)
        .map_err(|_| failed("did not print text".to_owned()))
}

fn first_line(text: &str) -> Text {
    Zeroizing::new(text.lines().next().unwrap_or_default().to_owned())
}
