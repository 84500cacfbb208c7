//! What a person sees on a terminal of 90 columns, and a script in a pipe.

use std::fs::File;
use std::io::Read as _;
use std::os::fd::OwnedFd;
use std::process::Command;

use rustix::fs::{Mode, OFlags};
use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
use rustix::termios::{Winsize, tcsetwinsize};

use crate::world::{Machine, World, run};

const COLUMNS: u16 = 90;

/// What a command that ends with this status writes to stdout and stderr if both are a terminal.
fn on_terminal(command: &mut Command, exit: i32) -> String {
    let ours = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY).unwrap();
    grantpt(&ours).unwrap();
    unlockpt(&ours).unwrap();
    let name = ptsname(&ours, Vec::new()).unwrap();
    let theirs: OwnedFd =
        rustix::fs::open(name, OFlags::RDWR | OFlags::NOCTTY, Mode::empty()).unwrap();
    let size = Winsize {
        ws_row: 30,
        ws_col: COLUMNS,
        ws_xpixel: 0,
        ws_ypixel: 0,
    };
    tcsetwinsize(&theirs, size).unwrap();
    let child = command
        .stdout(theirs.try_clone().unwrap())
        .stderr(theirs)
        .spawn();
    // What the command has of it, too, or the terminal would stay open here.
    *command = Command::new("true");
    let mut child = child.unwrap();
    let (mut text, mut ours) = (Vec::new(), File::from(ours));
    let mut piece = [0; 4096];
    // An error is how a terminal ends.
    while let Ok(len @ 1..) = ours.read(&mut piece) {
        text.extend_from_slice(&piece[..len]);
    }
    assert_eq!(child.wait().unwrap().code(), Some(exit));
    String::from_utf8(text).unwrap().replace("\r\n", "\n")
}

fn words(text: &str) -> Vec<&str> {
    text.split_whitespace().collect()
}

/// Sees that lines break between words on the terminal, and nowhere in a pipe.
#[track_caller]
fn breaks_between_words(machine: &Machine, arguments: &[&str], exit: i32) {
    let piped = run(&mut machine.command(arguments)).exits(exit);
    let piped = piped.stdout + &piped.stderr;
    let width = usize::from(COLUMNS);
    let is_long = |line: &&str| line.chars().count() > width;
    assert!(piped.lines().any(|line| is_long(&line)), "{piped}");
    let seen = on_terminal(&mut machine.command(arguments), exit);
    assert_eq!(words(&seen), words(&piped));
    let fits = |line: &&str| !is_long(line) || words(line).len() == 1;
    assert!(seen.lines().all(|line| fits(&line)), "{seen}");
    assert!(seen.lines().count() > piped.lines().count());
    if exit != 0 {
        return;
    }
    // JSON is for scripts, wherever it goes.
    let json = [arguments, &["--json", "--quiet"]].concat();
    let piped = run(&mut machine.command(&json)).exits(0).stdout;
    assert_eq!(on_terminal(&mut machine.command(&json), 0), piped);
}

#[test]
fn long_sentences_break_between_words_on_a_terminal_and_nowhere_else() {
    let world = World::new();
    let a = world.first("a");
    let b = world.next("b", &a);
    a.write("plan", "before");
    a.sync_once().exits(0);
    b.sync_once().exits(0);
    a.write("plan", "theirs");
    b.write("plan", "mine, and longer");
    a.sync_once().exits(0);
    b.sync_once().exits(10);
    breaks_between_words(&b, &["conflicts", "list"], 0);
    breaks_between_words(&b, &["explain", "plan"], 0);
    breaks_between_words(&world.machine("c"), &["status"], 3);
}
