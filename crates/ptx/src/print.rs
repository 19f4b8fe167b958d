//! Prints modules as PTX text: for debugging, and to test the parser with itself.

use std::fmt::{self, Display, Formatter, Write};

use crate::ast::*;

/// Writes a list with separators.
fn join<T>(
    f: &mut Formatter<'_>,
    separator: &str,
    list: impl IntoIterator<Item = T>,
    mut each: impl FnMut(&mut Formatter<'_>, T) -> fmt::Result,
) -> fmt::Result {
    for (i, element) in list.into_iter().enumerate() {
        if i > 0 {
            f.write_str(separator)?;
        }
        each(f, element)?;
    }
    Ok(())
}

/// `+4`, `+-4` (as compilers write it; ptxas does not accept a plain minus), or nothing.
fn offset(f: &mut Formatter<'_>, offset: i64) -> fmt::Result {
    if offset == 0 { Ok(()) } else { write!(f, "+{offset}") }
}

impl Display for Module {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        writeln!(f, ".version {}.{}\n.target {}", self.version.0, self.version.1, self.target)?;
        writeln!(f, ".address_size {}\n", self.address_size)?;
        for item in &self.items {
            match item {
                Item::Variable(variable) => writeln!(f, "{variable}")?,
                Item::Function(function) => writeln!(f, "{function}")?,
                Item::Alias { name, target } => writeln!(f, ".alias {name}, {target};")?,
            }
        }
        Ok(())
    }
}

impl Display for Target {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        write!(f, "sm_{}", self.sm)?;
        if let Some(suffix) = self.suffix {
            f.write_char(suffix)?;
        }
        self.options.iter().try_for_each(|option| write!(f, ", {option}"))
    }
}

impl Display for Linkage {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Linkage::Internal => "",
            Linkage::Extern => ".extern ",
            Linkage::Visible => ".visible ",
            Linkage::Weak => ".weak ",
            Linkage::Common => ".common ",
        })
    }
}

/// `.align 4 .v2 .f32 ` (with the space at the end).
fn type_spec(f: &mut Formatter<'_>, align: Option<u32>, vector: u8, ty: ScalarType) -> fmt::Result {
    if let Some(align) = align {
        write!(f, ".align {align} ")?;
    }
    if vector > 1 {
        write!(f, ".v{vector} ")?;
    }
    write!(f, ".{ty} ")
}

impl Display for Variable {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{} ", self.linkage, self.space)?;
        for attribute in &self.attributes {
            write!(f, ".attribute(.{attribute}) ")?;
        }
        type_spec(f, self.explicit_align, self.vector, self.ty)?;
        write!(f, "{}", self.name)?;
        for dim in &self.dims {
            match dim {
                Some(n) => write!(f, "[{n}]")?,
                None => f.write_str("[]")?,
            }
        }
        if let Some(init) = &self.init {
            write!(f, " = {init}")?;
        }
        f.write_str(";")
    }
}

impl Display for Init {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match self {
            Init::Int(n) => write!(f, "{n}"),
            Init::F32(bits) => write!(f, "0f{bits:08X}"),
            Init::F64(bits) => write!(f, "0d{bits:016X}"),
            Init::Address(address) => {
                if let Some(mask) = address.mask {
                    write!(f, "{mask:#x}(")?;
                }
                match address.generic {
                    true => write!(f, "generic({})", address.symbol)?,
                    false => write!(f, "{}", address.symbol)?,
                }
                offset(f, address.offset)?;
                if address.mask.is_some() { f.write_str(")") } else { Ok(()) }
            }
            Init::List(list) => {
                f.write_str("{")?;
                join(f, ", ", list, |f, init| init.fmt(f))?;
                f.write_str("}")
            }
            Init::Field(field) => write!(f, "{} = {}", field.0, field.1),
            Init::Word(word) => f.write_str(word),
        }
    }
}

impl Display for Param {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        write!(f, ".{} ", self.space)?;
        if let Some(ptr) = self.ptr {
            // The type comes first, so that `.align` behind `.ptr` is not taken for the parameter's.
            type_spec(f, self.explicit_align, self.vector, self.ty)?;
            f.write_str(".ptr ")?;
            if let Some(space) = ptr.space {
                write!(f, ".{space} ")?;
            }
            if let Some(align) = ptr.align {
                write!(f, ".align {align} ")?;
            }
        } else {
            type_spec(f, self.explicit_align, self.vector, self.ty)?;
        }
        write!(f, "{}", self.name)?;
        match self.array {
            None => Ok(()),
            Some(None) => f.write_str("[]"),
            Some(Some(n)) => write!(f, "[{n}]"),
        }
    }
}

fn params(f: &mut Formatter<'_>, params: &[Param]) -> fmt::Result {
    f.write_str("(")?;
    join(f, ", ", params, |f, param| param.fmt(f))?;
    f.write_str(")")
}

impl Display for Directive {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match self {
            Directive::MaxNTid([x, y, z]) => write!(f, ".maxntid {x}, {y}, {z}"),
            Directive::ReqNTid([x, y, z]) => write!(f, ".reqntid {x}, {y}, {z}"),
            Directive::ReqNCtaPerCluster([x, y, z]) => write!(f, ".reqnctapercluster {x}, {y}, {z}"),
            Directive::MinNCtaPerSm(n) => write!(f, ".minnctapersm {n}"),
            Directive::MaxNCtaPerSm(n) => write!(f, ".maxnctapersm {n}"),
            Directive::MaxNReg(n) => write!(f, ".maxnreg {n}"),
            Directive::MaxClusterRank(n) => write!(f, ".maxclusterrank {n}"),
            Directive::NoReturn => f.write_str(".noreturn"),
            Directive::ExplicitCluster => f.write_str(".explicitcluster"),
            Directive::Pragma(text) => write!(f, ".pragma \"{text}\";"),
            Directive::Other { name, args } => {
                write!(f, ".{name} ")?;
                join(f, ", ", args, |f, n| n.fmt(f))
            }
        }
    }
}

impl Display for Function {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        write!(f, "{}{} ", self.linkage, if self.is_entry { ".entry" } else { ".func" })?;
        if !self.returns.is_empty() {
            params(f, &self.returns)?;
            f.write_str(" ")?;
        }
        write!(f, "{}", self.name)?;
        params(f, &self.params)?;
        for directive in &self.directives {
            write!(f, "\n{directive}")?;
        }
        let Some(body) = &self.body else { return f.write_str("\n;") };
        f.write_str("\n{\n")?;
        let declared = self.returns.iter().chain(&self.params).filter(|p| p.reg.is_some()).count();
        for register in body.registers.iter().skip(declared) {
            writeln!(f, "\t.reg .{} {};", register.ty, register.name)?;
        }
        for variable in &body.variables {
            writeln!(f, "\t{variable}")?;
        }
        for table in &body.branch_tables {
            write!(f, "\t{}: .branchtargets ", table.name)?;
            join(f, ", ", &table.targets, |f, label| f.write_str(body.label(*label)))?;
            f.write_str(";\n")?;
        }
        for table in &body.call_tables {
            write!(f, "\t{}: .calltargets ", table.name)?;
            join(f, ", ", &table.targets, |f, name| f.write_str(name))?;
            f.write_str(";\n")?;
        }
        for prototype in &body.prototypes {
            write!(f, "\t{}: .callprototype ", prototype.name)?;
            if !prototype.returns.is_empty() {
                params(f, &prototype.returns)?;
            }
            f.write_str(" _ ")?;
            params(f, &prototype.params)?;
            prototype.directives.iter().try_for_each(|d| write!(f, " {d}"))?;
            f.write_str(";\n")?;
        }
        for statement in &body.statements {
            match statement {
                Statement::Label(label) => writeln!(f, "{}:", body.label(*label))?,
                Statement::Instruction(instruction) => {
                    writeln!(f, "\t{}", InstructionText { body, instruction })?;
                }
            }
        }
        f.write_str("}")
    }
}

/// An instruction as PTX text, with the names of the function that it belongs to.
pub struct InstructionText<'a> {
    /// The body that it is in.
    pub body: &'a Body,
    /// The instruction.
    pub instruction: &'a Instruction,
}

impl Display for InstructionText<'_> {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        if let Some(guard) = self.instruction.guard {
            let not = if guard.negated { "!" } else { "" };
            write!(f, "@{not}{} ", self.reg(guard.reg))?;
        }
        f.write_str(&self.instruction.form.text)?;
        for (i, operand) in self.instruction.operands.iter().enumerate() {
            f.write_str(if i == 0 { " " } else { ", " })?;
            self.operand(f, operand)?;
        }
        f.write_str(";")
    }
}

impl InstructionText<'_> {
    fn reg(&self, id: RegId) -> &str {
        // Printing serves debugging: an id of another function must not panic here.
        self.body.registers.get(id.0 as usize).map_or("%invalid", |r| &r.name)
    }

    fn operands(&self, f: &mut Formatter<'_>, list: &[Operand]) -> fmt::Result {
        join(f, ", ", list, |f, operand| self.operand(f, operand))
    }

    fn operand(&self, f: &mut Formatter<'_>, operand: &Operand) -> fmt::Result {
        match operand {
            Operand::Reg(id) => f.write_str(self.reg(*id)),
            Operand::NotReg(id) => write!(f, "!{}", self.reg(*id)),
            Operand::Pair(a, b) => {
                let name = |id: &Option<RegId>| id.map_or("_", |id| self.reg(id));
                write!(f, "{}|{}", name(a), name(b))
            }
            Operand::Part { reg, selector } => write!(f, "{}.{selector}", self.reg(*reg)),
            Operand::Sink => f.write_str("_"),
            Operand::Special(special) => special.fmt(f),
            Operand::Int(n) => n.fmt(f),
            Operand::F32(bits) => write!(f, "0f{bits:08X}"),
            Operand::F64(bits) => write!(f, "0d{bits:016X}"),
            Operand::Symbol { name, offset: bytes } => {
                f.write_str(name)?;
                offset(f, *bytes)
            }
            Operand::Label(label) => f.write_str(self.body.label(*label)),
            Operand::Address(address) => {
                f.write_str("[")?;
                self.address(f, address)?;
                f.write_str("]")
            }
            Operand::AddressList(list) => {
                f.write_str("[")?;
                join(f, ", ", list, |f, element| match element {
                    Operand::Address(address) => self.address(f, address),
                    other => self.operand(f, other),
                })?;
                f.write_str("]")
            }
            Operand::Vector(list) => {
                f.write_str("{")?;
                self.operands(f, list)?;
                f.write_str("}")
            }
            Operand::List(list) => {
                f.write_str("(")?;
                self.operands(f, list)?;
                f.write_str(")")
            }
        }
    }

    fn address(&self, f: &mut Formatter<'_>, address: &Address) -> fmt::Result {
        match &address.base {
            AddressBase::Reg(id) => f.write_str(self.reg(*id))?,
            AddressBase::Symbol(name) => f.write_str(name)?,
            AddressBase::Absolute => return address.offset.fmt(f),
        }
        offset(f, address.offset)
    }
}
