//! What every chunk store promises, as a suite.
