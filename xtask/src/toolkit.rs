//! The CUDA toolkit that builds the samples: one on PATH, or PyPI wheels in `<root>/.nvcc`.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};
use clap::ValueEnum;

use crate::{venv, workspace};

/// Which toolkit to use.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Choice {
    /// nvcc on PATH if it is new enough, else the wheels
    Auto,
    /// nvcc on PATH, or fail
    Path,
    /// the pinned PyPI wheels
    Wheels,
}

/// Oldest release with both architectures that the samples are built for (75 and 90).
const OLDEST: (u32, u32) = (11, 8);

/// A working nvcc.
#[derive(Clone, Debug)]
pub struct Toolkit {
    /// The compiler driver.
    pub nvcc: PathBuf,
    /// `nvcc --version`'s release and build, for example `13.5, V13.5.37`.
    pub version: String,
    /// Directories that may hold `libcudart.so.*`.
    library_dirs: Vec<PathBuf>,
}

impl Toolkit {
    /// Finds the toolkit, installing the wheels if need be.
    ///
    /// # Errors
    /// `Choice::Path` without a usable nvcc, or a failed set-up of the wheels.
    pub fn ensure(choice: Choice) -> Result<Self> {
        if choice != Choice::Wheels {
            match Self::on_path() {
                Ok(Some(toolkit)) => return Ok(toolkit),
                Ok(None) if choice == Choice::Path => bail!("no nvcc on PATH"),
                Err(error) if choice == Choice::Path => return Err(error),
                Ok(None) => {}
                Err(error) => eprintln!("nvcc: {error:#}; using the wheels instead"),
            }
        }
        Self::from_wheels()
    }

    fn on_path() -> Result<Option<Self>> {
        let Some(nvcc) = find_on_path("nvcc") else {
            return Ok(None);
        };
        let version = version_of(&nvcc)?;
        let release = parse_release(&version)
            .with_context(|| format!("{} reports no release: {version}", nvcc.display()))?;
        if release < OLDEST {
            bail!(
                "{} is release {}.{}, the samples need {}.{} or newer",
                nvcc.display(),
                release.0,
                release.1,
                OLDEST.0,
                OLDEST.1
            );
        }
        let library_dirs = library_dirs(&nvcc);
        Ok(Some(Self { nvcc, version, library_dirs }))
    }

    fn from_wheels() -> Result<Self> {
        let root = workspace::root();
        let dir = root.join(".nvcc");
        venv::ensure(&dir, &root.join("samples/requirements.txt"), "nvcc")?;
        let top = site_packages(&dir)?.join("nvidia/cu13");
        let nvcc = top.join("bin/nvcc");
        if !nvcc.is_file() {
            bail!(
                "{} is missing although the wheels are installed; delete {} and try again",
                nvcc.display(),
                dir.display()
            );
        }
        let lib = top.join("lib");
        let version = version_of(&nvcc)?;
        let toolkit = Self { nvcc, version, library_dirs: vec![lib.clone()] };
        // The wheel has no development link, which -lcudart needs.
        let link = lib.join("libcudart.so");
        if let Some(library) = toolkit.shared_cudart()
            && !link.exists()
        {
            let name = library.file_name().unwrap_or(library.as_os_str());
            match symlink(name, &link) {
                Err(error) if error.kind() != std::io::ErrorKind::AlreadyExists => {
                    return Err(error).with_context(|| format!("cannot create {}", link.display()));
                }
                _ => {}
            }
        }
        Ok(toolkit)
    }

    /// The shared runtime library, `libcudart.so.<major>`.
    pub fn shared_cudart(&self) -> Option<PathBuf> {
        let (major, minor) = parse_release(&self.version)?;
        let names = [
            format!("libcudart.so.{major}"),
            format!("libcudart.so.{major}.{minor}"),
            format!("libcudart.so.{major}.0"),
        ];
        self.library_dirs
            .iter()
            .flat_map(|dir| names.iter().map(move |name| dir.join(name)))
            .find(|path| path.is_file())
    }
}

/// The directories in which this nvcc has the linker look for libraries: it may be a link or a script of the system's.
fn library_dirs(nvcc: &Path) -> Vec<PathBuf> {
    let mut dirs = Vec::new();
    if let Ok(output) = Command::new(nvcc).args(["--dryrun", "none.cu"]).output() {
        let text = String::from_utf8_lossy(&output.stderr);
        let line = text.lines().find_map(|line| line.strip_prefix("#$ LIBRARIES="));
        dirs.extend(
            line.unwrap_or_default()
                .split('"')
                .filter_map(|word| word.trim().strip_prefix("-L"))
                .map(PathBuf::from),
        );
    }
    dirs.push("/usr/lib/x86_64-linux-gnu".into());
    dirs
}

/// `lib/python3.*/site-packages` of a virtual environment.
pub fn site_packages(environment: &Path) -> Result<PathBuf> {
    let lib = environment.join("lib");
    let entries = fs::read_dir(&lib).with_context(|| format!("cannot read {}", lib.display()))?;
    entries
        .filter_map(Result::ok)
        .map(|entry| entry.path().join("site-packages"))
        .find(|path| path.is_dir())
        .with_context(|| format!("{} holds no site-packages", lib.display()))
}

/// The first executable named `name` on PATH.
pub fn find_on_path(name: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH")?;
    std::env::split_paths(&path).map(|dir| dir.join(name)).find(|candidate| candidate.is_file())
}

fn version_of(nvcc: &Path) -> Result<String> {
    let output = Command::new(nvcc)
        .arg("--version")
        .output()
        .with_context(|| format!("cannot run {}", nvcc.display()))?;
    let text = String::from_utf8_lossy(&output.stdout);
    text.lines()
        .find_map(|line| line.split_once("release ").map(|(_, rest)| rest.trim().to_string()))
        .with_context(|| format!("{} --version names no release", nvcc.display()))
}

/// `13.5, V13.5.37` -> (13, 5)
fn parse_release(version: &str) -> Option<(u32, u32)> {
    let (major, rest) = version.split_once('.')?;
    let minor: String = rest.chars().take_while(char::is_ascii_digit).collect();
    Some((major.parse().ok()?, minor.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::parse_release;

    #[test]
    fn release_is_read_from_the_version_line() {
        assert_eq!(parse_release("13.5, V13.5.37"), Some((13, 5)));
        assert_eq!(parse_release("11.8, V11.8.89"), Some((11, 8)));
        assert_eq!(parse_release("unknown"), None);
    }
}
