//! Fields that somebody else owns, in the words of the reference server.

use std::collections::BTreeMap;
use std::fmt;

use super::{Entry, Operation};
use crate::fields_v1::{Path, Set};

/// One field that an apply would take from its owner.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Conflict {
    /// The owner as messages name it: `"kubectl" using v1`.
    pub manager: String,
    /// The field.
    pub path: Path,
}

/// All fields that an apply would take from their owners.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Conflicts(pub Vec<Conflict>);

impl Conflicts {
    /// Of owners with the fields that would be taken from each.
    pub(super) fn of(mut taken: Vec<(&Entry, Set)>) -> Conflicts {
        taken.sort_by_cached_key(|(entry, _)| entry.identifier());
        let conflicts = taken.iter().flat_map(|(entry, fields)| {
            let manager = named(entry);
            let paths = fields.paths().into_iter();
            paths.map(move |path| Conflict {
                manager: manager.clone(),
                path,
            })
        });
        Conflicts(conflicts.collect())
    }

    pub(super) fn to_set(&self) -> Set {
        Set::of(self.0.iter().map(|conflict| conflict.path.clone()))
    }

    /// Without the fields of a set.
    pub(super) fn without(mut self, fields: &Set) -> Conflicts {
        self.0.retain(|conflict| !fields.has(&conflict.path));
        self
    }
}

fn named(entry: &Entry) -> String {
    let mut text = format!("{:?}", entry.manager);
    if !entry.subresource.is_empty() {
        text.push_str(&format!(" with subresource {:?}", entry.subresource));
    }
    if entry.operation == Operation::Update {
        text.push_str(&format!(" using {}", entry.api_version));
    }
    text
}

impl fmt::Display for Conflicts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let [one] = &self.0[..] {
            let Conflict { manager, path } = one;
            return write!(f, "Apply failed with 1 conflict: conflict with {manager}: {path}");
        }
        let mut by_manager: BTreeMap<&str, Vec<&Path>> = BTreeMap::new();
        for conflict in &self.0 {
            by_manager
                .entry(&conflict.manager)
                .or_default()
                .push(&conflict.path);
        }
        write!(f, "Apply failed with {} conflicts: ", self.0.len())?;
        for (index, (manager, paths)) in by_manager.iter().enumerate() {
            let line = if index > 0 { "\n" } else { "" };
            write!(f, "{line}conflicts with {manager}:")?;
            paths.iter().try_for_each(|path| write!(f, "\n- {path}"))?;
        }
        Ok(())
    }
}
