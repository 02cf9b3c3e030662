//! Where each type's record stands in the embedded `types.json`, found without parsing it.

const TYPES: &str = include_str!("../../facts/types.json");

/// The record of one type inside the embedded facts.
#[derive(Debug)]
pub(super) struct Place {
    /// Such as `core/v1.Pod`.
    pub(super) id: &'static str,
    /// The record, a JSON object.
    pub(super) record: &'static str,
    /// The part of the record before its fields.
    head: &'static str,
}

impl Place {
    /// Group, version and kind under which the type is known, from the head of the record.
    pub(super) fn gvks(&self) -> impl Iterator<Item = (&'static str, &'static str, &'static str)> {
        let list = self
            .head
            .split_once("\"gvks\":[")
            .and_then(|(_, rest)| rest.split_once(']'));
        let names = list.into_iter().flat_map(|(list, _)| list.split(','));
        names.filter_map(|name| {
            let (group_version, kind) = name.trim_matches('"').rsplit_once('/')?;
            let (group, version) = group_version.split_once('/').unwrap_or(("", group_version));
            Some((group, version, kind))
        })
    }
}

/// The records of all types. The file has one record a line: a type's head, its fields, and a closing line.
pub(super) fn places() -> Vec<Place> {
    let mut places = Vec::with_capacity(1300);
    let mut rest = TYPES.split_once("\"types\":{\n").map_or("", |(_, rest)| rest);
    while let Some(end) = rest.find("\n]}").map(|at| at + 3) {
        let record = &rest[..end];
        if let Some(place) = place(record) {
            places.push(place);
        }
        rest = rest[end..].trim_start_matches([',', '\n']);
    }
    places
}

fn place(record: &'static str) -> Option<Place> {
    let (id, body) = record.strip_prefix('"')?.split_once("\":")?;
    let head = body.split_once('\n').map_or(body, |(head, _)| head);
    Some(Place {
        id,
        record: body,
        head,
    })
}
