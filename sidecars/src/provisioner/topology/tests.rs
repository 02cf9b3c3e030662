//! The table of topology requirements.

use k8s_openapi::api::core::v1::TopologySelectorLabelRequirement;

use super::*;

fn labels(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
    pairs
        .iter()
        .map(|(key, value)| ((*key).to_string(), (*value).to_string()))
        .collect()
}

fn keys(names: &[&str]) -> BTreeSet<String> {
    names.iter().map(|name| (*name).to_string()).collect()
}

/// Three nodes in two zones.
fn cluster() -> ClusterSegments {
    let nodes = [
        labels(&[("zone", "a"), ("host", "n1")]),
        labels(&[("zone", "b"), ("host", "n2")]),
        labels(&[("zone", "a"), ("host", "n3")]),
        labels(&[("host", "no-zone")]),
    ];
    ClusterSegments::collect([keys(&["zone"])], &nodes)
}

fn node(zone: &str) -> SelectedNode {
    SelectedNode {
        name: "n".into(),
        keys: Some(keys(&["zone"])),
        labels: Some(labels(&[("zone", zone)])),
    }
}

fn allowed(zones: &[&str]) -> Vec<TopologySelectorTerm> {
    vec![TopologySelectorTerm {
        match_label_expressions: Some(vec![TopologySelectorLabelRequirement {
            key: "zone".into(),
            values: zones.iter().map(|zone| (*zone).to_string()).collect(),
        }]),
    }]
}

/// `requisite / preferred`, zones only.
fn render(result: Result<Option<TopologyRequirement>, TopologyError>) -> String {
    let zones = |terms: &[Topology]| -> String {
        terms
            .iter()
            .map(|term| term.segments.get("zone").cloned().unwrap_or_default())
            .collect()
    };
    match result {
        Ok(None) => "none".into(),
        Ok(Some(found)) => format!("{} / {}", zones(&found.requisite), zones(&found.preferred)),
        Err(error) => format!("{error:?}"),
    }
}

#[test]
#[expect(clippy::too_many_lines, reason = "one flat table")]
fn requirement_by_binding_and_switches() {
    let cluster = cluster();
    let no_cluster = ClusterSegments::default();
    let (no, ab, bc) = (vec![], allowed(&["b", "a"]), allowed(&["c", "b"]));
    let base = Inputs {
        claim_name: "data",
        selected: None,
        allowed: &no,
        cluster: &cluster,
        strict: false,
        immediate_topology: true,
    };
    let delayed = |zone: &str| Inputs {
        selected: Some(node(zone)),
        ..base.clone()
    };
    let gone = |keys: Option<BTreeSet<String>>, labels| Inputs {
        selected: Some(SelectedNode {
            name: "n".into(),
            keys,
            labels,
        }),
        ..base.clone()
    };
    let cases = [
        (
            "delayed strict",
            Inputs {
                strict: true,
                ..delayed("b")
            },
            "b / b",
        ),
        (
            "delayed strict, allowed",
            Inputs {
                strict: true,
                allowed: &ab,
                ..delayed("b")
            },
            "b / b",
        ),
        (
            "delayed strict, not allowed",
            Inputs {
                strict: true,
                allowed: &bc,
                ..delayed("a")
            },
            "NotAllowed(\"n\")",
        ),
        ("delayed", delayed("b"), "ab / ba"),
        (
            "delayed, allowed",
            Inputs {
                allowed: &bc,
                ..delayed("b")
            },
            "bc / bc",
        ),
        (
            "delayed, not allowed",
            Inputs {
                allowed: &bc,
                ..delayed("a")
            },
            "NotAllowed(\"n\")",
        ),
        (
            "delayed, CSINode gone",
            gone(None, Some(labels(&[]))),
            "NodeGone(\"n\")",
        ),
        (
            "delayed, Node gone",
            gone(Some(keys(&["zone"])), None),
            "NodeGone(\"n\")",
        ),
        (
            "delayed, driver not there",
            gone(Some(keys(&[])), Some(labels(&[]))),
            "NoKeys(\"n\")",
        ),
        (
            "delayed, label missing",
            gone(Some(keys(&["zone"])), Some(labels(&[]))),
            "NoLabels(\"n\")",
        ),
        (
            "immediate, hash even",
            Inputs {
                claim_name: "b",
                ..base.clone()
            },
            "ab / ba",
        ),
        (
            "immediate, next ordinal",
            Inputs {
                claim_name: "x-b-1",
                ..base.clone()
            },
            "ab / ab",
        ),
        (
            "immediate, allowed",
            Inputs {
                allowed: &allowed(&["c"]),
                ..base.clone()
            },
            "c / c",
        ),
        (
            "immediate, switched off",
            Inputs {
                immediate_topology: false,
                ..base.clone()
            },
            "none",
        ),
        (
            "immediate, switched off but allowed given",
            Inputs {
                immediate_topology: false,
                allowed: &allowed(&["c"]),
                ..base.clone()
            },
            "c / c",
        ),
        (
            "immediate, driver nowhere",
            Inputs {
                cluster: &no_cluster,
                ..base.clone()
            },
            "NoSegments",
        ),
    ];
    for (name, inputs, expected) in cases {
        assert_eq!(render(requirement(&inputs)), expected, "{name}");
    }
}

#[test]
fn replicas_spread_and_claims_of_one_replica_meet() {
    let at = |name: &str| spread(name, 3);
    assert_eq!(at("data-web-0"), at("logs-web-0"));
    assert_eq!((at("data-web-0") + 1) % 3, at("data-web-1"));
    assert_eq!(at("web-1"), (at("web-0") + 1) % 3);
    // Published test vectors of FNV-1 (32 bits).
    assert_eq!(
        [fnv1_32(b""), fnv1_32(b"a"), fnv1_32(b"foobar")],
        [0x811c_9dc5, 0x050c_5d7e, 0x31f0_b262]
    );
}
