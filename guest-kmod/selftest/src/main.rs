//! First program of a test guest: loads the broker module, tries it out against `host-vmm`'s example `broker_endpoint`, and ends the machine.
//!
//! Prints `PASS name` or `FAIL name: why` for each case and `SELFTEST OK` in the end. Started as init; `BROKER_FUZZ=N` on the kernel's command line
//! sets the number of random calls, `BROKER_KILLS=N` how often a program is killed.
//!
//! With arguments it is a program of a guest whose host is the real daemon: [`hostile`], [`killed`].
#![allow(unsafe_code)] // Tries what safe code cannot: wrong pointers, wrong mappings, forked children.

mod agent;
mod fuzz;
mod hostile;
mod killed;
mod system;

use std::collections::VecDeque;
use std::os::fd::{AsFd, AsRawFd};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use guest_device::{Device, Error};

use agent::Agent;
use system::{Child, End, Mapping};

/// User that the cases run as.
const USER: u32 = 1000;

fn main() -> std::process::ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    if let Some((mode, rest)) = arguments.split_first()
        && mode == "hostile"
    {
        return killed::main(rest);
    }
    let result = run();
    if let Err(error) = &result {
        println!("FAIL: {error:#}");
    }
    println!("{}", if result.is_ok() { "SELFTEST OK" } else { "SELFTEST FAILED" });
    system::power_off();
}

fn number(name: &str, default: u64) -> u64 {
    std::env::var(name).ok().and_then(|text| text.parse().ok()).unwrap_or(default)
}

fn run() -> Result<()> {
    system::mount_all()?;
    system::load_modules()?;
    wait_for("the device", || Ok(Device::open().is_ok()))?;
    type Case = (&'static str, fn() -> Result<()>);
    let cases: [Case; 10] = [
        ("window", window),
        ("pinned", pinned),
        ("refused", refused),
        ("fork", fork),
        ("moved", moved),
        ("release", release),
        ("limits", limits),
        ("kill", kill),
        ("host-gone", host_gone),
        ("fuzz", fuzz::run),
    ];
    let mut failed = 0;
    for (name, case) in cases {
        let start = Instant::now();
        let end = Child::start(USER, case)?.wait()?;
        let ms = start.elapsed().as_millis();
        if end == End::Exit(0) {
            println!("PASS {name} ({ms} ms)");
        } else {
            failed += 1;
            println!("FAIL {name}: {end:?}");
        }
    }
    unload()?;
    println!("PASS unload");
    ensure!(failed == 0, "{failed} cases");
    Ok(())
}

/// Asks until the answer is yes.
fn wait_for(what: &str, mut ask: impl FnMut() -> Result<bool>) -> Result<()> {
    let deadline = Instant::now() + Duration::from_secs(30);
    while !ask()? {
        ensure!(Instant::now() < deadline, "no {what} after 30 s");
        std::thread::sleep(Duration::from_millis(20));
    }
    Ok(())
}

/// Word `i` of a pattern; the endpoint has the same function.
fn word(seed: u64, i: u64) -> u64 {
    (seed ^ i).wrapping_mul(0x9e37_79b9_7f4a_7c15)
}

fn fill(words: &mut [u64], seed: u64) {
    for (i, at) in words.iter_mut().enumerate() {
        *at = word(seed, i as u64);
    }
}

fn verify(words: &[u64], seed: u64) -> Result<()> {
    match words.iter().enumerate().find(|(i, at)| **at != word(seed, *i as u64)) {
        Some((i, at)) => bail!("word {i} is {at:#x}"),
        None => Ok(()),
    }
}

/// Both directions between this process's `words` and the host's view of a region.
fn both_ways(agent: &mut Agent, words: &mut [u64], region: u64, offset: u64, seed: u64) -> Result<()> {
    let bytes = size_of_val(words);
    fill(words, seed);
    agent.ask(&format!("check {region} {offset} {bytes} {seed}"))?;
    agent.ask(&format!("fill {region} {offset} {bytes} {}", seed + 1))?;
    verify(words, seed + 1)
}

fn window() -> Result<()> {
    let device = Device::open()?;
    let mut agent = Agent::of(&device)?;
    for (seed, len) in [(10, 4096usize), (20, 4 << 20), (30, (6 << 20) + 68 * 1024)] {
        let window = device.window(len)?;
        // SAFETY: the window is this process's; the host changes it only when asked.
        let words = unsafe { std::slice::from_raw_parts_mut(window.as_ptr().cast::<u64>(), len / 8) };
        ensure!(words.iter().all(|at| *at == 0), "a fresh window is not zero");
        both_ways(&mut agent, words, window.region(), 0, seed)?;
        let status = device.region_status(window.region())?;
        ensure!(status.state == 1 && status.region_len == len as u64, "{status:?}");
        println!("window of {} KiB: {} extents", len >> 10, status.extents);
        // It is ordinary memory for the kernel too.
        let (mut ends, mut back) = ([0; 2], [0u8; 64]);
        // SAFETY: the pipe's ends are written, `back` and the window are valid for 64 bytes.
        unsafe {
            ensure!(libc::pipe(ends.as_mut_ptr()) == 0, "pipe");
            ensure!(libc::write(ends[1], window.as_ptr().cast(), 64) == 64, "write from a window");
            ensure!(libc::read(ends[0], back.as_mut_ptr().cast(), 64) == 64, "read");
        }
        ensure!(back[..8] == word(seed + 1, 0).to_ne_bytes(), "bytes of the pipe");
        // And it can be pinned like any other.
        // SAFETY: as above.
        let pinned = unsafe { device.pin(window.as_ptr().wrapping_add(8), 8) }?;
        ensure!(pinned.offset_bytes() == 8 && pinned.region_bytes() == 4096, "{pinned:?}");
        agent.ask(&format!("fill {} 0 4096 5", pinned.region()))?;
        ensure!(words[3] == word(5, 3), "the pinned page of a window is another");
    }
    Ok(())
}

fn pinned() -> Result<()> {
    let device = Device::open()?;
    let mut agent = Agent::of(&device)?;
    for (seed, huge) in [(100, false), (200, true)] {
        let mut memory = Mapping::new(8 << 20, huge)?;
        fill(memory.words(), seed);
        // SAFETY: only the words below are looked at, and the host changes them only when asked.
        let pinned = unsafe { device.pin(memory.at, memory.len) }?;
        ensure!(pinned.offset_bytes() == 0 && pinned.region_bytes() == memory.len as u64);
        agent.ask(&format!("check {} 0 {} {seed}", pinned.region(), memory.len))?;
        both_ways(&mut agent, memory.words(), pinned.region(), 0, seed + 10)?;
        let status = device.region_status(pinned.region())?;
        // How many there are is the kernel's choice; each is one extent or a part of one.
        let huge_pages = memory.huge_pages()?;
        println!("8 MiB, {huge_pages} huge pages: {} extents", status.extents);
        ensure!(
            u64::from(status.extents) <= huge_pages + (2048 - 512 * huge_pages),
            "huge pages did not stay whole"
        );
        pinned.release()?;
        ensure!(device.status()?.waiting_bytes == 0 && device.status()?.live_bytes == 0);
    }
    // A range inside of two pages.
    let mut memory = Mapping::new(16384, false)?;
    // SAFETY: as above.
    let pinned = unsafe { device.pin(memory.at.wrapping_add(4088), 16) }?;
    ensure!((pinned.offset_bytes(), pinned.region_bytes()) == (4088, 8192));
    both_ways(&mut agent, &mut memory.words()[511..513], pinned.region(), 4088, 300)
}

fn expect<T: std::fmt::Debug>(what: &str, result: Result<T, Error>, errno: i32) -> Result<()> {
    match result {
        Err(error) if error.errno() == Some(errno) => Ok(()),
        other => bail!("{what}: {other:?}, not error {errno}"),
    }
}

fn refused() -> Result<()> {
    let (device, other) = (Device::open()?, Device::open()?);
    let mut agent = Agent::of(&device)?;
    let mut stranger = Agent::of(&other)?;
    let mut memory = Mapping::new(1 << 20, false)?;
    memory.words()[0] = 1;
    let at = memory.at;
    // SAFETY: none of these is to succeed.
    let pin = |at: *mut u8, len: usize| unsafe { device.pin(at, len) };
    expect("nothing", pin(at, 0), libc::EINVAL)?;
    expect("a range that wraps", pin(at, usize::MAX), libc::EINVAL)?;
    expect("a huge range", pin(at, 1 << 46), libc::E2BIG)?;
    expect("beyond the end", pin(at, (1 << 20) + (64 << 20)), libc::EFAULT)
        .or_else(|_| expect("beyond the end", pin(at, 80 << 20), libc::ENOMEM))?;
    expect("page 0", pin(std::ptr::null_mut(), 4096), libc::EFAULT)?;
    expect("the kernel's memory", pin(0xffff_8880_0010_0000usize as *mut u8, 4096), libc::EFAULT)?;
    // SAFETY: the range is this process's own.
    ensure!(unsafe { libc::mprotect(at.cast(), 4096, libc::PROT_READ) } == 0);
    expect("read-only memory", pin(at, 8192), libc::EFAULT)?;
    expect("program text", pin(refused as fn() -> Result<()> as *mut u8, 16), libc::EFAULT)?;
    expect("a window of 0", device.window(0), libc::EINVAL)?;
    expect("part of a page", device.window(100), libc::EINVAL)?;
    expect("a window beyond all limits", device.window(1 << 45), libc::E2BIG)?;
    expect("an unknown region", device.region_status(77), libc::ENOENT)?;

    let window = device.window(16384)?;
    expect("another session's region", other.region_status(window.region()), libc::ENOENT)?;
    ensure!(
        stranger.ask(&format!("check {} 0 8 1", window.region())).is_err(),
        "a region of another session is used"
    );
    ensure!(
        agent.ask(&format!("check {} 16384 8 1", window.region())).is_err(),
        "beyond the end of a region"
    );
    ensure!(agent.ask(&format!("check {} 0 8 1", window.region() + 1)).is_err(), "a region that is none");
    let offset = (window.region() & ((1 << 40) - 1)) << 12;
    let map = |device: &Device, offset: u64, len: usize, protection: i32, flags: i32| {
        let fd = device.as_fd().as_raw_fd();
        // SAFETY: anywhere.
        let at = unsafe { libc::mmap(std::ptr::null_mut(), len, protection, flags, fd, offset as i64) };
        at != libc::MAP_FAILED
    };
    let (rw, shared) = (libc::PROT_READ | libc::PROT_WRITE, libc::MAP_SHARED);
    ensure!(map(&device, offset, 8192, rw, shared), "the right mapping");
    for (what, wrong) in [
        ("private", map(&device, offset, 16384, rw, libc::MAP_PRIVATE)),
        ("longer", map(&device, offset, 20480, rw, shared)),
        ("executable", map(&device, offset, 16384, rw | libc::PROT_EXEC, shared)),
        ("inside", map(&device, offset + 4096, 4096, rw, shared)),
        ("offset 0", map(&device, 0, 4096, rw, shared)),
        ("another session's", map(&other, offset, 16384, rw, shared)),
    ] {
        ensure!(!wrong, "mapping: {what}");
    }
    // SAFETY: the window's own range.
    let executable =
        unsafe { libc::mprotect(window.as_ptr().cast(), 4096, libc::PROT_READ | libc::PROT_EXEC) };
    ensure!(executable != 0, "a window became executable");
    ensure!(Agent::of(&device).is_err(), "a cookie was taken twice");
    let pinned_window = device.window(4096)?;
    let pinned = pinned_window.region();
    drop(pinned_window);
    wait_for("release", || Ok(device.region_status(pinned).is_err()))
}

fn fork() -> Result<()> {
    let device = Device::open()?;
    let window = device.window(8192)?;
    // SAFETY: the window is this process's.
    unsafe { window.as_ptr().write(7) };
    let child = Child::start(0, || {
        expect("a child's call", device.status(), libc::EPERM)?;
        expect("a child's window", device.window(4096), libc::EPERM)
    })?;
    ensure!(child.wait()? == End::Exit(0), "the child has access");
    let at = window.as_ptr();
    let child = Child::start(0, || {
        // SAFETY: not mapped here: it is to fault.
        println!("read {}", unsafe { at.read_volatile() });
        Ok(())
    })?;
    ensure!(child.wait()? == End::Signal(libc::SIGSEGV), "the child has the window");
    // A child that keeps the descriptor does not keep the session.
    let region = window.region();
    let parent = Child::start(0, || {
        let device = Device::open()?;
        let window = device.window(1 << 20)?;
        let orphan = Child::start(0, || {
            std::thread::sleep(Duration::from_secs(20));
            Ok(())
        })?;
        std::mem::forget((orphan, window, device));
        Ok(())
    })?;
    ensure!(parent.wait()? == End::Exit(0));
    wait_for("end of a session whose descriptor lives on", || Ok(device.status()?.user_bytes == 8192))?;
    ensure!(device.region_status(region)?.state == 1);
    Ok(())
}

fn moved() -> Result<()> {
    let device = Device::open()?;
    let mut agent = Agent::of(&device)?;
    let len = 1usize << 20;
    let window = device.window(len)?;
    // SAFETY: the window's own range is moved, in part unmapped, and looked at where it is.
    unsafe {
        let moved =
            libc::mremap(window.as_ptr().cast(), len, len, libc::MREMAP_MAYMOVE | libc::MREMAP_DONTUNMAP);
        let moved = if moved == libc::MAP_FAILED {
            let place = Mapping::new(len, false)?;
            let to = place.at;
            std::mem::forget(place);
            libc::mremap(window.as_ptr().cast(), len, len, libc::MREMAP_MAYMOVE | libc::MREMAP_FIXED, to)
        } else {
            moved
        };
        ensure!(moved != libc::MAP_FAILED, "mremap: {}", std::io::Error::last_os_error());
        let words = std::slice::from_raw_parts_mut(moved.cast::<u64>(), len / 8);
        both_ways(&mut agent, words, window.region(), 0, 400)?;
        ensure!(libc::mremap(moved, len, 2 * len, libc::MREMAP_MAYMOVE) == libc::MAP_FAILED, "a window grew");
        ensure!(libc::munmap(moved.byte_add(4096), 8192) == 0);
        agent.ask(&format!("check {} 0 {len} 401", window.region()))?;
        // The program's pages outlive the region.
        let region = window.region();
        std::mem::forget(window);
        let mut release = guest_device::abi::Release { region, flags: 1 };
        let fd = device.as_fd().as_raw_fd();
        ensure!(libc::ioctl(fd, libc::Ioctl::from(guest_device::abi::RELEASE), &raw mut release) == 0);
        ensure!(words[0] == word(401, 0) && words[4096] == word(401, 4096));
        ensure!(device.status()?.user_bytes == len as u64, "mapped memory is not charged");
        ensure!(libc::munmap(moved, len) == 0);
        wait_for("the user's account", || Ok(device.status()?.user_bytes == 0))?;
    }
    // A pinned range that is unmapped stays as it was until it is released.
    let mut memory = Mapping::new(len, false)?;
    fill(memory.words(), 500);
    // SAFETY: nobody looks at it but the host.
    let pinned = unsafe { device.pin(memory.at, len) }?;
    drop(memory);
    churn(32 << 20)?;
    agent.ask(&format!("check {} 0 {len} 500", pinned.region()))?;
    pinned.release().context("release")
}

/// Takes and dirties memory, so that pages that were freed get another use.
fn churn(bytes: usize) -> Result<()> {
    let mut memory = Mapping::new(bytes, false)?;
    memory.words().iter_mut().for_each(|at| *at = !0);
    Ok(())
}

fn release() -> Result<()> {
    let device = Device::open()?;
    let mut agent = Agent::of(&device)?;
    let mut memory = Mapping::new(1 << 20, false)?;
    fill(memory.words(), 600);
    // SAFETY: the host only reads.
    let pinned = unsafe { device.pin(memory.at, memory.len) }?;
    let region = pinned.region();
    agent.ask(&format!("use {region}"))?;
    // The module was loaded with release_timeout_ms=1000.
    expect("a release while the host uses it", pinned.release(), libc::ETIMEDOUT)?;
    let status = device.region_status(region)?;
    ensure!(status.state == 2 && status.waiting_bytes == 1 << 20, "{status:?}");
    ensure!(
        agent.ask(&format!("check {region} 0 8 600")).is_err(),
        "a region that was given up is used anew"
    );
    agent.ask("drop")?;
    wait_for("the host's release", || Ok(device.status()?.waiting_bytes == 0))?;
    expect("a released region", device.region_status(region), libc::ENOENT)?;
    // The region is known to be gone a moment before its pages are back and the account is settled.
    wait_for("the user's account", || Ok(device.status()?.user_bytes == 0))
}

fn limits() -> Result<()> {
    let device = Device::open()?;
    let limit = device.info().process_limit_bytes;
    let mut held = VecDeque::new();
    let piece = (limit / 4) & !4095;
    for _ in 0..4 {
        held.push_back(device.window(piece as usize)?);
    }
    let error = device.window(limit as usize - 4 * piece as usize + 4096);
    expect("more than the process may have", error, libc::EDQUOT)?;
    let mut memory = Mapping::new(8192, false)?;
    memory.words()[0] = 1;
    let other = Device::open()?;
    // SAFETY: the host does not touch it.
    let error = unsafe { other.pin(memory.at, piece as usize) };
    expect("another session of the process", error, libc::EDQUOT)?;
    held.pop_front();
    wait_for("room", || Ok(device.window(4096).is_ok()))
}

/// Programs are killed at random moments while the host uses their memory.
fn kill() -> Result<()> {
    let watcher = Device::open()?;
    let kills = number("BROKER_KILLS", 10);
    for round in 0..kills {
        let name = format!("kill{round}");
        let (mut ready, mut tell) = pipe()?;
        let seed = 1000 + round;
        let child = Child::start(0, || {
            let device = Device::open()?;
            let mut agent = Agent::of(&device)?;
            let mut memory = Mapping::new(4 << 20, false)?;
            fill(memory.words(), seed);
            // SAFETY: the host only reads.
            let pinned = unsafe { device.pin(memory.at, memory.len) }?;
            let window = device.window(1 << 20)?;
            // SAFETY: the window is this process's.
            fill(unsafe { std::slice::from_raw_parts_mut(window.as_ptr().cast(), 1 << 17) }, seed);
            agent.ask(&format!("keep {name} {} {}", pinned.region(), window.region()))?;
            std::io::Write::write_all(&mut tell, b"x")?;
            // What it does when it is killed: pin, allocate, release.
            loop {
                let mut more = Mapping::new(1 << 20, false)?;
                more.words()[0] = 1;
                // SAFETY: the host does not touch it.
                let pinned = unsafe { device.pin(more.at, more.len) }?;
                drop(device.window(256 << 10)?);
                drop(pinned);
            }
        })?;
        std::io::Read::read_exact(&mut ready, &mut [0]).context("the child")?;
        std::thread::sleep(Duration::from_micros(round * 7919 % 20_000));
        child.kill();
        ensure!(child.wait()? == End::Signal(libc::SIGKILL));
        churn(48 << 20)?;
        let mut agent = Agent::connect()?;
        ensure!(watcher.status()?.user_bytes >= 5 << 20, "pages were given back while the host used them");
        agent.ask(&format!("kept {name} {seed}"))?;
        wait_for("return of all pages", || Ok(watcher.status()?.user_bytes == 0))?;
    }
    println!("{kills} programs killed");
    Ok(())
}

fn pipe() -> Result<(std::io::PipeReader, std::io::PipeWriter)> {
    std::io::pipe().context("pipe")
}

/// The daemon goes away while it uses memory, and comes back.
fn host_gone() -> Result<()> {
    let device = Device::open()?;
    let mut agent = Agent::of(&device)?;
    let mut memory = Mapping::new(2 << 20, false)?;
    fill(memory.words(), 700);
    // SAFETY: the host only reads.
    let pinned = unsafe { device.pin(memory.at, memory.len) }?;
    agent.ask(&format!("keep gone {}", pinned.region()))?;
    agent.ask("hangup")?;
    wait_for("error", || Ok(device.window(4096).is_err()))?;
    expect("a session without a host", device.window(4096), libc::ECONNRESET)?;
    let mut fresh = None;
    wait_for("new connection", || {
        fresh = Device::open().ok();
        Ok(fresh.is_some())
    })?;
    let fresh = fresh.context("a session")?;
    drop((pinned, device, memory));
    churn(32 << 20)?;
    // A window that the host was about to be told when it went is kept as well.
    ensure!(fresh.status()?.user_bytes >= 2 << 20, "pages were given back without the host's word");
    agent.ask("kept gone 700")?;
    wait_for("fence", || Ok(fresh.status()?.user_bytes == 0))?;
    drop(fresh.window(4096)?);
    Ok(())
}

/// The module cannot be unloaded while it is used, and can afterwards.
fn unload() -> Result<()> {
    let device = Device::open()?;
    ensure!(system::unload(c"cuda_broker") == Err(libc::EWOULDBLOCK), "unloaded while open");
    let mut agent = Agent::of(&device)?;
    let window = device.window(4096)?;
    agent.ask(&format!("keep last {}", window.region()))?;
    drop((window, device));
    std::thread::sleep(Duration::from_millis(200));
    ensure!(system::unload(c"cuda_broker") == Err(libc::EWOULDBLOCK), "unloaded while the host uses pages");
    agent.ask("kept last none")?;
    wait_for("end of use", || Ok(system::unload(c"cuda_broker").is_ok()))
}
