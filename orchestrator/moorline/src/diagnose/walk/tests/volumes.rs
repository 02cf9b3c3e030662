//! Volumes and their attachments.

use super::*;

/// The attachment of `pv1` to a node, asked for just now.
fn attachment(node_name: &str, patch: Value) -> Value {
    let name = moorline_model::names::volume_attachment_name("h", "d", node_name);
    let base = json!({
        "metadata": {"creationTimestamp": JUST},
        "spec": {"attacher": "d", "nodeName": node_name, "source": {"persistentVolumeName": "pv1"}},
        "status": {"attached": false},
    });
    object("VolumeAttachment", &name, &[base, patch])
}

fn attached() -> Value {
    json!({"status": {"attached": true}})
}

fn told(field: &str, code: &str) -> Value {
    let message = format!("rpc error: code = {code} desc = x");
    json!({"status": {field: {"message": message, "time": JUST}}})
}

/// Claim and volume, bound, and a pod on `n1` that uses them.
fn in_use() -> Objects {
    vec![
        claim("data", bound_to("pv1")),
        pv("pv1", json!({})),
        csi_node("n1"),
        pod("web", running()),
    ]
}

fn with(mut objects: Objects, more: Objects) -> Objects {
    objects.extend(more);
    objects
}

#[test]
#[expect(clippy::too_many_lines, reason = "one flat table")]
fn volumes() {
    let released = |policy: &str| {
        json!({"spec": {"persistentVolumeReclaimPolicy": policy}, "status": {"phase": "Released",
            "lastPhaseTransitionTime": JUST}})
    };
    let free = json!({"spec": {"claimRef": null}, "status": {"phase": "Available"}});
    let bound = || claim("data", bound_to("pv1"));
    let mut going = released("Delete");
    merge(
        &mut going,
        &deleting(&["external-provisioner.volume.kubernetes.io/finalizer"]),
    );
    let mut kept = free.clone();
    merge(
        &mut kept,
        &deleting(&["external-provisioner.volume.kubernetes.io/finalizer"]),
    );
    check(
        Kind::PersistentVolume,
        "pv1",
        vec![
            ("bound", vec![pv("pv1", json!({})), bound()], &["Healthy"]),
            ("free", vec![pv("pv1", free)], &["Healthy"]),
            (
                "nobody has looked",
                vec![pv("pv1", json!({"status": {"phase": "Pending"}})), bound()],
                &["ActionNeeded", "pv1 BindingDue persistentvolume-controller"],
            ),
            (
                "kept",
                vec![pv("pv1", released("Retain"))],
                &["ActionNeeded", "pv1 Retained admin"],
            ),
            (
                "to be deleted",
                vec![pv("pv1", released("Delete"))],
                &["Waiting", "pv1 AwaitingDeletion csi-provisioner"],
            ),
            (
                "to be deleted, and asked for that",
                vec![pv("pv1", going)],
                &["Waiting", "pv1 AwaitingDeletion csi-provisioner"],
            ),
            (
                "the driver can't delete it",
                vec![
                    pv("pv1", released("Delete")),
                    event(
                        "pv1",
                        "VolumeFailedDelete",
                        "rpc error: code = FailedPrecondition desc = x",
                        "d",
                    ),
                ],
                &["ActionNeeded", "pv1 VolumeFailedDelete admin"],
            ),
            (
                "deleted while bound",
                vec![pv("pv1", deleting(&["kubernetes.io/pv-protection"])), bound()],
                &["ActionNeeded", "pv1 VolumeBound user"],
            ),
            (
                "deleted, and a finalizer that nothing else explains",
                vec![pv("pv1", kept)],
                &["Waiting", "pv1 Finalizers finalizer"],
            ),
        ],
    );
    let released_and_attached = vec![
        pv("pv1", released("Delete")),
        attachment("n1", attached()),
        node("n1", using_and_attached()),
    ];
    let report = of(Kind::PersistentVolume, "pv1", &released_and_attached);
    let found = brief(&report);
    assert_eq!(
        found[..2],
        ["Waiting", "pv1 VolumeFailedDelete attachdetach-controller"]
    );
    assert!(found[2].ends_with(" VolumeInUse kubelet"), "{found:?}");
}

#[test]
#[expect(clippy::too_many_lines, reason = "one flat table")]
fn attachments() {
    let name = moorline_model::names::volume_attachment_name("h", "d", "n1");
    let is = |reason: &str, actor: &str| format!("{name} {reason} {actor}");
    let node1 = || node("n1", json!({}));
    let cases: Vec<(&str, Objects, Vec<String>)> = vec![
        (
            "attached",
            with(
                in_use(),
                vec![attachment("n1", attached()), node("n1", using_and_attached())],
            ),
            vec!["Healthy".into()],
        ),
        (
            "asked for",
            with(in_use(), vec![attachment("n1", json!({})), node1()]),
            vec!["Waiting".into(), is("AttacherSilent", "csi-attacher")],
        ),
        (
            "the driver is not on the node",
            vec![
                claim("data", bound_to("pv1")),
                pv("pv1", json!({})),
                pod("web", running()),
                attachment("n1", json!({})),
                node1(),
            ],
            vec!["ActionNeeded".into(), is("FailedAttachVolume", "admin")],
        ),
        (
            "the driver refuses",
            with(
                in_use(),
                vec![
                    attachment("n1", told("attachError", "ResourceExhausted")),
                    node1(),
                ],
            ),
            vec!["ActionNeeded".into(), is("FailedAttachVolume", "admin")],
        ),
        (
            "the driver's answer was lost",
            with(
                in_use(),
                vec![attachment("n1", told("attachError", "DeadlineExceeded")), node1()],
            ),
            vec!["Waiting".into(), is("FailedAttachVolume", "csi-attacher")],
        ),
        (
            "to be detached",
            vec![
                pv("pv1", json!({})),
                attachment("n1", deleting(&["external-attacher/d"])),
                node1(),
            ],
            vec!["Waiting".into(), is("Detaching", "csi-attacher")],
        ),
        (
            "can't be detached",
            vec![
                pv("pv1", json!({})),
                attachment("n1", {
                    let mut patch = deleting(&["external-attacher/d"]);
                    merge(&mut patch, &told("detachError", "Internal"));
                    patch
                }),
                node1(),
            ],
            vec!["ActionNeeded".into(), is("Detaching", "admin")],
        ),
        (
            "nobody wants it, and it is still mounted",
            vec![
                pv("pv1", json!({})),
                attachment("n1", attached()),
                node("n1", using_and_attached()),
            ],
            vec!["Waiting".into(), is("VolumeInUse", "kubelet")],
        ),
    ];
    for (case, objects, expected) in cases {
        let report = of(Kind::VolumeAttachment, &name, &objects);
        assert_eq!(brief(&report), expected, "{case}: {report:#?}");
    }
}

#[test]
fn a_pod_whose_volume_is_attached_elsewhere_names_that_node() {
    let objects = with(
        vec![
            claim("data", bound_to("pv1")),
            pv("pv1", json!({})),
            csi_node("n1"),
            pod("web", waiting_for("ContainerCreating")),
        ],
        vec![
            node(
                "n1",
                json!({"status": {"volumesInUse": ["kubernetes.io/csi/d^h"]}}),
            ),
            node("n2", using_and_attached()),
            attachment("n2", attached()),
        ],
    );
    let report = of(Kind::Pod, "web", &objects);
    let found = brief(&report);
    assert_eq!(
        found[..3],
        [
            "ActionNeeded",
            "web FailedMount csi-attacher",
            "web FailedAttachVolume user"
        ]
    );
    assert!(found[3].ends_with(" VolumeInUse kubelet"), "{found:?}");
    assert!(
        report.findings[1].message.ends_with("attached to n2"),
        "{report:#?}"
    );
}

#[test]
fn states_are_one_phrase() {
    let objects = with(
        in_use(),
        vec![attachment("n1", attached()), node("n1", using_and_attached())],
    );
    let name = moorline_model::names::volume_attachment_name("h", "d", "n1");
    for (kind, name, expected) in [
        (Kind::Pod, "web", "Running on node n1, 1 of 1 containers ready"),
        (
            Kind::PersistentVolumeClaim,
            "data",
            "Bound to pv1, 1Gi, class \"fast\"",
        ),
        (
            Kind::PersistentVolume,
            "pv1",
            "Bound to claim ns/data, 1Gi, class \"fast\", policy Delete",
        ),
        (
            Kind::VolumeAttachment,
            name.as_str(),
            "PersistentVolume pv1, attached to node n1",
        ),
    ] {
        let report = of(kind, name, &objects);
        assert_eq!(
            (report.state.as_str(), report.verdict.exit_code()),
            (expected, 0),
            "{report:#?}"
        );
    }
}
