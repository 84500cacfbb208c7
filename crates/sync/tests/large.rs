//! Trees of many nodes take no time that grows faster than they do. Prints how long each part takes
//! (`--nocapture`); what must hold is only that it ends, and well.

#![allow(clippy::unwrap_used, reason = "tests")]

mod model;

use std::collections::BTreeMap;
use std::time::Instant;

use model::{Machine, Server, Thing, path};

#[test]
fn four_thousand_nodes() {
    let mut machine = Machine::new(1);
    let mut server = Server::default();
    for d in 0..200 {
        machine.disk.create(
            &path(&format!("d{d}")),
            Thing::Directory(BTreeMap::new()),
            None,
        );
        for f in 0..20_u32 {
            machine.disk.create(
                &path(&format!("d{d}/f{f}")),
                Thing::File {
                    content: d * 100 + f,
                    exec: false,
                },
                None,
            );
        }
    }
    let timed = |what: &str, start: Instant| println!("{what}: {:?}", start.elapsed());
    let start = Instant::now();
    let (plan, _) = machine.decide(&server);
    timed("first decision", start);
    assert_eq!(plan.all_ops().count(), 4200);
    // The model commits each group for itself, which is what takes long here, so all at once.
    let all = plan.ops.iter().flat_map(|group| group.0.clone()).collect();
    let plan = syncagent_sync::Plan {
        ops: vec![syncagent_sync::Group(all)],
        ..plan
    };
    machine.carry_out(&mut server, &plan, &BTreeMap::new(), None);
    let start = Instant::now();
    let placed = server.log.placed();
    timed("placing", start);
    assert_eq!(placed.tree.len(), 4200);
    let start = Instant::now();
    let (plan, _) = machine.decide(&server);
    timed("nothing to do", start);
    assert!(plan.is_idle());
    let mut second = Machine::new(2);
    let start = Instant::now();
    let (plan, _) = second.decide(&server);
    timed("everything to fetch", start);
    assert_eq!(plan.steps.len(), 4200);
}
