//! No watch misses, repeats or reorders an event: what the API server sends is compared with the store's history.

use std::collections::BTreeMap;

use serde::Deserialize;

use crate::net::WatchNews;

/// Revisions at which something changed, by the store's name of the kind.
#[derive(Default)]
pub(super) struct Watches {
    history: BTreeMap<String, Vec<u64>>,
    open: BTreeMap<u64, Open>,
}

/// A watch while it lasts.
struct Open {
    line: String,
    kind: String,
    /// Only some objects of the kind are watched.
    is_selective: bool,
    /// Everything up to here was sent; `None` while the objects that are there already are told.
    since: Option<u64>,
    /// The beginning of a line whose end hasn't come.
    rest: Vec<u8>,
}

#[derive(Deserialize)]
struct Line {
    r#type: String,
    object: Object,
}

#[derive(Deserialize)]
struct Object {
    #[serde(default)]
    metadata: Metadata,
}

#[derive(Deserialize, Default)]
#[serde(rename_all = "camelCase", default)]
struct Metadata {
    name: String,
    resource_version: String,
    annotations: Option<BTreeMap<String, String>>,
}

const ALL_TOLD: &str = "k8s.io/initial-events-end";

impl Watches {
    /// The store has changed.
    pub(super) fn changed(&mut self, key: &str, revision: u64) {
        let mut parts = key.split('/');
        let mut kind = parts.next().unwrap_or_default().to_owned();
        if kind.contains('.') {
            kind = format!("{kind}/{}", parts.next().unwrap_or_default());
        }
        self.history.entry(kind).or_default().push(revision);
    }

    /// The API server has answered a watch.
    pub(super) fn judge(&mut self, news: WatchNews, broken: &mut Vec<String>) {
        match news {
            WatchNews::Open { stream, line } => {
                self.open.insert(stream, opened(line));
            }
            WatchNews::Data { stream, data } => {
                let Some(open) = self.open.get_mut(&stream) else {
                    return;
                };
                open.rest.extend_from_slice(&data);
                let rest = std::mem::take(&mut open.rest);
                let mut lines = rest.split(|byte| *byte == b'\n').peekable();
                while let Some(line) = lines.next() {
                    if lines.peek().is_none() {
                        open.rest = line.to_vec();
                    } else if !line.is_empty() {
                        let history = self.history.get(&open.kind);
                        judge_line(open, line, history.map_or(&[], Vec::as_slice), broken);
                    }
                }
            }
            WatchNews::Closed { stream } => {
                self.open.remove(&stream);
            }
        }
    }
}

fn opened(line: String) -> Open {
    let (path, query) = line.split_once('?').unwrap_or((&line, ""));
    let value = |wanted: &str| {
        let mut pairs = query.split('&').filter_map(|pair| pair.split_once('='));
        pairs
            .find(|(key, _)| *key == wanted)
            .map(|(_, value)| value.to_owned())
    };
    let mut parts = path.trim_start_matches('/').split('/');
    let (group, _, plural) = match parts.next() {
        Some("apis") => (parts.next().unwrap_or_default(), parts.next(), parts.next()),
        _ => ("", parts.next(), parts.next()),
    };
    let plural = plural.unwrap_or_default();
    let kind = match (group, plural) {
        ("", "nodes") => "minions".to_owned(),
        // Where custom resources are.
        ("snapshot.storage.k8s.io", _) => format!("{group}/{plural}"),
        _ => plural.to_owned(),
    };
    let is_telling = value("sendInitialEvents").as_deref() == Some("true");
    let from = value("resourceVersion").and_then(|revision| revision.parse().ok());
    let is_selective = value("fieldSelector").is_some()
        || value("labelSelector").is_some()
        || path.contains("/namespaces/")
        // Kinds that the store has under other names.
        || matches!(group, "apiextensions.k8s.io");
    Open {
        since: from.filter(|revision| !is_telling && *revision > 0),
        kind,
        is_selective,
        line,
        rest: Vec::new(),
    }
}

fn judge_line(open: &mut Open, line: &[u8], history: &[u64], broken: &mut Vec<String>) {
    let Ok(told) = serde_json::from_slice::<Line>(line) else {
        let text = String::from_utf8_lossy(line);
        broken.push(format!("{} was sent what is no event: {text}", open.line));
        return;
    };
    let metadata = told.object.metadata;
    let Ok(revision) = metadata.resource_version.parse::<u64>() else {
        // An error, after which the watch ends.
        return;
    };
    let is_mark = told.r#type == "BOOKMARK";
    let Some(since) = open.since else {
        let annotations = metadata.annotations.unwrap_or_default();
        if is_mark && annotations.contains_key(ALL_TOLD) {
            open.since = Some(revision);
        }
        return;
    };
    let what = format!("{} {} at {revision}", told.r#type, metadata.name);
    if revision < since || (revision == since && !is_mark) {
        broken.push(format!("{} was sent {what} after {since}", open.line));
    }
    // A mark says that everything up to it was sent; an event, everything before it.
    let begin = history.partition_point(|at| *at <= since);
    let end = history.partition_point(|at| *at < revision || (is_mark && *at == revision));
    if !open.is_selective && begin < end {
        let missed = &history[begin..end];
        broken.push(format!("{} was sent {what} and not {missed:?}", open.line));
    }
    open.since = Some(revision.max(since));
}
