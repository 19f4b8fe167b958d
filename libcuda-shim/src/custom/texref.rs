#![allow(unsafe_code)]
//! Border colours of texture references: four floats behind a pointer. Unsafe because of that pointer.

use protocol::status::CuResult;

use crate::custom::context::require_init;
use crate::generated::wire;
use crate::pointer::{input, out};
use crate::types::*;

pub unsafe fn cuTexRefSetBorderColor(texref: CUtexref, color: *mut f32) -> CuResult {
    require_init()?;
    // SAFETY: the caller passes four floats, or NULL.
    let [red, green, blue, alpha] = *unsafe { input(color.cast::<[f32; 4]>()) }?;
    wire::texref_set_border_color(texref as u64, red, green, blue, alpha)
}

pub unsafe fn cuTexRefGetBorderColor(color: *mut f32, texref: CUtexref) -> CuResult {
    require_init()?;
    // SAFETY: the caller passes room for four floats, or NULL.
    let [red, green, blue, alpha] = unsafe { out(color.cast::<[f32; 4]>()) }?;
    wire::texref_get_border_color(texref as u64, Some(red), Some(green), Some(blue), Some(alpha))
}
