//! The KVM layer on this machine's own KVM.

use std::path::Path;

use anyhow::{Context, Result};

use super::Outcome;
use crate::workspace;

/// Runs the tests with hand-written guest code.
pub fn run() -> Result<Outcome> {
    if !Path::new("/dev/kvm").exists() {
        return Ok(Outcome::Skipped("no /dev/kvm".into()));
    }
    let status = workspace::cargo()
        .args(["test", "-p", "host-vmm", "--test", "vmm_flat", "--", "--nocapture"])
        .status()
        .context("cannot run cargo test")?;
    Ok(if status.success() {
        Outcome::Passed(String::new())
    } else {
        Outcome::Failed(format!("cargo test: {status}"))
    })
}
