//! `paths`: where this machine keeps its files.

use std::path::PathBuf;

use serde::Serialize;

use crate::context::Context;
use crate::failure::Result;
use crate::output::text::table;

#[derive(Serialize)]
struct Answer {
    config: PathBuf,
    key: PathBuf,
    machine: PathBuf,
    unlocked: PathBuf,
    state: PathBuf,
    socket: PathBuf,
    agent: PathBuf,
    logs: PathBuf,
    folder: Option<PathBuf>,
}

pub(super) fn run(context: &Context) -> Result {
    let home = context.home()?;
    let answer = Answer {
        config: home.config_path(),
        key: home.key_path(),
        machine: home.machine_path(),
        unlocked: home.unlocked_path(),
        state: home.state_path(),
        socket: home.socket_path(),
        agent: home.agent_path(),
        logs: home.log_dir(),
        folder: context.config(&home)?.folder,
    };
    context.output.result(&answer, || {
        let row = |name: &str, path: &PathBuf| vec![name.to_owned(), path.display().to_string()];
        let mut rows = vec![
            row("config", &answer.config),
            row("key", &answer.key),
            row("machine", &answer.machine),
            row("unlocked", &answer.unlocked),
            row("state", &answer.state),
            row("socket", &answer.socket),
            row("agent", &answer.agent),
            row("logs", &answer.logs),
        ];
        rows.extend(answer.folder.as_ref().map(|folder| row("folder", folder)));
        table(&rows)
    })
}
