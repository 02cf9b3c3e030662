//! Access modes as claims and PVs name them, and what they become on the wire to a driver.

use std::fmt;

use thiserror::Error;

/// One of the four modes of `spec.accessModes`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum AccessMode {
    /// Read and write on one node.
    ReadWriteOnce,
    /// Read on many nodes.
    ReadOnlyMany,
    /// Read and write on many nodes.
    ReadWriteMany,
    /// Read and write for one pod in the cluster.
    ReadWriteOncePod,
}

impl AccessMode {
    /// All of them.
    pub const ALL: [AccessMode; 4] = [
        AccessMode::ReadWriteOnce,
        AccessMode::ReadOnlyMany,
        AccessMode::ReadWriteMany,
        AccessMode::ReadWriteOncePod,
    ];

    /// The word in the API.
    pub fn as_str(self) -> &'static str {
        match self {
            AccessMode::ReadWriteOnce => "ReadWriteOnce",
            AccessMode::ReadOnlyMany => "ReadOnlyMany",
            AccessMode::ReadWriteMany => "ReadWriteMany",
            AccessMode::ReadWriteOncePod => "ReadWriteOncePod",
        }
    }

    /// The mode of that word, if there is one.
    pub fn parse(word: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|mode| mode.as_str() == word)
    }

    fn bit(self) -> u8 {
        match self {
            AccessMode::ReadWriteOnce => 1,
            AccessMode::ReadOnlyMany => 2,
            AccessMode::ReadWriteMany => 4,
            AccessMode::ReadWriteOncePod => 8,
        }
    }
}

/// A set of modes. Words that name no mode set [`AccessModes::has_unknown`]: such a set is contained in none.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Default)]
pub struct AccessModes(u8);

const UNKNOWN_BIT: u8 = 0x80;

impl AccessModes {
    /// The set of these words.
    pub fn parse(words: &[String]) -> Self {
        let bits = words
            .iter()
            .map(|word| AccessMode::parse(word).map_or(UNKNOWN_BIT, AccessMode::bit))
            .fold(0, |all, bit| all | bit);
        Self(bits)
    }

    /// Whether `mode` is in the set.
    pub fn contains(self, mode: AccessMode) -> bool {
        self.0 & mode.bit() != 0
    }

    /// Whether everything in `other` is in this set too.
    pub fn contains_all(self, other: AccessModes) -> bool {
        !other.has_unknown() && self.0 & other.0 == other.0
    }

    /// How many modes there are.
    pub fn len(self) -> u32 {
        self.0.count_ones()
    }

    /// Whether there is none.
    pub fn is_empty(self) -> bool {
        self.0 == 0
    }

    /// Whether a word was met that this version doesn't know.
    pub fn has_unknown(self) -> bool {
        self.0 & UNKNOWN_BIT != 0
    }

    /// Whether a volume of these modes may be attached to several nodes at once. A volume without modes may.
    pub fn allows_many_nodes(self) -> bool {
        self.is_empty() || self.contains(AccessMode::ReadWriteMany) || self.contains(AccessMode::ReadOnlyMany)
    }

    /// The single CSI mode for a whole list of modes, as controller-publish, node calls and expansion send it.
    ///
    /// # Errors
    /// Final: the list is empty, unknown or combines modes that no CSI mode expresses.
    pub fn to_csi(self, has_single_node_multi_writer: bool) -> Result<CsiAccessMode, CombinationError> {
        let refuse = |reason| Err(CombinationError { modes: self, reason });
        if self.is_empty() {
            return refuse("there is none");
        }
        if self.has_unknown() {
            return refuse("a mode is unknown");
        }
        if self.contains(AccessMode::ReadWriteOncePod) {
            return match (self.len(), has_single_node_multi_writer) {
                (1, true) => Ok(CsiAccessMode::SingleNodeSingleWriter),
                (1, false) => Ok(CsiAccessMode::SingleNodeWriter),
                (_, true | false) => refuse("ReadWriteOncePod must be the only mode"),
            };
        }
        if self.contains(AccessMode::ReadWriteMany) {
            return Ok(CsiAccessMode::MultiNodeMultiWriter);
        }
        match (
            self.contains(AccessMode::ReadOnlyMany),
            self.contains(AccessMode::ReadWriteOnce),
            has_single_node_multi_writer,
        ) {
            (true, true, _) => refuse("ReadOnlyMany and ReadWriteOnce exclude each other"),
            (true, false, _) => Ok(CsiAccessMode::MultiNodeReaderOnly),
            (false, _, true) => Ok(CsiAccessMode::SingleNodeMultiWriter),
            (false, _, false) => Ok(CsiAccessMode::SingleNodeWriter),
        }
    }
}

impl FromIterator<AccessMode> for AccessModes {
    fn from_iter<I: IntoIterator<Item = AccessMode>>(modes: I) -> Self {
        Self(modes.into_iter().fold(0, |all, mode| all | mode.bit()))
    }
}

impl fmt::Debug for AccessModes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl fmt::Display for AccessModes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let known = AccessMode::ALL.into_iter().filter(|mode| self.contains(*mode));
        let words: Vec<&str> = known
            .map(AccessMode::as_str)
            .chain(self.has_unknown().then_some("?"))
            .collect();
        write!(f, "[{}]", words.join(","))
    }
}

/// A list of modes that no single CSI mode expresses.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
#[error("access modes {modes} can't be served together: {reason}")]
pub struct CombinationError {
    /// The list.
    pub modes: AccessModes,
    /// Why not.
    pub reason: &'static str,
}

/// `VolumeCapability.AccessMode.Mode` of CSI; the discriminants are the numbers on the wire.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(i32)]
pub enum CsiAccessMode {
    /// SINGLE_NODE_WRITER
    SingleNodeWriter = 1,
    /// SINGLE_NODE_READER_ONLY
    SingleNodeReaderOnly = 2,
    /// MULTI_NODE_READER_ONLY
    MultiNodeReaderOnly = 3,
    /// MULTI_NODE_SINGLE_WRITER
    MultiNodeSingleWriter = 4,
    /// MULTI_NODE_MULTI_WRITER
    MultiNodeMultiWriter = 5,
    /// SINGLE_NODE_SINGLE_WRITER
    SingleNodeSingleWriter = 6,
    /// SINGLE_NODE_MULTI_WRITER
    SingleNodeMultiWriter = 7,
}

impl CsiAccessMode {
    /// The number on the wire.
    pub fn number(self) -> i32 {
        self as i32
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn modes(words: &str) -> AccessModes {
        let words: Vec<String> = words
            .split_whitespace()
            .map(|word| {
                match word {
                    "RWO" => "ReadWriteOnce",
                    "ROX" => "ReadOnlyMany",
                    "RWX" => "ReadWriteMany",
                    "RWOP" => "ReadWriteOncePod",
                    other => other,
                }
                .to_string()
            })
            .collect();
        AccessModes::parse(&words)
    }

    #[test]
    fn wire_mode_of_each_list() {
        use CsiAccessMode::*;
        let cases = [
            // list, without and with SINGLE_NODE_MULTI_WRITER
            ("RWOP", Some(SingleNodeWriter), Some(SingleNodeSingleWriter)),
            ("RWOP RWO", None, None),
            ("RWOP RWX", None, None),
            ("RWX", Some(MultiNodeMultiWriter), Some(MultiNodeMultiWriter)),
            ("RWX RWO", Some(MultiNodeMultiWriter), Some(MultiNodeMultiWriter)),
            (
                "RWX ROX RWO",
                Some(MultiNodeMultiWriter),
                Some(MultiNodeMultiWriter),
            ),
            ("ROX RWO", None, None),
            ("ROX", Some(MultiNodeReaderOnly), Some(MultiNodeReaderOnly)),
            ("RWO", Some(SingleNodeWriter), Some(SingleNodeMultiWriter)),
            ("RWO RWO", Some(SingleNodeWriter), Some(SingleNodeMultiWriter)),
            ("", None, None),
            ("Whenever", None, None),
            ("RWX Whenever", None, None),
        ];
        for (list, without, with) in cases {
            assert_eq!(modes(list).to_csi(false).ok(), without, "{list} without");
            assert_eq!(modes(list).to_csi(true).ok(), with, "{list} with");
        }
    }

    #[test]
    fn numbers_are_those_of_csi() {
        use CsiAccessMode::*;
        let numbers = [
            SingleNodeWriter,
            SingleNodeReaderOnly,
            MultiNodeReaderOnly,
            MultiNodeSingleWriter,
            MultiNodeMultiWriter,
            SingleNodeSingleWriter,
            SingleNodeMultiWriter,
        ]
        .map(CsiAccessMode::number);
        assert_eq!(numbers, [1, 2, 3, 4, 5, 6, 7]);
    }

    #[test]
    fn containment() {
        let cases = [
            ("RWO ROX", "RWO", true),
            ("RWO", "RWO", true),
            ("RWO", "RWO ROX", false),
            ("RWX", "RWO", false),
            ("RWO", "", true),
            ("RWO Odd", "RWO", true),
            ("RWO Odd", "Odd", false),
        ];
        for (set, requested, expected) in cases {
            assert_eq!(
                modes(set).contains_all(modes(requested)),
                expected,
                "{set} >= {requested}"
            );
        }
    }

    #[test]
    fn many_nodes_need_a_many_mode_or_none() {
        for (list, expected) in [
            ("", true),
            ("RWO", false),
            ("RWOP", false),
            ("ROX", true),
            ("RWO ROX", true),
            ("RWX", true),
        ] {
            assert_eq!(modes(list).allows_many_nodes(), expected, "{list}");
        }
    }

    #[test]
    fn refusal_names_the_modes() {
        let error = modes("ROX RWO").to_csi(false).unwrap_err();
        assert_eq!(
            error.to_string(),
            "access modes [ReadWriteOnce,ReadOnlyMany] can't be served together: ReadOnlyMany and ReadWriteOnce exclude each other"
        );
    }
}
