//! Lines that the gateway says in the server's place.

use holdpoint_plugin::Refusal;

/// One line, whatever the text holds: a line end inside would be read as two.
fn line(text: &str) -> Vec<u8> {
    let mut out: String = text
        .chars()
        .map(|c| if c.is_control() { ' ' } else { c })
        .collect();
    out.push('\n');
    out.into_bytes()
}

pub(crate) fn ok(text: &str) -> Vec<u8> {
    line(&format!("ok {text}"))
}

/// `refused CODE: what (why); what to do next`
pub(crate) fn refusal(refusal: &Refusal) -> Vec<u8> {
    let mut text = format!("refused {}: {}", refusal.code, refusal.message);
    if let Some(detail) = &refusal.detail {
        text.push_str(&format!(" ({detail})"));
    }
    if let Some(hint) = &refusal.hint {
        text.push_str(&format!("; {hint}"));
    }
    line(&text)
}

pub(crate) fn notice(text: &str) -> Vec<u8> {
    line(&format!("# {text}"))
}

#[cfg(test)]
mod tests {
    use holdpoint_plugin::RefusalKind;

    use super::*;

    #[test]
    fn a_refusal_is_one_line_even_if_its_reason_is_not() {
        let refused = Refusal {
            kind: RefusalKind::Denied,
            code: "HP-DENIED".to_owned(),
            message: "no\nok done".to_owned(),
            detail: Some("rule `x`".to_owned()),
            hint: Some("ask".to_owned()),
        };
        assert_eq!(
            refusal(&refused),
            b"refused HP-DENIED: no ok done (rule `x`); ask\n"
        );
    }
}
