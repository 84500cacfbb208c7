"""chunk.json: data chunks, sealed, opened, and refused."""

import chunk
import frame
from cases.fixture import (
    KEYS,
    NODE,
    VAULT,
    VAULT_KEY,
    VID,
    Json,
    content,
    each_byte_changed,
    flip,
    literal,
    put,
    refused,
    same,
    sha256_counter,
    vectors,
)
from chunk import Entry, Sealed
from keys import vault_keys
from primitives import sha256, u32

# One zstd frame, of the content below: fixed here, because a compressor may change what it writes.
ZSTD_CONTENT = b"".join(b"line %05d of a text that compresses well\n" % i for i in range(500))
ZSTD_DATA = bytes.fromhex(
    "28b52ffd600851dd0d0026e5431880296935000df840ad63190c23719944f64e993c1de892f65f00460026000d310cc714b20d7186630a"
    "d98630c331856c4394e19842b621c8f0d95c26bff7583c1c53c83684c331856c43341c53c836c4188e29641b0010100e1814161c2c5870"
    "a020810104020a0901082414121a1c241402140620280851383850002155638c41b62186e19842b621ce704c21db106638a6906d88321c"
    "53c83604193e9bcbe4f71e8b078fc622713587c2a193a9443aab916838a6906d88311c53c8368418c331856caaaaaaaaaaaaaaaaaaaaaa"
    "aaaa56555555555555555555555555555555555555555555555505ffffffffffffffffffffffffffffffffffffffffffffffffffaaaaaa"
    "aaaaaaaaaaaaaaaa6a81f5a81170b365ff0ef16b6c0722089c20f0ff2b08f4f8032000804160000488022200440811200026800110a004"
    "880010034480003400064010112002c008100102c1001800054480081022400448c0b00646440284b9011012048003e0d4438ff4abc2fb"
    "2b71bdf4f19eba287f3dd2af0aefafc4f5d2e33d755122805000c02482112d00b00032a5004406003cc54703e95785f757e20a82e08010"
    "1a022702a0e70769d30ae0aa01"
)
ZSTD_MAGIC = b"\x28\xb5\x2f\xfd"
SMALL = b"The quick brown fox jumps over the lazy dog.\n"
MIB = 1024 * 1024


def _case(name: str, scope: bytes, pieces: list[Json], framed: bytes, codec: str, with_blob: bool = True) -> Json:
    data = content(pieces)
    sealed = chunk.seal_framed(KEYS, scope, framed)
    same(
        name, chunk.open_chunk(VID, scope, Entry(sealed.chunk_id, sealed.ck, len(data)), chunk.DATA, sealed.blob), data
    )
    out: Json = {
        "name": name,
        **VAULT,
        "kind": chunk.DATA,
        "scope": scope.hex(),
        "content": pieces,
        "len": len(data),
        "codec": codec,
        "seal": codec == "none",
        "frame_length": len(framed),
        "frame_sha256": sha256(framed).hex(),
        "ck": sealed.ck.hex(),
        "chunk_id": sealed.chunk_id.hex(),
        "blob_length": len(sealed.blob),
    }
    return out | {"blob": sealed.blob.hex()} if with_blob else out


def _plain(name: str, scope: bytes, pieces: list[Json], with_blob: bool = True) -> Json:
    return _case(name, scope, pieces, frame.write(content(pieces)), "none", with_blob)


def open_refused(
    name: str,
    rule: str,
    blob: bytes,
    ck: bytes,
    length: int,
    *,
    chunk_id: bytes | None = None,
    scope: bytes = NODE,
    kind: int = chunk.DATA,
    vid: bytes = VID,
) -> Json:
    """Without `chunk_id` the manifest names the bytes as they are, so that the rule behind it has to catch them."""
    entry = Entry(chunk_id or sha256(blob), ck, length)
    return refused(
        name,
        rule,
        "chunk",
        blob,
        lambda: chunk.open_chunk(vid, scope, entry, kind, blob),
        vid=vid.hex(),
        kind=kind,
        scope=scope.hex(),
        chunk_id=entry.chunk_id.hex(),
        ck=ck.hex(),
        len=length,
    )


def _sealed_wrong(framed: bytes, head: bytes | None = None) -> Sealed:
    """A blob that opens, but should not have been written."""
    ck = chunk.chunk_key(KEYS, chunk.DATA, NODE, b"", framed)
    return chunk.seal_with(ck, head or chunk.header(chunk.DATA, 1), VID, NODE, b"", framed)


def zstd_frame(content: bytes, descriptor: int, fields: bytes = b"", trailer: bytes = b"") -> bytes:
    """A zstd frame of one raw block (RFC 8878, section 3.1.1), whose header the caller writes."""
    block = (len(content) << 3 | 1).to_bytes(3, "little")
    return ZSTD_MAGIC + bytes([descriptor]) + fields + block + content + trailer


def _zstd_must_fail() -> list[Json]:
    n, most = len(SMALL), 8 * MIB
    plain = zstd_frame(SMALL, 0x20, bytes([n]))
    skippable = b"\x50\x2a\x4d\x18" + (4).to_bytes(4, "little") + b"skip"
    rows: list[tuple[str, str, bytes, int]] = [
        ("trailing_byte", "zstd_trailing", ZSTD_DATA + b"\0", len(ZSTD_CONTENT)),
        ("second_frame", "zstd_trailing", ZSTD_DATA * 2, len(ZSTD_CONTENT)),
        ("second_frame_counted_in", "content_length_differs", plain * 2, 2 * n),
        ("second_frame_undeclared_counted_in", "zstd_trailing", zstd_frame(SMALL, 0, b"\x68") * 2, 2 * n),
        ("second_frame_empty", "zstd_trailing", plain + zstd_frame(b"", 0x20, b"\0"), n),
        ("skippable_frame_behind", "zstd_trailing", plain + skippable, n),
        ("skippable_frame_before", "zstd_is_no_frame", skippable + plain, n),
        ("skippable_frame_alone", "zstd_is_no_frame", skippable, n),
        ("magic_of_another_version", "zstd_is_no_frame", b"\x27" + plain[1:], n),
        ("empty", "zstd_damaged", b"", n),
        ("magic_alone", "zstd_damaged", ZSTD_MAGIC, n),
        ("header_truncated", "zstd_damaged", plain[:5], n),
        ("block_header_truncated", "zstd_damaged", plain[:8], n),
        ("block_truncated", "zstd_damaged", plain[:-1], n),
        ("without_a_last_block", "zstd_damaged", put(plain, 6, bytes([plain[6] & ~1])), n),
        ("reserved_block_type", "zstd_damaged", put(plain, 6, bytes([plain[6] | 6])), n),
        ("reserved_header_bit", "zstd_reserved_bit", zstd_frame(SMALL, 0x28, bytes([n])), n),
        ("dictionary_id", "zstd_with_dictionary", zstd_frame(SMALL, 0x21, bytes([7, n])), n),
        ("wrong_checksum", "zstd_damaged", zstd_frame(SMALL, 0x24, bytes([n]), bytes(4)), n),
        ("window_just_above_8_mib", "zstd_window_too_large", zstd_frame(SMALL, 0x00, b"\x69"), n),
        ("window_of_16_mib", "zstd_window_too_large", zstd_frame(SMALL, 0x00, b"\x70"), n),
        ("window_of_2_gib", "zstd_window_too_large", zstd_frame(SMALL, 0x00, b"\xa8"), n),
        ("window_at_its_highest", "zstd_window_too_large", zstd_frame(SMALL, 0x00, b"\xff"), n),
    ]
    for name, size in (
        ("2_63", 1 << 63),
        ("2_64_less_2", 2**64 - 2),
        # What libraries say inside for "not declared".
        ("2_64_less_1", 2**64 - 1),
        ("one_more", n + 1),
        ("one_less", n - 1),
        ("0", 0),
        ("8_mib_and_one", most + 1),
    ):
        declared = size.to_bytes(8, "little")
        for window, descriptor, fields in (("one_segment", 0xE0, declared), ("small_window", 0xC0, b"\x00" + declared)):
            rows.append(
                (f"declares_{name}_in_{window}", "content_length_differs", zstd_frame(SMALL, descriptor, fields), n)
            )
    fails = []
    for name, rule, data, length in rows:
        sealed = _sealed_wrong(frame.write(data, frame.ZSTD))
        fails.append(open_refused(f"zstd_{name}", rule, sealed.blob, sealed.ck, length))
    return fails


def _must_fail() -> list[Json]:
    good, n = chunk.seal_data(KEYS, NODE, SMALL), len(SMALL)
    fails = [
        open_refused(
            f"bit_flipped_in_{name}_found_by_chunk_id",
            "chunk_id_differs",
            flip(good.blob, at),
            good.ck,
            n,
            chunk_id=good.chunk_id,
        )
        for name, at in (("header", 11), ("ciphertext", 12), ("tag", -1))
    ]
    for name, at in (("ciphertext", 12), ("tag", -1)):
        fails.append(open_refused(f"bit_flipped_in_{name}", "does_not_open", flip(good.blob, at), good.ck, n))
    for name, rule, at, value in (
        ("bad_magic", "bad_magic", 0, b"SACX"),
        ("version_2", "unknown_version", 4, b"\x02"),
        ("alg_2", "unknown_alg", 5, b"\x02"),
        ("kind_2", "unknown_kind", 6, b"\x02"),
        ("nonzero_reserved", "nonzero_reserved", 7, b"\x01"),
        ("epoch_2_in_the_header_only", "wrong_epoch", 8, u32(2)),
    ):
        fails.append(open_refused(name, rule, put(good.blob, at, value), good.ck, n))
    later = chunk.seal_data(vault_keys(VAULT_KEY, VID, 2), NODE, SMALL)
    fails.append(open_refused("sealed_in_epoch_2", "wrong_epoch", later.blob, later.ck, n))
    fails += [
        open_refused("truncated", "length_is_not_padded", good.blob[:-1], good.ck, n),
        open_refused("header_only", "length_is_not_padded", good.blob[:12], good.ck, n),
        open_refused("empty", "truncated", b"", good.ck, n),
        open_refused("trailing_byte", "length_is_not_padded", good.blob + b"\0", good.ck, n),
        open_refused("wrong_key", "does_not_open", good.blob, flip(good.ck, 0), n),
        open_refused("wrong_scope", "does_not_open", good.blob, good.ck, n, scope=bytes(16)),
        open_refused("wrong_vault", "does_not_open", good.blob, good.ck, n, vid=flip(VID, 0)),
        open_refused("data_where_a_list_is_expected", "unexpected_kind", good.blob, good.ck, n, kind=chunk.LIST),
        open_refused("content_longer_than_promised", "content_length_differs", good.blob, good.ck, n - 1),
        open_refused("content_shorter_than_promised", "content_length_differs", good.blob, good.ck, n + 1),
    ]
    framed = frame.write(SMALL)
    for name, rule, wrong in (
        ("padding_too_long", "frame_padding_wrong_length", framed + bytes(256)),
        ("padding_not_zero", "frame_padding_not_zero", flip(framed, -1)),
        ("padding_not_zero_right_after_the_data", "frame_padding_not_zero", flip(framed, 8 + n)),
        ("frame_codec_2", "unknown_codec", put(framed, 4, b"\x02")),
        ("frame_nonzero_reserved", "frame_nonzero_reserved", put(framed, 7, b"\x01")),
        ("stored_len_beyond_the_frame", "frame_truncated", put(framed, 0, u32(4089))),
        ("stored_len_at_its_highest", "frame_truncated", put(framed, 0, u32(2**32 - 1))),
        ("zstd_that_is_none", "zstd_is_no_frame", put(framed, 4, b"\x01")),
        ("frame_codec_255", "unknown_codec", put(framed, 4, b"\xff")),
        ("frame_nonzero_reserved_byte_5", "frame_nonzero_reserved", put(framed, 5, b"\x01")),
        ("frame_nonzero_reserved_byte_6", "frame_nonzero_reserved", put(framed, 6, b"\x80")),
        ("stored_len_zero", "frame_padding_not_zero", put(framed, 0, u32(0))),
        ("stored_len_one_less", "frame_padding_not_zero", put(framed, 0, u32(n - 1))),
        ("stored_len_one_more", "content_length_differs", put(framed, 0, u32(n + 1))),
    ):
        sealed = _sealed_wrong(wrong)
        fails.append(open_refused(name, rule, sealed.blob, sealed.ck, n))
    packed = _sealed_wrong(frame.write(ZSTD_DATA, frame.ZSTD))
    fails.append(
        open_refused(
            "zstd_gives_more_than_promised", "content_length_differs", packed.blob, packed.ck, len(ZSTD_CONTENT) - 1
        )
    )
    fails.append(
        open_refused(
            "zstd_gives_less_than_promised", "content_length_differs", packed.blob, packed.ck, len(ZSTD_CONTENT) + 1
        )
    )
    fails += _zstd_must_fail()
    rules = {
        range(0, 4): "bad_magic",
        range(4, 5): "unknown_version",
        range(5, 6): "unknown_alg",
        range(6, 7): "unknown_kind",
        range(7, 8): "nonzero_reserved",
        range(8, 12): "wrong_epoch",
    }
    for name, rule, wrong in each_byte_changed(good.blob, rules, {6: {chunk.LIST}}):
        fails.append(open_refused(name, rule, wrong, good.ck, n))
    listed = put(good.blob, 6, bytes([chunk.LIST]))
    fails.append(open_refused("data_said_to_be_a_list", "list_count_out_of_range", listed, good.ck, n))
    for name, rule, at in (
        ("in_the_magic", "truncated", 3),
        ("in_the_epoch", "truncated", 11),
        ("in_the_frame", "length_is_not_padded", 2000),
        ("before_the_tag", "length_is_not_padded", 12 + 4096),
    ):
        fails.append(open_refused(f"truncated_{name}", rule, good.blob[:at], good.ck, n))
    # 3840 would be a padded length, but no frame is shorter than 4096.
    short = good.blob[:12] + good.blob[12 + 256 :]
    fails.append(open_refused("frame_shorter_than_any", "length_is_not_padded", short, good.ck, n))
    for name, length in (("0", 0), ("8_mib_and_one", 8 * MIB + 1), ("2_64_less_1", 2**64 - 1)):
        fails.append(open_refused(f"promised_{name}", "content_length_differs", good.blob, good.ck, length))
    return fails


def build() -> Json:
    cases = [
        _plain("node_scope", NODE, [literal(SMALL)]),
        _plain("vault_scope", chunk.VAULT_SCOPE, [literal(SMALL)]),
        _plain("one_byte", NODE, [literal(b"\0")]),
        _plain("last_byte_of_the_smallest_frame", NODE, [sha256_counter(b"chunk", 4088)]),
        _plain("first_byte_of_the_next_frame", NODE, [sha256_counter(b"chunk", 4089)]),
        _plain("ten_thousand_bytes", NODE, [sha256_counter(b"chunk", 10_000)]),
        _plain("one_mebibyte", NODE, [sha256_counter(b"chunk", MIB)], with_blob=False),
        _plain("largest", NODE, [sha256_counter(b"chunk", 8 * MIB)], with_blob=False),
        _case("zstd_open_only", NODE, [literal(ZSTD_CONTENT)], frame.write(ZSTD_DATA, frame.ZSTD), "zstd"),
        *(
            _case(f"zstd_{name}", NODE, [literal(SMALL)], frame.write(data, frame.ZSTD), "zstd")
            for name, data in (
                ("window_of_8_mib", zstd_frame(SMALL, 0x00, b"\x68")),
                ("one_segment", zstd_frame(SMALL, 0x20, bytes([len(SMALL)]))),
                ("size_in_8_bytes", zstd_frame(SMALL, 0xE0, len(SMALL).to_bytes(8, "little"))),
            )
        ),
    ]
    return vectors(
        "Data chunks. Sealing content in scope gives ck, chunk_id and blob where seal is true; opening gives "
        "content always. "
        "Large ones come without blob: their chunk_id is its hash. must_fail: what an opener given vid, "
        "kind, scope, chunk_id, "
        "ck and len refuses.",
        cases,
        _must_fail(),
    )
