//! What is not synchronised by choice.
