//! PostgreSQL's own lexical rules, written out by hand.
//!
//! This is one of two witnesses: the tree parser has a lexer of its own, and a
//! text counts only where both cut it at the same places (`agree.rs`). So this
//! file owes nothing to that crate and follows `scan.l` of PostgreSQL 16 with
//! `standard_conforming_strings` on and UTF-8; the session pins both.
//!
//! Where releases differ (vertical tab, junk after a number), and wherever the
//! server would report a lexical error, the whole text is an error here too:
//! the server lexes a message before it runs the first statement of it.

/// What a token is, as far as a classifier cares.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// Unquoted: an identifier or a keyword.
    Word,
    /// `"x"`
    QuotedName,
    /// `U&"x"`
    UnicodeName,
    /// `'x'`, with its continuations on further lines.
    Str,
    /// `E'x'`
    EscapeStr,
    /// `U&'x'`
    UnicodeStr,
    /// `N'x'`
    NationalStr,
    /// `B'1'` and `X'f'`
    BitStr,
    /// `$tag$x$tag$`
    DollarStr,
    /// Decimal digits only.
    Int,
    /// Digits, a point, digits: nothing else.
    Decimal,
    /// Every other number.
    Number,
    /// `$1`
    Param,
    /// A run of operator characters.
    Op,
    /// `::`, `:=`, `..`
    Pair,
    Semi,
    Comma,
    Dot,
    Colon,
    LParen,
    RParen,
    LBracket,
    RBracket,
}

impl Kind {
    /// A constant that the grammar takes as one string.
    pub(crate) fn is_string(self) -> bool {
        matches!(
            self,
            Self::Str
                | Self::EscapeStr
                | Self::UnicodeStr
                | Self::NationalStr
                | Self::BitStr
                | Self::DollarStr
        )
    }
}

/// One token: bytes `start` to `end` of the text.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Token {
    pub(crate) kind: Kind,
    pub(crate) start: u32,
    pub(crate) end: u32,
    /// White space or a comment stands before it.
    pub(crate) spaced: bool,
    /// A string that goes on after a line break.
    pub(crate) continued: bool,
}

impl Token {
    pub(crate) fn text<'t>(&self, text: &'t str) -> &'t str {
        text.get(self.start as usize..self.end as usize)
            .unwrap_or_default()
    }

    /// Whether this is the unquoted word `word`, given in lower case.
    pub(crate) fn is(&self, text: &str, word: &str) -> bool {
        self.kind == Kind::Word && self.text(text).eq_ignore_ascii_case(word)
    }
}

/// Why the server would refuse the text, or why this lexer will not vouch for it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum LexError {
    #[error("a comment, string or quoted name does not end")]
    Unterminated,
    #[error("a character that starts no token")]
    Stray,
    #[error("white space that PostgreSQL releases treat differently")]
    VerticalTab,
    #[error("a number or parameter runs into a name")]
    Junk,
    #[error("an empty quoted name")]
    EmptyName,
    #[error("two string literals in a row")]
    AdjacentStrings,
    #[error("an operator that is too long")]
    LongOperator,
    #[error("a run of signs that the server would read over and over")]
    LongRun,
    #[error("more words and signs than the limit")]
    TooMany,
}

/// Longest run of signs in which an operator or a comment may begin: a line of stars,
/// but not a text of them.
const MAX_RUN: usize = 1000;

/// Cuts `text` into tokens. Linear in its length.
pub(crate) fn lex(text: &str) -> Result<Vec<Token>, LexError> {
    lex_within(text, usize::MAX)
}

/// The same, of at most `most` tokens.
pub(crate) fn lex_within(text: &str, most: usize) -> Result<Vec<Token>, LexError> {
    let mut lexer = Lexer {
        bytes: text.as_bytes(),
        at: 0,
    };
    let mut tokens: Vec<Token> = Vec::with_capacity(most.min(text.len() / 4 + 4));
    loop {
        let spaced = lexer.trivia()?;
        let start = lexer.at;
        let Some(byte) = lexer.peek(0) else {
            return Ok(tokens);
        };
        if tokens.len() == most {
            return Err(LexError::TooMany);
        }
        let (kind, continued) = lexer.token(text, byte)?;
        // The grammar never puts two string constants side by side; a lexer
        // that saw two where the server sees one would be caught here.
        if matches!(kind, Kind::Str) && tokens.last().is_some_and(|last| last.kind.is_string()) {
            return Err(LexError::AdjacentStrings);
        }
        tokens.push(Token {
            kind,
            start: start as u32,
            end: lexer.at as u32,
            spaced,
            continued,
        });
    }
}

struct Lexer<'t> {
    bytes: &'t [u8],
    at: usize,
}

impl Lexer<'_> {
    fn peek(&self, ahead: usize) -> Option<u8> {
        self.bytes.get(self.at + ahead).copied()
    }

    fn skip_while(&mut self, test: impl Fn(u8) -> bool) {
        while self.peek(0).is_some_and(&test) {
            self.at += 1;
        }
    }

    /// Skips white space and comments; says whether there were any.
    fn trivia(&mut self) -> Result<bool, LexError> {
        let start = self.at;
        loop {
            match (self.peek(0), self.peek(1)) {
                (Some(b' ' | b'\t' | b'\n' | b'\r' | 0x0c), _) => self.at += 1,
                (Some(0x0b), _) => return Err(LexError::VerticalTab),
                (Some(b'-'), Some(b'-')) => self.skip_while(|b| b != b'\n' && b != b'\r'),
                (Some(b'/'), Some(b'*')) => self.block_comment()?,
                _ => return Ok(self.at > start),
            }
        }
    }

    /// Comments nest.
    fn block_comment(&mut self) -> Result<(), LexError> {
        let mut depth = 0usize;
        loop {
            match (self.peek(0), self.peek(1)) {
                (Some(b'/'), Some(b'*')) => {
                    self.bounded_run()?;
                    depth += 1;
                    self.at += 2;
                }
                (Some(b'*'), Some(b'/')) => {
                    depth -= 1;
                    self.at += 2;
                    if depth == 0 {
                        return Ok(());
                    }
                }
                (Some(_), _) => self.at += 1,
                (None, _) => return Err(LexError::Unterminated),
            }
        }
    }

    /// The server's lexer takes all the signs from here on for one operator, finds the
    /// comment in them and begins anew behind it: its time grows with the square of the
    /// run, and no cancel reaches it meanwhile.
    fn bounded_run(&self) -> Result<(), LexError> {
        let rest = self.bytes.get(self.at..).unwrap_or_default();
        let run = rest.iter().take(MAX_RUN + 1);
        match run.take_while(|byte| operator_byte(**byte)).count() {
            0..=MAX_RUN => Ok(()),
            _ => Err(LexError::LongRun),
        }
    }

    fn token(&mut self, text: &str, byte: u8) -> Result<(Kind, bool), LexError> {
        let next = self.peek(1);
        let plain = |kind| Ok((kind, false));
        match byte {
            b'\'' => self.quoted(0, Kind::Str, false),
            b'e' | b'E' if next == Some(b'\'') => self.quoted(1, Kind::EscapeStr, true),
            b'b' | b'B' | b'x' | b'X' if next == Some(b'\'') => self.quoted(1, Kind::BitStr, false),
            b'n' | b'N' if next == Some(b'\'') => self.quoted(1, Kind::NationalStr, false),
            b'u' | b'U' if next == Some(b'&') && self.peek(2) == Some(b'\'') => {
                self.quoted(2, Kind::UnicodeStr, false)
            }
            b'u' | b'U' if next == Some(b'&') && self.peek(2) == Some(b'"') => {
                self.quoted_name(2).map(|()| (Kind::UnicodeName, false))
            }
            b'"' => self.quoted_name(0).map(|()| (Kind::QuotedName, false)),
            _ if name_start(byte) => {
                self.skip_while(name_part);
                plain(Kind::Word)
            }
            b'0'..=b'9' => self.number().map(|kind| (kind, false)),
            b'.' if next.is_some_and(|b| b.is_ascii_digit()) => {
                self.number().map(|kind| (kind, false))
            }
            b'.' if next == Some(b'.') => self.take(2, Kind::Pair),
            b':' if matches!(next, Some(b':' | b'=')) => self.take(2, Kind::Pair),
            b'$' => self.dollar(text).map(|kind| (kind, false)),
            b';' => self.take(1, Kind::Semi),
            b',' => self.take(1, Kind::Comma),
            b'.' => self.take(1, Kind::Dot),
            b':' => self.take(1, Kind::Colon),
            b'(' => self.take(1, Kind::LParen),
            b')' => self.take(1, Kind::RParen),
            b'[' => self.take(1, Kind::LBracket),
            b']' => self.take(1, Kind::RBracket),
            _ if operator_byte(byte) => self
                .bounded_run()
                .and_then(|()| self.operator())
                .map(|()| (Kind::Op, false)),
            _ => Err(LexError::Stray),
        }
    }

    fn take(&mut self, bytes: usize, kind: Kind) -> Result<(Kind, bool), LexError> {
        self.at += bytes;
        Ok((kind, false))
    }

    /// A string whose quote stands `prefix` bytes ahead, with continuations.
    fn quoted(
        &mut self,
        prefix: usize,
        kind: Kind,
        backslash: bool,
    ) -> Result<(Kind, bool), LexError> {
        self.at += prefix;
        let mut continued = false;
        loop {
            self.at += 1;
            loop {
                match self.peek(0) {
                    None => return Err(LexError::Unterminated),
                    // UTF-8 keeps the next byte from being half a character
                    // that could pass for a quote.
                    Some(b'\\') if backslash => self.at += 2,
                    Some(b'\'') if self.peek(1) == Some(b'\'') => self.at += 2,
                    Some(b'\'') => break,
                    Some(_) => self.at += 1,
                }
            }
            self.at += 1;
            match self.continuation() {
                Some(quote) => {
                    continued = true;
                    self.at = quote;
                }
                None => return Ok((kind, continued)),
            }
        }
    }

    /// Where the string goes on, if blanks with a line break and then a quote
    /// follow. Line comments count as blanks, block comments do not.
    fn continuation(&self) -> Option<usize> {
        let mut at = self.at;
        let byte = |at: usize| self.bytes.get(at).copied();
        let comment = |at: usize| byte(at) == Some(b'-') && byte(at + 1) == Some(b'-');
        let line_end = |mut at: usize| {
            while byte(at).is_some_and(|b| b != b'\n' && b != b'\r') {
                at += 1;
            }
            at
        };
        loop {
            match byte(at) {
                Some(b' ' | b'\t' | 0x0c) => at += 1,
                Some(b'\n' | b'\r') => break,
                _ if comment(at) => at = line_end(at),
                _ => return None,
            }
        }
        loop {
            match byte(at) {
                Some(b' ' | b'\t' | 0x0c | b'\n' | b'\r') => at += 1,
                Some(b'\'') => return Some(at),
                _ if comment(at) => at = line_end(at),
                _ => return None,
            }
        }
    }

    fn quoted_name(&mut self, prefix: usize) -> Result<(), LexError> {
        self.at += prefix + 1;
        let start = self.at;
        loop {
            match self.peek(0) {
                None => return Err(LexError::Unterminated),
                Some(b'"') if self.peek(1) == Some(b'"') => self.at += 2,
                Some(b'"') if self.at == start => return Err(LexError::EmptyName),
                Some(b'"') => {
                    self.at += 1;
                    return Ok(());
                }
                Some(_) => self.at += 1,
            }
        }
    }

    /// Digits, each run joined by single underscores.
    fn digits(&mut self, digit: fn(&u8) -> bool) -> bool {
        let start = self.at;
        loop {
            match (self.peek(0), self.peek(1)) {
                (Some(b), _) if digit(&b) => self.at += 1,
                (Some(b'_'), Some(b)) if self.at > start && digit(&b) => self.at += 2,
                _ => return self.at > start,
            }
        }
    }

    fn number(&mut self) -> Result<Kind, LexError> {
        let start = self.at;
        let radix: Option<fn(&u8) -> bool> = match (self.peek(0), self.peek(1)) {
            (Some(b'0'), Some(b'x' | b'X')) => Some(u8::is_ascii_hexdigit),
            (Some(b'0'), Some(b'o' | b'O')) => Some(|b| (b'0'..=b'7').contains(b)),
            (Some(b'0'), Some(b'b' | b'B')) => Some(|b| matches!(b, b'0' | b'1')),
            _ => None,
        };
        if let Some(digit) = radix {
            self.at += 2;
            if self.peek(0) == Some(b'_') {
                self.at += 1;
            }
            return if self.digits(digit) {
                self.no_junk(Kind::Number)
            } else {
                Err(LexError::Junk)
            };
        }
        let mut kind = Kind::Int;
        let whole = self.digits(u8::is_ascii_digit);
        // `1..2` is a number and two dots.
        if self.peek(0) == Some(b'.') && !(whole && self.peek(1) == Some(b'.')) {
            self.at += 1;
            let fraction = self.digits(u8::is_ascii_digit);
            kind = if whole && fraction {
                Kind::Decimal
            } else {
                Kind::Number
            };
        }
        if matches!(self.peek(0), Some(b'e' | b'E')) {
            self.at += 1;
            if matches!(self.peek(0), Some(b'+' | b'-')) {
                self.at += 1;
            }
            if !self.digits(u8::is_ascii_digit) {
                return Err(LexError::Junk);
            }
            kind = Kind::Number;
        }
        if self
            .bytes
            .get(start..self.at)
            .is_some_and(|number| number.contains(&b'_'))
        {
            kind = Kind::Number;
        }
        self.no_junk(kind)
    }

    /// PostgreSQL 15 and later refuse `1x`; older releases read two tokens.
    fn no_junk(&self, kind: Kind) -> Result<Kind, LexError> {
        if self.peek(0).is_some_and(|b| name_start(b) || b == b'$') {
            Err(LexError::Junk)
        } else {
            Ok(kind)
        }
    }

    /// `$1`, or a dollar quote.
    fn dollar(&mut self, text: &str) -> Result<Kind, LexError> {
        let start = self.at;
        self.at += 1;
        if self.peek(0).is_some_and(|b| b.is_ascii_digit()) {
            self.skip_while(|b| b.is_ascii_digit());
            return self.no_junk(Kind::Param);
        }
        if self.peek(0).is_some_and(name_start) {
            self.skip_while(|b| name_part(b) && b != b'$');
        }
        if self.peek(0) != Some(b'$') {
            return Err(LexError::Stray);
        }
        self.at += 1;
        let tag = text.get(start..self.at).ok_or(LexError::Stray)?;
        let body = text.get(self.at..).ok_or(LexError::Stray)?;
        let length = body.find(tag).ok_or(LexError::Unterminated)?;
        self.at += length + tag.len();
        Ok(Kind::DollarStr)
    }

    /// The longest run of operator characters that holds no comment start and
    /// ends in `+` or `-` only where the rule for user operators lets it.
    fn operator(&mut self) -> Result<(), LexError> {
        let start = self.at;
        let mut special = false;
        while let Some(byte) = self.peek(0) {
            let comment = matches!(
                (byte, self.peek(1)),
                (b'-', Some(b'-')) | (b'/', Some(b'*'))
            );
            if !operator_byte(byte) || comment {
                break;
            }
            special |= matches!(
                byte,
                b'~' | b'!' | b'@' | b'#' | b'^' | b'&' | b'|' | b'`' | b'?' | b'%'
            );
            self.at += 1;
        }
        while !special
            && self.at - start > 1
            && matches!(self.bytes.get(self.at - 1), Some(b'+' | b'-'))
        {
            self.at -= 1;
        }
        if self.at - start > 63 {
            Err(LexError::LongOperator)
        } else {
            Ok(())
        }
    }
}

fn name_start(byte: u8) -> bool {
    byte.is_ascii_alphabetic() || byte == b'_' || byte >= 0x80
}

fn name_part(byte: u8) -> bool {
    name_start(byte) || byte.is_ascii_digit() || byte == b'$'
}

fn operator_byte(byte: u8) -> bool {
    matches!(
        byte,
        b'~' | b'!'
            | b'@'
            | b'#'
            | b'^'
            | b'&'
            | b'|'
            | b'`'
            | b'?'
            | b'+'
            | b'-'
            | b'*'
            | b'/'
            | b'%'
            | b'<'
            | b'>'
            | b'='
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tokens(text: &str) -> Vec<&str> {
        lex(text)
            .unwrap()
            .iter()
            .map(|token| token.text(text))
            .collect()
    }

    #[test]
    fn a_carriage_return_ends_a_line_comment() {
        assert_eq!(tokens("1 --x\r; DROP"), ["1", ";", "DROP"]);
        assert_eq!(tokens("1 --x\u{c}; DROP\n2"), ["1", "2"]);
    }

    #[test]
    fn comments_nest_and_may_start_inside_an_operator() {
        assert_eq!(tokens("a /* /* */ ; */ b"), ["a", "b"]);
        assert_eq!(tokens("1 */* x */ 2"), ["1", "*", "2"]);
        assert_eq!(tokens("1 +-- x\n2"), ["1", "+", "2"]);
        assert_eq!(lex("/* /* */"), Err(LexError::Unterminated));
    }

    #[test]
    fn operators_end_in_a_sign_only_when_they_hold_a_special_character() {
        assert_eq!(tokens("a*-1"), ["a", "*", "-", "1"]);
        assert_eq!(tokens("a #- b"), ["a", "#-", "b"]);
        assert_eq!(tokens("a@-1"), ["a", "@-", "1"]);
        assert_eq!(tokens("a<-1"), ["a", "<", "-", "1"]);
    }

    #[test]
    fn strings_continue_over_a_line_break_only() {
        assert_eq!(tokens("'a' --c\n ';' ;").len(), 2);
        assert_eq!(tokens("E'a'\n'\\';' ;").len(), 2);
        assert_eq!(lex("'a' 'b'"), Err(LexError::AdjacentStrings));
        assert_eq!(lex("'a' /* c\n */ 'b'"), Err(LexError::AdjacentStrings));
    }

    #[test]
    fn a_backslash_escapes_only_in_an_escape_string() {
        assert_eq!(tokens("'\\'; x"), ["'\\'", ";", "x"]);
        assert_eq!(tokens("E'\\''; x"), ["E'\\''", ";", "x"]);
        assert_eq!(lex("E'\\'; x"), Err(LexError::Unterminated));
    }

    #[test]
    fn dollar_quotes_follow_the_tag_rules() {
        assert_eq!(tokens("$a$ $b$ $a $a$;"), ["$a$ $b$ $a $a$", ";"]);
        assert_eq!(tokens("a$$ ;"), ["a$$", ";"]);
        assert_eq!(tokens("$é$;$é$ ;").len(), 2);
        assert_eq!(lex("$A$ x $a$"), Err(LexError::Unterminated));
        assert_eq!(lex("$1$$;$$"), Err(LexError::Junk));
        assert_eq!(lex("$a-b$x$a-b$"), Err(LexError::Stray));
    }

    #[test]
    fn numbers_with_junk_are_refused() {
        assert_eq!(tokens("1..2"), ["1", "..", "2"]);
        assert_eq!(
            tokens("1.5e-3 .5 0xFf 1_000"),
            ["1.5e-3", ".5", "0xFf", "1_000"]
        );
        for junk in ["1x", "1.5x", "0x", "1e", "1__0", "0b2", "1.DELETE"] {
            assert_eq!(lex(junk), Err(LexError::Junk), "{junk}");
        }
    }

    #[test]
    fn letters_beyond_ascii_belong_to_a_name() {
        assert_eq!(
            tokens("DROP\u{200b}TABLE\u{a0}x"),
            ["DROP\u{200b}TABLE\u{a0}x"]
        );
        assert_eq!(lex("a\u{b}b"), Err(LexError::VerticalTab));
    }
}
