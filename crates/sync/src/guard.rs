//! Holds a pass that would change too much.
