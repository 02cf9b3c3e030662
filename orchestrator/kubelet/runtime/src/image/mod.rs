//! Images: names, the store of unpacked layers, loading from archives, and what an image says about its processes.

mod archive;
pub(crate) mod config;
pub(crate) mod layer;
mod load;
mod manifest;
pub(crate) mod name;
pub(crate) mod store;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

/// The built-in image: this machine's own files.
pub const HOST_IMAGE: &str = "moorline.local/host";

/// An image that is present: what a container is made of.
#[derive(Debug, Clone, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct ImageRef {
    /// `sha256:` and the digest of the image's configuration; the name itself for the built-in image.
    pub id: String,
    /// Full name, such as `docker.io/library/busybox:latest`.
    pub name: String,
}

/// An image as listed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Image {
    /// `sha256:` and the digest of the image's configuration.
    pub id: String,
    /// Full names that point to it.
    pub names: Vec<String>,
    /// Bytes its layers take unpacked.
    pub size_bytes: u64,
    /// When it was loaded.
    pub loaded_at: Timestamp,
    /// `User` of the image's configuration; empty when it names none.
    pub user: String,
}
