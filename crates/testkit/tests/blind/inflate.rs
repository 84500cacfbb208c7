//! DEFLATE (RFC 1951) and the gzip header (RFC 1952), as far as they can be read: what precedes an error is kept.

/// No more than this is made of one stream.
const MAX_OUT: usize = 8 << 20;

/// What a gzip stream holds.
pub(crate) fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut at = 10;
    let flags = bytes.get(3).copied().unwrap_or(0);
    if flags & 4 != 0 {
        let Some(&[low, high]) = bytes.get(at..).and_then(<[u8]>::first_chunk::<2>) else {
            return Vec::new();
        };
        at += 2 + usize::from(u16::from_le_bytes([low, high]));
    }
    for text in [8, 16] {
        if flags & text != 0 {
            let end = bytes
                .get(at..)
                .and_then(|rest| rest.iter().position(|&byte| byte == 0));
            at += end.map_or(bytes.len(), |end| end + 1);
        }
    }
    if flags & 2 != 0 {
        at += 2;
    }
    inflate(bytes.get(at..).unwrap_or_default())
}

/// What a DEFLATE stream holds.
fn inflate(bytes: &[u8]) -> Vec<u8> {
    let mut state = Inflate {
        bytes,
        at: 0,
        out: Vec::new(),
    };
    while state.block() == Some(false) {}
    state.out
}

struct Inflate<'a> {
    bytes: &'a [u8],
    /// In bits.
    at: usize,
    out: Vec<u8>,
}

/// How many codes there are of each length, and the symbols in the order of their codes.
struct Codes {
    counts: [u16; 16],
    symbols: Vec<u16>,
}

impl Codes {
    fn new(lengths: &[u8]) -> Self {
        let mut counts = [0; 16];
        let mut symbols = Vec::new();
        for length in 1..16 {
            for (symbol, _) in (0_u16..).zip(lengths).filter(|(_, l)| **l == length) {
                counts[usize::from(length)] += 1;
                symbols.push(symbol);
            }
        }
        Self { counts, symbols }
    }
}

impl Inflate<'_> {
    fn bits(&mut self, count: u32) -> Option<u32> {
        let mut value = 0;
        for i in 0..count {
            let byte = *self.bytes.get(self.at / 8)?;
            value |= u32::from(byte >> (self.at % 8) & 1) << i;
            self.at += 1;
        }
        Some(value)
    }

    fn symbol(&mut self, codes: &Codes) -> Option<u16> {
        let (mut code, mut first, mut index) = (0_i32, 0_i32, 0_i32);
        for length in 1..16 {
            code |= self.bits(1)? as i32;
            let count = i32::from(codes.counts[length]);
            if code - count < first {
                return codes
                    .symbols
                    .get(usize::try_from(index + code - first).ok()?)
                    .copied();
            }
            index += count;
            first = (first + count) << 1;
            code <<= 1;
        }
        None
    }

    /// Reads a block and says whether it was the last one.
    fn block(&mut self) -> Option<bool> {
        let last = self.bits(1)? == 1;
        match self.bits(2)? {
            0 => {
                self.at = self.at.next_multiple_of(8);
                let (length, check) = (self.bits(16)?, self.bits(16)?);
                if length != !check & 0xffff {
                    return None;
                }
                for _ in 0..length {
                    let byte = self.bits(8)? as u8;
                    self.out.push(byte);
                }
            }
            1 => {
                let lengths: Vec<u8> = (0..288)
                    .map(|symbol| match symbol {
                        144..=255 => 9,
                        256..=279 => 7,
                        _ => 8,
                    })
                    .collect();
                self.coded(&Codes::new(&lengths), &Codes::new(&[5; 30]))?;
            }
            2 => {
                let (literals, distances) = self.tables()?;
                self.coded(&literals, &distances)?;
            }
            _ => return None,
        }
        Some(last)
    }

    fn tables(&mut self) -> Option<(Codes, Codes)> {
        const ORDER: [usize; 19] = [
            16, 17, 18, 0, 8, 7, 9, 6, 10, 5, 11, 4, 12, 3, 13, 2, 14, 1, 15,
        ];
        let literals = self.bits(5)? as usize + 257;
        let distances = self.bits(5)? as usize + 1;
        let given = self.bits(4)? as usize + 4;
        let mut lengths = [0; 19];
        for &place in &ORDER[..given] {
            lengths[place] = self.bits(3)? as u8;
        }
        let codes = Codes::new(&lengths);
        let mut lengths = Vec::new();
        while lengths.len() < literals + distances {
            let (length, times) = match self.symbol(&codes)? {
                16 => (*lengths.last()?, 3 + self.bits(2)?),
                17 => (0, 3 + self.bits(3)?),
                18 => (0, 11 + self.bits(7)?),
                symbol => (symbol as u8, 1),
            };
            lengths.extend((0..times).map(|_| length));
        }
        let (first, rest) = lengths.split_at_checked(literals)?;
        Some((Codes::new(first), Codes::new(rest.get(..distances)?)))
    }

    fn coded(&mut self, literals: &Codes, distances: &Codes) -> Option<()> {
        loop {
            if self.out.len() > MAX_OUT {
                return None;
            }
            let symbol = self.symbol(literals)?;
            if symbol < 256 {
                self.out.push(symbol as u8);
            } else if symbol == 256 {
                return Some(());
            } else {
                let length = match u32::from(symbol) - 257 {
                    short @ 0..8 => 3 + short,
                    28 => 258,
                    long => {
                        let extra = (long - 4) / 4;
                        3 + ((4 + long % 4) << extra) + self.bits(extra)?
                    }
                };
                let distance = match u32::from(self.symbol(distances)?) {
                    short @ 0..4 => 1 + short,
                    long => {
                        let extra = (long - 2) / 2;
                        1 + ((2 + long % 2) << extra) + self.bits(extra)?
                    }
                };
                let from = self.out.len().checked_sub(distance as usize)?;
                for i in from..from + length as usize {
                    self.out.push(self.out[i]);
                }
            }
        }
    }
}
