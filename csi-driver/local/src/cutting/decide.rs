//! How the content of a volume is taken that may be written to meanwhile. Pure.

/// What the decision rests on.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Seen {
    /// Does anybody use it now?
    pub(crate) is_in_use: bool,
    /// Is its filesystem mounted where this process sees it?
    pub(crate) can_freeze: bool,
    /// Can its blocks be shared, all at once, with what is taken?
    pub(crate) can_share: bool,
    /// Is it a directory or subvolume, without a filesystem of its own?
    pub(crate) is_tree: bool,
    /// Shall several volumes be seen at the same moment?
    pub(crate) is_one_moment: bool,
}

/// What is done about its writers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum How {
    /// There are none.
    Still,
    /// They are held up; not for long if blocks have to be copied.
    Frozen { is_copy: bool },
    /// The sharing itself sees one moment, as after a power cut.
    Shared,
    /// They go on: each file is whole, the files among each other may not be.
    Live,
}

/// # Errors
/// Why it can't be taken now, and what to do.
pub(crate) fn decide(seen: Seen) -> Result<How, &'static str> {
    match (seen.is_in_use, seen.can_freeze, seen.can_share) {
        (false, _, _) => Ok(How::Still),
        (true, true, can_share) => Ok(How::Frozen { is_copy: !can_share }),
        // One volume is seen at one moment; several would be at one each.
        (true, false, true) if !seen.is_one_moment => Ok(How::Shared),
        (true, false, true) => Err(
            "without a mounted filesystem it can't be held still with others; \
             take it alone, or while it is not in use",
        ),
        (true, false, false) if !seen.is_tree => Err("its pool can't share blocks; \
             take it while it is not in use, or use a pool on a filesystem with reflinks, such as xfs"),
        (true, false, false) if seen.is_one_moment => Err("a directory can't be held still; \
             take it while it is not in use, or use a pool with backend=loop or backend=btrfs"),
        (true, false, false) => Ok(How::Live),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn writers_are_held_up_passed_by_or_in_the_way() {
        // in use, can freeze, can share, tree, one moment
        type Case = (&'static str, [bool; 5], Result<How, &'static str>);
        let (yes, no) = (true, false);
        let cases: [Case; 12] = [
            ("nobody uses it", [no, no, no, no, no], Ok(How::Still)),
            (
                "a directory nobody uses, of a group",
                [no, no, no, yes, yes],
                Ok(How::Still),
            ),
            (
                "mounted, reflinks",
                [yes, yes, yes, no, no],
                Ok(How::Frozen { is_copy: false }),
            ),
            (
                "mounted, no reflinks",
                [yes, yes, no, no, no],
                Ok(How::Frozen { is_copy: true }),
            ),
            (
                "mounted, of a group",
                [yes, yes, yes, no, yes],
                Ok(How::Frozen { is_copy: false }),
            ),
            (
                "a device in use, reflinks",
                [yes, no, yes, no, no],
                Ok(How::Shared),
            ),
            ("a subvolume in use", [yes, no, yes, yes, no], Ok(How::Shared)),
            (
                "a device in use, of a group",
                [yes, no, yes, no, yes],
                Err("can't be held still with others"),
            ),
            (
                "a device in use, no reflinks",
                [yes, no, no, no, no],
                Err("can't share blocks"),
            ),
            (
                "the same, of a group",
                [yes, no, no, no, yes],
                Err("can't share blocks"),
            ),
            ("a directory in use", [yes, no, no, yes, no], Ok(How::Live)),
            (
                "a directory in use, of a group",
                [yes, no, no, yes, yes],
                Err("a directory can't be held still"),
            ),
        ];
        for (name, [is_in_use, can_freeze, can_share, is_tree, is_one_moment], expected) in cases {
            let seen = Seen {
                is_in_use,
                can_freeze,
                can_share,
                is_tree,
                is_one_moment,
            };
            match (decide(seen), expected) {
                (Ok(how), Ok(expected)) => assert_eq!(how, expected, "{name}"),
                (Err(why), Err(expected)) => assert!(why.contains(expected), "{name}: {why}"),
                (got, _) => panic!("{name}: {got:?}"),
            }
        }
    }
}
