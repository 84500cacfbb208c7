//! Breaks each invariant of docs/sync.md on purpose, and looks whether a test sees it.
//!
//! The working tree is never touched: what git knows of it, with uncommitted changes, is copied to
//! `target/mutants/tree`. There one mutant after the other is put in, the one test it names is built and run, and the
//! file is put back. Everything is built in one directory, so each mutant costs the crates above what it changes.

mod patch;

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File};
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

use self::patch::{Mutant, Target, Test};
use crate::tally::Tally;
use crate::workspace::{Workspace, cargo};

/// How long one test may take. What hangs was not seen to fail.
const TEST_LIMIT: Duration = Duration::from_secs(300);
/// How many slow ones are named.
const SLOWEST: usize = 10;
/// In which order crates are built: a mutant rebuilds everything behind its crate.
const CRATES: [&str; 7] = [
    "protocol",
    "sync",
    "vault",
    "server",
    "client",
    "testkit",
    "syncagent",
];

/// What came of one mutant.
enum Verdict {
    Killed,
    Survived,
    /// And why.
    DoesNotApply(String),
    DoesNotBuild,
    TimedOut,
    /// The test failed, but did not say what it should.
    OtherReason,
    /// No test of this name ran, or its process ended without a word.
    NotRun,
    /// The test fails without the mutant as well.
    FailsAnyway,
}

impl Verdict {
    fn word(&self) -> &'static str {
        match self {
            Self::Killed => "killed",
            Self::Survived => "SURVIVED",
            Self::DoesNotApply(_) => "DOES NOT APPLY",
            Self::DoesNotBuild => "DOES NOT BUILD",
            Self::TimedOut => "TIMED OUT",
            Self::OtherReason => "FAILED FOR ANOTHER REASON",
            Self::NotRun => "TEST NOT RUN",
            Self::FailsAnyway => "TEST FAILS ANYWAY",
        }
    }
}

/// How a test ended.
#[derive(PartialEq)]
enum Ended {
    Passed,
    Failed,
    NotRun,
    TimedOut,
}

/// Runs all mutants, or those whose names contain one of `names`.
pub(crate) fn run(workspace: &Workspace, names: &[String]) -> Result<ExitCode> {
    let mut mutants = Mutant::all(&workspace.root)?;
    for name in names {
        if !mutants.iter().any(|mutant| mutant.name.contains(name)) {
            bail!("no mutant in crates/testkit/mutants is called {name}");
        }
    }
    mutants
        .retain(|mutant| names.is_empty() || names.iter().any(|name| mutant.name.contains(name)));
    mutants.sort_by_key(|mutant| (place(&mutant.test), patched(mutant), mutant.name.clone()));
    let bench = Bench::new(workspace)?;
    println!("Without a mutant");
    let sound = bench.control(&mutants)?;
    println!("\nWith one");
    let mut ran = Vec::new();
    let mut failed = 0;
    for mutant in &mutants {
        let start = Instant::now();
        let verdict = match sound.contains(&key(mutant)) {
            true => bench.judge(mutant)?,
            false => Verdict::FailsAnyway,
        };
        let took = start.elapsed();
        failed += usize::from(!matches!(verdict, Verdict::Killed));
        let what = format!("{:<32} invariant {:>2}", mutant.name, mutant.invariant);
        println!("  {what}{:>8.1} s  {}", took.as_secs_f64(), verdict.word());
        if let Verdict::DoesNotApply(why) = &verdict {
            println!("{why}");
        }
        ran.push((took, &mutant.name));
    }
    ran.sort_by(|a, b| b.cmp(a));
    println!("\nSlowest");
    for (took, name) in ran.iter().take(SLOWEST) {
        println!("  {:>8.1} s  {name}", took.as_secs_f64());
    }
    if failed > 0 {
        println!("\nWhat was built and printed: {}", bench.logs.display());
    }
    println!("\n{} passed, {failed} failed", mutants.len() - failed);
    Ok(match failed {
        0 => ExitCode::SUCCESS,
        _ => ExitCode::FAILURE,
    })
}

/// Which crate's test, and which of its targets.
fn place(test: &Test) -> (usize, Test) {
    (rank(&test.directory()), test.clone())
}

fn patched(mutant: &Mutant) -> (usize, String) {
    let path = mutant.changes.first().map_or("", |change| &change.path);
    (rank(path), path.to_owned())
}

fn rank(path: &str) -> usize {
    let folder = path.split('/').nth(1).unwrap_or_default();
    let known = CRATES.iter().position(|name| *name == folder);
    known.unwrap_or(CRATES.len())
}

/// A test as one mutant wants it run.
fn key(mutant: &Mutant) -> (Test, BTreeMap<String, String>) {
    (mutant.test.clone(), mutant.env.clone())
}

/// Where mutants are built and run.
struct Bench {
    tree: PathBuf,
    build: PathBuf,
    logs: PathBuf,
    /// Two at a time would see each other's mutants.
    _lock: File,
}

impl Bench {
    fn new(workspace: &Workspace) -> Result<Self> {
        let dir = workspace.target.join("mutants");
        let make = |dir: PathBuf| {
            fs::create_dir_all(&dir).with_context(|| format!("cannot make {}", dir.display()))?;
            Ok::<_, anyhow::Error>(dir)
        };
        let (tree, build) = (make(dir.join("tree"))?, make(dir.join("build"))?);
        let logs = make(dir.join("logs"))?;
        let lock = File::create(dir.join("lock")).context("cannot make a lock")?;
        if lock.try_lock().is_err() {
            bail!("another `cargo xtask mutants` runs in {}", dir.display());
        }
        let bench = Self {
            tree,
            build,
            logs,
            _lock: lock,
        };
        copy_tree(&workspace.root, &bench.tree)?;
        Ok(bench)
    }

    /// Runs every test once as the sources are. Returns those that pass.
    fn control(&self, mutants: &[Mutant]) -> Result<BTreeSet<(Test, BTreeMap<String, String>)>> {
        let mut sound = BTreeSet::new();
        let wanted: BTreeSet<_> = mutants.iter().map(key).collect();
        let mut built: BTreeMap<(String, Target), Option<PathBuf>> = BTreeMap::new();
        let mut wanted: Vec<_> = wanted.into_iter().collect();
        wanted.sort_by_key(|(test, _)| place(test));
        for (test, env) in wanted {
            let binary = (test.package.clone(), test.target.clone());
            let function = test.name.rsplit("::").next().unwrap_or_default();
            let mut log = self.log(&format!("control-{function}"))?;
            let start = Instant::now();
            let binary = match built.get(&binary) {
                Some(executable) => executable.clone(),
                None => {
                    let executable = self.build(&test, &mut log)?;
                    built.insert(binary, executable.clone());
                    executable
                }
            };
            let word = match binary {
                None => "DOES NOT BUILD",
                Some(executable) => match self.test(&executable, &test, &env, &log)? {
                    Ended::Passed => {
                        sound.insert((test.clone(), env));
                        "ok"
                    }
                    Ended::Failed => "FAILED",
                    Ended::NotRun => "NOT RUN",
                    Ended::TimedOut => "TIMED OUT",
                },
            };
            let target = match &test.target {
                Target::Lib => "",
                Target::Bin(name) | Target::Test(name) => name,
            };
            let what = format!("{} {target} {}", test.package, test.name);
            println!(
                "  {what:<96}{:>8.1} s  {word}",
                start.elapsed().as_secs_f64()
            );
        }
        Ok(sound)
    }

    /// Puts one mutant in, runs its test, and takes it out again.
    fn judge(&self, mutant: &Mutant) -> Result<Verdict> {
        let mut before = Vec::new();
        let mut made = Vec::new();
        for change in &mutant.changes {
            let path = self.tree.join(&change.path);
            let text = fs::read_to_string(&path).unwrap_or_default();
            match change.apply(&text) {
                Ok(text) => made.push((path.clone(), text)),
                Err(why) => return Ok(Verdict::DoesNotApply(format!("{why:#}"))),
            }
            before.push((path, text));
        }
        write_all(&made)?;
        let verdict = self.verdict(mutant);
        write_all(&before)?;
        verdict
    }

    fn verdict(&self, mutant: &Mutant) -> Result<Verdict> {
        let mut log = self.log(&mutant.name)?;
        let Some(executable) = self.build(&mutant.test, &mut log)? else {
            return Ok(Verdict::DoesNotBuild);
        };
        let ended = self.test(&executable, &mutant.test, &mutant.env, &log)?;
        Ok(match ended {
            Ended::Passed => Verdict::Survived,
            Ended::NotRun => Verdict::NotRun,
            Ended::TimedOut => Verdict::TimedOut,
            Ended::Failed => match &mutant.says {
                Some(says) if !log.text().contains(says.as_str()) => Verdict::OtherReason,
                _ => Verdict::Killed,
            },
        })
    }

    /// The test's executable; none if it does not build.
    fn build(&self, test: &Test, log: &mut Log) -> Result<Option<PathBuf>> {
        let mut command = cargo();
        command.args(["test", "--locked", "--no-run", "--message-format=json"]);
        // One package alone would resolve other features and build its dependencies anew. With `--lib`, the packages
        // named beside it add what they depend on and no test: they have no library.
        match &test.target {
            Target::Lib => command.args([
                "-p",
                &test.package,
                "-p",
                "syncagent",
                "-p",
                "xtask",
                "--lib",
            ]),
            Target::Bin(bin) => command.args(["--workspace", "--bin", bin]),
            Target::Test(target) => command.args(["--workspace", "--test", target]),
        };
        command
            .current_dir(&self.tree)
            .env("CARGO_TARGET_DIR", &self.build)
            .env("CARGO_INCREMENTAL", "1")
            .env("CARGO_TERM_COLOR", "never")
            .stdin(Stdio::null())
            .stderr(log.file.try_clone().context("cannot share the log")?);
        let output = command.output().context("cannot run cargo test")?;
        let messages = String::from_utf8_lossy(&output.stdout);
        let messages = messages
            .lines()
            .filter_map(|line| serde_json::from_str::<serde_json::Value>(line).ok());
        let mut executable = None;
        for message in messages {
            if let Some(said) = message["message"]["rendered"].as_str() {
                log.file.write_all(said.as_bytes())?;
            }
            let made = &message["target"];
            let is_it = message["profile"]["test"] == true
                && match &test.target {
                    Target::Lib => made["kind"][0] == "lib",
                    Target::Bin(name) => made["kind"][0] == "bin" && made["name"] == **name,
                    Target::Test(name) => made["kind"][0] == "test" && made["name"] == **name,
                };
            if is_it && let Some(path) = message["executable"].as_str() {
                executable = Some(PathBuf::from(path));
            }
        }
        if output.status.success() && executable.is_none() {
            bail!("cargo built {test:?} and does not say where it is");
        }
        Ok(executable.filter(|_| output.status.success()))
    }

    /// Runs one test and nothing else.
    fn test(
        &self,
        executable: &Path,
        test: &Test,
        env: &BTreeMap<String, String>,
        log: &Log,
    ) -> Result<Ended> {
        let directory = self.tree.join(test.directory());
        let from = log.text().len();
        let mut child = Command::new(executable)
            .args(["--exact", &test.name])
            .env("RUST_BACKTRACE", "0")
            .env("CARGO_MANIFEST_DIR", &directory)
            .envs(env)
            .current_dir(directory)
            .stdin(Stdio::null())
            .stdout(log.file.try_clone().context("cannot share the log")?)
            .stderr(log.file.try_clone().context("cannot share the log")?)
            .spawn()
            .with_context(|| format!("cannot run {}", executable.display()))?;
        let start = Instant::now();
        while child
            .try_wait()
            .context("cannot wait for a test")?
            .is_none()
        {
            if start.elapsed() > TEST_LIMIT {
                child.kill().context("cannot end a test")?;
                child.wait().context("cannot wait for a test")?;
                return Ok(Ended::TimedOut);
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        let text = log.text();
        let tally = Tally::read(text.get(from..).unwrap_or_default());
        Ok(match (tally.passed, tally.failed) {
            (1, 0) => Ended::Passed,
            (0, 1) => Ended::Failed,
            _ => Ended::NotRun,
        })
    }

    fn log(&self, name: &str) -> Result<Log> {
        let path = self.logs.join(format!("{name}.log"));
        let file =
            File::create(&path).with_context(|| format!("cannot write {}", path.display()))?;
        Ok(Log { path, file })
    }
}

/// What is built and run for one mutant prints here.
struct Log {
    path: PathBuf,
    file: File,
}

impl Log {
    fn text(&self) -> String {
        String::from_utf8_lossy(&fs::read(&self.path).unwrap_or_default()).into_owned()
    }
}

fn write_all(files: &[(PathBuf, String)]) -> Result<()> {
    for (path, text) in files {
        fs::write(path, text).with_context(|| format!("cannot write {}", path.display()))?;
    }
    Ok(())
}

/// Makes `tree` what git knows of `root`, with what is not committed. A file that is the same already stays untouched,
/// or cargo would build it anew.
fn copy_tree(root: &Path, tree: &Path) -> Result<()> {
    let output = Command::new("git")
        .args([
            "ls-files",
            "-z",
            "--cached",
            "--others",
            "--exclude-standard",
        ])
        .current_dir(root)
        .output()
        .context("cannot run git, which says which files are the project's")?;
    if !output.status.success() {
        bail!(
            "`cargo xtask mutants` needs a clone of the repository, for git to say which files are the project's:\n{}",
            String::from_utf8_lossy(&output.stderr)
        );
    }
    let listed = String::from_utf8(output.stdout).context("a file's name is no text")?;
    let mut wanted = BTreeSet::new();
    for path in listed.split('\0').filter(|path| !path.is_empty()) {
        // One that is deleted and not yet committed is listed as well.
        let Ok(bytes) = fs::read(root.join(path)) else {
            continue;
        };
        let copy = tree.join(path);
        if let Some(parent) = copy.parent() {
            fs::create_dir_all(parent)?;
        }
        if fs::read(&copy).ok().as_ref() != Some(&bytes) {
            fs::write(&copy, bytes).with_context(|| format!("cannot write {}", copy.display()))?;
        }
        wanted.insert(copy);
    }
    remove_others(tree, &wanted)
}

/// What was in the tree once and is no more would be a module or a test still.
fn remove_others(dir: &Path, wanted: &BTreeSet<PathBuf>) -> Result<()> {
    for entry in fs::read_dir(dir)? {
        let path = entry?.path();
        if path.is_dir() {
            remove_others(&path, wanted)?;
        } else if !wanted.contains(&path) {
            fs::remove_file(&path).with_context(|| format!("cannot remove {}", path.display()))?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mutants_come_in_the_order_in_which_crates_are_built() {
        let test = |package: &str| Test {
            package: package.to_owned(),
            target: Target::Lib,
            name: "x".to_owned(),
        };
        let mut tests = [
            "syncagent",
            "syncagent-testkit",
            "syncagent-sync",
            "syncagent-vault",
        ]
        .map(test);
        tests.sort_by_key(place);
        let order = tests.map(|test| test.package);
        assert_eq!(
            order,
            [
                "syncagent-sync",
                "syncagent-vault",
                "syncagent-testkit",
                "syncagent"
            ]
        );
        assert!(rank("crates/client/src/engine.rs") < rank("crates/syncagent/src/main.rs"));
    }

    #[test]
    fn a_copied_tree_follows_its_origin() {
        let dir = tempfile::tempdir().unwrap();
        let (root, tree) = (dir.path().join("root"), dir.path().join("tree"));
        fs::create_dir_all(root.join("src")).unwrap();
        fs::create_dir_all(tree.join("old")).unwrap();
        let init = Command::new("git")
            .arg("init")
            .arg("-q")
            .current_dir(&root)
            .status();
        if !init.is_ok_and(|status| status.success()) {
            println!("there is no git here");
            return;
        }
        fs::write(root.join("src/a"), "a").unwrap();
        fs::write(root.join(".gitignore"), "/target\n").unwrap();
        fs::create_dir(root.join("target")).unwrap();
        fs::write(root.join("target/b"), "b").unwrap();
        fs::write(tree.join("old/c"), "c").unwrap();
        copy_tree(&root, &tree).unwrap();
        assert_eq!(fs::read(tree.join("src/a")).unwrap(), b"a");
        assert!(!tree.join("target").exists() && !tree.join("old/c").exists());
        let made = |path: &str| fs::metadata(tree.join(path)).unwrap().modified().unwrap();
        let before = made("src/a");
        copy_tree(&root, &tree).unwrap();
        assert_eq!(
            made("src/a"),
            before,
            "what is the same is not written again"
        );
    }
}
