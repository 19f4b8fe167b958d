//! `cargo xtask run NAME`: one sample, unmodified, through shim, daemon and backend.

use std::process::{Command, ExitCode};

use anyhow::{Context, Result, bail};
use clap::Parser;

use crate::nvcc::{self, Variant};
use crate::toolkit::{Choice, Toolkit};
use crate::{samples, workspace};

#[derive(Parser)]
pub struct Args {
    /// The sample to run
    pub name: String,
    /// Which backend runs the kernels: auto, cpu or cuda
    #[arg(long, default_value = "auto")]
    pub backend: String,
    /// Print calls, bytes and times afterwards
    #[arg(long)]
    pub stats: bool,
    /// Run the program that is linked with the shared CUDA runtime
    #[arg(long)]
    pub shared: bool,
    /// Where nvcc comes from
    #[arg(long, value_enum, default_value_t = Choice::Auto)]
    pub toolkit: Choice,
    /// Arguments for the sample
    #[arg(last = true)]
    pub args: Vec<String>,
}

pub fn main(args: &Args) -> Result<ExitCode> {
    let chosen = samples::select(std::slice::from_ref(&args.name))?;
    let [sample] = chosen[..] else {
        bail!("one sample at a time");
    };
    let host = workspace::build_host()?;
    let toolkit = Toolkit::ensure(args.toolkit)?;
    nvcc::build(&toolkit, &chosen)?;
    let variant = if args.shared { Variant::Shared } else { Variant::Static };
    let mut command = Command::new(&host);
    command.args(["run", "--backend", &args.backend]);
    if args.stats {
        command.arg("--stats");
    }
    let status = command
        .arg("--")
        .arg(nvcc::program(sample, variant))
        .args(&args.args)
        .status()
        .with_context(|| format!("cannot run {}", host.display()))?;
    // A program ended by a signal has no exit code; shells report 128 and the signal's number.
    let code = status
        .code()
        .unwrap_or_else(|| 128 + std::os::unix::process::ExitStatusExt::signal(&status).unwrap_or(0));
    Ok(ExitCode::from(u8::try_from(code).unwrap_or(u8::MAX)))
}
