//! What is in the memory of processes that have or had the key, and what of it could be written to disk.
//!
//! A process's memory is read through `/proc`, which gives what a core dump would hold. Processes allow that only where
//! `SYNCAGENT_DUMPS` says so.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io::{Read as _, Write as _};
use std::os::unix::fs::FileExt as _;
use std::os::unix::net::UnixStream;
use std::process::{Command, Stdio};

use crate::secrets::Secrets;
use crate::world::{Machine, Running, World, binary, run, until, without_privileges};

/// What a daemon works with, and nothing else.
const WORKING: [&str; 6] = [
    "chunk key",
    "op key",
    "event key",
    "chunker's table",
    "chunker's key",
    "chunker's table as derived",
];
/// What it cannot do without.
const USED: [&str; 4] = ["chunk key", "op key", "chunker's table", "chunker's key"];

/// A stretch of a process's memory.
struct Stretch {
    bytes: Vec<u8>,
    /// Kept out of swap.
    locked: bool,
}

/// All memory of a process that it may read itself.
fn memory(pid: u32) -> Vec<Stretch> {
    let maps = fs::read_to_string(format!("/proc/{pid}/smaps")).unwrap_or_default();
    let memory = File::open(format!("/proc/{pid}/mem"));
    let mut stretches = Vec::new();
    let mut range = None;
    for line in maps.lines() {
        let mut words = line.split_whitespace();
        let first = words.next().unwrap_or_default();
        if let Some(flags) = line.strip_prefix("VmFlags:") {
            let flags: BTreeSet<&str> = flags.split_whitespace().collect();
            // Memory of devices and of the kernel's own cannot be read.
            let (Some((start, end)), true) = (range.take(), !flags.contains("io")) else {
                continue;
            };
            let mut bytes = vec![0; usize::try_from(end - start).unwrap()];
            let memory = memory.as_ref().expect("memory can be read");
            if memory.read_exact_at(&mut bytes, start).is_ok() {
                let locked = flags.contains("lo");
                stretches.push(Stretch { bytes, locked });
            }
        } else if let Some((start, end)) = first.split_once('-') {
            let number = |text| u64::from_str_radix(text, 16);
            let readable = words.next().is_some_and(|rights| rights.starts_with('r'));
            range = number(start)
                .ok()
                .zip(number(end).ok())
                .filter(|_| readable);
        }
    }
    stretches
}

/// What of the secrets is in a process.
fn found(secrets: &Secrets, pid: u32) -> BTreeSet<&'static str> {
    let stretches = memory(pid);
    assert!(!stretches.is_empty(), "a process has memory");
    let found = stretches
        .iter()
        .flat_map(|stretch| secrets.found_in(&stretch.bytes));
    found.collect()
}

/// The agent of a home.
fn agent(machine: &Machine) -> u32 {
    let home = format!("SYNCAGENT_HOME={}", machine.home().display());
    let is_agent = |pid: &u32| {
        let read = |name| fs::read(format!("/proc/{pid}/{name}")).unwrap_or_default();
        let arguments = read("cmdline");
        arguments.split(|&byte| byte == 0).nth(1) == Some(b"agent")
            && read("environ")
                .split(|&byte| byte == 0)
                .any(|variable| variable == home.as_bytes())
    };
    let mut agents = processes().filter(is_agent);
    let agent = agents.next().expect("an agent runs");
    assert_eq!(agents.next(), None);
    agent
}

fn processes() -> impl Iterator<Item = u32> {
    let entries = fs::read_dir("/proc").unwrap();
    entries.filter_map(|entry| entry.unwrap().file_name().to_str()?.parse().ok())
}

/// Whether there is a process with memory; one that ended and was not fetched yet has none.
fn runs(pid: u32) -> bool {
    fs::read_to_string(format!("/proc/{pid}/maps")).is_ok_and(|maps| !maps.is_empty())
}

/// Makes this process the parent of agents, too: systems with Yama let nobody else read them, but root.
fn adopt_orphans() {
    rustix::process::set_child_subreaper(Some(rustix::process::getpid())).unwrap();
}

/// A command whose process may be read.
fn readable(machine: &Machine, arguments: &[&str]) -> Command {
    let mut command = machine.command(arguments);
    command.env("SYNCAGENT_DUMPS", "true");
    command
}

#[test]
fn after_a_lock_a_daemon_has_no_key_until_it_is_unlocked() {
    let world = World::new();
    let a = world.first("a");
    let b = world.next("b", &a);
    let log = File::create(world.path("daemon.log")).unwrap();
    let mut daemon = Running::start(
        readable(&a, &["sync", "--password-file", "password"])
            .stdout(Stdio::null())
            .stderr(log),
    );
    let pid = daemon.id();
    let in_sync = |n: u64| {
        until("the daemon to be idle", || {
            let status = a.status();
            (status["running"] == true && status["state"] == "idle" && status["files"] == n)
                .then_some(())
        });
    };
    // It has sealed, sent, fetched and opened.
    a.write("here", "from a");
    b.write("there", "from b");
    b.sync_once().exits(0);
    in_sync(2);
    let secrets = Secrets::of(&a);
    let with_key = found(&secrets, pid);
    // What it came from has done its part.
    assert!(with_key.is_subset(&BTreeSet::from(WORKING)), "{with_key:?}");
    assert!(
        USED.iter().all(|name| with_key.contains(name)),
        "{with_key:?}"
    );

    a.run(&["lock"]).exits(0);
    assert_eq!(found(&secrets, pid), BTreeSet::new());
    assert_eq!(a.status()["state"], "locked");
    assert_eq!(a.status()["running"], true);
    a.write("while locked", "x");
    for command in [&["now"][..], &["pause"], &["trash", "restore", "here"]] {
        a.run(command).exits(11).says("E_LOCKED");
    }
    a.run(&["sync", "--once"]).exits(11).says("E_LOCKED");
    a.sync_once().exits(5).says("E_BUSY");
    a.run(&["lock"]).exits(0);
    assert_eq!(a.status()["state"], "locked");

    adopt_orphans();
    run(&mut readable(
        &a,
        &["unlock", "--password-file", "password"],
    ))
    .exits(0);
    in_sync(3);
    let again = found(&secrets, pid);
    assert!(USED.iter().all(|name| again.contains(name)), "{again:?}");
    let agent = agent(&a);
    a.run(&["lock"]).exits(0);
    assert_eq!(found(&secrets, pid), BTreeSet::new());
    until("the agent to end", || (!runs(agent)).then_some(()));
    assert_eq!(daemon.has_ended(), None);
    assert_eq!(daemon.terminate(), 0);
    b.sync_once().exits(0);
    assert_eq!(b.read("while locked").as_deref(), Some("x"));
}

/// What Windows always does, and others where the program is gone from under the process.
#[test]
fn a_daemon_that_cannot_start_anew_locks_in_place() {
    let world = World::new();
    let a = world.first("a");
    let program = world.path("program");
    fs::copy(binary(), &program).unwrap();
    let like = readable(&a, &["sync", "--password-file", "password"]);
    let mut command = Command::new(&program);
    command.args(like.get_args()).current_dir(world.dir());
    for (name, value) in like.get_envs() {
        match value {
            Some(value) => command.env(name, value),
            None => command.env_remove(name),
        };
    }
    let log = File::create(world.path("daemon.log")).unwrap();
    let daemon = Running::start(command.stdout(Stdio::null()).stderr(log));
    a.write("x", "x");
    let in_sync = |n: u64| {
        until("the daemon to be idle", || {
            let status = a.status();
            (status["running"] == true && status["state"] == "idle" && status["files"] == n)
                .then_some(())
        });
    };
    in_sync(1);
    let secrets = Secrets::of(&a);
    let with_key = found(&secrets, daemon.id());
    assert!(
        USED.iter().all(|name| with_key.contains(name)),
        "{with_key:?}"
    );
    fs::remove_file(&program).unwrap();
    a.run(&["lock"]).exits(0);
    assert_eq!(a.status()["state"], "locked");
    // Types that hold keys wipe them. What libraries copy they may leave; so far that is nothing.
    assert_eq!(found(&secrets, daemon.id()), BTreeSet::new());
    a.write("y", "y");
    a.run(&["sync", "--once"]).exits(11).says("E_LOCKED");
    a.run(&["unlock", "--password-file", "password"]).exits(0);
    in_sync(2);
    a.run(&["lock"]).exits(0);
    assert_eq!(daemon.terminate(), 0);
}

#[test]
fn a_lock_waits_for_no_transfer() {
    let world = World::new();
    let a = world.first("a");
    let daemon = a.start_daemon();
    world.hold_server();
    a.write("x", "x");
    until("a pass to begin", || {
        (a.status()["state"] == "syncing").then_some(())
    });
    a.run(&["lock"]).exits(0);
    assert_eq!(a.status()["state"], "locked");
    world.release_server();
    assert_eq!(daemon.terminate(), 0);
}

#[test]
fn an_agent_has_two_halves_and_those_in_locked_memory() {
    let world = World::new();
    let a = world.first("a");
    adopt_orphans();
    run(&mut readable(
        &a,
        &["unlock", "--password-file", "password"],
    ))
    .exits(0);
    let pid = agent(&a);
    // What it gives to whoever may ask: a slot of 172 bytes and a code of 20.
    let mut stream = UnixStream::connect(a.home().join("agent/agent.sock")).unwrap();
    stream.write_all(b"g").unwrap();
    let mut keepsake = Vec::new();
    stream.read_to_end(&mut keepsake).unwrap();
    assert_eq!(keepsake.len(), 192);
    let code = &keepsake[172..];
    let halves = Secrets::of(&a).and("code", code);
    let mut times = 0;
    for stretch in memory(pid) {
        match halves.found_in(&stretch.bytes)[..] {
            [] => {}
            ["code"] => {
                assert!(stretch.locked, "the code is where it may be swapped out");
                times += 1;
            }
            ref found => panic!("an agent has no business with {found:?}"),
        }
    }
    assert_eq!(times, 1);
    a.run(&["sync", "--once"]).exits(0);
    a.run(&["lock"]).exits(0);
    until("the agent to end", || (!runs(pid)).then_some(()));
}

#[test]
fn no_process_with_the_key_is_written_to_disk_or_read_by_others() {
    let world = World::new();
    let a = world.first("a");
    // What a process may do is asked by a child of its own, before it has the password.
    let limits = |arguments: &[&str]| {
        let ask = "cat /proc/$PPID/limits > limits; cat password";
        let more = ["--password-command", ask];
        a.run(&[arguments, &more].concat()).exits(0);
        fs::read_to_string(world.path("limits")).unwrap()
    };
    let none = |limits: &str| {
        let core = limits
            .lines()
            .find(|line| line.starts_with("Max core file size"));
        let size = core.and_then(|core| core.split_whitespace().nth(4).map(str::to_owned));
        assert_eq!(size.as_deref(), Some("0"), "{limits}");
    };
    let export = ["export-key", "--export-password-file", "export-password"];
    let change = ["change-password", "--new-password-file", "password"];
    for arguments in [&["sync", "--once"][..], &export, &change, &["unlock"]] {
        none(&limits(arguments));
    }
    // Both sides without privileges, which would decide for them.
    let start = |command: &Command| {
        let mut command = without_privileges(command);
        let daemon = Running::start(command.stdout(Stdio::null()).stderr(Stdio::null()));
        until("the daemon", || {
            (a.status()["running"] == true).then_some(())
        });
        daemon
    };
    let may_read = |pid: u32| {
        let mut read = Command::new("cat");
        read.arg(format!("/proc/{pid}/environ"));
        without_privileges(&read).output().unwrap().status.success()
    };
    let sync = ["sync", "--password-file", "password"];
    let daemon = start(&a.command(&sync));
    none(&fs::read_to_string(format!("/proc/{}/limits", daemon.id())).unwrap());
    assert!(
        !may_read(daemon.id()),
        "another process of this user reads it"
    );
    daemon.kill();
    // With the switch it is as it is everywhere else, or the question would have been for nothing.
    let open = start(&readable(&a, &sync));
    assert!(may_read(open.id()));
    open.kill();
    let slip = run(a.command(&["status"]).env("SYNCAGENT_DUMPS", "1"));
    slip.exits(2).says("E_USAGE");
}

#[test]
fn an_agent_ends_with_its_home() {
    let world = World::new();
    let a = world.first("a");
    a.run(&["unlock", "--password-file", "password"]).exits(0);
    let agent = agent(&a);
    fs::remove_dir_all(a.home()).unwrap();
    until("the agent to end", || (!runs(agent)).then_some(()));
}
