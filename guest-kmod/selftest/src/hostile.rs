//! Attacks from a guest's program with raw access to the vsock ports and the device node, against the real daemon.

use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::{AsRawFd, FromRawFd};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use guest_device::Device;
use protocol::broker::{self, Code, GuestMessage, HostMessage, SessionBegin};
use protocol::frame::Kind;
use protocol::handshake::{ControlWelcome, Hello, RefusalCode};
use protocol::region::Region;
use protocol::text::Text;
use protocol::window::{Grow, Grown, MAX_BODY, Shrink};
use protocol::{FrameHeader, Status};
use transport::handshake::connect_control;
use transport::{Address, Connection, vsock};

use crate::system::{Child, End};
use crate::{USER, fill, verify, wait_for};

const TIMEOUT: Duration = Duration::from_secs(20);

/// Runs all of them; how many there were.
pub fn run() -> Result<String> {
    type Case = (&'static str, u32, fn() -> Result<()>);
    let cases: [Case; 6] = [
        ("broker's port", USER, broker_port),
        ("broker's port as root", 0, privileged_broker_port),
        ("noise", USER, noise),
        ("cookies", USER, cookies),
        ("regions of others", USER, guessed_regions),
        ("the device of others", USER, device),
    ];
    for (name, user, case) in cases {
        let end = Child::start(user, case)?.wait()?;
        ensure!(end == End::Exit(0), "{name}: {end:?}");
        println!("PASS {name}");
    }
    Ok(format!("{} kinds of attack", cases.len()))
}

/// A raw connection to a port of the host, from a port of this guest if one is given.
fn connect(port: u32, from: Option<u32>) -> std::io::Result<File> {
    let place = |cid: u32, port: u32| {
        // SAFETY: sockaddr_vm is plain data.
        let mut address: libc::sockaddr_vm = unsafe { std::mem::zeroed() };
        address.svm_family = libc::AF_VSOCK as u16;
        (address.svm_cid, address.svm_port) = (cid, port);
        address
    };
    let len = size_of::<libc::sockaddr_vm>() as libc::socklen_t;
    let check = |result: libc::c_int| {
        if result < 0 { Err(std::io::Error::last_os_error()) } else { Ok(result) }
    };
    // SAFETY: takes numbers only; the descriptor is owned by the File alone.
    let socket = unsafe { File::from_raw_fd(check(libc::socket(libc::AF_VSOCK, libc::SOCK_STREAM, 0))?) };
    let limit = libc::timeval { tv_sec: 20, tv_usec: 0 };
    // SAFETY: the option's value is a timeval, valid for its length.
    unsafe {
        let len = size_of::<libc::timeval>() as libc::socklen_t;
        let option = (&raw const limit).cast();
        check(libc::setsockopt(socket.as_raw_fd(), libc::SOL_SOCKET, libc::SO_RCVTIMEO, option, len))?;
    }
    if let Some(from) = from {
        let address = place(libc::VMADDR_CID_ANY, from);
        // SAFETY: the address is valid for its length.
        check(unsafe { libc::bind(socket.as_raw_fd(), (&raw const address).cast(), len) })?;
    }
    let address = place(libc::VMADDR_CID_HOST, port);
    // SAFETY: the address is valid for its length.
    check(unsafe { libc::connect(socket.as_raw_fd(), (&raw const address).cast(), len) })?;
    Ok(socket)
}

/// All that comes until the host closes; that it closes is part of it.
fn rest(mut socket: File) -> Result<Vec<u8>> {
    let mut bytes = Vec::new();
    match socket.read_to_end(&mut bytes) {
        Ok(_) => Ok(bytes),
        Err(error) if error.raw_os_error() == Some(libc::ECONNRESET) => Ok(bytes),
        Err(error) => Err(error).context("the host does not close the connection"),
    }
}

/// The host's answer to a false broker: a refusal and nothing else.
fn expect_refusal(bytes: &[u8], code: Code) -> Result<()> {
    let Some((head, body)) = bytes.split_first_chunk() else { bail!("no refusal") };
    let header = broker::Header::decode(head).map_err(|error| anyhow::anyhow!("{error:?}"))?;
    let said = HostMessage::decode(header.kind, body);
    ensure!(said == Ok(HostMessage::Refused(code)), "the host says {said:?}");
    Ok(())
}

fn broker_words() -> Result<Vec<u8>> {
    let hello = broker::Hello { version: broker::VERSION, instance: [7, 7], held: 0 };
    let begin = SessionBegin { session: 1, cookie: [7, 7], uid: 0, pid: 1 };
    let mut words = Vec::new();
    for message in
        [GuestMessage::Hello(hello), GuestMessage::SessionBegin(begin), GuestMessage::SessionEnd(1)]
    {
        let mut out = [0; broker::MAX_MESSAGE];
        let len = message.encode(&mut out).context("a message")?;
        words.extend_from_slice(&out[..len]);
    }
    Ok(words)
}

/// Posing as the module, from the ports that a user has.
fn broker_port() -> Result<()> {
    let words = broker_words()?;
    for from in [1, 512, broker::MAX_SOURCE_PORT] {
        match connect(broker::PORT, Some(from)) {
            Err(error) if error.raw_os_error() == Some(libc::EACCES) => {}
            other => bail!("port {from}: {other:?}"),
        }
    }
    for from in [None, Some(1024), Some(7102)] {
        let mut socket = connect(broker::PORT, from)?;
        // The host may have closed it before everything is written.
        let _ = socket.write_all(&words);
        expect_refusal(&rest(socket)?, Code::DENIED).with_context(|| format!("from {from:?}"))?;
    }
    // Many that say nothing at all.
    for _ in 0..100 {
        drop(connect(broker::PORT, None)?);
    }
    drop(Device::open().context("the module's own connection")?);
    Ok(())
}

/// The superuser may have the right port; the place is taken.
fn privileged_broker_port() -> Result<()> {
    let mut socket = connect(broker::PORT, Some(1000))?;
    let _ = socket.write_all(&broker_words()?);
    expect_refusal(&rest(socket)?, Code::BUSY)
}

/// Bytes that are no handshake, and connections that come to nothing.
fn noise() -> Result<()> {
    for port in [1, 7100, 7103, 17236, u32::MAX - 1] {
        ensure!(connect(port, None).is_err(), "port {port} is open");
    }
    let noise: Vec<u8> = (0..40_000u32).map(|i| (i.wrapping_mul(2_654_435_761) >> 13) as u8).collect();
    let header = |kind: Kind, len: u32| FrameHeader::new(kind, 1, 1, len).encode().to_vec();
    for bytes in [
        noise.clone(),
        vec![0; 24],
        vec![0xff; 4096],
        header(Kind::HELLO, u32::MAX - 7),
        header(Kind::HELLO, 8),
        header(Kind::SYNC, 0),
        header(Kind::WINDOW_GROWN, 16),
    ] {
        let mut socket = connect(vsock::DEFAULT_PORT, None)?;
        let _ = socket.write_all(&bytes);
        // SAFETY: takes numbers only.
        unsafe { libc::shutdown(socket.as_raw_fd(), libc::SHUT_WR) };
        rest(socket)?;
    }
    let crowd: Vec<File> = (0..100).map(|_| connect(vsock::DEFAULT_PORT, None)).collect::<Result<_, _>>()?;
    drop(crowd);
    for chunk in noise.chunks(997) {
        let mut socket = connect(vsock::DEFAULT_PORT, None)?;
        let _ = socket.write_all(chunk);
    }
    Ok(())
}

fn host() -> Address {
    Address::Vsock { cid: Some(vsock::CID_HOST), port: vsock::DEFAULT_PORT }
}

fn control(cookie: [u64; 2], region: Region) -> Result<(Connection, ControlWelcome), transport::Error> {
    let hello = Hello { cookie, ..Hello::control(region, std::process::id(), Text::new("hostile")) };
    connect_control(&host(), &hello, TIMEOUT).map(|(connection, welcome, _)| (connection, welcome))
}

fn region() -> Result<Region> {
    Region::new(12).context("a region")
}

fn expect_token_refused(what: &str, cookie: [u64; 2]) -> Result<()> {
    match control(cookie, region()?) {
        Err(transport::Error::Refused(refused)) if refused.code == RefusalCode::TOKEN => Ok(()),
        other => bail!("{what}: {:?}", other.map(drop)),
    }
}

/// Cookies that are guessed, used and left over.
fn cookies() -> Result<()> {
    let device = Device::open()?;
    let [a, b] = device.cookie();
    for bit in 0..64 {
        expect_token_refused("a flipped cookie", [a ^ (1 << bit), b])?;
    }
    for (what, cookie) in [("halves", [b, a]), ("no half", [a, 0]), ("none", [0, 1]), ("ones", [u64::MAX; 2])]
    {
        expect_token_refused(what, cookie)?;
    }
    let (_connection, _) = control([a, b], region()?)?;
    expect_token_refused("a cookie again", [a, b])?;
    let ended = Device::open()?.cookie();
    wait_for("the end of a session", || match control(ended, region()?) {
        Err(transport::Error::Refused(refused)) => Ok(refused.code == RefusalCode::TOKEN),
        Ok(_) | Err(_) => bail!("the cookie of a session that has ended"),
    })
}

/// A lane's hello, after which the host asks for memory; every answer names memory of somebody else.
fn guessed_regions() -> Result<()> {
    let victim = Device::open()?;
    let window = victim.window(8 << 20)?;
    // SAFETY: the window is this process's.
    let words = unsafe { std::slice::from_raw_parts_mut(window.as_ptr().cast::<u64>(), 1 << 20) };
    fill(words, 42);
    let device = Device::open()?;
    let region = region()?;
    let (control, welcome) = control(device.cookie(), region)?;
    let mut guesses: Vec<u64> = (0..40).map(|back| window.region().saturating_sub(back)).collect();
    guesses.extend([window.region() + 1, 0, u64::MAX, words.as_ptr().addr() as u64, 4096, 1 << 30]);
    for pair in guesses.chunks(2) {
        let lane = Connection::connect(&host(), TIMEOUT)?;
        let mut body = Vec::new();
        let header = Hello::lane(welcome.token, region, std::process::id()).encode(&mut body);
        lane.send(&header, &body, &[], TIMEOUT)?;
        for &guess in pair {
            let asked = control.receive(MAX_BODY, TIMEOUT)?;
            ensure!(asked.header.kind == Kind::WINDOW_GROW, "{:?}", asked.header.kind);
            let grow = Grow::decode(&asked.body).map_err(|error| anyhow::anyhow!("{error}"))?;
            let header = Grown { offset: grow.offset, region: guess }.encode(Status::SUCCESS, &mut body);
            control.send(&header, &body, &[], TIMEOUT)?;
            let answer = control.receive(MAX_BODY, TIMEOUT)?;
            ensure!(answer.header.kind == Kind::WINDOW_SHRINK, "region {guess:#x} was taken");
            let shrink = Shrink::decode(&answer.body).map_err(|error| anyhow::anyhow!("{error}"))?;
            ensure!(shrink.offset == grow.offset);
        }
    }
    verify(words, 42)?;
    ensure!(device.status()?.regions == 0 && victim.status()?.regions == 1);
    Ok(())
}

/// The device node with numbers of another session.
fn device() -> Result<()> {
    let victim = Device::open()?;
    let window = victim.window(1 << 20)?;
    // SAFETY: the window is this process's.
    let words = unsafe { std::slice::from_raw_parts_mut(window.as_ptr().cast::<u64>(), 1 << 17) };
    fill(words, 43);
    let device = Device::open()?;
    for region in [window.region(), window.region() + 1, u64::MAX] {
        ensure!(device.region_status(region).is_err(), "status of region {region:#x}");
        for flags in [0, 1, u64::MAX] {
            let mut release = guest_device::abi::Release { region, flags };
            let fd = std::os::fd::AsFd::as_fd(&device).as_raw_fd();
            // SAFETY: RELEASE reads one Release.
            let result =
                unsafe { libc::ioctl(fd, libc::Ioctl::from(guest_device::abi::RELEASE), &raw mut release) };
            ensure!(result != 0, "release of region {region:#x}");
        }
    }
    verify(words, 43)?;
    ensure!(victim.region_status(window.region())?.state == 1);
    Ok(())
}
