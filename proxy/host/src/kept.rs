//! What a plugin told once and names by a number since: operations, and whole exchanges.

use std::sync::Arc;

use holdpoint_core::command::Operation;

use crate::bindings::protocol::{Action, Recall};
use crate::bindings::types;
use crate::convert::{self, Wrong};
use crate::forecast::Forecasts;

/// Numbers that a plugin may use.
const NUMBERS: usize = 64;
/// Bytes of text that may be kept under one of them; a word counts as 64 at least.
const MOST: usize = 32 << 10;
const WORD: usize = 64;

#[derive(Debug, Default)]
pub(crate) struct Kept {
    pub(crate) operations: Operations,
    pub(crate) forecasts: Forecasts,
}

#[derive(Debug, Default)]
pub(crate) struct Operations(Vec<Option<Arc<[Operation]>>>);

impl Kept {
    /// What an instance that is made again said once is said again.
    pub(crate) fn hear_again(&mut self, actions: Vec<Action>) -> Result<(), Wrong> {
        self.forecasts.forget_expected();
        for action in actions {
            match action {
                Action::Submit(submission) => {
                    let told = submission.command.operations;
                    self.operations.of(submission.recall, told)?;
                }
                Action::Forecast(forecast) => self.forecasts.keep(forecast, &self.operations)?,
                Action::Expect(numbers) => self.forecasts.expect(numbers)?,
                _ => {}
            }
        }
        Ok(())
    }
}

impl Operations {
    /// What a submission does that told these operations.
    pub(crate) fn of(
        &mut self,
        recall: Recall,
        told: Vec<types::Operation>,
    ) -> Result<Arc<[Operation]>, Wrong> {
        match recall {
            Recall::No => Ok(told.into_iter().map(convert::operation).collect()),
            Recall::Keep(number) => {
                let weight = told.iter().map(weight).sum::<usize>();
                if weight > MOST {
                    return Err(format!(
                        "operations of {weight} bytes to be kept; {MOST} are allowed"
                    ));
                }
                let at = usize::from(number);
                if at >= NUMBERS {
                    return Err(format!(
                        "operations under the number {number}; there are {NUMBERS}"
                    ));
                }
                if self.0.len() <= at {
                    self.0.resize(at + 1, None);
                }
                let operations: Arc<[_]> = told.into_iter().map(convert::operation).collect();
                self.0[at] = Some(Arc::clone(&operations));
                Ok(operations)
            }
            Recall::Kept(_) if !told.is_empty() => {
                Err("operations beside the number of others".to_owned())
            }
            Recall::Kept(number) => self.kept(number),
        }
    }

    pub(crate) fn kept(&self, number: u8) -> Result<Arc<[Operation]>, Wrong> {
        let kept = self.0.get(usize::from(number)).and_then(Option::as_ref);
        let kept = kept.map(Arc::clone);
        kept.ok_or_else(|| format!("no operations are kept under the number {number}"))
    }
}

fn weight(operation: &types::Operation) -> usize {
    let word = |word: &str| WORD + word.len();
    let words = |words: &[String]| words.iter().map(|each| word(each)).sum::<usize>();
    let objects = operation.objects.iter().map(|object| {
        let schema = object.schema.as_deref().unwrap_or_default();
        word(&object.kind) + word(schema) + word(&object.name) + word(&object.access)
    });
    let facts = operation.facts.iter();
    word(&operation.class)
        + words(&operation.effects)
        + words(&operation.functions)
        + words(&operation.unknown_functions)
        + objects.sum::<usize>()
        + facts
            .map(|(name, value)| word(name) + word(value))
            .sum::<usize>()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(class: &str) -> Vec<types::Operation> {
        vec![types::Operation {
            class: class.to_owned(),
            effects: Vec::new(),
            objects: Vec::new(),
            functions: Vec::new(),
            unknown_functions: Vec::new(),
            confidence: types::Confidence::Proven,
            housekeeping: false,
            facts: Vec::new(),
        }]
    }

    #[test]
    fn a_number_stands_for_what_was_last_kept_under_it() {
        let mut kept = Operations::default();
        let class = |operations: Arc<[Operation]>| operations[0].class.clone();
        for word in ["read", "write"] {
            kept.of(Recall::Keep(63), told(word)).unwrap();
            kept.of(Recall::No, told("ddl")).unwrap();
            let again = kept.of(Recall::Kept(63), Vec::new()).unwrap();
            assert_eq!(class(again), word);
        }
    }

    #[test]
    fn a_number_without_operations_has_no_meaning() {
        let mut kept = Operations::default();
        kept.of(Recall::Keep(1), told("read")).unwrap();
        for (wrong, beside) in [
            (Recall::Kept(0), Vec::new()),
            (Recall::Kept(2), Vec::new()),
            (Recall::Kept(255), Vec::new()),
            (Recall::Kept(1), told("write")),
            (Recall::Keep(64), told("read")),
        ] {
            assert!(kept.of(wrong, beside).is_err(), "{wrong:?}");
        }
    }

    #[test]
    fn what_is_kept_is_bounded() {
        let mut kept = Operations::default();
        assert!(kept.of(Recall::Keep(0), told(&"x".repeat(MOST))).is_err());
        let mut many = told("read");
        many[0].effects = vec![String::new(); MOST / WORD];
        assert!(kept.of(Recall::Keep(0), many).is_err());
    }
}
