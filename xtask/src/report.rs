//! Runs steps one after another: one quiet line for each, the whole output in a log beside it,
//! and at the end what was slow, what failed and how many.

use std::fs::{self, File};
use std::io::{IsTerminal, Write};
use std::path::PathBuf;
use std::process::{Command, ExitCode, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};

use crate::tally::Tally;

/// How many slow steps and slow tests are named, and how much of a failed step's log is shown.
const SLOWEST: usize = 10;
const SHOWN_LINES: usize = 300;

/// What a step is counted as.
#[derive(Clone, Copy, PartialEq)]
pub(crate) enum Counts {
    /// One thing that passes or fails.
    Once,
    /// The tests it runs, of which there may be none.
    Tests,
    /// The tests it runs. None at all is a failure: green is not the same as run.
    SomeTests,
}

/// One command with the name it is reported under.
pub(crate) struct Step {
    pub name: &'static str,
    pub counts: Counts,
    pub command: Command,
}

/// A step that failed, with what it printed.
struct Failure {
    name: &'static str,
    path: Option<PathBuf>,
    log: String,
}

/// What has run so far.
pub(crate) struct Report {
    logs: PathBuf,
    passed: u64,
    failed: u64,
    ran: Vec<(&'static str, Duration)>,
    timed: Vec<(String, f64)>,
    failures: Vec<Failure>,
}

impl Report {
    /// A report that keeps its logs in `logs`, one file for each step.
    pub(crate) fn new(logs: PathBuf) -> Result<Self> {
        fs::create_dir_all(&logs).with_context(|| format!("cannot make {}", logs.display()))?;
        Ok(Self {
            logs,
            passed: 0,
            failed: 0,
            ran: Vec::new(),
            timed: Vec::new(),
            failures: Vec::new(),
        })
    }

    /// Runs one step to its end and says whether it passed. A failure stops nothing: the next
    /// step may have more to tell.
    pub(crate) fn run(&mut self, step: Step) -> Result<bool> {
        let Step {
            name,
            counts,
            mut command,
        } = step;
        let path = self.logs.join(format!("{}.log", name.replace(' ', "-")));
        let file =
            File::create(&path).with_context(|| format!("cannot write {}", path.display()))?;
        command
            .stdin(Stdio::null())
            .stdout(file.try_clone().context("cannot share the log")?)
            .stderr(file);

        let live = std::io::stdout().is_terminal();
        if live {
            print!("  {name} ...");
            std::io::stdout().flush()?;
        }
        let start = Instant::now();
        let status = command
            .status()
            .with_context(|| format!("cannot start {}", command.get_program().display()));
        let took = start.elapsed();
        let mut log = String::from_utf8_lossy(&fs::read(&path).unwrap_or_default()).into_owned();

        let tally = if counts == Counts::Once {
            Tally::default()
        } else {
            Tally::read(&log)
        };
        let mut ok = false;
        match status {
            Err(error) => log.push_str(&format!("{error:#}\n")),
            Ok(status) if !status.success() => log.push_str(&format!("{status}\n")),
            Ok(_) if tally.failed > 0 => {}
            Ok(_) if counts == Counts::SomeTests && tally.ran() == 0 => {
                log.push_str("No test ran where some are expected.\n");
            }
            Ok(_) => ok = true,
        }
        self.passed += tally.passed + u64::from(ok && counts == Counts::Once);
        // A step may fail without a failed test: it did not compile, or a test binary was killed.
        self.failed += if ok { 0 } else { tally.failed.max(1) };

        let note = match (tally.ran(), tally.ignored) {
            (0, _) => String::new(),
            (_, 0) => format!("{} passed, {} failed", tally.passed, tally.failed),
            (_, ignored) => {
                format!(
                    "{} passed, {} failed, {ignored} ignored",
                    tally.passed, tally.failed
                )
            }
        };
        if live {
            print!("\r\x1b[K");
        }
        println!(
            "{}",
            line(name, took, if ok { "ok" } else { "FAILED" }, &note)
        );
        self.ran.push((name, took));
        self.timed.extend(tally.timed);
        if !ok {
            self.failures.push(Failure {
                name,
                path: Some(path),
                log,
            });
        }
        Ok(ok)
    }

    /// A step that could not be run because one before it failed.
    pub(crate) fn skip(&mut self, name: &'static str, because: &str) {
        println!("{}", line(name, Duration::ZERO, "FAILED", because));
        self.failed += 1;
        self.failures.push(Failure {
            name,
            path: None,
            log: format!("Not run: {because}"),
        });
    }

    /// Whether everything so far passed.
    pub(crate) fn is_green(&self) -> bool {
        self.failed == 0
    }

    /// Prints the slowest, the output of what failed and, alone on the last line, the count.
    pub(crate) fn finish(mut self) -> ExitCode {
        self.ran.sort_by_key(|step| std::cmp::Reverse(step.1));
        self.timed.sort_by(|a, b| b.1.total_cmp(&a.1));
        println!("\nSlowest steps");
        for (name, took) in self.ran.iter().take(SLOWEST) {
            println!("  {:>8.1} s  {name}", took.as_secs_f64());
        }
        if !self.timed.is_empty() {
            println!("\nSlowest tests");
            for (name, seconds) in self.timed.iter().take(SLOWEST) {
                println!("  {seconds:>8.1} s  {name}");
            }
        }
        for Failure { name, path, log } in &self.failures {
            let lines: Vec<&str> = log.lines().collect();
            let hidden = lines.len().saturating_sub(SHOWN_LINES);
            println!("\n--- {name} FAILED");
            if let (Some(path), true) = (path, hidden > 0) {
                println!("({hidden} lines before these, in {})", path.display());
            }
            println!("{}", lines[hidden..].join("\n"));
        }
        println!("\n{} passed, {} failed", self.passed, self.failed);
        if self.failed == 0 {
            ExitCode::SUCCESS
        } else {
            ExitCode::FAILURE
        }
    }
}

fn line(name: &str, took: Duration, state: &str, note: &str) -> String {
    format!(
        "  {name:<24}{:>8.1} s  {state:<6}  {note}",
        took.as_secs_f64()
    )
    .trim_end()
    .to_owned()
}

#[cfg(test)]
mod tests {
    use super::{Counts, Report, Step};
    use crate::workspace::cargo;

    fn report() -> (tempfile::TempDir, Report) {
        let logs = tempfile::tempdir().unwrap();
        let report = Report::new(logs.path().to_owned()).unwrap();
        (logs, report)
    }

    fn step(name: &'static str, counts: Counts, argument: &str) -> Step {
        let mut command = cargo();
        command.arg(argument);
        Step {
            name,
            counts,
            command,
        }
    }

    #[test]
    fn a_step_passes_or_fails_with_its_command() {
        let (_logs, mut report) = report();
        assert!(
            report
                .run(step("version", Counts::Once, "--version"))
                .unwrap()
        );
        assert!(report.is_green());
        assert!(
            !report
                .run(step("nonsense", Counts::Once, "--no-such-flag"))
                .unwrap()
        );
        assert_eq!((report.passed, report.failed), (1, 1));
        assert!(
            report.failures[0].log.contains("no-such-flag"),
            "the output is kept for the end"
        );
    }

    #[test]
    fn no_test_where_some_are_expected_is_a_failure() {
        let (_logs, mut report) = report();
        assert!(
            report
                .run(step("perhaps", Counts::Tests, "--version"))
                .unwrap()
        );
        assert!(
            !report
                .run(step("surely", Counts::SomeTests, "--version"))
                .unwrap()
        );
        assert_eq!((report.passed, report.failed), (0, 1));
    }

    #[test]
    fn what_cannot_be_started_fails_and_says_so() {
        let (_logs, mut report) = report();
        let command = std::process::Command::new("no-such-program-anywhere");
        let step = Step {
            name: "absent",
            counts: Counts::Once,
            command,
        };
        assert!(!report.run(step).unwrap());
        assert!(report.failures[0].log.contains("no-such-program-anywhere"));
    }
}
