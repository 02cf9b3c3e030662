//! The size that a caller wants.

use moorline_proto::csi;

use crate::DriverError;

/// A range of sizes. The lower bound never exceeds the upper one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CapacityRange {
    /// At least this many bytes.
    pub required_bytes: Option<u64>,
    /// At most this many bytes.
    pub limit_bytes: Option<u64>,
}

impl CapacityRange {
    pub(super) fn parse(range: Option<csi::CapacityRange>) -> Result<Self, DriverError> {
        let Some(range) = range else {
            return Ok(CapacityRange::default());
        };
        let bound = |field: &str, bytes: i64| match u64::try_from(bytes) {
            Ok(0) => Ok(None),
            Ok(bytes) => Ok(Some(bytes)),
            Err(_) => Err(DriverError::invalid(format!(
                "capacity_range.{field} is negative"
            ))),
        };
        let required_bytes = bound("required_bytes", range.required_bytes)?;
        let limit_bytes = bound("limit_bytes", range.limit_bytes)?;
        match (required_bytes, limit_bytes) {
            (None, None) => Err(DriverError::invalid(
                "capacity_range has neither required_bytes nor limit_bytes",
            )),
            (Some(required), Some(limit)) if limit < required => Err(DriverError::invalid(format!(
                "capacity_range.limit_bytes {limit} is less than required_bytes {required}"
            ))),
            _ => Ok(CapacityRange {
                required_bytes,
                limit_bytes,
            }),
        }
    }

    /// Would a volume of this size do?
    pub fn admits(&self, bytes: u64) -> bool {
        self.required_bytes.is_none_or(|required| bytes >= required)
            && self.limit_bytes.is_none_or(|limit| bytes <= limit)
    }

    /// The smallest size in the range that is a multiple of `step` and at least `min`; without a lower bound,
    /// `default` or what the upper bound leaves of it.
    ///
    /// # Errors
    /// Out of range when there is no such size.
    pub fn choose(&self, default: u64, min: u64, step: u64) -> Result<u64, DriverError> {
        let step = step.max(1);
        let wanted = self.required_bytes.unwrap_or_else(|| {
            let limit = self.limit_bytes.unwrap_or(u64::MAX);
            default.min(limit - limit % step)
        });
        let size = wanted
            .max(min)
            .checked_next_multiple_of(step)
            .filter(|size| self.admits(*size));
        // Sizes go over the wire as i64.
        size.filter(|size| i64::try_from(*size).is_ok()).ok_or_else(|| {
            DriverError::out_of_range(format!(
                "no size from {} to {} bytes is possible; sizes are multiples of {step} bytes, at least {min}",
                self.required_bytes.unwrap_or(0),
                self.limit_bytes.map_or_else(|| "any number of".to_owned(), |limit| limit.to_string()),
            ))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ErrorKind;

    #[test]
    fn a_size_is_chosen_from_the_range() {
        let cases = [
            ("nothing asked for", None, None, Some(1000)),
            ("as asked", Some(300), None, Some(300)),
            ("rounded up", Some(301), None, Some(400)),
            ("not less than the least", Some(1), None, Some(200)),
            ("default under the limit", None, Some(650), Some(600)),
            ("rounding meets the limit", Some(301), Some(400), Some(400)),
            ("rounding passes the limit", Some(301), Some(399), None),
            ("limit below the least", None, Some(199), None),
            ("too large for the wire", Some(u64::MAX - 5), None, None),
        ];
        for (name, required_bytes, limit_bytes, expected) in cases {
            let range = CapacityRange {
                required_bytes,
                limit_bytes,
            };
            match (range.choose(1000, 200, 100), expected) {
                (Ok(size), Some(expected)) => assert_eq!(size, expected, "{name}"),
                (Err(error), None) => assert_eq!(error.kind(), ErrorKind::OutOfRange, "{name}"),
                (got, _) => panic!("{name}: {got:?}"),
            }
        }
    }
}
