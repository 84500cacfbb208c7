//! The same files again and again: everything follows from a seed.

use std::fs::{self, File, OpenOptions};
use std::io::{BufWriter, Read, Seek, SeekFrom, Write};
use std::path::Path;

use anyhow::{Context, Result};

/// The directory that is renamed, with 2,000 files.
pub(super) const GROUP: &str = "group";

/// Marsaglia's xorshift: plenty for contents that nothing can compress.
struct Numbers(u64);

impl Numbers {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    fn unit(&mut self) -> f64 {
        ((self.next() >> 11) as f64 + 0.5) / (1_u64 << 53) as f64
    }

    fn fill(&mut self, out: &mut impl Write, count: u64) -> Result<()> {
        let mut left = count;
        while left > 0 {
            let bytes = self.next().to_le_bytes();
            let part = left.min(8);
            out.write_all(&bytes[..part as usize])?;
            left -= part;
        }
        Ok(())
    }

    /// A size of which half are below 3.6 KiB, from 0.2 to 64 KiB.
    fn log_normal(&mut self) -> u64 {
        let normal = (-2.0 * self.unit().ln()).sqrt() * (std::f64::consts::TAU * self.unit()).cos();
        let size = (3_600_f64.ln() + 1.2 * normal).exp();
        size.clamp(205.0, 65_536.0) as u64
    }
}

pub(super) fn big_file(path: &Path, size: u64) -> Result<()> {
    let mut out = BufWriter::with_capacity(
        1 << 20,
        File::create(path).context("cannot make the big file")?,
    );
    Numbers(0x5eed).fill(&mut out, size)?;
    out.flush().context("cannot write the big file")
}

pub(super) fn change_byte(path: &Path, at: u64) -> Result<()> {
    let mut file = OpenOptions::new().read(true).write(true).open(path)?;
    let mut byte = [0];
    file.seek(SeekFrom::Start(at))?;
    file.read_exact(&mut byte)?;
    file.seek(SeekFrom::Start(at))?;
    file.write_all(&[byte[0] ^ 1])
        .context("cannot change a byte")
}

pub(super) fn insert_in_front(path: &Path) -> Result<()> {
    let new = path.with_extension("new");
    let mut out = File::create(&new)?;
    out.write_all(b"!")?;
    std::io::copy(&mut File::open(path)?, &mut out)?;
    fs::rename(new, path).context("cannot insert a byte")
}

pub(super) fn append(path: &Path, count: u64) -> Result<()> {
    let mut out = BufWriter::new(OpenOptions::new().append(true).open(path)?);
    Numbers(0xa99e4d).fill(&mut out, count)?;
    out.flush().context("cannot append")
}

/// `count` files, 2,000 of them in [`GROUP`] and the others 100 to a directory.
pub(super) fn small_files(dir: &Path, count: usize) -> Result<()> {
    let mut numbers = Numbers(0xf11e5);
    for i in 0..count {
        let below = match i {
            0..2_000 => dir.join(GROUP),
            _ => dir.join(format!("d{:03}", i / 100)),
        };
        if i == 0 || i % 100 == 0 {
            fs::create_dir_all(&below)?;
        }
        let size = numbers.log_normal();
        let mut out = BufWriter::new(File::create(below.join(format!("file-{i:05}.dat")))?);
        numbers.fill(&mut out, size)?;
        out.flush().context("cannot write a small file")?;
    }
    Ok(())
}
