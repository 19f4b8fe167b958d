//! The KVM layer under hand-written guest code: exits, memory above 4 GiB, doorbells, interrupts, reset. Needs `/dev/kvm` only.

use std::sync::{Arc, Mutex};

use host_vmm::vmm::bus::{Bus, BusDevice};
use host_vmm::vmm::legacy::{AcpiPm, KeyboardController, SerialPort};
use host_vmm::vmm::machine::{Interrupts, Machine};
use host_vmm::vmm::memory::GuestRam;
use host_vmm::vmm::stop::{Stop, StopReason};
use host_vmm::vmm::vcpu::CpuState;
use host_vmm::vmm::{Error, layout};
use vm_memory::{Bytes as _, GuestAddress};
use vmm_sys_util::eventfd::{EFD_NONBLOCK, EventFd};

const CODE: u64 = 0x1000;
const TABLES: u64 = 0x2000;
const STACK: u64 = 0x1F_0000;
/// Guest-virtual address whose page table entry leads to the doorbell's page, uncached or not: it is no memory.
const DOORBELL: u64 = layout::VIRTIO_MMIO;
/// A port on which the guest says that it is done.
const DONE: u16 = 0xF4;

/// The machine, or `None` with the reason printed.
fn machine(len_bytes: u64, interrupts: Interrupts) -> Option<Machine> {
    let ram = GuestRam::new(len_bytes).expect("guest memory");
    match Machine::new(ram, interrupts) {
        Ok(machine) => Some(machine),
        Err(error @ Error::NoKvm(_)) => {
            println!("skipped: {error}");
            None
        }
        Err(error) => panic!("{error}"),
    }
}

/// Identity mapping in 2 MiB pages of [0, 2 MiB), of the doorbell's 2 MiB and of the first 2 MiB above 4 GiB, for ring 3 too.
fn write_tables(machine: &Machine) {
    let put = |address: u64, value: u64| {
        machine.memory().write_obj(value, GuestAddress(address)).expect("table in guest memory");
    };
    let table = |n: u64| TABLES + n * 0x1000;
    const PRESENT_WRITE_USER: u64 = 7;
    const LARGE: u64 = 0x80;
    put(table(0), table(1) | PRESENT_WRITE_USER);
    for (gib, directory) in [(0, 2), (3, 3), (4, 4)] {
        put(table(1) + 8 * gib, table(directory) | PRESENT_WRITE_USER);
    }
    put(table(2), PRESENT_WRITE_USER | LARGE);
    put(table(3) + 8 * ((DOORBELL >> 21) & 511), (DOORBELL & !0x1F_FFFF) | PRESENT_WRITE_USER | LARGE);
    put(table(4), layout::HOLE_END | PRESENT_WRITE_USER | LARGE);
}

fn write_code(machine: &Machine, code: &[u8]) {
    machine.memory().write_slice(code, GuestAddress(CODE)).expect("code in guest memory");
}

fn flat(user: bool) -> CpuState {
    CpuState::Flat64 { entry: CODE, stack: STACK, page_tables: TABLES, user }
}

/// Counts writes and ends the machine at the first one, with what was written.
struct Recorder {
    stop: Option<Stop>,
    writes: Vec<Vec<u8>>,
}

impl BusDevice for Recorder {
    fn read(&mut self, offset: u64, data: &mut [u8]) {
        data.fill(0xA0 | offset as u8);
    }
    fn write(&mut self, _: u64, data: &[u8]) {
        self.writes.push(data.to_vec());
        if let Some(stop) = &self.stop {
            stop.request(StopReason::PowerOff);
        }
    }
}

fn recorder(stop: Option<&Stop>) -> Arc<Mutex<Recorder>> {
    Arc::new(Mutex::new(Recorder { stop: stop.cloned(), writes: Vec::new() }))
}

/// Runs to the end; the bytes that the guest wrote to DONE.
fn run(machine: Machine, mut ports: Bus, mmio: Bus) -> (StopReason, Vec<Vec<u8>>) {
    let done = recorder(Some(machine.stop()));
    ports.insert(u64::from(DONE), 1, done.clone()).expect("port is free");
    let reason = machine.start(Arc::new(ports), Arc::new(mmio)).expect("start").wait();
    let writes = done.lock().expect("lock").writes.clone();
    (reason, writes)
}

#[derive(Clone, Default)]
struct Sink(Arc<Mutex<Vec<u8>>>);

impl std::io::Write for Sink {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().expect("lock").extend_from_slice(bytes);
        Ok(bytes.len())
    }
    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

#[test]
fn real_mode_writes_to_the_serial_port_and_halts() {
    let Some(mut machine) = machine(2 << 20, Interrupts::None) else { return };
    // mov dx, 0x3F8; mov al, 'o'; out dx, al; mov al, 'k'; out dx, al; hlt
    write_code(&machine, &[0xBA, 0xF8, 0x03, 0xB0, b'o', 0xEE, 0xB0, b'k', 0xEE, 0xF4]);
    machine.add_vcpu(CpuState::Real { entry: CODE as u16 }, 1).expect("processor");
    let sink = Sink::default();
    let mut ports = Bus::default();
    let serial = SerialPort::new(EventFd::new(0).expect("eventfd"), sink.clone());
    ports.insert(layout::COM1, 8, Arc::new(Mutex::new(serial))).expect("port is free");
    assert_eq!(run(machine, ports, Bus::default()), (StopReason::Halted, vec![]));
    assert_eq!(*sink.0.lock().expect("lock"), b"ok");
}

#[test]
fn memory_above_the_hole_is_the_file_that_others_map() {
    let Some(mut machine) = machine(layout::HOLE + (4 << 20), Interrupts::None) else { return };
    write_tables(&machine);
    // mov rbx, 0x100080000; mov dword [rbx], 0x12345678; mov eax, [rbx]; out DONE, eax; jmp $
    write_code(
        &machine,
        &[
            0x48, 0xBB, 0, 0, 8, 0, 1, 0, 0, 0, 0xC7, 0x03, 0x78, 0x56, 0x34, 0x12, 0x8B, 0x03, 0xE7,
            DONE as u8, 0xEB, 0xFE,
        ],
    );
    machine.add_vcpu(flat(true), 1).expect("processor");
    let ram = machine.ram().clone();
    let (reason, writes) = run(machine, Bus::default(), Bus::default());
    assert_eq!((reason, writes), (StopReason::PowerOff, vec![vec![0x78, 0x56, 0x34, 0x12]]));
    // The machine is gone; its memory is still there for whoever holds the file.
    let elsewhere = ram.map().expect("another mapping");
    let word: u32 = elsewhere.read_obj(GuestAddress(layout::HOLE_END + 0x8_0000)).expect("mapped");
    assert_eq!(word, 0x1234_5678);
}

#[test]
fn registers_in_the_hole_are_read_and_written_with_their_width() {
    let Some(mut machine) = machine(2 << 20, Interrupts::None) else { return };
    write_tables(&machine);
    // mov ebx, DOORBELL; mov word [rbx+2], 0x1234; movzx eax, byte [rbx+5]; out DONE, al; jmp $
    let mut code = vec![0xBB];
    code.extend_from_slice(&(DOORBELL as u32).to_le_bytes());
    code.extend_from_slice(&[
        0x66, 0xC7, 0x43, 2, 0x34, 0x12, 0x0F, 0xB6, 0x43, 5, 0xE6, DONE as u8, 0xEB, 0xFE,
    ]);
    write_code(&machine, &code);
    machine.add_vcpu(flat(true), 1).expect("processor");
    let device = recorder(None);
    let mut mmio = Bus::default();
    mmio.insert(DOORBELL, 0x100, device.clone()).expect("free");
    assert_eq!(run(machine, Bus::default(), mmio), (StopReason::PowerOff, vec![vec![0xA5]]));
    assert_eq!(device.lock().expect("lock").writes, [vec![0x34, 0x12]]);
}

#[test]
fn a_doorbell_rings_without_an_exit_for_its_value_only() {
    let Some(mut machine) = machine(2 << 20, Interrupts::None) else { return };
    write_tables(&machine);
    // mov ebx, DOORBELL; mov eax, 1; 3 x mov [rbx], eax; dec eax; mov [rbx], eax; out DONE, al; jmp $
    let mut code = vec![0xBB];
    code.extend_from_slice(&(DOORBELL as u32).to_le_bytes());
    code.extend_from_slice(&[
        0xB8, 1, 0, 0, 0, 0x89, 3, 0x89, 3, 0x89, 3, 0xFF, 0xC8, 0x89, 3, 0xE6, DONE as u8,
    ]);
    code.extend_from_slice(&[0xEB, 0xFE]);
    write_code(&machine, &code);
    let event = EventFd::new(EFD_NONBLOCK).expect("eventfd");
    machine.connect_doorbell(&event, DOORBELL, 1).expect("doorbell");
    machine.add_vcpu(flat(true), 1).expect("processor");
    let device = recorder(None);
    let mut mmio = Bus::default();
    mmio.insert(DOORBELL, 4, device.clone()).expect("free");
    assert_eq!(run(machine, Bus::default(), mmio), (StopReason::PowerOff, vec![vec![0]]));
    assert_eq!(event.read().expect("rung"), 3);
    assert_eq!(device.lock().expect("lock").writes, [vec![0, 0, 0, 0]]);
}

#[test]
fn two_processors_meet_in_memory() {
    let Some(mut machine) = machine(2 << 20, Interrupts::None) else { return };
    write_tables(&machine);
    // mov ebx, 0x80000; mov eax, 1; lock xadd [rbx], eax; test eax, eax; jnz second;
    // first: jmp $; second: out DONE, al; jmp $
    write_code(
        &machine,
        &[
            0xBB, 0, 0, 8, 0, 0xB8, 1, 0, 0, 0, 0xF0, 0x0F, 0xC1, 0x03, 0x85, 0xC0, 0x75, 2, 0xEB, 0xFE,
            0xE6, DONE as u8, 0xEB, 0xFE,
        ],
    );
    machine.add_vcpu(flat(true), 2).expect("first processor");
    machine.add_vcpu(flat(true), 2).expect("second processor");
    assert!(matches!(machine.add_vcpu(flat(true), 2), Err(Error::Cpus(2))));
    // The end also shows that a processor in an endless loop is brought back.
    assert_eq!(run(machine, Bus::default(), Bus::default()), (StopReason::PowerOff, vec![vec![1]]));
}

#[test]
fn an_interrupt_line_reaches_a_waiting_processor() {
    let Some(mut machine) = machine(2 << 20, Interrupts::InKernel) else { return };
    // Real mode: vector 0x24 (timer PIC base 0x20 + line 4) -> handler; PIC initialised; sti; hlt; jmp $.
    let handler = CODE as u16 + 0x80;
    let memory = machine.memory().clone();
    memory.write_obj(u32::from(handler), GuestAddress(0x24 * 4)).expect("vector");
    // mov al, 'i'; out DONE, al; jmp $
    memory
        .write_slice(&[0xB0, b'i', 0xE6, DONE as u8, 0xEB, 0xFE], GuestAddress(u64::from(handler)))
        .expect("handler");
    let mut code = vec![];
    // ICW1..ICW4 for the first PIC, then a mask that lets line 4 through.
    for (port, value) in [(0x20, 0x11), (0x21, 0x20), (0x21, 0x04), (0x21, 0x01), (0x21, 0xEF)] {
        code.extend_from_slice(&[0xB0, value, 0xE6, port]);
    }
    code.extend_from_slice(&[0xFB, 0xF4, 0xEB, 0xFD]);
    write_code(&machine, &code);
    let line = EventFd::new(0).expect("eventfd");
    machine.connect_interrupt(&line, layout::COM1_GSI).expect("interrupt line");
    machine.add_vcpu(CpuState::Real { entry: CODE as u16 }, 1).expect("processor");
    let stop = machine.stop().clone();
    // Edges before the PIC is ready are lost: ring until it is over.
    let ringer = std::thread::spawn(move || {
        while !stop.is_requested() {
            line.write(1).expect("ring");
            std::thread::sleep(std::time::Duration::from_millis(1));
        }
    });
    assert_eq!(run(machine, Bus::default(), Bus::default()), (StopReason::PowerOff, vec![vec![b'i']]));
    ringer.join().expect("ringer");
}

#[test]
fn reset_line_and_acpi_end_the_machine() {
    // mov al, 0xFE; out 0x64, al; jmp $
    let reset: &[u8] = &[0xB0, 0xFE, 0xE6, 0x64, 0xEB, 0xFE];
    // mov dx, 0x604; mov ax, (1 << 13) | (5 << 10); out dx, ax; jmp $
    let off: &[u8] = &[0xBA, 0x04, 0x06, 0xB8, 0x00, 0x34, 0xEF, 0xEB, 0xFE];
    for (code, expected) in [(reset, StopReason::Reset), (off, StopReason::PowerOff)] {
        let Some(mut machine) = machine(2 << 20, Interrupts::None) else { return };
        write_code(&machine, code);
        machine.add_vcpu(CpuState::Real { entry: CODE as u16 }, 1).expect("processor");
        let mut ports = Bus::default();
        let stop = machine.stop().clone();
        ports
            .insert(layout::I8042, 5, Arc::new(Mutex::new(KeyboardController::new(stop.clone()))))
            .expect("port is free");
        ports
            .insert(layout::ACPI_PM, layout::ACPI_PM_LEN, Arc::new(Mutex::new(AcpiPm::new(stop))))
            .expect("port is free");
        assert_eq!(run(machine, ports, Bus::default()), (expected, vec![]));
    }
}

#[test]
fn the_host_can_end_a_machine_at_any_time() {
    let Some(mut machine) = machine(2 << 20, Interrupts::None) else { return };
    write_tables(&machine);
    write_code(&machine, &[0xEB, 0xFE]);
    machine.add_vcpu(flat(true), 1).expect("processor");
    let running = machine.start(Arc::new(Bus::default()), Arc::new(Bus::default())).expect("start");
    running.stop().request(StopReason::Requested);
    assert_eq!(running.wait(), StopReason::Requested);
}
