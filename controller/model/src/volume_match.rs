//! Which PV fits a claim. Used by the binder (any node, exact modes first) and by the scheduler (one node, smallest
//! first).
//!
//! Free PVs stand on shelves: class, volume mode and attributes class choose the shelf, the set of access modes the
//! board, and on a board they are ordered by capacity. So finding the smallest that is large enough takes a search
//! in one or a few ordered sets, however many PVs there are. PVs that carry a claim reference are found by it.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

use k8s_openapi::api::core::v1::{PersistentVolume, PersistentVolumeClaim};
use thiserror::Error;

use crate::access_mode::AccessModes;
use crate::label_selector::{Selector, SelectorError};
use crate::quantity::{Amount, ParseAmountError};
use crate::volume::PvPhase;
use crate::{claim, volume};

/// What a claim asks for, checked.
#[derive(Clone, Debug)]
pub struct ClaimRequest {
    /// The claim's namespace.
    pub namespace: String,
    /// The claim's name.
    pub name: String,
    /// The claim's UID.
    pub uid: String,
    /// The least capacity.
    pub size: Amount,
    /// Modes that the PV must offer.
    pub modes: AccessModes,
    /// A raw block device rather than a filesystem.
    pub is_block: bool,
    /// Name of the StorageClass, may be empty.
    pub class: String,
    /// Name of the VolumeAttributesClass, may be empty.
    pub attributes_class: String,
    /// Which labels the PV must have.
    pub selector: Selector,
}

/// A claim that no PV can be sought for.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub enum RequestError {
    /// The requested size is no quantity.
    #[error("requested storage")]
    Size(#[from] ParseAmountError),
    /// The label selector is malformed.
    #[error("label selector")]
    Selector(#[from] SelectorError),
}

impl TryFrom<&PersistentVolumeClaim> for ClaimRequest {
    type Error = RequestError;

    fn try_from(claim: &PersistentVolumeClaim) -> Result<Self, Self::Error> {
        let selector = claim.spec.as_ref().and_then(|spec| spec.selector.as_ref());
        Ok(Self {
            namespace: claim.metadata.namespace.clone().unwrap_or_default(),
            name: claim.metadata.name.clone().unwrap_or_default(),
            uid: claim.metadata.uid.clone().unwrap_or_default(),
            size: claim::requested_storage(claim)?,
            modes: claim::access_modes(claim),
            is_block: claim::is_block(claim),
            class: claim::class_name(claim).to_string(),
            attributes_class: claim::attributes_class_name(claim).to_string(),
            selector: selector.map_or(Ok(Selector::default()), Selector::parse)?,
        })
    }
}

/// Why a PV that the user chose by name can't serve the claim.
#[derive(Clone, Copy, Debug, Error, PartialEq, Eq)]
pub enum Mismatch {
    /// The PV is being deleted.
    #[error("it is being deleted")]
    Deleting,
    /// The PV's capacity is no quantity.
    #[error("its capacity is unreadable")]
    Unreadable,
    /// The PV is smaller than requested.
    #[error("requested PV is too small")]
    TooSmall,
    /// Another StorageClass.
    #[error("storageClassName does not match")]
    Class,
    /// Another VolumeAttributesClass.
    #[error("volumeAttributesClassName does not match")]
    AttributesClass,
    /// Block against filesystem.
    #[error("incompatible volumeMode")]
    VolumeMode,
    /// It lacks a requested access mode.
    #[error("incompatible accessMode")]
    AccessModes,
}

/// Whether a PV that the user chose by name can serve the claim. Selector, node affinity and phase don't matter.
///
/// # Errors
/// The first thing that doesn't fit.
pub fn check_chosen(pv: &PersistentVolume, request: &ClaimRequest) -> Result<(), Mismatch> {
    let require = |holds: bool, mismatch| if holds { Ok(()) } else { Err(mismatch) };
    require(pv.metadata.deletion_timestamp.is_none(), Mismatch::Deleting)?;
    let capacity = volume::capacity(pv).map_err(|_| Mismatch::Unreadable)?;
    require(capacity >= request.size, Mismatch::TooSmall)?;
    require(volume::class_name(pv) == request.class, Mismatch::Class)?;
    require(
        volume::attributes_class_name(pv) == request.attributes_class,
        Mismatch::AttributesClass,
    )?;
    require(volume::is_block(pv) == request.is_block, Mismatch::VolumeMode)?;
    require(
        volume::access_modes(pv).contains_all(request.modes),
        Mismatch::AccessModes,
    )
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Shelf {
    class: String,
    attributes_class: String,
    is_block: bool,
}

/// Capacity, then name: the order on a board.
type Slot = (Amount, String);
type Boards = HashMap<AccessModes, BTreeSet<Slot>>;

#[derive(Debug)]
enum Place {
    Free {
        shelf: Shelf,
        modes: AccessModes,
        slot: Slot,
    },
    Reserved {
        claim: (String, String),
    },
    /// Neither free nor meant for anyone who may come.
    Nowhere,
}

#[derive(Debug)]
struct Entry {
    pv: Arc<PersistentVolume>,
    place: Place,
}

/// All PVs, ordered for being found by claims.
#[derive(Debug, Default)]
pub struct Candidates {
    entries: HashMap<String, Entry>,
    free: HashMap<Shelf, Boards>,
    /// Names of PVs by the namespace and name in their claim reference.
    reserved: HashMap<(String, String), BTreeSet<String>>,
}

/// A PV under consideration, with what decides between several.
struct Found<'a> {
    pv: &'a Arc<PersistentVolume>,
    mode_count: u32,
    capacity: Amount,
}

impl<'a> Found<'a> {
    /// Fewest modes first, then smallest, then by name.
    fn exact_first(&self) -> (u32, Amount, &'a Option<String>) {
        (self.mode_count, self.capacity, &self.pv.metadata.name)
    }

    fn smallest_first(&self) -> (Amount, &'a Option<String>) {
        (self.capacity, &self.pv.metadata.name)
    }
}

impl Candidates {
    /// Takes in a PV, replacing what was known of that name.
    pub fn upsert(&mut self, pv: Arc<PersistentVolume>) {
        let Some(name) = pv.metadata.name.clone() else {
            return;
        };
        self.remove(&name);
        let place = place_of(&pv, &name);
        match &place {
            Place::Free { shelf, modes, slot } => {
                let boards = self.free.entry(shelf.clone()).or_default();
                boards.entry(*modes).or_default().insert(slot.clone());
            }
            Place::Reserved { claim } => {
                self.reserved
                    .entry(claim.clone())
                    .or_default()
                    .insert(name.clone());
            }
            Place::Nowhere => {}
        }
        self.entries.insert(name, Entry { pv, place });
    }

    /// Forgets the PV of that name.
    pub fn remove(&mut self, name: &str) {
        match self.entries.remove(name).map(|entry| entry.place) {
            Some(Place::Free { shelf, modes, slot }) => {
                if let Some(boards) = self.free.get_mut(&shelf) {
                    if let Some(board) = boards.get_mut(&modes) {
                        board.remove(&slot);
                    }
                    boards.retain(|_, board| !board.is_empty());
                    if boards.is_empty() {
                        self.free.remove(&shelf);
                    }
                }
            }
            Some(Place::Reserved { claim }) => {
                if let Some(names) = self.reserved.get_mut(&claim) {
                    names.remove(name);
                    if names.is_empty() {
                        self.reserved.remove(&claim);
                    }
                }
            }
            Some(Place::Nowhere) | None => {}
        }
    }

    /// The PV of that name.
    pub fn get(&self, name: &str) -> Option<&Arc<PersistentVolume>> {
        self.entries.get(name).map(|entry| &entry.pv)
    }

    /// The PVs whose reference names a claim of that namespace and name, whatever its UID.
    pub fn reserved_for(&self, namespace: &str, name: &str) -> impl Iterator<Item = &Arc<PersistentVolume>> {
        let key = (namespace.to_string(), name.to_string());
        let names = self.reserved.get(&key).into_iter().flatten();
        names.filter_map(|name| self.get(name))
    }

    /// How many PVs are held.
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether no PV is held.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// The binder's choice: among PVs that are linked to the claim or free, the one with the fewest modes beyond
    /// those requested, a linked one before a free one, then the smallest. With `is_delayed` free ones are left to
    /// the scheduler. PVs for which `is_excluded` holds are passed over.
    pub fn find_for_claim(
        &self,
        request: &ClaimRequest,
        is_delayed: bool,
        is_excluded: impl Fn(&PersistentVolume) -> bool,
    ) -> Option<&Arc<PersistentVolume>> {
        let linked = self
            .linked(request)
            .filter(|found| !is_excluded(found.pv) && offers_modes(found.pv, request))
            .min_by(|a, b| a.exact_first().cmp(&b.exact_first()));
        if is_delayed {
            return linked.map(|found| found.pv);
        }
        let free = self
            .free(request, |pv| !is_excluded(pv))
            .min_by(|a, b| a.exact_first().cmp(&b.exact_first()));
        match (linked, free) {
            (Some(linked), Some(free)) if free.mode_count < linked.mode_count => Some(free.pv),
            (Some(linked), Some(_) | None) => Some(linked.pv),
            (None, free) => free.map(|found| found.pv),
        }
    }

    /// The scheduler's choice for a node: a PV linked to the claim if the node suits it (and none at all if it
    /// doesn't), else the smallest free one that suits the node.
    pub fn find_for_node(
        &self,
        request: &ClaimRequest,
        is_excluded: impl Fn(&PersistentVolume) -> bool,
        fits_node: impl Fn(&PersistentVolume) -> bool,
    ) -> Option<&Arc<PersistentVolume>> {
        let linked = self
            .linked(request)
            .filter(|found| !is_excluded(found.pv) && volume::class_name(found.pv) == request.class)
            .min_by(|a, b| a.smallest_first().cmp(&b.smallest_first()));
        if let Some(linked) = linked {
            return fits_node(linked.pv).then_some(linked.pv);
        }
        self.free(request, |pv| !is_excluded(pv) && fits_node(pv))
            .min_by(|a, b| a.smallest_first().cmp(&b.smallest_first()))
            .map(|found| found.pv)
    }

    /// PVs linked to the claim that are large enough and of its kind. Class, selector, phase don't matter for them.
    fn linked<'a>(&'a self, request: &ClaimRequest) -> impl Iterator<Item = Found<'a>> {
        let key = (request.namespace.clone(), request.name.clone());
        let names = self.reserved.get(&key).into_iter().flatten();
        names.filter_map(|name| {
            let pv = self.get(name)?;
            let capacity = volume::capacity(pv).ok()?;
            let is_claims = volume::claim_uid(pv).is_none_or(|uid| uid == request.uid);
            let is_fit = capacity >= request.size
                && volume::is_block(pv) == request.is_block
                && volume::attributes_class_name(pv) == request.attributes_class;
            (is_claims && is_fit).then(|| Found {
                pv,
                mode_count: volume::access_modes(pv).len(),
                capacity,
            })
        })
    }

    /// From each board that offers the requested modes the smallest free PV that is large enough and accepted.
    fn free<'a>(
        &'a self,
        request: &ClaimRequest,
        accepts: impl Fn(&PersistentVolume) -> bool,
    ) -> impl Iterator<Item = Found<'a>> {
        let shelf = Shelf {
            class: request.class.clone(),
            attributes_class: request.attributes_class.clone(),
            is_block: request.is_block,
        };
        let boards = self.free.get(&shelf).into_iter().flatten();
        boards
            .filter(|(modes, _)| modes.contains_all(request.modes))
            .filter_map(move |(modes, board)| {
                let large_enough = board.range((request.size, String::new())..);
                large_enough
                    .filter_map(|(capacity, name)| {
                        let pv = self.get(name)?;
                        Some(Found {
                            pv,
                            mode_count: modes.len(),
                            capacity: *capacity,
                        })
                    })
                    .find(|found| {
                        request.selector.matches(found.pv.metadata.labels.as_ref()) && accepts(found.pv)
                    })
            })
    }
}

fn offers_modes(pv: &PersistentVolume, request: &ClaimRequest) -> bool {
    volume::access_modes(pv).contains_all(request.modes)
}

fn place_of(pv: &PersistentVolume, name: &str) -> Place {
    if pv.metadata.deletion_timestamp.is_some() {
        return Place::Nowhere;
    }
    if let Some(reference) = volume::claim_ref(pv) {
        let namespace = reference.namespace.clone().unwrap_or_default();
        let claim = (namespace, reference.name.clone().unwrap_or_default());
        return Place::Reserved { claim };
    }
    // A capacity that can't be read is none that could be promised.
    let (PvPhase::Available, Ok(capacity)) = (volume::phase(pv), volume::capacity(pv)) else {
        return Place::Nowhere;
    };
    Place::Free {
        shelf: Shelf {
            class: volume::class_name(pv).to_string(),
            attributes_class: volume::attributes_class_name(pv).to_string(),
            is_block: volume::is_block(pv),
        },
        modes: volume::access_modes(pv),
        slot: (capacity, name.to_string()),
    }
}

#[cfg(test)]
mod tests;
