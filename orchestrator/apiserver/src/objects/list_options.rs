//! Which state a list or watch asks for, and the tokens that carry a long list on. Pure.

use base64::Engine;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use serde::{Deserialize, Serialize};

use crate::http::failure::{About, Cause, Failure};
use crate::http::query::Query;

/// The state a list shall show.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum ListState {
    /// The newest there is.
    Newest,
    /// Anything known.
    Any,
    /// At least as new as this.
    NotOlderThan(u64),
    /// Exactly this.
    Exact(u64),
    /// The next part of an earlier list.
    Continue(Continue),
}

/// Where a list goes on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Continue {
    /// The revision of the first part; absent after that expired: go on with the newest.
    pub(crate) revision: Option<u64>,
    /// The first path of this part, relative to the collection asked for.
    pub(crate) start: String,
}

#[derive(Serialize, Deserialize)]
struct Token {
    v: String,
    rv: i64,
    start: String,
}

const TOKEN_VERSION: &str = "meta.k8s.io/v1";

impl Continue {
    /// The token as clients carry it.
    pub(crate) fn encode(&self) -> String {
        let rv = self
            .revision
            .map_or(-1, |revision| i64::try_from(revision).unwrap_or(i64::MAX));
        let token = Token {
            v: TOKEN_VERSION.to_owned(),
            rv,
            start: self.start.clone(),
        };
        BASE64_URL_SAFE_NO_PAD.encode(serde_json::to_vec(&token).unwrap_or_default())
    }

    fn decode(text: &str) -> Result<Self, Failure> {
        let malformed = |why: &str| Failure::bad_request(format!("continue key is not valid: {why}"));
        let bytes = BASE64_URL_SAFE_NO_PAD
            .decode(text)
            .map_err(|error| malformed(&error.to_string()))?;
        let token: Token = serde_json::from_slice(&bytes).map_err(|error| malformed(&error.to_string()))?;
        if token.v != TOKEN_VERSION {
            return Err(malformed("unknown version"));
        }
        // A path has no such part; one that has could name objects outside of the collection.
        if token.start.split('/').any(|part| part == "..") || token.start.starts_with('/') {
            return Err(malformed("it leaves the collection"));
        }
        let revision = match token.rv {
            -1 => None,
            rv => Some(
                u64::try_from(rv)
                    .ok()
                    .filter(|&rv| rv > 0)
                    .ok_or_else(|| malformed("bad revision"))?,
            ),
        };
        Ok(Continue {
            revision,
            start: token.start,
        })
    }
}

/// How a watch begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum WatchStart {
    /// After a revision.
    After(u64),
    /// With what is there, shown as added; `mark_end` closes that with an annotated bookmark.
    Initial {
        not_older_than: Option<u64>,
        mark_end: bool,
    },
}

/// The revision parameter: absent, or a number.
fn revision(query: &Query<'_>) -> Result<Option<u64>, Failure> {
    let Some(text) = query.get("resourceVersion") else {
        return Ok(None);
    };
    let parsed = text.parse().map(Some);
    parsed.map_err(|_| {
        invalid(
            "resourceVersion",
            "FieldValueInvalid",
            format!("Invalid value: {text:?}: must be a number"),
        )
    })
}

/// The state a list asks for.
pub(crate) fn list_state(query: &Query<'_>, limit: Option<u64>) -> Result<ListState, Failure> {
    let revision = revision(query)?;
    let matching = query.get("resourceVersionMatch");
    if query.optional_flag("sendInitialEvents")?.is_some() {
        return Err(forbidden(
            "sendInitialEvents",
            "sendInitialEvents is forbidden for list",
        ));
    }
    if let Some(token) = query.get("continue") {
        if matching.is_some() {
            let why = "resourceVersionMatch is forbidden when continue is provided";
            return Err(forbidden("resourceVersionMatch", why));
        }
        if revision.is_some_and(|revision| revision > 0) {
            let why = "specifying resource version is not allowed when using continue";
            return Err(Failure::bad_request(why));
        }
        return Continue::decode(token).map(ListState::Continue);
    }
    match (matching, revision) {
        (None, None) => Ok(ListState::Newest),
        (None, Some(0)) => Ok(ListState::Any),
        // Documented for old clients: with a limit the revision is meant exactly.
        (None, Some(revision)) if limit.is_some() => Ok(ListState::Exact(revision)),
        (None | Some("NotOlderThan"), Some(revision)) => Ok(ListState::NotOlderThan(revision)),
        (Some("NotOlderThan" | "Exact"), None) => {
            let why = "resourceVersionMatch is forbidden unless resourceVersion is provided";
            Err(forbidden("resourceVersionMatch", why))
        }
        (Some("Exact"), Some(0)) => Err(forbidden(
            "resourceVersionMatch",
            "resourceVersionMatch \"exact\" is forbidden for resourceVersion \"0\"",
        )),
        (Some("Exact"), Some(revision)) => Ok(ListState::Exact(revision)),
        (Some(other), _) => Err(unsupported_match(other, "\"Exact\", \"NotOlderThan\", \"\"")),
    }
}

/// How a watch asks to begin.
pub(crate) fn watch_start(query: &Query<'_>) -> Result<WatchStart, Failure> {
    let revision = revision(query)?;
    let matching = query.get("resourceVersionMatch");
    if query.get("continue").is_some() {
        return Err(forbidden("continue", "continue is forbidden for watch"));
    }
    match (query.optional_flag("sendInitialEvents")?, matching) {
        (Some(initial), Some("NotOlderThan")) => {
            if !initial {
                return Ok(match revision {
                    Some(revision) if revision > 0 => WatchStart::After(revision),
                    _ => WatchStart::Initial {
                        not_older_than: None,
                        mark_end: false,
                    },
                });
            }
            let mark_end = query.flag("allowWatchBookmarks")?;
            Ok(WatchStart::Initial {
                not_older_than: revision,
                mark_end,
            })
        }
        (Some(_), None) => {
            let why = "sendInitialEvents requires setting resourceVersionMatch to NotOlderThan";
            Err(forbidden("resourceVersionMatch", why))
        }
        (Some(_), Some(other)) => Err(unsupported_match(other, "\"NotOlderThan\"")),
        (None, Some(_)) => {
            let why = "resourceVersionMatch is forbidden for watch unless sendInitialEvents is provided";
            Err(forbidden("resourceVersionMatch", why))
        }
        (None, None) => Ok(match revision {
            None | Some(0) => WatchStart::Initial {
                not_older_than: None,
                mark_end: false,
            },
            Some(revision) => WatchStart::After(revision),
        }),
    }
}

fn forbidden(field: &str, why: &str) -> Failure {
    invalid(field, "FieldValueForbidden", format!("Forbidden: {why}"))
}

fn unsupported_match(value: &str, supported: &str) -> Failure {
    let message = format!("Unsupported value: {value:?}: supported values: {supported}");
    invalid("resourceVersionMatch", "FieldValueNotSupported", message)
}

fn invalid(field: &str, reason: &'static str, message: String) -> Failure {
    let about = About {
        group: "meta.k8s.io",
        resource: "ListOptions",
        name: "",
    };
    Failure::invalid(
        about,
        vec![Cause {
            reason,
            message,
            field: field.to_owned(),
        }],
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn list(text: &str) -> Result<ListState, u16> {
        let query = Query::parse(Some(text)).unwrap();
        let limit = query.number("limit").unwrap();
        list_state(&query, limit).map_err(|failure| failure.code().as_u16())
    }

    #[test]
    fn list_states() {
        use ListState::*;
        let cases = [
            ("", Ok(Newest)),
            ("limit=500", Ok(Newest)),
            ("resourceVersion=0", Ok(Any)),
            ("resourceVersion=0&limit=500", Ok(Any)),
            ("resourceVersion=7", Ok(NotOlderThan(7))),
            ("resourceVersion=7&limit=5", Ok(Exact(7))),
            (
                "resourceVersion=7&resourceVersionMatch=NotOlderThan&limit=5",
                Ok(NotOlderThan(7)),
            ),
            (
                "resourceVersion=0&resourceVersionMatch=NotOlderThan",
                Ok(NotOlderThan(0)),
            ),
            ("resourceVersion=7&resourceVersionMatch=Exact", Ok(Exact(7))),
            ("resourceVersion=0&resourceVersionMatch=Exact", Err(422)),
            ("resourceVersionMatch=Exact", Err(422)),
            ("resourceVersion=7&resourceVersionMatch=x", Err(422)),
            ("resourceVersion=x", Err(422)),
            ("sendInitialEvents=true", Err(422)),
            ("continue=!!", Err(400)),
        ];
        for (text, expected) in cases {
            assert_eq!(list(text), expected, "{text}");
        }
    }

    #[test]
    fn watch_starts() {
        use WatchStart::*;
        let cases = [
            (
                "",
                Ok(Initial {
                    not_older_than: None,
                    mark_end: false,
                }),
            ),
            (
                "resourceVersion=0",
                Ok(Initial {
                    not_older_than: None,
                    mark_end: false,
                }),
            ),
            ("resourceVersion=7", Ok(After(7))),
            (
                "sendInitialEvents=true&resourceVersionMatch=NotOlderThan&allowWatchBookmarks=1",
                Ok(Initial {
                    not_older_than: None,
                    mark_end: true,
                }),
            ),
            (
                "sendInitialEvents=1&resourceVersionMatch=NotOlderThan&allowWatchBookmarks=true&resourceVersion=5",
                Ok(Initial {
                    not_older_than: Some(5),
                    mark_end: true,
                }),
            ),
            (
                "sendInitialEvents=false&resourceVersionMatch=NotOlderThan&resourceVersion=5",
                Ok(After(5)),
            ),
            ("sendInitialEvents=true", Err(422)),
            ("sendInitialEvents=true&resourceVersionMatch=Exact", Err(422)),
            ("resourceVersionMatch=NotOlderThan&resourceVersion=5", Err(422)),
            ("continue=x", Err(422)),
        ];
        for (text, expected) in cases {
            let query = Query::parse(Some(text)).unwrap();
            assert_eq!(
                watch_start(&query).map_err(|failure| failure.code().as_u16()),
                expected,
                "{text}"
            );
        }
    }

    #[test]
    fn tokens() {
        let next = Continue {
            revision: Some(9),
            start: "a/x\0".to_owned(),
        };
        assert_eq!(
            list(&format!("continue={}", next.encode())),
            Ok(ListState::Continue(next))
        );
        let newest = Continue {
            revision: None,
            start: "x\0".to_owned(),
        };
        assert_eq!(
            list(&format!("continue={}&limit=5", newest.encode())),
            Ok(ListState::Continue(newest))
        );
        let escaping = Continue {
            revision: Some(9),
            start: "../x".to_owned(),
        };
        assert_eq!(list(&format!("continue={}", escaping.encode())), Err(400));
    }
}
