//! Tables of what objects use.

use serde_json::json;

use super::*;

const PODS: Kind<'static> = Kind {
    group: "",
    plural: "pods",
};
const CLAIMS: Kind<'static> = Kind {
    group: "",
    plural: "persistentvolumeclaims",
};

fn now() -> Timestamp {
    "2026-03-01T12:00:00Z".parse().unwrap()
}

fn told(amounts: &Amounts) -> Value {
    Value::Object(
        amounts
            .iter()
            .map(|(name, amount)| (name.clone(), json!(amount.to_string())))
            .collect(),
    )
}

fn pod(resources: Value) -> Value {
    json!({"metadata": {"name": "p"}, "spec": {"containers": [{"name": "c", "resources": resources}]}})
}

#[test]
fn usages() {
    let gpu = pod(
        json!({"requests": {"cpu": "1", "example.com/gpu": "2"}, "limits": {"memory": "1Gi", "example.com/gpu": "2"}}),
    );
    let mut ended = gpu.clone();
    ended["status"] = json!({"phase": "Succeeded"});
    let mut given_up = gpu.clone();
    given_up["metadata"] =
        json!({"deletionTimestamp": "2026-03-01T11:00:00Z", "deletionGracePeriodSeconds": 30});
    let cases = [
        (
            PODS,
            gpu,
            json!({"count/pods": "1", "pods": "1", "cpu": "1", "requests.cpu": "1", "requests.example.com/gpu": "2", "limits.memory": "1Gi"}),
        ),
        (PODS, ended, json!({"count/pods": "1"})),
        (PODS, given_up, json!({"count/pods": "1"})),
        (
            Kind {
                group: "apps",
                plural: "deployments",
            },
            json!({}),
            json!({"count/deployments.apps": "1"}),
        ),
        (
            Kind {
                group: "",
                plural: "configmaps",
            },
            json!({}),
            json!({"count/configmaps": "1", "configmaps": "1"}),
        ),
        (
            Kind {
                group: "",
                plural: "services",
            },
            json!({"spec": {"type": "LoadBalancer", "ports": [{}, {}]}}),
            json!({"count/services": "1", "services": "1", "services.nodeports": "2", "services.loadbalancers": "1"}),
        ),
        (
            CLAIMS,
            json!({"spec": {"storageClassName": "fast", "resources": {"requests": {"storage": "1Gi"}}}, "status": {"allocatedResources": {"storage": "2Gi"}}}),
            json!({"count/persistentvolumeclaims": "1", "persistentvolumeclaims": "1", "requests.storage": "2Gi",
                "fast.storageclass.storage.k8s.io/persistentvolumeclaims": "1", "fast.storageclass.storage.k8s.io/requests.storage": "2Gi"}),
        ),
    ];
    for (kind, object, expected) in cases {
        let used = usage(kind, &object, now());
        assert_eq!(told(&used), expected, "{object}");
        for name in used.keys() {
            assert!(kind.is_counted_by(name), "{name}");
        }
    }
    for (name, expected) in [
        ("pods", true),
        ("requests.storage", false),
        ("count/deployments.apps", false),
        ("hugepages-2Mi", true),
    ] {
        assert_eq!(PODS.is_counted_by(name), expected, "{name}");
    }
}

#[test]
fn scopes() {
    let quota = |scope: &str| json!({"spec": {"scopes": [scope]}});
    let of_class = |operator: &str, values: Value| json!({"spec": {"scopeSelector": {"matchExpressions": [{"scopeName": "PriorityClass", "operator": operator, "values": values}]}}});
    let bare = pod(json!({}));
    let busy = pod(json!({"requests": {"cpu": "1"}}));
    let mut short = bare.clone();
    short["spec"]["activeDeadlineSeconds"] = json!(5);
    let mut high = bare.clone();
    high["spec"]["priorityClassName"] = json!("high");
    let mut near = bare.clone();
    near["spec"]["affinity"] = json!({"podAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": [{"namespaces": ["other"]}]}});
    let cases = [
        ("no scope", json!({"spec": {}}), &bare, true),
        ("best effort", quota("BestEffort"), &bare, true),
        ("not best effort", quota("BestEffort"), &busy, false),
        ("asks for something", quota("NotBestEffort"), &busy, true),
        ("ends", quota("Terminating"), &short, true),
        ("does not end", quota("NotTerminating"), &short, false),
        ("of the class", of_class("In", json!(["high"])), &high, true),
        ("of another class", of_class("In", json!(["low"])), &high, false),
        ("of any class", of_class("Exists", json!([])), &bare, false),
        ("near others", quota("CrossNamespacePodAffinity"), &near, true),
        ("near nobody", quota("CrossNamespacePodAffinity"), &bare, false),
    ];
    for (case, quota, pod, expected) in cases {
        assert_eq!(is_in_scope(&quota, PODS, pod), expected, "{case}");
    }
    assert!(!is_in_scope(&quota("BestEffort"), CLAIMS, &bare));
}

#[test]
fn charges() {
    let quota = |hard: Value| json!({"metadata": {"name": "q"}, "spec": {"hard": hard}});
    let cpu = |amount: &str| pod(json!({"requests": {"cpu": amount}}));
    let cases = [
        (
            "fits",
            quota(json!({"pods": "2"})),
            json!({"pods": "1"}),
            cpu("1"),
            Ok(json!({"pods": "2"})),
        ),
        (
            "one too many",
            quota(json!({"pods": "2"})),
            json!({"pods": "2"}),
            cpu("1"),
            Err("exceeded quota: q, requested: pods=1, used: pods=2, limited: pods=2"),
        ),
        (
            "too much",
            quota(json!({"pods": "9", "requests.cpu": "2"})),
            json!({"pods": "1", "requests.cpu": "1500m"}),
            cpu("1"),
            Err(
                "exceeded quota: q, requested: requests.cpu=1, used: requests.cpu=1500m, limited: requests.cpu=2",
            ),
        ),
        (
            "says nothing",
            quota(json!({"requests.cpu": "2", "limits.memory": "1Gi"})),
            json!({}),
            cpu("1"),
            Err("failed quota: q: must specify limits.memory for: c"),
        ),
        (
            "of other kinds",
            quota(json!({"services": "0"})),
            json!({}),
            cpu("1"),
            Ok(Value::Null),
        ),
        (
            "first use",
            quota(json!({"requests.cpu": "2"})),
            json!({"requests.cpu": "0"}),
            cpu("1"),
            Ok(json!({"requests.cpu": "1"})),
        ),
    ];
    for (case, quota, used, new, expected) in cases {
        let write = Write {
            kind: PODS,
            old: None,
            new: &new,
            now: now(),
        };
        let found = charge(&quota, &amounts(Some(&used)), &write);
        let found = found.map(|after| after.map_or(Value::Null, |after| told(&after)));
        assert_eq!(found, expected.map_err(str::to_owned), "{case}");
    }
}

#[test]
fn growth_is_charged() {
    let claim = |size: &str| json!({"spec": {"resources": {"requests": {"storage": size}}}});
    let quota = json!({"metadata": {"name": "q"}, "spec": {"hard": {"requests.storage": "3Gi", "persistentvolumeclaims": "1"}}});
    let used = amounts(Some(
        &json!({"requests.storage": "1Gi", "persistentvolumeclaims": "1"}),
    ));
    let old = claim("1Gi");
    for (size, expected) in [("2Gi", Ok(Some("2Gi"))), ("1Gi", Ok(None)), ("5Gi", Err(()))] {
        let new = claim(size);
        let write = Write {
            kind: CLAIMS,
            old: Some(&old),
            new: &new,
            now: now(),
        };
        let found = charge(&quota, &used, &write).map_err(drop);
        let found = found.map(|after| after.map(|after| after["requests.storage"].to_string()));
        assert_eq!(found, expected.map(|size| size.map(str::to_owned)), "{size}");
    }
}
