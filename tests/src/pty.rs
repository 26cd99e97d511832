//! A terminal with somebody in front of it.
//!
//! `script` makes it, which every Debian and most others have. A shell in it notes how the
//! terminal was before the program and how it is after.

use std::fs;
use std::io::{Read as _, Write as _};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::thread::sleep;
use std::time::Duration;

use crate::TestDir;
use crate::needs::program;

const COLUMNS: usize = 100;
const LINES: usize = 30;

/// In `$1` are the notes, in `$2` the columns and in `$3` the lines; then the program.
const SHELL: &str = r#"
    trap : INT
    notes=$1; stty cols "$2" rows "$3"; shift 3
    stty -a >"$notes/before"
    sh -c 'echo $$ >"$0/pid"; exec "$@"' "$notes" "$@"
    echo $? >"$notes/code"
    stty -a >"$notes/after.part"; mv "$notes/after.part" "$notes/after"
"#;

/// A program on a terminal of its own.
pub struct Pty {
    child: Child,
    keys: ChildStdin,
    screen: Arc<Mutex<Screen>>,
    notes: TestDir,
}

impl Pty {
    /// `None` where there is no `script`.
    pub fn start(command: &Command) -> Option<Self> {
        let script = program("script")?;
        let notes = TestDir::new("pty");
        let quoted = |text: &str| format!("'{}'", text.replace('\'', r"'\''"));
        let mut words = vec![
            "sh".to_owned(),
            "-c".to_owned(),
            quoted(SHELL),
            "sh".to_owned(),
        ];
        words.push(quoted(&notes.path().display().to_string()));
        words.extend([COLUMNS, LINES].map(|size| size.to_string()));
        words.push(quoted(&command.get_program().to_string_lossy()));
        words.extend(
            command
                .get_args()
                .map(|word| quoted(&word.to_string_lossy())),
        );
        let mut shell = Command::new(script);
        shell.args([
            "--quiet",
            "--return",
            "--command",
            &words.join(" "),
            "/dev/null",
        ]);
        shell.env_clear().env("SHELL", "/bin/sh");
        for (name, value) in command.get_envs() {
            if let Some(value) = value {
                shell.env(name, value);
            }
        }
        if let Some(dir) = command.get_current_dir() {
            shell.current_dir(dir);
        }
        let mut child = shell
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let screen = Arc::new(Mutex::new(Screen::default()));
        let (mut output, seen) = (child.stdout.take().unwrap(), Arc::clone(&screen));
        std::thread::spawn(move || {
            let mut buffer = [0; 4096];
            while let Ok(count @ 1..) = output.read(&mut buffer) {
                seen.lock().unwrap().take(&buffer[..count]);
            }
        });
        Some(Self {
            keys: child.stdin.take().unwrap(),
            child,
            screen,
            notes,
        })
    }

    pub fn press(&mut self, keys: &str) {
        self.keys.write_all(keys.as_bytes()).unwrap();
        self.keys.flush().unwrap();
    }

    /// Sends the program a signal.
    pub fn signal(&self, name: &str) {
        let pid = self.note("pid");
        let sent = Command::new("kill").args(["-s", name, &pid]).status();
        assert!(sent.unwrap().success());
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
            sleep(Duration::from_millis(20));
        }
        panic!("no {text:?} on the screen:\n{}", self.screen());
    }

    /// Waits for the program, which leaves the terminal as it was. Gives its exit code.
    #[track_caller]
    pub fn left_as_it_was(&mut self) -> i32 {
        let after = self.note("after");
        assert_eq!(after, self.note("before"));
        let ended = (0..500).any(|_| {
            sleep(Duration::from_millis(10));
            self.child.try_wait().unwrap().is_some()
        });
        assert!(ended, "`script` goes on");
        let restored = (0..100).any(|_| {
            sleep(Duration::from_millis(10));
            let screen = self.screen.lock().unwrap();
            !screen.other && screen.cursor
        });
        assert!(restored, "another screen, or no cursor: {:?}", self.sent());
        self.note("code").parse().unwrap()
    }

    /// What the shell noted, once it has.
    #[track_caller]
    fn note(&self, name: &str) -> String {
        for _ in 0..1_000 {
            let text = fs::read_to_string(self.notes.join(name)).unwrap_or_default();
            if text.ends_with('\n') {
                return text.trim().to_owned();
            }
            sleep(Duration::from_millis(20));
        }
        panic!("no `{name}` within 20 s:\n{}", self.screen());
    }
}

impl Drop for Pty {
    fn drop(&mut self) {
        // The terminal goes with it, and with that what runs there.
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
            lines: vec![Vec::new(); LINES],
            at: (0, 0),
            other: false,
            cursor: true,
        }
    }
}

impl Screen {
    fn text(&self) -> String {
        let lines = self
            .lines
            .iter()
            .map(|line| line.iter().collect::<String>());
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
                assert!(self.at.0 < LINES, "the screen scrolls");
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
                assert!(self.at.1 <= COLUMNS, "past the edge");
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
