//! Every request taken apart completely and each of its fields checked, so that a new field doesn't go unchecked.

use std::collections::BTreeSet;

use super::field;
use crate::request::*;

/// A request that was accepted.
pub(super) trait Accepted {
    /// Panics unless every field is as it may be.
    fn check(&self);
}

macro_rules! accepted {
    ($($request:ident { $($field:ident $(: $ignored:pat)?),* } => $check:expr;)*) => {
        $(impl Accepted for $request {
            fn check(&self) {
                let $request { $($field $(: $ignored)?),* } = self;
                $check;
            }
        })*
    };
}

accepted! {
    CreateVolume {
        name, capacity, capabilities, parameters, mutable_parameters, secrets, content_source, topology
    } => {
        field::name(name);
        field::range(*capacity);
        assert!(!capabilities.is_empty());
        capabilities.iter().for_each(field::capability);
        field::maps([parameters, mutable_parameters]);
        field::secrets(secrets);
        content_source.iter().for_each(check_source);
        topology.iter().for_each(check_requirement);
    };
    DeleteVolume { volume_id, secrets } => {
        field::name(volume_id.as_str());
        field::secrets(secrets);
    };
    ValidateCapabilities {
        volume_id, volume_context, capabilities, parameters, mutable_parameters, secrets
    } => {
        field::name(volume_id.as_str());
        assert!(!capabilities.is_empty());
        capabilities.iter().for_each(field::capability);
        field::maps([volume_context, parameters, mutable_parameters]);
        field::secrets(secrets);
    };
    CapacityQuery { capabilities, parameters, topology } => {
        capabilities.iter().for_each(field::capability);
        field::maps([parameters]);
        topology.iter().for_each(field::topology);
    };
    ListPage { max_entries, starting_token } => {
        assert_ne!(*max_entries, Some(0));
        starting_token.as_deref().into_iter().for_each(field::name);
    };
    ExpandVolume { volume_id, capacity, capability, secrets } => {
        field::name(volume_id.as_str());
        field::range(*capacity);
        assert_ne!(*capacity, CapacityRange::default());
        capability.iter().for_each(field::capability);
        field::secrets(secrets);
    };
    PublishToNode { volume_id, node_id, capability, is_read_only: _, volume_context, secrets } => {
        field::name(volume_id.as_str());
        field::node(node_id);
        field::capability(capability);
        field::maps([volume_context]);
        field::secrets(secrets);
    };
    UnpublishFromNode { volume_id, node_id, secrets } => {
        field::name(volume_id.as_str());
        node_id.as_deref().into_iter().for_each(field::node);
        field::secrets(secrets);
    };
    ModifyVolume { volume_id, mutable_parameters, secrets } => {
        field::name(volume_id.as_str());
        field::maps([mutable_parameters]);
        field::secrets(secrets);
    };
    CreateSnapshot { name, source_volume_id, parameters, secrets } => {
        field::name(name);
        field::name(source_volume_id.as_str());
        field::maps([parameters]);
        field::secrets(secrets);
    };
    DeleteSnapshot { snapshot_id, secrets } => {
        field::name(snapshot_id.as_str());
        field::secrets(secrets);
    };
    SnapshotQuery { page, source_volume_id, snapshot_id, secrets } => {
        page.check();
        source_volume_id.iter().for_each(|id| field::name(id.as_str()));
        snapshot_id.iter().for_each(|id| field::name(id.as_str()));
        field::secrets(secrets);
    };
    GetSnapshot { snapshot_id, secrets } => {
        field::name(snapshot_id.as_str());
        field::secrets(secrets);
    };
    CreateGroupSnapshot { name, source_volume_ids, parameters, secrets } => {
        field::name(name);
        assert!(!source_volume_ids.is_empty());
        field::unique(source_volume_ids, VolumeId::as_str);
        field::maps([parameters]);
        field::secrets(secrets);
    };
    DeleteGroupSnapshot { group_snapshot_id, snapshot_ids, secrets } => {
        field::name(group_snapshot_id.as_str());
        field::unique(snapshot_ids, SnapshotId::as_str);
        field::secrets(secrets);
    };
    GetGroupSnapshot { group_snapshot_id, snapshot_ids, secrets } => {
        field::name(group_snapshot_id.as_str());
        field::unique(snapshot_ids, SnapshotId::as_str);
        field::secrets(secrets);
    };
    AllocatedBlocks { snapshot_id, window, secrets } => {
        field::name(snapshot_id.as_str());
        field::window(*window);
        field::secrets(secrets);
    };
    ChangedBlocks { base_snapshot_id, target_snapshot_id, window, secrets } => {
        field::name(base_snapshot_id.as_str());
        field::name(target_snapshot_id.as_str());
        field::window(*window);
        field::secrets(secrets);
    };
    NodeStageVolume {
        volume_id, staging_target_path, capability, publish_context, volume_context, secrets
    } => {
        field::name(volume_id.as_str());
        field::target(staging_target_path);
        field::capability(capability);
        field::maps([publish_context, volume_context]);
        field::secrets(secrets);
    };
    NodeUnstageVolume { volume_id, staging_target_path } => {
        field::name(volume_id.as_str());
        field::target(staging_target_path);
    };
    NodePublishVolume {
        volume_id, staging_target_path, target_path, capability, is_read_only: _, publish_context,
        volume_context, secrets
    } => {
        field::name(volume_id.as_str());
        staging_target_path.as_deref().into_iter().for_each(field::target);
        field::target(target_path);
        assert_ne!(staging_target_path.as_ref(), Some(target_path));
        field::capability(capability);
        field::maps([publish_context, volume_context]);
        field::secrets(secrets);
    };
    NodeUnpublishVolume { volume_id, target_path } => {
        field::name(volume_id.as_str());
        field::target(target_path);
    };
    VolumeStatsQuery { volume_id, volume_path, staging_target_path } => {
        field::name(volume_id.as_str());
        field::location(volume_path);
        staging_target_path.as_deref().into_iter().for_each(field::target);
    };
    NodeExpandVolume { volume_id, volume_path, capacity, staging_target_path, capability, secrets } => {
        field::name(volume_id.as_str());
        field::location(volume_path);
        field::range(*capacity);
        staging_target_path.as_deref().into_iter().for_each(field::target);
        capability.iter().for_each(field::capability);
        field::secrets(secrets);
    };
}

fn check_source(source: &ContentSource) {
    match source {
        ContentSource::Snapshot(snapshot_id) => field::name(snapshot_id.as_str()),
        ContentSource::Volume(volume_id) => field::name(volume_id.as_str()),
    }
}

fn check_requirement(requirement: &TopologyRequirement) {
    let TopologyRequirement { requisite, preferred } = requirement;
    requisite.iter().chain(preferred).for_each(field::topology);
    let known: BTreeSet<_> = requisite.iter().collect();
    assert!(known.is_empty() || preferred.iter().all(|term| known.contains(term)));
}
