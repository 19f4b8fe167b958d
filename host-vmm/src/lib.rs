//! Host side of the project: the daemon, its workers, the backends that run driver calls, and the runner of programs.

pub mod backend;
pub mod broker;
pub mod cli;
pub mod config;
pub mod daemon;
#[doc(hidden)]
pub mod fuzz;
mod generated;
pub mod logging;
pub mod runner;
pub mod session;
pub mod stats;
pub mod vhost_user;
pub mod vmm;
pub mod worker;
