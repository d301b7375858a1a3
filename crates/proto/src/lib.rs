//! The generated types of the gRPC API.
