//! Delivers what the throttle lets go and records what became of it.
