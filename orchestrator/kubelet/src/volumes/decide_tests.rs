//! The state table of one volume, case by case.

use super::*;

fn id(pod: &str) -> MountId {
    MountId {
        pod_uid: pod.into(),
        spec_name: "pv".into(),
    }
}

fn wanted(pod: &str, state: Mounted) -> MountSeen {
    MountSeen {
        id: id(pod),
        state,
        is_wanted: true,
        is_released: false,
        is_stale: false,
    }
}

fn released(pod: &str, state: Mounted) -> MountSeen {
    MountSeen {
        is_wanted: false,
        is_released: true,
        ..wanted(pod, state)
    }
}

fn unknown(pod: &str, state: Mounted) -> MountSeen {
    MountSeen {
        is_wanted: false,
        ..wanted(pod, state)
    }
}

fn seen(device: Mounted, mounts: Vec<MountSeen>) -> Seen {
    Seen {
        stages: Some(true),
        is_local: false,
        attachment: Attachment::NotNeeded,
        device,
        mounts,
        is_single_pod: false,
        needs_expansion: false,
        is_settled: true,
    }
}

#[test]
#[expect(clippy::too_many_lines, reason = "one flat table")]
fn each_state_has_one_next_step() {
    use Action::{Expand, Publish, Stage, Unpublish, Unstage};
    use Mounted::{No, Uncertain, Yes};
    let stale = MountSeen {
        is_stale: true,
        ..wanted("a", Yes)
    };
    let local = |mounts| Seen {
        stages: None,
        is_local: true,
        ..seen(No, mounts)
    };
    let cases: Vec<(&str, Seen, Next)> = vec![
        ("nothing at all", seen(No, vec![]), Next::Settled),
        ("first pod", seen(No, vec![wanted("a", No)]), Next::Do(Stage)),
        (
            "stage may have happened",
            seen(Uncertain, vec![wanted("a", No)]),
            Next::Do(Stage),
        ),
        (
            "staged",
            seen(Yes, vec![wanted("a", No)]),
            Next::Do(Publish(id("a"))),
        ),
        (
            "publish may have happened",
            seen(Yes, vec![wanted("a", Uncertain)]),
            Next::Do(Publish(id("a"))),
        ),
        ("published", seen(Yes, vec![wanted("a", Yes)]), Next::Settled),
        (
            "content changed",
            seen(Yes, vec![stale]),
            Next::Do(Publish(id("a"))),
        ),
        (
            "second pod",
            seen(Yes, vec![wanted("a", Yes), wanted("b", No)]),
            Next::Do(Publish(id("b"))),
        ),
        (
            "driver without staging",
            Seen {
                stages: Some(false),
                ..seen(No, vec![wanted("a", No)])
            },
            Next::Do(Publish(id("a"))),
        ),
        (
            "driver not registered",
            Seen {
                stages: None,
                ..seen(No, vec![wanted("a", No)])
            },
            Next::Wait(Why::Driver),
        ),
        (
            "not attached",
            Seen {
                attachment: Attachment::Awaited,
                ..seen(No, vec![wanted("a", No)])
            },
            Next::Wait(Why::Attachment(Attachment::Awaited)),
        ),
        (
            "attached",
            Seen {
                attachment: Attachment::Attached,
                ..seen(No, vec![wanted("a", No)])
            },
            Next::Do(Stage),
        ),
        (
            "detached under a mounted volume is left alone",
            Seen {
                attachment: Attachment::Awaited,
                ..seen(Yes, vec![wanted("a", Yes)])
            },
            Next::Settled,
        ),
        (
            "pod released",
            seen(Yes, vec![released("a", Yes)]),
            Next::Do(Unpublish(id("a"))),
        ),
        (
            "pod released, mount uncertain",
            seen(Yes, vec![released("a", Uncertain)]),
            Next::Do(Unpublish(id("a"))),
        ),
        (
            "pod released, driver gone",
            Seen {
                stages: None,
                ..seen(Yes, vec![released("a", Yes)])
            },
            Next::Wait(Why::Driver),
        ),
        (
            "one of two pods released",
            seen(Yes, vec![released("a", Yes), wanted("b", Yes)]),
            Next::Do(Unpublish(id("a"))),
        ),
        ("last mount gone", seen(Yes, vec![]), Next::Do(Unstage)),
        (
            "last mount gone, stage uncertain",
            seen(Uncertain, vec![]),
            Next::Do(Unstage),
        ),
        (
            "pods not all known yet",
            Seen {
                is_settled: false,
                ..seen(Yes, vec![])
            },
            Next::Settled,
        ),
        (
            "mount of a pod nobody released",
            seen(Yes, vec![unknown("a", Uncertain)]),
            Next::Settled,
        ),
        (
            "file system to grow",
            Seen {
                needs_expansion: true,
                ..seen(Yes, vec![wanted("a", Yes)])
            },
            Next::Do(Expand),
        ),
        (
            "grows only once published",
            Seen {
                needs_expansion: true,
                ..seen(Yes, vec![wanted("a", No)])
            },
            Next::Do(Publish(id("a"))),
        ),
        (
            "single-pod volume held by another",
            Seen {
                is_single_pod: true,
                ..seen(Yes, vec![wanted("a", Yes), wanted("b", No)])
            },
            Next::Wait(Why::SinglePod(id("a"))),
        ),
        (
            "single-pod volume held by a dying pod",
            Seen {
                is_single_pod: true,
                ..seen(Yes, vec![released("a", Yes), wanted("b", No)])
            },
            Next::Do(Unpublish(id("a"))),
        ),
        (
            "local volume",
            local(vec![wanted("a", No)]),
            Next::Do(Publish(id("a"))),
        ),
        (
            "local volume of a released pod",
            local(vec![released("a", Yes)]),
            Next::Do(Unpublish(id("a"))),
        ),
        (
            "local volume is there",
            local(vec![wanted("a", Yes)]),
            Next::Settled,
        ),
    ];
    for (name, seen, want) in cases {
        assert_eq!(decide(&seen, &BTreeSet::new()), want, "{name}");
    }
}

#[test]
fn a_failed_step_does_not_keep_others_from_theirs() {
    let two = seen(
        Mounted::Yes,
        vec![wanted("a", Mounted::No), wanted("b", Mounted::No)],
    );
    let failed = |actions: &[Action]| actions.iter().cloned().collect::<BTreeSet<_>>();
    assert_eq!(
        decide(&two, &failed(&[Action::Publish(id("a"))])),
        Next::Do(Action::Publish(id("b")))
    );
    assert_eq!(
        decide(
            &two,
            &failed(&[Action::Publish(id("a")), Action::Publish(id("b"))])
        ),
        Next::Settled,
        "the round ends; the shell reports the failures"
    );
    let leaving = seen(
        Mounted::Yes,
        vec![released("a", Mounted::Yes), wanted("b", Mounted::No)],
    );
    assert_eq!(
        decide(&leaving, &failed(&[Action::Unpublish(id("a"))])),
        Next::Do(Action::Publish(id("b")))
    );
    let unstage = seen(Mounted::Yes, vec![]);
    assert_eq!(decide(&unstage, &failed(&[Action::Unstage])), Next::Settled);
    let stage = seen(Mounted::No, vec![wanted("a", Mounted::No)]);
    assert_eq!(decide(&stage, &failed(&[Action::Stage])), Next::Settled);
}
