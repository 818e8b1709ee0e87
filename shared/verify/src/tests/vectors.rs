use base64::Engine;
use base64::engine::general_purpose::STANDARD;

use super::schemes::own;
use super::*;

/// What the vendors' own SDKs have signed, or judged: see `tests/vectors/generate.mjs`.
#[derive(serde::Deserialize)]
pub(super) struct Vectors {
    provider: String,
    proof: String,
    /// `sdk`, or `document`.
    made_by: String,
    pub(super) secret: String,
    /// Where it is sent, if that is signed.
    url: Option<String>,
    /// POST, if it isn't said.
    method: Option<String>,
    /// The published key, if there is one.
    pub(super) key: Option<String>,
    pub(super) now: u64,
    pub(super) cases: Vec<Case>,
}

impl Vectors {
    pub(super) fn of(name: &str) -> Self {
        let path = format!("{}/../../tests/vectors/{name}.json", env!("CARGO_MANIFEST_DIR"));
        serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap()
    }
}

#[derive(serde::Deserialize)]
pub(super) struct Case {
    name: String,
    headers: std::collections::BTreeMap<String, String>,
    #[serde(default)]
    pub(super) body: String,
    /// Instead of `body`, if that isn't text.
    body_base64: Option<String>,
    pub(super) expect: String,
}

impl Case {
    fn sent(&self) -> bytes::Bytes {
        match &self.body_base64 {
            Some(text) => STANDARD.decode(text).unwrap().into(),
            None => self.body.clone().into(),
        }
    }
}

/// As the ingress does it: first whether the key's address is believed.
pub(super) fn judged(
    callback: &Unverified,
    endpoint: &Endpoint,
    key: Option<&Secret>,
) -> Result<Verified, Refusal> {
    callback.key_address(endpoint)?;
    callback.verify_by(endpoint, key)
}

#[test]
fn every_vector_of_the_vendors_sdks_is_judged_as_they_judge_it() {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/../../tests/vectors");
    let (mut proven, mut signing) = (Vec::new(), std::collections::BTreeSet::new());
    for file in std::fs::read_dir(folder).unwrap() {
        let path = file.unwrap().path();
        let name = path.file_name().unwrap().to_string_lossy().into_owned();
        if !name.ends_with(".json") || name.starts_with("package") {
            continue;
        }
        let vectors: Vectors = serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
        let mut endpoint = endpoint(&vectors.provider, &[&vectors.secret]);
        assert_eq!(endpoint.scheme.proof, Some(vectors.proof), "{name}");
        let signs = vectors.made_by == "sdk";
        assert!(!signs || endpoint.scheme.sdk_signs, "{name}");
        signing.extend(signs.then(|| vectors.provider.clone()));
        let addressed = endpoint.scheme.signs_url() || endpoint.scheme.needs_query();
        assert_eq!(addressed, vectors.url.is_some(), "{name}");
        let (url, query) = match vectors.url.as_deref().and_then(|url| url.split_once('?')) {
            Some((url, query)) => (Some(url.to_owned()), Some(query.to_owned())),
            None => (vectors.url, None),
        };
        let method = vectors.method.as_deref().unwrap_or("POST").parse::<Method>().unwrap();
        assert!(endpoint.scheme.methods.contains(&method), "{name}");
        endpoint.public_url = url;
        assert!(endpoint.scheme.accepts(&endpoint.secrets[0].secret), "{name}");
        assert!(vectors.cases.iter().any(|case| case.expect == "ok"), "{name}");
        for case in vectors.cases {
            let mut headers = HeaderMap::new();
            for (name, value) in &case.headers {
                let name = HeaderName::try_from(name).unwrap();
                headers.append(name, HeaderValue::from_str(value).unwrap());
            }
            let received_at = Timestamp::from_secs(vectors.now);
            let (query, body) = (query.clone(), case.sent());
            let callback = Unverified {
                method: method.clone(),
                headers,
                query,
                peer: None,
                body,
                received_at,
                receipt: 0,
            };
            let key = vectors.key.as_deref().map(Secret::new);
            let judged = match judged(&callback, &endpoint, key.as_ref()) {
                Ok(_) => "ok",
                Err(refusal) => refusal.reason(),
            };
            let refused = case.expect == "refused" && judged.starts_with("signature_");
            assert!(judged == case.expect || refused, "{name} {}: {judged}", case.name);
        }
        proven.push(vectors.provider);
    }
    let signs = |name: &&str| Scheme::named(name).is_some_and(|scheme| scheme.sdk_signs);
    assert!(Scheme::names().filter(signs).eq(signing.iter().map(String::as_str)), "{signing:?}");
    proven.sort();
    proven.dedup();
    let says_so = |name: &&str| Scheme::named(name).is_some_and(|scheme| scheme.proof.is_some());
    assert!(Scheme::names().filter(says_so).eq(proven.iter().map(String::as_str)), "{proven:?}");
}

/// Signed by OpenSSL: see `tests/vectors/primitives.mjs`.
#[derive(serde::Deserialize)]
struct Primitives {
    vector: Vec<Primitive>,
}

#[derive(serde::Deserialize)]
struct Primitive {
    algorithm: String,
    encoding: String,
    key: String,
    secret: String,
    body: String,
    signature: String,
    of_another: String,
}

#[test]
fn each_algorithm_encoding_and_key_format_fits_what_openssl_signs_and_nothing_else() {
    let text = include_str!("../../../../tests/vectors/primitives.toml");
    let Primitives { vector } = toml::from_str(text).unwrap();
    for one in vector {
        let Primitive { algorithm, encoding, key, secret, body, signature, of_another } = one;
        let scheme = own(&format!(
            "grammar = \"bare\"\nalgorithm = \"{algorithm}\"\nencoding = \"{encoding}\"\n\
             key = \"{key}\"\ncontent = \"{{body}}\""
        ));
        let endpoint = Endpoint { scheme: scheme.unwrap(), ..endpoint("github", &[&secret]) };
        let judge = |signature: &str, body: &str| {
            let callback = callback(body, T, &[("x-signature", signature)]);
            callback.verify(&endpoint).map(drop).map_err(Refusal::reason)
        };
        assert_eq!(judge(&signature, &body), Ok(()), "{algorithm} {encoding} {key}");
        let mismatch = Err("signature_mismatch");
        assert_eq!(judge(&of_another, &body), mismatch, "{algorithm} {encoding} {key}");
        assert_eq!(judge(&signature, &format!("{body} ")), mismatch, "{algorithm}");
        // Any of several secrets may fit; one of another form is no key.
        let form = endpoint.scheme.signature.key;
        assert!(form.accepts(&endpoint.secrets[0].secret) && !form.accepts(&Secret::new("")));
    }
}
