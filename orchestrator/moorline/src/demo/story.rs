//! The story itself: a claim, a pod that writes, a second pod that reads, growth, deletion. Each chapter applies
//! something and waits for what the cluster makes of it.

use std::{path::Path, time::Duration};

use anyhow::{Context as _, anyhow};
use k8s_openapi::api::{
    core::v1::{PersistentVolume, PersistentVolumeClaim, Pod},
    storage::v1::StorageClass,
};
use kube::{
    Api, ResourceExt as _,
    api::{DeleteParams, Patch, PatchParams, PostParams},
};
use serde::de::DeserializeOwned;
use serde_json::json;
use tokio::time::Instant;

use moorline_mount::{
    filesystem::{FsType, can_grow_mounted},
    tool,
};

use super::{
    facts::{Facts, when},
    timeline::Timeline,
};
use crate::args::DriverBackend;

const STORAGE_CLASS: &str = include_str!("../../../../examples/quickstart/1-storageclass.yaml");
const CLAIM: &str = include_str!("../../../../examples/quickstart/2-claim.yaml");
const WRITER: &str = include_str!("../../../../examples/quickstart/3-pod.yaml");
const READER: &str = include_str!("../../../../examples/reader/pod.yaml");

const NAMESPACE: &str = "default";
const GROWN: &str = "640Mi";
const SELECTED_NODE: &str = "volume.kubernetes.io/selected-node";

/// How a volume can grow, which depends on what the kernel lets this process do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Growth {
    /// The backend has no filesystem of its own that could grow.
    NoFilesystem,
    /// Under the running pod, with the driver's default filesystem.
    Online,
    /// Under the running pod, with xfs: ext4 may not grow while mounted here.
    OnlineXfs,
    /// When the volume is next staged: ext4 may not grow while mounted here, and there is no mkfs.xfs.
    AtNextStage,
}

impl Growth {
    /// What this machine and process can do.
    pub(super) fn of(backend: DriverBackend) -> Self {
        match backend {
            DriverBackend::Dir | DriverBackend::Btrfs | DriverBackend::Null => Self::NoFilesystem,
            DriverBackend::Loop if can_grow_mounted(FsType::Ext4) => Self::Online,
            DriverBackend::Loop if tool::is_installed("mkfs.xfs") => Self::OnlineXfs,
            DriverBackend::Loop => Self::AtNextStage,
        }
    }

    /// What a reader of the timeline should know before the story begins.
    pub(super) fn remark(self) -> Option<&'static str> {
        match self {
            Self::NoFilesystem | Self::Online => None,
            Self::OnlineXfs => Some(
                "ext4 may not grow while mounted here (no CAP_SYS_RESOURCE): the volume gets xfs, which may",
            ),
            Self::AtNextStage => Some(
                "ext4 may not grow while mounted here (no CAP_SYS_RESOURCE), and mkfs.xfs is missing (Debian: xfsprogs): \
                 the volume grows when the pod is started anew",
            ),
        }
    }
}

/// What a chapter needs.
#[derive(Debug)]
pub(super) struct Story<'a> {
    /// What is seen.
    pub(super) facts: &'a Facts,
    /// Where it is recorded.
    pub(super) timeline: &'a mut Timeline,
    /// How long any one wait may take.
    pub(super) limit: Duration,
    /// The kubelet's root; mounts elsewhere on the machine are none of ours.
    pub(super) kubelet_root: &'a Path,
    /// How a volume can grow with this backend on this machine.
    pub(super) growth: Growth,
}

fn manifest<T: DeserializeOwned>(yaml: &str) -> anyhow::Result<T> {
    serde_saphyr::from_str(yaml).map_err(|error| anyhow!("read a manifest of the quickstart: {error}"))
}

/// Names the volume of a claim.
fn pv_of(claim: &PersistentVolumeClaim) -> Option<String> {
    claim
        .spec
        .as_ref()?
        .volume_name
        .clone()
        .filter(|name| !name.is_empty())
}

fn is_bound(claim: &PersistentVolumeClaim) -> bool {
    claim.status.as_ref().and_then(|status| status.phase.as_deref()) == Some("Bound")
}

fn is_running(pod: &Pod) -> bool {
    let statuses = pod
        .status
        .as_ref()
        .and_then(|status| status.container_statuses.as_ref());
    statuses
        .into_iter()
        .flatten()
        .any(|status| status.state.as_ref().is_some_and(|state| state.running.is_some()))
}

/// Size in KiB and mount point from a line of `df -P -k`.
fn df_size(line: &str) -> Option<u64> {
    let columns: Vec<&str> = line.split_whitespace().collect();
    (columns.len() == 6 && columns[5] == "/data")
        .then(|| columns[1].parse().ok())
        .flatten()
}

impl Story<'_> {
    /// True if the volume has a filesystem of its own size, which then must be seen to grow.
    fn has_filesystem(&self) -> bool {
        self.growth != Growth::NoFilesystem
    }

    fn storage_class(&self) -> anyhow::Result<StorageClass> {
        let mut class: StorageClass = manifest(STORAGE_CLASS)?;
        if self.growth == Growth::OnlineXfs {
            class.parameters = Some([("csi.storage.k8s.io/fstype".to_owned(), "xfs".to_owned())].into());
        }
        Ok(class)
    }

    fn claims(&self) -> Api<PersistentVolumeClaim> {
        Api::namespaced(self.facts.client.clone(), NAMESPACE)
    }

    fn pods(&self) -> Api<Pod> {
        Api::namespaced(self.facts.client.clone(), NAMESPACE)
    }

    fn claim(facts: &Facts) -> Option<std::sync::Arc<PersistentVolumeClaim>> {
        facts.claims.get(Some(NAMESPACE), "data")
    }

    /// Claim and pod: from `kubectl apply` to data on the volume.
    pub(super) async fn first_pod(&mut self) -> anyhow::Result<()> {
        self.timeline.chapter("A claim and a pod that writes");
        let classes: Api<StorageClass> = Api::all(self.facts.client.clone());
        let parameters = PostParams::default();
        classes
            .create(&parameters, &self.storage_class()?)
            .await
            .context("create the StorageClass")?;
        self.claims()
            .create(&parameters, &manifest(CLAIM)?)
            .await
            .context("create the claim")?;
        let pod = self
            .pods()
            .create(&parameters, &manifest(WRITER)?)
            .await
            .context("create the first pod")?;
        self.timeline.step(
            "applied",
            "StorageClass, PersistentVolumeClaim, Pod",
            Instant::now(),
        );
        let uid = pod.uid().unwrap_or_default();
        let mut conditions = vec![
            when("claim seen", |f| {
                Self::claim(f)
                    .map(|claim| format!("{NAMESPACE}/{}, waits for its first consumer", claim.name_any()))
            }),
            when("node selected", |f| {
                Self::claim(f)?
                    .annotations()
                    .get(SELECTED_NODE)
                    .map(|node| format!("node {node}"))
            }),
            when("CreateVolume", |f| {
                let pv = f.pvs.list().into_iter().find(|pv| of_claim(pv, "data"))?;
                let handle = pv.spec.as_ref()?.csi.as_ref()?.volume_handle.clone();
                Some(format!("{}, volume {handle}", pv.name_any()))
            }),
            when("bound", |f| {
                Self::claim(f)
                    .filter(|claim| is_bound(claim))
                    .and_then(|claim| pv_of(&claim))
            }),
            when("attached", attached),
        ];
        conditions.extend(self.pod_conditions("writer", &uid));
        self.facts.all(self.timeline, self.limit, conditions).await?;
        self.facts.follow_log(NAMESPACE, "writer");
        let wrote = |line: &str| line.starts_with("wrote").then(|| line.to_owned());
        self.facts
            .all(
                self.timeline,
                self.limit,
                vec![when("data written", move |f| f.log_line("writer", wrote))],
            )
            .await
    }

    /// What is to be seen of a pod's way into a container.
    fn pod_conditions<'c>(&self, pod: &'c str, uid: &str) -> Vec<super::facts::Condition<'c>> {
        let mut conditions = Vec::new();
        // Only a filesystem of its own is mounted at staging; a directory is bound at publish alone.
        if self.has_filesystem() {
            let plugins = self.kubelet_root.join("plugins/kubernetes.io/csi");
            conditions.push(when("staged", move |f| {
                f.mount_point(|point| point.starts_with(&plugins) && point.ends_with("globalmount"))
                    .map(|_| String::from("NodeStageVolume: filesystem mounted"))
            }));
        }
        let volumes = self
            .kubelet_root
            .join("pods")
            .join(uid)
            .join("volumes/kubernetes.io~csi");
        conditions.push(when("published", move |f| {
            f.mount_point(|point| point.starts_with(&volumes))
                .map(|_| String::from("NodePublishVolume: mounted for the pod"))
        }));
        conditions.push(when("container started", move |f| {
            let pod = f.pods.get(Some(NAMESPACE), pod)?;
            is_running(&pod).then(|| format!("pod {}", pod.name_any()))
        }));
        conditions
    }

    /// A second pod finds what the first one wrote.
    pub(super) async fn second_pod(&mut self) -> anyhow::Result<()> {
        self.timeline
            .chapter("The pod goes, a second one reads the same data");
        self.delete_pod("writer").await?;
        self.start_reader().await?;
        let read = |line: &str| {
            line.strip_prefix("read: ")
                .filter(|text| text.starts_with("hello from"))
                .map(str::to_owned)
        };
        self.facts
            .all(
                self.timeline,
                self.limit,
                vec![when("same data read", move |f| f.log_line("reader", read))],
            )
            .await
    }

    /// Starts the second pod and follows its log.
    async fn start_reader(&mut self) -> anyhow::Result<()> {
        let reader = manifest(READER)?;
        let pod = self
            .pods()
            .create(&PostParams::default(), &reader)
            .await
            .context("create the second pod")?;
        let uid = pod.uid().unwrap_or_default();
        let conditions = self.pod_conditions("reader", &uid);
        self.facts.all(self.timeline, self.limit, conditions).await?;
        self.facts.follow_log(NAMESPACE, "reader");
        Ok(())
    }

    /// The claim grows while the pod uses it.
    pub(super) async fn growth(&mut self) -> anyhow::Result<()> {
        self.timeline.chapter(match self.growth {
            Growth::AtNextStage => "The claim grows, and the pod is started anew",
            Growth::NoFilesystem | Growth::Online | Growth::OnlineXfs => {
                "The claim grows under the running pod"
            }
        });
        self.facts
            .all(
                self.timeline,
                self.limit,
                vec![when("df before", |f| shown_size(f, "reader", 0))],
            )
            .await?;
        let before = self.facts.log_line("reader", df_size).unwrap_or(0);
        self.facts.forget_log("reader");
        let grow = json!({"spec": {"resources": {"requests": {"storage": GROWN}}}});
        self.claims()
            .patch("data", &PatchParams::default(), &Patch::Merge(grow))
            .await
            .context("grow the claim")?;
        self.timeline
            .step("applied", format!("request {GROWN}"), Instant::now());
        let expanded = when("ControllerExpand", |f| {
            let pv = f.pvs.list().into_iter().find(|pv| of_claim(pv, "data"))?;
            (pv_capacity(&pv)? == GROWN).then(|| format!("{} has {GROWN}", pv.name_any()))
        });
        self.facts.all(self.timeline, self.limit, vec![expanded]).await?;
        if self.growth == Growth::AtNextStage {
            self.delete_pod("reader").await?;
            self.facts.forget_log("reader");
            self.start_reader().await?;
        }
        let at_least = if self.has_filesystem() { before + 1 } else { 0 };
        let conditions = vec![
            when("claim has grown", |f| {
                let claim = Self::claim(f)?;
                let size = claim_capacity(&claim)?;
                (size == GROWN).then(|| format!("status.capacity {size}"))
            }),
            when("df after", move |f| shown_size(f, "reader", at_least)),
        ];
        self.facts.all(self.timeline, self.limit, conditions).await
    }

    /// Everything is deleted, the volume too.
    pub(super) async fn deletion(&mut self) -> anyhow::Result<()> {
        self.timeline.chapter("Everything is deleted");
        self.delete_pod("reader").await?;
        self.claims()
            .delete("data", &DeleteParams::default())
            .await
            .context("delete the claim")?;
        let conditions = vec![
            when("claim gone", |f| Self::claim(f).is_none().then(String::new)),
            when("DeleteVolume", |f| {
                f.pvs
                    .list()
                    .is_empty()
                    .then(|| String::from("no PersistentVolume left"))
            }),
        ];
        self.facts.all(self.timeline, self.limit, conditions).await?;
        let classes: Api<StorageClass> = Api::all(self.facts.client.clone());
        classes
            .delete("quickstart", &DeleteParams::default())
            .await
            .context("delete the StorageClass")?;
        Ok(())
    }

    async fn delete_pod(&mut self, pod: &'static str) -> anyhow::Result<()> {
        self.pods()
            .delete(pod, &DeleteParams::default())
            .await
            .with_context(|| format!("delete pod {pod}"))?;
        let gone = when("pod gone", move |f| {
            f.pods.get(Some(NAMESPACE), pod).is_none().then(|| pod.to_owned())
        });
        self.facts.all(self.timeline, self.limit, vec![gone]).await
    }
}

fn of_claim(pv: &PersistentVolume, claim: &str) -> bool {
    let claim_ref = pv.spec.as_ref().and_then(|spec| spec.claim_ref.as_ref());
    claim_ref
        .is_some_and(|to| to.name.as_deref() == Some(claim) && to.namespace.as_deref() == Some(NAMESPACE))
}

fn claim_capacity(claim: &PersistentVolumeClaim) -> Option<&str> {
    claim
        .status
        .as_ref()?
        .capacity
        .as_ref()?
        .get("storage")
        .map(|quantity| quantity.0.as_str())
}

fn pv_capacity(pv: &PersistentVolume) -> Option<&str> {
    pv.spec
        .as_ref()?
        .capacity
        .as_ref()?
        .get("storage")
        .map(|quantity| quantity.0.as_str())
}

/// True once the volume needs no attachment or has one.
fn attached(facts: &Facts) -> Option<String> {
    let claim = Story::claim(facts).filter(|claim| is_bound(claim))?;
    let pv_name = pv_of(&claim)?;
    let of_pv = |va: &k8s_openapi::api::storage::v1::VolumeAttachment| {
        va.spec.source.persistent_volume_name.as_deref() == Some(pv_name.as_str())
    };
    let pv = facts.pvs.get(None, &pv_name)?;
    let driver_name = &pv.spec.as_ref()?.csi.as_ref()?.driver;
    // A driver that says nothing, or not that, is attached.
    let driver = facts.drivers.get(None, driver_name);
    if driver.is_some_and(|driver| driver.spec.attach_required == Some(false)) {
        return Some(format!(
            "not needed: CSIDriver {driver_name} has attachRequired: false"
        ));
    }
    let attached = facts.attachments.list().into_iter().find(|va| of_pv(va))?;
    let is_attached = attached.status.as_ref().is_some_and(|status| status.attached);
    is_attached.then(|| attached.name_any())
}

fn shown_size(facts: &Facts, pod: &str, at_least_kib: u64) -> Option<String> {
    facts.log_line(pod, |line| {
        let size = df_size(line).filter(|size| *size >= at_least_kib)?;
        Some(format!("{size} KiB on /data inside pod {pod}"))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_manifests_are_readable_and_belong_together() {
        let class: StorageClass = manifest(STORAGE_CLASS).unwrap();
        let claim: PersistentVolumeClaim = manifest(CLAIM).unwrap();
        let (writer, reader): (Pod, Pod) = (manifest(WRITER).unwrap(), manifest(READER).unwrap());
        assert_eq!(claim.spec.unwrap().storage_class_name, Some(class.name_any()));
        for pod in [writer, reader] {
            let volume = pod.spec.unwrap().volumes.unwrap().remove(0);
            assert_eq!(
                volume.persistent_volume_claim.unwrap().claim_name,
                claim.metadata.name.clone().unwrap()
            );
        }
    }

    #[test]
    fn df_lines_give_their_size_and_other_lines_nothing() {
        assert_eq!(df_size("/dev/loop0 55728 28 51108 1% /data"), Some(55_728));
        assert_eq!(df_size("/dev/loop0 55728 28 51108 1% /"), None);
        assert_eq!(df_size("read: hello from reader"), None);
    }
}
