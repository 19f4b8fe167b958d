//! A daemon under test and a program that speaks the protocol directly.
#![allow(dead_code)] // Each test file uses a part.

pub mod machine;
pub mod stand_in;

use std::io::{BufRead as _, BufReader};
use std::os::fd::AsFd as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use protocol::handshake::{ControlWelcome, Hello, LaneWelcome, MAX_BODY};
use protocol::lane::LanePlacement;
use protocol::region::Region;
use protocol::text::Text;
use protocol::{Reader, Status, Writer, ops};
use transport::handshake::connect_control;
use transport::{Address, Connection, Error, GuestLane, Placement, Window};

pub const HOST_VMM: &str = env!("CARGO_BIN_EXE_host-vmm");
pub const TIMEOUT: Duration = Duration::from_secs(20);

/// Kernels: one that never ends, one that stores its second parameter at its first, one that stores out of bounds.
pub const KERNELS: &str = "
.version 8.0
.target sm_75
.address_size 64
.visible .entry spin() { again: bra again; }
.visible .entry store(.param .u64 place, .param .u32 value) {
    .reg .b64 %rd<2>; .reg .b32 %r<2>;
    ld.param.u64 %rd1, [place];
    ld.param.u32 %r1, [value];
    st.global.u32 [%rd1], %r1;
    ret;
}
";

/// Waits until `done`, at most `limit`.
pub fn eventually(limit: Duration, what: &str, mut done: impl FnMut() -> bool) {
    let begin = Instant::now();
    while !done() {
        assert!(begin.elapsed() < limit, "not within {limit:?}: {what}");
        std::thread::sleep(Duration::from_millis(10));
    }
}

/// A process from /proc.
#[derive(Debug)]
pub struct Process {
    pub pid: i32,
    pub parent: i32,
    pub command: String,
}

/// All processes that are not zombies.
pub fn processes() -> Vec<Process> {
    let entries = std::fs::read_dir("/proc").unwrap().flatten();
    entries
        .filter_map(|entry| {
            let pid = entry.file_name().to_str()?.parse().ok()?;
            let stat = std::fs::read_to_string(entry.path().join("stat")).ok()?;
            let rest = stat.rsplit_once(')')?.1;
            let mut fields = rest.split_whitespace();
            if fields.next()? == "Z" {
                return None;
            }
            let command = std::fs::read(entry.path().join("cmdline")).ok()?;
            let command = String::from_utf8_lossy(&command).replace('\0', " ");
            Some(Process { pid, parent: fields.next()?.parse().ok()?, command })
        })
        .collect()
}

/// Processes whose environment mentions `text`.
pub fn processes_with(text: &Path) -> Vec<Process> {
    let text = text.to_str().unwrap();
    let all = processes().into_iter();
    all.filter(|process| {
        let environ = std::fs::read(format!("/proc/{}/environ", process.pid)).unwrap_or_default();
        String::from_utf8_lossy(&environ).contains(text)
    })
    .collect()
}

/// `host-vmm serve` as a child.
pub struct Daemon {
    pub child: Child,
    pub address: Address,
    pub path: PathBuf,
    log: Arc<Mutex<String>>,
    _dir: tempfile::TempDir,
}

impl Daemon {
    /// Without warm workers: each worker is a program's.
    pub fn start(options: &[&str]) -> Self {
        Self::start_with(0, "info", options)
    }

    /// As [`Daemon::start`], with a log that says more.
    pub fn start_telling(options: &[&str]) -> Self {
        Self::start_with(0, "debug", options)
    }

    /// With warm workers, and a log that says when they are ready.
    pub fn start_warm(warm_workers: u32, options: &[&str]) -> Self {
        Self::start_with(warm_workers, "debug", options)
    }

    fn start_with(warm_workers: u32, log_filter: &str, options: &[&str]) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("socket");
        let address = Address::Unix(path.clone());
        let mut child = Command::new(HOST_VMM)
            .args(["--log", log_filter, "serve", "--listen", &address.to_string()])
            .args(["--memory", "256M", "--window", "256M"])
            .args(["--warm-workers", &warm_workers.to_string()])
            .args(options)
            .env_remove("HOST_VMM_LOG")
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let log = Arc::new(Mutex::new(String::new()));
        let (stderr, copy) = (child.stderr.take().unwrap(), Arc::clone(&log));
        std::thread::spawn(move || {
            for line in BufReader::new(stderr).lines().map_while(Result::ok) {
                let mut log = copy.lock().unwrap();
                log.push_str(&line);
                log.push('\n');
            }
        });
        let daemon = Self { child, address, path, log, _dir: dir };
        eventually(TIMEOUT, "the daemon listens", || daemon.log().contains("listening"));
        daemon
    }

    pub fn log(&self) -> String {
        self.log.lock().unwrap().clone()
    }

    pub fn expect_log(&self, text: &str) {
        eventually(TIMEOUT, text, || self.log().contains(text));
    }

    pub fn pid(&self) -> i32 {
        i32::try_from(self.child.id()).unwrap()
    }

    /// Process ids of the workers.
    pub fn workers(&self) -> Vec<i32> {
        let pid = self.pid();
        processes().into_iter().filter(|process| process.parent == pid).map(|process| process.pid).collect()
    }

    /// Open descriptors of the daemon.
    pub fn descriptors(&self) -> usize {
        std::fs::read_dir(format!("/proc/{}/fd", self.pid())).unwrap().count()
    }

    /// A session works from start to end: the daemon is alive and well.
    pub fn assert_serves(&self) {
        Client::connect(&self.address).assert_works();
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("the daemon's log:\n{}", self.log());
        }
        kill(self.pid(), rustix::process::Signal::TERM);
        let begin = Instant::now();
        while self.child.try_wait().unwrap().is_none() {
            if begin.elapsed() > TIMEOUT {
                let _ = self.child.kill();
            }
            std::thread::sleep(Duration::from_millis(5));
        }
    }
}

pub fn kill(pid: i32, signal: rustix::process::Signal) {
    let _ = rustix::process::kill_process(rustix::process::Pid::from_raw(pid).unwrap(), signal);
}

/// A program with one lane.
pub struct Client {
    pub control: Arc<Connection>,
    pub welcome: ControlWelcome,
    pub window: Arc<Window>,
    pub lane: GuestLane,
    pub placement: LanePlacement,
}

pub fn hello() -> Hello {
    Hello::control(Region::new(9).unwrap(), std::process::id(), Text::new("test"))
}

pub fn open(address: &Address) -> Result<(Connection, ControlWelcome, Arc<Window>), Error> {
    open_as(address, &hello())
}

pub fn open_as(address: &Address, hello: &Hello) -> Result<(Connection, ControlWelcome, Arc<Window>), Error> {
    let (control, welcome, file) = connect_control(address, hello, TIMEOUT)?;
    let window = Arc::new(Window::map(file.unwrap(), Placement::Anywhere, true)?);
    Ok((control, welcome, window))
}

/// A lane and where its block is.
pub fn open_lane(
    address: &Address,
    welcome: &ControlWelcome,
    window: &Arc<Window>,
) -> Result<(GuestLane, LanePlacement), Error> {
    let region = Region::new(welcome.region_tag).unwrap();
    let connection = Connection::connect(address, TIMEOUT)?;
    let mut body = Vec::new();
    let header = Hello::lane(welcome.token, region, std::process::id()).encode(&mut body);
    connection.send(&header, &body, &[], TIMEOUT)?;
    let received = connection.receive(MAX_BODY, TIMEOUT)?;
    let lane = LaneWelcome::decode(&received.header, &received.body)?;
    let max_body = welcome.limits.max_body_len;
    Ok((GuestLane::new(connection, Arc::clone(window), lane.placement, max_body)?, lane.placement))
}

impl Client {
    pub fn connect(address: &Address) -> Self {
        Self::connect_as(address, &hello())
    }

    pub fn connect_as(address: &Address, hello: &Hello) -> Self {
        let (control, welcome, window) = open_as(address, hello).unwrap();
        let (lane, placement) = open_lane(address, &welcome, &window).unwrap();
        Self { control: Arc::new(control), welcome, window, lane, placement }
    }

    /// A call; its reply's body or its error.
    pub fn call(&mut self, op: u16, write: impl FnOnce(&mut Writer<'_>)) -> Result<Vec<u8>, Status> {
        let (mut body, mut reply) = (Vec::new(), Vec::new());
        write(&mut Writer::new(&mut body));
        let answer = self.lane.call(op, &body, &mut reply).unwrap();
        if answer.status.is_success() { Ok(reply) } else { Err(answer.status) }
    }

    /// A call whose reply is one word.
    pub fn word(&mut self, op: u16, write: impl FnOnce(&mut Writer<'_>)) -> Result<u64, Status> {
        self.call(op, write).map(|reply| Reader::new(&reply).u64().unwrap())
    }

    pub fn post(&mut self, op: u16, write: impl FnOnce(&mut Writer<'_>)) -> u64 {
        let mut body = Vec::new();
        write(&mut Writer::new(&mut body));
        self.lane.post(op, &body).unwrap()
    }

    /// Makes the primary context current.
    pub fn set_up(&mut self) -> u64 {
        self.call(ops::cuInit, |w| w.u32(0)).unwrap();
        let context = self
            .word(ops::cuDevicePrimaryCtxRetain, |w| {
                w.present(true);
                w.i32(0);
            })
            .unwrap();
        self.post(ops::lane_set_context, |w| w.u64(context));
        context
    }

    pub fn alloc(&mut self, len: u64) -> Result<u64, Status> {
        self.word(ops::cuMemAlloc_v2, |w| {
            w.present(true);
            w.u64(len);
        })
    }

    /// Copies to the device by way of the staging area.
    pub fn copy_in(&mut self, dst: u64, bytes: &[u8]) -> Result<(), Status> {
        self.window.copy_in(self.placement.staging(), bytes).unwrap();
        let len = bytes.len() as u64;
        self.call(ops::stage_in_last, |w| {
            [dst, len, 0, len, 1, 0].into_iter().for_each(|word| w.u64(word));
            w.u32(0);
        })
        .map(drop)
    }

    /// Copies from the device by way of the staging area.
    pub fn copy_out(&mut self, src: u64, len: u64) -> Result<Vec<u8>, Status> {
        self.call(ops::stage_out_last, |w| {
            [src, len, 0, len, 1, 0].into_iter().for_each(|word| w.u64(word));
            w.u32(0);
        })?;
        let mut bytes = vec![0; usize::try_from(len).unwrap()];
        self.window.copy_out(self.placement.staging(), &mut bytes).unwrap();
        Ok(bytes)
    }

    /// Sends PTX text and loads it: a module, or the error and its log.
    pub fn load(&mut self, ptx: &str) -> Result<u64, (Status, String)> {
        self.load_image(ops::module_load, 1, ptx.as_bytes())
    }

    /// Sends an image of a form (1 PTX, 2 machine code) and loads it by `module_load` or `library_load`: a handle, or the error and its log.
    pub fn load_image(&mut self, op: u16, form: u32, image: &[u8]) -> Result<u64, (Status, String)> {
        let hash = *blake3::hash(image).as_bytes();
        self.window.copy_in(self.placement.staging(), image).unwrap();
        self.post(ops::image_chunk, |w| {
            w.bytes(Some(&hash));
            w.u64(0);
            w.u64(0);
            w.u64(image.len() as u64);
        });
        self.call(ops::image_commit, |w| {
            w.bytes(Some(&hash));
            w.u64(image.len() as u64);
        })
        .map_err(|status| (status, String::new()))?;
        let reply = self.call(op, |w| {
            w.u32(1);
            w.bytes(Some(&hash));
            w.bytes(Some(&form.to_le_bytes()));
            w.bytes(Some(&[]));
            (0..4).for_each(|_| w.present(true));
        });
        let reply = reply.map_err(|status| (status, String::new()))?;
        let mut reader = Reader::new(&reply);
        let status = Status(reader.u32().unwrap());
        let module = reader.u64().unwrap();
        let _info = reader.bytes(1 << 20).unwrap();
        let log = reader.bytes(1 << 20).unwrap().unwrap_or_default();
        if status.is_success() {
            Ok(module)
        } else {
            Err((status, String::from_utf8_lossy(log).into_owned()))
        }
    }

    pub fn function(&mut self, module: u64, name: &std::ffi::CStr) -> Result<u64, Status> {
        self.word(ops::cuModuleGetFunction, |w| {
            w.present(true);
            w.u64(module);
            w.cstr(Some(name));
        })
    }

    /// Posts a launch of one thread on a stream.
    pub fn launch(&mut self, function: u64, stream: u64, params: &[u8]) -> u64 {
        self.post(ops::launch, |w| {
            w.u64(function);
            (0..6).for_each(|_| w.u32(1));
            w.u32(0);
            w.u64(stream);
            (0..4).for_each(|_| w.u32(0));
            w.bytes(Some(params));
        })
    }

    /// Launches `store(place, value)`.
    pub fn store(&mut self, function: u64, place: u64, value: u32) {
        let mut params = place.to_le_bytes().to_vec();
        params.extend(value.to_le_bytes());
        self.launch(function, 0, &params);
    }

    pub fn synchronize(&mut self) -> Result<(), Status> {
        self.call(ops::cuCtxSynchronize, |_| {}).map(drop)
    }

    /// Memory, copies and a kernel.
    pub fn assert_works(&mut self) {
        self.set_up();
        let module = self.load(KERNELS).unwrap();
        let store = self.function(module, c"store").unwrap();
        let memory = self.alloc(4096).unwrap();
        self.copy_in(memory, &[1; 4096]).unwrap();
        self.store(store, memory + 8, 0x0403_0201);
        self.synchronize().unwrap();
        let bytes = self.copy_out(memory, 4096).unwrap();
        assert_eq!(bytes[6..14], [1, 1, 1, 2, 3, 4, 1, 1]);
    }

    /// Waits until the worker has closed the lane.
    pub fn assert_closed(&mut self) {
        eventually(TIMEOUT, "the lane is closed", || self.lane.is_closed());
        let mut byte = [0];
        let received = rustix::net::recv(self.control.as_fd(), &mut byte, rustix::net::RecvFlags::empty());
        assert!(matches!(received, Ok((_, 0)) | Err(rustix::io::Errno::CONNRESET)), "{received:?}");
    }
}
