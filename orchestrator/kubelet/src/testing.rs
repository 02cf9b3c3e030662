//! What several test modules need.

use std::collections::BTreeMap;
use std::path::Path;

use crate::config::{Config, ServingIdentity, Timings};

/// Whether the test runs as root; otherwise says that it is skipped.
pub(crate) fn is_root(test: &str) -> bool {
    let is_root = rustix::process::geteuid().is_root();
    if !is_root {
        eprintln!("skipped: {test}: needs root");
    }
    is_root
}

/// A configuration below `root`.
pub(crate) fn config(root: &Path) -> Config {
    Config {
        node_name: "n1".into(),
        root_dir: root.join("kubelet"),
        log_dir: root.join("logs"),
        listen: "127.0.0.1:0".parse().unwrap(),
        serving: ServingIdentity {
            certificate_pem: String::new(),
            key_pem: String::new(),
            client_ca_pem: String::new(),
        },
        node_ip: "127.0.0.1".parse().unwrap(),
        labels: BTreeMap::new(),
        max_pods: 110,
        version: "v1.36.0".into(),
        timings: Timings::default(),
    }
}
