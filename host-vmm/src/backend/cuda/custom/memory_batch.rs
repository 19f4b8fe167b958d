//! The hand-written rows of `spec/memory_batch.rs`. Managed memory in the window needs neither moving nor discarding: both sides see it where it is.

use protocol::status::CuResult;

use crate::backend::cuda::CudaBackend;
use crate::backend::cuda::buffer::{Buffer, word};
use crate::generated::cuda_raw::Kind;
use crate::session::Call;

/// Ranges, and where they are to go.
struct Batch {
    addresses: Buffer,
    sizes: Buffer,
    count: u64,
    locations: Buffer,
    firsts: Buffer,
    location_count: u64,
}

fn words(buffer: &Buffer) -> impl Iterator<Item = u64> {
    buffer.bytes().as_chunks::<8>().0.iter().map(|word| u64::from_le_bytes(*word))
}

impl Batch {
    /// Has the driver do what does not concern the window; `by` calls it.
    fn run(mut self, cuda: &CudaBackend, by: impl Fn(&mut Batch) -> CuResult) -> CuResult {
        let in_window = |address: u64| cuda.session.window.offset(address).is_some();
        let ranges: Vec<(u64, u64)> = words(&self.addresses).zip(words(&self.sizes)).collect();
        if !ranges.iter().any(|(address, _)| in_window(*address)) {
            return by(&mut self);
        }
        let firsts: Vec<u64> = words(&self.firsts).collect();
        for (index, (address, size)) in ranges.into_iter().enumerate() {
            cuda.range(address, size)?;
            if in_window(address) {
                continue;
            }
            // The last location that begins at this range or before it.
            let location = firsts.iter().rposition(|first| *first <= index as u64);
            let location = location.map(|at| word(self.locations.bytes(), at * 8).to_le_bytes());
            let mut one = Batch {
                addresses: Buffer::new(Some(&address.to_le_bytes())),
                sizes: Buffer::new(Some(&size.to_le_bytes())),
                count: 1,
                locations: Buffer::new(location.as_ref().map(|bytes| &bytes[..])),
                firsts: Buffer::new(location.as_ref().map(|_| &[0; 8][..])),
                location_count: location.is_some().into(),
            };
            by(&mut one)?;
        }
        Ok(())
    }
}

pub fn cuMemPrefetchBatchAsync(
    cuda: &CudaBackend,
    _: &mut Call<'_>,
    addresses: Option<&[u8]>,
    sizes: Option<&[u8]>,
    count: u64,
    locations: Option<&[u8]>,
    firsts: Option<&[u8]>,
    location_count: u64,
    flags: u64,
    stream: u64,
) -> CuResult {
    let stream = cuda.inward(Kind::CUstream, stream)?;
    let batch = Batch {
        addresses: Buffer::new(addresses),
        sizes: Buffer::new(sizes),
        count,
        locations: Buffer::new(locations),
        firsts: Buffer::new(firsts),
        location_count,
    };
    batch.run(cuda, |batch| {
        // SAFETY: arrays of as many elements as the counts say (checked when the request was read), or NULL; the handle is the driver's.
        unsafe {
            cuda.raw().cuMemPrefetchBatchAsync(
                batch.addresses.as_mut_ptr(),
                batch.sizes.as_mut_ptr(),
                batch.count,
                batch.locations.as_mut_ptr(),
                batch.firsts.as_mut_ptr(),
                batch.location_count,
                flags,
                stream,
            )
        }
    })
}

pub fn cuMemDiscardBatchAsync(
    cuda: &CudaBackend,
    _: &mut Call<'_>,
    addresses: Option<&[u8]>,
    sizes: Option<&[u8]>,
    count: u64,
    flags: u64,
    stream: u64,
) -> CuResult {
    let stream = cuda.inward(Kind::CUstream, stream)?;
    let batch = Batch {
        addresses: Buffer::new(addresses),
        sizes: Buffer::new(sizes),
        count,
        locations: Buffer::new(None),
        firsts: Buffer::new(None),
        location_count: 0,
    };
    batch.run(cuda, |batch| {
        // SAFETY: as above.
        unsafe {
            cuda.raw().cuMemDiscardBatchAsync(
                batch.addresses.as_mut_ptr(),
                batch.sizes.as_mut_ptr(),
                batch.count,
                flags,
                stream,
            )
        }
    })
}

pub fn cuMemDiscardAndPrefetchBatchAsync(
    cuda: &CudaBackend,
    _: &mut Call<'_>,
    addresses: Option<&[u8]>,
    sizes: Option<&[u8]>,
    count: u64,
    locations: Option<&[u8]>,
    firsts: Option<&[u8]>,
    location_count: u64,
    flags: u64,
    stream: u64,
) -> CuResult {
    let stream = cuda.inward(Kind::CUstream, stream)?;
    let batch = Batch {
        addresses: Buffer::new(addresses),
        sizes: Buffer::new(sizes),
        count,
        locations: Buffer::new(locations),
        firsts: Buffer::new(firsts),
        location_count,
    };
    batch.run(cuda, |batch| {
        // SAFETY: as above.
        unsafe {
            cuda.raw().cuMemDiscardAndPrefetchBatchAsync(
                batch.addresses.as_mut_ptr(),
                batch.sizes.as_mut_ptr(),
                batch.count,
                batch.locations.as_mut_ptr(),
                batch.firsts.as_mut_ptr(),
                batch.location_count,
                flags,
                stream,
            )
        }
    })
}
