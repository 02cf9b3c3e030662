//! A CustomResourceDefinition, read from its stored form into what serving needs.

use serde_json::Value;

use super::columns::PrinterColumn;
use super::structural::{Schema, SchemaError};
use crate::object::{list, text};

/// Names of a custom resource.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Names {
    /// Name in paths, such as `volumesnapshots`.
    pub plural: String,
    /// Such as `volumesnapshot`.
    pub singular: String,
    /// Such as `VolumeSnapshot`.
    pub kind: String,
    /// Such as `VolumeSnapshotList`.
    pub list_kind: String,
    /// Such as `vs`.
    pub short_names: Vec<String>,
    /// Such as `all`.
    pub categories: Vec<String>,
}

impl Names {
    /// Reads `spec.names` or `status.acceptedNames`, with upstream's defaults.
    #[must_use]
    pub fn read(names: &Value) -> Names {
        let strings = |field: &str| {
            list(names, &[field])
                .iter()
                .filter_map(Value::as_str)
                .map(str::to_owned)
                .collect()
        };
        let kind = text(names, &["kind"]).to_owned();
        let or = |field: &str, default: String| match text(names, &[field]) {
            "" if kind.is_empty() => String::new(),
            "" => default,
            found => found.to_owned(),
        };
        Names {
            plural: text(names, &["plural"]).to_owned(),
            singular: or("singular", kind.to_lowercase()),
            list_kind: or("listKind", format!("{kind}List")),
            short_names: strings("shortNames"),
            categories: strings("categories"),
            kind,
        }
    }
}

/// Where the fields of `scale` stand, as JSON paths of simple fields.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ScalePaths {
    /// Such as `.spec.replicas`.
    pub spec_replicas: String,
    /// Such as `.status.replicas`.
    pub status_replicas: String,
    /// Such as `.status.labelSelector`.
    pub label_selector: Option<String>,
}

/// How objects get from one version into another.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Conversion {
    /// Only `apiVersion` changes.
    None,
    /// A webhook is asked; the value is `spec.conversion.webhook`.
    Webhook(Value),
}

/// One version of a custom resource.
#[derive(Clone, Debug)]
pub struct Version {
    /// Such as `v1`.
    pub name: String,
    /// Whether clients may use it.
    pub served: bool,
    /// What clients of a deprecated version are told.
    pub deprecation_warning: Option<String>,
    /// The compiled schema.
    pub schema: Schema,
    /// The schema as it was written, for OpenAPI.
    pub schema_source: Value,
    /// Whether status is a subresource.
    pub has_status: bool,
    /// The scale subresource.
    pub scale: Option<ScalePaths>,
    /// What `kubectl get` prints behind the name.
    pub columns: Vec<PrinterColumn>,
    /// Fields by which objects can be selected, such as `spec.color`.
    pub selectable: Vec<String>,
}

/// A definition.
#[derive(Clone, Debug)]
pub struct Definition {
    /// API group.
    pub group: String,
    /// Its names.
    pub names: Names,
    /// Whether objects live in namespaces.
    pub namespaced: bool,
    /// Its versions in the order of the definition.
    pub versions: Vec<Version>,
    /// Place of the version in which objects are stored.
    pub storage: usize,
    /// How versions are converted.
    pub conversion: Conversion,
}

/// Why a definition can't be served, though it is stored.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum DefinitionError {
    /// No version is marked as the storage version.
    #[error("no version is the storage version")]
    NoStorageVersion,
    /// A version's schema can't be compiled.
    #[error("version {version}")]
    Schema {
        /// The version.
        version: String,
        /// What is wrong with it.
        source: SchemaError,
    },
}

impl Definition {
    /// Reads a stored definition.
    ///
    /// # Errors
    /// [`DefinitionError`]: it was stored under other rules than today's.
    pub fn read(object: &Value) -> Result<Definition, DefinitionError> {
        let group = text(object, &["spec", "group"]).to_owned();
        let names = Names::read(&object["spec"]["names"]);
        let mut versions = Vec::new();
        let mut storage = None;
        for (index, version) in list(object, &["spec", "versions"]).iter().enumerate() {
            if version["storage"] == Value::Bool(true) {
                storage = Some(index);
            }
            versions.push(read_version(version, &group, &names)?);
        }
        let webhook = &object["spec"]["conversion"];
        Ok(Definition {
            group,
            names,
            namespaced: text(object, &["spec", "scope"]) == "Namespaced",
            versions,
            storage: storage.ok_or(DefinitionError::NoStorageVersion)?,
            conversion: match text(webhook, &["strategy"]) {
                "Webhook" => Conversion::Webhook(webhook["webhook"].clone()),
                _ => Conversion::None,
            },
        })
    }

    /// The version in which objects are stored.
    #[must_use]
    pub fn storage_version(&self) -> &Version {
        &self.versions[self.storage]
    }

    /// The definition's own name: `<plural>.<group>`.
    #[must_use]
    pub fn name(&self) -> String {
        format!("{}.{}", self.names.plural, self.group)
    }
}

fn read_version(version: &Value, group: &str, names: &Names) -> Result<Version, DefinitionError> {
    let name = text(version, &["name"]).to_owned();
    let source = &version["schema"]["openAPIV3Schema"];
    let schema = Schema::compile_root(source).map_err(|source| DefinitionError::Schema {
        version: name.clone(),
        source,
    })?;
    let scale = &version["subresources"]["scale"];
    let scale = scale.is_object().then(|| ScalePaths {
        spec_replicas: text(scale, &["specReplicasPath"]).to_owned(),
        status_replicas: text(scale, &["statusReplicasPath"]).to_owned(),
        label_selector: Some(text(scale, &["labelSelectorPath"]).to_owned()).filter(|path| !path.is_empty()),
    });
    let is_deprecated = version["deprecated"] == Value::Bool(true);
    let warning = match text(version, &["deprecationWarning"]) {
        "" => format!("{group}/{name} {} is deprecated", names.kind),
        stated => stated.to_owned(),
    };
    let selectable = list(version, &["selectableFields"]).iter();
    Ok(Version {
        served: version["served"] == Value::Bool(true),
        deprecation_warning: is_deprecated.then_some(warning),
        schema,
        schema_source: source.clone(),
        has_status: version["subresources"]["status"].is_object(),
        scale,
        columns: super::columns::read(list(version, &["additionalPrinterColumns"])),
        selectable: selectable
            .map(|field| text(field, &["jsonPath"]).trim_start_matches('.').to_owned())
            .collect(),
        name,
    })
}
