//! How a wish for a snapshot, or for a group of them, and the content of its name stand to each other. Pure.

/// What is seen of the two.
#[derive(Clone, Copy, Debug)]
pub(super) struct Pair {
    /// The wish names a content that exists already.
    pub(super) wants_static: bool,
    /// Its status says that it was bound before.
    pub(super) was_bound: bool,
    /// The content, if it is there.
    pub(super) content: Option<Seen>,
}

/// A content as its wish sees it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Seen {
    /// It stands for something that existed before it.
    pub(super) is_static: bool,
    /// It is bound to the wish.
    pub(super) points_back: bool,
    /// It is bound to the wish, or reserved for it.
    pub(super) may_bind: bool,
}

/// The answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Binding {
    /// Nothing was made yet.
    Begin,
    /// What there should be isn't there.
    Missing,
    /// A pre-provisioned content was expected.
    IsDynamic,
    /// A content of our own making was expected.
    IsStatic,
    /// It belongs, or is reserved, to another wish.
    Misbound,
    /// It is reserved for the wish.
    Reserved,
    /// Both name each other, or will once the wish's status says so.
    Bound,
}

/// Judges.
pub(super) fn judge(pair: Pair) -> Binding {
    let Some(content) = pair.content else {
        // Another snapshot under the name of the first one would have other data.
        let is_lost = pair.wants_static || pair.was_bound;
        return if is_lost { Binding::Missing } else { Binding::Begin };
    };
    match (pair.wants_static, content.is_static) {
        (true, false) => Binding::IsDynamic,
        (false, true) => Binding::IsStatic,
        (true, true) if !content.may_bind => Binding::Misbound,
        (true, true) if !content.points_back => Binding::Reserved,
        (false, false) if !content.points_back => Binding::Misbound,
        _ => Binding::Bound,
    }
}
