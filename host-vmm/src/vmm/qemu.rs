//! `host-vmm qemu-args`: the same guest for a stock, unpatched QEMU or libvirt.
//!
//! What matters to the daemon: guest memory is shared (a memfd or a file that it can map), and the vsock is the host kernel's, with a CID
//! that is this guest's identity, or the daemon's own device.

use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};

use super::guest::ChannelKind;
use super::initramfs::Root;
use super::prepare::{Guest, VirtioBus, prepare};
use crate::cli::QemuArgs;

/// The CID if none is asked for: the first one that guests may have.
const DEFAULT_CID: u32 = 3;

/// Writes the initramfs and returns the text to print.
///
/// # Errors
/// A file is missing or cannot be written.
pub fn describe(args: &QemuArgs) -> Result<String> {
    let guest = prepare(&args.guest, VirtioBus::Pci, ChannelKind::Console)?;
    fs::write(&args.write_initrd, &guest.initramfs)
        .with_context(|| args.write_initrd.display().to_string())?;
    // Whoever reads it may be elsewhere.
    let absolute = |path: &Path| std::path::absolute(path).with_context(|| path.display().to_string());
    let machine = Machine {
        kernel: absolute(&args.guest.kernel)?,
        initrd: absolute(&args.write_initrd)?,
        memory_file: args.memory_file.as_deref().map(absolute).transpose()?,
        disk: match &guest.root {
            Root::Image { path, read_only } => Some((absolute(path)?, *read_only)),
            Root::Directory(_) => None,
        },
        vsock: match &args.vhost_user {
            Some(socket) => Vsock::Device(absolute(socket)?),
            None if args.no_vsock => Vsock::None,
            None => Vsock::Kernel(args.guest.cid.unwrap_or(DEFAULT_CID)),
        },
        cpus: args.guest.cpus,
        tcg: args.tcg,
        guest: &guest,
    };
    Ok(if args.libvirt { machine.libvirt() } else { command_line(&machine.arguments()) })
}

/// Whose the guest's vsock is.
enum Vsock {
    None,
    /// The host kernel's, with this CID.
    Kernel(u32),
    /// A daemon's, at this socket.
    Device(PathBuf),
}

struct Machine<'a> {
    kernel: PathBuf,
    initrd: PathBuf,
    memory_file: Option<PathBuf>,
    disk: Option<(PathBuf, bool)>,
    vsock: Vsock,
    cpus: u32,
    tcg: bool,
    guest: &'a Guest,
}

impl Machine<'_> {
    fn arguments(&self) -> Vec<Vec<String>> {
        let mebibytes = self.guest.memory_bytes >> 20;
        let backend = match &self.memory_file {
            Some(path) => format!(
                "memory-backend-file,id=ram,size={mebibytes}M,share=on,mem-path={}",
                option_value(&path.display().to_string())
            ),
            None => format!("memory-backend-memfd,id=ram,size={mebibytes}M,share=on"),
        };
        let (accelerator, cpu) = if self.tcg { ("tcg", "max") } else { ("kvm", "host") };
        let mut lines = vec![
            vec!["qemu-system-x86_64".into(), "-nodefaults".into(), "-no-user-config".into()],
            vec!["-machine".into(), "q35,memory-backend=ram".into()],
            vec!["-accel".into(), accelerator.into(), "-cpu".into(), cpu.into()],
            vec!["-smp".into(), self.cpus.to_string(), "-m".into(), format!("{mebibytes}M")],
            vec!["-object".into(), backend],
        ];
        match &self.vsock {
            Vsock::None => {}
            Vsock::Kernel(cid) => {
                lines.push(vec!["-device".into(), format!("vhost-vsock-pci,guest-cid={cid}")]);
            }
            Vsock::Device(socket) => {
                let socket = option_value(&socket.display().to_string());
                lines.push(vec!["-chardev".into(), format!("socket,id=vsock,path={socket}")]);
                lines.push(vec!["-device".into(), "vhost-user-vsock-pci,chardev=vsock".into()]);
            }
        }
        if let Some((path, read_only)) = &self.disk {
            let path = option_value(&path.display().to_string());
            let read_only = if *read_only { "on" } else { "off" };
            let drive = format!("if=virtio,format=raw,readonly={read_only},file={path}");
            lines.push(vec!["-drive".into(), drive]);
        }
        lines.push(vec!["-device".into(), "virtio-rng-pci".into()]);
        lines.push(vec!["-nographic".into(), "-serial".into(), "stdio".into(), "-no-reboot".into()]);
        lines.push(vec!["-kernel".into(), self.kernel.display().to_string()]);
        lines.push(vec!["-initrd".into(), self.initrd.display().to_string()]);
        lines.push(vec!["-append".into(), self.guest.command_line.clone()]);
        lines
    }

    fn libvirt(&self) -> String {
        let source = match &self.memory_file {
            Some(_) => "<source type='file'/>",
            None => "<source type='memfd'/>",
        };
        let kind = if self.tcg { "qemu" } else { "kvm" };
        let cpu = if self.tcg { "<cpu mode='maximum'/>" } else { "<cpu mode='host-passthrough'/>" };
        let mut devices = String::new();
        if let Some((path, read_only)) = &self.disk {
            let read_only = if *read_only { "<readonly/>" } else { "" };
            let path = xml(&path.display().to_string());
            let _ = write!(
                devices,
                "
    <disk type='file' device='disk'>
      <driver name='qemu' type='raw'/><source file='{path}'/><target dev='vda' bus='virtio'/>{read_only}
    </disk>"
            );
        }
        if let Vsock::Kernel(cid) = self.vsock {
            let _ = write!(devices, "\n    <vsock model='virtio'><cid auto='no' address='{cid}'/></vsock>");
        }
        format!(
            "<domain type='{kind}'>
  <name>host-vmm-guest</name>
  <memory unit='MiB'>{memory}</memory>
  <memoryBacking>{source}<access mode='shared'/></memoryBacking>
  <vcpu>{cpus}</vcpu>
  <os>
    <type arch='x86_64' machine='q35'>hvm</type>
    <kernel>{kernel}</kernel>
    <initrd>{initrd}</initrd>
    <cmdline>{command_line}</cmdline>
  </os>
  <features><acpi/></features>
  {cpu}
  <on_poweroff>destroy</on_poweroff>
  <on_reboot>destroy</on_reboot>
  <on_crash>destroy</on_crash>
  <devices>{devices}
    <rng model='virtio'><backend model='random'>/dev/urandom</backend></rng>
    <serial type='pty'><target port='0'/></serial>
    <console type='pty'><target type='serial' port='0'/></console>
  </devices>
</domain>
",
            memory = self.guest.memory_bytes >> 20,
            cpus = self.cpus,
            kernel = xml(&self.kernel.display().to_string()),
            initrd = xml(&self.initrd.display().to_string()),
            command_line = xml(&self.guest.command_line),
        )
    }
}

/// A value among comma-separated options of QEMU.
fn option_value(text: &str) -> String {
    text.replace(',', ",,")
}

fn xml(text: &str) -> String {
    text.replace('&', "&amp;")
        .replace('<', "&lt;")
        .replace('>', "&gt;")
        .replace('\'', "&apos;")
        .replace('"', "&quot;")
}

/// Lines for a shell.
fn command_line(lines: &[Vec<String>]) -> String {
    let quoted = |words: &Vec<String>| words.iter().map(|word| shell(word)).collect::<Vec<_>>().join(" ");
    lines.iter().map(quoted).collect::<Vec<_>>().join(" \\\n  ") + "\n"
}

fn shell(word: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_./,=:+@%".contains(c);
    if !word.is_empty() && word.chars().all(plain) {
        return word.to_owned();
    }
    format!("'{}'", word.replace('\'', r"'\''"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn machine(guest: &Guest) -> Machine<'_> {
        Machine {
            kernel: "/k, a&b/vmlinuz".into(),
            initrd: "/initrd".into(),
            memory_file: Some("/dev/shm/a,b".into()),
            disk: Some(("/disk's".into(), true)),
            vsock: Vsock::Kernel(9),
            cpus: 2,
            tcg: false,
            guest,
        }
    }

    fn guest() -> Guest {
        Guest {
            root: Root::Directory("/".into()),
            initramfs: Vec::new(),
            command_line: "quiet a='b'".into(),
            memory_bytes: 512 << 20,
        }
    }

    #[test]
    fn memory_is_shared_and_the_vsock_is_the_kernels() {
        let guest = guest();
        let text = command_line(&machine(&guest).arguments());
        for part in [
            "memory-backend-file,id=ram,size=512M,share=on,mem-path=/dev/shm/a,,b",
            "vhost-vsock-pci,guest-cid=9",
            "'if=virtio,format=raw,readonly=on,file=/disk'\\''s'",
            "'quiet a='\\''b'\\'''",
            "q35,memory-backend=ram",
        ] {
            assert!(text.contains(part), "{part} in {text}");
        }
    }

    #[test]
    fn the_vsock_can_be_a_daemons_device() {
        let guest = guest();
        let machine = Machine { vsock: Vsock::Device("/run/vm,1".into()), ..machine(&guest) };
        let text = command_line(&machine.arguments());
        assert!(text.contains("socket,id=vsock,path=/run/vm,,1"), "{text}");
        assert!(text.contains("vhost-user-vsock-pci,chardev=vsock") && !text.contains("guest-cid"), "{text}");
    }

    #[test]
    fn names_are_escaped_in_xml() {
        let guest = guest();
        let text = machine(&guest).libvirt();
        for part in [
            "<access mode='shared'/>",
            "address='9'",
            "a&amp;b",
            "a=&apos;b&apos;",
            "/disk&apos;s",
            "<readonly/>",
        ] {
            assert!(text.contains(part), "{part} in {text}");
        }
    }
}
