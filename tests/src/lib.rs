//! End-to-end tests of the fleet.
