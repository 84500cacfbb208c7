//! One reading of a file: cut, hashed and sealed on the way.

use std::io::{self, Read};

use syncagent_protocol::ContentHash;
use syncagent_vault::VaultError;
use syncagent_vault::chunk::{Codec, Entry, Scope, Sealed, seal_data, seal_list};
use syncagent_vault::chunker::{Chunker, Class};
use syncagent_vault::keys::Keys;
use syncagent_vault::manifest::Manifest;
use syncagent_vault::op::Content;

use crate::work::Work;

/// How a file's content is to be sealed.
#[derive(Clone, Copy)]
pub struct Recipe {
    /// Class of chunk sizes.
    pub class: Class,
    /// Scope of the chunks.
    pub scope: Scope,
    /// Whether the vault allows compression.
    pub codec: Codec,
    /// Whether short content may stand in the op itself.
    pub inline: bool,
}

/// A file's content, sealed.
pub struct SealedContent {
    /// For the op.
    pub content: Content,
    /// Length in bytes.
    pub size: u64,
    /// BLAKE3.
    pub hash: ContentHash,
    /// The data chunks, if the op holds lists of them.
    pub leaves: Option<Vec<Entry>>,
}

/// Why a file could not be sealed.
#[derive(Debug, thiserror::Error)]
pub enum SealError<E> {
    /// Reading failed, or the file changed.
    #[error(transparent)]
    Read(E),
    /// Sealing failed.
    #[error(transparent)]
    Vault(#[from] VaultError),
}

/// A file on its way into chunks. Memory: one window of twice the longest chunk.
pub struct Sealing<R> {
    source: R,
    recipe: Recipe,
    window: Vec<u8>,
    ended: bool,
    hasher: blake3::Hasher,
    size: u64,
    entries: Vec<Entry>,
}

impl<R: Read> Sealing<R> {
    /// Starts on a file.
    pub fn new(source: R, recipe: Recipe) -> Self {
        Self {
            source,
            recipe,
            window: Vec::new(),
            ended: false,
            hasher: blake3::Hasher::new(),
            size: 0,
            entries: Vec::new(),
        }
    }

    fn fill(&mut self, target: usize) -> io::Result<()> {
        let mut len = self.window.len();
        while !self.ended && len < target {
            // Grows in steps, so that a short file does not cost a window for long ones.
            let step = (target - len).min(len.max(64 * 1024));
            self.window.resize(len + step, 0);
            match self.source.read(&mut self.window[len..]) {
                Ok(0) => self.ended = true,
                Ok(n) => len += n,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => {
                    self.window.truncate(len);
                    return Err(error);
                }
            }
        }
        self.window.truncate(len);
        Ok(())
    }

    /// Reads on and returns the next sealed data chunks, in order; empty at the end.
    pub fn next_chunks(
        &mut self,
        keys: &Keys,
        work: Work,
    ) -> Result<Vec<Sealed>, SealError<io::Error>> {
        let sizes = self.recipe.class.sizes();
        self.fill(2 * sizes.max).map_err(SealError::Read)?;
        if self.window.is_empty() {
            return Ok(Vec::new());
        }
        let mut chunker = Chunker::new(keys, self.recipe.class)?;
        let mut pieces = Vec::new();
        let mut at = 0;
        while at < self.window.len() && (self.ended || self.window.len() - at >= sizes.max) {
            let len = chunker.cut(&self.window[at..])?;
            pieces.push(at..at + len);
            at += len;
        }
        let (window, hasher, recipe) = (&self.window, &mut self.hasher, self.recipe);
        let (_, sealed) = work.join(
            || hasher.update(&window[..at]).count(),
            || {
                work.map(pieces, |piece| {
                    seal_data(keys, recipe.scope, &window[piece], recipe.codec)
                })
            },
        );
        let sealed = sealed.into_iter().collect::<Result<Vec<_>, _>>()?;
        self.size += at as u64;
        self.window.drain(..at);
        self.entries
            .extend(sealed.iter().map(|chunk| chunk.entry.duplicate()));
        Ok(sealed)
    }

    /// The whole content, if it is short enough to stand in an op. Call before anything else.
    pub fn inline(&mut self) -> Result<Option<Vec<u8>>, SealError<io::Error>> {
        let limit = syncagent_vault::op::MAX_INLINE_LEN;
        if !self.recipe.inline {
            return Ok(None);
        }
        self.fill(limit + 1).map_err(SealError::Read)?;
        Ok((self.window.len() <= limit && self.ended).then(|| self.window.clone()))
    }

    /// The manifest of everything that was read, and the list chunks it needs.
    pub fn finish(
        self,
        keys: &Keys,
    ) -> Result<(R, SealedContent, Vec<Sealed>), SealError<io::Error>> {
        let hash = ContentHash(*self.hasher.finalize().as_bytes());
        let mut lists = Vec::new();
        let leaves = (self.entries.len() > syncagent_vault::manifest::MAX_INLINE_ENTRIES)
            .then(|| self.entries.iter().map(Entry::duplicate).collect());
        let manifest = Manifest::build::<VaultError>(self.entries, |group| {
            let sealed = seal_list(keys, self.recipe.scope, group)?;
            let entry = sealed.entry.duplicate();
            lists.push(sealed);
            Ok(entry)
        })?;
        let content = SealedContent {
            content: Content::Chunks(manifest),
            size: self.size,
            hash,
            leaves,
        };
        Ok((self.source, content, lists))
    }

    /// The source, and the content as it stands in an op.
    pub fn finish_inline(self, content: Vec<u8>) -> (R, SealedContent) {
        let hash = ContentHash(*blake3::hash(&content).as_bytes());
        let size = content.len() as u64;
        (
            self.source,
            SealedContent {
                content: Content::Inline(content),
                size,
                hash,
                leaves: None,
            },
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use syncagent_vault::chunk::open_data;
    use syncagent_vault::keys::VaultKey;
    use syncagent_vault::random::OsRandom;

    #[test]
    fn a_file_read_in_odd_pieces_comes_back_whole() {
        struct Dribble<'a>(&'a [u8]);
        impl Read for Dribble<'_> {
            fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
                let n = buf.len().min(self.0.len()).min(70_001);
                buf[..n].copy_from_slice(&self.0[..n]);
                self.0 = &self.0[n..];
                Ok(n)
            }
        }
        let keys = VaultKey::generate(&OsRandom::default()).keys().unwrap();
        let content: Vec<u8> = (0..3_000_000u32)
            .map(|i| blake3::hash(&(i / 8).to_le_bytes()).as_bytes()[0])
            .collect();
        let recipe = Recipe {
            class: Class::of(0, None),
            scope: Scope([1; 16]),
            codec: Codec::Zstd,
            inline: true,
        };
        for work in [Work::Inline, Work::Pool] {
            let mut sealing = Sealing::new(Dribble(&content), recipe);
            assert!(sealing.inline().unwrap().is_none());
            let mut back = Vec::new();
            loop {
                let chunks = sealing.next_chunks(&keys, work).unwrap();
                if chunks.is_empty() {
                    break;
                }
                for chunk in chunks {
                    back.extend(open_data(&keys, recipe.scope, &chunk.entry, &chunk.blob).unwrap());
                }
            }
            let (_, sealed, lists) = sealing.finish(&keys).unwrap();
            assert!(back == content && lists.is_empty());
            assert_eq!(
                (sealed.size, sealed.hash.0),
                (3_000_000, *blake3::hash(&content).as_bytes())
            );
        }
    }

    #[test]
    fn short_content_stands_in_the_op() {
        let recipe = Recipe {
            class: Class::of(0, None),
            scope: Scope([1; 16]),
            codec: Codec::Zstd,
            inline: true,
        };
        for len in [0, 1, 2048] {
            let content = vec![7; len];
            assert_eq!(
                Sealing::new(&content[..], recipe).inline().unwrap(),
                Some(content)
            );
        }
        assert!(
            Sealing::new(&[7; 2049][..], recipe)
                .inline()
                .unwrap()
                .is_none()
        );
    }
}
