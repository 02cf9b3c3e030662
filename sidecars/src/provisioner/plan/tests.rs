//! What a plan asks of the driver, and the PV that comes of the answer.

use moorline_proto::csi::volume_capability::{AccessType, access_mode::Mode};
use moorline_proto::csi::{Topology, Volume};
use serde_json::{Value, json};

use super::*;
use crate::testing::{DRIVER, claim, class, driver};

fn planned(claim_patch: Value, class_patch: Value, change: impl FnOnce(&mut ProvisionerConfig)) -> Plan {
    let mut config = ProvisionerConfig::new("/csi.sock");
    change(&mut config);
    let facts = driver(&[ControllerCapability::CreateDeleteVolume]);
    plan(&claim(claim_patch), &class(class_patch), &facts, &config).expect("a plan")
}

fn answer(volume: Volume) -> CreateVolumeResponse {
    CreateVolumeResponse { volume: Some(volume) }
}

fn volume(bytes: i64) -> Volume {
    Volume {
        volume_id: "vol-1".into(),
        capacity_bytes: bytes,
        ..Default::default()
    }
}

fn modes(plan: &Plan) -> Vec<Mode> {
    let modes = plan
        .request
        .volume_capabilities
        .iter()
        .filter_map(|c| c.access_mode.as_ref());
    modes
        .map(|access| Mode::try_from(access.mode).expect("a mode"))
        .collect()
}

#[test]
fn the_pv_says_all_that_later_calls_need() {
    let secrets = json!({
        "parameters": {
            "pool": "p1", "csi.storage.k8s.io/fstype": "xfs",
            "csi.storage.k8s.io/provisioner-secret-name": "s", "csi.storage.k8s.io/provisioner-secret-namespace": "sns",
            "csi.storage.k8s.io/node-stage-secret-name": "stage-${pvc.name}",
            "csi.storage.k8s.io/node-stage-secret-namespace": "${pvc.namespace}",
            "csi.storage.k8s.io/controller-modify-secret-name": "m",
            "csi.storage.k8s.io/controller-modify-secret-namespace": "mns",
        },
        "mountOptions": ["noatime"],
    });
    let plan = planned(
        json!({"spec": {"volumeAttributesClassName": "gold"}}),
        secrets,
        |_| {},
    );
    let mut made = volume(2 << 30);
    made.volume_context.insert("pool".into(), "p1".into());
    made.accessible_topology = vec![
        Topology {
            segments: [("zone".to_string(), "a".to_string())].into(),
        },
        Topology::default(),
    ];
    let pv = plan.persistent_volume(&answer(made), "me", true).expect("a PV");
    let expected = json!({
        "apiVersion": "v1", "kind": "PersistentVolume",
        "metadata": {
            "name": "pvc-u1",
            "annotations": {
                "pv.kubernetes.io/provisioned-by": DRIVER,
                "volume.kubernetes.io/provisioner-deletion-secret-name": "s",
                "volume.kubernetes.io/provisioner-deletion-secret-namespace": "sns",
                "volume.kubernetes.io/controller-modify-secret-name": "m",
                "volume.kubernetes.io/controller-modify-secret-namespace": "mns",
            },
            "finalizers": ["external-provisioner.volume.kubernetes.io/finalizer"],
        },
        "spec": {
            "accessModes": ["ReadWriteOnce"], "capacity": {"storage": "2Gi"},
            "claimRef": {"apiVersion": "v1", "kind": "PersistentVolumeClaim", "namespace": "ns", "name": "data",
                "uid": "u1", "resourceVersion": "7"},
            "csi": {
                "driver": DRIVER, "volumeHandle": "vol-1", "fsType": "xfs",
                "volumeAttributes": {"pool": "p1", "storage.kubernetes.io/csiProvisionerIdentity": "me"},
                "nodeStageSecretRef": {"name": "stage-data", "namespace": "ns"},
            },
            "mountOptions": ["noatime"], "persistentVolumeReclaimPolicy": "Delete", "storageClassName": "fast",
            "volumeAttributesClassName": "gold",
            "nodeAffinity": {"required": {"nodeSelectorTerms": [
                {"matchExpressions": [{"key": "zone", "operator": "In", "values": ["a"]}]}]}},
        },
    });
    assert_eq!(serde_json::to_value(&pv).expect("json"), expected);
    assert_eq!(plan.request.parameters.len(), 1);
    assert_eq!(
        plan.secret.as_ref().and_then(|secret| secret.name.as_deref()),
        Some("s")
    );
}

#[test]
fn capabilities_follow_modes_and_volume_mode() {
    let block = planned(json!({"spec": {"volumeMode": "Block"}}), json!({}), |_| {});
    assert!(matches!(
        block.request.volume_capabilities[0].access_type,
        Some(AccessType::Block(_))
    ));
    let several = json!({"spec": {"accessModes": ["ReadWriteMany", "ReadWriteOnce"]}});
    assert_eq!(
        modes(&planned(several, json!({}), |_| {})),
        [Mode::SingleNodeWriter, Mode::MultiNodeMultiWriter]
    );
    let once = json!({"spec": {"accessModes": ["ReadWriteOncePod"]}});
    assert_eq!(
        modes(&planned(once.clone(), json!({}), |_| {})),
        [Mode::SingleNodeWriter]
    );
    let fine = driver(&[ControllerCapability::SingleNodeMultiWriter]);
    let config = ProvisionerConfig::new("/csi.sock");
    let plan = plan(&claim(once), &class(json!({})), &fine, &config).expect("a plan");
    assert_eq!(modes(&plan), [Mode::SingleNodeSingleWriter]);
}

#[test]
fn settings_change_request_and_pv() {
    let plan = planned(json!({}), json!({}), |config| config.extra_create_metadata = true);
    let told: Vec<&str> = [METADATA_CLAIM_NAME, METADATA_CLAIM_NAMESPACE, METADATA_PV_NAME]
        .map(|key| plan.request.parameters[key].as_str())
        .to_vec();
    assert_eq!(told, ["data", "ns", "pvc-u1"]);
    let plan = planned(json!({}), json!({}), |config| {
        config.default_fs_type = Some("ext4".into())
    });
    let pv = plan
        .persistent_volume(&answer(volume(0)), "me", false)
        .expect("a PV");
    let spec = pv.spec.expect("spec");
    assert_eq!(spec.csi.expect("csi").fs_type.as_deref(), Some("ext4"));
    assert_eq!(
        spec.capacity.expect("capacity")["storage"].0,
        "1Gi",
        "0 means: what was asked for"
    );
    let read_only = json!({"spec": {"accessModes": ["ReadOnlyMany"]}});
    let plan = planned(read_only, json!({}), |config| {
        config.controller_publish_readonly = true
    });
    let pv = plan
        .persistent_volume(&answer(volume(0)), "me", false)
        .expect("a PV");
    assert_eq!(
        pv.spec.and_then(|spec| spec.csi).and_then(|csi| csi.read_only),
        Some(true)
    );
}

#[test]
fn fractions_are_rounded_up_and_limits_left_open() {
    let plan = planned(
        json!({"spec": {"resources": {"requests": {"storage": "1.5"}}}}),
        json!({}),
        |_| {},
    );
    let range = plan.request.capacity_range.expect("range");
    assert_eq!((range.required_bytes, range.limit_bytes), (2, 0));
}

#[test]
fn answers_that_no_pv_can_be_made_of() {
    let plan = planned(json!({}), json!({}), |_| {});
    let cases = [
        (CreateVolumeResponse { volume: None }, AnswerError::NoVolume),
        (
            answer(Volume {
                capacity_bytes: 1 << 40,
                ..Default::default()
            }),
            AnswerError::NoVolumeId,
        ),
        (
            answer(volume(1)),
            AnswerError::TooSmall {
                volume_id: "vol-1".into(),
                found: 1,
                requested: 1 << 30,
            },
        ),
    ];
    for (answer, expected) in cases {
        assert_eq!(
            plan.persistent_volume(&answer, "me", false).expect_err("refused"),
            expected
        );
    }
    let mut cloning = planned(json!({}), json!({}), |_| {});
    cloning.request.volume_content_source = Some(Default::default());
    let refused = cloning
        .persistent_volume(&answer(volume(0)), "me", false)
        .expect_err("refused");
    assert_eq!(
        refused,
        AnswerError::NoContent {
            volume_id: "vol-1".into()
        }
    );
}
