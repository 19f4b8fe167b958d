//! Writes cpio archives in the "newc" form that kernels unpack as an initramfs (Linux's
//! `Documentation/driver-api/early-userspace/buffer-format.rst`).

use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _};
use std::path::{Component, Path};

const S_IFREG: u32 = 0o100_000;
const S_IFDIR: u32 = 0o040_000;
const S_IFLNK: u32 = 0o120_000;
const S_IFCHR: u32 = 0o020_000;
const PERMISSIONS: u32 = 0o7777;

/// Numbers of a character device.
#[derive(Clone, Copy, Debug, Default)]
struct DeviceNumber {
    major: u32,
    minor: u32,
}

/// Errors of writing an archive.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A file cannot be read.
    #[error("{path}: {source}", path = .path.display())]
    File { path: std::path::PathBuf, source: io::Error },
    /// The archive would be larger than allowed.
    #[error("more than {limit_bytes} bytes; use an image (--root IMAGE), or give the guest more memory")]
    TooLarge { limit_bytes: u64 },
}

/// An archive under construction.
#[derive(Debug)]
pub struct Archive {
    bytes: Vec<u8>,
    limit_bytes: u64,
    next_inode: u32,
    directories: BTreeSet<Vec<u8>>,
}

impl Archive {
    /// An empty one, which may grow to `limit_bytes`.
    pub fn new(limit_bytes: u64) -> Self {
        Self { bytes: Vec::new(), limit_bytes, next_inode: 1, directories: BTreeSet::new() }
    }

    /// Adds a directory and those above it, unless they are there.
    ///
    /// # Errors
    /// Too large.
    pub fn directory(&mut self, path: &str) -> Result<(), Error> {
        self.parents(Path::new(path))?;
        self.one_directory(path.as_bytes(), 0o755)
    }

    /// Adds a file and the directories above it.
    ///
    /// # Errors
    /// Too large.
    pub fn file(&mut self, path: &str, permissions: u32, content: &[u8]) -> Result<(), Error> {
        self.parents(Path::new(path))?;
        self.entry(path.as_bytes(), S_IFREG | (permissions & PERMISSIONS), content, DeviceNumber::default())
    }

    /// Adds a symbolic link and the directories above it.
    ///
    /// # Errors
    /// Too large.
    pub fn symlink(&mut self, path: &str, target: &str) -> Result<(), Error> {
        self.parents(Path::new(path))?;
        self.entry(path.as_bytes(), S_IFLNK | 0o777, target.as_bytes(), DeviceNumber::default())
    }

    /// Adds a character device and the directories above it.
    ///
    /// # Errors
    /// Too large.
    pub fn character_device(&mut self, path: &str, major: u32, minor: u32) -> Result<(), Error> {
        self.parents(Path::new(path))?;
        self.entry(path.as_bytes(), S_IFCHR | 0o600, &[], DeviceNumber { major, minor })
    }

    /// Adds all that is in `source` below `prefix`, except sockets, pipes and devices. Symbolic links stay what they are.
    ///
    /// # Errors
    /// A file cannot be read, or it is too large.
    pub fn tree(&mut self, prefix: &str, source: &Path) -> Result<(), Error> {
        self.directory(prefix)?;
        let mut waiting = vec![(prefix.as_bytes().to_vec(), source.to_path_buf())];
        while let Some((place, directory)) = waiting.pop() {
            let failed = |source| Error::File { path: directory.clone(), source };
            let mut entries: Vec<_> = fs::read_dir(&directory).and_then(Iterator::collect).map_err(failed)?;
            // The same tree gives the same archive.
            entries.sort_by_key(fs::DirEntry::file_name);
            for entry in entries {
                let path = entry.path();
                let failed = |source| Error::File { path: path.clone(), source };
                let metadata = fs::symlink_metadata(&path).map_err(failed)?;
                let name = [&place[..], b"/", entry.file_name().as_bytes()].concat();
                let (kind, mode) = (metadata.file_type(), metadata.mode() & PERMISSIONS);
                if kind.is_dir() {
                    self.one_directory(&name, mode)?;
                    waiting.push((name, path));
                } else if kind.is_symlink() {
                    let target = fs::read_link(&path).map_err(failed)?;
                    let number = DeviceNumber::default();
                    self.entry(&name, S_IFLNK | 0o777, target.as_os_str().as_bytes(), number)?;
                } else if kind.is_file() {
                    self.check_room(metadata.len())?;
                    let content = fs::read(&path).map_err(failed)?;
                    self.entry(&name, S_IFREG | mode, &content, DeviceNumber::default())?;
                } else if kind.is_char_device()
                    || kind.is_block_device()
                    || kind.is_socket()
                    || kind.is_fifo()
                {
                    tracing::debug!("{} is left out: no file", path.display());
                }
            }
        }
        Ok(())
    }

    /// The finished archive.
    ///
    /// # Errors
    /// Too large.
    pub fn finish(mut self) -> Result<Vec<u8>, Error> {
        self.entry(b"TRAILER!!!", 0, &[], DeviceNumber::default())?;
        // Archives that follow begin at a multiple of 4.
        self.bytes.resize(self.bytes.len().next_multiple_of(512), 0);
        Ok(self.bytes)
    }

    fn parents(&mut self, path: &Path) -> Result<(), Error> {
        let Some(parent) = path.parent() else { return Ok(()) };
        let mut place = Vec::new();
        for component in parent.components() {
            let Component::Normal(name) = component else { continue };
            if !place.is_empty() {
                place.push(b'/');
            }
            place.extend_from_slice(name.as_bytes());
            self.one_directory(&place, 0o755)?;
        }
        Ok(())
    }

    fn one_directory(&mut self, path: &[u8], permissions: u32) -> Result<(), Error> {
        let path = path.strip_prefix(b"/").unwrap_or(path);
        if path.is_empty() || !self.directories.insert(path.to_vec()) {
            return Ok(());
        }
        self.entry(path, S_IFDIR | permissions, &[], DeviceNumber::default())
    }

    fn check_room(&self, more: u64) -> Result<(), Error> {
        let fits = (self.bytes.len() as u64).checked_add(more).is_some_and(|size| size <= self.limit_bytes);
        // The format has 32-bit lengths.
        if fits && more <= u64::from(u32::MAX) {
            Ok(())
        } else {
            Err(Error::TooLarge { limit_bytes: self.limit_bytes })
        }
    }

    fn entry(&mut self, path: &[u8], mode: u32, content: &[u8], device: DeviceNumber) -> Result<(), Error> {
        let path = path.strip_prefix(b"/").unwrap_or(path);
        self.check_room(content.len() as u64 + path.len() as u64 + 128)?;
        let inode = self.next_inode;
        self.next_inode = self.next_inode.wrapping_add(1).max(1);
        let (links, nobody, now, local) = (1, 0, 0, 0);
        let (size, name_size) = (content.len() as u32, path.len() as u32 + 1);
        let fields = [
            inode,
            mode,
            nobody,
            nobody,
            links,
            now,
            size,
            local,
            local,
            device.major,
            device.minor,
            name_size,
            0,
        ];
        self.bytes.extend_from_slice(b"070701");
        for field in fields {
            self.bytes.extend_from_slice(format!("{field:08X}").as_bytes());
        }
        self.bytes.extend_from_slice(path);
        self.bytes.push(0);
        self.pad();
        self.bytes.extend_from_slice(content);
        self.pad();
        Ok(())
    }

    fn pad(&mut self) {
        self.bytes.resize(self.bytes.len().next_multiple_of(4), 0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Name, mode and content of each entry, read by the format's description.
    fn entries(mut bytes: &[u8]) -> Vec<(String, u32, Vec<u8>)> {
        let mut found = Vec::new();
        loop {
            assert_eq!(&bytes[..6], b"070701");
            let field = |n: usize| {
                let text = std::str::from_utf8(&bytes[6 + 8 * n..14 + 8 * n]).expect("hexadecimal");
                u32::from_str_radix(text, 16).expect("hexadecimal") as usize
            };
            let (mode, size, name_size) = (field(1) as u32, field(6), field(11));
            let name = String::from_utf8(bytes[110..110 + name_size - 1].to_vec()).expect("text");
            let start = (110 + name_size).next_multiple_of(4);
            if name == "TRAILER!!!" {
                return found;
            }
            found.push((name, mode, bytes[start..start + size].to_vec()));
            bytes = &bytes[(start + size).next_multiple_of(4)..];
        }
    }

    #[test]
    fn a_tree_arrives_with_its_modes_and_links() {
        let source = tempfile::tempdir().expect("directory");
        fs::create_dir_all(source.path().join("bin/deep")).expect("directories");
        fs::write(source.path().join("bin/tool"), b"content").expect("file");
        std::os::unix::fs::symlink("tool", source.path().join("bin/link")).expect("link");
        let _socket = std::os::unix::net::UnixListener::bind(source.path().join("socket")).expect("socket");
        let mut archive = Archive::new(1 << 20);
        archive.file("/init", 0o755, b"#!").expect("room");
        archive.character_device("/dev/console", 5, 1).expect("room");
        archive.tree("/sysroot", source.path()).expect("room");
        let entries = entries(&archive.finish().expect("room"));
        let names: Vec<_> = entries.iter().map(|(name, ..)| name.as_str()).collect();
        let expected = [
            "init",
            "dev",
            "dev/console",
            "sysroot",
            "sysroot/bin",
            "sysroot/bin/deep",
            "sysroot/bin/link",
            "sysroot/bin/tool",
        ];
        assert_eq!(names, expected);
        assert_eq!(entries[0].1, S_IFREG | 0o755);
        assert_eq!((entries[6].1 & 0o170_000, &entries[6].2[..]), (S_IFLNK, &b"tool"[..]));
        assert_eq!(entries[7].2, b"content");
    }

    #[test]
    fn too_much_is_refused_before_it_is_read() {
        let source = tempfile::tempdir().expect("directory");
        let file = fs::File::create(source.path().join("huge")).expect("file");
        file.set_len(1 << 40).expect("sparse");
        assert!(matches!(Archive::new(1 << 20).tree("/", source.path()), Err(Error::TooLarge { .. })));
    }
}
