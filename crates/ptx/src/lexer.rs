//! Tokens of PTX text. One token of look-ahead is enough for the grammar; the few places that depend on white space
//! (opcode modifiers, `%tid.x`, labels) read raw bytes after the current token.

use crate::error::{ParseError, ParseErrorKind};

/// A token. Text borrows from the source.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Token<'a> {
    /// `foo`, `%r1`, `$L__BB0_1`, `_`
    Ident(&'a str),
    /// `.reg` as `reg`: a dot with a word directly behind.
    Directive(&'a str),
    /// A number as written.
    Number(&'a str),
    /// Contents of a string literal, as written.
    Str(&'a str),
    /// A single character of punctuation.
    Punct(u8),
    /// `<<`, `>>`, `<=`, `>=`, `==`, `!=`, `&&`, `||`, `::`, `@@`
    Op([u8; 2]),
    /// End of the text.
    End,
}

/// A place in the source.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Position {
    pub(crate) line: u32,
    pub(crate) column: u32,
}

impl Position {
    pub(crate) fn error(self, kind: ParseErrorKind) -> ParseError {
        ParseError { line: self.line, column: self.column, kind }
    }
}

/// The cursor in the source.
#[derive(Debug, Clone)]
pub(crate) struct Lexer<'a> {
    text: &'a str,
    bytes: &'a [u8],
    /// Offset behind the current token.
    pos: usize,
    line: u32,
    line_start: usize,
}

pub(crate) fn is_word_byte(b: u8) -> bool {
    b.is_ascii_alphanumeric() || b == b'_' || b == b'$'
}

impl<'a> Lexer<'a> {
    /// `text` must be shorter than 4 GiB (so that lines and columns fit).
    pub(crate) fn new(text: &'a str) -> Self {
        Self { text, bytes: text.as_bytes(), pos: 0, line: 1, line_start: 0 }
    }

    pub(crate) fn position(&self) -> Position {
        Position { line: self.line, column: (self.pos - self.line_start) as u32 + 1 }
    }

    fn byte(&self, ahead: usize) -> Option<u8> {
        self.bytes.get(self.pos + ahead).copied()
    }

    /// The byte directly behind the current token.
    pub(crate) fn raw(&self) -> Option<u8> {
        self.byte(0)
    }

    /// Takes a word directly behind the current position.
    pub(crate) fn raw_word(&mut self) -> &'a str {
        let start = self.pos;
        while self.byte(0).is_some_and(is_word_byte) {
            self.pos += 1;
        }
        &self.text[start..self.pos]
    }

    /// Takes one byte, which must not be a line end or part of a wider character.
    pub(crate) fn raw_skip(&mut self) {
        self.pos += 1;
    }

    /// Whether the current token (an identifier) is followed by the single colon of a label.
    pub(crate) fn at_label_colon(&mut self) -> Result<bool, ParseError> {
        self.skip_blank()?;
        Ok(self.byte(0) == Some(b':') && self.byte(1) != Some(b':'))
    }

    /// Takes the modifiers directly behind a word of `root_len` bytes that has just been taken, and returns the
    /// whole (`ld.relaxed.gpu.shared::cta.u32`).
    pub(crate) fn raw_modifiers(&mut self, root_len: usize) -> &'a str {
        let start = self.pos - root_len;
        loop {
            let word_at = |ahead| self.byte(ahead).is_some_and(is_word_byte);
            match self.byte(0) {
                Some(b) if is_word_byte(b) => self.pos += 1,
                Some(b'.') if word_at(1) => self.pos += 2,
                Some(b':') if self.byte(1) == Some(b':') && word_at(2) => self.pos += 3,
                _ => return &self.text[start..self.pos],
            }
        }
    }

    /// Skips the rest of the line.
    pub(crate) fn skip_line(&mut self) {
        let rest = &self.bytes[self.pos..];
        self.pos += rest.iter().position(|b| *b == b'\n').unwrap_or(rest.len());
    }

    fn new_line(&mut self) {
        self.line += 1;
        self.line_start = self.pos;
    }

    /// Skips white space and comments.
    pub(crate) fn skip_blank(&mut self) -> Result<(), ParseError> {
        while let Some(b) = self.byte(0) {
            match b {
                b'\n' => {
                    self.pos += 1;
                    self.new_line();
                }
                b' ' | b'\t' | b'\r' | 0x0b | 0x0c => self.pos += 1,
                b'/' if self.byte(1) == Some(b'/') => self.skip_line(),
                b'/' if self.byte(1) == Some(b'*') => {
                    let start = self.position();
                    self.pos += 2;
                    loop {
                        match self.byte(0) {
                            Some(b'*') if self.byte(1) == Some(b'/') => break,
                            Some(b) => {
                                self.pos += 1;
                                if b == b'\n' {
                                    self.new_line();
                                }
                            }
                            None => {
                                return Err(
                                    start.error(ParseErrorKind::UnexpectedEnd { expected: "*/".into() })
                                );
                            }
                        }
                    }
                    self.pos += 2;
                }
                // A line marker of the C preprocessor.
                b'#' => self.skip_line(),
                _ => break,
            }
        }
        Ok(())
    }

    /// Skips a block in braces whose opening brace is the current token, and everything in it.
    pub(crate) fn skip_block(&mut self) -> Result<(), ParseError> {
        let mut depth = 1u32;
        loop {
            self.skip_blank()?;
            match self.byte(0) {
                Some(b'{') => depth += 1,
                Some(b'}') => {
                    depth -= 1;
                    if depth == 0 {
                        self.pos += 1;
                        return Ok(());
                    }
                }
                Some(b'"') => {
                    self.string()?;
                    continue;
                }
                Some(_) => {}
                None => {
                    return Err(self
                        .position()
                        .error(ParseErrorKind::UnexpectedEnd { expected: "'}'".into() }));
                }
            }
            self.pos += 1;
        }
    }

    /// The next token and where it starts.
    pub(crate) fn next(&mut self) -> Result<(Token<'a>, Position), ParseError> {
        self.skip_blank()?;
        let position = self.position();
        let Some(first) = self.byte(0) else { return Ok((Token::End, position)) };
        let start = self.pos;
        let token = match first {
            b'a'..=b'z' | b'A'..=b'Z' | b'_' | b'$' => Token::Ident(self.raw_word()),
            b'%' if self.byte(1).is_some_and(is_word_byte) => {
                self.pos += 1;
                self.raw_word();
                Token::Ident(&self.text[start..self.pos])
            }
            b'.' if self.byte(1).is_some_and(is_word_byte) => {
                self.pos += 1;
                Token::Directive(self.raw_word())
            }
            b'0'..=b'9' => Token::Number(self.number()),
            b'"' => Token::Str(self.string()?),
            _ => {
                let pair = [first, self.byte(1).unwrap_or(0)];
                if matches!(
                    &pair,
                    b"<<" | b">>" | b"<=" | b">=" | b"==" | b"!=" | b"&&" | b"||" | b"::" | b"@@"
                ) {
                    self.pos += 2;
                    Token::Op(pair)
                } else if first.is_ascii_graphic() {
                    self.pos += 1;
                    Token::Punct(first)
                } else {
                    let found = self.text[start..].chars().next().unwrap_or('\0');
                    return Err(position.error(ParseErrorKind::Unexpected {
                        found: format!("character {found:?}"),
                        expected: "PTX text".into(),
                    }));
                }
            }
        };
        Ok((token, position))
    }

    fn number(&mut self) -> &'a str {
        let start = self.pos;
        let radix_prefix = self.byte(0) == Some(b'0')
            && self.byte(1).is_some_and(|b| matches!(b | 0x20, b'x' | b'f' | b'd' | b'b'));
        while self.byte(0).is_some_and(|b| b.is_ascii_alphanumeric()) {
            self.pos += 1;
        }
        if !radix_prefix {
            if self.byte(0) == Some(b'.') && self.byte(1).is_some_and(|b| b.is_ascii_digit()) {
                self.pos += 1;
                while self.byte(0).is_some_and(|b| b.is_ascii_alphanumeric()) {
                    self.pos += 1;
                }
            }
            let exponent = self.bytes[self.pos - 1] | 0x20 == b'e';
            if exponent
                && self.byte(0).is_some_and(|b| b == b'+' || b == b'-')
                && self.byte(1).is_some_and(|b| b.is_ascii_digit())
            {
                self.pos += 1;
                while self.byte(0).is_some_and(|b| b.is_ascii_digit()) {
                    self.pos += 1;
                }
            }
        }
        &self.text[start..self.pos]
    }

    fn string(&mut self) -> Result<&'a str, ParseError> {
        let position = self.position();
        let start = self.pos + 1;
        let mut end = start;
        loop {
            match self.bytes.get(end) {
                Some(b'"') => break,
                Some(b'\\') => end += 2,
                Some(b'\n') | None => {
                    return Err(
                        position.error(ParseErrorKind::UnexpectedEnd { expected: "closing '\"'".into() })
                    );
                }
                Some(_) => end += 1,
            }
        }
        self.pos = end + 1;
        // Both ends are at ASCII quotes, hence at character boundaries.
        Ok(&self.text[start..end])
    }
}
