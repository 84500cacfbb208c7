"""Ed25519, strictly: RFC 8032 without its freedoms (docs/format.md, Keys)."""

import hashlib

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from primitives import require

P = 2**255 - 19
L = 2**252 + 27742317777372353535851937790883648493
IDENTITY = bytes([1]) + bytes(31)
BASE_POINT = bytes([0x58]) + bytes([0x66]) * 31
_ORDER_8 = (
    "26e8958fc2b227b045c3f489f2ef98f0d5dfac05d3c63339b13802886d53fc05",
    "c7176a703d4dd84fba3c0b760d10670f2a2053fa2c39ccc64ec7fd7792ac037a",
)
_SMALL_ORDER_Y = {0, 1, P - 1} | {int.from_bytes(bytes.fromhex(y), "little") for y in _ORDER_8}


def public_key(seed: bytes) -> bytes:
    return Ed25519PrivateKey.from_private_bytes(seed).public_key().public_bytes_raw()


def sign(seed: bytes, message: bytes) -> bytes:
    return Ed25519PrivateKey.from_private_bytes(seed).sign(message)


def _y(point: bytes) -> int:
    return int.from_bytes(point, "little") & (1 << 255) - 1


def verify_strict(key: bytes, message: bytes, signature: bytes) -> None:
    point, scalar = signature[:32], int.from_bytes(signature[32:], "little")
    require(_y(key) < P, "noncanonical_public_key")
    require(_y(key) not in _SMALL_ORDER_Y, "small_order_public_key")
    require(_y(point) < P and _y(point) not in _SMALL_ORDER_Y, "small_order_signature_point")
    require(scalar < L, "signature_scalar_not_reduced")
    try:
        Ed25519PublicKey.from_public_bytes(key).verify(signature, message)
    except InvalidSignature:
        require(False, "bad_signature")


def forge_with_identity_point(seed: bytes, message: bytes) -> bytes:
    """A signature with R of order one, which only a strict verifier refuses. For the vectors of what must fail."""
    digest = bytearray(hashlib.sha512(seed).digest()[:32])
    digest[0] &= 248
    digest[31] = digest[31] & 127 | 64
    h = int.from_bytes(hashlib.sha512(IDENTITY + public_key(seed) + message).digest(), "little")
    return IDENTITY + (h * int.from_bytes(digest, "little") % L).to_bytes(32, "little")
