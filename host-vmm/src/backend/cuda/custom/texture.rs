//! The rows of `spec/texture.rs`: the program holds the driver's own numbers, of which only those that it was given are passed on.

use protocol::status::{CuResult, Status};

use crate::backend::cuda::buffer::{Buffer, out};
use crate::backend::cuda::objects::Numbers;
use crate::backend::cuda::{CudaBackend, translate};
use crate::session::Call;

/// There is a limit on handles; objects that are numbers have the same.
fn room(cuda: &CudaBackend, numbers: &Numbers) -> CuResult {
    let limit = cuda.session.config.limits.handles as usize;
    if numbers.count() < limit { Ok(()) } else { Err(Status::OUT_OF_MEMORY) }
}

fn resource(cuda: &CudaBackend, desc: Option<&[u8; 144]>) -> CuResult<Buffer> {
    let mut desc = Buffer::new(desc.map(|bytes| &bytes[..]));
    desc.each(|bytes| translate::inward_CUDA_RESOURCE_DESC(cuda, bytes))?;
    Ok(desc)
}

pub fn cuTexObjectCreate(
    cuda: &CudaBackend,
    _: &mut Call<'_>,
    texture: Option<&mut u64>,
    resource_desc: Option<&[u8; 144]>,
    texture_desc: Option<&[u8; 104]>,
    view: Option<&[u8; 112]>,
) -> CuResult {
    room(cuda, &cuda.objects.textures)?;
    let resource_desc = resource(cuda, resource_desc)?;
    let texture_desc = Buffer::new(texture_desc.map(|bytes| &bytes[..]));
    let view = Buffer::new(view.map(|bytes| &bytes[..]));
    let mut number = 0;
    // SAFETY: the structures are as the driver expects them, or NULL; the output is a variable of the right type, or NULL.
    unsafe {
        cuda.raw().cuTexObjectCreate(
            out(texture.is_some(), &mut number),
            resource_desc.as_ptr(),
            texture_desc.as_ptr(),
            view.as_ptr(),
        )
    }?;
    cuda.objects.textures.enter(number);
    super::put(texture, number)
}

pub fn cuTexObjectDestroy(cuda: &CudaBackend, _: &mut Call<'_>, texture: u64) -> CuResult {
    end(&cuda.objects.textures, texture, |texture| {
        // SAFETY: takes a number that the driver has given.
        unsafe { cuda.raw().cuTexObjectDestroy(texture) }
    })
}

fn end(numbers: &Numbers, number: u64, destroy: impl FnOnce(u64) -> CuResult) -> CuResult {
    // As with free().
    if number == 0 {
        return Ok(());
    }
    if !numbers.leave(number) {
        return Err(Status::INVALID_VALUE);
    }
    let result = destroy(number);
    if result.is_err() {
        numbers.enter(number);
    }
    result
}

pub fn cuTexObjectGetResourceDesc(
    cuda: &CudaBackend,
    call: &mut Call<'_>,
    desc: Option<&mut [u8; 144]>,
    texture: u64,
) -> CuResult {
    cuda.objects.textures.check(texture)?;
    let mut buffer = Buffer::new(desc.as_ref().map(|bytes| &bytes[..]));
    // SAFETY: the output has the structure's size, or is NULL; the number is the driver's.
    unsafe { cuda.raw().cuTexObjectGetResourceDesc(buffer.as_mut_ptr(), texture) }?;
    buffer.each(|bytes| translate::outward_CUDA_RESOURCE_DESC(cuda, call, bytes))?;
    buffer.give(desc.map(|bytes| &mut bytes[..]));
    Ok(())
}

pub fn cuTexObjectGetTextureDesc(
    cuda: &CudaBackend,
    _: &mut Call<'_>,
    desc: Option<&mut [u8; 104]>,
    texture: u64,
) -> CuResult {
    cuda.objects.textures.check(texture)?;
    let mut buffer = Buffer::new(desc.as_ref().map(|bytes| &bytes[..]));
    // SAFETY: as above.
    unsafe { cuda.raw().cuTexObjectGetTextureDesc(buffer.as_mut_ptr(), texture) }?;
    buffer.give(desc.map(|bytes| &mut bytes[..]));
    Ok(())
}

pub fn cuTexObjectGetResourceViewDesc(
    cuda: &CudaBackend,
    _: &mut Call<'_>,
    desc: Option<&mut [u8; 112]>,
    texture: u64,
) -> CuResult {
    cuda.objects.textures.check(texture)?;
    let mut buffer = Buffer::new(desc.as_ref().map(|bytes| &bytes[..]));
    // SAFETY: as above.
    unsafe { cuda.raw().cuTexObjectGetResourceViewDesc(buffer.as_mut_ptr(), texture) }?;
    buffer.give(desc.map(|bytes| &mut bytes[..]));
    Ok(())
}

pub fn cuSurfObjectCreate(
    cuda: &CudaBackend,
    _: &mut Call<'_>,
    surface: Option<&mut u64>,
    resource_desc: Option<&[u8; 144]>,
) -> CuResult {
    room(cuda, &cuda.objects.surfaces)?;
    let resource_desc = resource(cuda, resource_desc)?;
    let mut number = 0;
    // SAFETY: the structure is as the driver expects it, or NULL; the output is a variable of the right type, or NULL.
    unsafe { cuda.raw().cuSurfObjectCreate(out(surface.is_some(), &mut number), resource_desc.as_ptr()) }?;
    cuda.objects.surfaces.enter(number);
    super::put(surface, number)
}

pub fn cuSurfObjectDestroy(cuda: &CudaBackend, _: &mut Call<'_>, surface: u64) -> CuResult {
    end(&cuda.objects.surfaces, surface, |surface| {
        // SAFETY: takes a number that the driver has given.
        unsafe { cuda.raw().cuSurfObjectDestroy(surface) }
    })
}

pub fn cuSurfObjectGetResourceDesc(
    cuda: &CudaBackend,
    call: &mut Call<'_>,
    desc: Option<&mut [u8; 144]>,
    surface: u64,
) -> CuResult {
    cuda.objects.surfaces.check(surface)?;
    let mut buffer = Buffer::new(desc.as_ref().map(|bytes| &bytes[..]));
    // SAFETY: as above.
    unsafe { cuda.raw().cuSurfObjectGetResourceDesc(buffer.as_mut_ptr(), surface) }?;
    buffer.each(|bytes| translate::outward_CUDA_RESOURCE_DESC(cuda, call, bytes))?;
    buffer.give(desc.map(|bytes| &mut bytes[..]));
    Ok(())
}
