//! Reads the tokens of a query: its select list, and whether anything else in it
//! could carry a protected value.

use std::ops::Range;
use std::rc::Rc;

use super::outputs::{Outputs, Slot};
use super::{Exposure, Kind, Ranges, Token, glob, ident};

/// Functions that take a row, of the server and of extensions: `t.f` calls them where `t`
/// has no column `f`.
const ROW_FUNCTIONS: [&str; 36] = [
    "any_out",
    "any_value",
    "anycompatible_out",
    "anycompatiblenonarray_out",
    "anyelement_out",
    "anynonarray_out",
    "array_agg",
    "concat",
    "hash_record",
    "hash_record_extended",
    "hstore",
    "json_agg",
    "json_agg_strict",
    "json_build_array",
    "json_build_object",
    "jsonb_agg",
    "jsonb_agg_strict",
    "jsonb_build_array",
    "jsonb_build_object",
    "max",
    "min",
    "num_nonnulls",
    "num_nulls",
    "quote_literal",
    "quote_nullable",
    "record_out",
    "record_send",
    "row_to_json",
    "st_asflatgeobuf",
    "st_asgeobuf",
    "st_asgeojson",
    "st_asmvt",
    "to_json",
    "to_jsonb",
    "pg_column_size",
    "pg_column_compression",
];

struct Query<'a> {
    text: &'a str,
    tokens: &'a [Token],
    /// The tokens as names.
    names: Vec<Option<String>>,
    /// Patterns of protected columns.
    columns: &'a [Rc<str>],
    ranges: &'a Ranges,
    /// Aliases of protected items: used elsewhere, they are the column.
    aliases: Vec<String>,
    /// Tokens that are the permitted use itself.
    permitted: Vec<bool>,
}

/// What a query that reads protected relations shows.
pub(super) fn read(text: &str, tokens: &[Token], columns: &[Rc<str>], ranges: &Ranges) -> Exposure {
    // Escapes within names would have to be read as the server reads them.
    let escaped = tokens.iter().any(|token| token.kind == Kind::UnicodeName);
    if ranges.renamed || escaped {
        return Exposure::Used;
    }
    let mut query = Query {
        text,
        tokens,
        names: tokens.iter().map(|token| ident(text, token)).collect(),
        columns,
        ranges,
        aliases: Vec::new(),
        permitted: vec![false; tokens.len()],
    };
    let slots = match query.list() {
        Some(list) => match query.slots(list) {
            Some(slots) => slots,
            None => return Exposure::Used,
        },
        None => Vec::new(),
    };
    // The tree, which leaves out what repeats, never has more.
    if !slots.is_empty() && ranges.items > slots.len() || query.carries(&slots) {
        return Exposure::Used;
    }
    if slots.iter().all(|slot| *slot == Slot::Other) {
        return Exposure::None;
    }
    Outputs::new(slots, columns)
        .map_or(Exposure::Used, |outputs| Exposure::Fields(Rc::new(outputs)))
}

impl Query<'_> {
    fn is(&self, at: usize, word: &str) -> bool {
        self.tokens
            .get(at)
            .is_some_and(|token| token.is(self.text, word))
    }

    fn one_of(&self, at: usize, words: &[&str]) -> bool {
        words.iter().any(|word| self.is(at, word))
    }

    fn kind(&self, at: usize) -> Option<Kind> {
        self.tokens.get(at).map(|token| token.kind)
    }

    fn before(&self, at: usize) -> Option<usize> {
        at.checked_sub(1)
    }

    /// A name that could as well be a keyword: behind a dot or `AS` each word is one.
    fn is_label(&self, at: usize) -> bool {
        self.before(at).is_some_and(|before| {
            self.kind(before) == Some(Kind::Dot)
                || (self.is(before, "as") && !self.is_label(before))
        })
    }

    fn has_word(&self, words: &[&str]) -> bool {
        (0..self.tokens.len()).any(|at| self.one_of(at, words))
    }

    fn is_star(&self, at: usize) -> bool {
        self.kind(at) == Some(Kind::Op)
            && self
                .tokens
                .get(at)
                .is_some_and(|token| token.text(self.text).starts_with('*'))
    }

    fn name(&self, at: usize) -> Option<&str> {
        self.names.get(at).and_then(Option::as_deref)
    }

    fn protects(&self, name: &str) -> bool {
        self.columns.iter().any(|column| glob(column, name))
    }

    /// The select list of a plain `SELECT`. `None` for any other query, which may show
    /// nothing that is protected.
    fn list(&self) -> Option<Range<usize>> {
        const SETS: [&str; 3] = ["union", "intersect", "except"];
        if !self.is(0, "select") || self.is(1, "distinct") || self.has_word(&SETS) {
            return None;
        }
        let start = if self.is(1, "all") { 2 } else { 1 };
        let mut depth = 0usize;
        for at in start..self.tokens.len() {
            match self.kind(at)? {
                Kind::LParen | Kind::LBracket => depth += 1,
                Kind::RParen | Kind::RBracket => depth = depth.checked_sub(1)?,
                // `a IS DISTINCT FROM b` is no end of the list.
                Kind::Word if depth == 0 && self.is(at, "from") && !self.is_label(at) => {
                    return (!self.is(at - 1, "distinct")).then_some(start..at);
                }
                _ => {}
            }
        }
        None
    }

    /// One slot for each item; `None` where an item cannot be placed.
    fn slots(&mut self, list: Range<usize>) -> Option<Vec<Slot>> {
        let mut slots = Vec::new();
        let mut start = list.start;
        let mut depth = 0usize;
        for at in list.clone() {
            match self.kind(at)? {
                Kind::LParen | Kind::LBracket => depth += 1,
                Kind::RParen | Kind::RBracket => depth = depth.checked_sub(1)?,
                Kind::Comma if depth == 0 => {
                    slots.push(self.slot(start..at)?);
                    start = at + 1;
                }
                _ => {}
            }
        }
        // `SELECT FROM t` has no items.
        if !list.is_empty() {
            slots.push(self.slot(start..list.end)?);
        }
        Some(slots)
    }

    fn slot(&mut self, item: Range<usize>) -> Option<Slot> {
        let single = |at: usize| {
            self.is_star(at)
                && self
                    .tokens
                    .get(at)
                    .is_some_and(|token| token.text(self.text).len() == 1)
        };
        if item.is_empty() {
            return None;
        }
        let mut at = item.start;
        let mut parts = 0;
        loop {
            if at < item.end && single(at) && at + 1 == item.end {
                self.permit(item);
                return Some(Slot::Star);
            }
            if at >= item.end || self.name(at).is_none() {
                return Some(Slot::Other);
            }
            parts += 1;
            at += 1;
            if at >= item.end || self.kind(at) != Some(Kind::Dot) {
                break;
            }
            at += 1;
        }
        let column = at - 1;
        let alias = match (item.end - at, self.is(at, "as")) {
            (0, _) => None,
            (1, false) => Some(at),
            (2, true) => Some(at + 1),
            _ => return Some(Slot::Other),
        };
        if alias.is_some_and(|alias| self.name(alias).is_none()) {
            return Some(Slot::Other);
        }
        let name = self.name(column)?.to_owned();
        if !self.protects(&name) {
            return Some(if parts > 1 { Slot::Column } else { Slot::Other });
        }
        if let Some(alias) = alias {
            let alias = self.name(alias)?.to_owned();
            self.aliases.push(alias);
        }
        // Without AS the second word may be an operand: it is looked at like any other.
        let behind = alias.is_some() && !self.is(at, "as");
        self.permit(item.start..if behind { item.end - 1 } else { item.end });
        if behind {
            let alias = self.aliases.pop()?;
            if self.protects(&alias) {
                return None;
            }
            self.permit(at..item.end);
            self.aliases.push(alias);
        }
        Some(Slot::Masked)
    }

    fn permit(&mut self, range: Range<usize>) {
        if let Some(permitted) = self.permitted.get_mut(range) {
            permitted.fill(true);
        }
    }

    /// Whether anything but the permitted items could carry a protected value.
    fn carries(&self, slots: &[Slot]) -> bool {
        let shows = slots
            .iter()
            .any(|slot| matches!(slot, Slot::Masked | Slot::Star));
        // `TABLE t` and NATURAL use columns without naming them.
        self.has_word(&["table", "natural"])
            || (0..self.tokens.len()).any(|at| {
                self.permitted.get(at) != Some(&true)
                    && (self.names_protected(at) || self.spreads(at))
            })
            || (0..self.tokens.len()).any(|at| self.calls_with_row(at))
            || self.has_whole_row()
            || (shows && self.sorts_by_place())
    }

    fn names_protected(&self, at: usize) -> bool {
        self.name(at).is_some_and(|name| {
            self.protects(name) || self.aliases.iter().any(|alias| alias == name)
        })
    }

    /// A `*` that stands for columns, and not for a product or in `count(*)`.
    fn spreads(&self, at: usize) -> bool {
        if !self.is_star(at) {
            return false;
        }
        let Some(before) = self.before(at) else {
            return true;
        };
        match self.kind(before) {
            Some(Kind::LParen) => self.kind(at + 1) != Some(Kind::RParen),
            Some(Kind::Word) => self.one_of(
                before,
                &["select", "all", "distinct", "returning", "by", "on"],
            ),
            // `DISTINCT ON (a) *`
            Some(Kind::RParen) => self.has_word(&["distinct"]),
            Some(
                Kind::QuotedName
                | Kind::Int
                | Kind::Decimal
                | Kind::Number
                | Kind::Param
                | Kind::RBracket,
            ) => false,
            Some(kind) if kind.is_string() => false,
            _ => true,
        }
    }

    /// `t.f`, where `f` is a function of the server that takes a row.
    fn calls_with_row(&self, at: usize) -> bool {
        let Some(name) = self.name(at) else {
            return false;
        };
        let behind_range = at
            .checked_sub(2)
            .filter(|_| self.kind(at - 1) == Some(Kind::Dot))
            .and_then(|range| self.name(range))
            .is_some_and(|range| self.ranges.names.iter().any(|known| known == range));
        behind_range && (ROW_FUNCTIONS.contains(&name) || name.ends_with("multirange"))
    }

    /// A relation's name that stands alone more often than it is brought in is
    /// a whole row somewhere.
    fn has_whole_row(&self) -> bool {
        let brought = |name: &str| self.ranges.names.iter().filter(|n| *n == name).count();
        self.ranges.names.iter().any(|name| {
            let alone = (0..self.tokens.len())
                .filter(|at| self.name(*at) == Some(name) && self.kind(at + 1) != Some(Kind::Dot));
            alone.count() > brought(name)
        })
    }

    /// Whether nothing but signs and brackets stand between what is sorted by and its begin:
    /// to the server `- -2` is a 2.
    fn begins(&self, at: usize) -> bool {
        let signs = |token: &Token| {
            let mut text = token.text(self.text).bytes();
            token.kind == Kind::LParen
                || token.kind == Kind::Op && text.all(|sign| matches!(sign, b'-' | b'+'))
        };
        let before = self.tokens.get(..at).unwrap_or_default();
        let Some(before) = before.iter().rposition(|token| !signs(token)) else {
            return true;
        };
        before + 1 < at && self.kind(before + 1) == Some(Kind::LParen)
            || self.kind(before) == Some(Kind::Comma)
            || self.one_of(before, &["by", "all", "distinct"])
    }

    /// `ORDER BY 1`: the number is an item of the select list.
    fn sorts_by_place(&self) -> bool {
        const ENDS: [&str; 8] = [
            "limit", "offset", "fetch", "having", "window", "for", "where", "from",
        ];
        let mut depth = 0usize;
        let mut sorts = false;
        for at in 0..self.tokens.len() {
            match self.kind(at) {
                Some(Kind::LParen | Kind::LBracket) => depth += 1,
                Some(Kind::RParen | Kind::RBracket) => depth = depth.saturating_sub(1),
                Some(Kind::Word) if depth == 0 && self.is(at, "by") => sorts = true,
                // `a IS DISTINCT FROM b` is still what is sorted by.
                Some(Kind::Word)
                    if depth == 0
                        && self.one_of(at, &ENDS)
                        && !self.is_label(at)
                        && !self
                            .before(at)
                            .is_some_and(|before| self.is(before, "distinct")) =>
                {
                    sorts = false;
                }
                // Also `0x1`, which newer servers read.
                Some(Kind::Int | Kind::Decimal | Kind::Number) if sorts && self.begins(at) => {
                    return true;
                }
                _ => {}
            }
        }
        false
    }
}
