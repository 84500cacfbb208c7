//! Changes what is well made until something breaks: a small fuzzer for any stable compiler.
//!
//! It starts from seeds, changes them the way formats break (bits, boundary values in length fields, cuts, repeats,
//! splices of two), and keeps an input that made the parser say something it had not said before, so that later
//! changes start from there. Which input comes when is a function of the seed alone.

use std::collections::BTreeSet;
use std::fmt::Write;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::time::{Duration, Instant};

use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{Rng, SeedableRng};

/// How long to go on.
#[derive(Clone, Copy)]
pub(crate) enum Budget {
    Cases(u64),
    Time(Duration),
}

/// How often and from which seed: `SYNCAGENT_FUZZ_SECONDS` for each parser, otherwise this many cases;
/// `SYNCAGENT_FUZZ_SEED`, otherwise 1.
fn from_environment(cases: u64) -> (Budget, u64) {
    let number = |name: &str| {
        let text = std::env::var(name).ok()?;
        let number: Result<u64, _> = text.parse();
        Some(number.unwrap_or_else(|_| panic!("{name} takes a number, not {text:?}")))
    };
    let budget = match number("SYNCAGENT_FUZZ_SECONDS") {
        Some(seconds) => Budget::Time(Duration::from_secs(seconds)),
        None => Budget::Cases(cases),
    };
    (budget, number("SYNCAGENT_FUZZ_SEED").unwrap_or(1))
}

/// What was seen.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Seen {
    pub(crate) cases: u64,
    /// How many inputs were taken for what they claim to be.
    pub(crate) accepted: u64,
    /// Everything that parsers said.
    pub(crate) answers: BTreeSet<String>,
}

/// An input that broke a promise.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Failure {
    pub(crate) case: u64,
    pub(crate) input: Vec<u8>,
    pub(crate) what: String,
}

/// What came of one input: whether it was accepted, and in a few words what was said of it.
pub(crate) type Answer = Result<String, String>;

/// `check` is given inputs made from `seeds` and panics where a promise is broken.
pub(crate) fn hunt(
    seeds: Vec<Vec<u8>>,
    budget: Budget,
    seed: u64,
    check: impl Fn(&[u8], &mut Dice) -> Answer,
) -> Result<Seen, Failure> {
    assert!(!seeds.is_empty(), "there is nothing to begin with");
    let mut seen = Seen {
        cases: 0,
        accepted: 0,
        answers: BTreeSet::new(),
    };
    let (begun, as_they_are) = (Instant::now(), seeds.len() as u64);
    let mut corpus = seeds;
    // Where in the corpus what was accepted stands: most seeds are there to be refused.
    let mut sound: Vec<usize> = Vec::new();
    loop {
        let case = seen.cases;
        let go_on = match budget {
            Budget::Cases(cases) => case < cases,
            Budget::Time(time) => case < as_they_are || begun.elapsed() < time,
        };
        if !go_on {
            return Ok(seen);
        }
        let mut dice = Dice::of(seed, case);
        // First the seeds as they are: they answer for what is well made, and for all that must fail.
        let input = match corpus.get(case as usize) {
            Some(input) if case < as_they_are => input.clone(),
            _ => dice.changed(&corpus, &sound),
        };
        let attempt = |input: &[u8]| {
            let mut dice = Dice::of(!seed, case);
            catch_unwind(AssertUnwindSafe(|| check(input, &mut dice)))
        };
        match attempt(&input) {
            Ok(answer) => {
                let accepted = answer.is_ok();
                seen.accepted += u64::from(accepted);
                if accepted && case < as_they_are {
                    sound.push(case as usize);
                }
                let answer = match answer {
                    Ok(said) => format!("accepted: {said}"),
                    Err(said) => format!("refused: {said}"),
                };
                let room = corpus.len() < as_they_are as usize + 1000;
                if seen.answers.insert(answer) && case >= as_they_are && room {
                    if accepted {
                        sound.push(corpus.len());
                    }
                    corpus.push(input);
                }
            }
            Err(panic) => {
                let input = shrunk(input, |smaller| attempt(smaller).is_err());
                let what = panic
                    .downcast_ref::<String>()
                    .cloned()
                    .or_else(|| panic.downcast_ref::<&str>().map(|text| (*text).to_owned()))
                    .unwrap_or_default();
                return Err(Failure { case, input, what });
            }
        }
        seen.cases += 1;
    }
}

/// [`hunt`] as the environment wants it, which must find nothing, and must not have stopped at the door.
pub(crate) fn fuzz(
    name: &str,
    seeds: Vec<Vec<u8>>,
    cases: u64,
    check: impl Fn(&[u8], &mut Dice) -> Answer,
) {
    let (budget, seed) = from_environment(cases);
    println!("{name}: SYNCAGENT_FUZZ_SEED={seed}, {} seeds", seeds.len());
    match hunt(seeds, budget, seed, check) {
        Ok(seen) => {
            println!(
                "{name}: {} cases, {} accepted, {} answers",
                seen.cases,
                seen.accepted,
                seen.answers.len()
            );
            for answer in &seen.answers {
                println!("  {answer}");
            }
            assert!(
                seen.accepted > 0 && seen.accepted < seen.cases && seen.answers.len() > 1,
                "{name}: it always says the same: {:?}",
                seen.answers
            );
        }
        Err(Failure { case, input, what }) => panic!(
            "{name}: {what}\nSYNCAGENT_FUZZ_SEED={seed}, case {case}; as small as it got, {} bytes: {}",
            input.len(),
            hex(&input)
        ),
    }
}

/// Runs `parser` and sees to it that at no moment it held more than `most` bytes of memory.
///
/// Only what Rust allocates is counted: what C allocates (zstd) is not.
pub(crate) fn within<T>(most: usize, parser: impl FnOnce() -> T) -> T {
    let mut result = None;
    // A panic must not pass through the counter, which would go on counting.
    let held = allocation_counter::measure(|| {
        result = Some(catch_unwind(AssertUnwindSafe(parser)));
    });
    match result {
        Some(Ok(value)) => {
            assert!(
                held.bytes_max <= most as u64,
                "it held {} bytes of memory where {most} would do",
                held.bytes_max
            );
            value
        }
        Some(Err(panic)) => resume_unwind(panic),
        None => panic!("the parser did not run"),
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut text, byte| {
        // A String takes everything.
        let _ = write!(text, "{byte:02x}");
        text
    })
}

/// Leaves out and zeroes what does not matter, within a bounded number of tries.
fn shrunk(mut input: Vec<u8>, fails: impl Fn(&[u8]) -> bool) -> Vec<u8> {
    let mut tries = 200;
    let mut step = input.len().div_ceil(2);
    while step > 0 && tries > 0 {
        let mut at = 0;
        while at < input.len() && tries > 0 {
            let end = input.len().min(at + step);
            let without = [&input[..at], &input[end..]].concat();
            let mut zeroed = input.clone();
            zeroed[at..end].fill(0);
            tries -= 1;
            if fails(&without) {
                input = without;
            } else {
                if zeroed != input && fails(&zeroed) {
                    input = zeroed;
                }
                at = end;
            }
        }
        step /= 2;
    }
    input
}

/// No parser here is given more.
const LONGEST: usize = 64 * 1024;

/// Everything random about one case.
pub(crate) struct Dice(ChaCha8Rng);

impl Dice {
    fn of(seed: u64, case: u64) -> Self {
        let mut bytes = [0; 32];
        bytes[..8].copy_from_slice(&seed.to_be_bytes());
        bytes[8..16].copy_from_slice(&case.to_be_bytes());
        Self(ChaCha8Rng::from_seed(bytes))
    }

    /// A number below `n`, which is not 0.
    pub(crate) fn below(&mut self, n: usize) -> usize {
        (self.0.next_u64() % n as u64) as usize
    }

    /// True once in `n` times.
    pub(crate) fn one_in(&mut self, n: usize) -> bool {
        self.below(n) == 0
    }

    fn range(&mut self, len: usize) -> std::ops::Range<usize> {
        let start = self.below(len + 1);
        let longest = match self.below(3) {
            0 => 4,
            1 => 80,
            _ => len,
        };
        let end = len.min(start + self.below(longest + 1));
        start..end
    }

    /// One of the corpus, every second time one that is sound, changed once or a few times.
    fn changed(&mut self, corpus: &[Vec<u8>], sound: &[usize]) -> Vec<u8> {
        let begin_with = match sound.is_empty() || self.one_in(2) {
            true => self.below(corpus.len()),
            false => sound[self.below(sound.len())],
        };
        let mut input = corpus[begin_with].clone();
        let changes = 1 + self.below(4);
        for _ in 0..changes {
            let other = &corpus[self.below(corpus.len())];
            self.change(&mut input, other);
            input.truncate(LONGEST);
        }
        input
    }

    fn change(&mut self, input: &mut Vec<u8>, other: &[u8]) {
        let len = input.len();
        if len == 0 {
            input.extend_from_slice(other);
            return;
        }
        let at = self.below(len);
        match self.below(14) {
            0 | 1 => input[at] ^= 1 << self.below(8),
            2 => input[at] = [0, 1, 2, 0x7f, 0x80, 0xff][self.below(6)],
            3 => input[at] = self.below(256) as u8,
            4 | 5 => self.set_number(input, at),
            6 | 7 => {
                if let Some((at, width)) = self.length_field(input) {
                    self.set_number_of(input, at, width);
                }
            }
            8 => input.truncate(at),
            9 => {
                let range = self.range(other.len());
                input.splice(at..at, other[range].iter().copied());
            }
            10 => {
                // The front of one and the back of another, at the same place or anywhere.
                let from = match self.one_in(2) {
                    true => at.min(other.len()),
                    false => self.below(other.len() + 1),
                };
                input.truncate(at);
                input.extend_from_slice(&other[from..]);
            }
            11 => {
                let range = self.range(len);
                let section = input[range.clone()].repeat(1 + self.below(3));
                input.splice(range.end..range.end, section);
            }
            12 => {
                let range = self.range(len);
                match self.below(3) {
                    0 => drop(input.drain(range)),
                    1 => input[range].fill([0, 0xff][self.below(2)]),
                    _ => input[range].reverse(),
                }
            }
            _ => {
                let more = match self.one_in(2) {
                    true => vec![0; 1 + self.below(300)],
                    false => other[self.range(other.len())].to_vec(),
                };
                input.extend_from_slice(&more);
            }
        }
    }

    /// Where a number stands that could be the length of something behind it.
    fn length_field(&mut self, input: &[u8]) -> Option<(usize, usize)> {
        let width = [2, 4, 4, 8][self.below(4)];
        let last = input.len().checked_sub(width)?;
        let start = self.below(last + 1);
        (start..=last).chain(0..start).find_map(|at| {
            let number = number(&input[at..at + width]);
            let plausible = number > 0 && number <= (input.len() - at - width) as u64;
            plausible.then_some((at, width))
        })
    }

    fn set_number(&mut self, input: &mut [u8], at: usize) {
        let width = [1, 2, 4, 8][self.below(4)];
        if at + width <= input.len() {
            self.set_number_of(input, at, width);
        }
    }

    fn set_number_of(&mut self, input: &mut [u8], at: usize, width: usize) {
        let (len, behind) = (input.len() as u64, (input.len() - at - width) as u64);
        let field = &mut input[at..at + width];
        let old = number(field);
        let highest = u64::MAX >> (64 - 8 * width);
        let sign = highest / 2 + 1;
        let new = match self.below(16) {
            0 => 0,
            1 => 1,
            2 => highest,
            3 => highest - 1,
            4 => sign,
            5 => sign - 1,
            6 => behind,
            7 => behind + 1,
            8 => behind.wrapping_sub(1),
            9 => len,
            10 => old.wrapping_add(1),
            11 => old.wrapping_sub(1),
            12 => old.wrapping_mul(2),
            13 => 1 << self.below(8 * width),
            14 => self.0.next_u64(),
            _ => self.below(512) as u64,
        };
        field.copy_from_slice(&new.to_be_bytes()[8 - width..]);
    }
}

fn number(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0, |value, b| value << 8 | u64::from(*b))
}
