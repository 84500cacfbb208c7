"""Sealed progress events (docs/format.md, Events)."""

import json

from keys import VaultKeys
from primitives import Reader, Refused, gcm_open, gcm_seal, hmac, require, u64

MOST_PLAIN = 4096


def event_key(keys: VaultKeys, machine_id: bytes, salt: bytes) -> bytes:
    return hmac(keys.event, b"\x03" + machine_id + salt)


def plain(counter: int, text: bytes) -> bytes:
    """The counter and the JSON text, filled up with spaces, which JSON does not mind."""
    both = u64(counter) + text
    return both + b" " * (-len(both) % 256)


def seal(keys: VaultKeys, machine_id: bytes, salt: bytes, padded: bytes) -> bytes:
    return salt + gcm_seal(event_key(keys, machine_id, salt), bytes(12), padded, keys.vid + machine_id)


def _no_constant(name: str) -> object:
    """JSON (RFC 8259) has no NaN and no infinities; Python's reader does."""
    raise ValueError(name)


def open_event(keys: VaultKeys, machine_id: bytes, raw: bytes) -> tuple[int, object]:
    """(counter, what the JSON says)."""
    r = Reader(raw)
    salt, sealed = r.take(32), r.take(r.left)
    padded = gcm_open(event_key(keys, machine_id, salt), bytes(12), sealed, keys.vid + machine_id, "does_not_open")
    require(256 <= len(padded) <= MOST_PLAIN and len(padded) % 256 == 0, "padding_wrong_length")
    try:
        return int.from_bytes(padded[:8], "big"), json.loads(padded[8:].decode(), parse_constant=_no_constant)
    except ValueError:
        raise Refused("not_json") from None
