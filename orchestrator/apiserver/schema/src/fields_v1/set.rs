//! Sets of paths and their algebra.

use std::cmp::Ordering;

use super::{Element, Path};
use crate::merge_schema::MergeSchema;

/// A set of paths. Paths that end inside of an object stand for that field alone, not for what is below it.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Set {
    /// Sorted by element; each is a member or has members below it.
    pub(super) nodes: Vec<Node>,
}

#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Node {
    pub(super) element: Element,
    pub(super) branch: Branch,
}

/// What a set has at one path: the path itself, and paths below it.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub(crate) struct Branch {
    /// The path itself.
    pub(crate) is_member: bool,
    /// Paths below it.
    pub(crate) below: Set,
}

impl Branch {
    /// The path itself and nothing below it.
    pub(crate) fn leaf() -> Branch {
        Branch {
            is_member: true,
            below: Set::default(),
        }
    }

    pub(crate) fn is_empty(&self) -> bool {
        !self.is_member && self.below.is_empty()
    }
}

impl Set {
    /// A set of the given paths.
    #[must_use]
    pub fn of(paths: impl IntoIterator<Item = Path>) -> Set {
        let mut set = Set::default();
        for path in paths {
            set.insert(&path);
        }
        set
    }

    /// Whether there is no path in it.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.nodes.is_empty()
    }

    /// The number of paths.
    #[must_use]
    pub fn len(&self) -> usize {
        let nodes = self.nodes.iter();
        nodes
            .map(|node| usize::from(node.branch.is_member) + node.branch.below.len())
            .sum()
    }

    /// Adds a path. The empty path stands for the whole object, which has no owner: it is not added.
    pub fn insert(&mut self, path: &Path) {
        let Some((last, steps)) = path.0.split_last() else {
            return;
        };
        let mut set = self;
        for step in steps {
            set = &mut set.branch_mut(step).below;
        }
        set.branch_mut(last).is_member = true;
    }

    fn branch_mut(&mut self, element: &Element) -> &mut Branch {
        let at = match self.find(element) {
            Ok(at) => at,
            Err(at) => {
                let element = element.clone();
                self.nodes.insert(
                    at,
                    Node {
                        element,
                        branch: Branch::default(),
                    },
                );
                at
            }
        };
        &mut self.nodes[at].branch
    }

    fn find(&self, element: &Element) -> Result<usize, usize> {
        self.nodes.binary_search_by(|node| node.element.cmp(element))
    }

    /// Adds a branch where there is none yet; an empty one is left out.
    pub(crate) fn push(&mut self, element: impl FnOnce() -> Element, branch: Branch) {
        if branch.is_empty() {
            return;
        }
        let element = element();
        // Fields come in their order, so that this is nearly always the end.
        let is_last = self
            .nodes
            .last()
            .is_none_or(|last| last.element.cmp(&element).is_lt());
        if is_last {
            self.nodes.push(Node { element, branch });
        } else {
            let found = self.branch_mut(&element);
            *found = Branch {
                is_member: found.is_member || branch.is_member,
                below: found.below.union(&branch.below),
            };
        }
    }

    /// Whether a path is in it.
    #[must_use]
    pub fn has(&self, path: &Path) -> bool {
        let mut set = self;
        for (index, step) in path.0.iter().enumerate() {
            let Some(branch) = set.branch(step) else {
                return false;
            };
            if index + 1 == path.0.len() {
                return branch.is_member;
            }
            set = &branch.below;
        }
        false
    }

    /// What the set has at and below one element.
    pub(crate) fn branch(&self, element: &Element) -> Option<&Branch> {
        self.find(element).ok().map(|at| &self.nodes[at].branch)
    }

    pub(crate) fn branches(&self) -> impl Iterator<Item = (&Element, &Branch)> {
        self.nodes.iter().map(|node| (&node.element, &node.branch))
    }

    /// The paths in either.
    #[must_use]
    pub fn union(&self, other: &Set) -> Set {
        combine(self, other, |a, b| match (a, b) {
            (Some(a), Some(b)) => Branch {
                is_member: a.is_member || b.is_member,
                below: a.below.union(&b.below),
            },
            (Some(one), None) | (None, Some(one)) => one.clone(),
            (None, None) => Branch::default(),
        })
    }

    /// The paths in both.
    #[must_use]
    pub fn intersection(&self, other: &Set) -> Set {
        combine(self, other, |a, b| match (a, b) {
            (Some(a), Some(b)) => Branch {
                is_member: a.is_member && b.is_member,
                below: a.below.intersection(&b.below),
            },
            _ => Branch::default(),
        })
    }

    /// The paths that are not in the other. A path that is in the other takes none away that are below it.
    #[must_use]
    pub fn difference(&self, other: &Set) -> Set {
        combine(self, other, |a, b| match (a, b) {
            (Some(a), Some(b)) => Branch {
                is_member: a.is_member && !b.is_member,
                below: a.below.difference(&b.below),
            },
            (Some(a), None) => a.clone(),
            (None, _) => Branch::default(),
        })
    }

    /// The paths that are neither in the other nor below one of its paths.
    #[must_use]
    pub fn difference_below(&self, other: &Set) -> Set {
        combine(self, other, |a, b| match (a, b) {
            (Some(_), Some(b)) if b.is_member => Branch::default(),
            (Some(a), Some(b)) => Branch {
                is_member: a.is_member,
                below: a.below.difference_below(&b.below),
            },
            (Some(a), None) => a.clone(),
            (None, _) => Branch::default(),
        })
    }

    /// All paths: those of one level first, then those below, in order.
    #[must_use]
    pub fn paths(&self) -> Vec<Path> {
        let mut paths = Vec::new();
        self.collect(&mut Vec::new(), &mut paths);
        paths
    }

    fn collect(&self, prefix: &mut Vec<Element>, paths: &mut Vec<Path>) {
        for node in self.nodes.iter().filter(|node| node.branch.is_member) {
            let mut path = prefix.clone();
            path.push(node.element.clone());
            paths.push(Path(path));
        }
        for node in &self.nodes {
            prefix.push(node.element.clone());
            node.branch.below.collect(prefix, paths);
            prefix.pop();
        }
    }

    /// The set with all declared fields that lead to its paths: who owns a field of a struct counts as an owner of
    /// the struct when something is taken away.
    #[must_use]
    pub(crate) fn with_declared_fields<'s, S: MergeSchema<'s>>(&self, schema: Option<S>) -> Set {
        let nodes = self.nodes.iter().map(|node| {
            let (declared, inner) = match (&node.element, schema) {
                (Element::Field(name), Some(schema)) if schema.forms().map.is_some() => {
                    let field = schema.field(name);
                    (field.is_some(), field.or_else(|| schema.entry()))
                }
                (Element::Key(_), Some(schema)) if schema.forms().list.is_some() => {
                    (false, Some(schema.element()))
                }
                _ => (false, None),
            };
            let below = node.branch.below.with_declared_fields(inner);
            let is_member = node.branch.is_member || (declared && !below.is_empty());
            Node {
                element: node.element.clone(),
                branch: Branch { is_member, below },
            }
        });
        Set {
            nodes: nodes.collect(),
        }
    }
}

/// Walks two sets side by side.
fn combine(a: &Set, b: &Set, of: impl Fn(Option<&Branch>, Option<&Branch>) -> Branch) -> Set {
    let (mut left, mut right) = (a.nodes.iter().peekable(), b.nodes.iter().peekable());
    let mut nodes = Vec::with_capacity(a.nodes.len());
    loop {
        let order = match (left.peek(), right.peek()) {
            (Some(a), Some(b)) => a.element.cmp(&b.element),
            (Some(_), None) => Ordering::Less,
            (None, Some(_)) => Ordering::Greater,
            (None, None) => return Set { nodes },
        };
        let a = left.next_if(|_| order.is_le());
        let b = right.next_if(|_| order.is_ge());
        let branch = of(a.map(|node| &node.branch), b.map(|node| &node.branch));
        if let Some(node) = a.or(b).filter(|_| !branch.is_empty()) {
            let element = node.element.clone();
            nodes.push(Node { element, branch });
        }
    }
}
