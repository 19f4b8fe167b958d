//! Containers with fewer images.

use crate::bytes::truncated;
use crate::container::Container;
use crate::entry::Entry;
use crate::error::Result;

/// A stored entry: one image, or a concatenated group of several.
#[derive(Debug, Clone)]
pub struct Stored<'a> {
    /// Its bytes in the container: header and payload.
    pub range: std::ops::Range<usize>,
    /// Its images with their numbers in [`Container::entries`].
    pub images: Vec<(usize, Entry<'a>)>,
}

/// The entries of a container as they are stored.
///
/// # Errors
/// If an entry is damaged or cut off.
pub fn stored_entries<'a>(container: &Container<'a>) -> Result<Vec<Stored<'a>>> {
    let mut out: Vec<Stored<'a>> = Vec::new();
    let mut end = usize::from(container.header().header_size);
    for (index, entry) in container.entries().enumerate() {
        let entry = entry?;
        let payload_end = entry.payload_offset() + entry.payload().len();
        match out.last_mut() {
            // Images of one group share a payload.
            Some(last) if last.range.end == payload_end && entry.group().is_some_and(|g| g.index > 0) => {
                last.images.push((index, entry));
            }
            _ => {
                out.push(Stored { range: end..payload_end, images: vec![(index, entry)] });
                end = payload_end;
            }
        }
    }
    Ok(out)
}

/// What became of a container.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stripped {
    /// The new container; never longer than the old one.
    pub bytes: Vec<u8>,
    /// Images kept.
    pub kept: usize,
    /// Images left out.
    pub removed: usize,
}

/// The container with those images alone for which `keep` (given number and entry) says true, byte for byte as they
/// were. A concatenated group stays whole if one of its images is kept, because its images are compressed together.
///
/// # Errors
/// If an entry is damaged or cut off.
pub fn strip_container(
    container: &Container<'_>,
    mut keep: impl FnMut(usize, &Entry<'_>) -> bool,
) -> Result<Stripped> {
    let old = container.bytes();
    if container.is_truncated() {
        return Err(truncated("container", 0, container.len() as u64, old.len()));
    }
    let header_size = usize::from(container.header().header_size);
    let mut bytes = old.get(..header_size).unwrap_or_default().to_vec();
    let (mut kept, mut removed) = (0, 0);
    for stored in stored_entries(container)? {
        // Not `any`: every image is to be asked for.
        let wanted = stored.images.iter().filter(|(index, entry)| keep(*index, entry)).count();
        if wanted == 0 {
            removed += stored.images.len();
        } else {
            kept += stored.images.len();
            bytes.extend_from_slice(old.get(stored.range.clone()).unwrap_or_default());
        }
    }
    let size = (bytes.len() - header_size) as u64;
    if let Some(field) = bytes.get_mut(8..16) {
        field.copy_from_slice(&size.to_le_bytes());
    }
    Ok(Stripped { bytes, kept, removed })
}
