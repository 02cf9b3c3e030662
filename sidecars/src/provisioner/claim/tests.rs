//! The table of what is done about claims.

use k8s_openapi::api::core::v1::PersistentVolume;
use moorline_model::snapshot::{VolumeSnapshot, VolumeSnapshotContent};
use serde_json::json;

use super::*;
use crate::testing::{DRIVER, at, claim, class, driver, object, pv};

/// Owned facts, so that a case can change one of them.
struct World {
    claim: Option<PersistentVolumeClaim>,
    class: Option<StorageClass>,
    driver: DriverFacts,
    config: ProvisionerConfig,
    attributes: Option<Option<VolumeAttributesClass>>,
    source: Option<(Option<PersistentVolumeClaim>, Option<PersistentVolume>)>,
    snapshot: Option<VolumeSnapshot>,
    content: Option<VolumeSnapshotContent>,
    in_progress: bool,
    pv_exists: bool,
    slow: Option<Slow>,
    node: Option<SelectedNode>,
}

/// Boxed, because a table of them is more than a test's stack holds.
fn world() -> Box<World> {
    Box::new(World {
        claim: Some(claim(json!({}))),
        class: Some(class(json!({}))),
        driver: driver(&[ControllerCapability::CreateDeleteVolume]),
        config: ProvisionerConfig::new("/csi.sock"),
        attributes: None,
        source: None,
        snapshot: None,
        content: None,
        in_progress: false,
        pv_exists: false,
        slow: None,
        node: None,
    })
}

fn with(change: impl FnOnce(&mut World)) -> Box<World> {
    let mut world = world();
    change(&mut world);
    world
}

/// A world with delayed binding, node `n` selected, a driver with topology.
fn delayed(change: impl FnOnce(&mut World)) -> Box<World> {
    with(|world| {
        world.claim = Some(claim(
            json!({"metadata": {"annotations": {"volume.kubernetes.io/selected-node": "n"}}}),
        ));
        world.class = Some(class(json!({"volumeBindingMode": "WaitForFirstConsumer"})));
        world
            .driver
            .services
            .insert(PluginService::VolumeAccessibilityConstraints as i32);
        world.config.strict_topology = true;
        world.node = Some(SelectedNode {
            name: "n".into(),
            keys: Some(["zone".to_string()].into()),
            labels: Some([("zone".to_string(), "a".to_string())].into()),
        });
        change(world);
    })
}

fn known_plan() -> Arc<Plan> {
    let facts = driver(&[ControllerCapability::CreateDeleteVolume]);
    let config = ProvisionerConfig::new("/csi.sock");
    let mut known = plan(&claim(json!({})), &class(json!({})), &facts, &config).expect("a plan");
    known.request.parameters.insert("of".into(), "before".into());
    Arc::new(known)
}

fn next(world: &World) -> Next {
    let cluster = ClusterSegments::default();
    let named = world
        .claim
        .as_ref()
        .map_or(super::super::source::Named::None, super::super::source::named);
    let source = match (&world.source, named) {
        (Some((claim, pv)), super::super::source::Named::Claim(name)) => Source::Claim {
            name,
            claim: claim.as_ref(),
            pv: pv.as_ref(),
        },
        (_, super::super::source::Named::Snapshot(name)) => Source::Snapshot {
            name,
            snapshot: world.snapshot.as_ref(),
            content: world.content.as_ref(),
        },
        (_, super::super::source::Named::Elsewhere(key)) => {
            Source::Unsupported(format!("{} {} in another namespace", key.kind.as_str(), key.name))
        }
        (_, super::super::source::Named::ForPopulator) => Source::ForPopulator,
        _ => Source::None,
    };
    let seen = Seen {
        claim: world.claim.as_ref(),
        in_progress: world.in_progress.then(known_plan),
        slow: world.slow.clone(),
        pv_exists: world.pv_exists,
        class: world.class.as_ref(),
        attributes: match &world.attributes {
            None => Attributes::NotNamed,
            Some(None) => Attributes::Missing("gold".into()),
            Some(Some(class)) => Attributes::Found(class),
        },
        source,
        selected_node: world.node.clone(),
        cluster: &cluster,
        driver: &world.driver,
        config: &world.config,
    };
    decide(&seen, at(0))
}

/// The answer in one line.
fn render(next: Next) -> String {
    match next {
        Next::Settled => "settled".into(),
        Next::Create(plan) => format!("create {}", plan.volume_name()),
        Next::Wait { until } => format!("wait {}", until.duration_since(at(0)).as_secs()),
        Next::Refuse(refusal) => format!("refuse: {refusal}"),
        Next::Reschedule(refusal) => format!("reschedule: {refusal}"),
        Next::Bid(bid) => {
            let places = bid.questions.iter().map(|question| {
                let place = question.accessible_topology.as_ref();
                let zone = place.and_then(|place| place.segments.get("zone"));
                zone.map_or("anywhere", String::as_str)
            });
            format!("bid {} {}", bid.required, places.collect::<Vec<_>>().join(","))
                .trim()
                .to_string()
        }
    }
}

fn spec(patch: serde_json::Value) -> Box<World> {
    with(|world| world.claim = Some(claim(json!({"spec": patch}))))
}

#[test]
#[expect(clippy::too_many_lines, reason = "one flat table")]
fn claims_and_what_is_done_about_them() {
    let annotated = |key: &str, value: serde_json::Value| {
        with(|world| world.claim = Some(claim(json!({"metadata": {"annotations": {key: value}}}))))
    };
    let vac = |driver_name: &str| {
        Some(Some(object(
            json!({"metadata": {"name": "gold"}, "driverName": driver_name, "parameters": {"iops": "9"}}),
        )))
    };
    let cases = [
        ("an ordinary claim", world(), "create pvc-u1"),
        ("gone, nothing asked", with(|w| w.claim = None), "settled"),
        ("PV exists", with(|w| w.pv_exists = true), "settled"),
        (
            "PV exists, create was uncertain",
            with(|w| (w.pv_exists, w.in_progress) = (true, true)),
            "settled",
        ),
        (
            "gone, create uncertain",
            with(|w| (w.claim, w.in_progress) = (None, true)),
            "create pvc-u1",
        ),
        (
            "class gone, create uncertain",
            with(|w| (w.class, w.in_progress) = (None, true)),
            "create pvc-u1",
        ),
        (
            "not handed over",
            annotated("volume.kubernetes.io/storage-provisioner", json!(null)),
            "settled",
        ),
        (
            "another's",
            annotated("volume.kubernetes.io/storage-provisioner", json!("other")),
            "settled",
        ),
        ("bound to a volume", spec(json!({"volumeName": "pv"})), "settled"),
        (
            "no class",
            with(|w| w.class = None),
            "refuse: storage class \"fast\" not found",
        ),
        (
            "class of another provisioner",
            with(|w| w.class = Some(class(json!({"provisioner": "other"})))),
            "refuse: storage class \"fast\" is for provisioner \"other\"",
        ),
        (
            "driver can't create",
            with(|w| w.driver.controller.clear()),
            "refuse: CSI driver does not support dynamic provisioning: it lacks CREATE_DELETE_VOLUME",
        ),
        (
            "no controller service",
            with(|w| w.driver.services.clear()),
            "refuse: CSI driver does not support dynamic provisioning: it lacks CONTROLLER_SERVICE",
        ),
        (
            "selector",
            spec(json!({"selector": {}})),
            "refuse: claim selectors are not supported",
        ),
        (
            "modes that can't be served together",
            spec(json!({"accessModes": ["ReadWriteOnce", "ReadOnlyMany"]})),
            "refuse: access modes [ReadWriteOnce,ReadOnlyMany] can't be served together: \
             ReadOnlyMany and ReadWriteOnce exclude each other",
        ),
        (
            "class with a wrong parameter",
            with(|w| w.class = Some(class(json!({"parameters": {"csi.storage.k8s.io/x": "1"}})))),
            "refuse: storage class parameter \"csi.storage.k8s.io/x\" is unknown; the prefix \
             \"csi.storage.k8s.io/\" is reserved",
        ),
        (
            "delayed, no node yet",
            with(|w| w.class = Some(class(json!({"volumeBindingMode": "WaitForFirstConsumer"})))),
            "settled",
        ),
        ("delayed, node selected", delayed(|_| {}), "create pvc-u1"),
        (
            "delayed, node gone",
            delayed(|w| w.node.as_mut().expect("node").labels = None),
            "reschedule: error generating accessibility requirements: selected node \"n\" doesn't exist any more",
        ),
        (
            "delayed, node gone, create uncertain",
            delayed(|w| {
                w.node.as_mut().expect("node").labels = None;
                w.in_progress = true;
            }),
            "create pvc-u1",
        ),
        (
            "delayed, driver not registered there yet",
            delayed(|w| w.node.as_mut().expect("node").keys = Some([].into())),
            "refuse: error generating accessibility requirements: no topology key found for the driver on node \"n\"",
        ),
        (
            "infeasible lately",
            with(|w| {
                w.slow = Some(Slow {
                    until: at(60),
                    class_uid: "sc1".into(),
                })
            }),
            "wait 60",
        ),
        (
            "infeasible, rested",
            with(|w| {
                w.slow = Some(Slow {
                    until: at(-1),
                    class_uid: "sc1".into(),
                })
            }),
            "create pvc-u1",
        ),
        (
            "infeasible, class replaced",
            with(|w| {
                w.slow = Some(Slow {
                    until: at(60),
                    class_uid: "sc0".into(),
                })
            }),
            "create pvc-u1",
        ),
        (
            "own node",
            delayed(|w| w.config.node_name = Some("n".into())),
            "create pvc-u1",
        ),
        (
            "another node's provisioner",
            delayed(|w| w.config.node_name = Some("m".into())),
            "settled",
        ),
        (
            "attributes class missing",
            with(|w| w.attributes = Some(None)),
            "refuse: volume attributes class \"gold\" not found",
        ),
        (
            "attributes class, driver can't",
            with(|w| w.attributes = vac(DRIVER)),
            "refuse: CSI driver does not support dynamic provisioning: it lacks MODIFY_VOLUME",
        ),
        (
            "attributes class of another driver",
            with(|w| {
                w.attributes = vac("other");
                w.driver
                    .controller
                    .insert(ControllerCapability::ModifyVolume as i32);
            }),
            "refuse: volume attributes class \"gold\" is for driver \"other\"",
        ),
        (
            "snapshot, and a driver without",
            spec(
                json!({"dataSource": {"apiGroup": "snapshot.storage.k8s.io", "kind": "VolumeSnapshot", "name": "s"}}),
            ),
            "refuse: CSI driver can't restore snapshots: it lacks CREATE_DELETE_SNAPSHOT",
        ),
        (
            "snapshot elsewhere",
            spec(
                json!({"dataSourceRef": {"apiGroup": "snapshot.storage.k8s.io", "kind": "VolumeSnapshot", "name": "s",
                "namespace": "n2"}}),
            ),
            "refuse: data source VolumeSnapshot s in another namespace is not supported by this provisioner",
        ),
        (
            "populator",
            spec(json!({"dataSourceRef": {"apiGroup": "x.io", "kind": "Image", "name": "i"}})),
            "settled",
        ),
    ];
    for (name, world, expected) in cases {
        assert_eq!(render(next(&world)), expected, "{name}");
    }
}

#[test]
fn an_uncertain_create_is_asked_again_unchanged() {
    let world = with(|world| {
        world.in_progress = true;
        world.class = Some(class(json!({"parameters": {"of": "now"}})));
    });
    assert_eq!(next(&world), Next::Create(known_plan()));
}

#[test]
fn attributes_and_topology_reach_the_request() {
    let world = delayed(|world| {
        world
            .driver
            .controller
            .insert(ControllerCapability::ModifyVolume as i32);
        let attributes =
            json!({"metadata": {"name": "gold"}, "driverName": DRIVER, "parameters": {"iops": "9"}});
        world.attributes = Some(Some(object(attributes)));
    });
    let Next::Create(plan) = next(&world) else {
        panic!("not created")
    };
    assert_eq!(plan.request.mutable_parameters["iops"], "9");
    let topology = plan
        .request
        .accessibility_requirements
        .as_ref()
        .expect("topology");
    assert_eq!(topology.requisite[0].segments["zone"], "a");
    assert_eq!(plan.selected_node.as_deref(), Some("n"));
}

#[test]
#[expect(clippy::too_many_lines, reason = "one flat table")]
fn clones_need_a_source_that_is_fit() {
    let source_claim = |patch: serde_json::Value| {
        let base = json!({"metadata": {"name": "src", "uid": "u0"}, "spec": {"volumeName": "pv0"}, "status": {"phase": "Bound"}});
        claim(crate::testing::merged(base, patch))
    };
    let source_pv = |patch: serde_json::Value| {
        let base = json!({"metadata": {"name": "pv0"}, "spec": {"claimRef": {"name": "src", "uid": "u0"}}});
        pv(crate::testing::merged(base, patch))
    };
    let cloning = |source: Option<PersistentVolumeClaim>, pv: Option<PersistentVolume>| {
        with(|world| {
            let source_ref =
                json!({"spec": {"dataSource": {"kind": "PersistentVolumeClaim", "name": "src"}}});
            world.claim = Some(claim(source_ref));
            world
                .driver
                .controller
                .insert(ControllerCapability::CloneVolume as i32);
            world.source = Some((source, pv));
        })
    };
    let fit = || Some(source_pv(json!({})));
    let refused = |why: &str| format!("refuse: source claim \"src\" can't be cloned: {why}");
    let cases = [
        (
            "fit",
            cloning(Some(source_claim(json!({}))), fit()),
            "create pvc-u1".to_string(),
        ),
        ("no source", cloning(None, None), refused("it doesn't exist")),
        (
            "pending",
            cloning(Some(source_claim(json!({"status": {"phase": "Pending"}}))), fit()),
            refused("it is not bound"),
        ),
        (
            "going",
            cloning(
                Some(source_claim(
                    json!({"metadata": {"deletionTimestamp": "2026-01-01T00:00:00Z"}}),
                )),
                fit(),
            ),
            refused("it is being deleted"),
        ),
        (
            "going, but held for us",
            cloning(
                Some(source_claim(json!({"metadata": {
                    "deletionTimestamp": "2026-01-01T00:00:00Z",
                    "finalizers": ["provisioner.storage.kubernetes.io/cloning-protection"],
                }}))),
                fit(),
            ),
            "create pvc-u1".to_string(),
        ),
        (
            "larger",
            cloning(
                Some(source_claim(
                    json!({"spec": {"resources": {"requests": {"storage": "2Gi"}}}}),
                )),
                fit(),
            ),
            refused("it requests more storage than the new claim"),
        ),
        (
            "block",
            cloning(
                Some(source_claim(json!({"spec": {"volumeMode": "Block"}}))),
                fit(),
            ),
            refused("its volume mode differs"),
        ),
        (
            "no volume",
            cloning(Some(source_claim(json!({}))), None),
            refused("its volume doesn't exist"),
        ),
        (
            "another's volume",
            cloning(
                Some(source_claim(json!({}))),
                Some(source_pv(json!({"spec": {"csi": {"driver": "x"}}}))),
            ),
            refused("its volume belongs to another driver"),
        ),
        (
            "linked elsewhere",
            cloning(
                Some(source_claim(json!({}))),
                Some(source_pv(json!({"spec": {"claimRef": {"uid": "u9"}}}))),
            ),
            refused("its volume is not bound to it"),
        ),
    ];
    for (name, world, expected) in cases {
        assert_eq!(render(next(&world)), expected, "{name}");
    }
}

#[test]
#[expect(clippy::too_many_lines, reason = "one flat table")]
fn restores_need_a_snapshot_that_is_fit() {
    let snapshot = |patch: serde_json::Value| {
        let base = json!({"metadata": {"namespace": "ns", "name": "s", "uid": "su"},
            "spec": {"source": {"persistentVolumeClaimName": "c"}},
            "status": {"boundVolumeSnapshotContentName": "k", "readyToUse": true, "restoreSize": "1Gi"}});
        Some(object(crate::testing::merged(base, patch)))
    };
    let content = |patch: serde_json::Value| {
        let base = json!({"metadata": {"name": "k"}, "spec": {
            "volumeSnapshotRef": {"namespace": "ns", "name": "s", "uid": "su"}, "driver": DRIVER,
            "source": {"volumeHandle": "v"}, "sourceVolumeMode": "Filesystem"}, "status": {"snapshotHandle": "h1"}});
        Some(object(crate::testing::merged(base, patch)))
    };
    let restoring = |snapshot: Option<VolumeSnapshot>, content: Option<VolumeSnapshotContent>| {
        with(|world| {
            let source =
                json!({"apiGroup": "snapshot.storage.k8s.io", "kind": "VolumeSnapshot", "name": "s"});
            world.claim = Some(claim(json!({"spec": {"dataSource": source}})));
            world
                .driver
                .controller
                .insert(ControllerCapability::CreateDeleteSnapshot as i32);
            (world.snapshot, world.content) = (snapshot, content);
        })
    };
    let refused = |why: &str| format!("refuse: snapshot \"s\" can't be restored: {why}");
    let fit = || content(json!({}));
    let block = |annotations: serde_json::Value| {
        content(json!({"metadata": {"annotations": annotations}, "spec": {"sourceVolumeMode": "Block"}}))
    };
    let allowed = |value: &str| json!({moorline_model::keys::ALLOW_VOLUME_MODE_CHANGE: value});
    let mode_differs = refused(
        "its volume mode differs, and its content lacks the annotation snapshot.storage.kubernetes.io/allow-volume-mode-change",
    );
    let going = json!({"metadata": {"deletionTimestamp": "2026-01-01T00:00:00Z"}});
    let held = json!({"metadata": {"deletionTimestamp": "2026-01-01T00:00:00Z",
        "finalizers": [moorline_model::keys::SNAPSHOT_SOURCE_PROTECTION_BY_PROVISIONER]}});
    let create = "create pvc-u1".to_string();
    let cases = [
        ("fit", restoring(snapshot(json!({})), fit()), create.clone()),
        (
            "size unknown",
            restoring(snapshot(json!({"status": {"restoreSize": null}})), fit()),
            create.clone(),
        ),
        (
            "mode unknown",
            restoring(
                snapshot(json!({})),
                content(json!({"spec": {"sourceVolumeMode": null}})),
            ),
            create.clone(),
        ),
        (
            "another mode",
            restoring(snapshot(json!({})), block(json!(null))),
            mode_differs.clone(),
        ),
        (
            "another mode, and nobody guards",
            {
                let mut world = restoring(snapshot(json!({})), block(json!(null)));
                world.config.prevent_volume_mode_conversion = false;
                world
            },
            create.clone(),
        ),
        (
            "another mode, allowed",
            restoring(snapshot(json!({})), block(allowed("true"))),
            create.clone(),
        ),
        (
            "another mode, not allowed",
            restoring(snapshot(json!({})), block(allowed("no"))),
            mode_differs,
        ),
        ("no snapshot", restoring(None, None), refused("it doesn't exist")),
        (
            "going",
            restoring(snapshot(going), fit()),
            refused("it is being deleted"),
        ),
        ("going, but held for us", restoring(snapshot(held), fit()), create),
        (
            "unbound",
            restoring(snapshot(json!({"status": null})), None),
            refused("it is not bound to a content yet"),
        ),
        (
            "no content",
            restoring(snapshot(json!({})), None),
            refused("its content doesn't exist"),
        ),
        (
            "content of an earlier snapshot",
            restoring(
                snapshot(json!({})),
                content(json!({"spec": {"volumeSnapshotRef": {"uid": "x"}}})),
            ),
            refused("its content is not bound to it"),
        ),
        (
            "another driver",
            restoring(snapshot(json!({})), content(json!({"spec": {"driver": "e"}}))),
            refused("it belongs to another driver"),
        ),
        (
            "not ready",
            restoring(snapshot(json!({"status": {"readyToUse": false}})), fit()),
            refused("it is not ready to use yet"),
        ),
        (
            "ready without a handle, which can't be",
            restoring(snapshot(json!({})), content(json!({"status": null}))),
            refused("its content has no handle"),
        ),
        (
            "larger",
            restoring(snapshot(json!({"status": {"restoreSize": "2Gi"}})), fit()),
            refused("it needs more storage than the new claim requests"),
        ),
    ];
    for (name, world, expected) in cases {
        assert_eq!(render(next(&world)), expected, "{name}");
        if let Next::Create(plan) = next(&world) {
            assert_eq!(
                plan.source.as_ref().map(|key| key.name.as_str()),
                Some("s"),
                "{name}"
            );
        }
    }
}

#[test]
#[expect(clippy::too_many_lines, reason = "one flat table")]
fn nodes_bid_for_claims_that_nobody_has() {
    /// A provisioner of node `n`, which can say how much room it has; immediate binding; nobody has the claim.
    fn on_node(change: impl FnOnce(&mut World)) -> Box<World> {
        delayed(|world| {
            world.claim = Some(claim(json!({})));
            world.class = Some(class(json!({})));
            world.config.node_name = Some("n".into());
            world
                .driver
                .controller
                .insert(ControllerCapability::GetCapacity as i32);
            change(world);
        })
    }
    let selected = |name: &str| {
        Some(claim(
            json!({"metadata": {"annotations": {"volume.kubernetes.io/selected-node": name}}}),
        ))
    };
    let allowing = |zone: &str| {
        let terms = json!([{"matchLabelExpressions": [{"key": "zone", "values": [zone]}]}]);
        Some(class(json!({"allowedTopologies": terms})))
    };
    let size: i64 = 1 << 30;
    let room_in = |place: &str| format!("bid {size} {place}");
    let cases = [
        ("nobody's", on_node(|_| {}), room_in("a")),
        (
            "own by now",
            on_node(|w| w.claim = selected("n")),
            "create pvc-u1".to_string(),
        ),
        (
            "another's by now",
            on_node(|w| w.claim = selected("m")),
            "settled".into(),
        ),
        (
            "empty is nobody's",
            on_node(|w| w.claim = selected("")),
            room_in("a"),
        ),
        (
            "not asked of us",
            on_node(|w| w.config.node_immediate_binding = false),
            "settled".into(),
        ),
        (
            "delayed: the scheduler's choice",
            on_node(|w| w.class = Some(class(json!({"volumeBindingMode": "WaitForFirstConsumer"})))),
            "settled".into(),
        ),
        ("allowed here", on_node(|w| w.class = allowing("a")), room_in("a")),
        (
            "not allowed here",
            on_node(|w| w.class = allowing("b")),
            "settled".into(),
        ),
        (
            "no topology",
            on_node(|w| w.driver.forget_topology()),
            room_in("anywhere"),
        ),
        (
            "driver doesn't say",
            on_node(|w| {
                w.driver
                    .controller
                    .remove(&(ControllerCapability::GetCapacity as i32));
            }),
            "bid 0".into(),
        ),
        (
            "can't be made: who takes it tells",
            on_node(|w| w.claim = Some(claim(json!({"spec": {"selector": {}}})))),
            "bid 0".into(),
        ),
        ("PV exists", on_node(|w| w.pv_exists = true), "settled".into()),
    ];
    for (name, world, expected) in cases {
        assert_eq!(render(next(&world)), expected, "{name}");
    }
}
