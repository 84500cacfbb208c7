//! `conflicts list`: copies that wait for somebody to look at them.

use serde::Serialize;
use syncagent_protocol::NodeId;

use super::browse::open_index;
use crate::context::Context;
use crate::failure::Result;
use crate::output::text;

#[derive(Serialize)]
struct Row {
    path: String,
    copy_path: String,
    node: NodeId,
    copy: NodeId,
    time: String,
    time_ms: u64,
}

pub(super) fn list(context: &Context) -> Result {
    #[derive(Serialize)]
    struct Answer {
        conflicts: Vec<Row>,
    }
    let index = open_index(context)?;
    let rows = index.conflicts()?.into_iter().map(|row| Row {
        time: text::rfc3339(row.time_ms),
        path: row.path,
        copy_path: row.copy_path,
        node: row.node,
        copy: row.copy,
        time_ms: row.time_ms,
    });
    let answer = Answer {
        conflicts: rows.collect(),
    };
    context
        .output
        .result(&answer, || match answer.conflicts.is_empty() {
            true => "no conflicts".to_owned(),
            false => text::table(
                &answer
                    .conflicts
                    .iter()
                    .map(|row| {
                        vec![
                            text::time(row.time_ms),
                            text::shown(&row.path),
                            text::shown(&row.copy_path),
                        ]
                    })
                    .collect::<Vec<_>>(),
            ),
        })?;
    if !answer.conflicts.is_empty() {
        context
            .output
            .remark("Keep what you need from both, then delete or rename the copy.");
    }
    Ok(())
}
