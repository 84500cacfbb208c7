//! Flag, variable, file, default: what comes first, what a slip is told, and that the pages about it are current.

use std::fs;
use std::path::Path;

use crate::world::{Run, World, command, run};

fn server(world: &World, arguments: &[&str], variables: &[(&str, &str)]) -> Run {
    let mut all = vec!["server"];
    all.extend(arguments);
    run(command(world.dir())
        .args(all)
        .envs(variables.iter().copied()))
}

/// A server that was told where to keep things, and what it made.
#[test]
fn a_server_keeps_things_where_it_is_told() {
    let mut world = World::new();
    world.stop_server();
    fs::create_dir(world.path("moved")).unwrap();
    fs::write(
        world.path("moved/config.toml"),
        "db_path = \"sub/catalog.db\"\nstorage_path = \"nowhere\"\nlog_path = \"nowhere\"\n",
    )
    .unwrap();
    let flags = ["--data", "moved", "--storage-path", "big"];
    let variables = [
        ("SYNCAGENT_LOG_PATH", "log files"),
        ("SYNCAGENT_STORAGE_PATH", "nowhere"),
        ("SYNCAGENT_TRASH_RETENTION_DAYS", "7"),
    ];
    world.start_server_with(&flags, &variables);
    let a = world.machine("a");
    a.run(&["init", "--password-file", "password"]).exits(0);
    let invite = [&["invite"][..], &flags].concat();
    let token = server(&world, &invite, &variables).exits(0).stdout;
    a.run(&[
        "register",
        "--server",
        &world.url,
        "--token",
        token.trim(),
        "--name",
        "a-machine",
        "--folder",
        "a",
    ])
    .exits(0);
    a.write("file", &"content ".repeat(1000));
    a.sync_once().exits(0);
    assert!(world.path("moved/sub/catalog.db").exists());
    assert!(!world.path("moved/syncagent.db").exists() && !world.path("moved/packs").exists());
    assert!(fs::read_dir(world.path("big")).unwrap().count() > 1);
    let log = fs::read_dir(world.path("log files")).unwrap().next();
    let log = fs::read_to_string(log.unwrap().unwrap().path()).unwrap();
    assert!(
        log.contains("listening") && log.contains("retention of 7 days"),
        "{log}"
    );
    assert!(!world.path("nowhere").exists() && !world.path("moved/nowhere").exists());

    // Two servers with directories of their own do not share a catalog or packs.
    for shared in [
        ["--db-path", "moved/sub/catalog.db"],
        ["--storage-path", "big"],
    ] {
        let all = [&["--data", "other", "--listen", "127.0.0.1:0"][..], &shared].concat();
        server(&world, &all, &[]).exits(5).says("E_BUSY");
    }
}

#[test]
fn a_slip_is_named_with_the_place_where_it_stands() {
    let world = World::new();
    let path = |name: &str| world.path(name).display().to_string();
    fs::write(world.path("unknown.toml"), "lisen = \"127.0.0.1:1\"\n").unwrap();
    fs::write(world.path("slip.toml"), "log = \"stderr\"\nlisten = \n").unwrap();
    fs::write(world.path("odd.toml"), "listen = \"everywhere\"\n").unwrap();
    fs::create_dir(world.path("own")).unwrap();
    fs::write(world.path("own/config.toml"), "data = \"elsewhere\"\n").unwrap();
    for (arguments, variables, named) in [
        (
            &["--config", "unknown.toml"][..],
            &[][..],
            &["`lisen`", &path("unknown.toml")][..],
        ),
        (
            &[],
            &[("SYNCAGENT_CONFIG", "unknown.toml")],
            &["`lisen`", &path("unknown.toml")],
        ),
        (
            &["--config", "slip.toml"],
            &[],
            &[&path("slip.toml"), "line 2"],
        ),
        (
            &["--config", "odd.toml"],
            &[],
            &["`listen`", &path("odd.toml"), "everywhere"],
        ),
        (
            &["--data", "own"],
            &[],
            &["`data`", &path("own/config.toml")],
        ),
        (
            &["--data", "x"],
            &[("SYNCAGENT_LISTEN", "nowhere")],
            &["SYNCAGENT_LISTEN", "nowhere"],
        ),
        (
            &["--data", "x"],
            &[("SYNCAGENT_LOG", "syslog")],
            &["SYNCAGENT_LOG", "stdout"],
        ),
        (
            &["--data", "x"],
            &[("SYNCAGENT_TRASH_RETENTION_DAYS", "soon")],
            &["SYNCAGENT_TRASH_RETENTION_DAYS", "36500"],
        ),
        (
            &["--data", "x", "--trash-retention-days", "0"],
            &[],
            &["--trash-retention-days"],
        ),
    ] {
        let said = server(&world, arguments, variables).exits(2).stderr;
        assert!(
            named.iter().all(|name| said.contains(name)),
            "{named:?} in {said}"
        );
    }
    let missing = server(&world, &["--config", "missing.toml"], &[]);
    assert!(
        missing
            .exits(1)
            .says("E_READ")
            .stderr
            .contains("missing.toml")
    );
    // What comes first is not spoiled by what comes after it.
    let fine = [
        "--config",
        "odd.toml",
        "--data",
        "x",
        "--listen",
        "256.0.0.1:1",
    ];
    server(&world, &fine, &[]).exits(2);
    assert!(!world.path("x").exists());
}

#[test]
fn a_machine_reads_variables_before_its_file() {
    let world = World::new();
    let a = world.machine("a");
    a.run(&["init", "--password-file", "password"]).exits(0);
    let token = world.invite();
    // No flag names server, name or folder.
    let mut register = a.command(&["register", "--token", &token]);
    register
        .env("SYNCAGENT_SERVER", &world.url)
        .env("SYNCAGENT_NAME", "from-variable")
        .env("SYNCAGENT_FOLDER", "a");
    let registered = run(&mut register).exits(0);
    assert!(
        registered.stdout.contains("from-variable"),
        "{}",
        registered.stdout
    );
    a.write("x", "x");
    // The password by a variable, then by the file, and the variable again before the file.
    let config = a.home().join("config.toml");
    let file = fs::read_to_string(&config).unwrap();
    let with = |line: &str| fs::write(&config, format!("{file}{line}\n")).unwrap();
    let once = || a.command(&["sync", "--once"]);
    run(once().env("SYNCAGENT_PASSWORD_COMMAND", "cat password")).exits(0);
    with("password_command = \"cat password\"");
    run(&mut once()).exits(0);
    run(once().env("SYNCAGENT_PASSWORD_COMMAND", "cat wrong-password"))
        .exits(11)
        .says("E_KEYSLOT");
    // A server that is not there comes from the variable, not from the file.
    run(once().env("SYNCAGENT_SERVER", "http://127.0.0.1:1"))
        .exits(5)
        .says("E_OFFLINE");
    for (line, named) in [
        ("sever = \"x\"", "sever"),
        ("full_scan_s = 1", "full_scan_s"),
        ("quiet_ms = \"soon\"", "quiet_ms"),
    ] {
        with(line);
        let run = once().output().unwrap();
        let said = String::from_utf8(run.stderr).unwrap();
        assert!(!run.status.success(), "{line}");
        assert!(
            said.contains(named) && said.contains("config.toml"),
            "{line}: {said}"
        );
    }
    with("");
    run(once().env("SYNCAGENT_FULL_SCAN_S", "often"))
        .exits(2)
        .says("E_USAGE");
}

#[test]
fn the_pages_about_settings_and_commands_are_current() {
    let docs = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs");
    let dir = tempfile::tempdir().unwrap();
    for (page, file) in [("config", "config.md"), ("cli", "cli.md")] {
        let made = run(command(dir.path()).args(["reference", page]))
            .exits(0)
            .stdout;
        let kept = fs::read_to_string(docs.join(file)).unwrap();
        assert!(
            made == kept,
            "docs/{file} is not current: run `cargo xtask docs`"
        );
    }
}

#[test]
fn shells_and_man_get_what_they_need() {
    let dir = tempfile::tempdir().unwrap();
    for shell in ["bash", "zsh", "fish", "powershell", "elvish"] {
        let script = run(command(dir.path()).args(["completions", shell])).exits(0);
        assert!(script.stdout.contains("dry-run"), "{shell}");
    }
    let page = run(command(dir.path()).args(["man"])).exits(0).stdout;
    assert!(page.contains(".TH syncagent 1") && page.contains("EXIT STATUS"));
    run(command(dir.path()).args(["man", "pages"])).exits(0);
    let pages: Vec<_> = fs::read_dir(dir.path().join("pages"))
        .unwrap()
        .map(|page| page.unwrap().file_name().into_string().unwrap())
        .collect();
    for name in [
        "syncagent.1",
        "syncagent-sync.1",
        "syncagent-trash-restore.1",
    ] {
        assert!(pages.iter().any(|page| page == name), "{name} in {pages:?}");
    }
    assert!(
        !pages
            .iter()
            .any(|page| page.contains("agent-agent") || page.contains("help"))
    );
}
