//! People and groups as configuration and rules name them.

use std::collections::BTreeMap;

use crate::decision::Reviewers;
use crate::principal::Identity;

/// `ISSUER|SUBJECT`, where the issuer is a name in the configuration.
pub(crate) fn person(text: &str, issuers: &BTreeMap<String, String>) -> Result<Identity, String> {
    let Some((name, subject)) = text
        .split_once('|')
        .filter(|(_, subject)| !subject.is_empty())
    else {
        return Err(format!(
            "`{text}` is no `ISSUER|SUBJECT`, such as `okta|00u1`"
        ));
    };
    let Some(issuer) = issuers.get(name) else {
        let names: Vec<String> = issuers.keys().map(|name| format!("`{name}`")).collect();
        let there_are = if names.is_empty() {
            "none".to_owned()
        } else {
            names.join(", ")
        };
        return Err(format!("there is no issuer `{name}`; there is {there_are}"));
    };
    Ok(Identity {
        issuer: issuer.clone(),
        subject: subject.to_owned(),
    })
}

/// `group:NAME` or `person:ISSUER|SUBJECT`.
pub(crate) fn reviewers(
    text: &str,
    issuers: &BTreeMap<String, String>,
) -> Result<Reviewers, String> {
    if let Some(group) = text
        .strip_prefix("group:")
        .filter(|group| !group.is_empty())
    {
        return Ok(Reviewers::Group(group.to_owned()));
    }
    if let Some(who) = text.strip_prefix("person:") {
        let Identity { issuer, subject } = person(who, issuers)?;
        return Ok(Reviewers::Person { issuer, subject });
    }
    Err(format!(
        "`{text}` is neither `group:NAME` nor `person:ISSUER|SUBJECT`"
    ))
}
