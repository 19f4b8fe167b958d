//! `fatbin`: looks into CUDA fat binaries.

mod cli;

use std::process::ExitCode;

fn main() -> ExitCode {
    cli::main()
}
