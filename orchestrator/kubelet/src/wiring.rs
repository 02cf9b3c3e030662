//! Which change of which object has what looked at again. Handlers only add to queues and mark what is stale.

use std::sync::Arc;

use k8s_openapi::api::core::v1::{Pod, Volume};

use crate::csi::drivers::Drivers;
use crate::objects::Objects;
use crate::pods::env::{self, Source};
use crate::pods::manager::PodManager;
use crate::pods::{init_containers, main_containers, namespace};
use crate::volumes::manager::VolumeManager;
use crate::volumes::spec::Spec;

/// Connects caches and driver registry with the managers, for as long as those live.
pub(crate) fn connect(
    objects: &Objects,
    drivers: &Arc<Drivers>,
    volumes: &Arc<VolumeManager>,
    pods: &Arc<PodManager>,
) {
    connect_volumes(objects, drivers, volumes);
    let (weak_volumes, weak_pods) = (Arc::downgrade(volumes), Arc::downgrade(pods));
    objects.config_maps.on_change(move |change| {
        let metadata = &change.object().metadata;
        let key = (
            metadata.namespace.clone().unwrap_or_default(),
            metadata.name.clone().unwrap_or_default(),
        );
        if let (Some(volumes), Some(pods)) = (weak_volumes.upgrade(), weak_pods.upgrade()) {
            changed(&volumes, &pods, &key.0, &Source::ConfigMap(key.1.clone()));
        }
    });
    let (weak_volumes, weak_pods) = (Arc::downgrade(volumes), Arc::downgrade(pods));
    objects.secrets.on_change(move |change| {
        let metadata = &change.object().metadata;
        let key = (
            metadata.namespace.clone().unwrap_or_default(),
            metadata.name.clone().unwrap_or_default(),
        );
        if let (Some(volumes), Some(pods)) = (weak_volumes.upgrade(), weak_pods.upgrade()) {
            changed(&volumes, &pods, &key.0, &Source::Secret(key.1.clone()));
        }
    });
}

/// A ConfigMap or Secret changed: volumes show it, and containers may have waited for it.
fn changed(volumes: &VolumeManager, pods: &PodManager, object_namespace: &str, source: &Source) {
    volumes.refresh(|wanted| {
        let is_shown = matches!(&wanted.spec, Spec::Local(local) if local.is_refreshed());
        is_shown && namespace(&wanted.pod) == object_namespace && {
            let held = wanted
                .pod
                .spec
                .iter()
                .flat_map(|spec| spec.volumes.iter().flatten());
            held.into_iter()
                .any(|volume| wanted.outer_names.contains(&volume.name) && shows(volume, source))
        }
    });
    pods.retry_config_problems(|pod| namespace(pod) == object_namespace && needs(pod, source));
}

fn needs(pod: &Pod, source: &Source) -> bool {
    init_containers(pod)
        .iter()
        .chain(main_containers(pod))
        .any(|container| env::sources(container).contains(source))
}

fn shows(volume: &Volume, source: &Source) -> bool {
    let projections = volume
        .projected
        .iter()
        .flat_map(|projected| projected.sources.iter().flatten());
    match source {
        Source::ConfigMap(name) => {
            let direct = volume.config_map.as_ref().is_some_and(|held| held.name == *name);
            let mut projected = projections.filter_map(|projection| projection.config_map.as_ref());
            direct || projected.any(|held| held.name == *name)
        }
        Source::Secret(name) => {
            let direct = volume
                .secret
                .as_ref()
                .is_some_and(|held| held.secret_name.as_ref() == Some(name));
            let mut projected = projections.filter_map(|projection| projection.secret.as_ref());
            direct || projected.any(|held| held.name == *name)
        }
    }
}

fn connect_volumes(objects: &Objects, drivers: &Arc<Drivers>, volumes: &Arc<VolumeManager>) {
    let weak = Arc::downgrade(volumes);
    drivers.on_registered(move |driver_name| {
        if let Some(volumes) = weak.upgrade() {
            volumes.look_at_driver(driver_name);
        }
    });
    let weak = Arc::downgrade(volumes);
    objects.csi_drivers.on_change(move |change| {
        if let (Some(volumes), Some(name)) = (weak.upgrade(), change.object().metadata.name.as_deref()) {
            volumes.look_at_driver(name);
        }
    });
    let weak = Arc::downgrade(volumes);
    objects.claims.on_change(move |change| {
        let metadata = &change.object().metadata;
        let claim = (
            metadata.namespace.clone().unwrap_or_default(),
            metadata.name.clone().unwrap_or_default(),
        );
        if let Some(volumes) = weak.upgrade() {
            volumes.look_at(
                |_, wanted| matches!(&wanted.spec, Spec::Csi(csi) if csi.claim.as_ref() == Some(&claim)),
            );
            volumes.wake_unresolved();
        }
    });
    let weak = Arc::downgrade(volumes);
    objects.pvs.on_change(move |change| {
        let reference = change
            .object()
            .spec
            .as_ref()
            .and_then(|spec| spec.claim_ref.as_ref());
        let claim = reference.and_then(|held| Some((held.namespace.clone()?, held.name.clone()?)));
        if let Some(volumes) = weak.upgrade() {
            volumes.look_at(|_, wanted| matches!(&wanted.spec, Spec::Csi(csi) if csi.claim == claim));
            volumes.wake_unresolved();
        }
    });
    let weak = Arc::downgrade(volumes);
    objects.attachments.on_change(move |change| {
        if let (Some(volumes), Some(name)) = (weak.upgrade(), change.object().metadata.name.as_deref()) {
            volumes.look_at_attachment(name);
        }
    });
    let weak = Arc::downgrade(volumes);
    objects.node.on_change(move |_| {
        if let Some(volumes) = weak.upgrade() {
            volumes.look_at_waiting();
            volumes.wake_unresolved();
        }
    });
}
