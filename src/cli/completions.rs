//! `sealift completions`.

use clap_complete::Shell;

use super::output;
use crate::error::{Kind, Result};

#[derive(clap::Args)]
#[command(after_help = "Examples:
  sealift completions bash > /usr/share/bash-completion/completions/sealift
  sealift completions zsh > ~/.zfunc/_sealift")]
pub(super) struct CompletionsArguments {
    /// Which shell
    shell: Shell,
}

pub(super) fn run(arguments: CompletionsArguments, mut command: clap::Command) -> Result<Option<Kind>> {
    let mut script = Vec::new();
    clap_complete::generate(arguments.shell, &mut command, "sealift", &mut script);
    output::print(&String::from_utf8_lossy(&script))?;
    Ok(None)
}
