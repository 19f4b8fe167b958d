//! Lane-wise video operations.

use cranelift_codegen::ir::{InstBuilder, Value, types};

use super::func::Gen;
use crate::ir::{Val, VideoOp};

impl Gen<'_, '_> {
    /// Two or four lanes of a and b; the lanes' results, or their sum added to c. `signed` is that of a, b and the result.
    pub fn video(
        &mut self,
        op: VideoOp,
        lane: u8,
        signed: [bool; 3],
        sat: bool,
        accumulate: bool,
        s: &[Val],
    ) -> Value {
        let bits = i64::from(lane) * 8;
        let a = self.read(s[0], types::I32);
        let b = self.read(s[1], types::I32);
        let c = self.read(s[2], types::I32);
        let mut sum = c;
        let mut packed = None;
        for i in 0..32 / bits {
            let x = self.field(a, i * bits, bits, signed[0]);
            let y = self.field(b, i * bits, bits, signed[1]);
            let v = match op {
                VideoOp::Add => self.b.ins().iadd(x, y),
                VideoOp::Sub => self.b.ins().isub(x, y),
                VideoOp::Min => self.min_max(x, y, true, true),
                VideoOp::Max => self.min_max(x, y, true, false),
                VideoOp::AbsDiff => {
                    let (high, low) = (self.min_max(x, y, true, false), self.min_max(x, y, true, true));
                    self.b.ins().isub(high, low)
                }
                VideoOp::Avrg => {
                    let v = self.b.ins().iadd(x, y);
                    let v = self.add_imm(v, 1);
                    self.b.ins().sshr_imm_u(v, 1)
                }
            };
            let v = if sat {
                let (low, high) = if signed[2] {
                    (-(1i64 << (bits - 1)), (1 << (bits - 1)) - 1)
                } else {
                    (0, (1 << bits) - 1)
                };
                let low = self.iconst(types::I32, low as u64);
                let high = self.iconst(types::I32, high as u64);
                let v = self.min_max(v, low, true, false);
                self.min_max(v, high, true, true)
            } else {
                v
            };
            if accumulate {
                sum = self.b.ins().iadd(sum, v);
            } else {
                let v = self.field(v, 0, bits, false);
                let v = self.b.ins().ishl_imm_u(v, i * bits);
                packed = Some(match packed {
                    None => v,
                    Some(p) => self.b.ins().bor(p, v),
                });
            }
        }
        packed.unwrap_or(sum)
    }
}
