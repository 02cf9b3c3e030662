//! The volume controllers: what connects claims, PVs, pods and nodes.
//!
//! | controller | what it keeps true |
//! | --- | --- |
//! | [`binder`] | a claim and a PV name each other, or neither does; phases say which |
//! | [`attach_detach`] | a volume is attached to the nodes whose pods want it |
//! | [`pvc_protection`] | a claim stays while a pod uses it |
//! | [`pv_protection`] | a PV stays while it is Bound |
//! | [`vac_protection`] | a VolumeAttributesClass stays while something refers to it |
//! | [`snapshot`] | a VolumeSnapshot and its content name each other; they go in the right order |
//! | [`ephemeral`] | a generic ephemeral volume of a pod has its claim |
//!
//! Each is a pure decider (what to do next about one object, given what is seen) and a thin shell that gathers, asks
//! and writes. [`run`] starts a selection of them over one set of informers.

#![forbid(unsafe_code)]

pub mod attach_detach;
pub mod binder;
pub mod ephemeral;
mod finalizer;
mod key;
pub mod pv_protection;
pub mod pvc_protection;
mod run;
pub mod snapshot;
#[cfg(test)]
mod testing;
mod told;
pub mod vac_protection;
mod write_error;

pub use key::ObjectKey;
pub use run::{Config, Controller, Error, run};

/// Compiles the example of the README.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
