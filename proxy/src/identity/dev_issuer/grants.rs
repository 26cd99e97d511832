//! What the development issuer has promised and not yet given: sign-ins under way, codes,
//! refresh tokens, device codes. Values in, values out; time is an argument.
//!
//! Each secret works once. Whoever shows a code or a refresh token again is not who it was
//! given to, or shares it with somebody: everything that came of that sign-in ends. Tables are bounded.

use std::collections::HashMap;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use holdpoint_core::id::Digest;
use sha2::{Digest as _, Sha256};

/// Seconds that a page may stay open.
const SIGN_IN: u64 = 600;
/// Seconds to redeem a code.
const CODE: u64 = 60;
/// Seconds that refreshing goes on after a sign-in, however often.
const REFRESH: u64 = 12 * 3600;
/// Seconds that a browser is remembered.
const SESSION: u64 = 12 * 3600;
/// Seconds to enter a device's code.
pub(super) const DEVICE: u64 = 600;
/// Seconds between a device's questions.
pub(super) const INTERVAL: u64 = 1;
/// RFC 8628 section 3.5.
const SLOWER: u64 = 5;
/// Of each kind. A sign-in that does not fit is refused.
const MAX: usize = 1_000;

/// Consonants: a code never spells a word, nor is read two ways.
const LETTERS: &[u8; 20] = b"BCDFGHJKLMNPQRSTVWXZ";

/// What somebody signs in for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Asked {
    /// Of ours, such as `holdpoint.connect`; never empty.
    pub(super) scopes: Vec<String>,
    pub(super) openid: bool,
    pub(super) offline: bool,
    pub(super) nonce: Option<String>,
}

/// An authorization request that was found good.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Authorization {
    pub(super) asked: Asked,
    pub(super) redirect_uri: String,
    pub(super) state: Option<String>,
    /// PKCE, S256.
    pub(super) challenge: String,
    /// Seconds since which a sign-in of before may be gone on with.
    pub(super) max_age: u64,
}

/// Somebody who signed in with this browser before.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Session {
    pub(super) user: String,
    pub(super) at: u64,
}

/// Somebody signed in for something.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Signed {
    pub(super) user: String,
    pub(super) asked: Asked,
    pub(super) at: u64,
    /// Everything that comes of one sign-in has the same.
    family: String,
}

/// The words of RFC 6749 and RFC 8628, and ours beside them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Refused(pub(super) &'static str, pub(super) &'static str);

const NO_GRANT: Refused = Refused(
    "invalid_grant",
    "unknown, used before, or too late: sign in again",
);
const FULL: Refused = Refused("temporarily_unavailable", "too many sign-ins at once");

/// A page that was shown.
#[derive(Debug)]
pub(super) struct Page {
    /// `None`: the page that asks for a device's code.
    pub(super) authorization: Option<Authorization>,
    /// In a cookie and in the form.
    csrf: String,
    until: u64,
}

#[derive(Debug)]
struct Code {
    signed: Signed,
    redirect_uri: String,
    challenge: String,
    used: bool,
    until: u64,
}

#[derive(Debug)]
struct Refresh {
    signed: Signed,
    used: bool,
    until: u64,
}

#[derive(Debug)]
struct Device {
    user_code: String,
    asked: Asked,
    answer: Option<Result<Signed, Refused>>,
    interval: u64,
    /// When it may ask next.
    next: u64,
    until: u64,
}

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Grants {
    pages: HashMap<String, Page>,
    codes: HashMap<String, Code>,
    refresh: HashMap<String, Refresh>,
    devices: HashMap<String, Device>,
    sessions: HashMap<String, Session>,
}

/// The system gave no random bytes.
#[derive(Debug, Clone, Copy)]
pub(super) struct NoRandom;

impl From<NoRandom> for Refused {
    fn from(_: NoRandom) -> Self {
        Self("server_error", "the system gives no random bytes")
    }
}

impl Grants {
    /// A page is shown; gives its name and what its cookie and its form must bring back.
    pub(super) fn open_page(
        &mut self,
        authorization: Option<Authorization>,
        now: u64,
    ) -> Result<(String, String), Refused> {
        self.forget(now);
        if self.pages.len() >= MAX {
            return Err(FULL);
        }
        let (name, csrf) = (secret()?, secret()?);
        let page = Page {
            authorization,
            csrf: csrf.clone(),
            until: now + SIGN_IN,
        };
        self.pages.insert(name.clone(), page);
        Ok((name, csrf))
    }

    /// The page's form came back, once.
    pub(super) fn close_page(
        &mut self,
        name: &str,
        form: &str,
        cookie: Option<&str>,
        now: u64,
    ) -> Option<Page> {
        self.forget(now);
        let good = self.pages.get(name).is_some_and(|page| {
            same(&page.csrf, form) && cookie.is_some_and(|c| same(&page.csrf, c))
        });
        if good { self.pages.remove(name) } else { None }
    }

    /// Remembers who signed in. Gives what their browser shows the next time.
    pub(super) fn open_session(&mut self, user: &str, now: u64) -> Result<String, Refused> {
        self.forget(now);
        if self.sessions.len() >= MAX {
            return Err(FULL);
        }
        let name = secret()?;
        let session = Session {
            user: user.to_owned(),
            at: now,
        };
        self.sessions.insert(name.clone(), session);
        Ok(name)
    }

    /// Who signed in with this browser, if that is not longer ago than the request lets it be.
    pub(super) fn session(
        &self,
        name: &str,
        authorization: &Authorization,
        now: u64,
    ) -> Option<Session> {
        let session = self.sessions.get(name)?;
        let age = now.saturating_sub(session.at);
        (age < authorization.max_age.min(SESSION)).then(|| session.clone())
    }

    /// `user` signed in, at `at`. Gives the code.
    pub(super) fn code(
        &mut self,
        user: &str,
        at: u64,
        authorization: Authorization,
        now: u64,
    ) -> Result<String, Refused> {
        self.forget(now);
        if self.codes.len() >= MAX {
            return Err(FULL);
        }
        let code = secret()?;
        let held = Code {
            signed: Signed::new(user, authorization.asked, at)?,
            redirect_uri: authorization.redirect_uri,
            challenge: authorization.challenge,
            used: false,
            until: now + CODE,
        };
        self.codes.insert(code.clone(), held);
        Ok(code)
    }

    /// Redeems a code.
    pub(super) fn redeem(
        &mut self,
        code: &str,
        redirect_uri: &str,
        verifier: &str,
        now: u64,
    ) -> Result<Signed, Refused> {
        self.forget(now);
        let held = self.codes.get_mut(code).ok_or(NO_GRANT)?;
        let again = std::mem::replace(&mut held.used, true);
        let proven = (43..=128).contains(&verifier.len())
            && same(
                &URL_SAFE_NO_PAD.encode(Sha256::digest(verifier)),
                &held.challenge,
            );
        if again || !proven || held.redirect_uri != redirect_uri {
            let family = held.signed.family.clone();
            self.end(&family);
            return Err(NO_GRANT);
        }
        Ok(held.signed.clone())
    }

    /// A refresh token for what was signed in for.
    pub(super) fn refresh_token(&mut self, signed: &Signed, now: u64) -> Result<String, Refused> {
        self.forget(now);
        if self.refresh.len() >= MAX {
            return Err(FULL);
        }
        let token = secret()?;
        let held = Refresh {
            signed: signed.clone(),
            used: false,
            until: signed.at + REFRESH,
        };
        self.refresh.insert(token.clone(), held);
        Ok(token)
    }

    /// Uses a refresh token up.
    pub(super) fn refresh(&mut self, token: &str, now: u64) -> Result<Signed, Refused> {
        self.forget(now);
        let held = self.refresh.get_mut(token).ok_or(NO_GRANT)?;
        if std::mem::replace(&mut held.used, true) {
            let family = held.signed.family.clone();
            self.end(&family);
            return Err(NO_GRANT);
        }
        Ok(held.signed.clone())
    }

    /// A device asks for somebody. Gives its own code and the one for people.
    pub(super) fn device(&mut self, asked: Asked, now: u64) -> Result<(String, String), Refused> {
        self.forget(now);
        if self.devices.len() >= MAX {
            return Err(FULL);
        }
        let device = Device {
            user_code: user_code()?,
            asked,
            answer: None,
            interval: INTERVAL,
            next: 0,
            until: now + DEVICE,
        };
        let (code, shown) = (secret()?, device.user_code.clone());
        self.devices.insert(code.clone(), device);
        Ok((code, shown))
    }

    /// What the device with this code for people asks for.
    pub(super) fn device_asks(&self, user_code: &str, now: u64) -> Option<&Asked> {
        self.devices
            .values()
            .find(|device| device.fits(user_code, now))
            .map(|device| &device.asked)
    }

    /// Somebody (or nobody, for a refusal) answers for the device. Once.
    pub(super) fn answer_device(
        &mut self,
        user_code: &str,
        user: Option<&str>,
        now: u64,
    ) -> Result<bool, Refused> {
        let device = self
            .devices
            .values_mut()
            .find(|device| device.fits(user_code, now));
        let Some(device) = device else {
            return Ok(false);
        };
        device.answer = Some(match user {
            Some(user) => Ok(Signed::new(user, device.asked.clone(), now)?),
            None => Err(Refused("access_denied", "the person said no")),
        });
        Ok(true)
    }

    /// The device asks whether somebody answered.
    pub(super) fn poll(&mut self, code: &str, now: u64) -> Result<Signed, Refused> {
        let expired = Refused("expired_token", "nobody signed in in time");
        // Not forgotten yet: the device should hear why.
        let device = self.devices.get_mut(code).ok_or(NO_GRANT)?;
        if device.until <= now {
            self.devices.remove(code);
            return Err(expired);
        }
        let early = now < device.next;
        if early {
            device.interval += SLOWER;
        }
        device.next = now + device.interval;
        match device.answer.clone() {
            _ if early => Err(Refused("slow_down", "wait for the interval")),
            None => Err(Refused("authorization_pending", "nobody signed in yet")),
            Some(answer) => {
                self.devices.remove(code);
                answer
            }
        }
    }

    fn end(&mut self, family: &str) {
        self.refresh
            .retain(|_, refresh| refresh.signed.family != family);
    }

    fn forget(&mut self, now: u64) {
        self.pages.retain(|_, page| now < page.until);
        self.codes.retain(|_, code| now < code.until);
        self.refresh.retain(|_, refresh| now < refresh.until);
        self.sessions.retain(|_, one| now < one.at + SESSION);
        // A little longer, so that a device hears that it is too late.
        self.devices.retain(|_, device| now < device.until + 60);
    }
}

impl Device {
    /// As people type it: any case, with or without the dash.
    fn fits(&self, typed: &str, now: u64) -> bool {
        let plain = |code: &str| -> String {
            let letters = code.chars().filter(char::is_ascii_alphabetic);
            letters.map(|c| c.to_ascii_uppercase()).collect()
        };
        self.answer.is_none() && now < self.until && plain(typed) == plain(&self.user_code)
    }
}

impl Signed {
    fn new(user: &str, asked: Asked, now: u64) -> Result<Self, NoRandom> {
        Ok(Self {
            user: user.to_owned(),
            asked,
            at: now,
            family: secret()?,
        })
    }
}

/// Over digests, so that the time it takes says nothing about the secret.
pub(crate) fn same(a: &str, b: &str) -> bool {
    Digest::of(a.as_bytes()) == Digest::of(b.as_bytes())
}

fn secret() -> Result<String, NoRandom> {
    let mut random = [0; 32];
    getrandom::fill(&mut random).map_err(|_| NoRandom)?;
    Ok(URL_SAFE_NO_PAD.encode(random))
}

fn user_code() -> Result<String, NoRandom> {
    let mut random = [0; 8];
    getrandom::fill(&mut random).map_err(|_| NoRandom)?;
    let letters: String = random
        .iter()
        .map(|byte| char::from(LETTERS[usize::from(*byte) % LETTERS.len()]))
        .collect();
    Ok(format!("{}-{}", &letters[..4], &letters[4..]))
}

#[cfg(test)]
mod tests {
    use super::*;

    const VERIFIER: &str = "dBjftJeZ4CVP-mB92K27uhbUJU1p1r_wW1gFWFOEjXk";
    /// Of the verifier, from RFC 7636 appendix B.
    const CHALLENGE: &str = "E9Melhoa2OwvFrEMTJguCHaoeK1t8URWbuGJSstw-cM";
    const URI: &str = "http://127.0.0.1:8000/callback";

    fn asked() -> Asked {
        Asked {
            scopes: vec!["holdpoint.connect".to_owned()],
            openid: true,
            offline: true,
            nonce: None,
        }
    }

    fn authorization() -> Authorization {
        Authorization {
            asked: asked(),
            redirect_uri: URI.to_owned(),
            state: None,
            challenge: CHALLENGE.to_owned(),
            max_age: u64::MAX,
        }
    }

    #[test]
    fn a_code_works_once_and_a_second_use_ends_what_came_of_it() {
        let mut grants = Grants::default();
        let code = grants.code("ada", 0, authorization(), 0).unwrap();
        let signed = grants.redeem(&code, URI, VERIFIER, 1).unwrap();
        assert_eq!(signed.user, "ada");
        let refresh = grants.refresh_token(&signed, 1).unwrap();
        assert_eq!(grants.redeem(&code, URI, VERIFIER, 2), Err(NO_GRANT));
        assert_eq!(grants.refresh(&refresh, 2), Err(NO_GRANT));
    }

    #[test]
    fn a_code_needs_its_verifier_its_redirect_and_its_time() {
        for (uri, verifier, now) in [
            (URI, "x".repeat(43), 1),
            (URI, String::new(), 1),
            ("http://127.0.0.1:8001/callback", VERIFIER.to_owned(), 1),
            (URI, VERIFIER.to_owned(), CODE),
        ] {
            let mut grants = Grants::default();
            let code = grants.code("ada", 0, authorization(), 0).unwrap();
            assert_eq!(grants.redeem(&code, uri, &verifier, now), Err(NO_GRANT));
            // A failure uses it up as well.
            assert_eq!(grants.redeem(&code, URI, VERIFIER, 2), Err(NO_GRANT));
        }
    }

    #[test]
    fn a_refresh_token_shown_twice_ends_its_successor_too() {
        let mut grants = Grants::default();
        let signed = Signed::new("ada", asked(), 0).unwrap();
        let first = grants.refresh_token(&signed, 0).unwrap();
        let signed = grants.refresh(&first, 1).unwrap();
        let second = grants.refresh_token(&signed, 1).unwrap();
        assert_eq!(grants.refresh(&first, 2), Err(NO_GRANT));
        assert_eq!(grants.refresh(&second, 3), Err(NO_GRANT));
    }

    #[test]
    fn refreshing_ends_some_time_after_the_sign_in_however_often_it_is_done() {
        let mut grants = Grants::default();
        let signed = Signed::new("ada", asked(), 0).unwrap();
        let token = grants.refresh_token(&signed, REFRESH - 1).unwrap();
        assert_eq!(grants.refresh(&token, REFRESH), Err(NO_GRANT));
    }

    #[test]
    fn a_device_waits_slows_down_and_gets_its_answer_once() {
        let mut grants = Grants::default();
        let (code, shown) = grants.device(asked(), 0).unwrap();
        assert_eq!(
            grants.poll(&code, 0).unwrap_err().0,
            "authorization_pending"
        );
        assert_eq!(grants.poll(&code, 0).unwrap_err().0, "slow_down");
        let typed = shown.to_lowercase().replace('-', " ");
        assert!(grants.device_asks(&typed, 1).is_some());
        assert_eq!(grants.answer_device(&typed, Some("ada"), 1), Ok(true));
        // Nobody answers for it a second time.
        assert_eq!(grants.answer_device(&typed, Some("eve"), 1), Ok(false));
        assert_eq!(grants.poll(&code, 3).unwrap_err().0, "slow_down");
        assert_eq!(grants.poll(&code, 30).unwrap().user, "ada");
        assert_eq!(grants.poll(&code, 60), Err(NO_GRANT));
    }

    #[test]
    fn a_device_hears_of_a_refusal_and_of_the_end_of_its_time() {
        let mut grants = Grants::default();
        let (code, shown) = grants.device(asked(), 0).unwrap();
        assert_eq!(grants.answer_device(&shown, None, 1), Ok(true));
        assert_eq!(grants.poll(&code, 1).unwrap_err().0, "access_denied");
        let (code, shown) = grants.device(asked(), 0).unwrap();
        assert_eq!(grants.answer_device(&shown, Some("ada"), DEVICE), Ok(false));
        assert_eq!(grants.poll(&code, DEVICE).unwrap_err().0, "expired_token");
    }

    #[test]
    fn a_form_counts_once_and_with_its_cookie() {
        let mut grants = Grants::default();
        let (page, csrf) = grants.open_page(Some(authorization()), 0).unwrap();
        for (form, cookie) in [
            ("", Some(csrf.as_str())),
            (csrf.as_str(), None),
            (csrf.as_str(), Some("")),
            ("", Some("")),
        ] {
            assert!(grants.close_page(&page, form, cookie, 1).is_none());
        }
        assert!(grants.close_page(&page, &csrf, Some(&csrf), 1).is_some());
        assert!(grants.close_page(&page, &csrf, Some(&csrf), 1).is_none());
    }

    #[test]
    fn a_browser_is_known_for_as_long_as_the_request_lets_it_be() {
        let mut grants = Grants::default();
        let name = grants.open_session("ada", 100).unwrap();
        let known = |max_age, now| {
            let wanted = Authorization {
                max_age,
                ..authorization()
            };
            grants.session(&name, &wanted, now).map(|one| one.at)
        };
        assert_eq!(known(u64::MAX, 100 + SESSION - 1), Some(100));
        assert_eq!(known(u64::MAX, 100 + SESSION), None);
        assert_eq!(known(60, 159), Some(100));
        assert_eq!(known(60, 160), None);
        // As `prompt=login`.
        assert_eq!(known(0, 100), None);
        assert_eq!(grants.session("guess", &authorization(), 100), None);
    }

    #[test]
    fn no_table_grows_without_end() {
        let mut grants = Grants::default();
        for _ in 0..MAX {
            grants.open_page(None, 0).unwrap();
            grants.device(asked(), 0).unwrap();
        }
        assert_eq!(grants.open_page(None, 1), Err(FULL));
        assert_eq!(grants.device(asked(), 1), Err(FULL));
        assert!(grants.open_page(None, SIGN_IN).is_ok());
    }
}
