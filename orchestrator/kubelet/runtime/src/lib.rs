//! Containers behind an interface of CRI's shape; the embedded OCI runtime, its shim and image store.
//!
//! The kubelet talks to [`ContainerRuntime`] and [`ImageService`] only.

pub mod container;
pub mod cri;
pub mod error;
pub mod image;
pub mod sandbox;

pub use container::{
    Container, ContainerConfig, ContainerId, ContainerState, ContainerStatus, Device, ExecOutput, Mount,
    MountPropagation, Resources, SecurityContext,
};
pub use cri::{ContainerEvent, ContainerRuntime, ImageService};
pub use error::{ErrorClass, ImageError, RuntimeError};
pub use image::{Image, ImageRef};
pub use sandbox::{DnsConfig, HostAlias, Sandbox, SandboxConfig, SandboxId, SandboxState};
