//! The token of an earlier `holdpoint login`, renewed where it is near its end.
//!
//! A token that was obtained for one gateway is never shown to another. One process
//! refreshes, the others wait for it: an issuer that rotates refresh tokens takes a
//! second use for theft and ends the sign-in.

use holdpoint_core::secret::Secret;

use super::cache::{Cache, CacheError, Kept, Locked, Purpose};
use super::way::Way;
use crate::cli::client::LoginNeeded;
use crate::oidc::{Fault, Provider, unix};

/// Less than this is of no use to whoever asked.
const MIN_LEFT: u64 = 10;

/// Which token.
#[derive(Debug, Clone, Copy)]
pub(in crate::cli) struct Wanted<'a> {
    /// The gateway that it will be shown to, without a slash at the end; `None` if that is not known.
    pub(in crate::cli) server: Option<&'a str>,
    pub(in crate::cli) issuer: Option<&'a str>,
    pub(in crate::cli) client_id: Option<&'a str>,
    pub(in crate::cli) purpose: Purpose,
    /// It must have all of these.
    pub(in crate::cli) scopes: &'a [String],
}

impl Wanted<'_> {
    fn fits(&self, kept: &Kept) -> bool {
        let place = match (self.server, &kept.server) {
            // Whoever asks names no gateway, or it was obtained for any.
            (None, _) | (_, None) => true,
            (Some(server), Some(own)) => server == own,
        };
        place
            && self.issuer.is_none_or(|issuer| kept.issuer == issuer)
            && self.client_id.is_none_or(|client| kept.client_id == client)
            && kept.purpose == self.purpose
            && self.scopes.iter().all(|scope| kept.scopes.contains(scope))
    }

    fn command(&self) -> String {
        let mut command = String::from("holdpoint login");
        if self.purpose == Purpose::Review {
            command.push_str(" --review");
        }
        if let Some(server) = self.server {
            command.push_str(" --server ");
            command.push_str(server);
        }
        command
    }
}

/// A token that is good for a while.
///
/// # Errors
/// [`LoginNeeded`] where a person has to sign in; otherwise the file or the issuer fails.
pub(in crate::cli) async fn cached(wanted: &Wanted<'_>) -> anyhow::Result<Secret> {
    let cache = match Cache::find() {
        Ok(cache) => cache,
        // No home, no earlier sign-in.
        Err(CacheError::NoPlace) => return Err(needed(wanted, "no token").into()),
        Err(error) => return Err(error.into()),
    };
    let found = pick(&cache.read()?, wanted)?;
    if !found.is_stale(unix()) {
        return Ok(found.access);
    }
    if found.refresh.is_none() {
        return rest(found, wanted, "the token is at its end");
    }
    let locked = cache.lock().await?;
    // Somebody else may have renewed it while we waited.
    let found = pick(&locked.read()?, wanted)?;
    if !found.is_stale(unix()) {
        return Ok(found.access);
    }
    match renewed(&found).await {
        Ok(fresh) => {
            let access = fresh.access.clone();
            locked.keep(fresh)?;
            Ok(access)
        }
        Err(error) => match error.downcast_ref::<Fault>() {
            Some(Fault::Refused { code, .. })
                if ["invalid_grant", "invalid_client", "unauthorized_client"]
                    .contains(&code.as_str()) =>
            {
                give_up(&locked, &found)?;
                rest(found, wanted, &error.to_string())
            }
            // The issuer is away; what is left may do until it is back.
            _ if found.left(unix()) >= MIN_LEFT => Ok(found.access),
            _ => Err(error.context("cannot renew the token")),
        },
    }
}

/// The token for as long as it lasts, which is not long.
fn rest(found: Kept, wanted: &Wanted<'_>, why: &str) -> anyhow::Result<Secret> {
    if found.left(unix()) >= MIN_LEFT {
        return Ok(found.access);
    }
    Err(needed(wanted, why).into())
}

async fn renewed(old: &Kept) -> anyhow::Result<Kept> {
    let Some(token) = &old.refresh else {
        anyhow::bail!("there is no refresh token");
    };
    let way = Way {
        issuer: old.issuer.clone(),
        client_id: old.client_id.clone(),
        audience: old.audience.clone(),
        connect_scope: String::new(),
        review_scope: String::new(),
        server: old.server.clone(),
        ca: old.ca.clone(),
    };
    let provider = Provider::open(&way.client()).await?;
    let given = provider.refresh(token, &old.scopes).await?;
    Ok(Kept {
        access: given.access,
        issued: given.issued,
        expires: given.expires,
        // An issuer that does not rotate gives none.
        refresh: given.refresh.or_else(|| old.refresh.clone()),
        who: given.who.or_else(|| old.who.clone()),
        ..old.clone()
    })
}

/// The issuer will not renew it any more: nobody needs to ask again.
fn give_up(locked: &Locked<'_>, old: &Kept) -> Result<(), CacheError> {
    locked.keep(Kept {
        refresh: None,
        ..old.clone()
    })
}

/// The one that fits; the gateway's own before one for any.
fn pick(all: &[Kept], wanted: &Wanted<'_>) -> anyhow::Result<Kept> {
    let mut fit: Vec<&Kept> = all.iter().filter(|kept| wanted.fits(kept)).collect();
    if wanted.server.is_some() && fit.iter().any(|kept| kept.server.is_some()) {
        fit.retain(|kept| kept.server.is_some());
    }
    match fit.as_slice() {
        [] => Err(needed(wanted, "no token").into()),
        [one] => Ok((*one).clone()),
        several => {
            let mut places: Vec<String> = several
                .iter()
                .map(|kept| match &kept.server {
                    Some(server) => format!("`--server {server}` ({})", kept.issuer),
                    None => format!("`--issuer {}`", kept.issuer),
                })
                .collect();
            places.dedup();
            anyhow::bail!("several tokens fit; say which: {}", places.join(" or "))
        }
    }
}

fn needed(wanted: &Wanted<'_>, why: &str) -> LoginNeeded {
    LoginNeeded(format!("{why}\nhint: run `{}`", wanted.command()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn kept(issuer: &str, server: Option<&str>, purpose: Purpose) -> Kept {
        Kept {
            issuer: issuer.to_owned(),
            client_id: "cli".to_owned(),
            audience: None,
            purpose,
            server: server.map(str::to_owned),
            ca: None,
            scopes: vec!["holdpoint.connect".to_owned()],
            who: None,
            access: "x".to_owned().into(),
            issued: 0,
            expires: 0,
            refresh: None,
        }
    }

    fn wanted(server: Option<&str>) -> Wanted<'_> {
        Wanted {
            server,
            issuer: None,
            client_id: None,
            purpose: Purpose::Connect,
            scopes: &[],
        }
    }

    #[test]
    fn a_token_of_one_gateway_is_never_shown_to_another() {
        let all = [kept("i", Some("https://a.example"), Purpose::Connect)];
        assert!(pick(&all, &wanted(Some("https://a.example"))).is_ok());
        let error = pick(&all, &wanted(Some("https://b.example"))).unwrap_err();
        assert!(error.is::<LoginNeeded>());
        assert!(
            error
                .to_string()
                .contains("holdpoint login --server https://b.example")
        );
    }

    #[test]
    fn a_token_to_connect_with_does_not_stand_in_for_one_to_decide_with() {
        let all = [kept("i", None, Purpose::Connect)];
        let review = Wanted {
            purpose: Purpose::Review,
            ..wanted(None)
        };
        let error = pick(&all, &review).unwrap_err();
        assert!(error.to_string().contains("holdpoint login --review"));
    }

    #[test]
    fn the_gateways_own_token_goes_before_one_for_any_and_a_tie_is_an_error() {
        let all = [
            kept("any", None, Purpose::Connect),
            kept("own", Some("https://a.example"), Purpose::Connect),
        ];
        let own = pick(&all, &wanted(Some("https://a.example"))).unwrap();
        assert_eq!(own.issuer, "own");
        let any = pick(&all, &wanted(Some("https://b.example"))).unwrap();
        assert_eq!(any.issuer, "any");
        let error = pick(&all, &wanted(None)).unwrap_err().to_string();
        assert!(error.contains("--issuer any"), "{error}");
    }
}
