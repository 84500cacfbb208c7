//! What does a synchronisation cost, beside rsync and Syncthing doing the same in the same minute?
//!
//! A -> server -> B on this machine: for SyncAgent `sync --once` on A and then on B, for rsync a push into a daemon and
//! a pull out of it, for Syncthing three processes of which the one between can read nothing. Bytes are counted by relays
//! in front of each server, processor time and memory are read from `/proc`. docs/performance.md says what the figures
//! mean.

mod journal;
mod measure;
mod once;
mod ours;
mod relay;
mod rsync;
mod sides;
mod syncthing;
mod table;
mod trees;

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};

use anyhow::{Context, Result, bail};

use crate::needs::{self, Consent, Need, quietly};
use crate::workspace::{Workspace, cargo};
use journal::Image;
use measure::Cost;
use ours::Ours;
use rsync::Rsync;
use sides::{Live, Side};
use syncthing::Syncthing;
use table::{Places, Table, render_idle};

/// Every case, and those that must come before it.
const CASES: [(&str, &[&str]); 10] = [
    ("a", &[]),
    ("b", &[]),
    ("c", &["a"]),
    ("c20", &[]),
    ("d", &["a", "b"]),
    ("e", &["a", "b"]),
    ("f", &["a", "b"]),
    ("g", &[]),
    ("h", &[]),
    ("i", &[]),
];

/// Room for the biggest case, in bytes.
const ROOM: u64 = 16 << 30;

/// What is asked for.
#[derive(clap::Args)]
pub(crate) struct Options {
    /// Size of the big file in MiB
    #[arg(long, default_value_t = 1024, value_name = "MIB")]
    size: u64,
    /// How often (a) to (f) are done; the medians are shown
    #[arg(long, default_value_t = 3)]
    rounds: usize,
    /// In how many of the rounds Syncthing takes part, which takes minutes
    #[arg(long, default_value_t = 1, value_name = "ROUNDS")]
    syncthing_rounds: usize,
    /// Only these cases, and those that they need before them
    #[arg(
        long,
        value_name = "CASES",
        value_delimiter = ',',
        value_parser = CASES.map(|(name, _)| name)
    )]
    only: Vec<String>,
    /// Beside whom
    #[arg(
        long,
        value_name = "WHOM",
        value_delimiter = ',',
        default_value = "rsync,syncthing",
        value_parser = [sides::RSYNC, sides::SYNCTHING, "nobody"]
    )]
    beside: Vec<String>,
    /// How long there is nothing to do in (g)
    #[arg(long, default_value_t = 11.0, value_name = "MINUTES", value_parser = minutes)]
    idle: f64,
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

/// Two looks at the whole folder must fall into it, and they are ten seconds apart at least.
fn minutes(text: &str) -> Result<f64, String> {
    match text.parse() {
        Ok(minutes @ 0.4..=1440.0) => Ok(minutes),
        _ => Err("a number from 0.4 to 1440".to_owned()),
    }
}

/// What is measured, how big, and where.
struct Bench {
    binary: PathBuf,
    place: PathBuf,
    size: u64,
    files: usize,
    idle_minutes: f64,
    rounds: usize,
    rsync: bool,
    syncthing_rounds: usize,
    asked: BTreeSet<&'static str>,
    /// Where the disk has no journal: what `place` is on.
    image: Option<Image>,
}

/// Runs every case and prints the tables.
pub(crate) fn run(workspace: &Workspace, options: &Options) -> Result<ExitCode> {
    if !Path::new("/proc/self/stat").exists() {
        bail!("the bench reads /proc, which is Linux's");
    }
    let bench = prepare(workspace, options)?;
    let mut table = Table::default();
    bench.all_rounds(&mut table)?;
    let asks = |case| bench.asked.contains(case);
    let places = match asks("c20") {
        true => once::places(&bench)?,
        false => Places::default(),
    };
    if asks("h") {
        once::texts(&bench, &mut table)?;
    }
    if asks("i") {
        once::copies(&bench, &mut table)?;
    }
    // What was measured is shown before the long wait.
    println!("{}", table.render());
    println!("A -> server -> B on loopback, medians of the rounds: see docs/performance.md.");
    println!("{}\n", bench.disk());
    print!("{}", places.render(1));
    if asks("g") {
        let idle = once::idle(&bench)?;
        let case = format!("g  {} files, {} min", bench.files, bench.idle_minutes);
        print!("\n{}", render_idle(&case, &idle));
    }
    Ok(ExitCode::SUCCESS)
}

fn prepare(workspace: &Workspace, options: &Options) -> Result<Bench> {
    let beside = |whom: &str| options.beside.iter().any(|name| name == whom);
    let asked = with_needs(&options.only);
    if beside(sides::RSYNC) {
        needs::ensure(workspace, Consent::new(options.yes), &[Need::Rsync])?;
    }
    let mut syncthing_rounds = 0;
    if beside(sides::SYNCTHING) {
        match syncthing::is_installed() {
            true => syncthing_rounds = options.syncthing_rounds,
            false => eprintln!("Syncthing is not installed, so it is left out."),
        }
    }
    let binary = match &options.binary {
        Some(binary) => fs::canonicalize(binary)?,
        None => build(workspace)?,
    };
    let (size, files) = match options.quick {
        true => (128 << 20, 2_000),
        false => (options.size << 20, 20_000),
    };
    let mut place = options.dir.clone().unwrap_or(workspace.target.clone());
    let mut image = None;
    if !journal::is_kept(&place)? {
        match options.dir {
            Some(_) => eprintln!("{} is on a file system without a journal.", place.display()),
            None => {
                let mounted = Image::mount(&place, ROOM)?;
                place = mounted.dir().to_owned();
                image = Some(mounted);
            }
        }
    }
    Ok(Bench {
        binary,
        place,
        size,
        files,
        idle_minutes: options.idle,
        rounds: options.rounds.max(1),
        rsync: beside(sides::RSYNC),
        syncthing_rounds,
        asked,
        image,
    })
}

/// The cases that are asked for, which is all if none is named, with what comes before them.
fn with_needs(only: &[String]) -> BTreeSet<&'static str> {
    let mut asked = BTreeSet::new();
    for (name, needs) in CASES {
        if only.is_empty() || only.iter().any(|asked| asked == name) {
            asked.insert(name);
            asked.extend(needs);
        }
    }
    asked
}

impl Bench {
    /// What was written to, for whoever reads the figures.
    fn disk(&self) -> String {
        match self.image {
            Some(_) => "On an ext4 with a journal in a file, mounted on loop.".to_owned(),
            None => format!("In {}.", self.place.display()),
        }
    }

    fn ours(&self, dir: &TempDir, init: &[&str]) -> Result<Ours> {
        Ours::start(&self.binary, &dir.0.join("syncagent"), init)
    }

    /// (a) to (f), again and again.
    fn all_rounds(&self, table: &mut Table) -> Result<()> {
        if !["a", "b"].iter().any(|case| self.asked.contains(case)) {
            return Ok(());
        }
        for round in 1..=self.rounds {
            eprintln!("Round {round} of {}", self.rounds);
            let dir = TempDir::create(&self.place)?;
            let mut sides: Vec<Box<dyn Side>> = vec![Box::new(self.ours(&dir, &[])?)];
            if self.rsync {
                sides.push(Box::new(Rsync::start(&dir.0.join("rsync"))?));
            }
            if round <= self.syncthing_rounds {
                sides.push(Box::new(Syncthing::start(&dir.0.join("syncthing"))?));
            }
            // Whoever comes later finds a warmer machine, so they take turns at it.
            if round % 2 == 0 {
                sides.reverse();
            }
            self.round(&mut sides, table)?;
        }
        Ok(())
    }
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
    sides: &mut [Box<dyn Side>],
    table: &mut Table,
    name: &str,
    change: impl Fn(&Path) -> Result<()>,
) -> Result<()> {
    for side in sides {
        change(side.folder())?;
        let cost: Cost = side
            .transfer()
            .with_context(|| format!("{name}, {}", side.name()))?;
        compare(&**side)?;
        eprintln!("  {name}, {}: {:.2} s", side.name(), cost.wall);
        table.add(name, side.name(), cost);
    }
    Ok(())
}

/// What came is what was sent, or the figures are of something else.
fn compare(side: &dyn Side) -> Result<()> {
    quietly(
        Command::new("diff")
            .args(["-rq", "--exclude=.syncagent"])
            .arg(format!("--exclude={}", trees::MARK))
            .arg(side.folder())
            .arg(side.copy()),
    )
}

impl Bench {
    fn round(&self, sides: &mut [Box<dyn Side>], table: &mut Table) -> Result<()> {
        let asks = |case| self.asked.contains(case);
        let (size, files) = (self.size, self.files);
        if asks("a") {
            let name = format!("a  one file, {} MiB", size >> 20);
            case(sides, table, &name, |dir| {
                trees::big_file(&dir.join("big"), size)
            })?;
        }
        if asks("c") {
            case(sides, table, "c1 one byte of it changed", |dir| {
                trees::change_byte(&dir.join("big"), size / 2)
            })?;
            case(sides, table, "c2 one byte put in front", |dir| {
                trees::insert_byte(&dir.join("big"), 0)
            })?;
            case(sides, table, "c3 1 MiB appended", |dir| {
                trees::append(&dir.join("big"), 1 << 20)
            })?;
        }
        if asks("b") {
            let name = format!("b  {files} small files");
            case(sides, table, &name, |dir| trees::small_files(dir, files))?;
        }
        if asks("d") {
            case(sides, table, "d  2000 files' directory renamed", |dir| {
                fs::rename(dir.join(trees::GROUP), dir.join("renamed")).context("cannot rename")
            })?;
            case(sides, table, "d2 the big file moved", |dir| {
                fs::rename(dir.join("big"), dir.join("renamed/big")).context("cannot move")
            })?;
        }
        if asks("f") {
            case(sides, table, "f  nothing to do", |_| Ok(()))?;
        }
        if asks("e") {
            for side in sides {
                live(&mut **side, table)?;
            }
        }
        Ok(())
    }
}

fn live(side: &mut dyn Side, table: &mut Table) -> Result<()> {
    let name = side.name();
    let mut add = |case: &str, live: &Live, part: usize| {
        let mut waits = live.waits.clone();
        waits.sort_by(f64::total_cmp);
        let wall = waits[(waits.len() * part / 100).min(waits.len() - 1)];
        eprintln!("  {case}, {name}: {wall:.3} s");
        let cost = live.cost.clone();
        table.add(case, name, Cost { wall, ..cost });
    };
    let all = side.live(50)?;
    add("e  50 edits, each awaited: median", &all, 50);
    add("e  50 edits, each awaited: p95", &all, 95);
    if let Some(few) = side.live_as_shipped(5)? {
        add("e  5 edits, usual delay: median", &few, 50);
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_case_brings_those_it_needs() {
        assert_eq!(with_needs(&[]).len(), CASES.len());
        let only = |cases: &[&str]| {
            let cases: Vec<String> = cases.iter().map(|case| (*case).to_owned()).collect();
            with_needs(&cases).into_iter().collect::<Vec<_>>()
        };
        assert_eq!(only(&["g"]), ["g"]);
        assert_eq!(only(&["d", "c20"]), ["a", "b", "c20", "d"]);
    }
}
