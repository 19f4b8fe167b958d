#![allow(unsafe_code)] // Maps memory at given addresses.
//! Where the driver puts its addresses.
//!
//! The program reserves the session's region, whose lower half is for device memory. NVIDIA's driver takes addresses from the kernel, which gives the
//! highest free ones; so before it is initialised all others from 2 TiB upwards are taken away, and it finds the lower half alone. (Measured with
//! driver 580: what it wants below 2 TiB must stay free, or cuInit fails.) What it reserves below is found in the process's map afterwards and told to
//! the program, which reserves it as well. All other memory that the worker maps later also comes from the lower half: an address there
//! says nothing by itself, see [`super::memory`]. What holds more than this session's memory is put where addresses were taken away ([`Space::set_aside`]).

use std::ops::Range;
use std::sync::{Mutex, MutexGuard, PoisonError, RwLock};

use protocol::region::Region;
use rustix::mm::{MapFlags, ProtFlags, mmap_anonymous};
use transport::Reservation;

/// From here on every address that is free and not the region's is taken away.
const FILL_FROM: u64 = 1 << 41;
/// The end of the addresses of a process (47 bits, less a page).
const FILL_TO: u64 = 0x7fff_ffff_f000;
/// Holes shorter than this stay: no allocation of device memory fits.
const SMALL_HOLE: u64 = 1 << 20;
/// What stays free below the main thread's stack. The kernel maps nothing there by itself.
const STACK_ROOM: u64 = 64 << 20;

/// Neighbours with less than this between them are told as one range.
const NEAR: u64 = 32 << 20;
/// Ranges begin and end at multiples of this.
const GRANULE: u64 = 2 << 20;
/// In the nested set-up a new reservation of this length is the other session's region.
const LARGE: u64 = 256 << 20;

/// One line of `/proc/self/maps`.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Mapping {
    range: Range<u64>,
    /// No access at all.
    none: bool,
    path: String,
}

fn mappings() -> Vec<Mapping> {
    parse(&std::fs::read_to_string("/proc/self/maps").unwrap_or_default())
}

fn parse(maps: &str) -> Vec<Mapping> {
    let line = |line: &str| {
        let mut fields = line.split_whitespace();
        let (start, end) = fields.next()?.split_once('-')?;
        let range = u64::from_str_radix(start, 16).ok()?..u64::from_str_radix(end, 16).ok()?;
        let none = fields.next()?.starts_with("---");
        let path = fields.nth(3).unwrap_or_default().to_owned();
        Some(Mapping { range, none, path })
    };
    maps.lines().filter_map(line).collect()
}

/// The parts of `range` that none of `taken` (sorted) covers.
fn without(range: Range<u64>, taken: &[Range<u64>]) -> Vec<Range<u64>> {
    let mut parts = Vec::new();
    let mut start = range.start;
    for other in taken.iter().filter(|other| other.start < range.end && range.start < other.end) {
        if start < other.start {
            parts.push(start..other.start);
        }
        start = start.max(other.end);
    }
    if start < range.end {
        parts.push(start..range.end);
    }
    parts
}

/// Joins neighbours (sorted) and rounds them outwards.
fn coalesce(ranges: impl IntoIterator<Item = Range<u64>>) -> Vec<Range<u64>> {
    let mut joined: Vec<Range<u64>> = Vec::new();
    for range in ranges {
        let (start, end) = (range.start & !(GRANULE - 1), range.end.next_multiple_of(GRANULE));
        match joined.last_mut() {
            Some(last) if start <= last.end.saturating_add(NEAR) => last.end = last.end.max(end),
            _ => joined.push(start..end),
        }
    }
    joined
}

/// The region, set aside.
pub struct Reserved {
    window: Reservation,
    device: Reservation,
}

impl Reserved {
    /// # Errors
    /// Something is mapped there.
    pub fn new(region: Region) -> Result<Self, transport::Error> {
        let (device, window) = (region.device_range(), region.window_range());
        Ok(Self {
            window: Reservation::new(window.start, window.end - window.start)?,
            device: Reservation::new(device.start, device.end - device.start)?,
        })
    }

    /// The half for the window.
    pub fn window(&self) -> &Reservation {
        &self.window
    }

    /// Keeps the window's half for the life of the process.
    pub fn leak_window(self) -> Home {
        self.window.leak();
        Home { device: self.device }
    }

    /// The half for device memory and the one for the window.
    pub fn split(self) -> (Home, Reservation) {
        (Home { device: self.device }, self.window)
    }
}

/// The half of the region for device memory, set aside.
pub struct Home {
    device: Reservation,
}

/// The addresses of the driver in this process.
pub struct Space {
    /// What was mapped before the driver came, sorted.
    before: Vec<Range<u64>>,
    /// The half of the region that the driver was made to use.
    home: Option<Range<u64>>,
    /// Found outside of it.
    outside: RwLock<Vec<Range<u64>>>,
    /// Memory of graphs outside of it, which the driver has at addresses that it does not reserve in the process.
    graphs: RwLock<Vec<Range<u64>>>,
    /// What was taken away from the driver.
    taken: Mutex<Taken>,
}

/// Addresses that were taken away: inaccessible mappings of this process.
#[derive(Default)]
struct Taken {
    holes: Vec<Range<u64>>,
    /// The rest of the longest hole, of which the beginning has been set aside.
    spare: Range<u64>,
    /// In use at addresses that the program has chosen.
    claimed: Vec<Range<u64>>,
}

fn overlap(one: &Range<u64>, other: &Range<u64>) -> bool {
    one.start < other.end && other.start < one.end
}

impl Taken {
    fn set_aside(&mut self, len: u64, align: u64) -> Option<u64> {
        let mut start = self.spare.start.checked_next_multiple_of(align)?;
        loop {
            let end = start.checked_add(len).filter(|end| *end <= self.spare.end)?;
            match self.claimed.iter().find(|claimed| overlap(claimed, &(start..end))) {
                Some(claimed) => start = claimed.end.checked_next_multiple_of(align)?,
                None => {
                    self.spare.start = end;
                    return Some(start);
                }
            }
        }
    }

    fn claim(&mut self, range: Range<u64>) -> bool {
        let Some(hole) = self.holes.iter().find(|hole| hole.start <= range.start && range.end <= hole.end)
        else {
            return false;
        };
        let aside = if hole.end == self.spare.end { hole.start..self.spare.start } else { 0..0 };
        let free = range.start < range.end
            && !overlap(&aside, &range)
            && !self.claimed.iter().any(|claimed| overlap(claimed, &range));
        if free {
            self.claimed.push(range);
        }
        free
    }
}

impl Space {
    /// Leaves the driver nothing but the region's lower half (and what is below 2 TiB). To be called before it is initialised.
    pub fn in_region(reserved: Home, region: Region) -> Self {
        drop(reserved.device);
        let home = region.device_range();
        let taken = Mutex::new(fill(&home));
        Self {
            before: before(),
            home: Some(home),
            outside: RwLock::default(),
            graphs: RwLock::default(),
            taken,
        }
    }

    /// With these addresses taken away.
    #[cfg(test)]
    pub fn of(holes: Vec<Range<u64>>) -> Self {
        Self {
            before: Vec::new(),
            home: None,
            outside: RwLock::default(),
            graphs: RwLock::default(),
            taken: Mutex::new(Taken { holes, ..Taken::default() }),
        }
    }

    /// The driver takes what it likes: the one of tests, whose addresses are another session's region.
    pub fn wherever(reserved: Home) -> Self {
        reserved.device.leak();
        Self {
            before: before(),
            home: None,
            outside: RwLock::default(),
            graphs: RwLock::default(),
            taken: Mutex::default(),
        }
    }

    /// Looks for what the driver has reserved since it was initialised.
    pub fn look(&self) {
        let mine = |mapping: &Mapping| match self.home {
            Some(_) => {
                mapping.range.start < FILL_FROM && (mapping.none || mapping.path.starts_with("/dev/nvidia"))
            }
            None => mapping.none && mapping.path.is_empty(),
        };
        let new =
            mappings().into_iter().filter(mine).flat_map(|mapping| without(mapping.range, &self.before));
        let found = match self.home {
            Some(_) => coalesce(new),
            None => new.filter(|range| range.end - range.start >= LARGE).collect(),
        };
        tracing::debug!(?found, "addresses of the driver outside of the region");
        *self.outside.write().unwrap_or_else(PoisonError::into_inner) = found;
    }

    /// `len` addresses, from a multiple of `align` (a power of two) on, which are neither the region's nor the driver's: an inaccessible mapping of this process, which is the
    /// caller's from now on. None if there are not so many, or the driver takes what it likes.
    pub fn set_aside(&self, len: u64, align: u64) -> Option<u64> {
        self.taken().set_aside(len, align)
    }

    /// Takes these addresses, which are to be an inaccessible mapping of this process and nobody's; whether they are. The caller maps over them.
    pub fn claim(&self, range: Range<u64>) -> bool {
        self.taken().claim(range)
    }

    /// Gives back what was [claimed](Space::claim), inaccessible again.
    pub fn give_back(&self, range: &Range<u64>) {
        self.taken().claimed.retain(|claimed| claimed != range);
    }

    fn taken(&self) -> MutexGuard<'_, Taken> {
        self.taken.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether the driver was made to use the region: it is the real one.
    pub fn has_home(&self) -> bool {
        self.home.is_some()
    }

    /// The ranges that the program does not know: device memory outside of its region.
    pub fn outside(&self) -> Vec<Range<u64>> {
        let mut ranges = self.outside.read().unwrap_or_else(PoisonError::into_inner).clone();
        ranges.extend(self.graphs.read().unwrap_or_else(PoisonError::into_inner).iter().cloned());
        ranges
    }

    /// The driver has given a graph memory there, wherever that is.
    pub fn learn(&self, address: u64, len: u64) {
        if self.contains(address) {
            return;
        }
        self.look();
        if self.contains(address) {
            return;
        }
        let mut graphs = self.graphs.write().unwrap_or_else(PoisonError::into_inner);
        let mut all = std::mem::take(&mut *graphs);
        all.push(address..address.saturating_add(len));
        all.sort_by_key(|range| range.start);
        *graphs = coalesce(all);
        tracing::debug!(?graphs, "memory of graphs");
    }

    /// Whether the program takes the address for one of device memory.
    pub fn contains(&self, address: u64) -> bool {
        let known = |ranges: &RwLock<Vec<Range<u64>>>| {
            ranges.read().unwrap_or_else(PoisonError::into_inner).iter().any(|range| range.contains(&address))
        };
        self.home.as_ref().is_some_and(|home| home.contains(&address))
            || known(&self.outside)
            || known(&self.graphs)
    }
}

fn before() -> Vec<Range<u64>> {
    mappings().into_iter().map(|mapping| mapping.range).collect()
}

/// Takes all free addresses from [`FILL_FROM`] upwards except `home`, and those that the main thread's stack may grow to.
fn fill(home: &Range<u64>) -> Taken {
    let mut filled = Taken::default();
    let mut taken: Vec<Range<u64>> = Vec::new();
    for mapping in mappings() {
        let room = if mapping.path == "[stack]" { STACK_ROOM } else { 0 };
        taken.push(mapping.range.start.saturating_sub(room)..mapping.range.end);
    }
    taken.push(home.clone());
    taken.sort_by_key(|range| range.start);
    for hole in without(FILL_FROM..FILL_TO, &taken) {
        let len = hole.end - hole.start;
        if len < SMALL_HOLE {
            continue;
        }
        let flags = MapFlags::PRIVATE | MapFlags::NORESERVE | MapFlags::FIXED_NOREPLACE;
        let address = core::ptr::without_provenance_mut(hole.start as usize);
        // SAFETY: NOREPLACE: no existing mapping is changed.
        let mapped = unsafe { mmap_anonymous(address, len as usize, ProtFlags::empty(), flags) };
        match mapped {
            Ok(_) => {
                if len > filled.spare.end - filled.spare.start {
                    filled.spare = hole.clone();
                }
                filled.holes.push(hole);
            }
            Err(error) => {
                tracing::warn!(%error, start = %format_args!("{:#x}", hole.start), len, "addresses stay free; the driver may take them");
            }
        }
    }
    filled
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_map_is_read() {
        let maps = "\
200000000-300200000 ---p 00000000 00:00 0 
302000000-303000000 rw-s 00000000 00:06 123                              /dev/nvidiactl
7ffd00000000-7ffd00021000 rw-p 00000000 00:00 0                          [stack]
junk
";
        let maps = parse(maps);
        assert_eq!(maps.len(), 3);
        assert_eq!((maps[0].range.clone(), maps[0].none), (0x2_0000_0000..0x3_0020_0000, true));
        assert_eq!((maps[1].path.as_str(), maps[1].none), ("/dev/nvidiactl", false));
        assert_eq!(maps[2].path, "[stack]");
        assert!(!mappings().is_empty());
    }

    #[test]
    #[expect(clippy::single_range_in_vec_init, reason = "lists of one range are meant")]
    fn what_was_there_is_left_out() {
        assert_eq!(without(10..50, &[0..12, 20..30, 49..60]), [12..20, 30..49]);
        assert_eq!(without(10..50, &[60..70]), [10..50]);
        assert!(without(10..50, &[0..100]).is_empty());
        assert_eq!(without(10..50, &[10..20, 15..30]), [30..50]);
    }

    #[test]
    fn addresses_are_set_aside_once() {
        let mut taken = Taken { holes: vec![100..900, 1100..5000], spare: 1100..5000, claimed: Vec::new() };
        assert_eq!(taken.set_aside(10, 1024), Some(2048));
        assert_eq!(taken.set_aside(1024, 1024), Some(3072));
        for len in [905, u64::MAX] {
            assert_eq!(taken.set_aside(len, 1024), None);
        }
        assert_eq!(taken.set_aside(904, 1024), Some(4096));
        assert_eq!(taken.set_aside(1, 1024), None);
    }

    #[test]
    fn addresses_are_claimed_where_nothing_is() {
        let mut taken = Taken { holes: vec![100..900, 1100..5000], spare: 1100..5000, claimed: Vec::new() };
        assert_eq!(taken.set_aside(100, 100), Some(1100));
        let not_taken = [0..50, 50..150, 850..950, 900..1100, 1000..6000, 200..200];
        let set_aside = [1100..1101, 1150..1300, 1199..1200];
        for wrong in not_taken.into_iter().chain(set_aside) {
            assert!(!taken.claim(wrong.clone()), "{wrong:?}");
        }
        for right in [100..900, 1200..1300, 4000..5000] {
            assert!(taken.claim(right.clone()) && !taken.claim(right.clone()), "{right:?}");
        }
        assert!(!taken.claim(1299..1301) && taken.claim(1300..1400));
        // What is set aside goes around it.
        assert_eq!(taken.set_aside(300, 100), Some(1400));
        assert_eq!(taken.set_aside(2300, 100), Some(1700));
        assert_eq!(taken.set_aside(100, 100), None);
    }

    #[test]
    fn neighbours_become_one_range() {
        let m = 1 << 20;
        assert_eq!(
            coalesce([5 * m..6 * m, 20 * m..21 * m, 400 * m..401 * m]),
            [4 * m..22 * m, 400 * m..402 * m]
        );
    }
}
