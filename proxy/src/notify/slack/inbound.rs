//! What comes from Slack: whether it does, and what it says.
//!
//! The signature covers the raw body and the time (`v0=` HMAC-SHA-256). It proves that Slack sent
//! this, not who pressed the button: that is for the link between account and person.

use hmac::{Hmac, KeyInit as _, Mac as _};
use holdpoint_core::id::{ApprovalId, Digest};
use holdpoint_core::secret::Secret;
use serde::{Deserialize, Serialize};
use sha2::Sha256;

use super::Place;
pub(crate) use super::blocks::{APPROVE, DENY, REASON, REASON_INPUT};

/// Further away than this, it is a replay or a clock that is wrong.
const WINDOW: u64 = 300;

/// A secret that is shorter than this is none of Slack's.
const MIN_SECRET: usize = 16;

/// Checks signatures.
pub(crate) struct Signing(Secret);

impl Signing {
    pub(super) fn new(secret: &Secret) -> Option<Self> {
        (secret.expose().len() >= MIN_SECRET).then(|| Self(secret.clone()))
    }

    /// Whether Slack signed `raw` within the last minutes. In constant time.
    pub(crate) fn signed(
        &self,
        timestamp: Option<&str>,
        signature: Option<&str>,
        raw: &[u8],
        unix: u64,
    ) -> bool {
        let (Some(timestamp), Some(signature)) = (timestamp, signature) else {
            return false;
        };
        let digits = !timestamp.is_empty() && timestamp.bytes().all(|b| b.is_ascii_digit());
        let near = timestamp
            .parse::<u64>()
            .is_ok_and(|at| at.abs_diff(unix) <= WINDOW);
        let Some(Ok(given)) = signature.strip_prefix("v0=").map(hex::decode) else {
            return false;
        };
        let Ok(mut mac) = Hmac::<Sha256>::new_from_slice(self.0.expose()) else {
            return false;
        };
        mac.update(b"v0:");
        mac.update(timestamp.as_bytes());
        mac.update(b":");
        mac.update(raw);
        digits && near && mac.verify_slice(&given).is_ok()
    }
}

/// A payload, as far as it is of use.
#[derive(Debug, Deserialize)]
pub(crate) struct Payload {
    r#type: String,
    user: Option<User>,
    team: Option<Named>,
    enterprise: Option<Named>,
    trigger_id: Option<String>,
    container: Option<Container>,
    #[serde(default)]
    actions: Vec<Pressed>,
    view: Option<Modal>,
}

#[derive(Debug, Deserialize)]
struct User {
    id: String,
    team_id: Option<String>,
    username: Option<String>,
    name: Option<String>,
}

#[derive(Debug, Deserialize)]
struct Named {
    id: String,
}

#[derive(Debug, Deserialize)]
struct Container {
    message_ts: Option<String>,
    channel_id: Option<String>,
}

#[derive(Debug, Deserialize)]
struct Pressed {
    action_id: String,
    value: Option<String>,
}

#[derive(Debug, Deserialize)]
struct Modal {
    callback_id: String,
    #[serde(default)]
    private_metadata: String,
    #[serde(default)]
    state: serde_json::Value,
}

/// Who pressed, as Slack names them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Clicker {
    pub(crate) team: String,
    pub(crate) user: String,
    /// For people to read; anyone can call themselves anything.
    pub(crate) label: String,
}

/// What somebody wants.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Asked {
    Approve {
        about: About,
        place: Place,
        /// How often it may run, where that is not once.
        window: Option<String>,
    },
    /// The first half: the reason is asked for.
    Deny {
        about: About,
        place: Place,
        trigger: String,
    },
    /// The second half, out of the modal.
    Reason {
        about: About,
        place: Place,
        reason: String,
    },
    /// Such as a link that was opened.
    Nothing,
}

/// The approval, and what was shown of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct About {
    pub(crate) approval: ApprovalId,
    pub(crate) digest: Digest,
}

/// What a modal remembers.
#[derive(Serialize, Deserialize)]
struct Memo {
    about: String,
    channel: String,
    ts: String,
}

impl About {
    fn read(text: &str) -> Option<Self> {
        let (approval, digest) = text.split_once('/')?;
        Some(Self {
            approval: approval.parse().ok()?,
            digest: digest.parse().ok()?,
        })
    }

    /// For [`super::Slack::ask_reason`].
    pub(crate) fn memo(&self, place: &Place) -> String {
        let memo = Memo {
            about: format!("{}/{}", self.approval, self.digest),
            channel: place.channel.clone(),
            ts: place.ts.clone(),
        };
        serde_json::to_string(&memo).unwrap_or_default()
    }
}

impl Payload {
    /// Out of a form's `payload`; None where it is none.
    pub(crate) fn read(raw: &[u8]) -> Option<Self> {
        let mut fields = openidconnect::url::form_urlencoded::parse(raw);
        let (_, payload) = fields.find(|(name, _)| name == "payload")?;
        serde_json::from_str(&payload).ok()
    }

    pub(crate) fn clicker(&self) -> Option<Clicker> {
        let user = self.user.as_ref()?;
        let team = user.team_id.as_ref();
        let team = team.or(self.team.as_ref().map(|team| &team.id));
        let team = team.or(self.enterprise.as_ref().map(|one| &one.id))?;
        let id = |text: &str| {
            !text.is_empty() && text.len() <= 64 && text.bytes().all(|b| b.is_ascii_alphanumeric())
        };
        let label = user.username.as_ref().or(user.name.as_ref());
        let label = label.unwrap_or(&user.id).chars().take(80).collect();
        (id(team) && id(&user.id)).then(|| Clicker {
            team: team.clone(),
            user: user.id.clone(),
            label,
        })
    }

    /// None where it is of a kind that we asked for, but incomplete.
    pub(crate) fn asked(&self) -> Option<Asked> {
        match self.r#type.as_str() {
            "block_actions" => self.pressed(),
            "view_submission" => self.submitted(),
            _ => Some(Asked::Nothing),
        }
    }

    fn pressed(&self) -> Option<Asked> {
        let approves = |one: &Pressed| {
            let rest = one.action_id.strip_prefix(APPROVE);
            rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('.'))
        };
        let ours = |one: &&Pressed| approves(one) || one.action_id == DENY;
        let Some(action) = self.actions.iter().find(ours) else {
            return Some(Asked::Nothing);
        };
        let value = action.value.as_deref()?;
        let (about, window) = match value.match_indices('/').nth(1) {
            None => (value, None),
            Some((at, _)) => (value.get(..at)?, value.get(at + 1..)),
        };
        let about = About::read(about)?;
        let container = self.container.as_ref()?;
        let place = Place {
            channel: container.channel_id.clone()?,
            ts: container.message_ts.clone()?,
        };
        Some(if approves(action) {
            Asked::Approve {
                about,
                place,
                window: window.map(str::to_owned),
            }
        } else {
            Asked::Deny {
                about,
                place,
                trigger: self.trigger_id.clone()?,
            }
        })
    }

    fn submitted(&self) -> Option<Asked> {
        let view = self.view.as_ref()?;
        if view.callback_id != REASON {
            return Some(Asked::Nothing);
        }
        let memo: Memo = serde_json::from_str(&view.private_metadata).ok()?;
        let typed = &view.state["values"][REASON_INPUT][REASON_INPUT]["value"];
        Some(Asked::Reason {
            about: About::read(&memo.about)?,
            place: Place {
                channel: memo.channel,
                ts: memo.ts,
            },
            reason: typed.as_str().unwrap_or_default().trim().to_owned(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    // The example of Slack's own documentation, "Verifying requests from Slack".
    const SECRET: &str = "8f742231b10e8888abcd99yyyzzz85a5";
    const BODY: &str = "token=xyzz0WbapA4vBCDEFasx0q6G&team_id=T1DC2JH3J&team_domain=testteamnow&channel_id=G8PSS9T3V&channel_name=foobar&user_id=U2CERLKJA&user_name=roadrunner&command=%2Fwebhook-collect&text=&response_url=https%3A%2F%2Fhooks.slack.com%2Fcommands%2FT1DC2JH3J%2F397700885554%2F96rGlfmibIGlgcZRskXaIFfN&trigger_id=398738663015.47445629121.803a0bc887a14d10d2c447fce8b6703c";
    const SIGNATURE: &str = "v0=a2114d57b48eac39b9ad189dd8316235a7b4a8d21a10bd27519666489c69b503";
    const AT: &str = "1531420618";

    fn signed(at: &str, signature: &str, body: &str, unix: u64) -> bool {
        let signing = Signing::new(&SECRET.to_owned().into()).unwrap();
        signing.signed(Some(at), Some(signature), body.as_bytes(), unix)
    }

    #[test]
    fn the_example_of_slacks_documentation_verifies() {
        assert!(signed(AT, SIGNATURE, BODY, 1_531_420_618 + 299));
    }

    #[test]
    fn another_body_time_or_signature_is_not_slacks() {
        let now = 1_531_420_618;
        assert!(!signed(
            AT,
            SIGNATURE,
            &BODY.replace("foobar", "foobaz"),
            now
        ));
        assert!(!signed("1531420619", SIGNATURE, BODY, now));
        assert!(!signed(AT, SIGNATURE, BODY, now + 301));
        assert!(!signed(AT, SIGNATURE, BODY, now - 301));
        for bad in [
            "",
            "v0=",
            "v0=zz",
            "v1=a2114d57",
            &SIGNATURE[..60],
            &SIGNATURE[3..],
        ] {
            assert!(!signed(AT, bad, BODY, now), "{bad}");
        }
        for at in ["", "+1531420618", "1531420618 ", "-1"] {
            assert!(!signed(at, SIGNATURE, BODY, now), "{at}");
        }
        let signing = Signing::new(&SECRET.to_owned().into()).unwrap();
        assert!(!signing.signed(None, Some(SIGNATURE), BODY.as_bytes(), now));
        assert!(!signing.signed(Some(AT), None, BODY.as_bytes(), now));
        assert!(Signing::new(&"short".to_owned().into()).is_none());
    }

    #[test]
    fn a_payload_that_is_incomplete_asks_for_nothing() {
        let read = |json: &str| {
            let form = openidconnect::url::form_urlencoded::Serializer::new(String::new())
                .append_pair("payload", json)
                .finish();
            Payload::read(form.as_bytes())
        };
        assert!(read("{").is_none());
        assert!(Payload::read(b"payloads=1").is_none());
        let value = format!("{}/{}", ApprovalId::from_random(7), Digest::of(b"x"));
        let pressed = |action: &str, value: &str, container: &str| {
            read(&format!(
                r#"{{"type":"block_actions","user":{{"id":"U1","team_id":"T1"}},"actions":[{{"action_id":"{action}","value":"{value}"}}]{container}}}"#
            ))
            .unwrap()
            .asked()
        };
        let at = r#","container":{"message_ts":"1.2","channel_id":"C1"}"#;
        assert!(matches!(
            pressed(APPROVE, &value, at),
            Some(Asked::Approve { .. })
        ));
        let chosen = |action: &str, value: &str| match pressed(action, value, at) {
            Some(Asked::Approve { window, .. }) => window,
            other => panic!("{other:?}"),
        };
        assert_eq!(chosen(APPROVE, &value), None);
        let session = format!("{value}/session");
        assert_eq!(
            chosen("holdpoint.approve.0", &session),
            Some("session".to_owned())
        );
        assert_eq!(
            pressed("holdpoint.approved", &value, at),
            Some(Asked::Nothing)
        );
        assert_eq!(pressed(APPROVE, "nonsense", at), None);
        assert_eq!(pressed(APPROVE, &value, ""), None);
        // A modal needs a trigger.
        assert_eq!(pressed(DENY, &value, at), None);
        assert_eq!(pressed("other", "", ""), Some(Asked::Nothing));
    }
}
