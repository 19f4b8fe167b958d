//! Where the shim library is.

use std::path::{Path, PathBuf};

use anyhow::Context as _;

/// File names of the shim, as built by cargo and as installed.
const NAMES: [&str; 2] = ["libcuda.so", "libcuda.so.1"];

/// Places relative to the directory of this program.
const DIRS: [&str; 4] = [".", "../lib/host-vmm", "../lib", "../lib64"];

/// The shim given on the command line, or the one beside this program.
///
/// # Errors
/// There is none; the message says where it was looked for.
pub fn find(given: Option<&Path>) -> anyhow::Result<PathBuf> {
    if let Some(path) = given {
        return path.canonicalize().with_context(|| format!("shim library {}", path.display()));
    }
    let exe = std::env::current_exe().context("cannot find this program's own path")?;
    let dir = exe.parent().unwrap_or(Path::new("/"));
    DIRS.iter()
        .flat_map(|sub| NAMES.iter().map(move |name| dir.join(sub).join(name)))
        .find_map(|path| path.is_file().then(|| path.canonicalize().ok()).flatten())
        .with_context(|| {
            format!(
                "no shim library (libcuda.so) in {0} or {0}/../lib; build it with `cargo build -p libcuda-shim` in the same profile, or give --shim PATH",
                dir.display()
            )
        })
}
