//! The table of what is done about claims that ask for more.

use serde_json::{Value, json};

use super::*;
use crate::testing::{at, claim, driver, merged, pv};

/// A bound claim of 1Gi that asks for 2Gi.
fn growing(patch: Value) -> PersistentVolumeClaim {
    let base = json!({
        "spec": {"volumeName": "pvc-u1", "resources": {"requests": {"storage": "2Gi"}}},
        "status": {"phase": "Bound", "capacity": {"storage": "1Gi"}},
    });
    claim(merged(base, patch))
}

fn marked(stage: &str, allocated: &str) -> Value {
    json!({"status": {
        "allocatedResourceStatuses": {"storage": stage}, "allocatedResources": {"storage": allocated},
        "conditions": [{"type": "Resizing", "status": "True"}],
    }})
}

fn render(next: Next) -> String {
    match next {
        Next::Settled => "settled".into(),
        Next::RemovePreResizeCapacity => "forget old size".into(),
        Next::Mark { target } => format!("mark {target}"),
        Next::Expand(expansion) => {
            let side = if expansion.request.is_some() {
                "controller"
            } else {
                "node"
            };
            format!("expand {} by {side}", expansion.target)
        }
        Next::Wait { until } => format!("wait {}", until.duration_since(at(0)).as_secs()),
        Next::Refuse(refusal) => format!("refuse: {refusal}"),
    }
}

fn next(
    claim: PersistentVolumeClaim,
    pv: Option<PersistentVolume>,
    marks: Marks,
    is_used_by_pod: bool,
) -> String {
    let facts = driver(&[ControllerCapability::ExpandVolume]);
    let seen = Seen {
        claim: Some(&claim),
        pv: pv.as_ref(),
        marks,
        is_used_by_pod,
        driver: &facts,
    };
    render(decide(&seen, at(0)))
}

#[test]
#[expect(clippy::too_many_lines, reason = "one flat table")]
fn sizes_and_what_is_done_about_them() {
    let progress = "ControllerResizeInProgress";
    let infeasible = || marked("ControllerResizeInfeasible", "2Gi");
    let no_marks = Marks::default();
    let resting = Marks {
        slow_until: Some(at(60)),
        ..no_marks.clone()
    };
    let rested = Marks {
        slow_until: Some(at(-1)),
        ..no_marks.clone()
    };
    let failed = Marks {
        has_failed: true,
        ..no_marks.clone()
    };
    let bound_pv = || Some(pv(json!({})));
    let large_pv = || Some(pv(json!({"spec": {"capacity": {"storage": "2Gi"}}})));
    let remembering = |size: &str| {
        Some(pv(json!({"spec": {"capacity": {"storage": size}},
            "metadata": {"annotations": {"volume.alpha.kubernetes.io/pre-resize-capacity": "1Gi"}}})))
    };
    let cases = [
        (
            "first the intent",
            growing(json!({})),
            bound_pv(),
            &no_marks,
            "mark 2Gi",
        ),
        (
            "then the driver",
            growing(marked(progress, "2Gi")),
            bound_pv(),
            &no_marks,
            "expand 2Gi by controller",
        ),
        (
            "condition lost",
            growing(merged(
                marked(progress, "2Gi"),
                json!({"status": {"conditions": null}}),
            )),
            bound_pv(),
            &no_marks,
            "mark 2Gi",
        ),
        (
            "interrupted after the PV",
            growing(marked(progress, "2Gi")),
            large_pv(),
            &no_marks,
            "expand 2Gi by controller",
        ),
        (
            "a larger one may be running",
            growing(marked(progress, "5Gi")),
            bound_pv(),
            &no_marks,
            "expand 5Gi by controller",
        ),
        (
            "the larger one has failed",
            growing(marked(progress, "5Gi")),
            bound_pv(),
            &failed,
            "mark 2Gi",
        ),
        (
            "the node's turn",
            growing(marked("NodeResizePending", "2Gi")),
            large_pv(),
            &no_marks,
            "settled",
        ),
        (
            "infeasible lately",
            growing(infeasible()),
            bound_pv(),
            &resting,
            "wait 60",
        ),
        (
            "infeasible, rested",
            growing(infeasible()),
            bound_pv(),
            &rested,
            "expand 2Gi by controller",
        ),
        (
            "infeasible before a restart",
            growing(infeasible()),
            bound_pv(),
            &no_marks,
            "expand 2Gi by controller",
        ),
        (
            "infeasible, another size",
            growing(marked("ControllerResizeInfeasible", "9Gi")),
            bound_pv(),
            &resting,
            "mark 2Gi",
        ),
        (
            "nothing asked",
            claim(json!({"spec": {"volumeName": "pvc-u1"},
            "status": {"phase": "Bound", "capacity": {"storage": "1Gi"}}})),
            bound_pv(),
            &no_marks,
            "settled",
        ),
        (
            "done, PV remembers",
            growing(json!({"status": {"capacity": {"storage": "2Gi"}}})),
            remembering("2Gi"),
            &no_marks,
            "forget old size",
        ),
        (
            "done, next one under way",
            growing(json!({"status": {"capacity": {"storage": "2Gi"}}})),
            remembering("3Gi"),
            &no_marks,
            "settled",
        ),
        (
            "not bound",
            growing(json!({"status": {"phase": "Lost"}})),
            bound_pv(),
            &no_marks,
            "settled",
        ),
        (
            "no volume name",
            growing(json!({"spec": {"volumeName": null}})),
            None,
            &no_marks,
            "settled",
        ),
        (
            "PV unknown",
            growing(json!({})),
            None,
            &no_marks,
            "refuse: persistentvolume \"pvc-u1\" not found",
        ),
        (
            "another driver's",
            growing(json!({})),
            Some(pv(json!({"spec": {"csi": {"driver": "x"}}}))),
            &no_marks,
            "settled",
        ),
        (
            "PV of another claim",
            growing(json!({})),
            Some(pv(json!({"spec": {"claimRef": {"uid": "u2"}}}))),
            &no_marks,
            "settled",
        ),
    ];
    for (name, claim, pv, marks, expected) in cases {
        assert_eq!(next(claim, pv, marks.clone(), false), expected, "{name}");
    }
}

#[test]
fn a_busy_volume_waits_for_its_pods() {
    let in_use = Marks {
        is_in_use: true,
        has_failed: true,
        slow_until: None,
    };
    let waiting = || growing(marked("ControllerResizeInProgress", "2Gi"));
    let refused = next(waiting(), Some(pv(json!({}))), in_use.clone(), true);
    assert!(refused.starts_with("refuse: volume is in use"), "{refused}");
    assert_eq!(
        next(waiting(), Some(pv(json!({}))), in_use, false),
        "expand 2Gi by controller"
    );
}

#[test]
fn a_driver_that_expands_on_nodes_only_is_not_called() {
    let mut facts = driver(&[]);
    facts.node_expands = true;
    assert!(can_expand(&facts));
    let (claim, pv) = (
        growing(marked("ControllerResizeInProgress", "2Gi")),
        pv(json!({})),
    );
    let seen = Seen {
        claim: Some(&claim),
        pv: Some(&pv),
        marks: Marks::default(),
        is_used_by_pod: false,
        driver: &facts,
    };
    assert_eq!(render(decide(&seen, at(0))), "expand 2Gi by node");
}
