//! What is asked for against what is there: same volume or another one, and which size. Pure.

use moorline_driver_sdk::{DriverError, request::CapacityRange};

use crate::{
    backend::SizeRule,
    class::Class,
    record::{Content, Parameters, Record, Source},
};

/// What a volume gets if nobody says how large it shall be.
const SIZE_DEFAULT_BYTES: u64 = 1 << 30;

/// Is the volume that has the name the one that is asked for?
pub(crate) fn check_same(record: &Record, wanted: &Wanted) -> Result<(), DriverError> {
    let differs = |what: String| {
        Err(DriverError::already_exists(format!(
            "volume {} exists, but {what}",
            record.name
        )))
    };
    if *record.name != *wanted.name {
        return differs(format!("not with the name {}", wanted.name));
    }
    if record.content != wanted.content {
        return differs(format!("as {}, not {}", record.content, wanted.content));
    }
    if !wanted.capacity.admits(record.capacity_bytes) {
        return differs(format!("with {} bytes", record.capacity_bytes));
    }
    if record.parameters != wanted.class.parameters {
        return differs("with other parameters".to_owned());
    }
    if record.source.as_deref() != wanted.source.as_ref() {
        return differs("with the content of another source".to_owned());
    }
    Ok(())
}

/// What a create asks for, checked.
#[derive(Clone, Debug)]
pub(crate) struct Wanted {
    pub(crate) name: String,
    pub(crate) content: Content,
    pub(crate) capacity: CapacityRange,
    pub(crate) class: Class,
    pub(crate) mutable_parameters: Parameters,
    pub(crate) source: Option<Source>,
}

impl Wanted {
    pub(crate) fn size(&self, rule: SizeRule) -> Result<u64, DriverError> {
        self.capacity
            .choose(SIZE_DEFAULT_BYTES, rule.min_bytes, rule.step_bytes)
    }
}

impl Wanted {
    /// The size of a volume that begins with the content of a source.
    pub(crate) fn size_from(
        &self,
        source_bytes: u64,
        source_content: Content,
        rule: SizeRule,
    ) -> Result<u64, DriverError> {
        if self.content != source_content {
            return Err(DriverError::invalid(format!(
                "the source is {source_content}; a volume made from it can't be {}",
                self.content
            )));
        }
        if let Some(required) = self
            .capacity
            .required_bytes
            .filter(|required| *required < source_bytes)
        {
            return Err(DriverError::out_of_range(format!(
                "the source has {source_bytes} bytes; a volume made from it can't have {required}"
            )));
        }
        let min_bytes = source_bytes.max(rule.min_bytes);
        self.capacity.choose(min_bytes, min_bytes, rule.step_bytes)
    }
}

/// The size to grow to, or none if the volume is large enough.
pub(crate) fn grown_size(
    record: &Record,
    capacity: CapacityRange,
    rule: SizeRule,
) -> Result<Option<u64>, DriverError> {
    let now = record.capacity_bytes;
    if capacity.admits(now) || capacity.required_bytes.is_some_and(|required| required <= now) {
        // A limit below the present size would mean to shrink.
        return match capacity.limit_bytes {
            Some(limit) if limit < now => Err(DriverError::out_of_range(format!(
                "the volume has {now} bytes and can't shrink to {limit}"
            ))),
            _ => Ok(None),
        };
    }
    capacity
        .choose(now, now.max(rule.min_bytes), rule.step_bytes)
        .map(Some)
}

#[cfg(test)]
mod tests;
