//! What does a synchronisation cost, beside rsync doing the same in the same minute?
//!
//! A -> server -> B on this machine: for SyncAgent `sync --once` on A and then on B, for rsync a push into a daemon and
//! a pull out of it. Bytes are counted by a relay in front of each server, processor time and memory are read from
//! `/proc`. docs/performance.md says what the figures mean.

mod measure;
mod relay;
mod sides;
mod table;
mod trees;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};

use anyhow::{Context, Result, bail};

use crate::needs::{self, Consent, Need, quietly};
use crate::workspace::{Workspace, cargo};
use measure::Cost;
use sides::{Ours, Rsync, Side};
use table::Table;

/// What is asked for.
#[derive(clap::Args)]
pub(crate) struct Options {
    /// Size of the big file in MiB
    #[arg(long, default_value_t = 1024, value_name = "MIB")]
    size: u64,
    /// How often everything is done; the medians are shown
    #[arg(long, default_value_t = 3)]
    rounds: usize,
    /// 128 MiB and 2,000 small files
    #[arg(long)]
    quick: bool,
    /// Where to work; the file system counts [default: below the target directory]
    #[arg(long, value_name = "DIR")]
    dir: Option<PathBuf>,
    /// Measure this binary and build none
    #[arg(long, value_name = "FILE")]
    binary: Option<PathBuf>,
    /// Install what is missing without asking
    #[arg(long)]
    yes: bool,
}

/// Runs every case and prints the table.
pub(crate) fn run(workspace: &Workspace, options: &Options) -> Result<ExitCode> {
    if !Path::new("/proc/self/stat").exists() {
        bail!("the bench reads /proc, which is Linux's");
    }
    needs::ensure(workspace, Consent::new(options.yes), &[Need::Rsync])?;
    let binary = match &options.binary {
        Some(binary) => fs::canonicalize(binary)?,
        None => build(workspace)?,
    };
    let place = options
        .dir
        .clone()
        .unwrap_or_else(|| workspace.target.clone());
    let (size, files) = match options.quick {
        true => (128 << 20, 2_000),
        false => (options.size << 20, 20_000),
    };
    let mut table = Table::default();
    for round in 1..=options.rounds.max(1) {
        eprintln!("Round {round} of {}", options.rounds.max(1));
        let dir = TempDir::create(&place)?;
        let mut sides: [Box<dyn Side>; 2] = [
            Box::new(Ours::start(&binary, &dir.0.join("syncagent"))?),
            Box::new(Rsync::start(&dir.0.join("rsync"))?),
        ];
        // Whoever comes second finds a warmer machine, so they take turns at it.
        if round % 2 == 0 {
            sides.reverse();
        }
        cases(&mut sides, &mut table, size, files)?;
    }
    println!("{}", table.render());
    println!(
        "A -> server -> B on loopback, medians of {} rounds. Bytes as relays in front of the",
        options.rounds.max(1)
    );
    println!("servers count them, both ways; memory is the largest VmHWM of A / server / B.");
    Ok(ExitCode::SUCCESS)
}

fn build(workspace: &Workspace) -> Result<PathBuf> {
    let mut command = cargo();
    command
        .args(["build", "--locked", "--release", "--package", "syncagent"])
        .current_dir(&workspace.root);
    let status = command.status().context("cannot run cargo build")?;
    if !status.success() {
        bail!("the release build failed");
    }
    Ok(workspace.release_binary())
}

/// One change, on both sides in turn.
fn case(
    sides: &mut [Box<dyn Side>; 2],
    table: &mut Table,
    name: &str,
    change: impl Fn(&Path) -> Result<()>,
) -> Result<()> {
    for side in sides {
        change(side.folder())?;
        let cost: Cost = side
            .transfer()
            .with_context(|| format!("{name}, {}", side.name()))?;
        // What came is what was sent, or the figures are of something else.
        quietly(
            Command::new("diff")
                .args(["-rq", "--exclude=.syncagent"])
                .arg(side.folder())
                .arg(side.copy()),
        )?;
        eprintln!("  {name}, {}: {:.2} s", side.name(), cost.wall);
        table.add(name, side.name(), cost);
    }
    Ok(())
}

fn cases(sides: &mut [Box<dyn Side>; 2], table: &mut Table, size: u64, files: usize) -> Result<()> {
    let big = format!("a  one file, {} MiB", size >> 20);
    case(sides, table, &big, |dir| {
        trees::big_file(&dir.join("big"), size)
    })?;
    case(sides, table, "c1 one byte of it changed", |dir| {
        trees::change_byte(&dir.join("big"), size / 2)
    })?;
    case(sides, table, "c2 one byte put in front", |dir| {
        trees::insert_in_front(&dir.join("big"))
    })?;
    case(sides, table, "c3 1 MiB appended", |dir| {
        trees::append(&dir.join("big"), 1 << 20)
    })?;
    let small = format!("b  {files} small files");
    case(sides, table, &small, |dir| trees::small_files(dir, files))?;
    case(sides, table, "d  2000 files' directory renamed", |dir| {
        fs::rename(dir.join(trees::GROUP), dir.join("renamed")).context("cannot rename")
    })?;
    case(sides, table, "d2 the big file moved", |dir| {
        fs::rename(dir.join("big"), dir.join("renamed/big")).context("cannot move")
    })?;
    case(sides, table, "f  nothing to do", |_| Ok(()))?;
    for side in sides {
        let (cost, mut waits) = side.live(50)?;
        waits.sort_by(f64::total_cmp);
        eprintln!(
            "  e, {}: median {:.3} s",
            side.name(),
            waits[waits.len() / 2]
        );
        let at = |part: usize| Cost {
            wall: waits[(waits.len() * part / 100).min(waits.len() - 1)],
            ..cost.clone()
        };
        table.add("e  50 edits, each awaited: median", side.name(), at(50));
        table.add("e  50 edits, each awaited: p95", side.name(), at(95));
    }
    Ok(())
}

/// A directory that is gone with its owner.
struct TempDir(PathBuf);

impl TempDir {
    fn create(below: &Path) -> Result<Self> {
        let path = below.join(format!("bench-{}", std::process::id()));
        fs::create_dir_all(&path).with_context(|| format!("cannot make {}", path.display()))?;
        Ok(Self(fs::canonicalize(path)?))
    }
}

impl Drop for TempDir {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}
