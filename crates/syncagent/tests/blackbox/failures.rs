//! What else goes wrong on a machine: each is one sentence with a code and an exit, and changes nothing else. The whole
//! table stands in docs/failures.md.

use std::fs;
use std::os::unix::fs::FileExt as _;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};

use crate::world::{Run, World, until};

/// The one line on stderr, but for how far it was.
#[track_caller]
fn only_line(run: &Run) -> &str {
    let said = |line: &&str| !line.starts_with("synchronising: ");
    let lines: Vec<&str> = run.stderr.lines().filter(said).collect();
    assert_eq!(lines.len(), 1, "{}", run.stderr);
    lines[0]
}

#[test]
fn a_damaged_key_file_is_named_and_the_advice_helps() {
    let world = World::new();
    let a = world.first("a");
    a.write("x", "x");
    a.sync_once().exits(0);
    let file = a.home().join("key.saks");
    let whole = fs::read(&file).unwrap();
    // What can be seen without a password.
    let mut other_kind = whole.clone();
    other_kind[0] ^= 1;
    for damaged in [&b""[..], b"damaged", &whole[..100], &other_kind] {
        fs::write(&file, damaged).unwrap();
        let done = a.sync_once().exits(11).says("E_KEYSLOT");
        let said = only_line(&done);
        assert!(
            said.contains(&*file.to_string_lossy()) && said.contains("--recovery-code-file"),
            "{said}"
        );
        assert_eq!(fs::read(&file).unwrap(), damaged);
    }
    // What cannot: it looks like a wrong password.
    let mut flipped = whole.clone();
    flipped[100] ^= 1;
    fs::write(&file, &flipped).unwrap();
    let done = a.sync_once().exits(11).says("E_KEYSLOT");
    assert!(
        only_line(&done).contains("damaged key file"),
        "{}",
        done.stderr
    );

    for damaged in [&b"damaged"[..], &flipped] {
        fs::write(&file, damaged).unwrap();
        let link = format!("{}#{}", world.url, world.invite());
        let folder = a.folder.to_string_lossy().into_owned();
        let words = [
            "join",
            &link,
            &folder,
            "--name",
            "a-machine",
            "--recovery-code-file",
            "recovery-code",
            "--password-file",
            "password",
        ];
        a.run(&words).exits(0);
        a.sync_once().exits(0);
        assert_eq!(a.read("x").as_deref(), Some("x"));
    }
    // The other way.
    let b = world.next("b", &a);
    b.sync_once().exits(0);
    let export = b.with_passwords("export-key").exits(0).stdout;
    fs::write(&file, "damaged").unwrap();
    let words = [
        "import-key",
        "--password-file",
        "password",
        "--export-password-file",
        "export-password",
    ];
    a.feed(&words, &export).exits(0);
    a.sync_once().exits(0);
}

#[test]
fn a_damaged_machine_file_is_named_and_the_advice_helps() {
    let world = World::new();
    let a = world.first("a");
    a.write("x", "x");
    a.sync_once().exits(0);
    let file = a.home().join("machine.json");
    let half = fs::read(&file).unwrap()[..50].to_vec();
    fs::write(&file, &half).unwrap();
    let done = a.sync_once().exits(3).says("E_SETUP");
    let said = only_line(&done);
    assert!(
        said.contains(&*file.to_string_lossy()) && said.contains("reset --new-machine"),
        "{said}"
    );
    assert_eq!(fs::read(&file).unwrap(), half);
    a.run(&["reset", "--new-machine", "--yes"]).exits(0);
    let token = world.invite();
    let folder = a.folder.to_string_lossy().into_owned();
    a.run(&[
        "register", "--server", &world.url, "--token", &token, "--name", "again", "--folder",
        &folder,
    ])
    .exits(0);
    a.write("y", "y");
    a.sync_once().exits(0);
    assert_eq!(a.names(), ["x", "y"]);
    let b = world.next("b", &a);
    b.sync_once().exits(0);
    assert_eq!(b.names(), ["x", "y"]);
}

#[test]
fn a_second_daemon_on_a_folder_or_home_is_exit_5() {
    let world = World::new();
    let a = world.first("a");
    a.write("x", "x");
    let daemon = a.start_daemon();
    for words in [
        &["sync", "--once", "--password-file", "password"][..],
        &["sync", "--password-file", "password"],
    ] {
        let done = a.run(words).exits(5).says("E_BUSY");
        assert!(
            done.stderr.contains(&*a.home().to_string_lossy()),
            "{}",
            done.stderr
        );
    }
    // Another home, the same folder.
    let mut other = world.machine("other");
    other.own_folder = a.own_folder.clone();
    let other = world.joined(other, &a);
    let done = other.sync_once().exits(5).says("E_BUSY");
    assert!(
        only_line(&done).contains(&*a.folder.to_string_lossy()),
        "{}",
        done.stderr
    );
    assert_eq!(a.status()["state"], "idle");
    assert_eq!(daemon.terminate(), 0);
    assert_eq!(a.names(), ["x"]);
    a.sync_once().exits(0);
}

#[test]
fn a_folder_that_was_emptied_or_replaced_holds_everything() {
    let world = World::new();
    let a = world.first("a");
    a.write("x", "x");
    a.sync_once().exits(0);
    let b = world.next("b", &a);
    b.sync_once().exits(0);
    let elsewhere = world.path("elsewhere");
    let held = |case: &str, place: &dyn Fn(&Path)| {
        fs::rename(&a.folder, &elsewhere).unwrap();
        place(&a.folder);
        let done = a.sync_once().exits(13).says("E_ROOT");
        assert!(
            only_line(&done).contains(&*a.folder.to_string_lossy()),
            "{case}: {}",
            done.stderr
        );
        let status = a.run(&["status", "--json"]).exits(13).json();
        assert_eq!(status["held"]["code"], "E_ROOT", "{case}");
        b.sync_once().exits(0);
        assert_eq!(b.names(), ["x"], "{case}");
        match a.folder.is_dir() {
            true => fs::remove_dir_all(&a.folder).unwrap(),
            false => drop(fs::remove_file(&a.folder)),
        }
        fs::rename(&elsewhere, &a.folder).unwrap();
        a.sync_once().exits(0);
        assert_eq!(a.names(), ["x"], "{case}");
    };
    held("gone", &|_| {});
    held("emptied", &|folder| fs::create_dir(folder).unwrap());
    held("another with files", &|folder| {
        fs::create_dir(folder).unwrap();
        fs::write(folder.join("y"), "y").unwrap();
    });
    held("another machine's", &|folder| {
        let c = world.next("c", &b);
        c.sync_once().exits(0);
        fs::rename(&c.folder, folder).unwrap();
    });
    held("a file", &|folder| fs::write(folder, "no folder").unwrap());
    held("a link to nowhere", &|folder| {
        std::os::unix::fs::symlink("nowhere", folder).unwrap();
    });
}

#[test]
fn a_folder_that_lost_its_mark_or_is_another_is_taken_up_again_as_it_is_told() {
    let world = World::new();
    let a = world.first("a");
    a.write("x", "x");
    a.write("y", "y");
    a.sync_once().exits(0);
    let b = world.next("b", &a);
    b.sync_once().exits(0);
    let taken_up = |case: &str| {
        let held = a.sync_once().exits(13).says("E_ROOT");
        held.names("`syncagent reset` and then `syncagent sync`");
        a.run(&["reset", "--yes"]).exits(0);
        a.sync_once().exits(0);
        b.sync_once().exits(0);
        assert_eq!((a.names(), b.names()), (b.names(), a.names()), "{case}");
    };
    // All files are there, and the mark is not; what was edited meanwhile counts.
    fs::remove_dir_all(a.folder.join(".syncagent")).unwrap();
    a.write("new", "new");
    taken_up("lost its mark");
    assert_eq!(b.names(), ["new", "x", "y"]);
    // Another one, of the same vault: nothing of either is lost.
    let c = world.next("c", &b);
    c.sync_once().exits(0);
    c.write("of c", "c");
    fs::rename(&a.folder, world.path("elsewhere")).unwrap();
    fs::rename(&c.folder, &a.folder).unwrap();
    taken_up("another one");
    assert_eq!(b.names(), ["new", "of c", "x", "y"]);
}

#[test]
fn a_folder_that_lost_all_of_its_files_but_not_its_mark_waits_for_a_yes() {
    let world = World::new();
    let a = world.first("a");
    for n in 0..10 {
        a.write(&format!("{n}"), "x");
    }
    a.sync_once().exits(0);
    let b = world.next("b", &a);
    b.sync_once().exits(0);
    for n in 0..10 {
        fs::remove_file(a.folder.join(n.to_string())).unwrap();
    }
    a.sync_once()
        .exits(13)
        .says("E_BRAKE")
        .names("10 of 10 files");
    b.sync_once().exits(0);
    assert_eq!(b.names().len(), 10);
    // It was meant; others are not asked again.
    let yes = ["sync", "--once", "--yes", "--password-file", "password"];
    a.run(&yes).exits(0);
    b.sync_once().exits(0);
    assert!(b.names().is_empty());
}

/// As `cp -a` and backups do it: the same bytes, names and times under new inodes.
fn copy_all(from: &Path, to: &Path) {
    let mut copy = std::process::Command::new("cp");
    assert!(copy.arg("-a").arg(from).arg(to).status().unwrap().success());
}

#[test]
fn a_folder_put_back_from_a_backup_deletes_nothing_and_takes_nothing_back() {
    let world = World::new();
    let a = world.first("a");
    a.write("edited", "before");
    a.write("same", "same");
    a.write("dir/kept", "kept");
    a.sync_once().exits(0);
    let b = world.next("b", &a);
    b.sync_once().exits(0);
    let backup = world.path("backup");
    copy_all(&a.folder, &backup);
    a.write("edited", "after");
    a.write("new", "new");
    a.write("dir/new", "new");
    a.sync_once().exits(0);
    b.write("by b", "b");
    b.sync_once().exits(0);

    // All of it, and then only a part: what is not there yet was not deleted.
    for part in [false, true] {
        fs::remove_dir_all(&a.folder).unwrap();
        copy_all(&backup, &a.folder);
        if part {
            fs::remove_dir_all(a.folder.join("dir")).unwrap();
        }
        let foreseen = a.foresee();
        assert!(!foreseen.stdout.contains("remove"), "{}", foreseen.stdout);
        a.sync_once().exits(0);
        b.sync_once().exits(0);
        for machine in [&a, &b] {
            assert_eq!(machine.names(), ["by b", "dir", "edited", "new", "same"]);
            assert_eq!(machine.read("edited").as_deref(), Some("after"));
            assert_eq!(machine.read("dir/kept").as_deref(), Some("kept"));
            assert_eq!(machine.read("dir/new").as_deref(), Some("new"));
        }
        assert!(
            a.status()["notices"]
                .to_string()
                .contains("put back from a backup")
        );
        // From then on what is deleted there is deleted.
        fs::remove_file(a.folder.join("dir/new")).unwrap();
        a.sync_once().exits(0);
        b.sync_once().exits(0);
        assert_eq!(b.read("dir/new"), None);
        a.write("dir/new", "new");
        a.sync_once().exits(0);
        b.sync_once().exits(0);
    }
}

#[test]
fn a_folder_that_was_only_moved_or_given_to_another_user_is_the_same() {
    let world = World::new();
    let a = world.first("a");
    a.write("x", "x");
    a.write("y", "y");
    a.sync_once().exits(0);
    // Its inodes change, and stay what they are.
    for entry in [a.folder.clone(), a.folder.join(".syncagent/root")] {
        let mode = fs::metadata(&entry).unwrap().permissions();
        fs::set_permissions(&entry, mode).unwrap();
    }
    fs::remove_file(a.folder.join("x")).unwrap();
    a.sync_once().exits(0);
    let b = world.next("b", &a);
    b.sync_once().exits(0);
    assert_eq!(b.names(), ["y"]);
}

#[test]
fn a_folder_whose_copy_stands_in_its_place_is_held_until_sync_starts_again() {
    let world = World::new();
    let a = world.first("a");
    a.write("dir/x", "x");
    a.write("y", "y");
    let b = world.next("b", &a);
    let daemon = a.start_daemon();
    until("the first pass", || {
        b.sync_once().exits(0);
        (b.names() == ["dir", "y"]).then_some(())
    });
    let elsewhere = world.path("elsewhere");
    fs::rename(&a.folder, &elsewhere).unwrap();
    // As a backup brings it back, file by file under new inodes; it is known as the folder before all of it is there.
    fs::create_dir(&a.folder).unwrap();
    let copied = std::process::Command::new("cp")
        .arg("-a")
        .arg(elsewhere.join(".syncagent"))
        .arg(elsewhere.join("dir"))
        .arg(&a.folder)
        .status();
    assert!(copied.unwrap().success());
    until("the daemon to notice", || {
        a.run(&["now"]).exits(0);
        let held = a.status()["held"].clone();
        let says = held["message"].as_str().unwrap_or_default().to_owned();
        (held["code"] == "E_ROOT" && says.contains("another directory")).then_some(())
    });
    b.sync_once().exits(0);
    assert_eq!(b.names(), ["dir", "y"], "what is not there yet was deleted");
    // Somebody starts it again too early.
    assert_eq!(daemon.terminate(), 0);
    let daemon = a.start_daemon();
    a.write("dir/z", "z");
    until("what is written there", || {
        b.sync_once().exits(0);
        b.read("dir/z")
    });
    assert_eq!(b.names(), ["dir", "y"]);
    assert_eq!(a.names(), ["dir", "y"]);
    assert_eq!(daemon.terminate(), 0);
}

#[test]
fn a_file_that_changes_while_it_is_read_is_named_and_comes_whole() {
    let world = World::new();
    let a = world.first("a");
    a.write("other", "x");
    let path = a.folder.join("busy");
    fs::write(&path, vec![0; 8 << 20]).unwrap();
    let ended = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let file = fs::File::options().write(true).open(&path).unwrap();
            for round in 1_u64.. {
                if ended.load(Ordering::SeqCst) {
                    return;
                }
                // At both ends: whoever reads both in one go has a mixture.
                for at in [0, (8 << 20) - 8] {
                    file.write_all_at(&round.to_le_bytes(), at).unwrap();
                }
                std::thread::yield_now();
            }
        });
        let done = a.sync_once();
        ended.store(true, Ordering::SeqCst);
        let done = done.exits(1);
        assert!(
            only_line(&done).starts_with("E_READ: busy: it was being changed"),
            "{}",
            done.stderr
        );
    });
    let b = world.next("b", &a);
    b.sync_once().exits(0);
    assert_eq!(b.names(), ["other"]);
    a.sync_once().exits(0);
    b.sync_once().exits(0);
    assert!(fs::read(&path).unwrap() == fs::read(b.folder.join("busy")).unwrap());
}

#[test]
fn what_an_interruption_left_is_kept_under_a_name_and_told() {
    let world = World::new();
    let a = world.first("a");
    a.write("x", "x");
    a.sync_once().exits(0);
    fs::write(a.folder.join(".syncagent/tmp/letter"), "the only copy").unwrap();
    a.sync_once().exits(0);
    let names = a.names();
    assert!(names[0].starts_with("letter.conflict-"), "{names:?}");
    assert_eq!(a.read(&names[0]).as_deref(), Some("the only copy"));
    let notices = a.status()["notices"].to_string();
    assert!(notices.contains(&names[0]), "{notices}");
    let b = world.next("b", &a);
    b.sync_once().exits(0);
    assert_eq!(b.names(), names);
}

#[cfg(target_os = "linux")]
#[test]
fn a_name_that_is_no_text_is_listed_and_blocks_nothing() {
    use std::os::unix::ffi::OsStrExt as _;
    let world = World::new();
    let a = world.first("a");
    a.write("dir/x", "x");
    let name = std::ffi::OsStr::from_bytes(b"caf\xe9");
    fs::write(a.folder.join("dir").join(name), "y").unwrap();
    a.sync_once().exits(0);
    let status = a.run(&["status", "--json"]).exits(0).json();
    assert_eq!(status["skipped"][0]["path"], "dir/caf\\xe9");
    assert!(
        status["skipped"][0]["detail"]
            .as_str()
            .unwrap()
            .contains("Rename it")
    );
    assert_eq!(fs::read(a.folder.join("dir").join(name)).unwrap(), b"y");
}

#[test]
fn plain_http_to_a_server_with_tls_says_so() {
    let mut world = World::without_server();
    world.start_server_with(&["--data", "server", "--tls", "self-signed"], &[]);
    let a = world.first("a");
    a.write("x", "x");
    a.sync_once().exits(0);
    let file = a.home().join("config.toml");
    let config = fs::read_to_string(&file)
        .unwrap()
        .replace("https:", "http:");
    let lines: Vec<&str> = config
        .lines()
        .filter(|line| !line.starts_with("certificate"))
        .collect();
    fs::write(&file, lines.join("\n")).unwrap();
    let done = a.sync_once().exits(5).says("E_OFFLINE");
    assert!(only_line(&done).contains("https://"), "{}", done.stderr);
}

#[cfg(target_os = "linux")]
mod linux {
    use std::io::{BufRead as _, BufReader};
    use std::path::PathBuf;
    use std::process::{Command, Stdio};

    use super::*;
    use crate::tls;
    use crate::world::{Machine, run};

    /// Compiles a few lines of C: they do to a process what nobody else may.
    fn compile(world: &World, name: &str, source: &str, flags: &[&str]) -> PathBuf {
        let (text, made) = (world.path(&format!("{name}.c")), world.path(name));
        fs::write(&text, source).unwrap();
        let output = Command::new("cc")
            .args(flags)
            .arg("-o")
            .arg(&made)
            .arg(&text)
            .output();
        let output = output.expect("a C compiler called cc, which the build needs as well");
        assert!(
            output.status.success(),
            "{}",
            String::from_utf8_lossy(&output.stderr)
        );
        made
    }

    /// Holds a file until its stdin ends, in the way its first argument says.
    const HOLD: &str = r#"
        #define _GNU_SOURCE
        #include <fcntl.h>
        #include <signal.h>
        #include <stdio.h>
        #include <sys/file.h>
        int main(int argc, char **argv) {
            int fd = open(argv[2], O_RDWR);
            struct flock all = { .l_type = F_WRLCK };
            signal(SIGIO, SIG_IGN);
            int failed = argv[1][0] == 'f' ? flock(fd, LOCK_EX)
                : argv[1][0] == 'o' ? fcntl(fd, F_OFD_SETLK, &all)
                : fcntl(fd, F_SETLEASE, F_WRLCK);
            if (fd < 0 || failed) { perror(argv[1]); return 1; }
            puts("held");
            fflush(stdout);
            return getchar() != EOF;
        }"#;

    #[test]
    fn a_lock_stops_nobody_but_a_lease_is_named_and_waited_for() {
        let world = World::new();
        let hold = compile(&world, "hold", HOLD, &[]);
        let a = world.first("a");
        let b = world.next("b", &a);
        for how in ["flock", "ofd", "lease"] {
            a.write(how, "before");
            a.write("other", how);
            let mut holder = Command::new(&hold)
                .args([how, &a.folder.join(how).to_string_lossy()])
                .stdin(Stdio::piped())
                .stdout(Stdio::piped())
                .spawn()
                .unwrap();
            let mut line = String::new();
            BufReader::new(holder.stdout.take().unwrap())
                .read_line(&mut line)
                .unwrap();
            assert_eq!(line, "held\n");
            match how {
                // Whoever opens a file under a lease is to wait until its holder has written what it has.
                "lease" => {
                    let done = a.sync_once().exits(1);
                    let said = only_line(&done);
                    assert!(
                        said.starts_with("E_READ: lease: ")
                            && said.contains("in use by another program"),
                        "{said}"
                    );
                }
                _ => drop(a.sync_once().exits(0)),
            }
            b.sync_once().exits(0);
            assert_eq!(b.read("other").as_deref(), Some(how));
            assert_eq!(b.read(how).is_some(), how != "lease");
            if how != "lease" {
                // It is replaced, as it would be by any other program.
                b.write(how, "after");
                b.sync_once().exits(0);
                a.sync_once().exits(0);
                assert_eq!(a.read(how).as_deref(), Some("after"));
            }
            drop(holder.stdin.take());
            assert!(holder.wait().unwrap().success());
        }
        a.sync_once().exits(0);
        b.sync_once().exits(0);
        assert_eq!(b.read("lease").as_deref(), Some("before"));
    }

    /// Moves the clock of a process by as many seconds as `SHIFT_S` says.
    const CLOCK: &str = r#"
        #define _GNU_SOURCE
        #include <stdlib.h>
        #include <sys/syscall.h>
        #include <time.h>
        #include <unistd.h>
        int clock_gettime(clockid_t id, struct timespec *at) {
            int failed = syscall(SYS_clock_gettime, id, at);
            const char *shift = getenv("SHIFT_S");
            if (!failed && id == CLOCK_REALTIME && shift) at->tv_sec += atoll(shift);
            return failed;
        }"#;
    const YEAR_S: i64 = 365 * 86_400;

    #[test]
    fn a_clock_that_makes_a_certificate_invalid_is_suspected() {
        let mut world = World::without_server();
        let clock = compile(&world, "clock.so", CLOCK, &["-shared", "-fPIC"]);
        let ours = tls::authority("ours");
        fs::write(world.path("ca.pem"), ours.pem()).unwrap();
        tls::issue(&ours, &["127.0.0.1"], world.dir());
        world.start_server_with(tls::FILES, &[]);
        let a = world.machine("a");
        let token = world.invite();
        let folder = a.folder.to_string_lossy().into_owned();
        let words = [
            "register", "--server", &world.url, "--token", &token, "--name", "anna", "--folder",
            &folder, "--ca", "ca.pem",
        ];
        // Before the certificate's first day, and after its last.
        for years in [-54, 2500] {
            let mut command = a.command(&words);
            command
                .env("LD_PRELOAD", &clock)
                .env("SHIFT_S", (years * YEAR_S).to_string());
            let done = run(&mut command).exits(12).says("E_CERTIFICATE");
            assert!(only_line(&done).contains("clock right?"), "{}", done.stderr);
        }
        a.run(&words).exits(0);
    }

    #[test]
    fn clocks_that_are_years_off_decide_nothing_and_doctor_tells() {
        let world = World::new();
        let clock = compile(&world, "clock.so", CLOCK, &["-shared", "-fPIC"]);
        let a = world.first("a");
        let b = world.next("b", &a);
        let at = |machine: &Machine, years: i64, words: &[&str]| {
            let mut command = machine.command(words);
            command
                .env("LD_PRELOAD", &clock)
                .env("SHIFT_S", (years * YEAR_S).to_string());
            run(&mut command)
        };
        let once = ["sync", "--once", "--password-file", "password"];
        // 1970, as where a battery is empty; before that, where no clock begins; and far beyond.
        for (years_a, years_b) in [(10, -56), (-70, 200)] {
            let dir = format!("{years_a} {years_b}");
            let [file, gone, both] = ["file", "gone", "both"].map(|name| format!("{dir}/{name}"));
            let sync_a = || at(&a, years_a, &once);
            let sync_b = || at(&b, years_b, &once);
            [&file, &gone, &both]
                .into_iter()
                .for_each(|path| a.write(path, "1"));
            sync_a().exits(0);
            sync_b().exits(0);
            // Edits right after one another, of the same length: later ones win, whatever any clock says.
            for text in ["2", "3"] {
                b.write(&file, text);
                sync_b().exits(0);
                sync_a().exits(0);
                assert_eq!(a.read(&file).as_deref(), Some(text), "{dir}");
            }
            fs::remove_file(a.folder.join(&gone)).unwrap();
            sync_a().exits(0);
            sync_b().exits(0);
            assert_eq!(b.read(&gone), None, "{dir}");
            // The server's version keeps the name, not the one whose clock is ahead.
            a.write(&both, "a");
            b.write(&both, "b");
            sync_a().exits(0);
            sync_b().exits(10);
            sync_a().exits(0);
            for machine in [&a, &b] {
                assert_eq!(machine.read(&both).as_deref(), Some("a"), "{dir}");
                let names = fs::read_dir(machine.folder.join(&dir)).unwrap();
                let names: Vec<String> = names
                    .map(|entry| entry.unwrap().file_name().into_string().unwrap())
                    .collect();
                let copy = names
                    .iter()
                    .find(|name| name.starts_with("both.conflict-"))
                    .unwrap();
                assert_eq!(
                    machine.read(&format!("{dir}/{copy}")).as_deref(),
                    Some("b"),
                    "{dir}"
                );
            }
            let quiet = at(&a, years_a, &[&once[..], &["--json"]].concat())
                .exits(0)
                .json();
            assert_eq!(
                (&quiet["sent"], &quiet["fetched"], &quiet["removed"]),
                (&0.into(), &0.into(), &0.into())
            );
            let doctor = at(&a, years_a, &["doctor"]);
            let line = doctor
                .stdout
                .lines()
                .find(|line| line.contains("clock"))
                .unwrap()
                .to_owned();
            assert!(line.starts_with("look") && line.contains("apart"), "{line}");
        }
        // And right again.
        for machine in [&a, &b] {
            let quiet = machine
                .run(&[&once[..], &["--json"]].concat())
                .exits(0)
                .json();
            assert_eq!(
                (&quiet["sent"], &quiet["fetched"], &quiet["removed"]),
                (&0.into(), &0.into(), &0.into())
            );
        }
        let versions = a
            .run(&["versions", "10 -56/file", "--json"])
            .exits(0)
            .json();
        assert_eq!(versions["versions"].as_array().unwrap().len(), 3);
    }
}
