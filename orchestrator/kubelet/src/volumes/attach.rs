//! Whether a volume may be used on this node yet: the hand-shake of `volumesInUse`, `volumesAttached` and the
//! VolumeAttachment. Pure.

use k8s_openapi::api::core::v1::Node;
use k8s_openapi::api::storage::v1::{CSIDriver, VolumeAttachment};

use super::decide::Attachment;
use super::spec::VolumeKey;

/// Without a CSIDriver object a driver's volumes are attached.
pub(crate) fn is_required(csi_driver: Option<&CSIDriver>) -> bool {
    csi_driver.is_none_or(|object| object.spec.attach_required != Some(false))
}

/// Where the hand-shake stands. `is_told`: this kubelet has heard that the Node lists the volume as in use, and has not
/// taken that back since; what is held of the Node may be older than both.
pub(crate) fn look(
    key: &VolumeKey,
    is_told: bool,
    node: Option<&Node>,
    attachment: Option<&VolumeAttachment>,
) -> Attachment {
    let status = node.and_then(|node| node.status.as_ref());
    let in_use = status
        .and_then(|status| status.volumes_in_use.as_deref())
        .unwrap_or_default();
    if !is_told || !in_use.contains(&key.0) {
        return Attachment::NotReportedInUse;
    }
    let attached = status
        .and_then(|status| status.volumes_attached.as_deref())
        .unwrap_or_default();
    let is_listed = attached.iter().any(|volume| volume.name == key.0);
    let status = attachment.and_then(|attachment| attachment.status.as_ref());
    let is_attached = status.is_some_and(|status| status.attached);
    if is_listed && is_attached {
        return Attachment::Attached;
    }
    match status
        .and_then(|status| status.attach_error.as_ref())
        .and_then(|error| error.message.clone())
    {
        Some(message) if !is_attached => Attachment::Failed(message),
        Some(_) | None => Attachment::Awaited,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn hand_shake_has_an_order() {
        let key = VolumeKey::persistent("d", "v");
        let node = |in_use: bool, attached: bool| -> Node {
            let name = "kubernetes.io/csi/d^v";
            let in_use = if in_use { vec![name] } else { vec![] };
            let attached = if attached {
                vec![json!({"name": name, "devicePath": ""})]
            } else {
                vec![]
            };
            serde_json::from_value(json!({"status": {"volumesInUse": in_use, "volumesAttached": attached}}))
                .unwrap()
        };
        let attachment = |attached: bool, error: Option<&str>| -> VolumeAttachment {
            let error = error.map(|message| json!({"message": message}));
            serde_json::from_value(
                json!({"metadata": {}, "spec": {"attacher": "d", "nodeName": "n", "source": {}},
                "status": {"attached": attached, "attachError": error}}),
            )
            .unwrap()
        };
        let cases = [
            (
                "nothing yet",
                node(false, false),
                None,
                Attachment::NotReportedInUse,
            ),
            ("in use reported", node(true, false), None, Attachment::Awaited),
            (
                "attaching",
                node(true, false),
                Some(attachment(false, None)),
                Attachment::Awaited,
            ),
            (
                "failed",
                node(true, false),
                Some(attachment(false, Some("no"))),
                Attachment::Failed("no".into()),
            ),
            (
                "attached but not listed",
                node(true, false),
                Some(attachment(true, None)),
                Attachment::Awaited,
            ),
            ("listed but gone", node(true, true), None, Attachment::Awaited),
            (
                "attached",
                node(true, true),
                Some(attachment(true, None)),
                Attachment::Attached,
            ),
            (
                "old error",
                node(true, true),
                Some(attachment(true, Some("old"))),
                Attachment::Attached,
            ),
        ];
        for (name, node, attachment, want) in cases {
            assert_eq!(look(&key, true, Some(&node), attachment.as_ref()), want, "{name}");
        }
        let (old, attached) = (node(true, true), attachment(true, None));
        let taken_back = look(&key, false, Some(&old), Some(&attached));
        assert_eq!(
            taken_back,
            Attachment::NotReportedInUse,
            "of before it was taken back"
        );
    }
}
