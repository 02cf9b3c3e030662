//! Where in an object one is, as errors name it: `spec.containers[0].name`.

use std::fmt;

/// A list of steps on the stack, rendered only when something is to be said.
#[derive(Clone, Copy)]
pub(crate) struct Place<'p> {
    outer: Option<&'p Place<'p>>,
    step: Step<'p>,
}

#[derive(Clone, Copy)]
enum Step<'p> {
    Root,
    Field(&'p str),
    Index(usize),
    Key(&'p str),
    Entry(&'p str),
}

impl<'p> Place<'p> {
    pub(crate) const ROOT: Place<'static> = Place {
        outer: None,
        step: Step::Root,
    };

    /// A place at the top of an object.
    pub(crate) const fn top(name: &'p str) -> Place<'p> {
        Place {
            outer: Some(&Place::ROOT),
            step: Step::Field(name),
        }
    }

    /// A field of the object at this place.
    pub(crate) fn field(&'p self, name: &'p str) -> Place<'p> {
        Place {
            outer: Some(self),
            step: Step::Field(name),
        }
    }

    /// An element of the list at this place.
    pub(crate) fn index(&'p self, index: usize) -> Place<'p> {
        Place {
            outer: Some(self),
            step: Step::Index(index),
        }
    }

    /// An entry of the map at this place.
    pub(crate) fn key(&'p self, key: &'p str) -> Place<'p> {
        Place {
            outer: Some(self),
            step: Step::Key(key),
        }
    }

    /// An entry of the map at this place, as strict decoding names it: like a field.
    pub(crate) fn entry(&'p self, name: &'p str) -> Place<'p> {
        Place {
            outer: Some(self),
            step: Step::Entry(name),
        }
    }

    /// The path without indices and entries, as Go's decoder names it in type errors.
    pub(crate) fn struct_path(&self) -> String {
        let outer = self.outer.map(Place::struct_path).unwrap_or_default();
        match self.step {
            Step::Field(name) if outer.is_empty() => name.to_owned(),
            Step::Field(name) => format!("{outer}.{name}"),
            Step::Root | Step::Index(_) | Step::Key(_) | Step::Entry(_) => outer,
        }
    }
}

impl fmt::Display for Place<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(outer) = self.outer {
            outer.fmt(f)?;
            if matches!(self.step, Step::Field(_) | Step::Entry(_)) && !matches!(outer.step, Step::Root) {
                f.write_str(".")?;
            }
        }
        match self.step {
            Step::Root => Ok(()),
            Step::Field(name) | Step::Entry(name) => f.write_str(name),
            Step::Index(index) => write!(f, "[{index}]"),
            Step::Key(key) => write!(f, "[{key}]"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_are_named_as_upstream_names_them() {
        let spec = Place::top("spec");
        assert_eq!(
            spec.field("containers").index(1).field("name").to_string(),
            "spec.containers[1].name"
        );
        assert_eq!(
            spec.field("resources").key("storage").to_string(),
            "spec.resources[storage]"
        );
        assert_eq!(
            spec.field("containers").index(1).field("name").struct_path(),
            "spec.containers.name"
        );
        assert_eq!(Place::ROOT.to_string(), "");
    }
}
