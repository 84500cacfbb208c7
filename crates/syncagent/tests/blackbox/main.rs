//! The binary as a person or a script runs it: files, exit statuses, output. `SYNCAGENT_BIN` names another binary.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod codes;
mod daemon;
mod demo;
#[cfg(target_os = "linux")]
mod disks;
mod doctor;
mod dry_run;
mod exits;
#[cfg(unix)]
mod failures;
mod ignore;
mod keys;
mod machines;
mod mounts;
mod script;
mod settings;
mod tls;
mod verify;
mod world;
