//! Packs in, chunks out.

use std::fs;
use std::path::Path;

use axum::body::Body;
use http::Method;
use syncagent_protocol::api::PackReceipt;
use syncagent_protocol::pack::{MAX_PACK_LEN, PACK_HEADER};
use syncagent_protocol::{ChunkId, Code};
use syncagent_server::Work;

use crate::world::{Machine, VAULT, World, blob, framed, id, ids, list, pack, send};

async fn founded_on(data: &Path) -> (World, Machine) {
    let world = World::on(data);
    let a = world.machine(1).await;
    world.post(&a, &a.genesis(VAULT)).await.ok();
    (world, a)
}

fn receipt(stored: u32, known: u32) -> PackReceipt {
    PackReceipt { stored, known }
}

/// Every file below the packs directory.
fn files(data: &Path) -> Vec<(String, u64)> {
    let mut found = Vec::new();
    for directory in fs::read_dir(data.join("packs")).unwrap() {
        for file in fs::read_dir(directory.unwrap().path()).unwrap() {
            let file = file.unwrap();
            found.push((
                file.path().display().to_string(),
                file.metadata().unwrap().len(),
            ));
        }
    }
    found
}

#[tokio::test]
async fn what_goes_in_comes_out() {
    let dir = tempfile::tempdir().unwrap();
    for (world, a) in [founded_on(dir.path()).await, {
        let world = World::with_work(Work::Inline);
        let a = world.machine(1).await;
        world.post(&a, &a.genesis(VAULT)).await.ok();
        (world, a)
    }] {
        // Shorter and longer than a piece, next to each other and apart.
        let blobs: Vec<_> = (0..40)
            .map(|i| {
                blob(
                    i,
                    if i % 7 == 3 {
                        700_000
                    } else {
                        5000 * i as usize
                    },
                )
            })
            .collect();
        let (first, second) = blobs.split_at(25);
        assert_eq!(
            world.upload(&a, first).await.ok().json::<PackReceipt>(),
            receipt(25, 0)
        );
        assert_eq!(
            world.upload(&a, second).await.ok().json::<PackReceipt>(),
            receipt(15, 0)
        );
        let absent = blob(999, 0);
        let orders: [Vec<usize>; 3] = [
            (0..40).collect(),
            (0..40).rev().collect(),
            vec![3, 3, 30, 4, 5, 39, 6, 0],
        ];
        for order in orders {
            let mut asked: Vec<_> = order.iter().map(|&i| id(&blobs[i])).collect();
            asked.insert(asked.len() / 2, id(&absent));
            let got = world
                .post_to(&a, "chunks/fetch", ids(&asked))
                .await
                .ok()
                .framed();
            assert_eq!(got.len(), asked.len());
            for (got, asked) in got.iter().zip(&asked) {
                if *asked == id(&absent) {
                    assert!(got.is_empty())
                } else {
                    assert_eq!(id(got), *asked)
                }
            }
        }
        assert!(
            world
                .post_to(&a, "chunks/fetch", vec![])
                .await
                .ok()
                .body
                .is_empty()
        );
    }
}

#[tokio::test]
async fn one_chunk_is_cacheable_for_ever() {
    let (world, a, _, _) = World::founded().await;
    let chunk = blob(1, 600_000);
    world.upload(&a, std::slice::from_ref(&chunk)).await.ok();
    let resource = format!("chunks/{}", id(&chunk));
    let answer = world.get(&a, &resource).await.ok();
    assert_eq!(answer.body, chunk);
    assert!(
        answer.headers["cache-control"]
            .to_str()
            .unwrap()
            .contains("immutable")
    );
    assert_eq!(answer.headers["content-length"], chunk.len().to_string());
    let mut request = a.request(Method::GET, &resource, Vec::new());
    request
        .headers_mut()
        .insert("if-none-match", answer.headers["etag"].clone());
    assert_eq!(send(&world.app, request).await.status, 304);
    world
        .get(&a, &format!("chunks/{}", "00".repeat(32)))
        .await
        .problem(404, Code::NotFound);
    world.get(&a, "chunks/xyz").await.problem(400, Code::Usage);
}

#[tokio::test]
async fn a_chunk_is_stored_once() {
    let dir = tempfile::tempdir().unwrap();
    let (world, a) = founded_on(dir.path()).await;
    let [x, y, z] = [1, 2, 3].map(|i| blob(i, 10_000));
    assert_eq!(
        world
            .upload(&a, &[x.clone(), x.clone()])
            .await
            .ok()
            .json::<PackReceipt>(),
        receipt(1, 1)
    );
    assert_eq!(files(dir.path())[0].1, 8 + 4 + x.len() as u64);
    let again = world
        .upload(&a, std::slice::from_ref(&x))
        .await
        .ok()
        .json::<PackReceipt>();
    assert_eq!(again, receipt(0, 1));
    assert_eq!(files(dir.path()).len(), 1);
    let mixed = [y.clone(), x.clone(), z.clone(), y.clone()];
    assert_eq!(
        world.upload(&a, &mixed).await.ok().json::<PackReceipt>(),
        receipt(2, 2)
    );
    assert_eq!(
        files(dir.path()).iter().map(|f| f.1).sum::<u64>(),
        2 * 8 + 3 * (4 + x.len() as u64)
    );
    let got = world
        .post_to(&a, "chunks/fetch", ids(&[id(&z), id(&x), id(&y)]))
        .await
        .ok()
        .framed();
    assert_eq!(got, [z, x, y]);
    assert_eq!(
        world.upload(&a, &[]).await.ok().json::<PackReceipt>(),
        receipt(0, 0)
    );
}

#[tokio::test]
async fn the_same_chunks_in_parallel_are_stored_once() {
    let dir = tempfile::tempdir().unwrap();
    let (world, a) = founded_on(dir.path()).await;
    let blobs: Vec<_> = (0..20).map(|i| blob(i, 0)).collect();
    let uploads = (0..10).map(|_| world.upload(&a, &blobs));
    let receipts = futures_util::future::join_all(uploads).await;
    let stored: u32 = receipts
        .into_iter()
        .map(|r| r.ok().json::<PackReceipt>().stored)
        .sum();
    assert_eq!(stored, 20);
    // A pack of which nothing was new is gone again.
    assert_eq!(files(dir.path()).len(), 1);
}

#[tokio::test]
async fn a_bad_pack_leaves_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let (world, a) = founded_on(dir.path()).await;
    let good = blob(1, 300_000);
    let bad = |at: usize, to: u8| {
        let mut bad = blob(2, 0);
        bad[at] = to;
        pack(&[good.clone(), bad])
    };
    let whole = pack(&[good.clone(), blob(2, 0)]);
    let rows = [
        ("no header", whole[8..].to_vec()),
        ("another version", [b"SAPK\x02\0\0\0", &whole[8..]].concat()),
        ("empty", vec![]),
        ("cut in the header", PACK_HEADER[..5].to_vec()),
        ("cut in a length", whole[..10].to_vec()),
        ("cut in a chunk", whole[..whole.len() - 1].to_vec()),
        ("bytes left over", [&whole[..], &[0, 0]].concat()),
        ("chunk magic", bad(0, 0)),
        ("chunk version", bad(4, 2)),
        ("chunk algorithm", bad(5, 2)),
        ("chunk kind", bad(6, 2)),
        ("chunk epoch", bad(8, 2)),
        ("too short", pack(&[good.clone(), vec![0; 100]])),
        (
            "a length that no frame has",
            pack(&[good.clone(), blob(2, 5000)[..4200].to_vec()]),
        ),
        (
            "too long",
            [&pack(std::slice::from_ref(&good))[..], &[0xff; 4]].concat(),
        ),
        ("list of none", pack(&[list(&[])])),
        (
            "list beyond the chunk",
            pack(&[{
                let mut l = list(&[id(&good)]);
                l[14] = 1;
                l
            }]),
        ),
    ];
    for (what, body) in rows {
        let answer = world.post_to(&a, "packs", body).await;
        assert_eq!(answer.status, 400, "{what}");
        answer.problem(400, Code::Chunk);
        assert_eq!(files(dir.path()), [], "{what}");
    }
    let long = vec![0; MAX_PACK_LEN + 1];
    world
        .post_to(&a, "packs", long)
        .await
        .problem(413, Code::Limit);
    // A body that breaks off with an error.
    let pieces = [
        Ok(whole[..200_000].to_vec()),
        Err(std::io::Error::other("gone")),
    ];
    let mut request = a.request(Method::POST, "packs", Vec::new());
    *request.body_mut() = Body::from_stream(futures_util::stream::iter(pieces));
    send(&world.app, request).await.problem(400, Code::Usage);
    assert_eq!(files(dir.path()), []);
    let missing = world
        .post_to(&a, "chunks/missing", ids(&[id(&good)]))
        .await
        .ok()
        .body;
    assert_eq!(missing, id(&good).0);
}

#[tokio::test(start_paused = true)]
async fn a_body_that_stands_still_is_given_up() {
    let (world, a, _, _) = World::founded().await;
    let pieces = futures_util::StreamExt::chain(
        futures_util::stream::iter([Ok::<_, std::io::Error>(PACK_HEADER.to_vec())]),
        futures_util::stream::pending(),
    );
    let mut request = a.request(Method::POST, "packs", Vec::new());
    *request.body_mut() = Body::from_stream(pieces);
    send(&world.app, request).await.problem(408, Code::Busy);
}

#[tokio::test]
async fn a_body_may_come_byte_by_byte() {
    let (world, a, _, _) = World::founded().await;
    let blobs = [
        list(&[id(&blob(1, 0)), id(&blob(2, 0))]),
        blob(1, 0),
        blob(2, 0),
    ];
    let bytes: Vec<_> = pack(&blobs)
        .chunks(1)
        .map(|b| Ok::<_, std::io::Error>(b.to_vec()))
        .collect();
    let mut request = a.request(Method::POST, "packs", Vec::new());
    *request.body_mut() = Body::from_stream(futures_util::stream::iter(bytes));
    assert_eq!(
        send(&world.app, request).await.ok().json::<PackReceipt>(),
        receipt(3, 0)
    );
    let asked = ids(&[id(&blobs[0])]);
    assert!(
        world
            .post_to(&a, "chunks/missing", asked)
            .await
            .ok()
            .body
            .is_empty()
    );
}

#[tokio::test]
async fn missing_tells_the_whole_closure_once() {
    let (world, a, _, _) = World::founded().await;
    let leaves: Vec<_> = (0..6).map(|i| blob(i, 0)).collect();
    let leaf = |i: usize| id(&leaves[i]);
    let inner = list(&[leaf(0), leaf(1), leaf(0)]);
    let outer = list(&[id(&inner), leaf(2), leaf(1)]);
    world
        .upload(&a, &[outer.clone(), inner.clone(), leaves[2].clone()])
        .await
        .ok();
    let asked = ids(&[leaf(5), id(&outer), leaf(5), leaf(2)]);
    let answer = world.post_to(&a, "chunks/missing", asked).await.ok();
    assert_eq!(answer.body, ids(&[leaf(5), leaf(0), leaf(1)]));
    world
        .post_to(&a, "chunks/missing", vec![0; 33])
        .await
        .problem(400, Code::Usage);
    let too_many = vec![0; 32 * 16_385];
    world
        .post_to(&a, "chunks/missing", too_many)
        .await
        .problem(413, Code::Limit);
}

#[tokio::test]
async fn a_pack_that_is_gone_reads_as_not_there() {
    let dir = tempfile::tempdir().unwrap();
    let (world, a) = founded_on(dir.path()).await;
    let [x, y] = [blob(1, 0), blob(2, 0)];
    world.upload(&a, std::slice::from_ref(&x)).await.ok();
    fs::remove_file(&files(dir.path())[0].0).unwrap();
    world.upload(&a, std::slice::from_ref(&y)).await.ok();
    let got = world
        .post_to(&a, "chunks/fetch", ids(&[id(&x), id(&y)]))
        .await
        .ok();
    assert_eq!(framed(&got.body), [vec![], y]);
    world
        .get(&a, &format!("chunks/{}", id(&x)))
        .await
        .problem(404, Code::NotFound);
}

#[tokio::test]
async fn leftovers_of_a_crash_are_removed_at_the_start() {
    let dir = tempfile::tempdir().unwrap();
    drop(World::on(dir.path()));
    let left = dir.path().join("packs/incoming").join("00ff".repeat(8));
    fs::write(&left, b"half a pack").unwrap();
    let _world = World::on(dir.path());
    assert!(!left.exists());
}

/// What is asked for again, of these.
async fn missing(world: &World, machine: &Machine, asked: &[ChunkId]) -> Vec<u8> {
    let answer = world.post_to(machine, "chunks/missing", ids(asked)).await;
    answer.ok().body
}

#[tokio::test]
async fn a_pack_that_is_found_gone_or_cut_is_asked_for_again() {
    let dir = tempfile::tempdir().unwrap();
    let (world, a) = founded_on(dir.path()).await;
    // Short, and longer than a piece; each in a pack of its own, and behind one that stays whole.
    for (round, len) in [(0, 0), (10, 700_000)] {
        for how in ["gone", "cut", "gone, one by one", "cut, in the other order"] {
            let seed = round + how.len() as u32 * 100;
            let [first, second, third] = [0, 1, 2].map(|i| blob(seed + i, len));
            let all = [id(&first), id(&second), id(&third)];
            let before = files(dir.path());
            let blobs = [first.clone(), second.clone(), third.clone()];
            world.upload(&a, &blobs).await.ok();
            let new = { files(dir.path()).into_iter() }.find(|file| !before.contains(file));
            let (path, _) = new.unwrap();
            let is_cut = how.starts_with("cut");
            match is_cut {
                true => {
                    let pack = fs::File::options().write(true).open(&path).unwrap();
                    // In the middle of the second.
                    pack.set_len(8 + 3 * 4 + first.len() as u64 + 100).unwrap();
                }
                false => fs::remove_file(&path).unwrap(),
            }
            assert!(missing(&world, &a, &all).await.is_empty(), "unseen");
            match how {
                "gone, one by one" => {
                    let resource = format!("chunks/{}", all[1]);
                    let answer = world.get(&a, &resource).await;
                    answer.problem(404, Code::NotFound);
                }
                "cut, in the other order" => {
                    let asked = ids(&[all[2], all[1], all[0]]);
                    let got = world.post_to(&a, "chunks/fetch", asked).await.ok();
                    assert_eq!(framed(&got.body)[2], first);
                }
                _ => {
                    let got = world.post_to(&a, "chunks/fetch", ids(&all)).await.ok();
                    assert_eq!(framed(&got.body).len(), 3);
                }
            }
            let lost = if is_cut { &all[1..] } else { &all[..] };
            assert_eq!(missing(&world, &a, &all).await, ids(lost), "{how}");
            // No commit may name them, and whoever has them gives them back.
            let commit = a.put(world.head(&a).await, &all);
            let problem = world.post(&a, &commit).await.problem(422, Code::Missing);
            assert_eq!(problem.missing, lost, "{how}");
            let stored = lost.len() as u32;
            let answer = world.upload(&a, &blobs).await.ok();
            assert_eq!(answer.json::<PackReceipt>(), receipt(stored, 3 - stored));
            world.post(&a, &commit).await.ok();
            let got = world.post_to(&a, "chunks/fetch", ids(&all)).await.ok();
            assert_eq!(framed(&got.body), blobs, "{how}");
        }
    }
}

#[tokio::test]
async fn what_is_sent_again_takes_the_place_of_what_cannot_be_read() {
    let dir = tempfile::tempdir().unwrap();
    let (world, a) = founded_on(dir.path()).await;
    for (round, damage) in ["gone", "cut", "one byte"].into_iter().enumerate() {
        let blobs = [0, 1].map(|i| blob(round as u32 * 10 + i, 600_000));
        let before = files(dir.path());
        world.upload(&a, &blobs).await.ok();
        let new = { files(dir.path()).into_iter() }.find(|file| !before.contains(file));
        let (path, len) = new.unwrap();
        match damage {
            "gone" => fs::remove_file(&path).unwrap(),
            "cut" => fs::write(&path, &fs::read(&path).unwrap()[..len as usize - 1]).unwrap(),
            _ => {
                let mut bytes = fs::read(&path).unwrap();
                bytes[len as usize - 1] ^= 1;
                fs::write(&path, bytes).unwrap();
            }
        }
        // Nobody looked at it: the catalog still says that both are there.
        let stored = if damage == "gone" { 2 } else { 1 };
        let answer = world.upload(&a, &blobs).await.ok();
        assert_eq!(
            answer.json::<PackReceipt>(),
            receipt(stored, 2 - stored),
            "{damage}"
        );
        let asked = ids(&[id(&blobs[0]), id(&blobs[1])]);
        let got = world.post_to(&a, "chunks/fetch", asked).await.ok();
        assert_eq!(framed(&got.body), blobs, "{damage}");
    }
}

#[tokio::test]
async fn uploads_and_commits_beside_each_other_fill_a_gap_once() {
    let dir = tempfile::tempdir().unwrap();
    let (world, a) = founded_on(dir.path()).await;
    let blobs: Vec<_> = (0..20).map(|i| blob(i, 0)).collect();
    let all: Vec<_> = blobs.iter().map(|blob| id(blob)).collect();
    world.upload(&a, &blobs).await.ok();
    fs::remove_file(&files(dir.path())[0].0).unwrap();
    world.app.compare().await.unwrap();
    let commit = a.put(world.head(&a).await, &all);
    let uploads = futures_util::future::join_all((0..10).map(|_| world.upload(&a, &blobs)));
    let (receipts, early) = tokio::join!(uploads, world.post(&a, &commit));
    let stored = { receipts.into_iter() }.map(|r| r.ok().json::<PackReceipt>().stored);
    assert_eq!(stored.sum::<u32>(), 20);
    assert_eq!(files(dir.path()).len(), 1);
    // Whichever was first: a commit that was taken names what is there.
    assert!(early.status.is_success() || early.status == 422);
    let got = world.post_to(&a, "chunks/fetch", ids(&all)).await.ok();
    assert_eq!(framed(&got.body), blobs);
}

#[tokio::test]
async fn what_a_restored_catalog_names_in_vain_is_asked_for_again() {
    let dir = tempfile::tempdir().unwrap();
    let (world, a) = founded_on(dir.path()).await;
    let old = blob(1, 0);
    world.upload(&a, std::slice::from_ref(&old)).await.ok();
    let known = files(dir.path());
    let new = [blob(2, 0), blob(3, 0)];
    let roof = list(&[id(&new[0]), id(&old)]);
    world.upload(&a, &new).await.ok();
    world.upload(&a, std::slice::from_ref(&roof)).await.ok();
    let asked = [id(&old), id(&roof), id(&new[1])];
    let commit = a.put(world.head(&a).await, &asked);
    world.post(&a, &commit).await.ok();
    drop(world);
    // Packs of before, and the catalog of now.
    let gone: Vec<_> = { files(dir.path()).into_iter() }
        .filter(|file| !known.contains(file))
        .map(|(path, _)| (fs::read(&path).unwrap(), path))
        .collect();
    for (_, path) in &gone {
        fs::remove_file(path).unwrap();
    }
    let world = World::on(dir.path());
    let compared = world.app.compare().await.unwrap();
    assert_eq!(
        (compared.known, compared.broken, compared.lost.chunks),
        (3, 2, 3)
    );
    assert_eq!(missing(&world, &a, &asked).await, ids(&asked[1..]));
    // Its disk was only not mounted: nothing was forgotten.
    for (bytes, path) in gone {
        fs::write(path, bytes).unwrap();
    }
    drop(world);
    let world = World::on(dir.path());
    let compared = world.app.compare().await.unwrap();
    assert_eq!((compared.broken, compared.back), (0, 2));
    assert!(missing(&world, &a, &asked).await.is_empty());
}

#[tokio::test]
async fn a_pack_that_was_refused_leaves_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let (world, a) = founded_on(dir.path()).await;
    let catalog = rusqlite::Connection::open(dir.path().join("syncagent.db")).unwrap();
    let refuse =
        "CREATE TRIGGER refuse BEFORE INSERT ON packs BEGIN SELECT RAISE(FAIL, 'refused'); END";
    catalog.execute_batch(refuse).unwrap();
    for seed in [1, 2] {
        let answer = world.upload(&a, &[blob(seed, 0)]).await;
        answer.problem(500, Code::Server);
        assert_eq!(files(dir.path()).len(), 0, "after upload {seed}");
    }
    catalog.execute_batch("DROP TRIGGER refuse").unwrap();
    world.upload(&a, &[blob(2, 0)]).await.ok();
    assert_eq!(files(dir.path()).len(), 1);
    let got = world
        .post_to(&a, "chunks/fetch", ids(&[id(&blob(2, 0))]))
        .await;
    assert_eq!(framed(&got.ok().body), [blob(2, 0)]);
}

#[tokio::test]
async fn packs_that_no_catalog_names_are_left_alone() {
    let dir = tempfile::tempdir().unwrap();
    let (world, a) = founded_on(dir.path()).await;
    world.upload(&a, &[blob(1, 0)]).await.ok();
    let id = "0f".repeat(16);
    let left = dir.path().join("packs").join("0f").join(&id);
    fs::create_dir_all(left.parent().unwrap()).unwrap();
    fs::write(&left, pack(&[blob(2, 0)])).unwrap();
    let compared = world.app.compare().await.unwrap();
    assert_eq!((compared.known, compared.unknown), (1, 1));
    assert!(left.exists());
}
