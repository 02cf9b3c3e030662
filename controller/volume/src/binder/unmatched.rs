//! Claims that wait without a PV, so that a PV or class that arrives can wake those it may help.

use std::collections::{BTreeMap, HashMap};

use crate::key::ObjectKey;

/// How many waiting claims one arriving PV is held against. The others are looked at by the next PVs, or when their
/// resync is due; without a limit, many PVs that fit nobody would cost the product of both numbers.
const LOOKS_PER_PV: usize = 64;

#[derive(Debug)]
struct Waiting {
    claim: ObjectKey,
    wants_free_pv: bool,
}

/// Waiting claims by class, longest waiting first.
#[derive(Debug, Default)]
pub(super) struct Unmatched {
    by_class: HashMap<String, BTreeMap<u64, Waiting>>,
    places: HashMap<ObjectKey, (String, u64)>,
    sequence: u64,
}

impl Unmatched {
    /// The claim waits. `wants_free_pv`: it may be bound to any free PV, not only to one reserved for it.
    pub(super) fn insert(&mut self, claim: ObjectKey, class: &str, wants_free_pv: bool) {
        self.remove(&claim);
        self.sequence += 1;
        let place = (class.to_string(), self.sequence);
        self.places.insert(claim.clone(), place);
        let waiting = Waiting { claim, wants_free_pv };
        self.by_class
            .entry(class.to_string())
            .or_default()
            .insert(self.sequence, waiting);
    }

    /// The claim waits no longer.
    pub(super) fn remove(&mut self, claim: &ObjectKey) {
        let Some((class, sequence)) = self.places.remove(claim) else {
            return;
        };
        if let Some(waiting) = self.by_class.get_mut(&class) {
            waiting.remove(&sequence);
            if waiting.is_empty() {
                self.by_class.remove(&class);
            }
        }
    }

    /// Takes out the first claim that a free PV of that class suits. Those it doesn't suit go to the end of the line.
    pub(super) fn take_for(&mut self, class: &str, suits: impl Fn(&ObjectKey) -> bool) -> Option<ObjectKey> {
        let waiting = self.by_class.get(class)?;
        let candidates: Vec<ObjectKey> = waiting
            .values()
            .filter(|waiting| waiting.wants_free_pv)
            .take(LOOKS_PER_PV)
            .map(|waiting| waiting.claim.clone())
            .collect();
        for claim in candidates {
            self.remove(&claim);
            if suits(&claim) {
                return Some(claim);
            }
            self.insert(claim, class, true);
        }
        None
    }

    /// All claims that wait with this class.
    pub(super) fn of_class(&self, class: &str) -> Vec<ObjectKey> {
        let waiting = self.by_class.get(class).into_iter().flatten();
        waiting.map(|(_, waiting)| waiting.claim.clone()).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(name: &str) -> ObjectKey {
        ObjectKey::new("ns", name)
    }

    #[test]
    fn first_suited_claim_is_taken_and_the_others_go_on_waiting() {
        let mut unmatched = Unmatched::default();
        unmatched.insert(key("a"), "fast", true);
        unmatched.insert(key("b"), "fast", false);
        unmatched.insert(key("c"), "fast", true);
        unmatched.insert(key("d"), "slow", true);
        assert_eq!(
            unmatched.take_for("fast", |claim| claim.name != "a"),
            Some(key("c"))
        );
        assert_eq!(unmatched.take_for("fast", |_| true), Some(key("a")));
        assert_eq!(unmatched.take_for("fast", |_| true), None);
        assert_eq!(unmatched.of_class("fast"), [key("b")]);
        assert_eq!(unmatched.of_class("slow"), [key("d")]);
    }

    #[test]
    fn every_waiting_claim_gets_its_look() {
        let mut unmatched = Unmatched::default();
        for number in 0..LOOKS_PER_PV * 2 {
            unmatched.insert(key(&format!("c{number}")), "", true);
        }
        let last = key(&format!("c{}", LOOKS_PER_PV * 2 - 1));
        assert_eq!(unmatched.take_for("", |claim| *claim == last), None);
        assert_eq!(unmatched.take_for("", |claim| *claim == last), Some(last));
    }

    #[test]
    fn a_claim_waits_in_one_place_only() {
        let mut unmatched = Unmatched::default();
        unmatched.insert(key("a"), "", true);
        unmatched.insert(key("a"), "fast", true);
        assert!(unmatched.of_class("").is_empty());
        unmatched.remove(&key("a"));
        unmatched.remove(&key("a"));
        assert!(unmatched.by_class.is_empty() && unmatched.places.is_empty());
    }
}
