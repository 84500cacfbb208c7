//! Cases that are done once, after the rounds, each in a vault of its own.

use std::env;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result};

use super::measure::{Cost, Idle};
use super::ours::Ours;
use super::rsync::Rsync;
use super::sides::Side;
use super::table::{Places, Table};
use super::{Bench, TempDir, case, trees};

/// How many places of a file are changed.
const PLACES: usize = 20;
/// How many texts are drawn.
const TEXTS: usize = 5_000;

/// (c) again: one byte at random places of a big file, each brought over before the next.
pub(super) fn places(bench: &Bench) -> Result<Places> {
    let dir = TempDir::create(&bench.place)?;
    let mut ours = bench.ours(&dir, &[])?;
    let big = ours.folder().join("big");
    trees::big_file(&big, bench.size)?;
    ours.transfer()?;
    let places = trees::places(bench.size, PLACES);
    type Change = fn(&Path, u64) -> Result<()>;
    let kinds: [(&'static str, Change); 2] = [
        ("one byte changed, 20 random places", trees::change_byte),
        ("one byte put in, 20 random places", trees::insert_byte),
    ];
    let mut all = Places::default();
    for (kind, change) in kinds {
        let mut costs = Vec::new();
        for at in &places {
            change(&big, *at)?;
            costs.push(brought(&mut ours).with_context(|| format!("{kind}, at {at}"))?);
        }
        eprintln!("  {kind}: done");
        all.0.push((kind, costs));
    }
    Ok(all)
}

fn brought(ours: &mut Ours) -> Result<Cost> {
    let cost = ours.transfer()?;
    super::compare(ours)?;
    Ok(cost)
}

/// (h): texts that people wrote, from what cargo has unpacked on this machine.
pub(super) fn texts(bench: &Bench, table: &mut Table) -> Result<()> {
    let sources = cargo_home()
        .map(|home| home.join("registry/src"))
        .filter(|sources| sources.is_dir());
    let Some(sources) = sources else {
        eprintln!("h is left out: cargo has unpacked nothing on this machine.");
        return Ok(());
    };
    let texts = trees::Texts::draw(&sources, TEXTS)?;
    let count = texts.paths.len();
    if count < TEXTS {
        eprintln!("h has {count} files and not {TEXTS}: there are no more in cargo's registry.");
    }
    let dir = TempDir::create(&bench.place)?;
    let mut sides: Vec<Box<dyn Side>> = vec![Box::new(bench.ours(&dir, &[])?)];
    if bench.rsync {
        sides.push(Box::new(Rsync::start(&dir.0.join("rsync"))?));
    }
    let name = format!("h  {count} texts, {:.3} MB", texts.bytes as f64 / 1e6);
    case(&mut sides, table, &name, |folder| texts.copy(folder))
}

fn cargo_home() -> Option<PathBuf> {
    env::var_os("CARGO_HOME")
        .map(PathBuf::from)
        .or_else(|| Some(PathBuf::from(env::var_os("HOME")?).join(".cargo")))
}

/// (i): a file under another name, where equal content is kept once in the vault.
pub(super) fn copies(bench: &Bench, table: &mut Table) -> Result<()> {
    let dir = TempDir::create(&bench.place)?;
    let mut ours = bench.ours(&dir, &["--dedup", "vault"])?;
    trees::big_file(&ours.folder().join("big"), bench.size)?;
    ours.transfer()?;
    let mut sides: Vec<Box<dyn Side>> = vec![Box::new(ours)];
    let name = format!("i  {} MiB copied, --dedup vault", bench.size >> 20);
    case(&mut sides, table, &name, |folder| {
        fs::copy(folder.join("big"), folder.join("copy"))
            .map(drop)
            .context("cannot copy")
    })
}

/// (g): nothing to do, with both machines and the server running.
pub(super) fn idle(bench: &Bench) -> Result<Idle> {
    let dir = TempDir::create(&bench.place)?;
    let mut ours = bench.ours(&dir, &[])?;
    trees::small_files(ours.folder(), bench.files)?;
    ours.transfer()?;
    eprintln!("  g: idle for {} min", bench.idle_minutes);
    ours.idle(Duration::from_secs_f64(bench.idle_minutes * 60.0))
}
