//! The worker: one process per program, with its own device memory and handles.
//!
//! Threads: the main one reads the daemon's messages; the watcher waits for the end of the program or of the daemon and ends the process,
//! whatever the others are doing; one thread per lane carries out calls; the backend has its own.

mod exit;
pub mod guest_memory;
pub mod handles;
mod harden;
mod lane;
pub mod range_alloc;
pub mod registry;
mod warm;
mod watch;
pub mod window;

use std::os::fd::OwnedFd;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::Duration;

use anyhow::Context as _;
use protocol::handshake::{Capabilities, ControlWelcome, Limits, RefusalCode, Refused, Token};
use protocol::region::Region;
use ptx_cpu::region::{RegionConfig, RegionError};
use transport::handshake::{refuse, welcome_control};
use transport::{Connection, StreamLanes};

use crate::backend::Backend;
use crate::backend::cpu::CpuBackend;
use crate::backend::cuda::space::{Reserved, Space};
use crate::backend::cuda::{CudaBackend, library};
use crate::config::{self, Config};
use crate::daemon::ipc::{Channel, Start, ToDaemon, ToWorker, WindowKind};
use crate::session::Session;
use guest_memory::{Control, Ground, Regions, Remote};
use window::Window;

/// Time for the program to take an answer of the handshake.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(5);

/// A session in progress.
struct Worker {
    channel: Arc<Channel>,
    session: Arc<Session>,
    backend: Arc<dyn Backend>,
    limits: Limits,
    version: u32,
    /// The session's lanes, where they are streams.
    streams: Option<Arc<StreamLanes>>,
    /// What the main thread gives the daemon's answers to, where the window is memory of the program's machine.
    regions: Arc<Regions>,
    lanes: AtomicU32,
    next_lane: AtomicU64,
    /// Held by the thread that ends the process, for good.
    ending: Mutex<()>,
}

/// Entry point of `host-vmm worker`. Does not return before the session's end.
///
/// # Errors
/// The session could not be started; the program has been told.
pub fn main() -> anyhow::Result<()> {
    harden::descriptors();
    let channel = take_channel().context("the worker is started by the daemon, not by hand")?;
    harden::process();
    let channel = Arc::new(channel);
    let (start, connection, begun) =
        match channel.receive::<ToWorker>().context("cannot read the daemon's message")? {
            Some((ToWorker::Start(start), Some(fd))) => {
                harden::memory(&start.config);
                (start, Connection::from_fd(fd), None)
            }
            Some((ToWorker::Warm(config), None)) => {
                harden::memory(&config);
                let handed = warm::wait(&channel, &config)?;
                (handed.start, handed.connection, Some(handed.begun))
            }
            // The daemon has changed its mind.
            None => return Ok(()),
            // Not printed: it may hold the session's token.
            Some(_) => anyhow::bail!("the daemon's first message is not a start with a connection"),
        };
    let connection = Arc::new(connection);
    let files = (0..start.memory_files)
        .map(|_| match channel.receive::<ToWorker>() {
            Ok(Some((ToWorker::Memory, Some(fd)))) => Ok(fd),
            _ => Err(anyhow::anyhow!("the daemon does not give the memory of the program's machine")),
        })
        .collect::<anyhow::Result<Vec<OwnedFd>>>()?;
    let mut answers = None;
    let source = (start.window_kind() == WindowKind::Guest).then(|| {
        let (control, ours, receiver) = Control::new(Arc::clone(&connection));
        answers = Some(ours);
        WindowSource {
            control: (control, receiver),
            channel: Arc::clone(&channel),
            regions: Arc::default(),
            files: files.into(),
        }
    });
    let worker = match begin(&start, channel, begun, source) {
        Ok(worker) => worker,
        Err(Failed { refused, error }) => {
            refuse(&connection, &refused);
            return error.map_or(Ok(()), Err);
        }
    };
    let worker = Arc::new(worker);
    watch::start(Arc::clone(&worker), connection, answers, start.pid, |connection| {
        welcome(&worker, connection, &start)
    })?;
    loop {
        match worker.channel.receive::<ToWorker>() {
            Ok(Some((ToWorker::Lane, Some(fd)))) => worker.accept_lane(Connection::from_fd(fd)),
            Ok(Some((ToWorker::Region(region), runs))) => worker.regions.answer(region, runs),
            Ok(Some((ToWorker::Stop, _)) | None) => worker.end(),
            Ok(Some(_)) => tracing::error!("unexpected message from the daemon"),
            Err(error) => {
                tracing::error!(%error, "the daemon's message cannot be read");
                worker.end();
            }
        }
    }
}

/// Standard input is the channel; in its place comes /dev/null.
fn take_channel() -> anyhow::Result<Channel> {
    let stdin = rustix::stdio::stdin();
    rustix::net::sockopt::socket_type(stdin)?;
    let socket = rustix::io::fcntl_dupfd_cloexec(stdin, 3)?;
    let null = std::fs::File::open("/dev/null")?;
    rustix::stdio::dup2_stdin(OwnedFd::from(null))?;
    Ok(Channel::new(socket))
}

/// Why there is no session: what the program is told, and what the log should say beyond that.
struct Failed {
    refused: Box<Refused>,
    error: Option<anyhow::Error>,
}

impl Failed {
    /// Nothing is wrong here: the program is to propose another region.
    fn region(text: std::fmt::Arguments<'_>) -> Self {
        Self { refused: Box::new(Refused::new(RefusalCode::REGION_BUSY, text)), error: None }
    }

    fn internal(error: anyhow::Error) -> Self {
        let text = format_args!("the worker cannot start: {error}");
        Self { refused: Box::new(Refused::new(RefusalCode::INTERNAL, text)), error: Some(error) }
    }
}

/// Where a window gets its memory from, if that is the program's machine.
struct WindowSource {
    control: (Arc<Control>, std::sync::mpsc::Receiver<(protocol::window::Grown, protocol::Status)>),
    channel: Arc<Channel>,
    regions: Arc<Regions>,
    files: Arc<[OwnedFd]>,
}

impl WindowSource {
    /// A window in the addresses of `ground`.
    fn window(self, region: Region, config: &Config, ground: Ground) -> Result<Window, transport::Error> {
        Window::from_source(region.window_start(), config.limits.window_bytes, |window| {
            let Self { control, channel, regions, files } = self;
            Box::new(Remote::new(control, channel, regions, files, ground, window))
        })
    }
}

/// Everything but the answer to the program, and what a warm worker has `begun` already.
fn begin(
    start: &Start,
    channel: Arc<Channel>,
    begun: Option<Begun>,
    source: Option<WindowSource>,
) -> Result<Worker, Failed> {
    let config = &start.config;
    let Some(region) = Region::new(start.region_tag) else {
        return Err(Failed::region(format_args!("region tag {} does not exist", start.region_tag)));
    };
    let regions = source.as_ref().map(|source| Arc::clone(&source.regions)).unwrap_or_default();
    let kind = start.window_kind();
    let (session, backend) = match begun {
        Some(begun) => begun,
        None => begin_backend(config, region, kind, source)?,
    };
    Ok(Worker {
        channel,
        session,
        backend,
        limits: config.limits.to_protocol(),
        version: start.version,
        streams: (kind == WindowKind::Private).then(Arc::default),
        regions,
        lanes: AtomicU32::new(0),
        next_lane: AtomicU64::new(1),
        ending: Mutex::new(()),
    })
}

/// A session and what runs its calls.
type Begun = (Arc<Session>, Arc<dyn Backend>);

fn begin_backend(
    config: &Config,
    region: Region,
    kind: WindowKind,
    source: Option<WindowSource>,
) -> Result<Begun, Failed> {
    match &config.backend {
        config::Backend::Cpu => begin_cpu(config, region, kind, source),
        config::Backend::Cuda(cuda) => begin_cuda(config, cuda, region, kind, source),
    }
}

fn begin_cpu(
    config: &Config,
    region: Region,
    kind: WindowKind,
    source: Option<WindowSource>,
) -> Result<Begun, Failed> {
    let memory = RegionConfig { memory_limit: config.limits.memory_bytes };
    let device = match ptx_cpu::region::Region::reserve(region.tag().into(), memory) {
        Ok(device) => Arc::new(device),
        Err(RegionError::Taken(tag)) => {
            return Err(Failed::region(format_args!("region {tag} is taken in the worker")));
        }
        Err(error) => return Err(Failed::internal(error.into())),
    };
    let set_up = || -> anyhow::Result<Begun> {
        ptx_cpu::fault::install().context("cannot install fault handlers")?;
        let window = match source {
            Some(source) => source.window(region, config, Ground::Engine(Arc::clone(&device)))?,
            None => {
                let window = Window::create(region.window_start(), config.limits.window_bytes)?;
                if let Some(file) = window.mapped().file() {
                    device.map_shared(std::os::fd::AsFd::as_fd(file), 0, 0, window.len())?;
                }
                if kind == WindowKind::Private { window.private() } else { window }
            }
        };
        let window = Arc::new(window);
        let session = Arc::new(Session::new(config.clone(), window));
        let backend = Arc::new(CpuBackend::new(Arc::clone(&session), device)?);
        Ok((session, backend))
    };
    set_up().map_err(Failed::internal)
}

fn begin_cuda(
    config: &Config,
    cuda: &config::Cuda,
    region: Region,
    kind: WindowKind,
    source: Option<WindowSource>,
) -> Result<Begun, Failed> {
    let reserved = Reserved::new(region)
        .map_err(|error| Failed::region(format_args!("region {} in the worker: {error}", region.tag())))?;
    let set_up = || -> anyhow::Result<Begun> {
        // For copies of what programs lend; whatever else the driver has handlers for, it installs them later.
        ptx_cpu::fault::install().context("cannot install fault handlers")?;
        let (reserved, window) = match source {
            Some(source) => {
                let (reserved, ground) = reserved.split();
                (reserved, source.window(region, config, Ground::Reserved(ground))?)
            }
            None => {
                let (start, len) = (region.window_start(), config.limits.window_bytes);
                let window = Window::create_over(reserved.window(), start, len)?;
                let window = if kind == WindowKind::Private { window.private() } else { window };
                (reserved.leak_window(), window)
            }
        };
        let session = Arc::new(Session::new(config.clone(), Arc::new(window)));
        let raw = library::load(cuda.libcuda.as_deref())?.raw;
        // Before the driver is initialised: it takes its address space then.
        let space = if cuda.nested { Space::wherever(reserved) } else { Space::in_region(reserved, region) };
        let backend = Arc::new(CudaBackend::new(Arc::clone(&session), raw, space)?);
        Ok((session, backend))
    };
    set_up().map_err(Failed::internal)
}

/// Answers the program's control hello.
fn welcome(worker: &Worker, connection: &Connection, start: &Start) -> anyhow::Result<()> {
    let welcome = ControlWelcome {
        version: start.version,
        capabilities: Capabilities(start.capabilities),
        token: Token(start.token),
        region_tag: start.region_tag,
        worker_pid: std::process::id(),
        limits: worker.limits,
    };
    let file = worker.session.window.file_to_share();
    welcome_control(connection, &welcome, file, ANSWER_TIMEOUT).context("cannot answer the program")?;
    worker.channel.send(&ToDaemon::Welcomed, None).context("cannot tell the daemon")
}

impl Worker {
    /// Starts a lane's thread, if the limit allows.
    fn accept_lane(self: &Arc<Self>, connection: Connection) {
        if self.lanes.fetch_add(1, Ordering::AcqRel) >= self.limits.max_lanes {
            self.lanes.fetch_sub(1, Ordering::AcqRel);
            let text = format_args!("more than {} lanes", self.limits.max_lanes);
            refuse(&connection, &Refused::new(RefusalCode::LIMIT, text));
            return;
        }
        self.session.counters.lanes.fetch_add(1, Ordering::Relaxed);
        let id = self.next_lane.fetch_add(1, Ordering::Relaxed);
        let this = Arc::clone(self);
        let started = thread::Builder::new().name(format!("lane-{id}")).spawn(move || {
            lane::run(&this, id, connection);
            this.lanes.fetch_sub(1, Ordering::AcqRel);
        });
        if let Err(error) = started {
            self.lanes.fetch_sub(1, Ordering::AcqRel);
            tracing::error!(%error, "cannot start a lane's thread");
        }
    }

    /// The program has broken the protocol: says so to the daemon and ends.
    fn malformed(&self, what: &str) -> ! {
        let _ending = self.ending.lock().unwrap_or_else(PoisonError::into_inner);
        let _ = self.channel.send(&ToDaemon::Malformed(what.to_owned()), None);
        self.report_and_exit()
    }

    /// Reports and ends the process. Kernels that run are not waited for.
    fn end(&self) -> ! {
        // Never released: whoever comes second waits for the exit.
        let _ending = self.ending.lock().unwrap_or_else(PoisonError::into_inner);
        self.report_and_exit()
    }

    fn report_and_exit(&self) -> ! {
        let report = self.session.counters.report(|op| protocol::ops::by_opcode(op).map(|info| info.name));
        if let Err(error) = self.channel.send(&ToDaemon::Report(report), None) {
            tracing::debug!(%error, "nobody takes the report");
        }
        exit::now()
    }
}
