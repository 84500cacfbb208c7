//! Worlds for tests: engines and a server in one process.
//!
//! [`transport`] carries requests straight into the server's router; [`world`] holds one server, one vault and
//! any number of machines with folders on a real disk. In [`sim`] disk, network and time are made of a seed as well.

pub mod sim;
pub mod transport;
pub mod world;
