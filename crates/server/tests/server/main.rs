//! The server as its clients meet it: through the router, and over a real socket.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod access;
mod chunks;
mod crash;
mod live;
mod log;
mod world;
