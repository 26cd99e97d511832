//! A browser, as far as signing in needs one: cookies, redirects, forms. No script.

use std::collections::BTreeMap;

use http_body_util::{BodyExt as _, Full};
use hyper::body::Bytes;
use hyper::{Method, Request, StatusCode, Uri, header};
use hyper_util::client::legacy::Client;
use hyper_util::rt::TokioExecutor;

/// More would be a loop.
const MAX_REDIRECTS: usize = 10;

#[derive(Default)]
pub struct Browser {
    /// By authority, then by name.
    cookies: BTreeMap<String, BTreeMap<String, String>>,
}

/// What was found at the end of the redirects.
#[derive(Debug)]
pub struct Page {
    pub url: String,
    pub status: StatusCode,
    pub body: String,
}

/// A form with what it holds already.
#[derive(Debug)]
pub struct Form {
    pub action: String,
    pub fields: Vec<(String, String)>,
}

impl Browser {
    pub async fn open(&mut self, url: &str) -> Page {
        self.go(Method::GET, url, None).await
    }

    /// Sends the page's first form with these fields added, or in place of its own.
    pub async fn submit(&mut self, page: &Page, fields: &[(&str, &str)]) -> Page {
        let mut form = page.form();
        for (name, value) in fields {
            form.fields.retain(|(have, _)| have != name);
            form.fields.push(((*name).to_owned(), (*value).to_owned()));
        }
        self.post(&form).await
    }

    /// As [`Browser::submit`], of the form whose action ends with `action`.
    pub async fn submit_to(&mut self, page: &Page, action: &str, fields: &[(&str, &str)]) -> Page {
        let at = page.body.find(&format!("{action}\""));
        let at = at.unwrap_or_else(|| panic!("{} has no {action}: {}", page.url, page.body));
        let form = page.body[..at].rfind("<form").unwrap();
        let part = Page {
            url: page.url.clone(),
            status: page.status,
            body: page.body[form..].to_owned(),
        };
        self.submit(&part, fields).await
    }

    pub async fn post(&mut self, form: &Form) -> Page {
        let body: Vec<String> = form
            .fields
            .iter()
            .map(|(name, value)| format!("{}={}", encode(name), encode(value)))
            .collect();
        self.go(Method::POST, &form.action, Some(body.join("&")))
            .await
    }

    async fn go(&mut self, method: Method, url: &str, body: Option<String>) -> Page {
        let client = Client::builder(TokioExecutor::new()).build_http::<Full<Bytes>>();
        let (mut method, mut url, mut body) = (method, url.to_owned(), body);
        for _ in 0..MAX_REDIRECTS {
            let uri: Uri = url.parse().unwrap();
            let authority = uri.authority().unwrap().to_string();
            let jar = self.cookies.entry(authority.clone()).or_default();
            let cookies: Vec<_> = jar
                .iter()
                .map(|(name, value)| format!("{name}={value}"))
                .collect();
            let mut request = Request::builder().method(method.clone()).uri(&uri);
            if !cookies.is_empty() {
                request = request.header(header::COOKIE, cookies.join("; "));
            }
            if body.is_some() {
                request = request
                    .header(header::ORIGIN, format!("http://{authority}"))
                    .header(header::CONTENT_TYPE, "application/x-www-form-urlencoded");
            }
            let request = request
                .body(Full::from(body.take().unwrap_or_default()))
                .unwrap();
            let answer = client.request(request).await.unwrap();
            for cookie in answer.headers().get_all(header::SET_COOKIE) {
                let pair = cookie.to_str().unwrap().split(';').next().unwrap();
                let (name, value) = pair.split_once('=').unwrap();
                jar.insert(name.to_owned(), value.to_owned());
            }
            let to = answer.headers().get(header::LOCATION).cloned();
            let status = answer.status();
            if let (true, Some(to)) = (status.is_redirection(), to) {
                url = join(&uri, to.to_str().unwrap());
                method = Method::GET;
                continue;
            }
            let body = answer.into_body().collect().await.unwrap().to_bytes();
            return Page {
                url,
                status,
                body: String::from_utf8_lossy(&body).into_owned(),
            };
        }
        panic!("redirected without end, last to {url}");
    }
}

impl Page {
    /// Its text, without any markup.
    pub fn text(&self) -> String {
        let mut text = String::new();
        for part in self.body.split('<') {
            text.push_str(part.split_once('>').map_or(part, |(_, text)| text));
        }
        text
    }

    /// Its first form.
    #[track_caller]
    pub fn form(&self) -> Form {
        let start = self.body.find("<form").unwrap_or_else(|| {
            panic!("{} has no form: {}", self.url, self.body);
        });
        let html = &self.body[start..];
        let html = &html[..html.find("</form").unwrap_or(html.len())];
        let fields = html.split("<input").skip(1).filter_map(|tag| {
            let tag = &tag[..tag.find('>').unwrap_or(tag.len())];
            Some((
                attribute(tag, "name")?,
                attribute(tag, "value").unwrap_or_default(),
            ))
        });
        let tag = &html[..html.find('>').unwrap()];
        let action = attribute(tag, "action").unwrap_or_default();
        Form {
            action: join(&self.url.parse().unwrap(), &action),
            fields: fields.collect(),
        }
    }
}

impl Page {
    /// Where the first link leads that has `mark`, or comes after it where `mark` is
    /// outside of any link.
    #[track_caller]
    pub fn link(&self, mark: &str) -> String {
        let at = self.body.find(mark).unwrap_or_else(|| {
            panic!("{} has no {mark:?}: {}", self.url, self.body);
        });
        let before = &self.body[..at];
        let inside = before
            .rfind("<a ")
            .filter(|start| !before[*start..].contains("</a>"));
        let start = inside.unwrap_or_else(|| at + self.body[at..].find("<a ").unwrap());
        let tag = &self.body[start..];
        let tag = &tag[..tag.find('>').unwrap()];
        join(&self.url.parse().unwrap(), &attribute(tag, "href").unwrap())
    }
}

fn attribute(tag: &str, name: &str) -> Option<String> {
    let (_, rest) = tag.split_once(&format!("{name}=\""))?;
    let value = rest.split('"').next()?;
    Some(value.replace("&quot;", "\"").replace("&amp;", "&"))
}

fn join(base: &Uri, to: &str) -> String {
    if to.contains("://") {
        return to.to_owned();
    }
    let origin = format!("http://{}", base.authority().unwrap());
    match to {
        "" => base.to_string(),
        path => format!("{origin}{path}"),
    }
}

fn encode(text: &str) -> String {
    text.bytes()
        .map(|byte| match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'.' | b'_' => {
                char::from(byte).to_string()
            }
            _ => format!("%{byte:02X}"),
        })
        .collect()
}
