//! The JSON Schemas of everything that sealift reads and writes.

use clap::ValueEnum;
use schemars::JsonSchema;

use super::demo::DemoReport;
use super::key::KeyReport;
use super::login::LoginReport;
use super::plan::Plans;
use super::pull::PullReports;
use super::replay::ReplayReports;
use super::schedule::ScheduleReport;
use super::spec::CheckReport;
use super::verify::VerifyReports;
use crate::bundle::Contents;
use crate::client_config::ClientConfig;
use crate::export::{ExportReport, LayoutReport};
use crate::foreign::{ChangeReport, ListReport};
use crate::inspect::InspectReport;
use crate::target::Profile;
use crate::yaml;

/// A document that has a schema.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum SchemaName {
    /// A mirror spec.
    MirrorSpec,
    /// A site.
    Site,
    /// The configuration.
    Config,
    /// `bundle.json`.
    Bundle,
    /// What `plan --output json` prints and `pull --plan` takes.
    Plan,
    /// What `pull --output json` prints.
    PullReport,
    /// What `export --output json` prints.
    ExportReport,
    /// What `export --layout --output json` prints.
    LayoutReport,
    /// What `verify --output json` prints.
    VerifyReport,
    /// What `replay --output json` prints.
    ReplayReport,
    /// What `inspect --output json` prints.
    InspectReport,
    /// What `probe` writes and `target.profile` takes.
    Profile,
    /// What `foreign list --output json` prints.
    ForeignReport,
    /// What `foreign mark --output json` and `foreign unmark --output json` print.
    ForeignChangeReport,
    /// What `demo --output json` prints.
    DemoReport,
    /// What `key generate --output json` prints.
    KeyReport,
    /// What `spec check --output json` prints.
    CheckReport,
    /// What `schedule --output json` prints.
    ScheduleReport,
    /// What `login check --output json` prints.
    LoginReport,
    /// What `client-config --output json` prints.
    ClientConfig,
}

/// All documents that have a schema, each in `schemas/<name>.schema.json`.
pub const SCHEMAS: &[(&str, SchemaName)] = &[
    ("mirror-spec", SchemaName::MirrorSpec),
    ("site", SchemaName::Site),
    ("config", SchemaName::Config),
    ("bundle", SchemaName::Bundle),
    ("plan", SchemaName::Plan),
    ("pull-report", SchemaName::PullReport),
    ("export-report", SchemaName::ExportReport),
    ("layout-report", SchemaName::LayoutReport),
    ("verify-report", SchemaName::VerifyReport),
    ("replay-report", SchemaName::ReplayReport),
    ("inspect-report", SchemaName::InspectReport),
    ("profile", SchemaName::Profile),
    ("foreign-report", SchemaName::ForeignReport),
    ("foreign-change-report", SchemaName::ForeignChangeReport),
    ("demo-report", SchemaName::DemoReport),
    ("key-report", SchemaName::KeyReport),
    ("check-report", SchemaName::CheckReport),
    ("schedule-report", SchemaName::ScheduleReport),
    ("login-report", SchemaName::LoginReport),
    ("client-config", SchemaName::ClientConfig),
];

impl SchemaName {
    /// The schema.
    pub fn schema(self) -> serde_json::Value {
        fn of<T: JsonSchema>(name: &str, title: &str) -> serde_json::Value {
            yaml::schema::<T>(name, title)
        }
        match self {
            SchemaName::MirrorSpec => crate::spec::schema(),
            SchemaName::Site => crate::site::schema(),
            SchemaName::Config => crate::config::schema(),
            SchemaName::Bundle => of::<Contents>("bundle", "sealift bundle.json"),
            SchemaName::Plan => of::<Plans>("plan", "sealift plan"),
            SchemaName::PullReport => of::<PullReports>("pull-report", "sealift pull report"),
            SchemaName::ExportReport => of::<ExportReport>("export-report", "sealift export report"),
            SchemaName::LayoutReport => of::<LayoutReport>("layout-report", "sealift export --layout report"),
            SchemaName::VerifyReport => of::<VerifyReports>("verify-report", "sealift verify report"),
            SchemaName::ReplayReport => of::<ReplayReports>("replay-report", "sealift replay report"),
            SchemaName::InspectReport => of::<InspectReport>("inspect-report", "sealift inspect report"),
            SchemaName::Profile => of::<Profile>("profile", "sealift profile of a target"),
            SchemaName::ForeignReport => of::<ListReport>("foreign-report", "sealift foreign list report"),
            SchemaName::ForeignChangeReport => {
                of::<ChangeReport>("foreign-change-report", "sealift foreign mark and unmark report")
            }
            SchemaName::DemoReport => of::<DemoReport>("demo-report", "sealift demo report"),
            SchemaName::KeyReport => of::<KeyReport>("key-report", "sealift key report"),
            SchemaName::CheckReport => of::<CheckReport>("check-report", "sealift spec check report"),
            SchemaName::ScheduleReport => of::<ScheduleReport>("schedule-report", "sealift schedule report"),
            SchemaName::LoginReport => of::<LoginReport>("login-report", "sealift login check report"),
            SchemaName::ClientConfig => of::<ClientConfig>("client-config", "sealift client-config report"),
        }
    }
}
