//! From where a volume can be reached.

use std::collections::BTreeSet;

use moorline_proto::csi;

use super::{StringMap, field};
use crate::DriverError;

/// CSI 1.12, Topology: prefix, name and value.
const SEGMENT_BYTES_MAX: usize = 63;

/// Segments such as zone or node that together name a place.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Topology(pub StringMap);

impl Topology {
    /// A place named by one segment.
    pub fn one(key: impl Into<String>, value: impl Into<String>) -> Self {
        Topology(StringMap::from([(key.into(), value.into())]))
    }

    /// Is every segment of `self` also one of `other`? Then whatever is in `other` can reach what is in `self`.
    pub fn contains(&self, other: &Topology) -> bool {
        self.0.iter().all(|(key, value)| other.0.get(key) == Some(value))
    }

    pub(super) fn parse(field: &str, topology: csi::Topology) -> Result<Self, DriverError> {
        let segments = field::map(&format!("{field}.segments"), topology.segments)?;
        let mut keys = BTreeSet::new();
        for (key, value) in &segments {
            if !is_key(key) {
                let rule = "is not [prefix/]name of at most 63 characters each";
                return Err(DriverError::invalid(format!("{field} key {key:?} {rule}")));
            }
            if !is_name(value) {
                let rule = "is not 1 to 63 letters, digits, -, _ or . between letters or digits";
                return Err(DriverError::invalid(format!("{field} value {value:?} {rule}")));
            }
            if !keys.insert(key.to_ascii_lowercase()) {
                let rule = "differs from another one only in upper and lower case";
                return Err(DriverError::invalid(format!("{field} key {key:?} {rule}")));
            }
        }
        Ok(Topology(segments))
    }
}

/// CSI 1.12, Topology: an optional prefix, written as a domain name, and a name.
fn is_key(key: &str) -> bool {
    match key.split_once('/') {
        Some((prefix, name)) => is_prefix(prefix) && is_name(name),
        None => is_name(key),
    }
}

fn is_prefix(prefix: &str) -> bool {
    let is_label = |label: &str| {
        let is_inner = |c: u8| c.is_ascii_lowercase() || c.is_ascii_digit() || c == b'-';
        !label.is_empty() && label.bytes().all(is_inner) && !label.starts_with('-') && !label.ends_with('-')
    };
    prefix.len() <= SEGMENT_BYTES_MAX && prefix.split('.').all(is_label)
}

fn is_name(text: &str) -> bool {
    let is_outer = |c: Option<char>| c.is_some_and(|c| c.is_ascii_alphanumeric());
    text.len() <= SEGMENT_BYTES_MAX
        && is_outer(text.chars().next())
        && is_outer(text.chars().next_back())
        && text
            .bytes()
            .all(|c| c.is_ascii_alphanumeric() || matches!(c, b'-' | b'_' | b'.'))
}

impl From<Topology> for csi::Topology {
    fn from(topology: Topology) -> Self {
        csi::Topology {
            segments: topology.0.into_iter().collect(),
        }
    }
}

/// Where a new volume must and should be reachable from.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TopologyRequirement {
    /// The volume must be reachable from at least one of these; empty: from anywhere.
    pub requisite: Vec<Topology>,
    /// Best first; all of them are in `requisite` if that is not empty.
    pub preferred: Vec<Topology>,
}

impl TopologyRequirement {
    pub(super) fn parse(requirement: csi::TopologyRequirement) -> Result<Self, DriverError> {
        let parse = |name: &str, list: Vec<csi::Topology>| {
            let field = format!("accessibility_requirements.{name}");
            list.into_iter()
                .map(|topology| Topology::parse(&field, topology))
                .collect::<Result<Vec<_>, _>>()
        };
        let requisite = parse("requisite", requirement.requisite)?;
        let preferred = parse("preferred", requirement.preferred)?;
        // A set: a message has room for so many terms that comparing each with each would take minutes.
        let known: BTreeSet<_> = requisite.iter().collect();
        if !requisite.is_empty() && !preferred.iter().all(|term| known.contains(term)) {
            return Err(DriverError::invalid(
                "accessibility_requirements.preferred has a term that is not in requisite",
            ));
        }
        Ok(TopologyRequirement { requisite, preferred })
    }

    /// May a volume be that can only be reached from `place`? The requisite terms bound the choice; without any, the
    /// preferred terms only order it.
    pub fn admits(&self, place: &Topology) -> bool {
        self.requisite.is_empty() || self.requisite.iter().any(|term| term.contains(place))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What this thread has computed so far, whatever else the machine does.
    fn cpu_seconds() -> i64 {
        rustix::time::clock_gettime(rustix::time::ClockId::ThreadCPUTime).tv_sec
    }

    #[test]
    fn a_message_full_of_terms_is_checked_in_seconds() {
        let term = |number: u32| csi::Topology {
            segments: [(format!("k{number}"), "v".to_owned())].into(),
        };
        let requirement = csi::TopologyRequirement {
            requisite: (0..60_000).map(term).collect(),
            preferred: (0..60_000).rev().map(term).collect(),
        };
        assert!(
            prost::Message::encoded_len(&requirement) < 4 << 20,
            "gRPC's limit"
        );
        let started = cpu_seconds();
        TopologyRequirement::parse(requirement).expect("each is in requisite");
        // Each with each would be 1.8 billion comparisons of maps.
        let spent = cpu_seconds() - started;
        assert!(spent < 20, "{spent} s");
    }

    #[test]
    fn the_requisite_terms_bound_the_choice() {
        let here = Topology(StringMap::from([
            ("node".into(), "n1".into()),
            ("zone".into(), "z1".into()),
        ]));
        let cases = [
            ("no terms", vec![], true),
            ("the node itself", vec![Topology::one("node", "n1")], true),
            ("a wider term", vec![Topology::one("zone", "z1")], true),
            (
                "one of several",
                vec![Topology::one("node", "n2"), Topology::one("node", "n1")],
                true,
            ),
            ("another node", vec![Topology::one("node", "n2")], false),
            ("an unknown key", vec![Topology::one("rack", "n1")], false),
            ("a term without segments", vec![Topology::default()], true),
        ];
        for (name, requisite, expected) in cases {
            let requirement = TopologyRequirement {
                requisite,
                preferred: vec![],
            };
            assert_eq!(requirement.admits(&here), expected, "{name}");
        }
    }
}
