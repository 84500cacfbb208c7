//! The promises of docs/sync.md as properties over random worlds.

#![allow(clippy::unwrap_used, reason = "tests")]

mod model;

use std::collections::BTreeSet;

use model::{Cut, Machine, MemDisk, Server, Thing, name, show};
use proptest::prelude::*;
use proptest::test_runner::RngSeed;
use syncagent_protocol::{NodeId, TreePath};
use syncagent_sync::LastOp;

/// `SYNCAGENT_CASES` cases (default 10,000) for each property, drawn from `SYNCAGENT_SEED` (default 1): the same at
/// every run, so that a change is judged by what it does; other seeds are for those who look for more.
fn config() -> ProptestConfig {
    let number = |name, default| {
        let value = std::env::var(name).ok();
        value.and_then(|n| n.parse().ok()).unwrap_or(default)
    };
    ProptestConfig {
        cases: u32::try_from(number("SYNCAGENT_CASES", 10_000)).unwrap_or(u32::MAX),
        rng_seed: RngSeed::Fixed(number("SYNCAGENT_SEED", 1)),
        failure_persistence: None,
        ..ProptestConfig::default()
    }
}

/// Something a person does to a folder; the numbers pick paths and names among what is there.
#[derive(Debug, Clone, Copy)]
struct Edit {
    kind: u8,
    a: u8,
    b: u8,
    /// Not zero: a content nobody else writes. Zero: one that others write too.
    fresh: bool,
}

fn edit() -> impl Strategy<Value = Edit> {
    (0..10_u8, any::<u8>(), any::<u8>(), any::<bool>()).prop_map(|(kind, a, b, fresh)| Edit {
        kind,
        a,
        b,
        fresh,
    })
}

fn edits(max: usize) -> impl Strategy<Value = Vec<Edit>> {
    proptest::collection::vec(edit(), 0..max)
}

const NAMES: [&str; 4] = ["a", "b", "c", "d.e"];

fn pick<T: Clone>(from: &[T], number: u8) -> Option<T> {
    (!from.is_empty()).then(|| from[number as usize % from.len()].clone())
}

fn apply(disk: &mut MemDisk, edit: Edit, contents: &mut u32) {
    let paths = disk.paths();
    let is_dir = |disk: &MemDisk, p: &TreePath| {
        p.is_root() || matches!(disk.thing(p), Some(Thing::Directory(_)))
    };
    let mut directories = vec![TreePath::ROOT];
    directories.extend(paths.iter().filter(|p| is_dir(disk, p)).cloned());
    let files: Vec<_> = paths
        .iter()
        .filter(|p| matches!(disk.thing(p), Some(Thing::File { .. })))
        .cloned()
        .collect();
    let directory = pick(&directories, edit.b / 4).unwrap();
    let target = directory.join(&name(NAMES[edit.b as usize % 4]));
    let content = if edit.fresh {
        *contents += 1;
        *contents
    } else {
        u32::from(edit.a % 5)
    };
    match edit.kind {
        0 | 1 => match disk.thing(&target) {
            None => disk.create(
                &target,
                Thing::File {
                    content,
                    exec: edit.a.is_multiple_of(8),
                },
                None,
            ),
            Some(Thing::File { .. }) => disk.write(&target, content),
            Some(_) => {}
        },
        2 => {
            if disk.find(&target).is_none() {
                disk.create(&target, Thing::Directory(Default::default()), None);
            }
        }
        3 | 4 => {
            if let Some(from) = pick(&paths, edit.a)
                && !target.is_within(&from)
                && !from.is_within(&target)
                && (disk.find(&target).is_none() || !is_dir(disk, &from) && !is_dir(disk, &target))
            {
                disk.rename(&from, &target);
            }
        }
        5 => {
            if let Some(from) = pick(&paths, edit.a)
                && disk.find(&target).is_some()
                && !target.is_within(&from)
                && !from.is_within(&target)
            {
                disk.exchange(&from, &target);
            }
        }
        6 => {
            if let Some(path) = pick(&paths, edit.a) {
                disk.remove(&path);
            }
        }
        7 => {
            if let Some(path) = pick(&files, edit.a) {
                match edit.b % 4 {
                    0 => disk.set_meta(&path, Some(edit.fresh), None),
                    1 => {
                        let now = disk.clock + 1;
                        disk.set_meta(&path, None, Some(now));
                    }
                    2 => disk.write(&path, content),
                    // An editor that saves by replacing.
                    _ => {
                        disk.remove(&path);
                        disk.create(
                            &path,
                            Thing::File {
                                content,
                                exec: false,
                            },
                            None,
                        );
                    }
                }
            }
        }
        8 => {
            if disk.find(&target).is_none() {
                disk.create(&target, Thing::Link(format!("t{}", edit.a % 3)), None);
            }
        }
        _ => {
            // Something else under a known name.
            if let Some(path) = pick(&paths, edit.a) {
                let was_dir = is_dir(disk, &path);
                disk.remove(&path);
                let thing = if was_dir {
                    Thing::File {
                        content,
                        exec: false,
                    }
                } else {
                    Thing::Directory(Default::default())
                };
                disk.create(&path, thing, None);
            }
        }
    }
}

/// The same, but nothing new has a name or a content that anything had before.
fn apply_elsewhere(disk: &mut MemDisk, edit: Edit, contents: &mut u32) {
    let paths = disk.paths();
    let is_dir = |p: &&TreePath| matches!(disk.thing(p), Some(Thing::Directory(_)));
    let mut directories = vec![TreePath::ROOT];
    directories.extend(paths.iter().filter(is_dir).cloned());
    *contents += 1;
    let content = *contents;
    let target = pick(&directories, edit.b)
        .unwrap()
        .join(&name(&format!("n{content}")));
    let file = Thing::File {
        content,
        exec: false,
    };
    let Some(path) = pick(&paths, edit.a) else {
        return disk.create(&target, file, None);
    };
    match edit.kind {
        0 => disk.create(&target, file, None),
        1 => disk.create(&target, Thing::Directory(Default::default()), None),
        2 => disk.remove(&path),
        3 | 4 if matches!(disk.thing(&path), Some(Thing::File { .. })) => {
            disk.write(&path, content)
        }
        _ if !target.is_within(&path) => disk.rename(&path, &target),
        _ => {}
    }
}

#[derive(Debug, Clone, Copy)]
enum Act {
    Edit(u8, Edit),
    Sync(u8, Option<(u8, bool)>),
    LoseAncestor(u8),
    Renumber(u8),
}

fn act() -> impl Strategy<Value = Act> {
    prop_oneof![
        12 => (any::<u8>(), edit()).prop_map(|(m, edit)| Act::Edit(m, edit)),
        4 => any::<u8>().prop_map(|m| Act::Sync(m, None)),
        2 => (any::<u8>(), 0..6_u8, any::<bool>()).prop_map(|(m, after, rows)| Act::Sync(m, Some((after, rows)))),
        1 => any::<u8>().prop_map(Act::LoseAncestor),
        1 => any::<u8>().prop_map(Act::Renumber),
    ]
}

struct World {
    server: Server,
    machines: Vec<Machine>,
    contents: u32,
}

impl World {
    fn new(machines: u64) -> Self {
        Self {
            server: Server::default(),
            machines: (1..=machines).map(Machine::new).collect(),
            contents: 1000,
        }
    }

    fn edit(&mut self, machine: usize, edit: Edit) {
        apply(&mut self.machines[machine].disk, edit, &mut self.contents);
    }

    /// Syncs one machine and checks that nothing that was on its disk is lost.
    fn sync(&mut self, machine: usize, cut: Option<Cut>) -> syncagent_sync::Plan {
        let machine = &mut self.machines[machine];
        let before = machine.disk.contents();
        let plan = machine.sync(&mut self.server, cut);
        let after = machine.disk.contents();
        for content in before {
            assert!(
                after.contains(&content) || self.server.ever.contains(&content),
                "{content} is lost by {plan:#?}"
            );
        }
        plan
    }

    /// Syncs until nothing moves any more.
    fn settle(&mut self) {
        for _ in 0..12 {
            let mut idle = true;
            for machine in 0..self.machines.len() {
                idle &= self.sync(machine, None).is_idle();
            }
            if idle {
                return;
            }
        }
        panic!("does not settle");
    }

    fn assert_converged(&self) {
        let vault = self.server.picture();
        assert_eq!(self.server.log.placed().unplaced.len(), 0);
        for machine in &self.machines {
            assert_eq!(machine.disk.picture(), vault, "{}", machine.policy.machine);
        }
    }
}

/// Machines that agree on a tree made by `edits`.
fn agreed(machines: u64, edits: &[Edit]) -> World {
    let mut world = World::new(machines);
    for edit in edits {
        world.edit(0, *edit);
    }
    world.settle();
    world
}

proptest! {
    #![proptest_config(config())]

    #[test]
    fn whatever_happens_it_converges_and_loses_nothing(acts in proptest::collection::vec(act(), 0..30), n in 2..4_u64) {
        let mut world = World::new(n);
        for act in acts {
            match act {
                Act::Edit(m, edit) => world.edit(m as usize % n as usize, edit),
                Act::Sync(m, cut) => {
                    let cut = cut.map(|(after, rows)| Cut { after: after.into(), rows });
                    world.sync(m as usize % n as usize, cut);
                }
                Act::Renumber(m) => world.machines[m as usize % n as usize].disk.renumber(|_| true),
                Act::LoseAncestor(m) => {
                    let machine = &mut world.machines[m as usize % n as usize];
                    // The ids that were given to paths stand in the same index.
                    (machine.ancestor, machine.pending) = Default::default();
                    let (plan, _) = machine.decide(&world.server);
                    let guilty = syncagent_sync::guard::check(
                        &plan,
                        &world.server.log.placed(),
                        0,
                        &syncagent_sync::guard::Limits { files: 0, ..Default::default() },
                    );
                    // An earlier version makes room for a later one; what is lost by that shows at the end.
                    let mut affected = guilty.iter().flat_map(|held| &held.affected);
                    let is_update = |id| world.server.versions.get(&id).is_some_and(|versions| versions.len() > 1);
                    let lost = affected.find(|affected| affected.change != syncagent_sync::guard::Change::Replaced || !is_update(affected.node));
                    prop_assert!(lost.is_none(), "without an ancestor nothing goes: {guilty:#?}");
                }
            }
        }
        world.settle();
        world.assert_converged();
    }
}

proptest! {
    #![proptest_config(config())]

    #[test]
    fn a_second_run_is_empty(start in edits(12), ours in edits(8), theirs in edits(8)) {
        let mut world = agreed(2, &start);
        ours.iter().for_each(|edit| world.edit(0, *edit));
        theirs.iter().for_each(|edit| world.edit(1, *edit));
        for machine in [0, 1] {
            let first = world.sync(machine, None);
            let second = world.sync(machine, None);
            prop_assert!(second.is_idle(), "first\n{}second\n{}", show(&first), show(&second));
            prop_assert!(second.records.is_empty() && second.forget.is_empty() && second.reparented.is_empty(), "first\n{}second\n{}{:?}", show(&first), show(&second), second.records);
        }
    }

    #[test]
    fn edits_on_one_machine_reach_the_other_as_they_are(start in edits(12), ours in edits(10)) {
        let mut world = agreed(2, &start);
        ours.iter().for_each(|edit| world.edit(0, *edit));
        let want = world.machines[0].disk.picture();
        let sent = world.sync(0, None);
        prop_assert!(sent.steps.is_empty() && sent.conflicts.is_empty(), "{}", show(&sent));
        prop_assert_eq!(&world.server.picture(), &want);
        let got = world.sync(1, None);
        prop_assert!(got.ops.is_empty() && got.conflicts.is_empty(), "{}", show(&got));
        prop_assert_eq!(&world.machines[1].disk.picture(), &want);
    }

    #[test]
    fn equal_edits_are_no_conflict(start in edits(12), both in edits(6)) {
        let mut world = agreed(2, &start);
        let contents = world.contents;
        for machine in [0, 1] {
            world.contents = contents;
            both.iter().for_each(|edit| world.edit(machine, *edit));
        }
        let want = world.machines[0].disk.picture();
        prop_assert_eq!(&world.machines[1].disk.picture(), &want);
        world.sync(0, None);
        let plan = world.sync(1, None);
        prop_assert!(plan.conflicts.is_empty(), "{}", show(&plan));
        world.settle();
        prop_assert_eq!(&world.machines[0].disk.picture(), &want);
        world.assert_converged();
    }

    #[test]
    fn equal_edits_that_two_machines_tell_apart_differently_are_no_conflict(
        start in edits(12),
        both in edits(8),
        other in 0..2_usize,
        first in 0..2_usize,
    ) {
        let mut world = agreed(2, &start);
        // This one has nothing but names to know directories by.
        world.machines[other].disk.renumber(|thing| matches!(thing, Thing::Directory(_)));
        let contents = world.contents;
        for machine in [0, 1] {
            world.contents = contents;
            both.iter().for_each(|edit| apply_elsewhere(&mut world.machines[machine].disk, *edit, &mut world.contents));
        }
        let want = world.machines[0].disk.picture();
        prop_assert_eq!(&world.machines[1].disk.picture(), &want);
        world.sync(first, None);
        let plan = world.sync(1 - first, None);
        prop_assert!(plan.conflicts.is_empty(), "{}", show(&plan));
        world.settle();
        prop_assert_eq!(&world.machines[0].disk.picture(), &want);
        world.assert_converged();
    }
}

proptest! {
    #![proptest_config(config())]

    #[test]
    fn who_comes_first_only_decides_who_keeps_the_name(start in edits(12), ours in edits(5), theirs in edits(5)) {
        let outcome = |order: [usize; 2]| {
            let mut world = agreed(2, &start);
            ours.iter().for_each(|edit| world.edit(0, *edit));
            theirs.iter().for_each(|edit| world.edit(1, *edit));
            for machine in order {
                world.sync(machine, None);
            }
            world.settle();
            world.assert_converged();
            // Of two equal new files with different exec bits, the first decides.
            let texts = world.server.picture().into_values().filter(|text| text != "/");
            texts.map(|text| text.trim_end_matches('x').to_owned()).collect::<BTreeSet<_>>()
        };
        prop_assert_eq!(outcome([0, 1]), outcome([1, 0]));
    }

    #[test]
    fn the_same_input_gives_the_same_plan(start in edits(12), ours in edits(8), theirs in edits(8)) {
        let mut world = agreed(2, &start);
        ours.iter().for_each(|edit| world.edit(0, *edit));
        theirs.iter().for_each(|edit| world.edit(1, *edit));
        world.sync(0, None);
        let mut again = world.machines[1].clone();
        let (first, second) = (world.machines[1].decide(&world.server), again.decide(&world.server));
        prop_assert_eq!(first, second);
    }
}

/// What goes wrong in odd worlds.
#[derive(Debug, Clone, Copy)]
enum Oddity {
    /// Something that is not synchronised appears, or goes.
    Special(u8, u8),
    /// A directory cannot be read in full.
    Incomplete(u8, u8),
    /// A node's last PUT cannot be read, or hangs nowhere.
    Break(u8, bool),
    /// A node's content cannot be fetched.
    Unavailable(u8, u8),
    Edit(u8, Edit),
    Sync(u8, Option<(u8, bool)>),
}

fn oddity() -> impl Strategy<Value = Oddity> {
    prop_oneof![
        1 => (any::<u8>(), any::<u8>()).prop_map(|(m, a)| Oddity::Special(m, a)),
        1 => (any::<u8>(), any::<u8>()).prop_map(|(m, a)| Oddity::Incomplete(m, a)),
        1 => (any::<u8>(), any::<bool>()).prop_map(|(a, how)| Oddity::Break(a, how)),
        1 => (any::<u8>(), any::<u8>()).prop_map(|(m, a)| Oddity::Unavailable(m, a)),
        6 => (any::<u8>(), edit()).prop_map(|(m, edit)| Oddity::Edit(m, edit)),
        3 => (any::<u8>(), proptest::option::of((0..6_u8, any::<bool>()))).prop_map(|(m, cut)| Oddity::Sync(m, cut)),
    ]
}

fn odd(world: &mut World, oddity: Oddity) {
    let tree = world.server.log.placed().tree;
    let nodes: Vec<_> = tree.iter().map(|(id, node)| (id, node.clone())).collect();
    match oddity {
        Oddity::Special(m, a) => {
            let disk = &mut world.machines[m as usize % 2].disk;
            let paths = disk.paths();
            let is_special = |p: &&TreePath| disk.thing(p) == Some(&Thing::Special);
            if let Some(old) = paths.iter().find(is_special) {
                return disk.remove(old);
            }
            let mut directories = vec![TreePath::ROOT];
            let is_dir = |p: &&TreePath| matches!(disk.thing(p), Some(Thing::Directory(_)));
            directories.extend(paths.iter().filter(is_dir).cloned());
            let at = pick(&directories, a / 4)
                .unwrap()
                .join(&name(NAMES[a as usize % 4]));
            if disk.find(&at).is_none() {
                disk.create(&at, Thing::Special, None);
            }
        }
        Oddity::Incomplete(m, a) => {
            let disk = &mut world.machines[m as usize % 2].disk;
            disk.incomplete = pick(&disk.paths(), a).into_iter().collect();
        }
        Oddity::Break(a, how) => {
            if let Some((id, mut node)) = pick(&nodes, a) {
                node.parent = NodeId([0xee; 16]);
                let op = if how {
                    LastOp::Unreadable
                } else {
                    LastOp::Put(node.into())
                };
                world.server.commit(vec![(id, op)]);
            }
        }
        Oddity::Unavailable(m, a) => {
            let unavailable = &mut world.machines[m as usize % 2].policy.unavailable;
            *unavailable = pick(&nodes, a).into_iter().map(|(id, _)| id).collect();
        }
        Oddity::Edit(m, edit) => world.edit(m as usize % 2, edit),
        Oddity::Sync(m, cut) => {
            let cut = cut.map(|(after, rows)| Cut {
                after: after.into(),
                rows,
            });
            world.sync(m as usize % 2, cut);
        }
    }
}

proptest! {
    #![proptest_config(config())]

    #[test]
    fn odd_worlds_settle_and_lose_nothing(start in edits(10), acts in proptest::collection::vec(oddity(), 0..25)) {
        let mut world = agreed(2, &start);
        for act in acts {
            odd(&mut world, act);
        }
        world.settle();
        // Once everything can be read again, all agree.
        for machine in &mut world.machines {
            machine.disk.incomplete.clear();
            machine.policy.unavailable.clear();
            let special: Vec<_> =
                machine.disk.paths().into_iter().filter(|p| machine.disk.thing(p) == Some(&Thing::Special)).collect();
            special.iter().for_each(|path| machine.disk.remove(path));
        }
        let unplaced = world.server.log.placed().unplaced.into_keys();
        let trash: Vec<_> = unplaced.map(|id| (id, LastOp::Trashed)).collect();
        if !trash.is_empty() {
            world.server.commit(trash);
        }
        world.settle();
        world.assert_converged();
    }
}
