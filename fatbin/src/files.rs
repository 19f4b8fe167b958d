//! Files on disk: mapped into memory, found below directories, unpacked from wheels and other zip files.
// Memory maps are unsafe, because somebody else may write to the file; see `FileData::map`.
#![allow(unsafe_code)]

use std::fs::File;
use std::io::{self, Read, Seek};
use std::ops::Deref;
use std::path::{Path, PathBuf};

use memmap2::Mmap;

use crate::image::ImageKind;

/// Largest member of a zip file that is unpacked.
const MEMBER_LIMIT: u64 = 16 << 30;
/// Deepest directory below the one that was named.
const MAX_DEPTH: usize = 64;
const ZIP_MAGIC: [u8; 4] = *b"PK\x03\x04";

/// The bytes of a file. They are mapped, so that only what is read takes memory.
#[derive(Debug)]
pub struct FileData(Option<Mmap>);

impl FileData {
    /// Maps a file.
    ///
    /// # Errors
    /// If it cannot be opened or mapped.
    pub fn open(path: &Path) -> io::Result<Self> {
        Self::map(&File::open(path)?)
    }

    fn map(file: &File) -> io::Result<Self> {
        let metadata = file.metadata()?;
        if metadata.is_dir() {
            return Err(io::Error::from(io::ErrorKind::IsADirectory));
        }
        // An empty file cannot be mapped.
        if metadata.len() == 0 {
            return Ok(Self(None));
        }
        // SAFETY: the map is private and read-only, and nothing of it outlives `FileData`. That nobody changes the
        // file meanwhile cannot be enforced: every tool that maps files (linkers, debuggers) has the same limit. All
        // reads are checked against the mapped length, so that changed bytes give wrong listings at worst, and a
        // file that was cut off ends the process with SIGBUS.
        let map = unsafe { Mmap::map(file)? };
        Ok(Self(Some(map)))
    }
}

impl Deref for FileData {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        self.0.as_deref().unwrap_or_default()
    }
}

/// Something to look into.
#[derive(Debug, Clone)]
pub struct Source {
    path: PathBuf,
    /// Number and name in a zip file.
    member: Option<(usize, String)>,
    explicit: bool,
}

/// A path that gives no source.
#[derive(Debug, thiserror::Error)]
#[error("{}: {error}", path.display())]
pub struct FileError {
    /// The path.
    pub path: PathBuf,
    /// What went wrong.
    #[source]
    pub error: io::Error,
}

impl Source {
    /// Name for people: the path, for members of zip files `PATH!/MEMBER`.
    #[must_use]
    pub fn name(&self) -> String {
        match &self.member {
            Some((_, member)) => format!("{}!/{member}", self.path.display()),
            None => self.path.display().to_string(),
        }
    }

    /// Name of the file without its directory: of the member, if it is one.
    #[must_use]
    pub fn file_name(&self) -> &str {
        let of_path = || self.path.file_name().and_then(|name| name.to_str()).unwrap_or("image");
        match &self.member {
            Some((_, member)) => member.rsplit(['/', '\\']).next().unwrap_or(member),
            None => of_path(),
        }
    }

    /// True if the caller named this very file, false if it was found in a directory or zip file.
    #[must_use]
    pub const fn is_explicit(&self) -> bool {
        self.explicit
    }

    /// Maps the file. A member of a zip file is unpacked to a file without a name in the temporary directory first.
    ///
    /// # Errors
    /// If it cannot be read, or a member is larger than 16 GiB or than it says.
    pub fn open(&self) -> io::Result<FileData> {
        let Some((index, _)) = &self.member else { return FileData::open(&self.path) };
        let mut archive = zip::ZipArchive::new(File::open(&self.path)?)?;
        let member = archive.by_index(*index)?;
        let size = member.size();
        if size > MEMBER_LIMIT {
            return Err(io::Error::other(format!("unpacks to {size} bytes, more than {MEMBER_LIMIT}")));
        }
        let mut file = tempfile::tempfile()?;
        let copied = io::copy(&mut member.take(size.saturating_add(1)), &mut file)?;
        if copied != size {
            return Err(io::Error::other(format!("declares {size} bytes but holds {copied}")));
        }
        file.rewind()?;
        FileData::map(&file)
    }
}

/// What `paths` name: files as they are; the members of zip files, and what lies below directories, as far as it may
/// hold device code by its first bytes or its extension. Symbolic links in directories are not followed.
#[must_use]
pub fn sources(paths: &[PathBuf]) -> Vec<Result<Source, FileError>> {
    let mut out = Vec::new();
    for path in paths {
        if path.is_dir() {
            walk(path, 0, &mut out);
        } else {
            add_file(path, true, &mut out);
        }
    }
    out
}

type Sources = Vec<Result<Source, FileError>>;

fn walk(dir: &Path, depth: usize, out: &mut Sources) {
    let failed = |error| Err(FileError { path: dir.to_owned(), error });
    if depth > MAX_DEPTH {
        out.push(failed(io::Error::other("directories are nested too deeply")));
        return;
    }
    let entries: io::Result<Vec<_>> = std::fs::read_dir(dir).and_then(|entries| entries.collect());
    let mut entries = match entries {
        Ok(entries) => entries,
        Err(error) => {
            out.push(failed(error));
            return;
        }
    };
    entries.sort_by_key(std::fs::DirEntry::file_name);
    for entry in entries {
        match entry.file_type() {
            Ok(kind) if kind.is_dir() => walk(&entry.path(), depth + 1, out),
            Ok(kind) if kind.is_file() => add_file(&entry.path(), false, out),
            Ok(_) => {}
            Err(error) => out.push(failed(error)),
        }
    }
}

fn add_file(path: &Path, explicit: bool, out: &mut Sources) {
    let head = File::open(path).and_then(first_bytes);
    match head {
        Ok(head) if head.starts_with(&ZIP_MAGIC) => add_members(path, out),
        Ok(head) if explicit || may_hold_code(&head, path) => {
            out.push(Ok(Source { path: path.to_owned(), member: None, explicit }));
        }
        Ok(_) => {}
        Err(error) => out.push(Err(FileError { path: path.to_owned(), error })),
    }
}

fn add_members(path: &Path, out: &mut Sources) {
    let mut add = || -> io::Result<()> {
        let mut archive = zip::ZipArchive::new(File::open(path)?)?;
        for index in 0..archive.len() {
            let member = archive.by_index(index)?;
            let name = member.name()?.into_owned();
            if member.is_dir() {
                continue;
            }
            let head = first_bytes(member)?;
            if may_hold_code(&head, Path::new(&name)) {
                let member = Some((index, name));
                out.push(Ok(Source { path: path.to_owned(), member, explicit: false }));
            }
        }
        Ok(())
    };
    if let Err(error) = add() {
        out.push(Err(FileError { path: path.to_owned(), error }));
    }
}

fn first_bytes(file: impl Read) -> io::Result<Vec<u8>> {
    let mut head = Vec::with_capacity(16);
    file.take(16).read_to_end(&mut head)?;
    Ok(head)
}

fn may_hold_code(head: &[u8], path: &Path) -> bool {
    let extension = path.extension().and_then(|e| e.to_str()).unwrap_or_default();
    match ImageKind::of(head) {
        ImageKind::Unknown => matches!(extension, "fatbin" | "cubin"),
        // Text is everywhere.
        ImageKind::Ptx => extension == "ptx",
        _ => true,
    }
}
