//! Random calls of the device, from several processes, some of which end in the middle.

use std::os::fd::{AsFd, AsRawFd};
use std::time::Instant;

use anyhow::{Result, ensure};
use guest_device::{Device, abi};

use crate::system::{Child, End, Mapping};
use crate::{number, wait_for};

/// xorshift: the same calls every time.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    fn pick<T: Copy>(&mut self, from: &[T]) -> T {
        from[(self.next() % from.len() as u64) as usize]
    }
}

/// `BROKER_FUZZ` calls in all.
pub fn run() -> Result<()> {
    let watcher = Device::open()?;
    let calls = number("BROKER_FUZZ", 20_000);
    let processes = 4;
    let start = Instant::now();
    for round in 0..2 {
        let children: Result<Vec<Child>> = (0..processes)
            .map(|i| Child::start(0, move || process(1 + round * 100 + i, calls / processes / 2)))
            .collect();
        for child in children? {
            ensure!(child.wait()? == End::Exit(0));
        }
    }
    println!("{calls} random calls in {} ms", start.elapsed().as_millis());
    wait_for("return of all pages", || Ok(watcher.status()?.user_bytes == 0))
}

/// Memory of a process that calls may name.
const MEMORY: usize = 256 << 10;

fn process(seed: u64, calls: u64) -> Result<()> {
    let mut random = Random(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1);
    let mut device = Device::open()?;
    // Addresses behind it are used, too: nothing of the program's own may be there.
    let mut memory = Mapping::guarded(MEMORY)?;
    memory.words()[0] = 1;
    let mut regions = [0u64; 16];
    let mut succeeded = 0u64;
    for call in 0..calls {
        if random.next().is_multiple_of(1000) {
            device = Device::open()?;
        }
        let fd = device.as_fd().as_raw_fd();
        let mut words = [0u64; 9];
        for word in &mut words {
            *word = match random.next() % 8 {
                0 => random.next(),
                1 => random.next() >> (random.next() % 64),
                2 => memory.at as u64 + random.next() % (MEMORY as u64 + (44 << 10)),
                3 => (random.next() % 32) << 12,
                4 => random.pick(&regions),
                5 => random.pick(&[u64::MAX, 1 << 63, 4096, !4095, 1 << 47, 0xffff_8880_0000_0000]),
                _ => 0,
            };
        }
        let op = match random.next() % 12 {
            0 => abi::INFO,
            1 | 2 => abi::ALLOC_WINDOW,
            3 | 4 => abi::PIN,
            5 | 6 => abi::RELEASE,
            7 => abi::STATUS,
            8 => abi::PIN ^ (1 << (random.next() % 32)),
            9 => (u32::from(abi::MAGIC) << 8) | (random.next() as u32 & 0xffff_00ff),
            10 => {
                let offset = if random.next().is_multiple_of(2) {
                    (random.pick(&regions) & ((1 << 40) - 1)) << 12
                } else {
                    words[0] & !4095
                };
                let flags = random.pick(&[libc::MAP_SHARED, libc::MAP_SHARED, libc::MAP_PRIVATE]);
                let len = (1 + random.next() % 40) as usize * 4096;
                // SAFETY: anywhere; what is mapped is unmapped again.
                unsafe {
                    let at = libc::mmap(std::ptr::null_mut(), len, 3, flags, fd, offset as i64);
                    if at != libc::MAP_FAILED {
                        at.cast::<u64>().write(call);
                        if !random.next().is_multiple_of(4) {
                            libc::munmap(at, len);
                        } else {
                            let half = (len / 2) & !4095;
                            libc::munmap(at.byte_add(half), len - half);
                            libc::munmap(at, len);
                        }
                        succeeded += 1;
                    }
                }
                continue;
            }
            // SAFETY: the range is this process's own.
            _ => unsafe {
                let at = memory.at.add(random.next() as usize % MEMORY / 4096 * 4096);
                libc::madvise(at.cast(), 4096, libc::MADV_DONTNEED);
                continue;
            },
        };
        // A valid call now and then: small sizes, known flags.
        if random.next().is_multiple_of(2) {
            match op {
                abi::ALLOC_WINDOW => (words[0], words[1]) = ((1 + random.next() % 16) << 12, 0),
                abi::PIN => {
                    (words[0], words[1], words[2]) =
                        (memory.at as u64 + random.next() % 4096, random.next() % (64 << 10), 0)
                }
                abi::RELEASE => (words[0], words[1]) = (random.pick(&regions), random.next() % 2),
                _ => {}
            }
        }
        let argument = match random.next() % 16 {
            0 => words[8],
            _ => words.as_mut_ptr() as u64,
        };
        // SAFETY: whatever the argument is, the kernel checks it; it may write at most this process's `words` or `memory`, or fault.
        let result = unsafe { libc::ioctl(fd, libc::Ioctl::from(op), argument) };
        if result == 0 {
            succeeded += 1;
            let slot = (random.next() % 16) as usize;
            match op {
                abi::ALLOC_WINDOW => regions[slot] = words[2],
                abi::PIN => regions[slot] = words[3],
                _ => {}
            }
        }
    }
    ensure!(calls < 1000 || succeeded > calls / 50, "only {succeeded} of {calls} calls succeeded");
    Ok(())
}
