//! Who is who on disk, row by row: what a person did, and which nodes are where afterwards.

#![allow(clippy::unwrap_used, reason = "tests")]

mod model;

use std::collections::BTreeMap;

use model::{Machine, MemDisk, Server, Thing, path};
use syncagent_protocol::NodeId;
use syncagent_sync::LocalState;
use syncagent_sync::scan::Observed;

/// `a=1 d/ d/b=2 l>t`.
fn build(disk: &mut MemDisk, line: &str) {
    for word in line.split_whitespace() {
        if let Some((at, content)) = word.split_once('=') {
            let thing = Thing::File {
                content: content.parse().unwrap(),
                exec: false,
            };
            disk.create(&path(at), thing, None);
        } else if let Some((at, target)) = word.split_once('>') {
            disk.create(&path(at), Thing::Link(target.to_owned()), None);
        } else {
            disk.create(&path(word), Thing::Directory(BTreeMap::new()), None);
        }
    }
}

/// A person at work: `mv a b`, `swap a b`, `rm a`, `write a 2`, `save a 2` (by replacing), `new a 2`, `mkdir a`,
/// `cp a b` (another inode, same content).
fn work(disk: &mut MemDisk, line: &str) {
    for command in line.split(';').map(str::trim).filter(|c| !c.is_empty()) {
        let words: Vec<&str> = command.split(' ').collect();
        let content = |text: &str| Thing::File {
            content: text.parse().unwrap(),
            exec: false,
        };
        match words[..] {
            ["mv", a, b] => disk.rename(&path(a), &path(b)),
            ["swap", a, b] => disk.exchange(&path(a), &path(b)),
            ["rm", a] => disk.remove(&path(a)),
            ["write", a, c] => disk.write(&path(a), c.parse().unwrap()),
            ["new", a, c] => disk.create(&path(a), content(c), None),
            ["save", a, c] => {
                // The new file exists before the old one goes, so it has another number.
                disk.create(&path("tmp"), content(c), None);
                disk.rename(&path("tmp"), &path(a));
            }
            ["mkdir", a] => disk.create(&path(a), Thing::Directory(BTreeMap::new()), None),
            ["cp", a, b] => {
                let thing = disk.thing(&path(a)).unwrap().clone();
                disk.create(&path(b), thing, None);
            }
            _ => panic!("{command}"),
        }
    }
}

/// Builds and syncs `start`, does `doing`, and lists who is where: old names of nodes (`+` for new ones) by path,
/// with `*` if touched.
fn check(start: &str, doing: &str, want: &str, inodes: bool) {
    let mut machine = Machine::new(1);
    let mut server = Server::default();
    machine.disk.inodes_hidden = !inodes;
    build(&mut machine.disk, start);
    machine.sync(&mut server, None);
    let tree = server.log.placed().tree;
    let old: BTreeMap<NodeId, String> = tree
        .walk(NodeId::ROOT)
        .into_iter()
        .map(|(path, id)| (id, path.as_str().to_owned()))
        .collect();
    work(&mut machine.disk, doing);
    let (_, found) = machine.decide(&server);
    let listing: Vec<String> = found
        .local
        .nodes
        .iter()
        .map(|(id, here)| {
            let was = old.get(id).map_or("+", String::as_str);
            let touched = matches!(
                here.state,
                LocalState::File { .. } | LocalState::Symlink { .. }
            );
            let star = if touched && was != "+" { "*" } else { "" };
            format!("{}<{was}{star}", found.local.path_of(*id).unwrap())
        })
        .collect();
    let mut listing: Vec<&str> = listing.iter().map(String::as_str).collect();
    let mut want: Vec<&str> = want.split_whitespace().collect();
    listing.sort_unstable();
    want.sort_unstable();
    assert_eq!(listing, want, "{start}: {doing}");
}

#[test]
fn with_inode_numbers() {
    for (start, doing, want) in [
        ("a=1", "", "a<a"),
        ("a=1", "write a 2", "a<a*"),
        ("a=1", "save a 2", "a<a*"),
        ("a=1", "mv a b", "b<a*"),
        ("l>t", "mv l m", "m<l*"),
        ("a=1 b=2", "swap a b", "a<b* b<a*"),
        ("a=1 b=2", "mv b a", "a<b*"),
        (
            "a=1 b=2 c=4",
            "mv a x; mv b a; mv c b; mv x c",
            "a<b* b<c* c<a*",
        ),
        ("a=1 b=2", "mv b c; mv a b; new a 4", "a<+ b<a* c<b*"),
        // An editor that keeps a backup: the name is the file's.
        ("a=1", "mv a a~; new a 2", "a<a* a~<+"),
        ("a=1", "cp a b", "a<a b<+"),
        ("a=1", "rm a; new b 2", "b<+"),
        ("a=4", "rm a; new b 4", "b<a*"),
        ("a=4", "cp a b; rm a", "b<a*"),
        ("d/ d/a=1 d/b=2", "mv d e", "e<d e/a<d/a e/b<d/b"),
        ("d/ d/a=1", "mv d e; write e/a 2", "e<+ e/a<+"),
        (
            "d/ d/a=1 d/b=2",
            "mv d e; write e/a 2",
            "e<d e/a<d/a* e/b<d/b",
        ),
        ("d/ d/e/ d/e/a=1", "mv d x; mv x/e y", "x<+ y<d/e y/a<d/e/a"),
        ("d/ d/a=1 e/ e/b=2", "swap d e", "d<e d/b<e/b e<d e/a<d/a"),
        (
            "d/ d/a=1",
            "mv d e; mkdir d; new d/a 2",
            "d<+ d/a<+ e<d e/a<d/a",
        ),
        ("d/ d/a=1", "mv d/a a; rm d; mkdir d", "a<d/a* d<d"),
        // Another kind of thing is another node.
        ("a=1", "rm a; mkdir a", "a<+"),
        ("d/ d/a=1", "rm d; new d 2", "d<+"),
        ("d/ d/a=1", "mv d/a x; rm d; mv x d", "d<d/a*"),
    ] {
        check(start, doing, want, true);
    }
}

#[test]
fn without_inode_numbers() {
    for (start, doing, want) in [
        ("a=1", "write a 2", "a<a*"),
        ("a=4", "mv a b", "b<a*"),
        ("a=1 b=4", "swap a b", "a<a* b<b*"),
        (
            "d/ d/a=1 d/b=2 d/c=4",
            "mv d e",
            "e<d e/a<d/a e/b<d/b e/c<d/c",
        ),
        (
            "d/ d/a=1 d/b=2 d/c=4",
            "mv d e; write e/a 7",
            "e<d e/a<d/a* e/b<d/b e/c<d/c",
        ),
    ] {
        check(start, doing, want, false);
    }
}

#[test]
fn what_was_not_seen_is_not_deleted() {
    let mut machine = Machine::new(1);
    let mut server = Server::default();
    build(&mut machine.disk, "d/ d/a=1 d/e/ d/e/b=2 f=4");
    machine.sync(&mut server, None);
    for hidden in ["", "d", "d/e"] {
        machine.disk.incomplete = [path(hidden)].into();
        let (plan, found) = machine.decide(&server);
        assert!(
            plan.is_idle() && plan.forget.is_empty(),
            "{hidden}: {plan:#?}"
        );
        assert_eq!(found.local.nodes.len(), 5, "{hidden}");
    }
    // A file that cannot be looked at, a directory that cannot.
    machine.disk.incomplete.clear();
    let mut scan = machine.disk.scan();
    let entries = scan.entries.iter();
    let entries = entries.filter(|(p, _)| !p.is_within(&path("d")));
    scan.entries = entries.map(|(p, seen)| (p.clone(), seen.clone())).collect();
    scan.entries.insert(path("d"), Observed::Unknown);
    let found = syncagent_sync::identify(
        &machine.ancestor,
        &scan,
        &BTreeMap::new(),
        &BTreeMap::new(),
        &mut || NodeId([9; 16]),
    );
    let unknown = found
        .local
        .nodes
        .values()
        .filter(|node| node.state == LocalState::Unknown)
        .count();
    assert_eq!((found.local.nodes.len(), unknown), (5, 4));
    assert!(found.local.occupied.is_empty());
}

#[test]
fn ids_given_before_are_kept() {
    let mut machine = Machine::new(1);
    let server = Server::default();
    build(&mut machine.disk, "a=1 d/ d/b=2");
    let (_, first) = machine.decide(&server);
    machine.pending = first.new_ids.clone();
    let (_, second) = machine.decide(&server);
    assert_eq!(first.new_ids, second.new_ids);
}

#[test]
fn a_row_that_was_left_behind_claims_nothing() {
    let mut machine = Machine::new(1);
    let mut server = Server::default();
    build(&mut machine.disk, "a=1");
    machine.sync(&mut server, None);
    let (node, row) = machine
        .ancestor
        .iter()
        .map(|(id, row)| (id, row.clone()))
        .next()
        .unwrap();
    // Another row, of something unplaced that was last seen elsewhere, with the number and time of a.
    let mut stale = row;
    stale.node.name = model::name("b");
    machine
        .ancestor
        .insert(NodeId([0; 16].map(|_: u8| 3)), stale);
    let (_, found) = machine.decide(&server);
    assert_eq!(found.local.nodes[&node].state, LocalState::Same);
}

#[test]
fn a_row_whose_looks_are_not_trusted_is_known_by_its_number() {
    let mut machine = Machine::new(1);
    let mut server = Server::default();
    build(&mut machine.disk, "a=1 b=1");
    machine.sync(&mut server, None);
    let node_of = |machine: &Machine, name: &str| {
        let mut rows = machine.ancestor.iter();
        rows.find(|(_, row)| row.node.name.as_str() == name)
            .map(|(id, row)| (id, row.clone()))
            .unwrap()
    };
    let (a, _) = node_of(&machine, "a");
    let (b, mut row) = node_of(&machine, "b");
    // b was seen too fresh to be trusted, and a has its number as well: it was moved onto b's name once, and back.
    let print = row.fingerprint.take();
    row.inode = print.unwrap().inode;
    machine.ancestor.insert(b, row);
    let (_, mut row) = node_of(&machine, "a");
    row.fingerprint = print;
    machine.ancestor.insert(a, row);
    work(&mut machine.disk, "save a 2");
    let (_, found) = machine.decide(&server);
    let name_of = |node: NodeId| found.local.nodes[&node].name.to_string();
    assert_eq!((name_of(a), name_of(b)), ("a".into(), "b".into()));
}

#[test]
fn a_bit_that_no_time_tells_of_is_seen() {
    let mut machine = Machine::new(1);
    let mut server = Server::default();
    build(&mut machine.disk, "a=1");
    machine.sync(&mut server, None);
    let before = machine.disk.fingerprint(&path("a"));
    let mut scan = machine.disk.scan();
    let seen = scan.entries.get_mut(&path("a")).unwrap();
    let Observed::File {
        fingerprint, exec, ..
    } = seen
    else {
        panic!("{seen:?}");
    };
    assert_eq!(*fingerprint, before);
    *exec = true;
    let identify = |scan: &syncagent_sync::scan::Scan| {
        let none = &BTreeMap::new();
        let mut new_id = || panic!("nothing is new");
        let found =
            syncagent_sync::identify(&machine.ancestor, scan, &BTreeMap::new(), none, &mut new_id);
        found.local.nodes.into_values().next().unwrap().state
    };
    assert!(matches!(
        identify(&scan),
        LocalState::File {
            exec: true,
            hash: Some(_),
            ..
        }
    ));
    // Where files have no such bit, what a scan says of it means nothing.
    scan.no_exec_bit = true;
    assert_eq!(identify(&scan), LocalState::Same);
}
