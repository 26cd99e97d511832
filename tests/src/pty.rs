//! A terminal with somebody in front of it.

use std::fs::File;
use std::io::{Read as _, Write as _};
use std::os::fd::OwnedFd;
use std::process::{Child, Command};
use std::sync::{Arc, Mutex};

use rustix::fs::{Mode, OFlags};
use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
use rustix::termios::{Termios, Winsize, tcgetattr, tcsetwinsize};

const COLUMNS: u16 = 100;
const LINES: u16 = 30;

/// A program on a terminal of its own.
pub struct Pty {
    pub child: Child,
    keys: File,
    ours: OwnedFd,
    screen: Arc<Mutex<Screen>>,
    before: Termios,
}

impl Pty {
    pub fn start(command: &mut Command) -> Self {
        let ours = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC).unwrap();
        grantpt(&ours).unwrap();
        unlockpt(&ours).unwrap();
        let name = ptsname(&ours, Vec::new()).unwrap();
        let flags = OFlags::RDWR | OFlags::NOCTTY | OFlags::CLOEXEC;
        let theirs = rustix::fs::open(name.as_c_str(), flags, Mode::empty()).unwrap();
        let size = Winsize {
            ws_row: LINES,
            ws_col: COLUMNS,
            ws_xpixel: 0,
            ws_ypixel: 0,
        };
        tcsetwinsize(&theirs, size).unwrap();
        let before = tcgetattr(&theirs).unwrap();
        let copy = || theirs.try_clone().unwrap();
        let child = command
            .stdin(copy())
            .stdout(copy())
            .stderr(copy())
            .spawn()
            .unwrap();
        // The command still has copies.
        command.stdin(std::process::Stdio::null());
        command.stdout(std::process::Stdio::null());
        command.stderr(std::process::Stdio::null());
        let screen = Arc::new(Mutex::new(Screen::default()));
        let (mut output, seen) = (File::from(ours.try_clone().unwrap()), Arc::clone(&screen));
        std::thread::spawn(move || {
            let mut buffer = [0; 4096];
            // Ends with an error once nobody has the other end.
            while let Ok(count @ 1..) = output.read(&mut buffer) {
                seen.lock().unwrap().take(&buffer[..count]);
            }
        });
        Self {
            child,
            keys: File::from(ours.try_clone().unwrap()),
            // Kept open, so that its settings can be read when the program has gone.
            ours: theirs,
            screen,
            before,
        }
    }

    pub fn press(&mut self, keys: &str) {
        self.keys.write_all(keys.as_bytes()).unwrap();
    }

    pub fn screen(&self) -> String {
        self.screen.lock().unwrap().text()
    }

    /// All that was ever sent to the terminal.
    pub fn sent(&self) -> String {
        let screen = self.screen.lock().unwrap();
        String::from_utf8_lossy(&screen.sent).into_owned()
    }

    /// Waits until the screen shows this.
    #[track_caller]
    pub fn sees(&self, text: &str) -> String {
        for _ in 0..1_000 {
            let screen = self.screen();
            if screen.contains(text) {
                return screen;
            }
            std::thread::sleep(std::time::Duration::from_millis(20));
        }
        panic!("no {text:?} on the screen:\n{}", self.screen());
    }

    /// Waits for the program, which leaves the terminal as it was. Gives its exit code.
    #[track_caller]
    pub fn left_as_it_was(&mut self) -> Option<i32> {
        let status = (0..500).find_map(|_| {
            std::thread::sleep(std::time::Duration::from_millis(20));
            self.child.try_wait().unwrap()
        });
        let status = status.expect("it goes on");
        let now = tcgetattr(&self.ours).unwrap();
        let modes = |of: &Termios| (of.local_modes, of.input_modes, of.output_modes);
        assert_eq!(modes(&now), modes(&self.before));
        assert_eq!(
            format!("{:?}", now.special_codes),
            format!("{:?}", self.before.special_codes)
        );
        let restored = (0..250).any(|_| {
            std::thread::sleep(std::time::Duration::from_millis(20));
            let screen = self.screen.lock().unwrap();
            !screen.other && screen.cursor
        });
        assert!(restored, "another screen, or no cursor: {:?}", self.sent());
        status.code()
    }
}

impl Drop for Pty {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// What a terminal makes of what is sent to it, as far as our programs go.
struct Screen {
    sent: Vec<u8>,
    /// Of an escape or a letter that is not whole yet.
    rest: Vec<u8>,
    lines: Vec<Vec<char>>,
    at: (usize, usize),
    /// The other one of the two screens that terminals have.
    other: bool,
    cursor: bool,
}

impl Default for Screen {
    fn default() -> Self {
        Self {
            sent: Vec::new(),
            rest: Vec::new(),
            lines: vec![Vec::new(); usize::from(LINES)],
            at: (0, 0),
            other: false,
            cursor: true,
        }
    }
}

impl Screen {
    fn text(&self) -> String {
        let lines = self.lines.iter().map(|line| line.iter().collect::<String>());
        lines.collect::<Vec<_>>().join("\n")
    }

    fn take(&mut self, bytes: &[u8]) {
        self.sent.extend_from_slice(bytes);
        let mut rest = std::mem::take(&mut self.rest);
        rest.extend_from_slice(bytes);
        let mut left = rest.as_slice();
        while let Some(used) = self.one(left) {
            left = &left[used..];
        }
        self.rest = left.to_vec();
    }

    /// Does one thing. Gives how many bytes it was; `None` is for more.
    fn one(&mut self, bytes: &[u8]) -> Option<usize> {
        match bytes {
            [] | [0x1b] => None,
            [0x1b, b'[', body @ ..] => {
                let end = body.iter().position(|byte| (0x40..=0x7e).contains(byte))?;
                self.control(&String::from_utf8_lossy(&body[..=end]));
                Some(end + 3)
            }
            [0x1b, b']', body @ ..] => {
                let end = body.windows(2).position(|two| two == b"\x1b\\")?;
                Some(end + 4)
            }
            [0x1b, ..] => Some(2),
            [b'\r', ..] => {
                self.at.1 = 0;
                Some(1)
            }
            [b'\n', ..] => {
                self.at.0 += 1;
                assert!(self.at.0 < usize::from(LINES), "the screen scrolls");
                Some(1)
            }
            [..=0x1f, ..] => Some(1),
            _ => {
                let length = (1..=bytes.len().min(4))
                    .find(|length| std::str::from_utf8(&bytes[..*length]).is_ok())?;
                let text = std::str::from_utf8(&bytes[..length]).unwrap();
                let line = &mut self.lines[self.at.0];
                if line.len() <= self.at.1 {
                    line.resize(self.at.1 + 1, ' ');
                }
                line[self.at.1] = text.chars().next().unwrap();
                self.at.1 += 1;
                assert!(self.at.1 <= usize::from(COLUMNS), "past the edge");
                Some(length)
            }
        }
    }

    fn control(&mut self, body: &str) {
        match body {
            "H" => self.at = (0, 0),
            "K" => self.lines[self.at.0].truncate(self.at.1),
            "J" => {
                self.lines[self.at.0].truncate(self.at.1);
                let below = self.at.0 + 1;
                self.lines[below..].fill(Vec::new());
            }
            "?1049h" | "?1049l" => {
                self.other = body.ends_with('h');
                self.lines.fill(Vec::new());
                self.at = (0, 0);
            }
            "?25h" | "?25l" => self.cursor = body.ends_with('h'),
            colour if colour.ends_with('m') => {}
            other => panic!("what is {other:?}?"),
        }
    }
}
