//! `host-vmm`: see [`host_vmm::cli`].

use std::process::ExitCode;

fn main() -> ExitCode {
    host_vmm::cli::main()
}
