//! Single fields: strings, ids, paths, maps, secrets, and the limits that the specification sets for each.

use std::{
    collections::{BTreeMap, HashMap},
    fmt,
    path::{Component, Path, PathBuf},
};

use crate::DriverError;

/// CSI 1.12, Size Limits: a string.
const STRING_BYTES_MAX: usize = 128;
/// CSI 1.12, Size Limits: a map of strings, keys and values together.
const MAP_BYTES_MAX: usize = 4 * 1024;
/// NodeGetInfo allows node ids to be longer than other strings.
const NODE_ID_BYTES_MAX: usize = 256;
/// Paths may be as long as the operating system allows.
const PATH_BYTES_MAX: usize = 4095;

/// String parameters, in a stable order.
pub type StringMap = BTreeMap<String, String>;

macro_rules! identifier {
    ($(#[$doc:meta])* $name:ident, $field:literal) => {
        $(#[$doc])*
        #[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(String);

        impl $name {
            /// Checks an id: 1 to 128 bytes without control characters.
            ///
            /// # Errors
            /// Invalid argument otherwise.
            pub fn parse(text: impl Into<String>) -> Result<Self, DriverError> {
                Self::parse_field($field, text.into())
            }

            pub(crate) fn parse_field(field: &str, text: String) -> Result<Self, DriverError> {
                id(field, text).map(Self)
            }

            /// The id as it goes over the wire.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl From<$name> for String {
            fn from(id: $name) -> Self {
                id.0
            }
        }
    };
}

identifier!(
    /// The id that the driver gave a volume.
    VolumeId,
    "volume_id"
);
identifier!(
    /// The id that the driver gave a snapshot.
    SnapshotId,
    "snapshot_id"
);
identifier!(
    /// The id that the driver gave a group of snapshots.
    GroupSnapshotId,
    "group_snapshot_id"
);

/// A list of ids in which none comes twice.
pub(super) fn unique<T: Clone + Ord + fmt::Display>(field: &str, ids: Vec<T>) -> Result<Vec<T>, DriverError> {
    let mut seen = std::collections::BTreeSet::new();
    match ids.iter().find(|id| !seen.insert((*id).clone())) {
        Some(twice) => Err(DriverError::invalid(format!("{field} has {twice} twice"))),
        None => Ok(ids),
    }
}

/// Secrets of one request. Not printable, and overwritten when dropped.
#[derive(Clone, Default)]
pub struct Secrets(HashMap<String, String>);

impl Secrets {
    /// The value of one secret.
    pub fn get(&self, key: &str) -> Option<&str> {
        self.0.get(key).map(String::as_str)
    }

    /// Were none given?
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl fmt::Debug for Secrets {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("***stripped***")
    }
}

impl Drop for Secrets {
    fn drop(&mut self) {
        for (_, value) in self.0.drain() {
            let mut bytes = value.into_bytes();
            bytes.fill(0);
            std::hint::black_box(&bytes);
        }
    }
}

pub(super) fn secrets(map: HashMap<String, String>) -> Result<Secrets, DriverError> {
    check_map_size("secrets", &map)?;
    // The values are anybody's bytes; a key with control characters is a mistake. Neither is shown.
    if map.keys().any(|key| has_control_characters(key)) {
        return Err(DriverError::invalid("secrets has control characters in a key"));
    }
    Ok(Secrets(map))
}

fn has_control_characters(text: &str) -> bool {
    // The specification bans C0 but for tab, line feed and carriage return, and C1 with DEL.
    text.chars()
        .any(|c| c.is_control() && !matches!(c, '\t' | '\n' | '\r'))
}

/// A string that may be empty.
pub(crate) fn optional_text(field: &str, text: String) -> Result<Option<String>, DriverError> {
    if text.is_empty() {
        return Ok(None);
    }
    text_up_to(field, text, STRING_BYTES_MAX).map(Some)
}

/// A count of which 0 means that none is given.
pub(super) fn optional_count(field: &str, count: i32) -> Result<Option<usize>, DriverError> {
    let count =
        usize::try_from(count).map_err(|_| DriverError::invalid(format!("{field} {count} is negative")))?;
    Ok((count > 0).then_some(count))
}

/// A required string.
pub(crate) fn id(field: &str, text: String) -> Result<String, DriverError> {
    required(field, text, STRING_BYTES_MAX)
}

pub(super) fn node_id(text: String) -> Result<String, DriverError> {
    required("node_id", text, NODE_ID_BYTES_MAX)
}

fn required(field: &str, text: String, bytes_max: usize) -> Result<String, DriverError> {
    if text.is_empty() {
        return Err(DriverError::invalid(format!("{field} is missing")));
    }
    text_up_to(field, text, bytes_max)
}

fn text_up_to(field: &str, text: String, bytes_max: usize) -> Result<String, DriverError> {
    if text.len() > bytes_max {
        let length = text.len();
        return Err(DriverError::invalid(format!(
            "{field} has {length} bytes; at most {bytes_max} are allowed"
        )));
    }
    if has_control_characters(&text) {
        return Err(DriverError::invalid(format!("{field} has control characters")));
    }
    Ok(text)
}

/// An absolute path without `..`.
pub(super) fn path(field: &str, text: String) -> Result<PathBuf, DriverError> {
    let text = required(field, text, PATH_BYTES_MAX)?;
    let path = Path::new(&text);
    if !path.is_absolute() {
        return Err(DriverError::invalid(format!("{field} {text} is not absolute")));
    }
    if path
        .components()
        .any(|component| component == Component::ParentDir)
    {
        return Err(DriverError::invalid(format!("{field} {text} has a .. in it")));
    }
    if path.file_name().is_none() {
        return Err(DriverError::invalid(format!(
            "{field} {text} is the root directory"
        )));
    }
    // Without doubled or trailing slashes, so that one path is always spelled one way.
    Ok(path.components().collect())
}

/// A path at which something is looked for. One that could not have been used for it leads to nothing: the driver will
/// find that out, and the specification's word for it is NOT_FOUND.
pub(super) fn location(field: &str, text: String) -> Result<PathBuf, DriverError> {
    required(field, text, PATH_BYTES_MAX).map(|text| Path::new(&text).components().collect())
}

pub(super) fn optional_path(field: &str, text: String) -> Result<Option<PathBuf>, DriverError> {
    if text.is_empty() {
        Ok(None)
    } else {
        path(field, text).map(Some)
    }
}

pub(super) fn map(field: &str, map: HashMap<String, String>) -> Result<StringMap, DriverError> {
    check_map_size(field, &map)?;
    for (key, value) in &map {
        if has_control_characters(key) || has_control_characters(value) {
            return Err(DriverError::invalid(format!(
                "{field} has control characters at key {key:?}"
            )));
        }
    }
    Ok(map.into_iter().collect())
}

fn check_map_size(field: &str, map: &HashMap<String, String>) -> Result<(), DriverError> {
    let bytes: usize = map.iter().map(|(key, value)| key.len() + value.len()).sum();
    if bytes > MAP_BYTES_MAX {
        return Err(DriverError::invalid(format!(
            "{field} has {bytes} bytes; at most {MAP_BYTES_MAX} are allowed"
        )));
    }
    Ok(())
}
