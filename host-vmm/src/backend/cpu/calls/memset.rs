//! Fills.
#![allow(non_snake_case)] // The driver's names.

use protocol::status::CuResult;

use crate::backend::cpu::CpuBackend;
use crate::backend::cpu::copy::Area;
use crate::backend::cpu::copy::Value;
use crate::generated::driver::MemsetCalls;
use crate::session::Call;

impl MemsetCalls for CpuBackend {
    fn cuMemsetD8_v2(
        &self,
        call: &mut Call<'_>,
        dstDevice: u64,
        uc: u8,
        N: u64,
        default_stream: u64,
    ) -> CuResult {
        self.fill_row(call, dstDevice, N, Value::U8(uc), default_stream)
    }

    fn cuMemsetD16_v2(
        &self,
        call: &mut Call<'_>,
        dstDevice: u64,
        us: u16,
        N: u64,
        default_stream: u64,
    ) -> CuResult {
        self.fill_row(call, dstDevice, N, Value::U16(us), default_stream)
    }

    fn cuMemsetD32_v2(
        &self,
        call: &mut Call<'_>,
        dstDevice: u64,
        ui: u32,
        N: u64,
        default_stream: u64,
    ) -> CuResult {
        self.fill_row(call, dstDevice, N, Value::U32(ui), default_stream)
    }

    fn cuMemsetD2D8_v2(
        &self,
        call: &mut Call<'_>,
        dstDevice: u64,
        dstPitch: u64,
        uc: u8,
        Width: u64,
        Height: u64,
        default_stream: u64,
    ) -> CuResult {
        let area = Area { dst: dstDevice, pitch: dstPitch, width: Width, height: Height };
        self.fill(call, area, Value::U8(uc), default_stream)
    }

    fn cuMemsetD2D16_v2(
        &self,
        call: &mut Call<'_>,
        dstDevice: u64,
        dstPitch: u64,
        us: u16,
        Width: u64,
        Height: u64,
        default_stream: u64,
    ) -> CuResult {
        let area = Area { dst: dstDevice, pitch: dstPitch, width: Width, height: Height };
        self.fill(call, area, Value::U16(us), default_stream)
    }

    fn cuMemsetD2D32_v2(
        &self,
        call: &mut Call<'_>,
        dstDevice: u64,
        dstPitch: u64,
        ui: u32,
        Width: u64,
        Height: u64,
        default_stream: u64,
    ) -> CuResult {
        let area = Area { dst: dstDevice, pitch: dstPitch, width: Width, height: Height };
        self.fill(call, area, Value::U32(ui), default_stream)
    }

    fn cuMemsetD8Async(&self, call: &mut Call<'_>, dstDevice: u64, uc: u8, N: u64, hStream: u64) -> CuResult {
        self.fill_row(call, dstDevice, N, Value::U8(uc), hStream)
    }

    fn cuMemsetD16Async(
        &self,
        call: &mut Call<'_>,
        dstDevice: u64,
        us: u16,
        N: u64,
        hStream: u64,
    ) -> CuResult {
        self.fill_row(call, dstDevice, N, Value::U16(us), hStream)
    }

    fn cuMemsetD32Async(
        &self,
        call: &mut Call<'_>,
        dstDevice: u64,
        ui: u32,
        N: u64,
        hStream: u64,
    ) -> CuResult {
        self.fill_row(call, dstDevice, N, Value::U32(ui), hStream)
    }

    fn cuMemsetD2D8Async(
        &self,
        call: &mut Call<'_>,
        dstDevice: u64,
        dstPitch: u64,
        uc: u8,
        Width: u64,
        Height: u64,
        hStream: u64,
    ) -> CuResult {
        self.cuMemsetD2D8_v2(call, dstDevice, dstPitch, uc, Width, Height, hStream)
    }

    fn cuMemsetD2D16Async(
        &self,
        call: &mut Call<'_>,
        dstDevice: u64,
        dstPitch: u64,
        us: u16,
        Width: u64,
        Height: u64,
        hStream: u64,
    ) -> CuResult {
        self.cuMemsetD2D16_v2(call, dstDevice, dstPitch, us, Width, Height, hStream)
    }

    fn cuMemsetD2D32Async(
        &self,
        call: &mut Call<'_>,
        dstDevice: u64,
        dstPitch: u64,
        ui: u32,
        Width: u64,
        Height: u64,
        hStream: u64,
    ) -> CuResult {
        self.cuMemsetD2D32_v2(call, dstDevice, dstPitch, ui, Width, Height, hStream)
    }
}
