//! Releases, retries, repairs and expires what waits.
