//! `sealift spec`.

use std::path::PathBuf;

use serde::Serialize;

use super::output::{self, count};
use super::schema::SchemaName;
use super::{Output, load_specs};
use crate::error::{Error, Kind, Result};

#[derive(clap::Subcommand)]
pub(super) enum SpecCommand {
    /// Check specs without asking any registry
    #[command(after_help = "Example:
  sealift spec check mirror-specs/*.yaml")]
    Check {
        /// Mirror specs
        #[arg(required = true, value_name = "SPEC")]
        specs: Vec<PathBuf>,
    },
    /// Print the JSON Schema of a spec, or of another document that sealift reads or writes
    #[command(after_help = "Example:
  sealift spec schema > mirror-spec.schema.json
For an editor: # yaml-language-server: $schema=mirror-spec.schema.json")]
    Schema {
        /// Which document
        #[arg(long, value_enum, default_value = "mirror-spec")]
        of: SchemaName,
    },
}

/// What `spec check --output json` prints.
#[derive(Serialize, schemars::JsonSchema)]
pub(super) struct CheckReport {
    /// One for each spec.
    pub specs: Vec<CheckedSpec>,
}

/// A spec that is good.
#[derive(Serialize, schemars::JsonSchema)]
pub(super) struct CheckedSpec {
    /// The file.
    pub file: PathBuf,
    /// The name of the stream.
    pub stream: String,
    /// How many entries `images` has.
    pub images: u64,
    /// What the operator should know.
    pub notes: Vec<String>,
}

pub(super) fn run(command: SpecCommand, output: Output) -> Result<Option<Kind>> {
    match command {
        SpecCommand::Check { specs } => check(&specs, output)?,
        SpecCommand::Schema { of } => {
            let mut text =
                serde_json::to_string_pretty(&of.schema()).map_err(|error| Error::failed(error.to_string()))?;
            text.push('\n');
            output::print(&text)?;
        }
    }
    Ok(None)
}

fn check(files: &[PathBuf], output: Output) -> Result<()> {
    let specs = load_specs(files)?;
    let report = CheckReport {
        specs: specs
            .iter()
            .map(|spec| CheckedSpec {
                file: spec.file.clone(),
                stream: spec.name.to_string(),
                images: spec.images.len() as u64,
                notes: spec.notes.clone(),
            })
            .collect(),
    };
    output::report(output, &report, |report| {
        let mut text = String::new();
        for spec in &report.specs {
            text +=
                &format!("{}: good; stream {}, {}\n", spec.file.display(), spec.stream, count(spec.images, "entry"));
            spec.notes.iter().for_each(|note| text += &format!("  note: {note}\n"));
        }
        text.replace("entrys", "entries")
    })
}
