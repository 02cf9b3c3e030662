//! What users were told about an object last, so that waiting doesn't write an event at every look.

use std::collections::HashMap;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::time::Instant;

/// The same reason is told again after this time: events expire, and the trouble may not.
const TELL_AGAIN: Duration = Duration::from_secs(600);

/// Whether to tell.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Tell {
    /// Yes.
    Now,
    /// If it still holds after this time.
    In(Duration),
    /// It is known.
    No,
}

#[derive(Debug)]
struct Entry<W> {
    why: W,
    since: Instant,
    told_at: Option<Instant>,
}

/// The last reason by object UID.
#[derive(Debug)]
pub(crate) struct Told<W> {
    entries: Mutex<HashMap<String, Entry<W>>>,
}

impl<W> Default for Told<W> {
    fn default() -> Self {
        Self {
            entries: Mutex::default(),
        }
    }
}

impl<W: PartialEq> Told<W> {
    /// `why` holds for the object. Whether to tell, if it shall only be told after it held for `patience`.
    pub(crate) fn check(&self, uid: &str, why: W, patience: Duration, now: Instant) -> Tell {
        let mut entries = self.entries.lock();
        match entries.get_mut(uid) {
            Some(entry) if entry.why == why => entry.look(patience, now),
            Some(_) | None => {
                let mut entry = Entry {
                    why,
                    since: now,
                    told_at: None,
                };
                let tell = entry.look(patience, now);
                entries.insert(uid.to_string(), entry);
                tell
            }
        }
    }

    /// Nothing is the matter with the object, or it is gone.
    pub(crate) fn forget(&self, uid: &str) {
        self.entries.lock().remove(uid);
    }
}

impl<W> Entry<W> {
    fn look(&mut self, patience: Duration, now: Instant) -> Tell {
        let held = now.duration_since(self.since);
        let is_known = self.told_at.is_some_and(|at| now.duration_since(at) < TELL_AGAIN);
        if is_known {
            Tell::No
        } else if held < patience {
            Tell::In(patience - held)
        } else {
            self.told_at = Some(now);
            Tell::Now
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn told_once_after_patience_and_again_much_later() {
        let told = Told::default();
        let start = Instant::now();
        let second = Duration::from_secs(1);
        let check = |why: &'static str, after: Duration| told.check("u", why, second, start + after);
        let cases = [
            ("slow", Duration::ZERO, Tell::In(second)),
            ("slow", second / 2, Tell::In(second / 2)),
            ("slow", second, Tell::Now),
            ("slow", second * 2, Tell::No),
            ("stuck", second * 3, Tell::In(second)),
            ("stuck", second * 4, Tell::Now),
            ("stuck", second * 5, Tell::No),
            ("stuck", second * 4 + TELL_AGAIN, Tell::Now),
        ];
        for (why, after, expected) in cases {
            assert_eq!(check(why, after), expected, "{why} after {after:?}");
        }
        told.forget("u");
        assert_eq!(told.check("u", "stuck", Duration::ZERO, start), Tell::Now);
    }
}
