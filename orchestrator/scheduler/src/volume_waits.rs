//! Who waits for which claims to be bound. Each waiter is woken by changes of its own claims only: with a thousand
//! pods on their way, a change costs one look, not a thousand.

use std::{collections::HashMap, sync::Arc};

use parking_lot::Mutex;
use tokio::sync::Notify;

use crate::waiting::Key;

type Waiters = HashMap<Key, Vec<Arc<Notify>>>;

/// The claims that pods on their way wait for.
#[derive(Debug, Default, Clone)]
pub(crate) struct VolumeWaits {
    waiters: Arc<Mutex<Waiters>>,
}

/// One waiter. A change since it was made, or since the last [`VolumeWait::changed`], is never missed.
#[derive(Debug)]
pub(crate) struct VolumeWait {
    waits: VolumeWaits,
    claims: Vec<Key>,
    bell: Arc<Notify>,
}

impl VolumeWaits {
    /// Begins to listen for changes of these claims.
    pub(crate) fn listen(&self, claims: Vec<Key>) -> VolumeWait {
        let bell = Arc::new(Notify::new());
        let mut waiters = self.waiters.lock();
        for claim in &claims {
            waiters.entry(claim.clone()).or_default().push(Arc::clone(&bell));
        }
        drop(waiters);
        VolumeWait {
            waits: self.clone(),
            claims,
            bell,
        }
    }

    /// The claim, its volume, or a pod that uses it has changed.
    pub(crate) fn changed(&self, claim: &Key) {
        // A permit is kept for a waiter that looks just now.
        self.waiters
            .lock()
            .get(claim)
            .into_iter()
            .flatten()
            .for_each(|bell| bell.notify_one());
    }
}

impl VolumeWait {
    /// Waits for the next change. May be dropped at any time.
    pub(crate) async fn changed(&self) {
        self.bell.notified().await;
    }
}

impl Drop for VolumeWait {
    fn drop(&mut self) {
        let mut waiters = self.waits.waiters.lock();
        for claim in &self.claims {
            if let Some(bells) = waiters.get_mut(claim) {
                bells.retain(|bell| !Arc::ptr_eq(bell, &self.bell));
                if bells.is_empty() {
                    waiters.remove(claim);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use futures::FutureExt;

    use super::*;

    fn key(name: &str) -> Key {
        ("ns".into(), name.into())
    }

    #[test]
    fn changes_before_the_wait_count_and_foreign_ones_do_not() {
        let waits = VolumeWaits::default();
        let wait = waits.listen(vec![key("a"), key("b")]);
        waits.changed(&key("c"));
        assert!(wait.changed().now_or_never().is_none());
        waits.changed(&key("b"));
        assert!(wait.changed().now_or_never().is_some());
        assert!(wait.changed().now_or_never().is_none(), "one change, one look");
        drop(wait);
        assert!(
            waits.waiters.lock().is_empty(),
            "nothing is left of a waiter that has gone"
        );
    }
}
