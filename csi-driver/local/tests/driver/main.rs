//! The driver on the real kernel, over its real socket.

#![cfg(test)]

mod crash;
mod pool;
mod subvolume;
mod support;
mod volumes;
