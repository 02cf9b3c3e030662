//! What a person asks about: kind and name, in the words that kubectl takes.

use std::fmt;

use anyhow::{anyhow, bail};
use serde::Serialize;

/// A kind that can be explained, and those that come up on the way.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
pub(super) enum Kind {
    /// A pod.
    Pod,
    /// A claim.
    PersistentVolumeClaim,
    /// A volume.
    PersistentVolume,
    /// An attachment.
    VolumeAttachment,
    /// A snapshot.
    VolumeSnapshot,
    /// The storage's side of a snapshot; never asked about by itself.
    VolumeSnapshotContent,
}

/// The words that each kind is known by, the API's own first. `VolumeSnapshotContent` can't be asked for.
const WORDS: [(Kind, &[&str]); 5] = [
    (Kind::Pod, &["pods", "pod", "po"]),
    (
        Kind::PersistentVolumeClaim,
        &["persistentvolumeclaims", "persistentvolumeclaim", "pvc"],
    ),
    (
        Kind::PersistentVolume,
        &["persistentvolumes", "persistentvolume", "pv"],
    ),
    (Kind::VolumeAttachment, &["volumeattachments", "volumeattachment"]),
    (Kind::VolumeSnapshot, &["volumesnapshots", "volumesnapshot", "vs"]),
];

impl Kind {
    /// The kind of a word; kubectl's rules: in any case, and with the group behind a dot if one likes.
    fn parse(word: &str) -> anyhow::Result<Self> {
        let lower = word.to_ascii_lowercase();
        let plain = lower.split('.').next().unwrap_or_default();
        let found = WORDS.iter().find(|(_, words)| words.contains(&plain));
        found.map(|(kind, _)| *kind).ok_or_else(|| {
            anyhow!(
                "{word:?} can't be explained: it has to be pvc, pv, pod, volumeattachment or volumesnapshot"
            )
        })
    }

    /// The kind's name in the API.
    pub(super) fn as_str(self) -> &'static str {
        match self {
            Self::Pod => "Pod",
            Self::PersistentVolumeClaim => "PersistentVolumeClaim",
            Self::PersistentVolume => "PersistentVolume",
            Self::VolumeAttachment => "VolumeAttachment",
            Self::VolumeSnapshot => "VolumeSnapshot",
            Self::VolumeSnapshotContent => "VolumeSnapshotContent",
        }
    }

    /// Whether objects of it are in namespaces.
    pub(super) fn is_namespaced(self) -> bool {
        match self {
            Self::Pod | Self::PersistentVolumeClaim | Self::VolumeSnapshot => true,
            Self::PersistentVolume | Self::VolumeAttachment | Self::VolumeSnapshotContent => false,
        }
    }
}

/// Which object.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub(super) struct ObjectName {
    /// Its kind.
    pub kind: Kind,
    /// Its namespace, where its kind has any.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub namespace: Option<String>,
    /// Its name.
    pub name: String,
}

impl ObjectName {
    /// The object of that kind and name; the namespace counts where the kind has any.
    pub(super) fn new(kind: Kind, namespace: &str, name: &str) -> Self {
        Self {
            kind,
            namespace: kind.is_namespaced().then(|| namespace.to_owned()),
            name: name.to_owned(),
        }
    }

    /// Reads the words of a command line: `KIND NAME` or `KIND/NAME`.
    ///
    /// # Errors
    /// There are too few or too many, or the kind can't be explained.
    pub(super) fn parse(words: &[String], namespace: &str) -> anyhow::Result<Self> {
        let (kind, name) = match words {
            [both] => both
                .split_once('/')
                .ok_or_else(|| anyhow!("{both:?} names no object: give KIND NAME or KIND/NAME"))?,
            [kind, name] if !kind.contains('/') => (kind.as_str(), name.as_str()),
            _ => bail!("one object at a time: give KIND NAME or KIND/NAME"),
        };
        let kind = Kind::parse(kind)?;
        if name.is_empty() || name.contains('/') {
            bail!("{name:?} is no name of an object");
        }
        Ok(Self::new(kind, namespace, name))
    }
}

impl fmt::Display for ObjectName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kind = self.kind.as_str();
        match &self.namespace {
            Some(namespace) => write!(f, "{kind} {namespace}/{}", self.name),
            None => write!(f, "{kind} {}", self.name),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn objects_are_named_as_for_kubectl() {
        for (words, expected) in [
            ("pvc data", Ok("PersistentVolumeClaim ns/data")),
            ("persistentvolumeclaims data", Ok("PersistentVolumeClaim ns/data")),
            ("PersistentVolumeClaim/data", Ok("PersistentVolumeClaim ns/data")),
            ("pv/pv1", Ok("PersistentVolume pv1")),
            ("persistentvolume pv1", Ok("PersistentVolume pv1")),
            ("po web", Ok("Pod ns/web")),
            ("pods/web", Ok("Pod ns/web")),
            ("vs s1", Ok("VolumeSnapshot ns/s1")),
            (
                "volumesnapshots.snapshot.storage.k8s.io/s1",
                Ok("VolumeSnapshot ns/s1"),
            ),
            (
                "volumeattachments.storage.k8s.io csi-1",
                Ok("VolumeAttachment csi-1"),
            ),
            ("deployment web", Err("\"deployment\" can't be explained")),
            ("pvc", Err("\"pvc\" names no object")),
            ("pvc a b", Err("one object at a time")),
            ("pvc/a b", Err("one object at a time")),
            ("pvc/", Err("no name")),
            ("pvc/a/b", Err("no name")),
            ("", Err("one object")),
        ] {
            let list: Vec<String> = words.split_whitespace().map(str::to_owned).collect();
            let found = ObjectName::parse(&list, "ns");
            match (found, expected) {
                (Ok(found), Ok(expected)) => assert_eq!(found.to_string(), expected, "{words}"),
                (Err(error), Err(expected)) => {
                    assert!(error.to_string().contains(expected), "{words}: {error}");
                }
                (found, _) => panic!("{words}: {found:?}"),
            }
        }
    }
}
