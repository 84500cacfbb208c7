//! Under construction.
pub mod scan;
