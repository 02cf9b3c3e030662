//! The way of block ranges from a driver to the caller: bounded, in order, in messages of the size asked for.
//!
//! ```text
//! driver --send--> batch --(full)--> channel of MESSAGES_MAX --> gRPC stream --> caller
//! ```
//!
//! A slow caller fills the channel, and `send` waits; a caller that has gone closes it, and `send` says so.

use moorline_proto::csi;
use parking_lot::Mutex;
use thiserror::Error;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use crate::{DriverError, ErrorKind, volume::bytes};

/// Messages that wait for the caller. Little: a driver finds ranges faster than anybody reads them.
const MESSAGES_MAX: usize = 4;
/// Ranges in a message, whatever the caller allows: about 40 KiB, far below the 4 MiB that gRPC clients take.
const RANGES_PER_MESSAGE_MAX: usize = 2048;

/// A range of bytes of a volume.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BlockRange {
    /// Where it begins.
    pub byte_offset: u64,
    /// How long it is; not 0.
    pub size_bytes: u64,
}

/// Are all ranges of a stream equally long?
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BlockKind {
    /// Yes.
    FixedLength,
    /// No.
    VariableLength,
}

/// Nobody reads any more: the work can end. Becomes an error that nobody will see.
#[derive(Debug, Error)]
#[error("the caller has gone")]
pub struct CallerGone;

impl From<CallerGone> for DriverError {
    fn from(gone: CallerGone) -> Self {
        DriverError::new(ErrorKind::Aborted, gone.to_string())
    }
}

/// One message, before it is one of the two wire types.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct BlockMessage {
    pub(crate) kind: csi::BlockMetadataType,
    pub(crate) volume_capacity_bytes: i64,
    pub(crate) ranges: Vec<csi::BlockMetadata>,
}

#[derive(Debug, Default)]
struct Batch {
    layout: Option<(BlockKind, u64)>,
    ranges: Vec<csi::BlockMetadata>,
    end: u64,
    is_begun: bool,
    fault: Option<String>,
}

/// Bounded channel towards the caller.
#[derive(Debug)]
pub struct BlockSink {
    batch: std::sync::Arc<Mutex<Batch>>,
    ranges_max: usize,
    messages: mpsc::Sender<BlockMessage>,
    stop: CancellationToken,
}

/// What the server keeps of a sink to end the stream.
#[derive(Debug)]
pub(crate) struct SinkEnd {
    batch: std::sync::Arc<Mutex<Batch>>,
    messages: mpsc::Sender<BlockMessage>,
}

impl BlockSink {
    pub(crate) fn new(
        max_results: Option<usize>,
        stop: CancellationToken,
    ) -> (Self, SinkEnd, mpsc::Receiver<BlockMessage>) {
        let (messages, receiver) = mpsc::channel(MESSAGES_MAX);
        let batch = std::sync::Arc::new(Mutex::new(Batch::default()));
        let end = SinkEnd {
            batch: std::sync::Arc::clone(&batch),
            messages: messages.clone(),
        };
        let sink = BlockSink {
            batch,
            ranges_max: max_results.map_or(RANGES_PER_MESSAGE_MAX, |max| max.min(RANGES_PER_MESSAGE_MAX)),
            messages,
            stop,
        };
        (sink, end, receiver)
    }

    /// What all messages of the stream say. To be called before the first [`BlockSink::send`].
    pub fn set_layout(&self, kind: BlockKind, volume_capacity_bytes: u64) {
        self.batch.lock().layout = Some((kind, volume_capacity_bytes));
    }

    /// Hands a range over, in ascending order and without overlaps. Waits while the caller is slow.
    ///
    /// # Errors
    /// When nobody reads any more, or the driver stops.
    ///
    /// # Cancel safety
    /// A range whose `send` was dropped may be lost: don't go on after it.
    pub async fn send(&self, range: BlockRange) -> Result<(), CallerGone> {
        let full = self.batch.lock().add(range, self.ranges_max);
        let Some(message) = full else {
            return if self.messages.is_closed() || self.stop.is_cancelled() {
                Err(CallerGone)
            } else {
                Ok(())
            };
        };
        tokio::select! {
            biased;
            () = self.stop.cancelled() => Err(CallerGone),
            sent = self.messages.send(message) => sent.map_err(|_| CallerGone),
        }
    }

    /// [`BlockSink::send`] for threads that may block, such as those of `spawn_blocking`.
    ///
    /// # Errors
    /// As there.
    ///
    /// # Panics
    /// On a thread that drives async tasks.
    pub fn send_blocking(&self, range: BlockRange) -> Result<(), CallerGone> {
        futures::executor::block_on(self.send(range))
    }
}

impl Batch {
    /// Takes a range; gives a message when it is time for one.
    fn add(&mut self, range: BlockRange, ranges_max: usize) -> Option<BlockMessage> {
        match self.check(range) {
            Ok((wire, end)) => {
                self.end = end;
                self.ranges.push(wire);
            }
            // The stream will end with the first fault, whatever else comes.
            Err(fault) => {
                self.fault.get_or_insert(fault);
                return None;
            }
        }
        (self.ranges.len() >= ranges_max).then(|| self.take())?
    }

    fn check(&self, range: BlockRange) -> Result<(csi::BlockMetadata, u64), String> {
        let (_, capacity) = self.layout.ok_or("a range came before the layout")?;
        let BlockRange {
            byte_offset,
            size_bytes,
        } = range;
        let end = byte_offset
            .checked_add(size_bytes)
            .filter(|end| *end <= capacity)
            .ok_or_else(|| format!("a range ends behind the volume's {capacity} bytes"))?;
        if size_bytes == 0 || byte_offset < self.end {
            return Err(format!("the range at {byte_offset} is empty or out of order"));
        }
        let wire = |count| bytes(count).map_err(|error| error.to_string());
        let wire = csi::BlockMetadata {
            byte_offset: wire(byte_offset)?,
            size_bytes: wire(size_bytes)?,
        };
        Ok((wire, end))
    }

    fn take(&mut self) -> Option<BlockMessage> {
        let (kind, capacity) = self.layout?;
        self.is_begun = true;
        Some(BlockMessage {
            kind: match kind {
                BlockKind::FixedLength => csi::BlockMetadataType::FixedLength,
                BlockKind::VariableLength => csi::BlockMetadataType::VariableLength,
            },
            volume_capacity_bytes: bytes(capacity).ok()?,
            ranges: std::mem::take(&mut self.ranges),
        })
    }

    /// What is left to send when the driver is done: the last ranges, or one empty message that says the layout.
    fn finish(&mut self) -> Result<Option<BlockMessage>, DriverError> {
        if let Some(fault) = self.fault.take() {
            return Err(bug(&fault));
        }
        if self.is_begun && self.ranges.is_empty() {
            return Ok(None);
        }
        match self.take() {
            Some(message) => Ok(Some(message)),
            None => Err(bug("the layout was not set")),
        }
    }
}

fn bug(fault: &str) -> DriverError {
    DriverError::new(
        ErrorKind::Internal,
        format!("{fault}; this is a bug of the driver"),
    )
}

impl SinkEnd {
    /// Waits until the caller has gone.
    pub(crate) async fn abandoned(&self) {
        self.messages.closed().await;
    }

    /// Sends what is left.
    pub(crate) async fn finish(&self) -> Result<(), DriverError> {
        let last = self.batch.lock().finish()?;
        match last {
            Some(message) => self.messages.send(message).await.map_err(|_| CallerGone.into()),
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use futures::FutureExt as _;

    use super::*;

    fn range(byte_offset: u64, size_bytes: u64) -> BlockRange {
        BlockRange {
            byte_offset,
            size_bytes,
        }
    }

    #[tokio::test]
    async fn a_slow_caller_holds_the_driver_back_and_a_gone_one_ends_it() {
        let (sink, _end, mut messages) = BlockSink::new(Some(2), CancellationToken::new());
        sink.set_layout(BlockKind::VariableLength, 1 << 20);
        let mut sent = 0;
        while sink.send(range(sent * 10, 5)).now_or_never().is_some() {
            sent += 1;
            assert!(sent < 100, "the channel is bounded");
        }
        assert_eq!(
            sent,
            2 * (MESSAGES_MAX as u64) + 1,
            "full messages, and one range of the next"
        );
        let first = messages.recv().await.unwrap();
        assert_eq!(first.ranges.len(), 2);
        assert_eq!(first.volume_capacity_bytes, 1 << 20);
        drop(messages);
        assert!(sink.send(range(1000, 5)).await.is_err());
    }

    #[tokio::test]
    async fn a_stopping_driver_frees_whoever_waits() {
        let stop = CancellationToken::new();
        let (sink, _end, _messages) = BlockSink::new(Some(1), stop.clone());
        sink.set_layout(BlockKind::FixedLength, 1 << 20);
        let fill = async {
            let mut at = 0;
            while sink.send(range(at, 10)).await.is_ok() {
                at += 10;
            }
            at
        };
        let stopping = async {
            tokio::task::yield_now().await;
            stop.cancel();
        };
        let (sent, ()) = tokio::join!(fill, stopping);
        assert_eq!(sent, 10 * (MESSAGES_MAX as u64));
    }

    #[tokio::test]
    async fn what_drivers_do_wrong_ends_the_stream_as_their_bug() {
        type Case<'a> = (&'a str, Option<u64>, &'a [BlockRange], Option<&'a str>);
        let cases: [Case<'_>; 8] = [
            ("nothing to say", Some(100), &[], None),
            ("in order", Some(100), &[range(0, 10), range(10, 90)], None),
            ("no layout", None, &[range(0, 10)], Some("before the layout")),
            ("no layout, no range", None, &[], Some("the layout was not set")),
            (
                "out of order",
                Some(100),
                &[range(10, 10), range(0, 10)],
                Some("range at 0 is"),
            ),
            (
                "overlapping",
                Some(100),
                &[range(0, 10), range(9, 10)],
                Some("range at 9 is"),
            ),
            ("empty", Some(100), &[range(0, 0)], Some("is empty")),
            (
                "behind the end",
                Some(100),
                &[range(95, 6)],
                Some("behind the volume's 100 bytes"),
            ),
        ];
        for (name, layout, ranges, expected) in cases {
            let (sink, end, mut messages) = BlockSink::new(None, CancellationToken::new());
            if let Some(capacity) = layout {
                sink.set_layout(BlockKind::VariableLength, capacity);
            }
            for range in ranges {
                sink.send(*range).await.unwrap();
            }
            drop(sink);
            match (end.finish().await, expected) {
                (Ok(()), None) => {
                    assert_eq!(
                        messages.recv().await.unwrap().ranges.len(),
                        ranges.len(),
                        "{name}"
                    );
                }
                (Err(error), Some(expected)) => {
                    assert_eq!(error.kind(), ErrorKind::Internal, "{name}");
                    assert!(error.to_string().contains(expected), "{name}: {error}");
                }
                (got, _) => panic!("{name}: {got:?}"),
            }
        }
    }
}
