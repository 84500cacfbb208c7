//! The demonstration: what the first command of the README does.

use std::fs;
use std::io::BufRead as _;
use std::path::Path;
use std::process::Stdio;

use serde_json::Value;

use crate::world::{Running, command, healthy, run, until};

fn start(dir: &Path) -> (Running, String) {
    let log = fs::File::options()
        .append(true)
        .create(true)
        .open(dir.join("demo.log"))
        .unwrap();
    let mut demo = Running::start(
        command(dir)
            .args(["demo", "d", "--json"])
            .stdout(Stdio::piped())
            .stderr(log),
    );
    let mut line = String::new();
    demo.take_stdout().read_line(&mut line).unwrap();
    let answer: Value = serde_json::from_str(&line)
        .unwrap_or_else(|_| panic!("{}", fs::read_to_string(dir.join("demo.log")).unwrap()));
    (demo, answer["url"].as_str().unwrap().to_owned())
}

fn passes_a_file(dir: &Path, from: &str, to: &str, name: &str) {
    fs::write(dir.join("d").join(from).join(name), name).unwrap();
    until("the file on the other machine", || {
        fs::read_to_string(dir.join("d").join(to).join(name))
            .ok()
            .filter(|text| text == name)
    });
}

#[test]
fn the_demonstration_runs_and_goes_on_after_being_killed() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    let (demo, url) = start(dir);
    passes_a_file(dir, "laptop", "desktop", "one");
    passes_a_file(dir, "desktop", "laptop", "two");
    let password = fs::read_to_string(dir.join("d/password")).unwrap();
    let second = run(command(dir).args(["demo", "d"]));
    second.exits(5).says("E_BUSY");
    // Without a chance to say good-bye: the children notice by themselves.
    demo.kill();
    until("the server to end", || (!healthy(&url)).then_some(()));
    let (demo, url) = start(dir);
    assert_eq!(
        fs::read_to_string(dir.join("d/password")).unwrap(),
        password
    );
    assert_eq!(
        fs::read_to_string(dir.join("d/desktop/one")).unwrap(),
        "one"
    );
    passes_a_file(dir, "laptop", "desktop", "three");
    assert_eq!(demo.terminate(), 0);
    assert!(!healthy(&url));
    for machine in ["laptop", "desktop"] {
        let home = dir.join("d/.demo").join(machine);
        let status = run(command(dir)
            .env("SYNCAGENT_HOME", home)
            .args(["status", "--json"]))
        .exits(0)
        .json();
        assert_eq!(status["running"], false);
    }
}

#[test]
fn a_directory_that_it_did_not_make_is_left_alone() {
    let dir = tempfile::tempdir().unwrap();
    fs::create_dir(dir.path().join("mine")).unwrap();
    fs::write(dir.path().join("mine/file"), "mine").unwrap();
    run(command(dir.path()).args(["demo", "mine"]))
        .exits(2)
        .says("E_USAGE");
    run(command(dir.path()).args(["demo", "mine/file"]))
        .exits(2)
        .says("E_USAGE");
    assert_eq!(fs::read_dir(dir.path().join("mine")).unwrap().count(), 1);
}

#[cfg(unix)]
#[test]
fn the_password_is_its_owners_alone() {
    use std::os::unix::fs::PermissionsExt as _;
    let dir = tempfile::tempdir().unwrap();
    let (_demo, _) = start(dir.path());
    assert_eq!(
        fs::metadata(dir.path().join("d/password"))
            .unwrap()
            .permissions()
            .mode()
            & 0o777,
        0o600
    );
}
