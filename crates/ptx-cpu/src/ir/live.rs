//! Which registers are live between blocks and across suspension points.

use std::collections::{HashMap, HashSet};

use super::spin::predecessors;
use super::{Func, Op, Reg};

/// Most instructions of a function.
const MAX_INSTS: usize = 2 << 20;
/// Most edges between blocks: branch tables can have very many.
const MAX_EDGES: usize = 1 << 18;
/// Most bits of the sets of live registers, one set per block.
const MAX_SET_BITS: usize = 1 << 32;
/// Most words of those sets that are looked at until they settle.
const MAX_STEPS: usize = 1 << 29;
/// Most registers that are live at the beginnings of blocks or across suspension points, summed up: code generation takes time and
/// memory in proportion.
const MAX_LIVE: usize = 4 << 20;

/// The registers that are live at the beginning of each block.
struct LiveIn {
    /// Register of each bit.
    reg_of: Vec<Reg>,
    sets: Vec<Vec<u64>>,
}

fn too_large(func: &Func) -> String {
    format!("`{}` is too large", func.name)
}

/// Can the function be compiled in reasonable time and memory?
///
/// # Errors
/// It is too large.
pub fn check(func: &Func) -> Result<(), String> {
    live_in(func).map(drop)
}

fn live_in(func: &Func) -> Result<LiveIn, String> {
    let edges: usize = func.blocks.iter().map(|block| block.term.successors().count()).sum();
    if func.insts().count() > MAX_INSTS || edges > MAX_EDGES {
        return Err(too_large(func));
    }
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
    if words.saturating_mul(func.blocks.len()) > MAX_SET_BITS / 64 {
        return Err(too_large(func));
    }
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
    let mut steps = 0;
    while let Some(b) = work.pop() {
        steps += (words + 1) * (func.blocks[b].term.successors().count() + 1);
        if steps > MAX_STEPS {
            return Err(too_large(func));
        }
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

    let total: usize = live_in.iter().flatten().map(|bits| bits.count_ones() as usize).sum();
    if total > MAX_LIVE { Err(too_large(func)) } else { Ok(LiveIn { reg_of, sets: live_in }) }
}

/// For each [`Op::Park`], by block and index: the registers that must survive it, in ascending order.
///
/// # Errors
/// As [`check`].
pub fn across_parks(func: &Func) -> Result<HashMap<(u32, u32), Vec<Reg>>, String> {
    let LiveIn { reg_of, sets: live_in } = live_in(func)?;
    let mut total = 0usize;
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
                total += across.len();
                if total > MAX_LIVE {
                    return Err(too_large(func));
                }
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
    Ok(result)
}
