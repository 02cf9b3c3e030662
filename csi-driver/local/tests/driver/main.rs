//! The driver on the real kernel, over its real socket.

#![cfg(test)]

mod attach;
mod conformance;
mod crash;
mod data;
mod failpoints;
mod group_snapshots;
mod histories;
mod metadata;
mod pool;
mod process;
mod settings;
mod snapshots;
mod staging;
mod subvolume;
mod support;
mod volumes;
