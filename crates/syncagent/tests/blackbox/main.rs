//! The binary as a person or a script runs it: files, exit statuses, output. `SYNCAGENT_BIN` names another binary.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod accidents;
mod brake;
mod codes;
mod conflicts;
mod daemon;
mod damaged;
mod demo;
#[cfg(target_os = "linux")]
mod disks;
mod doctor;
mod dry_run;
mod exits;
#[cfg(target_os = "linux")]
mod explain;
#[cfg(unix)]
mod failures;
mod ignore;
#[cfg(target_os = "linux")]
mod keyring;
mod keys;
mod machines;
#[cfg(target_os = "linux")]
mod memory;
mod mounts;
mod patience;
mod restoring;
mod script;
#[cfg(target_os = "linux")]
mod secrets;
#[cfg(target_os = "linux")]
mod session;
mod settings;
#[cfg(target_os = "linux")]
mod terminal;
mod tls;
mod verify;
#[cfg(target_os = "linux")]
mod watching;
mod world;
