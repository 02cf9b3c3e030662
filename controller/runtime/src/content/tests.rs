//! The rules of `Content`, one named case each, and a property over random histories.

use k8s_openapi::api::core::v1::ConfigMap;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ManagedFieldsEntry, ObjectMeta};
use proptest::prelude::*;

use super::*;

fn object(name: &str, uid: &str, version: u64) -> ConfigMap {
    ConfigMap {
        metadata: ObjectMeta {
            name: Some(name.into()),
            namespace: Some("default".into()),
            uid: Some(uid.into()),
            resource_version: Some(version.to_string()),
            managed_fields: Some(vec![ManagedFieldsEntry::default()]),
            ..Default::default()
        },
        ..Default::default()
    }
}

enum Step {
    BeginList,
    Listed(ConfigMap),
    EndList,
    Applied(ConfigMap),
    Deleted(ConfigMap),
    Observed(ConfigMap),
    Forget(ConfigMap),
}
use Step::{Applied, BeginList, Deleted, EndList, Forget, Listed, Observed};

fn play(steps: Vec<Step>) -> (Content<ConfigMap>, Vec<String>) {
    let mut content = Content::default();
    let mut log = Vec::new();
    for step in steps {
        let changes = match step {
            BeginList => {
                content.begin_list();
                Vec::new()
            }
            Listed(object) => content.listed(object),
            EndList => content.end_list(),
            Applied(object) => content.applied(object),
            Deleted(object) => content.deleted(&object),
            Observed(object) => content.observed(object),
            Forget(object) => content.forget(&object),
        };
        log.extend(changes.iter().map(render));
    }
    (content, log)
}

fn render(change: &Change<ConfigMap>) -> String {
    let short = |object: &ConfigMap| {
        let meta = &object.metadata;
        format!(
            "{}:{}@{}",
            meta.name.as_deref().unwrap_or("?"),
            meta.uid.as_deref().unwrap_or("?"),
            meta.resource_version.as_deref().unwrap_or("?")
        )
    };
    match change {
        Change::Added(new) => format!("+{}", short(new)),
        Change::Updated { old, new } => format!("{}->{}", short(old), short(new)),
        Change::Removed(old) => format!("-{}", short(old)),
    }
}

#[test]
#[expect(clippy::too_many_lines, reason = "one flat table")]
fn rules_hold_case_by_case() {
    let a = |version| object("a", "1", version);
    let cases: Vec<(&str, Vec<Step>, Vec<&str>)> = vec![
        (
            "list then watch",
            vec![BeginList, Listed(a(5)), EndList, Applied(a(6))],
            vec!["+a:1@5", "a:1@5->a:1@6"],
        ),
        (
            "watch repeats a version",
            vec![Applied(a(5)), Applied(a(5))],
            vec!["+a:1@5"],
        ),
        (
            "watch delivers what came before an own write",
            vec![
                Applied(a(5)),
                Observed(a(8)),
                Applied(a(7)),
                Applied(a(8)),
                Applied(a(9)),
            ],
            vec!["+a:1@5", "a:1@5->a:1@8", "a:1@8->a:1@9"],
        ),
        (
            "an older answer is ignored",
            vec![Applied(a(8)), Observed(a(7))],
            vec!["+a:1@8"],
        ),
        (
            "an answer that arrives after the deletion is ignored",
            vec![Applied(a(5)), Deleted(a(7)), Observed(a(6))],
            vec!["+a:1@5", "-a:1@5"],
        ),
        (
            "a created object is seen before its watch event",
            vec![BeginList, EndList, Observed(a(6)), Applied(a(6))],
            vec!["+a:1@6"],
        ),
        (
            "the deletion of an object seen newer than it",
            vec![Applied(a(5)), Observed(a(9)), Deleted(a(7))],
            vec!["+a:1@5", "a:1@5->a:1@9", "-a:1@9"],
        ),
        (
            "a successor outlives the late deletion of its predecessor",
            vec![
                Applied(a(5)),
                Observed(object("a", "2", 9)),
                Deleted(a(7)),
                Applied(object("a", "2", 9)),
            ],
            vec!["+a:1@5", "-a:1@5", "+a:2@9"],
        ),
        (
            "a new list removes what it lacks",
            vec![
                BeginList,
                Listed(a(5)),
                EndList,
                BeginList,
                Listed(object("b", "2", 6)),
                EndList,
            ],
            vec!["+a:1@5", "+b:2@6", "-a:1@5"],
        ),
        (
            "a new list may go back behind what was held",
            vec![
                BeginList,
                Listed(a(50)),
                EndList,
                BeginList,
                Listed(a(5)),
                EndList,
                Applied(a(6)),
            ],
            vec!["+a:1@50", "a:1@50->a:1@5", "a:1@5->a:1@6"],
        ),
        (
            "what was observed during the list stays",
            vec![
                BeginList,
                Observed(a(9)),
                Observed(object("b", "2", 10)),
                Listed(a(8)),
                EndList,
            ],
            vec!["+a:1@9", "+b:2@10"],
        ),
        (
            "what an own write removed stays away while the watch catches up",
            vec![
                Applied(a(5)),
                Forget(a(9)),
                Applied(a(7)),
                Deleted(a(9)),
                Applied(object("a", "2", 10)),
            ],
            vec!["+a:1@5", "-a:1@5", "+a:2@10"],
        ),
        (
            "a successor comes before the watch has said that its predecessor is gone",
            vec![
                Applied(a(5)),
                Forget(a(9)),
                Observed(object("a", "2", 10)),
                Applied(a(7)),
                Deleted(a(9)),
            ],
            vec!["+a:1@5", "-a:1@5", "+a:2@10"],
        ),
        (
            "forgetting after the watch",
            vec![Applied(a(5)), Deleted(a(9)), Forget(a(9))],
            vec!["+a:1@5", "-a:1@5"],
        ),
        ("deletion of the unknown", vec![Deleted(a(5))], vec![]),
    ];
    for (name, steps, expected) in cases {
        assert_eq!(play(steps).1, expected, "{name}");
    }
}

#[test]
fn managed_fields_are_not_held() {
    let (content, _) = play(vec![Applied(object("a", "1", 5))]);
    let held = content.get(&key_of(Some("default"), "a")).expect("just applied");
    assert_eq!(held.metadata.managed_fields, None);
}

proptest! {
    /// Whatever own writes are observed and however late, once the watch has delivered everything the content is
    /// that of the store.
    #[test]
    fn content_converges_to_the_store(
        writes in prop::collection::vec((0..4_u8, prop::bool::ANY, 0..6_usize), 1..60)
    ) {
        let mut store: HashMap<u8, (u64, u64)> = HashMap::new();
        let mut watch: Vec<(bool, ConfigMap)> = Vec::new();
        let mut content = Content::default();
        content.begin_list();
        content.end_list();
        let mut delivered = 0;
        let mut version = 1;
        let mut late: Vec<ConfigMap> = Vec::new();
        for (name, delete, step) in writes {
            version += 1;
            let label = format!("o{name}");
            if delete {
                if let Some((uid, _)) = store.remove(&name) {
                    watch.push((true, object(&label, &uid.to_string(), version)));
                }
            } else {
                let uid = store.get(&name).map_or(version, |(uid, _)| *uid);
                store.insert(name, (uid, version));
                let written = object(&label, &uid.to_string(), version);
                watch.push((false, written.clone()));
                late.push(written);
            }
            // The watch advances by some events, then one of the answers (any, also an old one) is observed.
            for _ in 0..step {
                if let Some((deleted, object)) = watch.get(delivered) {
                    delivered += 1;
                    if *deleted { content.deleted(object); } else { content.applied(object.clone()); }
                }
            }
            if !late.is_empty() {
                let answer = late.remove(step % late.len());
                content.observed(answer);
            }
        }
        for (deleted, object) in &watch[delivered..] {
            if *deleted { content.deleted(object); } else { content.applied(object.clone()); }
        }
        for answer in late {
            content.observed(answer);
        }
        let mut held: Vec<(String, String)> = content.list().iter().map(|object| (
            object.metadata.name.clone().unwrap_or_default(),
            object.metadata.resource_version.clone().unwrap_or_default(),
        )).collect();
        held.sort();
        let mut expected: Vec<(String, String)> =
            store.iter().map(|(name, (_, version))| (format!("o{name}"), version.to_string())).collect();
        expected.sort();
        prop_assert_eq!(held, expected);
    }
}
