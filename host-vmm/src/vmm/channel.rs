//! What the init in the guest and `host-vmm boot` say to each other: the program's output and exit code, its input.
//!
//! Over vsock, or over the second serial port (then without input). A message is a kind byte, a little-endian u32 length, and that many
//! bytes. What comes from the guest is hostile: [`Decoder`] keeps at most one message of [`MAX_BYTES`].

use std::io::{self, Write};

/// Longest message; also the longest single write, because user-space vsock back ends cannot take more.
pub const MAX_BYTES: usize = 32 * 1024 - HEADER_BYTES;
const HEADER_BYTES: usize = 5;

/// Kinds of messages.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Guest: standard output of the program.
    Stdout,
    /// Guest: standard error of the program.
    Stderr,
    /// Guest: one byte, the exit code. The last message.
    Exit,
    /// Guest: a text of the init, for the user.
    Message,
    /// Host: standard input for the program; empty at its end.
    Stdin,
    /// Host: the exit code has arrived.
    Done,
}

impl Kind {
    const ALL: [(u8, Self); 6] = [
        (1, Self::Stdout),
        (2, Self::Stderr),
        (3, Self::Exit),
        (4, Self::Message),
        (16, Self::Stdin),
        (17, Self::Done),
    ];

    fn from_byte(byte: u8) -> Option<Self> {
        Self::ALL.iter().find(|(code, _)| *code == byte).map(|(_, kind)| *kind)
    }

    fn byte(self) -> u8 {
        Self::ALL.iter().find(|(_, kind)| *kind == self).map_or(0, |(code, _)| *code)
    }
}

/// Writes `bytes` as messages of `kind`, one at least.
///
/// # Errors
/// The writer's.
pub fn send(writer: &mut impl Write, kind: Kind, bytes: &[u8]) -> io::Result<()> {
    let mut rest = bytes;
    loop {
        let (now, later) = rest.split_at(rest.len().min(MAX_BYTES));
        let mut message = Vec::with_capacity(HEADER_BYTES + now.len());
        message.push(kind.byte());
        message.extend_from_slice(&(now.len() as u32).to_le_bytes());
        message.extend_from_slice(now);
        writer.write_all(&message)?;
        if later.is_empty() {
            return writer.flush();
        }
        rest = later;
    }
}

/// The other side does not keep to the protocol.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the other side sent something that is no message")]
pub struct Malformed;

/// Takes messages out of a stream that comes in arbitrary pieces.
#[derive(Debug, Default)]
pub struct Decoder {
    pending: Vec<u8>,
    broken: bool,
}

impl Decoder {
    /// Takes the next bytes of the stream and hands out the messages that are complete.
    ///
    /// # Errors
    /// Not a message; then and from then on.
    pub fn push(&mut self, mut bytes: &[u8], mut each: impl FnMut(Kind, &[u8])) -> Result<(), Malformed> {
        while !bytes.is_empty() && !self.broken {
            let wanted = match self.pending.get(..HEADER_BYTES) {
                None => HEADER_BYTES,
                Some(header) => HEADER_BYTES + self.body_length(header)?,
            };
            let (now, later) = bytes.split_at(bytes.len().min(wanted - self.pending.len()));
            self.pending.extend_from_slice(now);
            bytes = later;
            self.hand_out(&mut each)?;
        }
        if self.broken { Err(Malformed) } else { Ok(()) }
    }

    fn body_length(&self, header: &[u8]) -> Result<usize, Malformed> {
        let length =
            header.get(1..HEADER_BYTES).and_then(|length| length.try_into().ok()).ok_or(Malformed)?;
        Ok(u32::from_le_bytes(length) as usize)
    }

    fn hand_out(&mut self, each: &mut impl FnMut(Kind, &[u8])) -> Result<(), Malformed> {
        let Some((header, body)) = self.pending.split_at_checked(HEADER_BYTES) else { return Ok(()) };
        let length = self.body_length(header)?;
        let Some(kind) = Kind::from_byte(header[0]).filter(|_| length <= MAX_BYTES) else {
            self.broken = true;
            return Err(Malformed);
        };
        if body.len() == length {
            each(kind, body);
            self.pending.clear();
        }
        Ok(())
    }
}

/// Decodes `data` as a stream that comes in pieces; the first byte is their length.
pub fn fuzz_channel(data: &[u8]) {
    let Some((piece, stream)) = data.split_first() else { return };
    let mut decoder = Decoder::default();
    let mut messages = 0;
    for piece in stream.chunks(usize::from(*piece).max(1)) {
        let result = decoder.push(piece, |_, body| {
            assert!(body.len() <= MAX_BYTES);
            messages += 1;
        });
        assert!(decoder.pending.len() <= HEADER_BYTES + MAX_BYTES);
        assert!(result.is_ok() || decoder.broken);
    }
    assert!(messages <= stream.len() / HEADER_BYTES);
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    type Messages = Vec<(Kind, Vec<u8>)>;

    fn decode(pieces: &[&[u8]]) -> (Messages, Result<(), Malformed>) {
        let mut seen = Vec::new();
        let mut decoder = Decoder::default();
        let mut result = Ok(());
        for piece in pieces {
            result = decoder.push(piece, |kind, body| seen.push((kind, body.to_vec())));
        }
        (seen, result)
    }

    #[test]
    fn long_output_comes_in_several_messages() {
        let mut stream = Vec::new();
        let text = vec![7; 2 * MAX_BYTES + 1];
        send(&mut stream, Kind::Stdout, &text).expect("to memory");
        send(&mut stream, Kind::Exit, &[3]).expect("to memory");
        let (seen, result) = decode(&[&stream]);
        assert_eq!(result, Ok(()));
        assert_eq!(seen.len(), 4);
        assert_eq!(seen[..3].iter().flat_map(|(_, body)| body).copied().collect::<Vec<_>>(), text);
        assert_eq!(seen[3], (Kind::Exit, vec![3]));
    }

    #[test]
    fn a_message_of_unknown_kind_or_excessive_length_ends_it() {
        for bad in [[9, 0, 0, 0, 0], [1, 0xFF, 0xFF, 0xFF, 0xFF]] {
            let mut decoder = Decoder::default();
            assert_eq!(decoder.push(&bad, |_, _| panic!("no message")), Err(Malformed));
            assert_eq!(decoder.push(&[1, 0, 0, 0, 0], |_, _| panic!("no message")), Err(Malformed));
        }
    }

    proptest! {
        #[test]
        fn pieces_do_not_matter(
            messages in proptest::collection::vec((0usize..6, proptest::collection::vec(any::<u8>(), 0..40)), 0..8),
            cut in 1usize..20,
        ) {
            let mut stream = Vec::new();
            let mut expected = Vec::new();
            for (kind, body) in messages {
                let kind = Kind::ALL[kind].1;
                send(&mut stream, kind, &body).expect("to memory");
                expected.push((kind, body));
            }
            let pieces: Vec<&[u8]> = stream.chunks(cut).collect();
            prop_assert_eq!(decode(&pieces), (expected, Ok(())));
        }

        #[test]
        fn garbage_is_survived_and_kept_short(bytes in proptest::collection::vec(any::<u8>(), 0..4096)) {
            fuzz_channel(&bytes);
        }

        #[test]
        fn so_is_a_stream_with_a_flaw(at in 0usize..60, value: u8, piece: u8) {
            let mut stream = vec![piece];
            for kind in [Kind::Stdout, Kind::Message, Kind::Exit] {
                send(&mut stream, kind, b"some text").expect("to memory");
            }
            let at = at % stream.len();
            stream[at] = value;
            fuzz_channel(&stream);
        }
    }
}
