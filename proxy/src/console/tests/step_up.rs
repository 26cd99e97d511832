//! Signing in again, and security keys: what a page says, and what a form cannot get around.

use holdpoint_core::approval::{Draft, Verdict, challenge};
use holdpoint_core::decision::Window;
use holdpoint_core::record::Entry;
use holdpoint_core::webauthn::{Assertion, Credential, PublicKey, Registration, RelyingParty};

use super::*;
use crate::approvals::testing::identity;

/// The core's own authenticator for tests.
#[path = "../../../core/src/webauthn/testing.rs"]
mod authenticator;

use authenticator::Authenticator;

impl Site {
    async fn keyed(name: &str) -> (Self, Arc<SecurityKeys>) {
        let dir = std::env::temp_dir().join(format!("holdpoint-{name}-{}", std::process::id()));
        let _ = std::fs::remove_dir_all(&dir);
        std::fs::create_dir_all(&dir).unwrap();
        let keys = Arc::new(SecurityKeys::open(&dir, Authenticator::new().rp).unwrap());
        (Self::with_keys(Some(Arc::clone(&keys))).await, keys)
    }

    /// Gives the cookie of somebody who signed in so many seconds ago.
    fn signed_in_ago(&self, name: &str, seconds: u64) -> String {
        let at = self.desk.hands.now().unix() - seconds;
        self.signed_in(&format!("review-{name}@{at}"))
    }

    async fn holds(&self, draft: Draft) -> Waiter {
        let opened = self.desk.approvals.open(draft, self.desk.hands.now());
        opened.await.1.unwrap()
    }

    async fn post(&self, path: &str, cookie: &str, form: &str) -> (StatusCode, HeaderMap, String) {
        let headers = [
            ("cookie", cookie),
            ("origin", self.base.as_str()),
            ("content-type", "application/x-www-form-urlencoded"),
        ];
        self.call(Method::POST, path, &headers, form).await
    }

    async fn register(
        &self,
        cookie: &str,
        key: &Authenticator,
        name: &str,
    ) -> (StatusCode, String) {
        let (_, page) = self.get("/console/keys", cookie).await;
        let challenge = decoded(&attribute(&page, "data-challenge"));
        let made = key.registers(&challenge);
        let form = format!(
            "csrf=csrf&nonce={}&name={name}&authenticator_data={}&client_data={}",
            input(&page, "nonce"),
            made.authenticator_data,
            made.client_data
        );
        let (status, _, body) = self.post("/console/keys/add", cookie, &form).await;
        (status, body)
    }

    /// The form of the page to approve, signed by `key`.
    async fn signs(&self, id: &str, cookie: &str, key: &Authenticator) -> (String, Assertion) {
        let (_, page) = self
            .get(&format!("/console/approvals/{id}/approve"), cookie)
            .await;
        let nonce = input(&page, "nonce");
        let signed = key.signs(&decoded(&attribute(&page, "data-challenge")), &nonce);
        let form = format!(
            "csrf=csrf&digest={}&decision=approve",
            input(&page, "digest")
        );
        (form, signed)
    }
}

fn fields(signed: &Assertion) -> String {
    format!(
        "&nonce={}&credential={}&authenticator_data={}&client_data={}&signature={}",
        signed.nonce,
        signed.credential.id,
        signed.authenticator_data,
        signed.client_data,
        signed.signature
    )
}

#[track_caller]
fn attribute(page: &str, name: &str) -> String {
    let rest = page.split(&format!("{name}=\"")).nth(1);
    let rest = rest.unwrap_or_else(|| panic!("no {name}: {page}"));
    rest.split('"').next().unwrap().to_owned()
}

#[track_caller]
fn input(page: &str, name: &str) -> String {
    attribute(page, &format!("name=\"{name}\" value"))
}

fn decoded(text: &str) -> [u8; 32] {
    use base64::Engine as _;
    let bytes = base64::engine::general_purpose::URL_SAFE_NO_PAD.decode(text);
    bytes.unwrap().try_into().unwrap()
}

fn stepping_up(at: u128) -> Draft {
    let mut draft = draft("agent", "DROP TABLE t", at);
    draft.hold.step_up = Some(Duration::from_secs(300));
    draft
}

fn keyed(at: u128) -> Draft {
    let mut draft = draft("agent", "DROP TABLE t", at);
    draft.hold.webauthn = true;
    draft.hold.windows = vec![Window::For(Duration::from_secs(600))];
    draft
}

#[tokio::test]
async fn whoever_signed_in_long_ago_signs_in_again_and_comes_back() {
    let site = Site::start().await;
    let draft = stepping_up(1);
    let (id, digest) = (draft.id.to_string(), draft.digest.to_string());
    let _waiter = site.holds(draft).await;
    let form = format!("csrf=csrf&digest={digest}&decision=approve");
    for cookie in [
        site.signed_in("review-rita"),
        site.signed_in_ago("rita", 301),
    ] {
        let path = format!("/console/approvals/{id}/approve");
        let (status, page) = site.get(&path, &cookie).await;
        assert_eq!(status, StatusCode::OK);
        assert!(page.contains("Sign in again first"), "{page}");
        assert!(
            !page.contains("name=\"digest\""),
            "there is no form: {page}"
        );
        // Half of the time is left for reading.
        let next = format!("max_age=150&amp;next=%2Fconsole%2Fapprovals%2F{id}%2Fapprove");
        assert!(page.contains(&next), "{page}");
        // A form that was open before, or made up, gets no further.
        let path = format!("/console/approvals/{id}/decision");
        let (status, headers, _) = site.post(&path, &cookie, &form).await;
        assert_eq!(status, StatusCode::SEE_OTHER);
        assert_eq!(
            headers["location"],
            format!("/console/approvals/{id}/approve")
        );
        assert_eq!(site.state(&id), "pending");
    }
    let fresh = site.signed_in_ago("rita", 300);
    let (_, page) = site
        .get(&format!("/console/approvals/{id}/approve"), &fresh)
        .await;
    assert!(page.contains("Approve it"), "{page}");
    let (status, _) = site.vote(&id, &fresh, &site.base, &form).await;
    assert_eq!(status, StatusCode::SEE_OTHER);
    assert_eq!(site.state(&id), "approved");
}

#[tokio::test]
async fn a_denial_takes_no_new_sign_in_and_no_key() {
    let site = Site::start().await;
    for draft in [stepping_up(1), keyed(2)] {
        let (id, digest) = (draft.id.to_string(), draft.digest.to_string());
        let _waiter = site.holds(draft).await;
        let rita = site.signed_in("review-rita");
        let (_, page) = site
            .get(&format!("/console/approvals/{id}/deny"), &rita)
            .await;
        assert!(page.contains("Deny it"), "{page}");
        let form = format!("csrf=csrf&digest={digest}&decision=deny&reason=no");
        site.vote(&id, &rita, &site.base, &form).await;
        assert_eq!(site.state(&id), "denied");
        site.desk.hands.pass(Duration::from_secs(301));
    }
}

#[tokio::test]
async fn a_key_is_registered_after_a_sign_in_of_just_before_and_journalled() {
    let (site, keys) = Site::keyed("console-keys").await;
    let key = Authenticator::new();
    let old = site.signed_in_ago("rita", 301);
    let (_, page) = site.get("/console/keys", &old).await;
    assert!(page.contains("Sign in again to change them") && !page.contains("data-challenge"));
    let made = key.registers(&[0; 32]);
    let form = format!(
        "csrf=csrf&nonce=x&name=desk&authenticator_data={}&client_data={}",
        made.authenticator_data, made.client_data
    );
    let (status, ..) = site.post("/console/keys/add", &old, &form).await;
    assert_eq!(status, StatusCode::SEE_OTHER);
    // A challenge of one's own choosing is none.
    let rita = site.signed_in_ago("rita", 10);
    let (status, ..) = site.post("/console/keys/add", &rita, &form).await;
    assert_eq!(status, StatusCode::BAD_REQUEST);
    assert!(keys.of(&identity("rita")).is_empty());

    let (status, body) = site.register(&rita, &key, "desk").await;
    assert_eq!(status, StatusCode::SEE_OTHER, "{body}");
    let (_, page) = site.get("/console/keys", &rita).await;
    assert!(
        page.contains("desk") && page.contains("not used yet"),
        "{page}"
    );
    let entries = site.desk.ledger.all();
    let added = |entry: &Entry| matches!(entry, Entry::KeyAdded { name, .. } if name == "desk");
    assert!(entries.iter().any(added));
    // Not for a second person, and not without a PIN.
    let sam = site.signed_in_ago("sam", 10);
    let (status, body) = site.register(&sam, &key, "mine").await;
    assert!(
        status == StatusCode::FORBIDDEN && body.contains("registered already"),
        "{body}"
    );
    let mut weak = Authenticator::new();
    weak.flags = 0x01;
    let (status, body) = site.register(&sam, &weak, "weak").await;
    assert!(
        status == StatusCode::FORBIDDEN && body.contains("PIN"),
        "{body}"
    );

    let id = keys.of(&identity("rita"))[0].credential.id.clone();
    let form = format!("csrf=csrf&id={id}");
    let (status, ..) = site.post("/console/keys/remove", &sam, &form).await;
    assert_eq!(status, StatusCode::FORBIDDEN);
    let (status, ..) = site.post("/console/keys/remove", &rita, &form).await;
    assert_eq!(status, StatusCode::SEE_OTHER);
    assert!(keys.of(&identity("rita")).is_empty());
}

#[tokio::test]
async fn a_vote_is_signed_with_ones_own_key_and_the_signature_counts_once() {
    let (site, keys) = Site::keyed("console-votes").await;
    let (one, two) = (keyed(1), keyed(2));
    let ids = [one.id.to_string(), two.id.to_string()];
    let digest = one.digest.to_string();
    let _one = site.holds(one).await;
    site.desk.hands.pass(Duration::from_secs(1));
    let mut other = two;
    other.digest = holdpoint_core::id::Digest::of(b"another");
    let _two = site.holds(other).await;
    let (rita, sam) = (
        site.signed_in_ago("rita", 10),
        site.signed_in_ago("sam", 10),
    );
    let plain = format!("csrf=csrf&digest={digest}&decision=approve");
    let (status, page) = site
        .get(&format!("/console/approvals/{}/approve", ids[0]), &rita)
        .await;
    assert!(
        status == StatusCode::OK && page.contains("Register a security key"),
        "{page}"
    );
    let mut hers = Authenticator::new();
    let mut his = Authenticator::new();
    site.register(&rita, &hers, "hers").await;
    site.register(&sam, &his, "his").await;
    (hers.counter, his.counter) = (2, 2);

    let refused = async |cookie: &str, form: String, what: &str| {
        let (status, body) = site.vote(&ids[0], cookie, &site.base, &form).await;
        assert_eq!(status, StatusCode::FORBIDDEN, "{what}: {body}");
        assert!(body.contains("HP-SECURITY-KEY"), "{what}: {body}");
        assert_eq!(site.state(&ids[0]), "pending", "{what}");
    };
    refused(&rita, plain.clone(), "without a signature").await;
    let (form, signed) = site.signs(&ids[0], &rita, &his).await;
    refused(&rita, form + &fields(&signed), "with his key").await;
    let (form, signed) = site.signs(&ids[0], &rita, &hers).await;
    refused(&sam, form + &fields(&signed), "in his name").await;
    let (_, signed) = site.signs(&ids[1], &rita, &hers).await;
    refused(
        &rita,
        plain.clone() + &fields(&signed),
        "of another approval",
    )
    .await;
    let (form, signed) = site.signs(&ids[0], &rita, &hers).await;
    refused(&rita, form + "&window=10m" + &fields(&signed), "for longer").await;
    let (form, mut signed) = site.signs(&ids[0], &rita, &hers).await;
    signed.nonce = "0".repeat(64);
    refused(&rita, form + &fields(&signed), "with a number of her own").await;
    // For what nobody asked, though all of it is signed.
    let nonce = "n".to_owned();
    let id = ids[0].parse().unwrap();
    let own = challenge(
        &id,
        &digest.parse().unwrap(),
        Verdict::Approve,
        None,
        &nonce,
    );
    let signed = hers.signs(&own, &nonce);
    refused(&rita, plain.clone() + &fields(&signed), "made up").await;
    let mut weak = Authenticator::new();
    std::mem::swap(&mut weak, &mut hers);
    weak.flags = 0x01;
    let (form, signed) = site.signs(&ids[0], &rita, &weak).await;
    refused(&rita, form + &fields(&signed), "without a PIN").await;
    weak.flags = 0x05;
    hers = weak;
    hers.counter = 1;
    let (form, signed) = site.signs(&ids[0], &rita, &hers).await;
    refused(&rita, form + &fields(&signed), "with a copy of the key").await;
    site.desk.hands.pass(Duration::from_secs(1));
    hers.counter = 3;
    let (form, signed) = site.signs(&ids[0], &rita, &hers).await;
    let good = form + &fields(&signed);
    let (status, body) = site.vote(&ids[0], &rita, &site.base, &good).await;
    assert_eq!(status, StatusCode::SEE_OTHER, "{body}");
    assert_eq!(site.state(&ids[0]), "approved");
    assert_eq!(keys.of(&identity("rita"))[0].counter.0, 3);
    // The same once more: its number is used up.
    let (status, body) = site.vote(&ids[0], &rita, &site.base, &good).await;
    assert!(
        status == StatusCode::FORBIDDEN && body.contains("came before"),
        "{body}"
    );
    let view = site.desk.approvals.get(&ids[0].parse().unwrap()).unwrap();
    assert!(view.votes[0].webauthn);
    let (_, page) = site
        .get(&format!("/console/approvals/{}", ids[0]), &rita)
        .await;
    assert!(page.contains("signed by a security key"), "{page}");
}

#[tokio::test]
async fn a_window_is_signed_as_well() {
    let (site, _) = Site::keyed("console-windows").await;
    let draft = keyed(1);
    let (id, digest) = (draft.id.to_string(), draft.digest.to_string());
    let _waiter = site.holds(draft).await;
    let rita = site.signed_in_ago("rita", 10);
    let mut key = Authenticator::new();
    site.register(&rita, &key, "hers").await;
    key.counter = 2;
    let (_, page) = site
        .get(&format!("/console/approvals/{id}/approve"), &rita)
        .await;
    let option = page.split("<option value=\"10m\"").nth(1).unwrap();
    let signed = key.signs(
        &decoded(&attribute(option, "data-challenge")),
        &input(&page, "nonce"),
    );
    let form = format!(
        "csrf=csrf&digest={digest}&decision=approve&window=10m{}",
        fields(&signed)
    );
    let (status, body) = site.vote(&id, &rita, &site.base, &form).await;
    assert_eq!(status, StatusCode::SEE_OTHER, "{body}");
    assert_eq!(site.state(&id), "approved");
}
