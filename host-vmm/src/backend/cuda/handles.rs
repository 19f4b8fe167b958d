//! Handles: ids that stand for the real driver's objects, in both directions.
//!
//! An id is a slot and a generation, so a stale one is recognised even when its slot has been used again; one table holds all kinds, so an id of the
//! wrong kind is recognised too. The same object of the driver always has the same id. An object may belong to another one: the end of a
//! context ends its streams, that of a graph its nodes. Ids are never 0, 1 or 2. Some objects have handles that the program has given them ([`protocol::named`]), and no slot.

use std::collections::HashMap;
use std::sync::{PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use protocol::named;

use crate::generated::cuda_raw::Kind;

/// The handle is stale, was never issued, or is of another kind.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct InvalidHandle;

/// There are as many handles as the session may have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TooMany;

/// The program may not give an object this handle: it is in use, or not one that a program may give.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NotNamed;

#[derive(Clone, Copy)]
struct Entry {
    kind: Kind,
    raw: u64,
    /// Id of the object that this one belongs to, 0 for none.
    parent: u64,
    /// The call that ends it is under way.
    dying: bool,
}

#[derive(Clone, Copy, Default)]
struct Slot {
    generation: u32,
    entry: Option<Entry>,
    /// Something was entered as belonging to it.
    has_children: bool,
}

#[derive(Default)]
struct Table {
    slots: Vec<Slot>,
    free: Vec<u32>,
    /// Objects with handles of the program's.
    named: HashMap<u64, Slot>,
    ids: HashMap<(Kind, u64), u64>,
    len: usize,
}

impl Table {
    fn slot(&self, id: u64) -> Option<&Slot> {
        if named::is_named(id) {
            return self.named.get(&id);
        }
        let (generation, index) = split(id);
        self.slots.get(index).filter(|slot| slot.generation == generation)
    }

    fn slot_mut(&mut self, id: u64) -> Option<&mut Slot> {
        if named::is_named(id) {
            return self.named.get_mut(&id);
        }
        let (generation, index) = split(id);
        self.slots.get_mut(index).filter(|slot| slot.generation == generation)
    }

    fn entry(&self, kinds: &[Kind], id: u64) -> Option<&Entry> {
        self.slot(id)?.entry.as_ref().filter(|entry| kinds.contains(&entry.kind) && !entry.dying)
    }

    /// Ids and entries.
    fn entries(&self) -> impl Iterator<Item = (u64, &Entry)> {
        let slots = self.slots.iter().enumerate().map(|(index, slot)| (join(slot.generation, index), slot));
        let all = slots.chain(self.named.iter().map(|(id, slot)| (*id, slot)));
        all.filter_map(|(id, slot)| Some((id, slot.entry.as_ref()?)))
    }

    /// Ids of what belongs to an id.
    fn children(&self, id: u64) -> Vec<u64> {
        self.entries().filter(|(_, entry)| entry.parent == id).map(|(id, _)| id).collect()
    }

    fn put(&mut self, id: u64, entry: Entry) {
        if let Some(slot) = self.slot_mut(id) {
            slot.entry = Some(entry);
        }
        self.ids.insert((entry.kind, entry.raw), id);
        self.len += 1;
        if let Some(parent) = self.slot_mut(entry.parent) {
            parent.has_children = true;
        }
    }

    /// Takes an entry out, and everything that belongs to it.
    fn remove(&mut self, id: u64) {
        let mut doomed = vec![id];
        while let Some(id) = doomed.pop() {
            let Some(slot) = self.slot_mut(id) else { continue };
            let Some(entry) = slot.entry.take() else { continue };
            let children = std::mem::take(&mut slot.has_children);
            // A slot whose generations are used up is never used again.
            if named::is_named(id) {
                self.named.remove(&id);
            } else if slot.generation + 1 < named::GENERATIONS {
                slot.generation += 1;
                self.free.push(split(id).1 as u32);
            }
            self.len -= 1;
            // While it was dying, a new object may have got the same address, and an id of its own.
            if self.ids.get(&(entry.kind, entry.raw)) == Some(&id) {
                self.ids.remove(&(entry.kind, entry.raw));
            }
            if children {
                doomed.append(&mut self.children(id));
            }
        }
    }
}

fn split(id: u64) -> (u32, usize) {
    ((id >> 32) as u32, (id & u64::from(u32::MAX)) as usize)
}

fn join(generation: u32, index: usize) -> u64 {
    u64::from(generation) << 32 | index as u64
}

/// All handles of a session.
pub struct Handles {
    table: RwLock<Table>,
    limit: usize,
}

impl Handles {
    /// At most `limit` handles exist at a time.
    pub fn new(limit: usize) -> Self {
        Self { table: RwLock::default(), limit: limit.min(u32::MAX as usize) }
    }

    fn read(&self) -> RwLockReadGuard<'_, Table> {
        self.table.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self) -> RwLockWriteGuard<'_, Table> {
        self.table.write().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether another handle can be made.
    ///
    /// # Errors
    /// [`TooMany`].
    pub fn room(&self) -> Result<(), TooMany> {
        if self.read().len < self.limit { Ok(()) } else { Err(TooMany) }
    }

    /// The id of an object, which is entered if it is new. `parent` is the id of the object that it belongs to, 0 for none.
    ///
    /// # Errors
    /// [`TooMany`].
    pub fn enter(&self, kind: Kind, raw: u64, parent: u64) -> Result<u64, TooMany> {
        if let Some(id) = self.read().ids.get(&(kind, raw)) {
            return Ok(*id);
        }
        let mut table = self.write();
        if let Some(id) = table.ids.get(&(kind, raw)) {
            return Ok(*id);
        }
        if table.len >= self.limit {
            return Err(TooMany);
        }
        let index = match table.free.pop() {
            Some(index) => index as usize,
            None => {
                // Generations begin at 1, so that no id is a small number.
                table.slots.push(Slot { generation: 1, ..Slot::default() });
                table.slots.len() - 1
            }
        };
        let id = join(table.slots[index].generation, index);
        table.put(id, Entry { kind, raw, parent, dying: false });
        Ok(id)
    }

    /// Whether the program may give an object this handle.
    ///
    /// # Errors
    /// [`NotNamed`].
    pub fn may_name(&self, id: u64) -> Result<(), NotNamed> {
        let free = named::is_named(id) && !self.read().named.contains_key(&id);
        if free { Ok(()) } else { Err(NotNamed) }
    }

    /// Enters a new object under the handle that the program has given it; see [`Handles::room`] for the limit.
    ///
    /// # Errors
    /// [`NotNamed`].
    pub fn enter_named(&self, id: u64, kind: Kind, raw: u64, parent: u64) -> Result<(), NotNamed> {
        let mut table = self.write();
        if !named::is_named(id) || table.named.contains_key(&id) {
            return Err(NotNamed);
        }
        table.named.insert(id, Slot::default());
        table.put(id, Entry { kind, raw, parent, dying: false });
        Ok(())
    }

    /// The driver's object of an id of one of these kinds.
    ///
    /// # Errors
    /// [`InvalidHandle`].
    pub fn raw(&self, kinds: &[Kind], id: u64) -> Result<u64, InvalidHandle> {
        self.read().entry(kinds, id).map(|entry| entry.raw).ok_or(InvalidHandle)
    }

    /// The kind of an id.
    ///
    /// # Errors
    /// [`InvalidHandle`].
    pub fn kind(&self, id: u64) -> Result<Kind, InvalidHandle> {
        let table = self.read();
        table.slot(id).and_then(|slot| slot.entry).map(|entry| entry.kind).ok_or(InvalidHandle)
    }

    /// What an id belongs to, 0 for nothing.
    ///
    /// # Errors
    /// [`InvalidHandle`].
    pub fn parent(&self, id: u64) -> Result<u64, InvalidHandle> {
        let table = self.read();
        table.slot(id).and_then(|slot| slot.entry).map(|entry| entry.parent).ok_or(InvalidHandle)
    }

    /// The id of an object that has one.
    pub fn id(&self, kind: Kind, raw: u64) -> Option<u64> {
        self.read().ids.get(&(kind, raw)).copied()
    }

    /// The object of an id that the next call to the driver ends: from here on no other call finds it, and the driver may give its address to
    /// a new object. [`Handles::settle`] says what became of it.
    ///
    /// # Errors
    /// [`InvalidHandle`].
    pub fn dying(&self, kind: Kind, id: u64) -> Result<u64, InvalidHandle> {
        let mut table = self.write();
        let raw = table.entry(&[kind], id).map(|entry| entry.raw).ok_or(InvalidHandle)?;
        if let Some(entry) = table.slot_mut(id).and_then(|slot| slot.entry.as_mut()) {
            entry.dying = true;
        }
        table.ids.remove(&(kind, raw));
        Ok(raw)
    }

    /// The call that was to end the object has returned: `gone`, or not.
    pub fn settle(&self, id: u64, gone: bool) {
        let mut table = self.write();
        if gone {
            table.remove(id);
            return;
        }
        if let Some(entry) = table.slot_mut(id).and_then(|slot| slot.entry.as_mut()) {
            entry.dying = false;
            let key = (entry.kind, entry.raw);
            table.ids.entry(key).or_insert(id);
        }
    }

    /// The object of an id has become another one.
    pub fn replace(&self, id: u64, raw: u64) {
        let mut table = self.write();
        let Some(entry) = table.slot_mut(id).and_then(|slot| slot.entry.as_mut()) else { return };
        let (kind, old) = (entry.kind, entry.raw);
        entry.raw = raw;
        table.ids.remove(&(kind, old));
        table.ids.insert((kind, raw), id);
    }

    /// Takes an id out, with all that belongs to it.
    pub fn remove(&self, id: u64) {
        self.write().remove(id);
    }

    /// Takes out all that belongs to an id, which itself stays.
    pub fn remove_children(&self, id: u64) {
        let mut table = self.write();
        for child in table.children(id) {
            table.remove(child);
        }
    }

    /// All that belongs to an id, or to what belongs to it.
    pub fn below(&self, id: u64) -> Vec<u64> {
        let table = self.read();
        let mut found = Vec::new();
        let mut parents = vec![id];
        while let Some(parent) = parents.pop() {
            if !table.slot(parent).is_some_and(|slot| slot.has_children) {
                continue;
            }
            let children = table.children(parent);
            parents.extend_from_slice(&children);
            found.extend(children);
        }
        found
    }

    /// Ids and objects of a kind.
    pub fn all(&self, kind: Kind) -> Vec<(u64, u64)> {
        let table = self.read();
        table.entries().filter(|(_, entry)| entry.kind == kind).map(|(id, entry)| (id, entry.raw)).collect()
    }

    /// Number of handles.
    pub fn len(&self) -> usize {
        self.read().len
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn wrong_kinds_and_stale_handles_are_refused() {
        let handles = Handles::new(10);
        let a = handles.enter(Kind::CUstream, 0x70, 0).unwrap();
        assert!(a > 2);
        assert_eq!(handles.raw(&[Kind::CUstream], a), Ok(0x70));
        assert_eq!(handles.raw(&[Kind::CUevent], a), Err(InvalidHandle));
        assert_eq!(handles.raw(&[Kind::CUevent, Kind::CUstream], a), Ok(0x70));
        assert_eq!(handles.enter(Kind::CUstream, 0x70, 0), Ok(a));
        let event = handles.enter(Kind::CUevent, 0x70, 0).unwrap();
        assert_ne!(event, a, "another kind is another object");
        handles.remove(a);
        assert_eq!(handles.raw(&[Kind::CUstream], a), Err(InvalidHandle));
        let b = handles.enter(Kind::CUstream, 0x70, 0).unwrap();
        assert_ne!(a, b);
        assert_eq!(handles.raw(&[Kind::CUstream], a), Err(InvalidHandle));
        for junk in [0, 1, 2, u64::MAX, b ^ 1, b ^ (1 << 32)] {
            assert_eq!(handles.raw(&[Kind::CUstream], junk), Err(InvalidHandle), "{junk:#x}");
        }
        assert_eq!(handles.len(), 2);
    }

    #[test]
    fn the_end_of_an_object_ends_what_belongs_to_it() {
        let handles = Handles::new(10);
        let context = handles.enter(Kind::CUcontext, 1, 0).unwrap();
        let other = handles.enter(Kind::CUcontext, 2, 0).unwrap();
        let module = handles.enter(Kind::CUmodule, 3, context).unwrap();
        let function = handles.enter(Kind::CUfunction, 4, module).unwrap();
        let kept = handles.enter(Kind::CUmodule, 5, other).unwrap();
        handles.remove(context);
        assert!(handles.raw(&[Kind::CUmodule], module).is_err());
        assert!(handles.raw(&[Kind::CUfunction], function).is_err());
        assert_eq!(handles.raw(&[Kind::CUmodule], kept), Ok(5));
        handles.remove_children(other);
        assert!(handles.raw(&[Kind::CUmodule], kept).is_err());
        assert_eq!(handles.raw(&[Kind::CUcontext], other), Ok(2));
        assert_eq!(handles.len(), 1);
    }

    #[test]
    fn what_is_below_an_object_is_found_at_every_depth() {
        let handles = Handles::new(10);
        let graph = handles.enter(Kind::CUgraph, 1, 0).unwrap();
        let node = handles.enter(Kind::CUgraphNode, 2, graph).unwrap();
        let body = handles.enter(Kind::CUgraph, 3, node).unwrap();
        let inner = handles.enter(Kind::CUgraphNode, 4, body).unwrap();
        handles.enter(Kind::CUgraphNode, 5, 0).unwrap();
        assert_eq!(handles.below(graph), [node, body, inner]);
        assert!(handles.below(inner).is_empty());
    }

    #[test]
    fn an_address_that_is_used_again_meanwhile_is_another_object() {
        let handles = Handles::new(10);
        let old = handles.enter(Kind::CUevent, 9, 0).unwrap();
        assert_eq!(handles.dying(Kind::CUevent, old), Ok(9));
        assert_eq!(handles.raw(&[Kind::CUevent], old), Err(InvalidHandle));
        assert_eq!(handles.dying(Kind::CUevent, old), Err(InvalidHandle), "only once");
        let new = handles.enter(Kind::CUevent, 9, 0).unwrap();
        assert_ne!(old, new);
        handles.settle(old, true);
        assert_eq!(handles.id(Kind::CUevent, 9), Some(new));
        assert_eq!(handles.dying(Kind::CUevent, new), Ok(9));
        handles.settle(new, false);
        assert_eq!(handles.raw(&[Kind::CUevent], new), Ok(9));
        assert_eq!(handles.id(Kind::CUevent, 9), Some(new));
    }

    #[test]
    fn an_id_outlives_its_object() {
        let handles = Handles::new(10);
        let id = handles.enter(Kind::CUcontext, 1, 0).unwrap();
        handles.replace(id, 2);
        assert_eq!(handles.raw(&[Kind::CUcontext], id), Ok(2));
        assert_eq!(handles.id(Kind::CUcontext, 1), None);
        assert_eq!(handles.enter(Kind::CUcontext, 2, 0), Ok(id));
    }

    #[test]
    fn the_limit_holds() {
        let handles = Handles::new(2);
        let first = handles.enter(Kind::CUevent, 1, 0).unwrap();
        handles.enter(Kind::CUevent, 2, 0).unwrap();
        assert_eq!(handles.room(), Err(TooMany));
        assert_eq!(handles.enter(Kind::CUevent, 3, 0), Err(TooMany));
        assert_eq!(handles.enter(Kind::CUevent, 1, 0), Ok(first), "it is there already");
        handles.remove(first);
        assert!(handles.enter(Kind::CUevent, 3, 0).is_ok());
    }

    #[test]
    fn objects_that_the_program_has_named_are_like_others() {
        let handles = Handles::new(10);
        let context = handles.enter(Kind::CUcontext, 1, 0).unwrap();
        let (a, b) = (named::nth(5).unwrap(), named::nth(6).unwrap());
        assert_eq!(handles.enter_named(context, Kind::CUevent, 2, context), Err(NotNamed));
        assert_eq!(handles.enter_named(a, Kind::CUevent, 2, context), Ok(()));
        assert_eq!(handles.enter_named(a, Kind::CUevent, 3, context), Err(NotNamed), "in use");
        assert_eq!((handles.may_name(a), handles.may_name(b)), (Err(NotNamed), Ok(())));
        assert_eq!(handles.raw(&[Kind::CUevent], a), Ok(2));
        assert_eq!(handles.raw(&[Kind::CUstream], a), Err(InvalidHandle));
        assert_eq!(handles.enter(Kind::CUevent, 2, context), Ok(a), "the driver's object has one handle");
        assert_eq!((handles.below(context), handles.len()), (vec![a], 2));
        assert_eq!(handles.dying(Kind::CUevent, a), Ok(2));
        handles.enter_named(b, Kind::CUevent, 2, context).unwrap();
        handles.settle(a, true);
        assert_eq!((handles.raw(&[Kind::CUevent], b), handles.id(Kind::CUevent, 2)), (Ok(2), Some(b)));
        assert_eq!(handles.raw(&[Kind::CUevent], a), Err(InvalidHandle));
        handles.remove(context);
        assert!(handles.raw(&[Kind::CUevent], b).is_err() && handles.is_empty());
    }
}
