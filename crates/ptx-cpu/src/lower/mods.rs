//! Strict reading of an opcode's modifiers: whatever is not asked for makes the form unsupported.

use ptx::{Form, ScalarType};

use crate::ir::Rnd;

/// The modifiers of a [`Form`] that have not been consumed yet.
pub struct Mods<'a> {
    form: &'a Form,
    left: Vec<&'a str>,
}

impl<'a> Mods<'a> {
    pub fn new(form: &'a Form) -> Self {
        Self { form, left: form.modifiers.iter().map(|m| &**m).collect() }
    }

    pub fn form(&self) -> &'a Form {
        self.form
    }

    /// Consumes a modifier if present.
    pub fn take(&mut self, name: &str) -> bool {
        match self.left.iter().position(|m| *m == name) {
            Some(i) => {
                self.left.remove(i);
                true
            }
            None => false,
        }
    }

    /// Consumes the first of these that is present; its index.
    pub fn take_any(&mut self, names: &[&str]) -> Option<usize> {
        let (at, which) =
            self.left.iter().enumerate().find_map(|(i, m)| Some((i, names.iter().position(|n| n == m)?)))?;
        self.left.remove(at);
        Some(which)
    }

    /// Consumes all of these, wherever they stand.
    pub fn ignore(&mut self, names: &[&str]) {
        self.left.retain(|m| !names.contains(m));
    }

    /// Consumes modifiers with this prefix (`L1::`).
    pub fn ignore_prefix(&mut self, prefix: &str) {
        self.left.retain(|m| !m.starts_with(prefix));
    }

    /// Consumes the next type.
    pub fn ty(&mut self) -> Option<ScalarType> {
        let (i, ty) = self.left.iter().enumerate().find_map(|(i, m)| Some((i, ScalarType::from_name(m)?)))?;
        self.left.remove(i);
        Some(ty)
    }

    /// Consumes `.rn`, `.rz`, `.rm`, `.rp`.
    pub fn rnd(&mut self) -> Option<Rnd> {
        Some([Rnd::Near, Rnd::Zero, Rnd::Down, Rnd::Up][self.take_any(&["rn", "rz", "rm", "rp"])?])
    }

    /// Everything was understood.
    pub fn done(&self) -> bool {
        self.left.is_empty()
    }
}
