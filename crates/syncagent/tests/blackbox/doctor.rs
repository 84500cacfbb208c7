//! `doctor`: each thing that can be wrong is named, with what to do.

use std::collections::BTreeMap;
use std::fs;
use std::io::{BufRead as _, BufReader, Write as _};
use std::net::TcpListener;
use std::process::Command;

use crate::world::{Machine, World, run, until};

/// What it says: check to level, code, detail.
fn checks(
    machine: &Machine,
    exit: i32,
    variables: &[(&str, &str)],
) -> BTreeMap<String, [String; 3]> {
    let mut command = machine.command(&["doctor", "--json"]);
    let answer = run(command.envs(variables.iter().copied()))
        .exits(exit)
        .json();
    assert_eq!(answer["exit"], exit);
    let text = |value: &serde_json::Value| value.as_str().unwrap_or_default().to_owned();
    let rows = answer["checks"].as_array().unwrap().iter();
    rows.map(|row| {
        let said = ["level", "code", "detail"].map(|key| text(&row[key]));
        (text(&row["check"]), said)
    })
    .collect()
}

#[track_caller]
fn says(checks: &BTreeMap<String, [String; 3]>, check: &str, level: &str, part: &str) {
    let [found, _, detail] = &checks[check];
    assert!(
        found == level && detail.contains(part),
        "{check}: {found} {detail}"
    );
}

#[test]
fn what_is_right_and_what_is_not() {
    let mut world = World::new();
    let a = world.machine("a");
    let nothing = checks(&a, 3, &[]);
    says(&nothing, "home", "bad", "syncagent init");
    assert!(!a.home().exists());

    a.run(&["init", "--password-file", "password"]).exits(0);
    let unregistered = checks(&a, 3, &[]);
    says(&unregistered, "server", "bad", "syncagent register");
    world.register(&a);
    a.write("dir/file", "content");
    a.sync_once().exits(0);
    let fine = checks(&a, 0, &[]);
    for check in [
        "home", "settings", "key", "server", "clock", "access", "folder", "names",
    ] {
        says(&fine, check, "ok", "");
    }
    says(&fine, "recovery", "look", "syncagent recovery test");
    says(&fine, "running", "look", "syncagent sync");
    let text = a.run(&["doctor"]).exits(0).stdout;
    assert!(
        text.lines()
            .all(|line| ["ok ", "look "].iter().any(|word| line.starts_with(word))),
        "{text}"
    );

    let daemon = a.start_daemon();
    says(&checks(&a, 0, &[]), "running", "ok", "");
    daemon.terminate();

    let away = checks(&a, 5, &[("SYNCAGENT_SERVER", "http://127.0.0.1:1")]);
    says(&away, "server", "bad", "connection");
    assert_eq!(away["server"][1], "E_OFFLINE");
    assert!(!away.contains_key("access"));
    world.stop_server();

    fs::rename(&a.folder, world.path("elsewhere")).unwrap();
    let gone = checks(&a, 13, &[]);
    says(&gone, "folder", "bad", "missing");
    fs::create_dir(&a.folder).unwrap();
    says(&checks(&a, 13, &[]), "folder", "bad", "not mounted");

    fs::write(a.home().join("state.db"), "garbage ".repeat(1000)).unwrap();
    says(&checks(&a, 7, &[]), "state", "bad", "syncagent reset");
    fs::write(a.home().join("config.toml"), "sever = 1").unwrap();
    says(&checks(&a, 3, &[]), "settings", "bad", "`sever`");
    fs::remove_file(a.home().join("key.saks")).unwrap();
    says(&checks(&a, 3, &[]), "key", "bad", "no key");
}

#[test]
fn a_machine_that_is_held_or_halted_is_not_healthy() {
    let mut world = World::new();
    let a = world.first("a");
    let many = |text: &str| (0..20).for_each(|i| a.write(&format!("many/{i}"), text));
    many("x");
    a.sync_once().exits(0);
    let address = world.address();
    world.stop_server();
    let (server, earlier) = (world.path("server"), world.path("earlier"));
    let copied = Command::new("cp")
        .arg("-r")
        .args([&server, &earlier])
        .status();
    assert!(copied.unwrap().success());
    world.start_server(&address);

    // Every file would go: with a daemon, and with nothing running.
    let reaches = |state: &str| until(state, || (a.status()["state"] == state).then_some(()));
    let daemon = a.start_daemon();
    a.run(&["pause"]).exits(0);
    says(&checks(&a, 0, &[]), "running", "look", "syncagent resume");
    fs::remove_dir_all(a.folder.join("many")).unwrap();
    a.run(&["resume"]).exits(0);
    reaches("held");
    let waits = checks(&a, 13, &[]);
    says(&waits, "sync", "bad", "syncagent now --yes");
    assert_eq!(waits["sync"][1], "E_BRAKE");
    says(&waits, "running", "look", "waits");
    a.run(&["now", "--yes"]).exits(0);
    reaches("idle");
    let fine = checks(&a, 0, &[]);
    says(&fine, "running", "ok", "up to date");
    assert!(!fine.contains_key("sync"));
    assert_eq!(daemon.terminate(), 0);
    many("again");
    a.sync_once().exits(0);
    fs::remove_dir_all(a.folder.join("many")).unwrap();
    a.sync_once().exits(13);
    let waits = checks(&a, 13, &[]);
    says(&waits, "sync", "bad", "syncagent sync --once --yes");
    says(&waits, "running", "look", "syncagent sync");
    a.run(&["sync", "--once", "--yes", "--password-file", "password"])
        .exits(0);
    assert!(!checks(&a, 0, &[]).contains_key("sync"));

    // A server that was put back: until it is settled, and no longer.
    world.stop_server();
    fs::rename(&server, world.path("later")).unwrap();
    fs::rename(&earlier, &server).unwrap();
    world.start_server(&address);
    a.sync_once().exits(14);
    let halted = checks(&a, 14, &[]);
    says(&halted, "sync", "bad", "syncagent recover");
    assert_eq!(halted["sync"][1], "E_ROLLBACK");
    world.stop_server();
    fs::remove_dir_all(&server).unwrap();
    fs::rename(world.path("later"), &server).unwrap();
    world.start_server(&address);
    a.sync_once().exits(0);
    assert!(!checks(&a, 0, &[]).contains_key("sync"));
}

#[test]
fn a_clock_that_is_wrong_is_noticed() {
    let world = World::new();
    let a = world.first("a");
    a.sync_once().exits(0);
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    // Answers twice: to the question for its health, and to the one for the machines.
    let server = std::thread::spawn(move || {
        for stream in listener.incoming().take(2) {
            let mut stream = stream.unwrap();
            let request = BufReader::new(stream.try_clone().unwrap());
            let head = request.lines().map(Result::unwrap);
            let _ = head.take_while(|line| !line.is_empty()).count();
            let answer = "HTTP/1.1 200 OK\r\nDate: Tue, 01 Jan 2019 00:00:00 GMT\r\nContent-Length: 0\r\nConnection: close\r\n\r\n";
            stream.write_all(answer.as_bytes()).unwrap();
        }
    });
    let wrong = checks(&a, 5, &[("SYNCAGENT_SERVER", &url)]);
    says(&wrong, "clock", "look", "days apart");
    server.join().unwrap();
}
