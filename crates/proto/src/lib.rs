//! The generated types of the gRPC API.

/// Version 1 of the API: `mailfleet.v1`.
#[allow(missing_docs, clippy::all, reason = "generated; the API files document it")]
pub mod v1 {
    tonic::include_proto!("mailfleet.v1");
}

/// The descriptors of all API files, for server reflection: an encoded `google.protobuf.FileDescriptorSet`.
pub const FILE_DESCRIPTOR_SET: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/mailfleet_descriptor.bin"));
