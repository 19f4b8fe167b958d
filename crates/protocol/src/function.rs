//! What the guest remembers of a kernel: its attributes and the layout of its parameters.
//!
//! The body of `function_info`'s data block. `handle`, the name as a block, then all in u64 words: number of attributes, the attributes (i32, indexed by
//! `CUfunction_attribute`), number of parameters, then per parameter its offset and size in bytes.

use alloc::vec::Vec;

use crate::wire::{Reader, WireError, Writer};

/// Place of one kernel parameter in the parameter buffer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Param {
    pub offset: u32,
    pub size: u32,
}

/// Attributes and parameter layout of a kernel.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct FunctionInfo {
    /// The handle of the function that the information is about.
    pub handle: u64,
    /// Name in the module, without NUL; UTF-8 by habit only.
    pub name: Vec<u8>,
    /// Values by `CUfunction_attribute`; what lies beyond the list is 0.
    pub attributes: Vec<i32>,
    /// In order of declaration.
    pub params: Vec<Param>,
}

impl FunctionInfo {
    /// `CU_FUNC_ATTRIBUTE_MAX_THREADS_PER_BLOCK`
    pub const MAX_THREADS_PER_BLOCK: usize = 0;
    /// `CU_FUNC_ATTRIBUTE_SHARED_SIZE_BYTES`: static shared memory.
    pub const SHARED_SIZE_BYTES: usize = 1;
    /// `CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES`
    pub const MAX_DYNAMIC_SHARED_SIZE_BYTES: usize = 8;

    /// Longest mangled name that is accepted, in bytes.
    pub const MAX_NAME_LEN: usize = 16 << 10;
    /// Most attributes that are accepted; the driver has 16.
    pub const MAX_ATTRIBUTES: usize = 64;
    /// Most parameters that are accepted: one byte each of the largest parameter buffer.
    pub const MAX_PARAMS: usize = 32_764;
    /// Largest parameter buffer of a kernel, in bytes.
    pub const MAX_PARAMS_LEN: usize = 32_764;

    /// An attribute's value.
    pub fn attribute(&self, index: usize) -> i32 {
        self.attributes.get(index).copied().unwrap_or(0)
    }

    /// Bytes of the parameter buffer.
    pub fn params_len(&self) -> usize {
        self.params.iter().map(|p| p.offset as usize + p.size as usize).max().unwrap_or(0)
    }

    pub fn encode(&self, w: &mut Writer<'_>) {
        w.u64(self.handle);
        w.bytes(Some(&self.name));
        w.u64(self.attributes.len() as u64);
        for value in &self.attributes {
            w.i32(*value);
        }
        w.u64(self.params.len() as u64);
        for param in &self.params {
            w.u32(param.offset);
            w.u32(param.size);
        }
    }

    /// Decodes and checks a block: counts within their limits, every parameter inside the largest buffer.
    pub fn decode(r: &mut Reader<'_>) -> Result<FunctionInfo, WireError> {
        let handle = r.u64()?;
        let name = r.bytes(Self::MAX_NAME_LEN)?.unwrap_or_default().to_vec();
        let count = limited(r, Self::MAX_ATTRIBUTES)?;
        let attributes = (0..count).map(|_| r.i32()).collect::<Result<_, _>>()?;
        let count = limited(r, Self::MAX_PARAMS)?;
        let params = (0..count)
            .map(|_| {
                let at = r.position();
                let param = Param { offset: r.u32()?, size: r.u32()? };
                match param.offset.checked_add(param.size) {
                    Some(end) if end as usize <= Self::MAX_PARAMS_LEN => Ok(param),
                    _ => Err(WireError::Range { at, value: u64::from(param.offset) }),
                }
            })
            .collect::<Result<_, _>>()?;
        Ok(FunctionInfo { handle, name, attributes, params })
    }
}

fn limited(r: &mut Reader<'_>, max: usize) -> Result<usize, WireError> {
    let at = r.position();
    let value = r.u64()?;
    usize::try_from(value).ok().filter(|count| *count <= max).ok_or(WireError::Range { at, value })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn what_is_encoded_is_decoded(
            handle: u64,
            name: Vec<u8>,
            attributes in proptest::collection::vec(any::<i32>(), 0..17),
            params in proptest::collection::vec((0u32..4000, 0u32..256), 0..20),
        ) {
            let params = params.into_iter().map(|(offset, size)| Param { offset, size }).collect();
            let info = FunctionInfo { handle, name, attributes, params };
            let mut buffer = Vec::new();
            info.encode(&mut Writer::new(&mut buffer));
            let mut reader = Reader::new(&buffer);
            prop_assert_eq!(FunctionInfo::decode(&mut reader).unwrap(), info);
            reader.finish().unwrap();
        }

        #[test]
        fn any_bytes_are_refused_or_within_the_limits(words in proptest::collection::vec(any::<u64>(), 0..40)) {
            let bytes: Vec<u8> = words.iter().flat_map(|word| word.to_le_bytes()).collect();
            if let Ok(info) = FunctionInfo::decode(&mut Reader::new(&bytes)) {
                prop_assert!(info.params_len() <= FunctionInfo::MAX_PARAMS_LEN);
            }
        }
    }
}
