//! The server lies: it speaks the real protocol between a real machine and a real server, and cheats. The machine
//! refuses with a stable code, writes nothing wrong, sends nothing where the history is in doubt, and goes on as if
//! nothing had been once it is told the truth.
#![cfg(unix)]
#![allow(clippy::unwrap_used, reason = "a test fails loudly")]

#[path = "../field/mod.rs"]
mod field;

mod chunks;
mod court;
mod daemon;
mod history;
mod log;
mod machines;
mod member;
mod network;
mod orders;
mod slots;
mod terminal;
mod uploads;
