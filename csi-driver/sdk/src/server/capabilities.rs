//! What is advertised, and nothing else: pure functions from what the driver implements to the capability lists.

use moorline_proto::csi;

use crate::{
    driver::Groups,
    traits::{ContentSources, ExpansionTime},
};

/// Of the plugin: which services there are, here or in its other processes, and when volumes can grow.
pub(super) fn plugin(groups: &Groups) -> Vec<csi::PluginCapability> {
    use csi::plugin_capability::{Service, Type, VolumeExpansion, service, volume_expansion};
    let elsewhere = groups.elsewhere;
    let services = [
        (
            groups.volumes.is_some() || elsewhere.controller,
            service::Type::ControllerService,
        ),
        (groups.has_topology, service::Type::VolumeAccessibilityConstraints),
        (
            groups.group_snapshots.is_some() || elsewhere.group_controller,
            service::Type::GroupControllerService,
        ),
        (
            groups.snapshot_metadata.is_some() || elsewhere.snapshot_metadata,
            service::Type::SnapshotMetadataService,
        ),
    ];
    let services = services
        .into_iter()
        .filter(|(is_served, _)| *is_served)
        .map(|(_, service)| {
            Type::Service(Service {
                r#type: service.into(),
            })
        });
    let here = groups.expansion.as_ref().map(|expansion| expansion.time());
    let time = match here.or(elsewhere.expansion) {
        Some(ExpansionTime::Online) => Some(volume_expansion::Type::Online),
        Some(ExpansionTime::Offline) => Some(volume_expansion::Type::Offline),
        // A driver that only grows filesystems on nodes does so while they are mounted.
        None if groups.node_expansion.is_some() => Some(volume_expansion::Type::Online),
        None => None,
    };
    let expansion = time.map(|time| Type::VolumeExpansion(VolumeExpansion { r#type: time.into() }));
    services
        .chain(expansion)
        .map(|kind| csi::PluginCapability { r#type: Some(kind) })
        .collect()
}

/// Of the controller service.
pub(super) fn controller(groups: &Groups) -> Vec<csi::ControllerServiceCapability> {
    use csi::controller_service_capability::{Rpc, Type, rpc::Type as Rpcs};
    let attachment = groups.attachment.as_ref();
    let listing = groups.listing.as_ref();
    let knows_condition = [
        listing.map(|group| group.knows_condition()),
        groups.lookup.as_ref().map(|group| group.knows_condition()),
    ];
    let mut knows_condition = knows_condition.into_iter().flatten().peekable();
    let all = [
        (groups.volumes.is_some(), Rpcs::CreateDeleteVolume),
        (attachment.is_some(), Rpcs::PublishUnpublishVolume),
        (
            attachment.is_some_and(|group| group.can_publish_read_only()),
            Rpcs::PublishReadonly,
        ),
        (listing.is_some(), Rpcs::ListVolumes),
        (
            listing.is_some_and(|group| group.knows_published_nodes()),
            Rpcs::ListVolumesPublishedNodes,
        ),
        (groups.lookup.is_some(), Rpcs::GetVolume),
        (groups.capacity.is_some(), Rpcs::GetCapacity),
        (groups.expansion.is_some(), Rpcs::ExpandVolume),
        (groups.modification.is_some(), Rpcs::ModifyVolume),
        (groups.has_single_node_modes, Rpcs::SingleNodeMultiWriter),
        (groups.snapshots.is_some(), Rpcs::CreateDeleteSnapshot),
        (groups.snapshot_listing.is_some(), Rpcs::ListSnapshots),
        (groups.snapshot_lookup.is_some(), Rpcs::GetSnapshot),
        (content_sources(groups).clones, Rpcs::CloneVolume),
        (
            knows_condition.peek().is_some() && knows_condition.all(|knows| knows),
            Rpcs::VolumeCondition,
        ),
    ];
    let advertised = all.into_iter().filter(|(is_served, _)| *is_served);
    advertised
        .map(|(_, rpc)| csi::ControllerServiceCapability {
            r#type: Some(Type::Rpc(Rpc { r#type: rpc.into() })),
        })
        .collect()
}

/// Of the node service.
pub(super) fn node(groups: &Groups) -> Vec<csi::NodeServiceCapability> {
    use csi::node_service_capability::{Rpc, Type, rpc::Type as Rpcs};
    let all = [
        (groups.staging.is_some(), Rpcs::StageUnstageVolume),
        (groups.stats.is_some(), Rpcs::GetVolumeStats),
        (
            groups.stats.as_ref().is_some_and(|group| group.knows_condition()),
            Rpcs::VolumeCondition,
        ),
        (groups.node_expansion.is_some(), Rpcs::ExpandVolume),
        (groups.has_single_node_modes, Rpcs::SingleNodeMultiWriter),
        (
            groups
                .node
                .as_ref()
                .is_some_and(|group| group.applies_mount_group()),
            Rpcs::VolumeMountGroup,
        ),
    ];
    let advertised = all.into_iter().filter(|(is_served, _)| *is_served);
    advertised
        .map(|(_, rpc)| csi::NodeServiceCapability {
            r#type: Some(Type::Rpc(Rpc { r#type: rpc.into() })),
        })
        .collect()
}

/// What volumes can be made from. Snapshots count only where they can be made as well.
pub(super) fn content_sources(groups: &Groups) -> ContentSources {
    let sources = groups
        .volumes
        .as_ref()
        .map(|volumes| volumes.content_sources())
        .unwrap_or_default();
    ContentSources {
        clones: sources.clones,
        snapshots: sources.snapshots && groups.snapshots.is_some(),
    }
}

#[cfg(test)]
mod tests;
