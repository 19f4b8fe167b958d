//! `cargo xtask bench`: what driver calls cost through the whole stack; with `--gpu`, benchmark programs natively and through it.

mod calls;
pub mod figures;
pub mod gpu;
pub mod items;
mod profile;

use std::process::ExitCode;

use anyhow::Result;
use clap::Parser;

use crate::gpu::Options;
use crate::toolkit::Choice;

#[derive(Parser)]
pub struct Args {
    /// Which backend runs the kernels: auto, cpu or cuda [default: cpu, with --gpu cuda]
    #[arg(long)]
    pub backend: Option<String>,
    /// Runs of the whole benchmark; of each figure the best run is shown beside the median over the runs
    #[arg(long, default_value_t = 5, conflicts_with = "gpu")]
    pub runs: usize,
    /// Print one JSON object instead of tables
    #[arg(long)]
    pub json: bool,
    /// Run programs on the GPU natively and through the shim, in turns, and compare
    #[arg(long)]
    pub gpu: bool,
    /// Show where the time of each driver call goes instead: marshalling and waiting in the program, carrying it out on the host. One run, through
    /// the shim; with --gpu of each item
    #[arg(long, conflicts_with = "runs")]
    pub profile: bool,
    /// With --gpu: how often each program runs on each leg
    #[arg(long, default_value_t = 3, value_name = "N", requires = "gpu")]
    pub rounds: usize,
    /// With --gpu: run only the items whose name contains this (may be given several times)
    #[arg(long, value_name = "NAME", requires = "gpu")]
    pub only: Vec<String>,
    #[command(flatten)]
    pub options: Options,
    /// Where nvcc comes from
    #[arg(long, value_enum, default_value_t = Choice::Auto, requires = "gpu")]
    pub toolkit: Choice,
}

pub fn main(args: &Args) -> Result<ExitCode> {
    if args.profile {
        return profile::run(args);
    }
    if args.gpu { gpu::run(args) } else { calls::run(args) }
}
