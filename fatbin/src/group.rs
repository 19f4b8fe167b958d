//! Concatenated groups (kind 0x100, CUDA 13.5 `--concat`): several images compressed together.
//!
//! The header of the group carries a table: `u32 count`, `u32 bytes` (these 8 included), then `count` sub-headers back
//! to back. A sub-header is an entry header in which the header size is the image's offset in the decompressed group
//! and the payload size its exact size.

use crate::bytes::{pad8, truncated, u32_at};
use crate::entry::{Entry, GroupPart, check_version, out_of_group, read_header, read_name, read_options};
use crate::error::{Error, ErrorKind, Result};
use crate::raw;

/// The images of one group, as entries. Everything was checked when it was made, so that it cannot fail halfway with
/// a listing that looks whole.
#[derive(Debug, Clone)]
pub(crate) struct GroupImages<'a> {
    images: std::vec::IntoIter<Entry<'a>>,
}

const TABLE_HEADER_LEN: usize = 8;

impl<'a> GroupImages<'a> {
    /// Reads the table of `outer`, whose header bytes are `head`.
    pub(crate) fn parse(outer: &Entry<'a>, head: &'a [u8]) -> Result<Self> {
        let at = outer.header.options_offset as usize;
        let base = outer.offset;
        if at < raw::ENTRY_HEADER_LEN {
            let rule = "points into the fixed part of the header";
            let kind = ErrorKind::BadValue { found: at as u64, rule };
            return Err(Error::new("group table offset", base as u64 + 0x14, kind));
        }
        let (Some(count), Some(table_len)) = (u32_at(head, at), u32_at(head, at.saturating_add(4))) else {
            return Err(beyond_header("group table", base, at.saturating_add(TABLE_HEADER_LEN), head.len()));
        };
        let end = at.saturating_add(table_len as usize);
        if end > head.len() || (table_len as usize) < TABLE_HEADER_LEN {
            return Err(beyond_header("group table size", base + at + 4, end, head.len()));
        }
        // The table bounds the count: no more memory than a few times the input.
        if count as usize > (table_len as usize - TABLE_HEADER_LEN) / raw::ENTRY_HEADER_LEN {
            let rule = "sub-headers do not fit in the table";
            let kind = ErrorKind::BadValue { found: count.into(), rule };
            return Err(Error::new("group image count", (base + at) as u64, kind));
        }
        let mut images = Vec::with_capacity(count as usize);
        let mut pos = at + TABLE_HEADER_LEN;
        for index in 0..count {
            let (image, next) =
                parse_image(outer, head, pos, end, GroupPart { index, count, start: 0, size: 0 })?;
            images.push(image);
            pos = next;
        }
        if pos != end {
            let kind = ErrorKind::SizeMismatch { declared: table_len.into(), actual: (pos - at) as u64 };
            return Err(Error::new("group table size", (base + at + 4) as u64, kind));
        }
        check_overlap(&images)?;
        Ok(Self { images: images.into_iter() })
    }

    pub(crate) fn next(&mut self) -> Option<Entry<'a>> {
        self.images.next()
    }
}

fn parse_image<'a>(
    outer: &Entry<'a>,
    head: &'a [u8],
    pos: usize,
    end: usize,
    mut part: GroupPart,
) -> Result<(Entry<'a>, usize)> {
    let offset = outer.offset + pos;
    let header = read_header(head, pos, end).map_err(|e| e.moved(outer.offset as u64))?;
    check_version(&header, offset)?;
    let sub = head.get(pos..end).ok_or_else(|| truncated("sub-header", offset, 0x40, head.len()))?;
    let name = read_name(sub, &header, sub.len(), offset)?;
    let options = read_options(sub, &header, sub.len(), offset)?;

    let len = if header.options_offset != 0 {
        let at = header.options_offset as usize;
        let string = u32_at(sub, at).zip(u32_at(sub, at.saturating_add(4)));
        string.and_then(|(start, len)| Some(u64::from(start) + pad8(u64::from(len) + 1)?))
    } else if header.name_offset != 0 {
        pad8(u64::from(header.name_len) + 1).map(|len| u64::from(header.name_offset) + len)
    } else {
        Some(raw::ENTRY_HEADER_LEN as u64)
    };
    let next = match len.and_then(|len| usize::try_from(len).ok()) {
        Some(len) if len >= raw::ENTRY_HEADER_LEN && len <= sub.len() => pos + len,
        len => {
            let end = len.map_or(u64::MAX, |len| (pos + len) as u64);
            let kind = ErrorKind::OutOfBounds { end, limit: sub.len() as u64, container: "group table" };
            return Err(Error::new("sub-header", offset as u64, kind));
        }
    };

    part.start = header.header_size.into();
    part.size = header.payload_size;
    let group_size = outer.decoded_size();
    if part.start.checked_add(part.size).is_none_or(|end| end > group_size) {
        return Err(out_of_group(offset, part, group_size));
    }
    let entry = Entry { header, offset, name, options, group: Some(part), ..*outer };
    Ok((entry, next))
}

fn check_overlap(images: &[Entry<'_>]) -> Result<()> {
    let mut ranges: Vec<(u64, u64, usize)> =
        images.iter().filter_map(|e| e.group.map(|p| (p.start, p.start + p.size, e.offset))).collect();
    ranges.sort_unstable();
    for pair in ranges.windows(2) {
        if let [(_, first_end, _), (second, _, offset)] = *pair
            && second < first_end
        {
            let rule = "overlaps the image before it";
            let kind = ErrorKind::BadValue { found: second, rule };
            return Err(Error::new("offset of an image in a group", offset as u64 + 4, kind));
        }
    }
    Ok(())
}

fn beyond_header(field: &'static str, offset: usize, end: usize, limit: usize) -> Error {
    let kind = ErrorKind::OutOfBounds { end: end as u64, limit: limit as u64, container: "entry header" };
    Error::new(field, offset as u64, kind)
}
