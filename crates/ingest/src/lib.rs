//! Takes mail in over gRPC.
