//! Yields in loops that may wait for other threads.
//!
//! A thread runs until it parks, so a loop that waits for another thread's write must park too. A loop can only wait if a branch in
//! it depends on something that other threads write: on the result of a volatile, relaxed, acquire or atomic access, directly or
//! through registers, memory or calls. Loops that merely contain such accesses (histograms) pay nothing.

use std::collections::HashSet;

use super::{Block, Func, Inst, Op, Order, SINK, Target, Term, Val};
use crate::abi::op as park;

/// Steps of the search for loops that may spin in one function. Beyond them a loop is taken for one: that costs its threads time, but
/// is right.
const MAX_STEPS: usize = 50_000_000;

/// Contains a read that may see what other threads write at any time (calls not considered).
pub fn reads_shared_state(func: &Func) -> bool {
    func.insts().any(is_source)
}

fn is_source(inst: &Inst) -> bool {
    match inst.op {
        Op::Ld { order: Order::Strong, .. } => true,
        Op::Atom { .. } => inst.dsts.iter().any(|d| *d != SINK),
        _ => false,
    }
}

/// Inserts `YIELD` on the back edges of loops that may spin. `call_is_source` says whether a called function reads shared state.
pub fn insert_yields(func: &mut Func, call_is_source: impl Fn(u32) -> bool) {
    let calls: Vec<bool> =
        func.calls.iter().map(|c| matches!(c.target, Target::Direct(f) if call_is_source(f))).collect();
    let source = |inst: &Inst| is_source(inst) || matches!(inst.op, Op::Call(site) if calls[site as usize]);
    if !func.insts().any(source) {
        return;
    }
    let predecessors = predecessors(func);
    let mut steps = MAX_STEPS;
    for (from, to) in retreating_edges(func) {
        if steps == 0 || {
            let body = loop_body(&predecessors, from, to);
            steps = steps.saturating_sub(body.len());
            may_spin(func, &body, &source, &calls, &mut steps)
        } {
            let middle = func.blocks.len() as u32;
            let srcs = vec![Val::Imm(0); 4];
            let mut inst = Inst::new(Op::Park(park::YIELD), vec![SINK, SINK], srcs);
            inst.line = func.blocks[from as usize].insts.last().map_or(0, |i| i.line);
            func.blocks.push(Block { insts: vec![inst], term: Term::Jump(to) });
            func.blocks[from as usize].term.map_successors(|s| if s == to { middle } else { s });
        }
    }
}

pub(super) fn predecessors(func: &Func) -> Vec<Vec<u32>> {
    let mut list = vec![Vec::new(); func.blocks.len()];
    for (i, block) in func.blocks.iter().enumerate() {
        for s in block.term.successors() {
            list[s as usize].push(i as u32);
        }
    }
    list
}

/// Edges to a block that is still open in a depth-first search: at least one in every cycle.
fn retreating_edges(func: &Func) -> Vec<(u32, u32)> {
    #[derive(Clone, Copy, PartialEq)]
    enum State {
        New,
        Open,
        Done,
    }
    let mut state = vec![State::New; func.blocks.len()];
    let mut edges = Vec::new();
    let mut known = HashSet::new();
    let mut stack = vec![(0u32, func.blocks[0].term.successors().collect::<Vec<_>>())];
    state[0] = State::Open;
    while let Some((block, rest)) = stack.last_mut() {
        match rest.pop() {
            None => {
                state[*block as usize] = State::Done;
                stack.pop();
            }
            Some(next) => match state[next as usize] {
                State::New => {
                    state[next as usize] = State::Open;
                    stack.push((next, func.blocks[next as usize].term.successors().collect()));
                }
                State::Open => {
                    if known.insert((*block, next)) {
                        edges.push((*block, next));
                    }
                }
                State::Done => {}
            },
        }
    }
    edges
}

/// The blocks that reach `from` without passing `to`, both included.
fn loop_body(predecessors: &[Vec<u32>], from: u32, to: u32) -> Vec<u32> {
    let mut body = vec![to];
    let mut seen: HashSet<u32> = HashSet::from([to]);
    let mut work = vec![from];
    while let Some(block) = work.pop() {
        if seen.insert(block) {
            body.push(block);
            work.extend(&predecessors[block as usize]);
        }
    }
    body
}

/// Whether a branch or guard of the loop depends on a source: a closure over registers, objects and memory, without order.
fn may_spin(
    func: &Func,
    body: &[u32],
    source: &impl Fn(&Inst) -> bool,
    calls: &[bool],
    steps: &mut usize,
) -> bool {
    let insts = || body.iter().flat_map(|b| &func.blocks[*b as usize].insts);
    if !insts().any(source) {
        return false;
    }
    let mut regs: HashSet<u32> = HashSet::new();
    let mut objs: HashSet<u32> = HashSet::new();
    let mut memory = false;
    loop {
        let before = (regs.len(), objs.len(), memory);
        for inst in insts() {
            *steps = steps.saturating_sub(1);
            let mut tainted = source(inst) || inst.uses().any(|r| regs.contains(&r));
            match inst.op {
                Op::Ld { .. } => tainted |= memory,
                Op::LdObj { obj, .. } => tainted |= objs.contains(&obj),
                Op::St { .. } if tainted => memory = true,
                Op::StObj { obj, .. } if tainted => {
                    objs.insert(obj);
                }
                Op::Call(site) => {
                    let call = &func.calls[site as usize];
                    tainted |= calls[site as usize] || call.args.iter().any(|o| objs.contains(o));
                    if tainted {
                        objs.extend(&call.rets);
                        memory = true;
                    }
                }
                _ => {}
            }
            if tainted {
                regs.extend(inst.defs());
            }
        }
        if before == (regs.len(), objs.len(), memory) {
            break;
        }
        if *steps == 0 {
            return true;
        }
    }
    let branches = body.iter().filter_map(|b| func.blocks[*b as usize].term.uses());
    let guards = insts().filter_map(|i| i.guard.map(|g| g.reg));
    branches.chain(guards).any(|r| regs.contains(&r))
}
