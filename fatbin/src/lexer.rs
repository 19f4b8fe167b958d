//! Tokens of PTX, as coarse as the header scanner can stand.

use crate::error::{Error, ErrorKind, Result};
use crate::ptx::parse_number;

/// A token.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Token<'a> {
    /// Letters, digits and `_ $ % .` in a row: a directive, a name, a number.
    Word(&'a str),
    /// A quoted string.
    Text,
    /// Any other byte.
    Punct(u8),
    /// End of the text.
    End,
}

/// Reads tokens; skips white space and comments.
pub(crate) struct Lexer<'a> {
    text: &'a [u8],
    pos: usize,
}

impl<'a> Lexer<'a> {
    pub(crate) fn new(text: &'a [u8]) -> Self {
        let len = text.iter().position(|&b| b == 0).unwrap_or(text.len());
        Self { text: text.get(..len).unwrap_or(text), pos: 0 }
    }

    /// Offset of the next unread byte.
    pub(crate) fn offset(&self) -> u64 {
        self.pos as u64
    }

    pub(crate) fn syntax(&self, field: &'static str, expected: &'static str) -> Error {
        Error::new(field, self.offset(), ErrorKind::Syntax { expected })
    }

    pub(crate) fn cut_off(&self, field: &'static str) -> Error {
        Error::new(field, self.offset(), ErrorKind::Truncated { need: 1, have: 0 })
    }

    fn rest(&self) -> &'a [u8] {
        self.text.get(self.pos..).unwrap_or_default()
    }

    fn skip_blank(&mut self) -> Result<()> {
        loop {
            match self.rest() {
                [b, ..] if b.is_ascii_whitespace() || *b == 0x0b => self.pos += 1,
                [b'/', b'/', ..] => self.skip_line(),
                [b'/', b'*', ..] => self.skip_comment()?,
                _ => return Ok(()),
            }
        }
    }

    fn skip_line(&mut self) {
        let rest = self.rest();
        self.pos += rest.iter().position(|&b| b == b'\n').unwrap_or(rest.len());
    }

    fn skip_comment(&mut self) -> Result<()> {
        let body = self.rest().get(2..).unwrap_or_default();
        match body.windows(2).position(|pair| pair == b"*/") {
            Some(at) => {
                self.pos += at + 4;
                Ok(())
            }
            None => {
                let error = self.cut_off("comment");
                self.pos = self.text.len();
                Err(error)
            }
        }
    }

    /// Skips a string from its opening quote. A line's end closes it too, so that a stray quote costs one line only.
    fn skip_string(&mut self) {
        self.pos += 1;
        loop {
            match self.rest() {
                [b'\\', _, ..] => self.pos += 2,
                [b'"', ..] => {
                    self.pos += 1;
                    return;
                }
                [] | [b'\n', ..] => return,
                _ => self.pos += 1,
            }
        }
    }

    pub(crate) fn next(&mut self) -> Result<Token<'a>> {
        self.skip_blank()?;
        let rest = self.rest();
        let len = rest.iter().take_while(|&&b| is_word(b)).count();
        if len > 0 {
            self.pos += len;
            // Word bytes are ASCII, so that this is always text.
            let word = rest.get(..len).and_then(|word| std::str::from_utf8(word).ok());
            return Ok(Token::Word(word.unwrap_or_default()));
        }
        match rest {
            [] => Ok(Token::End),
            [b'"', ..] => {
                self.skip_string();
                Ok(Token::Text)
            }
            [byte, ..] => {
                self.pos += 1;
                Ok(Token::Punct(*byte))
            }
        }
    }

    /// The next token, left in place.
    pub(crate) fn peek(&mut self) -> Result<Token<'a>> {
        self.skip_blank()?;
        let start = self.pos;
        let token = self.next();
        self.pos = start;
        token
    }

    /// Takes `byte` if it comes next.
    pub(crate) fn accept(&mut self, byte: u8) -> Result<bool> {
        self.skip_blank()?;
        let there = self.rest().first() == Some(&byte);
        self.pos += usize::from(there);
        Ok(there)
    }

    /// Takes a number.
    pub(crate) fn number(&mut self, field: &'static str, expected: &'static str) -> Result<u64> {
        if let Token::Word(word) = self.peek()?
            && let Some(number) = parse_number(word)
        {
            self.next()?;
            return Ok(number);
        }
        Err(self.syntax(field, expected))
    }

    /// Skips to after the brace that closes the one just read.
    pub(crate) fn skip_braces(&mut self) -> Result<()> {
        let mut depth = 1_usize;
        while depth > 0 {
            // Bodies are most of a text: take what means nothing here in one stride.
            let rest = self.rest();
            self.pos += rest.iter().take_while(|b| !matches!(b, b'{' | b'}' | b'/' | b'"')).count();
            match self.rest() {
                [] => return Err(self.cut_off("body in braces")),
                [b'/', b'/', ..] => self.skip_line(),
                [b'/', b'*', ..] => self.skip_comment()?,
                [b'"', ..] => self.skip_string(),
                [byte, ..] => {
                    match byte {
                        b'{' => depth += 1,
                        b'}' => depth -= 1,
                        _ => {}
                    }
                    self.pos += 1;
                }
            }
        }
        Ok(())
    }

    /// Skips to after the next `byte`.
    pub(crate) fn skip_to(&mut self, byte: u8) -> Result<()> {
        loop {
            match self.next()? {
                Token::Punct(found) if found == byte => return Ok(()),
                Token::End => return Err(self.cut_off("list in parentheses")),
                _ => {}
            }
        }
    }
}

fn is_word(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'$' | b'%' | b'.')
}
