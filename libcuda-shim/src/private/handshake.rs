//! The validity handshake that a CUDA runtime (cudart) performs with its driver at start-up.
//!
//! A cudart asks slot 1 of the private table `d4082055-bde6-704b-8d34-ba123c66e1f2` three times and refuses to work (error 103,
//! `cudaErrorSoftwareValidityNotEstablished`) unless the 16 bytes it gets are the expected ones. The answer is an HMAC over values of
//! the calling process and of the public API, so it can only be computed here, not on the host. It is needed for interoperability:
//! without it no program with a CUDA runtime starts.
//!
//! Algorithm: MD2 is RFC 1319, HMAC is RFC 2104 with MD2's block of 16 bytes; the layout of the message and the key are as published by
//! the ZLUDA project (MIT/Apache-2.0). This module is an independent implementation, and the only place that knows of it; building
//! without the feature `cudart-handshake` leaves it out.

/// Everything the answer depends on.
pub struct Request<'a> {
    /// `cuDriverGetVersion`, e.g. 13000.
    pub driver_version: u32,
    /// The runtime's version argument; its last digit selects the form of the answer.
    pub version: u32,
    pub process_id: u32,
    /// Low half of `pthread_self()`.
    pub thread: u32,
    /// Address of the CUDART_INTERFACE table as the program got it.
    pub runtime_table: u64,
    /// Address of the INTEGRITY_CHECK table as the program got it.
    pub integrity_table: u64,
    /// Address of that table's slot 1.
    pub integrity_function: u64,
    /// The runtime's time argument (seconds).
    pub unix_seconds: u64,
    pub devices: &'a [Device],
}

/// Identity of a device as the public API reports it.
#[derive(Clone, Copy, Debug)]
pub struct Device {
    /// `cuDeviceGetUuid` (the first version of the call).
    pub uuid: [u8; 16],
    pub pci_domain: i32,
    pub pci_bus: i32,
    pub pci_device: i32,
}

const KEY: [u8; 16] =
    [0x14, 0x6A, 0xDD, 0xAE, 0x53, 0xA9, 0xA7, 0x52, 0xAA, 0x08, 0x41, 0x36, 0x0B, 0xF5, 0x5A, 0x9F];

/// Computes the 16 bytes that the runtime expects.
pub fn answer(request: &Request<'_>) -> [u8; 16] {
    let fixed = |first: u64| {
        let mut out = [0; 16];
        out[..8].copy_from_slice(&first.to_le_bytes());
        out[8..].copy_from_slice(&0x8ED3_83AA_1F4C_D1E8u64.to_le_bytes());
        out
    };
    match request.version % 10 {
        0 => return fixed(0x3341_181C_03CB_675C),
        1 => return fixed(0x1841_181C_03CB_675C),
        _ => {}
    }
    let mut message = Vec::with_capacity(48 + request.devices.len() * 28);
    for word in [request.driver_version, request.version, request.process_id, request.thread] {
        message.extend_from_slice(&word.to_le_bytes());
    }
    for word in
        [request.runtime_table, request.integrity_table, request.integrity_function, request.unix_seconds]
    {
        message.extend_from_slice(&word.to_le_bytes());
    }
    for device in request.devices {
        message.extend_from_slice(&device.uuid);
        for word in [device.pci_domain, device.pci_bus, device.pci_device] {
            message.extend_from_slice(&word.to_le_bytes());
        }
    }
    hmac_md2(&KEY, &message)
}

/// HMAC (RFC 2104) with MD2; the key is exactly one block.
fn hmac_md2(key: &[u8; 16], message: &[u8]) -> [u8; 16] {
    let padded = |byte: u8| key.map(|k| k ^ byte);
    let mut inner = padded(0x36).to_vec();
    inner.extend_from_slice(message);
    let mut outer = padded(0x5c).to_vec();
    outer.extend_from_slice(&md2(&inner));
    md2(&outer)
}

/// MD2 (RFC 1319).
fn md2(message: &[u8]) -> [u8; 16] {
    let substitution = &SUBSTITUTION;
    let padding = 16 - message.len() % 16;
    let mut data = message.to_vec();
    data.resize(message.len() + padding, padding as u8);

    let mut checksum = [0u8; 16];
    let mut last = 0u8;
    for block in data.as_chunks::<16>().0 {
        for (sum, byte) in checksum.iter_mut().zip(block) {
            *sum ^= substitution[usize::from(byte ^ last)];
            last = *sum;
        }
    }
    data.extend_from_slice(&checksum);

    let mut state = [0u8; 48];
    for block in data.as_chunks::<16>().0 {
        for (i, byte) in block.iter().enumerate() {
            state[16 + i] = *byte;
            state[32 + i] = state[i] ^ byte;
        }
        let mut previous = 0u8;
        for round in 0..18u8 {
            for cell in &mut state {
                *cell ^= substitution[usize::from(previous)];
                previous = *cell;
            }
            previous = previous.wrapping_add(round);
        }
    }
    let mut digest = [0; 16];
    digest.copy_from_slice(&state[..16]);
    digest
}

/// The substitution table of RFC 1319, section 3.2: a permutation of 0..=255 made from the digits of pi (rebuilt in the tests).
#[rustfmt::skip]
const SUBSTITUTION: [u8; 256] = [
    0x29, 0x2e, 0x43, 0xc9, 0xa2, 0xd8, 0x7c, 0x01, 0x3d, 0x36, 0x54, 0xa1, 0xec, 0xf0, 0x06, 0x13,
    0x62, 0xa7, 0x05, 0xf3, 0xc0, 0xc7, 0x73, 0x8c, 0x98, 0x93, 0x2b, 0xd9, 0xbc, 0x4c, 0x82, 0xca,
    0x1e, 0x9b, 0x57, 0x3c, 0xfd, 0xd4, 0xe0, 0x16, 0x67, 0x42, 0x6f, 0x18, 0x8a, 0x17, 0xe5, 0x12,
    0xbe, 0x4e, 0xc4, 0xd6, 0xda, 0x9e, 0xde, 0x49, 0xa0, 0xfb, 0xf5, 0x8e, 0xbb, 0x2f, 0xee, 0x7a,
    0xa9, 0x68, 0x79, 0x91, 0x15, 0xb2, 0x07, 0x3f, 0x94, 0xc2, 0x10, 0x89, 0x0b, 0x22, 0x5f, 0x21,
    0x80, 0x7f, 0x5d, 0x9a, 0x5a, 0x90, 0x32, 0x27, 0x35, 0x3e, 0xcc, 0xe7, 0xbf, 0xf7, 0x97, 0x03,
    0xff, 0x19, 0x30, 0xb3, 0x48, 0xa5, 0xb5, 0xd1, 0xd7, 0x5e, 0x92, 0x2a, 0xac, 0x56, 0xaa, 0xc6,
    0x4f, 0xb8, 0x38, 0xd2, 0x96, 0xa4, 0x7d, 0xb6, 0x76, 0xfc, 0x6b, 0xe2, 0x9c, 0x74, 0x04, 0xf1,
    0x45, 0x9d, 0x70, 0x59, 0x64, 0x71, 0x87, 0x20, 0x86, 0x5b, 0xcf, 0x65, 0xe6, 0x2d, 0xa8, 0x02,
    0x1b, 0x60, 0x25, 0xad, 0xae, 0xb0, 0xb9, 0xf6, 0x1c, 0x46, 0x61, 0x69, 0x34, 0x40, 0x7e, 0x0f,
    0x55, 0x47, 0xa3, 0x23, 0xdd, 0x51, 0xaf, 0x3a, 0xc3, 0x5c, 0xf9, 0xce, 0xba, 0xc5, 0xea, 0x26,
    0x2c, 0x53, 0x0d, 0x6e, 0x85, 0x28, 0x84, 0x09, 0xd3, 0xdf, 0xcd, 0xf4, 0x41, 0x81, 0x4d, 0x52,
    0x6a, 0xdc, 0x37, 0xc8, 0x6c, 0xc1, 0xab, 0xfa, 0x24, 0xe1, 0x7b, 0x08, 0x0c, 0xbd, 0xb1, 0x4a,
    0x78, 0x88, 0x95, 0x8b, 0xe3, 0x63, 0xe8, 0x6d, 0xe9, 0xcb, 0xd5, 0xfe, 0x3b, 0x00, 0x1d, 0x39,
    0xf2, 0xef, 0xb7, 0x0e, 0x66, 0x58, 0xd0, 0xe4, 0xa6, 0x77, 0x72, 0xf8, 0xeb, 0x75, 0x4b, 0x0a,
    0x31, 0x44, 0x50, 0xb4, 0x8f, 0xed, 0x1f, 0x1a, 0xdb, 0x99, 0x8d, 0x33, 0x9f, 0x11, 0x83, 0x14,
];

#[cfg(test)]
mod tests {
    use super::*;

    fn hex(bytes: &[u8]) -> String {
        bytes.iter().map(|byte| format!("{byte:02x}")).collect()
    }

    /// The test suite of RFC 1319, appendix A.5.
    #[test]
    fn md2_matches_the_rfc() {
        for (message, digest) in [
            ("", "8350e5a3e24c153df2275c9f80692773"),
            ("a", "32ec01ec4a6dac72c0ab96fb34c0b5d1"),
            ("abc", "da853b0d3f88d99b30283a69e6ded6bb"),
            ("message digest", "ab4f496bfb2a530b219ff33031fe06b0"),
            ("abcdefghijklmnopqrstuvwxyz", "4e8ddff3650292ab5a4108c3aa47940b"),
            (
                "12345678901234567890123456789012345678901234567890123456789012345678901234567890",
                "d5976f79d83d3a0dc9806c3c66f3efd8",
            ),
        ] {
            assert_eq!(hex(&md2(message.as_bytes())), digest, "{message:?}");
        }
    }

    /// The table as the RFC derives it: a Fisher-Yates shuffle of 0..=255 driven by the decimal digits of pi.
    ///
    /// The digits come from the spigot series of Rabinowitz and Wagon.
    fn substitution_table() -> [u8; 256] {
        let mut digits = PiDigits::new();
        let mut random = |n: u32| loop {
            // The shuffle's generator: as many decimal digits as n needs, redrawn above the largest multiple of n.
            let (mut value, mut range) = (digits.next(), 10);
            if n > 10 {
                value = value * 10 + digits.next();
                range = 100;
            }
            if n > 100 {
                value = value * 10 + digits.next();
                range = 1000;
            }
            if value < range / n * n {
                return value % n;
            }
        };
        let mut table: [u8; 256] = std::array::from_fn(|i| i as u8);
        for i in 2..=256u32 {
            let j = random(i);
            table.swap(j as usize, i as usize - 1);
        }
        table
    }

    /// Decimal digits of pi, from the first 3 on; enough for the shuffle.
    struct PiDigits {
        digits: Vec<u8>,
        position: usize,
    }

    impl PiDigits {
        const COUNT: usize = 900;

        fn new() -> PiDigits {
            let terms = Self::COUNT * 10 / 3 + 1;
            let mut remainders = vec![2u32; terms];
            let mut digits: Vec<u8> = Vec::with_capacity(Self::COUNT + 1);
            let (mut nines, mut held) = (0usize, None::<u32>);
            for _ in 0..Self::COUNT + 1 {
                let mut carry = 0u32;
                for i in (0..terms).rev() {
                    let divisor = 2 * i as u32 + 1;
                    let value = 10 * remainders[i] + carry * (i as u32 + 1);
                    if i == 0 {
                        remainders[0] = value % 10;
                        carry = value / 10;
                    } else {
                        remainders[i] = value % divisor;
                        carry = value / divisor;
                    }
                }
                match carry {
                    9 => nines += 1,
                    10 => {
                        digits.extend(held.map(|digit| digit as u8 + 1));
                        digits.extend(std::iter::repeat_n(0, nines));
                        (nines, held) = (0, Some(0));
                    }
                    digit => {
                        digits.extend(held.map(|digit| digit as u8));
                        digits.extend(std::iter::repeat_n(9, nines));
                        (nines, held) = (0, Some(digit));
                    }
                }
            }
            PiDigits { digits, position: 0 }
        }

        fn next(&mut self) -> u32 {
            let digit = self.digits.get(self.position).copied().unwrap_or(0);
            self.position += 1;
            u32::from(digit)
        }
    }

    #[test]
    fn the_table_comes_from_pi() {
        assert_eq!(SUBSTITUTION, substitution_table());
    }

    #[test]
    fn pi_starts_as_it_should() {
        let mut digits = PiDigits::new();
        let first: Vec<u32> = (0..10).map(|_| digits.next()).collect();
        assert_eq!(first, [3, 1, 4, 1, 5, 9, 2, 6, 5, 3]);
        assert!(digits.digits.len() > 800);
    }
}
