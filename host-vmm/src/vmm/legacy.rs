//! The devices of a PC that stock kernels expect on I/O ports: serial ports, the reset line of the keyboard controller, ACPI's power
//! management registers.

use std::io::Write;
use std::time::Instant;

use vm_superio::serial::NoEvents;
use vm_superio::{I8042Device, Serial, Trigger};
use vmm_sys_util::eventfd::EventFd;

use super::bus::BusDevice;
use super::layout::{ACPI_PM_CONTROL, ACPI_PM_EVENT, ACPI_PM_TIMER};
use super::stop::{Stop, StopReason};

/// An interrupt line.
pub struct Line(EventFd);

impl Trigger for Line {
    type E = std::io::Error;

    fn trigger(&self) -> Result<(), Self::E> {
        self.0.write(1)
    }
}

/// A 16550 whose output goes to `W`.
pub struct SerialPort<W: Write + Send>(Serial<Line, NoEvents, W>);

impl<W: Write + Send> SerialPort<W> {
    /// A port that raises its interrupt through `interrupt`.
    pub fn new(interrupt: EventFd, output: W) -> Self {
        Self(Serial::new(Line(interrupt), output))
    }
}

impl<W: Write + Send> BusDevice for SerialPort<W> {
    fn read(&mut self, offset: u64, data: &mut [u8]) {
        for byte in data {
            *byte = self.0.read(offset as u8);
        }
    }

    fn write(&mut self, offset: u64, data: &[u8]) {
        for byte in data {
            // The guest cannot help it if the host's output is gone.
            let _ = self.0.write(offset as u8, *byte);
        }
    }
}

/// What the reset line does.
pub struct ResetLine(Stop);

impl Trigger for ResetLine {
    type E = std::convert::Infallible;

    fn trigger(&self) -> Result<(), Self::E> {
        self.0.request(StopReason::Reset);
        Ok(())
    }
}

/// Keyboard controller without a keyboard.
pub struct KeyboardController(I8042Device<ResetLine>);

impl KeyboardController {
    /// Resets by way of `stop`.
    pub fn new(stop: Stop) -> Self {
        Self(I8042Device::new(ResetLine(stop)))
    }
}

impl BusDevice for KeyboardController {
    fn read(&mut self, offset: u64, data: &mut [u8]) {
        for byte in data {
            *byte = self.0.read(offset as u8);
        }
    }

    fn write(&mut self, offset: u64, data: &[u8]) {
        for byte in data {
            let _ = self.0.write(offset as u8, *byte);
        }
    }
}

/// Frequency of ACPI's timer.
const PM_TIMER_HZ: u128 = 3_579_545;
/// The sleep-type value of power-off, as the tables declare it.
pub const SLEEP_TYPE_OFF: u8 = 5;
/// PM1 control: ACPI mode (always on: the tables name no SMI command).
const SCI_ENABLE: u16 = 1;
/// PM1 control: carry out the sleep type in bits 10 to 12.
const SLEEP_ENABLE: u16 = 1 << 13;
const SLEEP_TYPE_SHIFT: u16 = 10;

/// ACPI's fixed hardware: an event block that never fires, a control block whose only sleep state is off, a timer.
pub struct AcpiPm {
    stop: Stop,
    enable: u16,
    control: u16,
    started: Instant,
}

impl AcpiPm {
    /// Powers off by way of `stop`.
    pub fn new(stop: Stop) -> Self {
        Self { stop, enable: 0, control: 0, started: Instant::now() }
    }

    fn register_bytes(&self) -> [u8; super::layout::ACPI_PM_LEN as usize] {
        let mut bytes = [0; super::layout::ACPI_PM_LEN as usize];
        let mut put = |offset: u64, value: &[u8]| {
            bytes[offset as usize..offset as usize + value.len()].copy_from_slice(value);
        };
        let ticks = self.started.elapsed().as_nanos() * PM_TIMER_HZ / 1_000_000_000;
        put(ACPI_PM_EVENT + 2, &self.enable.to_le_bytes());
        put(ACPI_PM_CONTROL, &((self.control & !SLEEP_ENABLE) | SCI_ENABLE).to_le_bytes());
        put(ACPI_PM_TIMER, &(ticks as u32).to_le_bytes());
        bytes
    }
}

impl BusDevice for AcpiPm {
    fn read(&mut self, offset: u64, data: &mut [u8]) {
        let bytes = self.register_bytes();
        for (byte, register) in data.iter_mut().zip(bytes.get(offset as usize..).unwrap_or_default()) {
            *byte = *register;
        }
    }

    fn write(&mut self, offset: u64, data: &[u8]) {
        let mut value = [0; 2];
        for (byte, new) in value.iter_mut().zip(data) {
            *byte = *new;
        }
        let value = u16::from_le_bytes(value);
        const ENABLE: u64 = ACPI_PM_EVENT + 2;
        match offset {
            ENABLE => self.enable = value,
            ACPI_PM_CONTROL => {
                self.control = value;
                let sleep_type = (value >> SLEEP_TYPE_SHIFT) & 7;
                if value & SLEEP_ENABLE != 0 && sleep_type == u16::from(SLEEP_TYPE_OFF) {
                    self.stop.request(StopReason::PowerOff);
                }
            }
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_declared_sleep_type_powers_off() {
        let stop = Stop::new().expect("eventfd");
        let mut pm = AcpiPm::new(stop.clone());
        pm.write(ACPI_PM_CONTROL, &(u16::from(SLEEP_TYPE_OFF) << SLEEP_TYPE_SHIFT).to_le_bytes());
        pm.write(ACPI_PM_CONTROL, &((3 << SLEEP_TYPE_SHIFT) | SLEEP_ENABLE).to_le_bytes());
        assert_eq!(stop.reason(), None);
        pm.write(ACPI_PM_CONTROL, &((5 << SLEEP_TYPE_SHIFT) | SLEEP_ENABLE).to_le_bytes());
        assert_eq!(stop.reason(), Some(StopReason::PowerOff));
        let mut control = [0xFF; 2];
        pm.read(ACPI_PM_CONTROL, &mut control);
        assert_eq!(u16::from_le_bytes(control) & (SLEEP_ENABLE | SCI_ENABLE), SCI_ENABLE);
    }

    #[test]
    fn the_reset_command_resets() {
        let stop = Stop::new().expect("eventfd");
        let mut controller = KeyboardController::new(stop.clone());
        controller.write(0, &[0xFE]);
        assert!(!stop.is_requested());
        controller.write(4, &[0xFE]);
        assert_eq!(stop.reason(), Some(StopReason::Reset));
    }

    #[test]
    fn any_offset_and_length_is_survived() {
        let mut pm = AcpiPm::new(Stop::new().expect("eventfd"));
        for offset in 0..16 {
            for length in 0..16 {
                pm.write(offset, &vec![0; length]);
                pm.read(offset, &mut vec![0; length]);
            }
        }
    }

    #[test]
    fn serial_output_arrives_byte_by_byte() {
        let mut port = SerialPort::new(EventFd::new(0).expect("eventfd"), Vec::new());
        port.write(0, b"he");
        port.write(0, b"y");
        assert_eq!(port.0.writer(), b"hey");
    }
}
