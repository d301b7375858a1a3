//! Folds facts into the event log and the roll-ups.
