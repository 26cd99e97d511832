//! What a line does, and whether that is proven.
//!
//! The rule of every plugin: say `proven` only where the target cannot
//! understand the same bytes otherwise. Here the target knows two verbs with one
//! name each; whatever differs from that in the slightest is `unknown`.

use holdpoint_plugin::{Command, Confidence, Object, Operation};

/// The command of one line, without its line end.
pub(crate) fn command(line: &[u8]) -> Command {
    Command {
        operations: vec![operation(line)],
        // A reviewer reads the client's own bytes, never a summary.
        text: line.to_vec(),
        parameters: Vec::new(),
        secrets: Vec::new(),
        context: Vec::new(),
        in_transaction: false,
        canonical: None,
        reject: None,
    }
}

fn operation(line: &[u8]) -> Operation {
    let words: Option<Vec<&str>> = std::str::from_utf8(line)
        .ok()
        .map(|l| l.split(' ').collect());
    let known = match words.as_deref() {
        Some([verb @ ("read" | "write"), name]) if is_name(name) => Some((*verb, *name)),
        _ => None,
    };
    let object = known.map(|(verb, name)| Object {
        kind: "item".to_owned(),
        schema: None,
        name: name.to_owned(),
        access: verb.to_owned(),
    });
    Operation {
        class: known.map_or("unknown", |(verb, _)| verb).to_owned(),
        effects: Vec::new(),
        objects: object.into_iter().collect(),
        functions: Vec::new(),
        unknown_functions: Vec::new(),
        confidence: if known.is_some() {
            Confidence::Proven
        } else {
            Confidence::Unknown
        },
        housekeeping: false,
        facts: Vec::new(),
    }
}

fn is_name(name: &str) -> bool {
    !name.is_empty()
        && name
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_')
}

/// For `holdpoint classify`: the field `line`.
pub(crate) fn fields(input: Vec<(String, Vec<u8>)>) -> Result<Command, String> {
    let (_, line) = input
        .into_iter()
        .find(|(name, _)| name == "line")
        .ok_or("the field `line` is missing")?;
    if line.contains(&b'\n') {
        return Err("`line` holds more than one line".to_owned());
    }
    Ok(command(&line))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_known_verb_with_one_plain_name_is_proven() {
        for (line, class, confidence) in [
            (&b"read x"[..], "read", Confidence::Proven),
            (b"write invoice-7", "write", Confidence::Proven),
            (b"READ x", "unknown", Confidence::Unknown),
            (b"read", "unknown", Confidence::Unknown),
            (b"read ", "unknown", Confidence::Unknown),
            (b"read x y", "unknown", Confidence::Unknown),
            (b"read  x", "unknown", Confidence::Unknown),
            (b"read x\r", "unknown", Confidence::Unknown),
            (b"read \xff", "unknown", Confidence::Unknown),
            (b"", "unknown", Confidence::Unknown),
        ] {
            let command = command(line);
            let [operation] = command.operations.as_slice() else {
                panic!("one operation")
            };
            let found = (operation.class.as_str(), operation.confidence);
            assert_eq!(found, (class, confidence), "{}", line.escape_ascii());
            assert_eq!(command.text, line);
        }
    }

    #[test]
    fn outside_a_session_a_line_is_classified_the_same() {
        let line = ("line".to_owned(), b"write x".to_vec());
        assert_eq!(fields(vec![line]), Ok(command(b"write x")));
        assert!(fields(Vec::new()).is_err());
        assert!(fields(vec![("line".to_owned(), b"read x\nwrite x".to_vec())]).is_err());
    }
}
