//! Block device over a raw image file.

use std::fs::File;
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::FileExt as _;
use std::path::Path;

use virtio_bindings::virtio_blk::{
    VIRTIO_BLK_F_FLUSH, VIRTIO_BLK_F_RO, VIRTIO_BLK_F_SEG_MAX, VIRTIO_BLK_S_IOERR, VIRTIO_BLK_S_OK,
    VIRTIO_BLK_S_UNSUPP, VIRTIO_BLK_T_FLUSH, VIRTIO_BLK_T_GET_ID, VIRTIO_BLK_T_IN, VIRTIO_BLK_T_OUT,
};
use virtio_queue::{Queue, QueueT as _, Reader, Writer};
use vmm_sys_util::eventfd::EventFd;

use super::{Activation, DeviceError, QueueDevice, VirtioDevice};
use crate::vmm::error::{Error, Result};
use crate::vmm::stop::Stop;

const DEVICE_ID: u32 = 2;
const QUEUE_SIZES: &[u16] = &[256];
const SECTOR_BYTES: u64 = 512;
/// Data descriptors of a request: the queue's size without header and status.
const SEGMENTS: u32 = 254;
/// Bytes of one request; drivers stay far below.
const MOST_BYTES: usize = 64 << 20;
/// Bytes moved at once, so that the end of the machine is never far.
const CHUNK_BYTES: usize = 256 << 10;
const SERIAL_BYTES: usize = 20;

/// See the module.
#[derive(Debug)]
pub struct Block {
    disk: Disk,
    active: Option<Activation>,
}

#[derive(Debug)]
struct Disk {
    file: File,
    sectors: u64,
    read_only: bool,
}

impl Block {
    /// A disk whose content is that of `path`; a last incomplete sector is not part of it.
    ///
    /// # Errors
    /// The file cannot be opened.
    pub fn open(path: &Path, read_only: bool) -> Result<Self> {
        let failed = |source| Error::File { path: path.into(), source };
        let file = File::options().read(true).write(!read_only).open(path).map_err(failed)?;
        Self::new(file, read_only).map_err(failed)
    }

    /// A disk whose content is that of `file`.
    ///
    /// # Errors
    /// The file has no size.
    pub fn new(file: File, read_only: bool) -> io::Result<Self> {
        // Devices have no length in their metadata.
        let len = io::Seek::seek(&mut &file, io::SeekFrom::End(0))?;
        Ok(Self { disk: Disk { file, sectors: len / SECTOR_BYTES, read_only }, active: None })
    }
}

impl VirtioDevice for Block {
    fn device_id(&self) -> u32 {
        DEVICE_ID
    }

    fn features(&self) -> u64 {
        let read_only = if self.disk.read_only { 1 << VIRTIO_BLK_F_RO } else { 0 };
        (1 << VIRTIO_BLK_F_FLUSH) | (1 << VIRTIO_BLK_F_SEG_MAX) | read_only
    }

    fn queue_sizes(&self) -> &'static [u16] {
        QUEUE_SIZES
    }

    fn config(&self) -> Vec<u8> {
        let mut config = self.disk.sectors.to_le_bytes().to_vec();
        config.extend_from_slice(&[0; 4]); // size_max: not offered
        config.extend_from_slice(&SEGMENTS.to_le_bytes());
        config
    }

    fn activate(&mut self, activation: Activation, _: &[EventFd]) -> std::result::Result<(), DeviceError> {
        self.active = Some(activation);
        Ok(())
    }

    fn reset(&mut self) {
        self.active = None;
    }
}

impl QueueDevice for Block {
    fn process(&mut self, index: usize, stop: &Stop) {
        let Some(Activation { memory, queues, interrupt, .. }) = &mut self.active else { return };
        let Some(queue) = queues.get_mut(index).filter(|queue: &&mut Queue| queue.ready()) else { return };
        while !stop.is_requested() {
            let Some(chain) = queue.pop_descriptor_chain(&**memory) else { break };
            let head = chain.head_index();
            let readers = chain.clone().reader(&**memory).ok().zip(chain.writer(&**memory).ok());
            let written = readers.map_or(0, |(reader, writer)| self.disk.serve(reader, writer, stop));
            if queue.add_used(&**memory, head, written).is_err() {
                break;
            }
            // After each request: a long queue is not to wait for its last one.
            interrupt.signal_used();
        }
    }
}

impl Disk {
    /// Carries out one request; the bytes written into the guest's memory.
    fn serve(&self, mut reader: Reader<'_>, mut writer: Writer<'_>, stop: &Stop) -> u32 {
        // The last writable byte takes the status; a request without one cannot be answered.
        let Some(data_bytes) = writer.available_bytes().checked_sub(1) else { return 0 };
        let Ok(mut status) = writer.split_at(data_bytes) else { return 0 };
        let code = match self.carry_out(&mut reader, &mut writer, data_bytes, stop) {
            Ok(()) => VIRTIO_BLK_S_OK,
            Err(error) if error.kind() == io::ErrorKind::Unsupported => VIRTIO_BLK_S_UNSUPP,
            Err(error) => {
                tracing::debug!("block request failed: {error}");
                VIRTIO_BLK_S_IOERR
            }
        };
        let status_bytes = status.write(&[code as u8]).unwrap_or(0);
        (writer.bytes_written() + status_bytes) as u32
    }

    fn carry_out(
        &self,
        reader: &mut Reader<'_>,
        writer: &mut Writer<'_>,
        room: usize,
        stop: &Stop,
    ) -> io::Result<()> {
        let kind: u32 = reader.read_obj()?;
        let _reserved: u32 = reader.read_obj()?;
        let sector: u64 = reader.read_obj()?;
        match kind {
            VIRTIO_BLK_T_IN => {
                let mut at = self.check(sector, room)?;
                let mut left = room;
                let mut buffer = vec![0; CHUNK_BYTES.min(left)];
                while left > 0 && !stop.is_requested() {
                    let chunk = &mut buffer[..CHUNK_BYTES.min(left)];
                    self.file.read_exact_at(chunk, at)?;
                    writer.write_all(chunk)?;
                    at += chunk.len() as u64;
                    left -= chunk.len();
                }
                Ok(())
            }
            VIRTIO_BLK_T_OUT => {
                if self.read_only {
                    return Err(io::ErrorKind::ReadOnlyFilesystem.into());
                }
                let mut left = reader.available_bytes();
                let mut at = self.check(sector, left)?;
                let mut buffer = vec![0; CHUNK_BYTES.min(left)];
                while left > 0 && !stop.is_requested() {
                    let chunk = &mut buffer[..CHUNK_BYTES.min(left)];
                    reader.read_exact(chunk)?;
                    self.file.write_all_at(chunk, at)?;
                    at += chunk.len() as u64;
                    left -= chunk.len();
                }
                Ok(())
            }
            VIRTIO_BLK_T_FLUSH => self.file.sync_data(),
            VIRTIO_BLK_T_GET_ID => writer.write_all(&[0; SERIAL_BYTES][..SERIAL_BYTES.min(room)]),
            _ => Err(io::ErrorKind::Unsupported.into()),
        }
    }

    /// Offset in the file of a request for `len` bytes at `sector`.
    fn check(&self, sector: u64, len: usize) -> io::Result<u64> {
        let sectors = len as u64 / SECTOR_BYTES;
        let end = sector.checked_add(sectors);
        if len > MOST_BYTES
            || !len.is_multiple_of(SECTOR_BYTES as usize)
            || end.is_none_or(|end| end > self.sectors)
        {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "outside of the disk"));
        }
        Ok(sector * SECTOR_BYTES)
    }
}
