//! From tokens to single statements, and from a statement to the text that is
//! judged in its place.
//!
//! The judged text of a query (`SELECT`, `INSERT`, `UPDATE`, `DELETE`,
//! `VALUES`, `WITH`, `TABLE`) has its constants blanked, its comments dropped
//! and equal items of a list left out. What is said about a query is therefore the same for every
//! constant by construction, and may be remembered under that text. All other
//! statements keep their strings, which can matter there (`SET`, `COPY`).

use std::ops::Range;

use super::lexer::{Kind, Token};

/// Deepest tree that the parser is given. It recurses by depth, and its stack
/// is small in the gateway; `tests/limits.rs` shows the margin.
pub(crate) const MAX_DEPTH: u32 = 300;

/// One statement: a range of tokens without its semicolon.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Piece {
    pub(crate) tokens: Range<usize>,
    /// An upper bound on the depth of its tree.
    pub(crate) depth: u32,
}

/// Cuts at each semicolon outside brackets and `BEGIN ATOMIC … END`.
/// Empty statements are left out, as the server does.
pub(crate) fn split(text: &str, tokens: &[Token]) -> Vec<Piece> {
    let mut pieces = Vec::new();
    let mut start = 0;
    let mut depth = Depth::default();
    let mut brackets = 0usize;
    let mut atomic = 0usize;
    for (index, token) in tokens.iter().enumerate() {
        depth.token(text, token);
        match token.kind {
            Kind::LParen | Kind::LBracket => brackets += 1,
            Kind::RParen | Kind::RBracket => brackets = brackets.saturating_sub(1),
            Kind::Word if atomic > 0 => {
                if token.is(text, "case") {
                    atomic += 1;
                } else if token.is(text, "end") {
                    atomic -= 1;
                }
            }
            Kind::Word
                if token.is(text, "atomic")
                    && index > start
                    && tokens[index - 1].is(text, "begin")
                    && makes_routine(text, &tokens[start..index]) =>
            {
                atomic = 1;
            }
            Kind::Semi if brackets == 0 && atomic == 0 => {
                if index > start {
                    pieces.push(Piece {
                        tokens: start..index,
                        depth: depth.worst,
                    });
                }
                start = index + 1;
                depth = Depth::default();
            }
            _ => {}
        }
    }
    if tokens.len() > start {
        pieces.push(Piece {
            tokens: start..tokens.len(),
            depth: depth.worst,
        });
    }
    pieces
}

fn makes_routine(text: &str, head: &[Token]) -> bool {
    let words = ["function", "procedure"];
    head.first().is_some_and(|token| token.is(text, "create"))
        && head
            .iter()
            .take(4)
            .any(|token| words.iter().any(|word| token.is(text, word)))
}

/// Bounds the depth of a tree from its tokens: each open bracket adds a few
/// levels, each operator, join or set operation since the last comma may add
/// one, since all of them chain to the left or right. Some words open a part
/// that no comma ends, above all where the parser recovers from an error.
#[derive(Default)]
struct Depth {
    worst: u32,
    now: u32,
    /// What each open bracket stands in.
    outer: Vec<Level>,
    level: Level,
}

#[derive(Default, Clone, Copy)]
struct Level {
    /// Links of the chain since the last comma.
    chain: u32,
    /// Parts that were opened and that no comma ends.
    parts: u32,
    /// `CASE` without its `END`.
    cases: u32,
}

impl Depth {
    fn token(&mut self, text: &str, token: &Token) {
        match token.kind {
            Kind::LParen | Kind::LBracket => {
                self.outer.push(std::mem::take(&mut self.level));
                self.now += 1;
            }
            Kind::RParen | Kind::RBracket => {
                if let Some(outer) = self.outer.pop() {
                    let Level {
                        chain,
                        parts,
                        cases,
                    } = self.level;
                    self.now = self.now.saturating_sub(chain + parts + cases + 1);
                    self.level = outer;
                    // What was in brackets is one operand; `a[1][2]` and
                    // `f(1)(2)` still chain.
                    self.link();
                }
            }
            Kind::Comma => {
                self.now = self.now.saturating_sub(self.level.chain);
                self.level.chain = 0;
            }
            Kind::Op | Kind::Pair | Kind::Dot | Kind::Colon => self.link(),
            Kind::Word => self.word(token.text(text)),
            _ => {}
        }
        self.worst = self.worst.max(self.now);
    }

    fn word(&mut self, word: &str) {
        let mut lower = [0; LONGEST];
        let Some(lower) = lower.get_mut(..word.len()) else {
            return;
        };
        lower.copy_from_slice(word.as_bytes());
        lower.make_ascii_lowercase();
        match &*lower {
            b"case" => {
                self.level.cases += 1;
                self.now += 1;
            }
            b"end" if self.level.cases > 0 => {
                self.level.cases -= 1;
                self.now = self.now.saturating_sub(1);
            }
            // These open a part which goes on to the end of its bracket.
            b"array" | b"atomic" | b"begin" | b"create" | b"cross" | b"except" | b"exists"
            | b"explain" | b"full" | b"inner" | b"intersect" | b"join" | b"left" | b"natural"
            | b"prepare" | b"right" | b"row" | b"with" => {
                self.level.parts += 1;
                self.now += 1;
            }
            // These nest what stands before or after them, up to a comma.
            b"and" | b"at" | b"between" | b"collate" | b"if" | b"ilike" | b"in" | b"is"
            | b"isnull" | b"like" | b"not" | b"notnull" | b"operator" | b"or" | b"overlaps"
            | b"setof" | b"similar" | b"union" | b"using" => self.link(),
            _ => {}
        }
    }

    fn link(&mut self) {
        self.level.chain += 1;
        self.now += 1;
    }
}

/// Bytes of the longest word that counts towards a depth.
const LONGEST: usize = 9;

/// Writes the judged text: tokens with one blank wherever there was any space
/// or comment, so that no comment can mean one thing here and another there.
pub(crate) fn judged(text: &str, tokens: &[Token]) -> String {
    let blank = is_query(text, tokens);
    let bodies = !blank && holds_code(text, tokens);
    let mut out = String::with_capacity(
        tokens
            .first()
            .zip(tokens.last())
            .map_or(0, |(first, last)| (last.end - first.start) as usize + 8),
    );
    let names = set_names(text, tokens);
    let mut repeats = Repeats::default();
    for (index, token) in tokens.iter().enumerate() {
        // `u&$$x$$` must not become `u&''`, which is one token.
        let joins = token.kind.is_string() && out.ends_with('&');
        if (token.spaced || joins) && !out.is_empty() {
            out.push(' ');
        }
        let start = out.len();
        let kept = index > 0 && tokens[index - 1].is(text, "uescape");
        out.push_str(match token.kind {
            Kind::Int if blank => "0",
            Kind::Decimal if blank => "0.0",
            Kind::Str | Kind::EscapeStr | Kind::DollarStr if (blank || bodies) && !kept => "''",
            // The tree parser does not know `SET NAMES`.
            Kind::Word if names == Some(index) => {
                if index + 1 == tokens.len() {
                    "client_encoding to default"
                } else {
                    "client_encoding to"
                }
            }
            _ => token.text(text),
        });
        if blank {
            repeats.token(token.kind, start, &mut out);
        }
    }
    out
}

/// Leaves out of a list what stands there already: `VALUES (0,''),(0,'')` says
/// no more than its first row, however many there are.
#[derive(Default)]
struct Repeats {
    /// Where each open bracket stands, and the last item in it.
    open: Vec<(usize, Range<usize>)>,
    /// The last item outside all brackets.
    last: Range<usize>,
}

impl Repeats {
    /// `out` now ends with a token that starts at `start`.
    fn token(&mut self, kind: Kind, start: usize, out: &mut String) {
        match kind {
            Kind::LParen => self.open.push((start, 0..0)),
            Kind::RParen => {
                if let Some((start, _)) = self.open.pop() {
                    self.item(start, out);
                }
            }
            Kind::Int | Kind::Decimal | Kind::Str | Kind::EscapeStr | Kind::DollarStr => {
                self.item(start, out);
            }
            _ => {}
        }
    }

    /// An item of a list ends here. What follows it, such as a cast, then
    /// belongs to the equal one before.
    fn item(&mut self, start: usize, out: &mut String) {
        let last = self
            .open
            .last_mut()
            .map_or(&mut self.last, |(_, last)| last);
        let equal = last.start < last.end
            && out
                .get(last.end..start)
                .is_some_and(|between| between.trim() == ",")
            && out.get(last.clone()) == out.get(start..);
        if equal {
            out.truncate(last.end);
        } else {
            *last = start..out.len();
        }
    }
}

/// Whether a statement reads or writes rows and nothing in it depends on the
/// value of a constant.
fn is_query(text: &str, tokens: &[Token]) -> bool {
    const QUERIES: [&str; 7] = [
        "select", "insert", "update", "delete", "values", "with", "table",
    ];
    let first = tokens.iter().find(|token| token.kind != Kind::LParen);
    first.is_some_and(|first| QUERIES.iter().any(|word| first.is(text, word)))
        // Its arguments name a setting, which may be the one that moves quotes.
        && !tokens.iter().any(|token| token.is(text, "set_config"))
}

/// The whole numbers of a query that may be others without making another statement of
/// it: those of up to `digits` digits whose neighbours cannot run into them, whatever the
/// digits are. `None` for a text that is none.
pub(crate) fn open_numbers(text: &str, digits: usize) -> Option<Vec<Range<usize>>> {
    let tokens = super::lexer::lex(text).ok()?;
    if !is_query(text, &tokens) {
        return Some(Vec::new());
    }
    let apart = |byte: Option<&u8>| byte.is_none_or(|byte| b" \t\r\n(),;=<>+*".contains(byte));
    let open = tokens.iter().filter_map(|token| {
        let range = token.start as usize..token.end as usize;
        let before = range.start.checked_sub(1);
        let before = before.and_then(|at| text.as_bytes().get(at));
        let stands_apart = apart(before) && apart(text.as_bytes().get(range.end));
        (token.kind == Kind::Int && range.len() <= digits && stands_apart).then_some(range)
    });
    Some(open.collect())
}

/// Whether a string holds code that the tree parser would try to parse: it
/// recurses there too, where no depth was measured.
fn holds_code(text: &str, tokens: &[Token]) -> bool {
    makes_routine(text, tokens) || tokens.first().is_some_and(|token| token.is(text, "do"))
}

/// Where `NAMES` stands in `SET [SESSION | LOCAL] NAMES …`.
fn set_names(text: &str, tokens: &[Token]) -> Option<usize> {
    let is = |index: usize, word| {
        tokens
            .get(index)
            .is_some_and(|token: &Token| token.is(text, word))
    };
    if !is(0, "set") {
        return None;
    }
    let at = if is(1, "session") || is(1, "local") {
        2
    } else {
        1
    };
    let value = tokens
        .get(at + 1)
        .is_none_or(|token| token.kind.is_string() || token.is(text, "default"));
    let assigned = is(at + 1, "to");
    (is(at, "names") && value && !assigned).then_some(at)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::classify::lexer::lex;

    fn shapes(text: &str) -> Vec<String> {
        let tokens = lex(text).unwrap();
        split(text, &tokens)
            .into_iter()
            .map(|piece| judged(text, &tokens[piece.tokens]))
            .collect()
    }

    fn depth(text: &str) -> u32 {
        split(text, &lex(text).unwrap())
            .iter()
            .map(|piece| piece.depth)
            .max()
            .unwrap_or(0)
    }

    #[test]
    fn constants_of_a_query_are_blank_and_comments_are_gone() {
        assert_eq!(
            shapes("SELECT a,'x''y', 12, 1.5, $$z$$ /* ; */ FROM t -- c\n WHERE b=E'\\'' ; "),
            ["SELECT a,'', 0, 0.0, '' FROM t WHERE b=''"]
        );
        assert_eq!(
            shapes("INSERT INTO t VALUES (1, 'a'), (2, 'b'),(f(3), 'c'), (f(4), 'd')"),
            ["INSERT INTO t VALUES (0, ''),(f(0), '')"]
        );
        assert_eq!(
            shapes("SELECT 1 IN (1, 2, 3), f(1), g(1), 1 - 1"),
            ["SELECT 0 IN (0), f(0), g(0), 0 - 0"]
        );
    }

    #[test]
    fn other_statements_keep_their_strings() {
        assert_eq!(
            shapes("SET x='1'; COPY t TO 'f'"),
            ["SET x='1'", "COPY t TO 'f'"]
        );
        assert_eq!(
            shapes("SET NAMES 'sjis'"),
            ["SET client_encoding to 'sjis'"]
        );
        assert_eq!(
            shapes("CREATE FUNCTION f() RETURNS int LANGUAGE sql AS '((('").len(),
            1
        );
        assert_eq!(shapes("DO '((('"), ["DO ''"]);
        assert_eq!(
            shapes("SELECT set_config('a','b',false)"),
            ["SELECT set_config('a','b',false)"]
        );
    }

    #[test]
    fn semicolons_in_brackets_and_atomic_bodies_do_not_separate() {
        assert_eq!(
            shapes("CREATE RULE r AS ON INSERT TO t DO ALSO (SELECT 1; SELECT 2); SELECT 3").len(),
            2
        );
        let body = "CREATE FUNCTION f() RETURNS int BEGIN ATOMIC SELECT CASE 1 WHEN 1 THEN 2 END; SELECT 2; END; DROP TABLE t";
        assert_eq!(shapes(body).len(), 2);
        assert_eq!(shapes("BEGIN; SELECT 1; END; ; ").len(), 3);
        assert_eq!(shapes("SELECT 1 AS begin, atomic; DROP TABLE t").len(), 2);
    }

    #[test]
    fn depth_grows_with_nesting_and_chains_but_not_with_lists() {
        assert_eq!(depth("SELECT 1, 2, -3, a.b, c + d"), 1);
        assert!(depth("VALUES (1,-1),(2,-2),(3,-3),(4,-4)") <= 3);
        assert!(depth(&format!("SELECT {}1{}", "(".repeat(50), ")".repeat(50))) >= 50);
        assert!(depth(&format!("SELECT 1{}", "-1".repeat(50))) >= 50);
        assert!(depth(&format!("SELECT 1{}", " UNION SELECT 1".repeat(50))) >= 50);
        assert!(depth(&format!("SELECT {} a", "NOT ".repeat(50))) >= 50);
        assert!(depth(&format!("SELECT a{}", "[1]".repeat(50))) >= 50);
    }
}
