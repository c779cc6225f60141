//! The sealift command: arguments in, an exit status out.

use std::process::ExitCode;

fn main() -> ExitCode {
    sealift::cli::main()
}
