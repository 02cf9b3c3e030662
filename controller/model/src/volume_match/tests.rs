//! Cases of the matching tables, and the index against a plain walk through all PVs.

use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;
use crate::keys;

/// A claim `ns/c` with UID `u` that wants 5Gi ReadWriteOnce without class; `spec` overrides.
fn claim(spec: Value) -> ClaimRequest {
    let mut whole = json!({"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "5Gi"}}});
    merge(&mut whole, spec);
    let claim: PersistentVolumeClaim = serde_json::from_value(
        json!({"metadata": {"namespace": "ns", "name": "c", "uid": "u"}, "spec": whole}),
    )
    .unwrap();
    ClaimRequest::try_from(&claim).unwrap()
}

/// An Available PV of 10Gi ReadWriteOnce without class; `other` overrides.
fn pv(name: &str, other: Value) -> Arc<PersistentVolume> {
    let mut whole = json!({
        "metadata": {"name": name},
        "spec": {"accessModes": ["ReadWriteOnce"], "capacity": {"storage": "10Gi"}},
        "status": {"phase": "Available"},
    });
    merge(&mut whole, other);
    Arc::new(serde_json::from_value(whole).unwrap())
}

fn merge(base: &mut Value, patch: Value) {
    match (base, patch) {
        (Value::Object(base), Value::Object(patch)) => {
            for (key, value) in patch {
                merge(base.entry(key).or_insert(Value::Null), value);
            }
        }
        (base, patch) => *base = patch,
    }
}

fn candidates(pvs: &[Arc<PersistentVolume>]) -> Candidates {
    let mut candidates = Candidates::default();
    pvs.iter().for_each(|pv| candidates.upsert(pv.clone()));
    candidates
}

fn name(pv: Option<&Arc<PersistentVolume>>) -> Option<&str> {
    pv.and_then(|pv| pv.metadata.name.as_deref())
}

fn linked(uid: &str) -> Value {
    json!({"claimRef": {"namespace": "ns", "name": "c", "uid": uid}})
}

/// Name, claim spec, PVs, delayed, expected PV.
type BinderCase = (&'static str, Value, Pvs, bool, Option<&'static str>);
/// Name, PVs, expected PV.
type NodeCase = (&'static str, Pvs, Option<&'static str>);
type Pvs = Vec<Arc<PersistentVolume>>;

#[test]
#[expect(clippy::too_many_lines, reason = "one flat table")]
fn binder_choice() {
    let size = |storage: &str| json!({"spec": {"capacity": {"storage": storage}}});
    let modes = |modes: &[&str], storage: &str| json!({"spec": {"accessModes": modes, "capacity": {"storage": storage}}});
    let cases: Vec<BinderCase> = vec![
        ("nothing there", json!({}), vec![], false, None),
        (
            "smallest that is large enough",
            json!({}),
            vec![pv("a", size("100Gi")), pv("b", size("6Gi")), pv("c", size("4Gi"))],
            false,
            Some("b"),
        ),
        (
            "exactly large enough",
            json!({}),
            vec![pv("a", size("5Gi"))],
            false,
            Some("a"),
        ),
        ("too small", json!({}), vec![pv("a", size("5119Mi"))], false, None),
        (
            "exact modes beat a smaller PV",
            json!({}),
            vec![
                pv("a", modes(&["ReadWriteOnce", "ReadOnlyMany"], "5Gi")),
                pv("b", modes(&["ReadWriteOnce"], "50Gi")),
            ],
            false,
            Some("b"),
        ),
        (
            "more modes will do",
            json!({}),
            vec![pv("a", modes(&["ReadWriteOnce", "ReadOnlyMany"], "5Gi"))],
            false,
            Some("a"),
        ),
        (
            "a mode is missing",
            json!({"accessModes": ["ReadWriteMany"]}),
            vec![pv("a", json!({}))],
            false,
            None,
        ),
        (
            "class equal",
            json!({"storageClassName": "fast"}),
            vec![
                pv("a", json!({})),
                pv("b", json!({"spec": {"storageClassName": "fast"}})),
            ],
            false,
            Some("b"),
        ),
        (
            "no class takes no PV of a class",
            json!({}),
            vec![pv("a", json!({"spec": {"storageClassName": "fast"}}))],
            false,
            None,
        ),
        (
            "empty class is no class",
            json!({"storageClassName": ""}),
            vec![pv("a", json!({}))],
            false,
            Some("a"),
        ),
        (
            "beta class of the PV wins",
            json!({"storageClassName": "fast"}),
            vec![pv(
                "a",
                json!({"metadata": {"annotations": {keys::STORAGE_CLASS_BETA: "fast"}}, "spec": {"storageClassName": "slow"}}),
            )],
            false,
            Some("a"),
        ),
        (
            "block wants block",
            json!({"volumeMode": "Block"}),
            vec![
                pv("a", json!({})),
                pv("b", json!({"spec": {"volumeMode": "Block"}})),
            ],
            false,
            Some("b"),
        ),
        (
            "unset volume mode is Filesystem",
            json!({}),
            vec![pv("a", json!({"spec": {"volumeMode": "Filesystem"}}))],
            false,
            Some("a"),
        ),
        (
            "filesystem wants no block",
            json!({}),
            vec![pv("a", json!({"spec": {"volumeMode": "Block"}}))],
            false,
            None,
        ),
        (
            "attributes class equal",
            json!({"volumeAttributesClassName": "gold"}),
            vec![
                pv("a", json!({})),
                pv("b", json!({"spec": {"volumeAttributesClassName": "gold"}})),
            ],
            false,
            Some("b"),
        ),
        (
            "empty attributes class is none",
            json!({"volumeAttributesClassName": ""}),
            vec![pv("a", json!({}))],
            false,
            Some("a"),
        ),
        (
            "selector",
            json!({"selector": {"matchLabels": {"k": "v"}}}),
            vec![
                pv("a", size("5Gi")),
                pv("b", json!({"metadata": {"labels": {"k": "v"}}})),
            ],
            false,
            Some("b"),
        ),
        (
            "selector without match",
            json!({"selector": {"matchLabels": {"k": "v"}}}),
            vec![pv("a", json!({}))],
            false,
            None,
        ),
        (
            "deleting",
            json!({}),
            vec![pv(
                "a",
                json!({"metadata": {"deletionTimestamp": "2026-01-01T00:00:00Z"}}),
            )],
            false,
            None,
        ),
        (
            "phase Pending",
            json!({}),
            vec![pv("a", json!({"status": {"phase": "Pending"}}))],
            false,
            None,
        ),
        (
            "phase Released",
            json!({}),
            vec![pv("a", json!({"status": {"phase": "Released"}}))],
            false,
            None,
        ),
        (
            "linked to another claim",
            json!({}),
            vec![pv(
                "a",
                json!({"spec": {"claimRef": {"namespace": "ns", "name": "d"}}}),
            )],
            false,
            None,
        ),
        (
            "linked to a claim of another namespace",
            json!({}),
            vec![pv(
                "a",
                json!({"spec": {"claimRef": {"namespace": "ms", "name": "c"}}}),
            )],
            false,
            None,
        ),
        (
            "linked to a predecessor of the same name",
            json!({}),
            vec![pv("a", json!({"spec": linked("old")}))],
            false,
            None,
        ),
        (
            "linked by name beats smaller",
            json!({}),
            vec![pv("a", size("5Gi")), pv("b", json!({"spec": linked("")}))],
            false,
            Some("b"),
        ),
        (
            "linked by uid beats smaller",
            json!({}),
            vec![pv("a", size("5Gi")), pv("b", json!({"spec": linked("u")}))],
            false,
            Some("b"),
        ),
        (
            "linked needs no phase",
            json!({}),
            vec![pv(
                "b",
                json!({"spec": linked("u"), "status": {"phase": "Pending"}}),
            )],
            false,
            Some("b"),
        ),
        (
            "linked needs no class",
            json!({"storageClassName": "fast"}),
            vec![pv("b", json!({"spec": linked("u")}))],
            false,
            Some("b"),
        ),
        (
            "linked needs no labels",
            json!({"selector": {"matchLabels": {"k": "v"}}}),
            vec![pv("b", json!({"spec": linked("u")}))],
            false,
            Some("b"),
        ),
        (
            "linked but too small",
            json!({"resources": {"requests": {"storage": "11Gi"}}}),
            vec![pv("b", json!({"spec": linked("u")}))],
            false,
            None,
        ),
        (
            "linked but of another volume mode",
            json!({"volumeMode": "Block"}),
            vec![pv("b", json!({"spec": linked("u")}))],
            false,
            None,
        ),
        (
            "linked but of another attributes class",
            json!({"volumeAttributesClassName": "gold"}),
            vec![pv("b", json!({"spec": linked("u")}))],
            false,
            None,
        ),
        (
            "linked but without the mode",
            json!({"accessModes": ["ReadWriteMany"]}),
            vec![pv("b", json!({"spec": linked("u")}))],
            false,
            None,
        ),
        (
            "linked but deleting",
            json!({}),
            vec![pv(
                "b",
                json!({"metadata": {"deletionTimestamp": "2026-01-01T00:00:00Z"}, "spec": linked("u")}),
            )],
            false,
            None,
        ),
        (
            "free with fewer modes beats linked with more",
            json!({}),
            vec![
                pv("a", json!({})),
                pv(
                    "b",
                    json!({"spec": {"accessModes": ["ReadWriteOnce", "ReadWriteMany"], "claimRef": {"namespace": "ns", "name": "c"}}}),
                ),
            ],
            false,
            Some("a"),
        ),
        (
            "delayed leaves free ones",
            json!({}),
            vec![pv("a", json!({}))],
            true,
            None,
        ),
        (
            "delayed takes linked ones",
            json!({}),
            vec![pv("a", json!({})), pv("b", json!({"spec": linked("u")}))],
            true,
            Some("b"),
        ),
        (
            "equal ones by name",
            json!({}),
            vec![pv("b", json!({})), pv("a", json!({}))],
            false,
            Some("a"),
        ),
        (
            "unreadable capacity",
            json!({}),
            vec![pv("a", size("large"))],
            false,
            None,
        ),
    ];
    for (case, spec, pvs, is_delayed, expected) in cases {
        let index = candidates(&pvs);
        let found = index.find_for_claim(&claim(spec), is_delayed, |_| false);
        assert_eq!(name(found), expected, "{case}");
    }
}

#[test]
fn scheduler_choice() {
    let node = |node: &str, size: &str| json!({"metadata": {"labels": {"node": node}}, "spec": {"capacity": {"storage": size}}});
    let on_n1 = |pv: &PersistentVolume| {
        pv.metadata
            .labels
            .as_ref()
            .is_none_or(|labels| labels.get("node").is_none_or(|n| n == "n1"))
    };
    let reserved = |node: &str| json!({"metadata": {"labels": {"node": node}}, "spec": linked("u")});
    let modes =
        json!({"spec": {"accessModes": ["ReadWriteOnce", "ReadOnlyMany"], "capacity": {"storage": "5Gi"}}});
    let cases: Vec<NodeCase> = vec![
        (
            "smallest on the node",
            vec![
                pv("a", node("n2", "5Gi")),
                pv("b", node("n1", "7Gi")),
                pv("c", node("n1", "6Gi")),
            ],
            Some("c"),
        ),
        (
            "smallest beats exact modes",
            vec![pv("a", modes), pv("b", json!({}))],
            Some("a"),
        ),
        (
            "linked on the node",
            vec![pv("a", node("n1", "5Gi")), pv("b", reserved("n1"))],
            Some("b"),
        ),
        (
            "linked elsewhere spoils the node",
            vec![pv("a", node("n1", "5Gi")), pv("b", reserved("n2"))],
            None,
        ),
        (
            "excluded",
            vec![pv("x", node("n1", "5Gi")), pv("b", node("n1", "6Gi"))],
            Some("b"),
        ),
        (
            "linked in another class is not seen",
            vec![
                pv("a", json!({})),
                pv(
                    "b",
                    json!({"spec": {"storageClassName": "other", "claimRef": {"namespace": "ns", "name": "c"}}}),
                ),
            ],
            Some("a"),
        ),
        (
            "not available",
            vec![pv("a", json!({"status": {"phase": "Bound"}}))],
            None,
        ),
    ];
    for (case, pvs, expected) in cases {
        let index = candidates(&pvs);
        let is_excluded = |pv: &PersistentVolume| pv.metadata.name.as_deref() == Some("x");
        let found = index.find_for_node(&claim(json!({})), is_excluded, on_n1);
        assert_eq!(name(found), expected, "{case}");
    }
}

#[test]
fn chosen_by_the_user() {
    let fast = json!({"spec": {"storageClassName": "fast"}});
    let cases = [
        ("fits", json!({}), json!({}), Ok(())),
        (
            "deleting",
            json!({}),
            json!({"metadata": {"deletionTimestamp": "2026-01-01T00:00:00Z"}}),
            Err(Mismatch::Deleting),
        ),
        (
            "unreadable",
            json!({}),
            json!({"spec": {"capacity": {"storage": "x"}}}),
            Err(Mismatch::Unreadable),
        ),
        (
            "too small",
            json!({}),
            json!({"spec": {"capacity": {"storage": "1Gi"}}}),
            Err(Mismatch::TooSmall),
        ),
        ("other class", json!({}), fast.clone(), Err(Mismatch::Class)),
        ("same class", json!({"storageClassName": "fast"}), fast, Ok(())),
        (
            "other attributes class",
            json!({"volumeAttributesClassName": "gold"}),
            json!({}),
            Err(Mismatch::AttributesClass),
        ),
        (
            "block",
            json!({"volumeMode": "Block"}),
            json!({}),
            Err(Mismatch::VolumeMode),
        ),
        (
            "modes",
            json!({"accessModes": ["ReadWriteMany"]}),
            json!({}),
            Err(Mismatch::AccessModes),
        ),
        (
            "selector is ignored",
            json!({"selector": {"matchLabels": {"k": "v"}}}),
            json!({}),
            Ok(()),
        ),
        (
            "phase is ignored",
            json!({}),
            json!({"status": {"phase": "Released"}}),
            Ok(()),
        ),
    ];
    for (case, spec, other, expected) in cases {
        assert_eq!(check_chosen(&pv("a", other), &claim(spec)), expected, "{case}");
    }
}

#[test]
fn index_follows_changes() {
    let mut index = candidates(&[pv("a", json!({})), pv("b", json!({}))]);
    let request = claim(json!({}));
    index.upsert(pv("a", json!({"status": {"phase": "Bound"}})));
    assert_eq!(name(index.find_for_claim(&request, false, |_| false)), Some("b"));
    index.upsert(pv("a", json!({"spec": linked("u")})));
    assert_eq!(name(index.find_for_claim(&request, false, |_| false)), Some("a"));
    index.remove("a");
    index.remove("b");
    index.remove("never");
    assert!(index.is_empty() && index.free.is_empty() && index.reserved.is_empty());
}

/// The table of the reference, walked in its order over one group of PVs.
fn walk<'a>(
    pvs: impl Iterator<Item = &'a Arc<PersistentVolume>>,
    request: &ClaimRequest,
    is_delayed: bool,
) -> Option<&'a Arc<PersistentVolume>> {
    let mut best: Option<&Arc<PersistentVolume>> = None;
    for pv in pvs {
        let reference = volume::claim_ref(pv);
        let is_linked = reference.is_some_and(|r| {
            r.namespace.as_deref() == Some("ns")
                && r.name.as_deref() == Some("c")
                && r.uid
                    .as_deref()
                    .is_none_or(|uid| uid.is_empty() || uid == request.uid)
        });
        let capacity = volume::capacity(pv).unwrap();
        if (reference.is_some() && !is_linked)
            || capacity < request.size
            || volume::is_block(pv) != request.is_block
            || pv.metadata.deletion_timestamp.is_some()
        {
            continue;
        }
        if is_linked {
            return Some(pv);
        }
        if is_delayed || volume::phase(pv) != PvPhase::Available || volume::class_name(pv) != request.class {
            continue;
        }
        if best.is_none_or(|best| volume::capacity(best).unwrap() > capacity) {
            best = Some(pv);
        }
    }
    best
}

fn any_pv() -> impl Strategy<Value = Value> {
    let modes = prop_oneof![
        Just(json!(["ReadWriteOnce"])),
        Just(json!(["ReadOnlyMany"])),
        Just(json!(["ReadWriteOnce", "ReadWriteMany"])),
        Just(json!(["ReadWriteOnce", "ReadOnlyMany", "ReadWriteMany"])),
    ];
    let reference = prop_oneof![
        6 => Just(json!(null)),
        1 => Just(json!({"namespace": "ns", "name": "c"})),
        1 => Just(json!({"namespace": "ns", "name": "c", "uid": "u"})),
        1 => Just(json!({"namespace": "ns", "name": "c", "uid": "old"})),
        1 => Just(json!({"namespace": "ns", "name": "d"})),
    ];
    let phase = prop_oneof![4 => Just("Available"), 1 => Just("Pending"), 1 => Just("Released")];
    let class = prop_oneof![2 => Just(""), 1 => Just("fast")];
    let mode = prop_oneof![4 => Just("Filesystem"), 1 => Just("Block")];
    let deleted = prop_oneof![6 => Just(json!(null)), 1 => Just(json!("2026-01-01T00:00:00Z"))];
    (modes, reference, phase, class, mode, deleted, 1..12u32).prop_map(
        |(modes, reference, phase, class, mode, deleted, size)| {
            json!({
                "metadata": {"deletionTimestamp": deleted},
                "spec": {"accessModes": modes, "claimRef": reference, "storageClassName": class, "volumeMode": mode,
                    "capacity": {"storage": format!("{size}Gi")}},
                "status": {"phase": phase},
            })
        },
    )
}

proptest! {
    #[test]
    fn index_finds_what_a_walk_finds(
        pvs in prop::collection::vec(any_pv(), 0..12),
        delayed in any::<bool>(),
        class in prop_oneof![Just(""), Just("fast")],
    ) {
        let pvs: Vec<_> = pvs.into_iter().enumerate().map(|(i, other)| pv(&format!("pv{i:02}"), other)).collect();
        let request = claim(json!({"storageClassName": class}));
        let index = candidates(&pvs);
        let found = index.find_for_claim(&request, delayed, |_| false);

        // Groups of equally many modes, fewest first, as the reference orders them.
        let walked = (1..=4).find_map(|count| {
            let group = pvs.iter().filter(|pv| {
                let modes = volume::access_modes(pv);
                modes.len() == count && modes.contains_all(request.modes)
            });
            walk(group, &request, delayed)
        });
        // Ties may fall either way: compare what decides.
        let key = |pv: Option<&Arc<PersistentVolume>>| pv.map(|pv| {
            let is_linked = volume::claim_ref(pv).is_some();
            let capacity = (!is_linked).then(|| volume::capacity(pv).unwrap().bytes());
            (is_linked, volume::access_modes(pv).len(), capacity)
        });
        prop_assert_eq!(key(found), key(walked));
    }

    #[test]
    fn index_forgets_nothing_and_keeps_nothing(changes in prop::collection::vec((0..4usize, prop::option::of(any_pv())), 0..40)) {
        let mut index = Candidates::default();
        let mut last: HashMap<String, Arc<PersistentVolume>> = HashMap::new();
        for (number, change) in changes {
            let name = format!("pv{number}");
            match change {
                Some(other) => {
                    let pv = pv(&name, other);
                    index.upsert(pv.clone());
                    last.insert(name, pv);
                }
                None => {
                    index.remove(&name);
                    last.remove(&name);
                }
            }
        }
        let fresh = candidates(&last.values().cloned().collect::<Vec<_>>());
        prop_assert_eq!(index.len(), fresh.len());
        prop_assert_eq!(&index.free, &fresh.free);
        prop_assert_eq!(&index.reserved, &fresh.reserved);
    }
}
