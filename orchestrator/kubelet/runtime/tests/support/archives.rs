//! Image archives made on the spot, good and bad.

use std::collections::BTreeMap;
use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};

use sha2::{Digest, Sha256};

/// `sha256` in hexadecimal.
pub(crate) fn digest(bytes: &[u8]) -> String {
    hex::encode(Sha256::digest(bytes))
}

/// Compresses as `gzip` does.
pub(crate) fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

fn tar_header(name: &str, size: u64, mode: u32, kind: tar::EntryType) -> tar::Header {
    let mut header = tar::Header::new_gnu();
    header.set_entry_type(kind);
    header.set_size(size);
    header.set_mode(mode);
    header.set_mtime(1);
    header.set_uid(0);
    header.set_gid(0);
    header.as_old_mut().name[..name.len()].copy_from_slice(name.as_bytes());
    header.set_cksum();
    header
}

/// A tar file of plain files; names are written as they are.
pub(crate) fn tar(files: &[(&str, &[u8])]) -> Vec<u8> {
    let mut builder = tar::Builder::new(Vec::new());
    for (name, content) in files {
        let header = tar_header(name, content.len() as u64, 0o755, tar::EntryType::Regular);
        builder.append(&header, *content).unwrap();
    }
    builder.into_inner().unwrap()
}

/// A tar file with a symlink.
pub(crate) fn tar_with_link(name: &str, target: &str) -> Vec<u8> {
    let mut builder = tar::Builder::new(Vec::new());
    let mut header = tar_header(name, 0, 0o777, tar::EntryType::Symlink);
    header.as_old_mut().linkname[..target.len()].copy_from_slice(target.as_bytes());
    header.set_cksum();
    builder.append(&header, std::io::empty()).unwrap();
    builder.into_inner().unwrap()
}

/// A tar file whose header promises more than there is.
pub(crate) fn tar_with_promise(name: &str, size: u64) -> Vec<u8> {
    let mut bytes = tar_header(name, size, 0o644, tar::EntryType::Regular)
        .as_bytes()
        .to_vec();
    bytes.resize(4096, 0);
    bytes
}

/// An image's configuration for layers given as uncompressed tar files.
pub(crate) fn config(layers: &[&[u8]], extra: serde_json::Value) -> Vec<u8> {
    let diff_ids: Vec<String> = layers
        .iter()
        .map(|layer| format!("sha256:{}", digest(layer)))
        .collect();
    let architecture = if cfg!(target_arch = "x86_64") {
        "amd64"
    } else {
        "arm64"
    };
    serde_json::to_vec(&serde_json::json!({
        "architecture": architecture,
        "os": "linux",
        "config": extra,
        "rootfs": {"type": "layers", "diff_ids": diff_ids},
    }))
    .unwrap()
}

/// What `docker save` of old wrote.
pub(crate) fn docker_archive(name: &str, config: &[u8], layers: &[&[u8]]) -> Vec<u8> {
    let config_name = format!("{}.json", digest(config));
    let layer_names: Vec<String> = (0..layers.len())
        .map(|number| format!("layer{number}/layer.tar"))
        .collect();
    let manifest = serde_json::to_vec(&serde_json::json!([
        {"Config": config_name, "RepoTags": [name], "Layers": layer_names}
    ]))
    .unwrap();
    let mut files: Vec<(&str, &[u8])> = vec![(&config_name, config), ("manifest.json", &manifest)];
    files.extend(layer_names.iter().map(String::as_str).zip(layers.iter().copied()));
    tar(&files)
}

/// An OCI layout in a tar file; blobs may be replaced to break it.
pub(crate) fn oci_archive(name: &str, config: &[u8], layers: &[&[u8]], replace: &[(&str, &[u8])]) -> Vec<u8> {
    let descriptor = |media: &str, bytes: &[u8]| serde_json::json!({"mediaType": media, "digest": format!("sha256:{}", digest(bytes)), "size": bytes.len()});
    let layer_descriptors: Vec<_> = layers
        .iter()
        .map(|layer| descriptor("application/vnd.oci.image.layer.v1.tar+gzip", layer))
        .collect();
    let manifest = serde_json::to_vec(&serde_json::json!({
        "schemaVersion": 2,
        "mediaType": "application/vnd.oci.image.manifest.v1+json",
        "config": descriptor("application/vnd.oci.image.config.v1+json", config),
        "layers": layer_descriptors,
    }))
    .unwrap();
    let mut entry = descriptor("application/vnd.oci.image.manifest.v1+json", &manifest);
    entry["annotations"] = serde_json::json!({"org.opencontainers.image.ref.name": name});
    let index = serde_json::to_vec(&serde_json::json!({"schemaVersion": 2, "manifests": [entry]})).unwrap();
    let mut files: BTreeMap<String, Vec<u8>> = BTreeMap::new();
    files.insert("oci-layout".into(), br#"{"imageLayoutVersion":"1.0.0"}"#.to_vec());
    files.insert("index.json".into(), index);
    for blob in [config, &manifest].into_iter().chain(layers.iter().copied()) {
        files.insert(format!("blobs/sha256/{}", digest(blob)), blob.to_vec());
    }
    for (digits, content) in replace {
        files.insert(format!("blobs/sha256/{digits}"), content.to_vec());
    }
    let files: Vec<(&str, &[u8])> = files
        .iter()
        .map(|(name, bytes)| (name.as_str(), bytes.as_slice()))
        .collect();
    tar(&files)
}

/// Writes an archive into a directory.
pub(crate) fn write(dir: &Path, name: &str, bytes: &[u8]) -> PathBuf {
    let path = dir.join(name);
    fs::write(&path, bytes).unwrap();
    path
}

/// A file of this machine.
pub(crate) fn program(path: &str) -> Vec<u8> {
    fs::read(path).unwrap()
}

/// The libraries a program needs, by their paths, as `ldd` lists them.
pub(crate) fn libraries(program: &str) -> Vec<String> {
    let output = std::process::Command::new("ldd").arg(program).output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    text.split_whitespace()
        .filter(|word| word.starts_with('/'))
        .map(str::to_owned)
        .collect()
}
