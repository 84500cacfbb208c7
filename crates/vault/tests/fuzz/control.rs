//! The fuzzer is shown to find what it is there to find: each kind of bug, planted in a parser of its own.

use crate::engine::{Answer, Budget, Dice, Failure, hunt, within};
use crate::made;
use crate::seeds;

const CASES: u64 = 300_000;

fn found(seeds: Vec<Vec<u8>>, check: impl Fn(&[u8], &mut Dice) -> Answer) -> Failure {
    let budget = Budget::Cases(CASES);
    let first = hunt(seeds.clone(), budget, 1, &check).unwrap_err();
    // Whoever is told of it can see it again.
    let again = hunt(seeds, budget, 1, &check).unwrap_err();
    assert_eq!(first, again);
    assert!(
        std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            // The smaller input breaks it as well, and nothing random is needed for it.
            let _ =
                hunt(vec![first.input.clone()], Budget::Cases(1), 1, &check).map_err(|_| panic!());
        }))
        .is_err()
    );
    first
}

fn slots() -> Vec<Vec<u8>> {
    seeds::bytes("slot", &["slot"])
}

#[test]
fn a_length_that_is_believed_is_found() {
    // `u16 len ‖ bytes`, as the address in an export.
    let failure = found(vec![b"\0\x05hello".to_vec()], |input, _| {
        let Some((len, rest)) = input.split_first_chunk::<2>() else {
            return Err("short".into());
        };
        let value = &rest[..usize::from(u16::from_be_bytes(*len))];
        Ok(format!("{}", value.is_empty()))
    });
    assert!(failure.what.contains("out of range"), "{}", failure.what);
    assert!(failure.input.len() <= 4, "{:?}", failure.input);
}

#[test]
fn a_sum_that_overflows_is_found() {
    let known = vec![[&1u64.to_be_bytes()[..], &2u64.to_be_bytes()].concat()];
    let failure = found(known, |input, _| {
        let (lens, _) = input.as_chunks::<8>();
        let lens = lens.iter().map(|bytes| u64::from_be_bytes(*bytes));
        let sum = lens.fold(0u64, |sum, len| sum.checked_add(len).expect("it fits"));
        Ok(format!("{}", sum == 3))
    });
    assert!(failure.what.contains("it fits"), "{}", failure.what);
}

#[test]
fn a_byte_that_nobody_reads_is_found() {
    let failure = found(slots(), |input, _| {
        let slot: &[u8; 172] = input.try_into().map_err(|_| "length")?;
        if &slot[..4] != b"SAKS" {
            return Err("magic".into());
        }
        // Byte 18 should be zero, and is written so.
        let mut again = *slot;
        again[18] = 0;
        assert_eq!(again, *slot, "written in another way");
        Ok("parsed".into())
    });
    assert!(
        failure.what.contains("written in another way"),
        "{}",
        failure.what
    );
}

#[test]
fn memory_for_what_is_only_said_is_found() {
    let failure = found(slots(), |input, _| {
        let Some(said) = input.get(8..12).and_then(|bytes| bytes.first_chunk()) else {
            return Err("short".into());
        };
        let said = u32::from_be_bytes(*said) as usize;
        within(1 << 20, || {
            // As if it were room for what is to come.
            drop(Vec::<u8>::with_capacity(said.min(1 << 26)));
        });
        Ok("parsed".into())
    });
    assert!(failure.what.contains("bytes of memory"), "{}", failure.what);
}

#[test]
fn a_bug_behind_the_tag_is_found() {
    let known = vec![made::frame(0, b"content")];
    let failure = found(known, |input, _| {
        let sealed = made::gcm(&[9; 32], [0; 12], b"", input);
        // A reader that trusts whatever the tag vouches for.
        let frame = made::opened(&[9; 32], [0; 12], b"", &sealed).ok_or("the tag does not fit")?;
        let (head, rest) = frame.split_first_chunk::<8>().ok_or("short")?;
        let len = u32::from_be_bytes([head[0], head[1], head[2], head[3]]);
        Ok(format!("{}", rest[..len as usize].len() == 7))
    });
    assert!(failure.what.contains("out of range"), "{}", failure.what);
}

#[test]
fn a_bug_behind_three_doors_is_found() {
    // What opened a door is kept and changed further; all three at once would not be met in a thousand years.
    let failure = found(vec![vec![0; 24]], |input, _| {
        let open = |at: usize, key: [u8; 4]| input.get(at..at + 4) == Some(&key);
        if !open(0, [0xff; 4]) {
            return Ok("outside".into());
        }
        if !open(8, [0x80, 0, 0, 0]) {
            return Err("first".into());
        }
        if !open(16, [0, 0, 0, 1]) {
            return Err("second".into());
        }
        panic!("behind all of them")
    });
    assert_eq!(failure.what, "behind all of them");
}

#[test]
fn what_is_sound_passes() {
    let seen = hunt(slots(), Budget::Cases(2_000), 1, |input, _| {
        match input.starts_with(b"SAKS") {
            true => Ok("magic".into()),
            false => Err("no magic".into()),
        }
    });
    let seen = seen.unwrap();
    assert_eq!((seen.cases, seen.answers.len()), (2_000, 2));
    assert!(seen.accepted > 0 && seen.accepted < seen.cases);
}
