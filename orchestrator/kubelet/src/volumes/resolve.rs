//! From a volume of a pod to what can be mounted: follows claim and PV, checks that they belong together. Pure, but
//! for [`resolve_pod`], which gathers the objects.

use std::collections::BTreeSet;
use std::sync::Arc;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{
    HostPathVolumeSource, Node, PersistentVolume, PersistentVolumeClaim, Pod, SecretReference, Volume,
};
use moorline_model::node_affinity::pv_fits_node;

use super::desired::{Unresolved, WantedMount};
use super::spec::{CsiSpec, LocalSpec, MountId, Spec, Usage, VolumeKey, claim_name, used_volumes};
use crate::objects::Objects;
use crate::paths::{CSI_PLUGIN, inline_handle};

/// Why a volume has no mount yet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Problem {
    /// Normal for a while: binding takes its time, caches lag.
    NotYet(String),
    /// Told to the user.
    Wrong(String),
}

/// A volume with its key.
pub(crate) type Resolved = (VolumeKey, MountId, WantedMount);

/// What a claim leads to.
#[derive(Debug, Clone, Copy)]
pub(crate) struct ClaimSeen<'a> {
    pub name: &'a str,
    pub must_be_owned: bool,
    pub claim: Option<&'a PersistentVolumeClaim>,
    pub pv: Option<&'a PersistentVolume>,
    /// This node, where it is known.
    pub node: Option<&'a Node>,
}

fn wrong<T>(text: String) -> Result<T, Problem> {
    Err(Problem::Wrong(text))
}

/// The PV behind a claim, once everything about the two is right.
pub(crate) fn bound_pv<'a>(pod: &Pod, seen: ClaimSeen<'a>) -> Result<&'a PersistentVolume, Problem> {
    let name = seen.name;
    let Some(claim) = seen.claim else {
        return wrong(format!(
            "error processing PVC {name:?}: persistentvolumeclaim {name:?} not found"
        ));
    };
    let pod_uid = pod.metadata.uid.as_deref().unwrap_or_default();
    let owners = claim.metadata.owner_references.as_deref().unwrap_or_default();
    if seen.must_be_owned
        && !owners
            .iter()
            .any(|owner| owner.uid == pod_uid && owner.controller == Some(true))
    {
        return wrong(format!("PVC {name:?} was not created for pod (pod is not owner)"));
    }
    let finalizers = claim.metadata.finalizers.as_deref().unwrap_or_default();
    let is_protected = finalizers
        .iter()
        .any(|held| held == moorline_model::keys::PVC_PROTECTION);
    if claim.metadata.deletion_timestamp.is_some() && !is_protected {
        return wrong(format!("can't start pod because PVC {name:?} is being deleted"));
    }
    let volume_name = claim
        .spec
        .as_ref()
        .and_then(|spec| spec.volume_name.as_deref())
        .unwrap_or_default();
    let phase = claim
        .status
        .as_ref()
        .and_then(|status| status.phase.as_deref())
        .unwrap_or_default();
    if volume_name.is_empty() || phase != "Bound" {
        return Err(Problem::NotYet(format!("PVC {name:?} is not bound")));
    }
    let Some(pv) = seen.pv else {
        return Err(Problem::NotYet(format!(
            "PV {volume_name:?} of PVC {name:?} is not there"
        )));
    };
    let reference = pv.spec.as_ref().and_then(|spec| spec.claim_ref.as_ref());
    if reference.and_then(|reference| reference.uid.as_deref()) != claim.metadata.uid.as_deref() {
        return Err(Problem::NotYet(format!(
            "PV {volume_name:?} is not bound to PVC {name:?}"
        )));
    }
    // The scheduler looked at this, but not for pods that name their node themselves.
    let fits = seen.node.map(|node| pv_fits_node(pv, node.into()));
    match fits {
        None | Some(Ok(true)) => Ok(pv),
        Some(Ok(false)) => wrong(format!(
            "MountVolume.NodeAffinity check failed for volume {volume_name:?} : no matching NodeSelectorTerms"
        )),
        Some(Err(error)) => wrong(format!(
            "MountVolume.NodeAffinity check failed for volume {volume_name:?} : {error}"
        )),
    }
}

fn check_mode(outer_name: &str, usage: Usage, is_block: bool) -> Result<(), Problem> {
    if usage.as_directory && is_block {
        return wrong(format!(
            "volume {outer_name} has volumeMode Block, but is specified in volumeMounts"
        ));
    }
    if usage.as_device && !is_block {
        return wrong(format!(
            "volume {outer_name} has volumeMode Filesystem, but is specified in volumeDevices"
        ));
    }
    Ok(())
}

/// What a PV is, for the claim it is bound to.
pub(crate) fn of_pv(pv: &PersistentVolume, claim: (String, String)) -> Result<Spec, Problem> {
    let name = pv.metadata.name.as_deref().unwrap_or_default();
    let Some(spec) = &pv.spec else {
        return wrong(format!("PV {name:?} has no spec"));
    };
    let local_path = spec
        .local
        .as_ref()
        .map(|local| (local.path.clone(), Some("Directory".to_owned())));
    let host_path = spec
        .host_path
        .as_ref()
        .map(|source| (source.path.clone(), source.type_.clone()));
    if let Some((path, type_)) = host_path.or(local_path) {
        return Ok(Spec::Local(LocalSpec::HostPath(HostPathVolumeSource {
            path,
            type_,
        })));
    }
    let Some(csi) = &spec.csi else {
        return wrong(format!(
            "PV {name:?}: only csi, hostPath and local volumes can be mounted"
        ));
    };
    Ok(Spec::Csi(CsiSpec {
        driver_name: csi.driver.clone(),
        volume_handle: csi.volume_handle.clone(),
        block: spec.volume_mode.as_deref() == Some("Block"),
        inline: false,
        fs_type: csi.fs_type.clone().unwrap_or_default(),
        attributes: csi.volume_attributes.clone().unwrap_or_default(),
        mount_options: spec.mount_options.clone().unwrap_or_default(),
        access_modes: spec.access_modes.clone().unwrap_or_default(),
        stage_secret: csi.node_stage_secret_ref.clone(),
        publish_secret: csi.node_publish_secret_ref.clone(),
        expand_secret: csi.node_expand_secret_ref.clone(),
        claim: Some(claim),
    }))
}

fn of_inline(pod: &Pod, volume: &Volume) -> Result<Spec, Problem> {
    if let Some(csi) = &volume.csi {
        let namespace = pod.metadata.namespace.clone();
        let secret = csi.node_publish_secret_ref.as_ref();
        let uid = pod.metadata.uid.as_deref().unwrap_or_default();
        return Ok(Spec::Csi(CsiSpec {
            driver_name: csi.driver.clone(),
            volume_handle: inline_handle(uid, &volume.name),
            inline: true,
            fs_type: csi.fs_type.clone().unwrap_or_default(),
            attributes: csi.volume_attributes.clone().unwrap_or_default(),
            access_modes: vec!["ReadWriteOnce".into()],
            publish_secret: secret.map(|reference| SecretReference {
                name: Some(reference.name.clone()),
                namespace,
            }),
            ..Default::default()
        }));
    }
    let local = if volume.config_map.is_some() {
        LocalSpec::ConfigMap
    } else if volume.secret.is_some() {
        LocalSpec::Secret
    } else if volume.downward_api.is_some() {
        LocalSpec::DownwardApi
    } else if volume.projected.is_some() {
        LocalSpec::Projected
    } else if let Some(source) = &volume.empty_dir {
        LocalSpec::EmptyDir(source.clone())
    } else if let Some(source) = &volume.host_path {
        LocalSpec::HostPath(source.clone())
    } else {
        return wrong(format!(
            "volume {:?} is of a kind this kubelet can't mount",
            volume.name
        ));
    };
    Ok(Spec::Local(local))
}

/// One volume of a pod; `seen` is there when the volume stands on a claim.
pub(crate) fn resolve(
    pod: &Arc<Pod>,
    volume: &Volume,
    usage: Usage,
    seen: Option<ClaimSeen<'_>>,
    now: Timestamp,
) -> Result<Resolved, Problem> {
    let pod_uid = pod.metadata.uid.clone().unwrap_or_default();
    let (spec, spec_name, read_only) = match seen {
        Some(seen) => {
            let pv = bound_pv(pod, seen)?;
            let namespace = pod.metadata.namespace.clone().unwrap_or_default();
            let spec = of_pv(pv, (namespace, seen.name.to_owned()))?;
            let source = volume.persistent_volume_claim.as_ref();
            let read_only = source.and_then(|source| source.read_only).unwrap_or_default();
            (spec, pv.metadata.name.clone().unwrap_or_default(), read_only)
        }
        None => {
            let read_only = volume
                .csi
                .as_ref()
                .and_then(|csi| csi.read_only)
                .unwrap_or_default();
            (of_inline(pod, volume)?, volume.name.clone(), read_only)
        }
    };
    let is_block = matches!(&spec, Spec::Csi(csi) if csi.block);
    check_mode(&volume.name, usage, is_block)?;
    let key = match &spec {
        Spec::Csi(csi) if csi.inline => VolumeKey::of_pod(CSI_PLUGIN, &pod_uid, &spec_name),
        Spec::Csi(csi) => VolumeKey::persistent(&csi.driver_name, &csi.volume_handle),
        Spec::Local(local) => VolumeKey::of_pod(local.plugin(), &pod_uid, &spec_name),
    };
    let wanted = WantedMount {
        pod: pod.clone(),
        spec,
        outer_names: BTreeSet::from([volume.name.clone()]),
        read_only,
        requested_at: now,
    };
    Ok((key, MountId { pod_uid, spec_name }, wanted))
}

/// All used volumes of a pod, resolved as far as possible. Claims come from the cache; a claim that looks unbound is
/// read again from the API, because the pod is often here before the news of its claim.
pub(crate) async fn resolve_pod(
    objects: &Objects,
    pod: &Arc<Pod>,
    now: Timestamp,
) -> Result<(Vec<Resolved>, Vec<Unresolved>), kube::Error> {
    let namespace = pod.metadata.namespace.as_deref().unwrap_or_default();
    let node_name = pod
        .spec
        .as_ref()
        .and_then(|spec| spec.node_name.as_deref())
        .unwrap_or_default();
    let node = objects.node.get(None, node_name);
    let mut mounts: Vec<Resolved> = Vec::new();
    let mut unresolved = Vec::new();
    for (volume, usage) in used_volumes(pod) {
        let result = match claim_name(pod, &volume) {
            None => resolve(pod, &volume, usage, None, now),
            Some((name, must_be_owned)) => {
                let claim = objects.claim(namespace, &name).await?;
                let volume_name = claim
                    .as_ref()
                    .and_then(|claim| claim.spec.as_ref()?.volume_name.clone());
                let pv = match volume_name.filter(|name| !name.is_empty()) {
                    Some(name) => objects.pv(&name).await?,
                    None => None,
                };
                let seen = ClaimSeen {
                    name: &name,
                    must_be_owned,
                    claim: claim.as_deref(),
                    pv: pv.as_deref(),
                    node: node.as_deref(),
                };
                resolve(pod, &volume, usage, Some(seen), now)
            }
        };
        match result {
            Ok((key, id, wanted)) => match mounts.iter_mut().find(|(_, held, _)| *held == id) {
                // One claim under two names is one mount.
                Some((_, _, held)) => held.outer_names.extend(wanted.outer_names),
                None => mounts.push((key, id, wanted)),
            },
            Err(problem) => unresolved.push(Unresolved {
                outer_name: volume.name.clone(),
                problem: match problem {
                    Problem::Wrong(text) => Some(text),
                    Problem::NotYet(why) => {
                        tracing::debug!(volume = volume.name, why, "Volume is not there yet");
                        None
                    }
                },
            }),
        }
    }
    Ok((mounts, unresolved))
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn pod() -> Arc<Pod> {
        let pod =
            json!({"metadata": {"name": "p", "namespace": "ns", "uid": "u"}, "spec": {"containers": []}});
        Arc::new(serde_json::from_value(pod).unwrap())
    }

    fn claim(change: impl FnOnce(&mut Value)) -> PersistentVolumeClaim {
        let mut claim = json!({"metadata": {"name": "c", "namespace": "ns", "uid": "cu",
                "finalizers": ["kubernetes.io/pvc-protection"]},
            "spec": {"volumeName": "pv"}, "status": {"phase": "Bound"}});
        change(&mut claim);
        serde_json::from_value(claim).unwrap()
    }

    fn pv(change: impl FnOnce(&mut Value)) -> PersistentVolume {
        let mut pv = json!({"metadata": {"name": "pv"}, "spec": {"claimRef": {"uid": "cu"},
            "csi": {"driver": "d", "volumeHandle": "h"}, "accessModes": ["ReadWriteOnce"]}});
        change(&mut pv);
        serde_json::from_value(pv).unwrap()
    }

    #[test]
    #[expect(clippy::too_many_lines, reason = "one flat table")]
    fn claim_and_pv_must_belong_together() {
        let good = || (Some(claim(|_| ())), Some(pv(|_| ())));
        let not_yet = |text: &str| Err(Problem::NotYet(text.into()));
        let wrong = |text: &str| Err(Problem::Wrong(text.into()));
        let deleting =
            |claim: &mut Value| claim["metadata"]["deletionTimestamp"] = json!("2026-01-01T00:00:00Z");
        let node: Node = serde_json::from_value(json!({"metadata": {"labels": {"zone": "a"}}})).unwrap();
        let in_zone = |zone: &str| {
            let expression = json!({"key": "zone", "operator": "In", "values": [zone]});
            let affinity = json!({"required": {"nodeSelectorTerms": [{"matchExpressions": [expression]}]}});
            (
                Some(claim(|_| ())),
                Some(pv(|pv| pv["spec"]["nodeAffinity"] = affinity)),
            )
        };
        let cases = [
            ("bound both ways", good(), false, Ok(())),
            ("volume of this zone", in_zone("a"), false, Ok(())),
            (
                "volume of another zone",
                in_zone("b"),
                false,
                wrong(
                    "MountVolume.NodeAffinity check failed for volume \"pv\" : no matching NodeSelectorTerms",
                ),
            ),
            (
                "no claim",
                (None, None),
                false,
                wrong("error processing PVC \"c\": persistentvolumeclaim \"c\" not found"),
            ),
            (
                "pending",
                (Some(claim(|c| c["status"]["phase"] = json!("Pending"))), None),
                false,
                not_yet("PVC \"c\" is not bound"),
            ),
            (
                "no pv",
                (Some(claim(|_| ())), None),
                false,
                not_yet("PV \"pv\" of PVC \"c\" is not there"),
            ),
            (
                "pv of another claim",
                (
                    Some(claim(|_| ())),
                    Some(pv(|pv| pv["spec"]["claimRef"]["uid"] = json!("other"))),
                ),
                false,
                not_yet("PV \"pv\" is not bound to PVC \"c\""),
            ),
            (
                "deleted but protected",
                (Some(claim(deleting)), Some(pv(|_| ()))),
                false,
                Ok(()),
            ),
            (
                "deleted",
                (
                    Some(claim(|c| {
                        deleting(c);
                        c["metadata"]["finalizers"] = json!([]);
                    })),
                    Some(pv(|_| ())),
                ),
                false,
                wrong("can't start pod because PVC \"c\" is being deleted"),
            ),
            (
                "not the pod's own",
                good(),
                true,
                wrong("PVC \"c\" was not created for pod (pod is not owner)"),
            ),
        ];
        for (name, (claim, pv), must_be_owned, want) in cases {
            let seen = ClaimSeen {
                name: "c",
                must_be_owned,
                claim: claim.as_ref(),
                pv: pv.as_ref(),
                node: Some(&node),
            };
            assert_eq!(bound_pv(&pod(), seen).map(|_| ()), want, "{name}");
        }
    }

    #[test]
    fn volumes_get_their_keys() {
        let volume = |value: Value| -> Volume { serde_json::from_value(value).unwrap() };
        let directory = Usage {
            as_directory: true,
            as_device: false,
        };
        let device = Usage {
            as_directory: false,
            as_device: true,
        };
        let (claim, plain, block) = (
            claim(|_| ()),
            pv(|_| ()),
            pv(|pv| pv["spec"]["volumeMode"] = json!("Block")),
        );
        let by_claim = || volume(json!({"name": "v", "persistentVolumeClaim": {"claimName": "c"}}));
        let seen = |pv| {
            Some(ClaimSeen {
                name: "c",
                must_be_owned: false,
                claim: Some(&claim),
                pv: Some(pv),
                node: None,
            })
        };
        let cases = [
            (
                "claim",
                by_claim(),
                directory,
                seen(&plain),
                Some("kubernetes.io/csi/d^h"),
            ),
            (
                "block",
                by_claim(),
                device,
                seen(&block),
                Some("kubernetes.io/csi/d^h"),
            ),
            ("device of a directory", by_claim(), device, seen(&plain), None),
            ("directory of a device", by_claim(), directory, seen(&block), None),
            (
                "inline",
                volume(json!({"name": "v", "csi": {"driver": "d"}})),
                directory,
                None,
                Some("kubernetes.io/csi/u-v"),
            ),
            (
                "empty dir",
                volume(json!({"name": "v", "emptyDir": {}})),
                directory,
                None,
                Some("kubernetes.io/empty-dir/u-v"),
            ),
            (
                "unknown kind",
                volume(json!({"name": "v", "nfs": {"path": "/", "server": "s"}})),
                directory,
                None,
                None,
            ),
        ];
        for (name, volume, usage, seen, want) in cases {
            let got = resolve(&pod(), &volume, usage, seen, Timestamp::UNIX_EPOCH);
            assert_eq!(got.ok().map(|(key, _, _)| key.0).as_deref(), want, "{name}");
        }
    }
}
