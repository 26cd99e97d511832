//! Lossless display of bytes that an agent chose.
//!
//! What a reviewer sees decides what runs, so nothing may be invisible,
//! reordered or cut: every byte that is not plain printable text becomes a
//! visible escape, and the escaping can be undone.

use std::fmt::{self, Write as _};
use std::ops::Deref;

use bytes::Bytes;
use serde::{Deserialize, Serialize};

/// What [`escape`] makes of bytes, in their own memory where they read as they are: thousands
/// of commands may wait, each with its bytes beside it.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(from = "String", into = "String")]
pub struct Text(
    /// UTF-8.
    Bytes,
);

impl Text {
    pub fn escaped(bytes: &Bytes) -> Self {
        let text = escape(bytes);
        if text.as_bytes() == bytes {
            Self(bytes.clone())
        } else {
            text.into()
        }
    }
}

impl Deref for Text {
    type Target = str;

    fn deref(&self) -> &str {
        // Both ways in have made sure that it is UTF-8.
        std::str::from_utf8(&self.0).unwrap_or_default()
    }
}

impl From<String> for Text {
    fn from(text: String) -> Self {
        Self(text.into())
    }
}

impl From<&str> for Text {
    fn from(text: &str) -> Self {
        text.to_owned().into()
    }
}

impl From<Text> for String {
    fn from(text: Text) -> Self {
        (*text).to_owned()
    }
}

impl fmt::Debug for Text {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&**self, f)
    }
}

/// Renders `bytes` so that [`unescape`] gives them back exactly.
///
/// Printable characters stand for themselves, line feed and tab too; a
/// backslash is doubled only where it would read as one of our escapes, which
/// are `\xNN` for a byte that is not UTF-8 and `\u{N}` for a character that
/// is invisible, moves text (letters that are written from the right among them), or could be
/// taken for another kind of space.
pub fn escape(bytes: &[u8]) -> String {
    render(bytes, shows)
}

/// As [`escape`], for what stands on one line: line feeds and tabs are escaped
/// too, so that a value cannot look like the line after it.
pub fn escape_line(bytes: &[u8]) -> String {
    render(bytes, |c| !matches!(c, '\n' | '\t') && shows(c))
}

fn render(bytes: &[u8], shows: impl Fn(char) -> bool) -> String {
    // Nearly everything is this, and needs no second look.
    let plain = |byte: &u8| byte.is_ascii() && *byte != b'\\' && shows(char::from(*byte));
    if bytes.iter().all(plain) {
        return String::from_utf8_lossy(bytes).into_owned();
    }
    let mut out = String::with_capacity(bytes.len());
    for chunk in bytes.utf8_chunks() {
        let mut chars = chunk.valid().chars().peekable();
        while let Some(c) = chars.next() {
            match c {
                '\\' => {
                    // `\x`, `\u` and `\\` are ours; any other backslash is literal.
                    out.push('\\');
                    let ambiguous = match chars.peek() {
                        Some('x' | 'u' | '\\') => true,
                        None => !chunk.invalid().is_empty(),
                        Some(next) => !shows(*next),
                    };
                    if ambiguous {
                        out.push('\\');
                    }
                }
                c if shows(c) => out.push(c),
                c => {
                    let _ = write!(out, "\\u{{{:x}}}", u32::from(c));
                }
            }
        }
        for byte in chunk.invalid() {
            let _ = write!(out, "\\x{byte:02x}");
        }
    }
    out
}

/// Makes visible what could hide or move text, and leaves backslashes alone: nothing
/// changes in what [`escape`] gave. For what shows text that others have escaped.
pub fn visible(text: &str) -> String {
    reveal(text, shows)
}

/// As [`visible`], for what stands on one line: as [`escape_line`] gives it.
pub fn visible_line(text: &str) -> String {
    reveal(text, |c| !matches!(c, '\n' | '\t') && shows(c))
}

fn reveal(text: &str, shows: impl Fn(char) -> bool) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        if shows(c) {
            out.push(c);
        } else {
            let _ = write!(out, "\\u{{{:x}}}", u32::from(c));
        }
    }
    out
}

/// The inverse of [`escape`]; `None` for text that it never produces.
pub fn unescape(text: &str) -> Option<Vec<u8>> {
    let mut out = Vec::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find('\\') {
        out.extend_from_slice(&rest.as_bytes()[..at]);
        rest = &rest[at + 1..];
        if let Some(tail) = rest.strip_prefix('\\') {
            out.push(b'\\');
            rest = tail;
        } else if let Some(tail) = rest.strip_prefix('x') {
            let digits = tail.get(..2)?;
            out.push(u8::from_str_radix(digits, 16).ok()?);
            rest = &tail[2..];
        } else if let Some(tail) = rest.strip_prefix("u{") {
            let end = tail.find('}')?;
            let c = char::from_u32(u32::from_str_radix(&tail[..end], 16).ok()?)?;
            out.extend_from_slice(c.encode_utf8(&mut [0; 4]).as_bytes());
            rest = &tail[end + 1..];
        } else {
            out.push(b'\\');
        }
    }
    out.extend_from_slice(rest.as_bytes());
    Some(out)
}

/// Whether a character stands for itself.
fn shows(c: char) -> bool {
    match c {
        '\n' | '\t' => true,
        ' '..='~' => true,
        // C0, DEL, C1 controls.
        '\0'..='\u{9f}' => false,
        // Soft hyphen, combining grapheme joiner, Hangul fillers,
        // Khmer inherent vowels, Mongolian separators and selectors.
        '\u{ad}' | '\u{34f}' | '\u{115f}' | '\u{1160}' | '\u{17b4}' | '\u{17b5}' => false,
        '\u{180b}'..='\u{180f}' | '\u{3164}' | '\u{ffa0}' => false,
        // Letters and digits that are written from the right: a line with them is shown in
        // another order than it is sent in, by terminals, browsers and chats alike, and a
        // comment may seem to begin elsewhere. The ranges are those in which Unicode's
        // DerivedBidiClass.txt has R, AL or AN, unassigned characters among them.
        '\u{590}'..='\u{8ff}' | '\u{fb1d}'..='\u{fdff}' | '\u{fe70}'..='\u{feff}' => false,
        '\u{10800}'..='\u{10fff}' | '\u{1e800}'..='\u{1efff}' => false,
        // Combining marks can be stacked over what stands beside them.
        '\u{300}'..='\u{36f}' | '\u{483}'..='\u{489}' | '\u{1ab0}'..='\u{1aff}' => false,
        '\u{1dc0}'..='\u{1dff}' | '\u{20d0}'..='\u{20ff}' | '\u{fe20}'..='\u{fe2f}' => false,
        // Spaces other than the ordinary one, line and paragraph separators,
        // zero-width and bidirectional controls, invisible operators.
        '\u{a0}' | '\u{1680}' | '\u{2000}'..='\u{200f}' | '\u{2028}'..='\u{202f}' => false,
        '\u{205f}'..='\u{206f}' | '\u{2800}' | '\u{3000}' => false,
        // Variation selectors, interlinear and object marks.
        '\u{fe00}'..='\u{fe0f}' | '\u{fff0}'..='\u{ffff}' => false,
        // Musical formatting, shorthand controls, tags, further selectors, private use.
        '\u{1bca0}'..='\u{1bca3}' | '\u{1d173}'..='\u{1d17a}' => false,
        '\u{e000}'..='\u{f8ff}' | '\u{e0000}'..='\u{10ffff}' => false,
        _ => true,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn what_reads_as_it_is_shares_its_memory() {
        let plain = Bytes::from("DROP TABLE t".to_owned());
        let shown = Text::escaped(&plain);
        assert_eq!((&*shown, shown.as_ptr()), ("DROP TABLE t", plain.as_ptr()));
        let hidden = Bytes::from_static(b"DROP \xff");
        assert_eq!(&*Text::escaped(&hidden), "DROP \\xff");
        let json = serde_json::to_string(&shown).unwrap();
        assert_eq!(json, "\"DROP TABLE t\"");
        assert_eq!(serde_json::from_str::<Text>(&json).unwrap(), shown);
    }

    #[test]
    fn ordinary_sql_reads_as_it_was_written() {
        let text = "SELECT 'a\\b', \"é\"\n\tFROM t;";
        assert_eq!(escape(text.as_bytes()), text);
    }

    #[test]
    fn text_that_hides_or_moves_text_is_shown() {
        assert_eq!(
            escape("a\u{202e}b\u{200b}c\u{1b}[2J\r".as_bytes()),
            "a\\u{202e}b\\u{200b}c\\u{1b}[2J\\u{d}"
        );
        assert_eq!(escape(b"\xff\\x41"), "\\xff\\\\x41");
    }

    #[test]
    fn letters_from_the_right_do_not_turn_a_line_around() {
        let text = "/*א*/ DELETE FROM t /*א*/ -- SELECT 1";
        assert_eq!(
            escape(text.as_bytes()),
            "/*\\u{5d0}*/ DELETE FROM t /*\\u{5d0}*/ -- SELECT 1"
        );
        for c in [
            'ب',
            '\u{660}',
            '\u{64b}',
            '\u{5b0}',
            '\u{7ca}',
            '\u{fb1d}',
            '\u{10840}',
            '\u{1e900}',
            '\u{2800}',
        ] {
            assert!(!shows(c), "{c:?}");
            assert_eq!(
                unescape(&escape(c.to_string().as_bytes())),
                Some(c.to_string().into_bytes())
            );
        }
        // Other scripts are written from the left and stay as they are.
        for c in ['é', 'Ж', 'ω', 'अ', 'ไ', '漢', '한', '😀'] {
            assert!(shows(c), "{c:?}");
        }
    }

    #[test]
    fn a_value_on_one_line_cannot_begin_another() {
        assert_eq!(
            escape_line(b"a\n$2 = 'b'\t\\\n"),
            "a\\u{a}$2 = 'b'\\u{9}\\\\\\u{a}"
        );
    }

    proptest! {
        #[test]
        fn what_is_escaped_stays_as_it_is_when_it_is_shown(
            bytes in proptest::collection::vec(any::<u8>(), 0..64),
        ) {
            let (block, line) = (escape(&bytes), escape_line(&bytes));
            prop_assert_eq!(visible(&block), block);
            prop_assert_eq!(visible_line(&line), line);
        }

        #[test]
        fn escaping_can_be_undone(bytes in proptest::collection::vec(any::<u8>(), 0..64)) {
            prop_assert_eq!(unescape(&escape(&bytes)), Some(bytes.clone()));
            prop_assert_eq!(unescape(&escape_line(&bytes)), Some(bytes));
        }

        #[test]
        fn escaping_text_can_be_undone(text in "[\\\\xu{}0-9a-f\u{202e}\u{e0041}é\n ]{0,24}") {
            prop_assert_eq!(unescape(&escape(text.as_bytes())), Some(text.into_bytes()));
        }
    }
}
