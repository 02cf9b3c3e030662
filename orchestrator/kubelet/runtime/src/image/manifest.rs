//! The JSON documents of OCI and docker archives, as far as they are read and written here.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::image::config::ImageConfig;

pub(crate) const MEDIA_MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
pub(crate) const MEDIA_CONFIG: &str = "application/vnd.oci.image.config.v1+json";
pub(crate) const MEDIA_LAYER: &str = "application/vnd.oci.image.layer.v1.tar";
pub(crate) const MEDIA_LAYER_GZIP: &str = "application/vnd.oci.image.layer.v1.tar+gzip";
pub(crate) const MEDIA_INDEX: &str = "application/vnd.oci.image.index.v1+json";

/// Annotation with an image's name in an OCI layout; just a tag in archives of some tools.
pub(crate) const REF_NAME: &str = "org.opencontainers.image.ref.name";
/// Annotation with the full name, written by containerd and docker.
pub(crate) const CONTAINERD_NAME: &str = "io.containerd.image.name";
/// Our own: when the image was loaded.
pub(crate) const LOADED_AT: &str = "dev.moorline.loaded-at";

/// A pointer to a blob.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(crate) struct Descriptor {
    pub(crate) media_type: String,
    pub(crate) digest: String,
    pub(crate) size: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) platform: Option<Platform>,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub(crate) annotations: BTreeMap<String, String>,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct Platform {
    pub(crate) architecture: String,
    pub(crate) os: String,
}

/// `index.json`, and what it may point to.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(crate) struct Index {
    pub(crate) schema_version: u32,
    pub(crate) media_type: String,
    pub(crate) manifests: Vec<Descriptor>,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(crate) struct Manifest {
    pub(crate) schema_version: u32,
    pub(crate) media_type: String,
    pub(crate) config: Descriptor,
    pub(crate) layers: Vec<Descriptor>,
}

/// An image's configuration blob.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub(crate) struct ConfigBlob {
    pub(crate) os: String,
    pub(crate) architecture: String,
    pub(crate) config: Option<ImageConfig>,
    pub(crate) rootfs: RootFs,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub(crate) struct RootFs {
    pub(crate) diff_ids: Vec<String>,
}

/// One image of `manifest.json` in a docker archive.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub(crate) struct DockerImage {
    pub(crate) config: String,
    pub(crate) repo_tags: Option<Vec<String>>,
    pub(crate) layers: Vec<String>,
}

/// The digits of a sha256 digest; `None` for anything else, so that a digest is always safe as a file name.
pub(crate) fn digits(digest: &str) -> Option<&str> {
    let digits = digest.strip_prefix("sha256:")?;
    let lower_hex = |b: u8| b.is_ascii_digit() || (b'a'..=b'f').contains(&b);
    (digits.len() == 64 && digits.bytes().all(lower_hex)).then_some(digits)
}

/// This machine in the words of image platforms.
pub(crate) fn own_architecture() -> &'static str {
    match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        "x86" => "386",
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_plain_digests_become_file_names() {
        let good = "0123456789abcdef".repeat(4);
        assert_eq!(digits(&format!("sha256:{good}")), Some(good.as_str()));
        let dots = format!("sha256:{}", ".".repeat(64));
        let upper = format!("sha256:{}", "A".repeat(64));
        for bad in [
            "",
            "sha256:",
            "md5:x",
            &good,
            "sha256:../../etc/passwd",
            &dots,
            &upper,
        ] {
            assert_eq!(digits(bad), None, "{bad}");
        }
    }

    #[test]
    fn documents_of_docker_are_read() {
        let images: Vec<DockerImage> = serde_json::from_str(
            r#"[{"Config":"abc.json","RepoTags":["busybox:1"],"Layers":["x/layer.tar"],"Other":1},
                {"Config":"d.json","RepoTags":null,"Layers":[]}]"#,
        )
        .unwrap();
        assert_eq!(images[0].layers, ["x/layer.tar"]);
        assert_eq!(images[1].repo_tags, None);
        let blob: ConfigBlob = serde_json::from_str(
            r#"{"os":"linux","config":{"Cmd":["sh"]},"rootfs":{"type":"layers","diff_ids":["sha256:1"]}}"#,
        )
        .unwrap();
        assert_eq!(blob.config.unwrap().cmd, ["sh"]);
        assert_eq!(blob.rootfs.diff_ids, ["sha256:1"]);
    }
}
