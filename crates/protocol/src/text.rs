//! Short text from the other side: bounded, copied, and printed without control characters.

use core::fmt;

/// At most [`Text::MAX`] bytes of text in place. Not necessarily UTF-8: program names are arbitrary bytes.
#[derive(Clone, Copy)]
pub struct Text {
    len: u16,
    bytes: [u8; Text::MAX],
}

impl Text {
    /// Bytes that fit; longer input is cut.
    pub const MAX: usize = 256;
    /// No text.
    pub const EMPTY: Text = Text { len: 0, bytes: [0; Text::MAX] };

    /// The first [`Text::MAX`] bytes of `text`, cut at a character boundary.
    pub fn new(text: &str) -> Text {
        Text::from_bytes(&text.as_bytes()[..text.floor_char_boundary(Text::MAX)])
    }

    /// The first [`Text::MAX`] bytes.
    pub fn from_bytes(bytes: &[u8]) -> Text {
        let len = bytes.len().min(Text::MAX);
        let mut text = Text { len: len as u16, ..Text::EMPTY };
        text.bytes[..len].copy_from_slice(&bytes[..len]);
        text
    }

    /// The text as it came.
    pub fn as_bytes(&self) -> &[u8] {
        &self.bytes[..usize::from(self.len)]
    }
}

impl fmt::Write for Text {
    /// Appends; what does not fit is dropped without an error, since the text is for people.
    fn write_str(&mut self, s: &str) -> fmt::Result {
        let start = usize::from(self.len);
        let part = &s.as_bytes()[..s.floor_char_boundary(Text::MAX - start)];
        self.bytes[start..start + part.len()].copy_from_slice(part);
        self.len += part.len() as u16;
        Ok(())
    }
}

impl fmt::Display for Text {
    /// Control characters and bytes that are not UTF-8 are escaped: the text may end in a log.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        use fmt::Write;
        for chunk in self.as_bytes().utf8_chunks() {
            for c in chunk.valid().chars() {
                if c.is_control() {
                    write!(f, "{}", c.escape_default())?;
                } else {
                    f.write_char(c)?;
                }
            }
            write!(f, "{}", chunk.invalid().escape_ascii())?;
        }
        Ok(())
    }
}

impl fmt::Debug for Text {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "\"{}\"", self.as_bytes().escape_ascii())
    }
}

impl PartialEq for Text {
    fn eq(&self, other: &Text) -> bool {
        self.as_bytes() == other.as_bytes()
    }
}

impl Eq for Text {}

impl Default for Text {
    fn default() -> Text {
        Text::EMPTY
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::format;
    use std::string::String;

    #[test]
    fn cut_at_a_character() {
        let long: String = "ä".repeat(200);
        assert_eq!(Text::new(&long).as_bytes().len(), 256);
        let odd: String = format!("x{long}");
        assert_eq!(Text::new(&odd).as_bytes().len(), 255);
        let mut text = Text::EMPTY;
        fmt::Write::write_fmt(&mut text, format_args!("{odd}ä")).unwrap();
        assert_eq!(text.as_bytes(), &odd.as_bytes()[..255]);
        assert_eq!(Text::from_bytes(&[7; 1000]).as_bytes(), &[7; 256]);
    }

    #[test]
    fn display_is_safe_for_logs() {
        assert_eq!(format!("{}", Text::from_bytes(b"a\nb\x1b[0m\xffc")), "a\\nb\\u{1b}[0m\\xffc");
    }
}
