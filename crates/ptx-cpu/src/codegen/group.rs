//! Accesses to `.shared` that one check serves.
//!
//! Within a block, what uses the same base register at different constant offsets is checked as one range, before the first of them. If
//! the check fails, one of the accesses would have faulted: all of them are executed once the first is. A fault ends the whole grid and
//! leaves memory undefined, so that its coming a little early is not visible.

use std::collections::HashMap;

use cranelift_codegen::ir::Value;

use crate::ir::{Block, Inst, Op, Reg, Space, Val};

/// Accesses of one size through one value of a register.
#[derive(Clone, Copy, Debug)]
pub struct Group {
    /// Smallest and greatest constant offset: congruent modulo the size.
    pub least: i64,
    pub greatest: i64,
    /// Host address of the access with the smallest offset, once the check is done.
    pub address: Option<Value>,
}

/// The groups of a block.
#[derive(Default)]
pub struct Groups {
    groups: Vec<Group>,
    /// Group of each instruction.
    of: Vec<Option<u32>>,
    /// The instruction being emitted.
    pub at: usize,
}

/// Offsets of a group stay well within 32 bits.
const MAX_OFFSET: i64 = 1 << 24;

impl Groups {
    pub fn of(block: &Block) -> Self {
        let mut result = Self { groups: Vec::new(), of: vec![None; block.insts.len()], at: 0 };
        let mut open: HashMap<(Reg, u32), u32> = HashMap::new();
        for (i, inst) in block.insts.iter().enumerate() {
            // What does not come back ends the certainty that later accesses are executed.
            if matches!(inst.op, Op::Park(_) | Op::Call(_) | Op::Fault(_)) {
                open.clear();
            } else if let Some((reg, size)) = shared_access(inst) {
                let known = open.get(&(reg, size)).copied();
                let fits = |g: &Group| (inst.offset - g.least) % i64::from(size) == 0;
                match known.filter(|g| fits(&result.groups[*g as usize])) {
                    Some(group) => {
                        let g = &mut result.groups[group as usize];
                        g.least = g.least.min(inst.offset);
                        g.greatest = g.greatest.max(inst.offset);
                        result.of[i] = Some(group);
                    }
                    None => {
                        let group = result.groups.len() as u32;
                        result.groups.push(Group {
                            least: inst.offset,
                            greatest: inst.offset,
                            address: None,
                        });
                        open.insert((reg, size), group);
                        result.of[i] = Some(group);
                    }
                }
            }
            for reg in inst.defs() {
                open.retain(|(base, _), _| *base != reg);
            }
        }
        result
    }

    /// The group of the instruction being emitted.
    pub fn current(&self) -> Option<Group> {
        let group = self.of.get(self.at).copied().flatten()?;
        Some(self.groups[group as usize])
    }

    pub fn set_address(&mut self, address: Value) {
        if let Some(Some(group)) = self.of.get(self.at) {
            self.groups[*group as usize].address = Some(address);
        }
    }
}

/// Base register and size of an unconditional access to `.shared`.
fn shared_access(inst: &Inst) -> Option<(Reg, u32)> {
    let elements = match inst.op {
        Op::Ld { space: Space::Shared, ty, .. } => ty.size() as usize * inst.dsts.len(),
        Op::St { space: Space::Shared, ty, .. } => ty.size() as usize * (inst.srcs.len() - 1),
        Op::Atom { space: Space::Shared, ty, .. } => ty.size() as usize,
        _ => return None,
    };
    let Val::Reg(base) = *inst.srcs.first()? else { return None };
    (inst.guard.is_none() && inst.offset.abs() < MAX_OFFSET).then_some((base, elements as u32))
}
