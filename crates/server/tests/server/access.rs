//! Who may come, and who may stay.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use axum::body::Body;
use http::{Method, Request};
use syncagent_protocol::api::{
    Head, MachineReport, Machines, REGISTER, RegisterRequest, RegisterResponse, vault_path,
};
use syncagent_protocol::time::FixedClock;
use syncagent_protocol::{Code, CommitHash};
use syncagent_server::catalog::sqlite::SqliteCatalog;
use syncagent_server::chunks::memory::MemoryStore;
use syncagent_server::tls::{Certificate, Tls};
use syncagent_server::{App, Parts, Work, serve_tls};
use tokio::net::TcpListener;

use crate::world::{Machine, VAULT, World, json_request, send};

const DAY_MS: u64 = 24 * 60 * 60 * 1000;

#[tokio::test]
async fn an_invitation_makes_one_machine() {
    let world = World::new();
    let text = world.app.invite().await.unwrap().to_text();
    let first: RegisterResponse = world.register(&text, 1, "laptop").await.ok().json();
    assert_eq!((first.vault, first.head), (None, None));
    world
        .register(&text, 2, "desktop")
        .await
        .problem(401, Code::Auth);
    // The answer was lost: the same key comes again, the token before is worth nothing.
    let again: RegisterResponse = world.register(&text, 1, "laptop").await.ok().json();
    assert_eq!(again.machine, first.machine);
    let with = |token: &str| Machine {
        token: token.to_owned(),
        ..Machine::new(1)
    };
    world
        .get(&with(&first.token), "head")
        .await
        .problem(401, Code::Auth);
    world.get(&with(&again.token), "head").await.ok();
}

#[tokio::test]
async fn an_invitation_names_the_certificate_that_is_served() {
    let dir = tempfile::tempdir().unwrap();
    let world = World::new();
    let names = vec!["localhost".to_owned()];
    let tls = Tls::open(dir.path(), &Certificate::SelfSigned { names }).unwrap();
    let pin = tls.pin().unwrap();
    assert!(pin.is_some());
    let before = world.app.invite().await.unwrap();
    assert_eq!(before.certificate(), None, "nothing is served yet");
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let _server = serve_tls(world.app.clone(), listener, tls, std::future::pending());
    let invitation = world.app.invite().await.unwrap();
    assert_eq!(invitation.certificate(), pin.as_ref());
    world
        .register(&invitation.to_text(), 1, "laptop")
        .await
        .ok();
}

#[tokio::test]
async fn the_answer_tells_where_the_vault_stands() {
    let (world, a, _, head) = World::founded().await;
    let text = world.app.invite().await.unwrap().to_text();
    let answer: RegisterResponse = world.register(&text, 3, "third").await.ok().json();
    assert_eq!((answer.vault, answer.head), (Some(VAULT), Some(head)));
    let listed: Machines = world.get(&a, "machines").await.ok().json();
    assert_eq!(listed.machines.len(), 3);
}

#[tokio::test]
async fn of_fifty_parallel_uses_one_wins() {
    let dir = tempfile::tempdir().unwrap();
    let world = World::on(dir.path());
    let text = world.app.invite().await.unwrap().to_text();
    let names: Vec<String> = (1..=50).map(|seed| format!("machine-{seed}")).collect();
    let uses = (1..=50)
        .zip(&names)
        .map(|(seed, name)| world.register(&text, seed, name));
    let answers = futures_util::future::join_all(uses).await;
    assert_eq!(
        answers.iter().filter(|answer| answer.status == 200).count(),
        1
    );
    assert_eq!(
        answers.iter().filter(|answer| answer.status == 401).count(),
        49
    );
}

#[tokio::test]
async fn an_invitation_ends_after_a_day() {
    let world = World::new();
    let early = world.app.invite().await.unwrap().to_text();
    world.clock.0.fetch_add(DAY_MS - 1, Ordering::SeqCst);
    world.register(&early, 1, "laptop").await.ok();
    let late = world.app.invite().await.unwrap().to_text();
    world.clock.0.fetch_add(DAY_MS, Ordering::SeqCst);
    world
        .register(&late, 2, "desktop")
        .await
        .problem(401, Code::Auth);
    // Its own first use does not keep it alive either.
    world
        .register(&early, 1, "laptop")
        .await
        .problem(401, Code::Auth);
}

#[tokio::test]
async fn names_follow_the_rule_and_are_unique() {
    let world = World::new();
    let a = world.app.invite().await.unwrap().to_text();
    let b = world.app.invite().await.unwrap().to_text();
    for bad in ["ab", "", "has space", "ümlaut", &"x".repeat(33), "a/b"] {
        world.register(&a, 1, bad).await.problem(400, Code::Usage);
    }
    world.register(&a, 1, "laptop").await.ok();
    let taken = world
        .register(&b, 2, "laptop")
        .await
        .problem(409, Code::Conflict);
    assert!(taken.detail.contains("laptop"));
    // The invitation is still good.
    world.register(&b, 2, "Laptop").await.ok();
}

#[tokio::test]
async fn nobody_registers_a_key_they_do_not_hold() {
    let world = World::new();
    let text = world.app.invite().await.unwrap().to_text();
    let register = async |request: &RegisterRequest| {
        send(
            &world.app,
            json_request(Method::POST, REGISTER, None, request),
        )
        .await
    };
    let good = Machine::new(1).registration(&text, "laptop");
    let other_key = Machine::new(2).registration(&text, "laptop").public_key;
    let rows = [
        (
            "another key",
            RegisterRequest {
                public_key: other_key,
                ..good.clone()
            },
            401,
            Code::Auth,
        ),
        (
            "another name",
            RegisterRequest {
                name: "desktop".into(),
                ..good.clone()
            },
            401,
            Code::Auth,
        ),
        (
            "no invitation",
            Machine::new(1).registration("sa1-", "laptop"),
            401,
            Code::Auth,
        ),
        (
            "no key",
            RegisterRequest {
                public_key: "00".into(),
                ..good.clone()
            },
            400,
            Code::Usage,
        ),
        (
            "no signature",
            RegisterRequest {
                signature: "xy".into(),
                ..good.clone()
            },
            400,
            Code::Usage,
        ),
    ];
    for (what, request, status, code) in rows {
        let answer = register(&request).await;
        assert_eq!(answer.status.as_u16(), status, "{what}");
        answer.problem(status, code);
    }
    let request = json_request(Method::POST, REGISTER, None, &"no object");
    send(&world.app, request).await.problem(400, Code::Usage);
    let request = json_request(Method::POST, REGISTER, None, &"x".repeat(20_000));
    send(&world.app, request).await.problem(413, Code::Limit);
    register(&good).await.ok();
}

#[tokio::test]
async fn who_fails_too_often_waits() {
    let world = World::new();
    let good = world.app.invite().await.unwrap().to_text();
    let bad = syncagent_protocol::invitation::Invitation::new([1; 16], None).to_text();
    for _ in 0..60 {
        world
            .register(&bad, 1, "laptop")
            .await
            .problem(401, Code::Auth);
    }
    let answer = world.register(&good, 1, "laptop").await;
    assert!(answer.headers.contains_key("retry-after"));
    answer.problem(429, Code::Busy);
    world.clock.0.fetch_add(1000, Ordering::SeqCst);
    world.register(&good, 1, "laptop").await.ok();
}

#[tokio::test]
async fn every_vault_route_asks_who_it_is() {
    let (world, a, _, _) = World::founded().await;
    let id = "00".repeat(32);
    let routes = [
        (Method::GET, "head".to_owned()),
        (Method::GET, "commits?after=0".to_owned()),
        (Method::POST, "commits".to_owned()),
        (Method::POST, "packs".to_owned()),
        (Method::POST, "chunks/missing".to_owned()),
        (Method::POST, "chunks/fetch".to_owned()),
        (Method::GET, format!("chunks/{id}")),
        (Method::GET, "slots/1".to_owned()),
        (Method::PUT, "slots/1".to_owned()),
        (Method::GET, "machines".to_owned()),
        (Method::DELETE, format!("machines/{}", "00".repeat(16))),
        (Method::PUT, "report".to_owned()),
    ];
    for (method, resource) in &routes {
        for token in [
            None,
            Some("Bearer"),
            Some("Basic x"),
            Some("Bearer 00"),
            Some("Bearer äöü"),
        ] {
            let mut request = Request::builder()
                .method(method)
                .uri(vault_path(VAULT, resource));
            if let Some(token) = token {
                request = request.header("authorization", token.as_bytes());
            }
            let answer = send(&world.app, request.body(Body::from(vec![0; 100])).unwrap()).await;
            answer.problem(401, Code::Auth);
        }
        let unknown = Machine {
            token: "00".repeat(32),
            ..Machine::new(1)
        };
        let request = unknown.request(method.clone(), resource, Vec::new());
        send(&world.app, request).await.problem(401, Code::Auth);
        let mut request = a.request(method.clone(), resource, Vec::new());
        let other = syncagent_protocol::VaultId([1; 16]);
        *request.uri_mut() = vault_path(other, resource).parse().unwrap();
        send(&world.app, request).await.problem(403, Code::Vault);
    }
    world.get(&a, "machines").await.ok();
}

#[tokio::test]
async fn a_removed_machine_is_told_so_everywhere() {
    let (world, a, b, head) = World::founded().await;
    let resource = format!("machines/{}", b.id);
    let remove = async || send(&world.app, a.request(Method::DELETE, &resource, Vec::new())).await;
    assert_eq!(remove().await.ok().status, 204);
    assert_eq!(remove().await.ok().status, 204);
    for resource in ["head", "machines", "commits?after=0"] {
        world.get(&b, resource).await.problem(403, Code::Revoked);
    }
    world
        .post(&b, &b.put(head, &[]))
        .await
        .problem(403, Code::Revoked);
    // The log is not touched.
    assert_eq!(world.head(&a).await, head);
    let listed: Machines = world.get(&a, "machines").await.ok().json();
    let revoked: Vec<_> = listed
        .machines
        .iter()
        .map(|m| (m.name.as_str(), m.revoked))
        .collect();
    assert_eq!(revoked, [("machine-1", false), ("machine-2", true)]);
    let nobody = format!("machines/{}", "00".repeat(16));
    let request = a.request(Method::DELETE, &nobody, Vec::new());
    send(&world.app, request).await.problem(404, Code::NotFound);
}

#[tokio::test]
async fn machines_report_words_and_numbers_only() {
    let (world, a, b, _) = World::founded().await;
    let report = async |state: &str| {
        let report = MachineReport {
            state: state.to_owned(),
            synced_n: 1,
            files: 42,
        };
        let path = vault_path(VAULT, "report");
        send(
            &world.app,
            json_request(Method::PUT, &path, Some(&a.token), &report),
        )
        .await
    };
    report("holiday").await.problem(400, Code::Usage);
    world.clock.0.fetch_add(5000, Ordering::SeqCst);
    report("idle").await.ok();
    let listed: Machines = world.get(&b, "machines").await.ok().json();
    let said = &listed.machines[0];
    assert_eq!(
        (said.state.as_str(), said.synced_n, said.files),
        ("idle", 1, 42)
    );
    assert_eq!(said.last_seen_ms, world.clock.0.load(Ordering::SeqCst));
    // Being heard of is enough.
    world.clock.0.fetch_add(5000, Ordering::SeqCst);
    let listed: Machines = world.get(&b, "machines").await.ok().json();
    assert_eq!(
        listed.machines[1].last_seen_ms,
        world.clock.0.load(Ordering::SeqCst)
    );
}

#[tokio::test]
async fn slots_are_held_for_machines() {
    let (world, a, b, _) = World::founded().await;
    let slot = |n: u8| {
        let mut slot = vec![n; 172];
        slot[..6].copy_from_slice(b"SAKS\x01\x02");
        slot[36..52].copy_from_slice(&VAULT.0);
        slot
    };
    let put = async |kind: &str, slot: Vec<u8>| {
        let request = a.request(Method::PUT, &format!("slots/{kind}"), slot);
        send(&world.app, request).await
    };
    world.get(&b, "slots/2").await.problem(404, Code::NotFound);
    put("2", slot(1)).await.ok();
    assert_eq!(world.get(&b, "slots/2").await.ok().body, slot(1));
    world
        .get(&b, "slots/2?which=previous")
        .await
        .problem(404, Code::NotFound);
    put("2", slot(2)).await.ok();
    put("2", slot(2)).await.ok();
    assert_eq!(world.get(&b, "slots/2").await.ok().body, slot(2));
    assert_eq!(
        world.get(&b, "slots/2?which=previous").await.ok().body,
        slot(1)
    );
    world
        .get(&b, "slots/2?which=first")
        .await
        .problem(400, Code::Usage);
    world
        .get(&b, "slots/2?which=a&which=b")
        .await
        .problem(400, Code::Usage);
    // Another type, another vault, another length.
    put("1", slot(1)).await.problem(400, Code::Keyslot);
    put("3", slot(1)).await.problem(404, Code::NotFound);
    let mut foreign = slot(1);
    foreign[40] ^= 1;
    put("2", foreign).await.problem(400, Code::Keyslot);
    put("2", slot(1)[..171].to_vec())
        .await
        .problem(400, Code::Keyslot);
    put("2", vec![0; 173]).await.problem(413, Code::Limit);
}

#[tokio::test]
async fn every_error_has_one_shape() {
    let world = World::new();
    let a = world.machine(1).await;
    let get = async |path: &str| {
        let request = Request::builder()
            .uri(path)
            .header("authorization", format!("Bearer {}", a.token));
        send(&world.app, request.body(Body::empty()).unwrap()).await
    };
    get("/").await.problem(404, Code::NotFound);
    get("/api/v1/nothing").await.problem(404, Code::NotFound);
    get(REGISTER).await.problem(405, Code::Usage);
    get("/api/v1/vaults/xyz/head")
        .await
        .problem(400, Code::Usage);
    get("/api/v1/vaults/%ff/head")
        .await
        .problem(400, Code::Usage);
    get(&vault_path(VAULT, "commits?after=x"))
        .await
        .problem(400, Code::Usage);
    get(&vault_path(VAULT, "machines")).await.ok();
    get("/ws/events").await.problem(400, Code::Usage);
    assert_eq!(get("/healthz").await.ok().body, b"ok");
    assert_eq!(get("/readyz").await.ok().body, b"ok");
}

#[tokio::test]
async fn a_panic_answers_and_kills_nothing() {
    let world = World::new();
    let text = world.app.invite().await.unwrap().to_text();
    let answer = {
        let catalog = SqliteCatalog::in_memory(Work::Inline).unwrap();
        let parts = Parts {
            catalog: Arc::new(catalog),
            chunks: Arc::new(MemoryStore::default()),
            clock: Arc::new(FixedClock(0)),
            entropy: Arc::new(|_| panic!("no randomness is left")),
            work: Work::Inline,
        };
        let request = Machine::new(1).registration(&text, "laptop");
        let app = App::new(parts);
        let answer = send(&app, json_request(Method::POST, REGISTER, None, &request)).await;
        let alive = Request::builder()
            .uri("/healthz")
            .body(Body::empty())
            .unwrap();
        send(&app, alive).await.ok();
        answer
    };
    let problem = answer.problem(500, Code::Server);
    assert_eq!(problem.detail, "", "causes stay in the log");
}

#[tokio::test]
async fn a_restart_keeps_everything_and_two_servers_never_share() {
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().join("data");
    let clock = std::sync::Arc::default();
    let beside = async || {
        let config = crate::world::config(&data, &clock);
        syncagent_server::invite(&data, &*config.clock, &config.entropy)
            .unwrap()
            .to_text()
    };
    // An invitation may come before the first start, and beside a running server.
    let before = beside().await;
    let (a, head): (Machine, Head) = {
        let world = World::on(&data);
        world.clock.0.store(1, Ordering::SeqCst);
        let answer: RegisterResponse = world.register(&before, 1, "laptop").await.ok().json();
        let a = Machine {
            token: answer.token,
            ..Machine::new(1)
        };
        let refused = syncagent_server::open(&crate::world::config(&data, &clock)).unwrap_err();
        assert!(refused.is_retryable(), "{refused}");
        let text = beside().await;
        world.register(&text, 2, "desktop").await.ok();
        let head = world.post(&a, &a.genesis(VAULT)).await.ok().json();
        world.upload(&a, &[crate::world::blob(1, 0)]).await.ok();
        (a, head)
    };
    let world = World::on(&data);
    assert_eq!(world.head(&a).await, head);
    assert_ne!(head.hash, CommitHash::genesis(VAULT));
    let chunk = crate::world::blob(1, 0);
    let resource = format!("chunks/{}", crate::world::id(&chunk));
    assert_eq!(world.get(&a, &resource).await.ok().body, chunk);
    let listed: Machines = world.get(&a, "machines").await.ok().json();
    assert_eq!(listed.machines.len(), 2);
}
