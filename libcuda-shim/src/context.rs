//! The contexts of the program as the guest knows them.
//!
//! Which context is current, on which device a context lives and how often a primary context is retained are questions that programs
//! ask before almost every call; they are answered from these tables. The host keeps the contexts themselves.

use std::collections::{HashMap, HashSet};
use std::sync::RwLock;
use std::sync::atomic::{AtomicBool, Ordering};

use protocol::status::{CuResult, Status};

/// What the guest knows of a context.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Context {
    pub device: i32,
    /// Flags given at creation; for a primary context those of its device.
    pub flags: u32,
    pub primary: bool,
    /// `CUfunc_cache`: a preference that is only remembered.
    pub cache_config: u32,
    /// What `cuCtxGetApiVersion` reports.
    pub api_version: u32,
}

#[derive(Clone, Copy, Debug, Default)]
struct Primary {
    handle: u64,
    retained: u32,
    flags: u32,
}

#[derive(Default)]
struct Tables {
    contexts: HashMap<u64, Context>,
    dead: HashSet<u64>,
    primaries: HashMap<i32, Primary>,
    /// Green contexts: their devices, and the contexts that they are once asked for.
    greens: HashMap<u64, (i32, Option<u64>)>,
}

/// All contexts of the process.
#[derive(Default)]
pub struct Contexts {
    tables: RwLock<Tables>,
    several: AtomicBool,
}

/// API versions that contexts report: 3010 for `cuCtxCreate`, 3020 from `cuCtxCreate_v2` on and for primary contexts.
pub const API_VERSION: u32 = 3020;

impl Contexts {
    fn read<R>(&self, f: impl FnOnce(&Tables) -> R) -> R {
        f(&self.tables.read().unwrap_or_else(|poisoned| poisoned.into_inner()))
    }

    fn write<R>(&self, f: impl FnOnce(&mut Tables) -> R) -> R {
        f(&mut self.tables.write().unwrap_or_else(|poisoned| poisoned.into_inner()))
    }

    fn counted(&self, tables: &Tables) {
        // Runtimes know the primary contexts of all devices, and use those that they retain.
        let created = tables.contexts.values().filter(|context| !context.primary).count();
        let retained = tables.primaries.values().filter(|primary| primary.retained > 0).count();
        if created + retained > 1 {
            // Who makes a context and then tells another thread of it has ordered the two already.
            self.several.store(true, Ordering::Relaxed);
        }
    }

    /// Whether there has been more than one context in use at a time, so that something of one may be used in another.
    #[inline]
    pub fn several(&self) -> bool {
        self.several.load(Ordering::Relaxed)
    }

    /// Whether something of one context is certain to be refused in the other. What green contexts share with the primary one is the driver's to say.
    pub fn are_strangers(&self, one: u64, other: u64) -> bool {
        let plain = |t: &Tables, handle: u64| {
            t.contexts.contains_key(&handle) && t.greens.values().all(|(_, known)| *known != Some(handle))
        };
        one != other && self.read(|t| plain(t, one) && plain(t, other))
    }

    /// The context behind a handle; INVALID_CONTEXT for one that never was or has been destroyed.
    pub fn get(&self, handle: u64) -> Result<Context, Status> {
        self.read(|t| t.contexts.get(&handle).copied()).ok_or(Status::INVALID_CONTEXT)
    }

    pub fn exists(&self, handle: u64) -> bool {
        self.read(|t| t.contexts.contains_key(&handle))
    }

    /// Whether things can be made in a context: a primary one has to be retained.
    pub fn is_active(&self, handle: u64) -> bool {
        self.read(|t| {
            let Some(context) = t.contexts.get(&handle) else { return false };
            !context.primary || t.primaries.get(&context.device).is_some_and(|primary| primary.retained > 0)
        })
    }

    /// Enters a context made by `cuCtxCreate`.
    pub fn created(&self, handle: u64, device: i32, flags: u32) {
        let context = Context { device, flags, primary: false, cache_config: 0, api_version: API_VERSION };
        self.write(|t| {
            t.contexts.insert(handle, context);
            self.counted(t);
        });
    }

    pub fn destroyed(&self, handle: u64) {
        self.write(|t| {
            t.contexts.remove(&handle);
            t.dead.insert(handle);
        });
    }

    /// Whether a handle is one of a context that has been destroyed. It can still be made current; calls in it say that it is destroyed.
    pub fn was(&self, handle: u64) -> bool {
        self.read(|t| t.dead.contains(&handle))
    }

    pub fn set_flags(&self, handle: u64, flags: u32) -> CuResult {
        self.write(|t| t.contexts.get_mut(&handle).map(|c| c.flags = flags)).ok_or(Status::INVALID_CONTEXT)
    }

    pub fn set_cache_config(&self, handle: u64, config: u32) -> CuResult {
        self.write(|t| t.contexts.get_mut(&handle).map(|c| c.cache_config = config))
            .ok_or(Status::INVALID_CONTEXT)
    }

    pub fn green_created(&self, green: u64, device: i32) {
        self.write(|t| t.greens.insert(green, (device, None)));
    }

    /// The context that a green context is; `ask` asks the host the first time.
    pub fn of_green(&self, green: u64, ask: impl FnOnce() -> Result<u64, Status>) -> Result<u64, Status> {
        let (device, known) = self.read(|t| t.greens.get(&green).copied()).ok_or(Status::INVALID_CONTEXT)?;
        if let Some(handle) = known {
            return Ok(handle);
        }
        let handle = ask()?;
        // Of two threads that asked at once the first one's answer counts.
        let handle = self.write(|t| match t.greens.get_mut(&green) {
            Some((_, known)) => *known.get_or_insert(handle),
            None => handle,
        });
        self.created(handle, device, 0);
        Ok(handle)
    }

    /// Forgets a green context; returns the context that it was, if it was asked for.
    pub fn green_destroyed(&self, green: u64) -> Option<u64> {
        let handle = self.write(|t| t.greens.remove(&green))?.1?;
        self.destroyed(handle);
        Some(handle)
    }

    /// The primary context's handle of a device, if it is known already.
    pub fn primary(&self, device: i32) -> Option<u64> {
        self.read(|t| t.primaries.get(&device).map(|p| p.handle))
    }

    /// Enters the handle of a device's primary context. It is valid as a handle before it is retained: runtimes make it current first.
    pub fn primary_known(&self, device: i32, handle: u64) {
        self.write(|t| {
            t.primaries.entry(device).or_default().handle = handle;
            let flags = t.primaries[&device].flags;
            t.contexts.entry(handle).or_insert(Context {
                device,
                flags,
                primary: true,
                cache_config: 0,
                api_version: API_VERSION,
            });
        });
    }

    pub fn primary_retained(&self, device: i32, handle: u64) {
        self.primary_known(device, handle);
        self.write(|t| {
            t.primaries.entry(device).or_default().retained += 1;
            self.counted(t);
        });
    }

    /// Returns whether this was the last reference.
    pub fn primary_released(&self, device: i32) -> bool {
        self.write(|t| {
            let primary = t.primaries.entry(device).or_default();
            primary.retained = primary.retained.saturating_sub(1);
            primary.retained == 0
        })
    }

    pub fn primary_reset(&self, device: i32) {
        self.write(|t| t.primaries.entry(device).or_default().retained = 0);
    }

    /// `cuDevicePrimaryCtxGetState`: flags, and whether it is active.
    pub fn primary_state(&self, device: i32) -> (u32, bool) {
        self.read(|t| t.primaries.get(&device).map_or((0, false), |p| (p.flags, p.retained > 0)))
    }

    pub fn primary_set_flags(&self, device: i32, flags: u32) {
        self.write(|t| {
            let primary = t.primaries.entry(device).or_default();
            primary.flags = flags;
            let handle = primary.handle;
            if let Some(context) = t.contexts.get_mut(&handle) {
                context.flags = flags;
            }
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_primary_context_is_known_before_it_is_active() {
        let contexts = Contexts::default();
        contexts.primary_known(0, 77);
        assert_eq!(contexts.primary(0), Some(77));
        assert_eq!(contexts.primary_state(0), (0, false));
        assert!(!contexts.is_active(77));
        contexts.primary_retained(0, 77);
        contexts.primary_retained(0, 77);
        assert_eq!(contexts.primary_state(0), (0, true));
        assert!(!contexts.primary_released(0));
        assert!(contexts.is_active(77));
        assert!(contexts.primary_released(0));
        assert!(!contexts.is_active(77));
        assert!(contexts.exists(77), "the handle stays the same for the next retain");
    }

    #[test]
    fn a_green_context_is_always_the_same_context() {
        let contexts = Contexts::default();
        assert_eq!(contexts.of_green(3, || Ok(9)), Err(Status::INVALID_CONTEXT));
        contexts.green_created(3, 1);
        assert_eq!(contexts.of_green(3, || Err(Status::UNKNOWN)), Err(Status::UNKNOWN));
        assert_eq!(contexts.of_green(3, || Ok(9)), Ok(9));
        assert_eq!(contexts.of_green(3, || Ok(10)), Ok(9));
        assert_eq!(contexts.get(9).unwrap().device, 1);
        assert_eq!(contexts.green_destroyed(3), Some(9));
        assert!(!contexts.exists(9));
    }

    #[test]
    fn only_living_contexts_of_their_own_are_strangers() {
        let contexts = Contexts::default();
        contexts.primary_retained(0, 77);
        contexts.primary_known(1, 78);
        assert!(!contexts.several());
        contexts.created(5, 0, 0);
        assert!(contexts.several());
        assert!(contexts.are_strangers(77, 5) && contexts.are_strangers(5, 77));
        contexts.green_created(3, 0);
        assert_eq!(contexts.of_green(3, || Ok(9)), Ok(9));
        for (one, other) in [(77, 77), (77, 9), (9, 5), (0, 5), (5, 0)] {
            assert!(!contexts.are_strangers(one, other), "{one} {other}");
        }
        contexts.destroyed(5);
        assert!(!contexts.are_strangers(77, 5));
    }

    #[test]
    fn a_destroyed_context_is_invalid() {
        let contexts = Contexts::default();
        contexts.created(5, 0, 8);
        assert_eq!(contexts.get(5).unwrap().flags, 8);
        assert!(contexts.is_active(5) && !contexts.is_active(6));
        contexts.destroyed(5);
        assert!(!contexts.is_active(5));
        assert_eq!(contexts.get(5), Err(Status::INVALID_CONTEXT));
    }
}
