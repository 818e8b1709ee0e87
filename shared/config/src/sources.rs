//! Reads sources and providers: whose callbacks are accepted, and by which secrets.

use std::collections::HashSet;
use std::time::Duration;

use http::StatusCode;

use super::Destination;
use super::reader::{Reader, destination_url};
use super::secrets::secret;
use super::section::Section;
use webhook_verify::Secret;
use webhook_verify::{Endpoint, IdNames, NamedSecret, Scheme, Success};
use zentra_core::redact::Redact;
use zentra_core::source::Source;

/// How long events are remembered beyond the provider's last retry, by default.
const SPARE: Duration = Duration::from_secs(86_400);

impl Reader<'_> {
    /// A list of `{ name, secret }`: at least one, each name once.
    pub(super) fn secrets(
        &self,
        section: &mut Section<'_>,
        key: &str,
        needed: bool,
    ) -> Vec<NamedSecret> {
        let mut found = Vec::new();
        let mut names = HashSet::new();
        let items = section.list(key);
        if items.is_empty() {
            section.problem(key, "needs at least one { name = \"…\", secret = \"env:NAME\" }");
        }
        for mut item in items {
            let name = item.text("name").unwrap_or_default();
            let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte);
            if name.is_empty() || name.len() > 64 || !name.bytes().all(plain) {
                item.problem("name", "must be 1 to 64 of A-Z, a-z, 0-9, -, _ and .");
            } else if !names.insert(name.clone()) {
                item.problem("name", "is used twice");
            }
            if let Some(secret) = secret(&mut item, "secret", self.environment, needed) {
                found.push(NamedSecret { name, secret });
            }
            item.finish();
        }
        found
    }

    /// `[provider.NAME]`: the user's own schemes.
    pub(super) fn providers(&self, root: &mut Section<'_>) -> Vec<(String, Scheme)> {
        let mut own = Vec::new();
        for (name, section) in root.named("provider") {
            match Scheme::from_toml(section.rest()) {
                Ok(scheme) => own.push((name, scheme)),
                Err(what) => root.problem(&format!("provider.{name}"), &what),
            }
        }
        own
    }

    pub(super) fn source(
        &self,
        name: String,
        mut section: Section<'_>,
        own: &[(String, Scheme)],
        retention: Duration,
    ) -> Option<Source> {
        let provider = section.text("provider").unwrap_or_default();
        let known = own.iter().find(|(known, _)| *known == provider);
        let scheme = known.map(|(_, scheme)| scheme.clone()).or_else(|| Scheme::named(&provider));
        if scheme.is_none() {
            let all = Scheme::names().collect::<Vec<_>>().join(", ");
            section.problem("provider", &format!("must be one of {all}, or a [provider.NAME]"));
        }
        let without = scheme.as_ref().is_some_and(Scheme::needs_no_secret);
        let secrets = match without && section.missing("secrets") {
            true => vec![NamedSecret { name: "published".into(), secret: Secret::new("") }],
            false => self.secrets(&mut section, "secrets", self.role.verifies()),
        };
        for (at, named) in secrets.iter().enumerate() {
            if scheme.as_ref().is_some_and(|scheme| !without && !scheme.accepts(&named.secret)) {
                let key = format!("secrets[{at}].secret");
                section.problem(&key, "does not have the form of this provider's secrets");
            }
        }
        let signs_url = scheme.as_ref().is_some_and(Scheme::signs_url);
        let should = "must be an http:// or https:// URL without user, password and query";
        let public_url = section.read("public_url", should, |value| public_url(value.as_str()?));
        if signs_url && public_url.is_none() {
            section
                .problem("public_url", "is missing: this provider signs the URL that it sends to");
        }
        let needs = scheme.as_ref().and_then(|scheme| scheme.max_body);
        let max_body = match section.missing("max_body") {
            true => section.size("max_body").max(needs.unwrap_or_default()),
            false => section.size("max_body"),
        };
        let trusts_id = self.identity(&mut section, scheme.as_ref());
        let retention = match section.missing("retention") {
            true => outlasting(scheme.as_ref()).max(retention),
            false => section.duration("retention"),
        };
        let archive = section.flag("archive");
        let redact = Redact::new(&section.texts("redact")).unwrap_or_else(|text| {
            let rule =
                "must be JSON pointers (/customer/email, /items/*/name), header:NAME or query:NAME";
            section.problem("redact", &format!("{rule}, and {text:?} is none of them"));
            Redact::default()
        });
        let environment = section.text_or_default("environment");
        let success = self.success(&mut section, scheme.as_ref());
        let asked = scheme.as_ref().is_some_and(Scheme::asks_for_token);
        let handshake_token = match (section.missing("handshake_token"), asked) {
            (true, _) => None,
            (false, true) => {
                secret(&mut section, "handshake_token", self.environment, self.role.verifies())
            }
            (false, false) => {
                section
                    .problem("handshake_token", "has no effect: this provider sends no such token");
                None
            }
        };
        section.finish();
        let (scheme, success) = (scheme?, success?);
        Some(Source {
            name,
            endpoint: Endpoint {
                provider,
                scheme,
                public_url,
                handshake_token,
                secrets,
                max_body,
                trusts_id,
            },
            retention,
            environment,
            archive,
            redact,
            success,
        })
    }

    /// Whether an unsigned ID is trusted.
    fn identity(&self, section: &mut Section<'_>, scheme: Option<&Scheme>) -> bool {
        let trusts = match &*section.text_or_default("identity") {
            "signed" => false,
            "id" => true,
            _ => {
                section.problem("identity", "must be \"signed\" or \"id\"");
                false
            }
        };
        if trusts && scheme.is_some_and(|scheme| scheme.id.is_none()) {
            section.problem("identity", "can't be \"id\": this provider sends none");
        }
        if trusts && scheme.is_some_and(|scheme| scheme.id_names == Some(IdNames::Resource)) {
            let rule = "can't be \"id\": this provider's id names what an event is about, so later \
                        events about it would be taken for copies";
            section.problem("identity", rule);
        }
        trusts
    }

    /// The response to an accepted callback.
    fn success(&self, section: &mut Section<'_>, scheme: Option<&Scheme>) -> Option<Success> {
        let own = scheme.and_then(|scheme| scheme.success.as_ref());
        if let Some(own) = own
            && section.missing("success_status")
            && section.missing("success_body")
        {
            return Some(own.success());
        }
        let given = !section.missing("success_body");
        let status = u16::try_from(section.integer("success_status")).ok()?;
        let status = StatusCode::from_u16(status).ok()?;
        let mut body = section.text_or_default("success_body");
        if matches!(status, StatusCode::NO_CONTENT | StatusCode::RESET_CONTENT) {
            if given && !body.is_empty() {
                section.problem("success_body", "must be empty, since success_status has no body");
            }
            body.clear();
        }
        Some(Success { status, body: body.into() })
    }

    /// Events must be remembered for longer than the provider or Zentra retries.
    pub(super) fn outlasts(
        &self,
        root: &Section<'_>,
        source: &Source,
        destinations: &[Destination],
    ) {
        let (name, retention) = (&source.name, source.retention);
        let key = format!("source.{name}.retention");
        if source.endpoint.scheme.retries.time().is_some_and(|horizon| retention <= horizon) {
            let rule = format!(
                "must be longer than {} sends its callbacks again, or a late copy would be taken \
                 for a new event",
                source.endpoint.provider
            );
            root.problem(&key, &rule);
        }
        let key = format!("{key} (or store.retention)");
        for destination in destinations.iter().filter(|to| to.can_take(name)) {
            if retention <= destination.retry.max_age {
                let to = &destination.name;
                let rule = format!(
                    "must be longer than destination.{to}.retry.max_age, or a delivery would \
                     be forgotten while it is still tried"
                );
                root.problem(&key, &rule);
            }
        }
    }
}

fn public_url(text: &str) -> Option<String> {
    let url = destination_url(text)?;
    url.query().is_none().then(|| text.to_owned())
}

/// Minimum time that a provider's events are remembered.
fn outlasting(scheme: Option<&Scheme>) -> Duration {
    let horizon = scheme.and_then(|scheme| scheme.retries.time());
    horizon.map_or(Duration::ZERO, |horizon| horizon.saturating_add(SPARE))
}
