//! Which lines do the tests run through, crate by crate?
//!
//! cargo-llvm-cov builds everything with counters and runs the tests, and the binaries that they start; here its lines are
//! added up. Code for tests counts for nothing: neither that of `tests/`, nor what stands behind `#[cfg(test)]`.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::process::{Command, ExitCode};

use anyhow::{Context, Result, bail};

use crate::needs::{Consent, Need, ensure, quietly};
use crate::report::{Counts, Report, Step};
use crate::workspace::{Workspace, cargo};

/// Crates that may not fall below the limit: all that decides and all that seals is in them.
const LIMITED: [&str; 3] = ["protocol", "vault", "sync"];
/// How many of a hundred lines.
const LIMIT: u64 = 95;
/// How many simulated worlds are run: after some dozens, further ones reach few new lines.
const SEEDS: u64 = 60;

/// Lines with code, and those of them that were run.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
struct Lines {
    all: u64,
    run: u64,
}

impl Lines {
    fn add(&mut self, other: Self) {
        self.all += other.all;
        self.run += other.run;
    }

    fn is_below(self, limit: u64) -> bool {
        self.run * 100 < self.all * limit
    }

    fn percent(self) -> String {
        match self.all {
            0 => "no lines".to_owned(),
            // Down, so that a limit is never shown as reached when it is not.
            all => {
                let tenths = self.run * 1000 / all;
                format!("{:>3}.{} %", tenths / 10, tenths % 10)
            }
        }
    }
}

/// Runs the tests with counters, of the workspace or (`quick`) of the crates with a limit alone.
pub(crate) fn run(workspace: &Workspace, consent: Consent, quick: bool) -> Result<ExitCode> {
    ensure(workspace, consent, &[Need::Coverage])?;
    let lcov = workspace.target.join("xtask/coverage.lcov");
    let mut report = Report::new(workspace.target.join("xtask"))?;
    let mut command = llvm_cov(workspace);
    command.args(["--locked", "--no-report", "--no-fail-fast", "--tests"]);
    match quick {
        true => {
            for name in LIMITED {
                command.arg(format!("--package=syncagent-{name}"));
            }
        }
        false => drop(command.args(["--workspace", "--exclude=xtask"])),
    }
    command
        .env_remove("SYNCAGENT_BIN")
        .env("SYNCAGENT_SEEDS", SEEDS.to_string());
    let passed = report.run(Step {
        name: "tests with counters",
        counts: Counts::SomeTests,
        command,
    })?;
    quietly(
        llvm_cov(workspace)
            .args(["report", "--lcov", "--output-path"])
            .arg(&lcov),
    )?;
    let text =
        fs::read_to_string(&lcov).with_context(|| format!("cannot read {}", lcov.display()))?;
    let files = by_file(&text, &workspace.root)?;
    let crates = by_crate(&files);
    println!("\nLines that tests run through, without code for tests");
    let mut below = Vec::new();
    let mut total = Lines::default();
    for (name, lines) in &crates {
        let is_limited = LIMITED.contains(&name.as_str());
        if quick && !is_limited {
            continue;
        }
        total.add(*lines);
        let limit = match is_limited {
            true => format!("  at least {LIMIT} %"),
            false => String::new(),
        };
        println!("{}{limit}", row(name, *lines));
        if is_limited && lines.is_below(LIMIT) {
            below.push(name.as_str());
        }
    }
    if !quick {
        println!("{}", row("workspace", total));
    }
    println!("\nFewest");
    let mut files: Vec<_> = files
        .iter()
        .filter(|(path, _)| !quick || LIMITED.iter().any(|name| is_of(path, name)))
        .collect();
    files.sort_by_key(|(path, lines)| (lines.run * 1000 / lines.all.max(1), *path));
    for (path, lines) in files.iter().take(10) {
        println!("{}", row(path, **lines));
    }
    println!("\nLine by line: {}\n", lcov.display());
    let missing = LIMITED.iter().find(|name| !crates.contains_key(**name));
    if let Some(name) = missing {
        bail!("nothing was counted in crates/{name}: was it built with counters?");
    }
    if !below.is_empty() {
        bail!("below {LIMIT} %: {}", below.join(", "));
    }
    match passed {
        true => Ok(report.finish()),
        false => {
            report.finish();
            Ok(ExitCode::FAILURE)
        }
    }
}

fn llvm_cov(workspace: &Workspace) -> Command {
    let mut command = cargo();
    command
        .arg("llvm-cov")
        .current_dir(&workspace.root)
        .env("CARGO_TERM_COLOR", "never")
        // It would ask whether it may install what it lacks.
        .env("CARGO_LLVM_COV_SETUP", "no");
    command
}

fn row(name: &str, lines: Lines) -> String {
    let (run, all) = (lines.run, lines.all);
    format!("  {name:<44}{}{run:>8} of {all}", lines.percent())
}

fn is_of(path: &str, name: &str) -> bool {
    path.strip_prefix("crates/")
        .and_then(|rest| rest.strip_prefix(name))
        .is_some_and(|rest| rest.starts_with('/'))
}

fn by_crate(files: &BTreeMap<String, Lines>) -> BTreeMap<String, Lines> {
    let mut crates: BTreeMap<String, Lines> = BTreeMap::new();
    for (path, lines) in files {
        let name = path.strip_prefix("crates/").unwrap_or(path);
        let name = name.split('/').next().unwrap_or(name);
        crates.entry(name.to_owned()).or_default().add(*lines);
    }
    crates
}

/// Reads lcov's `SF:<path>`, `DA:<line>,<count>`; by path from the root.
fn by_file(lcov: &str, root: &Path) -> Result<BTreeMap<String, Lines>> {
    let mut files: BTreeMap<String, Lines> = BTreeMap::new();
    let mut file = None;
    for line in lcov.lines() {
        if let Some(path) = line.strip_prefix("SF:") {
            file = match Path::new(path).strip_prefix(root) {
                Ok(inside) if is_product(inside) => {
                    let source =
                        fs::read_to_string(path).with_context(|| format!("cannot read {path}"))?;
                    let inside = inside.to_string_lossy().replace('\\', "/");
                    Some((inside, for_tests(&source)))
                }
                _ => None,
            };
        } else if let (Some((path, tests)), Some(counted)) = (&file, line.strip_prefix("DA:")) {
            let mut parts = counted.split(',');
            let mut number = || parts.next().and_then(|part| part.parse::<u64>().ok());
            let (Some(at), Some(count)) = (number(), number()) else {
                bail!("lcov says {line:?}, which is no line with a count");
            };
            if !tests.iter().any(|range| range.contains(&at)) {
                files.entry(path.clone()).or_default().add(Lines {
                    all: 1,
                    run: u64::from(count > 0),
                });
            }
        }
    }
    Ok(files)
}

/// What is shipped: `crates/<name>/src`, but for the crate that is there for tests, and files of tests.
fn is_product(path: &Path) -> bool {
    let parts: Vec<_> = path.iter().filter_map(|part| part.to_str()).collect();
    match parts[..] {
        ["crates", "testkit", ..] => false,
        ["crates", _, "src", ref rest @ ..] => !rest.contains(&"tests.rs"),
        _ => false,
    }
}

/// Lines behind `#[cfg(test)]`, or behind that and more, up to the brace that closes where it began. rustfmt keeps that true.
fn for_tests(source: &str) -> Vec<std::ops::RangeInclusive<u64>> {
    let lines: Vec<&str> = source.lines().collect();
    let mut ranges = Vec::new();
    for (start, line) in lines.iter().enumerate() {
        let indent = &line[..line.len() - line.trim_start().len()];
        if !["#[cfg(test)]", "#[cfg(all(test,"]
            .iter()
            .any(|cfg| line.trim_start().starts_with(cfg))
        {
            continue;
        }
        let rest = &lines[start + 1..];
        let end = rest.iter().position(|line| {
            let line = line.strip_prefix(indent).unwrap_or_default();
            line == "}" || (!line.starts_with([' ', '#', '/', '}']) && line.ends_with(';'))
        });
        let end = start + 1 + end.unwrap_or(rest.len());
        ranges.push(start as u64 + 1..=end as u64 + 1);
    }
    ranges
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn code_for_tests_counts_for_nothing() {
        let root = tempfile::tempdir().unwrap();
        let put = |path: &str, text: &str| {
            let path = root.path().join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(&path, text).unwrap();
            path.display().to_string()
        };
        let plain = put(
            "crates/sync/src/a.rs",
            "fn a() {}\nfn b() {}\n\n#[cfg(test)]\nmod tests {\n    fn c() {\n    }\n}\nfn d() {}\n",
        );
        let tests = put("crates/sync/tests/b.rs", "fn a() {}\n");
        let module = put("crates/client/src/setup/tests.rs", "fn a() {}\n");
        let kit = put("crates/testkit/src/lib.rs", "fn a() {}\n");
        let mut lcov = format!("SF:{plain}\nDA:1,7\nDA:2,0\nDA:6,9\nDA:9,1\nend_of_record\n");
        for other in [tests, module, kit, "/rustc/lib.rs".to_owned()] {
            lcov.push_str(&format!("SF:{other}\nDA:1,1\nend_of_record\n"));
        }
        let files = by_file(&lcov, root.path()).unwrap();
        let want = Lines { all: 3, run: 2 };
        assert_eq!(files, [("crates/sync/src/a.rs".to_owned(), want)].into());
        assert_eq!(by_crate(&files), [("sync".to_owned(), want)].into());
        assert!(by_file(&format!("SF:{plain}\nDA:x\n"), root.path()).is_err());
    }

    #[test]
    fn what_stands_behind_cfg_test() {
        let lines =
            |source: &str| -> Vec<u64> { for_tests(source).into_iter().flatten().collect() };
        assert_eq!(
            lines("fn a() {}\n#[cfg(test)]\nmod tests;\nfn b() {}\n"),
            [2, 3]
        );
        assert_eq!(
            lines(
                "impl A {\n    #[cfg(test)]\n    fn a() {\n        b();\n    }\n    fn c() {}\n}\n"
            ),
            [2, 3, 4, 5]
        );
        assert!(lines("#[cfg(not(test))]\nfn a() {\n}\n").is_empty());
    }

    #[test]
    fn a_limit_is_reached_or_not() {
        let lines = |run, all| Lines { all, run };
        assert!(lines(949, 1000).is_below(95));
        assert!(!lines(950, 1000).is_below(95));
        assert_eq!(lines(9_499, 10_000).percent(), " 94.9 %");
        assert_eq!(lines(3, 3).percent(), "100.0 %");
    }

    #[test]
    fn a_file_is_of_one_crate() {
        assert!(is_of("crates/sync/src/lib.rs", "sync"));
        assert!(!is_of("crates/syncagent/src/main.rs", "sync"));
    }
}
