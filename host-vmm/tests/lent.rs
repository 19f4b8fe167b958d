//! Copies between the device and memory that programs of a machine lend, with both backends. The CUDA one has a few lines of C in the driver's place, which
//! carry a copy out no earlier than somebody waits for it: what is put in its way too early, or taken too early, is seen.

mod common;

use std::os::unix::fs::{FileExt as _, MetadataExt as _};

use common::Client;
use common::machine::{Machine, PAGE, Program, RAM};
use common::stand_in::StandIn;
use protocol::broker::Extent;
use protocol::{Status, ops};

const DRIVER: &str = r#"
#define _GNU_SOURCE
#include <string.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>
#define HAS(name) (access(DIR "/" name, F_OK) == 0)
typedef unsigned long long word;
static void *current;
static int context;
static struct copy { char *to, *from; size_t length; } copies[1 << 16];
static size_t queued, done, events, marks[1 << 16];
static void carry_out(size_t until) {
    for (; done < until; done++) memcpy(copies[done].to, copies[done].from, copies[done].length);
}
unsigned cuInit(unsigned flags) { return 0; }
unsigned cuDeviceGetCount(int *count) { *count = 1; return 0; }
unsigned cuDeviceGetAttribute(int *value, unsigned attribute, int device) {
    *value = attribute == 88 && HAS("pageable");
    return HAS("says-nothing") ? 1 : 0;
}
unsigned cuDevicePrimaryCtxRetain(void **out, int device) { *out = &context; return 0; }
unsigned cuDevicePrimaryCtxRelease_v2(int device) { return 0; }
unsigned cuCtxGetCurrent(void **out) { *out = current; return 0; }
unsigned cuCtxSetCurrent(void *to) { current = to; return 0; }
unsigned cuCtxGetDevice(int *device) { *device = 0; return 0; }
unsigned cuCtxSynchronize(void) { carry_out(queued); return 0; }
unsigned cuMemHostRegister_v2(void *p, size_t length, unsigned flags) { return 0; }
unsigned cuMemHostUnregister(void *p) { return 0; }
unsigned cuMemAlloc_v2(word *out, size_t length) {
    *out = (word)mmap(0, length, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    return 0;
}
unsigned cuMemFree_v2(word address) { return 0; }
unsigned cuMemcpyAsync(word to, word from, size_t length, void *stream) {
    if (HAS("fails")) return 700;
    if (queued == 1 << 16) abort();
    copies[queued++] = (struct copy){(char *)to, (char *)from, length};
    return 0;
}
unsigned cuEventCreate(word *event, unsigned flags) { if (HAS("no-events")) return 2; *event = ++events; return 0; }
unsigned cuEventRecord(word event, void *stream) { marks[event] = queued; return 0; }
unsigned cuEventQuery(word event) { return done >= marks[event] ? 0 : 600; }
unsigned cuEventSynchronize(word event) { carry_out(marks[event]); return 0; }
unsigned cuEventDestroy_v2(word event) { return 0; }
unsigned cuStreamSynchronize(void *stream) { carry_out(queued); return 0; }
unsigned cuThreadExchangeStreamCaptureMode(int *mode) { return 0; }
"#;

/// More than twice the staging area, and no multiple of anything.
const LEN: u64 = (9 << 20) + 12_345;

/// Bytes that do not repeat for a long time.
fn pattern(salt: u64) -> Vec<u8> {
    let word = |at: u64| (at ^ salt).wrapping_mul(0x9e37_79b9_7f4a_7c15).to_le_bytes();
    (0..LEN.div_ceil(8)).flat_map(word).take(LEN as usize).collect()
}

struct Setting {
    machine: Machine,
    program: Program,
    client: Client,
    device: u64,
}

/// A region of a program.
struct Region {
    number: u64,
    len: u64,
    extents: Vec<Extent>,
}

impl Setting {
    fn new(options: &[&str]) -> Self {
        let mut machine = Machine::start_with(options);
        let mut program = Program::connect(&mut machine, 1);
        let mut client = program.client(&mut machine);
        client.set_up();
        let device = client.alloc(LEN).unwrap();
        Self { machine, program, client, device }
    }

    /// In pieces of this length.
    fn region(&mut self, piece: u64) -> Region {
        let len = (LEN + PAGE).next_multiple_of(piece);
        let (number, extents) = self.machine.add_region(self.program.session, len, piece);
        Region { number, len, extents }
    }

    fn write(&self, region: &Region, offset: u64, bytes: &[u8]) {
        let mut all = self.read(region);
        all[offset as usize..][..bytes.len()].copy_from_slice(bytes);
        let mut rest = &all[..];
        for extent in &region.extents {
            let (part, more) = rest.split_at(extent.len as usize);
            self.machine.ram.write_all_at(part, extent.gpa).unwrap();
            rest = more;
        }
    }

    fn read(&self, region: &Region) -> Vec<u8> {
        let piece = |extent: &Extent| {
            let mut bytes = vec![0; extent.len as usize];
            self.machine.ram.read_exact_at(&mut bytes, extent.gpa).unwrap();
            bytes
        };
        region.extents.iter().flat_map(piece).collect()
    }

    fn lend(&mut self, op: u16, at: u64, region: &Region, offset: u64, len: u64) -> Result<(), Status> {
        let words = [self.device + at, region.number, region.len, offset, len, 0];
        self.client.call(op, |w| words.into_iter().for_each(|word| w.u64(word))).map(drop)
    }
}

/// Whether the worker has the machine's memory mapped as a whole.
fn whole(setting: &Setting) -> bool {
    let inode = setting.machine.ram.metadata().unwrap().ino().to_string();
    let [worker] = setting.machine.daemon.workers()[..] else { panic!("one program, one worker") };
    let maps = std::fs::read_to_string(format!("/proc/{worker}/maps")).unwrap();
    let length = |range: &str| {
        let (start, end) = range.split_once('-').unwrap();
        u64::from_str_radix(end, 16).unwrap() - u64::from_str_radix(start, 16).unwrap()
    };
    maps.lines().any(|line| {
        let fields: Vec<&str> = line.split_whitespace().collect();
        fields[4] == inode && length(fields[0]) == RAM
    })
}

fn copies_arrive(setting: &mut Setting) {
    for (round, piece) in [PAGE, 1 << 20, 64 << 10].into_iter().enumerate() {
        let (from, to) = (setting.region(piece), setting.region(piece));
        let bytes = pattern(round as u64);
        for offset in [0, 1, PAGE - 1] {
            setting.write(&from, offset, &bytes);
            setting.lend(ops::lent_in, 0, &from, offset, LEN).unwrap();
            // All, and again some of it; around it everything stays.
            let mut expected = setting.read(&to);
            setting.lend(ops::lent_out, 0, &to, offset, LEN).unwrap();
            expected[offset as usize..][..LEN as usize].copy_from_slice(&bytes);
            assert!(setting.read(&to) == expected, "{piece} {offset}");
            let (start, len) = (777_777, 2_222_222);
            setting.lend(ops::lent_out, start, &to, 5, len).unwrap();
            expected[5..][..len as usize].copy_from_slice(&bytes[start as usize..][..len as usize]);
            assert!(setting.read(&to) == expected, "{piece} {offset}");
        }
        setting.lend(ops::lent_in, 0, &from, 0, 0).unwrap();
    }
}

#[test]
fn on_the_cpu() {
    let mut setting = Setting::new(&[]);
    copies_arrive(&mut setting);
    // It runs code that is made from the program's.
    assert!(!whole(&setting));
}

fn with_driver(driver: &StandIn) -> Setting {
    Setting::new(&["--backend", "cuda", "--libcuda", driver.library().to_str().unwrap()])
}

#[test]
fn with_a_driver() {
    let mut setting = with_driver(&StandIn::new(DRIVER));
    assert!(!whole(&setting));
    copies_arrive(&mut setting);
    assert!(whole(&setting));
}

#[test]
fn with_a_device_that_reaches_pageable_memory() {
    for mood in ["pageable", "says-nothing"] {
        let driver = StandIn::new(DRIVER);
        driver.set(mood);
        let mut setting = with_driver(&driver);
        copies_arrive(&mut setting);
        assert!(!whole(&setting), "{mood}");
    }
}

#[test]
fn with_a_driver_that_has_no_events() {
    let driver = StandIn::new(DRIVER);
    driver.set("no-events");
    copies_arrive(&mut with_driver(&driver));
}

#[test]
fn a_copy_that_fails_harms_no_other() {
    let driver = StandIn::new(DRIVER);
    let mut setting = with_driver(&driver);
    let region = setting.region(PAGE);
    driver.set("fails");
    for op in [ops::lent_in, ops::lent_out] {
        assert_eq!(setting.lend(op, 0, &region, 0, LEN), Err(Status(700)));
    }
    driver.unset("fails");
    copies_arrive(&mut setting);
}

/// Registers a region at an address of the program: where it is in the window, and whether the device has it at that address, too.
fn register(setting: &mut Setting, address: u64, region: &Region) -> Result<(u64, bool), Status> {
    let words = [address, region.number, region.len, 0, 1, 1];
    let reply =
        setting.client.call(ops::registered_lend, |w| words.into_iter().for_each(|word| w.u64(word)))?;
    let word = |at: usize| u64::from_le_bytes(*reply[at..].first_chunk().unwrap());
    Ok((word(0), word(8) & 0xffff_ffff != 0))
}

fn unregister(setting: &mut Setting, window: u64) -> Result<(), Status> {
    setting.client.call(ops::registered_unmap, |w| w.u64(window)).map(drop)
}

/// Where no process has anything.
const ADDRESS: u64 = 0x1234_5678_9000;

fn registered_memory_is_the_programs_own(setting: &mut Setting, aliases: bool) {
    let (region, other) = (setting.region(PAGE), setting.region(64 << 10));
    setting.write(&region, 0, &pattern(1));
    let (window, aliased) = register(setting, ADDRESS, &region).unwrap();
    assert_eq!(aliased, aliases);
    // Copies within what the device has, in place.
    let device = setting.device;
    assert!(setting.client.copy_out(window + 5, 1000).unwrap() == pattern(1)[5..1005]);
    setting.client.post(ops::copy, |w| [device, window, LEN, 0].into_iter().for_each(|word| w.u64(word)));
    setting
        .client
        .post(ops::copy, |w| [window + PAGE, device, LEN - PAGE, 0].into_iter().for_each(|word| w.u64(word)));
    setting.client.synchronize().unwrap();
    assert!(setting.read(&region)[PAGE as usize..LEN as usize] == pattern(1)[..(LEN - PAGE) as usize]);
    // At the program's address, where the device has it.
    let beyond = region.len - 1;
    for (at, len, right) in [(0, 1000, true), (777, 5000, true), (beyond, 1, true), (beyond, 2, false)] {
        let copied = setting.client.copy_out(ADDRESS + at, len);
        assert_eq!(copied.is_ok(), aliases && right, "{len} bytes at {at}");
        if let Ok(bytes) = copied {
            assert!(bytes == setting.read(&region)[at as usize..][..len as usize]);
        }
    }
    // In use: neither again, nor lent, and not at an address that is taken.
    assert_eq!(register(setting, ADDRESS + (1 << 30), &region), Err(Status::INVALID_VALUE));
    assert_eq!(setting.lend(ops::lent_in, 0, &region, 0, LEN), Err(Status::INVALID_VALUE));
    let (second, aliased) = register(setting, ADDRESS, &other).unwrap();
    assert!(!aliased && second != window);
    // What is not registered memory cannot be given back as such.
    for address in [window + PAGE, device, 0] {
        assert_eq!(unregister(setting, address), Err(Status::INVALID_VALUE));
    }
    unregister(setting, window).unwrap();
    assert_eq!(unregister(setting, window), Err(Status::INVALID_VALUE));
    assert!(setting.client.copy_out(ADDRESS, 8).is_err());
    if !aliases {
        // A driver finds out by itself; the stand-in does not.
        assert!(setting.client.copy_out(window, 8).is_err());
    }
    assert!(setting.client.copy_out(second, 8).is_ok());
    // Free for other uses, the address as well.
    setting.lend(ops::lent_in, 0, &region, 0, LEN).unwrap();
    let (window, aliased) = register(setting, ADDRESS, &region).unwrap();
    assert_eq!(aliased, aliases);
    unregister(setting, window).unwrap();
    unregister(setting, second).unwrap();
    let unknown = Region { number: region.number + 1000, len: region.len, extents: Vec::new() };
    let longer = Region { len: region.len + PAGE, ..region };
    for wrong in [unknown, longer] {
        assert_eq!(register(setting, ADDRESS, &wrong), Err(Status::INVALID_VALUE));
    }
}

#[test]
fn registered_memory_on_the_cpu() {
    registered_memory_is_the_programs_own(&mut Setting::new(&[]), false);
}

#[test]
fn registered_memory_with_a_driver() {
    registered_memory_is_the_programs_own(&mut with_driver(&StandIn::new(DRIVER)), true);
}
