//! One mistake in a file, and how it is shown.

use std::fmt;
use std::ops::Range;

use super::{Source, suggest};

/// What is wrong, where, and how to mend it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    file: String,
    /// From 1; 0 where no place could be found.
    line: usize,
    /// In characters, from 1.
    column: usize,
    path: String,
    message: String,
    /// The line, secrets elided.
    shown: String,
    /// Characters before the caret in `shown`, and carets.
    caret: (usize, usize),
    help: Option<String>,
}

impl Problem {
    pub(super) fn new(
        source: &Source<'_>,
        span: Range<usize>,
        path: String,
        message: String,
    ) -> Self {
        Self::hiding(source, span, path, message, &source.secrets())
    }

    fn hiding(
        source: &Source<'_>,
        span: Range<usize>,
        path: String,
        message: String,
        hidden: &[Range<usize>],
    ) -> Self {
        let text = source.text;
        let start = floor(text, span.start);
        let line_start = text[..start].rfind('\n').map_or(0, |at| at + 1);
        let line_end = text[start..].find('\n').map_or(text.len(), |at| start + at);
        let line_end = if text[line_start..line_end].ends_with('\r') {
            line_end - 1
        } else {
            line_end
        };
        let end = floor(text, span.end).clamp(start, line_end.max(start));

        let mut shown = String::new();
        let (mut before, mut carets) = (0, 0);
        let mut elided = false;
        for (n, c) in text[line_start..line_end].char_indices() {
            let at = line_start + n;
            let hide = hidden.iter().any(|range| range.contains(&at));
            if hide && elided {
                continue;
            }
            elided = hide;
            if at < start {
                before += 1;
            } else if at < end {
                carets += 1;
            }
            shown.push(match c {
                _ if hide => '…',
                c if c.is_control() => ' ',
                c => c,
            });
        }
        Self {
            file: source.name.clone(),
            line: text[..start].matches('\n').count() + 1,
            column: text[line_start..start].chars().count() + 1,
            path,
            message,
            shown,
            caret: (before, carets.max(1)),
            help: None,
        }
    }

    /// How to mend it.
    #[must_use]
    pub fn help(mut self, text: impl Into<String>) -> Self {
        self.help = Some(text.into());
        self
    }

    /// Adds `did you mean …?`, or the choices where there are few.
    #[must_use]
    pub fn choices<'c>(self, word: &str, choices: impl IntoIterator<Item = &'c str>) -> Self {
        match suggest::help(word, choices) {
            Some(help) => self.help(help),
            None => self,
        }
    }

    pub fn message(&self) -> &str {
        &self.message
    }

    /// The dotted path of what is wrong.
    pub fn path(&self) -> &str {
        &self.path
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let number = self.line.to_string();
        let gutter = " ".repeat(number.len());
        writeln!(f, "error: {}", self.message)?;
        write!(f, "{gutter}--> {}:{}:{}", self.file, self.line, self.column)?;
        if !self.path.is_empty() {
            write!(f, " (`{}`)", self.path)?;
        }
        writeln!(f)?;
        writeln!(f, "{gutter} |")?;
        writeln!(f, "{number} | {}", self.shown.trim_end())?;
        let (before, carets) = self.caret;
        write!(f, "{gutter} | {}{}", " ".repeat(before), "^".repeat(carets))?;
        if let Some(help) = &self.help {
            write!(f, "\n{gutter} = help: {help}")?;
        }
        Ok(())
    }
}

/// Every mistake found in some files; at least one.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Problems(Vec<Problem>);

impl Problems {
    pub fn push(&mut self, problem: Problem) {
        self.0.push(problem);
    }

    pub fn extend(&mut self, other: Problems) {
        self.0.extend(other.0);
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub fn iter(&self) -> std::slice::Iter<'_, Problem> {
        self.0.iter()
    }

    /// `value`, unless there is a problem.
    pub fn or<T>(self, value: T) -> Result<T, Problems> {
        if self.is_empty() {
            Ok(value)
        } else {
            Err(self)
        }
    }
}

impl From<Problem> for Problems {
    fn from(problem: Problem) -> Self {
        Self(vec![problem])
    }
}

impl fmt::Display for Problems {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (n, problem) in self.0.iter().enumerate() {
            if n > 0 {
                f.write_str("\n\n")?;
            }
            problem.fmt(f)?;
        }
        Ok(())
    }
}

impl std::error::Error for Problems {}

fn floor(text: &str, mut at: usize) -> usize {
    at = at.min(text.len());
    while !text.is_char_boundary(at) {
        at -= 1;
    }
    at
}

/// The text is no TOML. A line that speaks of a secret is not shown past its key:
/// what could not be parsed cannot be elided exactly.
pub(super) fn of_syntax(source: &Source<'_>, error: &toml::de::Error) -> Problem {
    let span = error.span().unwrap_or(0..0);
    let start = floor(source.text, span.start);
    let line_start = source.text[..start].rfind('\n').map_or(0, |at| at + 1);
    let line_end = source.text[start..]
        .find('\n')
        .map_or(source.text.len(), |at| start + at);
    let line = &source.text[line_start..line_end];
    let lower = line.to_ascii_lowercase();
    let mut hidden = source.secrets();
    if super::SECRET_KEYS.iter().any(|key| lower.contains(key)) {
        let from = line.find('=').map_or(line_start, |at| line_start + at + 1);
        hidden.push(from..line_end);
    }
    Problem::hiding(
        source,
        span,
        String::new(),
        format!("this is not TOML: {}", error.message()),
        &hidden,
    )
}

/// Turns serde's words into ours.
pub(super) fn of_serde(source: &Source<'_>, error: &toml::de::Error) -> Problem {
    let span = error.span().unwrap_or(0..0);
    let at = source.path_at(span.start);
    let message = error.message();
    let words = suggest::quoted(message);
    let first = words.first().copied().unwrap_or_default();
    if message.starts_with("unknown field") {
        // The value may be a secret under a mistyped key.
        let mut hidden = source.secrets();
        let value = source.value_span(&at);
        if !source.text[floor(source.text, value.start)..].starts_with('[') {
            hidden.push(value);
        }
        return Problem::hiding(
            source,
            span,
            at.to_string(),
            format!("unknown key `{first}`"),
            &hidden,
        )
        .choices(first, words.into_iter().skip(1));
    }
    if message.starts_with("unknown variant") {
        return Problem::new(
            source,
            span,
            at.to_string(),
            format!("unknown word `{first}`"),
        )
        .choices(first, words.into_iter().skip(1));
    }
    if message.starts_with("missing field") {
        let path = at.key(first).to_string();
        return Problem::new(source, span, path, format!("missing key `{first}`"));
    }
    let text = match message
        .strip_prefix("invalid type: ")
        .and_then(|m| m.split_once(", expected "))
    {
        // A type's name says nothing to who writes a file.
        Some((found, expected)) if expected.starts_with("struct ") => {
            format!("expected a table, found {found}")
        }
        Some((found, expected)) => format!("expected {expected}, found {found}"),
        None => message.to_owned(),
    };
    Problem::new(source, span, at.to_string(), text)
}
