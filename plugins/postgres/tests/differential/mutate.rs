//! Changes a statement the way an attacker or a bad client would.
//!
//! A mutation knows tokens only roughly: words, numbers, quoted runs, single
//! signs. Most results are refused by the server, and the point is that the
//! plugin then does not call them harmless.

use crate::random::Random;

/// One of `corpus`, changed once to four times.
pub(crate) fn mutated(corpus: &[String], random: &mut Random) -> String {
    let mut text = corpus[random.below(corpus.len())].clone();
    for _ in 0..=random.below(2) {
        text = once(&text, corpus, random);
        if text.len() > 2000 {
            break;
        }
    }
    text
}

const BLANKS: [&str; 14] = [
    "\t",
    "\n",
    "\r",
    "\u{c}",
    "\u{b}",
    "\u{a0}",
    "\u{feff}",
    "/**/",
    "/* ; */",
    "/* /* */ */",
    "--\n",
    "-- x ; DROP TABLE t\r",
    "--\u{c}\n",
    "\n\n",
];
const WORDS: [&str; 48] = [
    "SELECT",
    "FROM",
    "INTO",
    "INSERT",
    "UPDATE",
    "DELETE",
    "MERGE",
    "FOR",
    "SHARE",
    "AS",
    "WITH",
    "RECURSIVE",
    "VALUES",
    "TABLE",
    "EXECUTE",
    "EXPLAIN",
    "ANALYZE",
    "ONLY",
    "LATERAL",
    "RETURNING",
    "DO",
    "CALL",
    "COPY",
    "TO",
    "STDOUT",
    "PROGRAM",
    "PREPARE",
    "BEGIN",
    "ATOMIC",
    "END",
    "CASE",
    "OPERATOR(x.+)",
    "UESCAPE '!'",
    "U&\"a\\0062\"",
    "pg_sleep(1)",
    "app.f()",
    "set_config",
    "(",
    ")",
    "[",
    "]",
    ",",
    ".",
    "*",
    "::",
    "$1",
    "''",
    ";",
];

fn once(text: &str, corpus: &[String], random: &mut Random) -> String {
    let tokens = pieces(text);
    let at = random.below(tokens.len());
    let joined = |tokens: Vec<&str>| tokens.concat();
    let mut list = tokens.clone();
    match random.below(20) {
        0 | 1 => {
            list.remove(at.min(list.len().saturating_sub(1)));
            joined(list)
        }
        2 => {
            list.insert(at, tokens[at]);
            joined(list)
        }
        3 => {
            let other = random.below(list.len());
            list.swap(at, other);
            joined(list)
        }
        4 => list[..at].concat(),
        5 => {
            let other = pieces(&corpus[random.below(corpus.len())]).concat();
            let other = pieces(&other);
            let from = random.below(other.len());
            format!("{}{}", list[..at].concat(), other[from..].concat())
        }
        6 => format!("{text}; {}", corpus[random.below(corpus.len())]),
        7 => format!(
            "{}{}{}",
            list[..at].concat(),
            corpus[random.below(corpus.len())],
            list[at..].concat()
        ),
        8 | 9 => format!(
            "{}{}{}",
            list[..at].concat(),
            random.pick(&BLANKS),
            list[at..].concat()
        ),
        10..=12 => format!(
            "{} {} {}",
            list[..at].concat(),
            random.pick(&WORDS),
            list[at..].concat()
        ),
        13 => {
            // Another way to write the same name, or a wrong one.
            let word = tokens[at];
            let written = match random.below(7) {
                0 => word.to_uppercase(),
                1 => word.to_lowercase(),
                2 => format!("\"{word}\""),
                3 => format!("U&\"{word}\""),
                4 => {
                    word.chars()
                        .map(|c| format!("\\{:04x}", c as u32))
                        .fold("U&\"".to_owned(), |all, c| all + &c)
                        + "\""
                }
                5 => format!("\"{}\"", word.to_lowercase()),
                _ => format!("pg_catalog.{word}"),
            };
            format!(
                "{}{written}{}",
                list[..at].concat(),
                list[at + usize::from(at < list.len())..].concat()
            )
        }
        14 => {
            // Another way to write a string, or to leave one open.
            let quote = random.pick(&[
                "'",
                "''",
                "E'\\''",
                "$$",
                "$a$",
                "\"",
                "E'",
                "U&'\\0027'",
                "'\n'",
                "N'x'",
                "B'1'",
                "X'",
                "\\",
            ]);
            format!("{}{quote}{}", list[..at].concat(), list[at..].concat())
        }
        15 => {
            let (open, close) = *[
                ("(", ")"),
                ("((", "))"),
                ("SELECT (", ")"),
                ("SELECT * FROM (", ") AS x"),
                ("EXPLAIN ", ""),
                ("EXPLAIN ANALYZE ", ""),
                ("EXPLAIN (ANALYZE off) ", ""),
                ("PREPARE q AS ", ""),
                ("DECLARE k CURSOR FOR ", ""),
                ("COPY (", ") TO STDOUT"),
                ("WITH w AS (", ") SELECT * FROM w"),
                ("WITH w AS (", ") TABLE w"),
                ("CREATE TABLE z AS ", ""),
                ("SELECT EXISTS (", ")"),
                ("SELECT ARRAY(", ")"),
                ("/* ", " */"),
                ("BEGIN; ", "; COMMIT"),
                ("$$", "$$"),
                ("E'", "'"),
                ("-- ", "\n"),
            ]
            .get(random.below(20))
            .unwrap();
            format!("{open}{text}{close}")
        }
        16 => {
            let end = random.below(list.len() - at) + at;
            format!(
                "{}({}){}",
                list[..at].concat(),
                list[at..end].concat(),
                list[end..].concat()
            )
        }
        17 => {
            let end = random.below(list.len() - at) + at;
            format!("{}{}", list[..at].concat(), list[end..].concat())
        }
        18 => format!("{}; {}", list[..at].concat(), list[at..].concat()),
        _ => {
            // One character, anywhere.
            let mut chars: Vec<char> = text.chars().collect();
            let place = random.below(chars.len());
            match random.below(3) {
                0 if !chars.is_empty() => {
                    chars.remove(place);
                }
                1 if !chars.is_empty() => chars[place] = sign(random),
                _ => chars.insert(place, sign(random)),
            }
            chars.into_iter().collect()
        }
    }
}

fn sign(random: &mut Random) -> char {
    const SIGNS: &str = "'\"$;()[],.:*/-+=<>~!@#%^&|`?\\ \t\neEuUnNxXbB01aé_{}\u{1}";
    SIGNS
        .chars()
        .nth(random.below(SIGNS.chars().count()))
        .unwrap()
}

/// Words, numbers, quoted runs, blanks and single signs; never empty.
fn pieces(text: &str) -> Vec<&str> {
    let mut all = Vec::new();
    let mut rest = text;
    while let Some(first) = rest.chars().next() {
        let length = match first {
            '\'' | '"' => rest[1..].find(first).map_or(rest.len(), |end| end + 2),
            _ if first.is_alphanumeric() || first == '_' => rest
                .find(|c: char| !(c.is_alphanumeric() || c == '_'))
                .unwrap_or(rest.len()),
            _ => first.len_utf8(),
        };
        all.push(&rest[..length]);
        rest = &rest[length..];
    }
    if all.is_empty() {
        all.push(" ");
    }
    all
}
