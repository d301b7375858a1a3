//! NATS: subjects, chunks, streams and consumers.
