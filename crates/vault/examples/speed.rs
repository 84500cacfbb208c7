//! How many MB/s does one core cut, seal, open and hash? Run it with `--release`.

use std::hint::black_box;
use std::time::{Duration, Instant};

use syncagent_protocol::VaultId;
use syncagent_vault::VaultError;
use syncagent_vault::chunk::{Codec, Scope, Sealed, open_data, seal_data};
use syncagent_vault::chunker::{Chunker, Class};
use syncagent_vault::keys::VaultKey;
use syncagent_vault::secret::Secret;

const LEN: usize = 64 << 20;
const ROUNDS: usize = 5;

/// Content that nothing makes shorter.
fn incompressible() -> Vec<u8> {
    let mut out = vec![0; LEN];
    blake3::Hasher::new().finalize_xof().fill(&mut out);
    out
}

/// Something like a log: words in an order that does not repeat.
fn text(random: &[u8]) -> Vec<u8> {
    const WORDS: [&str; 8] = [
        "synchronise",
        "the",
        "folder",
        "error",
        "2026-11-22T13:00:00Z",
        "of",
        "warning",
        "node",
    ];
    let mut out = Vec::with_capacity(LEN + 32);
    for &byte in random.iter().cycle() {
        if out.len() >= LEN {
            break;
        }
        out.extend_from_slice(WORDS[usize::from(byte >> 5)].as_bytes());
        out.extend_from_slice(&[b' ', b'0' + byte % 10]);
    }
    out.truncate(LEN);
    out
}

/// The best of a few rounds: the others tell about the machine's other work.
fn report<T>(
    what: &str,
    bytes: usize,
    mut run: impl FnMut() -> Result<T, VaultError>,
) -> Result<T, VaultError> {
    let mut best = Duration::MAX;
    let mut result = run()?;
    for _ in 0..ROUNDS {
        let start = Instant::now();
        result = black_box(run()?);
        best = best.min(start.elapsed());
    }
    println!(
        "{what:<28} {:>7.0} MB/s",
        bytes as f64 / best.as_secs_f64() / 1e6
    );
    Ok(result)
}

fn main() -> Result<(), VaultError> {
    let key = VaultKey::from_parts(Secret::copy_from(&[7; 32]), VaultId([1; 16]));
    let keys = key.keys()?;
    let scope = Scope([2; 16]);
    let random = incompressible();
    let text = text(&random);

    let mut pieces = Vec::new();
    for class in [0, 3] {
        let Some(class) = Class::from_number(class) else {
            continue;
        };
        pieces = report(&format!("cut, class {}", class.number()), LEN, || {
            let mut chunker = Chunker::new(&keys, class)?;
            let (mut at, mut cuts) = (0, Vec::new());
            while at < random.len() {
                let len = chunker.cut(&random[at..])?;
                cuts.push(at..at + len);
                at += len;
            }
            Ok(cuts)
        })?;
    }
    for (what, content, codec) in [
        ("stored", &random, Codec::Stored),
        ("incompressible, zstd allowed", &random, Codec::Zstd),
        ("text, zstd", &text, Codec::Zstd),
    ] {
        let sealed: Vec<Sealed> = report(&format!("seal {what}"), LEN, || {
            let pieces = pieces.iter().map(|piece| &content[piece.clone()]);
            pieces
                .map(|piece| seal_data(&keys, scope, piece, codec))
                .collect()
        })?;
        report(&format!("open {what}"), LEN, || {
            sealed.iter().try_for_each(|sealed| {
                open_data(&keys, scope, &sealed.entry, &sealed.blob).map(|content| {
                    black_box(content);
                })
            })
        })?;
    }
    report("content hash", LEN, || {
        black_box(blake3::hash(&random));
        Ok(())
    })?;
    Ok(())
}
