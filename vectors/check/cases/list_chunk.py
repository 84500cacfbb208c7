"""list_chunk.json: list chunks, sealed, opened, and refused."""

import chunk
import frame
from cases.chunk import open_refused
from cases.fixture import KEYS, NODE, VAULT, VID, Json, flip, put, same, vectors
from chunk import Entry
from primitives import sha256, u32, u64


def entries(n: int, seed: bytes = b"entry") -> list[Entry]:
    """Made-up children: id and key are SHA-256(seed ‖ "id" or "ck" ‖ u64 i), the length is 100000 + i."""
    return [Entry(sha256(seed + b"id" + u64(i)), sha256(seed + b"ck" + u64(i)), 100_000 + i) for i in range(n)]


def to_json(listed: list[Entry]) -> list[Json]:
    return [{"chunk_id": e.chunk_id.hex(), "ck": e.ck.hex(), "len": e.len} for e in listed]


def _case(name: str, scope: bytes, listed: list[Entry]) -> Json:
    sealed = chunk.seal_list(KEYS, scope, listed)
    total = sum(e.len for e in listed)
    same(name, chunk.open_chunk(VID, scope, Entry(sealed.chunk_id, sealed.ck, total), chunk.LIST, sealed.blob), listed)
    same(name, chunk.children(sealed.blob), (chunk.LIST, [e.chunk_id for e in listed]))
    return {
        "name": name,
        **VAULT,
        "kind": chunk.LIST,
        "scope": scope.hex(),
        "entries": to_json(listed),
        "len": total,
        "ck": sealed.ck.hex(),
        "chunk_id": sealed.chunk_id.hex(),
        "blob": sealed.blob.hex(),
    }


def _must_fail() -> list[Json]:
    listed = entries(3)
    total = sum(e.len for e in listed)
    good = chunk.seal_list(KEYS, NODE, listed)
    clear, framed = chunk.list_parts(listed)

    def wrong(name: str, rule: str, clear_: bytes, framed_: bytes) -> Json:
        ck = chunk.chunk_key(KEYS, chunk.LIST, NODE, clear_, framed_)
        sealed = chunk.seal_with(ck, chunk.header(chunk.LIST, 1), VID, NODE, clear_, framed_)
        return open_refused(name, rule, sealed.blob, sealed.ck, total, kind=chunk.LIST)

    def damaged(name: str, rule: str, blob: bytes, **kwargs: object) -> Json:
        kind = kwargs.pop("kind", chunk.LIST)
        return open_refused(name, rule, blob, good.ck, kwargs.pop("len", total), kind=kind, **kwargs)

    def of_lens(*lens: int) -> tuple[bytes, bytes]:
        return chunk.list_parts([Entry(e.chunk_id, e.ck, len) for e, len in zip(listed, lens)])

    return [
        damaged(
            "bit_flipped_in_clear_found_by_chunk_id", "chunk_id_differs", flip(good.blob, 20), chunk_id=good.chunk_id
        ),
        damaged("bit_flipped_in_clear", "does_not_open", flip(good.blob, 20)),
        damaged("two_children_swapped", "does_not_open", put(good.blob, 16, good.blob[48:80] + good.blob[16:48])),
        damaged("truncated_in_clear", "truncated", good.blob[:40]),
        damaged("one_child_more_in_clear", "length_is_not_padded", put(good.blob, 12, u32(4))),
        damaged("sum_differs_from_the_parents", "list_sum_differs", good.blob, len=total + 1),
        damaged("no_children", "list_count_out_of_range", put(good.blob, 12, u32(0))),
        damaged("n_at_its_highest", "list_count_out_of_range", put(good.blob, 12, u32(2**32 - 1))),
        wrong("one_child_without_key", "content_length_differs", u32(4) + clear[4:] + bytes(32), framed),
        wrong("frame_with_zstd", "list_with_codec", clear, put(framed, 4, b"\x01")),
        wrong("513_children", "list_count_out_of_range", *chunk.list_parts(entries(513))),
        wrong("padding_not_zero", "frame_padding_not_zero", clear, flip(framed, -1)),
        wrong("padding_too_long", "frame_padding_wrong_length", clear, framed + bytes(256)),
        wrong("one_key_without_child", "content_length_differs", u32(2) + clear[4:68], framed),
        wrong("keys_of_no_child", "content_length_differs", clear, frame.write(b"")),
        wrong("a_key_cut_short", "content_length_differs", clear, frame.write(framed[8:127])),
        wrong("a_byte_behind_the_keys", "content_length_differs", clear, frame.write(framed[8:128] + b"\0")),
        wrong("child_of_length_0", "list_empty_entry", *of_lens(total, 0)),
        wrong("only_a_child_of_length_0", "list_empty_entry", *of_lens(0)),
        wrong("sum_above_2_64", "list_sum_differs", *of_lens(1 << 63, (1 << 63) + total)),
        wrong("no_children_sealed_so", "list_count_out_of_range", u32(0), frame.write(b"")),
        damaged("list_where_data_is_expected", "unexpected_kind", good.blob, kind=chunk.DATA),
        damaged("sum_one_less_than_the_parents", "list_sum_differs", good.blob, len=total - 1),
        damaged("truncated_before_n", "truncated", good.blob[:12]),
        damaged("truncated_in_n", "truncated", good.blob[:15]),
        damaged("truncated_behind_the_children", "length_is_not_padded", good.blob[:112]),
        damaged("list_said_to_be_data", "length_is_not_padded", put(good.blob, 6, bytes([chunk.DATA]))),
    ]


def build() -> Json:
    same("frame of 512", len(frame.write(bytes(40 * 512))), 21_504)
    return vectors(
        "List chunks. entries are the children in order; len is the sum of theirs. must_fail as in chunk.json.",
        [
            _case("one_child", NODE, entries(1)),
            _case("three_children", NODE, entries(3)),
            _case("the_same_child_twice", NODE, entries(1) * 2),
            _case("vault_scope", chunk.VAULT_SCOPE, entries(3)),
            _case("as_many_as_may_be", NODE, entries(512)),
        ],
        _must_fail(),
    )
