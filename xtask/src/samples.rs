//! `cargo xtask samples`: sets up nvcc and builds the sample programs.

use std::process::ExitCode;

use anyhow::{Result, bail};
use clap::Parser;

use crate::manifest::{self, Sample};
use crate::nvcc;
use crate::toolkit::{Choice, Toolkit};

#[derive(Parser)]
pub struct Args {
    /// Where nvcc comes from
    #[arg(long, value_enum, default_value_t = Choice::Auto)]
    pub toolkit: Choice,
    /// Build this sample only (may be given several times)
    #[arg(long, value_name = "NAME")]
    pub only: Vec<String>,
}

pub fn main(args: &Args) -> Result<ExitCode> {
    let chosen = select(&args.only)?;
    let toolkit = Toolkit::ensure(args.toolkit)?;
    nvcc::build(&toolkit, &chosen)?;
    Ok(ExitCode::SUCCESS)
}

/// The samples called `names`, or all of them.
pub fn select(names: &[String]) -> Result<Vec<&'static Sample>> {
    if names.is_empty() {
        return Ok(manifest::SAMPLES.iter().collect());
    }
    names
        .iter()
        .map(|name| match manifest::find(name) {
            Some(sample) => Ok(sample),
            None => bail!("no sample is called {name}; there are: {}", manifest::names()),
        })
        .collect()
}
