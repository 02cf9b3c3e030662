//! The list of attached volumes in a node's status.

use k8s_openapi::api::core::v1::{AttachedVolume, Node};
use moorline_model::{keys, names};

/// Whether the attach/detach controller is in charge of the node.
pub fn is_managed(node: &Node) -> bool {
    moorline_model::claim::annotation(&node.metadata, keys::CONTROLLER_MANAGED_ATTACH).is_some()
}

/// Whether the node's condition Ready is True.
pub fn is_ready(node: &Node) -> bool {
    let conditions = node
        .status
        .as_ref()
        .and_then(|status| status.conditions.as_deref());
    conditions
        .unwrap_or_default()
        .iter()
        .any(|condition| condition.type_ == "Ready" && condition.status == "True")
}

/// Whether an admin has declared the node dead.
pub fn is_out_of_service(node: &Node) -> bool {
    let taints = node.spec.as_ref().and_then(|spec| spec.taints.as_deref());
    taints
        .unwrap_or_default()
        .iter()
        .any(|taint| taint.key == keys::OUT_OF_SERVICE_TAINT)
}

fn reported(node: &Node) -> &[AttachedVolume] {
    let listed = node
        .status
        .as_ref()
        .and_then(|status| status.volumes_attached.as_deref());
    listed.unwrap_or_default()
}

/// The names in `status.volumesAttached`.
pub fn reported_names(node: &Node) -> impl Iterator<Item = &str> {
    reported(node).iter().map(|volume| volume.name.as_str())
}

/// The names in `status.volumesInUse`.
pub fn in_use_names(node: &Node) -> impl Iterator<Item = &str> {
    let listed = node
        .status
        .as_ref()
        .and_then(|status| status.volumes_in_use.as_deref());
    listed.unwrap_or_default().iter().map(String::as_str)
}

/// The name in a node's lists that stands for an attachment, found without knowing the PV: attachment names are
/// hashes of what these names are made of.
pub fn find_by_attachment<'a>(
    listed: impl IntoIterator<Item = &'a str>,
    attachment_name: &str,
    node_name: &str,
) -> Option<&'a str> {
    listed.into_iter().find(|name| {
        names::parse_unique_volume_name(name).is_some_and(|(driver_name, volume_handle)| {
            names::volume_attachment_name(volume_handle, driver_name, node_name) == attachment_name
        })
    })
}

/// The list that the node's status shall hold: `attached` in a stable order, and what others (no CSI volumes) put
/// there. `None` if it holds that already.
pub fn corrected(node: &Node, mut attached: Vec<String>) -> Option<Vec<AttachedVolume>> {
    attached.sort();
    attached.dedup();
    let current = reported(node);
    let is_kept = |name: &String| names::parse_unique_volume_name(name).is_none() || attached.contains(name);
    let mut list: Vec<AttachedVolume> = current
        .iter()
        .filter(|volume| is_kept(&volume.name))
        .cloned()
        .collect();
    for name in attached {
        if !current.iter().any(|volume| volume.name == name) {
            list.push(AttachedVolume {
                name,
                // CSI volumes have no device before they are staged.
                device_path: String::new(),
            });
        }
    }
    (list != current).then_some(list)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn node(listed: &[&str]) -> Node {
        let listed: Vec<_> = listed
            .iter()
            .map(|name| json!({"name": name, "devicePath": ""}))
            .collect();
        serde_json::from_value(json!({"metadata": {"name": "n1"}, "status": {"volumesAttached": listed}}))
            .unwrap()
    }

    /// Name, listed now, attached, expected list.
    type Case<'a> = (&'a str, Vec<&'a str>, Vec<&'a str>, Option<Vec<&'a str>>);

    #[test]
    fn list_changes_as_little_as_possible() {
        let (a, b, c) = (
            "kubernetes.io/csi/d^a",
            "kubernetes.io/csi/d^b",
            "kubernetes.io/csi/d^c",
        );
        let foreign = "example.com/other";
        let cases: Vec<Case> = vec![
            ("nothing", vec![], vec![], None),
            ("added", vec![], vec![b, a], Some(vec![a, b])),
            ("kept", vec![b, a], vec![a, b], None),
            ("added behind", vec![b], vec![a, b], Some(vec![b, a])),
            ("removed", vec![b, a, c], vec![b, c], Some(vec![b, c])),
            ("last removed", vec![a], vec![], Some(vec![])),
            (
                "others' entries stay",
                vec![foreign, a],
                vec![],
                Some(vec![foreign]),
            ),
            ("named twice", vec![], vec![a, a], Some(vec![a])),
        ];
        for (name, current, attached, expected) in cases {
            let attached = attached.into_iter().map(str::to_string).collect();
            let found = corrected(&node(&current), attached);
            let found = found.map(|list| list.into_iter().map(|volume| volume.name).collect::<Vec<_>>());
            let expected = expected.map(|list| list.into_iter().map(str::to_string).collect::<Vec<_>>());
            assert_eq!(found, expected, "{name}");
        }
    }

    #[test]
    fn attachment_of_a_lost_pv_is_found_by_its_name() {
        let listed = [
            "example.com/other",
            "kubernetes.io/csi/d^a",
            "kubernetes.io/csi/d^b",
        ];
        let name = names::volume_attachment_name("b", "d", "n1");
        assert_eq!(
            find_by_attachment(listed, &name, "n1"),
            Some("kubernetes.io/csi/d^b")
        );
        assert_eq!(find_by_attachment(listed, &name, "n2"), None);
    }
}
