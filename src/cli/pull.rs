//! `sealift pull`.

use std::fmt::Write;
use std::path::PathBuf;

use serde::Serialize;

use super::output::{self, count, size};
use super::plan::Plans;
use super::progress::Progress;
use super::{ConfigArgument, Output, StoreArgument};
use crate::content::Limits;
use crate::error::{Kind, Result, Side};
use crate::plan::plan;
use crate::pull::{PullReport, pull};
use crate::registry::Pull;
use crate::store::Access;
use crate::store::records::Failure;

#[derive(clap::Args)]
#[command(after_help = "Examples:
  sealift pull mirror-specs/base-images.yaml --store ./store
  sealift pull --plan tonight.plan.json --store ./store

An image that fails does not stop the others. After an interruption the same command goes on.")]
pub(super) struct PullArguments {
    /// Mirror specs
    #[arg(required_unless_present = "plan", conflicts_with = "plan", value_name = "SPEC")]
    specs: Vec<PathBuf>,
    /// What `sealift plan --out` wrote, instead of specs
    #[arg(long, value_name = "FILE")]
    plan: Option<PathBuf>,
    /// Blobs to fetch at the same time
    #[arg(long, value_name = "N", default_value_t = Limits::default().concurrent_blobs, value_parser = super::parse_jobs)]
    jobs: usize,
    #[command(flatten)]
    store: StoreArgument,
    #[command(flatten)]
    config: ConfigArgument,
}

/// What `pull --output json` prints.
#[derive(Serialize, schemars::JsonSchema)]
pub(super) struct PullReports {
    /// One for each stream.
    pub reports: Vec<PullReport>,
}

pub(super) async fn run(arguments: PullArguments, output: Output) -> Result<Option<Kind>> {
    let config = arguments.config.load()?;
    let specs = super::load_specs(&arguments.specs)?;
    let given = arguments.plan.as_deref().map(Plans::load).transpose()?;
    let client = super::client(&config, Side::Source)?.with_jobs(arguments.jobs);
    let store = arguments.store.open(&config, Access::Writer)?;
    let (source, monitor) = (Pull::new(client.clone()), Progress::new());
    let limits = Limits { concurrent_blobs: arguments.jobs, keep_going: true };
    let mut reports = Vec::new();
    for plan in given.into_iter().flat_map(|given| given.plans) {
        reports.push(pull(&plan, &source, &store, limits, &monitor).await?);
    }
    for spec in &specs {
        let plan = plan(spec, &client, &store, &monitor).await?;
        reports.push(pull(&plan, &source, &store, limits, &monitor).await?);
    }
    let reports = PullReports { reports };
    output::report(output, &reports, |reports| reports.reports.iter().map(human).collect())?;
    Ok(Kind::first_of(reports.reports.iter().filter_map(verdict)))
}

fn verdict(report: &PullReport) -> Option<Kind> {
    let left_behind = (!report.left_behind.is_empty()).then_some(Kind::Incomplete);
    Kind::first_of(Failure::verdict(&report.failed, report.complete > 0).into_iter().chain(left_behind))
}

fn human(report: &PullReport) -> String {
    let mut text = format!(
        "stream {}: {} whole in the store; {} fetched ({})\n",
        report.stream,
        count(report.complete, "image"),
        count(report.fetched_blobs, "blob"),
        size(report.fetched_bytes)
    );
    for failure in &report.failed {
        let _ = writeln!(text, "failed: {}\n  {}", failure.subject, failure.problem);
    }
    for failure in &report.left_behind {
        let _ = writeln!(text, "left behind: {}\n  {}", failure.subject, failure.problem);
    }
    for note in &report.notes {
        let _ = writeln!(text, "note: {note}");
    }
    if report.complete > 0 {
        let _ = writeln!(text, "next: sealift export {} --to DRIVE --sign-key NAME.key", report.stream);
    }
    text
}
