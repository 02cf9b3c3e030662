//! What comes next for a content, of one snapshot or of a group of them: what both have in common. Pure.
//!
//! ```text
//!   dynamic:  MarkBeingCreated -> Create -> (not ready: Create again) -> Unmark -> Settled
//!   static:   Look -> Settled
//!   deleted:  Delete (policy Delete) -> Release -> object gone
//!             while marked: Create first, until there is a final answer
//! ```

/// What is seen of a content.
#[derive(Clone, Copy, Debug, Default)]
#[expect(
    clippy::struct_excessive_bools,
    reason = "facts that don't depend on each other"
)]
pub(crate) struct Stage {
    /// What it stands for existed before it.
    pub(crate) is_static: bool,
    /// A snapshot's UID is in it.
    pub(crate) is_bound: bool,
    /// It is being deleted.
    pub(crate) is_going: bool,
    /// Our finalizer is on it.
    pub(crate) is_protected: bool,
    /// The driver may be making it, or may have made it without an answer.
    pub(crate) is_being_created: bool,
    /// What it is bound to is being, or has been, deleted.
    pub(crate) is_being_deleted: bool,
    /// The driver's id is known.
    pub(crate) has_handle: bool,
    /// Volumes can be made from it.
    pub(crate) is_ready: bool,
    /// The backend's part goes with the object.
    pub(crate) takes_backend_along: bool,
}

/// The answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Turn {
    /// Nothing until something changes.
    Settled,
    /// Before the driver is asked: a snapshot may exist from here on.
    MarkBeingCreated,
    /// The driver is asked, for the first time or again; that tells how it is, too.
    Create,
    /// How an existing one is.
    Look,
    /// The backend's part goes.
    Delete,
    /// The mark of a creation that has ended.
    Unmark,
    /// Our finalizer goes, and the object with it.
    Release,
}

/// Decides.
pub(crate) fn turn(stage: Stage) -> Turn {
    if stage.is_going {
        return end(stage);
    }
    if stage.is_ready {
        return match stage.is_being_created {
            true => Turn::Unmark,
            false => Turn::Settled,
        };
    }
    if stage.is_static {
        return Turn::Look;
    }
    match stage.has_handle || stage.is_being_created {
        true => Turn::Create,
        false => Turn::MarkBeingCreated,
    }
}

fn end(stage: Stage) -> Turn {
    if !stage.is_protected {
        return Turn::Settled;
    }
    let is_unbound_static = stage.is_static && !stage.is_bound;
    if stage.is_being_created && !is_unbound_static {
        // What the driver may have made is not known yet: deleting now could leave it behind.
        return match stage.has_handle {
            true => Turn::Unmark,
            false => Turn::Create,
        };
    }
    if !stage.is_being_deleted && !is_unbound_static {
        // Its snapshot lives: data goes with the snapshot's deletion only.
        return Turn::Settled;
    }
    match stage.has_handle && stage.takes_backend_along {
        true => Turn::Delete,
        false => Turn::Release,
    }
}
