//! The wire contracts that Moorline speaks: CSI 1.12 and kubelet plugin registration, clients and servers.
//!
//! The code is generated at build time from `wire/*.proto`; nothing but generated code lives here. A message that
//! carries a field marked `csi_secret` prints `***stripped***` in its place when formatted with `Debug`.

/// The Container Storage Interface, `csi.v1`.
#[allow(
    missing_docs,
    unreachable_pub,
    clippy::all,
    clippy::pedantic,
    reason = "generated code"
)]
pub mod csi {
    tonic::include_proto!("csi.v1");
    include!(concat!(env!("OUT_DIR"), "/redacted_debug.rs"));
}

/// Kubelet plugin registration, version 1.
#[allow(
    missing_docs,
    unreachable_pub,
    clippy::all,
    clippy::pedantic,
    reason = "generated code"
)]
pub mod pluginregistration {
    tonic::include_proto!("pluginregistration");
}

/// The encoded `google.protobuf.FileDescriptorSet` of everything above, for reflection and tests.
pub const DESCRIPTORS: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/descriptors.bin"));
