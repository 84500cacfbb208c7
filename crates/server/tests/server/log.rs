//! The rules of the log, row by row.

use syncagent_protocol::Code;
use syncagent_protocol::api::{AFTER_HEADER, HEAD_HEADER, Head};
use syncagent_protocol::commit::{Commit, HEADER_LEN, MAX_COMMIT_LEN, OpBody, OpKind};
use syncagent_protocol::time::Clock as _;
use syncagent_protocol::{CommitHash, NodeId, VaultId, sha256};
use syncagent_server::OpenError;
use syncagent_server::admin::Admin;

use crate::world::{VAULT, World, blob, framed, id, list, op, op_of, send};

#[tokio::test]
async fn the_first_commit_opens_the_vault_and_others_follow() {
    let (world, a, b, head) = World::founded().await;
    assert_eq!(head.n, 1);
    assert_eq!(world.head(&b).await, head);
    let second = b.put(head, &[]);
    let head: Head = world.post(&b, &second).await.ok().json();
    assert_eq!(head.n, 2);

    let page = world.get(&a, "commits?after=0").await.ok();
    assert_eq!(page.headers[HEAD_HEADER], "2");
    let parts = page.framed();
    assert_eq!(parts.len(), 2);
    let commit = Commit::parse_served(&parts[1]).unwrap();
    assert_eq!(commit.hash(), head.hash);
    commit.verify().unwrap();
    assert_eq!(parts[1], Commit::parse(&second).unwrap().to_served());
    assert!(world.get(&a, "commits?after=2").await.ok().body.is_empty());
    assert!(world.get(&a, "commits?after=9").await.ok().body.is_empty());
    // A machine that comes back sees at once whether this is the log it knows.
    for (after, hash) in [
        (0, None),
        (1, Some(page_hash(&parts[0]))),
        (2, Some(head.hash)),
        (3, None),
    ] {
        let page = world.get(&a, &format!("commits?after={after}")).await.ok();
        let said = page.headers.get(AFTER_HEADER);
        let said = said.map(|hash| hash.to_str().unwrap().parse().unwrap());
        assert_eq!(said, hash, "after {after}");
    }
}

fn page_hash(served: &[u8]) -> CommitHash {
    Commit::parse_served(served).unwrap().hash()
}

#[tokio::test]
async fn before_the_first_commit_the_head_is_the_beginning() {
    let world = World::new();
    let a = world.machine(1).await;
    assert_eq!(
        world.head(&a).await,
        Head {
            n: 0,
            hash: CommitHash::genesis(VAULT)
        }
    );
    assert!(world.get(&a, "commits?after=0").await.ok().body.is_empty());
    world
        .upload(&a, &[blob(1, 0)])
        .await
        .problem(404, Code::NotFound);
}

#[tokio::test]
async fn a_commit_that_does_not_stand_on_the_head_is_answered_with_it() {
    let (world, a, b, first) = World::founded().await;
    let head: Head = world.post(&a, &a.put(first, &[])).await.ok().json();
    let rows = [
        ("stale", b.put(first, &[])),
        (
            "too far",
            b.put(
                Head {
                    n: head.n + 1,
                    ..head
                },
                &[],
            ),
        ),
        (
            "other base",
            b.put(
                Head {
                    hash: CommitHash([9; 32]),
                    ..head
                },
                &[],
            ),
        ),
        ("first again", b.genesis(VAULT)),
    ];
    for (what, commit) in rows {
        let problem = world.post(&b, &commit).await.problem(409, Code::Conflict);
        assert_eq!(problem.head, Some(head), "{what}");
    }
    assert_eq!(world.head(&a).await, head);
}

#[tokio::test]
async fn the_same_commit_again_is_answered_as_the_first_time() {
    let (world, a, b, first) = World::founded().await;
    let commit = a.put(first, &[]);
    let head: Head = world.post(&a, &commit).await.ok().json();
    assert_eq!(world.post(&a, &commit).await.ok().json::<Head>(), head);
    // Whoever posts it: `recover` posts other machines' commits.
    assert_eq!(world.post(&b, &commit).await.ok().json::<Head>(), head);
    // The same header with another body is not the same commit.
    let mut other = commit.clone();
    other[HEADER_LEN + 40] ^= 1;
    world.post(&a, &other).await.problem(400, Code::Commit);
    let mut other = commit.clone();
    let last = other.len() - 1;
    other[last] ^= 1;
    world.post(&a, &other).await.problem(400, Code::Commit);
    // Once the log has gone on, it is stale like any other.
    let next: Head = world.post(&b, &b.put(head, &[])).await.ok().json();
    assert_eq!(
        world
            .post(&a, &commit)
            .await
            .problem(409, Code::Conflict)
            .head,
        Some(next)
    );
}

#[tokio::test]
async fn another_vault_is_refused() {
    let (world, a, _, head) = World::founded().await;
    let other = VaultId([0xbb; 16]);
    // In the commit.
    world
        .post(
            &a,
            &a.seal(other, head, vec![op(OpKind::Trash, NodeId([1; 16]), &[])]),
        )
        .await
        .problem(403, Code::Vault);
    // In the path.
    let mut request = a.request(http::Method::GET, "head", Vec::new());
    *request.uri_mut() = syncagent_protocol::api::vault_path(other, "head")
        .parse()
        .unwrap();
    send(&world.app, request).await.problem(403, Code::Vault);
    // In a first commit, by a machine of the same invitation row that made its own key.
    let mut request = a.request(http::Method::POST, "commits", a.genesis(other));
    *request.uri_mut() = syncagent_protocol::api::vault_path(other, "commits")
        .parse()
        .unwrap();
    send(&world.app, request).await.problem(403, Code::Vault);
    assert_eq!(world.head(&a).await, head);
}

#[tokio::test]
async fn what_breaks_a_rule_is_refused_and_leaves_the_head() {
    let (world, a, _, head) = World::founded().await;
    let node = NodeId([1; 16]);
    let trash = || vec![op(OpKind::Trash, node, &[])];
    let good = a.put(head, &[]);
    let flip = |at: usize| {
        let mut bytes = good.clone();
        let at = if at > 0 { at } else { bytes.len() - 1 };
        bytes[at] ^= 1;
        bytes
    };
    let rows: Vec<(&str, Vec<u8>)> = vec![
        ("empty", vec![]),
        ("cut in the header", good[..100].to_vec()),
        ("cut in the ops", good[..300].to_vec()),
        ("cut in the signature", good[..good.len() - 1].to_vec()),
        ("bytes left over", [&good[..], &[0]].concat()),
        ("magic", flip(1)),
        ("version", flip(4)),
        ("flags", flip(6)),
        ("machine id is not its key's", flip(24)),
        ("body", flip(HEADER_LEN + 50)),
        ("signature", flip(0)),
        (
            "ops root",
            a.seal_with(VAULT, head, trash(), |h| h.ops_root[0] ^= 1),
        ),
        ("no ops", a.seal_with(VAULT, head, vec![], |_| ())),
        (
            "fewer ops than it says",
            a.seal_with(VAULT, head, trash(), |h| h.n_ops = 2),
        ),
        (
            "too many ops",
            a.seal_with(VAULT, head, trash(), |h| h.n_ops = 1025),
        ),
        ("epoch", a.seal_with(VAULT, head, trash(), |h| h.epoch = 2)),
        (
            "genesis again",
            a.seal(VAULT, head, vec![op(OpKind::Genesis, NodeId::ROOT, &[])]),
        ),
        (
            "two ops on a node",
            a.seal(
                VAULT,
                head,
                vec![op(OpKind::Put, node, &[]), op(OpKind::Trash, node, &[])],
            ),
        ),
        (
            "the root",
            a.seal(VAULT, head, vec![op(OpKind::Put, NodeId::ROOT, &[])]),
        ),
        (
            "a length that no op has",
            a.seal(VAULT, head, vec![op_of(OpKind::Put, node, &[], 273)]),
        ),
        (
            "enrols another",
            a.seal(VAULT, head, vec![op(OpKind::MachineAdd, node, &[])]),
        ),
    ];
    for (what, commit) in rows {
        // The same judgement as any client's, under the same code.
        let error = Commit::parse(&commit)
            .and_then(|commit| commit.verify())
            .expect_err(what);
        let status = match error.code() {
            Code::Limit => 413,
            Code::Machine => 403,
            _ => 400,
        };
        world.post(&a, &commit).await.problem(status, error.code());
        assert_eq!(world.head(&a).await, head, "{what}");
    }
    world.post(&a, &good).await.ok();
}

#[tokio::test]
async fn a_body_beyond_the_limit_is_refused() {
    let (world, a, _, head) = World::founded().await;
    let mut commit = a.put(head, &[]);
    commit.resize(MAX_COMMIT_LEN + 1, 0);
    world.post(&a, &commit).await.problem(413, Code::Limit);
    // Without an announced length it is noticed on the way.
    let pieces: Vec<Result<_, std::io::Error>> =
        commit.chunks(1 << 20).map(|c| Ok(c.to_vec())).collect();
    let mut request = a.request(http::Method::POST, "commits", Vec::new());
    *request.body_mut() = axum::body::Body::from_stream(futures_util::stream::iter(pieces));
    send(&world.app, request).await.problem(413, Code::Limit);
}

#[tokio::test]
async fn the_author_may_be_another_machine_of_the_vault_but_no_stranger() {
    let (world, a, b, head) = World::founded().await;
    let head: Head = world.post(&a, &b.put(head, &[])).await.ok().json();
    let stranger = crate::world::Machine::new(99);
    world
        .post(&a, &stranger.put(head, &[]))
        .await
        .problem(403, Code::Machine);
    assert_eq!(world.head(&a).await, head);
}

#[tokio::test]
async fn a_removal_in_the_log_ends_the_token_at_once() {
    let (world, a, b, head) = World::founded().await;
    let head: Head = world
        .post(
            &a,
            &a.seal(
                VAULT,
                head,
                vec![op(OpKind::MachineRevoke, NodeId(b.id.0), &[])],
            ),
        )
        .await
        .ok()
        .json();
    world.get(&b, "head").await.problem(403, Code::Revoked);
    // Its key signs nothing any more either, whoever posts it.
    world
        .post(&a, &b.put(head, &[]))
        .await
        .problem(403, Code::Machine);
    // And never comes back, not even with a new invitation.
    let invitation = world.app.invite().await.unwrap().to_text();
    world
        .register(&invitation, 2, "again")
        .await
        .problem(403, Code::Revoked);
    // The name is free again.
    world.register(&invitation, 3, "machine-2").await.ok();
}

#[tokio::test]
async fn a_machine_removed_before_it_registered_never_does() {
    let (world, a, _, head) = World::founded().await;
    let late = crate::world::Machine::new(50);
    world
        .post(
            &a,
            &a.seal(
                VAULT,
                head,
                vec![op(OpKind::MachineRevoke, NodeId(late.id.0), &[])],
            ),
        )
        .await
        .ok();
    let invitation = world.app.invite().await.unwrap().to_text();
    world
        .register(&invitation, 50, "late")
        .await
        .problem(403, Code::Revoked);
    let listed: syncagent_protocol::api::Machines = world.get(&a, "machines").await.ok().json();
    assert_eq!(listed.machines.len(), 2);
}

#[tokio::test]
async fn every_chunk_and_every_descendant_must_be_there() {
    let (world, a, _, head) = World::founded().await;
    let (x, y, z) = (blob(1, 0), blob(2, 0), blob(3, 0));
    let inner = list(&[id(&x), id(&y)]);
    let outer = list(&[id(&inner), id(&z), id(&x)]);
    let commit = a.put(head, &[id(&outer), id(&z)]);

    let missing = world
        .post(&a, &commit)
        .await
        .problem(422, Code::Missing)
        .missing;
    assert_eq!(missing, [id(&outer), id(&z)]);
    world.upload(&a, &[outer.clone(), z.clone()]).await.ok();
    let missing = world
        .post(&a, &commit)
        .await
        .problem(422, Code::Missing)
        .missing;
    assert_eq!(missing, [id(&inner), id(&x)]);
    world.upload(&a, &[inner.clone(), x.clone()]).await.ok();
    let missing = world
        .post(&a, &commit)
        .await
        .problem(422, Code::Missing)
        .missing;
    assert_eq!(missing, [id(&y)]);
    world.upload(&a, std::slice::from_ref(&y)).await.ok();
    world.post(&a, &commit).await.ok();
}

#[tokio::test]
async fn of_many_first_commits_one_wins() {
    let world = World::new();
    let (a, b) = (world.machine(1).await, world.machine(2).await);
    let (ga, gb) = (a.genesis(VAULT), b.genesis(VAULT));
    let (ra, rb) = tokio::join!(world.post(&a, &ga), world.post(&b, &gb));
    let won = [&ra, &rb].iter().filter(|r| r.status.is_success()).count();
    assert_eq!(won, 1);
    let lost = if ra.status.is_success() { rb } else { ra };
    assert_eq!(lost.problem(409, Code::Conflict).head.unwrap().n, 1);
}

#[tokio::test]
async fn of_many_commits_on_one_head_one_wins() {
    let (world, a, b, head) = World::founded().await;
    let commits: Vec<_> = (0..20u8)
        .map(|i| {
            let author = if i % 2 == 0 { &a } else { &b };
            author.seal(VAULT, head, vec![op(OpKind::Put, NodeId([i + 1; 16]), &[])])
        })
        .collect();
    let answers =
        futures_util::future::join_all(commits.iter().map(|commit| world.post(&a, commit))).await;
    assert_eq!(
        answers
            .iter()
            .filter(|answer| answer.status.is_success())
            .count(),
        1
    );
    assert_eq!(world.head(&a).await.n, 2);
}

#[tokio::test]
async fn long_logs_come_in_pages() {
    let (world, a, _, mut head) = World::founded().await;
    // About 900 KiB each: more than a piece, so that pages and pieces both end somewhere.
    for round in 0..22u8 {
        let ops = (0..15u8)
            .map(|i| op_of(OpKind::Put, NodeId([i + 1; 16]), &[], 60 * 1024 + 16))
            .collect();
        let commit = a.seal_with(VAULT, head, ops, |h| h.salt = [round; 32]);
        head = world.post(&a, &commit).await.ok().json();
    }
    let (mut after, mut pages) = (0, 0);
    while after < head.n {
        let page = world.get(&a, &format!("commits?after={after}")).await.ok();
        assert_eq!(
            page.headers[HEAD_HEADER].to_str().unwrap(),
            head.n.to_string()
        );
        assert!(page.body.len() <= 17 * 1024 * 1024);
        for part in framed(&page.body) {
            let commit = Commit::parse_served(&part).unwrap();
            after += 1;
            assert_eq!(commit.header.n, after);
        }
        pages += 1;
    }
    assert_eq!(pages, 2);
}

#[tokio::test]
async fn a_lost_commit_comes_back_to_a_vault_that_is_marked() {
    let data = tempfile::tempdir().unwrap();
    let world = World::on(data.path());
    let a = world.machine(1).await;
    let head: Head = world.post(&a, &a.genesis(VAULT)).await.ok().json();
    let served = |commit: &[u8]| Commit::parse(commit).unwrap().to_served();
    let lost = async |commit: Vec<u8>| world.post_to(&a, "commits?lost=1", commit).await;
    let mark = |until_ms| {
        let admin = Admin::beside(data.path().into(), Some(VAULT)).unwrap();
        admin.set_restored(until_ms).unwrap();
    };
    // Whether something is missing or not: only a vault that is marked takes it so.
    let absent = id(&blob(1, 0));
    let commit = a.put(head, &[absent]);
    for commit in [&commit, &a.put(head, &[])] {
        lost(served(commit)).await.problem(422, Code::Missing);
    }
    mark(world.clock.now_ms() + 1);
    // What is not said to be lost is looked at as ever, and the other way round each form has its own way.
    let problem = world.post(&a, &commit).await.problem(422, Code::Missing);
    assert_eq!(problem.missing, [absent]);
    lost(commit.clone()).await.problem(400, Code::Commit);
    world
        .post(&a, &served(&commit))
        .await
        .problem(400, Code::Commit);
    let head: Head = lost(served(&commit)).await.ok().json();
    assert_eq!(lost(served(&commit)).await.ok().json::<Head>(), head);
    assert_eq!(head.hash, Commit::parse(&commit).unwrap().hash());

    // A body that was dropped before it was lost.
    let commit = a.put(head, &[absent]);
    let parsed = Commit::parse(&commit).unwrap();
    let (refs_hash, ct_hash) = (sha256(&[&absent.0]), sha256(&[&[0x5a; 272]]));
    let mut dropped = parsed.clone();
    dropped.ops[0].body = OpBody::Dropped {
        refs_hash: &refs_hash,
        ct_hash: &ct_hash,
    };
    let head: Head = lost(dropped.to_served()).await.ok().json();
    assert_eq!(head.hash, parsed.hash());
    let page = world.get(&a, "commits?after=2").await.ok();
    assert_eq!(page.framed(), [dropped.to_served()]);

    // A machine that registered after the backup was made comes back with the commit that enrols it.
    let b = crate::world::Machine::new(2);
    lost(served(&b.put(head, &[])))
        .await
        .problem(403, Code::Machine);
    let enrols = b.seal(
        VAULT,
        head,
        vec![op(OpKind::MachineAdd, NodeId(b.id.0), &[])],
    );
    let head: Head = lost(served(&enrols)).await.ok().json();
    let head: Head = lost(served(&b.put(head, &[]))).await.ok().json();
    // Nobody signs for others.
    let mut forged = served(&b.put(head, &[]));
    let last = forged.len() - 1;
    forged[last] ^= 1;
    lost(forged).await.problem(400, Code::Commit);

    // The mark ends by itself.
    world
        .clock
        .0
        .fetch_add(1, std::sync::atomic::Ordering::SeqCst);
    lost(served(&a.put(head, &[])))
        .await
        .problem(422, Code::Missing);
    world.post(&a, &a.put(head, &[])).await.ok();
}

#[tokio::test]
async fn a_tail_is_cut_only_while_no_server_runs() {
    let data = tempfile::tempdir().unwrap();
    let (a, first, second) = {
        let world = World::on(data.path());
        let a = world.machine(1).await;
        let first: Head = world.post(&a, &a.genesis(VAULT)).await.ok().json();
        let second = a.put(first, &[]);
        world.post(&a, &second).await.ok();
        let beside = Admin::alone(data.path().into(), None);
        assert!(matches!(beside.err().unwrap(), OpenError::Busy(_)));
        (a, first, second)
    };
    let other = Admin::beside(data.path().into(), Some(VaultId([9; 16])));
    assert!(matches!(other.err().unwrap(), OpenError::Vault(_)));
    {
        let admin = Admin::alone(data.path().into(), None).unwrap();
        assert_eq!(admin.tail(1).unwrap().len(), 1);
        assert_eq!(admin.cut(1).unwrap(), 1);
    }
    let world = World::on(data.path());
    assert_eq!(world.head(&a).await, first);
    // The very same commit still fits, and so does another.
    world.post(&a, &second).await.ok();
}
