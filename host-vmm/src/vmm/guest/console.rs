//! The guest's console and its second serial port.

use std::fs::{File, OpenOptions};
use std::io::Write as _;
use std::process::Stdio;
use std::sync::OnceLock;

use anyhow::{Context as _, Result};
use rustix::termios::{OptionalActions, tcgetattr, tcsetattr};

const CONSOLE: &str = "/dev/console";
const SECOND_SERIAL: &str = "/dev/ttyS1";

fn open(path: &str) -> std::io::Result<File> {
    OpenOptions::new().read(true).write(true).open(path)
}

/// The console; opened at its first use, which is before the change into the program's root: that may lack it.
fn console() -> Option<&'static File> {
    static OPENED: OnceLock<Option<File>> = OnceLock::new();
    OPENED.get_or_init(|| open(CONSOLE).ok()).as_ref()
}

/// Makes sure that the console is open.
pub fn prepare() {
    console();
}

/// Writes a text for whoever watches the console.
pub fn write(text: &str) {
    if let Some(mut console) = console() {
        let _ = console.write_all(text.as_bytes());
        let _ = rustix::termios::tcdrain(console);
    }
}

/// The console as a program's output.
pub fn stdio() -> Stdio {
    console().and_then(|console| console.try_clone().ok()).map_or_else(Stdio::null, Stdio::from)
}

/// The second serial port, in a mode that changes no byte.
pub fn open_serial() -> Result<File> {
    let port = open(SECOND_SERIAL).context(SECOND_SERIAL)?;
    let mut mode = tcgetattr(&port).context(SECOND_SERIAL)?;
    mode.make_raw();
    tcsetattr(&port, OptionalActions::Now, &mode).context(SECOND_SERIAL)?;
    Ok(port)
}
