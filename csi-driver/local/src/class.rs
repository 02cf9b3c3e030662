//! The parameters of a StorageClass: which pool, thin or thick, how sure the quota. Pure.

use moorline_driver_sdk::{DriverError, request::StringMap};

use crate::{
    config::POOL_DEFAULT,
    record::{Parameters, Provisioning},
};

/// Parameters under this prefix describe the claim, not the volume; a provisioner may add them.
const CLAIM_PREFIX: &str = "csi.storage.k8s.io/";
const POOL: &str = "pool";
const PROVISIONING: &str = "provisioning";
const QUOTA: &str = "quota";

/// What a class asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Class {
    pub(crate) pool: String,
    pub(crate) provisioning: Provisioning,
    pub(crate) quota: Quota,
    /// All of it as it was written, for the record.
    pub(crate) parameters: Parameters,
}

/// How sure a volume's size limit must be.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Quota {
    /// Enforced where the pool can, else only accounted.
    #[default]
    BestEffort,
    /// No volume without it.
    Required,
}

impl Class {
    /// Reads the parameters of a class.
    ///
    /// # Errors
    /// Invalid argument for unknown parameters and values.
    pub(crate) fn parse(parameters: StringMap) -> Result<Self, DriverError> {
        let parameters = own_parameters(parameters);
        let mut class = Class {
            pool: POOL_DEFAULT.to_owned(),
            provisioning: Provisioning::default(),
            quota: Quota::default(),
            parameters: Parameters::default(),
        };
        for (key, value) in &parameters {
            match (key.as_str(), value.as_str()) {
                (POOL, name) if !name.is_empty() => class.pool = name.to_owned(),
                (PROVISIONING, "thin") => class.provisioning = Provisioning::Thin,
                (PROVISIONING, "thick") => class.provisioning = Provisioning::Thick,
                (QUOTA, "besteffort") => class.quota = Quota::BestEffort,
                (QUOTA, "required") => class.quota = Quota::Required,
                (POOL, _) => return Err(bad_value(key, value, "the name of a pool")),
                (PROVISIONING, _) => return Err(bad_value(key, value, "thin or thick")),
                (QUOTA, _) => return Err(bad_value(key, value, "besteffort or required")),
                _ => {
                    return Err(DriverError::invalid(format!(
                        "parameter {key} is unknown; there are {POOL}, {PROVISIONING} and {QUOTA}"
                    )));
                }
            }
        }
        class.parameters = parameters.into();
        Ok(class)
    }
}

fn bad_value(key: &str, value: &str, expected: &str) -> DriverError {
    DriverError::invalid(format!("parameter {key} is {value:?}, not {expected}"))
}

/// Without those that only describe the claim.
pub(crate) fn own_parameters(parameters: StringMap) -> StringMap {
    let own = parameters.into_iter();
    own.filter(|(key, _)| !key.starts_with(CLAIM_PREFIX)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn map(pairs: &[(&str, &str)]) -> StringMap {
        let pairs = pairs.iter();
        pairs
            .map(|(key, value)| ((*key).to_owned(), (*value).to_owned()))
            .collect()
    }

    #[test]
    fn classes_are_read_or_refused_with_what_is_possible() {
        type Expected = Result<(&'static str, Provisioning, Quota), &'static str>;
        type Case = (&'static str, &'static [(&'static str, &'static str)], Expected);
        let cases: [Case; 10] = [
            (
                "nothing",
                &[],
                Ok(("default", Provisioning::Thin, Quota::BestEffort)),
            ),
            (
                "a pool",
                &[("pool", "fast")],
                Ok(("fast", Provisioning::Thin, Quota::BestEffort)),
            ),
            (
                "thick",
                &[("provisioning", "thick")],
                Ok(("default", Provisioning::Thick, Quota::BestEffort)),
            ),
            (
                "thin, in words",
                &[("provisioning", "thin")],
                Ok(("default", Provisioning::Thin, Quota::BestEffort)),
            ),
            (
                "a sure quota",
                &[("quota", "required")],
                Ok(("default", Provisioning::Thin, Quota::Required)),
            ),
            (
                "about the claim",
                &[("csi.storage.k8s.io/pvc/name", "x")],
                Ok(("default", Provisioning::Thin, Quota::BestEffort)),
            ),
            ("no pool", &[("pool", "")], Err("the name of a pool")),
            ("neither", &[("provisioning", "eager")], Err("thin or thick")),
            (
                "a word as quota",
                &[("quota", "yes")],
                Err("besteffort or required"),
            ),
            ("unknown", &[("tier", "gold")], Err("parameter tier is unknown")),
        ];
        for (name, parameters, expected) in cases {
            match (Class::parse(map(parameters)), expected) {
                (Ok(class), Ok(expected)) => {
                    assert_eq!(
                        (class.pool.as_str(), class.provisioning, class.quota),
                        expected,
                        "{name}"
                    );
                }
                (Err(error), Err(expected)) => {
                    assert!(error.to_string().contains(expected), "{name}: {error}")
                }
                (got, _) => panic!("{name}: {got:?}"),
            }
        }
    }

    #[test]
    fn parameters_of_the_claim_are_not_kept() {
        let class = Class::parse(map(&[("csi.storage.k8s.io/pvc/name", "x"), ("pool", "p")])).unwrap();
        assert_eq!(StringMap::from(class.parameters), map(&[("pool", "p")]));
    }
}
