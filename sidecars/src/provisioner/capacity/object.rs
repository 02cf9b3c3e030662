//! CSIStorageCapacity objects: which item each speaks of, and what has to be written. Pure.

use std::sync::Arc;

use k8s_openapi::api::storage::v1::CSIStorageCapacity;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{LabelSelector, ObjectMeta, OwnerReference};
use moorline_model::{Amount, keys};
use serde_json::{Value, json};

use super::Item;

/// Objects of this provisioner carry it, or it and the name of its node; those of others are left alone.
const MANAGED_BY: &str = "external-provisioner";
/// Longest value of a label.
const LABEL_LENGTH_MAX: usize = 63;

/// Whose objects these are: the values of two labels.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Producer {
    pub(crate) driver_name: String,
    pub(crate) managed_by: String,
}

impl Producer {
    /// Of the driver's only provisioner, or that of a node.
    pub(crate) fn new(driver_name: &str, node_name: Option<&str>) -> Self {
        Self {
            driver_name: driver_name.to_string(),
            managed_by: node_name.map_or_else(|| MANAGED_BY.to_string(), managed_by),
        }
    }
}

/// As upstream's, so that one takes over the other's objects.
fn managed_by(node_name: &str) -> String {
    let whole = format!("{MANAGED_BY}-{node_name}");
    if whole.len() <= LABEL_LENGTH_MAX {
        return whole;
    }
    // Dashes on both sides, and eight digits.
    match LABEL_LENGTH_MAX.checked_sub(10 + node_name.len()) {
        Some(room) => format!(
            "{}-{:08x}-{node_name}",
            &MANAGED_BY[..room],
            fnv1a_32(MANAGED_BY.as_bytes())
        ),
        None => {
            let room = MANAGED_BY.len().min(LABEL_LENGTH_MAX - 9);
            format!("{}-{:08x}", &MANAGED_BY[..room], fnv1a_32(whole.as_bytes()))
        }
    }
}

/// FNV-1a, 32 bits.
fn fnv1a_32(bytes: &[u8]) -> u32 {
    bytes.iter().fold(0x811c_9dc5, |hash: u32, byte| {
        (hash ^ u32::from(*byte)).wrapping_mul(0x0100_0193)
    })
}

/// The driver's answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Room {
    pub(crate) capacity: i64,
    pub(crate) maximum_volume_size: Option<i64>,
}

/// One write.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Write {
    Create(Box<CSIStorageCapacity>),
    Update { name: String, patch: Value },
    Delete { name: String },
}

/// The item that an object of this provisioner speaks of; `None` for objects of others.
pub(crate) fn item_of(object: &CSIStorageCapacity, producer: &Producer) -> Option<Item> {
    let labels = object.metadata.labels.as_ref()?;
    let is = |key: &str, value: &str| labels.get(key).is_some_and(|held| held == value);
    if !is(keys::CAPACITY_DRIVER_NAME, &producer.driver_name)
        || !is(keys::CAPACITY_MANAGED_BY, &producer.managed_by)
    {
        return None;
    }
    let segment = object
        .node_topology
        .as_ref()
        .and_then(|topology| topology.match_labels.clone());
    Some(Item {
        class_name: object.storage_class_name.clone(),
        segment: segment.unwrap_or_default(),
    })
}

/// What to write, given the objects that speak of `item`. Without `room` the item isn't wanted.
pub(crate) fn writes(
    existing: &[Arc<CSIStorageCapacity>],
    room: Option<Room>,
    item: &Item,
    producer: &Producer,
    owner: Option<&OwnerReference>,
) -> Vec<Write> {
    let mut existing: Vec<&Arc<CSIStorageCapacity>> = existing.iter().collect();
    existing.sort_by(|a, b| a.metadata.name.cmp(&b.metadata.name));
    let Some(room) = room else {
        return existing.into_iter().map(|object| delete(object)).collect();
    };
    let Some((kept, doubles)) = existing.split_first() else {
        return vec![Write::Create(Box::new(create(room, item, producer, owner)))];
    };
    let mut writes: Vec<Write> = doubles.iter().map(|object| delete(object)).collect();
    if !says(kept, room) {
        let maximum = room
            .maximum_volume_size
            .map(|size| Amount::from_bytes(size).to_quantity());
        let patch = json!({"capacity": Amount::from_bytes(room.capacity).to_quantity(), "maximumVolumeSize": maximum});
        writes.push(Write::Update {
            name: name_of(kept),
            patch,
        });
    }
    writes
}

fn says(object: &CSIStorageCapacity, room: Room) -> bool {
    let bytes = |quantity: Option<&_>| {
        quantity
            .and_then(|quantity| Amount::try_from(quantity).ok())
            .map(Amount::ceil)
    };
    bytes(object.capacity.as_ref()) == Some(room.capacity)
        && bytes(object.maximum_volume_size.as_ref()) == room.maximum_volume_size
}

fn create(
    room: Room,
    item: &Item,
    producer: &Producer,
    owner: Option<&OwnerReference>,
) -> CSIStorageCapacity {
    let labels = [
        (keys::CAPACITY_DRIVER_NAME, &producer.driver_name),
        (keys::CAPACITY_MANAGED_BY, &producer.managed_by),
    ];
    let match_labels = (!item.segment.is_empty()).then(|| item.segment.clone());
    CSIStorageCapacity {
        metadata: ObjectMeta {
            generate_name: Some("csisc-".to_string()),
            labels: Some(labels.map(|(key, value)| (key.to_string(), value.clone())).into()),
            owner_references: owner.map(|owner| vec![owner.clone()]),
            ..Default::default()
        },
        storage_class_name: item.class_name.clone(),
        // An empty selector matches every node.
        node_topology: Some(LabelSelector {
            match_labels,
            match_expressions: None,
        }),
        capacity: Some(Amount::from_bytes(room.capacity).to_quantity()),
        maximum_volume_size: room
            .maximum_volume_size
            .map(|size| Amount::from_bytes(size).to_quantity()),
    }
}

fn delete(object: &CSIStorageCapacity) -> Write {
    Write::Delete {
        name: name_of(object),
    }
}

fn name_of(object: &CSIStorageCapacity) -> String {
    object.metadata.name.clone().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{DRIVER, merged, object};

    fn held(name: &str, patch: Value) -> Arc<CSIStorageCapacity> {
        let base = json!({
            "metadata": {"name": name, "labels": {
                "csi.storage.k8s.io/drivername": DRIVER, "csi.storage.k8s.io/managed-by": "external-provisioner"}},
            "storageClassName": "fast", "capacity": "1Gi", "nodeTopology": {"matchLabels": {"zone": "a"}},
        });
        Arc::new(object(merged(base, patch)))
    }

    fn own() -> Producer {
        Producer::new(DRIVER, None)
    }

    fn item() -> Item {
        Item {
            class_name: "fast".into(),
            segment: [("zone".to_string(), "a".to_string())].into(),
        }
    }

    fn room(gib: i64) -> Option<Room> {
        Some(Room {
            capacity: gib << 30,
            maximum_volume_size: None,
        })
    }

    #[test]
    fn an_object_tells_its_item_unless_it_is_anothers() {
        assert_eq!(item_of(&held("a", json!({})), &own()), Some(item()));
        let everywhere = held("a", json!({"nodeTopology": null}));
        assert_eq!(
            item_of(&everywhere, &own()).map(|item| item.segment.len()),
            Some(0)
        );
        let others = json!({"metadata": {"labels": {"csi.storage.k8s.io/managed-by": "somebody"}}});
        assert_eq!(item_of(&held("a", others), &own()), None);
        assert_eq!(
            item_of(&held("a", json!({})), &Producer::new("other.driver", None)),
            None
        );
        assert_eq!(
            item_of(&held("a", json!({})), &Producer::new(DRIVER, Some("n1"))),
            None
        );
    }

    #[test]
    fn only_differences_are_written() {
        let delete = |name: &str| Write::Delete { name: name.into() };
        let update = |maximum: Value| {
            let patch = json!({"capacity": "2Gi", "maximumVolumeSize": maximum});
            Write::Update {
                name: "a".into(),
                patch,
            }
        };
        let limited = Some(Room {
            capacity: 2 << 30,
            maximum_volume_size: Some(1 << 20),
        });
        let cases = [
            ("equal", vec![held("a", json!({}))], room(1), vec![]),
            (
                "equal, written otherwise",
                vec![held("a", json!({"capacity": "1024Mi"}))],
                room(1),
                vec![],
            ),
            (
                "changed",
                vec![held("a", json!({}))],
                room(2),
                vec![update(Value::Null)],
            ),
            (
                "limit added",
                vec![held("a", json!({}))],
                limited,
                vec![update(json!("1Mi"))],
            ),
            (
                "double",
                vec![held("b", json!({})), held("a", json!({}))],
                room(1),
                vec![delete("b")],
            ),
            (
                "not wanted",
                vec![held("b", json!({})), held("a", json!({}))],
                None,
                vec![delete("a"), delete("b")],
            ),
            ("nothing", vec![], None, vec![]),
        ];
        for (name, existing, room, expected) in cases {
            assert_eq!(writes(&existing, room, &item(), &own(), None), expected, "{name}");
        }
    }

    #[test]
    fn a_new_object_says_all() {
        let owner = OwnerReference {
            name: "pod".into(),
            ..Default::default()
        };
        let made = writes(&[], room(1), &item(), &own(), Some(&owner));
        let [Write::Create(made)] = made.as_slice() else {
            panic!("{made:?}")
        };
        assert_eq!(item_of(made, &own()), Some(item()));
        assert_eq!(
            made.capacity.as_ref().map(|capacity| capacity.0.as_str()),
            Some("1Gi")
        );
        assert_eq!(made.metadata.generate_name.as_deref(), Some("csisc-"));
        assert_eq!(made.metadata.owner_references.as_ref().map(Vec::len), Some(1));
    }

    #[test]
    fn nodes_have_their_own_label() {
        let long = "n".repeat(50);
        let longer = "n".repeat(60);
        let cases = [
            ("n1", "external-provisioner-n1".to_string()),
            (
                &*"n".repeat(42),
                format!("external-provisioner-{}", "n".repeat(42)),
            ),
            (
                &*long,
                format!("ext-{:08x}-{long}", fnv1a_32(b"external-provisioner")),
            ),
            (
                &*longer,
                format!(
                    "external-provisioner-{:08x}",
                    fnv1a_32(format!("external-provisioner-{longer}").as_bytes())
                ),
            ),
        ];
        for (node, expected) in cases {
            let found = Producer::new(DRIVER, Some(node)).managed_by;
            assert_eq!(found, expected);
            assert!(found.len() <= LABEL_LENGTH_MAX, "{found}");
        }
        assert_eq!(fnv1a_32(b"a"), 0xe40c_292c);
    }
}
