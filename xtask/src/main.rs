//! `cargo xtask <task>`: everything a developer runs that is more than one cargo command.

mod bench;
mod codegen;
mod debian;
mod expect;
mod gpu;
mod gpu_test;
mod kmod;
mod manifest;
mod nvcc;
mod process;
mod progress;
mod run;
mod samples;
mod test;
mod test_cargo;
mod test_matrix;
mod test_nested;
mod test_numba;
mod test_shim;
mod toolkit;
mod venv;
mod vm;
mod workspace;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

#[derive(Parser)]
#[command(name = "cargo xtask", bin_name = "cargo xtask", about = "Project tasks")]
struct Cli {
    #[command(subcommand)]
    task: Task,
}

#[derive(Subcommand)]
enum Task {
    /// Write the code that follows from the table of driver calls (crates/driver-api)
    Codegen(codegen::Args),
    /// Set up nvcc and build the sample programs
    Samples(samples::Args),
    /// Build everything that is needed and run one sample through the whole stack
    Run(run::Args),
    /// Measure what driver calls cost through the whole stack; with --gpu, programs natively and through it
    Bench(bench::Args),
    /// Build the guest's kernel module for stock kernels
    Kmod(kmod::Args),
    /// Run all tests: unit and property tests, the sample matrix, the library in foreign programs, Numba; with --gpu, those of a GPU
    Test(test::Args),
    /// Tests in virtual machines
    Vm(vm::Args),
    /// Build what the GPU tests and benchmarks need into a folder that can be carried to a machine without cargo
    Pack(gpu::pack::Args),
}

fn main() -> ExitCode {
    let result = match Cli::parse().task {
        Task::Codegen(args) => codegen::main(&args),
        Task::Samples(args) => samples::main(&args),
        Task::Run(args) => run::main(&args),
        Task::Bench(args) => bench::main(&args),
        Task::Kmod(args) => kmod::main(&args),
        Task::Test(args) => test::main(&args),
        Task::Vm(args) => vm::main(&args),
        Task::Pack(args) => gpu::pack::main(&args),
    };
    match result {
        Ok(code) => code,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}
