//! `fatbin completions` and `fatbin man`.

use std::io::Write;
use std::process::ExitCode;

use clap::{Command, CommandFactory};
use clap_complete::Shell;

use super::{Cli, output};

/// Write completions for a shell
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  fatbin completions bash > ~/.local/share/bash-completion/completions/fatbin
  fatbin completions zsh > _fatbin")]
pub struct CompletionsArgs {
    /// The shell.
    shell: Shell,
}

/// Write the manual page
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  fatbin man > fatbin.1
  fatbin man strip | man -l -")]
pub struct ManArgs {
    /// Page of this command.
    command: Option<String>,
}

pub fn completions(args: &CompletionsArgs) -> anyhow::Result<ExitCode> {
    // Into memory first: clap_complete panics on a closed pipe.
    let mut text = Vec::new();
    clap_complete::generate(args.shell, &mut Cli::command(), "fatbin", &mut text);
    print(&text)
}

pub fn man(args: &ManArgs) -> anyhow::Result<ExitCode> {
    let mut command = Cli::command();
    command.build();
    let page: Command = match &args.command {
        None => command,
        Some(name) => {
            let found = command.find_subcommand(name);
            found.ok_or_else(|| anyhow::anyhow!("no command `{name}`; see `fatbin --help`"))?.clone()
        }
    };
    let mut text = Vec::new();
    clap_mangen::Man::new(page).render(&mut text)?;
    print(&text)
}

fn print(text: &[u8]) -> anyhow::Result<ExitCode> {
    let mut out = output::stdout();
    out.write_all(text)?;
    out.flush()?;
    Ok(ExitCode::SUCCESS)
}
