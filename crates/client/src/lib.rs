//! How does one machine do it?
//!
//! The shell of I/O round the decisions of `sync` and the secrets of `vault`: one folder, one index,
//! one server, one engine that owns all state.
//!
//! Reading order: [`engine`], [`folder`], [`index`], [`remote`], [`transfer`], [`text`], [`daemon`],
//! [`home`].

pub mod agent;
pub mod daemon;
pub mod engine;
pub mod error;
pub mod folder;
pub mod home;
pub mod index;
pub mod keyring;
mod private;
pub mod remote;
pub mod setup;
pub mod text;
pub mod transfer;
pub mod work;

pub use error::ClientError;
