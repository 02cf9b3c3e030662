//! The text of `/metrics`. Pure.

use std::fmt::Write;

use crate::volumes::stats::ClaimUsage;

type Series = (&'static str, &'static str, fn(&ClaimUsage) -> i64);

const SERIES: [Series; 6] = [
    (
        "kubelet_volume_stats_capacity_bytes",
        "Capacity in bytes of the volume",
        |usage| usage.capacity_bytes,
    ),
    (
        "kubelet_volume_stats_available_bytes",
        "Number of available bytes in the volume",
        |usage| usage.available_bytes,
    ),
    (
        "kubelet_volume_stats_used_bytes",
        "Number of used bytes in the volume",
        |usage| usage.used_bytes,
    ),
    (
        "kubelet_volume_stats_inodes",
        "Maximum number of inodes in the volume",
        |usage| usage.inodes,
    ),
    (
        "kubelet_volume_stats_inodes_free",
        "Number of free inodes in the volume",
        |usage| usage.inodes_free,
    ),
    (
        "kubelet_volume_stats_inodes_used",
        "Number of used inodes in the volume",
        |usage| usage.inodes_used,
    ),
];

/// All metrics in Prometheus' text format.
pub(crate) fn render(usage: &[ClaimUsage], pods: usize) -> String {
    let mut out = String::new();
    for (name, help, value) in SERIES {
        if usage.is_empty() {
            break;
        }
        write(
            &mut out,
            format_args!("# HELP {name} {help}\n# TYPE {name} gauge\n"),
        );
        for held in usage {
            let (namespace, claim) = (&held.namespace, &held.claim);
            let value = value(held);
            write(
                &mut out,
                format_args!(
                    "{name}{{namespace=\"{namespace}\",persistentvolumeclaim=\"{claim}\"}} {value}\n"
                ),
            );
        }
    }
    let name = "kubelet_working_pods";
    write(
        &mut out,
        format_args!(
            "# HELP {name} Number of pods the kubelet is actually running\n# TYPE {name} gauge\n{name} {pods}\n"
        ),
    );
    out
}

fn write(out: &mut String, text: std::fmt::Arguments<'_>) {
    out.write_fmt(text).expect("writing to a string can't fail");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn claims_get_their_series() {
        let usage = ClaimUsage {
            namespace: "ns".into(),
            claim: "data".into(),
            capacity_bytes: 100,
            used_bytes: 40,
            ..Default::default()
        };
        let text = render(&[usage], 2);
        assert!(text.contains(
            "kubelet_volume_stats_capacity_bytes{namespace=\"ns\",persistentvolumeclaim=\"data\"} 100\n"
        ));
        assert!(text.contains(
            "kubelet_volume_stats_used_bytes{namespace=\"ns\",persistentvolumeclaim=\"data\"} 40\n"
        ));
        assert!(text.ends_with("kubelet_working_pods 2\n"));
        assert!(!render(&[], 0).contains("volume_stats"));
    }
}
