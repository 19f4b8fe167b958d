//! Operands of instructions.

use super::body::{Builder, Entry};
use super::expr::Value;
use super::{Parser, Result, shorten};
use crate::ast::*;
use crate::error::ParseErrorKind;
use crate::lexer::{Position, Token};

impl<'a> Parser<'a> {
    /// One operand. Parentheses are a list in a `call`, elsewhere part of a constant expression.
    pub(super) fn operand(&mut self, f: &mut Builder<'a>, is_call: bool) -> Result<Operand> {
        match self.token {
            Token::Punct(b'(') if is_call => {
                self.bump()?;
                Ok(Operand::List(self.operand_list(f, b')')?))
            }
            Token::Punct(b'{') => {
                self.bump()?;
                Ok(Operand::Vector(self.operand_list(f, b'}')?))
            }
            Token::Punct(b'[') => {
                self.bump()?;
                self.address(f)
            }
            _ => self.simple_operand(f),
        }
    }

    /// Simple operands up to a closing bracket.
    fn operand_list(&mut self, f: &mut Builder<'a>, close: u8) -> Result<Vec<Operand>> {
        let mut list = Vec::new();
        if !self.is_punct(close) {
            loop {
                list.push(self.simple_operand(f)?);
                if !self.eat(b',')? {
                    break;
                }
            }
        }
        self.expect(close)?;
        list.shrink_to_fit();
        Ok(list)
    }

    /// An operand without brackets.
    fn simple_operand(&mut self, f: &mut Builder<'a>) -> Result<Operand> {
        match self.token {
            Token::Ident(name) if name != "WARP_SZ" => self.named_operand(f, name),
            Token::Punct(b'!') => {
                // `!p` or the operator of a constant expression.
                let mut ahead = self.lexer.clone();
                if let (Token::Ident(name), at) = ahead.next()? {
                    self.bump()?;
                    self.bump()?;
                    return Ok(Operand::NotReg(self.register(f, name, at)?));
                }
                self.immediate()
            }
            Token::Number(_) | Token::Ident(_) | Token::Punct(b'-' | b'+' | b'~' | b'(') => self.immediate(),
            _ => Err(self.unexpected("an operand")),
        }
    }

    fn immediate(&mut self) -> Result<Operand> {
        Ok(match self.constant()? {
            Value::Int(bits, _) => Operand::Int(bits),
            Value::F32(bits) => Operand::F32(bits),
            Value::F64(x) => Operand::F64(x.to_bits()),
        })
    }

    fn named_operand(&mut self, f: &mut Builder<'a>, name: &'a str) -> Result<Operand> {
        let at = self.at;
        if name == "_" {
            self.bump()?;
            return if self.eat(b'|')? { self.pair(f, None) } else { Ok(Operand::Sink) };
        }
        match self.resolve(f, name) {
            Some(Entry::Reg(reg)) => {
                if self.lexer.raw() == Some(b'.') {
                    let selector = self.selector();
                    self.bump()?;
                    return Ok(Operand::Part { reg, selector: self.intern(selector) });
                }
                self.bump()?;
                if self.eat(b'|')? { self.pair(f, Some(reg)) } else { Ok(Operand::Reg(reg)) }
            }
            Some(Entry::Vector(elements)) => {
                if self.lexer.raw() != Some(b'.') {
                    self.bump()?;
                    return Ok(Operand::Vector(elements.into_iter().map(Operand::Reg).collect()));
                }
                let selector = self.selector();
                let index = match selector {
                    "x" | "r" => 0,
                    "y" | "g" => 1,
                    "z" | "b" => 2,
                    "w" | "a" => 3,
                    _ => usize::MAX,
                };
                let Some(reg) = elements.get(index) else {
                    let message = format!("'{}' has no element '.{}'", shorten(name), shorten(selector));
                    return Err(at.error(ParseErrorKind::Invalid(message)));
                };
                self.bump()?;
                Ok(Operand::Reg(*reg))
            }
            Some(Entry::Label(label)) => {
                self.bump()?;
                Ok(Operand::Label(label))
            }
            Some(Entry::Symbol(name)) => {
                self.bump()?;
                Ok(Operand::Symbol { name, offset: self.offset()? })
            }
            Some(Entry::Unused { .. }) | None => {
                if let Some(special) = name.strip_prefix('%') {
                    return self.special(special, at);
                }
                f.defer(name, at);
                self.bump()?;
                Ok(Operand::Symbol { name: self.intern(name), offset: self.offset()? })
            }
        }
    }

    /// The word of `.word` directly behind the current token.
    fn selector(&mut self) -> &'a str {
        self.lexer.raw_skip();
        self.lexer.raw_word()
    }

    fn special(&mut self, name: &'a str, at: Position) -> Result<Operand> {
        let undeclared = |name: &str| {
            at.error(ParseErrorKind::Undeclared { what: "register", name: format!("%{}", shorten(name)) })
        };
        let mut special = Special::from_name(name).ok_or_else(|| undeclared(name))?;
        if self.lexer.raw() == Some(b'.') {
            let selector = self.selector();
            special = Dim::from_name(selector)
                .filter(|dim| *dim != Dim::All)
                .and_then(|dim| special.component(dim))
                .ok_or_else(|| undeclared(&format!("{name}.{}", shorten(selector))))?;
        }
        self.bump()?;
        Ok(Operand::Special(special))
    }

    /// The second half of `a|b`.
    fn pair(&mut self, f: &mut Builder<'a>, first: Option<RegId>) -> Result<Operand> {
        let at = self.at;
        let name = self.ident("a register or '_'")?;
        let second = if name == "_" { None } else { Some(self.register(f, name, at)?) };
        Ok(Operand::Pair(first, second))
    }

    /// The rest of `[...]`.
    fn address(&mut self, f: &mut Builder<'a>) -> Result<Operand> {
        let at = self.at;
        let first = self.address_element(f)?;
        if self.eat(b']')? {
            let (base, offset) = match first {
                Operand::Reg(reg) => (AddressBase::Reg(reg), 0),
                Operand::Symbol { name, offset } => (AddressBase::Symbol(name), offset),
                Operand::Int(offset) => (AddressBase::Absolute, offset),
                Operand::Address(address) => return Ok(Operand::Address(address)),
                other @ Operand::Vector(_) => return Ok(Operand::AddressList(vec![other])),
                _ => return Err(at.error(ParseErrorKind::Invalid("not an address".into()))),
            };
            return Ok(Operand::Address(Address { base, offset }));
        }
        let mut list = vec![first];
        while self.eat(b',')? {
            list.push(self.address_element(f)?);
        }
        self.expect(b']')?;
        list.shrink_to_fit();
        Ok(Operand::AddressList(list))
    }

    fn address_element(&mut self, f: &mut Builder<'a>) -> Result<Operand> {
        if self.eat(b'{')? {
            return Ok(Operand::Vector(self.operand_list(f, b'}')?));
        }
        let operand = self.simple_operand(f)?;
        if let Operand::Reg(reg) = operand
            && matches!(self.token, Token::Punct(b'+' | b'-'))
        {
            let offset = self.offset()?;
            return Ok(Operand::Address(Address { base: AddressBase::Reg(reg), offset }));
        }
        Ok(operand)
    }
}
