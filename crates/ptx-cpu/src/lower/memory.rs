//! Calls, loads and stores.

use ptx::ScalarType;
use ptx::ast::{Instruction, Operand};

use super::{Local, Lowerer, Res, signature_of};
use crate::ir::{Builtin, CallSite, Class, Guard, Inst, Op, Space, Target, Val};

/// Most bytes of parameters and results of one call, which travel on the host's stack.
const MAX_CALL_BYTES: u64 = 128 << 10;

impl<'a> Lowerer<'a> {
    pub(super) fn call(&mut self, inst: &'a Instruction, guard: Option<Guard>) -> Res<()> {
        let call = inst.call().ok_or_else(String::new)?;
        let (target, returns, params): (_, &[ptx::Param], &[ptx::Param]);
        let mut srcs = Vec::new();
        match call.target {
            Operand::Symbol { name, offset: 0 } => {
                let callee = self
                    .index
                    .resolve_function(name)
                    .ok_or_else(|| format!("call of unknown function `{name}`"))?;
                let ast = self.index.function(callee);
                (returns, params) = (&ast.returns, &ast.params);
                target = if ast.is_entry {
                    return Err(format!("call of kernel `{name}`"));
                } else if ast.body.is_some() {
                    Target::Direct(callee)
                } else {
                    match &**name {
                        "vprintf" => Target::Builtin(Builtin::Vprintf),
                        "malloc" => Target::Builtin(Builtin::Malloc),
                        "free" => Target::Builtin(Builtin::Free),
                        "__assertfail" => Target::Builtin(Builtin::AssertFail),
                        _ => return Err(format!("call of undefined function `{name}`")),
                    }
                };
            }
            Operand::Reg(reg) => {
                let name = call.signature.ok_or("indirect call without a prototype")?;
                if let Some(prototype) = self.body.prototype(name) {
                    (returns, params) = (&prototype.returns, &prototype.params);
                } else {
                    let first = self.body.call_table(name).and_then(|t| t.targets.first());
                    let callee = first
                        .and_then(|f| self.index.resolve_function(f))
                        .ok_or("indirect call without targets")?;
                    let ast = self.index.function(callee);
                    (returns, params) = (&ast.returns, &ast.params);
                }
                target = Target::Indirect(self.unit.signature(signature_of(returns, params)));
                srcs.push(Val::Reg(reg.0));
            }
            _ => return Err(String::new()),
        }
        if returns.len() != call.returns.len() || params.len() != call.args.len() {
            return Err("call does not match the parameters of the function".into());
        }
        let total =
            returns.iter().chain(params).fold(0u64, |sum, p| sum.saturating_add(p.size()).saturating_add(16));
        if total > MAX_CALL_BYTES {
            return Err(format!("{total} bytes of parameters of a call are too many"));
        }
        let mut args = Vec::with_capacity(params.len());
        for (operand, param) in call.args.iter().zip(params) {
            args.push(match self.object_operand(operand) {
                Some(obj) => self.fitting(obj, param)?,
                None => {
                    let value = self.val(operand, param.ty)?;
                    let obj = self.object(param.size(), param.align());
                    self.push(Inst::new(Op::StObj { obj, ty: param.ty }, vec![], vec![value]), guard);
                    obj
                }
            });
        }
        let mut rets = Vec::with_capacity(returns.len());
        let mut after = Vec::new();
        for (operand, param) in call.returns.iter().zip(returns) {
            rets.push(match self.object_operand(operand) {
                Some(obj) => self.fitting(obj, param)?,
                None => {
                    let obj = self.object(param.size(), param.align());
                    let d = self.dst(operand)?;
                    after.push(Inst::new(Op::LdObj { obj, ty: param.ty }, vec![d], vec![]));
                    obj
                }
            });
        }
        let number = self.func.calls.len() as u32;
        self.func.calls.push(CallSite { target, args, rets, sp: None });
        self.push(Inst::new(Op::Call(number), vec![], srcs), guard);
        for inst in after {
            self.push(inst, guard);
        }
        Ok(())
    }

    fn object_operand(&self, operand: &Operand) -> Option<u32> {
        match operand {
            Operand::Symbol { name, offset: 0 } => match self.locals.get(&**name) {
                Some(Local::Obj(obj)) => Some(*obj),
                _ => None,
            },
            _ => None,
        }
    }

    fn fitting(&self, obj: u32, param: &ptx::Param) -> Res<u32> {
        if u64::from(self.func.objs[obj as usize].size) < param.size() {
            return Err("an argument is smaller than the parameter of the function".into());
        }
        Ok(obj)
    }

    pub(super) fn cp_async(&mut self, ops: &[Operand], guard: Option<Guard>) -> Res<()> {
        let [dst, src, Operand::Int(len), rest @ ..] = ops else { return Err(String::new()) };
        let len = u8::try_from(*len).ok().filter(|l| matches!(l, 4 | 8 | 16)).ok_or_else(String::new)?;
        let (to, dst, dst_offset) = self.address(dst, Space::Shared, false)?;
        let (from, src, src_offset) = self.address(src, Space::Region, false)?;
        let src_offset = i32::try_from(src_offset).map_err(|_| String::new())?;
        if to != Space::Shared || from != Space::Region {
            return Err(String::new());
        }
        let mut ignore = false;
        let mut srcs = vec![dst, src];
        match rest {
            [] => {}
            // A predicate says "copy nothing", a number how many bytes to copy; a 64-bit operand is a cache policy.
            [Operand::Reg(r), ..] if self.class(r.0) == Class::I64 => {}
            [p @ (Operand::Reg(_) | Operand::NotReg(_)), ..] if self.is_pred(p) => {
                ignore = true;
                srcs.push(self.val(p, ScalarType::Pred)?);
            }
            [n, ..] => srcs.push(self.val(n, ScalarType::U32)?),
        }
        let mut inst = Inst::new(Op::CpAsync { len, src_offset, ignore }, vec![], srcs);
        inst.offset = dst_offset;
        self.push(inst, guard);
        Ok(())
    }

    pub(super) fn load(
        &mut self,
        op: Op,
        vector: u8,
        d: &Operand,
        address: &Operand,
        open: bool,
        guard: Option<Guard>,
    ) -> Res<()> {
        let Op::Ld { space, ty, order } = op else { return Err(String::new()) };
        let dsts = self.dst_list(d, vector)?;
        if let Some((obj, offset)) = self.object_access(address, space, open, ty, vector)? {
            for (i, d) in dsts.into_iter().enumerate() {
                let mut inst = Inst::new(Op::LdObj { obj, ty }, vec![d], vec![]);
                inst.offset = i64::from(offset) + i as i64 * ty.size() as i64;
                self.push(inst, guard);
            }
            return Ok(());
        }
        let (space, base, offset) = self.address(address, space, open)?;
        let mut inst = Inst::new(Op::Ld { space, ty, order }, dsts, vec![base]);
        inst.offset = offset;
        self.push(inst, guard);
        Ok(())
    }

    pub(super) fn store(
        &mut self,
        op: Op,
        vector: u8,
        address: &Operand,
        value: &Operand,
        open: bool,
        guard: Option<Guard>,
    ) -> Res<()> {
        let Op::St { space, ty, order } = op else { return Err(String::new()) };
        let values = self.val_list(value, ty, vector)?;
        if let Some((obj, offset)) = self.object_access(address, space, open, ty, vector)? {
            for (i, v) in values.into_iter().enumerate() {
                let mut inst = Inst::new(Op::StObj { obj, ty }, vec![], vec![v]);
                inst.offset = i64::from(offset) + i as i64 * ty.size() as i64;
                self.push(inst, guard);
            }
            return Ok(());
        }
        let (space, base, offset) = self.address(address, space, open)?;
        if space == Space::Param {
            return Err("store to a kernel parameter".into());
        }
        let mut srcs = vec![base];
        srcs.extend(values);
        let mut inst = Inst::new(Op::St { space, ty, order }, vec![], srcs);
        inst.offset = offset;
        self.push(inst, guard);
        Ok(())
    }

    /// The object and offset of an access to a parameter object by name.
    fn object_access(
        &mut self,
        address: &Operand,
        space: Space,
        open: bool,
        ty: ScalarType,
        vector: u8,
    ) -> Res<Option<(u32, u32)>> {
        let Operand::Address(ptx::ast::Address { base: ptx::ast::AddressBase::Symbol(name), offset }) =
            address
        else {
            return Ok(None);
        };
        let Some(Local::Obj(obj)) = self.locals.get(&**name) else { return Ok(None) };
        if space != Space::Param && !open {
            return Err(format!("`{name}` is a parameter"));
        }
        let end = offset.checked_add(ty.size() as i64 * i64::from(vector));
        let size = i64::from(self.func.objs[*obj as usize].size);
        if *offset < 0 || end.is_none_or(|e| e > size) {
            return Err(format!("access outside of parameter `{name}`"));
        }
        Ok(Some((*obj, *offset as u32)))
    }
}
