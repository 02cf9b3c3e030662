//! A map of parameters that costs one word when it is empty, as it mostly is: the catalog holds one per volume.

use std::ops::Deref;

use moorline_driver_sdk::request::StringMap;
use serde::{Deserialize, Serialize};

static EMPTY: StringMap = StringMap::new();

/// Parameters of a volume.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(from = "StringMap", into = "StringMap")]
pub(crate) struct Parameters(Option<Box<StringMap>>);

impl From<StringMap> for Parameters {
    fn from(map: StringMap) -> Self {
        Parameters((!map.is_empty()).then(|| Box::new(map)))
    }
}

impl From<Parameters> for StringMap {
    fn from(parameters: Parameters) -> Self {
        parameters.0.map_or_else(StringMap::new, |map| *map)
    }
}

impl Deref for Parameters {
    type Target = StringMap;

    fn deref(&self) -> &StringMap {
        self.0.as_deref().unwrap_or(&EMPTY)
    }
}
