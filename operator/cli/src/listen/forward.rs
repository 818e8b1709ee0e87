//! Requests to the application on this machine.

use std::fmt;
use std::time::{Duration, Instant};

use http::{Method, Request, StatusCode, Uri};
use http_body_util::Full;
use tokio::time::timeout;
use webhook_verify::NamedSecret;
use webhook_verify::standard_webhooks::standard_webhooks;
use zentra_core::clock;
use zentra_telemetry::chain;

use super::api::{Event, HttpClient, http_client};
use crate::failure::Failure;

/// Time limit of a request: shorter than the usual lease.
const LIMIT: Duration = Duration::from_secs(30);

/// What became of a request.
pub(super) enum Outcome {
    Answered(StatusCode),
    /// There was no answer.
    Failed(String),
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Answered(status) => write!(f, "{}", status.as_u16()),
            Self::Failed(error) => f.write_str(error),
        }
    }
}

/// Whether no retry can help, as for a destination with a `url`.
pub(super) fn is_permanent(status: StatusCode) -> bool {
    matches!(status.as_u16(), 400 | 410 | 413 | 415 | 422)
}

pub(super) struct Application {
    client: HttpClient,
    url: Uri,
    keys: Vec<NamedSecret>,
}

impl Application {
    pub(super) fn new(url: Uri, keys: Vec<NamedSecret>) -> Result<Self, Failure> {
        Ok(Self { client: http_client()?, url, keys })
    }

    /// Sends an event once. Redirects are not followed.
    pub(super) async fn forward(&self, event: &Event) -> Outcome {
        let mut request = Request::builder().method(Method::POST).uri(&self.url);
        for [name, value] in &event.headers {
            request = request.header(name.as_str(), value.as_bytes());
        }
        let key = &event.idempotency_key;
        if !self.keys.is_empty() {
            for (name, value) in standard_webhooks(&self.keys, key, clock::now(), &event.body) {
                request = request.header(name, value);
            }
        }
        let request = match request.body(Full::new(event.body.clone())) {
            Ok(request) => request,
            Err(error) => return Outcome::Failed(format!("cannot make the request: {error}")),
        };
        let started = Instant::now();
        match timeout(LIMIT, self.client.request(request)).await {
            Ok(Ok(answer)) => Outcome::Answered(answer.status()),
            Ok(Err(error)) => {
                let cause = chain(&error).last().map_or_else(String::new, ToString::to_string);
                Outcome::Failed(format!("no answer: {cause}"))
            }
            Err(_) => {
                Outcome::Failed(format!("no answer within {} s", started.elapsed().as_secs()))
            }
        }
    }
}
