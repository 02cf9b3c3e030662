//! Command lines as the programs of the Kubernetes world take them: Go's syntax, from a table of flags.
//!
//! `-name`, `--name`, `--name=value` and `--name value` are one; a boolean takes its value only after `=`. [`Flag`] is one
//! row of a program's table, [`parse`] reads a command line by it, [`Values`] gives the typed values. A flag that
//! exists elsewhere and means nothing here is taken, and named by [`Values::warnings`].

mod value;

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::time::Duration;

pub use value::{parse_bool, parse_duration};

/// What a flag's value looks like.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// `true` or `false`; without a value: true.
    Bool,
    /// A whole number.
    Int,
    /// A whole number that is not negative.
    Uint,
    /// A number.
    Float,
    /// As `1m30s`.
    Duration,
    /// Anything.
    Text,
    /// `A=true,B=false`; repeated flags add up.
    Gates,
    /// `key:value,key:value`.
    Labels,
}

/// What becomes of a flag.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Effect {
    /// It does what it does upstream.
    Same,
    /// It still does, and another one should be used.
    Deprecated(&'static str),
    /// It is taken and does nothing, for this reason.
    Ignored(&'static str),
}

/// One row of a program's table of flags.
#[derive(Clone, Copy, Debug)]
pub struct Flag {
    /// Its name, without dashes.
    pub name: &'static str,
    /// How its value looks.
    pub kind: Kind,
    /// The value when it isn't given, as Go writes it; empty for none.
    pub default: &'static str,
    /// What becomes of it.
    pub effect: Effect,
    /// One sentence for `--help`.
    pub help: &'static str,
}

impl Flag {
    /// A flag that does what it does upstream.
    pub const fn new(name: &'static str, kind: Kind, default: &'static str, help: &'static str) -> Self {
        Self {
            name,
            kind,
            default,
            effect: Effect::Same,
            help,
        }
    }

    /// The same flag, taken and without effect.
    pub const fn ignored(self, why: &'static str) -> Self {
        Self {
            effect: Effect::Ignored(why),
            ..self
        }
    }

    /// The same flag; `instead` says what to use.
    pub const fn deprecated(self, instead: &'static str) -> Self {
        Self {
            effect: Effect::Deprecated(instead),
            ..self
        }
    }
}

/// A command line that can't be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum UsageError {
    /// `--help` was asked for.
    #[error("help requested")]
    Help,
    /// No flag of that name.
    #[error("unknown flag --{name}{}", .near.map_or(String::new(), |near| format!(" (did you mean --{near}?)")))]
    Unknown {
        /// As it was given.
        name: String,
        /// A flag with nearly that name.
        near: Option<&'static str>,
    },
    /// Something that is no flag.
    #[error("unexpected argument {0:?}: flags begin with a dash")]
    Positional(String),
    /// The command line ends where a value should be.
    #[error("flag --{0} needs a value")]
    NoValue(&'static str),
    /// The value doesn't fit the flag.
    #[error("flag --{flag}: {value:?} is {what}")]
    BadValue {
        /// The flag.
        flag: &'static str,
        /// As it was given.
        value: String,
        /// What is wrong with it.
        what: String,
    },
}

/// The values of a command line, defaults included. Every value has been checked against its flag's kind.
#[derive(Clone, Debug)]
pub struct Values {
    flags: Vec<Flag>,
    given: BTreeMap<&'static str, Vec<String>>,
}

/// Reads a command line (without the program's name).
///
/// # Errors
/// Final: a flag that isn't in the table, a value that doesn't fit, an argument that is no flag.
pub fn parse(flags: Vec<Flag>, args: impl IntoIterator<Item = String>) -> Result<Values, UsageError> {
    let mut given: BTreeMap<&'static str, Vec<String>> = BTreeMap::new();
    let mut args = args.into_iter();
    while let Some(arg) = args.next() {
        let Some(body) = arg.strip_prefix("--").or_else(|| arg.strip_prefix('-')) else {
            return Err(UsageError::Positional(arg));
        };
        let (name, value) = match body.split_once('=') {
            Some((name, value)) => (name, Some(value.to_owned())),
            None => (body, None),
        };
        let Some(flag) = find(&flags, name) else {
            // `-v5`, as the shorthand may be written.
            if let Some(level) = verbosity(&flags, body) {
                given.entry("v").or_default().push(level);
                continue;
            }
            if matches!(name, "help" | "h") {
                return Err(UsageError::Help);
            }
            return Err(UsageError::Unknown {
                name: name.to_owned(),
                near: nearest(&flags, name),
            });
        };
        let value = match (value, flag.kind) {
            (Some(value), _) => value,
            (None, Kind::Bool) => "true".to_owned(),
            (None, _) => args.next().ok_or(UsageError::NoValue(flag.name))?,
        };
        value::check(flag.kind, &value).map_err(|what| UsageError::BadValue {
            flag: flag.name,
            value: value.clone(),
            what,
        })?;
        given.entry(flag.name).or_default().push(value);
    }
    Ok(Values { flags, given })
}

fn find<'a>(flags: &'a [Flag], name: &str) -> Option<&'a Flag> {
    flags.iter().find(|flag| flag.name == name)
}

fn verbosity(flags: &[Flag], body: &str) -> Option<String> {
    let level = body.strip_prefix('v')?;
    let is_number = !level.is_empty() && level.bytes().all(|byte| byte.is_ascii_digit());
    (is_number && find(flags, "v").is_some()).then(|| level.to_owned())
}

/// The flag whose name takes the fewest changes, if few are enough.
fn nearest(flags: &[Flag], name: &str) -> Option<&'static str> {
    let distances = flags
        .iter()
        .map(|flag| (value::distance(flag.name, name), flag.name));
    distances
        .min()
        .filter(|(distance, _)| *distance <= 3)
        .map(|(_, name)| name)
}

impl Values {
    /// Whether the flag was on the command line.
    pub fn is_given(&self, name: &str) -> bool {
        self.given.contains_key(name)
    }

    /// The value as text: the last one given, or the default.
    ///
    /// # Panics
    /// When the table has no such flag: a bug of the program.
    pub fn text(&self, name: &str) -> &str {
        let flag = find(&self.flags, name).unwrap_or_else(|| unreachable!("no flag --{name} in the table"));
        let given = self.given.get(name).and_then(|values| values.last());
        given.map_or(flag.default, String::as_str)
    }

    /// As [`Values::text`]; `None` when empty.
    pub fn some_text(&self, name: &str) -> Option<String> {
        Some(self.text(name))
            .filter(|text| !text.is_empty())
            .map(str::to_owned)
    }

    /// The value of a boolean.
    pub fn flag(&self, name: &str) -> bool {
        parse_bool(self.text(name)).unwrap_or(false)
    }

    /// The value of a duration.
    pub fn duration(&self, name: &str) -> Duration {
        parse_duration(self.text(name)).unwrap_or_default()
    }

    /// The value of a number; zero for a default that is empty.
    pub fn int(&self, name: &str) -> i64 {
        self.text(name).parse().unwrap_or(0)
    }

    /// The value of a number that is not negative.
    pub fn uint(&self, name: &str) -> usize {
        self.text(name).parse().unwrap_or(0)
    }

    /// The value of a number.
    pub fn float(&self, name: &str) -> f64 {
        self.text(name).parse().unwrap_or(0.0)
    }

    /// The gates of `A=true,B=false`; the last word on each counts.
    pub fn gates(&self, name: &str) -> BTreeMap<String, bool> {
        let given = self.given.get(name).into_iter().flatten();
        given
            .flat_map(|value| value.split(','))
            .filter_map(|pair| pair.split_once('='))
            .filter_map(|(gate, value)| Some((gate.trim().to_owned(), parse_bool(value.trim())?)))
            .collect()
    }

    /// The pairs of `key:value,key:value`.
    pub fn labels(&self, name: &str) -> BTreeMap<String, String> {
        let given = self.given.get(name).into_iter().flatten();
        given
            .flat_map(|value| value.split(','))
            .filter_map(|pair| pair.split_once(':'))
            .map(|(key, value)| (key.trim().to_owned(), value.trim().to_owned()))
            .collect()
    }

    /// What the user should know of flags that were given: one sentence for each that is deprecated or does nothing.
    pub fn warnings(&self) -> Vec<String> {
        let given = self.flags.iter().filter(|flag| self.is_given(flag.name));
        given
            .filter_map(|flag| match flag.effect {
                Effect::Same => None,
                Effect::Deprecated(instead) => Some(format!("--{} is deprecated: {instead}", flag.name)),
                // The default asked for in words changes nothing, here as there.
                Effect::Ignored(_) if self.text(flag.name) == flag.default => None,
                Effect::Ignored(why) => Some(format!("--{} has no effect: {why}", flag.name)),
            })
            .collect()
    }
}

/// The text of `--help`.
pub fn usage(program: &str, flags: &[Flag]) -> String {
    let mut text = format!("Usage of {program}:\n");
    let mut sorted: Vec<&Flag> = flags.iter().collect();
    sorted.sort_by_key(|flag| flag.name);
    for flag in sorted {
        let default = match flag.default {
            "" | "false" => String::new(),
            default => format!(" (default {default})"),
        };
        let note = match flag.effect {
            Effect::Same => String::new(),
            Effect::Deprecated(instead) => format!(" Deprecated: {instead}."),
            Effect::Ignored(why) => format!(" No effect here: {why}."),
        };
        let value = match flag.kind {
            Kind::Bool => "",
            Kind::Int | Kind::Uint => " int",
            Kind::Float => " float",
            Kind::Duration => " duration",
            Kind::Text => " string",
            Kind::Gates => " gate=bool,...",
            Kind::Labels => " key:value,...",
        };
        // Writing to a string doesn't fail.
        writeln!(
            text,
            "  --{}{value}\n        {}{default}.{note}",
            flag.name, flag.help
        )
        .ok();
    }
    text
}

#[cfg(test)]
mod tests;
