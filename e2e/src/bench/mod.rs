//! Benchmarks of a whole cluster and of the driver alone, measured from outside.

pub mod driver;
pub mod start;
pub mod volumes;

/// Name and value of each figure, in the order they are shown.
pub type Figures = Vec<(String, serde_json::Value)>;

/// Adds a figure.
fn add(figures: &mut Figures, name: &str, value: impl Into<serde_json::Value>) {
    figures.push((name.to_owned(), value.into()));
}

/// The value below which the share `quantile` of the samples lies. Sorts them.
fn quantile(samples: &mut [f64], quantile: f64) -> f64 {
    samples.sort_by(f64::total_cmp);
    let last = samples.len().saturating_sub(1);
    let at = (last as f64 * quantile).round();
    // Between 0 and the number of samples, both small.
    samples.get(at as usize).copied().unwrap_or(f64::NAN)
}

/// Three digits behind the point.
fn rounded(value: f64) -> f64 {
    (value * 1000.0).round() / 1000.0
}

/// Bytes as MiB, one digit behind the point.
fn mib(bytes: u64) -> f64 {
    (bytes as f64 / 1024.0 / 1024.0 * 10.0).round() / 10.0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantiles_of_a_hundred_values() {
        let mut samples: Vec<f64> = (1..=101).rev().map(f64::from).collect();
        assert_eq!(
            (quantile(&mut samples, 0.5), quantile(&mut samples, 0.99)),
            (51.0, 100.0)
        );
        assert!(quantile(&mut [], 0.5).is_nan());
    }
}
