//! The operator's settings of a target, read once for each session.
//!
//! A name that is not here or a value that makes no sense is a fault before
//! anything is read, so `holdpoint check` finds it and a session with it serves
//! nobody: a cap that was mistyped must not fall back to a wider one.

use crate::classify::{Limits, PROTECTED, Protected};

/// Reads `[target.NAME.settings]`, and what the host adds to it.
#[derive(Debug, Default)]
pub(crate) struct Options {
    pub(crate) upstream_tls: bool,
    /// Whether the target's password may cross a connection without TLS.
    pub(crate) clear_password: bool,
    pub(crate) database: Option<String>,
    pub(crate) limits: Limits,
    /// Columns whose values nobody is shown.
    pub(crate) protected: Option<Protected>,
}

const KNOWN: &str = "`database`, `upstream_clear_password`, `max_statement`, `max_statements`, \
                     `max_nesting`, `max_tokens` and `max_parsed`";

impl Options {
    /// # Errors
    /// A sentence that names the setting and says what it takes.
    pub(crate) fn read(settings: &[(String, String)]) -> Result<Self, String> {
        let mut options = Self {
            upstream_tls: true,
            ..Self::default()
        };
        let (mut patterns, mut set) = ("", "");
        for (name, value) in settings {
            match name.as_str() {
                "upstream_tls" => options.upstream_tls = switch(name, value)?,
                "upstream_clear_password" => options.clear_password = switch(name, value)?,
                "database" => {
                    options.database = Some(value.clone()).filter(|name| !name.is_empty())
                }
                PROTECTED => patterns = value,
                "protected_set" => set = value,
                _ if cap(&mut options.limits, name, value)? => {}
                _ => return Err(format!("there is no setting `{name}`: there are {KNOWN}")),
            }
        }
        options.protected = Protected::new(patterns, set);
        Ok(options)
    }
}

/// Sets one of the caps; false where `name` is none of them.
pub(crate) fn cap(limits: &mut Limits, name: &str, value: &str) -> Result<bool, String> {
    let most = &Limits::MOST;
    match name {
        "max_statement" => limits.max_text = size(name, value, 1, most.max_text)?,
        "max_statements" => limits.max_statements = count(name, value, most.max_statements)?,
        "max_nesting" => {
            let depth = count(name, value, most.max_depth as usize)?;
            limits.max_depth = u32::try_from(depth).unwrap_or(most.max_depth);
        }
        "max_tokens" => limits.max_tokens = count(name, value, most.max_tokens)?,
        "max_parsed" => limits.max_parsed = size(name, value, 1, most.max_parsed)?,
        _ => return Ok(false),
    }
    Ok(true)
}

fn switch(name: &str, value: &str) -> Result<bool, String> {
    match value {
        "on" => Ok(true),
        "off" => Ok(false),
        _ => Err(format!("`{name}` is \"on\" or \"off\", not {value:?}")),
    }
}

fn count(name: &str, value: &str, most: usize) -> Result<usize, String> {
    digits(value)
        .filter(|count| (1..=most).contains(count))
        .ok_or_else(|| format!("`{name}` is a number from \"1\" to \"{most}\", not {value:?}"))
}

fn size(name: &str, value: &str, least: usize, most: usize) -> Result<usize, String> {
    let units = [("KiB", 10), ("MiB", 20), ("GiB", 30)];
    let unit = units
        .iter()
        .find_map(|(unit, shift)| Some((value.strip_suffix(unit)?, shift)));
    let bytes = match unit {
        Some((number, shift)) => digits(number).and_then(|n| n.checked_mul(1 << shift)),
        None => digits(value),
    };
    bytes
        .filter(|bytes| (least..=most).contains(bytes))
        .ok_or_else(|| {
            format!(
                "`{name}` is a size such as \"64KiB\" or \"1MiB\", at most \"{}MiB\", not {value:?}",
                most >> 20
            )
        })
}

/// Digits and nothing else: no sign, no blank.
fn digits(text: &str) -> Option<usize> {
    let plain = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    plain.then(|| text.parse().ok()).flatten()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(settings: &[(&str, &str)]) -> Result<Options, String> {
        let owned = |(name, value): &(&str, &str)| ((*name).to_owned(), (*value).to_owned());
        Options::read(&settings.iter().map(owned).collect::<Vec<_>>())
    }

    #[test]
    fn caps_are_those_of_the_settings_and_the_defaults_otherwise() {
        let options = read(&[
            ("max_statement", "2MiB"),
            ("max_statements", "10"),
            ("max_nesting", "20"),
            ("max_tokens", "5000"),
            ("max_parsed", "4096"),
        ])
        .unwrap();
        let expected = Limits {
            max_text: 2 << 20,
            max_statements: 10,
            max_depth: 20,
            max_tokens: 5000,
            max_parsed: 4096,
        };
        assert_eq!(options.limits, expected);
        assert_eq!(read(&[]).unwrap().limits, Limits::default());
        assert!(read(&[]).unwrap().upstream_tls, "unless it is off");
    }

    #[test]
    fn what_makes_no_sense_is_said_with_its_name_and_what_it_takes() {
        for (name, value) in [
            ("max_statement", ""),
            ("max_statement", "0"),
            ("max_statement", "1 MiB"),
            ("max_statement", "1MB"),
            ("max_statement", "65MiB"),
            ("max_statement", "18446744073709551615GiB"),
            ("max_statements", "0"),
            ("max_statements", "+5"),
            ("max_statements", "-1"),
            ("max_statements", "100001"),
            ("max_nesting", "301"),
            ("max_nesting", "deep"),
            ("max_tokens", "0"),
            ("max_parsed", "17MiB"),
            ("upstream_clear_password", "yes"),
            ("max_statemnt", "1MiB"),
        ] {
            let error = read(&[(name, value)]).unwrap_err();
            assert!(
                error.contains(&format!("`{name}`")),
                "{name} {value}: {error}"
            );
        }
    }
}
