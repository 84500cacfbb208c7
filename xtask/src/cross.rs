//! Type-checks the product for Windows and macOS from a machine that is neither.
//!
//! Two things are needed: a standard library for the target, and a C compiler that can produce code for it,
//! because three dependencies bring C (cryptography, database, compression). Nothing is linked, so neither a
//! linker nor Apple's SDK is needed.
//!
//! - The library comes from `rustup` where it has the target. On Debian it is built from source: Debian's
//!   browser-building toolchain (`rustc-web`) brings compiler and source of one version, and is only unpacked,
//!   never installed.
//! - The compiler is `zig cc`, one program for every target, from the Python package of that name.

use std::env;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};

use crate::needs::{Want, capture, quietly, succeeds, venv_python};
use crate::workspace::{Workspace, cargo};

/// What the product runs on beside Linux.
const TARGETS: [Target; 2] = [
    Target {
        name: "cross macos",
        triple: "aarch64-apple-darwin",
        zig: "aarch64-macos",
        os: "macos",
    },
    Target {
        name: "cross windows",
        triple: "x86_64-pc-windows-gnu",
        zig: "x86_64-windows-gnu",
        os: "windows",
    },
];

/// One system to check for.
pub(crate) struct Target {
    /// The step's name.
    pub name: &'static str,
    triple: &'static str,
    zig: &'static str,
    os: &'static str,
}

/// The C compiler. A change of this line fetches it anew.
const ZIG: &str = "ziglang==0.15.2";

/// What is taken from Debian, with whatever these depend on. The version is the archive's present one: older
/// ones vanish from it. The source must be the compiler's own, which their dependencies see to.
const DEBIAN: [&str; 4] = [
    "rustc-web",
    "cargo-web",
    "rust-web-src",
    "libstd-rust-web-dev",
];

/// Where the standard library comes from.
enum Library {
    /// rustup has it for every target.
    Rustup,
    /// Built from source with the toolchain unpacked here.
    Source(PathBuf),
}

/// The systems to check for from this one. Windows checks for itself whenever it builds, and nothing here was made
/// for a shell it does not have.
pub(crate) fn targets() -> &'static [Target] {
    if cfg!(windows) { &[] } else { &TARGETS }
}

/// What must be fetched before the targets can be checked.
pub(crate) fn wanted(workspace: &Workspace) -> Result<Vec<Want>> {
    let mut wants = Vec::new();
    if library(workspace).is_none() {
        wants.push(if is_debian() {
            debian(workspace)
        } else {
            rustup()?
        });
    }
    if !zig(workspace).join("ziglang/zig").exists() {
        wants.push(Want {
            what: format!(
                "Python package {ZIG}, a C compiler for every system, in {}",
                zig(workspace).display()
            ),
            fetch: Box::new(fetch_zig),
        });
    }
    Ok(wants)
}

/// The command that checks the product for one target. Everything wanted must be there.
pub(crate) fn check(workspace: &Workspace, target: &Target) -> Result<Command> {
    let mut path: Vec<PathBuf> =
        env::split_paths(&env::var_os("PATH").unwrap_or_default()).collect();
    let mut command = match library(workspace).context("no standard library for the target")? {
        Library::Rustup => cargo(),
        Library::Source(root) => {
            path.insert(0, root.join("usr/bin"));
            unpacked_cargo(&root)?
        }
    };
    command.args(["check", "--locked", "--workspace", "--exclude", "xtask"]);
    // Only build scripts and macros run here: optimising them takes longer than running them.
    command.args(["--config", "profile.dev.package.\"*\".opt-level=0"]);
    command
        .args(["--target", target.triple])
        .current_dir(&workspace.root);
    let output = workspace.target.join("cross");
    command.env("CARGO_TARGET_DIR", &output);
    if env::consts::OS != target.os {
        let tools = tools(workspace, target)?;
        let name = target.triple.replace('-', "_");
        command.env(format!("CC_{name}"), tools.join("target-cc"));
        command.env(format!("AR_{name}"), tools.join("target-ar"));
        command.env("ZIG_GLOBAL_CACHE_DIR", output.join("zig"));
        command.env("ZIG_LOCAL_CACHE_DIR", output.join("zig"));
        path.insert(0, tools);
    }
    command.env(
        "PATH",
        env::join_paths(path).context("PATH cannot be put together")?,
    );
    Ok(command)
}

fn library(workspace: &Workspace) -> Option<Library> {
    let installed = Command::new("rustup")
        .args(["target", "list", "--installed"])
        .output();
    let installed = installed.map(|output| String::from_utf8_lossy(&output.stdout).into_owned());
    if installed.is_ok_and(|list| {
        TARGETS
            .iter()
            .all(|target| list.lines().any(|line| line == target.triple))
    }) {
        return Some(Library::Rustup);
    }
    let root = toolchain(workspace);
    root.join("usr/bin/rustc")
        .exists()
        .then_some(Library::Source(root))
}

fn toolchain(workspace: &Workspace) -> PathBuf {
    workspace.cache.join("cross/toolchain")
}

/// The compiler's directory carries its version, so that another one is fetched beside it.
fn zig(workspace: &Workspace) -> PathBuf {
    workspace.cache.join("cross").join(ZIG.replace("==", "-"))
}

fn zig_program(workspace: &Workspace) -> String {
    zig(workspace).join("ziglang/zig").display().to_string()
}

fn rustup() -> Result<Want> {
    let triples: Vec<&str> = TARGETS.iter().map(|target| target.triple).collect();
    if !succeeds(Command::new("rustup").arg("--version")) {
        bail!(
            "no standard library for {} here. Install rustup, or a Rust that has it, and run this again",
            triples.join(" and ")
        );
    }
    Ok(Want {
        what: format!(
            "the standard library for {} (rustup target add)",
            triples.join(" and ")
        ),
        fetch: Box::new(move |_| {
            quietly(
                Command::new("rustup")
                    .args(["target", "add"])
                    .args(&triples),
            )
        }),
    })
}

/// Ubuntu and others have apt, but not these packages.
fn is_debian() -> bool {
    fs::read_to_string("/etc/os-release")
        .is_ok_and(|release| release.lines().any(|line| line == "ID=debian"))
}

fn debian(workspace: &Workspace) -> Want {
    Want {
        what: format!(
            "Debian packages {} with their libraries, unpacked in {}, not installed (150 MB to fetch, 900 MB there)",
            DEBIAN.join(", "),
            toolchain(workspace).display()
        ),
        fetch: Box::new(unpack_debian),
    }
}

/// Fetches the packages that apt would install and unpacks them. apt checks the archive's signature and every
/// package's hash; its state is kept apart, so the system's is neither needed to be fresh nor touched.
fn unpack_debian(workspace: &Workspace) -> Result<()> {
    let new = toolchain(workspace).with_extension("new");
    remove(&new)?;
    let (state, packages) = (new.join("apt"), new.join("packages"));
    for dir in [
        state.join("lists/partial"),
        state.join("cache/archives/partial"),
        packages.clone(),
    ] {
        fs::create_dir_all(&dir).with_context(|| format!("cannot make {}", dir.display()))?;
    }
    let apt = || {
        let mut apt = Command::new("apt-get");
        apt.current_dir(&packages).args([
            "-qq",
            "-o",
            "Debug::NoLocking=1",
            "-o",
            "APT::Sandbox::User=root",
        ]);
        apt.args([
            "-o",
            &format!("Dir::State::lists={}", state.join("lists").display()),
        ]);
        apt.args([
            "-o",
            &format!("Dir::Cache={}", state.join("cache").display()),
        ]);
        apt
    };
    // Somebody's other source may be broken; whether these packages can be had is seen below.
    let updated = quietly(apt().arg("update"));

    let plan = apt()
        .args([
            "install",
            "--print-uris",
            "--reinstall",
            "-y",
            "--no-install-recommends",
        ])
        .args(DEBIAN)
        .stdin(std::process::Stdio::null())
        .output()
        .context("cannot run apt-get")?;
    let plan_text = String::from_utf8_lossy(&plan.stdout);
    let names = package_names(&plan_text);
    if !plan.status.success() || names.is_empty() {
        let why = updated
            .err()
            .map(|error| format!("{error:#}\n"))
            .unwrap_or_default();
        bail!(
            "apt offers no {} here (Debian 12 with its security archive does). With rustup, \
             `rustup target add {}` does as well; then run this again.\n{why}{}",
            DEBIAN.join(", "),
            TARGETS.map(|target| target.triple).join(" "),
            String::from_utf8_lossy(&plan.stderr)
        );
    }
    quietly(apt().arg("download").args(&names))?;

    let root = new.join("root");
    for package in fs::read_dir(&packages)? {
        quietly(
            Command::new("dpkg")
                .arg("-x")
                .arg(package?.path())
                .arg(&root),
        )?;
    }
    let mut rustc = Command::new(root.join("usr/bin/rustc"));
    let version = capture(
        rustc
            .env("LD_LIBRARY_PATH", libraries(&root)?)
            .arg("--version"),
    )?;
    let needed = env!("CARGO_PKG_RUST_VERSION");
    if minor_version(&version) < minor_version(needed) {
        bail!(
            "the archive's compiler is too old: {} where {needed} is needed",
            version.trim()
        );
    }
    // In place only when it is whole.
    let place = toolchain(workspace);
    remove(&place)?;
    fs::rename(&root, &place).with_context(|| format!("cannot make {}", place.display()))?;
    remove(&new)
}

/// The packages in a plan of apt's: lines of `'address' name_version_arch.deb size hash`.
fn package_names(plan: &str) -> Vec<&str> {
    plan.lines()
        .filter(|line| line.starts_with('\''))
        .filter_map(|line| {
            line.split_whitespace()
                .nth(1)?
                .split_once('_')
                .map(|(name, _)| name)
        })
        .collect()
}

/// `rustc 1.96.0 (...)` or `1.95` as `(1, 96)` and `(1, 95)`.
fn minor_version(text: &str) -> Option<(u32, u32)> {
    let number = text
        .split_whitespace()
        .find(|word| word.starts_with(|c: char| c.is_ascii_digit()))?;
    let mut parts = number.split('.');
    Some((parts.next()?.parse().ok()?, parts.next()?.parse().ok()?))
}

/// Where the unpacked programs find their shared libraries: `usr/lib/<machine>-linux-gnu`.
fn libraries(root: &Path) -> Result<PathBuf> {
    let lib = root.join("usr/lib");
    for entry in fs::read_dir(&lib).with_context(|| format!("cannot list {}", lib.display()))? {
        let entry = entry?;
        if entry.file_name().to_string_lossy().ends_with("-linux-gnu") {
            return Ok(entry.path());
        }
    }
    bail!("{} holds no shared libraries", lib.display())
}

fn unpacked_cargo(root: &Path) -> Result<Command> {
    let programs = root.join("usr/bin");
    let mut command = Command::new(programs.join("cargo"));
    command
        .arg("-Zbuild-std=std,panic_abort")
        .env("RUSTC", programs.join("rustc"))
        .env("LD_LIBRARY_PATH", libraries(root)?)
        // Building the standard library is an unstable feature; what is built is checked, never shipped.
        .env("RUSTC_BOOTSTRAP", "1");
    for name in [
        "CARGO",
        "RUSTUP_TOOLCHAIN",
        "RUSTDOC",
        "RUSTC_WRAPPER",
        "RUSTFLAGS",
        "CARGO_ENCODED_RUSTFLAGS",
    ] {
        command.env_remove(name);
    }
    Ok(command)
}

fn fetch_zig(workspace: &Workspace) -> Result<()> {
    let place = zig(workspace);
    let new = place.with_extension("new");
    remove(&new)?;
    let mut pip = venv_python(workspace);
    quietly(
        pip.args(["-m", "pip", "install", "--quiet", "--no-deps", "--target"])
            .arg(&new)
            .arg(ZIG),
    )?;
    remove(&place)?;
    fs::rename(&new, &place).with_context(|| format!("cannot make {}", place.display()))
}

/// `zig cc` under the name of a compiler, without the flags that name the target in another vocabulary.
fn compiler_script(workspace: &Workspace, target: &Target) -> String {
    format!(
        "#!/bin/sh\n\
         drop=\n\
         for word do\n\
         \x20 shift\n\
         \x20 if [ -n \"$drop\" ]; then drop=; continue; fi\n\
         \x20 case $word in\n\
         \x20   -arch) drop=1 ;;\n\
         \x20   --target=* | -mmacosx-version-min=*) ;;\n\
         \x20   *) set -- \"$@\" \"$word\" ;;\n\
         \x20 esac\n\
         done\n\
         exec '{}' cc -target {} \"$@\"\n",
        zig_program(workspace),
        target.zig
    )
}

/// Compiler, archiver and, for Windows, the maker of import libraries, which rustc looks for on the PATH under this
/// name. The others must not hide this machine's own compiler, which links the build scripts.
fn tools(workspace: &Workspace, target: &Target) -> Result<PathBuf> {
    let dir = zig(workspace).join("tools").join(target.triple);
    fs::create_dir_all(&dir).with_context(|| format!("cannot make {}", dir.display()))?;
    let zig = zig_program(workspace);
    let scripts = [
        ("target-cc", compiler_script(workspace, target)),
        ("target-ar", format!("#!/bin/sh\nexec '{zig}' ar \"$@\"\n")),
        (
            "x86_64-w64-mingw32-dlltool",
            format!("#!/bin/sh\nexec '{zig}' dlltool \"$@\"\n"),
        ),
    ];
    // What an earlier version of this file left there must not be found by name.
    for entry in fs::read_dir(&dir)? {
        let entry = entry?;
        if !scripts.iter().any(|(name, _)| entry.file_name() == *name) {
            fs::remove_file(entry.path())?;
        }
    }
    for (name, text) in scripts {
        let path = dir.join(name);
        // Written only when it differs: build scripts look at the compiler's time.
        if !fs::read_to_string(&path).is_ok_and(|have| have == text) {
            fs::write(&path, text).with_context(|| format!("cannot write {}", path.display()))?;
            quietly(Command::new("chmod").arg("+x").arg(&path))?;
        }
    }
    Ok(dir)
}

fn remove(dir: &Path) -> Result<()> {
    match fs::remove_dir_all(dir) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(error).with_context(|| format!("cannot remove {}", dir.display()))
        }
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::{minor_version, package_names};

    #[test]
    fn reads_the_packages_of_a_plan() {
        let plan = "Reading package lists...\n\
            'https://host/pool/r/libstd-rust-web-1.96_1.96.0_amd64.deb' libstd-rust-web-1.96_1.96.0_amd64.deb 219 MD5Sum:00\n\
            'https://host/pool/l/libllvm22_1%3a22.1.8_amd64.deb' libllvm22_1%3a22.1.8_amd64.deb 293\n";
        assert_eq!(package_names(plan), ["libstd-rust-web-1.96", "libllvm22"]);
    }

    #[test]
    fn compares_versions_as_numbers() {
        assert!(minor_version("rustc 1.96.0 (ac68faa20 2026-05-25)") > minor_version("1.95"));
        assert!(minor_version("rustc 1.100.0") > minor_version("1.95"));
        assert_eq!(minor_version("rustc"), None);
    }
}
