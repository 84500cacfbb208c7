//! Where a change would stop at a tag, a hash or a signature: makes them anew with the right key.
//!
//! Written from docs/format.md on the bare primitives, so that what is under test does not check itself.

use aws_lc_rs::aead::{AES_256_GCM, Aad, LessSafeKey, Nonce, UnboundKey};
use aws_lc_rs::hmac;
use syncagent_protocol::{VaultId, sha256};
use syncagent_vault::keys::{Keys, VaultKey};
use syncagent_vault::machine::MachineKey;
use syncagent_vault::secret::Secret;

pub(crate) const VID: [u8; 16] =
    *b"\xa0\xa1\xa2\xa3\xa4\xa5\xa6\xa7\xa8\xa9\xaa\xab\xac\xad\xae\xaf";

/// The key of the vault all vectors are about.
pub(crate) fn vault_key() -> VaultKey {
    let key = std::array::from_fn(|i| i as u8);
    VaultKey::from_parts(Secret::copy_from(&key), VaultId(VID))
}

pub(crate) fn keys() -> Keys {
    vault_key().keys().unwrap()
}

pub(crate) fn gcm(key: &[u8; 32], nonce: [u8; 12], aad: &[u8], clear: &[u8]) -> Vec<u8> {
    let key = LessSafeKey::new(UnboundKey::new(&AES_256_GCM, key).unwrap());
    let mut out = clear.to_vec();
    let nonce = Nonce::assume_unique_for_key(nonce);
    key.seal_in_place_append_tag(nonce, Aad::from(aad), &mut out)
        .unwrap();
    out
}

/// What [`gcm`] sealed.
pub(crate) fn opened(key: &[u8], nonce: [u8; 12], aad: &[u8], sealed: &[u8]) -> Option<Vec<u8>> {
    let key = LessSafeKey::new(UnboundKey::new(&AES_256_GCM, key).ok()?);
    let mut out = sealed.to_vec();
    let nonce = Nonce::assume_unique_for_key(nonce);
    let len = key
        .open_in_place(nonce, Aad::from(aad), &mut out)
        .ok()?
        .len();
    out.truncate(len);
    Some(out)
}

pub(crate) fn hmac(key: &[u8], message: &[&[u8]]) -> [u8; 32] {
    let key = hmac::Key::new(hmac::HMAC_SHA256, key);
    let tag = hmac::sign(&key, &message.concat());
    tag.as_ref().try_into().unwrap()
}

/// HKDF-SHA-256 with 32 bytes of output: extract, and one block of expand.
pub(crate) fn hkdf(ikm: &[u8], salt: &[u8], info: &[&[u8]]) -> [u8; 32] {
    hmac(&hmac(salt, &[ikm]), &[&info.concat(), &[1]])
}

/// A keyslot of the first 80 bytes of `fields`, with the vault key inside, under the secret `u`.
pub(crate) fn slot(fields: &[u8; 80], u: &[u8], nonce: [u8; 12]) -> Vec<u8> {
    let derived = |label: &[u8]| {
        let info = [b"SyncAgent/v1/", label, b"\0", fields];
        hkdf(u, &fields[20..36], &info)
    };
    let vault_key: [u8; 32] = std::array::from_fn(|i| i as u8);
    let mut out = [&fields[..], &derived(b"slot-commit"), &nonce].concat();
    let sealed = gcm(&derived(b"slot-kek"), nonce, &out, &vault_key);
    out.extend_from_slice(&sealed);
    out
}

/// A chunk that opens under `key` in `scope`: whatever its parts are, the tag fits.
pub(crate) fn chunk(
    kind: u8,
    key: &[u8; 32],
    scope: &[u8; 16],
    clear: &[u8],
    frame: &[u8],
) -> Vec<u8> {
    let header = [b"SACK", &[1, 1, kind, 0, 0, 0, 0, 1][..]].concat();
    let aad = [&header, &VID[..], scope, clear].concat();
    [&header, clear, &gcm(key, [0; 12], &aad, frame)].concat()
}

/// `P(len)` of the document.
pub(crate) fn padded(len: usize) -> usize {
    let e = len.max(2).ilog2();
    let s = e.ilog2() + 1;
    len.next_multiple_of(1 << e.saturating_sub(s)).max(4096)
}

/// `data` in a frame of the right length and padding.
pub(crate) fn frame(codec: u8, data: &[u8]) -> Vec<u8> {
    let mut out = (data.len() as u32).to_be_bytes().to_vec();
    out.extend_from_slice(&[codec, 0, 0, 0]);
    out.extend_from_slice(data);
    out.resize(padded(out.len()), 0);
    out
}

/// `TLV` as the body of an op, in the right length.
pub(crate) fn body(tlv: &[u8], inline: bool) -> Vec<u8> {
    let mut out = (tlv.len() as u32).to_be_bytes().to_vec();
    out.extend_from_slice(tlv);
    let len = match out.len() {
        _ if inline => out.len().max(3072),
        len @ ..=1024 => len.next_multiple_of(256),
        len => len.next_multiple_of(1024),
    };
    out.resize(len, 0);
    out
}

/// One op of a commit, not yet sealed.
pub(crate) struct Op {
    pub(crate) head: [u8; 32],
    pub(crate) refs: Vec<u8>,
    pub(crate) ct: Vec<u8>,
}

/// The ops between header and signature, as far as their heads make sense.
pub(crate) fn ops(mut bytes: &[u8], served: bool) -> Vec<(u8, Op)> {
    let mut ops = Vec::new();
    while ops.len() < 1100 {
        let form = match (served, bytes) {
            (true, [form, rest @ ..]) => {
                bytes = rest;
                *form
            }
            _ => 0,
        };
        let Some((head, rest)) = bytes.split_first_chunk::<32>() else {
            break;
        };
        let field = |at: usize| u32::from_be_bytes(head[at..at + 4].try_into().unwrap()) as usize;
        let (refs, ct) = match form {
            1 => (32, 32),
            _ => (field(20).saturating_mul(32), field(24)),
        };
        let Some((refs, rest)) = rest.split_at_checked(refs) else {
            break;
        };
        let Some((ct, rest)) = rest.split_at_checked(ct) else {
            break;
        };
        let (head, refs, ct) = (*head, refs.to_vec(), ct.to_vec());
        ops.push((form, Op { head, refs, ct }));
        bytes = rest;
    }
    ops
}

/// A commit of these ops with number, root and signature as they have to be.
pub(crate) fn commit(
    header: &[u8; 192],
    ops: &[(u8, Op)],
    served: bool,
    machine: &MachineKey,
) -> Vec<u8> {
    let mut header = *header;
    header[24..40].copy_from_slice(&machine.id().0);
    header[84..88].copy_from_slice(&(ops.len() as u32).to_be_bytes());
    header[128..160].copy_from_slice(machine.public());
    let hashes: Vec<u8> = ops
        .iter()
        .flat_map(|(form, op)| match form {
            1 => sha256(&[&[2], &op.head, &op.refs, &op.ct]),
            _ => sha256(&[&[2], &op.head, &sha256(&[&op.refs]), &sha256(&[&op.ct])]),
        })
        .collect();
    header[160..].copy_from_slice(&sha256(&[&hashes]));
    let mut out = header.to_vec();
    for (form, op) in ops {
        if served {
            out.push(*form);
        }
        out.extend_from_slice(&op.head);
        out.extend_from_slice(&op.refs);
        out.extend_from_slice(&op.ct);
    }
    let signature = machine.sign(&[b"SyncAgent/v1/commit\0", &header[..]].concat());
    out.extend_from_slice(&signature);
    out
}

/// The ciphertext of an op's body in the commit with this header.
pub(crate) fn op_ct(
    header: &[u8; 192],
    index: u32,
    head: &[u8; 32],
    refs: &[u8],
    body: &[u8],
) -> Vec<u8> {
    let k_op: Secret<32> = vault_key().derive("op-key", 1).unwrap();
    let key = hmac(k_op.expose(), &[&[2], &header[..160]]);
    let mut nonce = [0; 12];
    nonce[8..].copy_from_slice(&index.to_be_bytes());
    gcm(&key, nonce, &[&header[..160], head, refs].concat(), body)
}

/// A sealed event with this plaintext.
pub(crate) fn event(machine: &[u8; 16], salt: &[u8; 32], clear: &[u8]) -> Vec<u8> {
    let k_event: Secret<32> = vault_key().derive("event-key", 1).unwrap();
    let key = hmac(k_event.expose(), &[&[3], machine, salt]);
    let sealed = gcm(&key, [0; 12], &[VID, *machine].concat(), clear);
    [&salt[..], &sealed].concat()
}
