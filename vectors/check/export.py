"""The key export `SAEX` (docs/format.md, Export)."""

import base64
import binascii
from dataclasses import dataclass

import op
import slot
from keys import genesis_hash
from primitives import Reader, Refused, hkdf, hmac, require, u16, u64


@dataclass(frozen=True)
class Export:
    vault_key: bytes
    slot: slot.Slot
    n: int
    hash_n: bytes
    genesis_tlv: bytes
    url: str


def write(saks: bytes, u: bytes, n: int, hash_n: bytes, genesis_tlv: bytes, url: str) -> bytes:
    body = b"SAEX" + bytes([1, 0, 0, 0]) + saks + u64(n) + hash_n
    for part in (genesis_tlv, url.encode()):
        body += u16(len(part)) + part
    return body + hmac(_mac_key(u, saks), body)


def _mac_key(u: bytes, saks: bytes) -> bytes:
    return hkdf(u, saks[20:36], b"SyncAgent/v1/export", 32)


def to_text(raw: bytes) -> str:
    return base64.urlsafe_b64encode(raw).decode().rstrip("=")


def from_text(text: str) -> bytes:
    text = text.strip(" \t\r\n")
    require("=" not in text, "padded")
    require(all(c.isascii() and (c.isalnum() or c in "-_") for c in text), "not_base64url")
    try:
        raw = base64.b64decode(text + "=" * (-len(text) % 4), altchars=b"-_", validate=True)
    except binascii.Error:
        raise Refused("not_base64url") from None
    require(to_text(raw) == text, "nonzero_trailing_bits")
    return raw


def read(raw: bytes, password: str) -> Export:
    r = Reader(raw)
    require(r.take(4) == b"SAEX", "bad_magic")
    require(r.uint(1) == 1, "unknown_version")
    require(r.take(3) == bytes(3), "nonzero_reserved")
    saks = r.take(slot.SIZE)
    n, hash_n = r.uint(8), r.take(32)
    genesis_tlv = r.take(r.uint(2))
    url_bytes = r.take(r.uint(2))
    mac = r.take(32)
    r.end()
    parsed = slot.parse(saks, slot.PASSWORD)
    vault_key, u = slot.open_slot(saks, slot.PASSWORD, password)
    require(hmac(_mac_key(u, saks), raw[:-32]) == mac, "wrong_mac")
    require(n != 0 or hash_n == genesis_hash(parsed.vid), "position_zero_without_hash_0")
    op.parse_genesis(genesis_tlv)
    try:
        url = url_bytes.decode()
    except UnicodeDecodeError:
        raise Refused("url_not_utf8") from None
    return Export(vault_key, parsed, n, hash_n, genesis_tlv, url)
