"""chunker.json: where contents are cut."""

import chunker
import classes
from cases.fixture import KEYS, VAULT, Json, content, literal, repeat, same, sha256_counter, vectors
from primitives import sha256

MIB = 1024 * 1024
SEED = b"chunker"
# One of fifty: its first chunk in class 0 reaches the longest size.
FULL = b"full-44"
LONGEST = 256 * 1024


def _case(name: str, k: int, pieces: list[Json]) -> Json:
    data = content(pieces)
    lengths = chunker.cut_lengths(data, KEYS.gear, KEYS.cdc_aes, k)
    same(name, sum(lengths), len(data))
    least, _, most = classes.limits(k)
    assert all(least < n <= most for n in lengths[:-1]) and all(n <= most for n in lengths[-1:]), name
    return {
        "name": name,
        **VAULT,
        "class": k,
        "content": pieces,
        "content_length": len(data),
        "content_sha256": sha256(data).hex(),
        "gear_sha256": sha256(KEYS.gear).hex(),
        "cut_lengths": lengths,
    }


def _check_against_the_slow_rule() -> None:
    full = ([sha256_counter(FULL, n)] for n in (LONGEST - 1, LONGEST, LONGEST + 40_000))
    for pieces in (*full, [sha256_counter(SEED, 900_000)], [repeat(0, 300_000)], [repeat(0, 40_000), sha256_counter(b"x", 5)]):
        data = content(pieces)
        same(
            "both chunkers",
            chunker.cut_lengths(data, KEYS.gear, KEYS.cdc_aes, 0),
            chunker.cut_lengths_slowly(data, KEYS.gear, KEYS.cdc_aes, 0),
        )


def build() -> Json:
    _check_against_the_slow_rule()
    stream = sha256_counter(SEED, 4 * MIB)
    cases = [
        _case("empty", 0, []),
        _case("one_byte", 0, [literal(b"a")]),
        _case("shorter_than_min", 0, [sha256_counter(SEED, 32 * 1024 - 1)]),
        _case("exactly_min", 0, [sha256_counter(SEED, 32 * 1024)]),
        _case("one_byte_above_min", 0, [sha256_counter(SEED, 32 * 1024 + 1)]),
        _case("class_0", 0, [stream]),
        _case("class_0_one_byte_in_front", 0, [literal(b"!"), stream]),
        _case(
            "class_0_byte_changed_in_the_middle",
            0,
            [sha256_counter(SEED, MIB), literal(b"!"), sha256_counter(b"rest", MIB)],
        ),
        _case("full_ends_at_the_last_spare_place", 0, [sha256_counter(FULL, LONGEST + 40_000)]),
        _case("full_at_the_end_ends_there_too", 0, [sha256_counter(FULL, LONGEST)]),
        _case("nearly_full_ends_with_the_file", 0, [sha256_counter(FULL, LONGEST - 1)]),
        _case("zeros_are_cut_at_max", 0, [repeat(0, MIB + 12_345)]),
        _case("zeros_end_at_max", 0, [repeat(0, 2 * 256 * 1024)]),
        _case(
            "zeros_between", 0, [sha256_counter(SEED, 300_000), repeat(0, 600_000), sha256_counter(b"tail", 300_000)]
        ),
        _case("class_1", 1, [stream]),
        _case("class_1_zeros", 1, [repeat(0, MIB + 1)]),
        _case("class_3", 3, [sha256_counter(SEED, 8 * MIB)]),
        _case("class_3_zeros", 3, [repeat(0, 4 * MIB + 1)]),
        _case("class_3_shorter_than_min", 3, [sha256_counter(SEED, 200_000)]),
        _case("class_5_ends_at_the_end_of_the_file", 5, [sha256_counter(SEED, 2 * MIB)]),
    ]
    return vectors("Lengths of the chunks of a content in a class. content is a list of pieces (README.md).", cases)
