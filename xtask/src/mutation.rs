//! Changes single operators and results where a mistake would cost most, and looks whether unit and property tests see it.
//!
//! cargo-mutants makes the changes, in a copy of the tree. What survives has to be explained in docs/testing.md, in the
//! words of cargo-mutants; what is not, is a failure.

use std::fs;
use std::process::ExitCode;

use anyhow::{Context, Result, bail};

use crate::needs::{Consent, Need, ensure};
use crate::workspace::{Workspace, cargo};

/// Cases of each property: enough for a change of a decision, and each mutant runs them.
const CASES: &str = "100";
/// Seconds for one mutant's tests, which take a few. What hangs was seen.
const TIMEOUT: &str = "45";

/// What is changed together, and by which tests that has to be seen.
struct Module {
    name: &'static str,
    package: &'static str,
    files: &'static [&'static str],
    /// Beside the package's unit tests.
    tests: &'static [&'static str],
    /// Building takes most of the time, unless the tests run long when they are not optimised.
    optimised: bool,
}

const MODULES: [Module; 5] = [
    Module {
        name: "reconcile",
        package: "syncagent-sync",
        files: &[
            "crates/sync/src/reconcile.rs",
            "crates/sync/src/reconcile/*.rs",
        ],
        tests: &["promises", "table"],
        optimised: false,
    },
    Module {
        name: "state",
        package: "syncagent-sync",
        files: &["crates/sync/src/tree.rs"],
        tests: &["promises", "table"],
        optimised: false,
    },
    Module {
        name: "commit",
        package: "syncagent-vault",
        files: &["crates/vault/src/commit.rs"],
        tests: &["properties"],
        optimised: true,
    },
    Module {
        name: "log",
        package: "syncagent-protocol",
        files: &["crates/protocol/src/commit.rs"],
        tests: &[],
        optimised: true,
    },
    Module {
        name: "chunk",
        package: "syncagent-vault",
        files: &["crates/vault/src/chunk.rs"],
        tests: &["properties"],
        optimised: true,
    },
];

/// Tries the modules with these names, or all; of each one `shard`, such as `0/4`, or everything.
pub(crate) fn run(
    workspace: &Workspace,
    consent: Consent,
    names: &[String],
    shard: Option<&str>,
) -> Result<ExitCode> {
    let is_meant = |module: &Module| names.is_empty() || names.iter().any(|n| n == module.name);
    if let Some(name) = names
        .iter()
        .find(|name| MODULES.iter().all(|m| m.name != *name))
    {
        let known = MODULES.map(|module| module.name).join(", ");
        bail!("no module is called {name}; there are {known}");
    }
    ensure(workspace, consent, &[Need::Mutation])?;
    let page = workspace.root.join("docs/testing.md");
    let page =
        fs::read_to_string(&page).with_context(|| format!("cannot read {}", page.display()))?;
    let mut unexplained = Vec::new();
    for module in MODULES.iter().filter(|module| is_meant(module)) {
        println!("{}", module.name);
        let missed = try_all(workspace, module, shard)?;
        unexplained.extend(
            missed
                .lines()
                .filter(|line| !is_explained(line, &page))
                .map(str::to_owned),
        );
    }
    if unexplained.is_empty() {
        println!("\nWhat survived is explained in docs/testing.md");
        return Ok(ExitCode::SUCCESS);
    }
    println!("\nSurvived, and not explained in docs/testing.md");
    for line in &unexplained {
        println!("  {line}");
    }
    println!("\n{} unexplained", unexplained.len());
    Ok(ExitCode::FAILURE)
}

/// What survived, a line for each.
fn try_all(workspace: &Workspace, module: &Module, shard: Option<&str>) -> Result<String> {
    let place = workspace.target.join("mutation").join(module.name);
    fs::create_dir_all(&place).with_context(|| format!("cannot make {}", place.display()))?;
    let mut command = cargo();
    command
        .args(["mutants", "--no-shuffle", "--colors=never", "--timeout", TIMEOUT])
        .args(["--package", module.package, "--output"])
        .arg(&place)
        .args(["--cargo-arg=--locked", "--cargo-arg=--lib"])
        .current_dir(&workspace.root)
        .env("CARGO_PROFILE_DEV_DEBUG", "0")
        // The first failure is enough, however large.
        .env("PROPTEST_MAX_SHRINK_ITERS", "0");
    if std::env::var_os("SYNCAGENT_CASES").is_none() {
        command.env("SYNCAGENT_CASES", CASES);
    }
    for file in module.files {
        command.args(["--file", file]);
    }
    for test in module.tests {
        command.arg(format!("--cargo-arg=--test={test}"));
    }
    if !module.optimised {
        command.arg("--cargo-arg=--config").arg(format!(
            "--cargo-arg=profile.dev.package.{}.opt-level=0",
            module.package
        ));
    }
    if let Some(shard) = shard {
        command.args(["--shard", shard]);
    }
    let status = command.status().context("cannot run cargo mutants")?;
    // 2: something survived; 3: something hung. Both are results.
    if !status.success() && !matches!(status.code(), Some(2 | 3)) {
        bail!("cargo mutants: {status}");
    }
    let missed = place.join("mutants.out/missed.txt");
    fs::read_to_string(&missed).with_context(|| format!("cannot read {}", missed.display()))
}

/// Whether the page names `<file>:<line>:<column>: <change>` by its change, which does not move with the lines.
fn is_explained(missed: &str, page: &str) -> bool {
    let change = missed.split_once(": ").map_or(missed, |(_, change)| change);
    // In a table a bar is written with a stroke before it.
    let change = change.replace('|', "\\|");
    page.contains(&format!("`{change}`"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::path::Path;

    #[test]
    fn a_survivor_is_known_by_its_change() {
        let page = "| `replace < with <= in Placed::follow`, `replace \\|\\| with && in seal` | it takes longer |\n";
        assert!(is_explained(
            "crates/vault/src/commit.rs:67:26: replace || with && in seal",
            page
        ));
        assert!(is_explained(
            "crates/sync/src/tree.rs:255:33: replace < with <= in Placed::follow",
            page
        ));
        assert!(!is_explained(
            "crates/sync/src/tree.rs:255:33: replace < with == in Placed::follow",
            page
        ));
    }

    #[test]
    fn what_is_to_be_changed_and_what_has_to_see_it_is_there() {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
        for module in MODULES {
            for file in module.files {
                let file = file.strip_suffix("/*.rs").unwrap_or(file);
                assert!(root.join(file).exists(), "there is no {file}");
            }
            let folder = module.package.strip_prefix("syncagent-").unwrap();
            for test in module.tests {
                let test = root.join(format!("crates/{folder}/tests/{test}.rs"));
                assert!(test.exists(), "there is no {}", test.display());
            }
        }
    }
}
