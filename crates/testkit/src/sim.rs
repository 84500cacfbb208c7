//! Simulated worlds: the real engine, the real decisions and the real server in one thread, on disks and a network
//! made of a seed.
//!
//! [`world::run`] turns a seed into a whole world: machines that edit, synchronise, crash and lose power, requests
//! that are cut, delayed and repeated, clocks that jump, disks that are full, a server that loses things. The same seed gives the same world, call by call. When the edits stop,
//! [`ledger::Ledger`] says whether a promise was broken.
//!
//! Reading order: [`dice`] and [`clock`] (what is random, what time it is), [`fs`] (a file system that knows what a
//! power cut leaves), [`disk`] (the client's seam over it), [`net`], [`server`], [`user`] (what people do), [`ledger`], [`world`].

pub mod clock;
pub mod dice;
pub mod disk;
pub mod fs;
pub mod ledger;
pub mod net;
pub mod server;
pub mod trace;
pub mod user;
pub mod world;
