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

/// Who may decide what a rule holds: `group:NAME`, `person:ISSUER|SUBJECT`, `owner` or
/// `oncall:NAME`.
pub(super) fn deciders(
    text: &str,
    issuers: &BTreeMap<String, String>,
) -> Result<Reviewers, String> {
    if text == "owner" {
        return Ok(Reviewers::Owner);
    }
    match text.strip_prefix("oncall:") {
        Some("") => Err("`oncall:` needs the name of a `[review.oncall.NAME]`".to_owned()),
        Some(list) => Ok(Reviewers::OnCall(list.to_owned())),
        None if text.starts_with("group:") || text.starts_with("person:") => {
            reviewers(text, issuers)
        }
        None => Err(format!(
            "`{text}` is none of `group:NAME`, `person:ISSUER|SUBJECT`, `owner` and `oncall:NAME`"
        )),
    }
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
