"""Where a file is cut (docs/format.md, Chunker, `cdc` 2).

`cut_lengths` uses that the hash after a byte depends on the last 64 bytes only, whatever was fed before them: older
ones have been shifted out. So the hash at every position is a sum that numpy builds in six doublings, and AES runs over
a whole array at once. `cut_lengths_slowly` is the rule as the document tells it; the generator checks that both agree.
"""

import numpy as np
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes

import classes

_MASK = 2**64 - 1


def gear_table(gear: bytes) -> np.ndarray:
    return np.frombuffer(gear, dtype=">u8").astype(np.uint64)


def _judge(h: np.ndarray, aes_key: bytes) -> np.ndarray:
    """v for every h: the first half of AES(u64 h, eight zero bytes)."""
    blocks = np.zeros((len(h), 2), dtype=">u8")
    blocks[:, 0] = h
    encryptor = Cipher(algorithms.AES(aes_key), modes.ECB()).encryptor()
    out = encryptor.update(blocks.tobytes())
    return np.frombuffer(out, dtype=">u8").reshape(-1, 2)[:, 0].astype(np.uint64)


def _hash_everywhere(data: bytes, gear: bytes) -> np.ndarray:
    h = gear_table(gear)[np.frombuffer(data, dtype=np.uint8)]
    for width in (1, 2, 4, 8, 16, 32):
        older = np.zeros_like(h)
        older[width:] = h[:-width]
        h = h + (older << np.uint64(width))
    return h


def cut_lengths(data: bytes, gear: bytes, aes_key: bytes, k: int) -> list[int]:
    """The lengths of the chunks of `data` in class `k`."""
    least, avg, most = classes.limits(k)
    bits = avg.bit_length() - 1
    v = (
        np.concatenate(
            [
                _judge(_hash_everywhere(data[max(0, at - 63) : at + 2**20], gear)[min(at, 63) :], aes_key)
                for at in range(0, len(data), 2**20)
            ]
        )
        if data
        else np.zeros(0, dtype=np.uint64)
    )
    strict = np.flatnonzero(v >> np.uint64(64 - bits - 2) == 0)
    loose = np.flatnonzero(v >> np.uint64(64 - bits + 2) == 0)
    spare = np.flatnonzero(v >> np.uint64(64 - bits + 4) == 0)
    lengths, start = [], 0
    while start < len(data):
        end = min(start + most, len(data))
        for places, first, stop in ((strict, start + least, start + avg - 1), (loose, start + avg - 1, end)):
            hit = np.searchsorted(places, first)
            if hit < len(places) and places[hit] < min(stop, end):
                end = int(places[hit]) + 1
                break
        else:
            last = np.searchsorted(spare, end) - 1
            if end == start + most and last >= 0 and spare[last] >= start + avg - 1:
                end = int(spare[last]) + 1
        lengths.append(end - start)
        start = end
    return lengths


def cut_lengths_slowly(data: bytes, gear: bytes, aes_key: bytes, k: int) -> list[int]:
    """The same, byte by byte, in the order of the document."""
    least, avg, most = classes.limits(k)
    bits = avg.bit_length() - 1
    table = [int(word) for word in gear_table(gear)]
    encryptor = Cipher(algorithms.AES(aes_key), modes.ECB()).encryptor()
    lengths, start = [], 0
    while start < len(data):
        rest = data[start : start + most]
        h = 0
        for byte in rest[least - 64 : least]:
            h = ((h << 1) + table[byte]) & _MASK
        length, spare = len(rest), 0
        for i in range(least, len(rest)):
            h = ((h << 1) + table[rest[i]]) & _MASK
            v = int.from_bytes(encryptor.update(h.to_bytes(8, "big") + bytes(8))[:8], "big")
            b = bits + 2 if i + 1 < avg else bits - 2
            if v >> 64 - b == 0:
                length = i + 1
                break
            if i + 1 >= avg and v >> 64 - bits + 4 == 0:
                spare = i + 1
        else:
            if length == most and spare:
                length = spare
        lengths.append(length)
        start += length
    return lengths
