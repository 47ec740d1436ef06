//! The prompt, on a pseudo terminal.

#[path = "support/store.rs"]
mod store;
mod support;

use std::fs::{File, OpenOptions};
use std::io::{Read, Write};
use std::process::{Child, Command};

use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
use rustix::termios::{Winsize, tcsetwinsize};

/// A conversation with `kv_client`.
struct Terminal {
    child: Child,
    screen: File,
    seen: String,
}

impl Terminal {
    fn start(port: u16, history: &std::path::Path) -> Self {
        let screen = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY).expect("a pseudo terminal");
        grantpt(&screen).and_then(|()| unlockpt(&screen)).expect("its other side");
        let size = Winsize { ws_row: 40, ws_col: 120, ws_xpixel: 0, ws_ypixel: 0 };
        tcsetwinsize(&screen, size).expect("a size");
        let name = ptsname(&screen, Vec::new()).expect("its name").into_string().expect("a path");
        let side = || OpenOptions::new().read(true).write(true).open(&name).expect("its other side");
        let child = Command::new(env!("CARGO_BIN_EXE_kv_client"))
            .args(["-p", &port.to_string(), "--retries", "0"])
            .env("TERM", "xterm")
            .env("KV_HISTORY", history)
            .env_remove("KV_HOST")
            .env_remove("KV_PASSWORD")
            .stdin(side())
            .stdout(side())
            .stderr(side())
            .spawn()
            .expect("the program starts");
        Terminal { child, screen: File::from(screen), seen: String::new() }
    }

    fn type_in(&mut self, text: &str) {
        self.screen.write_all(text.as_bytes()).expect("the terminal takes keys");
    }

    /// Waits until the screen has shown `text`, and forgets everything up to it. Without end when it never comes.
    fn expect(&mut self, text: &str) -> String {
        let mut chunk = [0_u8; 4096];
        loop {
            if let Some(place) = self.seen.find(text) {
                let rest = self.seen.split_off(place + text.len());
                return std::mem::replace(&mut self.seen, rest);
            }
            let length = self.screen.read(&mut chunk).unwrap_or(0);
            assert!(length > 0, "the program ended; waited for {text:?} after {:?}", self.seen);
            self.seen.push_str(&String::from_utf8_lossy(&chunk[..length]));
        }
    }
}

#[test]
fn a_conversation_at_the_prompt() {
    let server = store::start();
    let directory = tempfile::tempdir().expect("a directory");
    let history = directory.path().join("history");
    let prompt = format!("127.0.0.1:{}> ", server.port());
    let mut terminal = Terminal::start(server.port(), &history);
    terminal.expect(&prompt);

    terminal.type_in("set k \"two\r");
    terminal.type_in("lines\"\r");
    terminal.expect("OK\r\n");
    // Tab completes GET from the server's table, and its argument is shown as a hint.
    terminal.type_in("g\t ");
    terminal.expect("\u{1b}[90mkey");
    terminal.type_in("k\r");
    terminal.expect("\"two\\nlines\"\r\n");
    terminal.type_in("incr k\r");
    terminal.expect("(error) ERR value is not an integer or out of range\r\n");
    terminal.type_in("help get\r");
    terminal.expect("Returns the value.");
    terminal.type_in("auth secret\r");
    terminal.expect("(error) ERR unknown command\r\n");
    // The connection is lost; the next command finds a new one.
    terminal.type_in("close now\r");
    terminal.expect("may or may not have happened");
    terminal.expect("not connected> ");
    terminal.type_in("get k\r");
    terminal.expect("\"two\\nlines\"\r\n");
    terminal.expect(&prompt);
    terminal.type_in("exit\r");
    assert!(terminal.child.wait().expect("the program ends").success());
    let kept = std::fs::read_to_string(&history).expect("a history");
    assert!(kept.contains("incr k") && !kept.contains("secret"), "{kept}");
}
