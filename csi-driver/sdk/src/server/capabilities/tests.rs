//! Every subset of what a driver may implement, and exactly what is advertised for it.

use std::collections::BTreeSet;

use super::*;
use crate::{ServedElsewhere, testing::Parts};

/// A capability and the alternatives that lead to it: all parts of one of them. `!` means that the part is missing.
type Row = (&'static str, &'static [&'static [&'static str]]);

const CONTROLLER: &[Row] = &[
    ("CreateDeleteVolume", &[&["volumes"]]),
    ("PublishUnpublishVolume", &[&["volumes", "attachment"]]),
    ("PublishReadonly", &[&["volumes", "attachment", "read_only"]]),
    ("ListVolumes", &[&["volumes", "listing"]]),
    (
        "ListVolumesPublishedNodes",
        &[&["volumes", "listing", "published_nodes"]],
    ),
    ("GetVolume", &[&["volumes", "lookup"]]),
    ("GetCapacity", &[&["volumes", "capacity"]]),
    ("ExpandVolume", &[&["volumes", "expansion"]]),
    ("ModifyVolume", &[&["volumes", "modification"]]),
    ("CreateDeleteSnapshot", &[&["volumes", "snapshots"]]),
    ("ListSnapshots", &[&["volumes", "snapshot_listing"]]),
    ("GetSnapshot", &[&["volumes", "snapshot_lookup"]]),
    ("CloneVolume", &[&["volumes", "clones"]]),
    ("SingleNodeMultiWriter", &[&["volumes", "single_node_modes"]]),
    (
        "VolumeCondition",
        &[
            &["volumes", "listing", "listed_condition", "!lookup"],
            &["volumes", "lookup", "looked_up_condition", "!listing"],
            &[
                "volumes",
                "listing",
                "listed_condition",
                "lookup",
                "looked_up_condition",
            ],
        ],
    ),
];

const NODE: &[Row] = &[
    ("StageUnstageVolume", &[&["node", "staging"]]),
    ("GetVolumeStats", &[&["node", "stats"]]),
    ("VolumeCondition", &[&["node", "stats", "node_condition"]]),
    ("ExpandVolume", &[&["node", "node_expansion"]]),
    ("SingleNodeMultiWriter", &[&["node", "single_node_modes"]]),
    ("VolumeMountGroup", &[&["node", "mount_group"]]),
];

const PLUGIN: &[Row] = &[
    ("ControllerService", &[&["volumes"]]),
    ("VolumeAccessibilityConstraints", &[&["topology"]]),
    ("GroupControllerService", &[&["group_snapshots"]]),
    ("SnapshotMetadataService", &[&["snapshot_metadata"]]),
    (
        "Online",
        &[
            &["volumes", "expansion", "!offline"],
            &["node", "node_expansion", "!volumes"],
            &["node", "node_expansion", "!expansion"],
        ],
    ),
    ("Offline", &[&["volumes", "expansion", "offline"]]),
];

fn expected(rows: &[Row], parts: &Parts) -> BTreeSet<String> {
    let holds = |part: &&str| match part.strip_prefix('!') {
        Some(missing) => !parts.has(missing),
        None => parts.has(part),
    };
    rows.iter()
        .filter(|(_, alternatives)| alternatives.iter().any(|parts| parts.iter().all(holds)))
        .map(|(capability, _)| (*capability).to_owned())
        .collect()
}

/// All subsets of the parts that the rows speak of, but for those that `always` has.
fn subsets(rows: &[Row], always: &[&'static str]) -> Vec<Parts> {
    let named: BTreeSet<&'static str> = rows
        .iter()
        .flat_map(|(_, alternatives)| alternatives.iter().flat_map(|parts| parts.iter()))
        .map(|part| part.trim_start_matches('!'))
        .filter(|part| !always.contains(part))
        .collect();
    let named: Vec<_> = named.into_iter().collect();
    (0_u32..1 << named.len())
        .map(|bits| {
            let chosen = (0..named.len())
                .filter(|bit| bits >> bit & 1 == 1)
                .map(|bit| named[bit]);
            Parts(chosen.chain(always.iter().copied()).collect())
        })
        .collect()
}

fn check<T>(rows: &[Row], always: &[&'static str], list: fn(&Groups) -> Vec<T>, name: fn(&T) -> String) {
    for parts in subsets(rows, always) {
        let advertised = list(parts.builder().groups());
        let names: BTreeSet<_> = advertised.iter().map(name).collect();
        assert_eq!(names.len(), advertised.len(), "{parts:?}: none twice");
        assert_eq!(names, expected(rows, &parts), "{parts:?}");
    }
}

#[test]
fn the_controller_advertises_what_is_implemented() {
    check(CONTROLLER, &["volumes"], controller, |capability| {
        let csi::controller_service_capability::Type::Rpc(rpc) = capability.r#type.unwrap();
        format!("{:?}", rpc.r#type())
    });
}

#[test]
fn the_node_advertises_what_is_implemented() {
    check(NODE, &["node"], node, |capability| {
        let csi::node_service_capability::Type::Rpc(rpc) = capability.r#type.unwrap();
        format!("{:?}", rpc.r#type())
    });
}

#[test]
fn the_plugin_advertises_what_is_implemented() {
    use csi::plugin_capability::Type;
    check(PLUGIN, &[], plugin, |capability| {
        match capability.r#type.unwrap() {
            Type::Service(service) => format!("{:?}", service.r#type()),
            Type::VolumeExpansion(expansion) => format!("{:?}", expansion.r#type()),
        }
    });
}

#[test]
fn every_capability_of_the_specification_can_be_advertised() {
    use csi::{
        controller_service_capability::rpc::Type as OfController,
        node_service_capability::rpc::Type as OfNode,
    };
    let named =
        |rows: &[Row]| -> BTreeSet<String> { rows.iter().map(|(name, _)| (*name).to_owned()).collect() };
    let controller: BTreeSet<_> = (1..)
        .map_while(|number| OfController::try_from(number).ok())
        .map(|capability| format!("{capability:?}"))
        .collect();
    let node: BTreeSet<_> = (1..)
        .map_while(|number| OfNode::try_from(number).ok())
        .map(|capability| format!("{capability:?}"))
        .collect();
    assert_eq!(named(CONTROLLER), controller);
    assert_eq!(named(NODE), node);
}

#[test]
fn volumes_come_from_snapshots_only_where_snapshots_are_made() {
    let sources =
        |parts: &[&'static str]| content_sources(Parts(parts.iter().copied().collect()).builder().groups());
    let cases: [(&[&str], bool, bool); 5] = [
        (&["volumes"], false, false),
        (&["volumes", "clones"], true, false),
        (&["volumes", "restores"], false, false),
        (&["volumes", "restores", "snapshots"], false, true),
        (&["snapshots", "restores", "clones"], false, false),
    ];
    for (parts, clones, snapshots) in cases {
        assert_eq!(sources(parts), ContentSources { clones, snapshots }, "{parts:?}");
    }
}

#[test]
fn a_node_process_tells_of_the_controller_that_another_process_serves() {
    use csi::plugin_capability::{Service, Type, VolumeExpansion, service, volume_expansion};
    let service = |service: service::Type| {
        Type::Service(Service {
            r#type: service.into(),
        })
    };
    let elsewhere = ServedElsewhere {
        controller: true,
        expansion: Some(ExpansionTime::Online),
        group_controller: true,
        snapshot_metadata: true,
    };
    let told = plugin(&Groups {
        elsewhere,
        ..Groups::default()
    });
    let told: Vec<Type> = told
        .into_iter()
        .filter_map(|capability| capability.r#type)
        .collect();
    let expected = vec![
        service(service::Type::ControllerService),
        service(service::Type::GroupControllerService),
        service(service::Type::SnapshotMetadataService),
        Type::VolumeExpansion(VolumeExpansion {
            r#type: volume_expansion::Type::Online.into(),
        }),
    ];
    assert_eq!(told, expected);
}
