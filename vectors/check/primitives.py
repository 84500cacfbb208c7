"""The standard building blocks, under the short names docs/format.md uses, and the one error of every parser."""

import hashlib
import hmac as _hmac

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.kdf.hkdf import HKDF


class Refused(Exception):
    """A rule of the format is broken. `rule` is the name the vectors use for it."""

    def __init__(self, rule: str) -> None:
        super().__init__(rule)
        self.rule = rule


def require(condition: bool, rule: str) -> None:
    """Refuses with `rule` unless `condition` holds."""
    if not condition:
        raise Refused(rule)


def u16(value: int) -> bytes:
    return value.to_bytes(2, "big")


def u32(value: int) -> bytes:
    return value.to_bytes(4, "big")


def u64(value: int) -> bytes:
    return value.to_bytes(8, "big")


def i64(value: int) -> bytes:
    return value.to_bytes(8, "big", signed=True)


def sha256(data: bytes) -> bytes:
    """`H` of the document."""
    return hashlib.sha256(data).digest()


def hmac(key: bytes, message: bytes) -> bytes:
    """`HM` of the document."""
    return _hmac.new(key, message, hashlib.sha256).digest()


def hkdf(ikm: bytes, salt: bytes, info: bytes, length: int) -> bytes:
    """HKDF-SHA-256 (RFC 5869), extract and expand."""
    return HKDF(algorithm=hashes.SHA256(), length=length, salt=salt, info=info).derive(ikm)


def gcm_seal(key: bytes, nonce: bytes, plain: bytes, aad: bytes) -> bytes:
    """AES-256-GCM; the tag of 16 bytes stands at the end."""
    return AESGCM(key).encrypt(nonce, plain, aad)


def gcm_open(key: bytes, nonce: bytes, sealed: bytes, aad: bytes, rule: str) -> bytes:
    """Opens what `gcm_seal` made, or refuses with `rule`."""
    require(len(sealed) >= 16, rule)
    try:
        return AESGCM(key).decrypt(nonce, sealed, aad)
    except InvalidTag:
        raise Refused(rule) from None


class Reader:
    """Takes fixed-size fields from the front of some bytes and refuses to run over their end."""

    def __init__(self, data: bytes, truncated: str = "truncated") -> None:
        self._data = data
        self._at = 0
        self._truncated = truncated

    def take(self, length: int) -> bytes:
        require(len(self._data) - self._at >= length, self._truncated)
        self._at += length
        return self._data[self._at - length : self._at]

    def uint(self, length: int) -> int:
        return int.from_bytes(self.take(length), "big")

    @property
    def left(self) -> int:
        return len(self._data) - self._at

    def end(self, rule: str = "trailing_byte") -> None:
        require(self.left == 0, rule)


class Little(Reader):
    """The same for formats that put the low byte first."""

    def uint(self, length: int) -> int:
        return int.from_bytes(self.take(length), "little")
