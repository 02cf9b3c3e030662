//! What snapshots and groups ask of claims, volumes and classes before a content is made for them. Pure.

use std::collections::BTreeMap;
use std::sync::Arc;

use k8s_openapi::api::core::v1::{
    CSIPersistentVolumeSource, Node, PersistentVolume, PersistentVolumeClaim, SecretReference,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use moorline_model::claim::ClaimPhase;
use moorline_model::{claim, node_affinity, volume};

use super::why::Why;

/// The volume that a snapshot of the claim is cut of, given the PV that the claim names.
pub(super) fn cut_of<'a>(
    claim: &PersistentVolumeClaim,
    pv: Option<&'a PersistentVolume>,
) -> Result<(&'a PersistentVolume, &'a CSIPersistentVolumeSource), Why> {
    let name = || claim.metadata.name.clone().unwrap_or_default();
    if claim.metadata.deletion_timestamp.is_some() {
        return Err(Why::ClaimDeleting(name()));
    }
    if claim::phase(claim) != Some(ClaimPhase::Bound) {
        return Err(Why::ClaimNotBound(name()));
    }
    let pv = pv.filter(|pv| volume::is_linked_to(pv, claim));
    let pv = pv.ok_or_else(|| Why::VolumeMisbound(name()))?;
    let csi = pv.spec.as_ref().and_then(|spec| spec.csi.as_ref());
    let csi = csi.ok_or_else(|| Why::NotCsi(pv.metadata.name.clone().unwrap_or_default()))?;
    Ok((pv, csi))
}

/// The node whose snapshotter manages what is made of the PVs: the first that all of them may be used on. None where
/// nobody asks, or where they may be used everywhere.
pub(super) fn managing_node(
    pvs: &[&PersistentVolume],
    nodes: Option<&[Arc<Node>]>,
) -> Result<Option<String>, Why> {
    let is_placed = |pv: &&&PersistentVolume| {
        let affinity = pv.spec.as_ref().and_then(|spec| spec.node_affinity.as_ref());
        affinity.is_some_and(|affinity| affinity.required.is_some())
    };
    let placed: Vec<_> = pvs.iter().filter(is_placed).collect();
    let (Some(nodes), Some(first)) = (nodes, placed.first()) else {
        return Ok(None);
    };
    let fits_all = |node: &&Arc<Node>| {
        let mut placed = placed.iter();
        placed.all(|pv| node_affinity::pv_fits_node(pv, (&***node).into()).unwrap_or(false))
    };
    let fitting = nodes
        .iter()
        .filter(fits_all)
        .filter_map(|node| node.metadata.name.clone());
    // The same one for every snapshot of the volumes, whatever the order of the cache.
    fitting
        .min()
        .map(Some)
        .ok_or_else(|| Why::NoNode(first.metadata.name.clone().unwrap_or_default()))
}

/// The only one of the default classes, given by driver and name, that is for this driver; else all that are, sorted.
pub(super) fn only_default<'a>(
    classes: impl Iterator<Item = (&'a str, &'a ObjectMeta)>,
    driver: &str,
) -> Result<String, Vec<String>> {
    let of_driver = classes.filter(|(of, _)| *of == driver);
    let mut names: Vec<String> = of_driver.filter_map(|(_, meta)| meta.name.clone()).collect();
    names.sort();
    match names.len() {
        1 => Ok(names.remove(0)),
        _ => Err(names),
    }
}

/// The annotations of a content that name the Secret of its deletion.
pub(super) fn of_deletion_secret(
    [name_key, namespace_key]: [&str; 2],
    secret: SecretReference,
) -> BTreeMap<String, String> {
    let pairs = [(name_key, secret.name), (namespace_key, secret.namespace)];
    pairs
        .into_iter()
        .map(|(key, value)| (key.to_string(), value.unwrap_or_default()))
        .collect()
}
