//! Images as the kubelet asks for them: the store's, and the built-in one that is this machine itself.

use std::path::{Path, PathBuf};

use async_trait::async_trait;
use jiff::Timestamp;

use super::{EmbeddedConfig, EmbeddedRuntime};
use crate::container::ContainerId;
use crate::cri::ImageService;
use crate::error::ImageError;
use crate::image::config::ImageConfig;
use crate::image::name::{self, Reference};
use crate::image::store::ImageStore;
use crate::image::{HOST_IMAGE, Image, ImageRef};
use crate::records::RootSource;

/// The full name of the built-in image; no archive may bring another one of that name.
const HOST_IMAGE_FULL: &str = "moorline.local/host:latest";

/// What a container of `image` is made of.
pub(super) fn resolve(
    store: &ImageStore,
    config: &EmbeddedConfig,
    image: &ImageRef,
) -> Result<(ImageConfig, RootSource), ImageError> {
    if image.id == HOST_IMAGE {
        if !config.host_image {
            return Err(not_present(HOST_IMAGE_FULL.to_owned()));
        }
        let hidden = config
            .host_image_hidden
            .iter()
            .filter(|path| !path.as_os_str().is_empty())
            .cloned()
            .collect();
        let shell = ImageConfig {
            cmd: vec!["/bin/sh".to_owned()],
            ..ImageConfig::default()
        };
        return Ok((shell, RootSource::Host { hidden }));
    }
    let (config, layers) = store
        .parts(&image.id)
        .ok_or_else(|| not_present(image.name.clone()))?;
    Ok((config, RootSource::Layers(layers)))
}

fn not_present(image: String) -> ImageError {
    let host_image = image == HOST_IMAGE_FULL;
    ImageError::NotPresent { image, host_image }
}

impl EmbeddedRuntime {
    /// The container that keeps an image from being removed.
    fn user_of(&self, id: &str) -> Option<ContainerId> {
        let state = self.inner.state.lock();
        let mut containers = state
            .sandboxes
            .values()
            .flat_map(|sandbox| sandbox.containers.values());
        containers
            .find(|entry| entry.record.config.image.id == id)
            .map(|entry| entry.record.id.clone())
    }
}

#[async_trait]
impl ImageService for EmbeddedRuntime {
    async fn ensure_image(&self, image: &str) -> Result<ImageRef, ImageError> {
        let reference = name::parse(image)?;
        let full = match &reference {
            Reference::Name(full) | Reference::Id(full) => full.clone(),
        };
        if full == HOST_IMAGE_FULL && self.inner.config.host_image {
            return Ok(ImageRef {
                id: HOST_IMAGE.to_owned(),
                name: full,
            });
        }
        self.inner
            .images
            .find(&reference)
            .ok_or_else(|| not_present(full))
    }

    async fn list(&self) -> Result<Vec<Image>, ImageError> {
        let mut all = self.inner.images.list();
        if self.inner.config.host_image {
            all.push(Image {
                id: HOST_IMAGE.to_owned(),
                names: vec![HOST_IMAGE_FULL.to_owned()],
                size_bytes: 0,
                loaded_at: Timestamp::UNIX_EPOCH,
                user: String::new(),
            });
        }
        Ok(all)
    }

    async fn remove(&self, image: &str) -> Result<(), ImageError> {
        let reference = name::parse(image)?;
        let full = match &reference {
            Reference::Name(full) | Reference::Id(full) => full.clone(),
        };
        let found = self
            .inner
            .images
            .find(&reference)
            .ok_or_else(|| not_present(full))?;
        if let Some(container_id) = self.user_of(&found.id) {
            return Err(ImageError::InUse {
                image: found.name,
                container_id,
            });
        }
        let store = self.inner.images.clone();
        blocking(move || store.remove(&reference)).await
    }

    async fn load(&self, archive: &Path) -> Result<Vec<ImageRef>, ImageError> {
        let store = self.inner.images.clone();
        let archive: PathBuf = archive.to_owned();
        blocking(move || store.load(&archive)).await
    }
}

async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, ImageError> + Send + 'static,
) -> Result<T, ImageError> {
    tokio::task::spawn_blocking(work)
        .await
        .map_err(|_| ImageError::Lost("the image store"))?
}
