#![allow(unsafe_code)]
//! Parameters of graph nodes that the program has pointers to, and which executable graphs there are.
//!
//! What a query gives out (kernel arguments, lists) belongs to the node and stays valid until the node's end. Programs keep such pointers, and change
//! what they point to before they set the parameters again; so a later query overwrites the same memory as long as the sizes are the same.
//! Unsafe because the memory is the program's and ours at the same time: it is reached through raw pointers only.

use std::collections::{HashMap, HashSet};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError, RwLock};

/// Kernel arguments may be vectors, and those want their alignment.
#[derive(Clone, Copy)]
#[repr(C, align(64))]
struct Line([u8; 64]);

/// Memory that has been given out.
struct List {
    lines: *mut [Line],
    len: usize,
}

// SAFETY: the pointer owns its memory, and only the holder of the lock of `Given` uses it here.
unsafe impl Send for List {}

impl List {
    fn new(bytes: &[u8]) -> List {
        let lines = vec![Line([0; 64]); bytes.len().div_ceil(64).max(1)].into_boxed_slice();
        let list = List { lines: Box::into_raw(lines), len: bytes.len() };
        list.fill(bytes);
        list
    }

    fn fill(&self, bytes: &[u8]) {
        let len = self.len.min(bytes.len());
        // SAFETY: the memory has `len` bytes; the program, which may look at it, has asked for it to be overwritten.
        unsafe { self.lines.cast::<u8>().copy_from_nonoverlapping(bytes.as_ptr(), len) };
    }
}

impl Drop for List {
    fn drop(&mut self) {
        // SAFETY: made by `Box::into_raw`, dropped once.
        drop(unsafe { Box::from_raw(self.lines) });
    }
}

/// All that has been given out, by node and by number of the list.
#[derive(Default)]
pub struct Given {
    nodes: Mutex<HashMap<u64, Vec<(u32, List)>>>,
}

impl Given {
    /// Memory of the node with these bytes in it.
    pub fn give(&self, node: u64, number: u32, bytes: &[u8]) -> *mut u8 {
        let mut nodes = self.nodes.lock().unwrap_or_else(PoisonError::into_inner);
        let lists = nodes.entry(node).or_default();
        let at = match lists.iter().position(|(known, _)| *known == number) {
            Some(at) => at,
            None => {
                lists.push((number, List::new(bytes)));
                lists.len() - 1
            }
        };
        let list = &mut lists[at].1;
        if list.len == bytes.len() {
            list.fill(bytes);
        } else {
            *list = List::new(bytes);
        }
        list.lines.cast()
    }

    /// The nodes are gone.
    pub fn forget(&self, gone: impl Iterator<Item = u64>) {
        let mut nodes = self.nodes.lock().unwrap_or_else(PoisonError::into_inner);
        for node in gone {
            nodes.remove(&node);
        }
    }
}

/// Executable graphs of the program. Launches are posted, but that there is no such graph any more is reported at once.
#[derive(Default)]
pub struct Execs {
    live: RwLock<HashSet<u64>>,
    /// Some graph has been destroyed: programs that keep theirs pay a load per launch.
    destroyed: AtomicBool,
}

impl Execs {
    pub fn made(&self, exec: u64) {
        self.live.write().unwrap_or_else(PoisonError::into_inner).insert(exec);
    }

    pub fn destroyed(&self, exec: u64) {
        self.live.write().unwrap_or_else(PoisonError::into_inner).remove(&exec);
        // Who destroys a graph and then tells another thread of it has ordered the two already.
        self.destroyed.store(true, Ordering::Relaxed);
    }

    /// Whether a handle may be one of an executable graph. What it is besides that, the host finds out.
    #[inline]
    pub fn may_be(&self, exec: u64) -> bool {
        !self.destroyed.load(Ordering::Relaxed)
            || self.live.read().unwrap_or_else(PoisonError::into_inner).contains(&exec)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_destroyed_executable_graph_is_none_any_more() {
        let execs = Execs::default();
        execs.made(7);
        execs.made(9);
        assert!(execs.may_be(7));
        execs.destroyed(7);
        assert!(!execs.may_be(7) && execs.may_be(9));
    }

    #[test]
    fn pointers_stay_as_long_as_the_size_does() {
        let given = Given::default();
        let first = given.give(7, 0, &[1; 20]);
        assert_eq!(first.addr() % 64, 0);
        let other = given.give(7, 1, &[9; 8]);
        assert_eq!(given.give(7, 0, &[2; 20]), first);
        // SAFETY: 20 bytes were given out; the node is still there.
        assert_eq!(unsafe { core::slice::from_raw_parts(first, 20) }, [2; 20]);
        // SAFETY: as above, 8 bytes.
        assert_eq!(unsafe { core::slice::from_raw_parts(other, 8) }, [9; 8]);
        given.give(7, 0, &[3; 100]);
        given.forget([7, 8].into_iter());
        assert!(given.nodes.lock().unwrap().is_empty());
    }
}
