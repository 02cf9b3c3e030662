//! Watches: what is there, then each change, as lines of JSON.
//!
//! ```text
//! [initial state as ADDED, [bookmark]] -> changes <-> waiting -> end (deadline, stop)
//!                                            \-> ERROR 410 (fell out of the window)
//! ```
//! Each watch reads the collection's window at its own pace; nothing is queued for it, so a slow one costs nothing
//! and is ended once what it has not read is gone.

use std::sync::Arc;
use std::time::Duration;

use bytes::{BufMut, Bytes, BytesMut};
use http::header;
use jiff::Timestamp;
use serde_json::Value;
use tokio::sync::watch;
use tokio::time::Instant;

use super::list_options::{self, WatchStart};
use super::render::Renderer;
use super::select::Selector;
use super::{Call, list};
use crate::api::Api;
use crate::cache::{Change, Collection, Entry, Lost};
use crate::http::{Answer, Failure, body};

/// A watch without a deadline of its own ends after once to twice this.
const DURATION_MIN: Duration = Duration::from_secs(1800);
const BOOKMARK_INTERVAL: Duration = Duration::from_secs(60);
/// So much is put into one piece of the answer, if there is so much.
const PIECE_BYTES: usize = 64 * 1024;
/// So many changes are taken from the window at once.
const CHANGES_TAKEN_MAX: usize = 256;

/// Starts a watch on a collection, or on one object if the path names it.
pub(crate) async fn watch(call: &Call<'_>) -> Result<Answer, Failure> {
    // An error, so that clients wait before they ask again; an empty stream they would open anew at once.
    if call.api.watches_stop.is_cancelled() {
        return Err(Failure::unavailable("the server is shutting down"));
    }
    let collection = Arc::clone(call.collection()?);
    let start = list_options::watch_start(call.query)?;
    let selector = Selector::parse(call.query, &call.resource, &collection)?;
    let renderer = Renderer::new(call.resource.clone(), call.form, call.query)?;
    let deadline = match call.query.seconds("timeoutSeconds")? {
        Some(duration) => Instant::now() + duration,
        None => Instant::now() + DURATION_MIN.mul_f64(1.0 + rand::random::<f64>()),
    };
    let mut watcher = Watcher {
        api: Arc::clone(call.api),
        changed: collection.subscribe(),
        scope: match call.name {
            Some(name) => Scope::One(call.path_of(name)),
            None => Scope::Prefix(call.path_prefix()),
        },
        selector,
        renderer,
        initial: None,
        mark_end: None,
        next: 0,
        revision: 0,
        bookmarks: call.query.flag("allowWatchBookmarks")?,
        bookmark_at: Instant::now() + BOOKMARK_INTERVAL,
        deadline,
        ended: false,
        collection,
    };
    watcher.start(call, start).await?;
    let stream_type = watcher.renderer.stream_type();
    let _gauge = call.api.metrics.watch_started(call.resource.facts.plural);
    let pieces = futures::stream::unfold((watcher, _gauge), |(mut watcher, gauge)| async move {
        let piece = watcher.next_piece().await?;
        Some((Ok(piece), (watcher, gauge)))
    });
    let mut answer = body::streamed(stream_type, Box::pin(pieces));
    answer.headers_mut().insert(
        header::CACHE_CONTROL,
        http::HeaderValue::from_static("no-cache, private"),
    );
    Ok(answer)
}

/// Which paths are watched.
#[derive(Debug)]
enum Scope {
    One(String),
    Prefix(String),
}

impl Scope {
    fn holds(&self, path: &str) -> bool {
        match self {
            Scope::One(only) => only == path,
            Scope::Prefix(prefix) => path.starts_with(prefix.as_str()),
        }
    }

    fn prefix(&self) -> &str {
        match self {
            Scope::One(text) | Scope::Prefix(text) => text,
        }
    }
}

struct Watcher {
    api: Arc<Api>,
    collection: Arc<Collection>,
    changed: watch::Receiver<u64>,
    scope: Scope,
    selector: Selector,
    renderer: Renderer,
    /// What is still to be shown of the initial state.
    initial: Option<std::vec::IntoIter<Arc<Entry>>>,
    /// The revision of the bookmark that closes the initial state.
    mark_end: Option<u64>,
    /// The number of the next change to read.
    next: u64,
    /// Everything up to this revision was shown.
    revision: u64,
    bookmarks: bool,
    bookmark_at: Instant,
    deadline: Instant,
    ended: bool,
}

impl Watcher {
    async fn start(&mut self, call: &Call<'_>, start: WatchStart) -> Result<(), Failure> {
        match start {
            WatchStart::After(revision) => {
                list::wait_for(call, revision).await?;
                self.revision = revision;
                match self.collection.position_after(revision) {
                    Ok(next) => self.next = next,
                    // Told in the stream: that is where clients look for it.
                    Err(lost) => {
                        // Number zero is in no window.
                        self.next = 0;
                        tracing::debug!(revision, oldest = lost.oldest, "A watch starts too far back.");
                    }
                }
            }
            WatchStart::Initial {
                not_older_than,
                mark_end,
            } => {
                if let Some(revision) = not_older_than {
                    list::wait_for(call, revision).await?;
                }
                let snapshot = self
                    .collection
                    .snapshot(self.scope.prefix(), || self.api.caches.revision());
                self.initial = Some(snapshot.entries.into_iter());
                self.mark_end = mark_end.then_some(snapshot.revision);
                self.next = snapshot.next;
                self.revision = snapshot.revision;
            }
        }
        Ok(())
    }

    /// The next lines; nothing once the watch is over.
    async fn next_piece(&mut self) -> Option<Bytes> {
        if self.ended {
            return None;
        }
        if let Some(piece) = self.initial_piece() {
            return Some(piece);
        }
        loop {
            // Seen before the window is read, so that no change after that is slept over.
            self.changed.borrow_and_update();
            let window = self
                .collection
                .changes(self.next, CHANGES_TAKEN_MAX, || self.api.caches.revision());
            let (changes, revision) = match window {
                Ok(window) => window,
                Err(lost) => return Some(self.fail(lost)),
            };
            self.next += changes.len() as u64;
            self.revision = revision;
            let is_over = Instant::now() >= self.deadline
                || self.api.watches_stop.is_cancelled()
                || self.collection.is_closed();
            let piece = self.lines(&changes);
            if !piece.is_empty() {
                self.ended = is_over;
                return Some(piece);
            }
            if changes.is_empty() {
                if let Some(piece) = self.due_bookmark() {
                    self.ended = is_over;
                    return Some(piece);
                }
                if is_over {
                    return None;
                }
                self.wait().await;
            }
        }
    }

    /// A bookmark, if it is time for one. Everything up to its revision was shown.
    fn due_bookmark(&mut self) -> Option<Bytes> {
        let now = Instant::now();
        let is_due = self.bookmarks && (now >= self.bookmark_at || now >= self.deadline);
        is_due.then(|| {
            self.bookmark_at = now + BOOKMARK_INTERVAL;
            self.bookmark(self.revision, false)
        })
    }

    /// Waits until there is something to do.
    async fn wait(&mut self) {
        let until = if self.bookmarks {
            self.bookmark_at.min(self.deadline)
        } else {
            self.deadline
        };
        // Losing any of these is harmless: each is looked at anew in the next turn.
        tokio::select! {
            () = self.api.watches_stop.cancelled() => {}
            // The collection lives as long as this watch, so the channel is open.
            _ = self.changed.changed() => {}
            () = tokio::time::sleep_until(until) => {}
        }
    }

    fn initial_piece(&mut self) -> Option<Bytes> {
        let entries = self.initial.as_mut()?;
        let mut piece = BytesMut::new();
        let now = Timestamp::now();
        for entry in entries.by_ref() {
            if self.scope.holds(&entry.path) && self.selector.matches(&entry) {
                self.renderer.put_event(&mut piece, "ADDED", &entry.json, now);
            }
            if piece.len() >= PIECE_BYTES {
                return Some(piece.freeze());
            }
        }
        self.initial = None;
        if let Some(revision) = self.mark_end.take() {
            piece.put_slice(&self.bookmark(revision, true));
        }
        (!piece.is_empty()).then(|| piece.freeze())
    }

    fn lines(&self, changes: &[Arc<Change>]) -> Bytes {
        let mut piece = BytesMut::new();
        let now = Timestamp::now();
        for change in changes {
            let Some((kind, entry)) = transition(change, |entry| {
                self.scope.holds(&entry.path) && self.selector.matches(entry)
            }) else {
                continue;
            };
            if entry.revision == change.revision {
                self.renderer.put_event(&mut piece, kind, &entry.json, now);
            } else {
                // Gone from view: the last state that was shown, under the revision of the change.
                let last = entry.at_revision(self.collection.head.len(), change.revision);
                self.renderer.put_event(&mut piece, kind, &last.json, now);
            }
        }
        piece.freeze()
    }

    fn bookmark(&self, revision: u64, ends_initial_events: bool) -> Bytes {
        let object = self.renderer.bookmark(revision, ends_initial_events);
        self.event("BOOKMARK", &object)
    }

    fn fail(&mut self, lost: Lost) -> Bytes {
        self.ended = true;
        let message = format!("too old resource version: {} ({})", self.revision, lost.oldest);
        self.event("ERROR", &Failure::expired(message).to_json())
    }

    fn event(&self, kind: &str, object: &Value) -> Bytes {
        let mut piece = BytesMut::new();
        self.renderer.put_tree(&mut piece, kind, object);
        piece.freeze()
    }
}

/// What a watcher that sees only some objects is told of a change.
fn transition(change: &Change, sees: impl Fn(&Entry) -> bool) -> Option<(&'static str, &Entry)> {
    let old = change.old.as_deref().filter(|entry| sees(entry));
    let new = change.new.as_deref().filter(|entry| sees(entry));
    match (old, new) {
        (None, Some(new)) => Some(("ADDED", new)),
        (Some(_), Some(new)) => Some(("MODIFIED", new)),
        (Some(old), None) => Some(("DELETED", old)),
        (None, None) => None,
    }
}
