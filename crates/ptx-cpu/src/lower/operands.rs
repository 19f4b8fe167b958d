//! Operands and symbols.

use ptx::ScalarType;
use ptx::ast::{Address, AddressBase, Operand, RegId};

use super::{Local, Lowerer, Res};
use crate::ir::{Class, Guard, Inst, Op, Reg, SINK, Space, Val};
use crate::program::index::Place;

impl Lowerer<'_> {
    pub(super) fn class(&self, reg: Reg) -> Class {
        self.func.regs[reg as usize]
    }

    pub(super) fn is_pred(&self, operand: &Operand) -> bool {
        matches!(operand, Operand::Reg(RegId(r)) | Operand::NotReg(RegId(r)) if self.class(*r) == Class::Pred)
    }

    /// A destination register, or the sink.
    pub(super) fn dst(&self, operand: &Operand) -> Res<Reg> {
        match operand {
            Operand::Reg(r) => Ok(r.0),
            Operand::Sink => Ok(SINK),
            _ => Err(String::new()),
        }
    }

    /// `p|q`, either of which may be missing.
    pub(super) fn pair(&self, operand: &Operand) -> Res<(Reg, Reg)> {
        match operand {
            Operand::Pair(p, q) => Ok((p.map_or(SINK, |r| r.0), q.map_or(SINK, |r| r.0))),
            other => Ok((self.dst(other)?, SINK)),
        }
    }

    pub(super) fn dst_list(&self, operand: &Operand, vector: u8) -> Res<Vec<Reg>> {
        match operand {
            Operand::Vector(list) if list.len() == usize::from(vector) => {
                list.iter().map(|o| self.dst(o)).collect()
            }
            other if vector == 1 => Ok(vec![self.dst(other)?]),
            _ => Err(String::new()),
        }
    }

    pub(super) fn val_list(&mut self, operand: &Operand, ty: ScalarType, vector: u8) -> Res<Vec<Val>> {
        match operand {
            Operand::Vector(list) if list.len() == usize::from(vector) => {
                list.iter().map(|o| self.val(o, ty)).collect()
            }
            other if vector == 1 => Ok(vec![self.val(other, ty)?]),
            _ => Err(String::new()),
        }
    }

    pub(super) fn vals(&mut self, operands: &[Operand], types: &[ScalarType]) -> Res<Vec<Val>> {
        if operands.len() != types.len() {
            return Err(String::new());
        }
        operands.iter().zip(types).map(|(o, t)| self.val(o, *t)).collect()
    }

    /// A source of this type.
    pub(super) fn val(&mut self, operand: &Operand, ty: ScalarType) -> Res<Val> {
        let pred = ty == ScalarType::Pred;
        Ok(match operand {
            Operand::Reg(r) if (self.class(r.0) == Class::Pred) == pred => Val::Reg(r.0),
            Operand::NotReg(r) if pred && self.class(r.0) == Class::Pred => Val::NotReg(r.0),
            Operand::Int(i) if pred => Val::Imm(u64::from(*i != 0)),
            Operand::Int(i) => Val::Imm(match ty {
                ScalarType::F32 => u64::from((*i as f32).to_bits()),
                ScalarType::F64 => (*i as f64).to_bits(),
                _ => *i as u64,
            }),
            Operand::F32(bits) if !pred => Val::Imm(match ty {
                ScalarType::F64 => f64::from(f32::from_bits(*bits)).to_bits(),
                _ => u64::from(*bits),
            }),
            Operand::F64(bits) if !pred => Val::Imm(match ty.size() {
                4 => u64::from((f64::from_bits(*bits) as f32).to_bits()),
                _ => *bits,
            }),
            Operand::Special(s) if !pred => match s {
                ptx::Special::Tid(ptx::Dim::All)
                | ptx::Special::Ntid(ptx::Dim::All)
                | ptx::Special::Ctaid(ptx::Dim::All)
                | ptx::Special::Nctaid(ptx::Dim::All) => return Err(String::new()),
                s => Val::Special(*s),
            },
            Operand::Symbol { name, offset } if !pred => self.symbol(name, *offset)?.1,
            _ => return Err(String::new()),
        })
    }

    /// Space and address of a symbol plus offset. Functions and global variables are in [`Space::Region`].
    pub(super) fn symbol(&mut self, name: &ptx::Name, offset: i64) -> Res<(Space, Val)> {
        let add = |base: u64| Val::Imm(base.wrapping_add_signed(offset));
        match self.locals.get(&**name).copied() {
            Some(Local::KernelParam(at)) => return Ok((Space::Param, add(u64::from(at)))),
            Some(Local::Obj(obj)) => {
                self.func.objs[obj as usize].address_taken = true;
                return Ok((Space::Object, Val::Obj(obj, offset)));
            }
            Some(Local::Depot(at)) => {
                let at = i64::from(at).checked_add(offset).and_then(|a| u32::try_from(a).ok());
                return Ok((
                    Space::Local,
                    Val::Local(at.ok_or_else(|| format!("address outside of `{name}`"))?),
                ));
            }
            Some(Local::Shared { size, align }) => {
                let at = self.unit.shared(self.number, name, size, align);
                return Ok((Space::Shared, add(at)));
            }
            Some(Local::Static) | None => {}
        }
        if let Some(sym) = self.sym(name) {
            return match sym.place {
                Place::Address(address) => Ok((Space::Region, add(address))),
                Place::Shared => {
                    let at = self.unit.shared(u32::MAX, name, sym.size, sym.align);
                    Ok((Space::Shared, add(at)))
                }
                Place::DynShared => {
                    self.unit.dyn_align = self.unit.dyn_align.max(sym.align);
                    Ok((Space::Shared, Val::DynShared(offset)))
                }
                Place::Undefined => Err(format!("undefined variable `{name}`")),
            };
        }
        if self.body.variable(name).is_some_and(|v| v.space == ptx::Space::Shared) {
            return Ok((Space::Shared, Val::DynShared(offset)));
        }
        match self.index.resolve_function(name) {
            Some(f) if offset == 0 => Ok((Space::Region, Val::Imm(crate::program::index::function_id(f)))),
            _ => Err(format!("unknown symbol `{name}`")),
        }
    }

    /// Space, base and constant offset of `[...]`. If the instruction names no space (`open`), that of a symbol is taken.
    pub(super) fn address(&mut self, operand: &Operand, space: Space, open: bool) -> Res<(Space, Val, i64)> {
        let Operand::Address(Address { base, offset }) = operand else { return Err(String::new()) };
        // In a device function `.param` is its own parameters, in a kernel the kernel's.
        let space = if space == Space::Param && !self.ast.is_entry { Space::Object } else { space };
        match base {
            AddressBase::Reg(r) if matches!(self.class(r.0), Class::I32 | Class::I64) => {
                Ok((space, Val::Reg(r.0), *offset))
            }
            AddressBase::Reg(_) => Err(String::new()),
            AddressBase::Absolute => Ok((space, Val::Imm(*offset as u64), 0)),
            AddressBase::Symbol(name) => {
                let (own, value) = self.symbol(name, *offset)?;
                if own != space && !open {
                    return Err(format!("`{name}` is in another state space"));
                }
                Ok((own, value, 0))
            }
        }
    }

    pub(super) fn mov(&mut self, ops: &[Operand], ty: ScalarType, guard: Option<Guard>) -> Res<()> {
        let part = |n: usize| {
            let size = ty.size() as usize;
            if matches!((size, n), (2, 2) | (4, 2 | 4) | (8, 2 | 4 | 8)) {
                Ok((size / n) as u8)
            } else {
                Err(String::new())
            }
        };
        match ops {
            [Operand::Vector(list), src] => {
                let part = part(list.len())?;
                let dsts = list.iter().map(|o| self.dst(o)).collect::<Res<Vec<_>>>()?;
                let src = self.val(src, ty)?;
                self.push(Inst::new(Op::Unpack { part }, dsts, vec![src]), guard);
            }
            [d, Operand::Vector(list)] => {
                let part = part(list.len())?;
                let d = self.dst(d)?;
                let element = match part {
                    1 => ScalarType::B8,
                    2 => ScalarType::B16,
                    _ => ScalarType::B32,
                };
                let srcs = list.iter().map(|o| self.val(o, element)).collect::<Res<Vec<_>>>()?;
                self.push(Inst::new(Op::Pack { part }, vec![d], srcs), guard);
            }
            [d, src] => {
                if ty == ScalarType::B128 {
                    return Err(String::new());
                }
                let d = self.dst(d)?;
                let src = self.val(src, ty)?;
                self.push(Inst::new(Op::Mov(ty), vec![d], vec![src]), guard);
            }
            _ => return Err(String::new()),
        }
        Ok(())
    }
}
