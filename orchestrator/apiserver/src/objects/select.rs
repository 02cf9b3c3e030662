//! Label and field selectors of a request, matched against cached facts without parsing objects.

use moorline_schema::selector::{FieldSelector, LabelSelector};

use super::Resource;
use crate::cache::{Collection, Entry};
use crate::http::Failure;
use crate::http::query::Query;

/// Both selectors of a request.
#[derive(Debug, Default)]
pub(crate) struct Selector {
    labels: LabelSelector,
    fields: Vec<FieldCondition>,
}

#[derive(Debug)]
struct FieldCondition {
    /// Place in [`Collection::fields`].
    index: usize,
    equal: bool,
    value: String,
}

impl Selector {
    /// Parses both parameters for a resource.
    pub(crate) fn parse(
        query: &Query<'_>,
        resource: &Resource,
        collection: &Collection,
    ) -> Result<Self, Failure> {
        let labels = LabelSelector::parse(query.get("labelSelector").unwrap_or_default())
            .map_err(|error| Failure::bad_request(error.to_string()))?;
        let facts = resource.facts;
        let text = query.get("fieldSelector").unwrap_or_default();
        let parsed = match &resource.custom {
            None => FieldSelector::parse(text, facts.group, facts.version, facts.plural),
            Some(custom) => {
                let own = custom.version().selectable.iter().map(String::as_str);
                let known: Vec<&str> = ["metadata.name", "metadata.namespace"]
                    .into_iter()
                    .chain(own)
                    .collect();
                FieldSelector::parse_known(text, (facts.group, facts.plural), &known)
            }
        };
        let parsed = parsed.map_err(|error| Failure::bad_request(error.to_string()))?;
        let mut fields = Vec::new();
        for one in parsed.requirements() {
            let stored = stored_field(resource, &one.field);
            let index = collection.fields.iter().position(|field| *field == stored);
            let Some(index) = index else {
                return Err(Failure::bad_request(format!(
                    "field label not supported: {}",
                    one.field
                )));
            };
            fields.push(FieldCondition {
                index,
                equal: one.equal,
                value: one.value.clone(),
            });
        }
        Ok(Selector { labels, fields })
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.fields.is_empty() && self.labels.is_empty()
    }

    pub(crate) fn matches(&self, entry: &Entry) -> bool {
        let field = |condition: &FieldCondition| {
            let value = entry.facts.fields.get(condition.index).map_or("", |value| value);
            (value == condition.value) == condition.equal
        };
        self.fields.iter().all(field)
            && (self.labels.is_empty() || self.labels.matches(entry.facts.labels.as_ref()))
    }
}

/// Events of events.k8s.io name their fields otherwise than they are stored.
fn stored_field<'f>(resource: &Resource, field: &'f str) -> std::borrow::Cow<'f, str> {
    match field.strip_prefix("regarding.") {
        Some(rest) if resource.is_converted() => format!("involvedObject.{rest}").into(),
        _ if resource.is_converted() && field == "reportingController" => "reportingComponent".into(),
        // The old name, still understood.
        _ if field == "spec.host" => "spec.nodeName".into(),
        _ => field.into(),
    }
}
