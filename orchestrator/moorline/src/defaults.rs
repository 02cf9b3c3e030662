//! Objects that a fresh cluster with the reference driver has: the driver's CSIDriver, and a default StorageClass.

use anyhow::Context as _;
use k8s_openapi::api::storage::v1::{CSIDriver, StorageClass};
use kube::{Api, Client, Resource, api::PostParams};
use serde::{Serialize, de::DeserializeOwned};
use serde_json::json;

use crate::driver::NAME;

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
