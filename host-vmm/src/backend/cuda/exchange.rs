//! The driver's file descriptors for shared memory, from one worker to another.
//!
//! A program never gets such a descriptor: it is one of the driver's own device files, by which anything could be asked of the driver. It gets a name and a secret
//! instead (`libcuda-shim/src/shared_handle.rs`), passes them on as it likes, and the worker of the program that imports asks the worker that has exported, over an abstract
//! unix socket. Whoever has the secret may have the memory, as with the descriptor itself; connections of other users are refused.
//!
//! What is exported stays here until the worker ends, or until its memory has been gone for [`GRACE`]: when the program's descriptor is closed cannot be seen.

use std::collections::HashMap;
use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use rustix::net::sockopt::{Timeout, set_socket_timeout, socket_peercred};
use rustix::net::{
    AddressFamily, RecvFlags, SendAncillaryBuffer, SendAncillaryMessage, SendFlags, SocketAddrUnix,
    SocketFlags, SocketType, accept_with, bind, connect, listen, recv, sendmsg, socket_with,
};

use crate::generated::cuda_raw::Kind;

/// Most descriptors at a time.
const MAX_EXPORTS: usize = 1024;

/// How long an export outlives its memory in this worker: another program may be about to import it.
const GRACE: Duration = Duration::from_secs(60);

/// How long a worker waits for another one.
const TIMEOUT: Duration = Duration::from_secs(5);

/// A name (16 bytes) of a worker's socket and a secret (16 bytes).
pub type Ticket = [u8; 32];

struct Export {
    descriptor: Arc<OwnedFd>,
    /// Since when the memory is gone.
    gone: Option<Instant>,
}

#[derive(Default)]
struct State {
    /// Of the socket, once there is one.
    name: Option<[u8; 16]>,
    exports: HashMap<[u8; 16], Export>,
    /// Secrets by the driver's object.
    by_object: HashMap<(Kind, u64), [u8; 16]>,
}

/// What this worker has exported.
#[derive(Clone, Default)]
pub struct Exchange {
    state: Arc<Mutex<State>>,
}

fn random() -> io::Result<[u8; 16]> {
    let mut bytes = [0; 16];
    let len = rustix::rand::getrandom(&mut bytes, rustix::rand::GetRandomFlags::empty())?;
    if len == bytes.len() { Ok(bytes) } else { Err(io::ErrorKind::UnexpectedEof.into()) }
}

fn address(name: &[u8; 16]) -> io::Result<SocketAddrUnix> {
    let hex: String = name.iter().map(|byte| format!("{byte:02x}")).collect();
    Ok(SocketAddrUnix::new_abstract_name(format!("host-vmm-{hex}").as_bytes())?)
}

fn new_socket() -> io::Result<OwnedFd> {
    Ok(socket_with(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None)?)
}

fn timeouts(socket: BorrowedFd<'_>) -> io::Result<()> {
    set_socket_timeout(socket, Timeout::Recv, Some(TIMEOUT))?;
    Ok(set_socket_timeout(socket, Timeout::Send, Some(TIMEOUT))?)
}

/// Connections of other users are not served.
fn same_user(socket: BorrowedFd<'_>) -> bool {
    socket_peercred(socket).is_ok_and(|peer| peer.uid == rustix::process::geteuid())
}

impl Exchange {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The ticket of an object that has been exported already.
    pub fn known(&self, kind: Kind, object: u64) -> Option<Ticket> {
        let state = self.state();
        Some(ticket(&state.name?, state.by_object.get(&(kind, object))?))
    }

    /// Keeps a descriptor for other workers.
    ///
    /// # Errors
    /// No socket or thread is to be had; there are too many exports.
    pub fn publish(&self, kind: Kind, object: u64, descriptor: OwnedFd) -> io::Result<Ticket> {
        let secret = random()?;
        let mut state = self.state();
        state.exports.retain(|_, export| export.gone.is_none_or(|since| since.elapsed() < GRACE));
        if state.exports.len() >= MAX_EXPORTS {
            return Err(io::Error::other(format!("more than {MAX_EXPORTS} exports")));
        }
        let name = match state.name {
            Some(name) => name,
            None => {
                let name = random()?;
                self.serve(&name)?;
                state.name = Some(name);
                name
            }
        };
        state.exports.insert(secret, Export { descriptor: Arc::new(descriptor), gone: None });
        state.by_object.insert((kind, object), secret);
        Ok(ticket(&name, &secret))
    }

    /// An object of the driver has gone: what it was exported as is forgotten after a while.
    pub fn gone(&self, kind: Kind, object: u64) {
        let mut state = self.state();
        if let Some(secret) = state.by_object.remove(&(kind, object))
            && let Some(export) = state.exports.get_mut(&secret)
        {
            export.gone = Some(Instant::now());
        }
    }

    /// Starts the thread that answers other workers.
    fn serve(&self, name: &[u8; 16]) -> io::Result<()> {
        let socket = new_socket()?;
        bind(&socket, &address(name)?)?;
        listen(&socket, 16)?;
        let this = self.clone();
        thread::Builder::new().name("exchange".into()).spawn(move || this.answer(&socket))?;
        Ok(())
    }

    fn answer(&self, socket: &OwnedFd) {
        loop {
            let peer = match accept_with(socket, SocketFlags::CLOEXEC) {
                Ok(peer) => peer,
                Err(rustix::io::Errno::INTR | rustix::io::Errno::CONNABORTED) => continue,
                Err(error) => {
                    tracing::warn!(%error, "other workers cannot be answered for a while");
                    thread::sleep(TIMEOUT);
                    continue;
                }
            };
            if let Err(error) = self.answer_one(peer.as_fd()) {
                tracing::debug!(%error, "a worker was not answered");
            }
        }
    }

    fn answer_one(&self, peer: BorrowedFd<'_>) -> io::Result<()> {
        timeouts(peer)?;
        if !same_user(peer) {
            return Err(io::ErrorKind::PermissionDenied.into());
        }
        let mut secret = [0; 16];
        let (len, _) = recv(peer, &mut secret, RecvFlags::empty())?;
        let found = self.state().exports.get(&secret).map(|export| Arc::clone(&export.descriptor));
        let Some(descriptor) = found.filter(|_| len == secret.len()) else {
            return Err(io::ErrorKind::NotFound.into());
        };
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
        let mut ancillary = SendAncillaryBuffer::new(&mut space);
        let descriptors = [descriptor.as_fd()];
        ancillary.push(SendAncillaryMessage::ScmRights(&descriptors));
        sendmsg(peer, &[io::IoSlice::new(&[1])], &mut ancillary, SendFlags::NOSIGNAL)?;
        Ok(())
    }
}

fn ticket(name: &[u8; 16], secret: &[u8; 16]) -> Ticket {
    let mut ticket = [0; 32];
    ticket[..16].copy_from_slice(name);
    ticket[16..].copy_from_slice(secret);
    ticket
}

/// The descriptor behind a ticket, from the worker that has it.
///
/// # Errors
/// That worker has ended, or knows no such ticket.
pub fn fetch(ticket: &Ticket) -> io::Result<OwnedFd> {
    use rustix::net::{RecvAncillaryBuffer, RecvAncillaryMessage, recvmsg, send};
    let (name, secret) = ticket.split_first_chunk::<16>().ok_or(io::ErrorKind::InvalidInput)?;
    let socket = new_socket()?;
    timeouts(socket.as_fd())?;
    connect(&socket, &address(name)?)?;
    if !same_user(socket.as_fd()) {
        return Err(io::ErrorKind::PermissionDenied.into());
    }
    send(&socket, secret, SendFlags::NOSIGNAL)?;
    let mut byte = [0];
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut ancillary = RecvAncillaryBuffer::new(&mut space);
    recvmsg(&socket, &mut [io::IoSliceMut::new(&mut byte)], &mut ancillary, RecvFlags::CMSG_CLOEXEC)?;
    let descriptors = ancillary.drain().filter_map(|message| match message {
        RecvAncillaryMessage::ScmRights(descriptors) => Some(descriptors),
        _ => None,
    });
    descriptors.flatten().next().ok_or_else(|| io::ErrorKind::NotFound.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_ticket_brings_the_descriptor() {
        let exchange = Exchange::default();
        assert_eq!(exchange.known(Kind::CUmemoryPool, 7), None);
        let (read, write) = rustix::pipe::pipe().unwrap();
        let ticket = exchange.publish(Kind::CUmemoryPool, 7, write).unwrap();
        assert_eq!(exchange.known(Kind::CUmemoryPool, 7), Some(ticket));
        for _ in 0..2 {
            let fetched = fetch(&ticket).unwrap();
            rustix::io::write(fetched, b"x").unwrap();
            assert_eq!(rustix::io::read(&read, &mut [0; 4]), Ok(1));
        }
        let mut wrong = ticket;
        wrong[31] ^= 1;
        assert!(fetch(&wrong).is_err(), "a wrong secret");
        wrong[0] ^= 1;
        assert!(fetch(&wrong).is_err(), "no such worker");
        exchange.gone(Kind::CUmemoryPool, 7);
        assert_eq!(exchange.known(Kind::CUmemoryPool, 7), None);
        assert!(fetch(&ticket).is_ok(), "for a while");
    }
}
