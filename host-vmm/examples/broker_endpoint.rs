//! The host's side of the broker's test: takes the module's connection, and lines of text from the test program in the guest.
//!
//! Both come over a user-space vsock back end, which gives a guest's connection to port P as a connection to the unix socket `PREFIX_P`. Such a back end does not tell the
//! port that the guest connects from, so this cannot check that it is the module that speaks; the daemon can, on the host kernel's vsock.

use std::collections::HashMap;
use std::fs::OpenOptions;
use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::sync::{Arc, Mutex, OnceLock};

use anyhow::{Context, Result, bail, ensure};
use host_vmm::broker::{Broker, GuestSession, Limits, RegionUse, qemu};
use host_vmm::vmm::memory::Memory;
use protocol::broker::PORT;

/// Port of the test's own lines.
const TEST_PORT: u32 = 7103;

struct Endpoint {
    broker: OnceLock<Broker>,
    memory: Memory,
    /// The module's connection.
    stream: Mutex<Option<UnixStream>>,
    /// Uses that outlive the connection that asked for them.
    kept: Mutex<HashMap<String, Vec<RegionUse>>>,
}

fn main() -> Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [file, len, prefix] = &arguments[..] else { bail!("usage: broker_endpoint FILE BYTES PREFIX") };
    let len = len.parse()?;
    let file = OpenOptions::new().read(true).write(true).create(true).truncate(false).open(file)?;
    file.set_len(len)?;
    let ram = qemu::ram(qemu::Layout::Q35, file, len);
    let endpoint = Arc::new(Endpoint {
        broker: OnceLock::new(),
        memory: ram.map()?,
        stream: Mutex::new(None),
        kept: Mutex::default(),
    });
    let waker = Arc::downgrade(&endpoint);
    let wake = Box::new(move || {
        if let Some(endpoint) = waker.upgrade() {
            endpoint.flush();
        }
    });
    let _ = endpoint.broker.set(Broker::new(ram, Limits::default(), wake));

    let modules = listen(prefix, PORT)?;
    let tests = listen(prefix, TEST_PORT)?;
    println!("listening");
    let other = Arc::clone(&endpoint);
    std::thread::spawn(move || {
        for stream in modules.incoming().flatten() {
            let endpoint = Arc::clone(&other);
            std::thread::spawn(move || {
                if let Err(error) = endpoint.serve_module(stream) {
                    println!("module: {error:#}");
                }
            });
        }
    });
    for stream in tests.incoming().flatten() {
        let endpoint = Arc::clone(&endpoint);
        std::thread::spawn(move || {
            if let Err(error) = endpoint.serve_test(stream) {
                println!("test: {error:#}");
            }
        });
    }
    Ok(())
}

fn listen(prefix: &str, port: u32) -> Result<UnixListener> {
    let path = format!("{prefix}_{port}");
    let _ = std::fs::remove_file(&path);
    UnixListener::bind(&path).with_context(|| path)
}

/// Word `i` of a pattern; the test program has the same function.
fn word(seed: u64, i: u64) -> u64 {
    (seed ^ i).wrapping_mul(0x9e37_79b9_7f4a_7c15)
}

impl Endpoint {
    fn broker(&self) -> &Broker {
        self.broker.get().expect("set in main")
    }

    /// Sends what the broker has to say.
    fn flush(&self) {
        let stream = self.stream.lock().expect("no panics");
        let output = self.broker().take_output();
        if let Some(mut stream) = stream.as_ref()
            && stream.write_all(&output).is_err()
        {
            println!("module: cannot be told");
        }
    }

    fn serve_module(&self, stream: UnixStream) -> Result<()> {
        let mut connection = match self.broker().connect(1023) {
            Ok(connection) => connection,
            Err(refusal) => {
                (&stream).write_all(&refusal.encode())?;
                bail!("{refusal}");
            }
        };
        *self.stream.lock().expect("no panics") = Some(stream.try_clone()?);
        let mut reader = stream;
        let mut buffer = vec![0; 32 << 10];
        loop {
            let len = reader.read(&mut buffer).unwrap_or(0);
            if len == 0 {
                break;
            }
            connection.receive(&buffer[..len])?;
        }
        *self.stream.lock().expect("no panics") = None;
        println!("module: gone");
        Ok(())
    }

    fn serve_test(&self, stream: UnixStream) -> Result<()> {
        let mut state = Test { endpoint: self, session: None, used: None };
        let mut writer = stream.try_clone()?;
        for line in BufReader::new(stream).lines() {
            let answer = match state.act(&line?) {
                Ok(text) => format!("ok {text}\n"),
                Err(error) => format!("error {error:#}\n"),
            };
            writer.write_all(answer.as_bytes())?;
        }
        Ok(())
    }

    fn verify(&self, region: &RegionUse, offset: u64, len: u64, seed: u64) -> Result<()> {
        let mut bytes = vec![0; usize::try_from(len)?];
        region.read(&self.memory, offset, &mut bytes)?;
        for (i, at) in bytes.chunks_exact(8).enumerate() {
            let found = u64::from_le_bytes(at.try_into()?);
            ensure!(found == word(seed, i as u64), "word {i} is {found:#x}");
        }
        Ok(())
    }
}

/// One connection of the test program.
struct Test<'a> {
    endpoint: &'a Endpoint,
    session: Option<GuestSession>,
    used: Option<RegionUse>,
}

impl Test<'_> {
    fn region(&self, id: &str) -> Result<RegionUse> {
        Ok(self.session.as_ref().context("no session was claimed")?.region(id.parse()?)?)
    }

    fn act(&mut self, line: &str) -> Result<String> {
        let words: Vec<&str> = line.split(' ').collect();
        match words[..] {
            ["claim", a, b] => {
                let session = self.endpoint.broker().claim([a.parse()?, b.parse()?]);
                let session = session.context("no session has this cookie")?;
                ensure!(session.program().is_some(), "no program");
                self.session = Some(session);
            }
            ["check", id, offset, len, seed] => {
                let region = self.region(id)?;
                self.endpoint.verify(&region, offset.parse()?, len.parse()?, seed.parse()?)?;
            }
            ["fill", id, offset, len, seed] => {
                let (len, seed): (u64, u64) = (len.parse()?, seed.parse()?);
                let bytes: Vec<u8> = (0..len / 8).flat_map(|i| word(seed, i).to_le_bytes()).collect();
                self.region(id)?.write(&self.endpoint.memory, offset.parse()?, &bytes)?;
            }
            ["use", id] => self.used = Some(self.region(id)?),
            ["drop"] => self.used = None,
            ["keep", name, ref ids @ ..] => {
                let uses: Result<Vec<RegionUse>> = ids.iter().map(|id| self.region(id)).collect();
                self.endpoint.kept.lock().expect("no panics").insert(name.into(), uses?);
            }
            ["kept", name, seed] => {
                let uses = self.endpoint.kept.lock().expect("no panics").remove(name);
                for region in uses.context("nothing of this name")? {
                    if seed != "none" {
                        self.endpoint.verify(&region, 0, region.len_bytes(), seed.parse()?)?;
                    }
                }
            }
            ["hangup"] => {
                if let Some(stream) = self.endpoint.stream.lock().expect("no panics").as_ref() {
                    stream.shutdown(std::net::Shutdown::Both)?;
                }
            }
            _ => bail!("unknown command"),
        }
        Ok(String::new())
    }
}
