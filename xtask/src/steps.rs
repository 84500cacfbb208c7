//! The steps by name: what each runs, and what it is counted as.

use std::path::Path;
use std::process::Command;

use anyhow::Result;

use crate::cross::{self, Target};
use crate::needs::{capture, venv_python};
use crate::report::{Counts, Step};
use crate::workspace::{Workspace, cargo};

pub(crate) fn format(workspace: &Workspace) -> Step {
    // The names say enough: `cargo fmt` mends them.
    once("format", in_root(workspace, "fmt --all -- --check -l"))
}

pub(crate) fn lints(workspace: &Workspace) -> Step {
    let line = "clippy --locked --workspace --all-targets -- -D warnings";
    once("clippy", in_root(workspace, line))
}

pub(crate) fn documentation(workspace: &Workspace) -> Step {
    let mut command = in_root(workspace, "doc --locked --workspace --no-deps");
    command.env("RUSTDOCFLAGS", "-D warnings");
    once("rustdoc", command)
}

/// The product as it is shipped; the black-box tests run this one.
pub(crate) fn release(workspace: &Workspace) -> Step {
    let line = "build --locked --release --package syncagent";
    once("release build", in_root(workspace, line))
}

pub(crate) fn unit_tests(workspace: &Workspace) -> Result<Step> {
    let line = "test --locked --workspace --no-fail-fast --lib --bins";
    tests("unit tests", in_root(workspace, line))
}

/// The arrows between the crates, and what must not stand in their sources. Of the whole workspace, because one
/// package alone would resolve other features and build its dependencies a second time.
pub(crate) fn edges(workspace: &Workspace) -> Result<Step> {
    let line = "test --locked --workspace --no-fail-fast --test edges";
    tests("edges", in_root(workspace, line))
}

/// Every test target of every crate, with the shipped product for those that run it.
pub(crate) fn all_tests(workspace: &Workspace, product: &Path) -> Result<Step> {
    let mut command = in_root(
        workspace,
        "test --locked --workspace --no-fail-fast --tests",
    );
    command.env("SYNCAGENT_BIN", product);
    tests("tests", command)
}

pub(crate) fn examples_in_docs(workspace: &Workspace) -> Step {
    let command = in_root(workspace, "test --locked --workspace --no-fail-fast --doc");
    Step {
        name: "doc tests",
        counts: Counts::Tests,
        command,
    }
}

/// The second implementation of the format, in Python, must come to the same bytes.
pub(crate) fn vectors(workspace: &Workspace) -> Step {
    let mut command = venv_python(workspace);
    command
        .args(["vectors/check/generate.py", "--check"])
        .current_dir(&workspace.root);
    command.env("PYTHONDONTWRITEBYTECODE", "1");
    once("vectors in python", command)
}

pub(crate) fn cross(workspace: &Workspace, target: &Target) -> Result<Step> {
    Ok(once(target.name, cross::check(workspace, target)?))
}

fn once(name: &'static str, command: Command) -> Step {
    Step {
        name,
        counts: Counts::Once,
        command,
    }
}

/// One line of cargo's, run in the root.
fn in_root(workspace: &Workspace, line: &str) -> Command {
    let mut command = cargo();
    command
        .args(line.split(' '))
        .current_dir(&workspace.root)
        .env("CARGO_TERM_COLOR", "never");
    command
}

/// Test binaries, each of which has tests. The harness tells how long a test took only when it thinks that it
/// belongs to an unstable compiler, so the binaries are started, but not built, with the variable that says so.
fn tests(name: &'static str, mut command: Command) -> Result<Step> {
    if cfg!(unix) {
        let host = capture(Command::new("rustc").arg("-vV"))?;
        if let Some(triple) = host.lines().find_map(|line| line.strip_prefix("host: ")) {
            let runner = format!(
                "CARGO_TARGET_{}_RUNNER",
                triple.replace('-', "_").to_uppercase()
            );
            command.env(runner, "env RUSTC_BOOTSTRAP=1");
            command.args(["--", "-Zunstable-options", "--report-time"]);
        }
    }
    Ok(Step {
        name,
        counts: Counts::SomeTests,
        command,
    })
}
