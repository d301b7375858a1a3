//! Sink with fault injection, launchers of Postgres and NATS, fixtures, virtual clock.
