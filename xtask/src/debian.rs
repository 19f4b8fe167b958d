//! Debian packages without installing them: fetched from the mirrors that this machine is configured for, unpacked into a cache.
//!
//! Kernels, their headers, the compilers that fit them and QEMU come from suites other than the machine's own. Each suite has its own apt state
//! under [`cache`], with an empty package list, so that apt resolves whole dependency trees and nothing of the machine is changed. An unpacked
//! set is a [`Root`]: a directory that holds the packages' files (no maintainer scripts run) and in which commands run by chroot.

use std::ffi::OsStr;
use std::fs::{self, File};
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, SystemTime};

use anyhow::{Context, Result, bail};

/// A Debian release, with what is needed beside its main suite.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Release {
    /// The code name, `bookworm`.
    pub name: &'static str,
    /// Packages come from `<name>-backports` where it has them.
    pub backports: bool,
}

/// Debian 12, kernel 6.1.
pub const BOOKWORM: Release = Release { name: "bookworm", backports: false };
/// Debian 13, kernel 6.12.
pub const TRIXIE: Release = Release { name: "trixie", backports: false };
/// Debian 13 with the newest kernel of its backports.
pub const TRIXIE_BACKPORTS: Release = Release { name: "trixie", backports: true };

/// Package lists older than this are fetched again, so that the packages that they name still exist.
const LISTS_AGE: Duration = Duration::from_secs(3 * 24 * 3600);

/// Where downloads and what is unpacked from them stay: `$CUDA_VM_CACHE`, else `cuda-vm` in the user's cache directory. All checkouts share it.
pub fn cache() -> Result<PathBuf> {
    if let Some(dir) = std::env::var_os("CUDA_VM_CACHE") {
        return Ok(PathBuf::from(dir));
    }
    let base = match std::env::var_os("XDG_CACHE_HOME") {
        Some(dir) if !dir.is_empty() => PathBuf::from(dir),
        _ => PathBuf::from(std::env::var_os("HOME").context("HOME is not set")?).join(".cache"),
    };
    Ok(base.join("cuda-vm"))
}

/// An exclusive lock on a name in the cache: two tasks at once must not unpack into one directory.
pub fn lock(name: &str) -> Result<File> {
    let dir = cache()?;
    fs::create_dir_all(&dir).with_context(|| format!("cannot create {}", dir.display()))?;
    let path = dir.join(format!("{name}.lock"));
    let file = File::create(&path).with_context(|| format!("cannot create {}", path.display()))?;
    file.lock().with_context(|| format!("cannot lock {}", path.display()))?;
    Ok(file)
}

/// Base URIs of the archive and of its security updates, from the machine's own configuration.
#[derive(Debug, PartialEq, Eq, Default)]
struct Mirrors {
    archive: Option<String>,
    security: Option<String>,
}

impl Mirrors {
    /// Reads `/etc/apt/sources.list` and `/etc/apt/sources.list.d`.
    fn configured() -> Mirrors {
        let mut files = vec![PathBuf::from("/etc/apt/sources.list")];
        if let Ok(entries) = fs::read_dir("/etc/apt/sources.list.d") {
            files.extend(entries.filter_map(Result::ok).map(|entry| entry.path()));
        }
        files.sort();
        let mut mirrors = Mirrors::default();
        for text in files.iter().filter_map(|path| fs::read_to_string(path).ok()) {
            mirrors.read(&text);
        }
        mirrors
    }

    /// Takes the URIs of a sources file, in the deb822 or the one-line form. A mirror is told by its suites: `*-security`, or a Debian code name.
    fn read(&mut self, text: &str) {
        let mut take = |uri: &str, suite: &str| {
            let code_name = suite.split('-').next().unwrap_or_default();
            if suite.ends_with("-security") {
                self.security.get_or_insert_with(|| uri.trim_end_matches('/').to_string());
            } else if ["bookworm", "trixie", "forky", "sid", "stable", "testing", "unstable"]
                .contains(&code_name)
            {
                self.archive.get_or_insert_with(|| uri.trim_end_matches('/').to_string());
            }
        };
        for stanza in text.split("\n\n") {
            let field = |name: &str| {
                stanza.lines().find_map(|line| line.strip_prefix(name)).map(str::trim).unwrap_or_default()
            };
            let (uris, suites) = (field("URIs:"), field("Suites:"));
            if let (Some(uri), Some(suite)) = (uris.split(' ').next(), suites.split(' ').next())
                && !uri.is_empty()
            {
                take(uri, suite);
            }
        }
        for line in text.lines().filter_map(|line| line.trim().strip_prefix("deb ")) {
            let mut words =
                line.split_whitespace().filter(|word| !word.starts_with('[') && !word.ends_with(']'));
            if let (Some(uri), Some(suite)) = (words.next(), words.next()) {
                take(uri, suite);
            }
        }
    }
}

impl Release {
    /// `bookworm`, `trixie-backports`: the name of its directories in the cache.
    pub fn label(&self) -> String {
        if self.backports { format!("{}-backports", self.name) } else { self.name.to_string() }
    }

    fn dir(&self) -> Result<PathBuf> {
        Ok(cache()?.join("debian").join(self.label()))
    }

    /// An apt command with this release's own state.
    fn apt(&self, program: &str) -> Result<Command> {
        let dir = self.dir()?;
        let mut command = Command::new(program);
        for (key, value) in [
            ("Dir::Etc::sourcelist", dir.join("sources.list")),
            ("Dir::Etc::sourceparts", PathBuf::from("-")),
            ("Dir::Etc::preferencesparts", PathBuf::from("-")),
            ("Dir::State", dir.join("state")),
            ("Dir::State::status", dir.join("status")),
            ("Dir::Cache", dir.join("cache")),
            ("APT::Install-Recommends", PathBuf::from("false")),
            ("APT::Sandbox::User", PathBuf::from("root")),
            ("Debug::NoLocking", PathBuf::from("true")),
        ] {
            command.arg("-o").arg(format!("{key}={}", value.display()));
        }
        if self.backports {
            command.args(["-t", &self.label()]);
        }
        command.env("LC_ALL", "C.UTF-8").stdin(Stdio::null());
        Ok(command)
    }

    /// Makes sure that package lists are there and not old.
    fn update(&self) -> Result<()> {
        let dir = self.dir()?;
        let stamp = dir.join("updated");
        let age = fs::metadata(&stamp)
            .and_then(|meta| meta.modified())
            .ok()
            .map(|at| SystemTime::now().duration_since(at));
        if matches!(age, Some(Ok(age)) if age < LISTS_AGE) {
            return Ok(());
        }
        let mirrors = Mirrors::configured();
        let archive = mirrors
            .archive
            .context("no Debian mirror in /etc/apt/sources.list and /etc/apt/sources.list.d")?;
        for part in ["state/lists/partial", "cache/archives/partial"] {
            fs::create_dir_all(dir.join(part)).with_context(|| format!("cannot create {}", dir.display()))?;
        }
        let mut sources = format!("deb {archive} {} main\n", self.name);
        if let Some(security) = mirrors.security {
            sources += &format!("deb {security} {}-security main\n", self.name);
        }
        if self.backports {
            sources += &format!("deb {archive} {} main\n", self.label());
        }
        fs::write(dir.join("sources.list"), sources)?;
        fs::write(dir.join("status"), "")?;
        run(self.apt("apt-get")?.args(["-q", "update"]), &format!("package lists of {}", self.label()))?;
        fs::write(stamp, "").context("cannot write the stamp of the package lists")
    }

    /// Downloads `packages`, with everything that they depend on if `whole`; returns the `.deb` files.
    ///
    /// # Errors
    /// No apt, no mirror, no network, or no such package, with the end of apt's output.
    pub fn download(&self, packages: &[&str], whole: bool) -> Result<Vec<PathBuf>> {
        let _lock = lock(&format!("apt-{}", self.label()))?;
        self.update()?;
        let archives = self.dir()?.join("cache/archives");
        let names: Vec<String> = if whole {
            run(
                self.apt("apt-get")?.args(["-q", "-y", "--download-only", "install"]).args(packages),
                &format!("download of {}", packages.join(" ")),
            )?;
            let simulated = run(
                self.apt("apt-get")?.args(["-qq", "-s", "install"]).args(packages),
                &format!("dependencies of {}", packages.join(" ")),
            )?;
            simulated.lines().filter_map(installed).collect()
        } else {
            run(
                self.apt("apt-get")?.args(["-q", "download"]).args(packages).current_dir(&archives),
                &format!("download of {}", packages.join(" ")),
            )?;
            let mut names = Vec::new();
            for package in packages {
                let version = self.candidate(package)?;
                names.push(format!("{package}_{version}"));
            }
            names
        };
        names.iter().map(|name| find_deb(&archives, name)).collect()
    }

    /// The version of `package` that would be installed.
    ///
    /// # Errors
    /// As [`Release::download`].
    fn candidate(&self, package: &str) -> Result<String> {
        let text = run(self.apt("apt-cache")?.args(["policy", package]), "apt-cache policy")?;
        text.lines()
            .find_map(|line| line.trim().strip_prefix("Candidate: "))
            .map(str::to_string)
            .with_context(|| format!("{} has no package {package}", self.label()))
    }

    /// An unpacked set of packages with all their dependencies, made at the first call and when `packages` changes.
    ///
    /// # Errors
    /// As [`Release::download`], or a full disk.
    pub fn root(&self, name: &str, packages: &[&str]) -> Result<Root> {
        let dir = self.dir()?.join("roots").join(name);
        let _lock = lock(&format!("root-{}-{name}", self.label()))?;
        let stamp = dir.join(".packages");
        let wanted = packages.join(" ");
        if fs::read_to_string(&stamp).is_ok_and(|have| have == wanted) {
            return Ok(Root { dir });
        }
        eprintln!("debian: unpacking {wanted} of {} (once)", self.label());
        let debs = self.download(packages, true)?;
        match fs::remove_dir_all(&dir) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                return Err(error).with_context(|| format!("cannot remove {}", dir.display()));
            }
            _ => {}
        }
        // Some packages of older releases still have files in /bin and /lib.
        for part in ["bin", "sbin", "lib", "lib64"] {
            fs::create_dir_all(dir.join("usr").join(part))?;
            symlink(format!("usr/{part}"), dir.join(part))?;
        }
        for part in ["proc", "sys", "dev", "tmp", "run", "etc"] {
            fs::create_dir_all(dir.join(part))?;
        }
        for deb in debs {
            unpack(&deb, &dir)?;
        }
        // What maintainer scripts would have made.
        for (link, target) in [("usr/bin/awk", "mawk"), ("usr/bin/cc", "gcc")] {
            if !dir.join(link).exists() && dir.join("usr/bin").join(target).exists() {
                symlink(target, dir.join(link))?;
            }
        }
        fs::write(&stamp, wanted)?;
        Ok(Root { dir })
    }
}

/// `Inst NAME (VERSION SUITE [ARCH])` of a simulated installation -> `NAME_VERSION`.
fn installed(line: &str) -> Option<String> {
    let (name, rest) = line.strip_prefix("Inst ")?.split_once(" (")?;
    Some(format!("{name}_{}", rest.split([' ', ')']).next()?))
}

/// The file of a package in apt's archive directory, which writes a colon in a version as `%3a`.
fn find_deb(archives: &Path, name_and_version: &str) -> Result<PathBuf> {
    let stem = name_and_version.replace(':', "%3a");
    ["amd64", "all"]
        .iter()
        .map(|arch| archives.join(format!("{stem}_{arch}.deb")))
        .find(|path| path.is_file())
        .with_context(|| format!("apt left no {stem}_*.deb in {}", archives.display()))
}

/// Unpacks a package's files into `dir`, through the links that are there.
pub fn unpack(deb: &Path, dir: &Path) -> Result<()> {
    let mut tar = Command::new("dpkg-deb")
        .arg("--fsys-tarfile")
        .arg(deb)
        .stdout(Stdio::piped())
        .spawn()
        .context("cannot run dpkg-deb")?;
    let files = tar.stdout.take().context("dpkg-deb has no output")?;
    let status = Command::new("tar")
        .args(["-x", "--keep-directory-symlink", "--no-same-owner", "-C"])
        .arg(dir)
        .stdin(files)
        .status()
        .context("cannot run tar")?;
    let unpacked = tar.wait().context("cannot wait for dpkg-deb")?;
    if !status.success() || !unpacked.success() {
        bail!("cannot unpack {} into {}", deb.display(), dir.display());
    }
    Ok(())
}

/// A directory that holds the files of a set of packages.
#[derive(Clone, Debug)]
pub struct Root {
    /// Its path.
    pub dir: PathBuf,
}

impl Root {
    /// A command that runs in this root, with `shared` directories and /dev, /proc, /sys visible at their own paths. It is in a mount namespace of its own
    /// and, for users other than root, in a user namespace.
    pub fn command(&self, program: &str, shared: &[&Path]) -> Command {
        let mut command = Command::new("unshare");
        if !rustix::process::geteuid().is_root() {
            command.arg("--map-root-user");
        }
        // $0 is the root, the shared directories come first, then `--`, then the command.
        let script = r#"
set -e
for d in /dev /sys /proc; do mount --rbind "$d" "$0$d"; done
while [ "$1" != -- ]; do mkdir -p "$0$1"; mount --bind "$1" "$0$1"; shift; done
shift
exec chroot "$0" env PATH=/usr/sbin:/usr/bin "$@""#;
        command.args(["--mount", "sh", "-c", script]).arg(&self.dir).args(shared).args(["--", program]);
        command.stdin(Stdio::null());
        command
    }

    /// The only entry of `dir` (inside of the root) whose name begins with `prefix` and ends with `suffix`.
    ///
    /// # Errors
    /// None, or several.
    pub fn find(&self, dir: &str, prefix: &str, suffix: &str) -> Result<PathBuf> {
        let path = self.dir.join(dir);
        let entries = fs::read_dir(&path).with_context(|| format!("cannot read {}", path.display()))?;
        let mut found: Vec<PathBuf> = entries
            .filter_map(Result::ok)
            .map(|entry| entry.path())
            .filter(|path| {
                let name = path.file_name().and_then(OsStr::to_str).unwrap_or_default();
                name.starts_with(prefix) && name.ends_with(suffix)
            })
            .collect();
        match (found.pop(), found.pop()) {
            (Some(one), None) => Ok(one),
            (None, _) => bail!("{} holds no {prefix}*{suffix}", path.display()),
            _ => bail!("{} holds several {prefix}*{suffix}", path.display()),
        }
    }
}

/// Runs a command, returns its standard output; its failure with the end of what it said.
pub fn run(command: &mut Command, what: &str) -> Result<String> {
    let output = command
        .output()
        .with_context(|| format!("{what}: cannot run {}", command.get_program().display()))?;
    if !output.status.success() {
        let text =
            format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        bail!("{what} failed ({}):\n{}", output.status, crate::process::tail(&text, 30, "  "));
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mirrors_are_read_in_both_forms() {
        let mut new = Mirrors::default();
        new.read("Types: deb\n# comment\nURIs: http://a/debian/\nSuites: bookworm bookworm-updates\nComponents: main\n\nTypes: deb\nURIs: http://a/security\nSuites: bookworm-security\n");
        let both =
            Mirrors { archive: Some("http://a/debian".into()), security: Some("http://a/security".into()) };
        assert_eq!(new, both);
        let mut old = Mirrors::default();
        old.read("# deb http://no/debian trixie main\ndeb [signed-by=/k] https://b/tools nodistro main\ndeb http://a/debian trixie main\ndeb http://a/security trixie-security main\n");
        assert_eq!(old, both);
    }

    #[test]
    fn simulated_installations_name_files() {
        assert_eq!(
            installed("Inst make (4.3-4.1 Debian:12.1/stable [amd64])").as_deref(),
            Some("make_4.3-4.1")
        );
        assert_eq!(
            installed("Inst cpp (4:12.2.0-3 Debian:12 [amd64]) []").as_deref(),
            Some("cpp_4:12.2.0-3")
        );
        assert_eq!(installed("Conf make (4.3-4.1 Debian:12.1/stable [amd64])"), None);
    }
}
