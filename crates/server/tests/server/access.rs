//! Who may come, and who may stay.
