//! `vol_data.json`: what a later kubelet needs to know of a volume it finds. Names and keys are upstream's.

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::error::VolumeError;

/// Name of the file in each directory that has one.
pub(crate) const FILE_NAME: &str = "vol_data.json";

/// Content of the file, for staged volumes and for published ones.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(crate) struct VolData {
    #[serde(rename = "specVolID", skip_serializing_if = "String::is_empty")]
    pub spec_volume_id: String,
    pub volume_handle: String,
    pub driver_name: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub node_name: String,
    #[serde(rename = "attachmentID", skip_serializing_if = "String::is_empty")]
    pub attachment_id: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub volume_lifecycle_mode: String,
}

impl VolData {
    /// Writes the file into `directory`, durably.
    pub(crate) fn write(&self, directory: &Path) -> Result<(), VolumeError> {
        let path = directory.join(FILE_NAME);
        let json = serde_json::to_vec(self).map_err(|error| VolumeError::Refused(error.to_string()))?;
        moorline_mount::durable::write(&path, &json).map_err(|error| VolumeError::Mount {
            action: "write",
            path,
            reason: error.to_string(),
        })
    }

    /// Reads the file of `directory`; `None` when there is none.
    pub(crate) fn read(directory: &Path) -> Result<Option<Self>, VolumeError> {
        let path = directory.join(FILE_NAME);
        match std::fs::read(&path) {
            Ok(bytes) => match serde_json::from_slice(&bytes) {
                Ok(data) => Ok(Some(data)),
                Err(error) => Err(VolumeError::Mount {
                    action: "parse",
                    path,
                    reason: error.to_string(),
                }),
            },
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(VolumeError::io("read", &path)(error)),
        }
    }
}

/// Removes the file of `directory`, and what a crash left of writing it; both may be gone already.
pub(crate) fn remove(directory: &Path) -> Result<(), VolumeError> {
    for path in entries(directory)? {
        if file_name(&path).ends_with(moorline_mount::durable::TEMPORARY_SUFFIX) {
            remove_file(&path)?;
        }
    }
    remove_file(&directory.join(FILE_NAME))
}

/// Removes a file that may be gone already.
pub(crate) fn remove_file(path: &Path) -> Result<(), VolumeError> {
    match std::fs::remove_file(path) {
        Ok(()) => Ok(()),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(VolumeError::io("remove", path)(error)),
    }
}

/// Removes an empty directory that may be gone already. Never recursive: data is not ours to delete.
pub(crate) fn remove_directory(path: &Path) -> Result<(), VolumeError> {
    match std::fs::remove_dir(path) {
        Ok(()) => Ok(()),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(VolumeError::io("remove directory", path)(error)),
    }
}

/// Makes a directory with all its parents, mode 0750.
pub(crate) fn make_directory(path: &Path) -> Result<(), VolumeError> {
    use std::os::unix::fs::DirBuilderExt;
    std::fs::DirBuilder::new()
        .recursive(true)
        .mode(0o750)
        .create(path)
        .map_err(VolumeError::io("make directory", path))
}

/// Entries of a directory that may not be there.
pub(crate) fn entries(path: &Path) -> Result<Vec<PathBuf>, VolumeError> {
    let listing = match std::fs::read_dir(path) {
        Ok(listing) => listing,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(VolumeError::io("list", path)(error)),
    };
    let mut found = Vec::new();
    for entry in listing {
        found.push(entry.map_err(VolumeError::io("list", path))?.path());
    }
    found.sort();
    Ok(found)
}

/// Last component of a path as text.
pub(crate) fn file_name(path: &Path) -> String {
    path.file_name()
        .map(|name| name.to_string_lossy().into_owned())
        .unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn round_trips_with_upstreams_keys() {
        let directory = tempfile::tempdir().unwrap();
        let data = VolData {
            spec_volume_id: "pvc-1".into(),
            volume_handle: "h".into(),
            driver_name: "d".into(),
            node_name: "n".into(),
            attachment_id: "csi-x".into(),
            volume_lifecycle_mode: "Persistent".into(),
        };
        assert_eq!(VolData::read(directory.path()).unwrap(), None);
        data.write(directory.path()).unwrap();
        let text = std::fs::read_to_string(directory.path().join(FILE_NAME)).unwrap();
        for key in [
            "specVolID",
            "volumeHandle",
            "driverName",
            "nodeName",
            "attachmentID",
            "volumeLifecycleMode",
        ] {
            assert!(text.contains(key), "{key} in {text}");
        }
        assert_eq!(VolData::read(directory.path()).unwrap(), Some(data));
        std::fs::write(directory.path().join(FILE_NAME), "half").unwrap();
        assert!(VolData::read(directory.path()).is_err());
        std::fs::write(directory.path().join(".vol_data.json-1-1.moorline-tmp"), "half").unwrap();
        remove(directory.path()).unwrap();
        remove(directory.path()).unwrap();
        assert_eq!(entries(directory.path()).unwrap(), Vec::<PathBuf>::new());
    }
}
