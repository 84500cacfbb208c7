//! What should happen, and when?
//!
//! Pure decisions: no file system, network, clock, randomness or concurrency; all of that arrives as an
//! argument. Whatever is decided twice from the same input is decided the same way.
//!
//! Reading order: [`tree`] (what the log says), [`scan`] (what the disk says), [`ancestor`] (what both last
//! agreed on), [`survey`] (where they differ), [`mod@focus`] (what a decision is about), [`mod@identify`] (which
//! node is where on disk), [`mod@reconcile`] (the decision) and [`plan`] (its outcome); then [`placement`],
//! [`conflict`], [`guard`], [`mod@ignore`] and [`schedule`].
//! The rules in prose and tables: `docs/sync.md`.

pub mod ancestor;
pub mod conflict;
pub mod focus;
pub mod guard;
pub mod identify;
pub mod ignore;
pub mod local;
pub mod placement;
pub mod plan;
pub mod reconcile;
pub mod scan;
pub mod schedule;
pub mod survey;
mod touched;
pub mod tree;

pub use ancestor::{Ancestor, AncestorNode};
pub use conflict::{Utc, conflict_name, restored_name};
pub use focus::{Part, Wider, focus};
pub use identify::{Identified, identify};
pub use local::{Local, LocalNode, LocalState};
pub use placement::Placement;
pub use plan::{Aside, Conflict, Content, Group, Op, Plan, Put, Record, Step};
pub use reconcile::{History, Input, Policy, reconcile};
pub use survey::{Survey, World};
pub use tree::{Change, LastOp, LogEntry, LogTree, Placed, Tree, Why};
