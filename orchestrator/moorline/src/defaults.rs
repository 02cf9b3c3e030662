//! Objects that a fresh cluster has: the snapshot kinds; with the reference driver its CSIDriver, and default classes for
//! volumes and snapshots.

use anyhow::Context as _;
use k8s_openapi::api::storage::v1::{CSIDriver, StorageClass};
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::{Api, Client, Resource, api::PostParams};
use moorline_model::group_snapshot::VolumeGroupSnapshotClass;
use moorline_model::keys;
use moorline_model::snapshot::VolumeSnapshotClass;
use moorline_runtime::until_served;
use serde::{Serialize, de::DeserializeOwned};
use serde_json::json;
use tokio_util::sync::CancellationToken;

use crate::driver::NAME;

/// The kinds of `snapshot.storage.k8s.io` and `groupsnapshot.storage.k8s.io`, in our own words; upstream's definitions may be
/// there instead.
const SNAPSHOT_KINDS: [&str; 6] = [
    include_str!("../definitions/volumegroupsnapshotclasses.yaml"),
    include_str!("../definitions/volumegroupsnapshotcontents.yaml"),
    include_str!("../definitions/volumegroupsnapshots.yaml"),
    include_str!("../definitions/volumesnapshotclasses.yaml"),
    include_str!("../definitions/volumesnapshotcontents.yaml"),
    include_str!("../definitions/volumesnapshots.yaml"),
];

/// Makes the snapshot kinds that are missing; those that are there stay as they are.
pub(crate) async fn ensure_snapshot_kinds(client: &Client) -> anyhow::Result<()> {
    // All at once: the store writes together what comes together.
    let making = SNAPSHOT_KINDS.map(|text| async {
        let definition: serde_json::Value =
            serde_saphyr::from_str(text).context("read a snapshot definition")?;
        create_if_missing::<CustomResourceDefinition>(client, definition)
            .await
            .context("create the snapshot kinds")
    });
    futures::future::try_join_all(making).await.map(drop)
}

/// Makes the driver's default classes of snapshots and of groups of them, each once its kind is served.
pub(crate) async fn ensure_snapshot_classes(client: &Client, stop: &CancellationToken) -> anyhow::Result<()> {
    let single = ensure_class::<VolumeSnapshotClass>(client, keys::IS_DEFAULT_SNAPSHOT_CLASS, stop);
    let group = ensure_class::<VolumeGroupSnapshotClass>(client, keys::IS_DEFAULT_GROUP_SNAPSHOT_CLASS, stop);
    futures::future::try_join(single, group).await.map(drop)
}

async fn ensure_class<K>(client: &Client, default_mark: &str, stop: &CancellationToken) -> anyhow::Result<()>
where
    K: Resource<DynamicType = ()> + Clone + std::fmt::Debug + Serialize + DeserializeOwned,
{
    let (kind, api_version) = (K::kind(&()), K::api_version(&()));
    if !until_served(client, &api_version, &[&kind], stop).await {
        return Ok(());
    }
    let class = json!({
        "metadata": {"name": "moorline-local", "annotations": {default_mark: "true"}},
        "driver": NAME,
        "deletionPolicy": "Delete",
    });
    create_if_missing::<K>(client, class)
        .await
        .with_context(|| format!("create the default {kind}"))
}

/// Makes what is missing; what is there stays as it is, also when a user changed it.
pub(crate) async fn ensure(client: &Client) -> anyhow::Result<()> {
    create_if_missing::<CSIDriver>(client, csi_driver())
        .await
        .context("create the CSIDriver object")?;
    create_if_missing::<StorageClass>(client, storage_class())
        .await
        .context("create the default StorageClass")
}

fn csi_driver() -> serde_json::Value {
    json!({
        "metadata": {"name": NAME},
        "spec": {
            // A volume is where its node is: there is nothing to attach.
            "attachRequired": false,
            "podInfoOnMount": false,
            "storageCapacity": false,
            "fsGroupPolicy": "File",
            "volumeLifecycleModes": ["Persistent"],
        },
    })
}

fn storage_class() -> serde_json::Value {
    json!({
        "metadata": {
            "name": "moorline-local",
            "annotations": {"storageclass.kubernetes.io/is-default-class": "true"},
        },
        "provisioner": NAME,
        "volumeBindingMode": "WaitForFirstConsumer",
        "reclaimPolicy": "Delete",
        "allowVolumeExpansion": true,
    })
}

async fn create_if_missing<K>(client: &Client, object: serde_json::Value) -> anyhow::Result<()>
where
    K: Resource<DynamicType = ()> + Clone + std::fmt::Debug + Serialize + DeserializeOwned,
{
    let object: K = serde_json::from_value(object)?;
    // Not a read first: two starts at once, or a kill in between, end the same way.
    match Api::<K>::all_with(client.clone(), &())
        .create(&PostParams::default(), &object)
        .await
    {
        Ok(_) => Ok(()),
        Err(kube::Error::Api(status)) if status.code == 409 => Ok(()),
        Err(error) => Err(error.into()),
    }
}
