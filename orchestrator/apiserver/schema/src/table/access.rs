//! Role bindings: which role, for whom.

use jiff::Timestamp;
use serde_json::Value;

use super::{AGE, Column, NAME, name, object_age};
use crate::object::{list, text};

pub(super) const BINDING_COLUMNS: &[Column] = &[
    NAME,
    Column::text("Role", "The role that is given."),
    AGE,
    Column::text("Users", "Users who get it.").wide(),
    Column::text("Groups", "Groups that get it.").wide(),
    Column::text("ServiceAccounts", "Service accounts that get it.").wide(),
];

pub(super) fn binding_row(binding: &Value, now: Timestamp) -> Vec<Value> {
    let role = format!(
        "{}/{}",
        text(binding, &["roleRef", "kind"]),
        text(binding, &["roleRef", "name"])
    );
    vec![
        name(binding),
        role.into(),
        object_age(binding, now),
        subjects(binding, "User").into(),
        subjects(binding, "Group").into(),
        subjects(binding, "ServiceAccount").into(),
    ]
}

fn subjects(binding: &Value, kind: &str) -> String {
    let all = list(binding, &["subjects"])
        .iter()
        .filter(|one| text(one, &["kind"]) == kind);
    let names: Vec<String> = all
        .map(|one| match (kind, text(one, &["name"])) {
            ("ServiceAccount", name) => format!("{}/{name}", text(one, &["namespace"])),
            (_, name) => name.to_owned(),
        })
        .collect();
    names.join(", ")
}
