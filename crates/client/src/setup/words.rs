//! Six words that stand for a position of the log, to be compared by eye or over the telephone.
//!
//! The list is the English one of BIP-39: 2048 words that differ in their first four letters.

use syncagent_protocol::api::Head;
use syncagent_protocol::{VaultId, sha256};

const LIST: &str = include_str!("words.txt");
const BITS: usize = 11;

/// Words in a fingerprint: 66 bits.
pub const WORDS: usize = 6;

/// The words of a vault at a position: the first 66 bits of a hash of vault, position and commit.
pub fn fingerprint(vault: VaultId, head: Head) -> [&'static str; WORDS] {
    let hash = sha256(&[b"SyncAgent/v1/fingerprint\0", &vault.0, &head.n.to_be_bytes(), &head.hash.0]);
    std::array::from_fn(|i| {
        let number = (i * BITS..(i + 1) * BITS).fold(0, |number, bit| {
            number << 1 | usize::from(hash[bit / 8] >> (7 - bit % 8) & 1)
        });
        LIST.lines().nth(number).unwrap_or_default()
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;
    use syncagent_protocol::CommitHash;

    #[test]
    fn the_list_has_a_word_for_every_eleven_bits() {
        let words: Vec<_> = LIST.lines().collect();
        assert_eq!(words.len(), 1 << BITS);
        assert!(words.is_sorted() && words.iter().all(|word| word.bytes().all(|b| b.is_ascii_lowercase())));
        assert_eq!(words.iter().map(|word| &word[..word.len().min(4)]).collect::<BTreeSet<_>>().len(), words.len());
        assert_eq!((words[0], words[2047]), ("abandon", "zoo"));
    }

    #[test]
    fn vault_position_and_hash_all_count() {
        let vault = VaultId([1; 16]);
        let head = Head { n: 7, hash: CommitHash([2; 32]) };
        let words = fingerprint(vault, head);
        assert_eq!(words, fingerprint(vault, head));
        assert!(words.iter().all(|word| !word.is_empty()));
        assert_ne!(words, fingerprint(VaultId([3; 16]), head));
        assert_ne!(words, fingerprint(vault, Head { n: 8, ..head }));
        assert_ne!(words, fingerprint(vault, Head { hash: CommitHash([4; 32]), ..head }));
    }
}
