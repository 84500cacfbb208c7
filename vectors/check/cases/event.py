"""event.json: sealed progress events."""

import event
from cases.fixture import KEYS, MACHINE_A, MACHINE_B, VAULT, Json, flip, refused, same, vectors
from primitives import sha256

TEXT = b'{"type":"progress","path":"photos/a.jpg","done":65536,"total":1048576}'
SALT = sha256(b"event")


def _case(name: str, counter: int, text: bytes) -> Json:
    raw = event.seal(KEYS, MACHINE_A, SALT, event.plain(counter, text))
    same(name, event.open_event(KEYS, MACHINE_A, raw)[0], counter)
    return {
        "name": name,
        **VAULT,
        "machine_id": MACHINE_A.hex(),
        "salt": SALT.hex(),
        "counter": counter,
        "json_utf8": text.hex(),
        "event_message_key": event.event_key(KEYS, MACHINE_A, SALT).hex(),
        "event": raw.hex(),
    }


def build() -> Json:
    good = event.seal(KEYS, MACHINE_A, SALT, event.plain(1, TEXT))

    def wrong(name: str, rule: str, raw: bytes, machine: bytes = MACHINE_A) -> Json:
        return refused(
            name, rule, "event", raw, lambda: event.open_event(KEYS, machine, raw), **VAULT, machine_id=machine.hex()
        )

    def sealed(padded: bytes) -> bytes:
        return event.seal(KEYS, MACHINE_A, SALT, padded)

    return vectors(
        "Sealed events of a machine.",
        [
            _case("progress", 1, TEXT),
            _case("fills_256_exactly", 2, b'"' + b"a" * 246 + b'"'),
            _case("one_more", 3, b'"' + b"a" * 247 + b'"'),
        ],
        [
            wrong("bit_flipped_in_salt", "does_not_open", flip(good, 0)),
            wrong("bit_flipped_in_ciphertext", "does_not_open", flip(good, 32)),
            wrong("of_another_machine", "does_not_open", good, MACHINE_B),
            wrong("truncated", "does_not_open", good[:-1]),
            wrong("empty", "truncated", b""),
            wrong("salt_alone", "does_not_open", good[:32]),
            wrong("shorter_than_a_tag", "does_not_open", good[:47]),
            wrong("tag_of_nothing", "padding_wrong_length", sealed(b"")),
            wrong("trailing_byte", "does_not_open", good + b"\0"),
            wrong("without_json", "not_json", sealed(event.plain(1, b""))),
            wrong("two_texts", "not_json", sealed(event.plain(1, TEXT + TEXT))),
            wrong("not_utf8", "not_json", sealed(event.plain(1, b'"\xff"'))),
            wrong("half_a_text", "not_json", sealed(event.plain(1, TEXT[:-1]))),
            wrong("nan", "not_json", sealed(event.plain(1, b'{"done":NaN}'))),
            wrong("byte_order_mark", "not_json", sealed(event.plain(1, b"\xef\xbb\xbf{}"))),
            wrong("shorter_than_a_salt", "truncated", good[:31]),
            wrong("not_padded", "padding_wrong_length", sealed(event.plain(1, TEXT)[:-1])),
            wrong("longer_than_4096", "padding_wrong_length", sealed(event.plain(1, TEXT).ljust(4352))),
            wrong("padded_with_zeros", "not_json", sealed(event.plain(1, TEXT)[:-1] + b"\0")),
        ],
    )
