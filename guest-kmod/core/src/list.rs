//! Doubly linked lists through the elements of a [`Slab`], so that putting an element into a list and taking it out can never fail.

use crate::memory::{NONE, Slab};

/// An element's place in a list.
#[derive(Clone, Copy, Debug)]
pub struct Link {
    previous: u32,
    next: u32,
    linked: bool,
}

impl Link {
    /// In no list.
    pub const FREE: Link = Link { previous: NONE, next: NONE, linked: false };

    /// Whether the element is in a list.
    pub fn is_linked(self) -> bool {
        self.linked
    }
}

/// Elements with a link for lists number `L`.
pub trait Linked<const L: usize> {
    /// The link.
    fn link(&mut self) -> &mut Link;
}

/// A list, first in first out.
#[derive(Clone, Copy, Debug)]
pub struct List<const L: usize> {
    head: u32,
    tail: u32,
}

impl<const L: usize> List<L> {
    /// An empty list.
    pub const EMPTY: List<L> = List { head: NONE, tail: NONE };

    /// The first element's index, or [`NONE`].
    pub fn first(&self) -> u32 {
        self.head
    }

    /// Whether the list is empty.
    pub fn is_empty(&self) -> bool {
        self.head == NONE
    }

    /// The index after `index`, or [`NONE`].
    pub fn after<T: Linked<L>>(slab: &mut Slab<T>, index: u32) -> u32 {
        slab.get_mut(index).map_or(NONE, |element| element.link().next)
    }

    /// Appends an element that is in no list of this number; otherwise does nothing.
    pub fn push<T: Linked<L>>(&mut self, slab: &mut Slab<T>, index: u32) {
        let tail = self.tail;
        let Some(element) = slab.get_mut(index) else { return };
        let link = element.link();
        if link.linked {
            return;
        }
        *link = Link { previous: tail, next: NONE, linked: true };
        match slab.get_mut(tail) {
            Some(last) => last.link().next = index,
            None => self.head = index,
        }
        self.tail = index;
    }

    /// Takes an element of this list out of it; does nothing if it is in none.
    pub fn unlink<T: Linked<L>>(&mut self, slab: &mut Slab<T>, index: u32) {
        let Some(element) = slab.get_mut(index) else { return };
        let Link { previous, next, linked } = *element.link();
        if !linked {
            return;
        }
        *element.link() = Link::FREE;
        match slab.get_mut(previous) {
            Some(before) => before.link().next = next,
            None => self.head = next,
        }
        match slab.get_mut(next) {
            Some(behind) => behind.link().previous = previous,
            None => self.tail = previous,
        }
    }

    /// Takes the first element out.
    pub fn pop<T: Linked<L>>(&mut self, slab: &mut Slab<T>) -> Option<u32> {
        let index = self.head;
        if index == NONE {
            return None;
        }
        self.unlink(slab, index);
        Some(index)
    }
}
