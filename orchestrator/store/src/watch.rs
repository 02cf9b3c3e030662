//! What a watcher sees: events, progress, and the stream that carries them.

use std::fmt;
use std::pin::Pin;
use std::task::{Context, Poll};

use futures::Stream;
use futures::stream::BoxStream;

use crate::{KeyValue, Revision, StoreError};

/// What happened to a key.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum EventKind {
    /// It was made or changed.
    Put,
    /// It was removed, by a transaction or by its lease's end.
    Delete,
}

/// One change of one key.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Event {
    /// What happened.
    pub kind: EventKind,
    /// The new version; for a deletion the key, the deletion's revision and an empty value.
    pub kv: KeyValue,
    /// The version before, if the key existed.
    pub previous: Option<KeyValue>,
}

/// One item of a watch.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum WatchMessage {
    /// Changes under the prefix, in the order of their revisions; never empty. A message may hold several
    /// revisions, but a revision is never split over two messages.
    Events {
        /// The watcher has now seen everything up to here; the last event's revision or later.
        revision: Revision,
        /// The changes.
        events: Vec<Event>,
    },
    /// Nothing under the prefix changed up to this revision that was not sent already. One such message ends the
    /// replay of the past; later ones follow changes elsewhere in the store, and only the newest is kept for a
    /// watcher that has not read the one before.
    Progress(Revision),
}

/// A watch: a stream of messages that ends after its first error.
///
/// Dropping it ends the watch.
pub struct Watch {
    messages: Option<BoxStream<'static, Result<WatchMessage, StoreError>>>,
}

impl Watch {
    /// Wraps the messages of an engine.
    pub fn new(messages: BoxStream<'static, Result<WatchMessage, StoreError>>) -> Watch {
        Watch {
            messages: Some(messages),
        }
    }
}

impl Stream for Watch {
    type Item = Result<WatchMessage, StoreError>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let Some(messages) = self.messages.as_mut() else {
            return Poll::Ready(None);
        };
        let item = messages.as_mut().poll_next(context);
        if matches!(item, Poll::Ready(None | Some(Err(_)))) {
            self.messages = None;
        }
        item
    }
}

impl fmt::Debug for Watch {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("Watch")
            .field("ended", &self.messages.is_none())
            .finish()
    }
}
