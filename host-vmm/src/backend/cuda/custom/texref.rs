//! The internal operations of `spec/texref.rs`.

use protocol::status::CuResult;

use crate::backend::cuda::CudaBackend;
use crate::generated::cuda_raw::Kind;
use crate::session::Call;

pub fn texref_set_border_color(
    cuda: &CudaBackend,
    _: &mut Call<'_>,
    texref: u64,
    red: f32,
    green: f32,
    blue: f32,
    alpha: f32,
) -> CuResult {
    let texref = cuda.inward(Kind::CUtexref, texref)?;
    let mut color = [red, green, blue, alpha];
    // SAFETY: four floats, as the driver expects; the handle is its own.
    unsafe { cuda.raw().cuTexRefSetBorderColor(texref, color.as_mut_ptr()) }
}

pub fn texref_get_border_color(
    cuda: &CudaBackend,
    _: &mut Call<'_>,
    texref: u64,
    red: Option<&mut f32>,
    green: Option<&mut f32>,
    blue: Option<&mut f32>,
    alpha: Option<&mut f32>,
) -> CuResult {
    let texref = cuda.inward(Kind::CUtexref, texref)?;
    let mut color = [0f32; 4];
    // SAFETY: as above.
    unsafe { cuda.raw().cuTexRefGetBorderColor(color.as_mut_ptr(), texref) }?;
    for (place, value) in [red, green, blue, alpha].into_iter().zip(color) {
        super::put(place, value)?;
    }
    Ok(())
}
