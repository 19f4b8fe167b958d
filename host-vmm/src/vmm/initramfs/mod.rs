//! The initramfs of a guest: this program as its init, kernel modules, the order what to run, and the program's files unless they are on
//! a disk.

pub mod cpio;
pub mod modules;

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fs;
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};
use object::read::elf::{Dyn as _, FileHeader as _, ProgramHeader as _};
use serde::{Deserialize, Serialize};

use cpio::Archive;
use modules::Modules;

/// Where the order is in the initramfs.
pub const ORDER: &str = "/host-vmm/order.json";
/// Where the modules are.
const MODULES: &str = "/host-vmm/modules";
/// Where files are that the program is to see, apart from its root.
pub const EXTRA: &str = "/host-vmm/run";
/// Where [`EXTRA`] is for the program.
pub const EXTRA_IN_ROOT: &str = "/run/host-vmm";
/// The program's root.
pub const SYSROOT: &str = "/sysroot";

/// What the init is to do.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Order {
    /// Program and arguments, as bytes.
    pub program: Vec<Vec<u8>>,
    /// Environment.
    pub environment: Vec<(Vec<u8>, Vec<u8>)>,
    /// Directory to start in.
    pub directory: Vec<u8>,
    /// Modules in order, as paths in the initramfs.
    pub modules: Vec<String>,
    /// The root is on this disk, not in the initramfs.
    pub disk: Option<String>,
    /// The disk is mounted read-only.
    pub read_only: bool,
}

/// Where the program's files come from.
#[derive(Clone, Debug)]
pub enum Root {
    /// A directory whose content is packed into the initramfs.
    Directory(PathBuf),
    /// A raw image with a file system.
    Image { path: PathBuf, read_only: bool },
}

impl Root {
    /// Looks what `path` is.
    ///
    /// # Errors
    /// It cannot be read.
    pub fn of(path: &Path, read_only: bool) -> Result<Self> {
        let metadata = fs::metadata(path).with_context(|| format!("root {}", path.display()))?;
        Ok(if metadata.is_dir() {
            Self::Directory(path.into())
        } else {
            Self::Image { path: path.into(), read_only }
        })
    }
}

/// What goes into an initramfs.
#[derive(Clone, Debug)]
pub struct Content<'a> {
    /// Program, arguments.
    pub program: &'a [OsString],
    /// Environment.
    pub environment: &'a [(OsString, OsString)],
    /// Directory to start in.
    pub directory: &'a Path,
    /// Where the program's files come from.
    pub root: &'a Root,
    /// Directory with the kernel's modules, if any are needed.
    pub modules: Option<&'a Path>,
    /// Modules that must be there.
    pub required_modules: &'a [&'a str],
    /// Modules that are loaded if the kernel has them.
    pub wanted_modules: &'a [&'a str],
    /// Files that the program sees in [`EXTRA_IN_ROOT`], by name.
    pub extra: &'a BTreeMap<String, PathBuf>,
    /// An archive that is unpacked before.
    pub before: Option<&'a Path>,
    /// Most bytes in all.
    pub limit_bytes: u64,
}

/// Builds an initramfs.
///
/// # Errors
/// A file cannot be read, a module is missing, or it is too large.
pub fn build(content: &Content<'_>) -> Result<Vec<u8>> {
    let mut bytes = match content.before {
        Some(path) => fs::read(path).with_context(|| path.display().to_string())?,
        None => Vec::new(),
    };
    bytes.resize(bytes.len().next_multiple_of(4), 0);
    let mut archive = Archive::new(content.limit_bytes.saturating_sub(bytes.len() as u64));
    for directory in ["/dev", "/proc", "/sys", "/run", "/tmp", SYSROOT, EXTRA] {
        archive.directory(directory)?;
    }
    archive.character_device("/dev/console", 5, 1)?;
    add_init(&mut archive)?;
    let mut order = Order {
        program: content.program.iter().map(|text| text.as_bytes().to_vec()).collect(),
        environment: content
            .environment
            .iter()
            .map(|(name, value)| (name.as_bytes().to_vec(), value.as_bytes().to_vec()))
            .collect(),
        directory: content.directory.as_os_str().as_bytes().to_vec(),
        ..Order::default()
    };
    add_modules(&mut archive, &mut order, content)?;
    for (name, path) in content.extra {
        let file = fs::read(path).with_context(|| path.display().to_string())?;
        archive.file(&format!("{EXTRA}/{name}"), 0o755, &file)?;
    }
    match content.root {
        Root::Directory(path) => archive.tree(SYSROOT, path)?,
        Root::Image { read_only, .. } => {
            order.disk = Some("/dev/vda".into());
            order.read_only = *read_only;
        }
    }
    archive.file(ORDER, 0o600, &serde_json::to_vec(&order)?)?;
    bytes.extend_from_slice(&archive.finish()?);
    Ok(bytes)
}

fn add_modules(archive: &mut Archive, order: &mut Order, content: &Content<'_>) -> Result<()> {
    let modules = content.modules.map(Modules::open).transpose()?.unwrap_or_default();
    let wanted = content.wanted_modules.iter().filter(|name| modules.has(name));
    let names = content.required_modules.iter().chain(wanted);
    for module in modules.resolve(names.copied())? {
        let path = format!("{MODULES}/{}.ko", module.name);
        archive.file(&path, 0o600, &module.image)?;
        order.modules.push(path);
    }
    Ok(())
}

/// This program as `/init`, with the dynamic linker and the libraries that it has mapped.
fn add_init(archive: &mut Archive) -> Result<()> {
    let own = Path::new("/proc/self/exe");
    let image = fs::read(own).context("cannot read this program's own file")?;
    archive.file("/init", 0o755, &image)?;
    let Some(interpreter) = interpreter(&image)? else { return Ok(()) };
    let linker = fs::read(&interpreter).with_context(|| interpreter.clone())?;
    archive.file(&interpreter, 0o755, &linker)?;
    for path in mapped_libraries()? {
        let library = fs::read(&path).with_context(|| path.clone())?;
        archive.file(&path, 0o755, &library)?;
        // The linker looks for the name by which it was linked; older systems have it as a symbolic link.
        if let (Some(name), Some((directory, file))) = (shared_object_name(&library), path.rsplit_once('/'))
            && name != file
        {
            archive.symlink(&format!("{directory}/{name}"), file)?;
        }
    }
    Ok(())
}

type Header = object::elf::FileHeader64<object::LittleEndian>;
const ENDIAN: object::LittleEndian = object::LittleEndian;

/// The dynamic linker that an ELF program asks for.
fn interpreter(image: &[u8]) -> Result<Option<String>> {
    let header = Header::parse(image).context("this program is no ELF file")?;
    for segment in header.program_headers(ENDIAN, image).context("this program's headers")? {
        if let Ok(Some(path)) = segment.interpreter(ENDIAN, image) {
            return Ok(Some(String::from_utf8(path.to_vec()).context("the dynamic linker's name")?));
        }
    }
    Ok(None)
}

fn shared_object_name(image: &[u8]) -> Option<String> {
    let header = Header::parse(image).ok()?;
    let sections = header.sections(ENDIAN, image).ok()?;
    let (entries, link) = sections.dynamic(ENDIAN, image).ok()??;
    let strings = sections.strings(ENDIAN, image, link).ok()?;
    let entry = entries.iter().find(|entry| entry.tag(ENDIAN) == object::elf::DT_SONAME)?;
    let name = entry.string(ENDIAN, strings).ok()?;
    String::from_utf8(name.to_vec()).ok()
}

/// Files of shared libraries in this process.
fn mapped_libraries() -> Result<Vec<String>> {
    let maps = fs::read_to_string("/proc/self/maps").context("cannot read this process's mappings")?;
    let mut paths: Vec<String> = maps
        .lines()
        .filter_map(|line| line.split_once('/').map(|(_, path)| format!("/{path}")))
        .filter(|path| path.contains(".so") && !path.ends_with("(deleted)"))
        .collect();
    paths.sort();
    paths.dedup();
    Ok(paths)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_initramfs_holds_the_order_and_what_the_init_needs() {
        let root = tempfile::tempdir().expect("directory");
        fs::write(root.path().join("program"), b"#!").expect("file");
        let program = ["/program".into(), "argument".into()];
        let bytes = build(&Content {
            program: &program,
            environment: &[("A".into(), "b".into())],
            directory: Path::new("/"),
            root: &Root::Directory(root.path().into()),
            modules: None,
            required_modules: &[],
            wanted_modules: &[],
            extra: &BTreeMap::new(),
            before: None,
            limit_bytes: 1 << 30,
        })
        .expect("built");
        let has = |text: &str| bytes.windows(text.len()).any(|window| window == text.as_bytes());
        for text in ["TRAILER!!!", "sysroot/program", "host-vmm/order.json", "ld-linux", "libc.so"] {
            assert!(has(text), "{text}");
        }
    }

    #[test]
    fn an_order_survives_its_journey() {
        let order = Order {
            program: vec![b"/bin/x".to_vec(), vec![0xFF, 0xFE]],
            environment: vec![(b"A".to_vec(), b"=".to_vec())],
            ..Order::default()
        };
        let text = serde_json::to_vec(&order).expect("JSON");
        assert_eq!(serde_json::from_slice::<Order>(&text).expect("JSON"), order);
    }
}
