//! The profile's application data.

use std::path::PathBuf;

use syncagent_client::home::Home;

use crate::context::Variables;

pub(super) fn user_home(variables: &Variables) -> Option<PathBuf> {
    variables.path("USERPROFILE")
}

pub(super) fn home(variables: &Variables) -> Option<Home> {
    let config = variables.path("APPDATA")?.join("SyncAgent");
    let state = variables.path("LOCALAPPDATA")?.join("SyncAgent");
    Some(Home::in_dirs(config, state.clone(), state))
}

pub(super) fn server_data(variables: &Variables) -> Option<PathBuf> {
    variables
        .path("LOCALAPPDATA")
        .map(|dir| dir.join("SyncAgent-Server"))
}
