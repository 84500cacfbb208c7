//! Those that are compared, each with a folder A, a server, and a folder B.

use std::fs;
use std::net::{Ipv4Addr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Result, bail};

use super::measure::{Cost, cpu, peak, run};
use super::relay::Relay;

pub(super) const OURS: &str = "syncagent";
pub(super) const RSYNC: &str = "rsync";
pub(super) const SYNCTHING: &str = "syncthing";

/// How long anything may take that takes a moment.
pub(super) const PATIENCE: Duration = Duration::from_secs(120);

/// A way from A to B.
pub(super) trait Side {
    fn name(&self) -> &'static str;
    /// A's folder.
    fn folder(&self) -> &Path;
    /// B's.
    fn copy(&self) -> &Path;
    /// Brings what A has to B.
    fn transfer(&mut self) -> Result<Cost>;
    /// Writes to A again and again and waits until B has it.
    fn live(&mut self, edits: usize) -> Result<Live>;
    /// The same as it is shipped, from who waits less in [`Side::live`] than it would by itself.
    fn live_as_shipped(&mut self, _edits: usize) -> Result<Option<Live>> {
        Ok(None)
    }
}

/// Edits that were awaited one by one.
pub(super) struct Live {
    /// Of all of them, but for the wall time.
    pub(super) cost: Cost,
    /// Seconds until each was there.
    pub(super) waits: Vec<f64>,
}

/// Bytes so far between A and the server, and between the server and B.
pub(super) fn bytes(relays: &[Relay; 2]) -> [u64; 2] {
    relays.each_ref().map(Relay::bytes)
}

/// What was added to each link.
pub(super) fn since(now: [u64; 2], before: [u64; 2]) -> [u64; 2] {
    [now[0] - before[0], now[1] - before[1]]
}

/// Two commands one after the other, and what they cost with the daemon between them.
pub(super) fn both(commands: [Command; 2], daemon: u32, relays: &[Relay; 2]) -> Result<Cost> {
    let (before, used) = (bytes(relays), cpu(daemon));
    let [mut first, mut second] = commands;
    let (wall_a, cpu_a, peak_a, peak_s) = run(&mut first, daemon)?;
    let (wall_b, cpu_b, peak_b, peak_t) = run(&mut second, daemon)?;
    // A daemon's child counts once its parent has seen its end.
    thread::sleep(Duration::from_millis(100));
    Ok(Cost {
        wall: wall_a + wall_b,
        cpu: cpu_a + cpu_b + cpu(daemon) - used,
        links: since(bytes(relays), before),
        peaks: [peak_a, peak_s.max(peak_t), peak_b],
    })
}

/// Overwrites one of ten short files. Gives its name and what is in it now.
pub(super) fn edit(folder: &Path, i: usize) -> Result<(PathBuf, Vec<u8>)> {
    let content = format!(
        "edit {i}: {}\n",
        "a line of text that somebody wrote. ".repeat(100)
    )
    .into_bytes();
    let name = PathBuf::from(format!("note-{}.txt", i % 10));
    fs::write(folder.join(&name), &content)?;
    Ok((name, content))
}

/// One edit, and how many seconds it took to arrive.
pub(super) fn awaited_edit(folders: &[PathBuf; 2], i: usize) -> Result<f64> {
    let start = Instant::now();
    let (name, content) = edit(&folders[0], i)?;
    let there = folders[1].join(name);
    until("an edit", PATIENCE, || {
        fs::read(&there).is_ok_and(|read| read == content)
    })?;
    Ok(start.elapsed().as_secs_f64())
}

/// Edits among processes that run already: A's, the server's and B's.
pub(super) fn awaited_edits(
    folders: &[PathBuf; 2],
    pids: [u32; 3],
    relays: &[Relay; 2],
    edits: usize,
) -> Result<Live> {
    // A first one, so that all are up and watch.
    awaited_edit(folders, edits + 7)?;
    thread::sleep(Duration::from_secs(1));
    let used = || pids.iter().map(|pid| cpu(*pid)).sum::<f64>();
    let (before, cpu_before) = (bytes(relays), used());
    let waits = (0..edits)
        .map(|i| awaited_edit(folders, i))
        .collect::<Result<_>>()?;
    let cost = Cost {
        wall: 0.0,
        cpu: used() - cpu_before,
        links: since(bytes(relays), before),
        peaks: pids.map(peak),
    };
    Ok(Live { cost, waits })
}

/// Looks every millisecond.
pub(super) fn until(what: &str, limit: Duration, mut done: impl FnMut() -> bool) -> Result<()> {
    let start = Instant::now();
    while !done() {
        if start.elapsed() > limit {
            bail!("{what} takes more than {} s", limit.as_secs());
        }
        thread::sleep(Duration::from_millis(1));
    }
    Ok(())
}

/// A port of this machine that nobody listens on.
pub(super) fn free_port() -> Result<u16> {
    Ok(TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?
        .local_addr()?
        .port())
}
