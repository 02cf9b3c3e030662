//! From where a volume can be reached.

use moorline_proto::csi;

use super::{StringMap, field};
use crate::DriverError;

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
        field::map(&format!("{field}.segments"), topology.segments).map(Topology)
    }
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
        Ok(TopologyRequirement {
            requisite: parse("requisite", requirement.requisite)?,
            preferred: parse("preferred", requirement.preferred)?,
        })
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
