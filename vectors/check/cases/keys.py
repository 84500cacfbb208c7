"""keys.json: what is derived from a vault key and from a machine's key."""

import ed25519
from cases.fixture import KEYS, MACHINE_A, MACHINE_B, SEED_A, SEED_B, VAULT_KEY, VID, Json, same, vectors
from keys import VaultKeys, genesis_hash, machine_id, vault_keys
from primitives import sha256

STATED = {
    "chunk_key": "4f258b75f7a08583b23f2de35722f3cf3fa9422f99a85fc1425a3b834d0f74ec",
    "op_key": "fad6c59d6aa0b27018dd3d77a67afe3df452f1cf26fa4117458a344c9c25aaaa",
    "event_key": "5b213e955e3ffad4b2eb0d1ec29004573c39d65dcd45f8d38d97452c4b93656f",
    "kcv": "ee4e0cd33260d8d9d5d8cba58a7570db",
    "gear_sha256": "d22cbc99cb479430c743ee13f43ec7b463c805d79fc46ab33e77eb2ae2b08830",
    "gear_first": "6f8de14fdfbcd81c",
    "gear_last": "31c143e9578804d7",
    "cdc_aes_key": "8769366a925b332b0cc2e7cf4d25397e",
    "hash_0": "69361ec82e41d5bbff73c395a62370ba2485f5f7b2ac089248b342b79450e60e",
}


def _vault(name: str, vault_key: bytes, keys: VaultKeys) -> Json:
    return {
        "name": name,
        "vault_key": vault_key.hex(),
        "vid": keys.vid.hex(),
        "epoch": keys.epoch,
        "chunk_key": keys.chunk.hex(),
        "op_key": keys.op.hex(),
        "event_key": keys.event.hex(),
        "kcv": keys.kcv.hex(),
        "gear_sha256": sha256(keys.gear).hex(),
        "gear_first": keys.gear[:8].hex(),
        "gear_last": keys.gear[-8:].hex(),
        "cdc_aes_key": keys.cdc_aes.hex(),
        "hash_0": genesis_hash(keys.vid).hex(),
    }


def _machine(name: str, seed: bytes) -> Json:
    pk = ed25519.public_key(seed)
    return {"name": name, "machine_seed": seed.hex(), "public_key": pk.hex(), "machine_id": machine_id(pk).hex()}


def build() -> Json:
    first = _vault("vault_stated_in_the_document", VAULT_KEY, KEYS)
    for field, value in STATED.items():
        same(field, first[field], value)
    other_key, other_vid = sha256(b"another vault key"), sha256(b"another vault")[:16]
    machines = [_machine("machine_a", SEED_A), _machine("machine_b", SEED_B)]
    same("machine ids", [m["machine_id"] for m in machines], [MACHINE_A.hex(), MACHINE_B.hex()])
    same("vid", first["vid"], VID.hex())
    return vectors(
        "Keys derived from a vault key (cases with vault_key) and identities of machines (cases with machine_seed).",
        [first, _vault("another_vault", other_key, vault_keys(other_key, other_vid)), *machines],
    )
