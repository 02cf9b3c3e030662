//! What a driver should do, without a disk: the reference for histories of calls. Pure.

use std::collections::{BTreeMap, BTreeSet};

use tonic::Code;

/// Names of volumes and snapshots are few, so that calls meet.
pub(super) type Name = u8;

/// Where a new volume's content comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum From {
    Nothing,
    Volume(Name),
    Snapshot(Name),
}

/// A call.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Call {
    /// Sizes are in units.
    Create {
        volume: Name,
        units: u8,
        from: From,
    },
    Delete {
        volume: Name,
    },
    Expand {
        volume: Name,
        units: u8,
    },
    Snapshot {
        snapshot: Name,
        volume: Name,
    },
    DeleteSnapshot {
        snapshot: Name,
    },
    Stage {
        volume: Name,
    },
    Publish {
        volume: Name,
    },
    Unpublish {
        volume: Name,
    },
    Unstage {
        volume: Name,
    },
}

/// What the caller gets: the size, if there is one, in units.
pub(super) type Answer = Result<Option<u8>, Code>;

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Volume {
    pub(super) units: u8,
    pub(super) from: From,
    /// The number that was written last; 0: nothing.
    pub(super) content: u64,
    pub(super) is_staged: bool,
    pub(super) is_published: bool,
}

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Snapshot {
    pub(super) of: Name,
    pub(super) units: u8,
    pub(super) content: u64,
}

/// How the backends differ.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Rules {
    /// Staging mounts the volume: nothing is published without it, and a staged volume is in use.
    pub(super) has_staging: bool,
}

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Model {
    rules: Rules,
    pub(super) volumes: BTreeMap<Name, Volume>,
    pub(super) snapshots: BTreeMap<Name, Snapshot>,
}

impl Model {
    pub(super) fn new(rules: Rules) -> Self {
        Model {
            rules,
            volumes: BTreeMap::new(),
            snapshots: BTreeMap::new(),
        }
    }

    /// The call takes place.
    pub(super) fn step(&mut self, call: Call) -> Answer {
        match call {
            Call::Create { volume, units, from } => self.create(volume, units, from).map(Some),
            Call::Delete { volume } => self.delete(volume),
            Call::Expand { volume, units } => {
                let found = self.volumes.get_mut(&volume).ok_or(Code::NotFound)?;
                found.units = found.units.max(units);
                Ok(Some(found.units))
            }
            Call::Snapshot { snapshot, volume } => self.snapshot(snapshot, volume).map(Some),
            Call::DeleteSnapshot { snapshot } => {
                self.snapshots.remove(&snapshot);
                Ok(None)
            }
            Call::Stage { volume } => {
                self.volumes.get_mut(&volume).ok_or(Code::NotFound)?.is_staged = true;
                Ok(None)
            }
            Call::Publish { volume } => {
                let found = self.volumes.get_mut(&volume).ok_or(Code::NotFound)?;
                if self.rules.has_staging && !found.is_staged && !found.is_published {
                    return Err(Code::FailedPrecondition);
                }
                found.is_published = true;
                Ok(None)
            }
            Call::Unpublish { volume } => {
                if let Some(found) = self.volumes.get_mut(&volume) {
                    found.is_published = false;
                }
                Ok(None)
            }
            Call::Unstage { volume } => {
                if let Some(found) = self.volumes.get_mut(&volume) {
                    found.is_staged = false;
                }
                Ok(None)
            }
        }
    }

    fn create(&mut self, volume: Name, units: u8, from: From) -> Result<u8, Code> {
        if let Some(found) = self.volumes.get(&volume) {
            // A larger one than asked for will do.
            let fits = found.from == from && found.units >= units;
            return if fits {
                Ok(found.units)
            } else {
                Err(Code::AlreadyExists)
            };
        }
        let (least, content) = match from {
            From::Nothing => (0, 0),
            From::Volume(source) => {
                let source = self.volumes.get(&source).ok_or(Code::NotFound)?;
                (source.units, source.content)
            }
            From::Snapshot(source) => {
                let source = self.snapshots.get(&source).ok_or(Code::NotFound)?;
                (source.units, source.content)
            }
        };
        if units < least {
            return Err(Code::OutOfRange);
        }
        let made = Volume {
            units,
            from,
            content,
            is_staged: false,
            is_published: false,
        };
        self.volumes.insert(volume, made);
        Ok(units)
    }

    fn delete(&mut self, volume: Name) -> Answer {
        let is_in_use = self
            .volumes
            .get(&volume)
            .is_some_and(|found| found.is_published || (self.rules.has_staging && found.is_staged));
        if is_in_use {
            return Err(Code::FailedPrecondition);
        }
        self.volumes.remove(&volume);
        Ok(None)
    }

    fn snapshot(&mut self, snapshot: Name, of: Name) -> Result<u8, Code> {
        if let Some(found) = self.snapshots.get(&snapshot) {
            return if found.of == of {
                Ok(found.units)
            } else {
                Err(Code::AlreadyExists)
            };
        }
        let source = self.volumes.get(&of).ok_or(Code::NotFound)?;
        let made = Snapshot {
            of,
            units: source.units,
            content: source.content,
        };
        let units = made.units;
        self.snapshots.insert(snapshot, made);
        Ok(units)
    }
}

/// A call that was made, beside others of the same batch.
#[derive(Clone, Copy, Debug)]
pub(super) struct Made {
    pub(super) call: Call,
    /// `None`: it was given up, so that it may have taken place or not, whatever it answered.
    pub(super) answer: Option<Answer>,
}

/// All states in which the driver may be after calls that overlapped: those of every order that explains the answers.
pub(super) fn explain(before: &BTreeSet<Model>, made: &[Made]) -> BTreeSet<Model> {
    let all_done = (1_u32 << made.len()) - 1;
    let mut open: Vec<(Model, u32)> = before.iter().map(|model| (model.clone(), 0)).collect();
    let (mut seen, mut after) = (BTreeSet::new(), BTreeSet::new());
    while let Some((model, done)) = open.pop() {
        if !seen.insert((model.clone(), done)) {
            continue;
        }
        if done == all_done {
            after.insert(model);
            continue;
        }
        for (index, one) in made
            .iter()
            .enumerate()
            .filter(|(index, _)| done & (1 << index) == 0)
        {
            let done = done | 1 << index;
            let mut next = model.clone();
            let answer = next.step(one.call);
            if one.answer.is_none_or(|given| given == answer) {
                open.push((next, done));
            }
            if one.answer.is_none() {
                open.push((model.clone(), done));
            }
        }
    }
    after
}

#[cfg(test)]
mod tests {
    use super::*;

    const MOUNTED: Rules = Rules { has_staging: true };

    fn create(volume: Name, units: u8, from: From) -> Call {
        Call::Create { volume, units, from }
    }

    /// A volume 1 of two units with a snapshot 1; a volume 2 of one unit that is staged and published.
    fn some() -> Model {
        let mut model = Model::new(MOUNTED);
        for call in [
            create(1, 2, From::Nothing),
            Call::Snapshot {
                snapshot: 1,
                volume: 1,
            },
            create(2, 1, From::Nothing),
            Call::Stage { volume: 2 },
            Call::Publish { volume: 2 },
        ] {
            model.step(call).unwrap();
        }
        model
    }

    #[test]
    fn answers_follow_the_specification() {
        let cases: [(&str, Call, Answer); 17] = [
            ("new", create(3, 2, From::Nothing), Ok(Some(2))),
            ("the same", create(1, 2, From::Nothing), Ok(Some(2))),
            ("a smaller one will do", create(1, 1, From::Nothing), Ok(Some(2))),
            (
                "a larger one will not",
                create(1, 3, From::Nothing),
                Err(Code::AlreadyExists),
            ),
            (
                "of another source",
                create(1, 2, From::Snapshot(1)),
                Err(Code::AlreadyExists),
            ),
            (
                "no such source",
                create(3, 2, From::Volume(4)),
                Err(Code::NotFound),
            ),
            (
                "smaller than its source",
                create(3, 1, From::Snapshot(1)),
                Err(Code::OutOfRange),
            ),
            ("not in use", Call::Delete { volume: 1 }, Ok(None)),
            (
                "in use",
                Call::Delete { volume: 2 },
                Err(Code::FailedPrecondition),
            ),
            ("not there", Call::Delete { volume: 9 }, Ok(None)),
            ("grown", Call::Expand { volume: 1, units: 3 }, Ok(Some(3))),
            ("never shrunk", Call::Expand { volume: 1, units: 1 }, Ok(Some(2))),
            (
                "cut",
                Call::Snapshot {
                    snapshot: 2,
                    volume: 2,
                },
                Ok(Some(1)),
            ),
            (
                "cut before",
                Call::Snapshot {
                    snapshot: 1,
                    volume: 1,
                },
                Ok(Some(2)),
            ),
            (
                "of another",
                Call::Snapshot {
                    snapshot: 1,
                    volume: 2,
                },
                Err(Code::AlreadyExists),
            ),
            (
                "not staged",
                Call::Publish { volume: 1 },
                Err(Code::FailedPrecondition),
            ),
            ("nothing to undo", Call::Unpublish { volume: 9 }, Ok(None)),
        ];
        for (name, call, expected) in cases {
            assert_eq!(some().step(call), expected, "{name}");
        }
    }

    #[test]
    fn orders_are_found_or_there_is_none() {
        let before = BTreeSet::from([Model::new(MOUNTED)]);
        let made = |call, answer| Made { call, answer };
        let new = create(1, 1, From::Nothing);
        let delete = Call::Delete { volume: 1 };
        let stage = Call::Stage { volume: 1 };
        let cases: [(&str, Vec<Made>, usize); 6] = [
            ("nothing", vec![], 1),
            (
                "a create and a delete, in either order",
                vec![made(new, Some(Ok(Some(1)))), made(delete, Some(Ok(None)))],
                2,
            ),
            (
                "the create came first",
                vec![made(stage, Some(Ok(None))), made(new, Some(Ok(Some(1))))],
                1,
            ),
            (
                "the stage came first",
                vec![
                    made(stage, Some(Err(Code::NotFound))),
                    made(new, Some(Ok(Some(1)))),
                ],
                1,
            ),
            ("given up", vec![made(new, None)], 2),
            ("no order explains it", vec![made(stage, Some(Ok(None)))], 0),
        ];
        for (name, made, expected) in cases {
            assert_eq!(explain(&before, &made).len(), expected, "{name}");
        }
    }
}
