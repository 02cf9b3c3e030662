//! Deliberate bugs, with which the simulator proves that it finds bugs. Without the feature `mutants`, which only the
//! simulator asks for, there are none: [`is_on`] is the constant `false`.

#[cfg(feature = "mutants")]
thread_local! {
    static ON: std::cell::RefCell<Option<String>> = const { std::cell::RefCell::new(None) };
}

/// All of them.
pub const ALL: &[&str] = &[
    "claim-before-pv",
    "no-pv-finalizer",
    "forget-lost-answers",
    "delete-retained",
    "no-claim-protection",
    "no-pv-protection",
    "attach-anywhere",
    "no-attachment-finalizer",
    "detach-anyway",
    "no-requeue",
    "never-release",
    "resize-without-driver",
    "no-snapshot-mark",
    "delete-kept-snapshot",
    "release-snapshot-early",
    "ready-too-soon",
    "no-source-protection",
];

/// Whether this bug is switched on, on this thread.
#[cfg(feature = "mutants")]
#[must_use]
pub fn is_on(name: &str) -> bool {
    ON.with_borrow(|on| on.as_deref() == Some(name))
}

/// Whether this bug is switched on: it isn't.
#[cfg(not(feature = "mutants"))]
#[must_use]
pub const fn is_on(_name: &str) -> bool {
    false
}

/// Switches one bug on for this thread, or all off.
#[cfg(feature = "mutants")]
pub fn switch_on(name: Option<&str>) {
    ON.set(name.map(str::to_owned));
}
