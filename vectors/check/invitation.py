"""The text of an invitation (docs/format.md, Invitation)."""

import base64
import binascii

from primitives import require

PREFIX = "sa1-"


def write(secret: bytes, certificate_hash: bytes = b"") -> str:
    text = base64.b32encode(bytes([1]) + secret + certificate_hash).decode().rstrip("=").lower()
    return PREFIX + text


def read(text: str) -> tuple[bytes, bytes]:
    """Returns (secret, certificate hash or nothing)."""
    # Not `text.lower()`: it makes k of U+212A.
    text = "".join(c.lower() if c.isascii() else c for c in text.strip(" \t\r\n"))
    require(text.startswith(PREFIX), "bad_prefix")
    body = text[len(PREFIX) :]
    require("=" not in body, "padded")
    require(body.isascii(), "not_base32")
    try:
        raw = base64.b32decode(body.upper() + "=" * (-len(body) % 8))
    except binascii.Error:
        require(False, "not_base32")
    require(len(raw) in (17, 49), "wrong_length")
    require(raw[0] == 1, "unknown_version")
    require(write(raw[1:17], raw[17:]) == text, "nonzero_trailing_bits")
    return raw[1:17], raw[17:]
