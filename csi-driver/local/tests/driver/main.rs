//! The driver on the real kernel, over its real socket.

#![cfg(test)]

mod crash;
mod group_snapshots;
mod pool;
mod snapshots;
mod subvolume;
mod support;
mod volumes;
