//! Looks for many needles in much hay at once, and in what the hay holds in compressed form.

use std::collections::{HashMap, HashSet};
use std::io::Read as _;

use data_encoding::{BASE64_NOPAD, BASE64URL_NOPAD, HEXLOWER, HEXUPPER};

use super::inflate;

/// How many bytes of a needle find it; no needle is shorter.
const KEY: usize = 6;
/// One bit for each hash of a key's first four bytes.
const FILTER_BITS: u32 = 22;
/// Spreads them.
const MIX: u32 = 0x9e37_79b1;
/// Frames within frames within frames are looked into no deeper.
const DEPTH: u8 = 3;
/// What is taken out of one frame at most.
const MAX_FRAME: u64 = 64 << 20;

struct Needle {
    bytes: Vec<u8>,
    what: String,
    /// Digits, which count only where no digit stands beside them.
    number: bool,
}

/// Everything that nobody but the machines may see.
pub(crate) struct Needles {
    all: Vec<Needle>,
    known: HashSet<Vec<u8>>,
    by_key: HashMap<[u8; KEY], Vec<usize>>,
    filter: Vec<bool>,
    numbers: HashMap<u64, String>,
}

impl Needles {
    pub(crate) fn new() -> Self {
        Self {
            all: Vec::new(),
            known: HashSet::new(),
            by_key: HashMap::new(),
            filter: vec![false; 1 << FILTER_BITS],
            numbers: HashMap::new(),
        }
    }

    pub(crate) fn len(&self) -> usize {
        self.all.len()
    }

    /// These bytes, in every form in which a careless program writes bytes.
    pub(crate) fn secret(&mut self, bytes: &[u8], what: &str) {
        self.add(bytes.to_vec(), format!("{what}, raw"));
        self.add(HEXLOWER.encode(bytes).into(), format!("{what}, hex"));
        self.add(HEXUPPER.encode(bytes).into(), format!("{what}, upper hex"));
        for start in 0..3 {
            // Six bits a letter: the first letters hang on what stands before, the last on what follows.
            let mut padded = vec![0; start];
            padded.extend_from_slice(bytes);
            let first = (start * 8).div_ceil(6);
            let last = padded.len() * 8 / 6;
            for (encoding, name) in [(&BASE64_NOPAD, "base64"), (&BASE64URL_NOPAD, "base64url")] {
                let text = encoding.encode(&padded);
                self.add(
                    text.as_bytes()[first..last].to_vec(),
                    format!("{what}, {name} at {start}"),
                );
            }
        }
        let all = |upper: bool| -> String {
            bytes
                .iter()
                .map(|byte| {
                    if upper {
                        format!("%{byte:02X}")
                    } else {
                        format!("%{byte:02x}")
                    }
                })
                .collect()
        };
        let usual = |upper: bool| -> String {
            bytes
                .iter()
                .map(|&byte| match byte {
                    b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => {
                        char::from(byte).to_string()
                    }
                    _ if upper => format!("%{byte:02X}"),
                    _ => format!("%{byte:02x}"),
                })
                .collect()
        };
        for upper in [false, true] {
            self.add(
                all(upper).into_bytes(),
                format!("{what}, percent-encoded throughout"),
            );
            self.add(
                usual(upper).into_bytes(),
                format!("{what}, percent-encoded"),
            );
        }
    }

    /// A text, as bytes and in the other encodings of text, and its hashes.
    pub(crate) fn text(&mut self, text: &str, what: &str) {
        self.secret(text.as_bytes(), what);
        let wide: Vec<u16> = text.encode_utf16().collect();
        let little: Vec<u8> = wide.iter().flat_map(|unit| unit.to_le_bytes()).collect();
        let big: Vec<u8> = wide.iter().flat_map(|unit| unit.to_be_bytes()).collect();
        self.secret(&little, &format!("{what}, UTF-16LE"));
        self.secret(&big, &format!("{what}, UTF-16BE"));
        let escaped: String = wide
            .iter()
            .map(|&unit| match u8::try_from(unit) {
                Ok(byte) if byte.is_ascii() => char::from(byte).to_string(),
                _ => format!("\\u{unit:04x}"),
            })
            .collect();
        self.add(escaped.into_bytes(), format!("{what}, JSON"));
        self.hashes(text.as_bytes(), what);
    }

    /// What would let somebody who guesses `bytes` see that he is right.
    pub(crate) fn hashes(&mut self, bytes: &[u8], what: &str) {
        let hashes = [
            (syncagent_protocol::sha256(&[bytes]), "SHA-256"),
            (*blake3::hash(bytes).as_bytes(), "BLAKE3"),
        ];
        for (hash, name) in hashes {
            self.secret(&hash, &format!("{what}, {name}"));
            self.secret(&hash[..16], &format!("{what}, half of {name}"));
        }
    }

    /// An exact size of more than a million, so that eight bytes say it and nothing else does.
    pub(crate) fn size(&mut self, size: u64, what: &str) {
        assert!(size > 1 << 20, "{size} could stand somewhere by chance");
        self.add(
            size.to_le_bytes().to_vec(),
            format!("{what}, u64 little-endian"),
        );
        self.add(
            size.to_be_bytes().to_vec(),
            format!("{what}, u64 big-endian"),
        );
        // Four bytes alone are in any random megabytes; twice the same is how a header or two fields would say it.
        let narrow = u32::try_from(size).expect("less than 4 GiB");
        self.add(
            [narrow.to_le_bytes(); 2].concat(),
            format!("{what}, u32 little-endian twice"),
        );
        self.add(
            [narrow.to_be_bytes(); 2].concat(),
            format!("{what}, u32 big-endian twice"),
        );
        for text in [
            size.to_string(),
            format!("{size:08x}"),
            format!("{size:08X}"),
        ] {
            self.insert(text.into_bytes(), format!("{what}, as text"), true);
        }
        self.numbers.insert(size, what.to_owned());
    }

    /// What a number in a column gives away.
    pub(crate) fn number(&self, value: i64) -> Option<&str> {
        self.numbers
            .get(&u64::try_from(value).ok()?)
            .map(String::as_str)
    }

    fn add(&mut self, bytes: Vec<u8>, what: String) {
        self.insert(bytes, what, false);
    }

    fn insert(&mut self, bytes: Vec<u8>, what: String, number: bool) {
        let Some(key) = bytes.first_chunk::<KEY>() else {
            panic!("{what} is too short to be meant")
        };
        if !self.known.insert(bytes.clone()) {
            return;
        }
        self.filter[slot(&bytes)] = true;
        self.by_key.entry(*key).or_default().push(self.all.len());
        self.all.push(Needle {
            bytes,
            what,
            number,
        });
    }

    /// Everything of this that `hay` gives away, each once, with the place where it stands first.
    pub(crate) fn find(&self, hay: &[u8], place: &str) -> Vec<String> {
        let mut found = Vec::new();
        self.look(hay, place, DEPTH, &mut HashSet::new(), &mut found);
        found
    }

    fn look(
        &self,
        hay: &[u8],
        place: &str,
        depth: u8,
        seen: &mut HashSet<usize>,
        found: &mut Vec<String>,
    ) {
        // The one loop that sees every byte: nothing is called in it, for tests are not optimised.
        let filter = self.filter.as_slice();
        let mut window = 0_u32;
        for (end, &byte) in hay.iter().enumerate() {
            window = window >> 8 | (byte as u32) << 24;
            let frame = window == 0xfd2f_b528 || window & 0x00ff_ffff == 0x0008_8b1f;
            if !filter[(window.wrapping_mul(MIX) >> (32 - FILTER_BITS)) as usize] && !frame {
                continue;
            }
            let Some(at) = end.checked_sub(3) else {
                continue;
            };
            let rest = &hay[at..];
            self.compare(hay, at, place, seen, found);
            if depth > 0 {
                let inside = match rest {
                    [0x28, 0xb5, 0x2f, 0xfd, ..] => unzstd(rest),
                    [0x1f, 0x8b, 8, flags, ..] if flags & 0xe0 == 0 => inflate::gzip(rest),
                    _ => continue,
                };
                if !inside.is_empty() {
                    self.look(
                        &inside,
                        &format!("{place}, decompressed at {at}"),
                        depth - 1,
                        seen,
                        found,
                    );
                }
            }
        }
    }

    fn compare(
        &self,
        hay: &[u8],
        at: usize,
        place: &str,
        seen: &mut HashSet<usize>,
        found: &mut Vec<String>,
    ) {
        let rest = &hay[at..];
        let Some(candidates) = rest
            .first_chunk::<KEY>()
            .and_then(|key| self.by_key.get(key))
        else {
            return;
        };
        for &index in candidates {
            let needle = &self.all[index];
            let digit = |at: Option<usize>| {
                at.and_then(|at| hay.get(at))
                    .is_some_and(u8::is_ascii_hexdigit)
            };
            let part_of_more =
                needle.number && (digit(at.checked_sub(1)) || digit(Some(at + needle.bytes.len())));
            if rest.starts_with(&needle.bytes) && !part_of_more && seen.insert(index) {
                found.push(format!("{} at {at} of {place}", needle.what));
            }
        }
    }
}

/// Where the filter says whether a needle begins like this.
fn slot(bytes: &[u8]) -> usize {
    let head = u32::from_le_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]);
    (head.wrapping_mul(MIX) >> (32 - FILTER_BITS)) as usize
}

/// As much of a zstd frame as there is.
fn unzstd(bytes: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    if let Ok(decoder) = zstd::stream::read::Decoder::with_buffer(bytes) {
        // What came out before an error is looked at, too.
        let _ = decoder.single_frame().take(MAX_FRAME).read_to_end(&mut out);
    }
    out
}
