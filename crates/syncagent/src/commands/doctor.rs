//! `doctor`: looks at everything that has to be right, and says what to do about what is not.

use std::path::Path;
use std::time::Instant;

use serde::Serialize;
use syncagent_client::agent;
use syncagent_client::daemon::control::Client;
use syncagent_client::engine::{State, kept_placement};
use syncagent_client::folder::disk::NativeDisk;
use syncagent_client::folder::root::{Identity, check_root};
use syncagent_client::home::{Config, Home};
use syncagent_client::index::Index;
use syncagent_client::remote::Remote as _;
use syncagent_client::remote::http;
use syncagent_protocol::{Code, Kind, VaultId};
use syncagent_sync::Placement;

use super::status;
use crate::context::{Context, no_key, not_registered};
use crate::failure::{Exit, Failure, Result};
use crate::output::text;
use crate::space;

/// Clocks further apart than this make the times of versions and conflict copies misleading.
const MAX_SKEW_S: u64 = 60;
/// Less room than this is worth a word.
const MIN_FREE: u64 = 1024 * 1024 * 1024;
/// Where Linux says how many directories one user may watch; not there on other systems.
const WATCH_LIMIT: &str = "/proc/sys/fs/inotify/max_user_watches";

#[derive(Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
enum Level {
    /// As it should be.
    Ok,
    /// It works, but somebody should look at it.
    Look,
    /// It does not work.
    Bad,
}

#[derive(Serialize)]
struct Check {
    check: &'static str,
    level: Level,
    #[serde(skip_serializing_if = "Option::is_none")]
    code: Option<Code>,
    /// What was found and, unless it is as it should be, what to do.
    detail: String,
}

#[derive(Default)]
struct Checks(Vec<Check>);

impl Checks {
    fn add(&mut self, check: &'static str, level: Level, detail: impl Into<String>) {
        let detail = detail.into();
        self.0.push(Check {
            check,
            level,
            code: None,
            detail,
        });
    }

    fn ok(&mut self, check: &'static str, detail: impl Into<String>) {
        self.add(check, Level::Ok, detail);
    }

    fn bad(&mut self, check: &'static str, failure: impl Into<Failure>) {
        let Failure { code, message } = failure.into();
        self.0.push(Check {
            check,
            level: Level::Bad,
            code: Some(code),
            detail: message,
        });
    }

    /// The value of a check that must succeed for others to make sense.
    fn need<T>(&mut self, check: &'static str, result: Result<T>) -> Option<T> {
        result.map_err(|failure| self.bad(check, failure)).ok()
    }
}

pub(super) fn run(context: &Context) -> Result<u8> {
    #[derive(Serialize)]
    struct Answer {
        checks: Vec<Check>,
        exit: u8,
    }
    let mut checks = Checks::default();
    let home = context.home()?;
    examine(context, &home, &mut checks);
    let mut exit = Exit::default();
    let codes = checks.0.iter().filter_map(|check| check.code);
    codes.for_each(|code| exit.add(code.exit()));
    let answer = Answer {
        checks: checks.0,
        exit: exit.status(),
    };
    context.output.result(&answer, || {
        let row = |check: &Check| {
            let word = match check.level {
                Level::Ok => "ok",
                Level::Look => "look",
                Level::Bad => "bad",
            };
            vec![
                word.to_owned(),
                check.check.to_owned(),
                check.detail.clone(),
            ]
        };
        text::table(&answer.checks.iter().map(row).collect::<Vec<_>>())
    })?;
    Ok(answer.exit)
}

fn examine(context: &Context, home: &Home, checks: &mut Checks) {
    let key_path = home.key_path();
    let dir = key_path.parent().unwrap_or(&key_path);
    if !dir.exists() {
        let setup =
            "nothing is set up here: `syncagent init` makes a vault, `syncagent join` joins one";
        return checks.bad("home", Failure::setup(setup));
    }
    // Makes what is missing of it, which shows whether it can be written.
    if checks
        .need("home", home.create().map_err(Failure::from))
        .is_some()
    {
        checks.ok("home", dir.display().to_string());
    }
    let config = checks.need("settings", context.config(home));
    if config.is_some() {
        checks.ok("settings", "read and understood");
    }
    let vault = key(home, checks);
    if let Some(config) = &config {
        server(context, home, config, checks);
    }
    let index = match home.state_path().exists() {
        true => checks.need(
            "state",
            Index::open(&home.state_path()).map_err(Failure::from),
        ),
        false => None,
    };
    if let Some(folder) = config.as_ref().and_then(|config| config.folder.as_deref()) {
        self::folder(folder, vault, index.as_ref(), checks);
    }
    if let Some(index) = &index {
        watching(index, checks);
    }
    let folder = config.as_ref().and_then(|config| config.folder.as_deref());
    daemon(context, home, folder, checks);
}

fn key(home: &Home, checks: &mut Checks) -> Option<VaultId> {
    let slot = checks.need("key", home.slot().map_err(Failure::from))?;
    if slot.is_none() {
        checks.bad("key", no_key());
        return None;
    }
    match agent::fetch(home) {
        Ok(Some(_)) => checks.ok(
            "key",
            "here, and unlocked until `syncagent lock` or log-out",
        ),
        Ok(None) => checks.ok(
            "key",
            "here; commands ask for the password unless `syncagent unlock` was run",
        ),
        Err(error) => checks.bad("key", error),
    }
    let here = checks.need("machine", home.credentials().map_err(Failure::from))??;
    match here.recovery_tested {
        true => checks.ok("recovery", "the recovery code was tested"),
        false => checks.add(
            "recovery",
            Level::Look,
            "nobody has tested yet that the recovery code works: `syncagent recovery test`",
        ),
    }
    here.vault
}

fn server(context: &Context, home: &Home, config: &Config, checks: &mut Checks) {
    let Some(address) = &config.server else {
        return checks.bad("server", not_registered());
    };
    let Some(network) = checks.need("server", context.network(config)) else {
        return;
    };
    let asked = Instant::now();
    let said = context.block_on(async { Ok(http::server_time(&*network).await?) });
    let Some(time) = checks.need("server", said) else {
        return;
    };
    let ms = asked.elapsed().as_millis();
    checks.ok("server", format!("{address} answers, in {ms} ms"));
    // Its clock is told in whole seconds.
    match time.map(|time_ms| time_ms.abs_diff(context.now_ms()) / 1000) {
        None => {}
        Some(skew_s) if skew_s <= MAX_SKEW_S => {
            checks.ok("clock", "this computer and the server agree on the time");
        }
        Some(skew_s) => checks.add(
            "clock",
            Level::Look,
            format!(
                "this computer and the server are {} apart. Nothing is lost by that, but times of versions and conflict \
                 copies mislead: set the clock that is wrong",
                text::span(skew_s)
            ),
        ),
    }
    let known = context
        .remote(home)
        .and_then(|remote| context.block_on(async { Ok(remote.machines().await?) }));
    if checks.need("access", known).is_some() {
        checks.ok("access", "the server knows this machine");
    }
}

fn folder(folder: &Path, vault: Option<VaultId>, index: Option<&Index>, checks: &mut Checks) {
    let missing = || {
        Failure::new(
            Code::Root,
            format!(
                "the folder {} is missing; nothing is deleted anywhere. Is its disk mounted?",
                folder.display()
            ),
        )
    };
    if !folder.is_dir() {
        return checks.bad("folder", missing());
    }
    let opened =
        NativeDisk::open(folder).map_err(|error| Failure::new(error.code(), error.to_string()));
    let Some(disk) = checks.need("folder", opened) else {
        return;
    };
    let adopted = index
        .and_then(|index| index.meta("folder").ok().flatten())
        .and_then(|bytes| bytes.try_into().ok());
    match (vault, adopted) {
        (Some(vault), Some(id)) => match check_root(&disk, &Identity { vault, folder: id }) {
            Ok(state) => match state.problem() {
                None => checks.ok("folder", folder.display().to_string()),
                Some(problem) => checks.bad("folder", Failure::new(Code::Root, problem)),
            },
            Err(error) => checks.bad("folder", Failure::new(error.code(), error.to_string())),
        },
        _ => checks.ok(
            "folder",
            format!("{}, not synchronised yet", folder.display()),
        ),
    }
    if let Some(placement) = index.and_then(|index| kept_placement(index).ok().flatten()) {
        checks.ok("names", describe(&placement));
    }
    match space::free(folder) {
        Some(free) if free < MIN_FREE => checks.add(
            "space",
            Level::Look,
            format!(
                "only {} are free for the folder: files that do not fit are not fetched until there is room",
                text::size(free)
            ),
        ),
        Some(free) => checks.ok("space", format!("{} are free for the folder", text::size(free))),
        None => {}
    }
}

/// What the folder's disk cannot do, because that is what a person may wonder about.
fn describe(placement: &Placement) -> String {
    let cannot = [
        (placement.case_insensitive, "tell upper from lower case"),
        (
            placement.normalise.is_some(),
            "tell composed from decomposed accents",
        ),
        (placement.windows_names, "hold names that Windows reserves"),
        (!placement.symlinks, "hold symbolic links"),
        (!placement.exec_bit, "keep the executable bit"),
    ];
    let cannot: Vec<_> = cannot
        .iter()
        .filter_map(|&(so, what)| so.then_some(what))
        .collect();
    match cannot.is_empty() {
        true => "the folder's disk can hold whatever other machines send".to_owned(),
        false => format!(
            "the folder's disk cannot {}; what does not fit stays in the vault, and `syncagent status` lists it",
            cannot.join(", nor ")
        ),
    }
}

fn watching(index: &Index, checks: &mut Checks) {
    let limit = std::fs::read_to_string(WATCH_LIMIT).ok();
    let Some(limit) = limit.and_then(|text| text.trim().parse::<usize>().ok()) else {
        return;
    };
    let Some((_, ancestor)) = checks.need("watching", index.load().map_err(Failure::from)) else {
        return;
    };
    let directories = 1 + ancestor
        .iter()
        .filter(|(_, row)| row.node.body.kind() == Kind::Directory)
        .count();
    // Other programs of this user draw on the same limit.
    if directories.saturating_mul(10) <= limit.saturating_mul(9) {
        checks.ok(
            "watching",
            format!("{directories} directories; the system allows {limit}"),
        );
    } else {
        checks.add(
            "watching",
            Level::Look,
            format!(
                "{directories} directories, and the system lets one user watch {limit}: changes in some are found only by the \
                 regular look at everything. As root: `sysctl fs.inotify.max_user_watches={}`, and the same line in \
                 /etc/sysctl.d to keep it",
                directories.saturating_mul(2).next_power_of_two()
            ),
        );
    }
}

/// Whether something keeps the folder up to date, and what holds it up: what is right for itself may stand still all the
/// same.
fn daemon(context: &Context, home: &Home, folder: Option<&Path>, checks: &mut Checks) {
    let running = context.block_on(async {
        match Client::connect(home).await {
            Some(daemon) => Ok(Some(daemon.status().await?)),
            None => Ok(None),
        }
    });
    let Some(running) = checks.need("running", running) else {
        return;
    };
    let is_running = running.is_some();
    // What is wrong with the index has been said.
    let status = running.unwrap_or_else(|| status::last(home).unwrap_or_default());
    let status = status::with_folder(status, folder);
    // Of a folder that was not there the last time, the folder's own check knows more.
    let held = { status.held.as_ref() }.filter(|held| is_running || held.code != Code::Root);
    if let Some(held) = held {
        let waits = match is_running {
            true => "everything waits",
            false => "everything waited at the last pass",
        };
        checks.bad(
            "sync",
            Failure::new(held.code, format!("{waits}: {}", held.message)),
        );
    }
    match (is_running, status.state) {
        (false, _) => checks.add(
            "running",
            Level::Look,
            "nothing keeps the folder up to date: `syncagent sync`",
        ),
        (true, State::Paused) => checks.add(
            "running",
            Level::Look,
            "`sync` runs and is paused: `syncagent resume` lets it go on",
        ),
        (true, State::Locked) => checks.add(
            "running",
            Level::Look,
            "`sync` runs and has no key: `syncagent unlock` lets it go on",
        ),
        (true, State::Offline) => checks.add(
            "running",
            Level::Look,
            "`sync` runs and cannot reach the server; it goes on by itself once it can",
        ),
        (true, _) if held.is_some() => checks.add(
            "running",
            Level::Look,
            "`sync` runs, and waits for what stands under `sync`",
        ),
        (true, State::Error) => checks.add(
            "running",
            Level::Look,
            "`sync` runs, and something failed: `syncagent status` says what",
        ),
        (true, _) => checks.ok("running", "`sync` runs and keeps the folder up to date"),
    }
}
