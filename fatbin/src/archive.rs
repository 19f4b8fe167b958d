//! Members of `ar` archives, with the long names of GNU ar.

use crate::error::{Error, ErrorKind, Result};
use crate::raw;

const HEADER_LEN: usize = 60;
/// Longest name looked for in the name table.
const MAX_NAME: usize = 4096;

/// A member: an object file in most cases.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Member<'a> {
    pub name: &'a str,
    /// Offset of its data in the archive.
    pub offset: u64,
    pub data: &'a [u8],
}

/// The members of an archive without its symbol and name tables. Ends after the first error.
pub(crate) fn members(data: &[u8]) -> Members<'_> {
    Members { data, pos: raw::ARCHIVE_MAGIC.len(), names: &[] }
}

pub(crate) struct Members<'a> {
    data: &'a [u8],
    pos: usize,
    names: &'a [u8],
}

impl<'a> Members<'a> {
    /// The next member with its name field as stored.
    fn read(&mut self) -> Result<(&'a [u8], Member<'a>)> {
        let at = self.pos;
        let header = self.data.get(at..).and_then(|rest| rest.get(..HEADER_LEN)).ok_or_else(|| {
            crate::bytes::truncated("archive member header", at, HEADER_LEN as u64, self.data.len())
        })?;
        let field = |range: std::ops::Range<usize>| header.get(range).unwrap_or_default().trim_ascii_end();
        if header.get(58..) != Some(b"`\n".as_slice()) {
            let kind = ErrorKind::Syntax { expected: "the end mark of a member header" };
            return Err(Error::new("archive member header", at as u64 + 58, kind));
        }
        let size: usize =
            std::str::from_utf8(field(48..58)).ok().and_then(|text| text.parse().ok()).ok_or_else(|| {
                let kind = ErrorKind::Syntax { expected: "a decimal size" };
                Error::new("archive member size", at as u64 + 48, kind)
            })?;
        let start = at + HEADER_LEN;
        let content = self
            .data
            .get(start..start.saturating_add(size))
            .ok_or_else(|| crate::bytes::truncated("archive member", start, size as u64, self.data.len()))?;
        self.pos = start + size + (size & 1);
        Ok((field(0..16), Member { name: "", offset: start as u64, data: content }))
    }

    fn name(&self, field: &'a [u8]) -> &'a str {
        let bytes = match field {
            // "/123": offset in the name table; names there end with "/\n".
            [b'/', digits @ ..] => {
                let start = std::str::from_utf8(digits).ok().and_then(|text| text.parse().ok());
                let rest = start.and_then(|start: usize| self.names.get(start..)).unwrap_or_default();
                rest.get(..MAX_NAME).unwrap_or(rest).split(|&b| b == b'\n').next().unwrap_or_default()
            }
            short => short,
        };
        let bytes = bytes.strip_suffix(b"/").unwrap_or(bytes);
        std::str::from_utf8(bytes).unwrap_or("?")
    }
}

impl<'a> Iterator for Members<'a> {
    type Item = Result<Member<'a>>;

    fn next(&mut self) -> Option<Self::Item> {
        while self.pos < self.data.len() {
            match self.read() {
                Ok((b"//", member)) => self.names = member.data,
                Ok((b"/" | b"/SYM64/", _)) => {}
                Ok((field, member)) => return Some(Ok(Member { name: self.name(field), ..member })),
                Err(error) => {
                    self.pos = self.data.len();
                    return Some(Err(error));
                }
            }
        }
        None
    }
}
