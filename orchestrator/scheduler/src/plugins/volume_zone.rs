//! VolumeZone: volumes that carry zone or region labels, as volumes of old in-tree drivers do, stay in their zone.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{Node, PersistentVolume};
use moorline_model::claim;

use crate::{
    plugins::volume_binding::Claims,
    snapshot::Snapshot,
    verdict::{Rejection, Verdict},
};

type Labels = BTreeMap<String, String>;

/// The labels that count, each with its name of today.
const ZONE_LABELS: [(&str, &str); 4] = [
    ("topology.kubernetes.io/zone", "topology.kubernetes.io/zone"),
    ("topology.kubernetes.io/region", "topology.kubernetes.io/region"),
    (
        "failure-domain.beta.kubernetes.io/zone",
        "topology.kubernetes.io/zone",
    ),
    (
        "failure-domain.beta.kubernetes.io/region",
        "topology.kubernetes.io/region",
    ),
];
/// Between the values of a label that names several zones.
const SEPARATOR: &str = "__";

/// Refuses nodes outside of the zones of the pod's bound volumes. A node without any such label is in no zone and
/// takes all.
pub fn filter(claims: &Claims, node: &Node, snapshot: &Snapshot<'_>) -> Verdict {
    let nothing = Labels::new();
    let labels = node.metadata.labels.as_ref().unwrap_or(&nothing);
    if !ZONE_LABELS.iter().any(|(label, _)| labels.contains_key(*label)) {
        return Ok(());
    }
    let volumes = claims.bound.iter().filter_map(|bound| claim::volume_name(bound));
    for pv in volumes.filter_map(|name| snapshot.objects.pvs.get(None, name)) {
        if !is_in_zone(&pv, labels) {
            return Err(Rejection::because("node(s) had no available volume zone"));
        }
    }
    Ok(())
}

fn is_in_zone(pv: &PersistentVolume, node: &Labels) -> bool {
    let value_of = |label, name_of_today| node.get(label).or_else(|| node.get(name_of_today));
    ZONE_LABELS.iter().all(|(label, name_of_today)| {
        let Some(zones) = pv.metadata.labels.as_ref().and_then(|labels| labels.get(*label)) else {
            return true;
        };
        value_of(*label, *name_of_today).is_some_and(|zone| zones.split(SEPARATOR).any(|one| one == zone))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn labels(pairs: &[(&str, &str)]) -> Labels {
        pairs
            .iter()
            .map(|(key, value)| ((*key).to_owned(), (*value).to_owned()))
            .collect()
    }

    #[test]
    fn zone_labels_of_the_volume_must_name_the_nodes_zone() {
        let (zone, region) = ("topology.kubernetes.io/zone", "topology.kubernetes.io/region");
        let beta = "failure-domain.beta.kubernetes.io/zone";
        for (name, volume, node, expected) in [
            ("no label", labels(&[]), labels(&[(zone, "a")]), true),
            (
                "the same zone",
                labels(&[(zone, "a")]),
                labels(&[(zone, "a")]),
                true,
            ),
            (
                "another zone",
                labels(&[(zone, "b")]),
                labels(&[(zone, "a")]),
                false,
            ),
            (
                "one of several",
                labels(&[(zone, "b__a")]),
                labels(&[(zone, "a")]),
                true,
            ),
            (
                "none of several",
                labels(&[(zone, "b__aa")]),
                labels(&[(zone, "a")]),
                false,
            ),
            (
                "the node names only the zone",
                labels(&[(region, "r")]),
                labels(&[(zone, "a")]),
                false,
            ),
            (
                "the old name on the volume",
                labels(&[(beta, "a")]),
                labels(&[(zone, "a")]),
                true,
            ),
            (
                "the old name on both",
                labels(&[(beta, "a")]),
                labels(&[(beta, "a")]),
                true,
            ),
            (
                "the old name on the node",
                labels(&[(zone, "a")]),
                labels(&[(beta, "a")]),
                false,
            ),
        ] {
            let mut pv = PersistentVolume::default();
            pv.metadata.labels = Some(volume);
            assert_eq!(is_in_zone(&pv, &node), expected, "{name}");
        }
    }
}
