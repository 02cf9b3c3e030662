//! What a volume holds, and whether its blocks are its own from the start.

use std::fmt;

use moorline_mount::filesystem::FsType;
use serde::{Deserialize, Serialize};

/// What a volume holds, and so which backend serves it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Content {
    /// A directory (`dir` backend).
    Directory,
    /// A subvolume with a quota (`btrfs` backend).
    Subvolume,
    /// A file as a raw block device (any backend's pool).
    Block,
    /// A file with ext4 on it (`loop` backend).
    Ext4,
    /// A file with xfs on it (`loop` backend).
    Xfs,
    /// A file with btrfs on it (`loop` backend).
    Btrfs,
}

impl Content {
    /// The filesystem in the volume's file.
    pub(crate) fn filesystem(self) -> Option<FsType> {
        let name = match self {
            Content::Directory | Content::Subvolume | Content::Block => return None,
            Content::Ext4 => "ext4",
            Content::Xfs => "xfs",
            Content::Btrfs => "btrfs",
        };
        name.parse().ok()
    }

    /// Is the volume kept in one file?
    pub(crate) fn is_file(self) -> bool {
        match self {
            Content::Directory | Content::Subvolume => false,
            Content::Block | Content::Ext4 | Content::Xfs | Content::Btrfs => true,
        }
    }
}

impl From<FsType> for Content {
    fn from(fs_type: FsType) -> Self {
        match fs_type.as_str() {
            "ext4" => Content::Ext4,
            "xfs" => Content::Xfs,
            _ => Content::Btrfs,
        }
    }
}

impl fmt::Display for Content {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Content::Directory => "a directory",
            Content::Subvolume => "a subvolume",
            Content::Block => "a block device",
            Content::Ext4 => "an ext4 filesystem",
            Content::Xfs => "an xfs filesystem",
            Content::Btrfs => "a btrfs filesystem",
        })
    }
}

/// When a volume gets the blocks that it was promised.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Provisioning {
    /// As it is written to.
    #[default]
    Thin,
    /// All at its creation.
    Thick,
}

impl fmt::Display for Provisioning {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Provisioning::Thin => "thin",
            Provisioning::Thick => "thick",
        })
    }
}
