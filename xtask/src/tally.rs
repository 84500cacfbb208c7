//! Reads what `cargo test` prints: how many tests ran, how they ended, which were slow.

/// What one or more test binaries reported.
#[derive(Debug, Default, PartialEq)]
pub(crate) struct Tally {
    pub passed: u64,
    pub failed: u64,
    pub ignored: u64,
    /// Name and seconds of every test that was timed.
    pub timed: Vec<(String, f64)>,
}

impl Tally {
    /// Adds up every `test result:` line of a log. Lines of anything else are passed over.
    pub(crate) fn read(log: &str) -> Self {
        let mut tally = Self::default();
        let mut suite = String::new();
        for line in log.lines() {
            let line = line.trim();
            if let Some(counts) = line.strip_prefix("test result: ") {
                tally.passed += count(counts, "passed");
                tally.failed += count(counts, "failed");
                tally.ignored += count(counts, "ignored");
            } else if let Some(binary) = line.strip_prefix("Running ") {
                suite = suite_name(binary);
            } else if let Some(name) = line.strip_prefix("Doc-tests ") {
                suite = name.to_owned();
            } else if let Some((name, seconds)) = timed(line) {
                tally.timed.push((format!("{suite}: {name}"), seconds));
            }
        }
        tally
    }

    /// How many tests ran to an end.
    pub(crate) fn ran(&self) -> u64 {
        self.passed + self.failed
    }
}

/// The number before `word` in `ok. 3 passed; 0 failed; 1 ignored; ...`.
fn count(counts: &str, word: &str) -> u64 {
    counts
        .split(['.', ';'])
        .filter_map(|part| part.trim().strip_suffix(word))
        .find_map(|number| number.trim().parse().ok())
        .unwrap_or(0)
}

/// `unittests src/lib.rs (target/debug/deps/syncagent_sync-0123456789abcdef)` is `syncagent_sync`.
fn suite_name(binary: &str) -> String {
    let path = binary
        .rsplit('(')
        .next()
        .unwrap_or(binary)
        .trim_end_matches(')');
    let file = path.rsplit(['/', '\\']).next().unwrap_or(path);
    file.rsplit_once('-')
        .map_or(file, |(name, _hash)| name)
        .to_owned()
}

/// `test moves::swap ... ok <0.125s>` is `("moves::swap", 0.125)`.
fn timed(line: &str) -> Option<(&str, f64)> {
    let (name, rest) = line.strip_prefix("test ")?.split_once(" ... ")?;
    let seconds = rest.rsplit_once('<')?.1.strip_suffix("s>")?;
    Some((name, seconds.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::Tally;

    #[test]
    fn sums_every_suite_and_keeps_the_times() {
        let log = "\
     Running unittests src/lib.rs (target/debug/deps/syncagent_sync-fc01b1bfec54f4ff)

running 2 tests
test tree::moves ... ok <0.125s>
test tree::cycle ... FAILED <1.500s>
a test may print test result lines in the middle of a line: test result: 9 passed

test result: FAILED. 1 passed; 1 failed; 3 ignored; 0 measured; 0 filtered out; finished in 1.52s

   Doc-tests syncagent_sync
test result: ok. 4 passed; 0 failed; 0 ignored; 0 measured; 0 filtered out; finished in 0.20s
";
        let tally = Tally::read(log);
        assert_eq!((tally.passed, tally.failed, tally.ignored), (5, 1, 3));
        assert_eq!(
            tally.timed,
            [
                ("syncagent_sync: tree::moves".to_owned(), 0.125),
                ("syncagent_sync: tree::cycle".to_owned(), 1.5)
            ]
        );
    }

    #[test]
    fn a_log_without_tests_counts_none() {
        assert_eq!(
            Tally::read("   Compiling syncagent v0.1.0\nerror: no\n").ran(),
            0
        );
    }
}
