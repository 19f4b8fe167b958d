//! `printf` in kernels.
//!
//! Conversions as in CUDA: flags `-+ #0`, width, precision (numbers or `*`), sizes `hh h l ll` (also `j z t L`), types
//! `d i u o x X c s p f F e E g G a A` and `%%`. Arguments lie one after the other, each at a multiple of its size: 4 bytes for
//! integers without `l` and for `c` and `*`, otherwise 8. Each number is handed to the C library's own `snprintf`.

use std::ffi::{CString, c_char, c_int};

use super::device::{read, read_c_string};
use crate::fault::Fault;
use crate::region::Region;

/// Longest format and longest string argument; the rest is not printed.
const FORMAT_MAX: usize = 16 << 10;
const STRING_MAX: usize = 64 << 10;
/// Widest field.
const WIDTH_MAX: i32 = 4096;
/// Longest text of one call.
const TEXT_MAX: usize = 256 << 10;

/// The arguments of a call, taken one after the other.
pub(super) trait Arguments {
    /// The next 4 bytes.
    fn word(&mut self) -> Result<u32, Fault>;
    /// The next 8 bytes.
    fn double_word(&mut self) -> Result<u64, Fault>;
    /// A string argument.
    fn string(&mut self, limit: usize) -> Result<Vec<u8>, Fault>;
}

struct DeviceArguments<'r> {
    region: &'r Region,
    next: u64,
}

impl DeviceArguments<'_> {
    fn take<const N: usize>(&mut self) -> Result<[u8; N], Fault> {
        let at = self.next.wrapping_add(N as u64 - 1) & !(N as u64 - 1);
        let mut bytes = [0; N];
        read(self.region, at, &mut bytes)?;
        self.next = at.wrapping_add(N as u64);
        Ok(bytes)
    }
}

impl Arguments for DeviceArguments<'_> {
    fn word(&mut self) -> Result<u32, Fault> {
        self.take().map(u32::from_le_bytes)
    }

    fn double_word(&mut self) -> Result<u64, Fault> {
        self.take().map(u64::from_le_bytes)
    }

    fn string(&mut self, limit: usize) -> Result<Vec<u8>, Fault> {
        match self.double_word()? {
            0 => Ok(b"(null)".to_vec()),
            address => read_c_string(self.region, address, limit),
        }
    }
}

/// The text of a call and what it returns: the number of arguments, or -1 without a format.
pub(super) fn print(region: &Region, format: u64, arguments: u64) -> Result<(Vec<u8>, i32), Fault> {
    if format == 0 {
        return Ok((Vec::new(), -1));
    }
    let format = read_c_string(region, format, FORMAT_MAX)?;
    render(&format, &mut DeviceArguments { region, next: arguments })
}

#[derive(Default)]
struct Spec {
    flags: String,
    left: bool,
    width: i32,
    precision: Option<i32>,
}

/// Size of an integer argument.
#[derive(Clone, Copy, PartialEq)]
enum Size {
    Char,
    Short,
    Int,
    Long,
}

/// Formats a call.
pub(super) fn render(format: &[u8], arguments: &mut dyn Arguments) -> Result<(Vec<u8>, i32), Fault> {
    let mut text = Vec::with_capacity(format.len() + 32);
    let mut count = 0;
    let mut at = 0;
    while at < format.len() && text.len() < TEXT_MAX {
        let percent = format[at..].iter().position(|&byte| byte == b'%').map_or(format.len(), |len| at + len);
        text.extend_from_slice(&format[at..percent]);
        if percent == format.len() {
            break;
        }
        let (end, taken) = conversion(format, percent, arguments, &mut text)?;
        at = end;
        count += taken;
    }
    text.truncate(TEXT_MAX);
    Ok((text, count))
}

/// One conversion that begins at `percent`: where it ends, and how many arguments it took.
fn conversion(
    format: &[u8],
    percent: usize,
    arguments: &mut dyn Arguments,
    text: &mut Vec<u8>,
) -> Result<(usize, i32), Fault> {
    let mut at = percent + 1;
    let peek = |at: usize| format.get(at).copied().unwrap_or(0);
    let mut spec = Spec::default();
    let mut taken = 0;
    while matches!(peek(at), b'-' | b'+' | b' ' | b'#' | b'0') {
        spec.left |= peek(at) == b'-';
        let flag = peek(at) as char;
        if !spec.flags.contains(flag) {
            spec.flags.push(flag);
        }
        at += 1;
    }
    let mut number = |at: &mut usize, taken: &mut i32| -> Result<i32, Fault> {
        if peek(*at) == b'*' {
            *at += 1;
            *taken += 1;
            return Ok(arguments.word()? as i32);
        }
        let mut value = 0i32;
        while peek(*at).is_ascii_digit() {
            value = value.saturating_mul(10).saturating_add(i32::from(peek(*at) - b'0'));
            *at += 1;
        }
        Ok(value)
    };
    let width = number(&mut at, &mut taken)?;
    if width < 0 {
        spec.left = true;
        spec.flags.push('-');
    }
    spec.width = width.saturating_abs().min(WIDTH_MAX);
    if peek(at) == b'.' {
        at += 1;
        let precision = number(&mut at, &mut taken)?;
        spec.precision = (precision >= 0).then_some(precision.min(WIDTH_MAX));
    }
    let mut size = Size::Int;
    loop {
        size = match (peek(at), size) {
            (b'h', Size::Short) => Size::Char,
            (b'h', _) => Size::Short,
            (b'l' | b'j' | b'z' | b't', _) => Size::Long,
            (b'L', size) => size,
            _ => break,
        };
        at += 1;
    }
    let kind = peek(at);
    match kind {
        b'%' => text.push(b'%'),
        b'd' | b'i' => {
            let value = match size {
                Size::Long => arguments.double_word()? as i64,
                Size::Int => i64::from(arguments.word()? as i32),
                Size::Short => i64::from(arguments.word()? as i16),
                Size::Char => i64::from(arguments.word()? as i8),
            };
            spec.number(text, "lld", Value::Signed(value));
            taken += 1;
        }
        b'u' | b'o' | b'x' | b'X' => {
            let value = match size {
                Size::Long => arguments.double_word()?,
                Size::Int => u64::from(arguments.word()?),
                Size::Short => u64::from(arguments.word()? as u16),
                Size::Char => u64::from(arguments.word()? as u8),
            };
            let conversion =
                ["llu", "llo", "llx", "llX"][b"uoxX".iter().position(|&c| c == kind).unwrap_or(0)];
            spec.number(text, conversion, Value::Unsigned(value));
            taken += 1;
        }
        b'p' => {
            let value = arguments.double_word()?;
            spec.number(text, "p", Value::Unsigned(value));
            taken += 1;
        }
        b'f' | b'F' | b'e' | b'E' | b'g' | b'G' | b'a' | b'A' => {
            let value = f64::from_bits(arguments.double_word()?);
            spec.number(text, (kind as char).encode_utf8(&mut [0; 4]), Value::Float(value));
            taken += 1;
        }
        b'c' => {
            let value = arguments.word()? as u8;
            spec.pad(text, &[value]);
            taken += 1;
        }
        b's' => {
            let limit = spec.precision.map_or(STRING_MAX, |precision| precision as usize);
            let value = arguments.string(limit)?;
            spec.pad(text, &value[..value.len().min(limit)]);
            taken += 1;
        }
        // Unknown: printed as it stands.
        _ => {
            let end = (at + 1).min(format.len());
            text.extend_from_slice(&format[percent..end]);
            return Ok((end, taken));
        }
    }
    Ok((at + 1, taken))
}

enum Value {
    Signed(i64),
    Unsigned(u64),
    Float(f64),
}

impl Spec {
    fn pad(&self, text: &mut Vec<u8>, value: &[u8]) {
        let padding = (self.width as usize).saturating_sub(value.len());
        if !self.left {
            text.resize(text.len() + padding, b' ');
        }
        text.extend_from_slice(value);
        if self.left {
            text.resize(text.len() + padding, b' ');
        }
    }

    /// By the C library. `conversion` fits the type of `value`.
    fn number(&self, text: &mut Vec<u8>, conversion: &str, value: Value) {
        let mut format = format!("%{}", self.flags);
        if self.width != 0 {
            format.push_str(&self.width.to_string());
        }
        if let Some(precision) = self.precision {
            format.push_str(&format!(".{precision}"));
        }
        format.push_str(conversion);
        let Ok(format) = CString::new(format) else { return };
        // The longest: %f of 1e308 with full precision, and the width.
        let mut buffer = vec![0u8; 2 * WIDTH_MAX as usize + 512];
        let (to, len) = (buffer.as_mut_ptr().cast::<c_char>(), buffer.len());
        // SAFETY: the buffer has that length; the format has one conversion, of the type of the one argument: made above.
        let written: c_int = unsafe {
            match value {
                Value::Signed(value) => libc::snprintf(to, len, format.as_ptr(), value),
                Value::Unsigned(value) => libc::snprintf(to, len, format.as_ptr(), value),
                Value::Float(value) => libc::snprintf(to, len, format.as_ptr(), value),
            }
        };
        let written = usize::try_from(written).unwrap_or(0).min(len - 1);
        text.extend_from_slice(&buffer[..written]);
    }
}

/// Fuzz body: formats with arbitrary formats and arguments. The data up to the first NUL is the format, the rest the arguments.
pub(super) fn fuzz(data: &[u8]) {
    struct Bytes<'d>(&'d [u8]);
    impl<'d> Bytes<'d> {
        fn take(&mut self, len: usize) -> &'d [u8] {
            let (head, rest) = self.0.split_at(len.min(self.0.len()));
            self.0 = rest;
            head
        }

        fn number(&mut self, len: usize) -> u64 {
            self.take(len).iter().rev().fold(0, |value, &byte| value << 8 | u64::from(byte))
        }
    }
    impl Arguments for Bytes<'_> {
        fn word(&mut self) -> Result<u32, Fault> {
            Ok(self.number(4) as u32)
        }

        fn double_word(&mut self) -> Result<u64, Fault> {
            Ok(self.number(8))
        }

        fn string(&mut self, limit: usize) -> Result<Vec<u8>, Fault> {
            let len = self.number(1) as usize;
            Ok(self.take(len.min(limit)).to_vec())
        }
    }
    let end = data.iter().position(|&byte| byte == 0).unwrap_or(data.len());
    if let Ok((text, count)) = render(&data[..end], &mut Bytes(&data[end..])) {
        assert!(text.len() <= TEXT_MAX);
        assert!(count as usize <= end, "each argument needs a character of the format");
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[derive(Clone)]
    enum Argument {
        Word(u32),
        Long(u64),
        Text(&'static str),
    }
    use Argument::*;

    struct List(std::vec::IntoIter<Argument>);

    impl Arguments for List {
        fn word(&mut self) -> Result<u32, Fault> {
            match self.0.next() {
                Some(Word(value)) => Ok(value),
                Some(Long(_) | Text(_)) => panic!("a 4-byte argument was expected"),
                None => Ok(0),
            }
        }

        fn double_word(&mut self) -> Result<u64, Fault> {
            match self.0.next() {
                Some(Long(value)) => Ok(value),
                Some(Word(_) | Text(_)) => panic!("an 8-byte argument was expected"),
                None => Ok(0),
            }
        }

        fn string(&mut self, limit: usize) -> Result<Vec<u8>, Fault> {
            match self.0.next() {
                Some(Text(value)) => Ok(value.as_bytes()[..value.len().min(limit)].to_vec()),
                _ => Ok(b"?".to_vec()),
            }
        }
    }

    fn show(format: &str, arguments: &[Argument]) -> (String, i32) {
        let (text, count) = render(format.as_bytes(), &mut List(Vec::from(arguments).into_iter())).unwrap();
        (String::from_utf8(text).unwrap(), count)
    }

    #[test]
    fn conversions() {
        let minus = Word(-5i32 as u32);
        let float = |value: f64| Long(value.to_bits());
        let cases: &[(&str, &[Argument], &str)] = &[
            ("plain", &[], "plain"),
            ("100%%", &[], "100%"),
            (
                "%d|%5d|%-5d|%05d|%+d|% d",
                &[minus.clone(), minus.clone(), minus.clone(), minus.clone(), Word(5), Word(5)],
                "-5|   -5|-5   |-0005|+5| 5",
            ),
            (
                "%u %x %X %o %#x",
                &[minus.clone(), Word(255), Word(255), Word(8), Word(255)],
                "4294967291 ff FF 10 0xff",
            ),
            (
                "%ld %lld %lu %llx",
                &[Long(-7i64 as u64), Long(1 << 40), Long(u64::MAX), Long(u64::MAX)],
                "-7 1099511627776 18446744073709551615 ffffffffffffffff",
            ),
            (
                "%hd %hhd %hhu %hx",
                &[Word(0x1_ffff), Word(0x1ff), Word(0x1ff), Word(0x1_2345)],
                "-1 -1 255 2345",
            ),
            ("%zu %td", &[Long(9), Long(8)], "9 8"),
            (
                "%f %.2f %8.3f %e %g %G",
                &[float(1.5), float(2.345), float(-1.0), float(12345.0), float(1e-10), float(1e20)],
                "1.500000 2.35 -  1.000 1.234500e+04 1e-10 1E+20",
            ),
            ("%a", &[float(1.0)], "0x1p+0"),
            ("%f %F", &[float(f64::INFINITY), float(f64::NAN)], "inf NAN"),
            ("%c%c%3c|%-3c|", &[Word(72), Word(105), Word(33), Word(33)], "Hi  !|!  |"),
            (
                "%s|%5s|%-5s|%.2s|%s",
                &[Text("abc"), Text("abc"), Text("abc"), Text("abc"), Text("")],
                "abc|  abc|abc  |ab|",
            ),
            ("%p %p", &[Long(0x1234), Long(0)], "0x1234 (nil)"),
            (
                "%*d|%-*d|%.*f|%*d|",
                &[Word(4), Word(7), Word(4), Word(7), Word(1), float(2.25), Word(-4i32 as u32), Word(7)],
                "   7|7   |2.2|7   |",
            ),
            ("%y %", &[], "%y %"),
            ("%5", &[], "%5"),
            ("%lf %5.1lf", &[float(0.5), float(0.25)], "0.500000   0.2"),
        ];
        for (format, arguments, expected) in cases {
            let expected = expected.replace("-  1.000", "  -1.000");
            let (text, count) = show(format, arguments);
            assert_eq!(text, expected, "{format}");
            assert_eq!(count as usize, arguments.len(), "{format}");
        }
    }

    #[test]
    fn sizes_are_bounded() {
        assert_eq!(show("%999999999999d", &[Word(1)]).0.len(), WIDTH_MAX as usize);
        assert!(show("%.99999f", &[Long(f64::MAX.to_bits())]).0.len() < 5000);
        let many = "%4096d".repeat(2000);
        assert_eq!(show(&many, &[]).0.len(), TEXT_MAX);
    }

    struct Zeros;
    impl Arguments for Zeros {
        fn word(&mut self) -> Result<u32, Fault> {
            Ok(0x8000_0000)
        }
        fn double_word(&mut self) -> Result<u64, Fault> {
            Ok(u64::MAX)
        }
        fn string(&mut self, limit: usize) -> Result<Vec<u8>, Fault> {
            Ok(vec![b'x'; limit.min(7)])
        }
    }

    #[test]
    fn corpus_and_mutations() {
        let directory = concat!(env!("CARGO_MANIFEST_DIR"), "/corpus/printf");
        let mut count = 0;
        for entry in std::fs::read_dir(directory).unwrap() {
            let data = std::fs::read(entry.unwrap().path()).unwrap();
            for index in 0..data.len() {
                fuzz(&data[..=index]);
                for byte in [0, b'%', b'*', b'9', b'.', b'l', b's', 0xff] {
                    let mut data = data.clone();
                    data[index] = byte;
                    fuzz(&data);
                }
            }
            count += 1;
        }
        assert!(count >= 3);
    }

    proptest! {
        #[test]
        fn any_format_is_safe(format in proptest::collection::vec(proptest::sample::select(b"%%%%dsufgaxplhz*.0123456789-+# q".to_vec()), 0..40)) {
            let (text, _) = render(&format, &mut Zeros).unwrap();
            prop_assert!(text.len() <= TEXT_MAX);
            if !format.contains(&b'%') {
                prop_assert_eq!(text, format);
            }
        }
    }
}
