//! Jobs and CronJobs.

use serde_json::json;

use super::super::*;
use super::{creates, updates};

fn batch(kind: &'static str) -> Gvk<'static> {
    Gvk::new("batch/v1", kind)
}

fn template() -> Value {
    json!({"spec": {"restartPolicy": "Never", "containers": [{"name": "c", "image": "i"}]}})
}

/// As the server has completed it: it selects its own pods.
fn sound() -> Value {
    let mut template = template();
    template["metadata"]["labels"] = json!({
        "batch.kubernetes.io/controller-uid": "u", "controller-uid": "u",
        "batch.kubernetes.io/job-name": "j", "job-name": "j",
    });
    let selector = json!({"matchLabels": {"batch.kubernetes.io/controller-uid": "u"}});
    json!({"metadata": {"name": "j", "namespace": "default", "uid": "u"}, "spec": {"selector": selector, "template": template}})
}

#[test]
#[expect(clippy::too_many_lines, reason = "one flat table")]
fn jobs() {
    let indexed = |more: Value| {
        let mut edits = vec![
            ("/spec/completionMode", json!("Indexed")),
            ("/spec/completions", json!(2)),
        ];
        if !more.is_null() {
            edits.push(("/spec/parallelism", more));
        }
        edits
    };
    let rule = |rule: Value| vec![("/spec/podFailurePolicy", json!({"rules": [rule]}))];
    creates(
        batch("Job"),
        &sound(),
        vec![
            (
                "restarts for ever",
                vec![("/spec/template/spec/restartPolicy", json!("Always"))],
                vec![
                    r#"spec.template.spec.restartPolicy: Unsupported value: "Always": supported values: "OnFailure", "Never""#,
                ],
            ),
            (
                "labels of another job",
                vec![("/spec/template/metadata/labels/job-name", json!("k"))],
                vec![
                    r#"spec.template.metadata.labels[job-name]: Invalid value: {"batch.kubernetes.io/controller-uid":"u","batch.kubernetes.io/job-name":"j","controller-uid":"u","job-name":"k"}: must be 'j'"#,
                ],
            ),
            (
                "a label is missing",
                vec![("/spec/template/metadata/labels/controller-uid", Value::Null)],
                vec!["spec.template.metadata.labels[controller-uid]: Required value: must be 'u'"],
            ),
            (
                "a selector of one's own",
                vec![("/spec/selector", json!({"matchLabels": {"a": "b"}}))],
                vec![
                    r#"spec.template.metadata.labels: Invalid value: {"batch.kubernetes.io/controller-uid":"u","batch.kubernetes.io/job-name":"j","controller-uid":"u","job-name":"j"}: `selector` does not match template `labels`"#,
                    r#"spec.selector: Invalid value: {"matchLabels":{"a":"b"}}: `selector` not auto-generated"#,
                ],
            ),
            (
                "a selector of one's own, by hand",
                vec![
                    ("/spec/manualSelector", json!(true)),
                    ("/spec/selector", json!({"matchLabels": {"a": "b"}})),
                    ("/spec/template/metadata/labels", json!({"a": "b"})),
                ],
                vec![],
            ),
            (
                "negative numbers",
                vec![
                    ("/spec/parallelism", json!(-1)),
                    ("/spec/backoffLimit", json!(-1)),
                ],
                vec![
                    "spec.parallelism: Invalid value: -1: must be greater than or equal to 0",
                    "spec.backoffLimit: Invalid value: -1: must be greater than or equal to 0",
                ],
            ),
            ("indexed", indexed(Value::Null), vec![]),
            (
                "indexed without an end",
                vec![
                    ("/spec/completionMode", json!("Indexed")),
                    ("/spec/parallelism", json!(1)),
                ],
                vec!["spec.completions: Required value: when completion mode is Indexed"],
            ),
            (
                "indexed and wide",
                indexed(json!(100_001)),
                vec![
                    "spec.parallelism: Invalid value: 100001: must be less than or equal to 100000 when completion mode is Indexed",
                ],
            ),
            (
                "limits per index",
                vec![("/spec/backoffLimitPerIndex", json!(1))],
                vec!["spec.backoffLimitPerIndex: Invalid value: 1: requires indexed completion mode"],
            ),
            (
                "manager",
                vec![("/spec/managedBy", json!("me"))],
                vec![
                    r#"spec.managedBy: Invalid value: "me": must be a domain-prefixed path (such as "acme.io/foo")"#,
                ],
            ),
            (
                "a rule",
                rule(json!({"action": "Ignore", "onPodConditions": [{"type": "A"}]})),
                vec![],
            ),
            (
                "a rule of nothing",
                rule(json!({"action": "Ignore"})),
                vec![
                    r#"spec.podFailurePolicy.rules[0]: Invalid value: {"action":"Ignore"}: specifying one of OnExitCodes and OnPodConditions is required"#,
                ],
            ),
            (
                "exit codes",
                rule(json!({"action": "Magic", "onExitCodes": {"operator": "In", "values": [0, 1, 1]}})),
                vec![
                    r#"spec.podFailurePolicy.rules[0].action: Unsupported value: "Magic": supported values: "Count", "FailIndex", "FailJob", "Ignore""#,
                    "spec.podFailurePolicy.rules[0].onExitCodes.values[0]: Invalid value: 0: must not be 0 for the In operator",
                    "spec.podFailurePolicy.rules[0].onExitCodes.values[2]: Duplicate value: 1",
                ],
            ),
        ],
    );
}

#[test]
fn a_job_hardly_changes() {
    updates(
        batch("Job"),
        &sound(),
        vec![
            (
                "may change",
                vec![
                    ("/spec/parallelism", json!(3)),
                    ("/spec/completions", json!(1)),
                    ("/spec/suspend", json!(true)),
                ],
                vec![],
            ),
            (
                "completions",
                vec![("/spec/completions", json!(3))],
                vec!["spec.completions: Invalid value: 3: field is immutable"],
            ),
            (
                "mode",
                vec![
                    ("/spec/completionMode", json!("Indexed")),
                    ("/spec/completions", json!(1)),
                ],
                vec![r#"spec.completionMode: Invalid value: "Indexed": field is immutable"#],
            ),
        ],
    );
    let image = ("/spec/template/spec/containers/0/image", json!("j"));
    let nodes = ("/spec/template/spec/nodeSelector", json!({"a": "b"}));
    let faults = |edit: (&str, Value), suspended: bool| {
        let mut old = sound();
        old["spec"]["suspend"] = json!(suspended);
        let old = super::defaulted(batch("Job"), old);
        let new = super::edited(&old, &[edit]);
        update(Registry::builtin(), batch("Job"), &old, &new).len()
    };
    let cases = [
        ("image", image.clone(), false, 1),
        ("image of a suspended one", image, true, 1),
        ("nodes", nodes.clone(), false, 1),
        ("nodes of a suspended one", nodes, true, 0),
    ];
    for (case, edit, suspended, expected) in cases {
        assert_eq!(faults(edit, suspended), expected, "{case}");
    }
}

#[test]
fn cron_jobs() {
    let cron = json!({"metadata": {"name": "c", "namespace": "default"}, "spec": {"schedule": "*/5 * * * *", "jobTemplate": {"spec": {"template": template()}}}});
    creates(
        batch("CronJob"),
        &cron,
        vec![
            (
                "no schedule",
                vec![("/spec/schedule", json!(""))],
                vec!["spec.schedule: Required value"],
            ),
            (
                "schedule",
                vec![("/spec/schedule", json!("often"))],
                vec![r#"spec.schedule: Invalid value: "often": expected exactly 5 fields, found 1: [often]"#],
            ),
            (
                "zone in the schedule",
                vec![("/spec/schedule", json!("TZ=UTC * * * * *"))],
                vec![
                    r#"spec.schedule: Invalid value: "TZ=UTC * * * * *": cannot use TZ or CRON_TZ in schedule, use timeZone field instead"#,
                ],
            ),
            ("zone", vec![("/spec/timeZone", json!("Europe/Berlin"))], vec![]),
            (
                "no zone",
                vec![("/spec/timeZone", json!("a b"))],
                vec![r#"spec.timeZone: Invalid value: "a b": unknown time zone a b"#],
            ),
            (
                "concurrency",
                vec![("/spec/concurrencyPolicy", json!("Maybe"))],
                vec![
                    r#"spec.concurrencyPolicy: Unsupported value: "Maybe": supported values: "Allow", "Forbid", "Replace""#,
                ],
            ),
            (
                "selector of its jobs",
                vec![
                    ("/spec/jobTemplate/spec/selector", json!({})),
                    ("/spec/jobTemplate/spec/manualSelector", json!(true)),
                ],
                vec![
                    "spec.jobTemplate.spec.selector: Invalid value: {}: `selector` will be auto-generated",
                    r#"spec.jobTemplate.spec.manualSelector: Unsupported value: true: supported values: "nil", "false""#,
                ],
            ),
            (
                "pods of its jobs",
                vec![(
                    "/spec/jobTemplate/spec/template/spec/restartPolicy",
                    json!("Always"),
                )],
                vec![
                    r#"spec.jobTemplate.spec.template.spec.restartPolicy: Unsupported value: "Always": supported values: "OnFailure", "Never""#,
                ],
            ),
            (
                "name",
                vec![("/metadata/name", json!("x".repeat(53)))],
                vec![
                    r#"metadata.name: Invalid value: "xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx": must be no more than 52 characters"#,
                ],
            ),
        ],
    );
}
