//! Command line. Tables and JSON go to standard output, everything else to standard error.

mod arch;
mod diff;
mod extract;
mod input;
mod inspect;
mod output;
mod report;
mod shell;
mod size;
mod strip;
mod table;
mod verify;
mod why;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

/// Exit status when a file could not be read or is damaged, or the answer is no (`why`, `diff`).
const EXIT_NO: u8 = 1;
/// Exit status when all files are fine, but one holds no device code.
const EXIT_NOTHING: u8 = 3;

/// Looks into CUDA fat binaries.
#[derive(Debug, Parser)]
#[command(
    version,
    name = "fatbin",
    after_help = "\
FILE is a program, library, object (ELF or Windows), archive (.a), .fatbin, .cubin, PTX, a wheel or other zip file, or a directory, which is searched.

Exit status: 0 all well (why: it runs; diff: no difference), 1 a file is unreadable or damaged, or the answer is no, 2 wrong usage, 3 a file holds no device code.

Examples:
  fatbin inspect ./a.out                            what is inside
  fatbin why libfoo.so --device sm_86               does it run on that device, and why not
  fatbin size some.whl                              what the bytes are spent on"
)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    Inspect(inspect::Args),
    Extract(extract::Args),
    Why(why::Args),
    Diff(diff::Args),
    Size(size::Args),
    Verify(verify::Args),
    Strip(strip::Args),
    Completions(shell::CompletionsArgs),
    Man(shell::ManArgs),
}

/// Runs the command line of this process.
pub fn main() -> ExitCode {
    let result = match Cli::parse().command {
        Command::Inspect(args) => inspect::run(&args),
        Command::Extract(args) => extract::run(&args),
        Command::Why(args) => why::run(&args),
        Command::Diff(args) => diff::run(&args),
        Command::Size(args) => size::run(&args),
        Command::Verify(args) => verify::run(&args),
        Command::Completions(args) => shell::completions(&args),
        Command::Man(args) => shell::man(&args),
        Command::Strip(args) => strip::run(&args),
    };
    match result {
        Ok(code) => code,
        // The reader had enough (`| head`): no failure of ours.
        Err(error) if output::is_broken_pipe(&error) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("fatbin: {error:#}");
            ExitCode::from(EXIT_NO)
        }
    }
}
