//! When to look, when to sync, when to wait.
