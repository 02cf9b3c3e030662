//! A model of a node: a machine with mounts, and a kubelet that keeps to the kubelet's side of the attachment protocol.
//!
//! It is not the kubelet of `orchestrator/kubelet`. It says that it uses a volume before it mounts it, mounts only what
//! the node's status then still calls attached, unmounts before it stops saying so, and lets a deleted pod go when
//! nothing of it is mounted. Its process can die at each await; the machine's mounts stay. When the machine dies, they
//! go.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::core::v1::{Node as NodeObject, PersistentVolume, PersistentVolumeClaim, Pod};
use kube::api::{Api, DeleteParams, Patch, PatchParams, Preconditions};
use moorline_runtime::{Cache, Informers};
use parking_lot::Mutex;
use serde_json::json;
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

use crate::backend::Backend;
use crate::driver::NAME;

/// How long a mount or an unmount takes.
const WORK: Duration = Duration::from_millis(5);
/// Between two passes while something is left to do.
const RETRY: Duration = Duration::from_secs(1);

/// One node's kubelet.
pub(crate) struct Node {
    name: &'static str,
    client: kube::Client,
    backend: Arc<Mutex<Backend>>,
    pods: Cache<Pod>,
    claims: Cache<PersistentVolumeClaim>,
    pvs: Cache<PersistentVolume>,
}

/// A volume for a pod: the pod's UID and the volume's handle.
type Mount = (String, String);

impl Node {
    /// Runs until its process dies.
    pub(crate) async fn run(
        name: &'static str,
        client: kube::Client,
        backend: Arc<Mutex<Backend>>,
    ) -> anyhow::Result<()> {
        let informers = Informers::new(client.clone(), CancellationToken::new());
        let node = Node {
            name,
            client,
            backend,
            pods: informers.cache_selected(&format!("spec.nodeName={name}")),
            claims: informers.cache(),
            pvs: informers.cache(),
        };
        let bell = Arc::new(Notify::new());
        let ring = bell.clone();
        node.pods.on_change(move |_| ring.notify_one());
        let ring = bell.clone();
        node.claims.on_change(move |_| ring.notify_one());
        let ring = bell.clone();
        node.pvs.on_change(move |_| ring.notify_one());
        tokio::join!(node.pods.synced(), node.claims.synced(), node.pvs.synced());
        loop {
            match node.pass().await {
                Ok(true) => bell.notified().await,
                // Something is left, or the API server is away.
                Ok(false) | Err(_) => tokio::time::sleep(RETRY).await,
            }
        }
    }

    /// Does what can be done. True when nothing is left.
    async fn pass(&self) -> Result<bool, kube::Error> {
        let pods = self.pods.list();
        let wanted: BTreeSet<Mount> = pods.iter().filter_map(|pod| self.wish(pod)).collect();
        for mount in self.mounts().difference(&wanted) {
            tokio::time::sleep(WORK).await;
            self.backend.lock().node_unpublish(self.name, mount);
        }
        for handle in self.staged() {
            let is_needed = wanted
                .iter()
                .chain(&self.mounts())
                .any(|(_, other)| *other == handle);
            if !is_needed {
                tokio::time::sleep(WORK).await;
                self.backend.lock().node_unstage(self.name, &handle);
            }
        }
        let handles = wanted.iter().map(|(_, handle)| handle.clone());
        let in_use: BTreeSet<String> = handles
            .chain(self.staged())
            .map(|handle| unique_name(&handle))
            .collect();
        let attached = self.say_in_use(&in_use).await?;
        for mount in &wanted {
            if attached.contains(&unique_name(&mount.1)) {
                tokio::time::sleep(WORK).await;
                self.backend.lock().node_stage(self.name, &mount.1);
                tokio::time::sleep(WORK).await;
                self.backend.lock().node_publish(self.name, mount);
            }
        }
        let mounts = self.mounts();
        for pod in pods
            .iter()
            .filter(|pod| pod.metadata.deletion_timestamp.is_some())
        {
            let uid = pod.metadata.uid.clone().unwrap_or_default();
            if !mounts.iter().any(|(owner, _)| *owner == uid) {
                self.let_go(pod).await?;
            }
        }
        Ok(wanted == self.mounts() && pods.iter().all(|pod| pod.metadata.deletion_timestamp.is_none()))
    }

    /// The volume that a pod shall have, once its claim is bound.
    fn wish(&self, pod: &Pod) -> Option<Mount> {
        if pod.metadata.deletion_timestamp.is_some() {
            return None;
        }
        let volume = pod.spec.as_ref()?.volumes.as_ref()?.first()?;
        let claim_name = &volume.persistent_volume_claim.as_ref()?.claim_name;
        let claim = self.claims.get(pod.metadata.namespace.as_deref(), claim_name)?;
        let pv = self.pvs.get(None, claim.spec.as_ref()?.volume_name.as_deref()?)?;
        let spec = pv.spec.as_ref()?;
        let is_its_own = spec.claim_ref.as_ref()?.uid == claim.metadata.uid;
        let is_bound = claim.status.as_ref()?.phase.as_deref() == Some("Bound");
        let handle = &spec.csi.as_ref()?.volume_handle;
        (is_its_own && is_bound).then(|| (pod.metadata.uid.clone().unwrap_or_default(), handle.clone()))
    }

    fn mounts(&self) -> BTreeSet<Mount> {
        let backend = self.backend.lock();
        let here = backend.mounts.iter().filter(|(node, _)| node == self.name);
        here.map(|(_, mount)| mount.clone()).collect()
    }

    fn staged(&self) -> BTreeSet<String> {
        let backend = self.backend.lock();
        let here = backend.staged.iter().filter(|(node, _)| node == self.name);
        here.map(|(_, handle)| handle.clone()).collect()
    }

    /// Brings `volumesInUse` up to date; answers what the status then calls attached.
    async fn say_in_use(&self, in_use: &BTreeSet<String>) -> Result<BTreeSet<String>, kube::Error> {
        let nodes = Api::<NodeObject>::all(self.client.clone());
        let mut node = nodes.get(self.name).await?;
        let said = node
            .status
            .as_ref()
            .and_then(|status| status.volumes_in_use.clone());
        if said.unwrap_or_default().into_iter().collect::<BTreeSet<_>>() != *in_use {
            let patch = json!({"status": {"volumesInUse": in_use}});
            let params = PatchParams::default();
            node = nodes
                .patch_status(self.name, &params, &Patch::Merge(&patch))
                .await?;
        }
        let attached = node
            .status
            .and_then(|status| status.volumes_attached)
            .unwrap_or_default();
        Ok(attached.into_iter().map(|volume| volume.name).collect())
    }

    async fn let_go(&self, pod: &Pod) -> Result<(), kube::Error> {
        let namespace = pod.metadata.namespace.as_deref().unwrap_or_default();
        let pods = Api::<Pod>::namespaced(self.client.clone(), namespace);
        let params = DeleteParams {
            preconditions: Some(Preconditions {
                uid: pod.metadata.uid.clone(),
                resource_version: None,
            }),
            ..DeleteParams::default().grace_period(0)
        };
        let name = pod.metadata.name.as_deref().unwrap_or_default();
        match pods.delete(name, &params).await {
            Err(kube::Error::Api(status)) if matches!(status.code, 404 | 409) => Ok(()),
            answer => answer.map(drop),
        }
    }
}

/// The name by which node status knows a volume.
fn unique_name(handle: &str) -> String {
    format!("kubernetes.io/csi/{NAME}^{handle}")
}
