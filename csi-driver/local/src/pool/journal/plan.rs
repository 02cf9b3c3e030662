//! What a start does about what the journal says. Pure.

use std::collections::BTreeMap;

use super::entries::Entry;

/// What has become of a volume, by all that was written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Fate {
    /// It is to be there, with this record unless a later one is on the disk.
    Made {
        record: Vec<u8>,
        /// There was another one of the same id before, which may still be on the disk in its place.
        follows_another: bool,
    },
    /// It is not to be there.
    Gone,
}

/// What counts in the end, for each volume that is spoken of.
pub(crate) fn plan(entries: Vec<Entry>) -> BTreeMap<String, Fate> {
    let mut fates: BTreeMap<String, Fate> = BTreeMap::new();
    for entry in entries {
        match entry {
            Entry::Begin => {}
            Entry::Made { volume_id, record } => {
                let follows_another = match fates.get(&volume_id) {
                    // Said once more in a new epoch.
                    Some(Fate::Made {
                        record: said,
                        follows_another,
                    }) if *said == record => *follows_another,
                    Some(_) => true,
                    None => false,
                };
                let fate = Fate::Made {
                    record,
                    follows_another,
                };
                fates.insert(volume_id, fate);
            }
            Entry::Gone { volume_id } => drop(fates.insert(volume_id, Fate::Gone)),
            Entry::Settled { volume_id } => drop(fates.remove(&volume_id)),
        }
    }
    fates
}

/// What is found in a volume's place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Seen {
    /// Nothing.
    Nothing,
    /// Something with exactly the record that the journal has.
    Same,
    /// Something with another good record.
    Other,
    /// Something without a good record.
    NoRecord,
}

/// What is to be done with a volume's place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Step {
    /// It is as it should be.
    Leave,
    /// What is there goes.
    TakeAway,
    /// The volume is made, empty, where there is none.
    Make,
    /// What is there goes, and the volume is made.
    Replace,
    /// What is there is the volume: what it lacks is made, what it has stays.
    Complete,
}

pub(crate) fn step(fate: &Fate, seen: Seen) -> Step {
    match (fate, seen) {
        (Fate::Gone, Seen::Nothing) => Step::Leave,
        (Fate::Gone, Seen::Same | Seen::Other | Seen::NoRecord) => Step::TakeAway,
        (Fate::Made { .. }, Seen::Nothing) => Step::Make,
        // Its record may be on the disk and its data directory not.
        (Fate::Made { .. }, Seen::Same) => Step::Complete,
        // It was not used: what is there is what was deleted before, and nobody else's to see.
        (
            Fate::Made {
                follows_another: true,
                ..
            },
            Seen::Other | Seen::NoRecord,
        ) => Step::Replace,
        // A record that is not the first one was written when the volume had been settled.
        (
            Fate::Made {
                follows_another: false,
                ..
            },
            Seen::Other,
        ) => Step::Leave,
        (
            Fate::Made {
                follows_another: false,
                ..
            },
            Seen::NoRecord,
        ) => Step::Complete,
    }
}
