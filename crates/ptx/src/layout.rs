//! Memory layout: kernel parameters and initial contents of variables.

use crate::ast::*;

/// Where a kernel parameter lies in the parameter buffer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ParamSlot {
    /// Bytes from the start of the buffer.
    pub offset: u32,
    /// Bytes.
    pub size: u32,
    /// Bytes.
    pub align: u32,
}

/// Layout of all parameters of a kernel.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ParamLayout {
    /// One per parameter, in order.
    pub slots: Vec<ParamSlot>,
    /// End of the last parameter, in bytes (no padding behind it).
    pub size: u32,
}

/// Lays parameters out in order, each at the next multiple of its alignment. `None` beyond 4 GiB.
pub fn params(params: &[Param]) -> Option<ParamLayout> {
    let mut layout = ParamLayout::default();
    let mut end = 0u64;
    for param in params {
        let align = param.align();
        let offset = end.next_multiple_of(align.into());
        let size = param.size();
        end = offset.checked_add(size)?;
        layout.slots.push(ParamSlot {
            offset: u32::try_from(offset).ok()?,
            size: u32::try_from(size).ok()?,
            align,
        });
        layout.size = u32::try_from(end).ok()?;
    }
    Some(layout)
}

/// Initial contents of a variable.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Image {
    /// The bytes up to the last one that has a value; the rest of the variable is zero.
    pub bytes: Vec<u8>,
    /// Addresses to be put in; the bytes there are zero.
    pub relocations: Vec<Relocation>,
}

/// An address in the initial contents of a variable.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Relocation {
    /// Bytes from the start of the variable.
    pub offset: u64,
    /// Bytes to write (1 to 8), little-endian.
    pub size: u32,
    /// What to take the address of, and whether as a generic address. The value to write is
    /// `(address & mask) >> shift`.
    pub target: InitAddress,
    /// `u64::MAX` without a mask operator.
    pub mask: u64,
    /// 0 without a mask operator.
    pub shift: u32,
}

/// Initial contents of a variable. Without an initializer (and for opaque references) the image is empty.
///
/// # Errors
/// An initializer that does not fit the type (what [`crate::parse`] accepts always fits in number, not always in
/// type), or contents of more than `max_bytes`.
pub fn image(variable: &Variable, max_bytes: u64) -> Result<Image, String> {
    let mut image = Image::default();
    let Some(init) = &variable.init else { return Ok(image) };
    if variable.ty.is_opaque() {
        return Ok(image);
    }
    let size = variable.ty.size();
    place(init, &shape(variable), 0, &mut |index, value| {
        let offset = index * size;
        let end = offset + size;
        if end > max_bytes {
            return Err(format!("initializer of '{}' exceeds {max_bytes} bytes", variable.name));
        }
        // Both fit: the limit does.
        let (start, end) = (offset as usize, end as usize);
        if image.bytes.len() < end {
            image.bytes.resize(end, 0);
        }
        if let Init::Address(target) = value {
            if variable.ty.is_float() || size > 8 || (size < 4 && target.mask.is_none()) {
                return Err(format!("address in '{}', which is .{}", variable.name, variable.ty));
            }
            image.relocations.push(Relocation {
                offset,
                size: size as u32,
                target: (**target).clone(),
                mask: target.mask.unwrap_or(u64::MAX),
                shift: target.mask.map_or(0, u64::trailing_zeros),
            });
            return Ok(());
        }
        let bits = scalar_bits(variable.ty, value)
            .ok_or_else(|| format!("value in '{}' does not fit .{}", variable.name, variable.ty))?;
        image.bytes[start..end].copy_from_slice(&bits.to_le_bytes()[..size as usize]);
        Ok(())
    })?;
    Ok(image)
}

/// Bits of one initial value in an element of type `ty`.
fn scalar_bits(ty: ScalarType, value: &Init) -> Option<i128> {
    use ScalarType::*;
    Some(match (ty, value) {
        (F32, Init::F32(bits)) => (*bits).into(),
        (F32, Init::F64(bits)) => (f64::from_bits(*bits) as f32).to_bits().into(),
        (F32, Init::Int(n)) => (*n as f32).to_bits().into(),
        (F64, Init::F64(bits)) => (*bits).into(),
        (F64, Init::F32(bits)) => f64::from(f32::from_bits(*bits)).to_bits().into(),
        (F64, Init::Int(n)) => (*n as f64).to_bits().into(),
        // Narrow floats are written as integers: their bits.
        (_, Init::Int(n)) => (*n).into(),
        (B32 | F16x2 | Bf16x2, Init::F32(bits)) => (*bits).into(),
        (B64 | F32x2, Init::F64(bits)) => (*bits).into(),
        _ => return None,
    })
}

/// Array dimensions and vector width of a variable, outermost first; an unknown first length is the greatest number.
fn shape(variable: &Variable) -> Vec<u64> {
    let mut shape: Vec<u64> = variable.dims.iter().map(|d| d.unwrap_or(u64::MAX)).collect();
    if variable.vector > 1 {
        shape.push(variable.vector.into());
    }
    shape
}

/// Walks the values of an initializer with the index of the element that each goes to (as in C: braces follow the
/// dimensions, and inner ones may be left out). Gives the index behind the last element.
fn place(
    init: &Init,
    shape: &[u64],
    base: u64,
    visit: &mut dyn FnMut(u64, &Init) -> Result<(), String>,
) -> Result<u64, String> {
    let Init::List(list) = init else {
        visit(base, init)?;
        return Ok(base + 1);
    };
    let inner_shape = shape.get(1..).unwrap_or_default();
    let inner = product(inner_shape);
    let end = base.saturating_add(product(shape));
    let mut index = base;
    for element in list {
        if index >= end {
            return Err("too many values in an initializer".into());
        }
        if let Init::List(_) = element {
            if shape.is_empty() || inner == 0 || !(index - base).is_multiple_of(inner) {
                return Err("braces in an initializer do not follow the array dimensions".into());
            }
            place(element, inner_shape, index, visit)?;
            index = index.saturating_add(inner);
        } else {
            index = place(element, inner_shape, index, visit)?;
        }
    }
    Ok(index)
}

fn product(shape: &[u64]) -> u64 {
    shape.iter().fold(1, |n, d| n.saturating_mul(*d))
}

/// Checks the initializer of a variable against its dimensions and fills in the length of `x[]`.
pub(crate) fn complete(variable: &mut Variable) -> Result<(), String> {
    let Some(init) = &variable.init else { return Ok(()) };
    if variable.ty.is_opaque() {
        return Ok(());
    }
    let name = &variable.name;
    if !matches!(init, Init::List(_)) && !variable.dims.is_empty() {
        return Err(format!("array '{name}' needs an initializer in braces"));
    }
    let shape = shape(variable);
    let end = place(init, &shape, 0, &mut |_, value| match value {
        Init::Field(_) | Init::Word(_) => Err(format!("field in the initializer of '{name}'")),
        _ => Ok(()),
    })?;
    if let Some(first @ None) = variable.dims.first_mut() {
        let inner = product(&shape[1..]);
        if inner == 0 {
            return Err(format!("array '{name}' has elements of no size"));
        }
        *first = Some(end.div_ceil(inner));
    }
    Ok(())
}
