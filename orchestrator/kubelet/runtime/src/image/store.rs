//! The image store: an OCI image layout, and beside it each layer unpacked once.
//!
//! ```text
//! oci-layout, index.json, blobs/sha256/<digits>    as the OCI image specification has them
//! l/<first digits of the diff id>/                 an unpacked layer; short, because overlayfs takes few bytes
//! ingest-<random>/                                 a load in progress; removed at the next start
//! ```
//!
//! `index.json` is written last when an image comes and first when it goes, and says what is in the store; whatever
//! it doesn't reach is rubbish and removed.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use jiff::Timestamp;
use parking_lot::Mutex;

use crate::error::{ImageError, RuntimeError};
use crate::image::config::ImageConfig;
use crate::image::manifest::{
    ConfigBlob, Descriptor, Index, LOADED_AT, MEDIA_INDEX, MEDIA_MANIFEST, Manifest, REF_NAME, digits,
};
use crate::image::name::Reference;
use crate::image::{Image, ImageRef};

/// Digits of a diff id that name its directory: 96 bits, so that 127 layers fit a page of mount options.
const LAYER_NAME_DIGITS: usize = 24;

/// The store.
#[derive(Debug)]
pub(crate) struct ImageStore {
    pub(crate) dir: PathBuf,
    images: Mutex<BTreeMap<String, Stored>>,
    /// Loads and removals happen one at a time.
    pub(crate) changing: Mutex<()>,
}

/// An image of the store.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Stored {
    pub(crate) manifest: Descriptor,
    pub(crate) config_digest: String,
    pub(crate) config: ImageConfig,
    pub(crate) names: BTreeSet<String>,
    pub(crate) diff_ids: Vec<String>,
    pub(crate) layer_blobs: Vec<String>,
    pub(crate) size_bytes: u64,
    pub(crate) loaded_at: Timestamp,
}

impl Stored {
    fn reference(&self) -> ImageRef {
        let id = self.config_digest.clone();
        ImageRef {
            name: self.names.first().unwrap_or(&id).clone(),
            id,
        }
    }
}

/// Directory name of an unpacked layer.
pub(crate) fn layer_name(diff_id: &str) -> Option<&str> {
    digits(diff_id)?.get(..LAYER_NAME_DIGITS)
}

/// File beside an unpacked layer that overlayfs can't use, because its whiteouts are plain files.
pub(crate) fn plain_mark(layer_name: &str) -> String {
    format!("{layer_name}.plain")
}

impl ImageStore {
    /// Opens the store in an existing directory.
    pub(crate) fn open(dir: PathBuf) -> Result<Self, RuntimeError> {
        let store = Self {
            dir,
            images: Mutex::default(),
            changing: Mutex::default(),
        };
        store.prepare().map_err(RuntimeError::from)?;
        Ok(store)
    }

    fn prepare(&self) -> Result<(), ImageError> {
        for dir in [self.blobs(), self.layers()] {
            fs::create_dir_all(&dir).map_err(failed("make directory", &dir))?;
        }
        let marker = self.dir.join("oci-layout");
        fs::write(&marker, br#"{"imageLayoutVersion":"1.0.0"}"#).map_err(failed("write", &marker))?;
        let path = self.index_path();
        let index: Index = match fs::read(&path) {
            Ok(bytes) => serde_json::from_slice(&bytes).map_err(damaged(&path))?,
            Err(error) if error.kind() == io::ErrorKind::NotFound => Index::default(),
            Err(error) => return Err(failed("read", &path)(error)),
        };
        for descriptor in index.manifests {
            match self.read_image(&descriptor) {
                Ok(image) => self.insert(image),
                Err(error) => tracing::error!(%error, "Image can't be read and is dropped"),
            }
        }
        self.remove_rubbish()
    }

    fn read_image(&self, descriptor: &Descriptor) -> Result<Stored, ImageError> {
        let manifest: Manifest = self.document(&descriptor.digest)?;
        let blob: ConfigBlob = self.document(&manifest.config.digest)?;
        for diff_id in &blob.rootfs.diff_ids {
            let dir = layer_name(diff_id).map(|name| self.layers().join(name));
            if !dir.as_ref().is_some_and(|dir| dir.is_dir()) {
                return Err(ImageError::DamagedRecord {
                    path: self.layers(),
                    why: format!("layer {diff_id} is missing"),
                });
            }
        }
        let annotation = |key: &str| descriptor.annotations.get(key);
        Ok(Stored {
            config_digest: manifest.config.digest,
            config: blob.config.unwrap_or_default(),
            names: annotation(REF_NAME).cloned().into_iter().collect(),
            diff_ids: blob.rootfs.diff_ids,
            layer_blobs: manifest.layers.iter().map(|layer| layer.digest.clone()).collect(),
            size_bytes: annotation("dev.moorline.size-bytes")
                .and_then(|text| text.parse().ok())
                .unwrap_or(0),
            loaded_at: annotation(LOADED_AT)
                .and_then(|text| text.parse().ok())
                .unwrap_or(Timestamp::UNIX_EPOCH),
            manifest: Descriptor {
                annotations: BTreeMap::new(),
                ..descriptor.clone()
            },
        })
    }

    fn document<T: serde::de::DeserializeOwned>(&self, digest: &str) -> Result<T, ImageError> {
        let path = self.blobs().join(digits(digest).unwrap_or("unknown"));
        let bytes = fs::read(&path).map_err(failed("read", &path))?;
        serde_json::from_slice(&bytes).map_err(damaged(&path))
    }

    /// Adds an image, or its names to the one that is there. A name belongs to one image: the latest.
    fn insert(&self, image: Stored) {
        let mut images = self.images.lock();
        for other in images.values_mut() {
            other.names.retain(|name| !image.names.contains(name));
        }
        match images.get_mut(&image.config_digest) {
            Some(known) => known.names.extend(image.names),
            None => {
                images.insert(image.config_digest.clone(), image);
            }
        }
    }

    /// Adds loaded images, whose blobs and layers are in place. Blocks.
    pub(crate) fn commit(&self, loaded: Vec<Stored>) -> Result<Vec<ImageRef>, ImageError> {
        let before = self.images.lock().clone();
        let ids: Vec<String> = loaded.iter().map(|image| image.config_digest.clone()).collect();
        loaded.into_iter().for_each(|image| self.insert(image));
        if let Err(error) = self.write_index() {
            *self.images.lock() = before;
            return Err(error);
        }
        let images = self.images.lock();
        Ok(ids
            .iter()
            .filter_map(|id| images.get(id).map(Stored::reference))
            .collect())
    }

    fn write_index(&self) -> Result<(), ImageError> {
        let mut manifests = Vec::new();
        for image in self.images.lock().values() {
            let names: Vec<Option<&String>> = if image.names.is_empty() {
                vec![None]
            } else {
                image.names.iter().map(Some).collect()
            };
            for name in names {
                let mut descriptor = image.manifest.clone();
                descriptor
                    .annotations
                    .insert(LOADED_AT.to_owned(), image.loaded_at.to_string());
                descriptor
                    .annotations
                    .insert("dev.moorline.size-bytes".to_owned(), image.size_bytes.to_string());
                descriptor
                    .annotations
                    .extend(name.map(|name| (REF_NAME.to_owned(), name.clone())));
                manifests.push(descriptor);
            }
        }
        let index = Index {
            schema_version: 2,
            media_type: MEDIA_INDEX.to_owned(),
            manifests,
        };
        let path = self.index_path();
        let bytes = serde_json::to_vec(&index).map_err(damaged(&path))?;
        moorline_mount::durable::write(&path, &bytes)
            .map_err(|error| failed("write", &path)(io::Error::other(error)))
    }

    /// The image of a name or id.
    pub(crate) fn find(&self, reference: &Reference) -> Option<ImageRef> {
        let images = self.images.lock();
        match reference {
            Reference::Id(id) => images.get(id).map(Stored::reference),
            Reference::Name(name) => {
                let image = images
                    .values()
                    .find(|image| image.names.contains(name) || has_digest(image, name))?;
                Some(ImageRef {
                    id: image.config_digest.clone(),
                    name: name.clone(),
                })
            }
        }
    }

    /// What a container of the image is made of: configuration, and names of its layers, lowest first.
    pub(crate) fn parts(&self, id: &str) -> Option<(ImageConfig, Vec<PathBuf>)> {
        let images = self.images.lock();
        let image = images.get(id)?;
        let layers = image
            .diff_ids
            .iter()
            .filter_map(|diff_id| layer_name(diff_id))
            .map(PathBuf::from);
        Some((image.config.clone(), layers.collect()))
    }

    /// All images, by name.
    pub(crate) fn list(&self) -> Vec<Image> {
        let images = self.images.lock();
        let mut all: Vec<Image> = images
            .values()
            .map(|image| Image {
                id: image.config_digest.clone(),
                names: image.names.iter().cloned().collect(),
                size_bytes: image.size_bytes,
                loaded_at: image.loaded_at,
                user: image.config.user.clone(),
            })
            .collect();
        all.sort_by(|a, b| a.names.cmp(&b.names).then(a.id.cmp(&b.id)));
        all
    }

    /// Removes a name, and the image when it was its last one; or an image with all its names. Blocks.
    pub(crate) fn remove(&self, reference: &Reference) -> Result<(), ImageError> {
        let _one_at_a_time = self.changing.lock();
        {
            let mut images = self.images.lock();
            match reference {
                Reference::Id(id) => {
                    images.remove(id);
                }
                Reference::Name(name) => {
                    images.retain(|_, image| {
                        let was_named = image.names.remove(name) || has_digest(image, name);
                        !(was_named && image.names.is_empty())
                    });
                }
            }
        }
        self.write_index()?;
        self.remove_rubbish()
    }

    /// Removes what no image of the index needs. Blocks.
    pub(crate) fn remove_rubbish(&self) -> Result<(), ImageError> {
        let (mut blobs, mut layers) = (BTreeSet::new(), BTreeSet::new());
        for image in self.images.lock().values() {
            let digests = [&image.manifest.digest, &image.config_digest]
                .into_iter()
                .chain(&image.layer_blobs);
            blobs.extend(digests.filter_map(|digest| digits(digest)).map(str::to_owned));
            layers.extend(
                image
                    .diff_ids
                    .iter()
                    .filter_map(|diff_id| layer_name(diff_id))
                    .map(str::to_owned),
            );
        }
        remove_unless(&self.blobs(), |name| blobs.contains(name))?;
        remove_unless(&self.layers(), |name| {
            layers.contains(name.strip_suffix(".plain").unwrap_or(name))
        })?;
        remove_unless(&self.dir, |name| !name.starts_with("ingest-"))
    }

    pub(crate) fn blobs(&self) -> PathBuf {
        self.dir.join("blobs/sha256")
    }

    pub(crate) fn layers(&self) -> PathBuf {
        self.dir.join("l")
    }

    fn index_path(&self) -> PathBuf {
        self.dir.join("index.json")
    }
}

/// `name@sha256:...` names the manifest.
fn has_digest(image: &Stored, name: &str) -> bool {
    debug_assert_eq!(image.manifest.media_type, MEDIA_MANIFEST);
    name.split_once('@')
        .is_some_and(|(_, digest)| digest == image.manifest.digest)
}

fn remove_unless(dir: &Path, keep: impl Fn(&str) -> bool) -> Result<(), ImageError> {
    for entry in fs::read_dir(dir).map_err(failed("list", dir))? {
        let path = entry.map_err(failed("list", dir))?.path();
        if path.file_name().and_then(|name| name.to_str()).is_some_and(&keep) {
            continue;
        }
        let removed = if path.is_dir() {
            fs::remove_dir_all(&path)
        } else {
            fs::remove_file(&path)
        };
        removed.map_err(failed("remove", &path))?;
    }
    Ok(())
}

pub(crate) fn failed(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> ImageError {
    let path = path.to_owned();
    move |source| ImageError::Io { action, path, source }
}

fn damaged(path: &Path) -> impl FnOnce(serde_json::Error) -> ImageError {
    let path = path.to_owned();
    move |error| ImageError::DamagedRecord {
        path,
        why: error.to_string(),
    }
}
