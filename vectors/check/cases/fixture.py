"""The one small vault all vectors are about, and the helpers that write cases down."""

import hashlib
from collections.abc import Callable, Iterator

import ed25519
from keys import machine_id, vault_keys
from primitives import Refused, u64

VAULT_KEY = bytes(range(0x00, 0x20))
VID = bytes(range(0xA0, 0xB0))
KEYS = vault_keys(VAULT_KEY, VID)
SALT, SLOT_ID, NONCE = bytes(range(0x10, 0x20)), bytes(range(0x20, 0x30)), bytes(range(0x30, 0x3C))
CREATED = 1_700_000_000
PASSWORD = "correct horse battery staple"
SEED_A, SEED_B = bytes(range(0x40, 0x60)), bytes(range(0x60, 0x80))
MACHINE_A, MACHINE_B = machine_id(ed25519.public_key(SEED_A)), machine_id(ed25519.public_key(SEED_B))
NODE = bytes(range(0xC0, 0xD0))
OTHER_NODE = bytes(range(0xD0, 0xE0))
VAULT = {"vault_key": VAULT_KEY.hex(), "vid": VID.hex(), "epoch": 1}

Json = dict[str, object]


def vectors(description: str, cases: list[Json], must_fail: list[Json] | None = None) -> Json:
    """The shape of every file."""
    out: Json = {"description": description, "format": 1, "cases": cases}
    if must_fail is not None:
        out["must_fail"] = must_fail
    return out


def refused(
    name: str, rule: str, parsed_as: str, data: bytes, attempt: Callable[[], object], **context: object
) -> Json:
    """A must-fail case, after making sure that it fails for the reason it stands there."""
    try:
        attempt()
    except Refused as e:
        assert e.rule == rule, f"{name}: refused for {e.rule}, not for {rule}"
    else:
        raise AssertionError(f"{name}: not refused")
    return {"name": name, "rule": rule, "parsed_as": parsed_as, **context, "bytes": data.hex()}


def same(what: str, got: object, expected: object) -> None:
    """A value the document states, or a way back that has to lead to where it began."""
    assert got == expected, f"{what}: {got!r} is not {expected!r}"


def flip(data: bytes, at: int) -> bytes:
    """One bit changed; negative positions count from the end."""
    out = bytearray(data)
    out[at] ^= 1
    return bytes(out)


def each_byte_changed(
    data: bytes, rules: dict[range, str], but: dict[int, set[int]] | None = None
) -> Iterator[tuple[str, str, bytes]]:
    """(name, rule, bytes) for every byte in `rules`, once with its lowest and once with its highest bit changed.

    `but` names values that a byte may have and that mean something else.
    """
    for positions, rule in rules.items():
        for at in positions:
            for label, bit in (("lowest", 0x01), ("highest", 0x80)):
                value = data[at] ^ bit
                if value not in (but or {}).get(at, set()):
                    yield f"header_byte_{at}_{label}_bit", rule, put(data, at, bytes([value]))


def put(data: bytes, at: int, value: bytes) -> bytes:
    """`value` written over `data` at `at`."""
    return data[:at] + value + data[at + len(value) :]


def counter_bytes(seed: bytes, length: int) -> bytes:
    """Block i is SHA-256(seed ‖ u64 i); the last one is cut."""
    blocks = (hashlib.sha256(seed + u64(i)).digest() for i in range(-(-length // 32)))
    return b"".join(blocks)[:length]


def sha256_counter(seed: bytes, length: int) -> Json:
    return {"generator": "sha256_counter", "seed": seed.hex(), "length": length}


def repeat(byte: int, length: int) -> Json:
    return {"generator": "repeat", "byte": byte, "length": length}


def literal(data: bytes) -> Json:
    return {"hex": data.hex()}


def content(pieces: list[Json]) -> bytes:
    """The bytes a list of pieces stands for."""
    out = b""
    for piece in pieces:
        match piece:
            case {"hex": text}:
                out += bytes.fromhex(text)
            case {"generator": "sha256_counter", "seed": seed, "length": length}:
                out += counter_bytes(bytes.fromhex(seed), length)
            case {"generator": "repeat", "byte": byte, "length": length}:
                out += bytes([byte]) * length
    return out
