//! Writes HTML: markup of ours, and text of others that stays text.
//!
//! Markup is `&'static str`, so nothing that anybody sent can become markup. Text is made
//! visible as `core::display` does it and then escaped, in elements and in quoted
//! attributes alike; what was escaped for display before comes out unchanged.

use std::fmt::Display;

use holdpoint_core::display::{visible, visible_line};

use super::sql::{Look, pieces};

#[derive(Debug, Default)]
pub(super) struct Html(String);

impl Html {
    pub(super) fn raw(&mut self, markup: &'static str) -> &mut Self {
        self.0.push_str(markup);
        self
    }

    /// What stands on one line, or in a quoted attribute.
    pub(super) fn text(&mut self, text: &str) -> &mut Self {
        self.escaped(&visible_line(text))
    }

    /// What may have lines of its own; for `pre` and `textarea`.
    pub(super) fn block(&mut self, text: &str) -> &mut Self {
        // A parser drops the first line feed of both; this one is dropped in its place.
        self.0.push('\n');
        self.escaped(&visible(text))
    }

    /// As [`Html::block`], coloured as a statement.
    pub(super) fn statement(&mut self, text: &str) -> &mut Self {
        self.0.push('\n');
        for (look, piece) in pieces(text) {
            let open = match look {
                Look::Plain => {
                    self.escaped(&visible(piece));
                    continue;
                }
                Look::Keyword => "<span class=\"k\">",
                Look::Danger => "<span class=\"x\">",
                Look::Text => "<span class=\"s\">",
                Look::Number => "<span class=\"n\">",
                Look::Comment => "<span class=\"c\">",
                Look::Escape => "<span class=\"e\">",
            };
            self.raw(open).escaped(&visible(piece)).raw("</span>");
        }
        self
    }

    /// `3 lines`, `1 line`; for what takes an `s`.
    pub(super) fn count(&mut self, number: usize, what: &'static str) -> &mut Self {
        self.show(number).raw(" ").raw(what);
        if number == 1 { self } else { self.raw("s") }
    }

    pub(super) fn show(&mut self, value: impl Display) -> &mut Self {
        self.text(&value.to_string())
    }

    pub(super) fn join(&mut self, other: &Self) -> &mut Self {
        self.0.push_str(&other.0);
        self
    }

    /// `text` in an element, which is given by its tags.
    pub(super) fn within(
        &mut self,
        open: &'static str,
        text: &str,
        close: &'static str,
    ) -> &mut Self {
        self.raw(open).text(text).raw(close)
    }

    pub(super) fn into_string(self) -> String {
        self.0
    }

    fn escaped(&mut self, text: &str) -> &mut Self {
        for c in text.chars() {
            match c {
                '&' => self.0.push_str("&amp;"),
                '<' => self.0.push_str("&lt;"),
                '>' => self.0.push_str("&gt;"),
                '"' => self.0.push_str("&quot;"),
                '\'' => self.0.push_str("&#39;"),
                c => self.0.push(c),
            }
        }
        self
    }
}

#[cfg(test)]
mod tests {
    use holdpoint_core::display::{escape, unescape};
    use proptest::prelude::*;

    use super::*;

    fn block(text: &str) -> String {
        let mut html = Html::default();
        html.block(text);
        html.into_string()
    }

    fn line(text: &str) -> String {
        let mut html = Html::default();
        html.text(text);
        html.into_string()
    }

    /// What a browser makes of it.
    fn read(html: &str) -> String {
        html.replace("&lt;", "<")
            .replace("&gt;", ">")
            .replace("&quot;", "\"")
            .replace("&#39;", "'")
            .replace("&amp;", "&")
    }

    #[test]
    fn markup_in_text_is_text() {
        assert_eq!(
            line("<script>\"a\"&'b'</script>"),
            "&lt;script&gt;&quot;a&quot;&amp;&#39;b&#39;&lt;/script&gt;"
        );
    }

    #[test]
    fn what_hides_moves_or_colours_text_is_seen() {
        assert_eq!(
            line("a\u{202e}b\u{200b}c\u{1b}[31md\re"),
            "a\\u{202e}b\\u{200b}c\\u{1b}[31md\\u{d}e"
        );
        assert_eq!(line("a\nb\tc"), "a\\u{a}b\\u{9}c");
    }

    #[test]
    fn what_was_escaped_is_not_escaped_again() {
        let shown = escape("DROP \u{202e}\\x41\0".as_bytes());
        assert_eq!(line(&shown), shown);
    }

    #[test]
    fn a_first_line_feed_is_not_lost() {
        assert_eq!(block("\nDROP"), "\n\nDROP");
    }

    proptest! {
        #[test]
        fn a_page_shows_every_byte_of_a_command(bytes in proptest::collection::vec(any::<u8>(), 0..64)) {
            let html = block(&escape(&bytes));
            let inner = html.strip_prefix('\n').unwrap();
            prop_assert!(!inner.contains(['<', '>', '"', '\'', '\r', '\0']));
            prop_assert_eq!(unescape(&read(inner)), Some(bytes.clone()));

            let mut html = Html::default();
            html.statement(&escape(&bytes));
            let html = html.into_string();
            let mut bare = String::new();
            for part in html.split("<span class=\"") {
                let part = part.split_once("\">").map_or(part, |(_, text)| text);
                bare.push_str(&part.replace("</span>", ""));
            }
            prop_assert_eq!(unescape(&read(&bare[1..])), Some(bytes));
        }
    }
}
