//! Containers behind an interface of CRI's shape; the embedded OCI runtime, its shim and image store.
//!
//! Its `README.md` says how it works. The kubelet talks to [`ContainerRuntime`] and [`ImageService`] only.

mod cgroup;
pub mod container;
pub mod cri;
mod embedded;
pub mod error;
pub mod exec;
pub mod image;
mod layout;
mod passwd;
mod process;
mod records;
mod rootfs;
pub mod sandbox;
pub mod shim;
mod spec;
#[cfg(test)]
mod testing;

pub use container::{
    Container, ContainerConfig, ContainerId, ContainerState, ContainerStatus, Device, ExecOutput, Mount,
    MountPropagation, Resources, SecurityContext,
};
pub use cri::{ContainerEvent, ContainerRuntime, ImageService};
pub use embedded::{EmbeddedConfig, EmbeddedRuntime};
pub use error::{ErrorClass, ImageError, RuntimeError};
pub use exec::{ExecRequest, ExecSession};
pub use image::{HOST_IMAGE, Image, ImageRef};
pub use sandbox::{DnsConfig, HostAlias, Sandbox, SandboxConfig, SandboxId, SandboxState};
pub use shim::{SHIM_NAME, run_if_shim, shim_main};

#[cfg(doctest)]
#[doc = include_str!("../README.md")]
mod readme {}
