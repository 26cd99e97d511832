//! The seam between the gate and the rules.

use super::{Ask, Policy, Protected, RuleFile};
use crate::decision::Decision;

/// Gives a decision on a command.
///
/// An implementation answers the same for the same question, has no effect, and
/// expresses its own failures as a denial: there is no error that a caller
/// could mistake for consent.
pub trait Judge: Send + Sync {
    fn decide(&self, ask: &Ask<'_>) -> Decision;

    /// Names the rules in force; part of every digest and of every record.
    fn version(&self) -> &str;

    /// The columns whose values nobody is shown at this target.
    fn protected(&self, target: &str) -> Protected;

    /// The rules' text, for people to read; none where there is none.
    fn sources(&self) -> &[RuleFile] {
        &[]
    }

    /// What is odd about the rules, but no mistake.
    fn warnings(&self) -> &[String] {
        &[]
    }
}

impl Judge for Policy {
    fn decide(&self, ask: &Ask<'_>) -> Decision {
        Policy::decide(self, ask)
    }

    fn version(&self) -> &str {
        Policy::version(self)
    }

    fn protected(&self, target: &str) -> Protected {
        Policy::protected(self, target)
    }

    fn sources(&self) -> &[RuleFile] {
        Policy::sources(self)
    }

    fn warnings(&self) -> &[String] {
        Policy::warnings(self)
    }
}
