//! Objects that pods refer to, read from the shared caches and, when a cache has not heard of one, from the API.

use std::sync::Arc;

use k8s_openapi::NamespaceResourceScope;
use k8s_openapi::api::core::v1::{ConfigMap, Node, PersistentVolume, PersistentVolumeClaim, Pod, Secret};
use k8s_openapi::api::storage::v1::{CSIDriver, VolumeAttachment};
use kube::{Api, Client, Resource};
use moorline_runtime::{Cache, Informers};
use serde::de::DeserializeOwned;

/// The caches the kubelet reads.
#[derive(Debug, Clone)]
pub(crate) struct Objects {
    pub informers: Informers,
    /// The pods of this node only.
    pub pods: Cache<Pod>,
    /// This node only.
    pub node: Cache<Node>,
    pub claims: Cache<PersistentVolumeClaim>,
    pub pvs: Cache<PersistentVolume>,
    pub csi_drivers: Cache<CSIDriver>,
    pub attachments: Cache<VolumeAttachment>,
    pub config_maps: Cache<ConfigMap>,
    pub secrets: Cache<Secret>,
}

impl Objects {
    pub(crate) fn new(informers: Informers, node_name: &str) -> Self {
        Self {
            pods: informers.cache_selected(&format!("spec.nodeName={node_name}")),
            node: informers.cache_selected(&format!("metadata.name={node_name}")),
            claims: informers.cache(),
            pvs: informers.cache(),
            csi_drivers: informers.cache(),
            attachments: informers.cache(),
            config_maps: informers.cache(),
            secrets: informers.cache(),
            informers,
        }
    }

    pub(crate) fn client(&self) -> &Client {
        self.informers.client()
    }

    pub(crate) async fn config_map(
        &self,
        namespace: &str,
        name: &str,
    ) -> Result<Option<Arc<ConfigMap>>, kube::Error> {
        self.namespaced(&self.config_maps, namespace, name).await
    }

    pub(crate) async fn secret(
        &self,
        namespace: &str,
        name: &str,
    ) -> Result<Option<Arc<Secret>>, kube::Error> {
        self.namespaced(&self.secrets, namespace, name).await
    }

    pub(crate) async fn claim(
        &self,
        namespace: &str,
        name: &str,
    ) -> Result<Option<Arc<PersistentVolumeClaim>>, kube::Error> {
        self.namespaced(&self.claims, namespace, name).await
    }

    pub(crate) async fn pv(&self, name: &str) -> Result<Option<Arc<PersistentVolume>>, kube::Error> {
        self.cluster_scoped(&self.pvs, name).await
    }

    /// Answers of reads go into the cache, so that the next decision rests on them too.
    async fn namespaced<K>(
        &self,
        cache: &Cache<K>,
        namespace: &str,
        name: &str,
    ) -> Result<Option<Arc<K>>, kube::Error>
    where
        K: Resource<DynamicType = (), Scope = NamespaceResourceScope>
            + Clone
            + DeserializeOwned
            + std::fmt::Debug,
    {
        if let Some(held) = cache.get(Some(namespace), name) {
            return Ok(Some(held));
        }
        let api: Api<K> = Api::namespaced(self.client().clone(), namespace);
        Ok(api.get_opt(name).await?.map(Arc::new))
    }

    async fn cluster_scoped<K>(&self, cache: &Cache<K>, name: &str) -> Result<Option<Arc<K>>, kube::Error>
    where
        K: Resource<DynamicType = ()> + Clone + DeserializeOwned + std::fmt::Debug,
    {
        if let Some(held) = cache.get(None, name) {
            return Ok(Some(held));
        }
        let api: Api<K> = Api::all(self.client().clone());
        Ok(api.get_opt(name).await?.map(Arc::new))
    }

    /// The driver's CSIDriver object; drivers without one get the defaults.
    pub(crate) async fn csi_driver(&self, driver_name: &str) -> Result<Option<Arc<CSIDriver>>, kube::Error> {
        if self.csi_drivers.is_synced() {
            return Ok(self.csi_drivers.get(None, driver_name));
        }
        self.cluster_scoped(&self.csi_drivers, driver_name).await
    }
}
