//! Values: registers, operands, constants, and what memory accesses are marked with.

use cranelift_codegen::ir::{
    InstBuilder, MemFlagsData, Type, Value,
    immediates::{Ieee32, Ieee64},
    types,
};
use ptx::ScalarType;

use super::func::Gen;
use crate::ir::{Class, Reg, SINK, Storage, Val};

impl Gen<'_, '_> {
    pub fn use_reg(&mut self, reg: Reg) -> Value {
        self.b.use_var(self.vars[reg as usize])
    }

    /// The operand as a value of this type: registers of other classes are reinterpreted, truncated or zero-extended.
    pub fn read(&mut self, val: Val, want: Type) -> Value {
        match val {
            Val::Reg(r) => {
                let v = self.use_reg(r);
                self.coerce(v, want, false)
            }
            Val::NotReg(r) => {
                let v = self.use_reg(r);
                let v = self.b.ins().bxor_imm_u(v, 1);
                self.coerce(v, want, false)
            }
            Val::Imm(bits) => self.constant(want, bits),
            Val::Local(offset) => match self.local_sp {
                None => self.constant(want, u64::from(offset)),
                Some(sp) => {
                    let v = self.b.ins().iadd_imm_u(sp, i64::from(offset));
                    self.coerce(v, want, false)
                }
            },
            Val::LocalEnd => {
                let end = u64::from(self.func.local_len);
                match self.local_sp {
                    None => self.constant(want, end),
                    Some(sp) => {
                        let v = self.add_imm(sp, end as i64);
                        self.coerce(v, want, false)
                    }
                }
            }
            Val::DynShared(offset) => {
                self.constant(want, u64::from(self.cx.unit.layout.dyn_shared).wrapping_add_signed(offset))
            }
            Val::Obj(obj, offset) => {
                let at = match self.func.objs[obj as usize].storage {
                    Storage::Memory(at) => at,
                    Storage::Pieces(_) => 0,
                };
                self.constant(want, u64::from(at).wrapping_add_signed(offset))
            }
            Val::Special(s) => {
                let v = self.special(s);
                self.coerce(v, want, false)
            }
        }
    }

    /// Writes a register, truncating or extending the value.
    pub fn def(&mut self, reg: Reg, value: Value, signed: bool) {
        if reg == SINK {
            return;
        }
        let value = self.coerce(value, class_type(self.func.regs[reg as usize]), signed);
        self.b.def_var(self.vars[reg as usize], value);
    }

    /// Converts between types by their bits.
    pub fn coerce(&mut self, value: Value, want: Type, signed: bool) -> Value {
        let have = self.type_of(value);
        if have == want {
            return value;
        }
        let bits = if have.is_float() { self.bitcast(int_type(have.bytes()), value) } else { value };
        let sized = match have.bytes().cmp(&want.bytes()) {
            std::cmp::Ordering::Equal => bits,
            std::cmp::Ordering::Greater => self.b.ins().ireduce(int_type(want.bytes()), bits),
            std::cmp::Ordering::Less if signed => self.b.ins().sextend(int_type(want.bytes()), bits),
            std::cmp::Ordering::Less => self.b.ins().uextend(int_type(want.bytes()), bits),
        };
        if want.is_float() { self.bitcast(want, sized) } else { sized }
    }

    pub fn type_of(&self, value: Value) -> Type {
        self.b.func.dfg.value_type(value)
    }

    pub fn bitcast(&mut self, ty: Type, value: Value) -> Value {
        self.b.ins().bitcast(ty, MemFlagsData::new(), value)
    }

    pub fn iconst(&mut self, ty: Type, bits: u64) -> Value {
        let bits = match ty.bytes() {
            8 => bits,
            n => bits & ((1 << (n * 8)) - 1),
        };
        self.b.ins().iconst(ty, bits as i64)
    }

    /// A constant of any type, by its bits.
    pub fn constant(&mut self, ty: Type, bits: u64) -> Value {
        match ty {
            types::F32 => self.b.ins().f32const(Ieee32::with_bits(bits as u32)),
            types::F64 => self.b.ins().f64const(Ieee64::with_bits(bits)),
            ty => self.iconst(ty, bits),
        }
    }

    pub fn select(&mut self, c: Value, a: Value, b: Value) -> Value {
        self.b.ins().select(c, a, b)
    }

    // Memory flags.

    /// Device memory: may fault.
    pub fn heap_flags(&self) -> MemFlagsData {
        MemFlagsData::new().with_aligned().with_alias_region(Some(self.heap))
    }

    /// [`Thread`] fields that code writes.
    pub fn state_flags(&self) -> MemFlagsData {
        MemFlagsData::trusted().with_alias_region(Some(self.state))
    }

    /// Fields that nobody writes while code runs.
    pub fn const_flags(&self) -> MemFlagsData {
        MemFlagsData::trusted().with_readonly().with_can_move()
    }

    pub fn frame_flags(&self) -> MemFlagsData {
        MemFlagsData::trusted().with_alias_region(Some(self.frame))
    }
}

pub fn class_type(class: Class) -> Type {
    match class {
        Class::Pred | Class::I8 => types::I8,
        Class::I16 => types::I16,
        Class::I32 => types::I32,
        Class::I64 => types::I64,
        Class::F32 => types::F32,
        Class::F64 => types::F64,
    }
}

/// The integer type of this many bytes (at most 8).
pub fn int_type(bytes: u32) -> Type {
    match bytes {
        1 => types::I8,
        2 => types::I16,
        4 => types::I32,
        _ => types::I64,
    }
}

/// The type that a PTX type is computed in; 16-bit floats and packed types are integers.
pub fn value_type(ty: ScalarType) -> Type {
    match ty {
        ScalarType::F32 => types::F32,
        ScalarType::F64 => types::F64,
        ScalarType::Pred => types::I8,
        ty => int_type(ty.size() as u32),
    }
}
