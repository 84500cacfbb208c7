//! Lies told to machines that have seen the vault before: older histories, and two histories.

use std::fs;
use std::path::{Path, PathBuf};

use syncagent_vault::op::Genesis;

use crate::court::{Court, assert_code, shows};
use crate::daemon::planted;
use crate::field::liar::{Honest, Request, Said};
use crate::field::{Field, Machine, Running, tree};

/// What the server's directory is now, beside it.
fn copy_of(court: &mut Court<'_>, name: &str) -> PathBuf {
    court.server.kill();
    let copy = court.field.path(name);
    copy_dir(&court.field.server_data(), &copy);
    let (server, url) = court.field.start_server();
    (court.server, court.url) = (server, url);
    copy
}

fn copy_dir(from: &Path, to: &Path) {
    fs::create_dir(to).unwrap();
    for entry in fs::read_dir(from).unwrap().map(Result::unwrap) {
        let to = to.join(entry.file_name());
        match entry.file_type().unwrap().is_dir() {
            true => copy_dir(&entry.path(), &to),
            false => drop(fs::copy(entry.path(), to).unwrap()),
        }
    }
}

/// A's way does not move with the server, so it is a liar's that never lies.
fn two_liars(field: &Field) -> (Court<'_>, crate::field::liar::Liar) {
    let court = Court::new(field, Genesis::default());
    let honest = crate::field::liar::Liar::start();
    honest.lead_to(&court.url);
    lead(&court.a, &honest.url());
    (court, honest)
}

/// Writes another address into a machine's configuration.
fn lead(machine: &Machine<'_>, url: &str) {
    let home = syncagent_client::home::Home::at(&machine.home);
    let mut config = home.config().unwrap();
    config.server = Some(url.to_owned());
    home.save_config(&config).unwrap();
}

/// It refuses again and again, sends nothing, and its folder is as before.
#[track_caller]
fn refuses(case: &str, machine: &Machine<'_>, way: &crate::field::liar::Liar, code: &str) {
    way.tell_the_truth();
    fs::write(machine.folder.join("mine"), "not to be sent").unwrap();
    let before = tree::read(&machine.folder);
    for start in ["first", "second"] {
        let done = machine.try_sync();
        assert_code(&format!("{case}, {start} start"), &done, code, 14);
    }
    let status = machine.try_run(&["status", "--json"]);
    assert!(status.stdout.contains("\"halted\""), "{case}: {status}");
    let after = tree::read(&machine.folder);
    tree::assert_same(case, ("before", &before), ("after", &after));
    let sent = way
        .heard()
        .iter()
        .filter(|request| request.uploads())
        .count();
    assert_eq!(sent, 0, "{case}");
    assert!(!way.heard().is_empty(), "{case}: it did not ask");
    fs::remove_file(machine.folder.join("mine")).unwrap();
}

#[test]
fn a_server_put_back_by_any_number_of_commits_is_found() {
    let field = Field::new();
    let (mut court, honest) = two_liars(&field);
    let mut copies = Vec::new();
    for n in 0..4u8 {
        let copy = copy_of(&mut court, &format!("server {n}"));
        honest.lead_to(&court.url);
        court.liar.lead_to(&court.url);
        copies.push(copy);
        court.put(&[(&format!("file {n}"), &[n])]);
        court.recovers("no lie yet");
    }
    for (back, copy) in copies.iter().rev().enumerate() {
        let (_old, url) = field.start_server_on(copy);
        court.liar.lead_to(&url);
        let case = format!("{} commits less", back + 1);
        refuses(&case, &court.b, &court.liar, "E_ROLLBACK");
        court.liar.lead_to(&court.url);
        court.recovers(&case);
    }
    // The old state goes on: as long as before, and longer, and it is another history.
    let (_old, url) = field.start_server_on(&copies[2]);
    court.forget();
    court.liar.lead_to(&url);
    for file in ["x", "y", "z"] {
        court.b.sync_once();
        fs::write(court.b.folder.join(file), file).unwrap();
        court.b.sync_once();
        honest.lead_to(&url);
        let code = if file == "x" { "E_ROLLBACK" } else { "E_FORK" };
        refuses(
            &format!("put back and gone on to {file}"),
            &court.a,
            &honest,
            code,
        );
    }
}

#[test]
fn two_machines_that_were_shown_two_histories_find_it_out() {
    let field = Field::new();
    let (mut court, honest) = two_liars(&field);
    court.liar.lead_to(&court.url);
    honest.lead_to(&court.url);
    court.put(&[("common", b"known to both")]);
    court.recovers("before the fork");
    let copy = copy_of(&mut court, "other server");
    honest.lead_to(&court.url);
    let (_other, other): (Running, String) = field.start_server_on(&copy);
    court.liar.lead_to(&other);

    // Each goes on by itself, and sees nothing wrong.
    court.put(&[("of A", b"1"), ("common", b"edited by A")]);
    fs::write(court.b.folder.join("of B"), "2").unwrap();
    court.b.sync_once();
    refuses(
        "B is led to A's history",
        &court.b,
        led(&court.liar, &court.url),
        "E_FORK",
    );
    refuses(
        "A is led to B's history",
        &court.a,
        led(&honest, &other),
        "E_FORK",
    );

    // One of them has gone further meanwhile: it makes no difference.
    led(&honest, &court.url);
    court.put(&[("more of A", b"3")]);
    court.put(&[("still more of A", b"4")]);
    refuses(
        "B is led to a longer one",
        &court.b,
        led(&court.liar, &court.url),
        "E_FORK",
    );
    refuses(
        "A is led to a shorter one",
        &court.a,
        led(&honest, &other),
        "E_ROLLBACK",
    );

    // Led back, each goes on.
    led(&honest, &court.url);
    led(&court.liar, &other);
    assert_eq!(court.a.try_sync().exit, 0);
    assert_eq!(court.b.try_sync().exit, 0);
}

fn led<'a>(way: &'a crate::field::liar::Liar, url: &str) -> &'a crate::field::liar::Liar {
    way.lead_to(url);
    way
}

#[test]
fn a_machine_that_lost_its_index_still_knows_how_far_it_was() {
    let field = Field::new();
    let court = Court::new(&field, Genesis::default());
    court.put(&[("a", b"1")]);
    court.put(&[("b", b"2")]);
    court.recovers("before");
    let log = court.log();
    assert_eq!(court.b.try_run(&["reset", "--yes"]).exit, 0);
    let older = log[..3].to_vec();
    court.liar.lie(shows(older, 3));
    let done = court.b.try_sync();
    assert_code("an older log after a reset", &done, "E_ROLLBACK", 14);
    court.assert_nothing_sent("an older log after a reset");
    court.recovers("an older log after a reset");
}

/// Shows this log, but no more than so many commits at once.
fn shows_by(
    most: usize,
    log: Vec<Vec<u8>>,
) -> impl Fn(&Request, &Honest) -> Said + Send + Sync + 'static {
    let head = log.len();
    let shows = shows(log, head);
    move |request, honest| match shows(request, honest) {
        Said::Answer(answer) if request.is("GET", "/commits") => {
            answer.reframed(|commits| commits.truncate(most)).into()
        }
        said => said,
    }
}

#[test]
fn a_machine_that_lost_its_index_is_shown_another_history_and_goes_on_with_its_own() {
    let field = Field::new();
    let court = Court::new(&field, Genesis::default());
    court.put(&[("a", b"1")]);
    court.put(&[("b", b"2")]);
    court.recovers("before");
    let a = court.credentials(&court.a).machine;
    // As the server likes it, what is wrong comes with the rest or after it.
    for (case, most) in [("in one page", usize::MAX), ("a commit at a time", 1)] {
        for ahead in [0, 2] {
            let case = format!("{case}, {ahead} ahead");
            assert_eq!(court.b.try_run(&["reset", "--yes"]).exit, 0);
            fs::write(
                court.b.folder.join(format!("mine, {case}")),
                "not to be sent",
            )
            .unwrap();
            let before = tree::read(&court.b.folder);
            let mut fork = court.log();
            let seen = fork.len();
            fork.truncate(seen - 2);
            // Signed by A, in A's own name, and on beyond what B remembers.
            while fork.len() < seen + ahead {
                fork.push(planted(&court, &fork, &a));
            }
            court.liar.lie(shows_by(most, fork));
            for start in ["first", "second"] {
                let done = court.b.try_sync();
                assert_code(&format!("{case}, {start} start"), &done, "E_FORK", 14);
                let after = tree::read(&court.b.folder);
                tree::assert_same(&case, ("before", &before), ("after", &after));
            }
            court.assert_nothing_sent(&case);
            court.recovers_both(&case);
        }
    }
}

#[test]
fn what_was_hidden_comes_late_and_changes_nothing_else() {
    // Withholding shows as silence only: nothing is wrong, nothing is lost, and it all comes in the end.
    let field = Field::new();
    let court = Court::new(&field, Genesis::default());
    court.put(&[("a", b"1")]);
    court.recovers("before");
    let log = court.log();
    court.put(&[("a", b"1, edited"), ("b", b"2")]);
    court.liar.lie(shows(log.clone(), log.len()));
    assert_eq!(court.b.try_sync().exit, 0);
    assert_eq!(fs::read(court.b.folder.join("a")).unwrap(), b"1");
    // What B has to say is refused by the real server, which has more: no lie makes B overwrite it.
    fs::write(court.b.folder.join("of B"), "3").unwrap();
    court.liar.lie(
        move |request, honest| match request.is("POST", "/commits") {
            true => honest.ask(request).into(),
            false => match shows(log.clone(), log.len())(request, honest) {
                Said::Answer(answer) => answer.into(),
                other => other,
            },
        },
    );
    let done = court.b.try_sync();
    assert!(done.exit != 0, "B says that it is in sync: {done}");
    court.liar.tell_the_truth();
    court.b.sync_once();
    court.a.sync_once();
    court.assert_equal("in the end");
    assert_eq!(fs::read(court.a.folder.join("of B")).unwrap(), b"3");
}
