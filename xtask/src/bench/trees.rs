//! The same files again and again: everything follows from a seed.

use std::fs::{self, File, OpenOptions};
use std::io::{BufWriter, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

/// The directory that is renamed, with 2,000 files.
pub(super) const GROUP: &str = "group";
/// Syncthing's own directory in a folder.
pub(super) const MARK: &str = ".stfolder";
/// What counts as text in a source tree, and up to which size.
const TEXTS: [&str; 4] = ["rs", "md", "toml", "txt"];
const LONGEST_TEXT: u64 = 128 << 10;

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

/// Makes a new file beside the old one and puts it in its place, as an editor does.
pub(super) fn insert_byte(path: &Path, at: u64) -> Result<()> {
    let new = path.with_extension("new");
    let (mut from, mut out) = (File::open(path)?, File::create(&new)?);
    std::io::copy(&mut (&mut from).take(at), &mut out)?;
    out.write_all(b"!")?;
    std::io::copy(&mut from, &mut out)?;
    fs::rename(new, path).context("cannot insert a byte")
}

/// Random positions in a file of this size.
pub(super) fn places(size: u64, count: usize) -> Vec<u64> {
    let mut numbers = Numbers(0x91ace5);
    (0..count).map(|_| numbers.next() % size).collect()
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

/// Texts of a tree, by their paths in it.
pub(super) struct Texts {
    root: PathBuf,
    pub(super) paths: Vec<PathBuf>,
    pub(super) bytes: u64,
}

impl Texts {
    /// Draws `count` of them, or all if there are fewer. The same files give the same draw.
    pub(super) fn draw(root: &Path, count: usize) -> Result<Self> {
        let mut found = Vec::new();
        find_texts(root, Path::new(""), &mut found)?;
        found.sort();
        let mut numbers = Numbers(0x7e875);
        for i in 0..count.min(found.len()) {
            let other = i + (numbers.next() % (found.len() - i) as u64) as usize;
            found.swap(i, other);
        }
        found.truncate(count);
        Ok(Self {
            root: root.to_owned(),
            bytes: found.iter().map(|(_, size)| size).sum(),
            paths: found.into_iter().map(|(path, _)| path).collect(),
        })
    }

    /// Each with its path.
    pub(super) fn copy(&self, to: &Path) -> Result<()> {
        for path in &self.paths {
            let target = to.join(path);
            fs::create_dir_all(target.parent().unwrap_or(to))?;
            fs::copy(self.root.join(path), target).context("cannot copy a text")?;
        }
        Ok(())
    }
}

fn find_texts(root: &Path, below: &Path, found: &mut Vec<(PathBuf, u64)>) -> Result<()> {
    for entry in fs::read_dir(root.join(below))? {
        let entry = entry?;
        let path = below.join(entry.file_name());
        let kind = entry.file_type()?;
        let is_text = || {
            path.extension()
                .is_some_and(|have| TEXTS.iter().any(|text| have == *text))
        };
        if kind.is_dir() {
            find_texts(root, &path, found)?;
        } else if kind.is_file() && is_text() {
            let size = entry.metadata()?.len();
            if size <= LONGEST_TEXT {
                found.push((path, size));
            }
        }
    }
    Ok(())
}

/// The first path below two folders at which there is not the same, if there is one.
pub(super) fn difference(a: &Path, b: &Path) -> Result<Option<PathBuf>> {
    difference_below(a, b, Path::new(""))
}

fn difference_below(a: &Path, b: &Path, below: &Path) -> Result<Option<PathBuf>> {
    for name in names(&a.join(below))? {
        let path = below.join(name);
        let here = a.join(&path);
        if differs(&here, &b.join(&path)) {
            return Ok(Some(path));
        }
        if here.is_dir() {
            let found = difference_below(a, b, &path)?;
            if found.is_some() {
                return Ok(found);
            }
        }
    }
    // What is only in `b`.
    let strange = names(&b.join(below))?
        .into_iter()
        .map(|name| below.join(name))
        .find(|path| differs(&a.join(path), &b.join(path)));
    Ok(strange)
}

fn names(dir: &Path) -> Result<Vec<PathBuf>> {
    let mut names = Vec::new();
    for entry in fs::read_dir(dir)? {
        let name = PathBuf::from(entry?.file_name());
        if name != Path::new(MARK) {
            names.push(name);
        }
    }
    Ok(names)
}

/// Whether two paths are something else by kind, size and time of change; directories are not asked for the last two.
pub(super) fn differs(a: &Path, b: &Path) -> bool {
    match (fs::symlink_metadata(a), fs::symlink_metadata(b)) {
        (Ok(a), Ok(b)) if a.is_dir() => !b.is_dir(),
        (Ok(a), Ok(b)) => {
            !b.is_file() || a.len() != b.len() || a.modified().ok() != b.modified().ok()
        }
        (Err(_), Err(_)) => false,
        _ => true,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_byte_is_put_where_it_belongs() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("file");
        fs::write(&path, "abc").unwrap();
        insert_byte(&path, 1).unwrap();
        assert_eq!(fs::read_to_string(&path).unwrap(), "a!bc");
    }

    #[test]
    fn the_same_files_give_the_same_draw() {
        let dir = tempfile::tempdir().unwrap();
        let from = dir.path().join("from/crate");
        fs::create_dir_all(&from).unwrap();
        for i in 0..30 {
            fs::write(from.join(format!("{i}.rs")), "x".repeat(i)).unwrap();
            fs::write(from.join(format!("{i}.bin")), "no text").unwrap();
        }
        let draw = || Texts::draw(&dir.path().join("from"), 10).unwrap();
        let texts = draw();
        assert_eq!(texts.paths.len(), 10);
        assert_eq!(draw().paths, texts.paths);
        let to = dir.path().join("to");
        texts.copy(&to).unwrap();
        let sizes = texts.paths.iter().map(|path| {
            assert_eq!(path.extension().unwrap(), "rs");
            fs::metadata(to.join(path)).unwrap().len()
        });
        assert_eq!(sizes.sum::<u64>(), texts.bytes);
    }

    #[test]
    fn folders_differ_until_each_has_what_the_other_has() {
        let dir = tempfile::tempdir().unwrap();
        let [a, b] = ["a", "b"].map(|name| dir.path().join(name));
        for path in [a.join("sub"), b.join("sub"), b.join(MARK)] {
            fs::create_dir_all(path).unwrap();
        }
        assert_eq!(difference(&a, &b).unwrap(), None);
        fs::write(a.join("sub/file"), "1").unwrap();
        assert_eq!(difference(&a, &b).unwrap(), Some("sub/file".into()));
        // As long, but not of the same time.
        fs::write(b.join("sub/file"), "2").unwrap();
        let time = fs::metadata(a.join("sub/file"))
            .unwrap()
            .modified()
            .unwrap();
        let file = File::options()
            .write(true)
            .open(b.join("sub/file"))
            .unwrap();
        file.set_modified(time - std::time::Duration::from_secs(1))
            .unwrap();
        assert_eq!(difference(&a, &b).unwrap(), Some("sub/file".into()));
        file.set_modified(time).unwrap();
        assert_eq!(difference(&a, &b).unwrap(), None);
        fs::write(b.join("sub/strange"), "").unwrap();
        assert_eq!(difference(&a, &b).unwrap(), Some("sub/strange".into()));
    }
}
