//! `sealift key`.

use std::path::PathBuf;

use serde::Serialize;

use super::{Output, output};
use crate::bundle::generate_key;
use crate::durable::with_suffix;
use crate::error::{Kind, Result};
use crate::oci::Digest;

#[derive(clap::Subcommand)]
pub(super) enum KeyCommand {
    /// Make a key pair: NAME.key signs on the connected side, NAME.pub goes to the other one
    #[command(after_help = "Example:
  sealift key generate --out keys/exporter

The private key is for its owner alone (mode 0600) and never overwritten. Carry the public key on another way than the
bundles, and compare its fingerprint.")]
    Generate {
        /// Folder and name, without an extension
        #[arg(long, value_name = "DIR/NAME")]
        out: PathBuf,
    },
}

/// What `key generate --output json` prints.
#[derive(Serialize, schemars::JsonSchema)]
#[serde(rename_all = "camelCase")]
pub(super) struct KeyReport {
    /// The file that signs.
    pub private_key: PathBuf,
    /// The file that checks.
    pub public_key: PathBuf,
    /// The SHA-256 digest of the public key (SubjectPublicKeyInfo).
    pub fingerprint: Digest,
}

pub(super) fn run(command: KeyCommand, output: Output) -> Result<Option<Kind>> {
    let KeyCommand::Generate { out } = command;
    let key = generate_key(&out)?;
    let report = KeyReport {
        private_key: with_suffix(&out, ".key"),
        public_key: with_suffix(&out, ".pub"),
        fingerprint: key.id(),
    };
    output::report(output, &report, |report| {
        format!(
            "private key  {}\npublic key   {}\nfingerprint  {}\n",
            report.private_key.display(),
            report.public_key.display(),
            report.fingerprint
        )
    })?;
    Ok(None)
}
