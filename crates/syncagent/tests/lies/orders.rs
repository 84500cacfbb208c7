//! What a person ordered and was told to have failed: it is not carried out behind their back.

use std::fs;

use syncagent_vault::op::Genesis;

use crate::court::{Court, assert_code};
use crate::field::liar::{Honest, Request, Said};
use crate::field::{Done, Field};

const REMOVE_A: [&str; 4] = ["machines", "remove", "machine-a", "--yes"];

/// A file with two versions, both known to B.
fn two_versions(court: &Court<'_>) {
    court.put(&[("plan", b"first")]);
    court.b.sync_once();
    court.put(&[("plan", b"second")]);
    court.b.sync_once();
}

/// B is told to bring the first version back.
fn order(court: &Court<'_>) -> Done {
    let versions = court.b.try_run(&["versions", "plan", "--json"]);
    let versions: serde_json::Value = serde_json::from_str(&versions.stdout).unwrap();
    let versions = versions["versions"].as_array().unwrap();
    let first = versions
        .iter()
        .map(|version| version["version"].as_u64().unwrap());
    let first = first.min().unwrap().to_string();
    court.b.try_run(&["restore", "plan", "--version", &first])
}

/// What both have once the server is honest.
fn plan(court: &Court<'_>) -> Vec<u8> {
    court.recovers_both("an order");
    fs::read(court.a.folder.join("plan")).unwrap()
}

/// The server is there to say how far the log is, and gone when the order is posted.
fn goes_away(request: &Request, honest: &Honest) -> Said {
    let answer = honest.ask(request);
    match request.is("GET", "/commits") {
        true => Said::Last(answer),
        false => answer.into(),
    }
}

/// The order gets there, or half-way, and no answer comes back.
fn no_answer(taken: bool) -> impl Fn(&Request, &Honest) -> Said + Send + Sync + 'static {
    move |request, honest| {
        let posts = request.is("POST", "/commits");
        if posts && !taken {
            return Said::Raw(Vec::new());
        }
        let answer = honest.ask(request);
        match posts {
            true => Said::Raw(Vec::new()),
            false => answer.into(),
        }
    }
}

#[test]
fn an_order_that_never_left_the_machine_is_withdrawn() {
    let field = Field::new();
    let court = Court::new(&field, Genesis::default());
    two_versions(&court);
    court.liar.lie(goes_away);
    let done = order(&court);
    assert_code("restore", &done, "E_OFFLINE", 5);
    assert!(!done.stderr.contains("it is kept"), "{done}");
    court.liar.listen_again();
    assert_eq!(plan(&court), b"second");

    court.liar.lie(goes_away);
    let done = court.b.try_run(&REMOVE_A);
    assert_eq!(done.exit, 5, "{done}");
    court.liar.listen_again();
    court.liar.tell_the_truth();
    court.b.sync_once();
    court.a.sync_once();
    // What comes after it goes through.
    let done = order(&court);
    assert_eq!(done.exit, 0, "{done}");
    assert_eq!(plan(&court), b"first");
}

#[test]
fn an_order_whose_answer_is_lost_is_said_to_be_kept_and_is_carried_out_once() {
    for taken in [false, true] {
        let field = Field::new();
        let court = Court::new(&field, Genesis::default());
        two_versions(&court);
        court.liar.lie(no_answer(taken));
        let done = order(&court);
        assert_code("restore", &done, "E_OFFLINE", 5);
        assert!(done.stderr.contains("it is kept, and sent again"), "{done}");
        assert_eq!(plan(&court), b"first");
        let firsts = court.log().len();

        court.liar.lie(no_answer(taken));
        let done = court.b.try_run(&REMOVE_A);
        assert_eq!(done.exit, 5, "{done}");
        assert!(done.stderr.contains("it is kept, and sent again"), "{done}");
        court.liar.tell_the_truth();
        court.b.sync_once();
        assert_eq!(court.a.try_sync().exit, 12);
        let log = syncagent_client::index::Index::open(&court.b.home.join("state.db")).unwrap();
        assert_eq!(log.position().unwrap().unwrap().n, firsts as u64 + 1);
    }
}
