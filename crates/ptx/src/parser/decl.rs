//! Declarations: variables, parameters, function headers, initializers.

use super::expr::Value;
use super::{MAX_ALIGN, MAX_VARIABLE_BYTES, Parser, Result};
use crate::ast::*;
use crate::error::ParseErrorKind;
use crate::layout;
use crate::lexer::Token;

/// What stands between the state space and the names of a declaration.
pub(super) struct TypeSpec {
    pub(super) align: Option<u32>,
    pub(super) vector: u8,
    pub(super) ty: ScalarType,
    ptr: Option<PtrAttr>,
    attributes: Vec<Name>,
}

impl<'a> Parser<'a> {
    /// A variable or function at module level, with its linkage.
    pub(super) fn declaration(&mut self, items: &mut Vec<Item>) -> Result<()> {
        let mut linkage = Linkage::Internal;
        loop {
            let Token::Directive(word) = self.token else {
                return Err(self.unexpected("a state space, .entry or .func"));
            };
            let found = match word {
                "extern" => Linkage::Extern,
                "visible" => Linkage::Visible,
                "weak" => Linkage::Weak,
                "common" => Linkage::Common,
                "entry" | "func" => {
                    let function = self.function(linkage)?;
                    items.push(Item::Function(function));
                    return Ok(());
                }
                _ => {
                    let space = match Space::from_name(word) {
                        Some(Space::Reg | Space::Sreg | Space::Param | Space::Local) | None => {
                            return Err(self.unexpected("a module-level directive"));
                        }
                        Some(space) => space,
                    };
                    self.bump()?;
                    for variable in self.variables(space, linkage)? {
                        self.globals.insert(variable.name.clone());
                        items.push(Item::Variable(variable));
                    }
                    return Ok(());
                }
            };
            if linkage != Linkage::Internal {
                return Err(self.unexpected("only one of .extern, .visible, .weak, .common"));
            }
            linkage = found;
            self.bump()?;
        }
    }

    /// `.align 8 .attribute(.managed) .v4 .f32`, in any order, up to the name.
    pub(super) fn type_spec(&mut self) -> Result<TypeSpec> {
        let mut align = None;
        let mut vector = 1;
        let mut ty = None;
        let mut ptr = None;
        let mut attributes = Vec::new();
        // The bank number of old constant declarations, `.const[2]`.
        if self.eat(b'[')? {
            self.int("a bank number")?;
            self.expect(b']')?;
        }
        while let Token::Directive(word) = self.token {
            match word {
                "align" => align = Some(self.align()?),
                "attribute" => attributes.extend(self.attribute()?),
                "v2" | "v4" | "v8" => {
                    vector = word.as_bytes()[1] - b'0';
                    self.bump()?;
                }
                "ptr" => {
                    self.bump()?;
                    let mut attr = PtrAttr { space: None, align: None };
                    while let Token::Directive(word) = self.token {
                        match Space::from_name(word) {
                            _ if word == "align" => attr.align = Some(self.align()?),
                            Some(space) => {
                                attr.space = Some(space);
                                self.bump()?;
                            }
                            None => break,
                        }
                    }
                    ptr = Some(attr);
                }
                _ => match ScalarType::from_name(word) {
                    Some(found) if ty.is_none() => {
                        ty = Some(found);
                        self.bump()?;
                    }
                    _ => return Err(self.unexpected("a type, .align, .v2, .v4 or a name")),
                },
            }
        }
        let Some(ty) = ty else { return Err(self.unexpected("a type")) };
        Ok(TypeSpec { align, vector, ty, ptr, attributes })
    }

    fn align(&mut self) -> Result<u32> {
        self.bump()?;
        let at = self.at;
        let value = self.int_u64("an alignment")?;
        if value > MAX_ALIGN {
            let kind = ParseErrorKind::Limit { what: "alignment", value, limit: MAX_ALIGN };
            return Err(at.error(kind));
        }
        if !value.is_power_of_two() {
            let message = format!("alignment {value} is not a power of two");
            return Err(at.error(ParseErrorKind::Invalid(message)));
        }
        Ok(value as u32)
    }

    /// `.attribute(.managed, .unified(1, 2))`: the words; arguments are dropped.
    fn attribute(&mut self) -> Result<Vec<Name>> {
        self.bump()?;
        self.expect(b'(')?;
        let mut words = Vec::new();
        loop {
            let Token::Directive(word) = self.token else { return Err(self.unexpected("an attribute")) };
            words.push(self.intern(word));
            self.bump()?;
            if self.eat(b'(')? {
                while self.int("a number").is_ok() && self.eat(b',')? {}
                self.expect(b')')?;
            }
            if !self.eat(b',')? {
                break;
            }
        }
        self.expect(b')')?;
        Ok(words)
    }

    /// The rest of a variable declaration behind its state space, semicolon included.
    pub(super) fn variables(&mut self, space: Space, linkage: Linkage) -> Result<Vec<Variable>> {
        let spec = self.type_spec()?;
        if spec.ty == ScalarType::Pred {
            return Err(self.unexpected("a type that can be in memory, not .pred"));
        }
        let mut variables = Vec::new();
        loop {
            let at = self.at;
            let name = self.name("name of a variable")?;
            let mut variable = Variable {
                linkage,
                space,
                explicit_align: spec.align,
                ty: spec.ty,
                vector: spec.vector,
                name,
                dims: self.dims()?,
                init: None,
                attributes: spec.attributes.clone(),
                line: at.line,
            };
            if self.eat(b'=')? {
                variable.init = Some(self.init(0)?);
            }
            layout::complete(&mut variable).map_err(|message| at.error(ParseErrorKind::Invalid(message)))?;
            let unsized_too_big = match variable.dims.split_first() {
                Some((None, inner)) => inner.iter().try_fold(1u64, |n, d| n.checked_mul((*d)?)).is_none(),
                _ => variable.size().is_none(),
            };
            let size = if unsized_too_big { u64::MAX } else { variable.size().unwrap_or(0) };
            if size > MAX_VARIABLE_BYTES {
                let kind =
                    ParseErrorKind::Limit { what: "variable size", value: size, limit: MAX_VARIABLE_BYTES };
                return Err(at.error(kind));
            }
            variables.push(variable);
            if !self.eat(b',')? {
                break;
            }
        }
        self.expect(b';')?;
        Ok(variables)
    }

    /// `[4][]`: only the first may be empty.
    fn dims(&mut self) -> Result<Vec<Option<u64>>> {
        let mut dims = Vec::new();
        while self.eat(b'[')? {
            if dims.is_empty() && self.eat(b']')? {
                dims.push(None);
            } else {
                dims.push(Some(self.int_u64("an array size")?));
                self.expect(b']')?;
            }
        }
        Ok(dims)
    }

    fn init(&mut self, depth: u32) -> Result<Init> {
        if self.is_punct(b'{') {
            self.check_depth("nesting of an initializer", depth + 1)?;
            self.bump()?;
            let mut list = Vec::new();
            while !self.is_punct(b'}') {
                list.push(self.init(depth + 1)?);
                if !self.eat(b',')? {
                    break;
                }
            }
            self.expect(b'}')?;
            return Ok(Init::List(list));
        }
        if let Token::Ident(word) = self.token
            && word != "WARP_SZ"
        {
            let at = self.at;
            self.bump()?;
            if self.eat(b'=')? {
                // `field = value` of a sampler, texture or surface.
                let value = match self.token {
                    Token::Ident(word) => {
                        self.bump()?;
                        Init::Word(self.intern(word))
                    }
                    _ => Init::Int(self.int("a value")?),
                };
                return Ok(Init::Field(Box::new((self.intern(word), value))));
            }
            return self.init_address(word, at, None);
        }
        let value = self.constant()?;
        if self.is_punct(b'(')
            && let Value::Int(mask, _) = value
        {
            self.bump()?;
            let at = self.at;
            let word = self.ident("a symbol")?;
            if mask == 0 {
                return Err(at.error(ParseErrorKind::Invalid("address mask is zero".into())));
            }
            let init = self.init_address(word, at, Some(mask as u64))?;
            self.expect(b')')?;
            return Ok(init);
        }
        Ok(match value {
            Value::Int(bits, _) => Init::Int(bits),
            Value::F32(bits) => Init::F32(bits),
            Value::F64(x) => Init::F64(x.to_bits()),
        })
    }

    /// `symbol`, `symbol+4`, `generic(symbol)+4`; `word` has just been taken.
    fn init_address(&mut self, word: &'a str, at: crate::lexer::Position, mask: Option<u64>) -> Result<Init> {
        let generic = word == "generic" && self.eat(b'(')?;
        let mut offset = 0;
        let symbol = if generic {
            let symbol = self.name("a symbol")?;
            offset = self.offset()?;
            self.expect(b')')?;
            symbol
        } else {
            self.intern(word)
        };
        self.note_symbol(&symbol, at);
        offset = self.offset()?.wrapping_add(offset);
        Ok(Init::Address(Box::new(InitAddress { symbol, offset, generic, mask })))
    }

    // --- functions ---

    fn function(&mut self, linkage: Linkage) -> Result<Function> {
        let is_entry = self.token == Token::Directive("entry");
        self.bump()?;
        let mut directives = Vec::new();
        while self.token == Token::Directive("attribute") {
            for name in self.attribute()? {
                directives.push(Directive::Other { name, args: Vec::new() });
            }
        }
        let returns = if self.is_punct(b'(') { self.params()? } else { Vec::new() };
        let line = self.at.line;
        let name = self.name("name of a function")?;
        let params = if self.is_punct(b'(') { self.params()? } else { Vec::new() };
        self.directives(&mut directives)?;
        // Known from here on: a function may call itself.
        self.globals.insert(name.clone());
        let mut function =
            Function { is_entry, linkage, name, returns, params, directives, body: None, line };
        if self.is_punct(b'{') {
            self.body(&mut function)?;
        } else if !self.eat(b';')? {
            return Err(self.unexpected("'{', ';' or a directive"));
        }
        Ok(function)
    }

    /// `( .param .u64 x, .reg .u32 y, ... )`
    pub(super) fn params(&mut self) -> Result<Vec<Param>> {
        self.expect(b'(')?;
        let mut params = Vec::new();
        if self.eat(b')')? {
            return Ok(params);
        }
        loop {
            let space = match self.token {
                Token::Directive("param") => Space::Param,
                Token::Directive("reg") => Space::Reg,
                _ => return Err(self.unexpected(".param or .reg")),
            };
            self.bump()?;
            let spec = self.type_spec()?;
            let at = self.at;
            let name = self.name("name of a parameter")?;
            let array = match self.dims()?[..] {
                [] => None,
                [n] => Some(n),
                _ => {
                    let message = format!("parameter '{name}' has more than one array dimension");
                    return Err(at.error(ParseErrorKind::Invalid(message)));
                }
            };
            let param = Param {
                reg: None,
                space,
                ty: spec.ty,
                vector: spec.vector,
                explicit_align: spec.align,
                name,
                array,
                ptr: spec.ptr,
            };
            if space == Space::Reg && (spec.vector > 1 || array.is_some()) {
                let message = format!("register parameter '{}' is not a scalar", param.name);
                return Err(at.error(ParseErrorKind::Invalid(message)));
            }
            if param.size() > u64::from(u32::MAX) {
                let limit = u32::MAX.into();
                let kind = ParseErrorKind::Limit { what: "parameter size", value: param.size(), limit };
                return Err(at.error(kind));
            }
            params.push(param);
            if !self.eat(b',')? {
                break;
            }
        }
        self.expect(b')')?;
        Ok(params)
    }

    /// Directives behind a function header.
    pub(super) fn directives(&mut self, directives: &mut Vec<Directive>) -> Result<()> {
        while let Token::Directive(word) = self.token {
            if matches!(word, "loc" | "file") {
                self.lexer.skip_line();
                self.bump()?;
                continue;
            }
            self.bump()?;
            directives.push(match word {
                "maxntid" => Directive::MaxNTid(self.triple()?),
                "reqntid" => Directive::ReqNTid(self.triple()?),
                "reqnctapercluster" => Directive::ReqNCtaPerCluster(self.triple()?),
                "minnctapersm" => Directive::MinNCtaPerSm(self.int_u32("a number of blocks")?),
                "maxnctapersm" => Directive::MaxNCtaPerSm(self.int_u32("a number of blocks")?),
                "maxnreg" => Directive::MaxNReg(self.int_u32("a number of registers")?),
                "maxclusterrank" => Directive::MaxClusterRank(self.int_u32("a number of blocks")?),
                "noreturn" => Directive::NoReturn,
                "explicitcluster" => Directive::ExplicitCluster,
                "pragma" => Directive::Pragma(self.pragma()?),
                _ => {
                    let mut args = Vec::new();
                    if matches!(self.token, Token::Number(_)) {
                        args.push(self.int_u32("a number")?);
                        while self.eat(b',')? {
                            args.push(self.int_u32("a number")?);
                        }
                    }
                    Directive::Other { name: self.intern(word), args }
                }
            });
        }
        Ok(())
    }

    /// One to three numbers; missing ones are 1.
    fn triple(&mut self) -> Result<[u32; 3]> {
        let mut dims = [1; 3];
        for (i, dim) in dims.iter_mut().enumerate() {
            if i > 0 && !self.eat(b',')? {
                break;
            }
            *dim = self.int_u32("a dimension")?;
        }
        Ok(dims)
    }
}
