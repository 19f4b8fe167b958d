//! The command line.

mod args;
mod backend;
mod guest_args;
pub(crate) mod size;

use std::process::ExitCode;

use clap::{CommandFactory as _, Parser as _};

use crate::config::Config;
use crate::daemon::guest_spec::GuestSpec;
use crate::vmm::{command, guest, qemu};
use crate::{daemon, logging, runner, worker};
pub use args::{Backend, Cli, Command, LimitArgs, ReportArgs, RunArgs, ServeArgs};
pub use guest_args::{BootArgs, Channel, GuestArgs, QemuArgs};

/// The command line was understood, but asks for something that cannot be done here.
const EXIT_USAGE: u8 = 2;

/// Runs the program; the exit code is the caller's to return.
pub fn main() -> ExitCode {
    if guest::is_init() {
        guest::main();
    }
    let cli = Cli::parse();
    match dispatch(&cli) {
        Ok(code) => code,
        Err(error) => {
            eprintln!("host-vmm: error: {error:#}");
            let usage = error.downcast_ref::<UsageError>().is_some();
            ExitCode::from(match cli.command {
                _ if usage => EXIT_USAGE,
                // 1 would look like the program's own.
                Command::Run(_) | Command::Boot(_) => runner::EXIT_NOT_STARTED,
                _ => 1,
            })
        }
    }
}

/// An error that is answered with exit code 2.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct UsageError(pub String);

fn dispatch(cli: &Cli) -> anyhow::Result<ExitCode> {
    logging::init(cli.log.as_deref())?;
    match &cli.command {
        Command::Serve(args) => {
            let backend = backend::choose(args.backend, args.libcuda.as_deref())?;
            let config = args.limits.to_config(backend, cli.log.clone())?;
            let config = Config { timing: args.stats, ..config };
            let guests = args.guest.iter().filter_map(GuestSpec::cid);
            let access = daemon::access::Access::new(args.allow_cid.clone(), guests, &config.limits)?;
            let warm = daemon::pool::Settings { workers: args.warm_workers, refill: true };
            daemon::serve(&args.listen, &args.guest, &config, access, warm)?;
            Ok(ExitCode::SUCCESS)
        }
        Command::Run(args) => {
            let backend = backend::choose(args.backend, args.libcuda.as_deref())?;
            let code = runner::run(args, &args.limits.to_config(backend, cli.log.clone())?)?;
            Ok(ExitCode::from(code))
        }
        Command::Boot(args) => {
            let backend = backend::choose(args.backend, args.libcuda.as_deref())?;
            let config = args.limits().to_config(backend, cli.log.clone())?;
            Ok(ExitCode::from(command::boot(args, config)?))
        }
        Command::QemuArgs(args) => {
            print!("{}", qemu::describe(args)?);
            Ok(ExitCode::SUCCESS)
        }
        Command::Worker => {
            worker::main()?;
            Ok(ExitCode::SUCCESS)
        }
        Command::Probe { libcuda, init } => Ok(backend::probe(libcuda.as_deref(), *init)),
        Command::Completions { shell } => {
            clap_complete::generate(*shell, &mut Cli::command(), "host-vmm", &mut std::io::stdout());
            Ok(ExitCode::SUCCESS)
        }
        Command::Man => {
            clap_mangen::Man::new(Cli::command()).render(&mut std::io::stdout())?;
            Ok(ExitCode::SUCCESS)
        }
    }
}
