//! Sends test callbacks to an ingress, as the provider of a source would.

mod sample;

use std::net::SocketAddr;
use std::path::Path;

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, header};
use serde::Serialize;
use webhook_verify::{Callback, Unverified};
use zentra_config::{Config, Role};
use zentra_core::clock;
use zentra_core::source::Source;
use zentra_store::control::OperatorControl;

pub use self::sample::Samples;
use crate::audit::{Actor, Audited};
use crate::error::{AdminError, ErrorCode};
use crate::http_client::{Http, Made};

/// The environment of sources that receive no test callbacks.
pub const PRODUCTION: &str = "production";

/// What to send.
#[derive(Clone, Debug)]
pub struct TestCallback {
    /// A source, or a provider that exactly one source has.
    pub to: String,
    /// The type of the event. Required if there is no body.
    pub kind: Option<String>,
    /// The exact body, instead of a sample.
    pub body: Option<Vec<u8>>,
    /// The event's ID, if the provider sends it in a header. `None`: a new one.
    pub id: Option<String>,
    /// The address of the ingress, without `/in/…`. `None`: the one that the configuration names.
    pub url: Option<String>,
    /// Send to a source with `environment = "production"` too.
    pub force: bool,
}

/// A signed test callback.
#[derive(Debug, Serialize)]
pub struct Prepared {
    /// The source that it is for.
    pub source: String,
    /// Where it is sent.
    pub url: String,
    /// The type of the event.
    #[serde(rename = "type")]
    pub kind: Option<String>,
    /// The event's ID, as `zentra event show` takes it.
    pub event_id: Option<String>,
    #[serde(skip)]
    headers: HeaderMap,
    #[serde(skip)]
    body: Bytes,
}

impl Prepared {
    /// The headers, without those that every request has.
    pub fn headers(&self) -> &HeaderMap {
        &self.headers
    }

    /// The exact body.
    pub fn body(&self) -> &[u8] {
        &self.body
    }

    /// Sends it a number of times, until there is no response. Returns the responses: the status,
    /// and the reason if there is one; or why there is no response.
    ///
    /// # Errors
    ///
    /// If this machine cannot use TLS.
    pub async fn send(&self, times: u16) -> Result<Vec<String>, AdminError> {
        let (url, headers, body) = (self.url.clone(), self.headers.clone(), self.body.clone());
        let (http, made) = (Http::new()?, Made { url, headers, body });
        let mut answers = Vec::new();
        for _ in 0..times {
            answers.push(http.post(&made).await);
            if answers.last().is_some_and(|answer| answer.starts_with("no ")) {
                break;
            }
        }
        Ok(answers)
    }
}

/// Creates and signs a test callback for a source of the configuration in this file.
///
/// # Errors
///
/// The configuration is invalid, it has no such source, there is no such sample, or the provider
/// signs with a private key.
pub fn prepare(config: &Path, asked: &TestCallback) -> Result<Prepared, AdminError> {
    let config = Config::load(config, Role::Verification, &zentra_config::environment(), &[])?;
    prepare_with(&config, asked)
}

/// Sends a sample of a type to a source, which must be named exactly, and returns the answer. It is audited.
/// `ingress` is the address without `/in/…`; `None`: the one that the configuration names.
///
/// # Errors
///
/// [`ErrorCode::SourceNotFound`], and those of [`prepare`]: a source for production receives none.
pub async fn send(
    control: &impl OperatorControl,
    config: &Config,
    (source, kind): (&str, &str),
    ingress: Option<String>,
    actor: &Actor,
) -> Result<(Prepared, String), AdminError> {
    if !config.sources.iter().any(|one| one.name == source) {
        let message = format!("the configuration has no source {source}.");
        return Err(AdminError::new(ErrorCode::SourceNotFound, message).about(source));
    }
    let callback = TestCallback {
        to: source.to_owned(),
        kind: Some(kind.to_owned()),
        body: None,
        id: None,
        url: ingress,
        force: false,
    };
    let audited = Audited {
        control: Some(control),
        action: "source test",
        on: format!("{source} {kind}"),
        attribution: actor.attribution(),
    };
    let send = async {
        let prepared = prepare_with(config, &callback)?;
        let answer = prepared.send(1).await?.into_iter().next().unwrap_or_default();
        Ok((prepared, answer))
    };
    let said = |(prepared, answer): &(Prepared, String)| {
        format!("{answer} {}", prepared.event_id.as_deref().unwrap_or_default())
    };
    audited.run(send, said).await
}

/// As [`prepare`], with a configuration that has the sources' secrets.
fn prepare_with(config: &Config, asked: &TestCallback) -> Result<Prepared, AdminError> {
    let source = source(config, &asked.to)?;
    if source.environment == PRODUCTION && !asked.force {
        let message = format!("the source {} is marked as production (environment).", source.name);
        return Err(unusable(message).hint("Send to another source, or force it."));
    }
    let (id, kind, body) = event(source, asked)?;
    sign(config, source, asked, (&id, &kind, &body))
}

/// The source with this name, or the only one of this provider.
fn source<'c>(config: &'c Config, to: &str) -> Result<&'c Source, AdminError> {
    let names = |sources: &[&Source]| {
        sources.iter().map(|source| source.name.as_str()).collect::<Vec<_>>().join(", ")
    };
    let named = config.sources.iter().find(|source| source.name == to);
    let of: Vec<&Source> =
        config.sources.iter().filter(|source| source.endpoint.provider == to).collect();
    match (named, &of[..]) {
        (Some(source), _) => Ok(source),
        (None, [source]) => Ok(*source),
        (None, []) => {
            let all: Vec<&Source> = config.sources.iter().collect();
            let message = format!("the configuration has no source or provider {to}.");
            let hint = format!("Its sources are {}; zentra source add adds one.", names(&all));
            Err(AdminError::new(ErrorCode::SourceNotFound, message).about(to).hint(hint))
        }
        (None, several) => {
            let message = format!("{to} is the provider of several sources.");
            Err(unusable(message).hint(format!("Name one of them: {}.", names(several))))
        }
    }
}

/// ID, type and body.
fn event(source: &Source, asked: &TestCallback) -> Result<(String, String, Vec<u8>), AdminError> {
    let (provider, scheme) = (&source.endpoint.provider, &source.endpoint.scheme);
    let samples = Samples::of(provider);
    let now = clock::now();
    let new_id = || samples.as_ref().map_or_else(|| "evt_test".into(), |all| all.id(now));
    let kind = asked.kind.clone();
    if let Some(body) = &asked.body {
        let id = asked.id.clone().unwrap_or_else(new_id);
        return Ok((id, kind.unwrap_or_else(|| "test".into()), body.clone()));
    }
    let Some(samples) = &samples else {
        let all: Vec<&str> = Samples::providers().collect();
        let message = format!("there are no samples of {provider}.");
        let hint = format!("Give a body. There are samples of {}.", all.join(", "));
        return Err(unusable(message).hint(hint));
    };
    let found =
        kind.as_deref().and_then(|kind| samples.event(kind, scheme, asked.id.as_deref(), now));
    let Some(event) = found else {
        let types: Vec<&str> = samples.types().collect();
        let message = match &kind {
            Some(kind) => format!("there is no sample {kind} of {provider}."),
            None => "the type of the event is missing.".into(),
        };
        let hint =
            format!("The samples of {provider} are {}. Other types need a body.", types.join(", "));
        return Err(unusable(message).hint(hint));
    };
    Ok((event.id, kind.unwrap_or_default(), event.body))
}

fn sign(
    config: &Config,
    source: &Source,
    asked: &TestCallback,
    (id, kind, body): (&str, &str, &[u8]),
) -> Result<Prepared, AdminError> {
    let endpoint = &source.endpoint;
    let ingress = match &asked.url {
        Some(url) => checked(url)?,
        None => address(config.ingress.listen),
    };
    let address = format!("{}/in/{}", ingress.trim_end_matches('/'), source.name);
    let unfit =
        |what: &str| unusable(format!("cannot sign for the source {}: {what}.", source.name));
    let secret = endpoint.secrets.first().ok_or_else(|| unfit("it has no secret"))?;
    let url = endpoint.public_url.as_deref().unwrap_or(&address);
    let callback = Callback { id, kind, time: clock::now(), body, url };
    let signed = endpoint.scheme.sign(&secret.secret, &callback).map_err(|what| {
        unfit(&what.to_string()).hint("Let the provider send a test callback instead.")
    })?;
    let mut headers = signed.headers;
    let content_type = HeaderValue::from_static(endpoint.scheme.content_type());
    headers.entry(header::CONTENT_TYPE).or_insert(content_type);
    let unverified = Unverified {
        method: http::Method::POST,
        headers: headers.clone(),
        query: signed.query.clone(),
        peer: None,
        body: signed.body.clone(),
        received_at: clock::now(),
        receipt: 0,
    };
    // As the ingress reads it.
    let verified = unverified.verify_by(endpoint, None).ok();
    let event = verified.and_then(|verified| verified.into_events().into_iter().next());
    if let Some(event) = &event {
        let (found, wanted) = (event.event_type.as_deref(), asked.kind.as_deref());
        if wanted.is_some() && found != wanted {
            let found = found.unwrap_or("none");
            return Err(unusable(format!("the type of the event in the body is {found}."))
                .hint("Leave the type out, or change the body."));
        }
        let id = asked.id.as_deref();
        if id.is_some_and(|id| event.event_id().is_none_or(|found| !found.contains(id))) {
            return Err(unusable("the event would not have this ID.")
                .hint("It is in the body, or it has characters that an ID cannot have."));
        }
    }
    Ok(Prepared {
        source: source.name.clone(),
        url: match &signed.query {
            Some(query) => format!("{address}?{query}"),
            None => address,
        },
        kind: event.as_ref().and_then(|event| event.event_type.clone()),
        event_id: event.as_ref().and_then(|event| event.event_id().map(str::to_owned)),
        headers,
        body: signed.body,
    })
}

/// An address without user, path and query.
fn checked(url: &str) -> Result<String, AdminError> {
    let uri: Option<::http::Uri> = url.trim_end_matches('/').parse().ok();
    let fits = uri.is_some_and(|uri| {
        matches!(uri.scheme_str(), Some("http" | "https"))
            && uri.authority().is_some_and(|at| !at.as_str().contains('@') && !at.host().is_empty())
            && uri.path() == "/"
            && uri.query().is_none()
    });
    match fits {
        true => Ok(url.trim_end_matches('/').to_owned()),
        false => Err(unusable("the address of the ingress is no URL of this kind.")
            .hint("It is like http://127.0.0.1:8080: without a user, a path and a query.")),
    }
}

/// The address of an ingress that listens here, as this machine reaches it without TLS.
pub fn address(mut listen: SocketAddr) -> String {
    if listen.ip().is_unspecified() {
        listen.set_ip(std::net::Ipv4Addr::LOCALHOST.into());
    }
    format!("http://{listen}")
}

fn unusable(message: impl Into<String>) -> AdminError {
    AdminError::new(ErrorCode::InvalidRequest, message)
}
