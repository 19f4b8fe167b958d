//! Recursive descent over [`Lexer`] tokens. Recursion is bounded, memory is linear in the source.

mod body;
mod decl;
mod expr;
mod operand;

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use crate::ast::*;
use crate::error::{ParseError, ParseErrorKind};
use crate::lexer::{Lexer, Position, Token};

/// Most registers that one `%r<N>` may declare.
pub(crate) const MAX_REGISTER_RANGE: u64 = 1 << 24;
/// Largest variable, in bytes.
pub(crate) const MAX_VARIABLE_BYTES: u64 = 1 << 40;
/// Largest `.align`.
pub(crate) const MAX_ALIGN: u64 = 1 << 20;
/// Nesting of scopes in a function.
pub(crate) const MAX_SCOPE_DEPTH: usize = 32;
/// Nesting of braces in an initializer, and of parentheses in an expression.
pub(crate) const MAX_DEPTH: u32 = 64;

type Result<T> = std::result::Result<T, ParseError>;

/// A use of a module-level symbol that was not declared yet when it was read.
struct Unresolved {
    name: Name,
    position: Position,
}

pub(crate) struct Parser<'a> {
    lexer: Lexer<'a>,
    /// Current token; the lexer stands right behind it.
    token: Token<'a>,
    /// Where the current token starts.
    at: Position,
    names: HashMap<&'a str, Name>,
    forms: HashMap<&'a str, Arc<Form>>,
    /// Module-level names declared so far.
    globals: HashSet<Name>,
    unresolved: Vec<Unresolved>,
    unresolved_names: HashSet<Name>,
}

/// Parses one translation unit.
pub(crate) fn parse_module(text: &str) -> Result<Module> {
    let mut parser = Parser::new(text)?;
    parser.module()
}

impl<'a> Parser<'a> {
    fn new(text: &'a str) -> Result<Self> {
        let start = Position { line: 1, column: 1 };
        if text.len() as u64 > u64::from(u32::MAX) {
            return Err(start.error(ParseErrorKind::Limit {
                what: "length of the text",
                value: text.len() as u64,
                limit: u64::from(u32::MAX),
            }));
        }
        let mut parser = Self {
            lexer: Lexer::new(text),
            token: Token::End,
            at: start,
            names: HashMap::new(),
            forms: HashMap::new(),
            globals: HashSet::new(),
            unresolved: Vec::new(),
            unresolved_names: HashSet::new(),
        };
        parser.bump()?;
        Ok(parser)
    }

    // --- tokens ---

    fn bump(&mut self) -> Result<()> {
        (self.token, self.at) = self.lexer.next()?;
        Ok(())
    }

    /// The error "found (current token), expected ...".
    fn unexpected(&self, expected: &str) -> ParseError {
        let found = match self.token {
            Token::End => {
                return self.at.error(ParseErrorKind::UnexpectedEnd { expected: expected.into() });
            }
            Token::Ident(s) | Token::Number(s) => format!("'{}'", shorten(s)),
            Token::Directive(s) => format!("'.{}'", shorten(s)),
            Token::Str(s) => format!("string \"{}\"", shorten(s)),
            Token::Punct(b) => format!("'{}'", b as char),
            Token::Op([a, b]) => format!("'{}{}'", a as char, b as char),
        };
        self.at.error(ParseErrorKind::Unexpected { found, expected: expected.into() })
    }

    fn is_punct(&self, punct: u8) -> bool {
        self.token == Token::Punct(punct)
    }

    /// Takes the punctuation if it is next.
    fn eat(&mut self, punct: u8) -> Result<bool> {
        let hit = self.is_punct(punct);
        if hit {
            self.bump()?;
        }
        Ok(hit)
    }

    fn expect(&mut self, punct: u8) -> Result<()> {
        if self.eat(punct)? { Ok(()) } else { Err(self.unexpected(&format!("'{}'", punct as char))) }
    }

    fn ident(&mut self, expected: &str) -> Result<&'a str> {
        let Token::Ident(name) = self.token else { return Err(self.unexpected(expected)) };
        self.bump()?;
        Ok(name)
    }

    fn name(&mut self, expected: &str) -> Result<Name> {
        let name = self.ident(expected)?;
        Ok(self.intern(name))
    }

    fn intern(&mut self, text: &'a str) -> Name {
        if let Some(name) = self.names.get(text) {
            return name.clone();
        }
        let name = Name::from(text);
        self.names.insert(text, name.clone());
        name
    }

    // --- module level ---

    fn module(&mut self) -> Result<Module> {
        if self.token != Token::Directive("version") {
            return Err(self.unexpected(".version"));
        }
        let mut module = Module {
            version: (0, 0),
            target: Target { sm: 0, suffix: None, options: Vec::new() },
            // The PTX ISA document says 32, but ptxas takes such modules, those of before PTX 2.3 in particular, as
            // modules of its own machine, and no 32-bit ones are left.
            address_size: 64,
            items: Vec::new(),
        };
        loop {
            match self.token {
                Token::End => break,
                Token::Directive("version") => {
                    self.bump()?;
                    module.version = self.version()?;
                }
                Token::Directive("target") => {
                    self.bump()?;
                    module.target = self.target()?;
                }
                Token::Directive("address_size") => {
                    self.bump()?;
                    let at = self.at;
                    module.address_size = self.int_u32("32 or 64")?;
                    if !matches!(module.address_size, 32 | 64) {
                        let message = format!("address size {} is neither 32 nor 64", module.address_size);
                        return Err(at.error(ParseErrorKind::Invalid(message)));
                    }
                }
                Token::Directive("file" | "loc") | Token::Op([b'@', b'@']) => {
                    self.lexer.skip_line();
                    self.bump()?;
                }
                Token::Directive("section") => self.section()?,
                Token::Directive("pragma") => {
                    self.bump()?;
                    self.pragma()?;
                }
                Token::Directive("alias") => {
                    self.bump()?;
                    let name = self.name("name of the alias")?;
                    self.expect(b',')?;
                    let at = self.at;
                    let target = self.name("function that the alias stands for")?;
                    self.expect(b';')?;
                    self.note_symbol(&target, at);
                    self.globals.insert(name.clone());
                    module.items.push(Item::Alias { name, target });
                }
                Token::Directive(_) => self.declaration(&mut module.items)?,
                // A stray semicolon after a definition does no harm.
                Token::Punct(b';') => self.bump()?,
                _ => return Err(self.unexpected("a directive")),
            }
        }
        if module.target.sm == 0 {
            return Err(self.at.error(ParseErrorKind::UnexpectedEnd { expected: ".target sm_NN".into() }));
        }
        for use_ in &self.unresolved {
            if !self.globals.contains(&use_.name) {
                return Err(use_
                    .position
                    .error(ParseErrorKind::Undeclared { what: "symbol", name: shorten(&use_.name).into() }));
            }
        }
        Ok(module)
    }

    /// Remembers the use of a module-level symbol, to be checked at the end of the text.
    fn note_symbol(&mut self, name: &Name, position: Position) {
        if !self.globals.contains(name) && self.unresolved_names.insert(name.clone()) {
            self.unresolved.push(Unresolved { name: name.clone(), position });
        }
    }

    fn version(&mut self) -> Result<(u16, u16)> {
        let Token::Number(text) = self.token else { return Err(self.unexpected("a version such as 8.7")) };
        let parsed = text
            .split_once('.')
            .and_then(|(major, minor)| Some((major.parse().ok()?, minor.parse().ok()?)))
            .ok_or_else(|| self.unexpected("a version such as 8.7"))?;
        self.bump()?;
        Ok(parsed)
    }

    fn target(&mut self) -> Result<Target> {
        let mut target = Target { sm: 0, suffix: None, options: Vec::new() };
        loop {
            let at = self.at;
            let word = self.ident("a target such as sm_75")?;
            if let Some(rest) = word.strip_prefix("sm_").or_else(|| word.strip_prefix("compute_")) {
                let digits = rest.trim_end_matches(|c: char| c.is_ascii_lowercase());
                let mut suffix = rest[digits.len()..].chars();
                target.suffix = suffix.next();
                let sm = digits.parse::<u32>().ok().filter(|sm| (1..10_000).contains(sm));
                match (sm, suffix.next()) {
                    (Some(sm), None) => target.sm = sm,
                    _ => {
                        return Err(at.error(ParseErrorKind::Unexpected {
                            found: format!("'{}'", shorten(word)),
                            expected: "a target such as sm_75 or sm_90a".into(),
                        }));
                    }
                }
            } else {
                target.options.push(self.intern(word));
            }
            if !self.eat(b',')? {
                return Ok(target);
            }
        }
    }

    /// `.section .debug_x { ... }`: debug data, of no use here.
    fn section(&mut self) -> Result<()> {
        self.bump()?;
        match self.token {
            Token::Directive(_) | Token::Ident(_) => self.bump()?,
            _ => return Err(self.unexpected("name of a section")),
        }
        if !self.is_punct(b'{') {
            return Err(self.unexpected("'{'"));
        }
        self.lexer.skip_block()?;
        self.bump()
    }

    /// `"text" [, "text"...];` of a `.pragma`.
    fn pragma(&mut self) -> Result<Name> {
        let Token::Str(text) = self.token else { return Err(self.unexpected("a string")) };
        let first = self.intern(text);
        self.bump()?;
        while self.eat(b',')? {
            let Token::Str(_) = self.token else { return Err(self.unexpected("a string")) };
            self.bump()?;
        }
        self.expect(b';')?;
        Ok(first)
    }
}

/// Cuts a piece of source for an error message.
fn shorten(text: &str) -> &str {
    match text.char_indices().nth(64) {
        Some((end, _)) => &text[..end],
        None => text,
    }
}
