//! Which runs there are: backend × access type × set-up × attachment, and which flags each of them needs.

use std::{fmt, str::FromStr};

use anyhow::bail;
use serde::{Serialize, Serializer};

use crate::scratch::PoolFilesystem;

/// More than any spec but one attaches at once; that one attaches as many and then one more.
const NODE_VOLUMES_MAX: u32 = 8;

/// How the driver keeps new volumes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Backend {
    /// Plain directories.
    Dir,
    /// Sparse files behind loop devices.
    Loop,
    /// Subvolumes.
    Btrfs,
}

/// What the suite asks volumes to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AccessType {
    /// Mounted filesystems.
    Filesystem,
    /// Raw block devices.
    Block,
}

/// Which processes serve the driver.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Setup {
    /// One process with controller and node.
    Together,
    /// A controller process and a node process, each with an endpoint of its own.
    Split,
}

/// Whether volumes are attached before they are staged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Attachment {
    /// Volumes belong to the one node.
    NodeLocal,
    /// Volumes are granted to a node by the controller, which has a limit for each node.
    Attachable,
}

/// One run of the suite.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cell {
    /// How volumes are kept.
    pub backend: Backend,
    /// What volumes are.
    pub access_type: AccessType,
    /// Who serves.
    pub setup: Setup,
    /// Attached or not.
    pub attachment: Attachment,
}

impl Backend {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Dir, Self::Loop, Self::Btrfs];

    /// The word for it, which is also the driver's.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Dir => "dir",
            Self::Loop => "loop",
            Self::Btrfs => "btrfs",
        }
    }

    /// What its pool is made on: the filesystem on which the backend can do the most.
    pub fn pool_filesystem(self) -> PoolFilesystem {
        match self {
            Self::Dir | Self::Loop => PoolFilesystem::Xfs,
            Self::Btrfs => PoolFilesystem::Btrfs,
        }
    }
}

impl AccessType {
    /// Both.
    pub const ALL: [Self; 2] = [Self::Filesystem, Self::Block];

    /// The word for it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Filesystem => "filesystem",
            Self::Block => "block",
        }
    }

    /// The suite's word for it.
    fn of_suite(self) -> &'static str {
        match self {
            Self::Filesystem => "mount",
            Self::Block => "block",
        }
    }
}

impl Setup {
    /// Both.
    pub const ALL: [Self; 2] = [Self::Together, Self::Split];

    /// The word for it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Together => "together",
            Self::Split => "split",
        }
    }
}

impl Attachment {
    /// Both.
    pub const ALL: [Self; 2] = [Self::NodeLocal, Self::Attachable];

    /// The word for it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::NodeLocal => "node-local",
            Self::Attachable => "attachable",
        }
    }
}

impl Cell {
    /// The flags of `moorline driver` that this run needs in each of its processes.
    pub fn driver_flags(self) -> Vec<String> {
        let mut flags = vec![format!("--backend={}", self.backend.as_str())];
        if self.attachment == Attachment::Attachable {
            flags.push("--attachable".to_owned());
            flags.push(format!("--max-volumes-per-node={NODE_VOLUMES_MAX}"));
        }
        flags
    }

    /// The flags of the suite that this run needs.
    pub fn suite_flags(self) -> Vec<String> {
        let mut flags = vec![format!(
            "--csi.testvolumeaccesstype={}",
            self.access_type.of_suite()
        )];
        if self.attachment == Attachment::Attachable {
            flags.push("--csi.testnodevolumeattachlimit".to_owned());
        }
        flags
    }

    /// Mutable parameters, as YAML, that volumes of this run can have: what a device behind a file can do, elsewhere what
    /// changes nothing.
    pub fn mutable_parameters(self) -> &'static str {
        match (self.access_type, self.backend) {
            (AccessType::Block, _) => "directIO: \"true\"\n",
            (AccessType::Filesystem, Backend::Loop) => "directIO: \"true\"\ndiscard: \"true\"\n",
            (AccessType::Filesystem, Backend::Dir | Backend::Btrfs) => "directIO: \"false\"\n",
        }
    }

    fn words(self) -> [&'static str; 4] {
        [
            self.backend.as_str(),
            self.access_type.as_str(),
            self.setup.as_str(),
            self.attachment.as_str(),
        ]
    }
}

impl fmt::Display for Cell {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.words().join("/"))
    }
}

impl Serialize for Cell {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

/// All runs.
pub fn all() -> Vec<Cell> {
    let mut cells = Vec::new();
    for backend in Backend::ALL {
        for access_type in AccessType::ALL {
            for setup in Setup::ALL {
                for attachment in Attachment::ALL {
                    cells.push(Cell {
                        backend,
                        access_type,
                        setup,
                        attachment,
                    });
                }
            }
        }
    }
    cells
}

/// Chooses runs: words such as `loop/block/...`, in any order, each of which has to be one of the run's own.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Filter {
    words: Vec<String>,
}

impl Filter {
    /// Is this one of the chosen?
    pub fn takes(&self, cell: Cell) -> bool {
        self.words
            .iter()
            .all(|word| cell.words().contains(&word.as_str()))
    }
}

impl FromStr for Filter {
    type Err = anyhow::Error;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let words = text
            .split('/')
            .filter(|word| !matches!(*word, "" | "*" | "..."))
            .map(str::to_owned)
            .collect();
        let filter = Self { words };
        if !all().into_iter().any(|cell| filter.takes(cell)) {
            let cells: Vec<String> = all().iter().map(Cell::to_string).collect();
            bail!("{text:?} chooses no run; there are {}", cells.join(", "));
        }
        Ok(filter)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn filters_choose_by_words_in_any_order() {
        let count = |text: &str| {
            let filter: Filter = text.parse().unwrap();
            all().into_iter().filter(|cell| filter.takes(*cell)).count()
        };
        let every = all().len();
        let cases = [
            ("", every),
            ("*", every),
            ("...", every),
            ("loop/block/split/node-local", 1),
            ("split/loop/block/node-local", 1),
        ];
        for (text, expected) in cases {
            assert_eq!(count(text), expected, "{text:?}");
        }
        assert_eq!(count("split") * 2, every);
        assert!(count("loop/...") < every);
    }

    #[test]
    fn a_filter_that_chooses_nothing_is_refused_with_what_there_is() {
        for text in ["zfs", "dir/loop"] {
            let error = text.parse::<Filter>().unwrap_err().to_string();
            assert!(error.contains("loop/filesystem/together/node-local"), "{error}");
        }
    }
}
