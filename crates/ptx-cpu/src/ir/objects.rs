//! Splits parameter objects into registers.

use super::{Class, Func, Inst, Op, Piece, SINK, Storage, Val};

/// More pieces than this stay in memory: they would only be spilled.
const MAX_PIECES: usize = 64;

/// Most bytes of a function's object memory, which is a part of its frame.
const MAX_OBJECT_MEMORY: u64 = 1 << 20;

/// Decides the storage of every object and rewrites the accesses: objects that are only accessed at constant offsets, in pieces that do
/// not overlap partially, become registers; the others get a place in the function's object memory.
///
/// # Errors
/// If that memory becomes too large: inlining can add up many objects.
pub fn promote(func: &mut Func) -> Result<(), String> {
    let mut accesses: Vec<Vec<(u32, ptx::ScalarType)>> = vec![Vec::new(); func.objs.len()];
    for inst in func.insts() {
        if let Op::LdObj { obj, ty } | Op::StObj { obj, ty } = inst.op {
            accesses[obj as usize].push((inst.offset as u32, ty));
        }
    }
    let mut object_len = 0u64;
    for (obj, mut list) in accesses.into_iter().enumerate() {
        list.sort_by_key(|(offset, ty)| (*offset, ty.size()));
        list.dedup_by_key(|(offset, ty)| (*offset, ty.size()));
        let disjoint = list.windows(2).all(|w| u64::from(w[0].0) + w[0].1.size() <= u64::from(w[1].0));
        if disjoint && list.len() <= MAX_PIECES && !func.objs[obj].address_taken {
            let pieces = list
                .into_iter()
                .map(|(offset, ty)| {
                    let reg = func.new_reg(Class::of(ty).unwrap_or(Class::I64));
                    Piece { offset, size: ty.size() as u32, reg }
                })
                .collect();
            func.objs[obj].storage = Storage::Pieces(pieces);
        } else {
            let object = &mut func.objs[obj];
            let offset = object_len.next_multiple_of(object.align.max(8).into());
            object_len = offset + u64::from(object.size);
            if object_len > MAX_OBJECT_MEMORY {
                return Err(format!(
                    "the parameters in `{}` need more than {MAX_OBJECT_MEMORY} bytes",
                    func.name
                ));
            }
            object.storage = Storage::Memory(offset as u32);
        }
    }
    func.object_len = (object_len as u32).next_multiple_of(16);
    let (objs, calls) = (&func.objs, &func.calls);
    let piece = |obj: u32, offset: i64| match &objs[obj as usize].storage {
        Storage::Pieces(pieces) => pieces.iter().find(|p| i64::from(p.offset) == offset).map(|p| p.reg),
        Storage::Memory(_) => None,
    };
    let all = |list: &[u32]| -> Vec<u32> {
        let pieces = list.iter().filter_map(|o| match &objs[*o as usize].storage {
            Storage::Pieces(pieces) => Some(pieces),
            Storage::Memory(_) => None,
        });
        pieces.flatten().map(|p| p.reg).collect()
    };
    for inst in func.blocks.iter_mut().flat_map(|b| &mut b.insts) {
        let offset = inst.offset;
        match inst.op {
            Op::LdObj { obj, ty } => {
                if let Some(reg) = piece(obj, offset) {
                    replace(inst, ty, inst.dsts.first().copied().unwrap_or(SINK), Val::Reg(reg));
                }
            }
            Op::StObj { obj, ty } => {
                if let Some(reg) = piece(obj, offset) {
                    replace(inst, ty, reg, inst.srcs[0]);
                }
            }
            Op::Call(site) => {
                let site = &calls[site as usize];
                inst.srcs.extend(all(&site.args).into_iter().map(Val::Reg));
                inst.dsts = all(&site.rets);
            }
            _ => {}
        }
    }
    Ok(())
}

fn replace(inst: &mut Inst, ty: ptx::ScalarType, dst: super::Reg, src: Val) {
    inst.op = Op::Mov(ty);
    inst.dsts = vec![dst];
    inst.srcs = vec![src];
    inst.offset = 0;
}
