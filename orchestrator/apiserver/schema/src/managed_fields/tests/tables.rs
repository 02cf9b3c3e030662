//! Named cases, and what holds for all histories.

use proptest::prelude::*;
use serde_json::{Value, json};

use super::update;
use crate::fields_v1::{Path, Set, write_ordered};
use crate::managed_fields::{
    ApplyError, Managed, OneVersion, Operation, Writer, apply, from_scale, keep_times, to_scale,
};
use crate::registry::Registry;

const NOW: &str = "2026-03-01T12:00:00Z";

fn writer<'a>(manager: &'a str, ignored: &'a Set, now: &str) -> Writer<'a> {
    Writer {
        manager,
        subresource: "",
        api_version: "v1",
        ignored,
        now: now.parse().unwrap(),
    }
}

fn config_maps() -> OneVersion<'static> {
    let registry = Registry::builtin();
    OneVersion::new(
        registry,
        registry.type_by_gvk("", "v1", "ConfigMap").unwrap(),
        "v1",
    )
}

fn config_map(data: Value) -> Value {
    json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "a", "namespace": "default"}, "data": data})
}

fn owned(mut object: Value, managed: Option<Value>) -> Value {
    let metadata = object["metadata"].as_object_mut().unwrap();
    metadata.extend(managed.map(|managed| ("managedFields".to_owned(), managed)));
    object
}

/// Applies; gives the object with its owners.
fn applied(live: Option<&Value>, manager: &str, data: Value, force: bool) -> Result<Value, ApplyError> {
    let none = Set::default();
    let applied = apply(
        &config_maps(),
        &writer(manager, &none, NOW),
        live,
        &config_map(data),
        force,
    )?;
    Ok(owned(applied.object, applied.managed))
}

/// Updates; gives the object with its owners.
fn updated(live: Option<&Value>, manager: &str, data: Value, now: &str) -> Value {
    let none = Set::default();
    let new = config_map(data);
    let managed = update(&config_maps(), &writer(manager, &none, now), live, &new, None);
    owned(new, managed)
}

/// `manager operation field,field` of each entry.
fn owners(object: &Value) -> Vec<String> {
    let Some(managed) = object["metadata"].get("managedFields") else {
        return Vec::new();
    };
    let entries = Managed::decode(managed).unwrap().entries.into_iter();
    let shown = entries.map(|entry| {
        let paths: Vec<String> = entry.fields.paths().iter().map(Path::to_string).collect();
        format!(
            "{} {} {}",
            entry.manager,
            entry.operation.as_str(),
            paths.join(",")
        )
    });
    shown.collect()
}

#[test]
fn who_owns_what_after_two_applies() {
    type Case = (
        &'static str,
        Value,
        Value,
        bool,
        Option<Value>,
        &'static [&'static str],
    );
    let cases: [Case; 5] = [
        (
            "disjoint fields",
            json!({"x": "1"}),
            json!({"y": "1"}),
            false,
            Some(json!({"x": "1", "y": "1"})),
            &["a Apply .data.x", "b Apply .data.y"],
        ),
        (
            "the same value is shared",
            json!({"x": "1"}),
            json!({"x": "1", "y": "1"}),
            false,
            Some(json!({"x": "1", "y": "1"})),
            &["a Apply .data.x", "b Apply .data.x,.data.y"],
        ),
        (
            "another value is a conflict",
            json!({"x": "1"}),
            json!({"x": "2"}),
            false,
            None,
            &[],
        ),
        (
            "force takes the field",
            json!({"x": "1", "y": "1"}),
            json!({"x": "2"}),
            true,
            Some(json!({"x": "2", "y": "1"})),
            &["a Apply .data.y", "b Apply .data.x"],
        ),
        (
            "force takes the last field, and its owner goes",
            json!({"x": "1"}),
            json!({"x": "2"}),
            true,
            Some(json!({"x": "2"})),
            &["b Apply .data.x"],
        ),
    ];
    for (case, first, second, force, expected, expected_owners) in cases {
        let live = applied(None, "a", first, false).unwrap();
        match (applied(Some(&live), "b", second, force), expected) {
            (Ok(object), Some(expected)) => {
                assert_eq!(object["data"], expected, "{case}");
                assert_eq!(owners(&object), expected_owners, "{case}");
            }
            (Err(ApplyError::Conflict(_)), None) => {}
            (outcome, _) => panic!("{case}: {outcome:?}"),
        }
    }
}

#[test]
fn what_is_no_longer_applied_goes_unless_somebody_else_owns_it() {
    let live = applied(None, "a", json!({"x": "1", "y": "1", "z": "1"}), false).unwrap();
    let live = applied(Some(&live), "b", json!({"y": "1"}), false).unwrap();
    let less = applied(Some(&live), "a", json!({"z": "1"}), false).unwrap();
    assert_eq!(less["data"], json!({"y": "1", "z": "1"}));
    // Who applied what was there already has changed nothing, so no time, and stands first.
    assert_eq!(owners(&less), ["b Apply .data.y", "a Apply .data.z"]);
    // Somebody who updates owns what he changed, also against the one who applied it.
    let live = updated(Some(&less), "c", json!({"y": "1", "z": "2"}), NOW);
    assert_eq!(owners(&live), ["b Apply .data.y", "c Update .data.z"]);
    let conflict = applied(Some(&live), "a", json!({"z": "1"}), false).unwrap_err();
    assert_eq!(
        conflict.to_string(),
        "Apply failed with 1 conflict: conflict with \"c\" using v1: .data.z"
    );
}

#[test]
fn conflicts_are_told_by_manager() {
    let live = applied(None, "a", json!({"x": "1", "y": "1"}), false).unwrap();
    let live = updated(Some(&live), "b", json!({"x": "1", "y": "1", "z": "1"}), NOW);
    let wanted = json!({"x": "2", "y": "2", "z": "2"});
    let conflict = applied(Some(&live), "c", wanted, false).unwrap_err();
    assert_eq!(
        conflict.to_string(),
        "Apply failed with 3 conflicts: conflicts with \"a\":\n- .data.x\n- .data.y\nconflicts with \"b\" using v1:\n- .data.z"
    );
}

#[test]
fn the_first_apply_finds_who_was_there_before() {
    let bare = config_map(json!({"x": "1"}));
    let conflict = applied(Some(&bare), "a", json!({"x": "2"}), false).unwrap_err();
    assert!(
        conflict
            .to_string()
            .contains("\"before-first-apply\" using v1: .data.x"),
        "{conflict}"
    );
    let object = applied(Some(&bare), "a", json!({"y": "1"}), false).unwrap();
    assert_eq!(
        owners(&object),
        ["a Apply .data.y", "before-first-apply Update .data,.data.x"]
    );
    // Updates alone don't begin it.
    assert_eq!(
        owners(&updated(Some(&bare), "a", json!({"x": "2"}), NOW)),
        [""; 0]
    );
}

#[test]
fn kubectl_takes_over_what_it_applied_from_the_clients_side() {
    let annotation = |data: Value| json!({"kubectl.kubernetes.io/last-applied-configuration": config_map(data).to_string()});
    let mut old = config_map(json!({"x": "1", "y": "1"}));
    old["metadata"]["annotations"] = annotation(json!({"x": "1"}));
    let none = Set::default();
    let managed = update(
        &config_maps(),
        &writer("kubectl-client-side-apply", &none, NOW),
        None,
        &old,
        None,
    );
    let live = owned(old, managed);
    let taken = applied(Some(&live), "kubectl", json!({"x": "2"}), false).unwrap();
    assert_eq!(taken["data"], json!({"x": "2", "y": "1"}));
    let kept = &taken["metadata"]["annotations"]["kubectl.kubernetes.io/last-applied-configuration"];
    assert_eq!(kept, &json!(format!("{}\n", config_map(json!({"x": "2"})))));
    // Others have no such right, and kubectl none to what it didn't apply.
    assert!(applied(Some(&live), "other", json!({"x": "2"}), false).is_err());
    let conflict = applied(Some(&live), "kubectl", json!({"x": "2", "y": "2"}), false).unwrap_err();
    assert!(conflict.to_string().contains("1 conflict: ") && conflict.to_string().ends_with(".data.y"));
}

#[test]
fn owners_are_forgotten_on_request() {
    let none = Set::default();
    let live = updated(None, "a", json!({"x": "1"}), NOW);
    let new = config_map(json!({"x": "1"}));
    let own = live["metadata"]["managedFields"].clone();
    let mut foreign = own.clone();
    foreign[0]["manager"] = json!("z");
    let cases = [
        ("left out", None, Some("a")),
        ("an empty list", Some(json!([])), None),
        ("an empty entry", Some(json!([{}])), None),
        ("as they are", Some(own), Some("a")),
        ("others", Some(foreign), Some("z")),
        ("nonsense", Some(json!([{"manager": "x"}])), Some("a")),
    ];
    for (case, given, expected) in cases {
        let managed = update(
            &config_maps(),
            &writer("a", &none, NOW),
            Some(&live),
            &new,
            given.as_ref(),
        );
        let manager = managed
            .as_ref()
            .map(|managed| managed[0]["manager"].as_str().unwrap());
        assert_eq!(manager, expected, "{case}");
        let sub = Writer {
            subresource: "status",
            ..writer("a", &none, NOW)
        };
        let managed = update(&config_maps(), &sub, Some(&live), &new, given.as_ref());
        assert_eq!(
            managed,
            live["metadata"].get("managedFields").cloned(),
            "{case}: subresource"
        );
    }
}

#[test]
fn old_updaters_are_merged() {
    let mut live = updated(None, "m00", json!({"k00": "1"}), NOW);
    for n in 1..15 {
        let mut data = live["data"].clone();
        data[format!("k{n:02}")] = json!("1");
        let now = format!("2026-03-01T12:00:{n:02}Z");
        live = updated(Some(&live), &format!("m{n:02}"), data, &now);
    }
    let owners = owners(&live);
    assert_eq!(owners.len(), 10);
    assert_eq!(
        owners[0],
        "ancient-changes Update .data,.data.k00,.data.k01,.data.k02,.data.k03,.data.k04,.data.k05"
    );
    assert_eq!(owners[9], "m14 Update .data.k14");
}

#[test]
fn an_update_of_ones_own_fields_changes_the_time_alone() {
    let later = "2026-03-01T12:00:07Z";
    let first = updated(None, "a", json!({"x": "1"}), NOW);
    let both = updated(Some(&first), "b", json!({"x": "1", "y": "1"}), NOW);
    let after = updated(Some(&both), "a", json!({"x": "2", "y": "1"}), later);
    assert_eq!(owners(&after), ["b Update .data.y", "a Update .data,.data.x"]);
    assert_eq!(after["metadata"]["managedFields"][1]["time"], later);
    assert_eq!(after["metadata"]["managedFields"][0]["time"], NOW);
    // The long way ends at the same.
    let none = Set::default();
    let new = config_map(json!({"x": "2", "y": "1"}));
    let mut given = both["metadata"]["managedFields"].clone();
    given[0]["time"] = json!("2026-03-01T11:00:00Z");
    let long = update(
        &config_maps(),
        &writer("a", &none, later),
        Some(&both),
        &new,
        Some(&given),
    );
    let without_times = |managed: &Value| -> Vec<Value> {
        let entries = managed.as_array().unwrap().iter().cloned();
        entries
            .map(|mut entry| {
                entry["time"].take();
                entry
            })
            .collect()
    };
    assert_eq!(
        without_times(&long.unwrap()),
        without_times(&after["metadata"]["managedFields"])
    );
}

#[test]
fn idle_times() {
    let entry = |manager: &str, time: &str| {
        json!([{"manager": manager, "time": time, "fieldsV1": {"f:a": {}}}]).to_string()
    };
    let (old, later, other) = (entry("a", "1"), entry("a", "2"), entry("b", "2"));
    let cases = [
        ("only the time", Some(&old), Some(&later), Some(&old)),
        ("another manager", Some(&old), Some(&other), Some(&other)),
        ("the first", None, Some(&later), Some(&later)),
        ("the last", Some(&old), None, None),
    ];
    for (case, old, new, expected) in cases {
        let kept = keep_times(old.map(String::as_str), new.cloned());
        assert_eq!(kept.as_ref(), expected, "{case}");
    }
}

#[test]
fn configurations_that_are_refused() {
    let none = Set::default();
    let by = writer("a", &none, NOW);
    let mut stating = config_map(json!({}));
    stating["metadata"]["managedFields"] = json!([]);
    let mut unknown = config_map(json!({}));
    unknown["nonsense"] = json!(1);
    let cases = [
        (stating, "metadata.managedFields must be nil"),
        (
            unknown,
            "failed to create typed patch object (default/a; /v1, Kind=ConfigMap): .nonsense: field not declared in schema",
        ),
    ];
    for (config, expected) in cases {
        let error = apply(&config_maps(), &by, None, &config, false).unwrap_err();
        assert_eq!(error.to_string(), expected);
    }
}

#[test]
fn scales_share_their_field_with_the_object() {
    let replicas = |version: &str| (version == "apps/v1").then(|| Path::fields(&["spec", "replicas"]));
    let entry = |manager: &str, operation: Operation, version: &str, sub: &str, fields: Value| {
        let mut entry = json!({"manager": manager, "operation": operation.as_str(), "apiVersion": version,
            "fieldsType": "FieldsV1", "fieldsV1": fields});
        if !sub.is_empty() {
            entry["subresource"] = json!(sub);
        }
        entry
    };
    use Operation::{Apply, Update};
    let own = json!({"f:spec": {"f:replicas": {}, "f:paused": {}}});
    let only = json!({"f:spec": {"f:replicas": {}}});
    let parent = json!([
        entry("a", Apply, "apps/v1", "", own.clone()),
        entry("b", Update, "apps/v2", "", only.clone())
    ]);
    let scale = to_scale(&parent, replicas).unwrap();
    assert_eq!(
        scale,
        Some(json!([entry("a", Apply, "autoscaling/v1", "", only.clone())]))
    );
    let kept = from_scale(&parent, &scale.unwrap(), "apps/v1", replicas)
        .unwrap()
        .unwrap();
    assert_eq!(kept, parent);
    let taken = json!([entry("hpa", Update, "autoscaling/v1", "scale", only.clone())]);
    let after = from_scale(&parent, &taken, "apps/v1", replicas).unwrap().unwrap();
    let rest = json!({"f:spec": {"f:paused": {}}});
    assert_eq!(
        after,
        json!([
            entry("a", Apply, "apps/v1", "", rest),
            entry("b", Update, "apps/v2", "", only.clone()),
            entry("hpa", Update, "apps/v1", "scale", only),
        ])
    );
}

fn data() -> impl Strategy<Value = Value> {
    let key = prop::sample::select(vec!["k1", "k2", "k3", "k4"]);
    let entries = prop::collection::btree_map(key, prop::sample::select(vec!["1", "2"]), 0..4);
    entries.prop_map(|entries| json!(entries))
}

proptest! {
    #[test]
    fn applying_again_changes_nothing(before in data(), config in data(), force: bool) {
        let live = updated(None, "a", before, NOW);
        if let Ok(once) = applied(Some(&live), "b", config.clone(), force) {
            prop_assert_eq!(applied(Some(&once), "b", config, false).unwrap(), once);
        }
    }

    #[test]
    fn disjoint_appliers_never_conflict(a in data(), b in data()) {
        let prefixed = |data: &Value, prefix: &str| -> Value {
            let entries = data.as_object().unwrap().iter();
            entries.map(|(key, value)| (format!("{prefix}{key}"), value.clone())).collect::<serde_json::Map<_, _>>().into()
        };
        let live = applied(None, "a", prefixed(&a, "a"), false).unwrap();
        let both = applied(Some(&live), "b", prefixed(&b, "b"), false).unwrap();
        // Each takes back its own and nothing else.
        let rest = applied(Some(&both), "a", json!({}), false).unwrap();
        let left: Vec<&String> = rest["data"].as_object().into_iter().flat_map(serde_json::Map::keys).collect();
        prop_assert!(left.iter().all(|key| key.starts_with('b')), "{:?}", left);
        prop_assert_eq!(left.len(), b.as_object().unwrap().len());
    }

    #[test]
    fn a_removed_field_goes_iff_nobody_else_owns_it(a in data(), b in data()) {
        let live = applied(None, "a", a.clone(), false).unwrap();
        let Ok(both) = applied(Some(&live), "b", b.clone(), false) else { return Ok(()) };
        let rest = applied(Some(&both), "a", json!({}), false).unwrap();
        for key in ["k1", "k2", "k3", "k4"] {
            let is_there = rest["data"].get(key).is_some();
            prop_assert_eq!(is_there, b.get(key).is_some(), "{}", key);
        }
    }

    #[test]
    fn every_field_has_an_owner_and_updates_have_one_alone(steps in prop::collection::vec((0u8..3, data()), 1..6)) {
        let mut live: Option<Value> = None;
        for (manager, data) in steps {
            live = Some(updated(live.as_ref(), ["a", "b", "c"][usize::from(manager)], data, NOW));
        }
        let live = live.unwrap();
        let text = |value: &Value| { let mut out = Vec::new(); write_ordered(&mut out, value); out };
        let managed = live["metadata"].get("managedFields").cloned().unwrap_or_default();
        prop_assert_eq!(serde_json::from_slice::<Value>(&text(&managed)).unwrap(), managed.clone());
        for (key, _) in live["data"].as_object().unwrap() {
            let path = Path::fields(&["data", key]);
            let entries = Managed::decode(&managed).unwrap().entries;
            prop_assert_eq!(entries.iter().filter(|entry| entry.fields.has(&path)).count(), 1, "{}", key);
        }
    }
}
