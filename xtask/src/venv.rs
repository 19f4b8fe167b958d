//! Private Python virtual environments with pinned packages.
//!
//! An environment is complete when its stamp file holds the requirements that it was made from. The stamp is
//! written last, so an interrupted set-up is taken up again where pip left off.

use std::fs::{self, File};
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};

use crate::process::tail;
use crate::progress::Progress;
use crate::workspace;

/// Name of the stamp file inside an environment.
const STAMP: &str = ".requirements-installed";

/// Makes sure that the environment at `dir` holds what the file `requirements` lists; returns its Python.
///
/// `label` names the environment in the progress display and in the name of its lock file.
///
/// # Errors
/// No Python 3, no venv module, no network, or pip's own failure, with the end of its output.
pub fn ensure(dir: &Path, requirements: &Path, label: &str) -> Result<PathBuf> {
    let wanted = fs::read_to_string(requirements)
        .with_context(|| format!("cannot read {}", requirements.display()))?;
    let python = dir.join("bin/python");
    let complete = || python.exists() && fs::read_to_string(dir.join(STAMP)).is_ok_and(|have| have == wanted);
    if complete() {
        return Ok(python);
    }

    // Two tasks at once (two terminals, an editor) must not run two pips in one environment.
    let lock_dir = workspace::root().join("samples/build");
    fs::create_dir_all(&lock_dir).with_context(|| format!("cannot create {}", lock_dir.display()))?;
    let lock_path = lock_dir.join(format!("{label}.lock"));
    let lock = File::create(&lock_path).with_context(|| format!("cannot create {}", lock_path.display()))?;
    lock.lock().with_context(|| format!("cannot lock {}", lock_path.display()))?;
    if complete() {
        return Ok(python);
    }
    // A stamp of other requirements no longer tells the truth once pip has started.
    let _ = fs::remove_file(dir.join(STAMP));

    let packages =
        wanted.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#')).count();
    let progress = Progress::new(label, packages + 1);
    if !works(&python) {
        progress.step(0, &format!("creating a Python environment in {}", dir.display()));
        create(dir)?;
    }
    install(&python, requirements, packages, &progress)?;
    fs::write(dir.join(STAMP), &wanted)
        .with_context(|| format!("cannot write the stamp in {}", dir.display()))?;
    progress.finish("ready");
    Ok(python)
}

/// True if the environment's Python starts and has pip: not so after an interrupted creation or a system upgrade.
fn works(python: &Path) -> bool {
    python.exists()
        && Command::new(python)
            .args(["-m", "pip", "--version"])
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .status()
            .is_ok_and(|status| status.success())
}

fn create(dir: &Path) -> Result<()> {
    let probe = "import sys, venv, ensurepip; sys.exit(0 if sys.version_info >= (3, 9) else 3)";
    let output = match Command::new("python3").args(["-c", probe]).output() {
        Ok(output) => output,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => bail!(
            "python3 is not on PATH; install Python 3.9 or newer with its venv module (Debian and Ubuntu: `apt install python3-venv`)"
        ),
        Err(error) => return Err(error).context("cannot run python3"),
    };
    match output.status.code() {
        Some(0) => {}
        Some(3) => bail!("python3 on PATH is older than 3.9"),
        _ => bail!(
            "python3 cannot create virtual environments (Debian and Ubuntu: `apt install python3-venv`):\n{}",
            tail(&String::from_utf8_lossy(&output.stderr), 5, "  ")
        ),
    }
    if dir.exists() {
        fs::remove_dir_all(dir)
            .with_context(|| format!("cannot remove the broken environment {}", dir.display()))?;
    }
    let output = Command::new("python3")
        .args(["-m", "venv"])
        .arg(dir)
        .output()
        .context("cannot run python3 -m venv")?;
    if !output.status.success() {
        bail!(
            "python3 -m venv {} failed:\n{}{}",
            dir.display(),
            tail(&String::from_utf8_lossy(&output.stdout), 10, "  "),
            tail(&String::from_utf8_lossy(&output.stderr), 10, "  ")
        );
    }
    Ok(())
}

fn install(python: &Path, requirements: &Path, packages: usize, progress: &Progress) -> Result<()> {
    let mut pip = Command::new(python)
        .args(["-m", "pip", "install", "--no-input", "--progress-bar", "off"])
        .args(["--disable-pip-version-check", "-r"])
        .arg(requirements)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .context("cannot run pip")?;
    let errors = pip.stderr.take().map(|stream| {
        std::thread::spawn(move || {
            BufReader::new(stream).lines().map_while(Result::ok).collect::<Vec<_>>().join("\n")
        })
    });
    let mut said = String::new();
    let mut begun = 0_usize;
    if let Some(stream) = pip.stdout.take() {
        for line in BufReader::new(stream).lines().map_while(Result::ok) {
            let text = line.trim();
            // pip names each package as it begins with it.
            if text.starts_with("Collecting ") || text.starts_with("Requirement already") {
                begun += 1;
            }
            if let Some(message) = worth_showing(text) {
                progress.step(begun.saturating_sub(1).min(packages), &message);
            }
            said.push_str(&line);
            said.push('\n');
        }
    }
    let complaints = errors.and_then(|thread| thread.join().ok()).unwrap_or_default();
    let status = pip.wait().context("cannot wait for pip")?;
    if !status.success() {
        bail!(
            "pip install -r {} failed ({status}){}\n{}{}",
            requirements.display(),
            explain(&complaints),
            tail(&said, 5, "  "),
            tail(&complaints, 12, "  ")
        );
    }
    Ok(())
}

/// The lines of pip's output that tell a person where it is, shortened.
fn worth_showing(line: &str) -> Option<String> {
    if let Some(rest) = line.strip_prefix("Downloading ") {
        // "https://host/path/name-1.2-py3-none-manylinux.whl (47.0 MB)" -> "name-1.2 (47.0 MB)"
        let (file, size) = rest.split_once(' ').unwrap_or((rest, ""));
        if file.ends_with(".metadata") {
            return None;
        }
        let file = file.rsplit('/').next().unwrap_or(file);
        let name: Vec<&str> = file.split('-').take(2).collect();
        return Some(format!("downloading {} {size}", name.join(" ")));
    }
    if line.starts_with("Using cached ") && !line.contains(".metadata") {
        return Some(line.to_lowercase());
    }
    line.starts_with("Installing collected packages").then(|| "installing".to_string())
}

/// A hint for the failures that people meet.
fn explain(complaints: &str) -> &'static str {
    const NETWORK: [&str; 6] = [
        "name resolution",
        "NewConnectionError",
        "Connection refused",
        "Network is unreachable",
        "Read timed out",
        "ProxyError",
    ];
    if NETWORK.iter().any(|sign| complaints.contains(sign)) {
        ": the package index cannot be reached; check the network (the set-up carries on from where it stopped)"
    } else if complaints.contains("No space left on device") {
        ": the disk is full"
    } else if complaints.contains("from versions: none") {
        ": the package index cannot be reached, or has nothing for this machine (the wheels are for Linux on x86-64)"
    } else if complaints.contains("No matching distribution") {
        ": the package index has no such version for this machine"
    } else {
        ""
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pip_lines_are_shortened() {
        assert_eq!(
            worth_showing("Downloading https://x/nvidia_nvvm-13.5.37-py3-none-any.whl (75.1 MB)"),
            Some("downloading nvidia_nvvm 13.5.37 (75.1 MB)".to_string())
        );
        assert_eq!(worth_showing("Downloading a-1-py3-none-any.whl.metadata (1.7 kB)"), None);
        assert_eq!(worth_showing("Collecting nvidia-nvvm"), None);
    }

    #[test]
    fn known_failures_are_explained() {
        assert!(explain("... Temporary failure in name resolution ...").contains("network"));
        assert!(explain("ERROR: No matching distribution found for x").contains("no such version"));
        assert_eq!(explain("something else"), "");
    }
}
