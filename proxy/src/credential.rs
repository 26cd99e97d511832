//! Logging in at a target without the plugin seeing the password.
//!
//! The plugin relays the target's challenges; the answers are computed here:
//! `scram-sha-256` (RFC 5802 and 7677) and `md5` (PostgreSQL's). A target that wants
//! the password itself gets it through [`Credential::password`], written by the session.
//!
//! A target is not trusted: few iterations are refused (a listener could ask for
//! one, and guess the password at leisure), as are many (they burn CPU), and a SCRAM login counts
//! only once the target has proved that it knows the password too.
//! No channel binding yet, so a TLS certificate is what names the target.

use holdpoint_core::plugin::{AuthError, Exchange, UpstreamAuth};
use holdpoint_core::secret::Secret;
use postgres_protocol::authentication::md5_hash;
use postgres_protocol::authentication::sasl::{ChannelBinding, ScramSha256};

/// RFC 7677 asks for no less.
const MIN_ITERATIONS: u32 = 4096;

/// One login needs one; each costs thousands of hashes.
const MAX_EXCHANGES: u8 = 4;

/// No honest challenge is longer.
const MAX_CHALLENGE: usize = 4096;

/// An account at a target, for one session.
#[derive(Debug)]
pub struct Credential {
    user: String,
    password: Option<Secret>,
    left: u8,
}

impl Credential {
    pub fn new(user: impl Into<String>, password: Option<Secret>) -> Self {
        Self {
            user: user.into(),
            password,
            left: MAX_EXCHANGES,
        }
    }

    /// For a target that asks for the password itself.
    pub fn password(&self) -> Option<&Secret> {
        self.password.as_ref()
    }

    /// Called when login is over: nothing more is answered, and the password is wiped.
    pub fn close(&mut self) {
        self.left = 0;
        self.password = None;
    }
}

impl UpstreamAuth for Credential {
    fn username(&self) -> String {
        self.user.clone()
    }

    fn start(&mut self, mechanism: &str) -> Result<Box<dyn Exchange>, AuthError> {
        // Counted first: asking for nonsense is not free either.
        self.left = self.left.checked_sub(1).ok_or(AuthError::NoCredential)?;
        let password = self.password.as_ref().ok_or(AuthError::NoCredential)?;
        match mechanism {
            "scram-sha-256" => Ok(Box::new(Scram::Idle(password.clone()))),
            "md5" => Ok(Box::new(Md5(Some((self.user.clone(), password.clone()))))),
            _ => Err(AuthError::UnknownMechanism),
        }
    }
}

enum Scram {
    Idle(Secret),
    /// Waits for the target's nonce, salt and count; holds the length of our nonce.
    First(ScramSha256, usize),
    /// Waits for the target's proof.
    Final(ScramSha256),
    Over,
}

impl Exchange for Scram {
    fn step(&mut self, challenge: &[u8]) -> Result<Vec<u8>, AuthError> {
        if challenge.len() > MAX_CHALLENGE {
            *self = Self::Over;
            return Err(AuthError::BadChallenge);
        }
        // Whatever fails below leaves the exchange over.
        match std::mem::replace(self, Self::Over) {
            Self::Idle(password) if challenge.is_empty() => {
                let scram = ScramSha256::new(password.expose(), ChannelBinding::unsupported());
                let first = scram.message().to_vec();
                let nonce = field(&first, "r=").ok_or(AuthError::BadChallenge)?.len();
                *self = Self::First(scram, nonce);
                Ok(first)
            }
            Self::First(mut scram, ours) => {
                let iterations: u32 = field(challenge, "i=")
                    .and_then(|count| count.parse().ok())
                    .ok_or(AuthError::BadChallenge)?;
                let nonce = field(challenge, "r=").ok_or(AuthError::BadChallenge)?;
                let salt = field(challenge, "s=").ok_or(AuthError::BadChallenge)?;
                // A nonce that adds nothing to ours could be a replay.
                if iterations < MIN_ITERATIONS || nonce.len() <= ours || salt.is_empty() {
                    return Err(AuthError::Weak);
                }
                scram
                    .update(challenge)
                    .map_err(|_| AuthError::BadChallenge)?;
                let answer = scram.message().to_vec();
                *self = Self::Final(scram);
                Ok(answer)
            }
            Self::Final(mut scram) => {
                scram
                    .finish(challenge)
                    .map_err(|_| AuthError::PeerNotVerified)?;
                Ok(Vec::new())
            }
            Self::Idle(_) | Self::Over => Err(AuthError::BadChallenge),
        }
    }
}

/// The value of a SCRAM attribute.
fn field<'a>(message: &'a [u8], name: &str) -> Option<&'a str> {
    let text = std::str::from_utf8(message).ok()?;
    text.split(',').find_map(|part| part.strip_prefix(name))
}

/// User and password until the one challenge is answered.
struct Md5(Option<(String, Secret)>);

impl Exchange for Md5 {
    fn step(&mut self, challenge: &[u8]) -> Result<Vec<u8>, AuthError> {
        let (user, password) = self.0.take().ok_or(AuthError::BadChallenge)?;
        let salt: [u8; 4] = challenge.try_into().map_err(|_| AuthError::BadChallenge)?;
        Ok(md5_hash(user.as_bytes(), password.expose(), salt).into_bytes())
    }
}

#[cfg(test)]
mod tests {
    use base64::Engine as _;
    use base64::engine::general_purpose::STANDARD;
    use sha2::{Digest as _, Sha256};

    use super::*;

    fn hmac(key: &[u8], message: &[u8]) -> [u8; 32] {
        let pad = |with: u8| {
            let mut block = [with; 64];
            block.iter_mut().zip(key).for_each(|(b, k)| *b ^= k);
            block
        };
        let inner = Sha256::new()
            .chain_update(pad(0x36))
            .chain_update(message)
            .finalize();
        Sha256::new()
            .chain_update(pad(0x5c))
            .chain_update(inner)
            .finalize()
            .into()
    }

    /// The target's side: checks the proof and gives its own, from RFC 5802's formulas.
    struct Server {
        salted: [u8; 32],
        first: String,
    }

    impl Server {
        fn new(password: &[u8], nonce: &str, salt: &str, iterations: u32) -> Self {
            let salt_bytes = [&STANDARD.decode(salt).unwrap()[..], &[0, 0, 0, 1]].concat();
            let mut block = hmac(password, &salt_bytes);
            let mut salted = block;
            for _ in 1..iterations {
                block = hmac(password, &block);
                salted.iter_mut().zip(block).for_each(|(s, b)| *s ^= b);
            }
            Self {
                salted,
                first: format!("r={nonce},s={salt},i={iterations}"),
            }
        }

        /// Gives the server's final message, or nothing for a wrong proof.
        fn finish(&self, client_first_bare: &str, client_final: &str) -> Option<String> {
            let (bare, proof) = client_final.rsplit_once(",p=").unwrap();
            let message = format!("{client_first_bare},{},{bare}", self.first);
            let client_key = hmac(&self.salted, b"Client Key");
            let stored: [u8; 32] = Sha256::digest(client_key).into();
            let mut expected = hmac(&stored, message.as_bytes());
            expected
                .iter_mut()
                .zip(client_key)
                .for_each(|(e, k)| *e ^= k);
            let proof = STANDARD.decode(proof).unwrap();
            let server_key = hmac(&self.salted, b"Server Key");
            let verifier = STANDARD.encode(hmac(&server_key, message.as_bytes()));
            (proof == expected).then(|| format!("v={verifier}"))
        }
    }

    const SALT: &str = "W22ZaJ0SNY7soEsUEjb6gQ==";

    fn credential() -> Credential {
        Credential::new("app", Some(Secret::from("pencil".to_owned())))
    }

    /// The client's first message without its header, and what the target says to it.
    fn begin(exchange: &mut dyn Exchange, password: &str, iterations: u32) -> (String, Server) {
        let first = String::from_utf8(exchange.step(b"").unwrap()).unwrap();
        let bare = first.strip_prefix("n,,").unwrap().to_owned();
        let nonce = format!("{}server", bare.strip_prefix("n=,r=").unwrap());
        (
            bare,
            Server::new(password.as_bytes(), &nonce, SALT, iterations),
        )
    }

    #[test]
    fn the_test_target_agrees_with_rfc_7677() {
        let nonce = "rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0";
        let server = Server::new(b"pencil", nonce, SALT, 4096);
        let client_final =
            format!("c=biws,r={nonce},p=dHzbZapWIk4jUhN+Ute9ytag9zjfMHgsqmmiz7AndVQ=");
        assert_eq!(
            server
                .finish("n=user,r=rOprNGfwEbeRWgbNEkqO", &client_final)
                .unwrap(),
            "v=6rriTRBi23WpRR/wtup+mMhUZUn/dB5nLTJRsjl95G4="
        );
    }

    #[test]
    fn a_scram_login_convinces_both_sides() {
        let mut credential = credential();
        let mut exchange = credential.start("scram-sha-256").unwrap();
        let (bare, server) = begin(&mut *exchange, "pencil", 4096);
        let proof = String::from_utf8(exchange.step(server.first.as_bytes()).unwrap()).unwrap();
        let last = server
            .finish(&bare, &proof)
            .expect("the target is convinced");
        assert_eq!(exchange.step(last.as_bytes()), Ok(Vec::new()));
        assert_eq!(
            exchange.step(b""),
            Err(AuthError::BadChallenge),
            "it is over"
        );
    }

    #[test]
    fn a_target_that_does_not_know_the_password_is_not_logged_in_to() {
        let mut credential = credential();
        let mut exchange = credential.start("scram-sha-256").unwrap();
        let (_, server) = begin(&mut *exchange, "guess", 4096);
        exchange.step(server.first.as_bytes()).unwrap();
        let claimed = format!("v={}", STANDARD.encode([7; 32]));
        assert_eq!(
            exchange.step(claimed.as_bytes()),
            Err(AuthError::PeerNotVerified)
        );
        for last in ["", "v=", "e=invalid-proof", "v=x,y=z"] {
            let mut exchange = self::credential().start("scram-sha-256").unwrap();
            let (_, server) = begin(&mut *exchange, "guess", 4096);
            exchange.step(server.first.as_bytes()).unwrap();
            assert_eq!(
                exchange.step(last.as_bytes()),
                Err(AuthError::PeerNotVerified),
                "{last}"
            );
        }
    }

    #[test]
    fn a_challenge_that_would_give_the_password_away_is_not_answered() {
        for iterations in [0, 1, 4095] {
            let mut exchange = credential().start("scram-sha-256").unwrap();
            let (_, server) = begin(&mut *exchange, "pencil", iterations);
            assert_eq!(exchange.step(server.first.as_bytes()), Err(AuthError::Weak));
            assert_eq!(
                exchange.step(server.first.as_bytes()),
                Err(AuthError::BadChallenge)
            );
        }
    }

    #[test]
    fn a_nonce_that_adds_nothing_is_not_answered() {
        let mut exchange = credential().start("scram-sha-256").unwrap();
        let (bare, _) = begin(&mut *exchange, "pencil", 1);
        let nonce = bare.strip_prefix("n=,r=").unwrap();
        let echo = format!("r={nonce},s={SALT},i=4096");
        assert_eq!(exchange.step(echo.as_bytes()), Err(AuthError::Weak));
    }

    #[test]
    fn nonsense_ends_the_exchange() {
        let million = format!("r=x,s={SALT},i=1000000");
        let long = vec![b'x'; 5000];
        for challenge in [
            &b""[..],
            b"\xff\xfe",
            b"r=other,s=AAAA,i=4096",
            b"i=4096",
            b"r=x,s=,i=4096",
            b"m=ext,r=x,s=AAAA,i=4096",
            million.as_bytes(),
            &long,
        ] {
            let mut exchange = credential().start("scram-sha-256").unwrap();
            exchange.step(b"").unwrap();
            assert!(exchange.step(challenge).is_err());
            assert_eq!(exchange.step(b""), Err(AuthError::BadChallenge));
        }
    }

    #[test]
    fn nonces_are_not_used_twice() {
        let first = || {
            credential()
                .start("scram-sha-256")
                .unwrap()
                .step(b"")
                .unwrap()
        };
        assert_ne!(first(), first());
    }

    #[test]
    fn md5_answers_as_postgresql_expects_and_once() {
        let mut credential = Credential::new("md5_user", Some("password".to_owned().into()));
        let mut exchange = credential.start("md5").unwrap();
        let answer = exchange.step(&[0x2a, 0x3d, 0x8f, 0xe0]).unwrap();
        assert_eq!(answer, b"md562af4dd09bbb41884907a838a3233294");
        assert_eq!(exchange.step(&[0; 4]), Err(AuthError::BadChallenge));
        let mut exchange = credential.start("md5").unwrap();
        assert_eq!(exchange.step(&[0; 5]), Err(AuthError::BadChallenge));
    }

    #[test]
    fn logins_are_few_and_end_with_login() {
        let mut credential = credential();
        for _ in 0..4 {
            assert!(credential.start("md5").is_ok());
        }
        assert_eq!(credential.start("md5").err(), Some(AuthError::NoCredential));
        let mut closed = self::credential();
        closed.close();
        assert_eq!(closed.start("md5").err(), Some(AuthError::NoCredential));
        assert!(closed.password().is_none());
    }

    #[test]
    fn what_is_not_configured_or_not_known_is_refused() {
        let mut none = Credential::new("app", None);
        assert_eq!(none.start("md5").err(), Some(AuthError::NoCredential));
        let unknown = credential().start("scram-sha-1").err();
        assert_eq!(unknown, Some(AuthError::UnknownMechanism));
        assert!(!format!("{:?}", credential()).contains("pencil"));
    }
}
