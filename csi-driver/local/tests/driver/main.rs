//! The driver on the real kernel, over its real socket.

#![cfg(test)]

mod attach;
mod crash;
mod group_snapshots;
mod pool;
mod settings;
mod snapshots;
mod staging;
mod subvolume;
mod support;
mod volumes;
