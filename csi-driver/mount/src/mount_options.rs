//! The words after `-o`: which of them belong to one mount, which to the filesystem, and which nobody may pass.

use rustix::mount::MountAttrFlags;

use crate::MountError;

/// Mount options, sorted by who acts on them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MountOptions {
    /// Attributes of the single mount: `ro`, `nosuid`, `noatime` ...
    pub attributes: Attributes,
    /// Parameters of the filesystem, in the order given: `("data", Some("ordered"))`, `("sync", None)`.
    pub parameters: Vec<(String, Option<String>)>,
}

/// What to set on and what to clear from one mount.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Attributes {
    /// Attributes to set.
    pub set: MountAttrFlags,
    /// Attributes to clear.
    pub clear: MountAttrFlags,
}

impl Attributes {
    /// Nothing to change.
    pub const NONE: Attributes = Attributes {
        set: MountAttrFlags::empty(),
        clear: MountAttrFlags::empty(),
    };

    /// The same, and read-only.
    #[must_use]
    pub fn read_only(mut self) -> Self {
        self.set |= MountAttrFlags::MOUNT_ATTR_RDONLY;
        self.clear -= MountAttrFlags::MOUNT_ATTR_RDONLY;
        self
    }

    /// Will the mount be read-only?
    pub fn is_read_only(self) -> bool {
        self.set.contains(MountAttrFlags::MOUNT_ATTR_RDONLY)
    }

    fn turn(&mut self, flag: MountAttrFlags, on: bool) {
        let (to, from) = if on {
            (&mut self.set, &mut self.clear)
        } else {
            (&mut self.clear, &mut self.set)
        };
        to.insert(flag);
        from.remove(flag);
    }

    /// The access-time setting is one value in three bits, not three flags.
    fn access_time(&mut self, value: MountAttrFlags) {
        self.set -= MountAttrFlags::MOUNT_ATTR__ATIME;
        self.set |= value;
        self.clear |= MountAttrFlags::MOUNT_ATTR__ATIME;
    }
}

impl Default for MountOptions {
    fn default() -> Self {
        MountOptions {
            attributes: Attributes::NONE,
            parameters: Vec::new(),
        }
    }
}

impl MountOptions {
    /// Sorts `options`; each may hold several words divided by commas. A later word beats an earlier one.
    ///
    /// # Errors
    /// For words that would turn the mount into another operation (`bind`, `remount` ...) or carry control characters.
    pub fn parse<S: AsRef<str>>(options: &[S]) -> Result<Self, MountError> {
        let mut parsed = MountOptions::default();
        for option in options {
            for word in split_words(option.as_ref()) {
                parsed.add(word)?;
            }
        }
        Ok(parsed)
    }

    /// Are there options which only a fresh mount of the filesystem can take?
    pub fn has_parameters(&self) -> bool {
        !self.parameters.is_empty()
    }

    fn add(&mut self, word: &str) -> Result<(), MountError> {
        use MountAttrFlags as Flag;
        let attributes = &mut self.attributes;
        match word {
            "" | "defaults" | "auto" | "noauto" | "nofail" | "_netdev" => {}
            "ro" => attributes.turn(Flag::MOUNT_ATTR_RDONLY, true),
            "rw" => attributes.turn(Flag::MOUNT_ATTR_RDONLY, false),
            "nosuid" => attributes.turn(Flag::MOUNT_ATTR_NOSUID, true),
            "suid" => attributes.turn(Flag::MOUNT_ATTR_NOSUID, false),
            "nodev" => attributes.turn(Flag::MOUNT_ATTR_NODEV, true),
            "dev" => attributes.turn(Flag::MOUNT_ATTR_NODEV, false),
            "noexec" => attributes.turn(Flag::MOUNT_ATTR_NOEXEC, true),
            "exec" => attributes.turn(Flag::MOUNT_ATTR_NOEXEC, false),
            "nodiratime" => attributes.turn(Flag::MOUNT_ATTR_NODIRATIME, true),
            "diratime" => attributes.turn(Flag::MOUNT_ATTR_NODIRATIME, false),
            "nosymfollow" => attributes.turn(Flag::MOUNT_ATTR_NOSYMFOLLOW, true),
            "symfollow" => attributes.turn(Flag::MOUNT_ATTR_NOSYMFOLLOW, false),
            "noatime" => attributes.access_time(Flag::MOUNT_ATTR_NOATIME),
            "strictatime" => attributes.access_time(Flag::MOUNT_ATTR_STRICTATIME),
            // The kernel's default; also what "not noatime" comes to.
            "relatime" | "atime" | "nostrictatime" => attributes.access_time(Flag::MOUNT_ATTR_RELATIME),
            "bind" | "rbind" | "move" | "remount" | "shared" | "rshared" | "slave" | "rslave" | "private"
            | "rprivate" | "unbindable" | "runbindable" | "loop" => {
                return Err(bad(word, "would make this another operation than a plain mount"));
            }
            _ if word.contains(|c: char| c.is_control()) => return Err(bad(word, "has control characters")),
            // Notes of user space to itself, as in mount(8).
            _ if word.starts_with("x-") || word.starts_with("X-") || word.starts_with("comment=") => {}
            _ => self.parameters.push(parameter(word)?),
        }
        Ok(())
    }

    /// The parameters as mount(2) takes them. A value with commas is quoted, as its giver had to.
    pub(crate) fn data(&self) -> String {
        let words = self.parameters.iter().map(|(key, value)| match value {
            Some(value) if value.contains(',') => format!("{key}=\"{value}\""),
            Some(value) => format!("{key}={value}"),
            None => key.clone(),
        });
        words.collect::<Vec<_>>().join(",")
    }
}

/// A word for the filesystem: `name` or `name=value`, the value perhaps in quotes.
fn parameter(word: &str) -> Result<(String, Option<String>), MountError> {
    let (key, value) = word
        .split_once('=')
        .map_or((word, None), |(key, value)| (key, Some(value)));
    let value = value.map(|value| {
        let inner = value.strip_prefix('"').and_then(|value| value.strip_suffix('"'));
        inner.unwrap_or(value).to_owned()
    });
    if key.is_empty() {
        return Err(bad(word, "has a value but no name"));
    }
    if key.contains('"') || value.as_ref().is_some_and(|value| value.contains('"')) {
        return Err(bad(word, "has quotes that are not around the whole value"));
    }
    // The kernel goes by the name: `ro=1` would make the filesystem read-only behind the attributes' back.
    let mut alone = MountOptions::default();
    if value.is_some() && (alone.add(key).is_err() || !alone.has_parameters()) {
        return Err(bad(word, "has a value, but its name takes none"));
    }
    if key == "source" {
        return Err(bad(word, "would mount another source"));
    }
    Ok((key.to_owned(), value))
}

fn bad(option: &str, why: &'static str) -> MountError {
    MountError::BadOption {
        option: option.to_owned(),
        why,
    }
}

/// Splits at commas, but not inside double quotes: SELinux contexts have commas of their own.
fn split_words(option: &str) -> impl Iterator<Item = &str> {
    let mut quoted = false;
    option.split(move |c| {
        if c == '"' {
            quoted = !quoted;
        }
        c == ',' && !quoted
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    type Parameters = &'static [(&'static str, Option<&'static str>)];

    #[test]
    fn words_go_to_whoever_acts_on_them() {
        use MountAttrFlags as Flag;
        let cases: [(&str, &[&str], Flag, Flag, Parameters); 7] = [
            ("nothing", &[], Flag::empty(), Flag::empty(), &[]),
            ("read-only", &["ro"], Flag::MOUNT_ATTR_RDONLY, Flag::empty(), &[]),
            (
                "later beats earlier",
                &["ro", "rw"],
                Flag::empty(),
                Flag::MOUNT_ATTR_RDONLY,
                &[],
            ),
            (
                "several in one string",
                &["nosuid,nodev,data=ordered,sync"],
                Flag::MOUNT_ATTR_NOSUID.union(Flag::MOUNT_ATTR_NODEV),
                Flag::empty(),
                &[("data", Some("ordered")), ("sync", None)],
            ),
            (
                "access time is one value",
                &["strictatime", "noatime"],
                Flag::MOUNT_ATTR_NOATIME,
                Flag::MOUNT_ATTR__ATIME,
                &[],
            ),
            (
                "quoted commas stay",
                &[r#"context="system_u:object_r:t:s0:c1,c2",discard"#],
                Flag::empty(),
                Flag::empty(),
                &[
                    ("context", Some("system_u:object_r:t:s0:c1,c2")),
                    ("discard", None),
                ],
            ),
            (
                "notes are dropped",
                &["defaults", "x-systemd.automount", "_netdev"],
                Flag::empty(),
                Flag::empty(),
                &[],
            ),
        ];
        for (name, options, set, clear, parameters) in cases {
            let parsed = MountOptions::parse(options).expect(name);
            assert_eq!(parsed.attributes, Attributes { set, clear }, "{name}");
            let expected: Vec<_> = parameters
                .iter()
                .map(|(key, value)| ((*key).to_owned(), value.map(str::to_owned)))
                .collect();
            assert_eq!(parsed.parameters, expected, "{name}");
        }
    }

    #[test]
    fn other_operations_and_control_characters_are_refused() {
        for option in ["bind", "remount,ro", "rshared", "loop", "data=a\nb", "=x", "a\0b"] {
            assert!(MountOptions::parse(&[option]).is_err(), "{option:?}");
        }
    }

    #[test]
    fn names_that_mean_something_else_and_open_quotes_are_refused() {
        let cases = [
            ("an attribute with a value", "ro=1"),
            ("an operation with a value", "loop=/dev/loop7"),
            ("another source", "source=/dev/sdb"),
            ("another source, without a value", "source"),
            ("an open quote that swallows a word", r#"context="a,ro"#),
            ("a quote in a name", r#"con"text=a"#),
            ("quotes inside a value", r#"context="a"b""#),
        ];
        for (name, option) in cases {
            assert!(MountOptions::parse(&[option]).is_err(), "{name}: {option:?}");
        }
    }

    #[test]
    fn commas_in_a_value_are_quoted_for_the_old_call() {
        let given = r#"context="t:s0:c1,c2",discard,data=ordered,x="#;
        assert_eq!(MountOptions::parse(&[given]).expect("fine").data(), given);
    }
}
