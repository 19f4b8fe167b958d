//! Finds kernel modules with all that they need, in loading order.
//!
//! From the modules' own `.modinfo` (`depends=`, `softdep=pre:`), because `modules.dep` is there only after an installation.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, bail};
use object::{Object as _, ObjectSection as _};

/// A module's name and its unpacked content.
#[derive(Debug)]
pub struct Module {
    /// Name with underscores.
    pub name: String,
    /// ELF image.
    pub image: Vec<u8>,
}

/// The modules of one kernel.
#[derive(Debug, Default)]
pub struct Modules {
    files: BTreeMap<String, PathBuf>,
    built_in: BTreeSet<String>,
}

impl Modules {
    /// Looks through a directory such as `/lib/modules/VERSION`.
    ///
    /// # Errors
    /// It cannot be read.
    pub fn open(directory: &Path) -> Result<Self> {
        let mut files = BTreeMap::new();
        let mut waiting = vec![directory.to_path_buf()];
        while let Some(directory) = waiting.pop() {
            let entries = fs::read_dir(&directory).with_context(|| directory.display().to_string())?;
            for entry in entries {
                let entry = entry.with_context(|| directory.display().to_string())?;
                if entry.file_type()?.is_dir() {
                    waiting.push(entry.path());
                } else if let Some(name) = module_name(&entry.file_name().to_string_lossy()) {
                    files.insert(name, entry.path());
                }
            }
        }
        let list = fs::read_to_string(directory.join("modules.builtin")).unwrap_or_default();
        let built_in = list.lines().filter_map(|line| module_name(line.rsplit('/').next()?)).collect();
        Ok(Self { files, built_in })
    }

    /// Whether the kernel has `name`, built in or as a module.
    pub fn has(&self, name: &str) -> bool {
        let name = name.replace('-', "_");
        self.files.contains_key(&name) || self.built_in.contains(&name)
    }

    /// `names` and what they need, each after what it needs. Those that are built in are left out. A name with a slash is the path of a
    /// module that is not the kernel's own.
    ///
    /// # Errors
    /// A name that the kernel does not have, or a file that cannot be read.
    pub fn resolve<'a>(&self, names: impl IntoIterator<Item = &'a str>) -> Result<Vec<Module>> {
        let mut order = Vec::new();
        let mut seen = BTreeSet::new();
        for name in names {
            if name.contains('/') {
                self.add_file(Path::new(name), &mut seen, &mut order)?;
            } else {
                self.add(name, true, &mut seen, &mut order)?;
            }
        }
        Ok(order)
    }

    fn add(
        &self,
        name: &str,
        required: bool,
        seen: &mut BTreeSet<String>,
        order: &mut Vec<Module>,
    ) -> Result<()> {
        let name = name.replace('-', "_");
        if self.built_in.contains(&name) || !seen.insert(name.clone()) {
            return Ok(());
        }
        let Some(path) = self.files.get(&name) else {
            if required {
                bail!("this kernel has no module {name}");
            }
            return Ok(());
        };
        self.add_image(name, path, seen, order)
    }

    fn add_file(&self, path: &Path, seen: &mut BTreeSet<String>, order: &mut Vec<Module>) -> Result<()> {
        let file = path.file_name().unwrap_or_default().to_string_lossy();
        let Some(name) = module_name(&file) else { bail!("{} is no module's name", path.display()) };
        if seen.insert(name.clone()) { self.add_image(name, path, seen, order) } else { Ok(()) }
    }

    fn add_image(
        &self,
        name: String,
        path: &Path,
        seen: &mut BTreeSet<String>,
        order: &mut Vec<Module>,
    ) -> Result<()> {
        let image = unpack(path)?;
        let info = module_info(&image).with_context(|| path.display().to_string())?;
        for (needed, required) in needs(&info) {
            self.add(&needed, required, seen, order)
                .with_context(|| format!("{} needs another module", path.display()))?;
        }
        order.push(Module { name, image });
        Ok(())
    }
}

/// `virtio-mmio.ko.xz` is `virtio_mmio`.
fn module_name(file: &str) -> Option<String> {
    let (name, rest) = file.split_once(".ko")?;
    matches!(rest, "" | ".xz" | ".zst" | ".gz").then(|| name.replace('-', "_"))
}

fn unpack(path: &Path) -> Result<Vec<u8>> {
    let tool = match path.extension().and_then(|extension| extension.to_str()) {
        Some("xz") => "xz",
        Some("zst") => "zstd",
        Some("gz") => "gzip",
        _ => return fs::read(path).with_context(|| path.display().to_string()),
    };
    let output = Command::new(tool)
        .arg("-dc")
        .arg(path)
        .output()
        .with_context(|| format!("cannot run {tool}, which unpacks {}", path.display()))?;
    if !output.status.success() {
        bail!(
            "{tool} cannot unpack {}: {}",
            path.display(),
            String::from_utf8_lossy(&output.stderr).trim_end()
        );
    }
    Ok(output.stdout)
}

/// The `key=value` texts of a module.
fn module_info(image: &[u8]) -> Result<Vec<String>> {
    let file = object::read::elf::ElfFile64::<object::LittleEndian>::parse(image).context("no ELF file")?;
    let section = file.section_by_name(".modinfo").context("no .modinfo section")?;
    let data = section.data().context("no .modinfo section")?;
    Ok(data.split(|byte| *byte == 0).map(|text| String::from_utf8_lossy(text).into_owned()).collect())
}

/// What a module needs first; `false` for what it can do without.
fn needs(info: &[String]) -> Vec<(String, bool)> {
    let mut found = Vec::new();
    for text in info {
        if let Some(list) = text.strip_prefix("depends=") {
            found.extend(list.split(',').filter(|name| !name.is_empty()).map(|name| (name.to_owned(), true)));
        } else if let Some(list) = text.strip_prefix("softdep=") {
            let before = list.split_once("pre:").map_or("", |(_, rest)| rest);
            let before = before.split_once("post:").map_or(before, |(before, _)| before);
            found.extend(before.split_whitespace().map(|name| (name.to_owned(), false)));
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_normalised_and_other_files_are_not_modules() {
        assert_eq!(module_name("virtio-mmio.ko.xz").as_deref(), Some("virtio_mmio"));
        assert_eq!(module_name("ext4.ko").as_deref(), Some("ext4"));
        assert_eq!(module_name("modules.dep"), None);
        assert_eq!(module_name("x.kobj"), None);
    }

    #[test]
    fn hard_and_soft_needs() {
        let info =
            ["depends=jbd2,mbcache", "softdep=pre: crc32c post: other", "license=GPL"].map(String::from);
        let expected = [("jbd2", true), ("mbcache", true), ("crc32c", false)];
        assert_eq!(needs(&info), expected.map(|(name, required)| (name.to_owned(), required)));
        assert!(needs(&["depends=".to_owned()]).is_empty());
    }

    /// An ELF file with a `.modinfo` section that says `depends=NEEDED`.
    fn module(needed: &str) -> Vec<u8> {
        let strings = b"\0.modinfo\0.shstrtab\0";
        let info = format!("license=GPL\0depends={needed}\0");
        let (strings_at, info_at) = (64, 64 + strings.len());
        let sections_at = info_at + info.len();
        let mut file = b"\x7FELF\x02\x01\x01".to_vec();
        file.resize(16, 0);
        for half in [1u16, 62] {
            file.extend(half.to_le_bytes()); // relocatable, x86-64
        }
        file.extend(1u32.to_le_bytes());
        for word in [0u64, 0, sections_at as u64] {
            file.extend(word.to_le_bytes()); // entry, segments, sections
        }
        file.extend(0u32.to_le_bytes());
        for half in [64u16, 0, 0, 64, 3, 2] {
            file.extend(half.to_le_bytes());
        }
        file.extend(strings);
        file.extend(info.as_bytes());
        let sections = [(0, 0, 0, 0), (1, 1, info_at, info.len()), (10, 3, strings_at, strings.len())];
        for (name, kind, at, len) in sections {
            for word in [name, kind] {
                file.extend((word as u32).to_le_bytes());
            }
            for word in [0, 0, at, len, 0, 1, 0] {
                file.extend((word as u64).to_le_bytes());
            }
        }
        file
    }

    #[test]
    fn modules_come_after_what_they_need_also_those_from_elsewhere() {
        let directory = tempfile::tempdir().expect("directory");
        let kernel = directory.path().join("kernel");
        fs::create_dir(&kernel).expect("directory");
        for (name, needed) in
            [("vsock", ""), ("virtio-ring", "virtio"), ("virtio", ""), ("virtio_mmio", "virtio_ring,virtio")]
        {
            fs::write(kernel.join(format!("{name}.ko")), module(needed)).expect("file");
        }
        let own = directory.path().join("broker.ko");
        fs::write(&own, module("vsock")).expect("file");
        let modules = Modules::open(&kernel).expect("readable");
        let own = own.display().to_string();
        let order = modules.resolve(["virtio_mmio", &own, "vsock"]).expect("all there");
        let names: Vec<_> = order.iter().map(|module| module.name.as_str()).collect();
        assert_eq!(names, ["virtio", "virtio_ring", "virtio_mmio", "vsock", "broker"]);
        fs::write(&own, module("elsewhere")).expect("file");
        assert!(format!("{:#}", modules.resolve([own.as_str()]).expect_err("missing")).contains("elsewhere"));
    }

    #[test]
    fn a_missing_module_is_named_and_a_built_in_one_is_not_needed() {
        let directory = tempfile::tempdir().expect("directory");
        fs::write(directory.path().join("modules.builtin"), "kernel/drivers/virtio/virtio-mmio.ko\n")
            .expect("list");
        let modules = Modules::open(directory.path()).expect("readable");
        assert!(modules.has("virtio_mmio") && !modules.has("ext4"));
        assert!(modules.resolve(["virtio_mmio"]).expect("built in").is_empty());
        assert!(modules.resolve(["ext4"]).expect_err("missing").to_string().contains("ext4"));
    }
}
