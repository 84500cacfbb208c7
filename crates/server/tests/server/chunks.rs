//! Packs in, chunks out.

use std::fs;
use std::path::Path;

use axum::body::Body;
use http::Method;
use syncagent_protocol::Code;
use syncagent_protocol::api::PackReceipt;
use syncagent_protocol::pack::{MAX_PACK_LEN, PACK_HEADER};
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
