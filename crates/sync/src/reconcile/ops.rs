//! From what the vault holds to what it shall hold, in an order that leaves a valid tree after every commit.

use std::collections::BTreeMap;

use syncagent_protocol::{Body, Kind, NodeId};

use super::disk::Disk;
use super::merge::{Merged, Source, Want};
use super::sides::{Sides, exec_of};
use crate::plan::{Content, Group, Op, Put};

pub(super) fn ops(sides: &Sides<'_>, merged: &Merged, disk: &Disk) -> Vec<Group> {
    let writer = Writer {
        sides,
        merged,
        disk,
    };
    let mut ops = writer.puts();
    ops.extend(writer.trashes());
    let index: BTreeMap<NodeId, usize> = ops
        .iter()
        .enumerate()
        .map(|(i, op)| (op.node(), i))
        .collect();
    let needs: Vec<Vec<usize>> = ops.iter().map(|op| writer.needs(op, &index)).collect();
    let depth = |op: &Op| match op {
        Op::Put(put) => (false, writer.depth(put.node)),
        Op::Trash { .. } => (true, 0),
    };
    let mut ops: Vec<Option<Op>> = ops.into_iter().map(Some).collect();
    let groups = in_order(&needs).into_iter().map(|indices| {
        let mut group: Vec<Op> = indices.into_iter().filter_map(|i| ops[i].take()).collect();
        group.sort_by_key(|op| (depth(op), op.node()));
        Group(group)
    });
    groups.collect()
}

struct Writer<'a> {
    sides: &'a Sides<'a>,
    merged: &'a Merged,
    disk: &'a Disk,
}

impl Writer<'_> {
    fn puts(&self) -> Vec<Op> {
        let vault = self
            .merged
            .vault
            .iter()
            .filter(|(id, _)| !self.merged.still.contains(id));
        let mut puts: Vec<_> = vault
            .filter_map(|(id, want)| Some((self.merged.way_to(*id), self.put(*id, want)?)))
            .collect();
        // In the order of paths, in which others fetch: what is fetched together then lies together on the server.
        puts.sort_by(|(a, one), (b, other)| (a, one.node).cmp(&(b, other.node)));
        puts.into_iter().map(|(_, put)| Op::Put(put)).collect()
    }

    fn put(&self, id: NodeId, want: &Want) -> Option<Put> {
        let remote = self.sides.remote(id);
        if remote.is_some_and(|node| {
            want.source != Source::Disk
                && (node.parent, &node.name) == (want.place.0, &want.place.1)
                && exec_of(&node.body) == want.exec
                && node.mtime_ns == want.mtime_ns
        }) {
            return None;
        }
        let origin = self.origin(id);
        let content = match (want.kind, want.source, remote) {
            (Kind::Directory, ..) => Content::Directory,
            (Kind::File, Source::Both | Source::Vault, Some(_)) => Content::Keep,
            (Kind::File, ..) => Content::FromDisk {
                path: self.disk.path_of(id)?,
            },
            (Kind::Symlink, ..) => Content::Symlink {
                target: self.target(id, origin, want)?,
            },
        };
        let lost = self.merged.lost.get(&id);
        Some(Put {
            node: id,
            parent: want.place.0,
            name: want.place.1.clone(),
            content,
            exec: want.exec,
            mtime_ns: want.mtime_ns,
            conflict_of: lost.and_then(|lost| Some((lost.to, lost.to_version?))),
            based_on: match lost {
                Some(lost) => lost.ancestor_version,
                None => self.sides.base(id).map(|row| row.op_hash),
            },
        })
    }

    /// The node whose file on disk a copy is made of; any other is its own.
    fn origin(&self, id: NodeId) -> NodeId {
        self.merged
            .lost
            .get(&id)
            .map(|lost| lost.to)
            .filter(|to| self.merged.copies.get(to) == Some(&id))
            .unwrap_or(id)
    }

    fn target(&self, id: NodeId, origin: NodeId, want: &Want) -> Option<String> {
        let remote = self.sides.remote(id).map(|node| node.body.clone());
        let body = if want.source == Source::Disk {
            Some(self.sides.local_body(origin, false))
        } else {
            remote
        };
        match body? {
            Body::Symlink { target } => Some(target),
            Body::File { .. } | Body::Directory => None,
        }
    }

    fn trashes(&self) -> impl Iterator<Item = Op> {
        let gone = self
            .sides
            .tree
            .iter()
            .filter(|(id, _)| !self.merged.vault.contains_key(id));
        gone.map(|(node, _)| Op::Trash { node })
    }

    fn depth(&self, id: NodeId) -> usize {
        let mut depth = 0;
        let mut at = id;
        while let Some(want) = self.merged.vault.get(&at) {
            depth += 1;
            at = want.place.0;
        }
        depth
    }

    fn is_placing(&self, id: NodeId, want: &Want) -> bool {
        self.sides
            .remote(id)
            .is_none_or(|node| (node.parent, &node.name) != (want.place.0, &want.place.1))
    }

    /// The ops that must stand before this one or in the same commit.
    fn needs(&self, op: &Op, index: &BTreeMap<NodeId, usize>) -> Vec<usize> {
        let mut needs = Vec::new();
        match op {
            Op::Put(put) => {
                let Some(want) = self
                    .merged
                    .vault
                    .get(&put.node)
                    .filter(|want| self.is_placing(put.node, want))
                else {
                    return needs;
                };
                // What hangs there now has to leave.
                let there = self
                    .sides
                    .tree
                    .child(want.place.0, &want.place.1)
                    .filter(|id| *id != put.node);
                needs.extend(there.and_then(|id| index.get(&id)));
                // The nearest directory above that is itself on the move: that one needs those further up.
                let mut at = want.place.0;
                while let Some(above) = self.merged.vault.get(&at) {
                    if let Some(i) = index.get(&at)
                        && self.is_placing(at, above)
                    {
                        needs.push(*i);
                        break;
                    }
                    at = above.place.0;
                }
            }
            // Whatever leaves a directory leaves before it goes.
            Op::Trash { node } => needs.extend(
                self.sides
                    .tree
                    .children(*node)
                    .filter_map(|(_, id)| index.get(&id)),
            ),
        }
        needs
    }
}

/// Groups of mutual need, each after those it needs (Tarjan's strongly connected components).
fn in_order(needs: &[Vec<usize>]) -> Vec<Vec<usize>> {
    const UNSEEN: usize = usize::MAX;
    let mut number = vec![UNSEEN; needs.len()];
    let mut low = vec![0; needs.len()];
    let mut on_stack = vec![false; needs.len()];
    let (mut stack, mut groups, mut next) = (Vec::new(), Vec::new(), 0);
    for start in 0..needs.len() {
        if number[start] != UNSEEN {
            continue;
        }
        let mut calls = vec![(start, 0)];
        while let Some((at, edge)) = calls.pop() {
            if edge == 0 {
                number[at] = next;
                low[at] = next;
                next += 1;
                stack.push(at);
                on_stack[at] = true;
            } else {
                low[at] = low[at].min(low[needs[at][edge - 1]]);
            }
            let mut edge = edge;
            let mut descended = false;
            while let Some(to) = needs[at].get(edge).copied() {
                edge += 1;
                if number[to] == UNSEEN {
                    calls.push((at, edge));
                    calls.push((to, 0));
                    descended = true;
                    break;
                }
                if on_stack[to] {
                    low[at] = low[at].min(number[to]);
                }
            }
            if !descended && low[at] == number[at] {
                let mut group = Vec::new();
                while let Some(member) = stack.pop() {
                    on_stack[member] = false;
                    group.push(member);
                    if member == at {
                        break;
                    }
                }
                groups.push(group);
            }
        }
    }
    groups
}
