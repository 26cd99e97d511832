//! What somebody presses.

use std::io::Read as _;

use tokio::sync::mpsc::{Receiver, channel};

/// Read and not yet looked at.
const AHEAD: usize = 16;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Key {
    Up,
    Down,
    PageUp,
    PageDown,
    Home,
    End,
    Enter,
    Escape,
    Tab,
    Erase,
    /// The whole line.
    EraseAll,
    /// The end of input: the terminal is gone.
    Gone,
    Char(char),
}

/// Keys as they come; `None` where nobody can press any.
pub(super) struct Keys(Option<Receiver<Vec<u8>>>);

impl Keys {
    pub(super) fn none() -> Self {
        Self(None)
    }

    /// Reads standard input from now on, on a thread that ends with the process: a read
    /// cannot be called off.
    pub(super) fn read() -> Self {
        let (sender, keys) = channel(AHEAD);
        std::thread::spawn(move || {
            let mut buffer = [0; 256];
            loop {
                let count = std::io::stdin().lock().read(&mut buffer).unwrap_or(0);
                let bytes = buffer.get(..count).unwrap_or_default().to_vec();
                if sender.blocking_send(bytes).is_err() || count == 0 {
                    return;
                }
            }
        });
        Self(Some(keys))
    }

    /// The next ones. Never resolves where there are none.
    pub(super) async fn next(&mut self) -> Vec<Key> {
        match &mut self.0 {
            None => std::future::pending().await,
            Some(keys) => match keys.recv().await {
                Some(bytes) if !bytes.is_empty() => decode(&bytes),
                _ => vec![Key::Gone],
            },
        }
    }
}

/// A terminal sends a key's bytes at once, so that an escape at the end is that key.
fn decode(bytes: &[u8]) -> Vec<Key> {
    let mut keys = Vec::new();
    let mut rest = bytes;
    while let Some((first, after)) = rest.split_first() {
        rest = after;
        keys.push(match *first {
            0x1b => {
                let (key, after) = escaped(rest);
                rest = after;
                match key {
                    Some(key) => key,
                    None => continue,
                }
            }
            b'\r' | b'\n' => Key::Enter,
            b'\t' => Key::Tab,
            0x7f | 0x08 => Key::Erase,
            0x15 => Key::EraseAll,
            0x04 => Key::Gone,
            ..0x20 => continue,
            _ => {
                let (key, after) = letter(*first, rest);
                rest = after;
                match key {
                    Some(key) => Key::Char(key),
                    None => continue,
                }
            }
        });
    }
    keys
}

/// After an escape: `None` is a key that means nothing here.
fn escaped(rest: &[u8]) -> (Option<Key>, &[u8]) {
    let Some((b'[' | b'O', after)) = rest.split_first() else {
        return (Some(Key::Escape), rest);
    };
    let end = after.iter().position(|byte| (0x40..=0x7e).contains(byte));
    let Some(end) = end else {
        return (None, &[]);
    };
    let (body, after) = after.split_at(end + 1);
    let key = match body {
        b"A" => Some(Key::Up),
        b"B" => Some(Key::Down),
        b"H" | b"1~" => Some(Key::Home),
        b"F" | b"4~" => Some(Key::End),
        b"5~" => Some(Key::PageUp),
        b"6~" => Some(Key::PageDown),
        _ => None,
    };
    (key, after)
}

/// A letter of one byte or several; what is no text is dropped.
fn letter(first: u8, rest: &[u8]) -> (Option<char>, &[u8]) {
    let more = match first {
        ..0x80 => 0,
        0xc0..0xe0 => 1,
        0xe0..0xf0 => 2,
        0xf0.. => 3,
        _ => return (None, rest),
    };
    let (tail, after) = rest.split_at(more.min(rest.len()));
    let bytes = [&[first], tail].concat();
    let text = std::str::from_utf8(&bytes).ok();
    (text.and_then(|text| text.chars().next()), after)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_told_apart_however_many_come_at_once() {
        let pressed = decode("j\x1b[A\x1bOBaé\x1b[6~\r\x7f\t\x1b".as_bytes());
        assert_eq!(
            pressed,
            [
                Key::Char('j'),
                Key::Up,
                Key::Down,
                Key::Char('a'),
                Key::Char('é'),
                Key::PageDown,
                Key::Enter,
                Key::Erase,
                Key::Tab,
                Key::Escape,
            ]
        );
    }

    #[test]
    fn what_is_no_key_is_no_letter_either() {
        assert_eq!(decode(b"\x1b[200;5u\x80\xc3\x01"), []);
        assert_eq!(decode(b"\x1b[15"), []);
    }
}
