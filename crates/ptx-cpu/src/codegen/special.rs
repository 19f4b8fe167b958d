//! Special registers.

use std::mem::offset_of;

use cranelift_codegen::ir::{InstBuilder, Value, condcodes::IntCC, types};
use ptx::{Dim, Special, Sreg};

use super::func::Gen;
use crate::abi::{Block, Thread};

impl Gen<'_, '_> {
    fn thread_word(&mut self, offset: usize) -> Value {
        let flags = self.const_flags();
        self.b.ins().load(types::I32, flags, self.thread, offset as i32)
    }

    fn lane_id(&mut self) -> Value {
        match self.row {
            None => self.thread_word(offset_of!(Thread, lane)),
            Some(row) => {
                let linear = self.b.use_var(row.linear);
                self.b.ins().band_imm_u(linear, 31)
            }
        }
    }

    fn block_word(&mut self, offset: usize) -> Value {
        let flags = self.const_flags();
        self.b.ins().load(types::I32, flags, self.block, offset as i32)
    }

    pub fn block_address(&mut self, offset: usize) -> Value {
        let flags = self.const_flags();
        self.b.ins().load(types::I64, flags, self.block, offset as i32)
    }

    /// Value of a special register: 32 or 64 bits.
    pub fn special(&mut self, special: Special) -> Value {
        let component = |base: usize, dim: Dim| {
            Some(match dim {
                Dim::X => base,
                Dim::Y => base + 4,
                Dim::Z => base + 8,
                Dim::W | Dim::All => return None,
            })
        };
        let (offset, in_thread) = match special {
            Special::Tid(dim) => (component(offset_of!(Thread, tid), dim), true),
            Special::Ntid(dim) => (component(offset_of!(Block, ntid), dim), false),
            // Every block is a cluster of its own.
            Special::Ctaid(dim) | Special::Clusterid(dim) => {
                (component(offset_of!(Block, ctaid), dim), false)
            }
            Special::Nctaid(dim) | Special::Nclusterid(dim) => {
                (component(offset_of!(Block, nctaid), dim), false)
            }
            Special::ClusterCtaid(_) => (None, false),
            Special::ClusterNctaid(Dim::W | Dim::All) => (None, false),
            Special::ClusterNctaid(_) => return self.iconst(types::I32, 1),
            // The two halves of the cooperative grid's workspace.
            Special::Envreg(1) => (Some(offset_of!(Block, grid_workspace) + 4), false),
            Special::Envreg(2) => (Some(offset_of!(Block, grid_workspace)), false),
            Special::Envreg(_) | Special::Pm(_) => (None, false),
            Special::Pm64(_) => return self.iconst(types::I64, 0),
            Special::Plain(plain) => return self.plain(plain),
        };
        if let (Special::Tid(Dim::X), Some(row)) = (special, self.row) {
            return self.b.use_var(row.x);
        }
        match (offset, in_thread) {
            (None, _) => self.iconst(types::I32, 0),
            (Some(offset), true) => self.thread_word(offset),
            (Some(offset), false) => self.block_word(offset),
        }
    }

    fn plain(&mut self, sreg: Sreg) -> Value {
        match sreg {
            Sreg::Laneid => self.lane_id(),
            Sreg::Warpid => match self.row {
                None => self.thread_word(offset_of!(Thread, warp)),
                Some(row) => {
                    let linear = self.b.use_var(row.linear);
                    self.b.ins().ushr_imm_u(linear, 5)
                }
            },
            Sreg::Nwarpid => {
                let base = offset_of!(Block, ntid);
                let (x, y, z) = (self.block_word(base), self.block_word(base + 4), self.block_word(base + 8));
                let xy = self.b.ins().imul(x, y);
                let threads = self.b.ins().imul(xy, z);
                let threads = self.add_imm(threads, 31);
                self.b.ins().ushr_imm_u(threads, 5)
            }
            Sreg::Gridid => self.block_word(offset_of!(Block, grid_id)),
            Sreg::LanemaskEq | Sreg::LanemaskLt | Sreg::LanemaskLe | Sreg::LanemaskGe | Sreg::LanemaskGt => {
                let lane = self.lane_id();
                let one = self.iconst(types::I32, 1);
                let eq = self.b.ins().ishl(one, lane);
                let lt = self.add_imm(eq, -1);
                match sreg {
                    Sreg::LanemaskEq => eq,
                    Sreg::LanemaskLt => lt,
                    Sreg::LanemaskLe => self.b.ins().bor(lt, eq),
                    Sreg::LanemaskGe => self.b.ins().bnot(lt),
                    _ => {
                        let le = self.b.ins().bor(lt, eq);
                        self.b.ins().bnot(le)
                    }
                }
            }
            Sreg::Clock64 => self.helper("rt_clock64", &[]),
            Sreg::Clock => {
                let v = self.helper("rt_clock64", &[]);
                self.b.ins().ireduce(types::I32, v)
            }
            Sreg::ClockHi => {
                let v = self.helper("rt_clock64", &[]);
                let v = self.b.ins().ushr_imm_u(v, 32);
                self.b.ins().ireduce(types::I32, v)
            }
            Sreg::Globaltimer => self.helper("rt_globaltimer", &[]),
            Sreg::GlobaltimerLo => {
                let v = self.helper("rt_globaltimer", &[]);
                self.b.ins().ireduce(types::I32, v)
            }
            Sreg::GlobaltimerHi => {
                let v = self.helper("rt_globaltimer", &[]);
                let v = self.b.ins().ushr_imm_u(v, 32);
                self.b.ins().ireduce(types::I32, v)
            }
            Sreg::TotalSmemSize | Sreg::AggrSmemSize => self.block_word(offset_of!(Block, shared_len)),
            Sreg::DynamicSmemSize => self.block_word(offset_of!(Block, dynamic_shared_len)),
            Sreg::Nsmid | Sreg::ClusterNctarank => self.iconst(types::I32, 1),
            Sreg::CurrentGraphExec => self.iconst(types::I64, 0),
            // No part of shared memory is reserved for the system; there is one multiprocessor.
            Sreg::Smid
            | Sreg::ClusterCtarank
            | Sreg::ReservedSmemOffsetBegin
            | Sreg::ReservedSmemOffsetEnd
            | Sreg::ReservedSmemOffsetCap
            | Sreg::ReservedSmemOffset0
            | Sreg::ReservedSmemOffset1 => self.iconst(types::I32, 0),
            Sreg::IsExplicitCluster => self.iconst(types::I8, 0),
        }
    }

    /// 1 if `a < b`, unsigned: used by range tests.
    pub fn below(&mut self, a: Value, b: Value) -> Value {
        self.b.ins().icmp(IntCC::UnsignedLessThan, a, b)
    }
}
