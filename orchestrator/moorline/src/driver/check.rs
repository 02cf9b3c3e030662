//! `moorline driver check`: what is wrong in the driver's pools, and with `--repair` put right.

use std::process::ExitCode;

use anyhow::Context as _;
use moorline_driver_local::{
    PoolArgs,
    check::{self, Report},
};
use serde_json::{Value, json};

use crate::args::OutputFormat;

/// Something is wrong and still is.
const EXIT_FINDINGS: u8 = 3;

/// Flags of `moorline driver check`.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Exit codes: 0 nothing is wrong (any more), 1 the pools can't be read, 2 wrong usage, 3 something is wrong."
)]
pub(super) struct Check {
    /// Where the volumes are.
    #[command(flatten)]
    pools: PoolArgs,
    /// Put right what can be, as a start of the driver does, and remove what has neither record nor data. The driver must not run
    #[arg(long)]
    repair: bool,
    /// The form of the answer
    #[arg(long, short, value_enum, default_value = "text")]
    output: OutputFormat,
}

/// Looks, repairs if asked to, and tells. The exit code says whether something is wrong.
pub(super) async fn run(args: Check) -> anyhow::Result<ExitCode> {
    let pools = args.pools.checked().context("use the pools' flags")?;
    let repair = args.repair;
    let reports = tokio::task::spawn_blocking(move || {
        if repair {
            check::repair(&pools).context("repair the pools")
        } else {
            check::open_for_check(&pools).context("look through the pools")
        }
    });
    let reports = reports.await.context("run the check")??;
    tell(&reports, args.output, repair)?;
    let is_clean = reports.iter().all(|report| report.findings.is_empty());
    Ok(if is_clean {
        ExitCode::SUCCESS
    } else {
        ExitCode::from(EXIT_FINDINGS)
    })
}

#[expect(clippy::print_stdout, reason = "the command's answer to its user")]
fn tell(reports: &[Report], output: OutputFormat, is_repaired: bool) -> anyhow::Result<()> {
    match output {
        OutputFormat::Text => print!("{}", text(reports, is_repaired)),
        OutputFormat::Json => println!("{}", serde_json::to_string_pretty(&document(reports))?),
    }
    Ok(())
}

fn counted(count: usize, noun: &str) -> String {
    let ending = if count == 1 { "" } else { "s" };
    format!("{count} {noun}{ending}")
}

/// A line for each pool and for each finding.
fn text(reports: &[Report], is_repaired: bool) -> String {
    let mut lines = String::new();
    for report in reports {
        let in_use = if report.is_in_use {
            "; a driver uses it now: what is half-made may be its work"
        } else {
            ""
        };
        lines += &format!(
            "pool {} in {}: {}, {}, {}, {}{in_use}\n",
            report.pool,
            report.directory.display(),
            counted(report.volumes, "volume"),
            counted(report.snapshots, "snapshot"),
            counted(report.groups, "group"),
            counted(report.findings.len(), "finding")
        );
        for finding in &report.findings {
            lines += &format!("  {} {}\n", finding.path.display(), finding.trouble);
        }
    }
    let can_repair = |report: &Report| {
        report
            .findings
            .iter()
            .any(|finding| finding.trouble.is_repairable())
    };
    if !is_repaired && reports.iter().any(can_repair) {
        lines += "run again with --repair, while the driver is stopped, to put right what can be\n";
    }
    lines
}

fn document(reports: &[Report]) -> Value {
    let pools = reports.iter().map(|report| {
        let findings = report.findings.iter().map(|finding| {
            json!({
                "path": finding.path,
                "trouble": finding.trouble.to_string(),
                "repairable": finding.trouble.is_repairable(),
            })
        });
        json!({
            "pool": report.pool,
            "directory": report.directory,
            "inUse": report.is_in_use,
            "volumes": report.volumes,
            "snapshots": report.snapshots,
            "groups": report.groups,
            "findings": findings.collect::<Vec<_>>(),
        })
    });
    json!({ "pools": pools.collect::<Vec<_>>() })
}

#[cfg(test)]
mod tests {
    use moorline_driver_local::check::{Finding, Trouble};

    use super::*;

    fn report(findings: Vec<Finding>) -> Report {
        Report {
            pool: "default".to_owned(),
            directory: "/pool".into(),
            is_in_use: false,
            volumes: 2,
            snapshots: 1,
            groups: 0,
            findings,
        }
    }

    #[test]
    fn findings_are_told_with_what_to_do() {
        let clean = text(&[report(Vec::new())], false);
        assert_eq!(
            clean,
            "pool default in /pool: 2 volumes, 1 snapshot, 0 groups, 0 findings\n"
        );
        let orphan = Finding {
            path: "/pool/volumes/x".into(),
            trouble: Trouble::Orphan,
        };
        let found = text(&[report(vec![orphan.clone()])], false);
        assert!(
            found.contains("/pool/volumes/x has neither record nor data"),
            "{found}"
        );
        assert!(found.contains("again with --repair"), "{found}");
        assert!(!text(&[report(vec![orphan.clone()])], true).contains("again with --repair"));
        let document = document(&[report(vec![orphan])]);
        assert_eq!(document["pools"][0]["findings"][0]["repairable"], true);
    }
}
