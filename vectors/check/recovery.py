"""The recovery code: twenty random bytes as a person writes them down (docs/format.md, Recovery code)."""

from primitives import require, sha256

ALPHABET = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"
_READ_AS = {"O": "0", "I": "1", "L": "1"}


def _encode(value: int, characters: int) -> str:
    return "".join(ALPHABET[value >> 5 * i & 31] for i in reversed(range(characters)))


def check_characters(secret: bytes) -> str:
    return _encode(int.from_bytes(sha256(secret)[:3], "big") >> 4, 4)


def write(secret: bytes) -> str:
    text = _encode(int.from_bytes(secret, "big"), 32) + check_characters(secret)
    return "-".join(text[i : i + 4] for i in range(0, 36, 4))


def read(text: str) -> bytes:
    """Forgives case, dashes, white space and the letters that look like digits; nothing else."""
    # Not `text.upper()`: it makes S of U+017F and I of U+0131.
    upper = "".join(c.upper() if c.isascii() else c for c in text)
    characters = [_READ_AS.get(c, c) for c in upper if c != "-" and c not in " \t\r\n"]
    require(all(c in ALPHABET for c in characters), "character_outside_the_alphabet")
    require(len(characters) == 36, "wrong_length")
    value = 0
    for c in characters[:32]:
        value = value << 5 | ALPHABET.index(c)
    secret = value.to_bytes(20, "big")
    require("".join(characters[32:]) == check_characters(secret), "wrong_check_characters")
    return secret
