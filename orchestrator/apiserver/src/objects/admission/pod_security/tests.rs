//! Tables of the Pod Security Standards.

use serde_json::json;

use super::*;

fn standard(level: Level, version: Option<u32>) -> Standard {
    Standard { level, version }
}

fn labels(pairs: &[(&str, &str)]) -> Map<String, Value> {
    pairs
        .iter()
        .map(|(key, value)| (format!("{PREFIX}{key}"), json!(value)))
        .collect()
}

#[test]
fn policies_of_labels() {
    use Level::{Baseline, Privileged, Restricted};
    let latest = |level| standard(level, None);
    type Labels = &'static [(&'static str, &'static str)];
    let cases: [(&str, Labels, [Standard; 3], usize); 7] = [
        ("none", &[], [latest(Privileged); 3], 0),
        (
            "enforced, so warned of",
            &[("enforce", "baseline"), ("enforce-version", "v1.30")],
            [
                standard(Baseline, Some(30)),
                standard(Baseline, Some(30)),
                latest(Privileged),
            ],
            0,
        ),
        (
            "warned of more",
            &[("enforce", "baseline"), ("warn", "restricted")],
            [latest(Baseline), latest(Restricted), latest(Privileged)],
            0,
        ),
        (
            "warned of nothing",
            &[("enforce", "baseline"), ("warn", "privileged")],
            [latest(Baseline), latest(Privileged), latest(Privileged)],
            0,
        ),
        (
            "noted",
            &[("audit", "restricted"), ("audit-version", "latest")],
            [latest(Privileged), latest(Privileged), latest(Restricted)],
            0,
        ),
        (
            "no such level",
            &[("enforce", "strict"), ("warn", "strict"), ("audit", "strict")],
            [latest(Restricted), latest(Privileged), latest(Privileged)],
            3,
        ),
        (
            "no such version",
            &[("enforce", "baseline"), ("enforce-version", "v1.x")],
            [latest(Baseline), latest(Baseline), latest(Privileged)],
            1,
        ),
    ];
    for (case, given, [enforce, warn, audit], faults) in cases {
        let (policy, causes) = Policy::of(Some(&labels(given)));
        assert_eq!(policy, Policy { enforce, warn, audit }, "{case}");
        assert_eq!(causes.len(), faults, "{case}: {causes:?}");
    }
    assert_eq!(standard(Restricted, Some(3)).to_string(), "restricted:v1.3");
    assert!(Policy::of(None).0.allows_everything());
}

/// A pod that a restricted namespace takes.
fn good() -> Value {
    json!({"metadata": {"name": "p"}, "spec": {
        "securityContext": {"runAsNonRoot": true, "seccompProfile": {"type": "RuntimeDefault"}},
        "volumes": [{"name": "v", "emptyDir": {}}],
        "containers": [{"name": "a", "securityContext": {"allowPrivilegeEscalation": false, "capabilities": {"drop": ["ALL"]}}}]}})
}

fn edited(path: &str, value: Value) -> Value {
    let mut pod = good();
    let (outer, last) = path.rsplit_once('/').unwrap();
    let mut at = &mut pod;
    for part in outer.split('/').filter(|part| !part.is_empty()) {
        at = match part.parse::<usize>() {
            Ok(index) => &mut at[index],
            Err(_) => &mut at[part],
        };
    }
    at[last] = value;
    pod
}

#[test]
#[expect(clippy::too_many_lines, reason = "one flat table")]
fn checks_of_the_baseline() {
    let context = "/spec/containers/0/securityContext";
    let cases = [
        (
            "/spec/hostNetwork".to_owned(),
            json!(true),
            "host namespaces (hostNetwork=true)",
        ),
        (
            "/spec/volumes".to_owned(),
            json!([{"name": "h", "hostPath": {"path": "/"}}]),
            "hostPath volumes (volume \"h\")",
        ),
        (
            "/spec/containers/0/ports".to_owned(),
            json!([{"hostPort": 80}, {"hostPort": 443}]),
            "hostPort (container \"a\" uses hostPorts 443, 80)",
        ),
        (
            format!("{context}/privileged"),
            json!(true),
            "privileged (container \"a\" must not set securityContext.privileged=true)",
        ),
        (
            format!("{context}/capabilities"),
            json!({"add": ["NET_RAW", "CHOWN"]}),
            "non-default capabilities (container \"a\" must not include \"NET_RAW\" in securityContext.capabilities.add)",
        ),
        (
            format!("{context}/procMount"),
            json!("Unmasked"),
            "procMount (container \"a\" must not set securityContext.procMount to \"Unmasked\")",
        ),
        (
            format!("{context}/seccompProfile"),
            json!({"type": "Unconfined"}),
            "seccompProfile (container \"a\" must not set securityContext.seccompProfile.type to \"Unconfined\")",
        ),
        (
            format!("{context}/appArmorProfile"),
            json!({"type": "Unconfined"}),
            "forbidden AppArmor profile (container \"a\" must not set AppArmor profile type to \"Unconfined\")",
        ),
        (
            format!("{context}/seLinuxOptions"),
            json!({"type": "x", "user": "u"}),
            "seLinuxOptions (container \"a\" set forbidden securityContext.seLinuxOptions: type \"x\"; user may not be set)",
        ),
        (
            "/spec/securityContext/sysctls".to_owned(),
            json!([{"name": "kernel.msgmax"}, {"name": "net.ipv4.tcp_rmem"}]),
            "forbidden sysctls (kernel.msgmax)",
        ),
        (
            "/spec/securityContext/windowsOptions".to_owned(),
            json!({"hostProcess": true}),
            "hostProcess (pod must not set securityContext.windowsOptions.hostProcess=true)",
        ),
        (
            "/spec/containers/0/livenessProbe".to_owned(),
            json!({"httpGet": {"host": "elsewhere"}}),
            "probe or lifecycle host (container \"a\" uses probe or lifecycle host \"elsewhere\")",
        ),
        (
            "/metadata/annotations".to_owned(),
            json!({"container.apparmor.security.beta.kubernetes.io/a": "unconfined"}),
            "forbidden AppArmor profile (annotation must not set AppArmor profile type to \"container.apparmor.security.beta.kubernetes.io/a=\\\"unconfined\\\"\")",
        ),
    ];
    let baseline = standard(Level::Baseline, None);
    assert_eq!(describe(&violations(baseline, &good())), "");
    for (path, value, expected) in cases {
        assert_eq!(
            describe(&violations(baseline, &edited(&path, value))),
            expected,
            "{path}"
        );
    }
}

#[test]
fn checks_of_the_restricted_level() {
    let context = "/spec/containers/0/securityContext";
    let cases = [
        (
            format!("{context}/allowPrivilegeEscalation"),
            Value::Null,
            "allowPrivilegeEscalation != false (container \"a\" must set securityContext.allowPrivilegeEscalation=false)",
        ),
        (
            format!("{context}/capabilities"),
            json!({"add": ["CHOWN"]}),
            "unrestricted capabilities (container \"a\" must set securityContext.capabilities.drop=[\"ALL\"]; container \"a\" must not include \"CHOWN\" in securityContext.capabilities.add)",
        ),
        (
            "/spec/securityContext/runAsNonRoot".to_owned(),
            Value::Null,
            "runAsNonRoot != true (pod or container \"a\" must set securityContext.runAsNonRoot=true)",
        ),
        (
            "/spec/securityContext/runAsNonRoot".to_owned(),
            json!(false),
            "runAsNonRoot != true (pod must not set securityContext.runAsNonRoot=false)",
        ),
        (
            format!("{context}/runAsUser"),
            json!(0),
            "runAsUser=0 (container \"a\" must not set runAsUser=0)",
        ),
        (
            "/spec/securityContext/seccompProfile".to_owned(),
            Value::Null,
            "seccompProfile (pod or container \"a\" must set securityContext.seccompProfile.type to \"RuntimeDefault\" or \"Localhost\")",
        ),
        (
            "/spec/volumes".to_owned(),
            json!([{"name": "h", "hostPath": {"path": "/"}}, {"name": "n", "nfs": {}}]),
            "restricted volume types (volumes \"h\", \"n\" use restricted volume types \"hostPath\", \"nfs\")",
        ),
    ];
    let restricted = standard(Level::Restricted, None);
    assert_eq!(describe(&violations(restricted, &good())), "");
    for (path, value, expected) in cases {
        assert_eq!(
            describe(&violations(restricted, &edited(&path, value))),
            expected,
            "{path}"
        );
    }
}

#[test]
fn older_versions_ask_for_less() {
    let no_drop = edited("/spec/containers/0/securityContext/capabilities", Value::Null);
    let probe = edited(
        "/spec/containers/0/livenessProbe",
        json!({"httpGet": {"host": "x"}}),
    );
    let rmem = edited(
        "/spec/securityContext/sysctls",
        json!([{"name": "net.ipv4.tcp_rmem"}]),
    );
    let mut own_users = edited("/spec/securityContext/runAsUser", json!(0));
    own_users["spec"]["hostUsers"] = json!(false);
    let cases = [
        ("capabilities", &no_drop, Level::Restricted, 21, 22),
        ("hosts of probes", &probe, Level::Baseline, 33, 34),
        ("less is safe", &rmem, Level::Baseline, 32, 31),
        ("user namespaces", &own_users, Level::Restricted, 35, 34),
    ];
    for (case, pod, level, passes, fails) in cases {
        assert_eq!(
            describe(&violations(standard(level, Some(passes)), pod)),
            "",
            "{case}"
        );
        assert_ne!(
            describe(&violations(standard(level, Some(fails)), pod)),
            "",
            "{case}"
        );
    }
}

#[test]
fn changes_that_count() {
    let old = good();
    let mut labelled = old.clone();
    labelled["metadata"]["labels"] = json!({"a": "b"});
    let image = edited("/spec/containers/0/image", json!("other"));
    let more = edited("/spec/ephemeralContainers", json!([{"name": "e"}]));
    for (case, new, expected) in [
        ("labels", labelled, false),
        ("image", image, true),
        ("a container", more, true),
    ] {
        assert_eq!(is_significant(&old, &new), expected, "{case}");
    }
}

#[test]
fn pods_that_are_there_are_told_of() {
    let named = |name: &str, privileged: bool| {
        let mut pod = edited("/spec/containers/0/securityContext/privileged", json!(privileged));
        pod["metadata"]["name"] = json!(name);
        pod
    };
    let baseline = standard(Level::Baseline, None);
    assert_eq!(
        existing("n", baseline, &[named("a", false)]),
        Vec::<String>::new()
    );
    assert_eq!(
        existing("n", baseline, &[named("b", true), named("a", true)]),
        [
            "existing pods in namespace \"n\" violate the new PodSecurity enforce level \"baseline:latest\"",
            "a (and 1 other pod): privileged",
        ]
    );
}
