//! Hears from the operating system where to look again.
