//! Processor time and memory of processes, as `/proc` has them.

use std::fs;
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

/// How often memory is looked at, and how exact a wall time is.
const TICK: Duration = Duration::from_millis(2);
/// What `sysconf(_SC_CLK_TCK)` is on every Linux that this runs on.
const TICKS_PER_SECOND: f64 = 100.0;

/// What something cost.
#[derive(Clone, Default)]
pub(super) struct Cost {
    /// Seconds.
    pub(super) wall: f64,
    /// Seconds of all processes, in user and system.
    pub(super) cpu: f64,
    /// Bytes between A and the server, and between the server and B, both ways.
    pub(super) links: [u64; 2],
    /// Most KiB in memory: A, server, B.
    pub(super) peaks: [u64; 3],
}

/// A process that is gone with its owner.
pub(super) struct Running(pub(super) Child);

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Runs a command to its end. Gives seconds of wall and processor, its peak and that of `daemon` meanwhile.
pub(super) fn run(command: &mut Command, daemon: u32) -> Result<(f64, f64, u64, u64)> {
    let name = command.get_program().to_string_lossy().into_owned();
    let start = Instant::now();
    let child = command
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn();
    let mut child = Running(child.with_context(|| format!("cannot start {name}"))?);
    let pid = child.0.id();
    let (mut own, mut other) = (0, 0);
    // An ended process keeps its times until somebody waits for it.
    while !has_ended(pid) {
        own = own.max(peak(pid));
        other = other.max(peak(daemon));
        thread::sleep(TICK);
    }
    let wall = start.elapsed().as_secs_f64();
    let cpu = cpu(pid);
    let status = child.0.wait()?;
    if !status.success() {
        let mut said = String::new();
        if let Some(mut stderr) = child.0.stderr.take() {
            std::io::Read::read_to_string(&mut stderr, &mut said)?;
        }
        bail!("{name}: {status}\n{said}");
    }
    Ok((wall, cpu, own, other))
}

/// What stands behind the name in `/proc/PID/stat`, from the state on.
fn stat(pid: u32) -> Option<Vec<String>> {
    let text = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let (_, rest) = text.rsplit_once(") ")?;
    Some(rest.split_whitespace().map(str::to_owned).collect())
}

pub(super) fn has_ended(pid: u32) -> bool {
    stat(pid).is_none_or(|stat| stat[0] == "Z")
}

/// Those that any thread of a process started.
fn children(pid: u32) -> Vec<u32> {
    let Ok(threads) = fs::read_dir(format!("/proc/{pid}/task")) else {
        return Vec::new();
    };
    let lists = threads
        .flatten()
        .map(|thread| fs::read_to_string(thread.path().join("children")).unwrap_or_default());
    lists
        .flat_map(|list| {
            let pids = list.split_whitespace().filter_map(|pid| pid.parse().ok());
            pids.collect::<Vec<_>>()
        })
        .collect()
}

/// Seconds of a process, of its children that ended, and of those that run.
pub(super) fn cpu(pid: u32) -> f64 {
    let ticks: f64 = stat(pid).map_or(0.0, |stat| {
        // utime, stime, cutime, cstime.
        stat[11..15]
            .iter()
            .filter_map(|field| field.parse::<f64>().ok())
            .sum()
    });
    ticks / TICKS_PER_SECOND + children(pid).into_iter().map(cpu).sum::<f64>()
}

/// The largest VmHWM in KiB of a process and its children that run.
pub(super) fn peak(pid: u32) -> u64 {
    children(pid)
        .into_iter()
        .map(peak)
        .fold(memory(pid, "VmHWM:"), u64::max)
}

/// A figure of `/proc/PID/status` in KiB; 0 once the process is gone.
fn memory(pid: u32, field: &str) -> u64 {
    let text = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let line = text.lines().find_map(|line| line.strip_prefix(field));
    line.and_then(|line| line.trim().trim_end_matches(" kB").parse().ok())
        .unwrap_or(0)
}

/// What A, the server and B need when there is nothing to do.
pub(super) struct Idle {
    /// Seconds of processor in a minute.
    pub(super) cpu: [f64; 3],
    /// Most KiB in memory, of what was seen once a second.
    pub(super) resident: [u64; 3],
}

/// Looks on for as long as is said.
pub(super) fn idle(pids: [u32; 3], window: Duration) -> Result<Idle> {
    let (start, before) = (Instant::now(), pids.map(cpu));
    let mut resident = [0; 3];
    while start.elapsed() < window {
        thread::sleep(Duration::from_secs(1).min(window));
        for (most, pid) in resident.iter_mut().zip(pids) {
            if has_ended(pid) {
                bail!("process {pid} ended while there was nothing to do");
            }
            *most = memory(pid, "VmRSS:").max(*most);
        }
    }
    let minutes = start.elapsed().as_secs_f64() / 60.0;
    let now = pids.map(cpu);
    Ok(Idle {
        cpu: [0, 1, 2].map(|role| (now[role] - before[role]) / minutes),
        resident,
    })
}

/// Waits until processes have come to rest: 20 ms of processor in half a second, or 20 s.
pub(super) fn until_quiet(pids: &[u32]) {
    let used = || pids.iter().map(|pid| cpu(*pid)).sum::<f64>();
    let mut before = used();
    for _ in 0..40 {
        thread::sleep(Duration::from_millis(500));
        let now = used();
        if now - before <= 0.02 {
            break;
        }
        before = now;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_child_counts_whichever_thread_started_it() {
        if stat(std::process::id()).is_none() {
            return; // No Linux, so no bench.
        }
        let found = thread::spawn(|| {
            let child = Running(Command::new("sleep").arg("60").spawn().unwrap());
            children(std::process::id()).contains(&child.0.id())
        });
        assert!(found.join().unwrap());
    }
}
