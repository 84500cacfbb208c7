//! What every catalog promises, row by row. Each implementation runs [`check`] on fresh catalogs.

#![allow(
    clippy::unwrap_used,
    clippy::missing_panics_doc,
    reason = "a suite of tests: it fails by panicking"
)]

use std::sync::Arc;

use syncagent_protocol::api::{Head, MachineReport};
use syncagent_protocol::commit::HEADER_LEN;
use syncagent_protocol::pack::ChunkKind;
use syncagent_protocol::{ChunkId, CommitHash, MachineId, VaultId};

use super::{
    Appended, Catalog, Gap, KnownPack, Location, Lost, NewChunk, NewCommit, NewPack, Registered,
    Registration, Tip, VaultKey,
};
use crate::chunks::PackId;

const HOUR_MS: u64 = 60 * 60 * 1000;
const NOW_MS: u64 = 1000 * HOUR_MS;
const VID: VaultId = VaultId([0xa0; 16]);

/// Runs every row, each on a catalog of its own.
pub async fn check(fresh: impl Fn() -> Arc<dyn Catalog>) {
    invitations_are_used_once(&*fresh()).await;
    of_parallel_uses_one_wins(fresh()).await;
    names_are_unique_while_they_are_used(&*fresh()).await;
    tokens_tell_who_asks(&*fresh()).await;
    the_log_grows_only_at_its_head(&*fresh()).await;
    of_parallel_appends_one_wins(fresh()).await;
    only_machines_of_the_vault_write(&*fresh()).await;
    commits_come_in_order_and_within_the_limit(&*fresh()).await;
    chunks_are_where_they_were_put_first(&*fresh()).await;
    missing_reaches_through_lists(&*fresh()).await;
    packs_are_told_in_order_and_in_pages(&*fresh()).await;
    what_lies_in_a_gap_is_missing_until_it_is_sent_again(&*fresh()).await;
    a_gap_that_is_closed_leaves_nothing(&*fresh()).await;
    of_parallel_uploads_into_a_gap_one_counts(fresh()).await;
    slots_keep_the_one_before(&*fresh()).await;
    what_was_lost_comes_back_while_it_is_marked(&*fresh()).await;
    a_tail_is_cut_whole(&*fresh()).await;
}

fn id<const N: usize>(n: u8) -> [u8; N] {
    [n; N]
}

fn registration(invitation: u8, machine: u8, name: &str, now_ms: u64) -> Registration {
    Registration {
        invitation: id(invitation),
        machine: MachineId(id(machine)),
        name: name.to_owned(),
        platform: "linux".to_owned(),
        token: id(machine.wrapping_add(100)),
        now_ms,
    }
}

async fn joined(catalog: &dyn Catalog, machine: u8) -> VaultKey {
    let vault = catalog
        .invite(id(machine), NOW_MS, NOW_MS + HOUR_MS)
        .await
        .unwrap();
    let name = format!("machine-{machine}");
    let done = catalog
        .register(registration(machine, machine, &name, NOW_MS))
        .await
        .unwrap();
    assert!(matches!(done, Registered::Done { vault: v, .. } if v == vault));
    vault
}

fn hash(n: u64) -> CommitHash {
    if n == 0 {
        CommitHash::genesis(VID)
    } else {
        CommitHash([n as u8; 32])
    }
}

fn commit(n: u64, author: u8, refs: &[u8]) -> NewCommit {
    NewCommit {
        vid: VID,
        n,
        prev: hash(n - 1),
        hash: hash(n),
        author: MachineId(id(author)),
        poster: MachineId(id(author)),
        header: [n as u8; HEADER_LEN],
        served: vec![n as u8; 1000],
        refs: refs.iter().map(|&n| ChunkId(id(n))).collect(),
        revokes: Vec::new(),
        enrols: false,
        lost: false,
        now_ms: NOW_MS,
    }
}

fn chunk(n: u8, offset: u64, children: &[u8]) -> NewChunk {
    NewChunk {
        id: ChunkId(id(n)),
        offset,
        len: 4124,
        kind: if children.is_empty() {
            ChunkKind::Data
        } else {
            ChunkKind::List
        },
        children: children.iter().flat_map(|&n| id::<32>(n)).collect(),
    }
}

fn pack(n: u8, chunks: Vec<NewChunk>) -> NewPack {
    NewPack {
        id: PackId(id(n)),
        len: 10_000,
        chunks,
        renewed: Vec::new(),
        now_ms: NOW_MS,
    }
}

async fn invitations_are_used_once(catalog: &dyn Catalog) {
    let first = catalog
        .invite(id(1), NOW_MS, NOW_MS + HOUR_MS)
        .await
        .unwrap();
    let second = catalog
        .invite(id(2), NOW_MS, NOW_MS + HOUR_MS)
        .await
        .unwrap();
    assert_eq!(first, second, "one vault");
    let register = async |r| catalog.register(r).await.unwrap();
    assert_eq!(
        register(registration(9, 1, "abc", NOW_MS)).await,
        Registered::NotInvited
    );
    let late = registration(1, 1, "abc", NOW_MS + HOUR_MS);
    assert_eq!(register(late).await, Registered::NotInvited, "expired");
    let done = Registered::Done {
        vault: first,
        vid: None,
    };
    assert_eq!(register(registration(1, 1, "abc", NOW_MS)).await, done);
    assert_eq!(
        register(registration(1, 2, "def", NOW_MS)).await,
        Registered::NotInvited
    );
    // The same key again: its answer was lost. The token before is no good any more.
    let again = Registration {
        token: id(77),
        ..registration(1, 1, "abc", NOW_MS + 1)
    };
    assert_eq!(register(again).await, done);
    assert_eq!(catalog.authenticate(id(101)).await.unwrap(), None);
    assert_eq!(
        catalog.authenticate(id(77)).await.unwrap().unwrap().machine,
        MachineId(id(1))
    );
    // A second invitation keeps the machine.
    assert_eq!(register(registration(2, 1, "abc", NOW_MS)).await, done);
    assert_eq!(catalog.machines(first).await.unwrap().len(), 1);
}

async fn of_parallel_uses_one_wins(catalog: Arc<dyn Catalog>) {
    catalog
        .invite(id(1), NOW_MS, NOW_MS + HOUR_MS)
        .await
        .unwrap();
    let uses = (1..=50).map(|machine| {
        let name = format!("machine-{machine}");
        catalog.register(registration(1, machine, &name, NOW_MS))
    });
    let outcomes = futures_util::future::join_all(uses).await;
    let is_done = |outcome: &&Result<Registered, _>| matches!(outcome, Ok(Registered::Done { .. }));
    assert_eq!(outcomes.iter().filter(is_done).count(), 1);
    assert!(outcomes.iter().all(Result::is_ok));
}

async fn names_are_unique_while_they_are_used(catalog: &dyn Catalog) {
    let vault = joined(catalog, 1).await;
    catalog
        .invite(id(2), NOW_MS, NOW_MS + HOUR_MS)
        .await
        .unwrap();
    let same = || registration(2, 2, "machine-1", NOW_MS);
    assert_eq!(
        catalog.register(same()).await.unwrap(),
        Registered::NameTaken
    );
    assert!(
        catalog
            .revoke(vault, MachineId(id(1)), NOW_MS)
            .await
            .unwrap()
    );
    assert!(matches!(
        catalog.register(same()).await.unwrap(),
        Registered::Done { .. }
    ));
    catalog
        .invite(id(3), NOW_MS, NOW_MS + HOUR_MS)
        .await
        .unwrap();
    let back = registration(3, 1, "another", NOW_MS);
    assert_eq!(catalog.register(back).await.unwrap(), Registered::Revoked);
    let listed = catalog.machines(vault).await.unwrap();
    let listed: Vec<_> = listed
        .iter()
        .map(|m| (m.id.0[0], m.name.as_str(), m.revoked))
        .collect();
    assert_eq!(listed, [(2, "machine-1", false), (1, "machine-1", true)]);
}

async fn tokens_tell_who_asks(catalog: &dyn Catalog) {
    let vault = joined(catalog, 1).await;
    assert_eq!(catalog.authenticate(id(0)).await.unwrap(), None);
    let session = catalog.authenticate(id(101)).await.unwrap().unwrap();
    assert_eq!(
        (session.vault, session.vid, session.revoked),
        (vault, None, false)
    );
    let report = MachineReport {
        state: "syncing".to_owned(),
        synced_n: 3,
        files: 9,
    };
    catalog
        .report(vault, session.machine, report, NOW_MS + 5)
        .await
        .unwrap();
    let machine = catalog.machines(vault).await.unwrap().remove(0);
    let said = (
        machine.state.as_str(),
        machine.synced_n,
        machine.files,
        machine.last_seen_ms,
    );
    assert_eq!(said, ("syncing", 3, 9, NOW_MS + 5));
    assert!(
        !catalog
            .revoke(vault, MachineId(id(9)), NOW_MS)
            .await
            .unwrap()
    );
    assert!(
        catalog
            .revoke(vault, session.machine, NOW_MS)
            .await
            .unwrap()
    );
    assert!(
        catalog
            .authenticate(id(101))
            .await
            .unwrap()
            .unwrap()
            .revoked
    );
}

async fn the_log_grows_only_at_its_head(catalog: &dyn Catalog) {
    let vault = joined(catalog, 1).await;
    let append = async |c| catalog.append(vault, c).await.unwrap();
    assert_eq!(catalog.tip(vault).await.unwrap(), None);
    assert_eq!(append(commit(2, 1, &[])).await, Appended::Stale(None));
    assert_eq!(append(commit(1, 1, &[])).await, Appended::Done);
    let tip = Tip {
        n: 1,
        hash: hash(1),
        header: [1; HEADER_LEN],
    };
    assert_eq!(catalog.tip(vault).await.unwrap(), Some(tip.clone()));
    assert_eq!(
        catalog.authenticate(id(101)).await.unwrap().unwrap().vid,
        Some(VID)
    );
    let head = Head {
        n: 1,
        hash: hash(1),
    };
    let elsewhere = NewCommit {
        vid: VaultId([1; 16]),
        ..commit(2, 1, &[])
    };
    assert_eq!(append(elsewhere).await, Appended::OtherVault);
    for wrong in [
        commit(1, 1, &[]),
        commit(3, 1, &[]),
        NewCommit {
            prev: hash(9),
            ..commit(2, 1, &[])
        },
    ] {
        assert_eq!(append(wrong).await, Appended::Stale(Some(head)));
    }
    assert_eq!(
        append(commit(2, 1, &[5])).await,
        Appended::Missing(vec![ChunkId(id(5))])
    );
    assert_eq!(catalog.tip(vault).await.unwrap(), Some(tip));
    assert_eq!(append(commit(2, 1, &[])).await, Appended::Done);
}

async fn of_parallel_appends_one_wins(catalog: Arc<dyn Catalog>) {
    let vault = joined(&*catalog, 1).await;
    let appends = (0..20).map(|_| catalog.append(vault, commit(1, 1, &[])));
    let outcomes = futures_util::future::join_all(appends).await;
    let is_done = |outcome: &&Result<Appended, _>| matches!(outcome, Ok(Appended::Done));
    assert_eq!(outcomes.iter().filter(is_done).count(), 1);
}

async fn only_machines_of_the_vault_write(catalog: &dyn Catalog) {
    let vault = joined(catalog, 1).await;
    joined(catalog, 2).await;
    let append = async |c| catalog.append(vault, c).await.unwrap();
    assert_eq!(append(commit(1, 1, &[])).await, Appended::Done);
    let foreign = NewCommit {
        poster: MachineId(id(1)),
        ..commit(2, 9, &[])
    };
    assert_eq!(append(foreign).await, Appended::UnknownAuthor);
    let others = NewCommit {
        poster: MachineId(id(1)),
        ..commit(2, 2, &[])
    };
    assert_eq!(append(others).await, Appended::Done);
    // Removed in the same transaction; a machine that never registered is remembered too.
    let removal = NewCommit {
        revokes: vec![MachineId(id(2)), MachineId(id(7))],
        ..commit(3, 1, &[])
    };
    assert_eq!(append(removal).await, Appended::Done);
    assert!(
        catalog
            .authenticate(id(102))
            .await
            .unwrap()
            .unwrap()
            .revoked
    );
    let author = NewCommit {
        poster: MachineId(id(1)),
        ..commit(4, 2, &[])
    };
    assert_eq!(append(author).await, Appended::UnknownAuthor);
    let poster = NewCommit {
        poster: MachineId(id(2)),
        ..commit(4, 1, &[])
    };
    assert_eq!(append(poster).await, Appended::PosterRevoked);
    catalog
        .invite(id(7), NOW_MS, NOW_MS + HOUR_MS)
        .await
        .unwrap();
    let late = registration(7, 7, "late", NOW_MS);
    assert_eq!(catalog.register(late).await.unwrap(), Registered::Revoked);
}

async fn commits_come_in_order_and_within_the_limit(catalog: &dyn Catalog) {
    let vault = joined(catalog, 1).await;
    for n in 1..=5 {
        assert_eq!(
            catalog.append(vault, commit(n, 1, &[])).await.unwrap(),
            Appended::Done
        );
    }
    let found = catalog.commits(vault, 1, 3999).await.unwrap();
    let ns: Vec<_> = found
        .commits
        .iter()
        .map(|(n, served)| (*n, served[0], served.len()))
        .collect();
    assert_eq!(ns, [(2, 2, 1000), (3, 3, 1000), (4, 4, 1000)]);
    assert_eq!(found.too_long, None);
    let found = catalog.commits(vault, 1, 999).await.unwrap();
    assert_eq!((found.commits.len(), found.too_long), (0, Some(1000)));
    for (n, hash) in [(0, None), (3, Some(commit(3, 1, &[]).hash)), (6, None)] {
        assert_eq!(catalog.hash_at(vault, n).await.unwrap(), hash);
    }
    assert_eq!(catalog.commits(vault, 5, 9999).await.unwrap().commits, []);
    assert_eq!(
        catalog
            .commits(vault, u64::MAX, 9999)
            .await
            .unwrap()
            .commits,
        []
    );
}

async fn chunks_are_where_they_were_put_first(catalog: &dyn Catalog) {
    let vault = joined(catalog, 1).await;
    let record = async |p| catalog.record_pack(vault, p).await.unwrap();
    assert_eq!(
        record(pack(1, vec![chunk(1, 12, &[]), chunk(2, 4140, &[])])).await,
        2
    );
    assert_eq!(
        record(pack(2, vec![chunk(2, 12, &[]), chunk(3, 4140, &[])])).await,
        1
    );
    assert_eq!(record(pack(3, vec![chunk(1, 12, &[])])).await, 0);
    let ids: Vec<_> = [3, 9, 2, 1].map(|n| ChunkId(id(n))).to_vec();
    let at = |pack, offset| {
        Some(Location {
            pack: PackId(id(pack)),
            offset,
            len: 4124,
        })
    };
    assert_eq!(
        catalog.locate(vault, ids.clone()).await.unwrap(),
        [at(2, 4140), None, at(1, 4140), at(1, 12)]
    );
    assert_eq!(
        catalog.known(vault, ids).await.unwrap(),
        [true, false, true, true]
    );
}

async fn missing_reaches_through_lists(catalog: &dyn Catalog) {
    let vault = joined(catalog, 1).await;
    // 10 -> 11, 1; 11 -> 2, 3, 10? No chunk can name itself, but two may name the same.
    let chunks = vec![
        chunk(10, 12, &[11, 1, 11]),
        chunk(11, 5000, &[2, 3]),
        chunk(2, 10_000, &[]),
    ];
    catalog.record_pack(vault, pack(1, chunks)).await.unwrap();
    let ask = async |ids: &[u8], max| {
        let ids = ids.iter().map(|&n| ChunkId(id(n))).collect();
        let missing = catalog
            .missing(vault, ids, max, NOW_MS + 2 * HOUR_MS)
            .await
            .unwrap();
        missing.iter().map(|id| id.0[0]).collect::<Vec<_>>()
    };
    assert_eq!(ask(&[10, 3, 9, 9], 100).await, [3, 1, 9]);
    assert_eq!(ask(&[10, 3, 9], 2).await, [3, 1]);
    assert!(ask(&[2], 100).await.is_empty());
    assert!(ask(&[], 100).await.is_empty());
    catalog
        .record_pack(vault, pack(2, vec![chunk(1, 12, &[]), chunk(3, 5000, &[])]))
        .await
        .unwrap();
    assert!(ask(&[10], 100).await.is_empty());
}

fn gap(n: u8, bytes: std::ops::Range<u64>) -> Gap {
    Gap {
        pack: PackId(id(n)),
        bytes,
    }
}

async fn packs_are_told_in_order_and_in_pages(catalog: &dyn Catalog) {
    let vault = joined(catalog, 1).await;
    assert_eq!(catalog.packs(None, 9).await.unwrap(), []);
    for n in [0xff, 0, 7] {
        let chunks = vec![chunk(n, 12, &[])];
        catalog.record_pack(vault, pack(n, chunks)).await.unwrap();
    }
    // Nothing in it is new: nobody will ever ask for this one.
    let again = pack(3, vec![chunk(7, 12, &[])]);
    catalog.record_pack(vault, again).await.unwrap();
    // The second is of a pack that nobody recorded.
    let gaps = vec![gap(7, 9_990..10_000), gap(9, 0..10)];
    catalog.open_gaps(gaps).await.unwrap();
    let known = |n, is_cut| KnownPack {
        id: PackId(id(n)),
        len: 10_000,
        is_cut,
    };
    let all = [known(0, false), known(7, true), known(0xff, false)];
    assert_eq!(catalog.packs(None, 9).await.unwrap(), all);
    assert_eq!(catalog.packs(None, 2).await.unwrap(), all[..2]);
    let rest = catalog.packs(Some(all[1].id), 2).await.unwrap();
    assert_eq!(rest, all[2..]);
    assert_eq!(catalog.packs(Some(all[2].id), 2).await.unwrap(), []);
}

async fn what_lies_in_a_gap_is_missing_until_it_is_sent_again(catalog: &dyn Catalog) {
    let vault = joined(catalog, 1).await;
    let append = async |c| catalog.append(vault, c).await.unwrap();
    // 2 is a list of 1 and 3; each chunk is 4124 bytes long.
    let chunks = vec![
        chunk(1, 12, &[]),
        chunk(2, 4140, &[1, 3]),
        chunk(3, 8268, &[]),
    ];
    catalog.record_pack(vault, pack(1, chunks)).await.unwrap();
    assert_eq!(append(commit(1, 1, &[1])).await, Appended::Done);
    assert_eq!(catalog.lost().await.unwrap(), Lost::default());
    // Not a byte of 1 and 3 is in it.
    catalog.open_gaps(vec![gap(1, 4136..8268)]).await.unwrap();
    let ids: Vec<_> = [1, 2, 3].map(|n| ChunkId(id(n))).to_vec();
    let known = async || catalog.known(vault, ids.clone()).await.unwrap();
    let missing = async |roots: &[u8]| {
        let roots = roots.iter().map(|&n| ChunkId(id(n))).collect();
        catalog.missing(vault, roots, 9, NOW_MS).await.unwrap()
    };
    assert_eq!(known().await, [true, false, true]);
    assert_eq!(missing(&[2]).await, [ids[1]]);
    // One byte of 3 is; noted with a part of it, too, which makes the gap no smaller.
    for bytes in [12_391..20_000, 12_391..12_392] {
        catalog.open_gaps(vec![gap(1, bytes)]).await.unwrap();
    }
    assert_eq!(known().await, [true, false, false]);
    assert_eq!(missing(&[1, 2, 3]).await, ids[1..]);
    let lost = Lost {
        chunks: 2,
        packs: 1,
    };
    assert_eq!(catalog.lost().await.unwrap(), lost);
    assert_eq!(
        append(commit(2, 1, &[1, 2])).await,
        Appended::Missing(vec![ids[1]])
    );
    // It is where it was: whoever wants it may try.
    let at = |pack, offset| {
        Some(Location {
            pack: PackId(id(pack)),
            offset,
            len: 4124,
        })
    };
    let located = async || catalog.locate(vault, ids.clone()).await.unwrap();
    assert_eq!(located().await, [at(1, 12), at(1, 4140), at(1, 8268)]);
    // Sent again, with one that is there.
    let chunks = vec![chunk(1, 12, &[]), chunk(2, 4140, &[1, 3])];
    assert_eq!(
        catalog.record_pack(vault, pack(2, chunks)).await.unwrap(),
        1
    );
    assert_eq!(located().await, [at(1, 12), at(2, 4140), at(1, 8268)]);
    assert_eq!(missing(&[2]).await, [ids[2]]);
    let chunks = vec![chunk(3, 12, &[])];
    assert_eq!(
        catalog.record_pack(vault, pack(3, chunks)).await.unwrap(),
        1
    );
    assert_eq!(known().await, [true, true, true]);
    assert_eq!(catalog.lost().await.unwrap(), Lost::default());
    assert_eq!(append(commit(2, 1, &[1, 2])).await, Appended::Done);
}

async fn a_gap_that_is_closed_leaves_nothing(catalog: &dyn Catalog) {
    let vault = joined(catalog, 1).await;
    for n in [1, 2, 3] {
        let chunks = vec![chunk(n, 12, &[])];
        catalog.record_pack(vault, pack(n, chunks)).await.unwrap();
    }
    let gaps = vec![gap(1, 0..10_000), gap(2, 0..10_000), gap(3, 50..60)];
    catalog.open_gaps(gaps).await.unwrap();
    let ids: Vec<_> = [1, 2, 3].map(|n| ChunkId(id(n))).to_vec();
    let cut = async || {
        let packs: Vec<_> = catalog.packs(None, 9).await.unwrap();
        packs.iter().map(|pack| pack.is_cut).collect::<Vec<_>>()
    };
    assert_eq!(cut().await, [true, true, false]);
    // That a pack has its length says nothing of a part that could not be read.
    let closed = vec![PackId(id(1)), PackId(id(3)), PackId(id(9))];
    catalog.close_gaps(closed).await.unwrap();
    let known = catalog.known(vault, ids).await.unwrap();
    assert_eq!(known, [true, false, false]);
    assert_eq!(cut().await, [false, true, false]);
}

async fn of_parallel_uploads_into_a_gap_one_counts(catalog: Arc<dyn Catalog>) {
    let vault = joined(&*catalog, 1).await;
    let chunks = || vec![chunk(1, 12, &[])];
    catalog.record_pack(vault, pack(1, chunks())).await.unwrap();
    catalog.open_gaps(vec![gap(1, 0..10_000)]).await.unwrap();
    let uploads = (2..22).map(|n| catalog.record_pack(vault, pack(n, chunks())));
    let stored = futures_util::future::join_all(uploads).await;
    let stored: u32 = stored.into_iter().map(Result::unwrap).sum();
    assert_eq!(stored, 1);
    assert_eq!(catalog.packs(None, 99).await.unwrap().len(), 2);
}

async fn slots_keep_the_one_before(catalog: &dyn Catalog) {
    let vault = joined(catalog, 1).await;
    let put = async |kind, n: u8| {
        catalog
            .put_slot(vault, kind, vec![n; 172], NOW_MS)
            .await
            .unwrap()
    };
    let get = async |kind| {
        let slot = catalog.slot(vault, kind).await.unwrap()?;
        Some((slot.current[0], slot.previous.map(|slot| slot[0])))
    };
    assert_eq!(get(1).await, None);
    put(1, 1).await;
    assert_eq!(get(1).await, Some((1, None)));
    put(1, 2).await;
    put(1, 2).await;
    assert_eq!(get(1).await, Some((2, Some(1))));
    assert_eq!(get(2).await, None);
}

async fn what_was_lost_comes_back_while_it_is_marked(catalog: &dyn Catalog) {
    let vault = joined(catalog, 1).await;
    let append = async |commit| catalog.append(vault, commit).await.unwrap();
    let lost = |n, author, refs: &[u8]| NewCommit {
        lost: true,
        poster: MachineId(id(1)),
        ..commit(n, author, refs)
    };
    assert_eq!(append(commit(1, 1, &[])).await, Appended::Done);
    // Without the mark, and beside it for what is not said to be lost, everything has to be there.
    assert_eq!(append(lost(2, 1, &[9])).await, Appended::NotRestored);
    catalog.set_restored(vault, NOW_MS).await.unwrap();
    assert_eq!(append(lost(2, 1, &[9])).await, Appended::NotRestored);
    catalog.set_restored(vault, NOW_MS + 1).await.unwrap();
    assert_eq!(
        catalog.vaults().await.unwrap()[0].restored_until_ms,
        NOW_MS + 1
    );
    let missing = Appended::Missing(vec![ChunkId(id(9))]);
    assert_eq!(append(commit(2, 1, &[9])).await, missing);
    assert_eq!(append(lost(2, 1, &[9])).await, Appended::Done);
    // Machines that are not known come back with the commit that enrols them, and only so.
    for author in [7, 8] {
        let n = u64::from(author) - 4;
        assert_eq!(append(lost(n, author, &[])).await, Appended::UnknownAuthor);
        let enrols = NewCommit {
            enrols: true,
            ..lost(n, author, &[])
        };
        assert_eq!(append(enrols).await, Appended::Done);
    }
    assert_eq!(append(lost(5, 7, &[])).await, Appended::Done);
    // A machine that was removed does not, whatever its commit says.
    catalog
        .revoke(vault, MachineId(id(8)), NOW_MS)
        .await
        .unwrap();
    let enrols = NewCommit {
        enrols: true,
        ..lost(6, 8, &[])
    };
    assert_eq!(append(enrols).await, Appended::UnknownAuthor);
    // It gets a token, and a name, once it registers.
    catalog
        .invite(id(50), NOW_MS, NOW_MS + HOUR_MS)
        .await
        .unwrap();
    let again = registration(50, 7, "seven", NOW_MS);
    let done = catalog.register(again).await.unwrap();
    assert!(matches!(done, Registered::Done { .. }));
    catalog.set_restored(vault, 0).await.unwrap();
    assert_eq!(append(lost(6, 7, &[])).await, Appended::NotRestored);
}

async fn a_tail_is_cut_whole(catalog: &dyn Catalog) {
    let vault = joined(catalog, 1).await;
    for n in 1..=4 {
        let done = catalog.append(vault, commit(n, 1, &[])).await.unwrap();
        assert_eq!(done, Appended::Done);
    }
    let tail = catalog.tail(vault, 2).await.unwrap();
    let seen = tail.iter().map(|row| (row.n, row.name.as_str()));
    assert_eq!(
        seen.collect::<Vec<_>>(),
        [(3, "machine-1"), (4, "machine-1")]
    );
    assert_eq!(catalog.cut(vault, 9).await.unwrap(), 0);
    assert_eq!(catalog.cut(vault, 2).await.unwrap(), 2);
    assert_eq!(catalog.tip(vault).await.unwrap().unwrap().n, 2);
    assert_eq!(catalog.vaults().await.unwrap()[0].n, 2);
    let done = catalog.append(vault, commit(3, 1, &[])).await.unwrap();
    assert_eq!(done, Appended::Done);
}
