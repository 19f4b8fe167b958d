//! Which registers are live across suspension points.

use std::collections::{HashMap, HashSet};

use super::spin::predecessors;
use super::{Func, Op, Reg};

/// For each [`Op::Park`], by block and index: the registers that must survive it, in ascending order.
pub fn across_parks(func: &Func) -> HashMap<(u32, u32), Vec<Reg>> {
    // Only registers that some block reads before it writes them can be live between blocks.
    let mut number: HashMap<Reg, usize> = HashMap::new();
    let mut reg_of = Vec::new();
    let mut exposed: Vec<Vec<usize>> = Vec::with_capacity(func.blocks.len());
    for block in &func.blocks {
        let mut written: HashSet<Reg> = HashSet::new();
        let mut list = Vec::new();
        let mut read = |r: Reg, written: &HashSet<Reg>| {
            if !written.contains(&r) {
                list.push(*number.entry(r).or_insert_with(|| {
                    reg_of.push(r);
                    reg_of.len() - 1
                }));
            }
        };
        for inst in &block.insts {
            inst.uses().for_each(|r| read(r, &written));
            if inst.guard.is_none() {
                written.extend(inst.defs());
            }
        }
        block.term.uses().into_iter().for_each(|r| read(r, &written));
        exposed.push(list);
    }
    let words = reg_of.len().div_ceil(64);
    let kill: Vec<Vec<usize>> = func
        .blocks
        .iter()
        .map(|b| {
            let defs = b.insts.iter().filter(|i| i.guard.is_none()).flat_map(|i| i.defs());
            defs.filter_map(|r| number.get(&r).copied()).collect()
        })
        .collect();
    let predecessors = predecessors(func);
    let mut live_in = vec![vec![0u64; words]; func.blocks.len()];
    let mut queued = vec![true; func.blocks.len()];
    let mut work: Vec<usize> = (0..func.blocks.len()).collect();
    let mut out = vec![0u64; words];
    while let Some(b) = work.pop() {
        queued[b] = false;
        out.fill(0);
        for s in func.blocks[b].term.successors() {
            out.iter_mut().zip(&live_in[s as usize]).for_each(|(o, i)| *o |= i);
        }
        kill[b].iter().for_each(|k| out[k / 64] &= !(1 << (k % 64)));
        exposed[b].iter().for_each(|g| out[g / 64] |= 1 << (g % 64));
        if out != live_in[b] {
            live_in[b].copy_from_slice(&out);
            for p in &predecessors[b] {
                if !std::mem::replace(&mut queued[*p as usize], true) {
                    work.push(*p as usize);
                }
            }
        }
    }

    let mut result = HashMap::new();
    for (b, block) in func.blocks.iter().enumerate() {
        if !block.insts.iter().any(|i| matches!(i.op, Op::Park(_))) {
            continue;
        }
        let mut live: HashSet<Reg> = HashSet::new();
        for s in block.term.successors() {
            for (w, bits) in live_in[s as usize].iter().enumerate() {
                let mut bits = *bits;
                while bits != 0 {
                    live.insert(reg_of[w * 64 + bits.trailing_zeros() as usize]);
                    bits &= bits - 1;
                }
            }
        }
        live.extend(block.term.uses());
        for (i, inst) in block.insts.iter().enumerate().rev() {
            if let Op::Park(_) = inst.op {
                let mut across: Vec<Reg> = live.iter().copied().filter(|r| !inst.dsts.contains(r)).collect();
                across.sort_unstable();
                result.insert((b as u32, i as u32), across);
            }
            if inst.guard.is_none() {
                inst.defs().for_each(|r| {
                    live.remove(&r);
                });
            }
            live.extend(inst.uses());
        }
    }
    result
}
