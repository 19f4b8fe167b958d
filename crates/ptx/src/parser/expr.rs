//! Numbers and constant expressions.

use super::{MAX_DEPTH, Parser, Result, shorten};
use crate::error::ParseErrorKind;
use crate::lexer::Token;

/// A folded constant.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Value {
    /// 64 bits and whether the value is unsigned (`U` suffix, or too big for a signed one).
    Int(i64, bool),
    F32(u32),
    F64(f64),
}

impl<'a> Parser<'a> {
    /// A constant expression.
    pub(super) fn constant(&mut self) -> Result<Value> {
        self.conditional(0)
    }

    /// A constant expression that must be an integer.
    pub(super) fn int(&mut self, expected: &str) -> Result<i64> {
        let at = self.at;
        match self.constant()? {
            Value::Int(bits, _) => Ok(bits),
            _ => Err(at.error(ParseErrorKind::Invalid(format!("expected {expected}, an integer")))),
        }
    }

    /// `+4`, `-(2*8)`, `+-8` behind a symbol or register; 0 if there is none.
    pub(super) fn offset(&mut self) -> Result<i64> {
        let mut offset = 0i64;
        while let Token::Punct(sign @ (b'+' | b'-')) = self.token {
            let at = self.at;
            self.bump()?;
            // 9 is the precedence of + and -: what binds tighter belongs to this term.
            let Value::Int(term, _) = self.binary(9, 0)? else {
                return Err(at.error(ParseErrorKind::Invalid("offset is not an integer".into())));
            };
            offset = if sign == b'+' { offset.wrapping_add(term) } else { offset.wrapping_sub(term) };
        }
        Ok(offset)
    }

    /// A constant expression that must be an integer of 0 to 2^64-1.
    pub(super) fn int_u64(&mut self, expected: &str) -> Result<u64> {
        let at = self.at;
        match self.constant()? {
            Value::Int(bits, unsigned) if unsigned || bits >= 0 => Ok(bits as u64),
            _ => Err(at.error(ParseErrorKind::Invalid(format!(
                "expected {expected}, an integer that is not negative"
            )))),
        }
    }

    /// As [`Parser::int_u64`], with 32 bits.
    pub(super) fn int_u32(&mut self, expected: &'static str) -> Result<u32> {
        let at = self.at;
        let value = self.int_u64(expected)?;
        u32::try_from(value).map_err(|_| {
            at.error(ParseErrorKind::Limit { what: expected, value, limit: u64::from(u32::MAX) })
        })
    }

    fn conditional(&mut self, depth: u32) -> Result<Value> {
        let condition = self.binary(0, depth)?;
        if !self.is_punct(b'?') {
            return Ok(condition);
        }
        let at = self.at;
        self.bump()?;
        let yes = self.nested(depth)?;
        self.expect(b':')?;
        let no = self.nested(depth)?;
        match condition {
            Value::Int(bits, _) => Ok(if bits != 0 { yes } else { no }),
            _ => Err(at.error(ParseErrorKind::Invalid("condition of '?:' is not an integer".into()))),
        }
    }

    /// One level further in, up to a limit.
    fn nested(&mut self, depth: u32) -> Result<Value> {
        self.check_depth("nesting of a constant expression", depth + 1)?;
        self.conditional(depth + 1)
    }

    pub(super) fn check_depth(&self, what: &'static str, depth: u32) -> Result<()> {
        if depth > MAX_DEPTH {
            let kind = ParseErrorKind::Limit { what, value: depth.into(), limit: MAX_DEPTH.into() };
            return Err(self.at.error(kind));
        }
        Ok(())
    }

    /// The binary operator at the current token and its precedence.
    fn operator(&self) -> Option<([u8; 2], u8)> {
        let op = match self.token {
            Token::Punct(b) => [b, 0],
            Token::Op(op) => op,
            _ => return None,
        };
        let precedence = match &op {
            b"||" => 1,
            b"&&" => 2,
            b"|\0" => 3,
            b"^\0" => 4,
            b"&\0" => 5,
            b"==" | b"!=" => 6,
            b"<\0" | b">\0" | b"<=" | b">=" => 7,
            b"<<" | b">>" => 8,
            b"+\0" | b"-\0" => 9,
            b"*\0" | b"/\0" | b"%\0" => 10,
            _ => return None,
        };
        Some((op, precedence))
    }

    /// Precedence climbing; recursion goes at most one level per precedence.
    fn binary(&mut self, min: u8, depth: u32) -> Result<Value> {
        let mut left = self.unary(depth)?;
        while let Some((op, precedence)) = self.operator() {
            if precedence <= min {
                break;
            }
            let at = self.at;
            self.bump()?;
            let right = self.binary(precedence, depth)?;
            left =
                fold(op, left, right).map_err(|message| at.error(ParseErrorKind::Invalid(message.into())))?;
        }
        Ok(left)
    }

    fn unary(&mut self, depth: u32) -> Result<Value> {
        let at = self.at;
        match self.token {
            Token::Number(_) => self.number(),
            Token::Ident("WARP_SZ") => {
                self.bump()?;
                Ok(Value::Int(32, false))
            }
            Token::Punct(op @ (b'-' | b'+' | b'~' | b'!')) => {
                self.check_depth("nesting of a constant expression", depth + 1)?;
                self.bump()?;
                let value = self.unary(depth + 1)?;
                Ok(match (op, value) {
                    (b'+', value) => value,
                    // Negation makes a signed value (`-1` of `-9223372036854775808`, too).
                    (b'-', Value::Int(bits, _)) => Value::Int(bits.wrapping_neg(), false),
                    (b'-', Value::F32(bits)) => Value::F32(bits ^ 0x8000_0000),
                    (b'-', Value::F64(x)) => Value::F64(-x),
                    (b'~', Value::Int(bits, unsigned)) => Value::Int(!bits, unsigned),
                    (b'!', Value::Int(bits, _)) => Value::Int((bits == 0).into(), false),
                    _ => {
                        let message = format!("operator '{}' on a floating-point number", op as char);
                        return Err(at.error(ParseErrorKind::Invalid(message)));
                    }
                })
            }
            Token::Punct(b'(') => {
                self.check_depth("nesting of a constant expression", depth + 1)?;
                self.bump()?;
                if let Token::Directive(cast @ ("s64" | "u64")) = self.token {
                    self.bump()?;
                    self.expect(b')')?;
                    let value = self.unary(depth + 1)?;
                    return match value {
                        Value::Int(bits, _) => Ok(Value::Int(bits, cast == "u64")),
                        _ => Err(at.error(ParseErrorKind::Invalid("cast of a floating-point number".into()))),
                    };
                }
                let value = self.conditional(depth + 1)?;
                self.expect(b')')?;
                Ok(value)
            }
            _ => Err(self.unexpected("a constant")),
        }
    }

    fn number(&mut self) -> Result<Value> {
        let Token::Number(text) = self.token else { return Err(self.unexpected("a number")) };
        let value = parse_number(text)
            .map_err(|why| self.at.error(ParseErrorKind::BadNumber { text: shorten(text).into(), why }))?;
        self.bump()?;
        Ok(value)
    }
}

fn parse_number(text: &str) -> std::result::Result<Value, &'static str> {
    let radix = match text.as_bytes() {
        [b'0', b'f' | b'F', ..] => {
            if text.len() != 10 {
                return Err("a single-precision number has 8 hexadecimal digits");
            }
            let bits = u32::from_str_radix(&text[2..], 16).map_err(|_| "not hexadecimal")?;
            return Ok(Value::F32(bits));
        }
        [b'0', b'd' | b'D', ..] => {
            if text.len() != 18 {
                return Err("a double-precision number has 16 hexadecimal digits");
            }
            let bits = u64::from_str_radix(&text[2..], 16).map_err(|_| "not hexadecimal")?;
            return Ok(Value::F64(f64::from_bits(bits)));
        }
        [b'0', b'x' | b'X', ..] => 16,
        [b'0', b'b' | b'B', ..] => 2,
        bytes if bytes.iter().any(|b| matches!(b, b'.' | b'e' | b'E')) => {
            return text.parse().map(Value::F64).map_err(|_| "not a decimal number");
        }
        [b'0', b'0'..=b'9', ..] => 8,
        _ => 10,
    };
    let digits = if matches!(radix, 2 | 16) { &text[2..] } else { text };
    let (digits, suffix) = match digits.strip_suffix(['U', 'u']) {
        Some(digits) => (digits, true),
        None => (digits, false),
    };
    if !digits.bytes().all(|b| (b as char).is_digit(radix)) || digits.is_empty() {
        return Err("not an integer");
    }
    let value = u64::from_str_radix(digits, radix).map_err(|_| "more than 64 bits")?;
    Ok(Value::Int(value as i64, suffix || value > i64::MAX as u64))
}

fn fold(op: [u8; 2], left: Value, right: Value) -> std::result::Result<Value, &'static str> {
    let (a, a_unsigned, b, b_unsigned) = match (left, right) {
        (Value::Int(a, ua), Value::Int(b, ub)) => (a, ua, b, ub),
        (Value::F32(_), _) | (_, Value::F32(_)) => {
            return Err("arithmetic on a single-precision hexadecimal number");
        }
        (left, right) => {
            let float = |value| match value {
                Value::Int(bits, true) => bits as u64 as f64,
                Value::Int(bits, false) => bits as f64,
                Value::F32(bits) => f32::from_bits(bits).into(),
                Value::F64(x) => x,
            };
            let (a, b) = (float(left), float(right));
            let truth = |t: bool| Ok(Value::Int(t.into(), false));
            return Ok(Value::F64(match &op {
                b"+\0" => a + b,
                b"-\0" => a - b,
                b"*\0" => a * b,
                b"/\0" => a / b,
                b"<\0" => return truth(a < b),
                b">\0" => return truth(a > b),
                b"<=" => return truth(a <= b),
                b">=" => return truth(a >= b),
                b"==" => return truth(a == b),
                b"!=" => return truth(a != b),
                _ => return Err("integer operator on a floating-point number"),
            }));
        }
    };
    let unsigned = a_unsigned || b_unsigned;
    let (ua, ub) = (a as u64, b as u64);
    // Shifts by 64 and more give zero (or copies of the sign).
    let amount = u32::try_from(ub).unwrap_or(u32::MAX);
    let value = match &op {
        b"+\0" => a.wrapping_add(b),
        b"-\0" => a.wrapping_sub(b),
        b"*\0" => a.wrapping_mul(b),
        b"/\0" | b"%\0" if b == 0 => return Err("division by zero"),
        b"/\0" if unsigned => (ua / ub) as i64,
        b"/\0" => a.wrapping_div(b),
        b"%\0" if unsigned => (ua % ub) as i64,
        b"%\0" => a.wrapping_rem(b),
        b"<<" => return Ok(Value::Int(a.checked_shl(amount).unwrap_or(0), a_unsigned)),
        b">>" if a_unsigned => return Ok(Value::Int(ua.checked_shr(amount).unwrap_or(0) as i64, true)),
        b">>" => return Ok(Value::Int(a >> amount.min(63), false)),
        b"&\0" => a & b,
        b"^\0" => a ^ b,
        b"|\0" => a | b,
        _ => {
            let truth = match &op {
                b"<\0" if unsigned => ua < ub,
                b"<\0" => a < b,
                b">\0" if unsigned => ua > ub,
                b">\0" => a > b,
                b"<=" if unsigned => ua <= ub,
                b"<=" => a <= b,
                b">=" if unsigned => ua >= ub,
                b">=" => a >= b,
                b"==" => a == b,
                b"!=" => a != b,
                b"&&" => a != 0 && b != 0,
                _ => a != 0 || b != 0,
            };
            return Ok(Value::Int(truth.into(), false));
        }
    };
    Ok(Value::Int(value, unsigned))
}
