//! The three depths, `check`, `test` and `soak`, and `cross` for itself: which steps, in which order.

use std::env;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::{Result, bail};

use crate::cross;
use crate::needs::{Consent, Need, ensure};
use crate::report::Report;
use crate::steps;
use crate::workspace::Workspace;

/// How many simulated worlds `test` runs.
const TEST_SEEDS: u64 = 5_000;
/// How many property cases and seeds the first round of `soak` takes. Each round doubles them.
const SOAK_CASES: u64 = 16_384;
const SOAK_SEEDS: u64 = 4_096;
/// How long each parser is fuzzed in it, likewise.
const SOAK_FUZZ_SECONDS: u64 = 30;

/// What a change must pass before it is shown.
pub(crate) fn check(workspace: &Workspace, consent: Consent) -> Result<ExitCode> {
    ensure(workspace, consent, &[Need::Python, Need::VectorsVenv])?;
    let mut report = report(workspace)?;
    lint(workspace, &mut report)?;
    report.run(steps::unit_tests(workspace)?)?;
    report.run(steps::edges(workspace)?)?;
    report.run(steps::examples_in_docs(workspace))?;
    report.run(steps::vectors(workspace))?;
    Ok(report.finish())
}

/// Everything.
pub(crate) fn test(workspace: &Workspace, consent: Consent) -> Result<ExitCode> {
    ensure(
        workspace,
        consent,
        &[Need::Python, Need::VectorsVenv, Need::Keyring, Need::Cross],
    )?;
    let mut report = report(workspace)?;
    lint(workspace, &mut report)?;
    every_test(workspace, &mut report, None)?;
    report.run(steps::examples_in_docs(workspace))?;
    report.run(steps::vectors(workspace))?;
    for target in cross::targets() {
        report.run(steps::cross(workspace, target)?)?;
    }
    Ok(report.finish())
}

/// The tests in rounds. A round has twice the cases, seeds and time to fuzz of the one before, and
/// starts from a seed of its own; none is begun that would not end in time, and none after a failure.
pub(crate) fn soak(workspace: &Workspace, consent: Consent, hours: f64) -> Result<ExitCode> {
    if !(hours > 0.0 && hours.is_finite()) {
        bail!("--hours takes a number above zero");
    }
    ensure(
        workspace,
        consent,
        &[Need::Python, Need::VectorsVenv, Need::Keyring],
    )?;
    let mut report = report(workspace)?;
    let given = Duration::from_secs_f64(hours * 3600.0);
    let start = Instant::now();
    let mut scale = Scale {
        cases: number("SYNCAGENT_CASES", SOAK_CASES)?,
        first_seed: number("SYNCAGENT_SEED", 1)?,
        seeds: number("SYNCAGENT_SEEDS", SOAK_SEEDS)?,
        fuzz_seconds: number("SYNCAGENT_FUZZ_SECONDS", SOAK_FUZZ_SECONDS)?,
    };
    loop {
        let round = Instant::now();
        println!(
            "Round with SYNCAGENT_CASES={} SYNCAGENT_SEED={} SYNCAGENT_SEEDS={} SYNCAGENT_FUZZ_SECONDS={}",
            scale.cases, scale.first_seed, scale.seeds, scale.fuzz_seconds
        );
        every_test(workspace, &mut report, Some(&scale))?;
        if !report.is_green() || start.elapsed() + round.elapsed() * 2 > given {
            break;
        }
        scale = Scale {
            cases: scale.cases.saturating_mul(2),
            first_seed: scale.first_seed.saturating_add(scale.seeds),
            seeds: scale.seeds.saturating_mul(2),
            fuzz_seconds: scale.fuzz_seconds.saturating_mul(2),
        };
    }
    report.run(steps::vectors(workspace))?;
    Ok(report.finish())
}

/// The other systems alone.
pub(crate) fn cross(workspace: &Workspace, consent: Consent) -> Result<ExitCode> {
    if cross::targets().is_empty() {
        bail!(
            "cargo xtask cross runs on Linux and macOS; here `cargo check` is the check for Windows"
        );
    }
    ensure(
        workspace,
        consent,
        &[Need::Python, Need::VectorsVenv, Need::Cross],
    )?;
    let mut report = report(workspace)?;
    for target in cross::targets() {
        report.run(steps::cross(workspace, target)?)?;
    }
    Ok(report.finish())
}

/// How much of what is random is tried.
struct Scale {
    cases: u64,
    first_seed: u64,
    seeds: u64,
    fuzz_seconds: u64,
}

fn report(workspace: &Workspace) -> Result<Report> {
    Report::new(workspace.target.join("xtask"))
}

fn lint(workspace: &Workspace, report: &mut Report) -> Result<()> {
    report.run(steps::format(workspace))?;
    report.run(steps::lints(workspace))?;
    report.run(steps::documentation(workspace))?;
    Ok(())
}

/// A binary left over from another day must not be tested in place of one that does not build.
fn every_test(workspace: &Workspace, report: &mut Report, soak: Option<&Scale>) -> Result<()> {
    if !report.run(steps::release(workspace))? {
        report.skip("tests", "the release build failed");
        return Ok(());
    }
    let mut step = steps::all_tests(workspace, &workspace.release_binary())?;
    if let Some(scale) = soak {
        step.command
            .env("SYNCAGENT_SOAK", "1")
            .env("SYNCAGENT_CASES", scale.cases.to_string())
            .env("SYNCAGENT_SEED", scale.first_seed.to_string())
            .env("SYNCAGENT_SEEDS", scale.seeds.to_string())
            .env("SYNCAGENT_FUZZ_SECONDS", scale.fuzz_seconds.to_string());
    } else {
        let seeds = number("SYNCAGENT_SEEDS", TEST_SEEDS)?;
        step.command.env("SYNCAGENT_SEEDS", seeds.to_string());
    }
    report.run(step)?;
    Ok(())
}

fn number(name: &str, otherwise: u64) -> Result<u64> {
    match env::var(name) {
        Ok(text) => match text.parse() {
            Ok(number) if number > 0 => Ok(number),
            _ => bail!("{name} takes a number above zero, not {text:?}"),
        },
        Err(_) => Ok(otherwise),
    }
}
