//! The entries of `managedFields`, read and written.

use jiff::Timestamp;
use serde_json::{Map, Value};

use super::stored::Text;
use crate::fields_v1::{FieldsError, Set};

/// How a manager came to own its fields.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Operation {
    /// By applying a configuration.
    Apply,
    /// By any other write.
    Update,
}

impl Operation {
    /// As the API writes it.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Operation::Apply => "Apply",
            Operation::Update => "Update",
        }
    }
}

/// What one manager owns.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Entry {
    /// The manager's name.
    pub manager: String,
    /// How it came to own the fields.
    pub operation: Operation,
    /// The version of its last write; the fields are those of that version.
    pub api_version: String,
    /// When it last changed something; whole seconds count.
    pub time: Option<Timestamp>,
    /// The subresource it wrote; empty for the object itself.
    pub subresource: String,
    /// The fields.
    pub fields: Set,
}

impl Entry {
    /// Whether two entries are about the same manager, doing the same. Who applies may go from one version to another.
    #[must_use]
    pub fn is_same_owner(&self, other: &Entry) -> bool {
        self.manager == other.manager
            && self.operation == other.operation
            && self.subresource == other.subresource
            && (self.operation == Operation::Apply || self.api_version == other.api_version)
    }

    /// The text by which the reference server tells owners apart; entries that are alike otherwise are sorted by it.
    pub(super) fn identifier(&self) -> String {
        let mut text = format!(
            "{{\"manager\":{},\"operation\":\"{}\"",
            Value::from(self.manager.as_str()),
            self.operation.as_str()
        );
        if self.operation == Operation::Update {
            text.push_str(&format!(
                ",\"apiVersion\":{}",
                Value::from(self.api_version.as_str())
            ));
        }
        if !self.subresource.is_empty() {
            text.push_str(&format!(
                ",\"subresource\":{}",
                Value::from(self.subresource.as_str())
            ));
        }
        text.push('}');
        text
    }

    /// Whole seconds since 1970; zero without a time.
    pub(super) fn seconds(&self) -> i64 {
        self.time.map_or(0, Timestamp::as_second)
    }

    fn write(&self, out: &mut String) {
        let text = Text {
            api_version: &self.api_version,
            fields: &self.fields.to_json(),
            manager: &self.manager,
            operation: self.operation.as_str(),
            subresource: &self.subresource,
            time: &self.time.map(time_text).unwrap_or_default(),
        };
        text.write(out);
    }

    fn to_value(&self) -> Value {
        let mut map = Map::new();
        map.insert("manager".to_owned(), self.manager.as_str().into());
        map.insert("operation".to_owned(), self.operation.as_str().into());
        map.insert("apiVersion".to_owned(), self.api_version.as_str().into());
        if let Some(time) = self.time {
            map.insert("time".to_owned(), time_text(time).into());
        }
        map.insert("fieldsType".to_owned(), "FieldsV1".into());
        map.insert("fieldsV1".to_owned(), self.fields.to_value());
        if !self.subresource.is_empty() {
            map.insert("subresource".to_owned(), self.subresource.as_str().into());
        }
        Value::Object(map)
    }
}

pub(super) fn time_text(time: Timestamp) -> String {
    time.strftime("%Y-%m-%dT%H:%M:%SZ").to_string()
}

/// Why entries can't be used.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum ManagedError {
    /// It is no list of objects.
    #[error("managedFields is not a list of objects")]
    NotAList,
    /// Another operation.
    #[error("operation must be `Apply` or `Update`")]
    Operation,
    /// No version.
    #[error("apiVersion must not be empty")]
    ApiVersion,
    /// Fields in another form.
    #[error("{}", if .found.is_empty() { format!("missing fieldsType in managed fields entry {index}") } else { format!("invalid fieldsType {found:?} in managed fields entry {index}") })]
    FieldsType {
        /// The entry's place.
        index: usize,
        /// What it says.
        found: String,
    },
    /// The time can't be read.
    #[error("time {found:?} in managed fields entry {index}")]
    Time {
        /// The entry's place.
        index: usize,
        /// What it says.
        found: String,
    },
    /// The fields can't be read.
    #[error("error decoding set: {0}")]
    Fields(FieldsError),
}

/// All entries of an object.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Managed {
    /// In no particular order; no two of the same owner.
    pub entries: Vec<Entry>,
}

impl Managed {
    /// Reads `managedFields`. Of two entries of one owner the later counts.
    ///
    /// # Errors
    /// [`ManagedError`].
    pub fn decode(value: &Value) -> Result<Managed, ManagedError> {
        let list = value.as_array().ok_or(ManagedError::NotAList)?;
        let mut managed = Managed::default();
        for (index, value) in list.iter().enumerate() {
            let entry = decode_entry(index, value)?;
            managed.put(entry);
        }
        Ok(managed)
    }

    /// Puts an entry in the place of its owner's, or adds it.
    pub fn put(&mut self, entry: Entry) {
        self.entries.retain(|other| !other.is_same_owner(&entry));
        self.entries.push(entry);
    }

    /// Takes out the entry of the same owner.
    pub(super) fn take(&mut self, owner: &Entry) -> Option<Entry> {
        let at = self.entries.iter().position(|entry| entry.is_same_owner(owner))?;
        Some(self.entries.swap_remove(at))
    }

    /// Drops owners of nothing.
    pub(super) fn drop_empty(&mut self) {
        self.entries.retain(|entry| !entry.fields.is_empty());
    }

    /// Reads the text of `managedFields`; nothing if it can't be read.
    pub(super) fn parse(text: &str) -> Option<Managed> {
        let value: Value = serde_json::from_str(text).ok()?;
        Managed::decode(&value).ok()
    }

    /// The list in the order of the reference server: those who apply first, each sort by time. Nothing if empty.
    #[must_use]
    pub fn encode(mut self) -> Option<Value> {
        self.sort();
        let list: Vec<Value> = self.entries.iter().map(Entry::to_value).collect();
        (!list.is_empty()).then_some(Value::Array(list))
    }

    /// The same as JSON text.
    #[must_use]
    pub fn to_text(mut self) -> Option<String> {
        self.sort();
        let mut out = String::with_capacity(512);
        for (index, entry) in self.entries.iter().enumerate() {
            out.push(if index == 0 { '[' } else { ',' });
            entry.write(&mut out);
        }
        out.push(']');
        (!self.entries.is_empty()).then_some(out)
    }

    fn sort(&mut self) {
        self.entries.sort_by(|a, b| {
            let by = |entry: &Entry| (entry.operation, entry.seconds());
            by(a)
                .cmp(&by(b))
                .then_with(|| a.manager.cmp(&b.manager))
                .then_with(|| a.api_version.cmp(&b.api_version))
                .then_with(|| a.subresource.cmp(&b.subresource))
        });
    }
}

fn decode_entry(index: usize, value: &Value) -> Result<Entry, ManagedError> {
    let text = |name: &str| value.get(name).and_then(Value::as_str).unwrap_or_default();
    let operation = match text("operation") {
        "Apply" => Operation::Apply,
        "Update" => Operation::Update,
        _ => return Err(ManagedError::Operation),
    };
    if text("apiVersion").is_empty() {
        return Err(ManagedError::ApiVersion);
    }
    if text("fieldsType") != "FieldsV1" {
        return Err(ManagedError::FieldsType {
            index,
            found: text("fieldsType").to_owned(),
        });
    }
    let time = match text("time") {
        "" => None,
        found => Some(found.parse().map_err(|_| ManagedError::Time {
            index,
            found: found.to_owned(),
        })?),
    };
    let fields = match value.get("fieldsV1") {
        Some(fields) => Set::from_json(fields).map_err(ManagedError::Fields)?,
        None => Set::default(),
    };
    Ok(Entry {
        manager: text("manager").to_owned(),
        operation,
        api_version: text("apiVersion").to_owned(),
        time,
        subresource: text("subresource").to_owned(),
        fields,
    })
}
