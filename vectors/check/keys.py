"""Everything that is derived from the vault key (docs/format.md, Keys)."""

from dataclasses import dataclass

from primitives import hkdf, sha256, u32

LABEL = b"SyncAgent/v1/"
CDC = 2


def derive(vault_key: bytes, vid: bytes, label: str, ctx: int, length: int) -> bytes:
    """`HK(label, ctx)`: the only thing a vault key is ever used for."""
    return hkdf(vault_key, vid, LABEL + label.encode() + b"\0" + u32(ctx), length)


@dataclass(frozen=True)
class VaultKeys:
    """The keys of one epoch of one vault. `gear` and `cdc_aes` always come from the key of epoch 1."""

    vid: bytes
    epoch: int
    chunk: bytes
    op: bytes
    event: bytes
    kcv: bytes
    gear: bytes
    cdc_aes: bytes


def vault_keys(vault_key: bytes, vid: bytes, epoch: int = 1) -> VaultKeys:
    return VaultKeys(
        vid=vid,
        epoch=epoch,
        chunk=derive(vault_key, vid, "chunk-key", epoch, 32),
        op=derive(vault_key, vid, "op-key", epoch, 32),
        event=derive(vault_key, vid, "event-key", epoch, 32),
        kcv=derive(vault_key, vid, "kcv", epoch, 16),
        gear=derive(vault_key, vid, "cdc-gear", CDC, 2048),
        cdc_aes=derive(vault_key, vid, "cdc-aes", CDC, 16),
    )


def machine_id(public_key: bytes) -> bytes:
    return sha256(b"SyncAgent/v1/machine\0" + public_key)[:16]


def genesis_hash(vid: bytes) -> bytes:
    """`hash_0`: what the first commit names as its predecessor."""
    return sha256(b"SyncAgent/v1/genesis\0" + vid)
