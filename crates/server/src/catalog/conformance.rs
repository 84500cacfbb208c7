//! What every catalog promises, as a suite.
