//! Where the system wants a program's files to be.

#[cfg(unix)]
#[path = "directories/unix.rs"]
mod system;
#[cfg(not(unix))]
#[path = "directories/windows.rs"]
mod system;

use std::path::PathBuf;

use syncagent_client::home::Home;

use crate::context::Variables;
use crate::failure::{Failure, Result};

/// The files of the one machine that this user is.
pub(crate) fn home(variables: &Variables) -> Result<Home> {
    system::home(variables).ok_or_else(nowhere)
}

/// Where a server keeps its data if nobody says otherwise.
pub(crate) fn server_data(variables: &Variables) -> Result<PathBuf> {
    system::server_data(variables).ok_or_else(nowhere)
}

/// The folder that is synchronised if nobody says otherwise.
pub(crate) fn folder(variables: &Variables) -> Result<PathBuf> {
    system::user_home(variables)
        .map(|home| home.join("SyncAgent"))
        .ok_or_else(nowhere)
}

fn nowhere() -> Failure {
    Failure::setup("this user has no home directory: name one with SYNCAGENT_HOME")
}
