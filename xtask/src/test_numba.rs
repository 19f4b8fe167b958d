//! Numba, a program that nobody here wrote: its kernels go through libnvvm and the driver's PTX linker.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result};

use crate::test::Counts;
use crate::test_matrix::{judge, report};
use crate::{process, toolkit, venv, workspace};

/// Scripts in `samples/numba`, each with its expected output beside it.
const SCRIPTS: &[&str] = &["vector", "reduction", "histogram"];

/// Sets the environment up, runs the scripts on the CPU backend, prints a table.
pub fn run(host: &Path, limit: Duration) -> Result<Counts> {
    let sources = workspace::root().join("samples/numba");
    let environment = workspace::root().join(".numba");
    let python = venv::ensure(&environment, &sources.join("requirements.txt"), "numba")?;
    let cuda_home = cuda_home(&environment)?;
    let mut rows = Vec::new();
    for script in SCRIPTS {
        let expected = sources.join(format!("{script}.txt"));
        let expected =
            fs::read_to_string(&expected).with_context(|| format!("cannot read {}", expected.display()))?;
        let mut command = Command::new(host);
        command
            .args(["run", "--backend", "cpu", "--"])
            .arg(&python)
            .arg(sources.join(format!("{script}.py")))
            .env("CUDA_HOME", &cuda_home)
            // Settings of the person who runs the tests would change what is tested.
            .env_remove("NUMBA_CUDA_DRIVER")
            .env_remove("NUMBA_ENABLE_CUDASIM")
            .env_remove("PYTHONPATH");
        let finished = process::run_limited(&mut command, limit)?;
        rows.push(((*script).to_string(), vec![judge(&finished, 0, &expected, limit)?]));
    }
    Ok(report("numba", &["cpu"], &rows))
}

/// A folder as Numba expects it under CUDA_HOME, made of links into the wheels.
fn cuda_home(environment: &Path) -> Result<PathBuf> {
    let wheels = toolkit::site_packages(environment)?.join("nvidia");
    let home = environment.join("cuda_home");
    let links = [
        ("nvvm/libdevice", "cuda_nvcc/nvvm/libdevice"),
        // Numba looks for names that end in a version.
        ("nvvm/lib64/libnvvm.so.4", "cuda_nvcc/nvvm/lib64/libnvvm.so"),
        ("lib64/libcudart.so.12", "cuda_runtime/lib/libcudart.so.12"),
    ];
    for (link, target) in links {
        let link = home.join(link);
        let target = wheels.join(target);
        if fs::read_link(&link).is_ok_and(|have| have == target) {
            continue;
        }
        if let Some(parent) = link.parent() {
            fs::create_dir_all(parent).with_context(|| format!("cannot create {}", parent.display()))?;
        }
        let _ = fs::remove_file(&link);
        symlink(&target, &link).with_context(|| format!("cannot create {}", link.display()))?;
    }
    Ok(home)
}
