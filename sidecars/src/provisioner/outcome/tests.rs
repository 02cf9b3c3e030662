//! What answers mean.

use moorline_proto::csi::Volume;
use serde_json::json;
use tonic::Code;

use super::*;
use crate::discovery::{ControllerCapability, PluginService};
use crate::provisioner::config::ProvisionerConfig;
use crate::provisioner::plan::plan;
use crate::testing::{claim, class, driver, pv};

fn planned(selected_node: Option<&str>) -> Plan {
    let facts = driver(&[ControllerCapability::CreateDeleteVolume]);
    let config = ProvisionerConfig::new("/csi.sock");
    let mut planned = plan(&claim(json!({})), &class(json!({})), &facts, &config).expect("a plan");
    planned.selected_node = selected_node.map(str::to_string);
    planned
}

#[test]
fn failures_and_how_they_go_on() {
    let plain = driver(&[]);
    let mut topology = driver(&[]);
    topology
        .services
        .insert(PluginService::VolumeAccessibilityConstraints as i32);
    let cases = [
        (Code::Unavailable, &topology, Some("n"), Then::AskAgain),
        (Code::DeadlineExceeded, &topology, Some("n"), Then::AskAgain),
        (Code::Cancelled, &topology, Some("n"), Then::AskAgain),
        (Code::Aborted, &topology, Some("n"), Then::AskAgain),
        (Code::ResourceExhausted, &topology, Some("n"), Then::Reschedule),
        (Code::ResourceExhausted, &topology, None, Then::Retry),
        (Code::ResourceExhausted, &plain, Some("n"), Then::Retry),
        (Code::InvalidArgument, &topology, Some("n"), Then::RetrySlowly),
        (Code::Internal, &topology, Some("n"), Then::Retry),
        (Code::AlreadyExists, &plain, None, Then::Retry),
    ];
    for (code, facts, node, expected) in cases {
        let after = after_create(&planned(node), Err(Status::new(code, "x")), facts, "me");
        let AfterCreate::Failed { then, why } = after else {
            panic!("{code:?}: {after:?}")
        };
        assert_eq!(then, expected, "{code:?} {node:?}");
        assert!(why.starts_with("rpc error: code = "), "{why}");
    }
}

#[test]
fn answers_and_how_they_go_on() {
    let volume = |id: &str, bytes| {
        Some(Volume {
            volume_id: id.to_string(),
            capacity_bytes: bytes,
            ..Default::default()
        })
    };
    let after = |volume| {
        after_create(
            &planned(None),
            Ok(CreateVolumeResponse { volume }),
            &driver(&[]),
            "me",
        )
    };
    assert!(matches!(after(volume("v", 1 << 30)), AfterCreate::Save(_)));
    assert!(matches!(after(volume("v", 5)), AfterCreate::Discard { volume_id, .. } if volume_id == "v"));
    assert!(matches!(
        after(volume("", 0)),
        AfterCreate::Failed {
            then: Then::AskAgain,
            ..
        }
    ));
    assert!(matches!(
        after(None),
        AfterCreate::Failed {
            then: Then::AskAgain,
            ..
        }
    ));
}

#[test]
fn an_existing_pv_is_ours_or_another_or_leaving() {
    let wanted = pv(json!({"status": null}));
    let leaving = json!({"metadata": {"deletionTimestamp": "2026-01-01T00:00:00Z"}});
    let cases = [
        ("the same", json!({}), Existing::Saved),
        (
            "not bound yet",
            json!({"status": {"phase": "Pending"}}),
            Existing::Saved,
        ),
        ("being deleted", leaving, Existing::WaitUntilGone),
        (
            "released",
            json!({"status": {"phase": "Released"}}),
            Existing::WaitUntilGone,
        ),
        (
            "another volume",
            json!({"spec": {"csi": {"volumeHandle": "vol-2"}}}),
            Existing::Stray,
        ),
        (
            "another claim",
            json!({"spec": {"claimRef": {"uid": "u2"}}}),
            Existing::Stray,
        ),
    ];
    for (name, patch, expected) in cases {
        assert_eq!(compare(&pv(patch), &wanted), expected, "{name}");
    }
}
