//! An initramfs: a cpio archive in the "newc" format (the kernel's Documentation/driver-api/early-userspace/buffer-format.rst).

/// An archive in the making.
#[derive(Default)]
pub struct Archive {
    bytes: Vec<u8>,
    entries: u32,
}

impl Archive {
    /// Adds a directory.
    pub fn directory(&mut self, name: &str) {
        self.entry(name, 0o040_755, &[]);
    }

    /// Adds a file with these permissions; its directory must have been added.
    pub fn file(&mut self, name: &str, permissions: u32, content: &[u8]) {
        self.entry(name, 0o100_000 | permissions, content);
    }

    fn entry(&mut self, name: &str, mode: u32, content: &[u8]) {
        self.entries += 1;
        let (name_len, len) = (name.len() as u32 + 1, content.len() as u32);
        self.bytes.extend_from_slice(b"070701");
        // Number, mode, owner, group, links, time, length, four device numbers, length of the name, no checksum.
        for field in [self.entries, mode, 0, 0, 1, 0, len, 0, 0, 0, 0, name_len, 0] {
            self.bytes.extend_from_slice(format!("{field:08X}").as_bytes());
        }
        self.bytes.extend_from_slice(name.as_bytes());
        self.bytes.push(0);
        self.pad();
        self.bytes.extend_from_slice(content);
        self.pad();
    }

    fn pad(&mut self) {
        self.bytes.resize(self.bytes.len().next_multiple_of(4), 0);
    }

    /// The archive.
    pub fn finish(mut self) -> Vec<u8> {
        self.entry("TRAILER!!!", 0, &[]);
        self.bytes
    }
}

#[cfg(test)]
mod tests {
    use super::Archive;

    #[test]
    fn entries_are_as_the_format_says() {
        let mut archive = Archive::default();
        archive.file("a", 0o644, b"xyz");
        let bytes = archive.finish();
        let text = String::from_utf8_lossy(&bytes[..110]).into_owned();
        let fields = text.strip_prefix("070701").expect("the magic");
        let fields: Vec<&str> = (0..13).map(|i| &fields[i * 8..i * 8 + 8]).collect();
        assert_eq!(
            (fields[0], fields[1], fields[4], fields[6], fields[11]),
            ("00000001", "000081A4", "00000001", "00000003", "00000002")
        );
        assert!([2, 3, 5, 7, 8, 9, 10, 12].iter().all(|&i| fields[i] == "00000000"));
        assert_eq!(bytes[110..116], *b"a\0xyz\0");
        assert!(bytes.windows(11).any(|window| window == b"TRAILER!!!\0") && bytes.len().is_multiple_of(4));
    }
}
