//! How does everybody share a vault?
//!
//! A server that keeps sealed chunks and a signed log, checks everything that can be checked without
//! a key, and could not read any of it: this crate depends on `syncagent-protocol` alone, so it cannot
//! even name a function that decrypts. The contract is `docs/protocol.md`; running it is in
//! `docs/server.md`.
//!
//! Reading order: [`catalog`] (what is known), [`chunks`] (what is kept), [`hub`] (who is told), `http`
//! (every route on one page), [`app`] (how they are put together), [`compare`] (whether store and catalog fit each other),
//! [`serve`](mod@serve) (sockets), [`tls`], [`admin`] (what whoever looks after it may do).

pub mod admin;
pub mod app;
pub mod catalog;
pub mod chunks;
pub mod compare;
mod data_dir;
mod http;
pub mod hub;
mod limits;
pub mod serve;
pub mod tls;
pub mod work;

pub use app::{
    App, Ended, Entropy, InviteError, OpenError, Parts, ServerConfig, Watch, invite, open,
};
pub use data_dir::Places;
pub use serve::{serve, serve_tls};
pub use work::Work;
