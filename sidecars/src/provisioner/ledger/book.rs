//! Which intents shall be in the API, which are, and what to write next. Pure.
//!
//! ```text
//!             record            written              done             written
//!  (unknown) --------> wanted ----------> recorded ----------> done ------------> (unknown)
//!                        |                    ^   record again    |
//!                        | write failed       +-------------------+
//!                        +--> done, and perhaps in the API
//! ```
//!
//! Done intents cost no write of their own: they leave with the next write to their shard. Only [`Book::press`] asks
//! for one.

use std::collections::{HashMap, VecDeque};

/// Objects that the intents of one driver are spread over. A write costs as much as its object is large, so that a few
/// small ones are better than one large one.
pub(crate) const SHARDS: usize = 8;
/// Of one shard; an API object may have about a MiB.
const SHARD_BYTES_MAX: usize = 768 * 1024;
/// Of all shards, with some room left in each so that a shard can always be found.
const TOTAL_BYTES_MAX: usize = SHARDS * (SHARD_BYTES_MAX - INTENT_BYTES_MAX);
/// Of one intent, key and text. Topology, parameters and mount options make up most of it.
const INTENT_BYTES_MAX: usize = 128 * 1024;

/// An intent that can't be taken.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Refusal {
    #[error("the ledger is full: the driver leaves too many calls without a final answer")]
    Full,
    #[error("the intent has {0} bytes, more than {INTENT_BYTES_MAX}")]
    TooLarge(usize),
}

/// What the API has of one intent.
#[derive(Debug, PartialEq, Eq)]
enum Actual {
    Absent,
    Present(String),
    /// A write of it is under way, or its answer was lost.
    Unsure,
}

#[derive(Debug, PartialEq, Eq)]
enum Desired {
    Keep(String),
    Drop { is_pressing: bool },
}

#[derive(Debug)]
struct Entry {
    /// Where it is, or may be; `None` before its first write.
    shard: Option<usize>,
    bytes: usize,
    actual: Actual,
    desired: Desired,
}

impl Entry {
    fn is_recorded(&self) -> bool {
        matches!((&self.actual, &self.desired), (Actual::Present(has), Desired::Keep(wanted)) if has == wanted)
    }

    fn is_urgent(&self) -> bool {
        match &self.desired {
            Desired::Keep(_) => !self.is_recorded(),
            Desired::Drop { is_pressing } => *is_pressing && self.actual != Actual::Absent,
        }
    }
}

/// One write to one shard.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Write {
    pub(crate) shard: usize,
    pub(crate) puts: Vec<(String, String)>,
    pub(crate) drops: Vec<String>,
}

/// Desired and actual intents of one driver, by volume name.
#[derive(Debug, Default)]
pub(crate) struct Book {
    entries: HashMap<String, Entry>,
    /// Keys that somebody waits for, first come first.
    urgent: VecDeque<String>,
}

impl Book {
    /// Takes in an intent that was read from the API; `is_done` if nothing is left to do for it.
    pub(crate) fn found(&mut self, shard: usize, key: &str, text: String, is_done: bool) {
        let desired = if is_done {
            Desired::Drop { is_pressing: false }
        } else {
            Desired::Keep(text.clone())
        };
        let entry = Entry {
            shard: Some(shard),
            bytes: key.len() + text.len(),
            actual: Actual::Present(text),
            desired,
        };
        self.entries.insert(key.to_string(), entry);
    }

    /// Wants the intent in the API. True if it is there already; otherwise a write is due.
    pub(crate) fn record(&mut self, key: &str, text: String) -> Result<bool, Refusal> {
        let bytes = key.len() + text.len();
        if bytes > INTENT_BYTES_MAX {
            return Err(Refusal::TooLarge(bytes));
        }
        let others = self.entries.iter().filter(|(held, _)| *held != key);
        let taken: usize = others.map(|(_, entry)| entry.bytes).sum();
        if taken + bytes > TOTAL_BYTES_MAX {
            return Err(Refusal::Full);
        }
        let entry = self.entries.entry(key.to_string()).or_insert(Entry {
            shard: None,
            bytes,
            actual: Actual::Absent,
            desired: Desired::Drop { is_pressing: false },
        });
        entry.bytes = entry.bytes.max(bytes);
        entry.desired = Desired::Keep(text);
        if entry.is_recorded() {
            return Ok(true);
        }
        self.urgent.push_back(key.to_string());
        Ok(false)
    }

    /// The intent is fulfilled, or came to nothing: it may go.
    pub(crate) fn done(&mut self, key: &str) {
        let Some(entry) = self.entries.get_mut(key) else {
            return;
        };
        if entry.actual == Actual::Absent {
            self.entries.remove(key);
        } else {
            entry.desired = Desired::Drop { is_pressing: false };
        }
    }

    /// Wants a done intent out of the API now. False if there is nothing to wait for: it is out, or not done.
    pub(crate) fn press(&mut self, key: &str) -> bool {
        let Some(entry) = self.entries.get_mut(key) else {
            return false;
        };
        let Desired::Drop { is_pressing } = &mut entry.desired else {
            return false;
        };
        *is_pressing = true;
        self.urgent.push_back(key.to_string());
        true
    }

    /// The next write, if one is due. It must be reported with [`Book::written`] or [`Book::failed`] before another is
    /// asked for.
    pub(crate) fn next_write(&mut self) -> Option<Write> {
        let entries = &self.entries;
        self.urgent
            .retain(|key| entries.get(key).is_some_and(Entry::is_urgent));
        let first = self.urgent.front()?;
        let mut loads = [0; SHARDS];
        for entry in self.entries.values() {
            if let Some(shard) = entry.shard {
                loads[shard] += entry.bytes;
            }
        }
        let lightest = (0..SHARDS).min_by_key(|shard| loads[*shard]).unwrap_or(0);
        let shard = self.entries[first].shard.unwrap_or(lightest);
        let mut puts = Vec::new();
        let mut later = VecDeque::new();
        for key in std::mem::take(&mut self.urgent) {
            let Some(entry) = self.entries.get_mut(&key) else {
                continue;
            };
            let is_here = match entry.shard {
                Some(other) => other == shard,
                None => loads[shard] + entry.bytes <= SHARD_BYTES_MAX,
            };
            match &entry.desired {
                _ if !is_here => later.push_back(key),
                Desired::Keep(text) => {
                    if entry.shard.is_none() {
                        loads[shard] += entry.bytes;
                        entry.shard = Some(shard);
                    }
                    puts.push((key, text.clone()));
                    entry.actual = Actual::Unsure;
                }
                // Among the drops below.
                Desired::Drop { .. } => {}
            }
        }
        self.urgent = later;
        let drops = self.drops(shard);
        Some(Write { shard, puts, drops })
    }

    fn drops(&mut self, shard: usize) -> Vec<String> {
        let mut drops = Vec::new();
        for (key, entry) in &mut self.entries {
            let is_done = matches!(entry.desired, Desired::Drop { .. });
            if entry.shard == Some(shard) && is_done && entry.actual != Actual::Absent {
                entry.actual = Actual::Unsure;
                drops.push(key.clone());
            }
        }
        drops.sort_unstable();
        drops
    }

    /// The write is done, and on disk.
    pub(crate) fn written(&mut self, write: &Write) {
        for (key, text) in &write.puts {
            if let Some(entry) = self.entries.get_mut(key) {
                entry.bytes = key.len() + text.len();
                entry.actual = Actual::Present(text.clone());
            }
        }
        for key in &write.drops {
            let Some(entry) = self.entries.get_mut(key) else {
                continue;
            };
            match entry.desired {
                Desired::Drop { .. } => {
                    self.entries.remove(key);
                }
                // Wanted again meanwhile; its turn is in `urgent`.
                Desired::Keep(_) => entry.actual = Actual::Absent,
            }
        }
    }

    /// The write failed, or its answer was lost. Whoever waited is told so and comes again.
    pub(crate) fn failed(&mut self, write: &Write) {
        let puts = write.puts.iter().map(|(key, _)| key);
        for key in puts.chain(&write.drops) {
            // `actual` stays unsure, so that a later write puts it right.
            if let Some(entry) = self.entries.get_mut(key)
                && !(matches!(entry.desired, Desired::Keep(_)) && write.drops.contains(key))
            {
                entry.desired = Desired::Drop { is_pressing: false };
            }
        }
    }
}

#[cfg(test)]
mod tests;
