//! `unlock` where the system has a keyring, and where it has none or one that is of no use.

use std::fs;
use std::os::unix::net::UnixListener;
use std::path::Path;
use std::time::{Duration, Instant};

use crate::patience::until;
use crate::secrets::Secrets;
use crate::session::Session;
use crate::world::{self, Machine, Run, World};

/// Far more than any wait in the program adds up to.
const NOT_FOR_EVER: Duration = Duration::from_secs(100);

fn run(session: &Session, machine: &Machine, arguments: &[&str]) -> Run {
    world::run(machine.command(arguments).envs(session.variables()))
}

fn unlock(session: &Session, machine: &Machine) -> Run {
    let arguments = ["unlock", "--json", "--password-file", "password"];
    run(session, machine, &arguments)
}

fn sync(session: &Session, machine: &Machine) -> Run {
    run(session, machine, &["sync", "--once"])
}

/// Every file below a directory, with its content.
fn files(dir: &Path) -> Vec<(String, Vec<u8>)> {
    let mut found = Vec::new();
    for entry in fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        match path.is_dir() {
            true => found.extend(files(&path)),
            false => found.push((
                path.display().to_string(),
                fs::read(&path).unwrap_or_default(),
            )),
        }
    }
    found
}

#[test]
fn the_keyring_has_the_key_until_it_is_locked() {
    let session = Session::new();
    let world = World::new();
    let a = world.first("a");
    let b = world.next("b", &a);
    for (machine, entries) in [(&a, 1), (&b, 2)] {
        sync(&session, machine).exits(11).says("E_LOCKED");
        assert_eq!(unlock(&session, machine).exits(0).json()["kept"], "keyring");
        // Each home has its own, and unlocking again adds none.
        assert_eq!(unlock(&session, machine).exits(0).json()["kept"], "keyring");
        assert_eq!(session.entries(), entries);
        assert!(!machine.home().join("agent/agent.sock").exists());
        sync(&session, machine).exits(0);
    }
    // Neither the keyring's files nor those of the homes have a key in clear.
    let secrets = Secrets::of(&a);
    for dir in [&session.keyrings(), a.home(), b.home()] {
        let files = files(dir);
        assert!(!files.is_empty());
        for (path, content) in files {
            assert_eq!(secrets.found_in(&content), Vec::<&str>::new(), "{path}");
        }
    }
    // Without the keyring the other half is nothing.
    a.run(&["sync", "--once"]).exits(11).says("E_LOCKED");
    let half = fs::read(a.home().join("unlocked.saks")).unwrap();
    run(&session, &a, &["lock"]).exits(0);
    assert_eq!(session.entries(), 1);
    sync(&session, &a).exits(11).says("E_LOCKED");
    // Nor is the file without what the keyring had.
    fs::write(a.home().join("unlocked.saks"), half).unwrap();
    sync(&session, &a).exits(11).says("E_LOCKED");
    sync(&session, &b).exits(0);
    run(&session, &b, &["lock"]).exits(0);
    assert_eq!(session.entries(), 0);
    sync(&session, &b).exits(11).says("E_LOCKED");
    run(&session, &b, &["lock"]).exits(0);
}

#[test]
fn where_no_keyring_helps_an_agent_does_and_says_why() {
    let world = World::new();
    let a = world.first("a");
    let (empty, locked) = (Session::without_keyring(), Session::new());
    locked.lock();
    // A bus that takes connections and never says a word.
    let silent = world.path("silent");
    let _listener = UnixListener::bind(&silent).unwrap();
    let silent = format!("unix:path={}", silent.display());
    let address = "DBUS_SESSION_BUS_ADDRESS";
    let rows: [(&str, Option<std::ffi::OsString>, &str); 6] = [
        ("no session", None, "no session bus"),
        (
            "no bus",
            Some("unix:path=/nowhere".into()),
            "cannot be used",
        ),
        ("no address", Some("what".into()), "cannot be used"),
        ("no service", Some(empty.address()), "no Secret Service"),
        ("locked", Some(locked.address()), "is locked"),
        ("silent", Some(silent.into()), "does not answer"),
    ];
    for (row, bus, why) in rows {
        let start = Instant::now();
        let with_bus = |arguments: &[&str]| {
            let mut command = a.command(arguments);
            command.envs(bus.as_ref().map(|bus| (address, bus)));
            world::run(&mut command)
        };
        let unlocked = with_bus(&["unlock", "--password-file", "password"]).exits(0);
        assert!(
            unlocked.stdout.contains("in memory"),
            "{row}: {}",
            unlocked.stdout
        );
        assert!(unlocked.stdout.contains(why), "{row}: {}", unlocked.stdout);
        assert_eq!(
            with_bus(&["unlock", "--json"]).exits(0).json()["kept"],
            "agent"
        );
        assert!(!a.home().join("unlocked.saks").exists(), "{row}");
        with_bus(&["sync", "--once"]).exits(0);
        with_bus(&["lock"]).exits(0);
        with_bus(&["sync", "--once"]).exits(11).says("E_LOCKED");
        assert!(
            start.elapsed() < NOT_FOR_EVER,
            "{row}: {:?}",
            start.elapsed()
        );
    }
    assert_eq!(empty.entries() + locked.entries(), 0);
}

#[test]
fn who_wants_no_keyring_has_none() {
    let session = Session::new();
    let world = World::new();
    let a = world.first("a");
    let without = |arguments: &[&str]| {
        let mut command = a.command(arguments);
        command.env("SYNCAGENT_KEYRING", "false");
        world::run(command.envs(session.variables()))
    };
    let unlock = ["unlock", "--json", "--password-file", "password"];
    assert_eq!(without(&unlock).exits(0).json()["kept"], "agent");
    assert_eq!(session.entries(), 0);
    run(&session, &a, &["lock"]).exits(0);
    // The file says the same, and the variable comes before it.
    let config = a.home().join("config.toml");
    let text = fs::read_to_string(&config).unwrap();
    fs::write(&config, format!("keyring = false\n{text}")).unwrap();
    let unlocked = run(&session, &a, &unlock).exits(0);
    assert_eq!(unlocked.json()["kept"], "agent");
    run(&session, &a, &["lock"]).exits(0);
    let with = world::run(
        a.command(&unlock)
            .env("SYNCAGENT_KEYRING", "true")
            .envs(session.variables()),
    );
    assert_eq!(with.exits(0).json()["kept"], "keyring");
    // What is in the keyring is not looked at where it is not wanted, and is taken away all the same.
    run(&session, &a, &["sync", "--once"]).exits(11);
    without(&["lock"]).exits(0);
    assert_eq!(session.entries(), 0);
    let slip = world::run(a.command(&["unlock"]).env("SYNCAGENT_KEYRING", "perhaps"));
    slip.exits(2).says("E_USAGE");
}

#[test]
fn a_keyring_that_goes_away_keeps_nobody_from_locking_or_working() {
    let mut session = Session::new();
    let world = World::new();
    let a = world.first("a");
    assert_eq!(unlock(&session, &a).exits(0).json()["kept"], "keyring");
    session.lock();
    let locked = sync(&session, &a).exits(11).says("E_LOCKED");
    assert!(locked.stderr.contains("is locked"), "{}", locked.stderr);
    session.end();
    let gone = sync(&session, &a).exits(11).says("E_LOCKED");
    assert!(gone.stderr.contains("out of reach"), "{}", gone.stderr);
    let with_password = ["sync", "--once", "--password-file", "password"];
    run(&session, &a, &with_password).exits(0);
    let lock = run(&session, &a, &["lock"]).exits(0);
    assert!(lock.stderr.contains("opens nothing"), "{}", lock.stderr);
    assert!(!a.home().join("unlocked.saks").exists());
    sync(&session, &a).exits(11).says("E_LOCKED");
}

/// As one that a service manager or `cron` started before anybody logged in.
#[test]
fn a_daemon_without_a_bus_is_unlocked_all_the_same() {
    let session = Session::new();
    let world = World::new();
    let a = world.first("a");
    a.write("x", "x");
    let daemon = a.start_daemon();
    run(&session, &a, &["lock"]).exits(0);
    for _ in 0..2 {
        assert_eq!(unlock(&session, &a).exits(0).json()["kept"], "keyring");
        until("the daemon to go on", || {
            let status = a.status();
            (status["running"] == true && status["state"] == "idle").then_some(())
        });
        run(&session, &a, &["lock"]).exits(0);
        assert_eq!(session.entries(), 0);
        sync(&session, &a).exits(11).says("E_LOCKED");
    }
    assert_eq!(daemon.terminate(), 0);
}
