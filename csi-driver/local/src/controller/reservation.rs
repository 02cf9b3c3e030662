//! Ids and bytes that are set aside while something is made.

use std::sync::Arc;

use super::Member;
use crate::catalog::Kept;

/// Something that is being made: its id and bytes are given back unless it is made. After
/// [`crate::catalog::Catalog::begin_create`] said so.
pub(super) struct Reservation<R: Kept> {
    member: Arc<Member>,
    id: Arc<str>,
    made: Option<Arc<R>>,
}

impl<R: Kept> Reservation<R> {
    pub(super) fn new(member: &Arc<Member>, id: &Arc<str>) -> Self {
        Reservation {
            member: Arc::clone(member),
            id: Arc::clone(id),
            made: None,
        }
    }

    /// It is made.
    pub(super) fn made(mut self, record: R) -> Arc<R> {
        let record = Arc::new(record);
        self.made = Some(Arc::clone(&record));
        record
    }
}

impl<R: Kept> Drop for Reservation<R> {
    fn drop(&mut self) {
        self.member.catalog.finish_create(&self.id, self.made.take());
    }
}
