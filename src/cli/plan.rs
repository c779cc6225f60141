//! `sealift plan`.

use std::fmt::Write;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use super::output::{self, count, size};
use super::progress::Progress;
use super::{ConfigArgument, Output, StoreArgument};
use crate::error::{Context, Error, Kind, Result, Side};
use crate::image::IndexMode;
use crate::oci::json;
use crate::plan::{CountedPulls, Plan, PlannedImage, plan};
use crate::store::Access;
use crate::store::records::Failure;

/// The largest plan file that is read.
const PLAN_SIZE_MAX: u64 = 1024 * 1024 * 1024;

#[derive(clap::Args)]
#[command(after_help = "Examples:
  sealift plan mirror-specs/base-images.yaml --store ./store
  sealift plan specs/*.yaml --out tonight.plan.json && sealift pull --plan tonight.plan.json
  sealift plan specs/*.yaml --output json | jq '.plans[].totals'

A plan moves no layer. Manifests that it has to read are kept in the store, so that none is fetched twice.")]
pub(super) struct PlanArguments {
    /// Mirror specs
    #[arg(required = true, value_name = "SPEC")]
    specs: Vec<PathBuf>,
    /// Also write the plan to a file, for `sealift pull --plan`
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,
    #[command(flatten)]
    store: StoreArgument,
    #[command(flatten)]
    config: ConfigArgument,
}

/// Plans of several streams: what `plan --output json` prints and `pull --plan` takes.
#[derive(Debug, Serialize, Deserialize, schemars::JsonSchema)]
pub(super) struct Plans {
    /// One for each spec.
    pub plans: Vec<Plan>,
}

impl Plans {
    pub(super) fn load(path: &std::path::Path) -> Result<Self> {
        let attempt = || format!("read plan {}", path.display());
        if std::fs::metadata(path).while_(attempt)?.len() > PLAN_SIZE_MAX {
            return Err(Error::usage("it is too large for a plan").while_(attempt()));
        }
        let bytes = std::fs::read(path).while_(attempt)?;
        json::parse(&bytes).map_err(|error| Error::usage(format!("it is no plan: {error}")).while_(attempt()))
    }
}

pub(super) async fn run(arguments: PlanArguments, output: Output) -> Result<Option<Kind>> {
    let config = arguments.config.load()?;
    let specs = super::load_specs(&arguments.specs)?;
    let client = super::client(&config, Side::Source)?;
    let store = arguments.store.open(&config, Access::Shared)?;
    let monitor = Progress::new();
    let mut plans = Vec::with_capacity(specs.len());
    for spec in &specs {
        plans.push(plan(spec, &client, &store, &monitor).await?);
    }
    let plans = Plans { plans };
    if let Some(path) = &arguments.out {
        let bytes = json::canonical(&plans).map_err(|error| Error::failed(error.to_string()))?;
        crate::durable::write_file(path, &bytes, 0o644)?;
    }
    output::report(output, &plans, |plans| {
        let mut text = String::new();
        plans.plans.iter().for_each(|plan| human(&mut text, plan));
        text
    })?;
    let verdict = |plan: &Plan| Failure::verdict(&plan.failed, !plan.images.is_empty());
    Ok(Kind::first_of(plans.plans.iter().filter_map(verdict)))
}

/// A plan as a table, below those that `text` has.
fn human(text: &mut String, plan: &Plan) {
    let totals = &plan.totals;
    if !text.is_empty() {
        text.push('\n');
    }
    let (images, tags) = (count(totals.images, "image"), count(totals.tags, "tag"));
    let _ = writeln!(text, "stream {}: {images}, {tags}", plan.stream);
    for image in &plan.images {
        image_rows(text, image);
    }
    let _ = writeln!(text, "\n  to fetch          {:>12}", size(totals.new));
    let _ = writeln!(text, "  in the store      {:>12}", size(totals.in_store));
    let _ = writeln!(text, "  left out          {:>12}", size(totals.left_out));
    if totals.foreign_skipped > 0 {
        let _ = writeln!(text, "  foreign, skipped  {:>12}", size(totals.foreign_skipped));
    }
    match totals.volumes {
        Some(volumes) => _ = writeln!(text, "  volumes           {volumes:>12}"),
        None => text.push_str("  volumes too small for the largest layer: choose a larger volumeSize\n"),
    }
    for pulls in &plan.pulls {
        pulls_row(text, pulls);
    }
    for failure in &plan.failed {
        let _ = writeln!(text, "\nfailed: {}\n  {}", failure.subject, failure.problem);
    }
    for note in &plan.notes {
        let _ = writeln!(text, "\nnote: {note}");
    }
}

/// What a registry that counts pulls has counted, and what is still to come.
fn pulls_row(text: &mut String, pulls: &CountedPulls) {
    let CountedPulls { registry, limit, remaining, window, made, to_make } = pulls;
    let within = match window {
        Some(seconds) if seconds.is_multiple_of(3600) => format!(" in {} h", seconds / 3600),
        Some(seconds) => format!(" in {seconds} s"),
        None => String::new(),
    };
    let _ = writeln!(
        text,
        "  pulls             {made:>12}  made for this plan, {to_make} for the pull; {registry} allows {remaining} more of {limit}{within}"
    );
}

fn image_rows(text: &mut String, planned: &PlannedImage) {
    let image = &planned.image;
    let tags: Vec<&str> = planned.tags.iter().map(|tag| tag.as_str()).collect();
    let mode = match image.mode {
        IndexMode::Sparse => "sparse",
        IndexMode::Full => "full",
        IndexMode::Child => "child",
        IndexMode::Trim => "trim",
    };
    let _ = writeln!(text, "\n  {}  {}\n    {}  {mode}", image.repository, tags.join(" "), image.root.digest);
    for row in &planned.platforms {
        let word = if row.kept { "keep" } else { "leave out" };
        let state = match (row.kept, row.missing) {
            (false, _) => String::new(),
            (true, 0) => "in the store".to_owned(),
            (true, missing) => format!("{} to fetch", size(missing)),
        };
        let line = format!("    {word:<10} {:<28} {:>12}  {state}", row.platform, size(row.bytes));
        let _ = writeln!(text, "{}", line.trim_end());
    }
    for layer in &image.foreign {
        let host = layer.descriptor.urls.first().and_then(|text| url::Url::parse(text).ok());
        let host = host.as_ref().and_then(|url| url.host_str()).unwrap_or("no url");
        let digest = layer.descriptor.digest.short();
        let _ = writeln!(text, "    {:<10} {:<28} {:>12}  at {host}", "foreign", digest, size(layer.descriptor.size));
    }
}
