//! The catalogue: one file for each provider.

use std::collections::HashMap;
use std::sync::LazyLock;

use super::scheme::Scheme;

macro_rules! catalogue {
    ($($name:literal)*) => {
        /// In alphabetical order.
        const CATALOGUE: &[(&str, &str)] =
            &[$(($name, include_str!(concat!("../providers/", $name, ".toml")))),*];
    };
}

catalogue! {
    "adyen"
    "adyen-platform"
    "aftership"
    "airtable"
    "airwallex"
    "anthropic"
    "asana"
    "atlassian-connect"
    "attio"
    "auth0"
    "aws-sns"
    "bitbucket"
    "bitgo"
    "box"
    "braintree"
    "brex"
    "buildkite"
    "cal-com"
    "calendly"
    "cashfree"
    "chargebee"
    "checkout"
    "checkr"
    "circle"
    "circleci"
    "clerk"
    "clickup"
    "close"
    "cloudconvert"
    "cloudflare-notifications"
    "cloudflare-stream"
    "cloudinary"
    "coinbase-cdp"
    "coinbase-commerce"
    "commercelayer"
    "contentful"
    "creem"
    "customerio"
    "datadog"
    "deepgram"
    "discord"
    "docusign"
    "dodopayments"
    "dropbox"
    "dropbox-sign"
    "dwolla"
    "dyte"
    "easypost"
    "elevenlabs"
    "expo"
    "finch"
    "fingerprint"
    "flinks"
    "flutterwave"
    "flutterwave-v3"
    "front"
    "fusionauth"
    "getstream"
    "gitea"
    "github"
    "gitlab"
    "gitlab-signed"
    "gocardless"
    "google-channels"
    "google-pubsub"
    "gr4vy"
    "grafana"
    "helpscout"
    "heroku"
    "hookdeck"
    "hubspot"
    "hubspot-v1"
    "hubspot-v2"
    "huggingface"
    "imagekit"
    "increase"
    "intercom"
    "iron"
    "jira"
    "klarna"
    "klaviyo"
    "kontent-ai"
    "launchdarkly"
    "lemonsqueezy"
    "line"
    "linear"
    "lithic"
    "liveblocks"
    "livekit"
    "loops"
    "mailgun"
    "mandrill"
    "marqeta"
    "mercadopago"
    "messagebird"
    "meta"
    "metronome"
    "modern-treasury"
    "mollie"
    "monday"
    "moov"
    "ms-graph"
    "ms-teams"
    "mux"
    "nango"
    "netlify"
    "nmi"
    "notion"
    "okta"
    "onfido"
    "openai"
    "orb"
    "paddle"
    "pagerduty"
    "pandadoc"
    "paymongo"
    "paypal"
    "paystack"
    "persona"
    "pipedrive"
    "plaid"
    "plivo"
    "polar"
    "postmark"
    "privy"
    "pusher"
    "qonto"
    "qstash"
    "quickbooks"
    "razorpay"
    "recall-ai"
    "recurly"
    "render"
    "replicate"
    "resend"
    "retell"
    "revenuecat"
    "revolut"
    "sanity"
    "schematic"
    "seam"
    "segment"
    "sellsy"
    "sendgrid"
    "sentry"
    "shopify"
    "slack"
    "snyk"
    "sonarqube"
    "square"
    "standard-webhooks"
    "stripe"
    "supabase-auth"
    "surge"
    "svix"
    "tally"
    "telegram"
    "telnyx"
    "terra"
    "todoist"
    "trello"
    "truelayer"
    "twilio"
    "twitch"
    "typeform"
    "vercel"
    "viber"
    "vonage"
    "webex"
    "webflow"
    "whop"
    "wise"
    "woocommerce"
    "workos"
    "worldpay"
    "x-twitter"
    "xendit"
    "xero"
    "zendesk"
    "zoom"
}

/// Parsed once, at the first use.
static SCHEMES: LazyLock<HashMap<&str, Scheme>> = LazyLock::new(|| {
    let read = CATALOGUE
        .iter()
        .filter_map(|(name, text)| Some((*name, Scheme::from_toml(text.parse().ok()?).ok()?)));
    read.collect()
});

impl Scheme {
    /// The scheme of a provider in the catalogue.
    pub fn named(name: &str) -> Option<Self> {
        SCHEMES.get(name).cloned()
    }

    /// Names of all providers in the catalogue, in alphabetical order.
    pub fn names() -> impl Iterator<Item = &'static str> {
        CATALOGUE.iter().map(|(name, _)| *name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_entry_can_be_read_and_they_are_in_order() {
        for (name, text) in CATALOGUE {
            let read = Scheme::from_toml(text.parse().unwrap_or_default());
            assert!(read.is_ok(), "{name}: {}", read.unwrap_err());
        }
        assert!(CATALOGUE.is_sorted_by(|a, b| a.0 < b.0));
        assert!(Scheme::named("nobody").is_none());
    }
}
