//! The drivers that registered on this node.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use parking_lot::RwLock;

use super::client::{NodeCapabilities, NodeClient};

/// A registered driver.
#[derive(Debug)]
pub(crate) struct Driver {
    pub name: String,
    /// The driver's own socket.
    pub endpoint: PathBuf,
    /// What `NodeGetInfo` calls this node.
    pub node_id: String,
    pub capabilities: NodeCapabilities,
    pub client: NodeClient,
}

/// The text is what users know from events.
#[derive(Debug, Clone, thiserror::Error)]
#[error("driver name {0} not found in the list of registered CSI drivers")]
pub(crate) struct NotRegistered(pub String);

type Listener = Box<dyn Fn(&str) + Send + Sync>;

/// All drivers of the node, shared by registration (which writes) and volumes (which read).
#[derive(Default)]
pub(crate) struct Drivers {
    known: RwLock<HashMap<String, Arc<Driver>>>,
    listeners: RwLock<Vec<Listener>>,
}

impl std::fmt::Debug for Drivers {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Drivers")
            .field("known", &self.known)
            .finish_non_exhaustive()
    }
}

impl Drivers {
    pub(crate) fn get(&self, driver_name: &str) -> Result<Arc<Driver>, NotRegistered> {
        self.known
            .read()
            .get(driver_name)
            .cloned()
            .ok_or_else(|| NotRegistered(driver_name.to_owned()))
    }

    pub(crate) fn insert(&self, driver: Driver) {
        let name = driver.name.clone();
        self.known.write().insert(name.clone(), Arc::new(driver));
        self.tell(&name);
    }

    /// Forgets the driver if it still listens at `endpoint`.
    pub(crate) fn remove(&self, driver_name: &str, endpoint: &Path) -> bool {
        let mut known = self.known.write();
        if known
            .get(driver_name)
            .is_none_or(|driver| driver.endpoint != endpoint)
        {
            return false;
        }
        known.remove(driver_name);
        true
    }

    /// `listener` hears the name of each driver that (re)registers; it must not block.
    pub(crate) fn on_registered(&self, listener: impl Fn(&str) + Send + Sync + 'static) {
        self.listeners.write().push(Box::new(listener));
    }

    fn tell(&self, driver_name: &str) {
        for listener in self.listeners.read().iter() {
            listener(driver_name);
        }
    }
}

/// A client for the driver at `endpoint`, before it is registered.
pub(crate) fn connect(endpoint: &Path, timeout: Duration) -> NodeClient {
    NodeClient::new(endpoint, timeout)
}
