//! Events end by themselves: those of about the same time share one lease of the store.

use std::time::Duration;

use moorline_store::{LeaseId, Store, StoreError};
use tokio::sync::Mutex;
use tokio::time::Instant;

/// Events of this time share a lease, so they live at most this much longer.
const SHARED_FOR: Duration = Duration::from_secs(60);
const SHARED_BY_MAX: usize = 1000;

/// Gives out leases for events.
#[derive(Debug)]
pub(crate) struct EventLeases {
    ttl: Duration,
    // Held while a lease is granted: those who come meanwhile want the same one.
    current: Mutex<Option<Shared>>,
}

#[derive(Debug)]
struct Shared {
    lease: LeaseId,
    granted: Instant,
    uses: usize,
}

impl EventLeases {
    pub(crate) fn new(ttl: Duration) -> Self {
        EventLeases {
            ttl,
            current: Mutex::new(None),
        }
    }

    /// The lease for an event that is written now.
    pub(crate) async fn lease(&self, store: &dyn Store) -> Result<LeaseId, StoreError> {
        let mut current = self.current.lock().await;
        // A short-lived cluster would otherwise write to a lease that is over.
        let shared_for = SHARED_FOR.min(self.ttl / 10);
        if let Some(shared) = current.as_mut()
            && shared.granted.elapsed() < shared_for
            && shared.uses < SHARED_BY_MAX
        {
            shared.uses += 1;
            return Ok(shared.lease);
        }
        let lease = store.lease_grant(self.ttl + shared_for).await?;
        *current = Some(Shared {
            lease,
            granted: Instant::now(),
            uses: 1,
        });
        Ok(lease)
    }
}
