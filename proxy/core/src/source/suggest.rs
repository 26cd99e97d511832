//! `did you mean …?`

/// More choices than this are not listed.
const LIST: usize = 16;

/// The nearest choice, or all of them.
pub(super) fn help<'c>(word: &str, choices: impl IntoIterator<Item = &'c str>) -> Option<String> {
    let choices: Vec<&str> = choices.into_iter().collect();
    let near = choices
        .iter()
        .map(|choice| (distance(word, choice), *choice))
        .filter(|(distance, choice)| *distance <= (choice.chars().count() / 3).max(1))
        .min();
    if let Some((_, choice)) = near {
        return Some(format!("did you mean `{choice}`?"));
    }
    if choices.is_empty() || choices.len() > LIST {
        return None;
    }
    let list: Vec<String> = choices.iter().map(|choice| format!("`{choice}`")).collect();
    Some(if list.len() == 1 {
        format!("only {} fits here", list.concat())
    } else {
        format!("one of {}", list.join(", "))
    })
}

/// The words between backticks.
pub(super) fn quoted(text: &str) -> Vec<&str> {
    text.split('`').skip(1).step_by(2).collect()
}

/// Levenshtein's, where a swap of neighbours counts once.
pub(super) fn distance(one: &str, two: &str) -> usize {
    let one: Vec<char> = one.to_lowercase().chars().collect();
    let two: Vec<char> = two.to_lowercase().chars().collect();
    let width = two.len() + 1;
    let mut table: Vec<Vec<usize>> = vec![(0..width).collect()];
    for (i, a) in one.iter().enumerate() {
        let mut row = vec![i + 1];
        for (j, b) in two.iter().enumerate() {
            let mut cost = (table[i][j + 1] + 1)
                .min(row[j] + 1)
                .min(table[i][j] + usize::from(a != b));
            if i > 0 && j > 0 && *a == two[j - 1] && one[i - 1] == *b {
                cost = cost.min(table[i - 1][j - 1] + 1);
            }
            row.push(cost);
        }
        table.push(row);
    }
    table[one.len()][two.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slip_of_the_finger_is_recognised() {
        for (typed, meant) in [
            ("isuer", "issuer"),
            ("lisetn", "listen"),
            ("Target", "target"),
        ] {
            let choices = ["issuer", "listen", "target"];
            assert_eq!(
                help(typed, choices),
                Some(format!("did you mean `{meant}`?"))
            );
        }
    }

    #[test]
    fn another_word_is_answered_with_the_choices() {
        assert_eq!(
            help("colour", ["listen", "target"]).as_deref(),
            Some("one of `listen`, `target`")
        );
    }
}
