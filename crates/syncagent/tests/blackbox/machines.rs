//! A machine is taken out of the vault: what it hears, what the others accept, how it comes back.

use std::sync::Arc;

use syncagent_client::home::Home;
use syncagent_client::remote::http::HttpRemote;
use syncagent_client::remote::reqwest::Network;
use syncagent_client::remote::tls::Trust;
use syncagent_client::remote::{Posted, Remote as _};
use syncagent_protocol::{CommitHash, NodeId};
use syncagent_vault::commit::{Position, seal};
use syncagent_vault::machine::MachineKey;
use syncagent_vault::op::{Draft, MachineAdd};
use syncagent_vault::random::OsRandom;
use syncagent_vault::slot::Password;

use crate::world::{Machine, World, until};

const REMOVE_B: [&str; 6] = [
    "machines",
    "remove",
    "b-machine",
    "--yes",
    "--password-file",
    "password",
];

fn listed(machine: &Machine, name: &str) -> serde_json::Value {
    let list = machine.run(&["machines", "--json"]).exits(0).json();
    let rows = list["machines"].as_array().unwrap();
    rows.iter().find(|row| row["name"] == name).unwrap().clone()
}

#[test]
fn a_removed_machine_is_told_so_and_keeps_its_files() {
    let world = World::new();
    let a = world.first("a");
    let b = world.next("b", &a);
    a.write("shared", "1");
    a.sync_once().exits(0);
    b.sync_once().exits(0);
    a.sync_once().exits(0);
    // What other machines are shown.
    let row = listed(&a, "b-machine");
    assert_eq!((&row["state"], &row["files"]), (&"idle".into(), &1.into()));
    let head = a.status()["head"]["n"].clone();
    let removed = a.run(&[&REMOVE_B[..], &["--json"]].concat()).exits(0);
    assert!(removed.json()["n"].as_u64() > head.as_u64());
    let row = listed(&a, "b-machine");
    assert_eq!(
        (&row["removed"], &row["removal_signed"]),
        (&true.into(), &true.into())
    );
    a.run(&REMOVE_B).exits(3).says("E_NOT_FOUND");

    b.write("mine", "2");
    let refused = b.sync_once().exits(12).says("E_REVOKED");
    assert!(
        refused.stderr.contains("removed from the vault")
            && refused.stderr.contains("reset --new-machine"),
        "{}",
        refused.stderr
    );
    let status = b.run(&["status", "--json"]).exits(12).json();
    assert_eq!(
        (&status["state"], &status["errors"][0]["code"]),
        (&"error".into(), &"E_REVOKED".into())
    );
    // When it was in sync last is not forgotten over that.
    assert!(status["last_sync"].as_u64().is_some());
    assert_eq!(
        (b.read("shared").as_deref(), b.read("mine").as_deref()),
        (Some("1"), Some("2"))
    );
    a.sync_once().exits(0);
    assert_eq!(a.names(), ["shared"]);

    // Back as another machine, with what it has done meanwhile.
    b.run(&["reset", "--new-machine"]).exits(2).says("E_USAGE");
    b.run(&["reset", "--new-machine", "--yes"]).exits(0);
    world.register(&b);
    b.sync_once().exits(0);
    a.sync_once().exits(0);
    assert_eq!(a.read("mine").as_deref(), Some("2"));
    assert_eq!(listed(&a, "a-machine")["this"], true);
}

#[test]
fn a_machine_removes_itself() {
    let world = World::new();
    let a = world.first("a");
    let b = world.next("b", &a);
    a.sync_once().exits(0);
    b.sync_once().exits(0);
    b.run(&REMOVE_B).exits(0);
    b.sync_once().exits(12).says("E_REVOKED");
    a.sync_once().exits(0);
    assert_eq!(listed(&a, "b-machine")["removal_signed"], true);
}

#[test]
fn a_daemon_removes_without_a_password_and_the_other_hears_it() {
    let world = World::new();
    let a = world.first("a");
    let b = world.next("b", &a);
    let (da, db) = (a.start_daemon(), b.start_daemon());
    until("a to see that b joined", || {
        (listed(&a, "b-machine")["member"] == true).then_some(())
    });
    a.run(&["machines", "remove", "b-machine", "--yes"])
        .exits(0);
    until("b to hear it", || {
        (b.status()["errors"][0]["code"] == "E_REVOKED").then_some(())
    });
    assert_eq!((da.terminate(), db.terminate()), (0, 0));
}

#[test]
fn without_the_key_a_machine_is_locked_out_and_signed_later() {
    let world = World::new();
    let a = world.first("a");
    let b = world.next("b", &a);
    a.sync_once().exits(0);
    b.sync_once().exits(0);
    a.sync_once().exits(0);
    let half = a
        .run(&["machines", "remove", "b-machine", "--yes"])
        .exits(11)
        .says("E_LOCKED");
    assert!(half.stderr.contains("not yet signed"), "{}", half.stderr);
    b.sync_once().exits(12).says("E_REVOKED");
    let row = listed(&a, "b-machine");
    assert_eq!(
        (&row["removed"], &row["removal_signed"]),
        (&true.into(), &false.into())
    );
    a.run(&REMOVE_B).exits(0);
    assert_eq!(listed(&a, "b-machine")["removal_signed"], true);
}

/// The server forgets what it was told: it takes part in what follows.
fn forgive(world: &mut World) {
    let address = world.address();
    assert_eq!(world.stop_server(), 0);
    let db = rusqlite::Connection::open(world.path("server/syncagent.db")).unwrap();
    let forgiven = db
        .execute("UPDATE machines SET revoked_ms = NULL", [])
        .unwrap();
    assert!(forgiven >= 1);
    drop(db);
    world.start_server(&address);
}

/// Writes with a machine's key and token what the machine itself would not. Returns the position.
fn write_anyway(
    world: &World,
    machine: &Machine,
    head: &serde_json::Value,
    draft: impl FnOnce(&MachineKey) -> Draft,
) -> u64 {
    let home = Home::at(machine.home());
    let password = Password::new("correct horse battery staple");
    let key = home.unlock(&password).unwrap();
    let here = home.credentials().unwrap().unwrap();
    let mut prev = CommitHash([0; 32]);
    data_encoding::HEXLOWER
        .decode_mut(head["hash"].as_str().unwrap().as_bytes(), &mut prev.0)
        .unwrap();
    let position = Position {
        n: head["n"].as_u64().unwrap() + 1,
        prev,
        time_ms: 4_000_000_000_000,
    };
    let sealed = seal(
        &key.keys().unwrap(),
        &here.machine,
        position,
        vec![draft(&here.machine)],
        &OsRandom::default(),
    )
    .unwrap();
    let network = Arc::new(Network::new(&world.url, &Trust::default()).unwrap());
    let remote = HttpRemote::new(network, key.vault(), here.token.as_ref().unwrap());
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let posted = runtime.block_on(remote.post_commit(sealed.bytes.into()));
    assert_eq!(posted.unwrap(), Posted::Accepted);
    position.n
}

#[test]
fn nobody_takes_what_a_removed_machine_writes_with_the_servers_help() {
    let mut world = World::new();
    let a = world.first("a");
    let b = world.next("b", &a);
    a.write("kept", "kept");
    a.sync_once().exits(0);
    b.sync_once().exits(0);
    a.sync_once().exits(0);
    a.run(&REMOVE_B).exits(0);
    forgive(&mut world);
    // It refuses by itself what it finds signed ...
    b.sync_once().exits(12).says("E_REVOKED");
    // ... and were it to write none the less:
    let kept = a.run(&["ls", "--json"]).json()["entries"][0]["id"].clone();
    let kept: NodeId = kept.as_str().unwrap().parse().unwrap();
    let head = a.status()["head"].clone();
    let n = write_anyway(&world, &b, &head, |_| Draft::trash(kept));
    let halted = a.sync_once().exits(14).says("E_MACHINE");
    assert!(
        halted.stderr.contains(&format!("position {n}")),
        "{}",
        halted.stderr
    );
    assert_eq!(a.read("kept").as_deref(), Some("kept"));
}

#[test]
fn a_machine_removed_before_its_first_word_is_never_enrolled() {
    let mut world = World::new();
    let a = world.first("a");
    let b = world.next("b", &a);
    a.sync_once().exits(0);
    // No history names it, so its name is only what the server says. Its id is what it is.
    let row = listed(&a, "b-machine");
    assert_eq!(row["member"], false);
    let id = row["id"].as_str().unwrap();
    let refused = a.run(&REMOVE_B).exits(3).says("E_NOT_FOUND");
    assert!(refused.stderr.contains(id), "{}", refused.stderr);
    let mut remove = REMOVE_B;
    remove[2] = id;
    a.run(&remove).exits(0);
    assert_eq!(listed(&a, "b-machine")["removal_signed"], true);
    forgive(&mut world);
    b.sync_once().exits(12).says("E_REVOKED");
    let head = a.status()["head"].clone();
    write_anyway(&world, &b, &head, |machine| {
        Draft::machine_add(&MachineAdd {
            public_key: *machine.public(),
            name: "b-machine".into(),
            platform: "linux".into(),
            web: false,
        })
        .unwrap()
    });
    a.sync_once().exits(14).says("E_MACHINE");
}
