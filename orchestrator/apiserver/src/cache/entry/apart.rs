//! An object's tree apart from its owners. Those are the larger part of many objects and of no interest to most writes,
//! so they stay text.

use std::fmt;

use serde::Deserializer;
use serde::de::{Deserialize, MapAccess, Visitor};
use serde_json::value::RawValue;
use serde_json::{Map, Value};

use super::OWNERS;

/// An object without its `managedFields`, and their text.
#[derive(Debug, Default)]
pub(crate) struct Apart<'e> {
    pub(crate) object: Value,
    pub(crate) managed: Option<&'e str>,
}

impl<'e> Apart<'e> {
    /// Takes an object's bytes apart.
    pub(crate) fn read(json: &'e [u8]) -> Self {
        // The bytes were made by this server from a tree.
        serde_json::from_slice(json).unwrap_or_default()
    }
}

impl<'e> Deserialize<'e> for Apart<'e> {
    fn deserialize<D: Deserializer<'e>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(Object)
    }
}

/// Reads the object.
struct Object;

impl<'de> Visitor<'de> for Object {
    type Value = Apart<'de>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut access: A) -> Result<Apart<'de>, A::Error> {
        let mut map = Map::new();
        let mut managed = None;
        while let Some(name) = access.next_key::<String>()? {
            let value = if name == "metadata" {
                let Metadata(metadata, found) = access.next_value()?;
                managed = found;
                Value::Object(metadata)
            } else {
                access.next_value()?
            };
            map.insert(name, value);
        }
        Ok(Apart {
            object: Value::Object(map),
            managed,
        })
    }
}

/// An object's metadata, apart from its owners.
struct Metadata<'e>(Map<String, Value>, Option<&'e str>);

impl<'e> Deserialize<'e> for Metadata<'e> {
    fn deserialize<D: Deserializer<'e>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(InMetadata)
    }
}

/// Reads the metadata.
struct InMetadata;

impl<'de> Visitor<'de> for InMetadata {
    type Value = Metadata<'de>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("metadata")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut access: A) -> Result<Metadata<'de>, A::Error> {
        let (mut map, mut managed) = (Map::new(), None);
        while let Some(name) = access.next_key::<String>()? {
            if name == OWNERS {
                let text: &RawValue = access.next_value()?;
                managed = Some(text.get()).filter(|text| *text != "null");
            } else {
                map.insert(name, access.next_value()?);
            }
        }
        Ok(Metadata(map, managed))
    }
}
