//! Inlining of callees that may suspend: only a kernel can park, because a parked thread has no host stack.

use std::collections::HashMap;

use super::{Block, Func, Inst, Op, SINK, Target, Term, Val};

/// Size of a kernel after inlining: its instructions, registers, blocks and parameter objects.
const MAX_SIZE: usize = 1 << 20;
/// Most bytes of local memory after inlining; what a kernel may really have is less.
const MAX_LOCAL: u32 = 1 << 30;

/// Replaces the calls of functions in `parking` (which must not be recursive) by their bodies, until none is left.
///
/// # Errors
/// If the result becomes too large.
pub fn inline_parking(root: &mut Func, parking: &HashMap<u32, &Func>) -> Result<(), String> {
    let mut block = 0;
    let size =
        |f: &Func| f.insts().count() + f.regs.len() + f.blocks.len() + f.objs.len() + f.calls.len() + 2;
    let sizes: HashMap<u32, usize> = parking.iter().map(|(number, f)| (*number, size(f))).collect();
    let mut total: usize = size(root);
    while block < root.blocks.len() {
        // From the end, so that what is moved behind a call is moved once.
        let found = root.blocks[block].insts.iter().rposition(|inst| match inst.op {
            Op::Call(site) => {
                matches!(root.calls[site as usize].target, Target::Direct(f) if parking.contains_key(&f))
            }
            _ => false,
        });
        match found {
            None => block += 1,
            Some(at) => {
                let Op::Call(site) = root.blocks[block].insts[at].op else { unreachable!("found as a call") };
                let Target::Direct(callee) = root.calls[site as usize].target else {
                    unreachable!("found as direct")
                };
                total += sizes[&callee];
                if total > MAX_SIZE || root.local_len.saturating_add(parking[&callee].local_len) > MAX_LOCAL {
                    return Err(format!("kernel `{}` is too large after inlining", root.name));
                }
                // What follows the call goes to a new block at the end, and so does the callee.
                splice(root, block, at, site as usize, parking[&callee]);
            }
        }
    }
    Ok(())
}

fn splice(root: &mut Func, block: usize, at: usize, site: usize, callee: &Func) {
    let (reg_base, block_base) = (root.regs.len() as u32, root.blocks.len() as u32);
    let (call_base, local_base) = (root.calls.len() as u32, root.local_len);
    root.regs.extend(&callee.regs);
    root.local_len += callee.local_len;

    // Formal parameters stand for the caller's objects themselves.
    let call = root.calls[site].clone();
    let mut objs = vec![u32::MAX; callee.objs.len()];
    for (formal, actual) in callee.params.iter().zip(&call.args).chain(callee.returns.iter().zip(&call.rets))
    {
        objs[*formal as usize] = *actual;
    }
    for (i, slot) in objs.iter_mut().enumerate() {
        if *slot == u32::MAX {
            *slot = root.objs.len() as u32;
            root.objs.push(callee.objs[i].clone());
        } else {
            root.objs[*slot as usize].address_taken |= callee.objs[i].address_taken;
        }
    }
    let reg = |r: u32| if r == SINK { SINK } else { r + reg_base };
    for c in &callee.calls {
        let mut c = c.clone();
        // What the caller allocated dynamically stays below.
        c.sp = c.sp.map(|r| r + reg_base).or(call.sp);
        c.args.iter_mut().chain(&mut c.rets).for_each(|o| *o = objs[*o as usize]);
        root.calls.push(c);
    }
    let map_val = |v: &Val| match *v {
        Val::Reg(r) => Val::Reg(reg(r)),
        Val::NotReg(r) => Val::NotReg(reg(r)),
        Val::Local(at) => Val::Local(at + local_base),
        Val::Obj(o, offset) => Val::Obj(objs[o as usize], offset),
        Val::LocalEnd => call.sp.map_or(Val::LocalEnd, Val::Reg),
        v @ (Val::Imm(_) | Val::DynShared(_) | Val::Special(_)) => v,
    };
    let map_guard = |g: super::Guard| super::Guard { reg: reg(g.reg), ..g };

    // The rest of the caller's block goes behind the call.
    let after = block_base + callee.blocks.len() as u32;
    let tail = root.blocks[block].insts.split_off(at + 1);
    let guard = root.blocks[block].insts.pop().and_then(|call| call.guard);
    let enter = match guard {
        None => Term::Jump(block_base),
        Some(cond) => Term::Branch { cond, then: block_base, or: after },
    };
    let term = std::mem::replace(&mut root.blocks[block].term, enter);
    for b in &callee.blocks {
        let insts = b.insts.iter().map(|inst| {
            let op = match inst.op {
                Op::LdObj { obj, ty } => Op::LdObj { obj: objs[obj as usize], ty },
                Op::StObj { obj, ty } => Op::StObj { obj: objs[obj as usize], ty },
                Op::Call(site) => Op::Call(site + call_base),
                op => op,
            };
            Inst {
                op,
                guard: inst.guard.map(map_guard),
                dsts: inst.dsts.iter().map(|r| reg(*r)).collect(),
                srcs: inst.srcs.iter().map(map_val).collect(),
                offset: inst.offset,
                line: inst.line,
            }
        });
        let mut term = b.term.clone();
        term.map_successors(|s| s + block_base);
        match &mut term {
            Term::Branch { cond, .. } => *cond = map_guard(*cond),
            Term::Switch { index, .. } => *index = map_val(index),
            Term::Ret => term = Term::Jump(after),
            Term::Jump(_) | Term::Exit | Term::Trap => {}
        }
        root.blocks.push(Block { insts: insts.collect(), term });
    }
    root.blocks.push(Block { insts: tail, term });
}
