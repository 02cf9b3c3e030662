//! The end-to-end tests: each starts a cluster of its own from the binary that users run, drives it with stock kubectl
//! or kube-rs, and asserts at the end that the machine holds nothing of it any more.

mod access;
mod api;
mod attributes;
mod bench;
mod command_line;
mod crash;
mod demo;
mod deploy;
mod diagnose;
mod driver_serving;
mod dropin_health;
mod dropin_snapshots;
mod dropins;
mod failover;
mod failures;
mod go_peers;
mod go_truth;
mod group_snapshots;
mod images;
mod interruptions;
mod kubectl_versions;
mod manifests;
mod many;
mod node_deployment;
mod orphans;
mod readme;
mod sanity;
mod scaffold;
mod snapshots;
mod story;
mod streams;
mod volumes;
