//! The XDG base directories, on macOS too.

use std::path::PathBuf;

use syncagent_client::home::Home;

use crate::context::Variables;

pub(super) fn user_home(variables: &Variables) -> Option<PathBuf> {
    variables.path("HOME").filter(|path| path.is_absolute())
}

pub(super) fn home(variables: &Variables) -> Option<Home> {
    let config = base(variables, "XDG_CONFIG_HOME", ".config")?;
    let state = base(variables, "XDG_STATE_HOME", ".local/state")?;
    let runtime = variables
        .path("XDG_RUNTIME_DIR")
        .filter(|path| path.is_absolute());
    let runtime = runtime.map_or_else(|| state.join("run"), |runtime| runtime.join("syncagent"));
    Some(Home::in_dirs(config, state, runtime))
}

pub(super) fn server_data(variables: &Variables) -> Option<PathBuf> {
    base(variables, "XDG_DATA_HOME", ".local/share")
        .map(|dir| dir.with_file_name("syncagent-server"))
}

/// The specification says that a relative path in a variable is to be ignored.
fn base(variables: &Variables, name: &str, fallback: &str) -> Option<PathBuf> {
    let dir = variables.path(name).filter(|path| path.is_absolute());
    dir.or_else(|| user_home(variables).map(|home| home.join(fallback)))
        .map(|dir| dir.join("syncagent"))
}
