//! Readiness that is switched: for drivers that listen before they have recovered.

use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering},
};

use async_trait::async_trait;

use crate::{DriverError, traits::Readiness};

/// Not ready until somebody says so. Clones share the switch.
#[derive(Clone, Debug, Default)]
pub struct ReadySwitch(Arc<AtomicBool>);

impl ReadySwitch {
    /// A switch that is off.
    pub fn new() -> Self {
        Self::default()
    }

    /// On or off from now on.
    pub fn set(&self, is_ready: bool) {
        self.0.store(is_ready, Ordering::Release);
    }
}

#[async_trait]
impl Readiness for ReadySwitch {
    async fn is_ready(&self) -> Result<bool, DriverError> {
        Ok(self.0.load(Ordering::Acquire))
    }
}
