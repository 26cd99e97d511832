//! The host's side for native tests: a login at the target that a test scripts,
//! and the log, per thread.
//!
//! Without [`set_login`] there is no account, as at a target for which none is
//! configured.

use std::cell::RefCell;

use crate::auth::AuthError;
use crate::log::Level;

/// Answers one challenge of an exchange; made anew for each exchange.
pub type Answer = Box<dyn FnMut(&[u8]) -> Result<Vec<u8>, AuthError>>;

/// What stands behind [`crate::auth`] in a test.
pub trait Login {
    fn username(&self) -> String;

    /// # Errors
    /// The mechanism is not one of the host's. The plugin hears it at the
    /// first step.
    fn start(&mut self, mechanism: &str) -> Result<Answer, AuthError>;
}

/// An account whose exchanges answer with fixed bytes, one a step, then with
/// nothing: a verified end.
pub struct Scripted {
    pub username: String,
    pub answers: Vec<(String, Vec<Vec<u8>>)>,
}

impl Login for Scripted {
    fn username(&self) -> String {
        self.username.clone()
    }

    fn start(&mut self, mechanism: &str) -> Result<Answer, AuthError> {
        let (_, answers) = self
            .answers
            .iter()
            .find(|(name, _)| name == mechanism)
            .ok_or(AuthError::UnknownMechanism)?;
        let mut answers = answers.clone().into_iter();
        Ok(Box::new(move |_| Ok(answers.next().unwrap_or_default())))
    }
}

thread_local! {
    static LOGIN: RefCell<Option<Box<dyn Login>>> = const { RefCell::new(None) };
    static LINES: RefCell<Vec<(Level, String)>> = const { RefCell::new(Vec::new()) };
}

/// Puts an account behind [`crate::auth`] for this thread.
pub fn set_login(login: impl Login + 'static) {
    LOGIN.with_borrow_mut(|slot| *slot = Some(Box::new(login)));
}

/// No account again, as at the start.
pub fn clear_login() {
    LOGIN.with_borrow_mut(Option::take);
}

/// The lines logged by this thread since the last call.
pub fn take_log() -> Vec<(Level, String)> {
    LINES.take()
}

pub(crate) fn username() -> String {
    LOGIN.with_borrow(|login| {
        login
            .as_ref()
            .map(|login| login.username())
            .unwrap_or_default()
    })
}

pub(crate) fn log(level: Level, message: &str) {
    LINES.with_borrow_mut(|lines| lines.push((level, message.to_owned())));
}

pub(crate) struct Exchange(RefCell<Result<Answer, AuthError>>);

impl Exchange {
    pub(crate) fn new(mechanism: &str) -> Self {
        Self(RefCell::new(LOGIN.with_borrow_mut(|login| match login {
            Some(login) => login.start(mechanism),
            None => Err(AuthError::NoCredential),
        })))
    }

    pub(crate) fn step(&self, challenge: &[u8]) -> Result<Vec<u8>, AuthError> {
        match &mut *self.0.borrow_mut() {
            Ok(answer) => answer(challenge),
            Err(error) => Err(*error),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::auth;

    #[test]
    fn without_a_login_there_is_no_account() {
        assert_eq!(auth::username(), "");
        let mut exchange = auth::Exchange::new("md5");
        assert_eq!(exchange.step(b"salt"), Err(AuthError::NoCredential));
    }

    #[test]
    fn a_scripted_login_answers_in_order_and_then_ends() {
        set_login(Scripted {
            username: "app".to_owned(),
            answers: vec![("md5".to_owned(), vec![b"hash".to_vec()])],
        });
        assert_eq!(auth::username(), "app");
        let mut exchange = auth::Exchange::new("md5");
        assert_eq!(exchange.step(b"salt").unwrap(), b"hash");
        assert_eq!(exchange.step(b"").unwrap(), b"");
        assert_eq!(
            auth::Exchange::new("scram").step(b""),
            Err(AuthError::UnknownMechanism)
        );
        clear_login();
    }

    #[test]
    fn log_lines_are_kept_for_the_test() {
        crate::log::warn("odd");
        assert_eq!(take_log(), [(Level::Warn, "odd".to_owned())]);
        assert!(take_log().is_empty());
    }
}
