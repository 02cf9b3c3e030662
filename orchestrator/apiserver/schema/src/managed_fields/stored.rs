//! Entries as they are stored: JSON text, of which a write reads no more than it has to.

use std::borrow::Cow;
use std::fmt;

use serde::Deserialize;
use serde::de::{DeserializeSeed, Deserializer, IgnoredAny, MapAccess, Visitor};
use serde_json::value::RawValue;

use super::entries::time_text;
use super::{Operation, Writer};
use crate::fields_v1::{Branch, Set, element_text};
use crate::structured_merge::Comparison;

/// An entry whose fields nobody has read yet. Its members are in the order in which they are written.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct Stored<'a> {
    #[serde(borrow)]
    pub(super) api_version: Cow<'a, str>,
    #[serde(borrow)]
    fields_type: Cow<'a, str>,
    #[serde(borrow)]
    fields_v1: &'a RawValue,
    #[serde(borrow)]
    manager: Cow<'a, str>,
    #[serde(borrow)]
    operation: Cow<'a, str>,
    #[serde(borrow, default)]
    subresource: Cow<'a, str>,
    #[serde(borrow, default)]
    time: Cow<'a, str>,
}

impl Stored<'_> {
    fn write(&self, out: &mut String) {
        let entry = Text {
            api_version: &self.api_version,
            fields: self.fields_v1.get(),
            manager: &self.manager,
            operation: &self.operation,
            subresource: &self.subresource,
            time: &self.time,
        };
        entry.write(out);
    }
}

/// An entry about to be written.
pub(super) struct Text<'a> {
    pub(super) api_version: &'a str,
    pub(super) fields: &'a str,
    pub(super) manager: &'a str,
    pub(super) operation: &'a str,
    /// Empty: left out.
    pub(super) subresource: &'a str,
    /// Empty: left out.
    pub(super) time: &'a str,
}

impl Text<'_> {
    pub(super) fn write(&self, out: &mut String) {
        out.push_str("{\"apiVersion\":");
        put_text(out, self.api_version);
        out.push_str(",\"fieldsType\":\"FieldsV1\",\"fieldsV1\":");
        out.push_str(self.fields);
        out.push_str(",\"manager\":");
        put_text(out, self.manager);
        out.push_str(",\"operation\":");
        put_text(out, self.operation);
        for (name, value) in [("subresource", self.subresource), ("time", self.time)] {
            if !value.is_empty() {
                out.push_str(",\"");
                out.push_str(name);
                out.push_str("\":");
                put_text(out, value);
            }
        }
        out.push('}');
    }
}

fn put_text(out: &mut String, text: &str) {
    // A text always has a JSON form.
    out.push_str(&serde_json::to_string(text).unwrap_or_default());
}

/// The short way of most writes: fields get other values that the writer owned before, and nobody else. Then only its
/// time changes, and no set is built. Nothing if it isn't so simple.
pub(super) fn with_new_time(writer: &Writer<'_>, before: &str, changes: &Comparison) -> Option<String> {
    if changes.is_same() {
        return Some(before.to_owned());
    }
    if !changes.added.is_empty() || !changes.removed.is_empty() {
        return None;
    }
    let mut entries: Vec<Stored<'_>> = serde_json::from_str(before).ok()?;
    let own = writer.entry(Operation::Update, Set::default());
    let wanted = Wanted::of(&changes.modified);
    let mut place = None;
    for (index, entry) in entries.iter().enumerate() {
        if entry.api_version != own.api_version || entry.fields_type != "FieldsV1" {
            return None;
        }
        let found = wanted.search(entry.fields_v1)?;
        let is_own = entry.manager == own.manager
            && entry.operation == Operation::Update.as_str()
            && entry.subresource == own.subresource;
        if is_own {
            if place.replace(index).is_some() || !found.all {
                return None;
            }
        } else if found.any {
            return None;
        }
    }
    // The newest update stands last, among those of the same second in the order of their names.
    let mut entry = entries.remove(place?);
    entry.time = time_text(writer.now).into();
    let key = |entry: &'_ Stored<'_>| {
        let [time, manager, subresource] = [&entry.time, &entry.manager, &entry.subresource];
        (time.to_string(), manager.to_string(), subresource.to_string())
    };
    let newest = key(&entry);
    let is_behind = |other: &Stored<'_>| other.operation == Operation::Apply.as_str() || key(other) <= newest;
    let place = entries.iter().take_while(|other| is_behind(other)).count();
    entries.insert(place, entry);
    let mut out = String::with_capacity(before.len());
    for (index, entry) in entries.iter().enumerate() {
        out.push(if index == 0 { '[' } else { ',' });
        entry.write(&mut out);
    }
    out.push(']');
    Some(out)
}

/// A set that is searched for in the text of others.
struct Wanted<'s> {
    branches: Vec<(String, &'s Branch)>,
}

/// How much of a set is in another one.
#[derive(Debug, PartialEq, Eq)]
struct Found {
    all: bool,
    any: bool,
}

impl<'s> Wanted<'s> {
    fn of(set: &'s Set) -> Self {
        Wanted {
            branches: set
                .branches()
                .map(|(step, branch)| (element_text(step), branch))
                .collect(),
        }
    }

    /// Nothing if the text is no set.
    fn search(&self, fields: &RawValue) -> Option<Found> {
        let mut text = serde_json::Deserializer::from_str(fields.get());
        let (_, found) = Search(self).deserialize(&mut text).ok()?;
        Some(found)
    }
}

/// Reads the text of a set, going only into what is wanted. Says whether the path itself is a member, too.
struct Search<'w, 's>(&'w Wanted<'s>);

impl<'de> DeserializeSeed<'de> for Search<'_, '_> {
    type Value = (bool, Found);

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        deserializer.deserialize_map(self)
    }
}

impl<'de> Visitor<'de> for Search<'_, '_> {
    type Value = (bool, Found);

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a set of fields")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut access: A) -> Result<Self::Value, A::Error> {
        let (mut is_hollow, mut is_stated) = (true, false);
        let (mut complete, mut any) = (0, false);
        while let Some(Key(key)) = access.next_key()? {
            is_hollow = false;
            is_stated |= key == ".";
            let wanted = self.0.branches.iter().find(|(text, _)| *text == key);
            let Some((_, branch)) = wanted else {
                access.next_value::<IgnoredAny>()?;
                continue;
            };
            let below = Wanted::of(&branch.below);
            let (is_member, found) = access.next_value_seed(Search(&below))?;
            any |= found.any || (branch.is_member && is_member);
            complete += usize::from(found.all && (is_member || !branch.is_member));
        }
        let all = complete == self.0.branches.len();
        Ok((is_hollow || is_stated, Found { all, any }))
    }
}

/// A key, borrowed where it has no escapes.
#[derive(Deserialize)]
struct Key<'a>(#[serde(borrow)] Cow<'a, str>);

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fields_v1::{Element, Path};

    #[test]
    fn what_of_a_set_is_in_another_one() {
        let label = |name: &str| Path::fields(&["metadata", "labels", name]);
        let port = |number: u16| {
            let key = Element::key(vec![("port".into(), number.into())]);
            Path(vec![Element::field("ports"), key, Element::field("name")])
        };
        let labels = Path::fields(&["metadata", "labels"]);
        let owned = Set::of([label("a"), label("b"), labels.clone(), port(80)]);
        let text = RawValue::from_string(owned.to_json()).unwrap();
        let cases = [
            ("all of it", vec![label("a"), labels, port(80)], true, true),
            ("a part", vec![label("a"), label("c")], false, true),
            (
                "the outer field alone",
                vec![Path::fields(&["metadata"])],
                false,
                false,
            ),
            ("another element", vec![port(81)], false, false),
            (
                "below a leaf",
                vec![Path::fields(&["metadata", "labels", "a", "x"])],
                false,
                false,
            ),
            ("nothing", vec![], true, false),
        ];
        for (case, paths, all, any) in cases {
            let set = Set::of(paths);
            let found = Wanted::of(&set).search(&text).unwrap();
            assert_eq!(found, Found { all, any }, "{case}");
        }
        let nonsense = RawValue::from_string("{\"f:a\":1}".to_owned()).unwrap();
        let set = Set::of([Path::fields(&["a"])]);
        assert_eq!(Wanted::of(&set).search(&nonsense), None);
    }
}
