//! Worlds for tests: engines and a server in one process.
//!
//! [`transport`] carries requests straight into the server's router; [`world`] holds one server, one vault and
//! any number of machines.

pub mod transport;
pub mod world;
