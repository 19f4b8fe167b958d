//! A light scanner for PTX: version, target, and the parameters of each kernel. It reads directives outside of bodies
//! and skips everything else, in one pass; it does not check that the text is valid PTX.

use crate::cubin::MAX_KERNELS;
use crate::error::{Error, ErrorKind, Result};
use crate::lexer::{Lexer, Token};

/// What a PTX module says of itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Header<'a> {
    /// `.version`: major and minor number.
    pub version: (u16, u16),
    /// `.target`.
    pub target: Target<'a>,
    /// `.address_size` in bits: 32 or 64; 32 if the text does not say.
    pub address_size: u8,
    /// Kernels with a body, in order.
    pub entries: Vec<Entry<'a>>,
}

/// First operand of `.target`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Target<'a> {
    /// SM number.
    pub sm: u32,
    /// Suffix: `""`, `"a"` or `"f"`.
    pub suffix: &'a str,
    /// True if `debug` is among the options.
    pub debug: bool,
}

/// A kernel.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry<'a> {
    /// Name, mangled as in the text.
    pub name: &'a str,
    /// Parameters in order, or why their layout is not known.
    pub params: Result<Vec<Param<'a>>>,
    /// `.reqntid`, unset dimensions being 1.
    pub required_threads: Option<[u32; 3]>,
    /// `.maxntid`, unset dimensions being 1.
    pub max_threads: Option<[u32; 3]>,
}

/// A parameter of a kernel.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Param<'a> {
    /// Name.
    pub name: &'a str,
    /// Offset in the parameter buffer.
    pub offset: u32,
    /// Size in bytes.
    pub size: u32,
    /// Alignment in bytes.
    pub align: u32,
}

impl Entry<'_> {
    /// Bytes of the parameter buffer; 0 if the layout is not known.
    #[must_use]
    pub fn param_size(&self) -> u32 {
        match &self.params {
            Ok(params) => params.last().map_or(0, |p| p.offset.saturating_add(p.size)),
            Err(_) => 0,
        }
    }
}

/// Largest parameter buffer that is believed; the hardware's limit is 32,764 bytes.
const MAX_PARAM_BYTES: u64 = 1 << 20;

/// Scans PTX text. It ends at the first NUL, if there is one. Time and memory are linear in the text.
///
/// # Errors
/// If `.version` or `.target` is missing or not readable, or a comment, string, body or kernel header is cut off.
/// A kernel whose parameters alone are not understood is listed, with the error in [`Entry::params`].
pub fn scan(text: &[u8]) -> Result<Header<'_>> {
    let mut lexer = Lexer::new(text);
    let mut version = None;
    let mut target = None;
    let mut address_size = 32;
    let mut entries = Vec::new();
    loop {
        match lexer.next()? {
            Token::End => break,
            Token::Word(".version") => version = Some(scan_version(&mut lexer)?),
            Token::Word(".target") => target = Some(scan_target(&mut lexer)?),
            Token::Word(".address_size") => {
                address_size = match lexer.number(".address_size", "32 or 64")? {
                    32 => 32,
                    64 => 64,
                    _ => return Err(lexer.syntax(".address_size", "32 or 64")),
                }
            }
            Token::Word(".entry") => {
                entries.extend(scan_entry(&mut lexer)?);
                if entries.len() > MAX_KERNELS {
                    let kind = ErrorKind::TooMany { limit: MAX_KERNELS as u64 };
                    return Err(Error::new("PTX directive .entry", lexer.offset(), kind));
                }
            }
            Token::Punct(b'{') => lexer.skip_braces()?,
            _ => {}
        }
    }
    let missing = |field| Error::new(field, 0, ErrorKind::Missing);
    Ok(Header {
        version: version.ok_or_else(|| missing("PTX directive .version"))?,
        target: target.ok_or_else(|| missing("PTX directive .target"))?,
        address_size,
        entries,
    })
}

fn scan_version(lexer: &mut Lexer<'_>) -> Result<(u16, u16)> {
    let expected = "a version like 8.0";
    if let Token::Word(word) = lexer.next()?
        && let Some((major, minor)) = word.split_once('.')
        && let (Ok(major), Ok(minor)) = (major.parse(), minor.parse())
    {
        return Ok((major, minor));
    }
    Err(lexer.syntax(".version", expected))
}

fn scan_target<'a>(lexer: &mut Lexer<'a>) -> Result<Target<'a>> {
    let mut target = match lexer.next()? {
        Token::Word(word) => parse_target(word),
        _ => None,
    }
    .ok_or_else(|| lexer.syntax(".target", "an architecture like sm_75"))?;
    while lexer.accept(b',')? {
        if let Token::Word("debug") = lexer.next()? {
            target.debug = true;
        }
    }
    Ok(target)
}

fn parse_target(word: &str) -> Option<Target<'_>> {
    let rest = word.strip_prefix("sm_").or_else(|| word.strip_prefix("compute_"))?;
    let digits = rest.bytes().take_while(u8::is_ascii_digit).count();
    let (number, suffix) = rest.split_at_checked(digits)?;
    Some(Target { sm: number.parse().ok()?, suffix, debug: false })
}

/// Reads a kernel from after `.entry`; `None` if it has no body.
fn scan_entry<'a>(lexer: &mut Lexer<'a>) -> Result<Option<Entry<'a>>> {
    let Token::Word(name) = lexer.next()? else {
        return Err(lexer.syntax(".entry", "a name"));
    };
    let mut entry = Entry { name, params: Ok(Vec::new()), required_threads: None, max_threads: None };
    if lexer.accept(b'(')? {
        entry.params = match scan_params(lexer) {
            Err(error) if error.is_truncation() => return Err(error),
            Err(error) => {
                lexer.skip_to(b')')?;
                Err(error)
            }
            params => params,
        };
    }
    loop {
        match lexer.next()? {
            Token::Punct(b'{') => {
                lexer.skip_braces()?;
                return Ok(Some(entry));
            }
            Token::Punct(b';') => return Ok(None),
            Token::Word(".maxntid") => entry.max_threads = scan_threads(lexer)?,
            Token::Word(".reqntid") => entry.required_threads = scan_threads(lexer)?,
            Token::End => return Err(lexer.cut_off("kernel header")),
            _ => {}
        }
    }
}

/// One to three numbers; `None` if they are no plain numbers.
fn scan_threads(lexer: &mut Lexer<'_>) -> Result<Option<[u32; 3]>> {
    let mut threads = [1; 3];
    for slot in &mut threads {
        let Token::Word(word) = lexer.next()? else { return Ok(None) };
        match parse_number(word).and_then(|n| u32::try_from(n).ok()) {
            Some(n) => *slot = n,
            None => return Ok(None),
        }
        if !lexer.accept(b',')? {
            break;
        }
    }
    Ok(Some(threads))
}

/// Reads parameters from after `(` to `)`. On error the lexer stands before that `)` or at the end of the text.
fn scan_params<'a>(lexer: &mut Lexer<'a>) -> Result<Vec<Param<'a>>> {
    let mut params = Vec::new();
    let mut end = 0;
    if lexer.accept(b')')? {
        return Ok(params);
    }
    loop {
        let (name, size, align) = scan_param(lexer)?;
        let offset = align_up(end, align);
        end = offset.saturating_add(size);
        if end > MAX_PARAM_BYTES {
            let kind = ErrorKind::TooLarge { size: end, limit: MAX_PARAM_BYTES };
            return Err(Error::new("kernel parameters", lexer.offset(), kind));
        }
        // All three are at most MAX_PARAM_BYTES.
        params.push(Param { name, offset: offset as u32, size: size as u32, align: align as u32 });
        if lexer.accept(b')')? {
            return Ok(params);
        }
        if !lexer.accept(b',')? {
            return Err(lexer.syntax("kernel parameter", "`,` or `)`"));
        }
    }
}

/// One `.param` declaration: name, size and alignment.
fn scan_param<'a>(lexer: &mut Lexer<'a>) -> Result<(&'a str, u64, u64)> {
    let mut element = None;
    let mut align = None;
    let mut pointer = false;
    let name = loop {
        if !matches!(lexer.peek()?, Token::Word(_)) {
            return Err(lexer.syntax("kernel parameter", "a type or a name"));
        }
        let Token::Word(word) = lexer.next()? else { continue };
        match word {
            ".param" | ".global" | ".shared" | ".local" | ".const" => {}
            ".ptr" => pointer = true,
            ".align" => {
                let value = lexer.number(".align", "a power of two")?;
                if !value.is_power_of_two() || value > MAX_PARAM_BYTES {
                    return Err(lexer.syntax(".align", "a power of two"));
                }
                // After `.ptr` it is the alignment of what the pointer points at.
                if !pointer {
                    align = Some(value);
                }
            }
            _ if word.starts_with('.') => match type_size(word) {
                Some(size) => element = Some(size),
                None => return Err(lexer.syntax("kernel parameter", "a type with a known size")),
            },
            name => break name,
        }
    };
    let element = element.ok_or_else(|| lexer.syntax("kernel parameter", "a type before the name"))?;
    let mut size = element;
    while lexer.accept(b'[')? {
        let count = lexer.number("kernel parameter", "a length in `[]`")?;
        size = size.saturating_mul(count);
        if !lexer.accept(b']')? {
            return Err(lexer.syntax("kernel parameter", "`]`"));
        }
    }
    if size > MAX_PARAM_BYTES {
        let kind = ErrorKind::TooLarge { size, limit: MAX_PARAM_BYTES };
        return Err(Error::new("kernel parameter", lexer.offset(), kind));
    }
    Ok((name, size, align.unwrap_or(element)))
}

/// Bytes of a fundamental type. Opaque types (`.texref`) have no size in the text.
fn type_size(word: &str) -> Option<u64> {
    Some(match word {
        ".b8" | ".u8" | ".s8" => 1,
        ".b16" | ".u16" | ".s16" | ".f16" | ".bf16" => 2,
        ".b32" | ".u32" | ".s32" | ".f32" | ".f16x2" | ".bf16x2" => 4,
        ".b64" | ".u64" | ".s64" | ".f64" => 8,
        ".b128" => 16,
        _ => return None,
    })
}

fn align_up(value: u64, align: u64) -> u64 {
    value.saturating_add(align - 1) & !(align - 1)
}

/// A PTX integer: decimal, hexadecimal, octal or binary, with or without `U`.
pub(crate) fn parse_number(word: &str) -> Option<u64> {
    let word = word.strip_suffix(['U', 'u']).unwrap_or(word);
    let radix = |digits: &str, radix| u64::from_str_radix(digits, radix).ok();
    if !word.starts_with(|c: char| c.is_ascii_digit()) {
        return None;
    }
    match word.as_bytes() {
        [b'0', b'x' | b'X', ..] => radix(&word[2..], 16),
        [b'0', b'b' | b'B', ..] => radix(&word[2..], 2),
        [b'0', _, ..] => radix(&word[1..], 8),
        _ => radix(word, 10),
    }
}
