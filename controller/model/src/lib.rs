//! Pure volume facts that several parts share: what upstream's controllers, scheduler, kubelet and sidecars have to
//! agree on, stated once. No async, no client, no clock.
//!
//! | question | module |
//! | --- | --- |
//! | what is this annotation, finalizer or label called? | [`keys`] |
//! | what name must this object have? | [`names`] |
//! | which CSI access mode is this list of modes? | [`access_mode`] |
//! | how many bytes is `1.5Gi`, how is a size written? | [`quantity`] |
//! | what does this claim, volume or pod say about its link? | [`claim`], [`volume`], [`pod`] |
//! | which volume fits this claim? | [`volume_match`] |
//! | may this volume be used on that node? | [`node_affinity`], [`topology`] |
//! | does this label selector match? | [`label_selector`] |
//! | what are snapshots, and what belongs to which? | [`snapshot`], [`group_snapshot`] |
//! | which Secret does this class parameter name? | [`secret_template`] |

#![forbid(unsafe_code)]

pub mod access_mode;
pub mod claim;
mod custom_resource;
pub mod explanation;
pub mod group_snapshot;
pub mod keys;
pub mod label_selector;
pub mod mutant;
pub mod names;
pub mod node_affinity;
pub mod pod;
pub mod quantity;
pub mod secret_template;
pub mod snapshot;
pub mod topology;
pub mod volume;
pub mod volume_match;

pub use access_mode::{AccessMode, AccessModes};
pub use explanation::{Actor, Explanation};
pub use quantity::Amount;
pub use volume_match::{Candidates, ClaimRequest};

/// Compiles the example of the README.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
