//! Bringing the images of an archive into the store: all of them, or none and nothing left.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use jiff::Timestamp;
use sha2::{Digest, Sha256};

use crate::error::ImageError;
use crate::image::archive::{Archive, Blob, is_gzip, plain};
use crate::image::manifest::{
    CONTAINERD_NAME, ConfigBlob, Descriptor, DockerImage, Index, MEDIA_CONFIG, MEDIA_LAYER, MEDIA_LAYER_GZIP,
    MEDIA_MANIFEST, Manifest, REF_NAME, digits, own_architecture,
};
use crate::image::name::{self, Reference};
use crate::image::store::{ImageStore, Stored, failed, layer_name, plain_mark};
use crate::image::{HOST_IMAGE, ImageRef, layer};

/// Indexes may point to indexes; real ones do so once.
const INDEX_DEPTH_MAX: usize = 4;

/// Layers an image may have: what overlayfs and its page of options take.
const LAYERS_MAX: usize = 127;

/// An image of an archive, checked but not unpacked.
struct Planned {
    names: BTreeSet<String>,
    manifest_bytes: Vec<u8>,
    config: Blob,
    config_blob: ConfigBlob,
    layers: Vec<Blob>,
}

/// Removes a load's directory however the load ends.
struct Ingest(PathBuf);

impl Drop for Ingest {
    fn drop(&mut self) {
        fs::remove_dir_all(&self.0).ok(); // the next start removes what is left
    }
}

impl ImageStore {
    /// Loads an archive. Blocks for as long as reading and unpacking takes.
    pub(crate) fn load(&self, archive: &Path) -> Result<Vec<ImageRef>, ImageError> {
        let _one_at_a_time = self.changing.lock();
        let ingest = Ingest(self.dir.join(format!("ingest-{}", uuid::Uuid::new_v4().simple())));
        fs::create_dir(&ingest.0).map_err(failed("make directory", &ingest.0))?;
        let bad = |error: io::Error| ImageError::BadArchive {
            archive: archive.to_owned(),
            why: error.to_string(),
        };
        fs::File::open(archive).map_err(failed("open", archive))?;
        let loaded = self
            .ingest(archive, &ingest.0)
            .map_err(bad)
            .and_then(|stored| self.commit(stored));
        if loaded.is_err() {
            // Blobs and layers that had found their place before the failure.
            self.remove_rubbish()?;
        }
        loaded
    }

    fn ingest(&self, path: &Path, dir: &Path) -> io::Result<Vec<Stored>> {
        let archive = Archive::read(path, dir, self.room()?)?;
        let planned = if let Some(blob) = archive.find("manifest.json") {
            archive
                .document::<Vec<DockerImage>>("manifest.json", blob)?
                .iter()
                .map(|image| plan_docker(&archive, image))
                .collect::<io::Result<Vec<Planned>>>()?
        } else if let Some(blob) = archive.find("index.json") {
            plan_oci(&archive, &archive.document("index.json", blob)?)?
        } else {
            return Err(io::Error::other(
                "it is neither a docker-archive nor an oci-archive",
            ));
        };
        if planned.is_empty() {
            return Err(io::Error::other("it holds no image"));
        }
        let stored = planned
            .into_iter()
            .map(|image| self.place(&archive, dir, image))
            .collect::<io::Result<Vec<Stored>>>()?;
        // The index must not be on disk before what it names.
        rustix::fs::syncfs(fs::File::open(&self.dir)?)?;
        Ok(stored)
    }

    /// Bytes one archive or layer may take: most of what is free.
    fn room(&self) -> io::Result<u64> {
        let stat = rustix::fs::statvfs(&self.dir)?;
        Ok(stat.f_bavail.saturating_mul(stat.f_frsize) / 10 * 9)
    }

    fn place(&self, archive: &Archive, dir: &Path, image: Planned) -> io::Result<Stored> {
        let mut size_bytes = 0;
        for (layer, diff_id) in image.layers.iter().zip(&image.config_blob.rootfs.diff_ids) {
            size_bytes += self.unpack(&archive.path(layer), dir, diff_id)?;
        }
        for blob in image.layers.iter().chain([&image.config]) {
            let place = self.blobs().join(&blob.digits);
            // Moved at most once: images of an archive share blobs.
            if !place.exists() {
                fs::rename(archive.path(blob), &place)?;
                std::os::unix::fs::symlink(&place, archive.path(blob))?;
            }
        }
        let manifest_digits = hex::encode(Sha256::digest(&image.manifest_bytes));
        fs::write(self.blobs().join(&manifest_digits), &image.manifest_bytes)?;
        Ok(Stored {
            manifest: Descriptor {
                media_type: MEDIA_MANIFEST.to_owned(),
                digest: format!("sha256:{manifest_digits}"),
                size: image.manifest_bytes.len() as u64,
                ..Descriptor::default()
            },
            config_digest: format!("sha256:{}", image.config.digits),
            config: image.config_blob.config.unwrap_or_default(),
            names: image.names,
            diff_ids: image.config_blob.rootfs.diff_ids,
            layer_blobs: image
                .layers
                .iter()
                .map(|blob| format!("sha256:{}", blob.digits))
                .collect(),
            size_bytes,
            loaded_at: Timestamp::now(),
        })
    }

    /// Unpacks a layer unless it is there; the digest of what was unpacked must be the one that was announced.
    fn unpack(&self, blob: &Path, dir: &Path, diff_id: &str) -> io::Result<u64> {
        let name = layer_name(diff_id)
            .ok_or_else(|| io::Error::other(format!("diff id {diff_id:?} is no digest")))?;
        let place = self.layers().join(name);
        let target = dir.join(format!("layer-{name}"));
        fs::create_dir(&target)?;
        // Everybody in a container goes through the root directory.
        fs::set_permissions(&target, std::os::unix::fs::PermissionsExt::from_mode(0o755))?;
        let unpacked = layer::unpack(plain(blob, self.room()?)?, &target)?;
        if unpacked.diff_id != diff_id {
            return Err(io::Error::other(format!(
                "layer {diff_id} has digest {}",
                unpacked.diff_id
            )));
        }
        if unpacked.has_plain_whiteouts {
            fs::write(self.layers().join(plain_mark(name)), b"")?;
        }
        if place.exists() {
            fs::remove_dir_all(&target)?;
        } else {
            fs::rename(&target, &place)?;
        }
        Ok(unpacked.size_bytes)
    }
}

/// A docker-archive has no OCI manifest: one is written for it.
fn plan_docker(archive: &Archive, image: &DockerImage) -> io::Result<Planned> {
    let config = named_by_digest(archive, &image.config)?;
    let layers: Vec<Blob> = image
        .layers
        .iter()
        .map(|name| named_by_digest(archive, name))
        .collect::<io::Result<_>>()?;
    let config_blob = checked_config(archive, &image.config, &config, layers.len())?;
    let layer_descriptor = |blob: &Blob| -> io::Result<Descriptor> {
        let media = if is_gzip(&archive.path(blob))? {
            MEDIA_LAYER_GZIP
        } else {
            MEDIA_LAYER
        };
        Ok(descriptor(media, blob))
    };
    let manifest = Manifest {
        schema_version: 2,
        media_type: MEDIA_MANIFEST.to_owned(),
        config: descriptor(MEDIA_CONFIG, &config),
        layers: layers.iter().map(layer_descriptor).collect::<io::Result<_>>()?,
    };
    let names = image
        .repo_tags
        .iter()
        .flatten()
        .map(|tag| full_name(tag))
        .collect::<io::Result<_>>()?;
    Ok(Planned {
        names,
        manifest_bytes: serde_json::to_vec(&manifest)?,
        config,
        config_blob,
        layers,
    })
}

fn descriptor(media_type: &str, blob: &Blob) -> Descriptor {
    Descriptor {
        media_type: media_type.to_owned(),
        digest: format!("sha256:{}", blob.digits),
        size: blob.size,
        ..Descriptor::default()
    }
}

/// Docker names files by their digest, alone, with `.json`, or below `blobs/sha256`. A name of that form must be true.
fn named_by_digest(archive: &Archive, name: &str) -> io::Result<Blob> {
    let blob = archive.get(name)?.clone();
    let last = name.rsplit('/').next().unwrap_or(name);
    let promised = last.strip_suffix(".json").unwrap_or(last);
    if digits(&format!("sha256:{promised}")).is_some() && promised != blob.digits {
        return Err(io::Error::other(format!("{name} has digest {}", blob.digits)));
    }
    Ok(blob)
}

fn plan_oci(archive: &Archive, index: &Index) -> io::Result<Vec<Planned>> {
    let mut planned: BTreeMap<String, Planned> = BTreeMap::new();
    for entry in &index.manifests {
        let names = names_of(entry)?;
        let Some(chosen) = choose(archive, entry, 0)? else {
            continue;
        };
        match planned.get_mut(&chosen.digest) {
            Some(known) => known.names.extend(names),
            None => {
                planned.insert(chosen.digest.clone(), plan_manifest(archive, &chosen, names)?);
            }
        }
    }
    if planned.is_empty() {
        return Err(io::Error::other(format!(
            "it holds no image for linux/{}",
            own_architecture()
        )));
    }
    Ok(planned.into_values().collect())
}

/// The full name if the archive has it; a bare tag names nothing.
fn names_of(entry: &Descriptor) -> io::Result<BTreeSet<String>> {
    let given = entry.annotations.get(CONTAINERD_NAME).or_else(|| {
        entry
            .annotations
            .get(REF_NAME)
            .filter(|name| name.contains(['/', ':']))
    });
    given.map(|name| full_name(name)).into_iter().collect()
}

fn full_name(given: &str) -> io::Result<String> {
    match name::parse(given).map_err(io::Error::other)? {
        Reference::Name(full) if full.starts_with(HOST_IMAGE) => Err(io::Error::other(format!(
            "it names an image {given}, which is built in"
        ))),
        Reference::Name(full) => Ok(full),
        Reference::Id(_) => Err(io::Error::other(format!("{given} is no name"))),
    }
}

/// Follows indexes to the manifest for this machine.
fn choose(archive: &Archive, entry: &Descriptor, depth: usize) -> io::Result<Option<Descriptor>> {
    if entry
        .platform
        .as_ref()
        .is_some_and(|platform| !is_own(&platform.os, &platform.architecture))
    {
        return Ok(None);
    }
    if !entry.media_type.ends_with("index.v1+json") && !entry.media_type.ends_with("manifest.list.v2+json") {
        return Ok(Some(entry.clone()));
    }
    if depth >= INDEX_DEPTH_MAX {
        return Err(io::Error::other("its indexes are nested too deep"));
    }
    let blob = checked_blob(archive, entry)?;
    let index: Index = archive.document(&entry.digest, &blob)?;
    for inner in &index.manifests {
        if let Some(found) = choose(archive, inner, depth + 1)? {
            return Ok(Some(found));
        }
    }
    Ok(None)
}

fn is_own(os: &str, architecture: &str) -> bool {
    (os.is_empty() || os == "linux") && (architecture.is_empty() || architecture == own_architecture())
}

fn plan_manifest(archive: &Archive, entry: &Descriptor, names: BTreeSet<String>) -> io::Result<Planned> {
    let blob = checked_blob(archive, entry)?;
    let manifest: Manifest = archive.document(&entry.digest, &blob)?;
    let config = checked_blob(archive, &manifest.config)?;
    let layers: Vec<Blob> = manifest
        .layers
        .iter()
        .map(|layer| checked_blob(archive, layer))
        .collect::<io::Result<_>>()?;
    let config_blob = checked_config(archive, &manifest.config.digest, &config, layers.len())?;
    Ok(Planned {
        names,
        manifest_bytes: fs::read(archive.path(&blob))?,
        config,
        config_blob,
        layers,
    })
}

/// The blob a descriptor points to, if it is what the descriptor says.
fn checked_blob(archive: &Archive, descriptor: &Descriptor) -> io::Result<Blob> {
    let wanted = digits(&descriptor.digest)
        .ok_or_else(|| io::Error::other(format!("{:?} is no sha256 digest", descriptor.digest)))?;
    let blob = archive.get(&format!("blobs/sha256/{wanted}"))?;
    if blob.digits != wanted {
        return Err(io::Error::other(format!(
            "blob {wanted} has digest {}",
            blob.digits
        )));
    }
    if blob.size != descriptor.size {
        return Err(io::Error::other(format!(
            "blob {wanted} has {} bytes, not {}",
            blob.size, descriptor.size
        )));
    }
    Ok(blob.clone())
}

fn checked_config(archive: &Archive, name: &str, blob: &Blob, layers: usize) -> io::Result<ConfigBlob> {
    let config: ConfigBlob = archive.document(name, blob)?;
    if !is_own(&config.os, &config.architecture) {
        return Err(io::Error::other(format!(
            "its image is for {}/{}, this machine is linux/{}",
            config.os,
            config.architecture,
            own_architecture()
        )));
    }
    if layers == 0 || layers > LAYERS_MAX {
        return Err(io::Error::other(format!(
            "its image has {layers} layers; 1 to {LAYERS_MAX} can be used"
        )));
    }
    if config.rootfs.diff_ids.len() != layers {
        return Err(io::Error::other(format!(
            "its image has {layers} layers, but names {}",
            config.rootfs.diff_ids.len()
        )));
    }
    Ok(config)
}
