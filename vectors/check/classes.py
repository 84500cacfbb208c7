"""The chunk size class of a file (docs/format.md, Class)."""

KIB, GIB = 1024, 1024**3
HIGHEST = 5


def average(k: int) -> int:
    return 128 * KIB << k


def limits(k: int) -> tuple[int, int, int]:
    """(min, avg, max) of a chunk of class k."""
    avg = average(k)
    return avg // 4, avg, 2 * avg


def lower(k: int) -> int:
    """File sizes above this are in the range of class k."""
    return 0 if k == 0 else 2048 * average(k)


def upper(k: int) -> int | None:
    """File sizes up to this one are in the range of class k; None: without end."""
    return None if k == HIGHEST else 4096 * average(k)


def of_size(size: int) -> int:
    """The class of a file that has none yet."""
    for k in range(HIGHEST):
        if size <= 4096 * average(k):
            return k
    return HIGHEST


def next_class(current: int | None, size: int) -> int:
    """A file keeps its class until it has left the range by a factor of four."""
    if current is None:
        return of_size(size)
    top = upper(current)
    keeps = lower(current) // 4 < size and (top is None or size <= 4 * top)
    return current if keeps else of_size(size)
