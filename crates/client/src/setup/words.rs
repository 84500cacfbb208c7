//! Six words that stand for a position of the log, to be compared by eye or over the telephone.
//!
//! The words are proquints: five letters for 16 bits, consonant and vowel in turn, so that each can be
//! spoken ("A Proposal for Proquints: Identifiers that are Readable, Spellable, and Pronounceable",
//! Wilkerson, 2009).

use syncagent_protocol::api::Head;
use syncagent_protocol::{VaultId, sha256};

const CONSONANTS: &[u8; 16] = b"bdfghjklmnprstvz";
const VOWELS: &[u8; 4] = b"aiou";

/// Words in a fingerprint: 96 bits.
pub const WORDS: usize = 6;

/// The words of a vault at a position: the first 96 bits of a hash of vault, position and commit.
pub fn fingerprint(vault: VaultId, head: Head) -> [String; WORDS] {
    let hash = sha256(&[
        b"SyncAgent/v1/fingerprint\0",
        &vault.0,
        &head.n.to_be_bytes(),
        &head.hash.0,
    ]);
    std::array::from_fn(|i| proquint(u16::from_be_bytes([hash[2 * i], hash[2 * i + 1]])))
}

fn proquint(bits: u16) -> String {
    let consonant = |shift: u16| char::from(CONSONANTS[usize::from(bits >> shift & 15)]);
    let vowel = |shift: u16| char::from(VOWELS[usize::from(bits >> shift & 3)]);
    [
        consonant(12),
        vowel(10),
        consonant(6),
        vowel(4),
        consonant(0),
    ]
    .iter()
    .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use syncagent_protocol::CommitHash;

    #[test]
    fn words_of_the_proposal() {
        // 127.0.0.1 and 63.84.220.193, the first examples of the paper.
        for (bits, word) in [
            (0x7f00, "lusab"),
            (0x0001, "babad"),
            (0x3f54, "gutih"),
            (0xdcc1, "tugad"),
        ] {
            assert_eq!(proquint(bits), word);
        }
    }

    #[test]
    fn vault_position_and_hash_all_count() {
        let vault = VaultId([1; 16]);
        let head = Head {
            n: 7,
            hash: CommitHash([2; 32]),
        };
        let words = fingerprint(vault, head);
        assert_eq!(words, fingerprint(vault, head));
        assert_ne!(words, fingerprint(VaultId([3; 16]), head));
        assert_ne!(words, fingerprint(vault, Head { n: 8, ..head }));
        assert_ne!(
            words,
            fingerprint(
                vault,
                Head {
                    hash: CommitHash([4; 32]),
                    ..head
                }
            )
        );
    }
}
