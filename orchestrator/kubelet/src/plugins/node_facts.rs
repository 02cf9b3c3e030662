//! What a driver's registration changes in the CSINode and Node objects. Pure.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::Node;
use k8s_openapi::api::storage::v1::{CSINode, CSINodeDriver, CSINodeSpec, VolumeNodeResources};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference};
use serde_json::{Value, json};

/// Mirror of the CSINode object that old attachers read.
pub(crate) const NODE_ID_ANNOTATION: &str = "csi.volume.kubernetes.io/nodeid";

/// What `NodeGetInfo` said.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct DriverFacts {
    pub driver_name: String,
    pub node_id: String,
    pub topology: BTreeMap<String, String>,
    pub max_volumes: Option<i32>,
}

/// Why a driver's facts can't be shown on this node.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum FactsError {
    #[error(
        "detected topology value collision: driver reported {key:?}:{reported:?} but existing label is {key:?}:{found:?}"
    )]
    TopologyCollision {
        key: String,
        reported: String,
        found: String,
    },
    #[error("annotation {NODE_ID_ANNOTATION} is not a JSON object of strings")]
    DamagedAnnotation,
}

/// A CSINode without drivers, owned by the Node so that it goes with it.
pub(crate) fn new_csi_node(node: &Node) -> CSINode {
    let name = node.metadata.name.clone().unwrap_or_default();
    CSINode {
        metadata: ObjectMeta {
            name: Some(name.clone()),
            owner_references: Some(vec![OwnerReference {
                api_version: "v1".into(),
                kind: "Node".into(),
                name,
                uid: node.metadata.uid.clone().unwrap_or_default(),
                ..Default::default()
            }]),
            ..Default::default()
        },
        spec: CSINodeSpec { drivers: Vec::new() },
    }
}

/// Whether the object belongs to an earlier Node of the same name.
pub(crate) fn is_foreign(csi_node: &CSINode, node: &Node) -> bool {
    let owners = csi_node
        .metadata
        .owner_references
        .iter()
        .flatten()
        .filter(|owner| owner.kind == "Node");
    let mut owners = owners.peekable();
    owners.peek().is_some() && owners.all(|owner| Some(&owner.uid) != node.metadata.uid.as_ref())
}

/// The CSINode with the driver's entry; `None` when it is there already.
pub(crate) fn with_driver(csi_node: &CSINode, facts: &DriverFacts) -> Option<CSINode> {
    let entry = CSINodeDriver {
        name: facts.driver_name.clone(),
        node_id: facts.node_id.clone(),
        topology_keys: Some(facts.topology.keys().cloned().collect::<Vec<_>>())
            .filter(|keys| !keys.is_empty()),
        allocatable: facts
            .max_volumes
            .map(|count| VolumeNodeResources { count: Some(count) }),
    };
    let held = csi_node
        .spec
        .drivers
        .iter()
        .find(|driver| driver.name == entry.name);
    if held.is_some_and(|held| is_same(held, &entry)) {
        return None;
    }
    let mut changed = csi_node.clone();
    changed.spec.drivers.retain(|driver| driver.name != entry.name);
    changed.spec.drivers.push(entry);
    Some(changed)
}

fn is_same(a: &CSINodeDriver, b: &CSINodeDriver) -> bool {
    let keys = |driver: &CSINodeDriver| driver.topology_keys.clone().unwrap_or_default();
    let count = |driver: &CSINodeDriver| {
        driver
            .allocatable
            .as_ref()
            .and_then(|allocatable| allocatable.count)
    };
    a.name == b.name && a.node_id == b.node_id && keys(a) == keys(b) && count(a) == count(b)
}

/// The CSINode without the driver's entry; `None` when there is none.
pub(crate) fn without_driver(csi_node: &CSINode, driver_name: &str) -> Option<CSINode> {
    let mut changed = csi_node.clone();
    changed.spec.drivers.retain(|driver| driver.name != driver_name);
    (changed.spec.drivers.len() != csi_node.spec.drivers.len()).then_some(changed)
}

fn node_ids(node: &Node) -> Result<BTreeMap<String, String>, FactsError> {
    let text = node
        .metadata
        .annotations
        .as_ref()
        .and_then(|annotations| annotations.get(NODE_ID_ANNOTATION));
    match text {
        None => Ok(BTreeMap::new()),
        Some(text) => serde_json::from_str(text).map_err(|_| FactsError::DamagedAnnotation),
    }
}

/// The merge patch that shows the driver on the Node; `None` when it is shown already. Topology labels are only ever
/// added: a label that says something else is an error.
pub(crate) fn node_patch(node: &Node, facts: &DriverFacts) -> Result<Option<Value>, FactsError> {
    let mut labels = BTreeMap::new();
    for (key, reported) in &facts.topology {
        match node.metadata.labels.as_ref().and_then(|labels| labels.get(key)) {
            Some(found) if found == reported => {}
            Some(found) => {
                return Err(FactsError::TopologyCollision {
                    key: key.clone(),
                    reported: reported.clone(),
                    found: found.clone(),
                });
            }
            None => {
                labels.insert(key.clone(), reported.clone());
            }
        }
    }
    let mut ids = node_ids(node)?;
    let is_known = ids.get(&facts.driver_name) == Some(&facts.node_id);
    if is_known && labels.is_empty() {
        return Ok(None);
    }
    ids.insert(facts.driver_name.clone(), facts.node_id.clone());
    let annotation = json!(ids).to_string();
    Ok(Some(json!({"metadata": {
        "resourceVersion": node.metadata.resource_version,
        "labels": labels,
        "annotations": {NODE_ID_ANNOTATION: annotation},
    }})))
}

/// The merge patch that takes the driver's node id from the Node. Labels stay.
pub(crate) fn node_patch_without(node: &Node, driver_name: &str) -> Result<Option<Value>, FactsError> {
    let mut ids = node_ids(node)?;
    if ids.remove(driver_name).is_none() {
        return Ok(None);
    }
    let annotation = if ids.is_empty() {
        Value::Null
    } else {
        json!(json!(ids).to_string())
    };
    Ok(Some(json!({"metadata": {
        "resourceVersion": node.metadata.resource_version,
        "annotations": {NODE_ID_ANNOTATION: annotation},
    }})))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn node(labels: &[(&str, &str)], annotation: Option<&str>) -> Node {
        let labels = labels
            .iter()
            .map(|(key, value)| ((*key).to_owned(), (*value).to_owned()))
            .collect();
        let annotations =
            annotation.map(|text| BTreeMap::from([(NODE_ID_ANNOTATION.to_owned(), text.to_owned())]));
        let metadata = ObjectMeta {
            name: Some("n1".into()),
            uid: Some("node-uid".into()),
            resource_version: Some("7".into()),
            labels: Some(labels),
            annotations,
            ..Default::default()
        };
        Node {
            metadata,
            ..Default::default()
        }
    }

    fn facts() -> DriverFacts {
        DriverFacts {
            driver_name: "d".into(),
            node_id: "id-1".into(),
            topology: BTreeMap::from([("zone".to_owned(), "a".to_owned())]),
            max_volumes: Some(5),
        }
    }

    #[test]
    fn node_gets_label_and_annotation_once() {
        let patch = node_patch(&node(&[], None), &facts()).unwrap().unwrap();
        assert_eq!(
            patch,
            json!({"metadata": {"resourceVersion": "7", "labels": {"zone": "a"},
                "annotations": {NODE_ID_ANNOTATION: "{\"d\":\"id-1\"}"}}})
        );
        let cases = [
            (
                "all there",
                node(&[("zone", "a")], Some("{\"d\":\"id-1\"}")),
                Ok(false),
            ),
            (
                "other id",
                node(&[("zone", "a")], Some("{\"d\":\"old\"}")),
                Ok(true),
            ),
            ("label missing", node(&[], Some("{\"d\":\"id-1\"}")), Ok(true)),
            (
                "damaged annotation",
                node(&[("zone", "a")], Some("[]")),
                Err(FactsError::DamagedAnnotation),
            ),
            (
                "label says something else",
                node(&[("zone", "b")], None),
                Err(FactsError::TopologyCollision {
                    key: "zone".into(),
                    reported: "a".into(),
                    found: "b".into(),
                }),
            ),
        ];
        for (name, node, want) in cases {
            assert_eq!(
                node_patch(&node, &facts()).map(|patch| patch.is_some()),
                want,
                "{name}"
            );
        }
    }

    #[test]
    fn driver_entry_is_written_only_on_change() {
        let empty = new_csi_node(&node(&[], None));
        let one = with_driver(&empty, &facts()).unwrap();
        assert_eq!(one.spec.drivers.len(), 1);
        assert_eq!(with_driver(&one, &facts()), None);
        let moved = with_driver(
            &one,
            &DriverFacts {
                node_id: "id-2".into(),
                ..facts()
            },
        )
        .unwrap();
        assert_eq!(
            moved
                .spec
                .drivers
                .iter()
                .map(|d| d.node_id.as_str())
                .collect::<Vec<_>>(),
            ["id-2"]
        );
        assert_eq!(without_driver(&moved, "d").unwrap().spec.drivers, []);
        assert_eq!(without_driver(&moved, "other"), None);
    }

    #[test]
    fn csi_node_of_an_earlier_node_is_foreign() {
        let mine = node(&[], None);
        let mut other = mine.clone();
        other.metadata.uid = Some("another".into());
        assert!(!is_foreign(&new_csi_node(&mine), &mine));
        assert!(is_foreign(&new_csi_node(&other), &mine));
        assert!(!is_foreign(&CSINode::default(), &mine));
    }

    #[test]
    fn removing_a_node_id_keeps_the_others() {
        let two = node(&[], Some("{\"d\":\"1\",\"e\":\"2\"}"));
        let patch = node_patch_without(&two, "d").unwrap().unwrap();
        assert_eq!(
            patch["metadata"]["annotations"][NODE_ID_ANNOTATION],
            json!("{\"e\":\"2\"}")
        );
        let last = node(&[], Some("{\"d\":\"1\"}"));
        let patch = node_patch_without(&last, "d").unwrap().unwrap();
        assert_eq!(patch["metadata"]["annotations"][NODE_ID_ANNOTATION], Value::Null);
        assert_eq!(node_patch_without(&node(&[], None), "d"), Ok(None));
    }
}
