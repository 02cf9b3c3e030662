//! Lines of CRI log files (`<time> <stream> <F|P> <text>`) and which of them a request wants. Pure.

use std::collections::HashMap;

use jiff::{SignedDuration, Timestamp};

/// What a log request asks for.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Options {
    pub follow: bool,
    pub previous: bool,
    pub timestamps: bool,
    pub tail_lines: Option<u64>,
    pub limit_bytes: Option<u64>,
    pub since_seconds: Option<i64>,
    pub since_time: Option<Timestamp>,
    /// `Stdout` or `Stderr`; both when not given.
    pub stream: Option<String>,
}

impl Options {
    pub(crate) fn parse(query: &HashMap<String, String>) -> Result<Self, String> {
        let get = |key: &str| {
            query
                .get(key)
                .map(String::as_str)
                .filter(|value| !value.is_empty())
        };
        let flag = |key: &str| match get(key) {
            None => Ok(query.contains_key(key)),
            Some("true" | "1") => Ok(true),
            Some("false" | "0") => Ok(false),
            Some(other) => Err(format!("{key}: {other:?} is neither true nor false\n")),
        };
        let number = |key: &str| match get(key) {
            None => Ok(None),
            Some(value) => value
                .parse::<u64>()
                .map(Some)
                .map_err(|_| format!("{key}: {value:?} is not a number\n")),
        };
        let since_time = match get("sinceTime") {
            None => None,
            Some(value) => Some(
                value
                    .parse()
                    .map_err(|_| format!("sinceTime: {value:?} is not a time\n"))?,
            ),
        };
        Ok(Self {
            follow: flag("follow")?,
            previous: flag("previous")?,
            timestamps: flag("timestamps")?,
            tail_lines: number("tailLines")?,
            limit_bytes: number("limitBytes")?,
            since_seconds: number("sinceSeconds")?.map(|seconds| i64::try_from(seconds).unwrap_or(i64::MAX)),
            since_time,
            stream: get("stream")
                .filter(|stream| *stream != "All")
                .map(str::to_lowercase),
        })
    }

    /// The earliest time wanted.
    pub(crate) fn since(&self, now: Timestamp) -> Option<Timestamp> {
        let by_age = self.since_seconds.map(|seconds| {
            now.saturating_sub(SignedDuration::from_secs(seconds))
                .unwrap_or(Timestamp::MIN)
        });
        self.since_time.or(by_age)
    }
}

/// One line of a log file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Line<'a> {
    pub time: &'a str,
    pub stream: &'a str,
    /// Goes on in the next line of the stream.
    pub is_partial: bool,
    pub text: &'a [u8],
}

/// Takes a line without its newline apart; `None` when it is not in the format.
pub(crate) fn parse(line: &[u8]) -> Option<Line<'_>> {
    let mut parts = line.splitn(4, |byte| *byte == b' ');
    let time = std::str::from_utf8(parts.next()?).ok()?;
    let stream = std::str::from_utf8(parts.next()?).ok()?;
    let tags = parts.next()?;
    let text = parts.next().unwrap_or_default();
    let is_partial = tags.split(|byte| *byte == b':').any(|tag| tag == b"P");
    (stream == "stdout" || stream == "stderr").then_some(Line {
        time,
        stream,
        is_partial,
        text,
    })
}

/// Turns lines of the file into bytes of the answer.
#[derive(Debug)]
pub(crate) struct Printer {
    timestamps: bool,
    since: Option<Timestamp>,
    stream: Option<String>,
    left: Option<u64>,
    is_in_line: bool,
}

impl Printer {
    pub(crate) fn new(options: &Options, now: Timestamp) -> Self {
        Self {
            timestamps: options.timestamps,
            since: options.since(now),
            stream: options.stream.clone(),
            left: options.limit_bytes,
            is_in_line: false,
        }
    }

    /// The answer has all the bytes it may have.
    pub(crate) fn is_full(&self) -> bool {
        self.left == Some(0)
    }

    /// Appends what is wanted of one line of the file.
    pub(crate) fn print(&mut self, line: &[u8], out: &mut Vec<u8>) {
        let Some(line) = parse(line) else { return };
        if self.stream.as_deref().is_some_and(|stream| stream != line.stream) {
            return;
        }
        if let Some(since) = self.since
            && line.time.parse::<Timestamp>().is_ok_and(|time| time < since)
        {
            return;
        }
        let start = out.len();
        if self.timestamps && !self.is_in_line {
            out.extend_from_slice(line.time.as_bytes());
            out.push(b' ');
        }
        out.extend_from_slice(line.text);
        if !line.is_partial {
            out.push(b'\n');
        }
        self.is_in_line = line.is_partial;
        if let Some(left) = &mut self.left {
            let allowed = usize::try_from(*left).unwrap_or(usize::MAX);
            let written = (out.len() - start).min(allowed);
            out.truncate(start + written);
            *left -= written as u64;
        }
    }
}

/// Where the last `lines` lines of `file` begin.
pub(crate) fn tail_offset(file: &[u8], lines: u64) -> usize {
    let end = file.len();
    if lines == 0 {
        return end;
    }
    let body = file.strip_suffix(b"\n").unwrap_or(file);
    let mut seen = 0;
    for (at, _) in body.iter().enumerate().rev().filter(|(_, byte)| **byte == b'\n') {
        // A line that only begins a longer one doesn't count.
        let is_whole = body[..at]
            .rsplit(|byte| *byte == b'\n')
            .next()
            .and_then(parse)
            .is_none_or(|line| !line.is_partial);
        if is_whole {
            seen += 1;
            if seen == lines {
                return at + 1;
            }
        }
    }
    0
}

#[cfg(test)]
mod tests {
    use super::*;

    const FILE: &str = "2026-01-01T00:00:01.5Z stdout F one\n2026-01-01T00:00:02Z stderr P two \n\
        2026-01-01T00:00:03Z stderr F three\n2026-01-01T00:00:04Z stdout F four\n";

    fn printed(options: &Options) -> String {
        let mut printer = Printer::new(options, "2026-01-01T00:00:05Z".parse().unwrap());
        let start = options
            .tail_lines
            .map_or(0, |lines| tail_offset(FILE.as_bytes(), lines));
        let mut out = Vec::new();
        for line in FILE[start..].lines() {
            printer.print(line.as_bytes(), &mut out);
        }
        String::from_utf8(out).unwrap()
    }

    #[test]
    #[expect(clippy::too_many_lines, reason = "one flat table")]
    fn requests_choose_lines() {
        let plain = Options::default;
        let cases = [
            ("all", plain(), "one\ntwo three\nfour\n"),
            (
                "with times",
                Options {
                    timestamps: true,
                    ..plain()
                },
                "2026-01-01T00:00:01.5Z one\n2026-01-01T00:00:02Z two three\n2026-01-01T00:00:04Z four\n",
            ),
            (
                "tail",
                Options {
                    tail_lines: Some(1),
                    ..plain()
                },
                "four\n",
            ),
            (
                "tail with a long line",
                Options {
                    tail_lines: Some(2),
                    ..plain()
                },
                "two three\nfour\n",
            ),
            (
                "tail of more than there is",
                Options {
                    tail_lines: Some(9),
                    ..plain()
                },
                "one\ntwo three\nfour\n",
            ),
            (
                "tail of nothing",
                Options {
                    tail_lines: Some(0),
                    ..plain()
                },
                "",
            ),
            (
                "young ones",
                Options {
                    since_seconds: Some(1),
                    ..plain()
                },
                "four\n",
            ),
            (
                "limited",
                Options {
                    limit_bytes: Some(6),
                    ..plain()
                },
                "one\ntw",
            ),
            (
                "one stream",
                Options {
                    stream: Some("stdout".into()),
                    ..plain()
                },
                "one\nfour\n",
            ),
        ];
        for (name, options, want) in cases {
            assert_eq!(printed(&options), want, "{name}");
        }
    }

    #[test]
    fn queries_are_checked() {
        let parse = |text: &str| Options::parse(&super::super::query(text));
        let wanted = Options {
            follow: true,
            tail_lines: Some(3),
            ..Default::default()
        };
        assert_eq!(parse("follow=true&tailLines=3"), Ok(wanted));
        assert!(parse("tailLines=x").is_err());
        assert!(parse("follow=maybe").is_err());
        assert!(parse("sinceTime=yesterday").is_err());
        assert_eq!(
            parse("sinceTime=2026-01-01T00%3A00%3A00Z").map(|options| options.since_time.is_some()),
            Ok(true)
        );
    }

    #[test]
    fn damaged_lines_are_left_out() {
        let cases = ["", "x", "2026-01-01T00:00:01Z", "2026-01-01T00:00:01Z stdin F x"];
        for line in cases {
            assert_eq!(parse(line.as_bytes()), None, "{line:?}");
        }
        let empty = parse(b"2026-01-01T00:00:01Z stdout F ").unwrap();
        assert_eq!((empty.text, empty.is_partial), (&b""[..], false));
    }
}
