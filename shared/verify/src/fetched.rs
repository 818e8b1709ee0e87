//! Published keys: which addresses belong to the provider.

use http::Uri;
use serde::Deserialize;
use subtle::ConstantTimeEq;

use super::place::{Location, Lookup};
use super::{NamedSecret, Refusal};

/// Where a provider publishes its keys.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Keys {
    /// Fixed address of a JSON Web Key Set (RFC 7517). It needs no other field, and no secrets.
    pub url: Option<String>,
    /// Place of the key's address in the callback. A sender can write anything there; `hosts`,
    /// `prefix` and `suffix` limit what is accepted.
    pub at: Option<Location>,
    /// Hosts of the provider. `*` is one label of letters, digits and hyphens. `{region}` is a
    /// label in the form of an AWS region (`us-gov-west-1`), because other services have labels
    /// there too (`BUCKET.s3.amazonaws.com`). A port can follow.
    #[serde(default)]
    pub hosts: Vec<String>,
    /// Required start of the path.
    #[serde(default)]
    pub prefix: String,
    /// Required end of the path.
    #[serde(default)]
    pub suffix: String,
    /// Place of a value that must be one of the endpoint's secrets. Needed if the signature doesn't
    /// show for which customer it is, because anyone can be a customer.
    pub pin: Option<Location>,
}

impl Keys {
    /// The address of a callback's key. A callback with another pin has none.
    pub(super) fn address(
        &self,
        found: &Lookup<'_>,
        secrets: &[NamedSecret],
    ) -> Result<Uri, Refusal> {
        if let Some(url) = &self.url {
            return url.parse().map_err(|_| Refusal::KeyNotAllowed);
        }
        if let Some(pin) = &self.pin {
            let whose = found.text(pin).ok_or(Refusal::SignatureMismatch)?;
            let is = |one: &NamedSecret| whose.as_bytes().ct_eq(one.secret.expose()).into();
            if !secrets.iter().any(is) {
                return Err(Refusal::SignatureMismatch);
            }
        }
        let text = self.at.as_ref().and_then(|at| found.text(at));
        let text = text.ok_or(Refusal::SignatureMissing)?;
        let address = text.parse::<Uri>().ok().filter(|uri| self.allows(uri));
        address.ok_or(Refusal::KeyNotAllowed)
    }

    /// Contradictions of a scheme's keys.
    pub(super) fn contradiction(&self, takes_secret: bool) -> Option<&'static str> {
        let https =
            |url: &String| url.parse::<Uri>().is_ok_and(|uri| uri.scheme_str() == Some("https"));
        match (&self.url, &self.at) {
            (Some(url), None) if !https(url) => Some("keys.url is an https:// address"),
            (Some(_), None) => None,
            (None, Some(_)) if self.hosts.is_empty() || !self.prefix.starts_with('/') => Some(
                "[keys] that the callback names need hosts, and a prefix that begins with /: what \
                 is believed",
            ),
            (None, Some(_)) if self.pin.is_some() == takes_secret => Some(
                "[keys] that the callback names need either pin or {secret} in signature.content: \
                 whose callback it is",
            ),
            (None, Some(_)) => None,
            _ => Some("[keys] has either url or at"),
        }
    }

    /// Whether an address belongs to this provider.
    fn allows(&self, uri: &Uri) -> bool {
        let path = uri.path();
        self.is_host(uri)
            && uri.query().is_none()
            && path.starts_with(&self.prefix)
            && path.ends_with(&self.suffix)
            && !path.contains("..")
            && path.bytes().all(unescaped)
    }

    /// Whether an address is at one of the provider's hosts: HTTPS, the expected port, no user.
    pub(super) fn is_host(&self, uri: &Uri) -> bool {
        let plain = uri.authority().is_some_and(|at| !at.as_str().contains('@'));
        let host = uri.host().unwrap_or_default();
        let port = uri.port().map(|port| port.as_str().to_owned());
        let fits = |pattern: &String| {
            let (pattern, wanted_port) = match pattern.split_once(':') {
                Some((host, port)) => (host, Some(port)),
                None => (pattern.as_str(), None),
            };
            if port.as_deref() != wanted_port {
                return false;
            }
            let (wanted, given) = (pattern.split('.'), host.split('.'));
            wanted.clone().count() == given.clone().count()
                && wanted.zip(given).all(|(wanted, given)| match wanted {
                    "*" => label(given),
                    "{region}" => region(given),
                    _ => wanted.eq_ignore_ascii_case(given),
                })
        };
        uri.scheme_str() == Some("https") && plain && self.hosts.iter().any(fits)
    }
}

/// RFC 3986, section 2.3, and `/`: what a server reads in one way only.
fn unescaped(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"-._~/".contains(&byte)
}

/// As all regions are named: words of letters, and a number
/// (<https://docs.aws.amazon.com/global-infrastructure/latest/regions/aws-regions.html>).
fn region(text: &str) -> bool {
    let words: Vec<&str> = text.split('-').collect();
    let [first, middle @ .., number] = &words[..] else { return false };
    let letters = |word: &str| word.len() > 1 && word.bytes().all(|byte| byte.is_ascii_lowercase());
    let number = number.len() <= 2 && number.parse::<u8>().is_ok();
    number && letters(first) && !middle.is_empty() && middle.iter().all(|word| letters(word))
}

fn label(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-')
}

#[cfg(test)]
mod tests {
    use http::HeaderMap;

    use super::*;
    use crate::Scheme;
    use crate::secret::Secret;

    #[test]
    fn no_key_is_fetched_for_a_callback_that_is_another_topics() {
        let keys = Scheme::named("aws-sns").and_then(|scheme| scheme.keys);
        let keys = keys.unwrap_or_else(|| panic!("no aws-sns"));
        let secret = Secret::new("arn:aws:sns:eu-west-1:1:shop");
        let secrets = [NamedSecret { name: "k".into(), secret }];
        let at = "https://sns.eu-west-1.amazonaws.com/SimpleNotificationService-1.pem";
        let address = |topic: &str| {
            let body = format!(r#"{{"TopicArn":"{topic}","SigningCertURL":"{at}"}}"#);
            keys.address(&Lookup::new(&HeaderMap::new(), None, body.as_bytes()), &secrets)
        };
        assert_eq!(address("arn:aws:sns:eu-west-1:1:shop").unwrap(), at);
        assert_eq!(address("arn:aws:sns:eu-west-1:2:shop"), Err(Refusal::SignatureMismatch));
    }

    #[test]
    fn only_the_providers_own_addresses_are_believed() {
        let scheme = Scheme::named("aws-sns").unwrap_or_else(|| panic!("no aws-sns"));
        let keys = scheme.keys.unwrap_or_else(|| panic!("it has no keys"));
        let allows = |text: &str| text.parse().is_ok_and(|uri| keys.allows(&uri));
        let own = "https://sns.eu-west-1.amazonaws.com/SimpleNotificationService-7ff5318490ec183fbaddaa2a969abfda.pem";
        assert!(allows(own));
        assert!(allows(&own.replace(".com/", ".com.cn/")));
        for region in ["us-gov-west-1", "ap-southeast-7", "us-iso-east-1", "eusc-de-east-1"] {
            assert!(allows(&own.replace("eu-west-1", region)), "{region}");
        }
        for other in [
            own.replace("https", "http"),
            own.replace(".com/", ".com:8443/"),
            own.replace(".com/", ".com.evil.example/"),
            own.replace("sns.", "evil.sns."),
            own.replace("sns.eu-west-1", "sns.eu_west"),
            own.replace("sns.eu-west-1.", "sns."),
            own.replace("https://", "https://user@"),
            own.replace("https://sns.", "https://evil.example\\@sns."),
            own.replace("https://sns.eu-west-1.amazonaws.com", "https://127.0.0.1"),
            own.replace("/Simple", "/../Simple"),
            own.replace(".pem", ".pem?x=1"),
            own.replace("eu-west-1", "s3"),
            own.replace("eu-west-1", "s3-eu-west-1"),
            own.replace("eu-west-1", "s3-website-eu-west-1"),
            own.replace("eu-west-1", "eu-west-1a"),
            own.replace("eu-west-1", "west-1"),
            own.replace("eu-west-1", "eu-west-"),
            own.replace("eu-west-1", "EU-west-1"),
            own.replace("Service-", "Service-%2e%2e%2f"),
            own.replace("Service-", "Service-%"),
            own.replace("Service-", "Service-;x="),
            own.replace(".pem", ".txt"),
            own.replace("/SimpleNotificationService-", "/bucket/"),
            own.replace("https://sns.eu-west-1.amazonaws.com", ""),
            String::new(),
        ] {
            assert!(!allows(&other), "{other}");
        }
    }
}
