//! What a command wants on this machine before it starts. It is named first, then asked for, then fetched.

use std::env;
use std::fs;
use std::io::{IsTerminal, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Instant;

use anyhow::{Context, Result, bail};

use crate::cross;
use crate::workspace::{Workspace, cargo};

/// What Python is called here.
const PYTHON: &str = if cfg!(windows) { "python" } else { "python3" };

/// The versions of cargo-llvm-cov and cargo-mutants that were tried.
const LLVM_COV: &str = "0.9.1";
const MUTANTS: &str = "27.1.0";

/// Whether things may be fetched and installed without a question.
#[derive(Clone, Copy)]
pub(crate) struct Consent {
    given: bool,
}

impl Consent {
    /// Given by `--yes`, and by `CI=true`, where nobody could answer.
    pub(crate) fn new(yes: bool) -> Self {
        Self {
            given: yes || env::var("CI").is_ok_and(|ci| ci == "true"),
        }
    }
}

/// Something a command cannot do without.
#[derive(Clone, Copy)]
pub(crate) enum Need {
    /// Python with its `venv` module.
    Python,
    /// A virtual environment with what `vectors/check` imports.
    VectorsVenv,
    /// What `cross` compiles with.
    Cross,
    /// What `bench` compares with.
    Rsync,
    /// What `coverage` counts with.
    Coverage,
    /// What `mutation` makes its changes with.
    Mutation,
    /// A session bus and a keyring, for tests to start their own; on Linux alone.
    Keyring,
}

/// Gets one thing, or says why it cannot be had.
type Fetch = dyn Fn(&Workspace) -> Result<()>;

/// One thing to be fetched: what is said about it, and how it is done.
pub(crate) struct Want {
    pub what: String,
    pub fetch: Box<Fetch>,
}

/// Makes sure of every need, in order. What is there already costs nothing.
pub(crate) fn ensure(workspace: &Workspace, consent: Consent, needs: &[Need]) -> Result<()> {
    let mut wants = Vec::new();
    for need in needs {
        match need {
            Need::Python => wants.extend(python()?),
            Need::VectorsVenv => wants.extend(vectors_venv(workspace)?),
            Need::Cross if cross::targets().is_empty() => {}
            Need::Cross => wants.extend(cross::wanted(workspace)?),
            Need::Rsync => wants.extend(rsync()?),
            Need::Coverage => wants.extend(coverage()),
            Need::Mutation => wants.extend(cargo_tool("mutants", MUTANTS)),
            Need::Keyring if !cfg!(target_os = "linux") => {}
            Need::Keyring => wants.extend(keyring()?),
        }
    }
    if wants.is_empty() {
        return Ok(());
    }
    println!("Wanted on this machine:");
    for want in &wants {
        println!("  - {}", want.what);
    }
    ask(consent)?;
    for want in &wants {
        let start = Instant::now();
        (want.fetch)(workspace).with_context(|| format!("cannot get {}", want.what))?;
        println!(
            "  got it in {:.1} s: {}",
            start.elapsed().as_secs_f64(),
            want.what
        );
    }
    println!();
    Ok(())
}

fn ask(consent: Consent) -> Result<()> {
    if consent.given {
        return Ok(());
    }
    if !std::io::stdin().is_terminal() {
        bail!("nobody to ask here. Allow it with --yes (or CI=true), or install it yourself");
    }
    print!("Install? [y/N] ");
    std::io::stdout().flush()?;
    let mut answer = String::new();
    std::io::stdin().read_line(&mut answer)?;
    if !matches!(answer.trim(), "y" | "Y" | "yes") {
        bail!("nothing was installed, so nothing was run");
    }
    Ok(())
}

fn python() -> Result<Option<Want>> {
    if succeeds(Command::new(PYTHON).args(["-c", "import ensurepip, venv"])) {
        return Ok(None);
    }
    if !has_apt() {
        bail!(
            "{PYTHON} with its venv module is missing. Install Python 3.11 or newer and run this again"
        );
    }
    Ok(Some(Want {
        what: "Debian package python3-venv (apt-get install)".to_owned(),
        fetch: Box::new(|_| apt_install("python3-venv")),
    }))
}

fn rsync() -> Result<Option<Want>> {
    if succeeds(Command::new("rsync").arg("--version")) {
        return Ok(None);
    }
    if !has_apt() {
        bail!("rsync is missing. Install it with the system's packages and run this again");
    }
    Ok(Some(Want {
        what: "Debian package rsync (apt-get install)".to_owned(),
        fetch: Box::new(|_| apt_install("rsync")),
    }))
}

fn keyring() -> Result<Option<Want>> {
    let there = |program: &str| succeeds(Command::new(program).arg("--version"));
    // dbus-send knows no `--version`; it comes with dbus-daemon.
    if there("dbus-daemon") && there("gnome-keyring-daemon") {
        return Ok(None);
    }
    if !has_apt() {
        bail!(
            "dbus-daemon or gnome-keyring-daemon is missing. Install them with the system's packages and run this again"
        );
    }
    Ok(Some(Want {
        what: "Debian packages dbus, gnome-keyring (apt-get install)".to_owned(),
        fetch: Box::new(|_| apt_install_all(&["dbus", "gnome-keyring"])),
    }))
}

/// The tool, and the part of the compiler that reads its counters.
fn coverage() -> Vec<Want> {
    let mut wants = Vec::new();
    if !llvm_tools() {
        wants.push(Want {
            what: "llvm-tools of this compiler (rustup component add llvm-tools)".to_owned(),
            fetch: Box::new(|_| {
                quietly(Command::new("rustup").args(["component", "add", "llvm-tools"])).context(
                    "without rustup: set LLVM_COV and LLVM_PROFDATA to llvm's own, of the version that rustc -vV names",
                )
            }),
        });
    }
    wants.extend(cargo_tool("llvm-cov", LLVM_COV));
    wants
}

/// `cargo <name>`, which crates.io has as `cargo-<name>`.
fn cargo_tool(name: &str, version: &'static str) -> Option<Want> {
    if succeeds(cargo().args([name, "--version"])) {
        return None;
    }
    let line = format!("install --locked cargo-{name} --version {version}");
    Some(Want {
        what: format!("cargo-{name} {version} (cargo {line})"),
        fetch: Box::new(move |_| quietly(cargo().args(line.split(' ')))),
    })
}

/// Whether llvm-cov and llvm-profdata are beside the compiler, or were named.
fn llvm_tools() -> bool {
    if env::var_os("LLVM_COV").is_some() && env::var_os("LLVM_PROFDATA").is_some() {
        return true;
    }
    let libraries = capture(Command::new("rustc").args(["--print", "target-libdir"]));
    libraries.is_ok_and(|path| {
        let tools = Path::new(path.trim()).with_file_name("bin");
        ["llvm-cov", "llvm-profdata"].iter().all(|name| {
            tools
                .join(format!("{name}{}", env::consts::EXE_SUFFIX))
                .exists()
        })
    })
}

fn apt_install(package: &str) -> Result<()> {
    apt_install_all(&[package])
}

fn apt_install_all(packages: &[&str]) -> Result<()> {
    quietly(as_root("apt-get")?.arg("update"))?;
    quietly(
        as_root("apt-get")?
            .args(["install", "-y", "--no-install-recommends"])
            .args(packages),
    )
}

fn vectors_venv(workspace: &Workspace) -> Result<Option<Want>> {
    let requirements = workspace.root.join("vectors/check/requirements.txt");
    let wanted = fs::read_to_string(&requirements)
        .with_context(|| format!("cannot read {}", requirements.display()))?;
    let venv = venv(workspace);
    // The note is written last, so an interrupted installation is done again.
    let note = venv.join("installed-requirements.txt");
    if fs::read_to_string(&note).is_ok_and(|have| have == wanted)
        && succeeds(venv_python(workspace).arg("--version"))
    {
        return Ok(None);
    }
    let names: Vec<&str> = wanted
        .lines()
        .map(str::trim)
        .filter(|line| !line.is_empty() && !line.starts_with('#'))
        .collect();
    Ok(Some(Want {
        what: format!("Python packages {} in {}", names.join(", "), venv.display()),
        fetch: Box::new(move |workspace| {
            quietly(
                Command::new(PYTHON)
                    .args(["-m", "venv", "--clear"])
                    .arg(&venv),
            )?;
            quietly(
                venv_python(workspace)
                    .args(["-m", "pip", "install", "--quiet", "-r"])
                    .arg(&requirements),
            )?;
            fs::write(&note, &wanted).with_context(|| format!("cannot write {}", note.display()))
        }),
    }))
}

fn venv(workspace: &Workspace) -> PathBuf {
    workspace.cache.join("venv")
}

/// The interpreter of the virtual environment.
pub(crate) fn venv_python(workspace: &Workspace) -> Command {
    let python = if cfg!(windows) {
        "Scripts/python.exe"
    } else {
        "bin/python"
    };
    Command::new(venv(workspace).join(python))
}

/// Whether this system installs with apt, as Debian does.
fn has_apt() -> bool {
    Path::new("/usr/bin/apt-get").exists() && Path::new("/usr/bin/dpkg").exists()
}

/// `program`, with the rights to install: as it is for root, else through sudo.
fn as_root(program: &str) -> Result<Command> {
    let id = Command::new("id")
        .arg("-u")
        .output()
        .context("cannot run id")?;
    if id.stdout.trim_ascii() == b"0" {
        return Ok(Command::new(program));
    }
    if !succeeds(Command::new("sudo").arg("--version")) {
        bail!("installing needs root, and there is no sudo here");
    }
    let mut sudo = Command::new("sudo");
    sudo.arg(program);
    Ok(sudo)
}

/// Whether a command can be started and ends well. Its output is dropped.
pub(crate) fn succeeds(command: &mut Command) -> bool {
    command
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status()
        .is_ok_and(|status| status.success())
}

/// Runs a command and shows what it printed only if it fails.
pub(crate) fn quietly(command: &mut Command) -> Result<()> {
    capture(command).map(drop)
}

/// Runs a command and gives what it printed on stdout. A failure carries all it printed.
pub(crate) fn capture(command: &mut Command) -> Result<String> {
    let program = command.get_program().to_string_lossy().into_owned();
    let output = command
        .env("DEBIAN_FRONTEND", "noninteractive")
        .stdin(Stdio::null())
        .output()
        .with_context(|| format!("cannot start {program}"))?;
    let stdout = String::from_utf8_lossy(&output.stdout).into_owned();
    if !output.status.success() {
        bail!(
            "{program}: {}\n{stdout}{}",
            output.status,
            String::from_utf8_lossy(&output.stderr)
        );
    }
    Ok(stdout)
}
